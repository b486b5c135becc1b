"""Pairs as batches: only the reply is masked, both sides stay together, and steps are pure functions."""

import math

import numpy as np
import pytest
import torch

from glasshouse.alignment.bradley_terry import agreement, preference_loss
from glasshouse.alignment.pair_batches import Pairs
from glasshouse.alignment.preference_pairs import encode_pair, encode_pairs
from glasshouse.core.errors import ConfigError, DataError
from glasshouse.model.lora import LoRAConfig, add_adapter
from glasshouse.tokenizer import Tokenizer

ROW = 96


def turns(*texts, first="user"):
    roles = ("user", "assistant") if first == "user" else ("assistant", "user")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


def pair(prompt, chosen, rejected, **more):
    sides = {"chosen": chosen, "rejected": rejected}
    sides = {name: turns(*side, first="assistant") for name, side in sides.items()}
    return {"prompt": turns(*prompt), **sides, **more}


PAIRS = [
    pair(["Hi."], ["Hello."], ["What?"]),
    pair(["Hi.", "Hello.", "How are you?"], ["Well."], ["Go away, " * 3], tie=True),
    pair(["Say it."], ["It.", "Again?", "It again."], ["No."], margin=0.5),
    *(pair([f"What is {i} + 1?"], [f"{i + 1}"], [f"{i + 2} " * (i % 3 + 1)]) for i in range(20)),
]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train([], 265)


@pytest.fixture
def pairs(tokenizer, tmp_path):
    encode_pairs(PAIRS, tokenizer, tmp_path / "pairs", ROW)
    return Pairs(tmp_path / "pairs", ROW, 400, seed=0)


def test_the_mask_covers_the_reply_alone(tokenizer):
    """Every turn of the assistant in the reply, and none of those in the prompt."""
    for number, words in ((1, "Well.<|im_end|>"), (2, "It.<|im_end|>It again.<|im_end|>")):
        sides, cut = encode_pair(tokenizer, PAIRS[number], ROW)
        assert sides is not None
        assert not cut
        chosen = sides[0]
        kept = [i for i, written in zip(chosen.ids, chosen.assistant_mask, strict=True) if written]
        assert tokenizer.decode(kept) == words
        assert chosen.ids == tokenizer.encode_chat(PAIRS[number]["prompt"] + PAIRS[number]["chosen"]).ids


def test_long_prompts_lose_their_oldest_turns_for_both_replies(tokenizer):
    """As few as must go; where a single exchange is too long there is nothing to learn."""
    long = pair(["old " * 9, "older", "mid " * 9, "so", "New?"], ["Yes."], ["No, not at all."])
    shorter = long | {"prompt": long["prompt"][2:]}
    limit = max(len(side.ids) for side in encode_pair(tokenizer, shorter, 1000)[0])
    sides, cut = encode_pair(tokenizer, long, limit)
    assert cut
    assert sides == encode_pair(tokenizer, shorter, 1000)[0]
    assert encode_pair(tokenizer, pair(["x" * 99], ["Yes."], ["No."]), ROW)[0] is None


def test_what_cannot_be_used_is_counted(tokenizer, tmp_path):
    rows = [*PAIRS, pair(["x" * 200], ["Yes."], ["No."])]
    counts = encode_pairs(rows, tokenizer, tmp_path / "pairs", ROW)
    assert vars(counts) == {"pairs": len(PAIRS), "ties": 1, "cut": 0, "left_out": 1}
    with pytest.raises(DataError, match=r"no pair to learn from \(1"):
        encode_pairs(rows[-1:], tokenizer, tmp_path / "none", ROW)


