"""Which of several values of one field holds for the document, and why.

A model that can read both places decides, by the number of a value: it cannot bring a value of its own. Where
there is none, it fails or it cannot tell, rules do, in this order:

1. a value whose quote stands in the document, before one whose quote does not;
2. a value whose passage says that it amends or corrects another; of several the last one;
3. the value that more parts state;
4. the value that is clearly surer;
5. the one that stands first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from glasshouse.core.errors import GlasshouseError
from glasshouse.documents.asking import SETTINGS, all_of
from glasshouse.documents.confidence import raw
from glasshouse.documents.merging import Candidate, Dispute
from glasshouse.documents.question import room_for_reply
from glasshouse.documents.result import Contradiction, QuoteCheck
from glasshouse.files.document import Document
from glasshouse.llm.interface import LLM
from glasshouse.llm.prices import prompt_bound
from glasshouse.llm.prompts.template import Template
from glasshouse.llm.structured import structured

CAPABLE = 4096
"""Tokens of context from which a model is taken to read two passages and judge: an assumption. The small
models that this package grows hold less, and were never shown such a question."""

CLEARLY = 0.15
"""Difference of two confidences that decides: an assumption."""

AROUND = 300
"""Characters on either side of a quote in which an amendment is looked for, and which a model is shown."""

_AMENDS = re.compile(
    r"\b(?:as amended|hereby amended"
    r"|(?:is|are|was|were) (?:amended|replaced|superseded|corrected|restated|revised)"
    r"|amend(?:s|ed|ment|ing)?\b.{0,80}\bto read|amends and restates|in (?:lieu|place) of|instead of"
    r"|erratum|corrigendum|correction to|supersedes|replaces)\b",
    re.IGNORECASE | re.DOTALL,
)


async def resolve(
    llm: LLM | None, template: Template, document: Document, disputes: Sequence[Dispute]
) -> list[Contradiction]:
    """Settles every dispute, and tells how. `llm`: None leaves all of them to the rules."""
    able = llm is not None and (llm.context is None or llm.context >= CAPABLE)
    decided = await all_of(
        [_asked(llm, template, document, dispute) if able and llm else _none() for dispute in disputes]
    )
    found = []
    for dispute, decision in zip(disputes, decided, strict=True):
        chosen, why = decision or by_rules(document, dispute.candidates)
        dispute.settle(chosen)
        ordered = [dispute.candidates[chosen], *_without(dispute.candidates, chosen)]
        found.append(
            Contradiction(
                path=dispute.path,
                values=tuple(candidate.field.value for candidate in ordered),
                quotes=tuple(_quote(candidate) for candidate in ordered),
                resolution=why,
            )
        )
    return found


def by_rules(document: Document, candidates: Sequence[Candidate]) -> tuple[int, str]:
    """(which of them, one sentence that says by which rule)"""
    left = list(range(len(candidates)))
    standing = [number for number in left if candidates[number].quote is not None]
    if len(standing) == 1:
        return standing[0], "Only this value's quote stands in the document."
    left = standing or left
    amending = [number for number in left if _amends(document, candidates[number])]
    if amending:
        last = max(amending, key=lambda number: _start(candidates[number]))
        return last, "Its passage says that it amends or corrects what was said before."
    counts = [len(candidates[number].parts) for number in left]
    if counts.count(max(counts)) == 1:
        most = left[counts.index(max(counts))]
        return most, f"{max(counts)} parts of the document state it, and no other value as many."
    left = [number for number in left if len(candidates[number].parts) == max(counts)]
    sure = sorted(((raw(candidates[number].field) or 0.0, -number) for number in left), reverse=True)
    if sure[0][0] - sure[1][0] >= CLEARLY:
        return -sure[0][1], f"It is surer: {sure[0][0]:.2f} against {sure[1][0]:.2f}."
    first = min(left, key=lambda number: _start(candidates[number]))
    return first, "Nothing else decides, and it stands first in the document."


async def _none() -> None:
    return None


async def _asked(
    llm: LLM, template: Template, document: Document, dispute: Dispute
) -> tuple[int, str] | None:
    """None where the model cannot tell."""
    field = json.dumps({dispute.path: dispute.schema}, ensure_ascii=False)
    shown = [
        f"{number}: {json.dumps(candidate.field.value, ensure_ascii=False)}\n{_passage(document, candidate)}"
        for number, candidate in enumerate(dispute.candidates, 1)
    ]
    numbers = [str(number) for number in range(1, len(shown) + 1)]
    schema = {
        "type": "object",
        "properties": {"reason": {"type": "string"}, "choice": {"enum": [*numbers, "unclear"]}},
        "required": ["reason", "choice"],
        "additionalProperties": False,
    }
    request = template.render({"field": field, "candidates": shown})
    room = room_for_reply(template, llm)
    if llm.context is not None and prompt_bound(request) + 2 * room > llm.context:
        return None
    try:
        reply = await structured(llm, request.model_copy(update={"max_new_tokens": room}), schema)
    except SETTINGS:
        raise
    except GlasshouseError:
        return None
    if reply.value["choice"] == "unclear":
        return None
    return int(reply.value["choice"]) - 1, reply.value["reason"].strip() or "The model chose it."


def _passage(document: Document, candidate: Candidate) -> str:
    quote = candidate.quote
    if quote is None or quote.start is None or quote.end is None:
        return "(no words of the document say so)"
    text = document.text[max(quote.start - AROUND, 0) : quote.end + AROUND]
    place = "" if quote.page is None else f"page {quote.page}: "
    return f"{place}{' '.join(text.split())}"


def _amends(document: Document, candidate: Candidate) -> bool:
    """Whether the paragraph around the quote speaks of an amendment."""
    quote = candidate.quote
    if quote is None or quote.start is None or quote.end is None:
        return False
    before = document.text[max(quote.start - AROUND, 0) : quote.start].rpartition("\n\n")[2]
    after = document.text[quote.end : quote.end + AROUND].partition("\n\n")[0]
    return bool(_AMENDS.search(before + document.text[quote.start : quote.end] + after))


def _start(candidate: Candidate) -> int:
    quote = candidate.quote
    return -1 if quote is None or quote.start is None else quote.start


def _quote(candidate: Candidate) -> QuoteCheck:
    fallback = candidate.field.quotes[0] if candidate.field.quotes else QuoteCheck(asked="", status="missing")
    return candidate.quote or fallback


def _without(candidates: Sequence[Candidate], chosen: int) -> list[Candidate]:
    return [candidate for number, candidate in enumerate(candidates) if number != chosen]
