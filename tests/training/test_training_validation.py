"""Validation loss against plain scoring, document by document."""

import pytest
import torch

from glasshouse.data import Shards, ShardWriter
from glasshouse.training import expert_load, validation_loss


def plain_loss(model, shards, row):
    """Every document alone, in windows of `row` inputs, no packing: (sum of nats, targets)."""
    total, count = 0.0, 0
    stream = torch.tensor(shards.tokens.astype("int64"))
    for begin, end in zip(shards.offsets[:-1].tolist(), shards.offsets[1:].tolist(), strict=True):
        for start in range(begin, end, row):
            stop = min(start + row, end)
            logits = model(stream[None, start:stop])[0].float()
            targets = stream[start + 1 : stop + 1]
            total += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
            count += len(targets)
    return total, count


@pytest.mark.parametrize("row", [8, 16, 64])
def test_it_is_the_mean_over_every_target_once(tiny, row):
    """Packing, document boundaries, cuts and the last short batch leave the mean as it is."""
    shards, model = tiny.corpus(), tiny.model()
    with torch.no_grad():
        model.lm_head.weight.normal_(generator=torch.Generator().manual_seed(0))
        total, count = plain_loss(model, shards, row)
    loss = validation_loss(model, shards, row)
    assert loss.tokens == count == len(shards.tokens) - 1
    assert loss.nats_per_token == pytest.approx(total / count, rel=1e-4)


def test_a_long_text_is_scored_in_windows(tiny):
    """One document of many rows, as characters of one book."""
    with ShardWriter(tiny.folder / "book", tiny.vocab, 0) as writer:
        writer.add([1 + i % 50 for i in range(1000)])
    shards, model = Shards(tiny.folder / "book"), tiny.model()
    with torch.no_grad():
        total, count = plain_loss(model, shards, 32)
    loss = validation_loss(model, shards, 32)
    assert loss.tokens == count == 1001
    assert loss.nats_per_token == pytest.approx(total / count, rel=1e-4)


def test_a_limit_scores_about_so_many_tokens_the_same_each_time(tiny):
    """Repeatable, near the limit, and drawn from everywhere."""
    shards, model = tiny.corpus(documents=300), tiny.model()
    first = validation_loss(model, shards, 16, max_tokens=640)
    assert 500 < first.tokens <= 640
    assert validation_loss(model, shards, 16, max_tokens=640) == first
    assert validation_loss(model, shards, 16, max_tokens=10**9) == validation_loss(model, shards, 16)


MOE = {
    "model_type": "qwen3_moe",
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "mlp_only_layers": [0],
}


def test_expert_load_is_that_of_each_document_alone(tiny):
    """The largest and smallest share of a layer, counted choice by choice; the mean entropy; no padding."""
    shards, model = tiny.corpus(), tiny.model(**MOE)
    model.model.layers[1].mlp.gate.weight.data *= 3
    counts, entropies = [0] * 4, []
    with torch.no_grad():
        stream = torch.tensor(shards.tokens.astype("int64"))
        for begin, end in zip(shards.offsets[:-1].tolist(), shards.offsets[1:].tolist(), strict=True):
            routing = []
            model.hidden(stream[None, begin:end], routing=routing)
            for logits in routing[0]:
                p = logits.softmax(0)
                entropies.append(-(p * p.log()).sum().item())
                for expert in sorted(range(4), key=lambda e: -p[e].item())[:2]:
                    counts[expert] += 1
            assert len(routing) == 1
    found = expert_load(model, shards, 32)
    assert sum(counts) > 1000
    assert found["expert_load_max"] == pytest.approx(4 * max(counts) / sum(counts), rel=0.01)
    assert found["expert_load_min"] == pytest.approx(4 * min(counts) / sum(counts), rel=0.01)
    assert found["router_entropy"] == pytest.approx(sum(entropies) / len(entropies), rel=1e-3)


def test_a_dense_model_has_no_expert_load(tiny):
    assert expert_load(tiny.model(), tiny.corpus(), 16) == {}


def test_one_expert_that_takes_everything_stands_out(tiny):
    """Times the number of experts over the choices: the most that one can have; others have nothing."""
    model = tiny.model(**(MOE | {"num_experts_per_tok": 1}))
    gate, norm = model.model.layers[1].mlp.gate.weight, model.model.layers[1].post_attention_layernorm
    norm.weight.data[:] = 0  # every expert's score is 0 for every token: the first is taken
    gate.data[:] = 1
    found = expert_load(model, tiny.corpus(), 16)
    assert found["expert_load_max"] == pytest.approx(4.0)
    assert found["expert_load_min"] == 0.0
    assert found["router_entropy"] == pytest.approx(1.3863, rel=1e-3)
