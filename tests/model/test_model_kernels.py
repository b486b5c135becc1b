"""The native kernels against plain PyTorch, in both dtypes, and their absence."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from glasshouse.model import ModelConfig, kernels
from glasshouse.model.documents import attend_documents, find_documents, find_spans
from glasshouse.model.rope import Rope, rotate

DTYPES = [torch.float32, torch.bfloat16]
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}  # of the largest value: one rounding at the end

pytestmark = pytest.mark.skipif(
    not kernels.ready(torch.empty(0), 16), reason="no C compiler, or kernels are switched off"
)


def randn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale
    return x.to(dtype).requires_grad_()


def close(mine: torch.Tensor, exact: torch.Tensor, dtype: torch.dtype) -> bool:
    """Within the dtype's tolerance of the largest absolute value."""
    return bool((mine.double() - exact).abs().max() <= TOLERANCE[dtype] * exact.abs().max())


def agree(
    mine: Callable[..., torch.Tensor], exact: Callable[..., torch.Tensor], *inputs: torch.Tensor
) -> None:
    """Outputs and all gradients of `mine` are those of `exact` computed in float64."""
    dtype = inputs[0].dtype
    doubles = [x.detach().double().requires_grad_() for x in inputs]
    out, expected = mine(*inputs), exact(*doubles)
    assert out.dtype == dtype
    assert close(out, expected, dtype)
    slope = randn(*out.shape, seed=9).detach().to(dtype)
    gradients = torch.autograd.grad(out, inputs, slope)
    for gradient, theirs in zip(
        gradients, torch.autograd.grad(expected, doubles, slope.double()), strict=True
    ):
        assert close(gradient, theirs, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 16), (7, 3, 32), (300, 160)])
