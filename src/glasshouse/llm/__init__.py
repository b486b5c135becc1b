"""Any model behind one small interface: a conversation in, a reply out. So far: our own engine."""

from glasshouse.llm.interface import LLM, Completion, Request, complete_all
from glasshouse.llm.local import LocalLLM

__all__ = ["LLM", "Completion", "LocalLLM", "Request", "complete_all"]
