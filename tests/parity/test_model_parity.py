"""Our Qwen3 against transformers' own class, on the same folders."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from glasshouse.inference import KVCache
from glasshouse.inference.decoding import generate_batch
from glasshouse.inference.sampling import Sampling, truncate
from glasshouse.model import ModelConfig, Transformer, initialise, load, save

pytestmark = pytest.mark.parity

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers", reason="the peer is not installed")

BASE = {
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 96,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
    "tie_word_embeddings": True,
}

SHAPES = {
    "plain": {},
    "one kv head": {"num_key_value_heads": 1},
    "as many kv heads": {"num_key_value_heads": 4},
    "heads wider than hidden": {"head_dim": 22},
    "odd widths": {
        "hidden_size": 37,
        "intermediate_size": 53,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
    },
    "six heads, two kv": {"num_attention_heads": 6, "head_dim": 8},
    "untied": {"tie_word_embeddings": False},
    "long wavelengths": {"rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0}},
    "short wavelengths": {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}},
    "biases": {"attention_bias": True},
    "one layer": {"num_hidden_layers": 1},
    "large epsilon": {"rms_norm_eps": 1e-3},
    "widths of the native kernels": {
        "vocab_size": 144,
        "hidden_size": 64,
        "intermediate_size": 96,
        "head_dim": 32,
        "attention_bias": True,
        "tie_word_embeddings": False,
    },
}


@dataclass
class Pair:
    theirs: transformers.PreTrainedModel
    ours: Transformer
    folder: Path


@pytest.fixture(params=SHAPES, scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """One random Qwen3 of transformers', and ours loaded from its folder."""
    torch.manual_seed(7)
    config = transformers.Qwen3Config(**(BASE | SHAPES[request.param]))
    theirs = transformers.Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():  # their init leaves norms 1 and biases 0: too easy
            parameter.add_(torch.randn_like(parameter) * (0.3 if "norm" in name else 0.15))
    folder = tmp_path_factory.mktemp("theirs")
    theirs.save_pretrained(folder)
    return Pair(theirs, load(folder), folder)


def some_ids(batch: int, seq: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, BASE["vocab_size"], (batch, seq), generator=torch.Generator().manual_seed(seed))


def test_their_folder_gives_their_logits(pair: Pair) -> None:
    """A folder written by transformers gives the same logits here, within 1e-4 in float32."""
    ids = some_ids(3, 61)
    with torch.no_grad():
        theirs, ours = pair.theirs(ids).logits, pair.ours(ids)
    assert torch.allclose(ours, theirs, atol=1e-4, rtol=0)


def test_our_folder_gives_our_logits(pair: Pair, tmp_path: Path) -> None:
    """A folder written here opens as AutoModelForCausalLM and gives the same logits, within 1e-4."""
    save(pair.ours, None, tmp_path / "ours")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    assert type(theirs) is transformers.Qwen3ForCausalLM
    ids = some_ids(2, 40)
    with torch.no_grad():
        assert torch.allclose(pair.ours(ids), theirs(ids).logits, atol=1e-4, rtol=0)


def test_a_new_model_of_ours_opens_in_transformers(tmp_path: Path) -> None:
    """A model initialised here, not only one that came from there, gives the same logits there."""
    ours = initialise(ModelConfig(vocab_size=131, num_hidden_layers=2), seed=3)
    for parameter in ours.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
    save(ours, None, tmp_path / "ours")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    ids = some_ids(2, 40)
    with torch.no_grad():
        assert torch.allclose(ours(ids), theirs(ids).logits, atol=1e-4, rtol=0)


def test_gradients_of_the_same_loss(pair: Pair) -> None:
    """The mean loss and its gradients by every parameter agree within 1e-4."""
    ids, targets = some_ids(2, 50), some_ids(2, 50, seed=1)
    targets[0, :20] = -100
    logits = pair.theirs(ids).logits
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
    expected.backward()
    loss = pair.ours.loss(ids, targets) / (targets != -100).sum()
    loss.backward()
    assert torch.allclose(loss, expected, atol=1e-4, rtol=0)
    theirs = {name: parameter.grad for name, parameter in pair.theirs.named_parameters()}
    for name, parameter in pair.ours.named_parameters():
        assert parameter.grad is not None, name
        assert torch.allclose(parameter.grad, theirs[name], atol=1e-4, rtol=0), name
    pair.ours.zero_grad()
    pair.theirs.zero_grad()


