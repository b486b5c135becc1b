"""A checkpoint is a Hugging Face folder: config.json, model.safetensors, generation_config.json.

Written whole or not at all. Files are read without unpickling anything, and every way in which a
folder can be broken ends in a ModelError that names the file, the tensor and the fix.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from glasshouse.core.errors import DataError, ModelError, UsageError
from glasshouse.core.storage import directory, read_json, write_json
from glasshouse.model.hf_config import config_json, read_config, read_scheme
from glasshouse.model.layout import IGNORED_ENDINGS, POSITIONS, Part, Stored, layout
from glasshouse.model.lora import adapter_names, linear_maps
from glasshouse.model.quantize import FewBits, QuantizedLinear, empty_quantized, quantization
from glasshouse.model.transformer import Transformer

WEIGHTS = "model.safetensors"


class SavesTokenizer(Protocol):
    """What `save` needs of a tokenizer."""

    @property
    def eos_id(self) -> int: ...
    @property
    def end_of_turn_id(self) -> int: ...
    @property
    def pad_id(self) -> int: ...

    def save(self, folder: Path) -> None: ...


def save(model: Transformer, tokenizer: SavesTokenizer | None, folder: str | Path) -> None:
    """Write `folder` so that transformers, and `load`, open it; an older folder is replaced whole.

    Tensors are stored in the dtype that the model holds them in. A tied head is not stored. Quantized
    weights are stored as they are; only Glasshouse opens such a folder. Raises UsageError for a model with
    adapters, which would be left behind.
    """
    if names := adapter_names(model):
        raise UsageError(
            f"the model carries adapters ({', '.join(names)}), which its folder has no place for",
            fix="merge them first, or save each with save_adapter",
        )
    with directory(folder) as temporary:
        dtype = str(model.model.embed_tokens.weight.dtype).removeprefix("torch.")
        config = config_json(model.config, dtype, quantization(model))
        if tokenizer is not None:
            config["bos_token_id"] = config["eos_token_id"] = tokenizer.eos_id
            config["pad_token_id"] = tokenizer.pad_id
        write_json(temporary / "config.json", config)
        write_json(temporary / "generation_config.json", _generation_json(tokenizer))
        save_file(file_tensors(model), temporary / WEIGHTS, metadata={"format": "pt"})
        (temporary / WEIGHTS).chmod(0o644)
        if tokenizer is not None:
            tokenizer.save(temporary)


def file_tensors(model: Transformer) -> dict[str, Tensor]:
    """The tensors of the family's file, each with storage of its own."""
    own, tensors = _own_tensors(model), {}
    for stored in _stored(model):
        first = own[stored.parts[0].own]
        tensors[stored.name] = torch.empty(stored.shape(own), dtype=first.dtype)
        for theirs, ours in stored.pairs(tensors[stored.name], own):
            theirs.copy_(ours)
    return tensors


def _stored(model: Transformer) -> list[Stored]:
    """The file's tensors; codes and scales, under our names, in place of quantized weights."""
    few_bits = {
        f"{path}.weight" for path, linear in linear_maps(model) if isinstance(linear, QuantizedLinear)
    }
    few_bits |= {path for path, module in model.named_modules() if isinstance(module, FewBits)}
    found: dict[str, Stored] = {}
    if hasattr(model, "score"):  # a scalar head, which every family's file calls so
        found["score.weight"] = Stored("score.weight", (Part("score.weight"),))
    for stored in layout(model.config):
        if stored.parts[0].own not in few_bits:
            found[stored.name] = stored
            continue
        for part in stored.parts:  # of experts several tensors are parts of one stack: it stands once
            path = part.own.removesuffix(".weight")
            for name in (f"{path}.codes", f"{path}.scales"):
                found[name] = Stored(name, (Part(name),))
    return list(found.values())