def sequences(batch) -> list[list[int]]:
    """Of each sequence the places in the flattened rows that hold its tokens, those it shares included."""
    segments, positions = batch.segments.flatten(), batch.positions.flatten()
    width, found = batch.inputs.shape[1], []
    for last in batch.last.tolist():
        begin = last
        while (
            begin % width
            and segments[begin - 1] == segments[last]
            and positions[begin] == positions[begin - 1] + 1
        ):
            begin -= 1
        row = range(last // width * width, begin)
        shared = [i for i in row if segments[i] == segments[last]][: int(positions[begin])]
        found.append([*shared, *range(begin, last + 1)])
    return found


def test_a_batch_holds_both_conversations_of_its_pairs_whole(pairs, tokenizer):
    """Positions count from 0; targets are the next tokens of the replies."""
    batch = pairs.batch(0)
    inputs, targets, positions = (t.flatten() for t in (batch.inputs, batch.targets, batch.positions))
    places = sequences(batch)
    for place, number in enumerate(batch.pairs):
        for side in (0, 1):
            here = places[2 * place + side]
            expected = encode_pair(tokenizer, PAIRS[number], ROW)[0][side]
            assert inputs[here].tolist() == expected.ids
            assert positions[here].tolist() == list(range(len(expected.ids)))
            learnt = [i for i, written in zip(expected.ids, expected.assistant_mask, strict=True) if written]
            assert [t for t in targets[here].tolist() if t != -100] == learnt
            assert batch.lengths[2 * place + side] == len(learnt)
    assert batch.tokens == sum(map(len, places))
    assert 0 < batch.tokens <= 400


def test_the_prompt_of_a_pair_is_read_once(pairs):
    """Up to its last token, from which both replies go on; of pairs too long for a row nothing is shared."""
    batch = pairs.batch(0)
    for chosen, rejected in zip(*[iter(sequences(batch))] * 2, strict=True):
        shared = len(set(chosen) & set(rejected))
        prompt = next(i for i, place in enumerate(chosen) if batch.targets.flatten()[place] != -100) + 1
        fits = len({*chosen, *rejected}) + (prompt - 1) * (not shared) <= ROW
        assert shared == (prompt - 1 if shared else 0)
        assert fits or not shared
    assert int((batch.segments >= 0).sum()) < batch.tokens


def test_an_epoch_has_every_pair_once_and_the_next_another_order(pairs):
    steps = int(pairs.steps_per_epoch)
    first = np.concatenate([pairs.batch(step).pairs for step in range(steps)])
    assert sorted(first) == list(range(len(PAIRS)))
    assert pairs.batch(steps).pairs.tolist() != pairs.batch(0).pairs.tolist()


def test_a_batch_is_a_function_of_the_step(pairs, tmp_path):
    """Whatever was read before: that is what makes resume exact."""
    [pairs.batch(step) for step in range(9)]
    fresh = Pairs(tmp_path / "pairs", ROW, 400, seed=0)
    ours, theirs = pairs.batch(7), fresh.batch(7)
    assert ours.pairs.tolist() == theirs.pairs.tolist()
    assert torch.equal(ours.inputs, theirs.inputs)
    assert (
        Pairs(tmp_path / "pairs", ROW, 400, seed=1).batch(0).pairs.tolist() != pairs.batch(0).pairs.tolist()
    )


def test_parts_of_a_batch_are_the_whole(pairs):
    """Pairs stay together; the parts have all of them in order, each in no more rows than asked for."""
    batch = pairs.batch(0)
    parts = list(batch.split(2))
    assert len(parts) > 1
    assert np.concatenate([part.pairs for part in parts]).tolist() == batch.pairs.tolist()
    assert sum(part.count for part in parts) == batch.count
    assert all(part.tokens <= 2 * ROW or part.count == 1 for part in parts)


def test_packed_logprobs_equal_each_reply_alone(pairs, tokenizer, random_model):
    """In fp32, over the reply's tokens given all that is before them."""
    model = random_model(model_type="llama", max_position_embeddings=ROW)
    batch = pairs.batch(0)
    with torch.no_grad():
        found = batch.sequence_logprobs(model)
        for place, number in enumerate(batch.pairs):
            for side in (0, 1):
                encoded = encode_pair(tokenizer, PAIRS[number], ROW)[0][side]
                logprobs = model(torch.tensor([encoded.ids]))[0].log_softmax(-1)
                alone = sum(
                    logprobs[i - 1, token].item()
                    for i, token in enumerate(encoded.ids)
                    if encoded.assistant_mask[i]
                )
                assert found[place, side].item() == pytest.approx(alone, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("head", ["untied", "tied", "adapted"])
def test_gradients_of_packed_logprobs_equal_plain_autograd(pairs, random_model, head):
    """With weights of both signs on the replies, for every kind of head."""
    model = random_model(model_type="qwen3", max_position_embeddings=ROW, tie_word_embeddings=head == "tied")
    if head == "adapted":
        add_adapter(model, LoRAConfig(r=4, targets=("lm_head", "up_proj")))
        for name, parameter in model.named_parameters():
            if ".adapters." in name:
                parameter.data += 0.1
    batch = pairs.batch(0)
    weights = torch.linspace(-1, 1, 2 * batch.count).view(-1, 2)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    (batch.sequence_logprobs(model) * weights).sum().backward()
    found = {name: p.grad.clone() for name, p in trained.items()}
    model.zero_grad()
    logits = model(batch.inputs, positions=batch.positions, segments=batch.segments)
    counted = batch.targets != -100
    logprobs = logits[counted].log_softmax(-1).gather(1, batch.targets[counted][:, None])[:, 0]
    (logprobs * weights.flatten()[batch.owner]).sum().backward()
    for name, parameter in trained.items():
        assert torch.allclose(found[name], parameter.grad, atol=2e-4, rtol=1e-4), name


def test_the_loss_is_the_cross_entropy_of_bradley_and_terry():
    """By hand: e^a / (e^a + e^b), labels of any certainty, and a margin that moves the difference."""
    for d, q, m in ((0.0, 1.0, 0.0), (1.3, 1.0, 0.0), (-2.0, 0.9, 0.0), (0.7, 0.5, 0.0), (0.4, 0.8, 0.6)):
        wins, loses = 1 / (1 + math.exp(-(d - m))), 1 / (1 + math.exp(d + m))
        expected = -q * math.log(wins) - (1 - q) * math.log(loses)
        found = preference_loss(torch.tensor(d), torch.tensor(q), m)
        assert found.item() == pytest.approx(expected, rel=1e-6)
    big = preference_loss(torch.tensor([-500.0, 500.0]), torch.tensor([1.0, 1.0]))
    assert big.tolist() == [500.0, 0.0]


def test_agreement_counts_ties_half():
    scores, preferred = torch.tensor([2.0, -1.0, 0.0, 3.0]), torch.tensor([1.0, 1.0, 1.0, 0.5])
    assert agreement(scores, preferred).tolist() == [1.0, 0.0, 0.5, 0.5]


def test_models_that_cannot_take_the_pairs_are_refused(pairs, random_model):
    with pytest.raises(ConfigError, match="longer than the model's context"):
        pairs.check(random_model(max_position_embeddings=ROW - 1))
    with pytest.raises(DataError, match="encode the pairs with this model's tokenizer"):
        pairs.check(random_model(max_position_embeddings=ROW, vocab_size=128))
