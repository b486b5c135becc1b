"""Every family against transformers' own class, on the same folders."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from glasshouse.inference import LanguageModel
from glasshouse.inference.runner import Piece
from glasshouse.inference.sampling import truncate
from glasshouse.inference.torch_runner import TorchRunner
from glasshouse.model import ModelConfig, Transformer, initialise, load, save
from glasshouse.model.layout import layout
from glasshouse.tokenizer import Tokenizer

pytestmark = pytest.mark.parity

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers", reason="the peer is not installed")

SIZES = {
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 96,
}
GROUPED = SIZES | {"num_key_value_heads": 2, "head_dim": 12}
QWEN3 = GROUPED | {"tie_word_embeddings": True}
NATIVE = {"vocab_size": 144, "hidden_size": 64, "intermediate_size": 96, "head_dim": 32}
"""Widths that the native kernels take."""


ALONE = {"router_aux_loss_coef": 0.0}
"""Cross entropy alone: transformers averages its router loss over all layers at once, we over each."""


def rope(kind: str = "default", theta: float = 10_000.0, **settings: float) -> dict[str, object]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **settings}}


GPT2 = {"vocab_size": 131, "n_embd": 60, "n_layer": 3, "n_head": 5, "n_positions": 96}
STRETCHED = {"factor": 4.0, "original_max_position_embeddings": 24}
SHAPES: dict[str, tuple[str, dict[str, object]]] = {
    "qwen3": ("Qwen3", QWEN3),
    "qwen3, one kv head": ("Qwen3", QWEN3 | {"num_key_value_heads": 1}),
    "qwen3, as many kv heads": ("Qwen3", QWEN3 | {"num_key_value_heads": 4}),
    "qwen3, heads wider than hidden": ("Qwen3", QWEN3 | {"head_dim": 22}),
    "qwen3, odd widths": (
        "Qwen3",
        QWEN3
        | {"hidden_size": 37, "intermediate_size": 53, "num_attention_heads": 3, "num_key_value_heads": 3},
    ),
    "qwen3, six heads, two kv": ("Qwen3", QWEN3 | {"num_attention_heads": 6, "head_dim": 8}),
    "qwen3, untied": ("Qwen3", GROUPED),
    "qwen3, long wavelengths": ("Qwen3", QWEN3 | rope(theta=1_000_000.0)),
    "qwen3, short wavelengths": ("Qwen3", QWEN3 | rope(theta=100.0)),
    "qwen3, biases": ("Qwen3", QWEN3 | {"attention_bias": True}),
    "qwen3, one layer": ("Qwen3", QWEN3 | {"num_hidden_layers": 1}),
    "qwen3, large epsilon": ("Qwen3", QWEN3 | {"rms_norm_eps": 1e-3}),
    "qwen3, native": ("Qwen3", GROUPED | NATIVE | {"attention_bias": True}),
    "qwen3, window from layer 2": (
        "Qwen3",
        QWEN3 | {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 2},
    ),
    "llama": ("Llama", GROUPED),
    "llama, native": ("Llama", GROUPED | NATIVE),
    "llama, biases, odd widths": (
        "Llama",
        SIZES
        | {"hidden_size": 66, "intermediate_size": 53, "num_attention_heads": 3, "num_key_value_heads": 1}
        | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    ),
    "llama 3": (
        "Llama",
        GROUPED | rope("llama3", 500_000.0, low_freq_factor=1.0, high_freq_factor=4.0, **STRETCHED),
    ),
    "llama, linear": ("Llama", GROUPED | rope("linear", factor=3.0)),
    "llama, dynamic": ("Llama", GROUPED | {"max_position_embeddings": 24} | rope("dynamic", factor=4.0)),
    "llama, yarn": ("Llama", GROUPED | rope("yarn", **STRETCHED)),
    "llama, yarn, all its settings": (
        "Llama",
        GROUPED | rope("yarn", **STRETCHED, beta_fast=20.0, beta_slow=2.0, mscale=0.7, mscale_all_dim=1.1),
    ),
    "mistral": ("Mistral", GROUPED | {"sliding_window": 13}),
    "mistral, native": ("Mistral", GROUPED | NATIVE | {"sliding_window": 13}),
    "mistral, no window": ("Mistral", GROUPED | {"sliding_window": None}),
    "qwen2": ("Qwen2", SIZES | {"num_key_value_heads": 2}),
    "qwen2, window from layer 1": (
        "Qwen2",
        SIZES
        | {"num_key_value_heads": 1, "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}
        | {"tie_word_embeddings": True},
    ),
    "mixtral": ("Mixtral", GROUPED | ALONE | {"num_local_experts": 5, "num_experts_per_tok": 2}),
    "mixtral, window": ("Mixtral", GROUPED | ALONE | {"num_local_experts": 3, "sliding_window": 11}),
    "qwen3 moe": (
        "Qwen3Moe",
        GROUPED
        | ALONE
        | {"num_experts": 7, "num_experts_per_tok": 3, "moe_intermediate_size": 20, "norm_topk_prob": True},
    ),
    "qwen3 moe, some layers dense": (
        "Qwen3Moe",
        GROUPED
        | ALONE
        | {"num_experts": 4, "num_experts_per_tok": 4, "moe_intermediate_size": 24, "mlp_only_layers": [1]},
    ),
    "gpt2": ("GPT2", GPT2),
    "gpt2, native": ("GPT2", GPT2 | {"n_embd": 64, "n_head": 2, "vocab_size": 144}),
    "gpt2, untied, other width and activation": (
        "GPT2",
        GPT2 | {"tie_word_embeddings": False, "n_inner": 77, "activation_function": "gelu"},
    ),
}

DYNAMIC = "llama, dynamic"
"""Angles follow the longest text of a batch: cached keys keep those of a shorter one, here and there, and
documents in a row share them."""


@dataclass
class Pair:
    name: str
    theirs: transformers.PreTrainedModel
    ours: Transformer
    folder: Path


def generated(
    pair: Pair, prompts: list[list[int]], new: int, stops: set[int] | frozenset[int] = frozenset()
) -> list[list[int]]:
    """Our greedy texts; what the tokens say does not matter here."""
    tokenizer = Tokenizer.train(["any text will do"] * 3, vocab_size=300)
    return LanguageModel(pair.ours, tokenizer).generate_batch(prompts, new, stop_ids=frozenset(stops))


@pytest.fixture(params=SHAPES, scope="module")
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """One random model of transformers', and ours loaded from its folder."""
    torch.manual_seed(7)
    family, settings = SHAPES[request.param]
    config = getattr(transformers, f"{family}Config")(bos_token_id=None, eos_token_id=None, **settings)
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():  # their init leaves norms 1 and biases 0: too easy
            parameter.add_(torch.randn_like(parameter) * (0.3 if "norm" in name or "ln_" in name else 0.15))
    folder = tmp_path_factory.mktemp("theirs")
    theirs.save_pretrained(folder)
    return Pair(request.param, theirs, load(folder), folder)


