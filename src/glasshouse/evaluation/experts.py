"""Which experts a mixture of experts uses for which text: the load of each, by layer and domain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from glasshouse.inference import LanguageModel
from glasshouse.model.expert_load import ExpertLoad

DOMAIN_TOKENS = 5000
"""Tokens read of each domain, about: ten thousand choices a layer tell shares to within a percent or two."""

BATCH_TOKENS = 8192
"""Ceiling of rows · longest row in one forward pass."""


def expert_shares(model: LanguageModel, domains: Mapping[str, Iterable[Sequence[int]]]) -> dict[str, Any]:
    """The shares of each expert in the assignments of some texts of every domain; {} for a dense model.

    A text is its token ids, as training saw them.

        {"experts": 8, "experts_per_token": 2, "layers": [0, 1, ...],
         "domains": {"people": {"tokens": 5012, "shares": [[of every expert], for every layer]}, ...}}

    `layers` are those that have experts. Shares of a layer add up to 1. Texts are read in order until
    about DOMAIN_TOKENS are seen; a domain without a text is left out.
    """
    config = model.model.config
    layers = [layer for layer in range(config.num_hidden_layers) if config.has_experts(layer)]
    if not layers:
        return {}
    found = {}
    for domain, texts in domains.items():
        load = ExpertLoad(len(layers), config.num_experts, config.num_experts_per_tok)
        for rows in _batches(_windows(texts, model.context)):
            _route(model, rows, load)
        if load.tokens:
            shares = [[round(share, 5) for share in layer] for layer in load.shares.tolist()]
            found[domain] = {"tokens": load.tokens, "shares": shares}
    return {
        "experts": config.num_experts,
        "experts_per_token": config.num_experts_per_tok,
        "layers": layers,
        "domains": found,
    }


def _windows(texts: Iterable[Sequence[int]], context: int) -> Iterator[Sequence[int]]:
    """The texts in pieces that fit the context."""
    left = DOMAIN_TOKENS
    for text in texts:
        ids = text[:left]
        yield from (ids[at : at + context] for at in range(0, len(ids), context))
        left -= len(ids)
        if left <= 0:
            return


def _batches(rows: Iterable[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    batch: list[Sequence[int]] = []
    for row in sorted(rows, key=len):
        if batch and (len(batch) + 1) * len(row) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


@torch.inference_mode()
def _route(model: LanguageModel, rows: Sequence[Sequence[int]], load: ExpertLoad) -> None:
    """Padding lies after every real token, so causality alone keeps it out of their states."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    real = torch.zeros_like(ids, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)], real[i, : len(row)] = torch.tensor(row), True
    device, routing = model.model.device, list[Tensor]()
    model.model.hidden(ids.to(device), routing=routing)
    load.add(routing, real.flatten().to(device))
