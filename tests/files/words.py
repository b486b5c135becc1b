"""Hand-checked word lists of the fixtures, kept as counts of short hashes so that no text is copied here.

`fixture_words/<file name>.json` is {"hash": count}: every word that a reader of the file sees, as often as it
stands there. The lists were checked against pictures of the pages, not against another converter's output:
words that only a picture shows are in them, and words broken at the end of a line are whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "fixture_words"


def words(text: str) -> list[str]:
    r"""The words of a text: runs of `\w` of its lower-cased NFKC form."""
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).lower())


def hashed(text: str) -> Counter[str]:
    """How often each word stands in a text, by the first 8 hex digits of its SHA-256."""
    return Counter(hashlib.sha256(word.encode()).hexdigest()[:8] for word in words(text))


def save_words(file_name: str, text: str) -> None:
    """Write the list of one fixture from its checked words."""
    FOLDER.mkdir(exist_ok=True)
    counts = dict(sorted(hashed(text).items()))
    (FOLDER / f"{file_name}.json").write_text(json.dumps(counts, indent=0) + "\n")


def share_found(file_name: str, text: str) -> float:
    """The share of the fixture's words, counted as often as they stand there, that `text` holds too."""
    expected = Counter(json.loads((FOLDER / f"{file_name}.json").read_text()))
    return (expected & hashed(text)).total() / expected.total()


def fixture_file(*parts: str) -> Path:
    """A file of the folder that GLASSHOUSE_TEST_DATA names; the test is skipped where that is not set."""
    root = os.environ.get("GLASSHOUSE_TEST_DATA")
    if not root:
        pytest.skip("GLASSHOUSE_TEST_DATA is not set")
    path = Path(root, "docs", *parts)
    assert path.exists(), f"{path} is missing from the test data"
    return path
