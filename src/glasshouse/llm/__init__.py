"""Any model behind one small interface: a conversation in, a reply out.

The names below are loaded on first use, so that this room costs nothing before: no torch, no provider's SDK.
The room itself can be called: `glasshouse.llm("openai:NAME")` is `open_llm("openai:NAME")`.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glasshouse.llm.batch import Batch as Batch
    from glasshouse.llm.blocking import complete_all as complete_all
    from glasshouse.llm.budget import Budget as Budget
    from glasshouse.llm.cache import Cache as Cache
    from glasshouse.llm.experiments.experiment import Experiment as Experiment
    from glasshouse.llm.fallback import Alternative as Alternative
    from glasshouse.llm.fallback import Fallback as Fallback
    from glasshouse.llm.fit import Fit as Fit
    from glasshouse.llm.interface import LLM as LLM
    from glasshouse.llm.interface import Chunk as Chunk
    from glasshouse.llm.interface import Completion as Completion
    from glasshouse.llm.interface import Message as Message
    from glasshouse.llm.interface import Note as Note
    from glasshouse.llm.interface import Request as Request
    from glasshouse.llm.interface import Usage as Usage
    from glasshouse.llm.local import LocalLLM as LocalLLM
    from glasshouse.llm.managed import LocalModels as LocalModels
    from glasshouse.llm.managed import Managed as Managed
    from glasshouse.llm.monitoring.call_log import CallLog as CallLog
    from glasshouse.llm.monitoring.monitor import Monitor as Monitor
    from glasshouse.llm.open import open_llm as open_llm
    from glasshouse.llm.prices import Prices as Prices
    from glasshouse.llm.prompts.store import PromptStore as PromptStore
    from glasshouse.llm.retry import Retry as Retry
    from glasshouse.llm.route import Route as Route
    from glasshouse.llm.spending import Limits as Limits
    from glasshouse.llm.spending import Spending as Spending
    from glasshouse.llm.stack import standard as standard
    from glasshouse.llm.vote import Vote as Vote

_LAZY = {
    "Alternative": "fallback",
    "Batch": "batch",
    "Budget": "budget",
    "Cache": "cache",
    "CallLog": "monitoring.call_log",
    "Chunk": "interface",
    "Completion": "interface",
    "Experiment": "experiments.experiment",
    "Fallback": "fallback",
    "Fit": "fit",
    "LLM": "interface",
    "Limits": "spending",
    "LocalLLM": "local",
    "LocalModels": "managed",
    "Managed": "managed",
    "Message": "interface",
    "Monitor": "monitoring.monitor",
    "Note": "interface",
    "Prices": "prices",
    "PromptStore": "prompts.store",
    "Request": "interface",
    "Retry": "retry",
    "Route": "route",
    "Spending": "spending",
    "Usage": "interface",
    "Vote": "vote",
    "complete_all": "blocking",
    "open_llm": "open",
    "standard": "stack",
}
__all__ = [
    "LLM",
    "Alternative",
    "Batch",
    "Budget",
    "Cache",
    "CallLog",
    "Chunk",
    "Completion",
    "Experiment",
    "Fallback",
    "Fit",
    "Limits",
    "LocalLLM",
    "LocalModels",
    "Managed",
    "Message",
    "Monitor",
    "Note",
    "Prices",
    "PromptStore",
    "Request",
    "Retry",
    "Route",
    "Spending",
    "Usage",
    "Vote",
    "complete_all",
    "open_llm",
    "standard",
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
