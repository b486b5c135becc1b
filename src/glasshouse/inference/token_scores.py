"""What the model thought of each token: log-probabilities in nats, before any setting of the request."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from glasshouse.inference.request import TokenScore


def token_scores(logits: Tensor, tokens: Sequence[int], top: Sequence[int]) -> list[TokenScore]:
    """Scores of one token a row: logits (rows, vocab) as the model gave them, `top[row]` alternatives.

    Where the token itself is among the alternatives, both carry the same float. Alternatives of equal
    probability stand in the order of their ids, as far as they are told.
    """
    logits = logits.float()
    whole = logits.logsumexp(-1, keepdim=True)  # (rows, 1)
    index = torch.tensor(tokens, dtype=torch.int64, device=logits.device)[:, None]
    own = (logits.gather(-1, index) - whole)[:, 0].tolist()
    count = min(max(top, default=0), logits.shape[-1])
    if not count:
        return [TokenScore(token, logprob) for token, logprob in zip(tokens, own, strict=True)]
    best = logits.topk(count)
    ids, logprobs = best.indices.tolist(), (best.values - whole).tolist()
    return [
        TokenScore(token, logprob, tuple(_in_order(ids[row][:some], logprobs[row][:some])))
        for row, (token, logprob, some) in enumerate(zip(tokens, own, top, strict=True))
    ]


def _in_order(ids: list[int], logprobs: list[float]) -> list[tuple[int, float]]:
    return sorted(zip(ids, logprobs, strict=True), key=lambda pair: (-pair[1], pair[0]))
