"""GRPO in the one loop: it learns what a judge can check, and a killed run ends with the same bits."""

import json
import os
import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError

from glasshouse.alignment.experience import Sampler
from glasshouse.alignment.grpo import GRPO, GRPOConfig, grpo
from glasshouse.alignment.judge import Program
from glasshouse.alignment.policy import Policy
from glasshouse.alignment.prompts import Prompts
from glasshouse.alignment.reference import Reference
from glasshouse.core.errors import ConfigError, DataError, InterruptedRunError
from glasshouse.model import load
from glasshouse.tokenizer import Tokenizer
from glasshouse.training.metrics import TIMING_FIELDS

EXAMPLES = [
    {"prompt": [{"role": "user", "content": text}]} for text in ("Hi", "Say a", "Go", "More", "Yes", "No")
]


def count_low(example, reply):
    """More than half of what an untrained model says is not ASCII: there is something to learn."""
    return sum(character < "\x80" for character in reply) / max(1, len(reply))


LOW = Program("plain characters", count_low)


def settings(**changes):
    plain = {
        "sequence_length": 48,
        "batch_tokens": 16 * 48,
        "group": 8,
        "max_new_tokens": 8,
        "tokens": 6 * 16 * 48,
        "dtype": "float32",
        "device": "cpu",
        "muon_lr": 0.02,
        "embed_lr": 0.02,
        "head_lr": 0.02,
        "scalar_lr": 0.02,
    }
    return GRPOConfig.parse(plain | changes)


@pytest.fixture(scope="module")
def base(small_folder):
    return small_folder()


def rows_of(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMING_FIELDS} for line in lines]


def objective(base, **changes):
    config, tokenizer = settings(**changes), Tokenizer.load(base)
    prompts = Prompts.encode(EXAMPLES, tokenizer, 40)
    reference = Reference(load(base).eval()) if config.kl_coef else None
    return GRPO(Sampler(prompts, tokenizer, LOW, config, reference), config)


def test_a_tiny_model_learns_what_the_judge_rewards(base, tmp_path):
    """The reward rises far above chance; KL rises from exactly 0, entropy falls."""
    summary = grpo(base, EXAMPLES, LOW, tmp_path, settings(tokens=30 * 16 * 48, kl_coef=0.001))
    rows = rows_of(tmp_path)
    rewards = [row["reward_proxy"] for row in rows]
    assert sum(rewards[:3]) / 3 < 0.7
    assert sum(rewards[-3:]) / 3 > 0.85
    assert (rows[0]["kl"], rows[0]["kl_k3"], rows[0]["clipped_fraction"]) == (0, 0, 0)
    assert rows[-1]["kl_k3"] > 0
    assert rows[-1]["entropy"] < rows[0]["entropy"]
    assert summary["steps"] == len(rows) == 30
    assert "reward_hacking" not in {alarm["name"] for alarm in summary["alarms"]}


def test_rehearsal_keeps_what_the_judge_knows_nothing_of(base, tmp_path):
    """The likelihood of what was learnt rises with the term, while the policy still follows the judge."""
    learnt = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": reply}]}
        for text, reply in (("Hi", "Good day to you"), ("Go", "Where to?"), ("More", "No more"))
    ] * 4
    steps = dict.fromkeys(("muon_lr", "embed_lr", "head_lr", "scalar_lr"), 0.02)
    config = settings(tokens=40 * 16 * 48, kl_coef=0.001, ptx_coef=1.0, ptx_rows=2, **steps)
    grpo(base, EXAMPLES, LOW, tmp_path, config, rehearsal=learnt)
    rows = rows_of(tmp_path)
    assert rows[-1]["rehearsal_loss"] < 0.5 * rows[0]["rehearsal_loss"]
    assert rows[-1]["reward_proxy"] > rows[0]["reward_proxy"]


def test_what_is_rehearsed_adds_its_mean_loss(base, tmp_path):
    """ptx_coef times the mean negative log-likelihood, and so in micro-batches."""
    with pytest.raises(DataError, match="no conversation"):
        grpo(base, EXAMPLES, LOW, tmp_path / "none", settings(ptx_coef=0.5))
    plain = objective(base, ptx_coef=0.5, ptx_rows=2)
    policy = Policy.open(base, plain.config)
    conversation = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]}
    rehearsal = policy.rehearsal([conversation] * 20, tmp_path)
    both = GRPO(plain.sampler, plain.config, rehearsal)
    model = load(base)
    for each in (plain, both):
        each.sample(model, 0)
    batch, without = both.batch(0), plain.batch(0)
    rows = batch.rehearsal
    with torch.no_grad():
        found, bare = both.loss(model, batch), plain.loss(model, without)
        pieces = sum(both.loss(model, micro).loss_sum for micro in batch.split(3))
        logprobs = model(rows.inputs, segments=rows.segments, positions=rows.positions).log_softmax(-1)
    places = (rows.targets >= 0).nonzero().tolist()
    nll = -sum(float(logprobs[row, t, rows.targets[row, t]]) for row, t in places) / len(places)
    assert float(found.loss_sum - bare.loss_sum) / found.count == pytest.approx(0.5 * nll, rel=1e-4)
    torch.testing.assert_close(pieces, found.loss_sum, rtol=1e-4, atol=1e-4)
    assert both.metrics()["rehearsal_loss"] == pytest.approx(2 * nll, rel=1e-4)  # of both passes


