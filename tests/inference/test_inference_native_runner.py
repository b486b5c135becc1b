"""The native runner against the torch model: every family, few bits, adapters, and bits that never change."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from glasshouse.core.errors import UsageError
from glasshouse.inference.native_runner import MAX_ROWS, PAGE_TOKENS, NativeRunner, _Step
from glasshouse.inference.runner import Piece
from glasshouse.model import ModelConfig, Transformer, initialise
from glasshouse.model.lora import LoRAConfig, add_adapter, places, use_adapters
from glasshouse.model.quantize import quantize_model

VOCAB, CONTEXT = 211, 256

FAMILIES: dict[str, dict[str, object]] = {
    "llama": {"attention_bias": True, "mlp_bias": True, "head_dim": 48, "num_key_value_heads": 1},
    "tied llama": {"model_type": "llama", "tie_word_embeddings": True, "hidden_size": 80},
    "many heads": {
        "model_type": "llama",
        "num_attention_heads": 40,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "hidden_size": 48,
    },
    "mistral": {"sliding_window": 40, "num_key_value_heads": 4, "head_dim": 16},
    "qwen2": {"sliding_window": 33, "max_window_layers": 1, "intermediate_size": 48},
    "qwen3": {"hidden_act": "gelu", "tie_word_embeddings": True},
    "gpt2": {"head_dim": 16, "num_key_value_heads": 4, "tie_word_embeddings": True},
    "sinusoidal gpt2": {
        "model_type": "gpt2",
        "head_dim": 16,
        "num_key_value_heads": 4,
        "positions": "sinusoidal",
        "hidden_act": "relu",
    },
    "mixtral": {"num_experts": 4},
    "qwen3_moe": {
        "num_experts": 5,
        "moe_intermediate_size": 48,
        "mlp_only_layers": (1,),
        "norm_topk_prob": False,
    },
}


def make_model(name: str = "qwen3", dtype: torch.dtype = torch.float32, **sizes: object) -> Transformer:
    """Random weights, large enough that every part matters."""
    shape: dict[str, object] = {
        "model_type": name,
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "intermediate_size": 112,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": CONTEXT,
    }
    model = initialise(ModelConfig.model_validate({**shape, **FAMILIES.get(name, {}), **sizes}), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.08)
    model.compute_dtype = dtype
    return model.eval()


def make_runner(model: Transformer, **options: object) -> NativeRunner:
    runner = NativeRunner(model, **{"threads": 1, **options})  # type: ignore[arg-type]
    runner.allocate(64)
    return runner


def tokens(length: int, seed: int = 0) -> list[int]:
    return torch.randint(0, VOCAB, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def read(runner: NativeRunner, ids: Sequence[int], cuts: Sequence[int] = (), first_page: int = 0) -> Tensor:
    """Hidden states of one sequence, read in pieces that end at `cuts`."""
    pages = range(first_page, first_page + -(-len(ids) // PAGE_TOKENS))
    edges = [0, *cuts, len(ids)]
    parts = [runner.hidden([Piece(ids[a:b], a, list(pages), b - a)]) for a, b in itertools.pairwise(edges)]
    return torch.cat(parts)


def torch_logits(model: Transformer, ids: Sequence[int]) -> Tensor:
    with torch.inference_mode():
        return model(torch.tensor([ids]))[0].float()


pytestmark = pytest.mark.skipif(
    NativeRunner.supports(make_model()) is not None, reason="no C compiler, or kernels are switched off"
)


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_those_of_torch(name: str) -> None:
    """float32, all families and odd widths: within 1e-4 at every position, prompts read in uneven pieces."""
    model = make_model(name)
    runner, ids = make_runner(model), tokens(120)
    mine = runner.logits(read(runner, ids, (1, 2, 50, 83)))
    assert (mine - torch_logits(model, ids)).abs().max() < 1e-4


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "factor": 2.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        {"rope_type": "llama3", "factor": 4.0, "original_max_position_embeddings": 64},
    ],
    ids=lambda scaling: scaling["rope_type"],
)
def test_scaled_rotary_positions(scaling: dict[str, object]) -> None:
    """The tables come from the model."""
    model = make_model("llama", rope_scaling=scaling)
    runner, ids = make_runner(model), tokens(CONTEXT)
    assert (runner.logits(read(runner, ids)) - torch_logits(model, ids)).abs().max() < 1e-4


def test_bfloat16_stays_near_float32() -> None:
    """Closer to the float32 model than torch's own bfloat16, whose residual stream is rounded too."""
    ids = tokens(200)
    exact = torch_logits(make_model(), ids).log_softmax(-1)
    model = make_model(dtype=torch.bfloat16)
    runner = make_runner(model)
    mine = runner.logits(read(runner, ids)).log_softmax(-1)

    def divergence(logprobs: Tensor) -> float:
        return float((exact.exp() * (exact - logprobs)).sum(-1).mean())

    assert divergence(mine) < 1e-3
    assert divergence(mine) < divergence(torch_logits(model, ids).log_softmax(-1))


