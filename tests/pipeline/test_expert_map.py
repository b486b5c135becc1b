"""The picture of a mixture of experts: a cell for every share, coloured by how far it is from even."""

import xml.etree.ElementTree as ElementTree

import pytest

from glasshouse.pipeline.expert_map import MOST_LAYERS, WIDTH, colour, expert_map, shown_layers


def load(layers=3, experts=4, domains=("people", "<sums>")):
    """Expert 0 has everything of the first domain; the others are used alike."""
    even, first = [1 / experts] * experts, [1.0] + [0.0] * (experts - 1)
    found = {name: {"tokens": 900, "shares": [even] * layers} for name in domains}
    found[domains[0]]["shares"] = [first] * layers
    return {"experts": experts, "experts_per_token": 2, "layers": list(range(layers)), "domains": found}


def cells(svg):
    """(title, x, fill, opacity) of every cell, without the legend's."""
    found = []
    for rect in ElementTree.fromstring(svg).iter("rect"):
        title = rect.find("title")
        if title is not None:
            found.append(
                (title.text, float(rect.get("x")), rect.get("fill"), float(rect.get("fill-opacity")))
            )
    return found


def test_every_share_has_a_cell_that_says_it():
    svg = expert_map(load(), "Experts of <sft>")
    found = {title: rest for title, *rest in cells(svg)}
    assert len(found) == 3 * 4 * 2
    _, fill, opacity = found["layer 1, people, expert 0: 100.0%, 4.00 times even"]
    assert (fill, opacity) == ("var(--first)", 1.0)
    _, fill, opacity = found["layer 2, people, expert 3: 0.0%, 0.00 times even"]
    assert (fill, opacity) == ("var(--second)", 1.0)
    assert found["layer 2, <sums>, expert 3: 25.0%, 1.00 times even"][2] == 0.0
    assert "<sums>" not in svg


@pytest.mark.parametrize(("layers", "experts"), [(1, 2), (5, 8), (7, 8), (48, 128)])
def test_panels_stay_inside_the_picture(layers, experts):
    """Few or many, wide or narrow; of a deep model some layers, the first and the last among them."""
    found = cells(expert_map(load(layers, experts), "x"))
    assert max(x for _, x, _, _ in found) < WIDTH
    titles = {title.split(",")[0] for title, *_ in found}
    assert len(titles) == min(layers, MOST_LAYERS)
    assert {"layer 0", f"layer {layers - 1}"} <= titles


def test_the_colour_grows_with_the_distance_from_even():
    above, below = [colour(r) for r in (1, 1.5, 3, 9)], [colour(r) for r in (0.9, 0.5, 0.2, 0)]
    assert {name for name, _ in above} == {"var(--first)"}
    assert {name for name, _ in below} == {"var(--second)"}
    for opacities in ([o for _, o in above], [o for _, o in below]):
        assert opacities == sorted(opacities)
    assert colour(2)[1] == pytest.approx(colour(0.5)[1])


def test_nothing_to_draw():
    assert expert_map({"experts": 2, "layers": [0], "domains": {}}, "x") == ""
    assert shown_layers(12) == list(range(12))
