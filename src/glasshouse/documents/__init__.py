"""The document analyzer: any file in, five kinds of answers out, each with quotes that were looked up.

The names below are loaded on first use, so that this room costs nothing before.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glasshouse.documents.analyzer import Analyzer as Analyzer
    from glasshouse.documents.calibrator import Calibrator as Calibrator
    from glasshouse.documents.chunking.chunks import Chunk as Chunk
    from glasshouse.documents.chunking.chunks import chunk as chunk
    from glasshouse.documents.learning.corrections import Corrections as Corrections
    from glasshouse.documents.loading import load as load
    from glasshouse.documents.packs.pack import Pack as Pack
    from glasshouse.documents.packs.pack import load_pack as load_pack
    from glasshouse.documents.quotes.search import Quote as Quote
    from glasshouse.documents.quotes.search import Source as Source
    from glasshouse.documents.quotes.search import find_quote as find_quote
    from glasshouse.documents.result import Result as Result
    from glasshouse.files.document import Document as Document

_LAZY = {
    "Analyzer": "documents.analyzer",
    "Calibrator": "documents.calibrator",
    "Chunk": "documents.chunks",
    "Corrections": "documents.corrections",
    "Document": "files.document",
    "Pack": "documents.packs.pack",
    "Quote": "documents.quotes",
    "Result": "documents.result",
    "Source": "documents.quotes",
    "chunk": "documents.chunks",
    "find_quote": "documents.quotes",
    "load": "documents.loading",
    "load_pack": "documents.packs.pack",
}
__all__ = [
    "Analyzer",
    "Calibrator",
    "Chunk",
    "Corrections",
    "Document",
    "Pack",
    "Quote",
    "Result",
    "Source",
    "chunk",
    "find_quote",
    "load",
    "load_pack",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'glasshouse.documents' has no attribute {name!r}")
    return getattr(import_module(f"glasshouse.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