def test_a_policy_that_cheats_its_judge_sets_off_the_alarm(base, tmp_path):
    """What is meant falls while what is trained on rises: the summary names it, the step and both slopes."""
    opposite = Program("the opposite", lambda example, reply: 1 - count_low(example, reply))
    summary = grpo(base, EXAMPLES, LOW, tmp_path, settings(tokens=30 * 16 * 48, kl_coef=0), gold=opposite)
    (alarm,) = (alarm for alarm in summary["alarms"] if alarm["name"] == "reward_hacking")
    assert 20 <= alarm["step"] <= 30
    assert "proxy reward rose" in alarm["reason"]
    assert "kl" not in rows_of(tmp_path)[0]  # nothing to compare with was loaded


def test_the_first_gradient_is_reinforce_with_group_advantages(base):
    """Before any update: minus the advantage times each token's log-probability, over all tokens."""
    grown = objective(base, kl_coef=0.1)
    model = load(base)
    grown.sample(model, 0)
    batch = grown.batch(0)
    (grown.loss(model, batch).loss_sum / batch.count).backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    logits = model(batch.inputs, segments=batch.segments).log_softmax(-1)
    mask = batch.targets >= 0
    picked = logits.gather(-1, batch.targets.clamp(min=0)[..., None])[..., 0]
    (-(batch.advantages[:, None] * picked)[mask].mean()).backward()
    for ours, plain in zip(gradients, model.parameters(), strict=True):
        torch.testing.assert_close(ours, plain.grad, rtol=1e-4, atol=1e-6)
    assert max(float(g.abs().max()) for g in gradients) > 1e-4


@pytest.mark.parametrize("normalisation", ["sequence", "token", "constant"])
def test_micro_batches_change_nothing(base, normalisation):
    """Counts and losses of the parts add up, whatever tokens weigh."""
    grown = objective(base, normalisation=normalisation)
    model = load(base)
    grown.sample(model, 0)
    batch = grown.batch(0)
    parts = list(batch.split(5))
    assert [len(part.inputs) for part in parts] == [5, 5, 5, 1]
    assert sum(part.count for part in parts) == batch.count
    assert sum(part.tokens for part in parts) == batch.tokens
    with torch.no_grad():
        whole = grown.loss(model, batch).loss_sum
        summed = sum(grown.loss(model, part).loss_sum for part in parts)
    torch.testing.assert_close(summed, whole, rtol=1e-4, atol=1e-5)


def test_each_prompt_comes_once_in_a_pass(base):
    """Six prompts, two at a time: three steps are a pass, each with an order of its own."""
    grown = objective(base)
    assert grown.steps_per_epoch == 3
    choose = grown.sampler.prompts.choose
    passes = [[i for number in range(3 * p, 3 * p + 3) for i in choose(number, 2, 0)] for p in range(4)]
    assert all(sorted(chosen) == list(range(6)) for chosen in passes)
    assert len({tuple(chosen) for chosen in passes}) > 1


def test_later_updates_learn_from_the_same_rollouts(base, tmp_path):
    """With three updates the ratio leaves 1, the reward stays that of the sample."""
    grpo(base, EXAMPLES, LOW, tmp_path, settings(updates=3, head_lr=0.1))
    rows = rows_of(tmp_path)
    assert [row["reward_proxy"] for row in rows[:3]] == [rows[0]["reward_proxy"]] * 3
    assert rows[3]["reward_proxy"] != rows[0]["reward_proxy"]
    assert rows[0]["clipped_fraction"] == 0
    assert rows[2]["clipped_fraction"] > 0


@pytest.mark.parametrize("updates", [1, 2])
def test_a_stopped_run_continues_with_the_same_bits(base, tmp_path, updates):
    """Stopped in the judge, with checkpoints wherever rollouts begin; weights and metrics are equal."""
    config = settings(updates=updates, checkpoint_every_seconds=0)
    grpo(base, EXAMPLES, LOW, tmp_path / "whole", config)
    calls = 0

    def stopping(example, reply):
        nonlocal calls
        calls += 1
        if calls == 40:
            raise KeyboardInterrupt
        return count_low(example, reply)

    with pytest.raises(InterruptedRunError):
        grpo(base, EXAMPLES, Program(LOW.name, stopping), tmp_path / "parts", config)
    grpo(base, EXAMPLES, LOW, tmp_path / "parts", config)
    same_run(tmp_path / "whole", tmp_path / "parts")


