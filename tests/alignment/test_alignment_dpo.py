"""DPO: losses by hand, gradients by differences, a reference that is the frozen start, resume to the bit."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from glasshouse.alignment.dpo import DPO, DPOConfig, dpo, dpo_loss
from glasshouse.alignment.pair_batches import Pairs
from glasshouse.alignment.preference_pairs import encode_pairs
from glasshouse.core.errors import ConfigError, ModelError
from glasshouse.model import initialise, load, save
from glasshouse.model.lora import LoRAConfig
from glasshouse.tokenizer import Tokenizer

ROW = 64


def pair(number, **more):
    prompt = [{"role": "user", "content": f"{number}?"}]
    chosen = [{"role": "assistant", "content": f"Yes, {number}."}]
    rejected = [{"role": "assistant", "content": f"No, {number}, not at all."}]
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


PAIRS = [pair(number) for number in range(24)]


def settings(**changes):
    plain = {"batch_tokens": 600, "sequence_length": ROW, "dtype": "float32", "device": "cpu", "log_every": 1}
    return DPOConfig.parse(plain | changes)


@pytest.fixture(scope="module")
def base(random_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "model"
    save(random_model(model_type="llama"), Tokenizer.train([], 265), folder)
    return folder


def test_the_losses_are_those_of_the_papers():
    """Each by hand from four log-probabilities; a certain label, a doubtful one and a tie."""
    policy, reference = torch.tensor([[-5.0, -7.0]]), torch.tensor([[-6.0, -6.5]])
    h, beta = (-5.0 + 6.0) - (-7.0 + 6.5), 0.3
    p = 1 / (1 + math.exp(-beta * h))
    for preferred in (1.0, 0.8, 0.5):
        q = torch.tensor([preferred])
        cross = -preferred * math.log(p) - (1 - preferred) * math.log(1 - p)
        assert dpo_loss(policy, reference, q, beta=beta).item() == pytest.approx(cross, rel=1e-6)
        goal = 1 / (2 * beta)
        squares = preferred * (h - goal) ** 2 + (1 - preferred) * (h + goal) ** 2
        ipo = dpo_loss(policy, reference, q, beta=beta, loss="ipo")
        assert ipo.item() == pytest.approx(squares, rel=1e-6)
    offset = dpo_loss(policy, reference, torch.tensor([1.0]), beta=beta, margin=0.25)
    assert offset.item() == pytest.approx(math.log(1 + math.exp(0.25 - beta * h)), rel=1e-6)


@pytest.mark.parametrize("loss", ["sigmoid", "ipo"])
def test_gradients_of_the_loss_equal_finite_differences(loss):
    policy = torch.tensor([[-5.0, -7.0], [-2.0, -1.0]], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([[-6.0, -6.5], [-2.5, -2.0]], dtype=torch.float64)
    preferred = torch.tensor([0.9, 0.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: dpo_loss(x, reference, preferred, beta=0.4, loss=loss), (policy,)
    )


@pytest.mark.parametrize("changes", [{}, {"loss": "ipo"}, {"length_normalised": True, "beta": 2.0}])
def test_gradients_through_the_model_equal_finite_differences(base, tmp_path, changes):
    """Along a random direction of all weights, against central differences in fp32."""
    config = settings(**changes)
    encode_pairs(PAIRS[:3], Tokenizer.load(base), tmp_path, ROW)
    pairs, model = Pairs(tmp_path, ROW, 600, 0), load(base)
    objective = DPO(pairs, torch.randn(3, 2, generator=torch.Generator().manual_seed(3)) - 40, config)
    batch = objective.batch(0)
    objective.loss(model, batch).loss_sum.backward()
    generator = torch.Generator().manual_seed(4)
    directions = [torch.randn(p.shape, generator=generator) for p in model.parameters()]
    slope = sum(float((p.grad * d).sum()) for p, d in zip(model.parameters(), directions, strict=True))
    values = []
    for step in (1e-4, -1e-4):
        with torch.no_grad():
            for p, d in zip(model.parameters(), directions, strict=True):
                p += step * d
            values.append(float(objective.loss(model, batch).loss_sum))
            for p, d in zip(model.parameters(), directions, strict=True):
                p -= step * d
    assert slope == pytest.approx((values[0] - values[1]) / 2e-4, rel=0.02, abs=0.02)


def test_it_starts_at_the_reference_and_learns_the_preference(base, tmp_path):
    """At first every reward is 0 and the loss log 2; then the chosen replies gain on the rejected ones."""
    held_out = [pair(number) for number in range(50, 56)]
    summary = dpo(base, PAIRS, tmp_path, settings(epochs=6), held_out)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert rows[0]["chosen_reward"] == pytest.approx(0, abs=1e-4)
    assert rows[-1]["accuracy"] == 1.0
    assert rows[-1]["reward_margin"] > 0.1
    margin = rows[-1]["chosen_reward"] - rows[-1]["rejected_reward"]
    assert rows[-1]["reward_margin"] == pytest.approx(margin, abs=1e-5)
    assert summary["last"]["val_accuracy"] == 1.0
    assert (summary["pairs"], summary["held_out"]) == (24, 6)
    assert Tokenizer.load(tmp_path / "model").chat_template is not None
    assert dpo(base, PAIRS, tmp_path, settings(epochs=6), held_out) == summary


def test_the_reference_is_the_start_model_with_an_adapter_off(base, tmp_path):
    """Its log-probabilities are those of the folder, with LoRA too, and the loss starts at log 2."""
    dpo(base, PAIRS, tmp_path / "full", settings(epochs=1))
    summary = dpo(base, PAIRS, tmp_path / "lora", settings(epochs=1, lora=LoRAConfig(r=4)))
    found = [load_file(tmp_path / name / "reference.safetensors")["logprobs"] for name in ("full", "lora")]
    assert torch.equal(*found)
    with torch.no_grad():
        for batch in Pairs(tmp_path / "full" / "pairs", ROW, 600, 0).in_order():
            assert torch.allclose(batch.sequence_logprobs(load(base)), found[0][batch.pairs], atol=1e-4)
    rows = [json.loads(line) for line in (tmp_path / "lora" / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert (tmp_path / "lora" / "adapter" / "adapter_model.safetensors").is_file()
    trained, start = load(tmp_path / "lora" / "model"), load(base)
    assert torch.equal(trained.model.embed_tokens.weight, start.model.embed_tokens.weight)
    assert not torch.equal(
        trained.model.layers[0].mlp.up_proj.weight, start.model.layers[0].mlp.up_proj.weight
    )
    assert summary["pairs"] == 24


def test_another_model_may_be_the_reference(base, tmp_path):
    """Its copy changes nothing; another of its shapes does from the first step; other shapes are refused."""
    dpo(base, PAIRS, tmp_path / "own", settings(epochs=1))
    copy = shutil.copytree(base, tmp_path / "copy")
    dpo(base, PAIRS, tmp_path / "same", settings(epochs=1, reference=str(copy)))
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("own", "same")]
    assert weights[0] == weights[1]
    tokenizer, other = Tokenizer.load(base), load(base)
    with torch.no_grad():
        other.model.norm.weight.mul_(1.5)
    save(other, tokenizer, tmp_path / "sharper")
    dpo(base, PAIRS, tmp_path / "other", settings(epochs=1, reference=str(tmp_path / "sharper")))
    first = [json.loads((tmp_path / name / "metrics.jsonl").open().readline()) for name in ("own", "other")]
    assert first[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert abs(first[1]["loss"] - math.log(2)) > 1e-3
    wide = other.config.model_copy(update={"intermediate_size": 160})
    save(initialise(wide, 0), tokenizer, tmp_path / "wide")
    with pytest.raises(ModelError, match=r"other shapes than the policy: .*mlp.*160"):
        dpo(base, PAIRS, tmp_path / "out", settings(reference=str(tmp_path / "wide")))


def test_margins_with_ipo_and_other_pairs_in_a_folder_are_refused(base, tmp_path):
    with pytest.raises(ConfigError, match="ipo has no place for"):
        dpo(base, [pair(1, margin=1.0), *PAIRS], tmp_path / "a", settings(loss="ipo"))
    dpo(base, PAIRS, tmp_path / "b", settings())
    with pytest.raises(ConfigError, match="other data"):
        dpo(base, PAIRS[:20], tmp_path / "b", settings())


def test_micro_batches_change_nothing(base, tmp_path):
    """The same losses, whole or in parts."""
    for name, rows in (("whole", None), ("parts", 2)):
        dpo(base, PAIRS, tmp_path / name, settings(epochs=1, micro_batch_rows=rows))
    whole, parts = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "parts")
    )
    for ours, theirs in zip(whole, parts, strict=True):
        for key in ("loss", "grad_norm", "accuracy", "reward_margin"):
            assert ours[key] == pytest.approx(theirs[key], abs=2e-4)


KILLED = """
import json, sys
from glasshouse.alignment.dpo import DPOConfig, dpo
base, out, pairs, config = sys.argv[1:]
dpo(base, json.loads(pairs), out, DPOConfig.parse(json.loads(config)))
"""


def test_a_killed_run_ends_with_the_same_bits(base, tmp_path):
    """SIGKILL after the first checkpoint; the same call goes on from there."""
    config = settings(epochs=20, checkpoint_every_seconds=0, log_every=3)
    arguments = [str(base), str(tmp_path / "killed"), json.dumps(PAIRS), config.model_dump_json()]
    environment = os.environ | {"GLASSHOUSE_QUIET": "1"}
    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments], env=environment)
    while not list((tmp_path / "killed" / "state").glob("step-*")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    dpo(base, PAIRS, tmp_path / "killed", config)
    dpo(base, PAIRS, tmp_path / "whole", config)
    ours, theirs = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("killed", "whole")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    timing = {"seconds", "tokens_per_second"}
    rows = [
        [
            {key: value for key, value in json.loads(line).items() if key not in timing}
            for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("killed", "whole")
    ]
    assert rows[0] == rows[1]