def load(
    folder: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Transformer:
    """Open a folder as a model that holds its weights, and computes, in `dtype`.

    Weights are copied out of the memory-mapped file: kernels sum in another order on storage that is
    not aligned to 64 bytes, and the same folder has to give the same bits everywhere.
    """
    folder = Path(folder)
    config = read_config(folder)
    model = Transformer.empty(config, device, dtype)
    if (scheme := read_scheme(folder)) is not None:
        empty_quantized(model, scheme)
    read_weights(folder, model)
    return model


def read_weights(folder: Path, model: Transformer) -> None:
    """Copy every tensor of the files into the model's own storage, checking names and shapes.

    Files are memory-mapped, so no more than one tensor exists twice.
    """
    own = _own_tensors(model)
    with ExitStack() as stack:
        files = {path: _open(path, stack) for path in _weight_files(folder)}
        place = {name: path for path, file in files.items() for name in file.keys()}  # noqa: SIM118
        stored = _renamed(_stored(model), set(place))
        known = {tensor.name for tensor in stored}
        if model.config.tie_word_embeddings:
            known.add("lm_head.weight")  # some folders store the tied head once more
        extra = {name for name in place.keys() - known if not name.endswith(IGNORED_ENDINGS)}
        for tensor in stored:
            if tensor.name not in place:
                raise ModelError(
                    f"tensor '{tensor.name}' is missing",
                    where=next(iter(files)) if len(files) == 1 else folder,
                    fix="save the folder again, or correct config.json",
                )
        if "score.weight" in extra:
            raise ModelError(
                "this is a reward model: it gives texts a number (score.weight) and writes none",
                where=folder,
                fix="name the folder of a language model",
            )
        for name in sorted(extra):
            raise ModelError(
                f"tensor '{name}' has no place in a {model.config.model_type} of this config",
                where=place[name],
                fix="correct config.json (layers, biases, tie_word_embeddings)",
            )
        for tensor in stored:
            path = place[tensor.name]
            with _whole(path):
                shape = list(files[path].get_slice(tensor.name).get_shape())
                if shape != tensor.shape(own):
                    raise ModelError(
                        f"tensor '{tensor.name}' is {shape}, config.json asks for {tensor.shape(own)}",
                        where=path,
                        fix="correct config.json or save the folder again",
                    )
                found = files[path].get_tensor(tensor.name)
            for theirs, ours in tensor.pairs(found, own):
                if theirs.is_floating_point() != ours.is_floating_point():
                    raise ModelError(
                        f"tensor '{tensor.name}' holds {found.dtype}",
                        where=path,
                        fix="use an unquantized model",
                    )
                ours.copy_(theirs)
    if POSITIONS in own and not torch.equal(own[POSITIONS], _fixed_positions(model)):
        raise ModelError(
            f"the stored position vectors are not {model.config.positions}",
            where=folder,
            fix="remove 'positions' from config.json",
        )


def _own_tensors(model: Transformer) -> dict[str, Tensor]:
    """Our parameters by name, and what stands for position vectors that are not learned."""
    own: dict[str, Tensor] = dict(model.state_dict())
    if model.config.positions in ("sinusoidal", "none"):
        own[POSITIONS] = _fixed_positions(model).clone()
    return own


def _fixed_positions(model: Transformer) -> Tensor:
    table = model.model.position_vectors
    if table is not None:
        return table
    return torch.zeros(model.config.max_position_embeddings, model.config.hidden_size)


def _renamed(stored: list[Stored], present: set[str]) -> list[Stored]:
    """Folders saved from the model without its head lack GPT-2's first name, `transformer.`."""
    if any(name.startswith("transformer.") for name in present):
        return stored
    return [replace(tensor, name=tensor.name.removeprefix("transformer.")) for tensor in stored]


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder; raises ModelError where there are none, or not all."""
    single, index = folder / WEIGHTS, folder / f"{WEIGHTS}.index.json"
    if single.exists():
        return [single]
    if index.exists():
        try:
            names = set(read_json(index)["weight_map"].values())
        except (DataError, KeyError, TypeError, AttributeError):
            raise ModelError(
                "not an index of weight files", where=index, fix="download the folder again"
            ) from None
        paths = [folder / str(name) for name in sorted(map(str, names))]
        for path in paths:
            if path.parent != folder or not path.exists():
                raise ModelError("a file of weights is missing", where=path, fix="download the folder again")
        return paths
    pickles = sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
    if pickles:
        raise ModelError(
            "weights are a pickle, which can run code and is never opened",
            where=pickles[0],
            fix="save the model as safetensors with the program that made it",
        )
    raise ModelError("weights are missing", where=single, fix="download or save the folder again")


def _open(path: Path, stack: ExitStack) -> Any:
    with _whole(path):
        return stack.enter_context(safe_open(path, framework="pt"))


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Say of a truncated or corrupt file which one it is."""
    try:
        yield
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"not a whole safetensors file: {error}", where=path, fix="download or save the folder again"
        ) from None


def _generation_json(tokenizer: SavesTokenizer | None) -> dict[str, Any]:
    """Where generation stops: at the end of a turn, and at the end of a text."""
    if tokenizer is None:
        return {"do_sample": False}
    return {
        "do_sample": False,
        "bos_token_id": tokenizer.eos_id,
        "eos_token_id": [tokenizer.end_of_turn_id, tokenizer.eos_id],
        "pad_token_id": tokenizer.pad_id,
    }
