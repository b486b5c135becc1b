"""How far the native runner's predictions lie from the float32 model's, on a trained model.

The model is `pocket-mini`, or the run that GLASSHOUSE_RUN names. Texts are those that the float32 model says
itself, at temperature 1.
"""

from __future__ import annotations

import os

import pytest
import torch

import glasshouse
from glasshouse.inference import LanguageModel
from glasshouse.inference.native_runner import PAGE_TOKENS, NativeRunner
from glasshouse.inference.runner import Piece
from glasshouse.model.quantize import quantize_model

pytestmark = pytest.mark.accept


def load(run: str) -> LanguageModel:
    return glasshouse.load(run, device="cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    if (named := os.environ.get("GLASSHOUSE_RUN")) is not None:
        return named
    path = str(tmp_path_factory.mktemp("grown") / "mini")
    glasshouse.run("pocket-mini", out=path, overrides={"evaluate": None, "report": None})
    return path


@pytest.fixture(scope="module")
def texts(run: str) -> list[list[int]]:
    model = load(run)
    starts = [[model.tokenizer.bos_id, first] for first in range(40, 100)]
    texts = model.generate_batch(starts, 120, temperature=1.0, seed=3, stop_ids=())
    return [[*start, *text] for start, text in zip(starts, texts, strict=True)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scheme", [None, "int8", "int4", "nf4"])
def test_divergence_per_token(
    run: str,
    texts: list[list[int]],
    dtype: torch.dtype,
    scheme: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Teacher-forced KL(float32 torch || native), mean per token: at most 1e-3 down to 8 bits; 4: printed."""
    model = load(run).model
    with torch.inference_mode():
        exact = [model(torch.tensor([ids]))[0].log_softmax(-1) for ids in texts]
    if scheme is not None:
        quantize_model(model, scheme)  # type: ignore[arg-type]
    model.compute_dtype = dtype
    runner = NativeRunner(model)
    runner.allocate(-(-max(map(len, texts)) // PAGE_TOKENS))
    found = []
    for ids, logprobs in zip(texts, exact, strict=True):
        hidden = runner.hidden([Piece(ids, 0, range(runner.pages), len(ids))])
        mine = runner.logits(hidden).log_softmax(-1)
        found.append((logprobs.exp() * (logprobs - mine)).sum(-1))
    divergence = torch.cat(found)
    with capsys.disabled():
        print(f"\n{dtype}, {scheme or 'whole'}: {divergence.mean():.1e} nats, at most {divergence.max():.1e}")
    if scheme in (None, "int8"):
        assert divergence.mean() <= 1e-3
    if scheme is None and dtype == torch.float32:
        assert divergence.max() <= 1e-5
