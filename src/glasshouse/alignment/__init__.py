"""From a language model to an assistant: supervised fine-tuning. (Preferences and principles come later.)"""

from glasshouse.alignment.sft import SFTConfig, sft

__all__ = ["SFTConfig", "sft"]
