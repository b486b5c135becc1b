"""A reward model: it learns the raters' order, is saved whole, and is judged on pairs it has not seen."""

import json
import math

import pytest
import torch

from glasshouse.alignment.pair_batches import Pairs
from glasshouse.alignment.preference_pairs import encode_pairs
from glasshouse.alignment.reward_model import PreferenceFit, RewardConfig, RewardModel, reward_model
from glasshouse.alignment.reward_quality import judge
from glasshouse.core.errors import DataError, ModelError
from glasshouse.model import load, save
from glasshouse.model.lora import LoRAConfig
from glasshouse.model.scalar_head import ScalarTransformer, load_scalar
from glasshouse.tokenizer import Tokenizer

ROW = 64


def pair(number, **more):
    prompt = [{"role": "user", "content": f"{number}?"}]
    chosen = [{"role": "assistant", "content": f"Yes, {number}" + "." * (number % 5)}]
    rejected = [{"role": "assistant", "content": f"No, {number}" + "." * (number % 4)}]
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


PAIRS = [pair(number) for number in range(24)]
HELD_OUT = [pair(number) for number in range(50, 60)]


def settings(**changes):
    plain = {"batch_tokens": 600, "sequence_length": ROW, "dtype": "float32", "device": "cpu", "log_every": 1}
    return RewardConfig.parse(plain | changes)


def conversations(pairs, side):
    return [{"messages": row["prompt"] + row[side]} for row in pairs]


