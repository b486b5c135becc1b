"""Adapters are models of their own: the base's name, a colon, theirs."""

from __future__ import annotations

import pytest
import torch
from tests.server.conftest import make_model, serving

from glasshouse.model.lora import LoRAConfig, add_adapter, places, use_adapters

ASKED = {"prompt": [30, 40, 50], "max_tokens": 1, "echo": True, "logprobs": 1, "temperature": 0}


@pytest.fixture(scope="module")
def base():
    return make_model()


@pytest.fixture(scope="module")
def adapted():
    model = make_model()
    add_adapter(model.model, LoRAConfig(r=4), name="poet")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for place in places(model.model):
            if (adapter := place.adapter("poet")) is not None:
                adapter.b.add_(torch.randn(adapter.b.shape, generator=generator))
    use_adapters(model.model)
    return model


@pytest.fixture(scope="module")
def server(adapted):
    with serving(adapted) as running:
        yield running


def scores(server, model):
    answer = server.ask("POST", "/v1/completions", {"model": model, **ASKED})
    assert answer.status == 200
    return answer.json["choices"][0]["logprobs"]["token_logprobs"][1:3]


def test_the_base_is_not_changed_by_an_adapter_beside_it(server, base):
    expected = base.logits([ASKED["prompt"]])[0].log_softmax(-1)
    assert scores(server, "tiny") == pytest.approx([float(expected[0, 40]), float(expected[1, 50])], abs=1e-4)


def test_an_adapters_name_asks_for_its_scores(server, adapted):
    plain = scores(server, "tiny")
    told = scores(server, "tiny:poet")
    use_adapters(adapted.model, "poet")
    expected = adapted.logits([ASKED["prompt"]])[0].log_softmax(-1)
    use_adapters(adapted.model)
    assert told == pytest.approx([float(expected[0, 40]), float(expected[1, 50])], abs=1e-4)
    assert told != pytest.approx(plain, abs=1e-2)


def test_adapters_are_listed_and_others_do_not_exist(server):
    assert [model["id"] for model in server.get("/v1/models").json["data"]] == ["tiny", "tiny:poet"]
    assert server.get("/v1/models/tiny:poet").status == 200
    for name in ("tiny:painter", "poet", "tiny:", "tin"):
        assert server.ask("POST", "/v1/completions", {"model": name, **ASKED}).status == 404
