"""A model's weights as the C code in `native/` reads them: packed in panels, named by ctypes structures.

A panel is 32 outputs of a matrix, input by input, so that one row of activations meets 32 outputs at
once, and weights come from memory in one long stream. The structures are those of `native/model.h`.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from glasshouse.model import Transformer
from glasshouse.model.adapter import Adapter as LowRank
from glasshouse.model.attention import Attention
from glasshouse.model.experts import Experts, SparseMLP
from glasshouse.model.layers import GatedMLP, LayerNorm, Linear, RMSNorm
from glasshouse.model.lora import adapter_names
from glasshouse.model.quantize import GROUP, NF4, QuantizedExperts, QuantizedLinear
from glasshouse.model.transformer import Block

PANEL = 32
SITES, MAPS = 4, 3
"""Places of linear maps in a layer (qkv, output, up, down), and maps joined at one of them."""

REAL, INT8, BITS4 = range(3)
ACTIVATIONS = {"silu": 0, "gelu": 1, "gelu_new": 2, "gelu_pytorch_tanh": 2, "relu": 3}


class Matrix(ctypes.Structure):
    _fields_ = (
        ("panels", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("levels", ctypes.c_void_p),
        ("outputs", ctypes.c_int64),
        ("inputs", ctypes.c_int64),
        ("kind", ctypes.c_int64),
        ("unit", ctypes.c_float),
    )


class Norm(ctypes.Structure):
    _fields_ = (("gain", ctypes.c_void_p), ("bias", ctypes.c_void_p))


class Layer(ctypes.Structure):
    _fields_ = (
        ("before_attention", Norm),
        ("before_mlp", Norm),
        ("q_gain", ctypes.c_void_p),
        ("k_gain", ctypes.c_void_p),
        ("maps", Matrix * SITES),
        ("router", Matrix),
        ("experts", ctypes.POINTER(Matrix)),
        ("window", ctypes.c_int64),
    )


class Adapter(ctypes.Structure):
    _fields_ = (("a", Matrix), ("b", Matrix), ("column", ctypes.c_int64))


class Model(ctypes.Structure):
    _fields_ = (
        ("layers", ctypes.POINTER(Layer)),
        ("adapters", ctypes.POINTER(Adapter)),
        ("last", Norm),
        ("head", Matrix),
        ("embedding", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        *(
            (name, ctypes.c_int64)
            for name in ("n_layers", "hidden", "heads", "kv_heads", "head_dim", "inner")
        ),
        *((name, ctypes.c_int64) for name in ("vocab", "act", "gated", "n_experts", "top_k", "expert_inner")),
        *((name, ctypes.c_int64) for name in ("normed_top_k", "adapted")),
        ("eps", ctypes.c_float),
    )


def large_buffer(size: int) -> Tensor:
    """`size` bytes of zeros, uint8, in large memory pages where the system has them: streams read faster."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(size, dtype=torch.uint8)
    memory = mmap.mmap(-1, max(size, 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


CHUNK = 32 << 20
"""Bytes that are asked of the system at once: matrices smaller than a large page lie in one together."""


class Weights:
    """Everything packed once, in memory of its own: the model may be dropped afterwards.

    Takes what the model's weights take in `dtype` (or in few bits), rounded up to whole panels; a tied
    embedding is read from the packed head, one of its own is kept as it is.
    """

    def __init__(self, model: Transformer, dtype: torch.dtype) -> None:
        config, decoder = model.config, model.model
        self.dtype = dtype
        self._kept: list[object] = []  # what the structures point at
        self._chunk, self._used = large_buffer(0), 0
        self.layers = (Layer * config.num_hidden_layers)()
        for layer, block in zip(self.layers, decoder.layers, strict=True):
            assert isinstance(block, Block)
            self._fill(layer, block)
        tied = config.tie_word_embeddings
        positions = decoder.position_vectors
        self.model = Model(
            layers=self.layers,
            last=self._norm(decoder.norm),
            head=self.matrix([model.head_weight], []),
            embedding=None if tied else self._keep(decoder.embed_tokens.weight.detach().to(dtype)),
            positions=None if positions is None else self._floats(positions),
            n_layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            inner=config.intermediate_size,
            vocab=config.vocab_size,
            act=ACTIVATIONS[config.hidden_act],
            gated=config.family.gated,
            n_experts=config.num_experts,
            top_k=config.num_experts_per_tok if config.num_experts else 0,
            expert_inner=config.moe_intermediate_size if config.num_experts else 0,
            normed_top_k=config.norm_topk_prob,
            eps=config.rms_norm_eps,
        )
        self.adapters = {name: index for index, name in enumerate(adapter_names(model))}
        self._adapters(model)

    def matrix(self, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Matrix:
        """Maps of one input, joined, in full precision."""
        weight = weights[0] if len(weights) == 1 else torch.cat(list(weights))
        outputs, inputs = weight.shape
        unit = 4 // self.dtype.itemsize
        weight = F.pad(weight.detach().to(self.dtype), (0, -inputs % unit, 0, -outputs % PANEL))
        words = weight.contiguous().view(torch.int32)  # (outputs, words)
        panels = words.view(-1, PANEL, words.shape[1]).transpose(1, 2)
        return self._matrix(panels, biases, outputs, inputs, REAL)

    def few_bits(
        self,
        parts: Sequence[tuple[Tensor, Tensor]],
        scheme: str,
        inputs: int,
        biases: Sequence[Tensor | None],
    ) -> Matrix:
        """Maps of one input, joined, from codes and scales of `quantize`."""
        codes = torch.cat([codes for codes, _ in parts])
        scales = torch.cat([scales for _, scales in parts])
        outputs, groups = scales.shape
        if scheme != "int8":  # a byte holds two neighbours; here they stand four inputs apart
            codes = torch.stack([codes & 15, codes >> 4], -1).view(outputs, -1)
            first, second = codes.view(outputs, groups, -1, 2, 4).unbind(3)
            codes = (first | second << 4).reshape(outputs, -1)
        fill = -outputs % PANEL
        words = F.pad(codes, (0, 0, 0, fill)).view(-1, PANEL, groups, codes.shape[1] // groups)
        words = words.view(torch.int32).permute(0, 2, 3, 1)  # (panels, groups, words, PANEL)
        shares = F.pad(scales, (0, 0, 0, fill)).view(-1, PANEL, groups).transpose(1, 2)
        shares = shares.clone(memory_format=torch.contiguous_format)
        panels = torch.cat([words.flatten(2), shares.view(torch.int32)], -1)  # (panels, groups, words)
        made = self._matrix(panels, biases, outputs, inputs, INT8 if scheme == "int8" else BITS4)
        if scheme != "int8":
            levels = torch.tensor(NF4) * 127 if scheme == "nf4" else torch.arange(-8.0, 8.0)
            made.levels = self._keep((levels.round() + 128).to(torch.uint8))
            made.unit = 1 / 127 if scheme == "nf4" else 1.0
        return made

    def _matrix(
        self, panels: Tensor, biases: Sequence[Tensor | None], outputs: int, inputs: int, kind: int
    ) -> Matrix:
        packed = self._room(panels.numel() * 4)
        packed.view(torch.int32).view(panels.shape).copy_(panels)
        bias = None
        if any(part is not None for part in biases):
            joined = torch.cat([part.detach().float() for part in biases if part is not None])
            assert len(joined) == outputs
            bias = self._floats(F.pad(joined, (0, -outputs % PANEL)))
        return Matrix(self._keep(packed), bias, None, outputs, inputs, kind, 1.0)

    def _room(self, size: int) -> Tensor:
        """Bytes that stay, at a multiple of 64."""
        if self._used + size > self._chunk.numel():
            self._chunk, self._used = large_buffer(max(size, CHUNK)), 0
        start = self._used
        self._used += size + -size % 64
        return self._chunk[start : start + size]

    def _maps(self, maps: Sequence[Linear]) -> Matrix:
        biases = [linear.bias for linear in maps]
        if isinstance(first := maps[0], QuantizedLinear):
            parts = [(linear.codes, linear.scales) for linear in maps if isinstance(linear, QuantizedLinear)]
            return self.few_bits(parts, first.scheme, first.in_features, biases)
        return self.matrix([linear.weight for linear in maps], biases)

    def _fill(self, layer: Layer, block: Block) -> None:
        attention, mlp = block.self_attn, block.mlp
        layer.before_attention = self._norm(block.input_layernorm)
        layer.before_mlp = self._norm(block.post_attention_layernorm)
        layer.window = attention.window or 0
        if attention.normed:
            layer.q_gain, layer.k_gain = (
                self._floats(norm.weight) for norm in (attention.q_norm, attention.k_norm)
            )
        for site, maps in enumerate(_sites(attention, mlp)):
            if maps:
                layer.maps[site] = self._maps(maps)
        if isinstance(mlp, SparseMLP):
            layer.router = self.matrix([mlp.gate.weight], [])
            matrices = list(self._experts(mlp.experts))
            stack = (Matrix * len(matrices))(*matrices)
            self._kept.append(stack)
            layer.experts = ctypes.cast(stack, ctypes.POINTER(Matrix))

    def _experts(self, experts: Experts) -> Iterator[Matrix]:
        """Up and down of each expert in turn."""
        if isinstance(experts, QuantizedExperts):
            stacks = experts.gate_up_proj, experts.down_proj
            for index in range(stacks[0].count):
                for stack in stacks:
                    part = [(stack.codes[index], stack.scales[index])]
                    yield self.few_bits(part, stack.scheme, stack.columns, [])
            return
        for up, down in zip(experts.gate_up_proj, experts.down_proj, strict=True):
            yield self.matrix([up], [])
            yield self.matrix([down], [])

    def _adapters(self, model: Transformer) -> None:
        """A and scale · B of every adapter, each rank rounded up to 16."""
        if not self.adapters:
            return
        table = (Adapter * (len(self.adapters) * len(self.layers) * SITES * MAPS))()
        widest = 0
        for name, index in self.adapters.items():
            for place, block in enumerate(model.model.layers):
                assert isinstance(block, Block)
                for site, maps in enumerate(_sites(block.self_attn, block.mlp)):
                    column = 0
                    for number, linear in enumerate(maps):
                        if (adapter := _adapter(linear, name)) is not None:
                            fill = -len(adapter.a) % 16
                            a = F.pad(adapter.a.detach(), (0, 0, 0, fill))
                            b = F.pad(adapter.b.detach() * adapter.scale, (0, fill))
                            at = ((index * len(self.layers) + place) * SITES + site) * MAPS + number
                            table[at] = Adapter(self.matrix([a], []), self.matrix([b], []), column)
                            widest = max(widest, len(a))
                        column += linear.out_features
        self._kept.append(table)
        self.model.adapters = ctypes.cast(table, ctypes.POINTER(Adapter))
        self.model.adapted = widest

    def _norm(self, norm: object) -> Norm:
        assert isinstance(norm, RMSNorm | LayerNorm)
        bias = norm.bias if isinstance(norm, LayerNorm) else None
        return Norm(self._floats(norm.weight), None if bias is None else self._floats(bias))

    def _floats(self, values: Tensor) -> int:
        return self._keep(values.detach().float().clone())

    def _keep(self, values: Tensor) -> int:
        """The address of values that stay where they are as long as this object."""
        values = values.contiguous()
        self._kept.append(values)
        return values.data_ptr()


def _adapter(linear: Linear, name: str) -> LowRank | None:
    adapter = linear.adapters[name] if linear.adapters is not None and name in linear.adapters else None
    assert adapter is None or isinstance(adapter, LowRank)
    return adapter


def _sites(attention: Attention, mlp: object) -> tuple[tuple[Linear, ...], ...]:
    """A layer's linear maps, those of one input together; experts apart."""
    joined = (attention.q_proj, attention.k_proj, attention.v_proj), (attention.o_proj,)
    if isinstance(mlp, SparseMLP):
        return *joined, (), ()
    ups = (mlp.gate_proj, mlp.up_proj) if isinstance(mlp, GatedMLP) else (mlp.up_proj,)  # type: ignore[attr-defined]
    return *joined, ups, (mlp.down_proj,)  # type: ignore[attr-defined]


assert GROUP == 64  # as in native/model.h
