"""Pictures in the docs come from reports, and stand alone: an image sees no colours of the page around it."""

from __future__ import annotations

from pathlib import Path

import pytest

PICTURES = sorted((Path(__file__).parents[2] / "docs/pictures").glob("*.svg"))


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_a_picture_brings_its_own_colours(picture: Path) -> None:
    drawn = picture.read_text()
    assert "xmlns=" in drawn
    assert "var(" not in drawn
