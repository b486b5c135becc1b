"""Text out of a model: KV cache, sampling, batched decoding, scores, streaming, chat."""

from glasshouse.inference.cache import KVCache
from glasshouse.inference.chat import ChatStream, Reply
from glasshouse.inference.language_model import LanguageModel
from glasshouse.inference.sampling import Sampling

__all__ = ["ChatStream", "KVCache", "LanguageModel", "Reply", "Sampling"]
