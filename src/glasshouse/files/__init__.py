"""Readers of files, with positions: rows, documents, conversations, and the last two in one stream."""

from glasshouse.files.conversations import read_conversations
from glasshouse.files.documents import read_documents
from glasshouse.files.examples import read_examples
from glasshouse.files.position import Position
from glasshouse.files.rows import read_rows

__all__ = ["Position", "read_conversations", "read_documents", "read_examples", "read_rows"]
