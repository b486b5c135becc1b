"""GGUF files: what was written is read back by the `gguf` library; what llama.cpp lacks is refused."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glasshouse.core.errors import ModelError
from glasshouse.core.storage import write_json
from glasshouse.model import Transformer
from glasshouse.model.gguf_file import save_gguf
from glasshouse.model.gguf_import import load_gguf
from glasshouse.model.lora import LoRAConfig, add_adapter
from glasshouse.model.quantize import quantize_model
from glasshouse.tokenizer import Tokenizer

Family = dict[str, object]
Make = Callable[..., Transformer]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["to be or not to be, that is the question"] * 3, vocab_size=300)


def value(reader: gguf.GGUFReader, key: str) -> object:
    field = reader.get_field(key)
    return None if field is None else field.contents()


@pytest.mark.parametrize("precision", ["F32", "Q8_0"])
def test_files_hold_the_weights(
    family: Family, precision: str, tmp_path: Path, tokenizer: Tokenizer, random_model: Make
) -> None:
    """Every number of the model is in the file, exactly or within the precision's rounding."""
    model = random_model(**family)
    save_gguf(model, tokenizer, tmp_path / "model.gguf", precision)
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    found = [gguf.quants.dequantize(t.data, t.tensor_type).ravel() for t in reader.tensors]
    mine = [parameter.detach().numpy().ravel() for parameter in model.parameters()]
    got, expected = np.sort(np.concatenate(found)), np.sort(np.concatenate(mine))
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= (0 if precision == "F32" else 0.02)


def test_files_come_back(family: Family, tmp_path: Path, tokenizer: Tokenizer, random_model: Make) -> None:
    """The same weights, logits, tokens and template; a Mistral whose window is its context is a Llama."""
    model = random_model(**family)
    save_gguf(model, tokenizer, tmp_path / "model.gguf", "F32")
    again, words = load_gguf(tmp_path / "model.gguf")
    assert again.num_parameters() == model.num_parameters()
    ids = torch.randint(0, 300, (2, 20))
    with torch.no_grad():
        assert torch.equal(again(ids), model(ids))
    text = "To be, or not to be? Über 12 <|im_end|>"
    assert words.encode(text) == tokenizer.encode(text)
    messages = [{"role": "user", "content": text}]
    assert words.encode_chat(messages) == tokenizer.encode_chat(messages)
    assert (words.bos_id, words.eos_id, words.end_of_turn_id) == (
        tokenizer.bos_id,
        tokenizer.eos_id,
        tokenizer.end_of_turn_id,
    )


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "factor": 2.0},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
        {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
    ],
)
def test_scaled_angles_come_back(
    scaling: dict[str, object], tmp_path: Path, tokenizer: Tokenizer, random_model: Make
) -> None:
    """Llama 3's are found again from the factors that the file holds."""
    model = random_model(model_type="llama", head_dim=64, rope_theta=500_000.0, rope_scaling=scaling)
    save_gguf(model, tokenizer, tmp_path / "model.gguf", "F32")
    assert load_gguf(tmp_path / "model.gguf")[0].config.rope_scaling == model.config.rope_scaling


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_never_crash(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, random_model: Make, data: st.DataObject
) -> None:
    """Any bytes of the header changed, or the file cut: a model, or a ModelError, and soon."""
    path = tmp_path_factory.mktemp("fuzz") / "model.gguf"
    save_gguf(random_model(model_type="llama", num_hidden_layers=1), tokenizer, path, "Q8_0")
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, 20_000))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(0, 2 * len(raw)))])
    with contextlib.suppress(ModelError):
        load_gguf(path)


