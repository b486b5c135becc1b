"""Quotes of a text: found, near misses shown, and held against what they are to bear out."""

from glasshouse.documents.quotes.search import Quote, Source, find_quote

__all__ = ["Quote", "Source", "find_quote"]
