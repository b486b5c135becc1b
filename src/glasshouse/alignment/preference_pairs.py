"""Preference pairs as tokens: two sequences that begin alike, and a mask on the reply.

folder/shards/                 2 n sequences: chosen, rejected, chosen, ...; the mask is true on what the
                               assistant wrote in the reply, and on nothing of the prompt
folder/judgements.safetensors  preferred (n,): how sure it is that the chosen one is better, 1 or, for a
                               tie, 0.5; margin (n,): by how much
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import model_validator
from safetensors.torch import save_file

from glasshouse.alignment.sft import turn_starts
from glasshouse.alignment.written import encode_replies
from glasshouse.core.errors import DataError
from glasshouse.core.progress import say
from glasshouse.core.storage import replaced
from glasshouse.data import ShardWriter
from glasshouse.model.lora import LoRAConfig
from glasshouse.tokenizer import ChatTokens, Tokenizer
from glasshouse.training import TrainingConfig

SHARDS, JUDGEMENTS = "shards", "judgements.safetensors"


class PreferenceConfig(TrainingConfig):
    """The loop's settings for pairs: one epoch unless told, and rows that hold the longest conversation."""

    batch_tokens: int = 8192
    sequence_length: int = 512
    momentum_warmup_steps: int = 0
    lora: LoRAConfig | None = None  # train a low-rank adapter over the frozen model

    @model_validator(mode="before")
    @classmethod
    def _default_budget(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("tokens") is None and data.get("epochs") is None:
            return {**data, "epochs": 1.0}
        return data


@dataclass
class PairCounts:
    """What became of the pairs."""

    pairs: int = 0
    ties: int = 0  # among them
    cut: int = 0  # among them: without the oldest turns of their prompt, which did not fit
    left_out: int = 0  # too long even so, without a word of the assistant, or equal as tokens


def encode_pairs(
    pairs: Iterable[Mapping[str, Any]], tokenizer: Tokenizer, folder: Path, sequence_length: int
) -> PairCounts:
    """Write pairs {"prompt", "chosen", "rejected", "margin"?, "tie"?, "tools"?} into `folder`.

    A prompt that is too long with either reply loses its oldest turns for both. Raises DataError when no
    pair remains.
    """
    counts = PairCounts()
    preferred: list[float] = []
    margins: list[float] = []
    with ShardWriter(folder / SHARDS, tokenizer.vocab_size) as writer:
        for pair in pairs:
            sides, cut = encode_pair(tokenizer, pair, sequence_length)
            if sides is None:
                counts.left_out += 1
                continue
            for side in sides:
                writer.add(side.ids, mask=side.assistant_mask, source=pair.get("source", ""))
            tie = bool(pair.get("tie"))
            counts.pairs, counts.ties, counts.cut = counts.pairs + 1, counts.ties + tie, counts.cut + cut
            preferred.append(0.5 if tie else 1.0)
            margins.append(pair.get("margin") or 0.0)
        if not counts.pairs:
            raise DataError(
                f"no pair to learn from ({counts.left_out} too long or without a reply)",
                fix=f"give pairs whose conversations fit in {sequence_length} tokens",
            )
    with replaced(folder / JUDGEMENTS) as path:
        save_file({"preferred": torch.tensor(preferred), "margin": torch.tensor(margins)}, path)
    if counts.cut or counts.left_out:
        say(f"notice: {counts.cut} pairs cut to the last turns of their prompt, {counts.left_out} left out")
    return counts


def encode_pair(
    tokenizer: Tokenizer, pair: Mapping[str, Any], limit: int
) -> tuple[tuple[ChatTokens, ChatTokens] | None, bool]:
    """((chosen, rejected) of at most `limit` tokens, whether turns were cut); None where it cannot fit."""
    prompt, tools = pair["prompt"], pair.get("tools")
    opening, later = turn_starts(prompt)

    @functools.cache
    def encode(first: int) -> tuple[ChatTokens, ChatTokens]:
        kept = [*prompt[:opening], *prompt[first:]]
        chosen, rejected = encode_replies(tokenizer, kept, (pair["chosen"], pair["rejected"]), tools)
        return chosen, rejected

    def fits(first: int) -> bool:
        return max(len(side.ids) for side in encode(first)) <= limit

    starts = [opening, *later]
    # Length falls with every turn that goes: the first start that fits is found by halving.
    place = 0 if fits(opening) else bisect.bisect_left(starts, True, key=fits)
    if place == len(starts):
        return None, False
    chosen, rejected = encode(starts[place])
    useful = any(chosen.assistant_mask) and any(rejected.assistant_mask) and chosen.ids != rejected.ids
    return ((chosen, rejected) if useful else None), bool(place)


def fitting(
    pairs: Iterable[Mapping[str, Any]], tokenizer: Tokenizer, sequence_length: int
) -> list[Mapping[str, Any]]:
    """Those pairs that `encode_pairs` would keep: of held-out ones there may be none."""
    return [pair for pair in pairs if encode_pair(tokenizer, pair, sequence_length)[0] is not None]
