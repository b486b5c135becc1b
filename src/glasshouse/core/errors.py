"""The error family. A user's mistake raises one of these; `assert` is for our own mistakes.

GlasshouseError                 exit code 1: something failed; the message says what, where and what to do
├── UsageError                  exit code 2: the command was used wrongly
│   └── ConfigError             a recipe, a config key or a value
├── DataError                   a file, a row, a shape of data
├── ModelError                  a model or tokenizer folder
├── StorageError                disk full, no permission, a folder in use
├── MissingExtraError           an optional package is not installed
└── InterruptedRunError         stopped on request; the same command continues
"""

from __future__ import annotations


class GlasshouseError(Exception):
    """One clear line: what went wrong, where, and the fix.

    >>> str(GlasshouseError("the file is empty", where="chats.jsonl", fix="name a file with rows"))
    'the file is empty (chats.jsonl). Fix: name a file with rows.'
    """

    exit_code = 1

    def __init__(self, what: str, *, where: object = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        line = what.rstrip(".")
        if where is not None:
            line += f" ({where})"
        if fix is not None:
            line += f". Fix: {fix.rstrip('.')}."
        super().__init__(" ".join(line.split()))


class UsageError(GlasshouseError):
    exit_code = 2


class ConfigError(UsageError):
    """An unknown key, a value of the wrong type, or two settings that contradict each other."""


class DataError(GlasshouseError, ValueError):
    """A file or a row that cannot be used as it is."""


class ModelError(GlasshouseError, ValueError):
    """A model or tokenizer folder that is broken, incomplete or of an unsupported kind."""


class StorageError(GlasshouseError, OSError):
    """The disk is full, a folder may not be written, or another process holds it."""


class MissingExtraError(GlasshouseError, ImportError):
    """An optional package is missing; the message names the command that installs it."""


class InterruptedRunError(GlasshouseError):
    """A run was stopped on request. Nothing is lost: the same command continues."""

    exit_code = 130