@pytest.fixture
def pair(loaded: Pair) -> Pair:
    forget(loaded)
    return loaded


def forget(pair: Pair) -> None:
    """Their dynamic angles stay those of the longest text ever read, until a short one comes."""
    if pair.name == DYNAMIC:
        with torch.no_grad():
            pair.theirs(some_ids(1, 1))


def some_ids(batch: int, seq: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, SIZES["vocab_size"], (batch, seq), generator=torch.Generator().manual_seed(seed))


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
    assert type(theirs) is type(pair.theirs)
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
    for name, gradient in gradients_by_their_names(pair.ours).items():
        assert torch.allclose(gradient, theirs[name], atol=1e-4, rtol=0), name
    pair.ours.zero_grad()
    pair.theirs.zero_grad()


def gradients_by_their_names(model: Transformer) -> dict[str, torch.Tensor]:
    """In memory transformers 5 stacks experts as we do; GPT-2's tensors are those of its file."""
    own = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert len(own) == len(list(model.parameters()))
    if model.config.model_type != "gpt2":
        return own
    found = {}
    for stored in layout(model.config):
        found[stored.name] = torch.empty(stored.shape(own))
        for theirs, ours in stored.pairs(found[stored.name], own):
            theirs.copy_(ours)
    return found


def test_left_padding(pair: Pair) -> None:
    """Rows padded on the left get the logits that transformers gives them with an attention mask."""
    lengths, seq = [40, 23, 1], 40
    ids = some_ids(3, seq)
    real = torch.arange(seq) >= seq - torch.tensor(lengths)[:, None]  # (batch, seq)
    positions = (real.cumsum(1) - 1).clamp(min=0)
    segments = torch.where(real, 0, -1)
    with torch.no_grad():
        theirs = pair.theirs(ids, attention_mask=real.long(), position_ids=positions).logits
        ours = pair.ours(ids, positions=positions, segments=segments)
    assert torch.allclose(ours[real], theirs[real], atol=1e-4, rtol=0)