@pytest.mark.parametrize(("scheme", "limit"), [("int8", 1e-3), ("int4", 1e-3), ("nf4", 1e-3)])
@pytest.mark.parametrize("name", ["qwen3", "tied llama", "mixtral"])
def test_few_bits_are_those_of_the_quantized_model(name: str, scheme: str, limit: float) -> None:
    """Codes are read as `quantize` wrote them: what is added is only the activations' rounding to 8 bits."""
    model = make_model(name)
    quantize_model(model, scheme)  # type: ignore[arg-type]
    runner, ids = make_runner(model), tokens(120)
    mine = runner.logits(read(runner, ids, (60,))).log_softmax(-1)
    exact = torch_logits(model, ids).log_softmax(-1)
    divergence = (exact.exp() * (exact - mine)).sum(-1)
    assert divergence.median() < limit


KINDS = [
    (torch.float32, None),
    (torch.bfloat16, None),
    (torch.bfloat16, "int8"),
    (torch.float32, "nf4"),
]


def of_kind(name: str, dtype: torch.dtype, scheme: str | None) -> Transformer:
    model = make_model(name, dtype, vocab_size=VOCAB)
    if scheme is not None:
        quantize_model(model, scheme)  # type: ignore[arg-type]
    return model


@pytest.mark.parametrize("name", ["llama", "mistral", "mixtral"])
@pytest.mark.parametrize(("dtype", "scheme"), KINDS)
def test_a_tokens_bits_do_not_depend_on_how_its_text_is_read(
    name: str, dtype: torch.dtype, scheme: str | None
) -> None:
    """Whole, in chunks, token by token, among ragged others, on other pages, by two threads: one result."""
    model = of_kind(name, dtype, scheme)
    runner, ids = make_runner(model), tokens(77)
    whole = read(runner, ids)
    assert torch.equal(read(runner, ids, (5, 6, 31, 32, 64), 9), whole)
    assert torch.equal(read(runner, ids, range(1, 77)), whole)
    assert torch.equal(read(make_runner(model, threads=2), ids, (3, 40)), whole)
    others = [
        Piece(tokens(n, n), 0, [20 + 4 * i + j for j in range(4)], 1) for i, n in enumerate((1, 90, 7, 33))
    ]
    among = runner.hidden([*others[:2], Piece(ids, 0, [60, 3, 50], 77), *others[2:]])
    assert torch.equal(among[2:79], whole)
    logits = runner.logits(whole)
    alone = torch.cat([runner.logits(row[None]) for row in whole])
    assert torch.equal(alone, logits)


@pytest.mark.parametrize(("dtype", "scheme"), KINDS)
def test_decoding_beside_others_gives_the_same_bits(dtype: torch.dtype, scheme: str | None) -> None:
    """One token each of many sequences at different lengths, against each alone."""
    model = of_kind("qwen2", dtype, scheme)
    lengths = [1, 2, 31, 32, 33, 40, 64, 65, 66, 90]
    texts = [tokens(n + 1, n) for n in lengths]
    runner = make_runner(model, threads=2)
    places = [list(range(6 * i, 6 * i + 4)) for i in range(len(texts))]
    runner.hidden([Piece(t[:-1], 0, p) for t, p in zip(texts, places, strict=True)])
    together = runner.hidden([Piece(t[-1:], len(t) - 1, p) for t, p in zip(texts, places, strict=True)])
    fresh = make_runner(model)
    alone = torch.cat([read(fresh, text)[-1:] for text in texts])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sequences_share_the_pages_of_a_common_beginning(dtype: torch.dtype) -> None:
    """Even when one writes them in the very step in which the other reads them."""
    model = make_model("qwen3", dtype)
    runner = make_runner(model)
    common = tokens(2 * PAGE_TOKENS)
    ends = tokens(9, 1), tokens(20, 2)
    first, second = (read(runner, [*common, *end], (), 20 * i)[-1] for i, end in enumerate(ends))
    shared = runner.hidden(
        [Piece([*common, *ends[0]], 0, [50, 51, 52]), Piece(ends[1], len(common), [50, 51, 53])]
    )
    assert torch.equal(shared, torch.stack([first, second]))


def test_what_an_earlier_text_left_in_a_page_is_not_seen() -> None:
    """Not even when it was infinite or not a number."""
    model = make_model("llama", torch.bfloat16)
    runner, ids = make_runner(model), tokens(45)
    clean = read(runner, ids)
    runner._cache.fill_(255)  # every bfloat16 NaN
    assert torch.equal(read(runner, ids, (7, 33)), clean)


