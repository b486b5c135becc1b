"""Text to token ids and back: byte-level BPE and SentencePiece, special tokens, the chat template."""

from glasshouse.tokenizer.special_tokens import SPECIAL_TOKENS
from glasshouse.tokenizer.tokenizer import ChatTokens, Tokenizer

__all__ = ["SPECIAL_TOKENS", "ChatTokens", "Tokenizer"]
