"""Iterated rounds: every round asks raters about the newest policy, and all of it goes on after a kill."""

import json

import pytest
import torch

from glasshouse.alignment.judge import Program
from glasshouse.alignment.raters import higher_score
from glasshouse.alignment.rounds import RoundsConfig, rounds
from glasshouse.alignment.sampled_pairs import sampled_pairs
from glasshouse.core.errors import ConfigError, DataError, InterruptedRunError
from glasshouse.core.seeds import derive, python_rng
from glasshouse.model import load, save
from glasshouse.tokenizer import Tokenizer
from glasshouse.training.metrics import TIMING_FIELDS

EXAMPLES = [{"prompt": [{"role": "user", "content": text}]} for text in ("Hi", "Say a", "Go", "More")]


def plain_share(example, reply):
    return sum(character < "\x80" for character in reply) / max(1, len(reply))


GOLD = Program("plain characters", plain_share)


@pytest.fixture(scope="module")
def base(small_folder):
    """An untrained trunk carries nothing to where a reward is read: hence the noise."""
    return small_folder(noise=0.05, num_hidden_layers=1, max_position_embeddings=96)


PLAIN = {"dtype": "float32", "device": "cpu", "sequence_length": 96, "log_every": 1}


def settings(**changes):
    fast = dict.fromkeys(("muon_lr", "embed_lr", "head_lr", "scalar_lr"), 0.02)
    reward = {**PLAIN, "batch_tokens": 1024, "epochs": 6, **fast}
    policy = {**PLAIN, "sequence_length": 48, "batch_tokens": 16 * 48, "max_new_tokens": 8, "updates": 2}
    policy |= {"tokens": 8 * 16 * 48, "kl_coef": 0.001, **fast}
    each = {"checkpoint_every_seconds": 0}
    sizes = {"rounds": 2, "prompts": 4, "group": 4, "held_out": 0.25, "max_new_tokens": 8, "device": "cpu"}
    return RoundsConfig.parse({**sizes, "reward": {**reward, **each}, "ppo": {**policy, **each}, **changes})


def rows_of(path):
    lines = [json.loads(line) for line in path.open()]
    return [{key: value for key, value in row.items() if key not in TIMING_FIELDS} for row in lines]


def plain_rater(number):
    return higher_score(GOLD)


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    return out, rounds(base, EXAMPLES, plain_rater, out, settings(), gold=GOLD)


def test_each_round_compares_the_newest_policys_replies_and_learns_from_all_so_far(whole, base):
    """The pairs are those that the policy of the round before writes; rows of the metrics go on counting."""
    out, summary = whole
    policies = [base, out / "round-1" / "policy" / "model"]
    found = []
    for number, policy in enumerate(policies, 1):
        drawn = python_rng(0, "rounds", number).sample(range(4), 4)
        seed = derive(0, "rounds", number, "pairs.jsonl")
        asked = [EXAMPLES[place] for place in drawn[1:]]
        model, tokenizer = load(policy).eval(), Tokenizer.load(policy)
        rater = plain_rater(number)
        pairs = list(sampled_pairs(model, tokenizer, asked, rater, seed=seed, max_new_tokens=8))
        assert rows_of(out / f"round-{number}" / "pairs.jsonl") == pairs
        found += [len(pairs)]
    assert [one["pairs"] for one in summary["rounds"]] == [found[0], sum(found)]
    assert all(one["reward"]["pairs"] == one["pairs"] for one in summary["rounds"])
    assert all(one["held_out"] > 0 for one in summary["rounds"])
    metrics = rows_of(out / "metrics.jsonl")
    assert [row["step"] for row in metrics] == list(range(1, 17))
    assert [row["round"] for row in metrics] == [1] * 8 + [2] * 8
    assert (summary["steps"], summary["last"]["step"]) == (16, 8)


def test_the_reference_stays_the_first_model(whole, base):
    """The second round begins away from it; the model left is the last policy."""
    out, _ = whole
    metrics = rows_of(out / "metrics.jsonl")
    assert metrics[0]["kl"] == 0
    assert metrics[8]["kl_k3"] > 0
    last, kept = load(out / "round-2" / "policy" / "model"), load(out / "model")
    assert all(torch.equal(x, y) for x, y in zip(last.parameters(), kept.parameters(), strict=True))


@pytest.mark.parametrize("moment", ["compare", "policy"])
def test_stopped_rounds_continue_with_the_same_bits(base, whole, tmp_path, moment):
    """In the rater of the second round, or in its policy's training."""
    calls = 0

    def stopping_rater(number):
        def rater(example, replies):
            if number == 2 and moment == "compare":
                raise KeyboardInterrupt
            return plain_rater(number)(example, replies)

        return rater

    def stopping_score(example, reply):
        nonlocal calls
        calls += 1
        if moment == "policy" and calls == 100:  # of 128
            raise KeyboardInterrupt
        return plain_share(example, reply)

    stopping = Program(GOLD.name, stopping_score)
    with pytest.raises((KeyboardInterrupt, InterruptedRunError)):
        rounds(base, EXAMPLES, stopping_rater, tmp_path, settings(), gold=stopping)
    rounds(base, EXAMPLES, plain_rater, tmp_path, settings(), gold=GOLD)
    out, _ = whole
    assert rows_of(tmp_path / "metrics.jsonl") == rows_of(out / "metrics.jsonl")
    weights = [folder / "model" / "model.safetensors" for folder in (tmp_path, out)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_other_rounds_in_the_same_folder_are_refused(base, whole):
    out, _ = whole
    with pytest.raises(ConfigError, match=r"other settings and prompts.*another output folder"):
        rounds(base, EXAMPLES[:3], plain_rater, out, settings(rounds=3))


def test_a_policy_that_always_says_the_same_has_nothing_to_compare(base, tmp_path):
    one = {"prompts": 2, "group": 2, "held_out": 0.0, "max_new_tokens": 1}
    tokenizer, sure = Tokenizer.load(base), load(base)
    with torch.no_grad():  # nothing but the end of the turn
        sure.model.norm.weight.zero_()
        sure.model.norm.weight[0] = 1000.0
        sure.model.embed_tokens.weight[:, 0] = 1.0
        sure.model.embed_tokens.weight[tokenizer.end_of_turn_id, 0] = 2.0
    save(sure, tokenizer, tmp_path / "sure")
    with pytest.raises(DataError, match="says the same 2 times to each of 2 prompts in round 1"):
        rounds(tmp_path / "sure", EXAMPLES, plain_rater, tmp_path / "out", settings(**one))