@pytest.fixture(scope="module")
def base(random_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    save(random_model(model_type="qwen3"), Tokenizer.train([], 265), folder)
    return folder


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    out = tmp_path_factory.mktemp("reward")
    return out, reward_model(base, PAIRS, out, settings(epochs=12), HELD_OUT)


def test_it_learns_which_reply_raters_like(trained):
    """From log 2 down; on unseen pairs the saved folder gives the rewards that the report counted."""
    out, result = trained
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert rows[-1]["loss"] < 0.2
    model = RewardModel.load(out / "model")
    chosen, rejected = (model.score(conversations(HELD_OUT, side)) for side in ("chosen", "rejected"))
    share = float((chosen > rejected).float().mean())
    assert share >= 0.9
    assert result["quality"]["accuracy"]["value"] == pytest.approx(share)
    assert result["last"]["val_accuracy"] == pytest.approx(share)
    assert json.loads((out / "held_out.json").read_text()) == result["quality"]


def test_rewards_do_not_depend_on_what_else_is_scored(trained):
    """Alone, in a batch with longer ones, and packed as in training."""
    out, _ = trained
    model = RewardModel.load(out / "model")
    texts = conversations(HELD_OUT, "chosen")
    together = model.score(texts)
    alone = torch.cat([model.score([text]) for text in texts])
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(model.score(texts, batch_tokens=40), alone, atol=1e-5)
    pairs = Pairs(out / "held_out", ROW, 600, 0, pad=model.tokenizer.pad_id)
    with torch.no_grad():
        for batch in pairs.in_order():
            packed = PreferenceFit(pairs).rewards(model.model, batch)[:, 0]
            assert torch.allclose(packed, alone[batch.pairs], atol=1e-5)


def test_the_loss_counts_margins_ties_and_wrong_labels(base, tmp_path):
    """By hand from the rewards of a model whose head is not zero."""
    rows = [pair(1), pair(2, margin=0.7), pair(3, tie=True)]
    encode_pairs(rows, Tokenizer.load(base), tmp_path, ROW)
    model = ScalarTransformer.on_trunk(load(base))
    model.score.weight.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
    objective = PreferenceFit(Pairs(tmp_path, ROW, 600, 0), label_smoothing=0.1)
    batch = objective.batch(0)
    rewards = objective.rewards(model, batch)
    expected = 0.0
    for (chosen, rejected), number in zip(rewards.tolist(), batch.pairs, strict=True):
        d, (q, m) = chosen - rejected, ((0.9, 0.0), (0.9, 0.7), (0.5, 0.0))[number]
        expected += q * math.log(1 + math.exp(m - d)) + (1 - q) * math.log(1 + math.exp(m + d))
    assert objective.loss(model, batch).loss_sum.item() == pytest.approx(expected, rel=1e-5)


def test_gradients_equal_finite_differences(base, tmp_path):
    """Along a random direction of all weights, the head's included."""
    encode_pairs(PAIRS[:3], Tokenizer.load(base), tmp_path, ROW)
    model = ScalarTransformer.on_trunk(load(base))
    generator = torch.Generator().manual_seed(0)
    model.score.weight.data.normal_(0, 0.3, generator=generator)
    objective = PreferenceFit(Pairs(tmp_path, ROW, 600, 0))
    batch = objective.batch(0)
    objective.loss(model, batch).loss_sum.backward()
    directions = [torch.randn(p.shape, generator=generator) for p in model.parameters()]
    slope = sum(float((p.grad * d).sum()) for p, d in zip(model.parameters(), directions, strict=True))
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(model.parameters(), directions, strict=True):
                p += sign * 3e-4 * d
            values.append(float(objective.loss(model, batch).loss_sum))
            for p, d in zip(model.parameters(), directions, strict=True):
                p -= sign * 3e-4 * d
    assert slope == pytest.approx((values[0] - values[1]) / 6e-4, rel=0.02, abs=0.01)


def test_with_an_adapter_the_trunk_is_merged_and_the_head_kept(base, tmp_path):
    """The saved folder stands alone: it scores as the model with its adapter did."""
    config = settings(epochs=8, lora=LoRAConfig(r=4), adapter_lr=0.01, head_lr=0.01)
    result = reward_model(base, PAIRS, tmp_path, config, HELD_OUT)
    assert result["quality"]["accuracy"]["value"] == pytest.approx(result["last"]["val_accuracy"])
    assert result["quality"]["loss"] == pytest.approx(result["last"]["val_loss"], abs=1e-4)
    assert result["quality"]["loss"] < math.log(2)
    trunk, start = load_scalar(tmp_path / "model"), load(base)
    assert torch.equal(trunk.model.embed_tokens.weight, start.model.embed_tokens.weight)


def test_another_tokenizer_or_template_than_the_policys_is_refused(trained):
    out, _ = trained
    model = RewardModel.load(out / "model")
    model.check_policy(Tokenizer.load(out / "model"))
    with pytest.raises(ModelError, match="has another tokenizer"):
        model.check_policy(Tokenizer.train(["to be or not to be " * 50], 300))


def test_what_is_no_reward_model_and_what_is_too_long_are_named(trained, base):
    out, _ = trained
    with pytest.raises(ModelError, match="Qwen3ForCausalLM, not a reward model"):
        RewardModel.load(base)
    with pytest.raises(ModelError, match="this is a reward model"):
        load(out / "model")
    long = {"messages": [{"role": "user", "content": "x" * 99}]}
    with pytest.raises(DataError, match=r"conversation 0 has .* the reward model reads 1 to 64"):
        RewardModel.load(out / "model").score([long])


def test_the_judgement_by_hand():
    """Four pairs and a tie: accuracy, loss, calibration, and who likes what is long."""
    rewards = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.2, 0.0], [5.0, 0.0]])
    lengths = torch.tensor([[10.0, 4.0], [5.0, 5.0], [3.0, 6.0], [9.0, 10.0], [1.0, 2.0]])
    found = judge(rewards, lengths, torch.tensor([False, False, False, False, True]))
    assert (found["pairs"], found["ties"]) == (5, 1)
    assert (found["accuracy"]["value"], found["accuracy"]["n"]) == (0.75, 4)
    losses = [math.log(1 + math.exp(-d)) for d in (2.0, -1.0, 3.0, 0.2)]
    losses.append((math.log(1 + math.exp(-5.0)) + math.log(1 + math.exp(5.0))) / 2)
    assert found["loss"] == pytest.approx(sum(losses) / 5, rel=1e-5)
    sure = [1 / (1 + math.exp(-d)) for d in (2.0, 1.0, 3.0, 0.2)]  # 0.88, 0.73, 0.95, 0.55
    error = sum(abs(hit - p) for hit, p in zip((1, 0, 1, 1), sure, strict=True)) / 4
    assert found["calibration"]["ece"]["value"] == pytest.approx(error, rel=1e-6)
    assert found["prefers_longer"]["value"] == pytest.approx(1 / 3)
    assert found["chosen_longer"]["value"] == pytest.approx(1 / 3)
    by_length = [row["accuracy"] and row["accuracy"]["n"] for row in found["by_length_difference"]]
    assert by_length == [None, 1, 2, None, 1]


def test_nothing_to_count_is_none_and_no_number():
    found = judge(torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([True]))
    assert found["accuracy"] is None
    assert found["calibration"]["ece"] is None
    assert found["loss"] == pytest.approx(math.log(2))
