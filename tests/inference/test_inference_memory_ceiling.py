"""How much memory the cache takes where nobody says it."""

from __future__ import annotations

import pytest
import torch

from glasshouse.core.errors import UsageError
from glasshouse.inference import LanguageModel
from glasshouse.inference.engine import Engine, EngineSettings
from glasshouse.inference.memory_ceiling import SHARE, default_pages, free_bytes

CPU = torch.device("cpu")


def test_a_small_model_gets_what_it_can_use() -> None:
    """Whole contexts for every row, and not a page more."""
    assert default_pages(1, 16, context=100, max_rows=8, device=CPU) == 7 * 8


def test_a_large_one_gets_a_share_of_what_is_free() -> None:
    """Of this machine's memory, as the system tells it."""
    free = free_bytes(CPU)
    assert free is not None
    pages = default_pages(2**20, 16, context=10**9, max_rows=8, device=CPU)
    assert pages * 2**20 == pytest.approx(free * SHARE["cpu"], rel=0.2)


def test_a_page_larger_than_everything_is_one_page() -> None:
    """An engine can always hold something."""
    assert default_pages(2**60, 16, context=100, max_rows=8, device=CPU) == 1


def test_a_ceiling_without_room_for_a_page(model: LanguageModel) -> None:
    """It is refused with both sizes."""
    with pytest.raises(UsageError, match="the ceiling is 10"):
        Engine(model, EngineSettings(cache_bytes=10))


def test_a_short_cache_shortens_texts(model: LanguageModel) -> None:
    """A prompt that the pages cannot hold is refused; a text ends where they are full."""
    from glasshouse.inference.request import Request

    engine = Engine(model, EngineSettings(runner="torch", cache_bytes=3 * 16 * 512))
    room = engine.stats().pages_total * engine.runner.page_tokens
    assert room < model.context
    made = engine.complete(Request(prompt=(1, 2, 3)))[0]
    assert len(made.ids) == room + 1 - 3
    with pytest.raises(UsageError, match=f"holds {room}"):
        engine.complete(Request(prompt=(1,) * (room + 1)))
    engine.close()
