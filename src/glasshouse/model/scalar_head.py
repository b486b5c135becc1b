"""A trunk with a scalar head in place of the language head: one number for a text.

In a folder it is Hugging Face's `...ForSequenceClassification` with one label: the tensors of the trunk and
`score.weight`. As there, a text's number is read at its last token that is not padding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from glasshouse.core.errors import ModelError, UsageError
from glasshouse.core.storage import directory, read_json, write_json
from glasshouse.model.config import ModelConfig
from glasshouse.model.hf_config import config_json, read_config
from glasshouse.model.hf_folder import WEIGHTS, SavesTokenizer, file_tensors, read_weights
from glasshouse.model.layers import Linear
from glasshouse.model.lora import adapter_names
from glasshouse.model.transformer import Transformer

_ARCHITECTURE = "ForSequenceClassification"


class ScalarTransformer(Transformer):
    """A transformer that gives a number for a text. Its embedding matrix is no head, tied or not."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.model_copy(update={"tie_word_embeddings": True}))
        self.score = Linear(config.hidden_size, 1, bias=False)

    @classmethod
    def on_trunk(cls, model: Transformer) -> ScalarTransformer:
        """On the trunk of a language model, whose tensors it shares; the new head is zero."""
        scalar = cls.empty(model.config, "meta")
        assert isinstance(scalar, ScalarTransformer)
        scalar.model, scalar.rope = model.model, model.rope
        scalar.score.weight = torch.nn.Parameter(torch.zeros(1, model.config.hidden_size))
        scalar.compute_dtype = model.compute_dtype
        return scalar.to(model.device)

    def scalars(
        self,
        ids: Tensor,
        last: Tensor,
        segments: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """(n,) float32: the numbers read at the places `last` (n,) of the flattened ids (batch, seq)."""
        hidden = self.hidden(ids, positions, segments).flatten(0, 1).index_select(0, last)
        return (hidden.float() @ self.score.weight.float().T)[:, 0]


def save_scalar(model: ScalarTransformer, tokenizer: SavesTokenizer, folder: str | Path) -> None:
    """Write `folder` so that transformers, and `load_scalar`, open it; an older folder is replaced whole."""
    if names := adapter_names(model):
        raise UsageError(
            f"the model carries adapters ({', '.join(names)}), which its folder has no place for",
            fix="merge them first",
        )
    with directory(folder) as temporary:
        dtype = str(model.model.embed_tokens.weight.dtype).removeprefix("torch.")
        config: dict[str, Any] = config_json(model.config, dtype, None)
        family = config["architectures"][0]
        config |= {
            "architectures": [_architecture(family)],
            "id2label": {"0": "reward"},
            "label2id": {"reward": 0},
            "bos_token_id": tokenizer.eos_id,
            "eos_token_id": tokenizer.eos_id,
            "pad_token_id": tokenizer.pad_id,
        }
        write_json(temporary / "config.json", config)
        save_file(file_tensors(model), temporary / WEIGHTS, metadata={"format": "pt"})
        (temporary / WEIGHTS).chmod(0o644)
        tokenizer.save(temporary)


def _architecture(language_model: str) -> str:
    """The name of a family's classifier: LlamaForCausalLM and GPT2LMHeadModel lose their last words."""
    return language_model.removesuffix("ForCausalLM").removesuffix("LMHeadModel") + _ARCHITECTURE


def load_scalar(
    folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> ScalarTransformer:
    """Open a folder of `save_scalar`, or of transformers; raises ModelError for one of another kind."""
    folder = Path(folder)
    config = read_config(folder)
    found = (read_json(folder / "config.json").get("architectures") or ["no architecture"])[0]
    if not str(found).endswith(_ARCHITECTURE):
        raise ModelError(
            f"this is a {found}, not a reward model",
            where=folder,
            fix="name a folder that `glasshouse train reward` made",
        )
    model = ScalarTransformer.empty(config, device, dtype)
    assert isinstance(model, ScalarTransformer)
    read_weights(folder, model)
    return model
