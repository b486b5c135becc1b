"""PPO in the one loop: the loss of its definition, a policy that learns, and runs that continue exactly."""

import dataclasses
import json
import math

import pytest
import torch
from pydantic import ValidationError

from glasshouse.alignment.experience import Sampler
from glasshouse.alignment.judge import Program
from glasshouse.alignment.ppo import PPO, PPOConfig, ppo
from glasshouse.alignment.prompts import Prompts
from glasshouse.alignment.reference import Reference
from glasshouse.alignment.value_head import add_value_head, remove_value_head, score_values
from glasshouse.core.errors import ConfigError, DataError, InterruptedRunError
from glasshouse.data import Shards
from glasshouse.model import load
from glasshouse.tokenizer import Tokenizer
from glasshouse.training.metrics import TIMING_FIELDS

EXAMPLES = [{"prompt": [{"role": "user", "content": text}]} for text in ("Hi", "Say a", "Go", "More")]


def count_low(example, reply):
    """More than half of what an untrained model says is not ASCII: there is something to learn."""
    return sum(character < "\x80" for character in reply) / max(1, len(reply))


LOW = Program("plain characters", count_low)


STEPS = ("muon_lr", "embed_lr", "head_lr", "scalar_lr")


def settings(**changes):
    plain = {
        "sequence_length": 48,
        "batch_tokens": 16 * 48,
        "max_new_tokens": 8,
        "tokens": 8 * 16 * 48,
        "updates": 2,
        "dtype": "float32",
        "device": "cpu",
        **dict.fromkeys(STEPS, 0.01),
    }
    return PPOConfig.parse(plain | changes)


@pytest.fixture(scope="module")
def base(small_folder):
    return small_folder()


def rows_of(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMING_FIELDS} for line in lines]