def test_embeddings_in_place_of_ids(pair: Pair) -> None:
    """Vectors given instead of ids are taken as the embeddings, as `inputs_embeds` is there."""
    vectors = torch.randn(2, 30, pair.ours.config.hidden_size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs = pair.theirs(inputs_embeds=vectors).logits
        assert torch.allclose(pair.ours(vectors), theirs, atol=1e-4, rtol=0)


def test_greedy_generation_alone(pair: Pair) -> None:
    """Greedy text is theirs token for token; ours uses a cache, theirs is run with and without."""
    for prompt_length in (1, 2, 17, 40):
        prompt = some_ids(1, prompt_length, seed=prompt_length)
        ours = generated(pair, prompt.tolist(), 30)[0]
        for use_cache in (True,) if pair.name == DYNAMIC else (True, False):
            forget(pair)
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
    if pair.name == DYNAMIC:
        pytest.skip("its angles follow the longest text at hand")
    prompt = some_ids(1, 9, seed=5)[0].tolist()
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(25):
            ids.append(int(pair.ours(torch.tensor([ids]), last_only=True)[0, -1].argmax()))
    assert generated(pair, [prompt], 25)[0] == ids[len(prompt) :]


def test_greedy_generation_in_a_batch(pair: Pair) -> None:
    """Prompts of different lengths in one batch, and rows that stop early, give each its own text."""
    if pair.name == DYNAMIC:
        pytest.skip("its angles follow the longest text at hand")
    prompts = [some_ids(1, length, seed=length)[0].tolist() for length in (3, 31, 8, 8, 50, 1, 22)]
    stops = {5, 17, 60}
    ours = generated(pair, prompts, 20, stops)
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
    if pair.name == DYNAMIC:
        pytest.skip("its angles follow the longest text at hand")
    ids = some_ids(2, 33)
    theirs = pair.theirs(ids).logits
    runner = TorchRunner(pair.ours)
    runner.allocate(6)
    for a, b in ((0, 10), (10, 11), (11, 12), (12, 33)):
        pieces = [Piece(ids[row, a:b].tolist(), a, range(3 * row, 3 * row + 3), b - a) for row in range(2)]
        hidden = runner.hidden(pieces)  # (2 · (b - a), hidden)
        logits = runner.logits(hidden, [None] * len(hidden)).view(2, b - a, -1)
        assert torch.allclose(logits, theirs[:, a:b], atol=1e-4, rtol=0)


def test_packed_rows_equal_each_document_alone(pair: Pair) -> None:
    """Documents packed into a row with segments get the logits that transformers gives them alone."""
    if pair.name == DYNAMIC:
        pytest.skip("its angles follow the longest text at hand")
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
