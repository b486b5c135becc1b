"""Readers of files, with positions: rows, documents, conversations, both in one stream, pairs, prompts."""

from glasshouse.files.conversations import read_conversations
from glasshouse.files.documents import read_documents
from glasshouse.files.examples import read_examples
from glasshouse.files.position import Position
from glasshouse.files.preferences import read_preferences
from glasshouse.files.prompts import read_prompts
from glasshouse.files.rows import read_rows

__all__ = [
    "Position",
    "read_conversations",
    "read_documents",
    "read_examples",
    "read_preferences",
    "read_prompts",
    "read_rows",
]
