"""What the recipe adapt leaves, opened by transformers and PEFT: the adapted model is the same there."""

from __future__ import annotations

import json
import os

import pytest
import torch

from glasshouse.model import ModelConfig, initialise, load, save
from glasshouse.pipeline.run import run
from glasshouse.tokenizer import Tokenizer

pytestmark = pytest.mark.parity

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers", reason="the peer is not installed")
peft = pytest.importorskip("peft", reason="the peer is not installed")


def test_the_adapter_and_the_merged_model_open_there(tmp_path):
    """PEFT's model over the base and transformers' merged one: our logits, which are not the base's."""
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
    model = initialise(ModelConfig(model_type="llama", vocab_size=265, **shape, **heads), 0)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    save(model, Tokenizer.train([], 265), tmp_path / "base")
    pages = [{"text": f"The owl of house {i} sleeps by day."} for i in range(40)]
    (tmp_path / "pages.jsonl").write_text("".join(json.dumps(page) + "\n" for page in pages))
    settings = {"base": str(tmp_path / "base"), "sft.batch_tokens": 256, "sft.adapter_lr": 0.01}
    settings |= {"evaluate": None, "report": None}
    done = (
        run("adapt", out=tmp_path / "run", data=[tmp_path / "pages.jsonl"], overrides=settings).path / "sft"
    )
    ids = torch.randint(0, 265, (2, 40), generator=generator)
    with torch.no_grad():
        ours = load(done / "model")(ids)
        there = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        untouched = there(ids).logits
        over = peft.PeftModel.from_pretrained(there, str(done / "adapter")).eval()(ids).logits
        merged = transformers.AutoModelForCausalLM.from_pretrained(done / "model")(ids).logits
    assert (ours - untouched).abs().max() > 0.1
    torch.testing.assert_close(ours, over, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours, merged, rtol=1e-4, atol=1e-4)
