"""Any model behind one small interface: a conversation in, a reply out."""

from glasshouse.llm.blocking import complete_all
from glasshouse.llm.interface import LLM, Chunk, Completion, Message, Note, Request, Usage
from glasshouse.llm.local import LocalLLM

__all__ = ["LLM", "Chunk", "Completion", "LocalLLM", "Message", "Note", "Request", "Usage", "complete_all"]