def shaken(base, seed, size):
    """The base with other weights, and a value head that says something."""
    model = load(base)
    add_value_head(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return model


def test_a_tiny_model_learns_what_the_judge_rewards(base, tmp_path):
    """The reward rises far above chance; the saved model is a plain one."""
    config = settings(tokens=60 * 16 * 48, kl_coef=0.001, **dict.fromkeys(STEPS, 0.02))
    ppo(base, EXAMPLES, LOW, tmp_path, config)
    rows = rows_of(tmp_path)
    rewards = [row["reward_proxy"] for row in rows]
    assert sum(rewards[:6]) / 6 < 0.7
    assert sum(rewards[-6:]) / 6 > 0.85
    assert (rows[0]["kl"], rows[0]["clipped_fraction"]) == (0, 0)
    assert set(rows[0]) >= {"kl_coef", "explained_variance", "entropy", "reply_tokens", "kl_k3", "ended"}
    names = {name for name, _ in load(tmp_path / "model").named_parameters()}
    assert names == {name for name, _ in load(base).named_parameters()}


@pytest.mark.parametrize("centre", [True, False])
def test_the_loss_is_its_definition(base, centre):
    """Rewards, GAE, whitening, both clips and entropy, token by token, from plain logits: within 1e-5."""
    plain = {"kl_coef": 0.3, "entropy_coef": 0.01, "value_coef": 0.5, "gamma": 0.9, "lam": 0.8}
    config = settings(**plain, centre_advantages=centre)
    old, reference, model = shaken(base, 1, 0.1), shaken(base, 2, 0.1), shaken(base, 1, 0.1)
    tokenizer = Tokenizer.load(base)
    remove_value_head(reference)
    texts = []

    def listening(example, reply):
        texts.append(reply)
        return count_low(example, reply)

    prompts = Prompts.encode(EXAMPLES, tokenizer, 40)
    objective = PPO(
        Sampler(prompts, tokenizer, Program("low", listening), config, Reference(reference)), config
    )
    objective.sample(old, 0)
    batch = objective.batch(0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
        ours = objective.loss(model, batch)
        logprobs = [
            m(batch.inputs, segments=batch.segments).double().log_softmax(-1) for m in (model, old, reference)
        ]
        values = [score_values(m, batch.inputs, batch.targets, batch.segments).double() for m in (model, old)]
    rows = []  # for each token of each reply: log-probabilities of the three, values of the two, entropy
    for row in range(len(batch.inputs)):
        tokens = []
        for t in (batch.targets[row] >= 0).nonzero()[:, 0].tolist():
            all_three = [float(x[row, t, batch.targets[row, t]]) for x in logprobs]
            spread = -float((logprobs[0][row, t].exp() * logprobs[0][row, t]).sum())
            tokens.append((*all_three, float(values[0][row, t]), float(values[1][row, t]), spread))
        rows.append(tokens)
    advantages, returns = [], []
    for tokens, text in zip(rows, texts, strict=True):
        rewards = [-0.3 * (old - ref) for _, old, ref, *_ in tokens]
        rewards[-1] += count_low(None, text)
        v = [token[4] for token in tokens] + [0.0]
        deltas = [rewards[t] + 0.9 * v[t + 1] - v[t] for t in range(len(tokens))]
        gains = [sum(0.72 ** (k - t) * deltas[k] for k in range(t, len(tokens))) for t in range(len(tokens))]
        advantages += gains
        returns += [gain + value for gain, value in zip(gains, v, strict=False)]
    mean = sum(advantages) / len(advantages) if centre else 0.0
    deviation = (sum((a - mean) ** 2 for a in advantages) / len(advantages)) ** 0.5
    total = 0.0
    flat = [token for tokens in rows for token in tokens]
    for (new, before, _, value, old_value, spread), gain, aim in zip(flat, advantages, returns, strict=True):
        advantage, ratio = (gain - mean) / deviation, math.exp(new - before)
        total -= min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage)
        near = old_value + min(max(value - old_value, -0.2), 0.2)
        total += 0.5 * max((value - aim) ** 2, (near - aim) ** 2) / 2 - 0.01 * spread
    assert ours.count == len(flat)
    assert float(ours.loss_sum) / ours.count == pytest.approx(total / len(flat), abs=1e-5)


def test_each_step_takes_the_next_part_of_the_rollouts(base):
    """Two minibatches hold all replies once; micro-batches of one add up to it."""
    config = settings(minibatches=2, updates=4)
    tokenizer = Tokenizer.load(base)
    sampler = Sampler(
        Prompts.encode(EXAMPLES, tokenizer, 40), tokenizer, LOW, config, Reference(load(base).eval())
    )
    objective, model = PPO(sampler, config), shaken(base, 1, 0.1)
    objective.sample(model, 0)
    parts = [objective.batch(step) for step in range(4)]
    assert [len(part.inputs) for part in parts] == [8, 8, 8, 8]
    assert torch.equal(parts[0].inputs, parts[2].inputs)
    assert not torch.equal(parts[0].inputs, parts[1].inputs)
    with torch.no_grad():
        pieces = sum(objective.loss(model, micro).loss_sum for micro in parts[0].split(3))
        torch.testing.assert_close(pieces, objective.loss(model, parts[0]).loss_sum, rtol=1e-4, atol=1e-5)


def test_a_stopped_run_continues_with_the_same_bits(base, tmp_path):
    """With a coefficient that adapts, minibatches, and a checkpoint wherever rollouts begin."""
    config = settings(kl_target=1.0, minibatches=2, checkpoint_every_seconds=0)
    ppo(base, EXAMPLES, LOW, tmp_path / "whole", config)
    calls = 0

    def stopping(example, reply):
        nonlocal calls
        calls += 1
        if calls == 40:
            raise KeyboardInterrupt
        return count_low(example, reply)

    with pytest.raises(InterruptedRunError):
        ppo(base, EXAMPLES, Program(LOW.name, stopping), tmp_path / "parts", config)
    ppo(base, EXAMPLES, LOW, tmp_path / "parts", config)
    whole, parts = rows_of(tmp_path / "whole"), rows_of(tmp_path / "parts")
    assert whole == parts
    assert len({row["kl_coef"] for row in whole}) > 1
    files = [tmp_path / run / "model" / "model.safetensors" for run in ("whole", "parts")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_settings_that_contradict_each_other_are_refused():
    """Before anything is loaded."""
    with pytest.raises((ConfigError, ValidationError), match="3 minibatches must divide"):
        settings(minibatches=3)


def test_a_penalty_of_nothing_stays_nothing_whatever_its_target(base, tmp_path):
    """So that `--set ppo.kl_coef=0` turns off the penalty of a recipe that steers it."""
    ppo(base, EXAMPLES, LOW, tmp_path, settings(tokens=3 * 16 * 48, kl_coef=0, kl_target=6))
    assert {row["kl_coef"] for row in rows_of(tmp_path)} == {0}


LEARNT = [
    {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": reply}]}
    for text, reply in (("Hi", "Good day to you"), ("Go", "Where to?"), ("More", "No more"))
] * 4


def test_what_is_rehearsed_adds_its_mean_loss(base, tmp_path, monkeypatch):
    """PPO-ptx: with and without the term, the loss differs by ptx_coef times the mean negative
    log-likelihood of the assistants' tokens, from plain logits; and so in micro-batches."""
    seen = []
    monkeypatch.setattr(PPO, "metrics", lambda self: seen.append(self) or {})
    ppo(
        base,
        EXAMPLES,
        LOW,
        tmp_path,
        settings(tokens=2 * 16 * 48, ptx_coef=0.5, ptx_rows=2),
        rehearsal=LEARNT,
    )
    objective, model = seen[-1], shaken(base, 1, 0.1)
    objective.sample(model, 0)
    batch = objective.batch(0)
    rows = batch.rehearsal
    with torch.no_grad():
        both = objective.loss(model, batch)
        bare = objective.loss(model, dataclasses.replace(batch, rehearsal=None))
        pieces = sum(objective.loss(model, micro).loss_sum for micro in batch.split(3))
        logits = model(rows.inputs, segments=rows.segments, positions=rows.positions).double()
    logprobs = logits.log_softmax(-1)
    places = (rows.targets >= 0).nonzero().tolist()
    nll = -sum(float(logprobs[row, t, rows.targets[row, t]]) for row, t in places) / len(places)
    assert float(both.loss_sum - bare.loss_sum) / both.count == pytest.approx(0.5 * nll, rel=1e-4)
    torch.testing.assert_close(pieces, both.loss_sum, rtol=1e-4, atol=1e-4)
    assert both.count == bare.count == batch.count


def test_rehearsal_keeps_what_the_reward_knows_nothing_of(base, tmp_path):
    """The likelihood of what was learnt rises with the term, while the policy still follows the reward."""
    config = settings(
        tokens=40 * 16 * 48, kl_coef=0.001, ptx_coef=1.0, ptx_rows=2, **dict.fromkeys(STEPS, 0.02)
    )
    ppo(base, EXAMPLES, LOW, tmp_path, config, rehearsal=LEARNT)
    rows = rows_of(tmp_path)
    assert rows[-1]["rehearsal_loss"] < 0.5 * rows[0]["rehearsal_loss"]
    assert rows[-1]["reward_proxy"] > rows[0]["reward_proxy"]


def test_documents_are_rehearsed_beside_conversations(base, tmp_path):
    """ptx_replay tokens of them for each token of the conversations, to the end of a document."""
    texts = [f"Text {number} is to be kept in mind. " * 3 for number in range(200)]
    sizes = {}
    for share in (0.0, 2.0):
        config = settings(tokens=2 * 16 * 48, ptx_coef=0.5, ptx_rows=2, ptx_replay=share)
        ppo(base, EXAMPLES, LOW, tmp_path / str(share), config, rehearsal=LEARNT, replay=texts)
        sizes[share] = int(Shards(tmp_path / str(share) / "rehearsal").offsets[-1])
    longest = max(len(Tokenizer.load(base).encode(text)) for text in texts) + 2
    assert 3 * sizes[0.0] <= sizes[2.0] <= 3 * sizes[0.0] + longest


def test_nothing_to_rehearse_is_refused(base, tmp_path):
    with pytest.raises(DataError, match="no conversation"):
        ppo(base, EXAMPLES, LOW, tmp_path, settings(ptx_coef=0.5))
