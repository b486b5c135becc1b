"""Text out of a model: the engine, sampling, grammars, scores, streaming, chat."""

from glasshouse.inference.chat import ChatStream, Reply
from glasshouse.inference.language_model import LanguageModel
from glasshouse.inference.sampling import Sampling

__all__ = ["ChatStream", "LanguageModel", "Reply", "Sampling"]
