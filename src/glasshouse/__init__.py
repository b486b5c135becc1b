"""Glasshouse: grow a language-model assistant where you can see every part of it.

The names below are loaded on first use, so that ``import glasshouse`` stays fast and needs no torch.
Rooms never import from here: for the floor plan these lazy names count as imports.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glasshouse import classify as classify
    from glasshouse import llm as llm
    from glasshouse.inference.language_model import LanguageModel as LanguageModel
    from glasshouse.pipeline.run import Run as Run
    from glasshouse.pipeline.run import load as load
    from glasshouse.pipeline.run import run as run

__version__ = "0.1.0"

_LAZY = {
    "run": ("glasshouse.pipeline.run", "run"),
    "load": ("glasshouse.pipeline.run", "load"),
    "Run": ("glasshouse.pipeline.run", "Run"),
    "LanguageModel": ("glasshouse.inference.language_model", "LanguageModel"),
}
_ROOMS = ("classify", "llm")  # used as they are: glasshouse.llm("openai:NAME")
__all__ = ["LanguageModel", "Run", "__version__", "classify", "llm", "load", "run"]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"glasshouse.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module 'glasshouse' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