def test_greedy_generation_alone(pair: Pair) -> None:
    """Greedy text is theirs token for token; ours uses a cache, theirs is run with and without."""
    for prompt_length in (1, 2, 17, 40):
        prompt = some_ids(1, prompt_length, seed=prompt_length)
        ours = generate_batch(pair.ours, prompt.tolist(), 30, Sampling())[0]
        for use_cache in (True, False):
            theirs = pair.theirs.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=30,
                do_sample=False,
                use_cache=use_cache,
                pad_token_id=0,
            )
            assert ours == theirs[0, prompt_length:].tolist()


def test_greedy_generation_without_our_cache(pair: Pair) -> None:
    """Our cached text is what reading the whole text anew for every token gives."""
    prompt = some_ids(1, 9, seed=5)[0].tolist()
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(25):
            ids.append(int(pair.ours(torch.tensor([ids]), last_only=True)[0, -1].argmax()))
    assert generate_batch(pair.ours, [prompt], 25, Sampling())[0] == ids[len(prompt) :]


def test_greedy_generation_in_a_batch(pair: Pair) -> None:
    """Prompts of different lengths in one batch, and rows that stop early, give each its own text."""
    prompts = [some_ids(1, length, seed=length)[0].tolist() for length in (3, 31, 8, 8, 50, 1, 22)]
    stops = {5, 17, 60}
    ours = generate_batch(pair.ours, prompts, 20, Sampling(), stops)
    for prompt, mine in zip(prompts, ours, strict=True):
        ids = torch.tensor([prompt])
        theirs = pair.theirs.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=20,
            do_sample=False,
            eos_token_id=sorted(stops),
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        assert mine == [token for token in theirs if token not in stops]


def test_cached_chunks_give_the_same_logits(pair: Pair) -> None:
    """Reading a text in pieces through the cache gives the logits of reading it at once."""
    ids = some_ids(2, 33)
    cache = KVCache(pair.ours.config, 2, 33)
    with torch.no_grad():
        pieces = [pair.ours(ids[:, a:b], cache=cache) for a, b in ((0, 10), (10, 11), (11, 12), (12, 33))]
        assert torch.allclose(torch.cat(pieces, 1), pair.theirs(ids).logits, atol=1e-4, rtol=0)


def test_packed_rows_equal_each_document_alone(pair: Pair) -> None:
    """Documents packed into a row with segments get the logits that transformers gives them alone."""
    lengths = [[20, 7, 30], [1, 50, 3]]
    ids = torch.zeros(2, 60, dtype=torch.int64)
    segments, positions = torch.full((2, 60), -1), torch.zeros(2, 60, dtype=torch.int64)
    for row, documents in enumerate(lengths):
        start = 0
        for number, length in enumerate(documents):
            place = slice(start, start + length)
            ids[row, place] = some_ids(1, length, seed=length)[0]
            segments[row, place], positions[row, place] = number, torch.arange(length)
            start += length
    packed = pair.ours(ids, segments=segments, positions=positions)
    with torch.no_grad():
        for row, documents in enumerate(lengths):
            start = 0
            for length in documents:
                alone = pair.theirs(ids[row : row + 1, start : start + length]).logits[0]
                assert torch.allclose(packed[row, start : start + length], alone, atol=1e-4, rtol=0)
                start += length


def test_bfloat16_folders_open_both_ways(pair: Pair, tmp_path: Path) -> None:
    """Weights stored in bfloat16 are the same numbers on both sides."""
    save(load(pair.folder, dtype=torch.bfloat16), None, tmp_path / "half")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "half", dtype=torch.float32).eval()
    ours = load(tmp_path / "half")
    ids = some_ids(2, 20)
    with torch.no_grad():
        assert torch.allclose(ours(ids), theirs(ids).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "options", [{"top_k": 5}, {"top_p": 0.7}, {"min_p": 0.1}, {"top_k": 20, "top_p": 0.9}]
)
def test_truncation_keeps_the_same_tokens(options: dict[str, float]) -> None:
    """top-k, top-p and min-p keep the tokens that transformers' own processors keep."""
    logits = torch.randn(50, 131, generator=torch.Generator().manual_seed(2)) * 3
    expected = logits
    processors = {
        "top_k": transformers.TopKLogitsWarper,
        "top_p": transformers.TopPLogitsWarper,
        "min_p": transformers.MinPLogitsWarper,
    }
    for name, value in options.items():
        expected = processors[name](value)(torch.zeros(50, 1, dtype=torch.int64), expected)
    assert torch.equal(truncate(logits, **options).isinf(), expected.isinf())