def same_run(whole, parts):
    assert rows_of(whole) == rows_of(parts)
    files = [folder / "model" / "model.safetensors" for folder in (whole, parts)]
    assert files[0].read_bytes() == files[1].read_bytes()


SCRIPT = """
import importlib.util, os, pathlib, random, signal, sys, time
spec = importlib.util.spec_from_file_location("grpo_tests", sys.argv[1])
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)
base = pathlib.Path(sys.argv[2])
config = tests.settings(updates=2, tokens=20 * 16 * 48, checkpoint_every_seconds=0)

def begin(out):
    pid = os.fork()
    if pid:
        return pid
    try:
        tests.grpo(base, tests.EXAMPLES, tests.LOW, out, config)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

began = time.monotonic()
assert os.waitpid(begin("whole"), 0)[1] == 0
duration = time.monotonic() - began
moments, killed = random.Random(0), 0
for _ in range(5):
    pid = begin("parts")
    time.sleep(moments.uniform(0, 0.4) * duration)
    os.kill(pid, signal.SIGKILL)
    killed += os.waitpid(pid, 0)[1] == signal.SIGKILL
assert os.waitpid(begin("parts"), 0)[1] == 0
print(killed)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork a process")
def test_kills_at_random_moments_leave_no_trace(base, tmp_path):
    """SIGKILL while sampling, judging, learning or writing: the same bits at the end."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, __file__, base],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLASSHOUSE_QUIET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 1, "a kill should strike before the run is done"
    same_run(tmp_path / "whole", tmp_path / "parts")


def test_a_gold_judge_is_measured_and_changes_nothing(base, tmp_path):
    """Its mean is in the metrics, the weights are those of a run without it."""
    lengths = Program("length", lambda example, reply: float(len(reply)))
    grpo(base, EXAMPLES, LOW, tmp_path / "plain", settings())
    grpo(base, EXAMPLES, LOW, tmp_path / "gold", settings(), gold=lengths)
    plain, gold = rows_of(tmp_path / "plain"), rows_of(tmp_path / "gold")
    assert all(row.pop("reward_gold") > 0 for row in gold)
    assert plain == gold


def test_a_run_does_not_continue_under_another_judge(base, tmp_path):
    """Nor with other prompts."""
    grpo(base, EXAMPLES, LOW, tmp_path, settings())
    with pytest.raises(ConfigError, match="another output folder"):
        grpo(base, EXAMPLES, Program("other", count_low), tmp_path, settings())
    with pytest.raises(ConfigError, match="another output folder"):
        grpo(base, EXAMPLES[:4], LOW, tmp_path, settings())


@pytest.mark.parametrize("reward", [float("nan"), float("inf")])
def test_a_reward_that_is_no_number_is_refused(base, tmp_path, reward):
    """With the judge's name and the prompt."""
    with pytest.raises(DataError, match=r"'broken'.*finite.*prompt"):
        grpo(base, EXAMPLES, Program("broken", lambda example, reply: reward), tmp_path, settings())


def test_prompts_that_cannot_be_learnt_from_are_refused_or_counted(base, tmp_path):
    """Empty ones stop the run and name their place; long ones are left out; none left is an error."""
    long = {"prompt": [{"role": "user", "content": "long " * 20}]}
    with pytest.raises(DataError, match=r"prompt is empty.*example 2"):
        grpo(base, [EXAMPLES[0], {"prompt": []}], LOW, tmp_path / "empty", settings())
    with pytest.raises(DataError, match="no prompt to learn from"):
        grpo(base, [long], LOW, tmp_path / "long", settings())
    tokens = settings().batch_tokens
    summary = grpo(base, [*EXAMPLES, long], LOW, tmp_path / "some", settings(tokens=tokens))
    assert (summary["prompts"], summary["left_out"]) == (6, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group": 5}, "no whole groups of 5"),
        ({"max_new_tokens": 48}, "room for a prompt"),
        ({"group": 1}, "greater than or equal to 2"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(change, message):
    """Before anything is loaded."""
    with pytest.raises((ConfigError, ValidationError), match=message):
        settings(**change)


def test_rows_longer_than_the_context_are_refused(base, tmp_path):
    """With the number that fits."""
    with pytest.raises(ConfigError, match="at most 64"):
        grpo(base, EXAMPLES, LOW, tmp_path, settings(sequence_length=128, batch_tokens=16 * 128))
