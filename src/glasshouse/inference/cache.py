"""Keys and values of tokens already read, in buffers that never move: slot == position.

Because a row's token at position p always lies in slot p, rows of different lengths share a batch
without left padding: a prompt shorter than its neighbours is padded on the right, what the padding
wrote is hidden by "slots up to my own position", and the row's next tokens overwrite it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from glasshouse.model import ModelConfig


class KVCache:
    """A static cache for `batch` rows of up to `capacity` tokens each."""

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        capacity: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (batch, config.num_key_value_heads, capacity, config.head_dim)
        layers = range(config.num_hidden_layers)
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in layers]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in layers]
        self.lengths = torch.zeros(batch, dtype=torch.int64, device=device)
        self.capacity = capacity
        self.longest = 0  # max(lengths), known without asking the device
        self._even = True  # all rows are equally long

    @property
    def full(self) -> bool:
        """Whether some row has no slot left."""
        return self.longest >= self.capacity

    @staticmethod
    def bytes_per_token(config: ModelConfig, dtype: torch.dtype) -> int:
        """Memory of one slot over all layers."""
        return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * dtype.itemsize

    def mask(self, seq: int, window: int | None = None) -> Tensor | None:
        """The last `window` slots up to each token's own, bool (batch, 1, seq, slots); None where plain."""
        total = self.longest + seq
        within = window is None or total <= window
        if within and self._even and (self.longest == 0 or seq == 1):
            return None
        slots = torch.arange(total, device=self.lengths.device)
        own = self.lengths[:, None] + torch.arange(seq, device=self.lengths.device)  # (batch, seq)
        seen = slots <= own[:, :, None]
        if window is not None:
            seen &= slots > own[:, :, None] - window
        return seen[:, None]

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store (batch, kv_heads, seq, head_dim) after each row's length; return all slots in use."""
        seq = keys.shape[2]
        end = self.longest + seq
        if end > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} tokens a row, {end} are needed")
        for buffer, new in ((self.keys[layer], keys), (self.values[layer], values)):
            if self._even:
                buffer[:, :, self.longest : end] = new
            else:
                rows = torch.arange(buffer.shape[0], device=buffer.device)[:, None]
                slots = self.lengths[:, None] + torch.arange(seq, device=buffer.device)
                buffer[rows, :, slots] = new.transpose(1, 2)  # (batch, seq, kv_heads, head_dim)
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def advance(self, seq: int) -> None:
        """Count `seq` more tokens in every row, once all layers have written."""
        self.lengths = self.lengths + seq
        self.longest += seq

    def set_lengths(self, lengths: list[int]) -> None:
        """Say how many tokens of each row are real, after a right-padded prefill."""
        self.lengths = torch.tensor(lengths, dtype=torch.int64, device=self.lengths.device)
        self.longest, self._even = max(lengths), len(set(lengths)) == 1

    def keep(self, rows: list[int]) -> None:
        """Drop all other rows, so that finished ones cost nothing more."""
        index = torch.tensor(rows, dtype=torch.int64, device=self.lengths.device)
        self.keys = [buffer.index_select(0, index) for buffer in self.keys]
        self.values = [buffer.index_select(0, index) for buffer in self.values]
        self.lengths = self.lengths[index]
        self.longest = int(self.lengths.max())
