"""Any model behind one small interface: a conversation in, a reply out.

The names below are loaded on first use, so that this room costs nothing before: no torch, no provider's SDK.
The room itself can be called: `glasshouse.llm("openai:NAME")` is `open_llm("openai:NAME")`.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glasshouse.llm.blocking import complete_all as complete_all
    from glasshouse.llm.interface import LLM as LLM
    from glasshouse.llm.interface import Chunk as Chunk
    from glasshouse.llm.interface import Completion as Completion
    from glasshouse.llm.interface import Message as Message
    from glasshouse.llm.interface import Note as Note
    from glasshouse.llm.interface import Request as Request
    from glasshouse.llm.interface import Usage as Usage
    from glasshouse.llm.local import LocalLLM as LocalLLM
    from glasshouse.llm.open import open_llm as open_llm

_LAZY = {
    **dict.fromkeys(("LLM", "Chunk", "Completion", "Message", "Note", "Request", "Usage"), "interface"),
    "LocalLLM": "local",
    "complete_all": "blocking",
    "open_llm": "open",
}
__all__ = [
    "LLM",
    "Chunk",
    "Completion",
    "LocalLLM",
    "Message",
    "Note",
    "Request",
    "Usage",
    "complete_all",
    "open_llm",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'glasshouse.llm' has no attribute {name!r}")
    return getattr(import_module(f"glasshouse.llm.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


class _Room(ModuleType):
    def __call__(self, name: str, **settings: Any) -> "LLM":
        """See `open_llm`."""
        from glasshouse.llm.open import open_llm

        return open_llm(name, **settings)


sys.modules[__name__].__class__ = _Room
