"""Extended models against transformers' own classes: the folder says all that there is to say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from glasshouse.model import ModelConfig, initialise, save
from glasshouse.model.context import extend_context

pytestmark = pytest.mark.parity

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers", reason="the peer is not installed")

OLD, NEW = 24, 60
SHAPE = {
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "head_dim": 16,
    "max_position_embeddings": OLD,
}


@pytest.mark.parametrize("length", [OLD, NEW])
@pytest.mark.parametrize(
    ("family", "scaling"),
    [("qwen3", kind) for kind in ("yarn", "linear", "llama3", "dynamic", "none")]
    + [("llama", "yarn"), ("gpt2", None)],
)
def test_an_extended_model_gives_the_same_logits_in_transformers(
    family: str, scaling, length: int, tmp_path: Path
) -> None:
    """Within the old window and at the end of the new one, to 1e-4 in float32; extended twice besides."""
    model = initialise(ModelConfig.parse({**SHAPE, "model_type": family}), 1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    longer = extend_context(extend_context(model, (OLD + NEW) // 2, scaling), NEW, scaling).eval()
    save(longer, None, tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    ids = torch.randint(0, 131, (2, length), generator=generator)
    with torch.no_grad():
        difference = (longer(ids) - theirs(ids).logits).abs().max()
    assert float(difference) < 1e-4