def test_rms_norm(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """x / sqrt(mean(x²) + eps) · weight, and its gradients by x and weight."""
    weight = (1 + randn(shape[-1], seed=1, scale=0.3)).detach().requires_grad_()

    def exact(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain

    agree(lambda x, gain: kernels.rms_norm(x, gain, 1e-5), exact, randn(*shape, dtype=dtype), weight)


@pytest.mark.parametrize("dtype", DTYPES)
def test_swiglu(dtype: torch.dtype) -> None:
    """silu(gate) · up, from very negative to very positive gates."""
    both = torch.cat([torch.linspace(-120, 120, 16 * 40).view(40, 16), randn(40, 16).detach()], -1)

    def exact(x: torch.Tensor) -> torch.Tensor:
        gate, up = x.chunk(2, -1)
        return gate * torch.sigmoid(gate) * up

    agree(kernels.swiglu, exact, both.to(dtype).requires_grad_())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_cross_entropy(dtype: torch.dtype, scale: float) -> None:
    """-log softmax at the target; the logits become softmax, less one at the target."""
    logits = randn(50, 48, dtype=dtype, scale=scale).detach()
    targets = torch.randint(0, 48, (50,), generator=torch.Generator().manual_seed(1))
    doubles = logits.double().requires_grad_()
    expected = F.cross_entropy(doubles, targets, reduction="none")
    (slope,) = torch.autograd.grad(expected.sum(), doubles)
    losses = kernels.cross_entropy_(logits, targets)
    assert losses.dtype == torch.float32
    assert torch.allclose(losses.double(), expected, atol=1e-5, rtol=1e-5)
    assert close(logits, slope, dtype)


def rope_tables(width: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines (length, width / 2)."""
    config = ModelConfig(vocab_size=1, head_dim=width, max_position_embeddings=length)
    return Rope(config).tables(length, torch.device("cpu"))


def plain_attention(
    qkv: torch.Tensor,
    gains: tuple[torch.Tensor, torch.Tensor] | None,
    segments: torch.Tensor,
    heads: int,
    kv: int,
    window: int = 1000,
) -> torch.Tensor:
    """Norm, rotation and masked attention written out."""
    batch, seq = segments.shape
    width = qkv.shape[-1] // (heads + 2 * kv)
    q, k, v = qkv.view(batch, seq, -1, width).split([heads, kv, kv], 2)
    cos, sin = (table[None].double() for table in rope_tables(width, seq))

    def normed(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * gain

    if gains is not None:
        q, k = normed(q, gains[0]), normed(k, gains[1])
    q, k = rotate(q, cos, sin), rotate(k, cos, sin).repeat_interleave(heads // kv, 2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(width)
    place = torch.arange(seq)
    seen = (
        (segments[:, :, None] == segments[:, None, :])
        & (place[:, None] >= place)
        & (place[:, None] < place + window)
    )
    weights = scores.masked_fill(~seen[:, None], -torch.inf).softmax(-1)
    values = v.repeat_interleave(heads // kv, 2)
    return torch.einsum("bhqk,bkhd->bqhd", weights, values).reshape(batch, seq, -1)


PACKINGS = {
    "one short": [[5]],
    "single tokens": [[1, 1, 1]],
    "around the block sizes": [[8, 7, 9, 16], [15, 17, 1, 7], [40]],
    "one long": [[150]],
}


def segments_of(rows: list[list[int]]) -> torch.Tensor:
    return torch.stack([torch.cat([torch.full((n,), i) for i, n in enumerate(row)]) for row in rows])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(2, 2, 32), (4, 2, 32), (3, 1, 64)])
@pytest.mark.parametrize("name", PACKINGS)
def test_attention(name: str, heads: int, kv_heads: int, width: int, dtype: torch.dtype) -> None:
    """QK-norm, RoPE, and attention inside documents: output and gradients by q, k, v and both norms."""
    segments = segments_of(PACKINGS[name])
    batch, seq = segments.shape
    qkv = randn(batch, seq, (heads + 2 * kv_heads) * width, dtype=dtype)
    gains = [(1 + randn(width, seed=seed, scale=0.3)).detach().requires_grad_() for seed in (1, 2)]
    tables = [table.repeat(batch, 1) for table in rope_tables(width, seq)]
    spans = find_spans(segments, heads, kv_heads)
    agree(
        lambda x, q_gain, k_gain: kernels.attend(x, (q_gain, k_gain), 1e-6, *tables, spans),
        lambda x, q_gain, k_gain: plain_attention(x, (q_gain, k_gain), segments, heads, kv_heads),
        qkv,
        *gains,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [1, 5, 16, 33])
@pytest.mark.parametrize("name", PACKINGS)
def test_attention_without_norms_in_a_window(name: str, window: int, dtype: torch.dtype) -> None:
    """As in Mistral: nothing is normed, and a token sees the last `window` tokens of its document."""
    segments = segments_of(PACKINGS[name])
    batch, seq = segments.shape
    qkv = randn(batch, seq, 8 * 32, dtype=dtype)
    tables = [table.repeat(batch, 1) for table in rope_tables(32, seq)]
    spans = find_spans(segments, 4, 2)
    agree(
        lambda x: kernels.attend(x, None, 1e-6, *tables, spans, window),
        lambda x: plain_attention(x, None, segments, 4, 2, window),
        qkv,
    )


def test_attention_equals_the_fallback() -> None:
    """Kernel and PyTorch fallback see the same documents: outputs agree in float32."""
    segments = segments_of([[30, 20, 50], [100]])
    qkv = randn(2, 100, 6 * 32).detach()
    gain = torch.ones(32)
    cos, sin = rope_tables(32, 100)
    q, k, v = qkv.view(2, 100, 6, 32).split([2, 2, 2], 2)
    q, k = (rotate(F.rms_norm(x, (32,), eps=1e-6), cos[None], sin[None]) for x in (q, k))
    spans, turn = find_spans(segments, 2, 2), (cos.repeat(2, 1), sin.repeat(2, 1))
    for window in (None, 7):
        expected = attend_documents(q, k, v, find_documents(segments, 2, 2), window).reshape(2, 100, -1)
        out = kernels.attend(qkv, (gain, gain), 1e-6, *turn, spans, window)
        assert torch.allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_number_of_threads_gives_the_same_bits(dtype: torch.dtype) -> None:
    """Partial sums are per piece of work, not per thread."""
    segments = segments_of([[30, 20, 50], [64, 36]])
    spans = find_spans(segments, 4, 2)
    tables = [table.repeat(2, 1) for table in rope_tables(32, 100)]
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            x, gain = randn(2, 100, 8 * 32, dtype=dtype), randn(32, seed=1)
            wide = randn(256, seed=2)
            out = kernels.attend(kernels.rms_norm(x, wide, 1e-6), (gain, gain), 1e-6, *tables, spans)
            results.append([out, *torch.autograd.grad(kernels.swiglu(out).float().sum(), (x, gain, wide))])
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


def test_widths_that_do_not_fill_vectors_are_left_to_pytorch() -> None:
    """Odd widths and other dtypes are not taken."""
    assert kernels.ready(torch.empty(0), 16, 48)
    assert not kernels.ready(torch.empty(0), 16, 40)
    assert not kernels.ready(torch.empty(0, dtype=torch.float64), 16, 48)


SCRIPT = """
import torch
from glasshouse.model import ModelConfig, initialise
torch.manual_seed(0)
model = initialise(ModelConfig(vocab_size=64, hidden_size=32, intermediate_size=48), 0)
with torch.no_grad():
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
ids = torch.arange(80).view(2, 40) % 64
loss = model.loss(ids, ids.roll(-1, 1), (torch.arange(40) // 9).expand(2, 40))
loss.backward()
print(loss.item(), sum(parameter.grad.abs().sum().item() for parameter in model.parameters()))
"""


def numbers(environment: dict[str, str]) -> tuple[list[float], str]:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    *said, last = result.stdout.splitlines()
    return [float(word) for word in last.split()], " ".join(said) + result.stderr


def test_without_a_compiler_the_numbers_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiler costs a notice and speed, nothing else."""
    with_kernels, notices = numbers({"XDG_CACHE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})
    assert "notice" not in notices
    without, notices = numbers({"XDG_CACHE_HOME": str(tmp_path), "PATH": str(tmp_path)})
    assert "no C compiler" in notices
    assert with_kernels == pytest.approx(without, rel=1e-4)


def test_a_broken_compiler_costs_a_notice(tmp_path: Path) -> None:
    """A compiler that fails, or has no headers, is named in one line, and training goes on."""
    fake = tmp_path / "cc"
    fake.write_text("#!/bin/sh\necho 'fatal error: math.h: no such file' >&2\nexit 1\n")
    fake.chmod(0o755)
    values, notices = numbers({"XDG_CACHE_HOME": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert "math.h" in notices
    assert values[0] > 0
