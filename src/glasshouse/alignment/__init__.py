"""From a language model to an assistant: fine-tuning, reward models, DPO, GRPO, PPO."""

from glasshouse.alignment.sft import SFTConfig, sft

__all__ = ["SFTConfig", "sft"]
