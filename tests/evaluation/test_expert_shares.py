"""Which experts serve which texts: counted again token by token, from the logits of the routers."""

import pytest
import torch

from glasshouse.evaluation import expert_shares
from glasshouse.evaluation.experts import DOMAIN_TOKENS
from glasshouse.inference import LanguageModel
from glasshouse.model import ModelConfig, initialise
from glasshouse.tokenizer import Tokenizer

SHAPE = {
    "model_type": "qwen3_moe",
    "vocab_size": 265,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "mlp_only_layers": [1],
    "max_position_embeddings": 40,
}


@pytest.fixture(scope="module")
def model():
    tokenizer = Tokenizer.train(iter(["plain bytes"]), 265)
    return LanguageModel(initialise(ModelConfig(**SHAPE), 3), tokenizer)


def ids(model, text):
    return [model.tokenizer.bos_id, *model.tokenizer.encode(text)]


def counted(model, texts):
    """Every window alone: choices of each layer's experts."""
    counts, tokens = torch.zeros(2, 5), 0
    for text in texts:
        text_ids = ids(model, text)
        for at in range(0, len(text_ids), 40):
            routing = []
            with torch.no_grad():
                model.model.hidden(torch.tensor([text_ids[at : at + 40]]), routing=routing)
            for layer, logits in enumerate(routing):
                for row in logits.tolist():
                    for expert in sorted(range(5), key=lambda e: -row[e])[:2]:
                        counts[layer, expert] += 1
            tokens += len(text_ids[at : at + 40])
    return counts / (2 * tokens), tokens


def test_shares_are_counted_over_real_tokens_of_each_domain(model):
    """Short and long texts in one batch: padding counts for nothing, and windows are read on their own."""
    domains = {"letters": ["abc", "a longer text " * 9, "x"], "figures": ["12 + 34 = 46. " * 4, "7"]}
    encoded = {name: [ids(model, text) for text in texts] for name, texts in domains.items()}
    found = expert_shares(model, encoded)
    assert found["layers"] == [0, 2]
    assert (found["experts"], found["experts_per_token"]) == (5, 2)
    for domain, texts in domains.items():
        shares, tokens = counted(model, texts)
        assert found["domains"][domain]["tokens"] == tokens
        assert torch.allclose(torch.tensor(found["domains"][domain]["shares"]), shares, atol=1e-4)
    assert found["domains"]["letters"]["shares"] != found["domains"]["figures"]["shares"]


def test_a_large_domain_is_read_in_part_and_an_empty_one_left_out(model):
    found = expert_shares(model, {"book": [ids(model, "word " * 5000)], "nothing": []})
    assert list(found["domains"]) == ["book"]
    assert found["domains"]["book"]["tokens"] == DOMAIN_TOKENS
    for layer in found["domains"]["book"]["shares"]:
        assert sum(layer) == pytest.approx(1, abs=1e-4)


def test_a_dense_model_has_none(model):
    dense = initialise(ModelConfig(vocab_size=265, hidden_size=32, num_hidden_layers=1), 1)
    assert expert_shares(LanguageModel(dense, model.tokenizer), {"a": [[1, 2]]}) == {}
