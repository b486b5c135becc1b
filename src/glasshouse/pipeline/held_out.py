"""What of the user's own conversations and documents is kept from fine-tuning, and how a model does on it.

Which rows these are follows from their content alone: the same for every seed and order of the files,
equal rows on one side, and nearly the same when rows are added.

    sft/held_out.jsonl      the rows, as they were read
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glasshouse.alignment.sft import encode_within
from glasshouse.core.seeds import python_rng
from glasshouse.core.storage import hash_json

if TYPE_CHECKING:
    from glasshouse.evaluation import Estimate
    from glasshouse.inference import LanguageModel

HELD_OUT = "held_out.jsonl"

FEW = 10
"""Rows below which none can be spared whole."""

STRETCH = 8000
"""Characters of a stretch of own text: bits per byte of many stretches give an interval, of one book none."""

SAMPLES = 4
"""Held-out conversations whose last reply the report shows."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class HeldOut:
    """Held-out rows, and the longest stretch of them in tokens that is read at once, as in training."""

    rows: list[Row]
    sequence_length: int


def split(rows: Callable[[], Iterable[Row]], fraction: float) -> Iterator[tuple[str, Row]]:
    """Each row with "train" or "held out"; `rows()` begins the stream anew, which is read twice.

    Of ten rows or more `fraction` of the different ones is held out, at least one. Of fewer, `fraction` of
    every document's characters, at its end, and no conversation.
    """
    if not fraction:
        yield from (("train", row) for row in rows())
        return
    known = sorted({_fingerprint(row) for row in rows()})
    last = known[max(1, round(fraction * len(known))) - 1] if len(known) >= FEW else None
    for row in rows():
        if last is not None:
            yield ("held out" if _fingerprint(row) <= last else "train"), row
            continue
        text = row.get("text", "") if "messages" not in row else ""
        cut = int(len(text) * (1 - fraction))
        if text[:cut].strip() and text[cut:].strip():
            yield "train", {**row, "text": text[:cut]}
            yield "held out", {**row, "text": text[cut:]}
        else:
            yield "train", row


def _fingerprint(row: Row) -> str:
    return hash_json([row["messages"], row.get("tools")] if "messages" in row else row["text"])


def of_run(run: Path, sequence_length: int) -> HeldOut | None:
    """What a run held out of its fine-tuning; None where that is nothing."""
    path = run / "sft" / HELD_OUT
    if not path.is_file():
        return None
    with open(path, encoding="utf-8", newline="\n") as file:
        rows = [json.loads(line) for line in file]
    return HeldOut(rows, sequence_length) if rows else None


def bits_per_byte(model: LanguageModel, held_out: HeldOut, limit: int) -> Estimate | None:
    """Bits that the model needs for what it should learn of the rows, over the UTF-8 bytes of it.

    Of a document that is every token up to the closing boundary, of a conversation the assistant's, given
    what precedes. About `limit` bytes are read, drawn evenly from all. None where no row can be scored.
    """
    from glasshouse.evaluation.intervals import ratio

    window = min(held_out.sequence_length, model.context - 1)
    prompts, pieces, counted, owners, sizes = [], [], [], [], []
    for row in _drawn(held_out.rows, limit):
        for ids, mask, size in _encoded(model, row, window):
            for at in range(1, len(ids), window):
                prompts.append(ids[at - 1 : at])
                pieces.append(ids[at : at + window])
                counted.append(mask[at : at + window])
                owners.append(len(sizes))
            sizes.append(size)
    if not sizes:
        return None
    bits = [0.0] * len(sizes)
    for owner, mask, logprobs in zip(owners, counted, model.score_batch(prompts, pieces), strict=True):
        bits[owner] -= sum(x for x, learnt in zip(logprobs.tolist(), mask, strict=True) if learnt)
    return ratio([nats / math.log(2) for nats in bits], sizes)


def _encoded(model: LanguageModel, row: Row, window: int) -> Iterator[tuple[list[int], list[bool], int]]:
    """(ids, which of them count, bytes of these) of a conversation, in one window, or of a document."""
    tokenizer = model.tokenizer
    if "messages" not in row:
        text = row["text"]
        ids = [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]
        yield ids, [True] * len(ids), len(text.encode("utf-8"))
        return
    encoded, _ = encode_within(tokenizer, row["messages"], row.get("tools"), window + 1)
    if encoded is not None:
        words = [i for i, written in zip(encoded.ids, encoded.assistant_mask, strict=True) if written]
        if size := len(tokenizer.decode_bytes(words, skip_special=True)):
            yield encoded.ids, encoded.assistant_mask, size


def ids_by_source(model: LanguageModel, held_out: HeldOut, limit: int) -> dict[str, Iterable[list[int]]]:
    """The rows' token ids by what they were read from, of at most `limit` sources, the largest first."""
    window = min(held_out.sequence_length, model.context - 1)
    sources: dict[str, list[Row]] = {}
    for row in held_out.rows:
        sources.setdefault(row.get("source", ""), []).append(row)

    def encoded(rows: list[Row]) -> Iterator[list[int]]:
        return (ids for row in rows for ids, _, _ in _encoded(model, row, window))

    largest = sorted(sources, key=lambda source: (-len(sources[source]), source))
    return {source: encoded(sources[source]) for source in largest[:limit]}


def _drawn(rows: list[Row], limit: int) -> list[Row]:
    """About `limit` bytes of the rows; a long document counts as several."""
    pieces: list[Row] = []
    for row in rows:
        pieces += [row] if "messages" in row else [{"text": text} for text in stretches(row["text"])]
    total = sum(len(json.dumps(piece, ensure_ascii=False).encode("utf-8")) for piece in pieces)
    rng = python_rng(0, "held-out rows")  # the same rows for every seed, so that runs compare
    return [piece for piece in pieces if rng.random() * total < limit] or pieces[:1]


def exchanges(model: LanguageModel, rows: list[Row], reply_tokens: int) -> list[dict[str, Any]]:
    """The last exchange of some held-out conversations, to be answered; `good` is what was really said."""
    found: list[dict[str, Any]] = []
    for row in rows:
        *before, last = row.get("messages") or [{}]
        asked = bool(before) and before[-1]["role"] == "user" and last["role"] == "assistant"
        plain = all(isinstance(message.get("content"), str) for message in (*before, last))
        again = any(before == sample["prompt"] for sample in found)
        if not asked or not plain or again or row.get("tools"):
            continue
        ids = model.tokenizer.encode_chat(before, add_generation_prompt=True).ids
        if len(ids) + reply_tokens <= model.context:
            name = f"held-out conversation {len(found) + 1}"
            found.append({"name": name, "prompt": before, "good": last["content"]})
        if len(found) == SAMPLES:
            break
    return found


def stretches(text: str) -> Iterator[str]:
    """A text in pieces of about STRETCH characters, cut at white space."""
    start = 0
    while start < len(text):
        end = start + STRETCH
        if end < len(text):
            end = max(text.rfind(" ", start, end), text.rfind("\n", start, end)) + 1 or end
        yield text[start:end]
        start = end
