"""What tests of models over the wire share; the scripted LLM of this process is in tests/conftest.py."""

from collections.abc import Iterator

import pytest
from tests.llm.scripted_server import Wire


@pytest.fixture
def wire() -> Iterator[Wire]:
    """A scripted server on a real socket, for the real SDKs."""
    wire = Wire()
    yield wire
    wire.stop()