def test_steps_longer_than_a_call_are_cut() -> None:
    """Rows beyond the working memory's bound go into further calls, and nothing changes."""
    model = make_model("llama", num_hidden_layers=1, max_position_embeddings=1024)
    runner = make_runner(model)
    runner.allocate(120)
    ids = tokens(MAX_ROWS + 100)
    whole = read(runner, ids)
    pieces = [
        Piece(tokens(30, 3), 0, [100], 2),
        Piece(ids, 0, list(range(40, 60)), MAX_ROWS),
        Piece([1], 0, [101]),
    ]
    cut = runner.hidden(pieces)
    assert torch.equal(cut[2:-1], whole[100:])
    assert torch.equal(cut[:2], read(runner, pieces[0].ids)[-2:])


@pytest.mark.parametrize("name", ["qwen3", "mixtral"])
def test_rows_that_nobody_asks_for_change_nothing(name: str) -> None:
    """The last layer leaves them out; a piece may want none at all."""
    runner, ids, other = make_runner(make_model(name)), tokens(50), tokens(9, 1)
    whole = read(runner, ids)
    pages = [40, 41]
    assert runner.hidden([Piece(ids[:30], 0, pages, 0)]).shape == (0, 64)
    mixed = [Piece(other, 0, [50], 0), Piece(ids[30:45], 30, pages, 3), Piece(other, 0, [51], 9)]
    hidden = runner.hidden(mixed)
    assert torch.equal(hidden, torch.cat([whole[42:45], read(runner, other)]))
    assert torch.equal(runner.hidden([Piece(ids[45:], 45, pages)]), whole[-1:])


@pytest.mark.parametrize("scheme", [None, "int8"])
@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
def test_pieces_of_one_step_use_different_adapters(name: str, scheme: str | None) -> None:
    """Each piece its own or none: as torch with that adapter switched on, and bit for bit as alone."""
    model = make_model(name)
    if scheme:
        quantize_model(model, scheme)  # type: ignore[arg-type]
    ranks = {"wide": LoRAConfig(r=20), "narrow": LoRAConfig(r=3, targets=("q_proj", "v_proj", "down_proj"))}
    for adapter, config in ranks.items():
        add_adapter(model, config, name=adapter, seed=5)
    generator = torch.Generator().manual_seed(3)
    for place in places(model):
        for adapter in ranks:
            if (maps := place.adapter(adapter)) is not None:
                maps.b.data.normal_(0, 0.1, generator=generator)
    runner, texts = make_runner(model), [tokens(n, n) for n in (50, 9, 33, 70)]
    names = ["wide", None, "narrow", "wide"]
    pieces = [
        Piece(ids, 0, [3 * i, 3 * i + 1, 3 * i + 2], len(ids), adapter)
        for i, (ids, adapter) in enumerate(zip(texts, names, strict=True))
    ]
    together = runner.hidden(pieces).split([len(ids) for ids in texts])
    lasts = runner.hidden(
        [dataclasses.replace(piece, wanted=index % 2) for index, piece in enumerate(pieces)]
    )
    assert torch.equal(lasts, torch.stack([together[1][-1], together[3][-1]]))
    for piece, hidden in zip(pieces, together, strict=True):
        assert torch.equal(runner.hidden([piece]), hidden)
        use_adapters(model, *([piece.adapter] if piece.adapter else []))
        difference = (runner.logits(hidden) - torch_logits(model, piece.ids)).abs()
        assert (difference.max() if scheme is None else difference.median()) < (
            1e-4 if scheme is None else 0.02
        )


def test_on_a_busy_machine_one_thread_works_alone_for_a_while() -> None:
    """After a short step in which threads waited asleep; longer each time, until one goes well."""
    runner = make_runner(make_model(), threads=2)
    busy = _Step(rows=1, threads=2)
    alone = []
    for _ in range(3):
        assert runner._hands(1) == 2
        runner._learn(busy, 100)
        alone.append(list(iter(lambda: runner._hands(1), 2)).count(1))
    assert alone == [2, 4, 8]
    runner._learn(busy, 0)
    runner._learn(busy, 100)
    assert (runner._hands(1), runner._hands(512)) == (1, 2)


def test_an_unknown_adapter_is_named() -> None:
    """The error tells which there are."""
    with pytest.raises(UsageError, match="no adapter called 'polite'"):
        make_runner(make_model()).hidden([Piece([1], 0, [0], adapter="polite")])


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({"head_dim": 24}, "head_dim is 24"),
        ({"hidden_size": 40}, "hidden_size is 40"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "dynamic"),
    ],
)
def test_models_that_it_cannot_run_are_told_apart(sizes: dict[str, object], reason: str) -> None:
    """The engine then takes PyTorch."""
    model = make_model("llama", **sizes)
    told = NativeRunner.supports(model)
    assert told is not None
    assert reason in told
    with pytest.raises(UsageError, match=reason):
        NativeRunner(model)
