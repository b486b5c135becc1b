"""Tokens and their log-probabilities as people and programs outside can read them."""

from __future__ import annotations

import math

from glasshouse.tokenizer import Tokenizer

LOWEST = -9999.0
"""OpenAI's word for impossible; JSON has no infinity."""


def token_name(token: bytes) -> str:
    """A token as text. One that is not whole characters is spelled out, so that no two look the same.

    >>> token_name(b"owl"), token_name(b"\\xf0\\x9f")
    ('owl', 'bytes:\\\\xf0\\\\x9f')
    """
    try:
        return token.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)


def token_bytes(tokenizer: Tokenizer, token: int) -> bytes:
    """Its bytes; none for a row of the embedding that fills it up to a round number."""
    return tokenizer.token_bytes(token) if token < tokenizer.vocab_size else b""


def finite(logprob: float) -> float:
    return logprob if math.isfinite(logprob) else LOWEST
