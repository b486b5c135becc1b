"""Signatures of thinking: a proof, to be shown when a thinking block comes back, that we wrote it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets


class Signer:
    """HMAC-SHA256 over a thinking block's text. The key lives as long as the process unless one is given."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or secrets.token_bytes(32)

    def sign(self, thinking: str) -> str:
        digest = hmac.new(self._key, thinking.encode(), hashlib.sha256).digest()
        return base64.b64encode(digest).decode("ascii")

    def valid(self, thinking: str, signature: str) -> bool:
        return hmac.compare_digest(self.sign(thinking).encode(), signature.encode())
