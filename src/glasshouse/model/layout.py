"""Which tensors a family's file holds, and what parts of them our parameters are.

Our names are Llama's. GPT-2 keeps matrices transposed, with queries, keys and values in one; a mixture
of experts keeps each expert's matrices apart. A file's tensor is described by its parts, each a view of
the file's tensor and a view of one of our parameters: reading copies one way, writing the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from glasshouse.model.config import ModelConfig


@dataclass(frozen=True)
class Part:
    """One of our parameters, or a piece of it, inside a tensor of the file."""

    own: str
    of: slice | None = None  # the piece of the file's (transposed) rows; None: all of it
    own_rows: slice | None = None  # the piece of our parameter's rows
    expert: int | None = None  # the piece of our parameter's first axis

    def in_own(self, parameter: Tensor) -> Tensor:
        piece = parameter if self.expert is None else parameter[self.expert]
        return piece if self.own_rows is None else piece[self.own_rows]

    def in_file(self, tensor: Tensor) -> Tensor:
        return tensor if self.of is None else tensor[self.of]


@dataclass(frozen=True)
class Stored:
    """One tensor of the file."""

    name: str
    parts: tuple[Part, ...]
    transposed: bool = False  # the file keeps (inputs, outputs), as GPT-2's Conv1D does

    def pairs(self, tensor: Tensor, own: dict[str, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """(view of the file's tensor, view of our parameter) of every part; equal where all is well."""
        rows = tensor.mT if self.transposed and tensor.ndim == 2 else tensor
        for part in self.parts:
            yield part.in_file(rows), part.in_own(own[part.own])

    def shape(self, own: dict[str, Tensor]) -> list[int]:
        """The shape that the file's tensor must have."""
        views = [part.in_own(own[part.own]) for part in self.parts]
        shape = [sum(len(view) for view in views), *views[0].shape[1:]]
        return shape[::-1] if self.transposed and len(shape) == 2 else shape


IGNORED_ENDINGS = (".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq")
"""Constants that old folders store beside the weights."""


def layout(config: ModelConfig) -> list[Stored]:
    """Every tensor of a file of this config's family, in the order of our parameters."""
    if config.model_type == "gpt2":
        return list(_gpt2(config))
    return list(_llama_like(config))


def _same(name: str) -> Stored:
    return Stored(name, (Part(name),))


def _llama_like(config: ModelConfig) -> Iterator[Stored]:
    yield _same("model.embed_tokens.weight")
    for layer in range(config.num_hidden_layers):
        block = f"model.layers.{layer}"
        yield _same(f"{block}.input_layernorm.weight")
        for name, bias in (("q", config.qkv_bias), ("k", config.qkv_bias), ("v", config.qkv_bias)):
            yield from _linear(f"{block}.self_attn.{name}_proj", bias)
        yield from _linear(f"{block}.self_attn.o_proj", config.output_bias)
        if config.family.qk_norm:
            yield _same(f"{block}.self_attn.q_norm.weight")
            yield _same(f"{block}.self_attn.k_norm.weight")
        yield _same(f"{block}.post_attention_layernorm.weight")
        if config.has_experts(layer):
            yield from _experts(config, f"{block}.mlp")
        else:
            for name in ("gate", "up", "down"):
                yield from _linear(f"{block}.mlp.{name}_proj", config.has_mlp_bias)
    yield _same("model.norm.weight")
    if not config.tie_word_embeddings:
        yield _same("lm_head.weight")


def _linear(name: str, bias: bool) -> Iterator[Stored]:
    yield _same(f"{name}.weight")
    if bias:
        yield _same(f"{name}.bias")


def _experts(config: ModelConfig, mlp: str) -> Iterator[Stored]:
    """Every expert's three matrices, under the family's names for them."""
    mixtral = config.model_type == "mixtral"
    folder = mlp.replace(".mlp", ".block_sparse_moe") if mixtral else mlp
    gate, up, down = ("w1", "w3", "w2") if mixtral else ("gate_proj", "up_proj", "down_proj")
    width = config.moe_intermediate_size
    both = f"{mlp}.experts.gate_up_proj"
    yield Stored(f"{folder}.gate.weight", (Part(f"{mlp}.gate.weight"),))
    for e in range(config.num_experts):
        expert = f"{folder}.experts.{e}"
        yield Stored(f"{expert}.{gate}.weight", (Part(both, expert=e, own_rows=slice(0, width)),))
        yield Stored(f"{expert}.{up}.weight", (Part(both, expert=e, own_rows=slice(width, None)),))
        yield Stored(f"{expert}.{down}.weight", (Part(f"{mlp}.experts.down_proj", expert=e),))


def _gpt2(config: ModelConfig) -> Iterator[Stored]:
    d = config.hidden_size
    thirds = {name: slice(i * d, (i + 1) * d) for i, name in enumerate("qkv")}
    yield Stored("transformer.wte.weight", (Part("model.embed_tokens.weight"),))
    own = "model.embed_positions.weight" if config.positions == "learned" else POSITIONS
    yield Stored("transformer.wpe.weight", (Part(own),))
    for layer in range(config.num_hidden_layers):
        block, ours = f"transformer.h.{layer}", f"model.layers.{layer}"
        for kind, transposed in (("weight", True), ("bias", False)):
            yield Stored(f"{block}.ln_1.{kind}", (Part(f"{ours}.input_layernorm.{kind}"),))
            parts = tuple(Part(f"{ours}.self_attn.{n}_proj.{kind}", of=piece) for n, piece in thirds.items())
            yield Stored(f"{block}.attn.c_attn.{kind}", parts, transposed)
            for theirs, name in (
                ("attn.c_proj", "self_attn.o_proj"),
                ("mlp.c_fc", "mlp.up_proj"),
                ("mlp.c_proj", "mlp.down_proj"),
            ):
                yield Stored(f"{block}.{theirs}.{kind}", (Part(f"{ours}.{name}.{kind}"),), transposed)
            yield Stored(f"{block}.ln_2.{kind}", (Part(f"{ours}.post_attention_layernorm.{kind}"),))
    for kind in ("weight", "bias"):
        yield Stored(f"transformer.ln_f.{kind}", (Part(f"model.norm.{kind}"),))
    if not config.tie_word_embeddings:
        yield _same("lm_head.weight")


POSITIONS = "model.positions"
"""Stands for the vectors that a GPT-2 without learned positions adds: a table, or zeros. They are written
into the place of the learned ones, so that transformers computes the same."""
