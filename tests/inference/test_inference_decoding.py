"""Batched decoding: each prompt gets the text it would get alone."""

from __future__ import annotations

import pytest
import torch

from glasshouse.core.errors import UsageError
from glasshouse.inference import LanguageModel
from glasshouse.inference.decoding import generate_batch
from glasshouse.inference.engine import Engine, EngineSettings
from glasshouse.inference.sampling import Sampling
from glasshouse.model import Transformer

CONTEXT = 128


@pytest.fixture
def engine(model: LanguageModel) -> Engine:
    return model.engine()


def some_prompts(lengths: list[int], seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 300, (length,), generator=generator).tolist() for length in lengths]


def plain_greedy(model: Transformer, prompt: list[int], new: int, stops: set[int]) -> list[int]:
    """No cache, no batch: the whole text is read anew for every token."""
    ids = list(prompt)
    while len(ids) < min(len(prompt) + new, CONTEXT):
        with torch.no_grad():
            token = int(model(torch.tensor([ids]), last_only=True)[0, -1].argmax())
        if token in stops:
            break
        ids.append(token)
    return ids[len(prompt) :]


def test_greedy_batch_equals_plain_loop(engine: Engine, transformer: Transformer) -> None:
    """Lengths, early stops and the end of the context: every row as if alone, in the prompts' order."""
    prompts = some_prompts([30, 2, 125, 7, 7, 60, 1, 128])
    stops = {7, 100, 201}
    expected = [plain_greedy(transformer, prompt, 25, stops) for prompt in prompts]
    assert generate_batch(engine, prompts, 25, Sampling(), stops) == expected
    assert len({len(text) for text in expected}) > 2  # rows ended at different times


@pytest.mark.parametrize("options", [{}, {"top_k": 10}, {"top_p": 0.9}, {"min_p": 0.02}])
def test_a_sampled_text_does_not_depend_on_its_neighbours(engine: Engine, options: dict) -> None:
    """Alone, in a batch, in another order: the same seed gives the same text."""
    prompts = some_prompts([5, 17, 3, 40, 9])
    sampling = Sampling(temperature=0.8, seed=3, **options)
    together = generate_batch(engine, prompts, 20, sampling, {0})
    assert [generate_batch(engine, [p], 20, sampling, {0})[0] for p in prompts] == together
    assert generate_batch(engine, prompts[::-1], 20, sampling, {0}) == together[::-1]
    other = Sampling(temperature=0.8, seed=4, **options)
    assert generate_batch(engine, prompts, 20, other, {0}) != together


def test_equal_prompts_are_sampled_differently(engine: Engine) -> None:
    """Several samples of one prompt differ, reproducibly; greedily they are equal."""
    prompt = some_prompts([6])[0]
    texts = generate_batch(engine, [prompt] * 5, 12, Sampling(temperature=1.0))
    assert len({tuple(text) for text in texts}) == 5
    assert texts == generate_batch(engine, [prompt] * 5, 12, Sampling(temperature=1.0))
    assert len({tuple(text) for text in generate_batch(engine, [prompt] * 5, 12, Sampling())}) == 1


def test_little_room_changes_nothing(engine: Engine, model: LanguageModel) -> None:
    """Few tokens a step and few pages cut the work into chunks; texts stay the same."""
    prompts = some_prompts([5, 50, 3, 21, 22, 23, 9, 70])
    expected = generate_batch(engine, prompts, 10, Sampling(temperature=1.0), {4})
    for settings in (EngineSettings(step_tokens=16), EngineSettings(max_rows=1, cache_bytes=60_000)):
        small = Engine(model, settings)
        assert generate_batch(small, prompts, 10, Sampling(temperature=1.0), {4}) == expected
        small.close()


def test_nothing_to_do(engine: Engine) -> None:
    """No prompts, no new tokens and a full context give empty texts."""
    assert generate_batch(engine, [], 5, Sampling()) == []
    assert generate_batch(engine, some_prompts([3]), 0, Sampling()) == [[]]
    assert generate_batch(engine, some_prompts([CONTEXT]), 5, Sampling()) == [[]]


@pytest.mark.parametrize(
    ("prompt", "word"), [([], "empty"), ([1] * 129, "129 tokens"), ([5, 300], "vocabulary"), ([-1], "-1")]
)
def test_bad_prompts_are_named(engine: Engine, prompt: list[int], word: str) -> None:
    """An impossible prompt is an error that says which one and why, before any work."""
    with pytest.raises(UsageError, match=word) as caught:
        generate_batch(engine, [[1, 2], prompt], 5, Sampling())
    assert "prompt 1" in str(caught.value)
