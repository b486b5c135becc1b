"""The native runner on processors with fewer instructions."""

from __future__ import annotations

import itertools
import platform
from pathlib import Path

import pytest
import torch
from torch import Tensor

from glasshouse.inference.native_runner import NativeRunner
from glasshouse.inference.runner import Piece
from glasshouse.model import ModelConfig, Transformer, initialise
from glasshouse.model.quantize import quantize_model


def make_model(dtype: torch.dtype, scheme: str | None) -> Transformer:
    config = ModelConfig(
        vocab_size=99, hidden_size=80, intermediate_size=112, num_hidden_layers=2, max_position_embeddings=128
    )
    model = initialise(config, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.08)
    if scheme is not None:
        quantize_model(model, scheme)  # type: ignore[arg-type]
    model.compute_dtype = dtype
    return model.eval()


MACHINES = {
    "AVX-512": (["-march=x86-64-v4"], "avx512bw"),
    "AVX-VNNI": (["-march=x86-64-v3", "-mavxvnni"], "avx_vnni"),
    "AVX2": (["-march=x86-64-v3"], "avx2"),
    "SSE2": (["-march=x86-64"], "sse2"),
}
"""What the compiler may use, and the flag of a processor that has it."""

pytestmark = [
    pytest.mark.skipif(
        NativeRunner.supports(make_model(torch.float32, None)) is not None, reason="no C compiler"
    ),
    pytest.mark.skipif(
        platform.system() != "Linux" or platform.machine() != "x86_64",
        reason="options and flags are those of x86",
    ),
]

IDS = torch.randint(0, 99, (70,), generator=torch.Generator().manual_seed(0)).tolist()


def logits(model: Transformer, options: tuple[str, ...], cuts: tuple[int, ...] = (0, 70)) -> Tensor:
    runner = NativeRunner(model, threads=1, options=options)
    runner.allocate(3)
    ends = itertools.pairwise(cuts)
    parts = [runner.hidden([Piece(IDS[a:b], a, [2, 0, 1], b - a)]) for a, b in ends]
    return runner.logits(torch.cat(parts))


@pytest.mark.parametrize(
    ("machine", "dtype"),
    [*((machine, torch.bfloat16) for machine in MACHINES), ("AVX2", torch.float32)],
)
def test_the_numbers_are_those_of_this_processor(machine: str, dtype: torch.dtype) -> None:
    """Up to the rounding of sums, in full precision and few bits; cut into pieces the bits are the same."""
    flags, needed = MACHINES[machine]
    if needed not in Path("/proc/cpuinfo").read_text().split():
        pytest.skip(f"this processor has no {machine}")
    options = (*flags, "-mtune=generic")
    for scheme in (None, "int8", "int4"):
        model = make_model(dtype, scheme)
        other, own = logits(model, options), logits(model, ())
        limit = 1e-5 if dtype == torch.float32 and scheme is None else 0.02
        assert (other - own).abs().max() < limit * own.abs().max()
        assert torch.equal(other, logits(model, options, (0, 1, 2, 31, 40, 70)))
