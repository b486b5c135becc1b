"""Best-of-n and learning from it: the judge's favourites are kept, and the policy moves towards them."""

import json
import math

import pytest
import torch

from glasshouse.alignment.judge import Program
from glasshouse.alignment.prompts import Prompts
from glasshouse.alignment.rejection import RejectionConfig, best_of_n, kl_bound, rejection
from glasshouse.alignment.rollouts import sample_replies
from glasshouse.core.errors import DataError, InterruptedRunError
from glasshouse.core.seeds import derive
from glasshouse.model import load, save
from glasshouse.tokenizer import Tokenizer
from glasshouse.training.metrics import TIMING_FIELDS

EXAMPLES = [{"prompt": [{"role": "user", "content": text}]} for text in ("Hi", "Say a", "Go", "More")]


def begins_early(example, reply):
    """Whether a reply begins with a letter of the first half of the alphabet."""
    return float("a" <= reply[:1] <= "m")


EARLY = Program("begins early", begins_early)


@pytest.fixture(scope="module")
def base(small_model, tmp_path_factory):
    tokenizer = Tokenizer.train([], 265)
    model = small_model(num_hidden_layers=1, max_position_embeddings=96, tie_word_embeddings=False)
    with torch.no_grad():  # its first channel is alike everywhere, so the head has a bias there
        model.model.embed_tokens.weight[:, 0] = 10.0
        model.lm_head.weight[:, 0] = -1.0
        model.lm_head.weight[[tokenizer.encode(c)[0] for c in "abcdefghijklmnopqrstuvwxyz"], 0] = 0.0
        model.lm_head.weight[tokenizer.end_of_turn_id, 0] = 0.4
    folder = tmp_path_factory.mktemp("base") / "model"
    save(model, tokenizer, folder)
    return folder


def settings(**changes):
    plain = {"sequence_length": 96, "batch_tokens": 384, "max_new_tokens": 64, "epochs": 4, "n": 8}
    return RejectionConfig.parse({**plain, "dtype": "float32", "device": "cpu", "log_every": 1, **changes})


def best(base, judge=EARLY, n=8, **more):
    tokenizer = Tokenizer.load(base)
    prompts = Prompts.encode(EXAMPLES, tokenizer, 32)
    return best_of_n(load(base).eval(), tokenizer, prompts, judge, n, seed=5, max_new_tokens=8, **more)


def test_the_best_of_n_is_the_judges_favourite_among_the_policys_samples(base):
    """The earliest of equals; a second judge is told of all and chooses nothing."""
    letters = Program("letters", lambda example, reply: float(len(set(reply))))
    found = best(base, letters, gold=EARLY)
    tokenizer = Tokenizer.load(base)
    ids = [tokenizer.encode_chat(e["prompt"], add_generation_prompt=True).ids for e in EXAMPLES]
    seeds = [derive(5, "best of n", place) for place in range(4)]
    for one, group in zip(found, sample_replies(load(base).eval(), tokenizer, ids, seeds, 8, 8), strict=True):
        assert one.replies == group
        assert one.rewards == [float(len(set(reply.text))) for reply in group]
        assert one.place == max(range(8), key=lambda i: (one.rewards[i], -i))
        assert one.golds == [begins_early(None, reply.text) for reply in group]


@pytest.mark.parametrize("n", [2, 4, 16])
def test_the_kl_of_best_of_n_is_the_bound_where_all_rewards_differ(n):
    """Replies of equal chance, no two worth the same: the exact KL comes as near as their number allows."""
    size = 20_000
    best_is = [(rank / size) ** n - ((rank - 1) / size) ** n for rank in range(1, size + 1)]
    exact = sum(p * math.log(p * size) for p in best_is if p > 0)
    assert exact == pytest.approx(kl_bound(n), abs=1e-3)
    assert exact <= kl_bound(n) + 1e-9
    assert kl_bound(1) == 0


def test_learning_from_the_best_raises_the_reward(base, tmp_path):
    """What is kept is readable, whole replies only, and the model says such things more often."""
    result = rejection(base, EXAMPLES * 8, EARLY, tmp_path, settings(least_reward=1, epochs=20), gold=EARLY)
    rows = [json.loads(line) for line in (tmp_path / "best.jsonl").open()]
    assert result["prompts"] == 32
    assert result["kept"] == len(rows) == result["conversations"] > 10
    assert {row["metadata"]["reward"] for row in rows} == {1}
    assert result["reward_best"] > result["reward_mean"] + 0.1
    assert (result["gold_best"], result["gold_mean"]) == (result["reward_best"], result["reward_mean"])
    before, after = (sum(sum(one.rewards) for one in best(m, n=64)) for m in (base, tmp_path / "model"))
    assert after > 1.3 * before


def test_a_stopped_run_continues_with_the_same_bits(base, tmp_path):
    """Stopped in the judge, and again after sampling; a finished sample is not drawn again."""
    rejection(base, EXAMPLES, EARLY, tmp_path / "whole", settings())
    calls = 0

    def stopping(example, reply):
        nonlocal calls
        calls += 1
        if calls == 20:
            raise KeyboardInterrupt
        return begins_early(example, reply)

    with pytest.raises((KeyboardInterrupt, InterruptedRunError)):
        rejection(base, EXAMPLES, Program(EARLY.name, stopping), tmp_path / "parts", settings())
    assert not (tmp_path / "parts" / "best.jsonl").exists()
    rejection(base, EXAMPLES, EARLY, tmp_path / "parts", settings())
    again = Program(EARLY.name, lambda example, reply: 1 / 0)
    rejection(base, EXAMPLES, again, tmp_path / "parts", settings())
    whole, parts = (
        [
            {key: value for key, value in json.loads(line).items() if key not in TIMING_FIELDS}
            for line in (tmp_path / name / "metrics.jsonl").open()
        ]
        for name in ("whole", "parts")
    )
    assert whole == parts
    files = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert files[0] == files[1]


def test_nothing_worth_learning_is_an_error_with_a_way_out(base, tmp_path):
    with pytest.raises(DataError, match=r"no reply of 32 is worth learning.*least_reward"):
        rejection(base, EXAMPLES, EARLY, tmp_path, settings(least_reward=2))
