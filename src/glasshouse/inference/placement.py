"""A model that does not fit a device: its blocks on several, or fetched in turn from the CPU's memory.

Blocks are given to the devices in their order, as long as each has room. Those that find none stay in
the CPU's memory; each is copied to the first device for the moment of its work, so that one copy at a
time takes room there. Whatever a block works on follows it: activations, masks, angles, and its pages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glasshouse.core.errors import UsageError
from glasshouse.inference.memory_ceiling import free_bytes
from glasshouse.model import Transformer

WEIGHTS_SHARE = 0.7
"""Of a device's free memory; the rest is for pages, activations and a fetched block."""


@dataclass(frozen=True)
class Placement:
    """Where each block works. Hooks on the model move what it needs; its tensors keep their names."""

    home: torch.device  # of embedding, final norm and head
    devices: tuple[torch.device, ...]  # of each block


def assign(sizes: Sequence[int], rooms: Sequence[int]) -> list[int | None]:
    """For each block, in order, the device that it fits on, by its place in `rooms` (bytes); None: no device.

    Neighbours stay together: a block goes to the device of the one before it, or to a later one.
    """
    left, device = list(rooms), 0
    places: list[int | None] = []
    for size in sizes:
        while device < len(left) and left[device] < size:
            device += 1
        if device < len(left):
            left[device] -= size
        places.append(device if device < len(left) else None)
    return places


def fits(folder: Path, device: torch.device) -> bool:
    """Whether the weights of a folder, as large as their files, leave room on a device for work with them."""
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return size <= (free_bytes(device) or 0) * WEIGHTS_SHARE


def all_gpus(first: str) -> list[torch.device]:
    """Every GPU, beginning with this one."""
    mine = torch.device(first)
    index = mine.index or 0
    others = [torch.device("cuda", i) for i in range(torch.cuda.device_count()) if i != index]
    return [torch.device("cuda", index), *others]


def place(
    model: Transformer, devices: Sequence[torch.device | str], rooms: Sequence[int] | None = None
) -> Placement:
    """Spread a model that lies in the CPU's memory over devices, in place; `rooms` are bytes for weights.

    Raises UsageError where the first device cannot even hold embedding, norm and head.
    """
    targets = [torch.device(device) for device in devices]
    if rooms is None:
        rooms = [int((free_bytes(device) or 0) * WEIGHTS_SHARE) for device in targets]
    home, blocks = targets[0], list(model.model.layers)
    ends = [module for name, module in model.model.named_children() if name != "layers"]
    ends += [module for name, module in model.named_children() if name != "model"]
    needed = sum(_size(module) for module in ends)
    if needed > rooms[0]:
        raise UsageError(
            f"embedding, norm and head take {needed} bytes, {home} has room for {rooms[0]}",
            fix="use the CPU, or fewer bits",
        )
    for module in ends:
        module.to(home)
    if hasattr(model.model, "sinusoids"):
        model.model.sinusoids = nn.Buffer(model.model.sinusoids.to(home), persistent=False)
    places = assign([_size(block) for block in blocks], [rooms[0] - needed, *rooms[1:]])
    for block, found in zip(blocks, places, strict=True):
        device = home if found is None else targets[found]
        if found is not None:
            block.to(device)
        else:
            _fetched(block, device)
        block.register_forward_pre_hook(_mover(device))
    model.model.norm.register_forward_pre_hook(_mover(home))
    return Placement(home, tuple(home if found is None else targets[found] for found in places))


def _size(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*module.parameters(), *module.buffers()))


def _fetched(block: nn.Module, device: torch.device) -> None:
    """Copy the block's tensors to the device before its work, and let go of the copies after it."""
    kept: dict[nn.Parameter | Tensor, Tensor] = {}

    def fetch(_: nn.Module, args: Any) -> None:
        for tensor in (*block.parameters(), *block.buffers()):
            kept[tensor] = tensor.data
            tensor.data = tensor.data.to(device, copy=True)

    def let_go(_: nn.Module, args: Any, output: Any) -> None:
        for tensor, data in kept.items():
            tensor.data = data
        kept.clear()

    block.register_forward_pre_hook(fetch)
    block.register_forward_hook(let_go, always_call=True)


def _mover(device: torch.device) -> Callable[[nn.Module, Any], Any]:
    """A hook that brings a module's arguments to its device."""
    return lambda _, args: _moved(args, device)


def _moved(value: Any, device: torch.device) -> Any:
    """Tensors, also within tuples, on the device; other things as they are."""
    if isinstance(value, Tensor):
        return value.to(device)
    if type(value) is tuple:
        return tuple(_moved(part, device) for part in value)
    return value