def test_counts_beyond_the_file_are_refused_at_once(tmp_path: Path) -> None:
    """A file that states more entries than it has bytes is not read to its end first."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 2**60)
    (tmp_path / "settings.gguf").write_bytes(head)
    array = (
        b"GGUF"
        + struct.pack("<IQQ", 3, 0, 1)
        + struct.pack("<Q", 1)
        + b"a"
        + struct.pack("<IIQ", 9, 4, 2**61)
    )
    (tmp_path / "array.gguf").write_bytes(array)
    (tmp_path / "other.gguf").write_bytes(b"PK" * 50)
    (tmp_path / "empty.gguf").write_bytes(b"")
    for file in sorted(tmp_path.iterdir()):
        with pytest.raises(ModelError, match=file.name):
            load_gguf(file)


def test_what_the_file_says(tmp_path: Path, tokenizer: Tokenizer, random_model: Make) -> None:
    """Shape, tokens, template; unused rows of the embedding are tokens that no text gives."""
    save_gguf(random_model(model_type="llama"), tokenizer, tmp_path / "model.gguf", "F16")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    assert value(reader, "general.architecture") == "llama"
    assert value(reader, "llama.context_length") == 64
    assert value(reader, "llama.attention.head_count_kv") == 2
    assert value(reader, "tokenizer.ggml.pre") == "qwen2"
    assert value(reader, "tokenizer.chat_template") == tokenizer.chat_template
    tokens, kinds = value(reader, "tokenizer.ggml.tokens"), value(reader, "tokenizer.ggml.token_type")
    assert len(tokens) == len(kinds) == 320
    used = tokenizer.vocab_size
    assert tokens[used:] == [f"[unused{i}]" for i in range(used, 320)]
    assert {tokens[i] for i, kind in enumerate(kinds) if kind == gguf.TokenType.CONTROL} == set(
        tokenizer.special
    )


def test_queries_and_keys_of_llama_are_laid_out_in_pairs(
    tmp_path: Path, tokenizer: Tokenizer, random_model: Make
) -> None:
    """llama.cpp turns neighbouring channels, we turn halves: row 2i is our i, row 2i+1 our i + half."""
    model = random_model(model_type="llama")
    save_gguf(model, tokenizer, tmp_path / "model.gguf", "F32")
    stored = {t.name: t.data for t in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    ours = model.model.layers[0].self_attn.k_proj.weight.detach().numpy()
    assert np.array_equal(stored["blk.0.attn_k.weight"][16 + 2 * 3 + 1], ours[16 + 8 + 3])
    assert np.array_equal(
        stored["blk.0.attn_v.weight"], model.model.layers[0].self_attn.v_proj.weight.detach()
    )


def test_windows_and_dynamic_angles_are_folded_into_the_context(
    tmp_path: Path, tokenizer: Tokenizer, random_model: Make
) -> None:
    """Within the stated context llama.cpp, which has neither, computes the same."""
    for changes, context in (
        ({"model_type": "mistral", "sliding_window": 20}, 20),
        ({"model_type": "llama", "rope_scaling": {"rope_type": "dynamic", "factor": 2}}, 64),
    ):
        save_gguf(random_model(**changes), tokenizer, tmp_path / "model.gguf", "F32")
        reader = gguf.GGUFReader(tmp_path / "model.gguf")
        assert value(reader, "llama.context_length") == context
        assert value(reader, "llama.rope.scaling.type") is None


def test_rows_that_fill_no_blocks_stay_half_precision(
    tmp_path: Path, tokenizer: Tokenizer, random_model: Make
) -> None:
    """Q8_0 and Q4_0 take 32 weights of a row at a time."""
    model = random_model(model_type="llama", intermediate_size=40)
    save_gguf(model, tokenizer, tmp_path / "model.gguf", "Q4_0")
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    assert kinds["blk.0.ffn_down.weight"] == "F16"
    assert kinds["blk.0.ffn_up.weight"] == "Q4_0"
    assert kinds["blk.0.attn_norm.weight"] == "F32"


REFUSED = {
    "exact gelu": {"model_type": "gpt2", "hidden_act": "gelu"},
    "qwen3 with biases": {"model_type": "qwen3", "attention_bias": True},
    "experts not adding up": {
        "model_type": "qwen3_moe",
        "num_experts": 3,
        "moe_intermediate_size": 32,
        "norm_topk_prob": False,
    },
    "some layers dense": {
        "model_type": "qwen3_moe",
        "num_experts": 3,
        "moe_intermediate_size": 32,
        "mlp_only_layers": (0,),
    },
    "llama3 angles in qwen": {
        "model_type": "qwen3",
        "rope_scaling": {"rope_type": "llama3", "factor": 4, "original_max_position_embeddings": 16},
    },
    "yarn with its own factor": {
        "model_type": "llama",
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 4,
            "original_max_position_embeddings": 16,
            "attention_factor": 1.0,
        },
    },
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_llama_cpp_lacks_is_refused(
    name: str, tmp_path: Path, tokenizer: Tokenizer, random_model: Make
) -> None:
    """A reason and a way out, and no file."""
    with pytest.raises(ModelError, match=r"llama\.cpp has no.*--to hf"):
        save_gguf(random_model(**REFUSED[name]), tokenizer, tmp_path / "model.gguf")
    assert not list(tmp_path.iterdir())


def test_other_models_and_tokenizers_are_refused(
    tmp_path: Path, tokenizer: Tokenizer, random_model: Make
) -> None:
    """Few-bit weights, adapters, a way to split text without a name, more tokens than rows."""
    few, adapted = random_model(model_type="llama"), random_model(model_type="llama")
    quantize_model(few, "int8")
    add_adapter(adapted, LoRAConfig())
    for model in (few, adapted):
        with pytest.raises(ModelError, match="full-precision, merged"):
            save_gguf(model, tokenizer, tmp_path / "model.gguf")
    odd = Tokenizer([bytes([i]) for i in range(256)], {}, pattern=r"\w+|\W")
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    vocabulary = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["▁", -1.0], ["a", -2.0]]}
    pieces = {"model": vocabulary, "pre_tokenizer": metaspace, "decoder": metaspace}
    write_json(tmp_path / "unigram" / "tokenizer.json", {"version": "1.0", "added_tokens": []} | pieces)
    for other in (odd, Tokenizer.load(tmp_path / "unigram")):
        with pytest.raises(ModelError, match="splits text"):
            save_gguf(random_model(), other, tmp_path / "model.gguf")
    with pytest.raises(ModelError, match=f"{tokenizer.vocab_size} tokens, the model 270"):
        save_gguf(random_model(vocab_size=270), tokenizer, tmp_path / "model.gguf")
    with pytest.raises(ModelError, match="Q8_0"):
        save_gguf(random_model(), tokenizer, tmp_path / "model.gguf", "Q5_K")  # type: ignore[arg-type]
