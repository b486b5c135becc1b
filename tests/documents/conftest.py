"""Documents and replies that tests of the analyzer share."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from glasshouse.files.builder import Builder
from glasshouse.files.document import Document


@pytest.fixture
def document() -> Callable[..., Document]:
    """document("first paragraph", "second"): each on a page of its own."""

    def make(*paragraphs: str, name: str = "text.txt") -> Document:
        builder = Builder()
        for page, text in enumerate(paragraphs, 1):
            builder.add(text, page=page)
        return builder.document(name, "txt", pages=len(paragraphs))

    return make


@pytest.fixture
def report(document) -> Document:
    """Three pages, a sentence on each."""
    return document(
        "Revenue was 48.6 million crowns in the third quarter.",
        "The operating margin fell to 14.2%, from 15.1% before.",
        "For the fourth quarter the board expects 50 million crowns.",
        name="report.txt",
    )


@pytest.fixture
def fields() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "revenue": {"type": "number"},
            "margin": {"type": "number"},
            "outlook": {"type": "string"},
        },
    }


@pytest.fixture
def pairs() -> Callable[..., str]:
    """pairs(revenue=("its quote", 48.6), margin=None): a reply of extraction."""

    def make(**values: Any) -> str:
        def pair(value: Any) -> Any:
            if isinstance(value, list):
                return [pair(item) for item in value]
            if isinstance(value, dict):
                return {key: pair(item) for key, item in value.items()}
            quote, plain = value or (None, None)
            return {"quote": quote, "value": plain}

        return json.dumps({name: pair(value) for name, value in values.items()})

    return make


@pytest.fixture
def shown() -> Callable[..., str]:
    """shown(request): the part of the document that a request shows."""

    def find(request: Any) -> str:
        text = "\n".join(message["content"] for message in request.messages if message["role"] == "user")
        found = re.search(r"<(document(?:-\d+)?)>\n(.*?)\n</\1>", text, re.DOTALL)
        assert found is not None, text
        return found[2]

    return find
