"""API keys and what each may do.

A YAML file:

    keys:
      - {name: alice, key: a-long-secret, scopes: [generate, embed]}
      - {name: prometheus, sha256: 9f86d0..., scopes: [metrics]}

or the environment variable GLASSHOUSE_API_KEYS: keys with a comma between them, each may do everything.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, ValidationError, model_validator

from glasshouse.core.config import Config, load_yaml
from glasshouse.core.errors import ConfigError, UsageError

Scope = Literal["generate", "embed", "tokenize", "metrics"]
"""Text in either dialect; vectors; the tokenizer's routes; /metrics. The models' names need any key."""

VARIABLE = "GLASSHOUSE_API_KEYS"

SHORTEST = 16
"""Characters of a key: a shorter one could be guessed."""


@dataclass(frozen=True)
class ApiKey:
    """A known key. The key itself is not kept, only its SHA-256."""

    name: str
    digest: bytes
    scopes: frozenset[Scope]


class _KeyEntry(Config):
    name: str = Field(min_length=1)
    key: str | None = Field(None, min_length=SHORTEST)
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    scopes: tuple[Scope, ...] = get_args(Scope)

    @model_validator(mode="after")
    def _one_of_them(self) -> _KeyEntry:
        if (self.key is None) == (self.sha256 is None):
            raise ValueError("give either key or sha256")
        return self


class _KeysFile(Config):
    keys: tuple[_KeyEntry, ...] = Field(min_length=1)


class Keys:
    """All keys of a server; none at all means that everybody may do everything."""

    def __init__(self, keys: list[ApiKey] | None = None) -> None:
        self._keys = keys or []

    @classmethod
    def load(cls, file: Path | None, environment: Mapping[str, str] = os.environ) -> Keys:
        """Keys of a file and of the environment. Raises ConfigError that never shows a key."""
        keys: list[ApiKey] = []
        if file is not None:
            try:
                entries = _KeysFile.model_validate(load_yaml(file)).keys
            except ValidationError as error:  # told without what stands there: it may be a key
                first = error.errors(include_input=False)[0]
                place = ".".join(map(str, first["loc"]))
                raise ConfigError(f"'{place}': {first['msg']}", where=file) from None
            for entry in entries:
                digest = bytes.fromhex(entry.sha256) if entry.sha256 else _digest(entry.key or "")
                keys.append(ApiKey(entry.name, digest, frozenset(entry.scopes)))
        given = [text.strip() for text in environment.get(VARIABLE, "").split(",") if text.strip()]
        for place, text in enumerate(given, 1):
            if len(text) < SHORTEST:
                raise ConfigError(
                    f"key {place} has fewer than {SHORTEST} characters",
                    where=VARIABLE,
                    fix="use a longer one",
                )
            keys.append(ApiKey(f"environment-{place}", _digest(text), frozenset(get_args(Scope))))
        return cls(keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, secret: str) -> ApiKey | None:
        """The key that this secret is. Every key is compared, each in constant time."""
        digest, found = _digest(secret), None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


def check_address(host: str, keys: Keys) -> None:
    """Raise UsageError where others than this machine could connect and no key protects the server."""
    if not keys and not is_loopback(host):
        raise UsageError(
            f"others could reach {host}, and no API key is set",
            fix=f"set {VARIABLE}, or name a file with --keys, or listen on 127.0.0.1",
        )


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a name: whatever it resolves to, it is not known to be this machine
        return False


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", errors="surrogateescape")).digest()
