"""What a person says about two replies, written down so that reward, dpo and sft can learn from it.

    preferences.jsonl   {"prompt", "chosen", "rejected", "tie"?, "metadata"} a line (files/preferences.py)
    sft.jsonl           {"messages", "metadata"} a line: replies as the person would have them

Every choice is appended at once, so that nothing is lost when the session ends, however it ends. `metadata`
says who chose and when, which models said what with which seeds, and which reply stood on the left.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from glasshouse.core.errors import DataError
from glasshouse.core.seeds import derive
from glasshouse.core.storage import disk_errors, hash_json
from glasshouse.files.jsonl import read_jsonl
from glasshouse.inference import LanguageModel

PREFERENCES, EDITED = "preferences.jsonl", "sft.jsonl"

TRIES = 5
"""Seeds that are tried for a second reply that differs from the first."""

Side = Literal[0, 1]
Message = dict[str, Any]


@dataclass(frozen=True)
class Rated:
    """A model and the name under which it is written down."""

    name: str
    model: LanguageModel


@dataclass(frozen=True)
class Said:
    """One reply, who made it and with which seed."""

    text: str
    model: str
    seed: int


@dataclass(frozen=True)
class Comparison:
    """Two different replies to one prompt, as they stand: left and right."""

    prompt: list[Message]
    replies: tuple[Said, Said]


def compare(
    prompt: Sequence[Message],
    first: Rated,
    second: Rated,
    *,
    temperature: float,
    max_new_tokens: int,
    seed: int,
) -> Comparison | None:
    """Two sampled replies to a prompt, one of each model, in a drawn order; None where all are the same.

    A pure function of weights and arguments: a session that is taken up again shows the same.
    Raises UsageError for a prompt that is longer than a model's context.
    """
    prompt = list(prompt)
    own = derive(seed, "rate", hash_json(prompt)) >> 31  # 32 bits: every reader of JSON keeps the number

    def reply(rated: Rated, number: int) -> Said:
        chosen = rated.model.chat(prompt, max_new_tokens, temperature=temperature, seed=own + number)
        return Said(chosen.text, rated.name, own + number)

    one = reply(first, 0)
    for number in range(1, TRIES + 1):
        other = reply(second, number)
        if other.text != one.text:
            swapped = derive(own, "order") % 2
            return Comparison(prompt, (other, one) if swapped else (one, other))
        if temperature == 0:
            break
    return None


class FeedbackFolder:
    """The two files, and which prompts they already judge.

    Raises DataError where a file is there that somebody else wrote or broke.
    """

    def __init__(self, path: str | Path, who: str) -> None:
        self.path, self.who = Path(path), who
        self._judged: set[str] = set()
        for name in (PREFERENCES, EDITED):
            _mend(self.path / name)
        if (self.path / PREFERENCES).is_file() and (self.path / PREFERENCES).stat().st_size:
            for position, row in read_jsonl(self.path / PREFERENCES):
                if "prompt" not in row:
                    raise DataError('no "prompt" in this row', where=position, fix="choose another --out")
                self._judged.add(hash_json(row["prompt"]))

    def __len__(self) -> int:
        return len(self._judged)

    def has(self, prompt: Sequence[Message]) -> bool:
        """Whether this prompt was judged, here or in an earlier session."""
        return hash_json(list(prompt)) in self._judged

    def prefer(self, comparison: Comparison, better: Side) -> None:
        self._judge(comparison, better, {})

    def tie(self, comparison: Comparison, *, both_bad: bool = False) -> None:
        """Neither is better. A loss takes a tie as a label of one half; `both_bad` is kept beside it."""
        self._judge(comparison, 0, {"tie": True}, both_bad=both_bad)

    def edit(self, comparison: Comparison, better: Side, text: str) -> None:
        """The better reply, and how it should have been: a preference and an example to learn from."""
        messages = [*comparison.prompt, {"role": "assistant", "content": text}]
        metadata = {**self._metadata(comparison), "edited_from": comparison.replies[better].text}
        _append(self.path / EDITED, {"messages": messages, "metadata": metadata})
        self.prefer(comparison, better)

    def _judge(
        self, comparison: Comparison, better: Side, judgement: Mapping[str, Any], **said: bool
    ) -> None:
        chosen, rejected = comparison.replies[better], comparison.replies[1 - better]
        row = {
            "prompt": comparison.prompt,
            "chosen": [{"role": "assistant", "content": chosen.text}],
            "rejected": [{"role": "assistant", "content": rejected.text}],
            **judgement,
            "metadata": {**self._metadata(comparison), **said},
        }
        _append(self.path / PREFERENCES, row)
        self._judged.add(hash_json(comparison.prompt))

    def _metadata(self, comparison: Comparison) -> dict[str, Any]:
        left, right = comparison.replies
        return {
            "who": self.who,
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "left": {"model": left.model, "seed": left.seed},
            "right": {"model": right.model, "seed": right.seed},
        }


def _mend(path: Path) -> None:
    """Cut off a last line that a killed session left half written."""
    data = path.read_bytes() if path.is_file() else b""
    if data and not data.endswith(b"\n"):
        with disk_errors(path):
            os.truncate(path, data.rfind(b"\n") + 1)


def _append(path: Path, row: Mapping[str, Any]) -> None:
    """One line, on the disk before this returns."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
