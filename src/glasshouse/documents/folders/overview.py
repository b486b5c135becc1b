"""The results of many documents on one HTML page that holds all it needs and loads nothing.

The documents are strangers': the page's data is JSON that its script puts in as text, and no other script
runs (a Content-Security-Policy with the script's hash).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from statistics import fmean
from typing import Any

from glasshouse.core.errors import DataError
from glasshouse.core.storage import write_text
from glasshouse.documents.folders.results_file import read_results, work_folder
from glasshouse.documents.folders.texts import TEXTS, Texts
from glasshouse.documents.result import QuoteCheck, Result
from glasshouse.llm.monitoring import show

CONTEXT = 160
"""Characters shown before a quote and behind it."""

COLUMNS = 24
"""Fields in the table of values; the rest stands with each document."""

BINS = 10
REASONS = 20

_INDEX = re.compile(r"\[\d+\]")


def write_overview(results: str | Path, out: str | Path | None = None) -> Path:
    """The page of a results.jsonl, by default beside it. Raises DataError where that holds no result."""
    results = Path(results)
    path = results.with_suffix(".html") if out is None else Path(out)
    write_text(path, overview(read_results(results), results.name, _texts(results)))
    return path


def overview(
    results: Iterable[Result], source: str, text: Callable[[str], str | None] = lambda sha256: None
) -> str:
    """The page. `text`: of a document by the SHA-256 of its text, where it is at hand, for the context of
    quotes. Raises DataError where there is no result."""
    from jinja2 import Environment, StrictUndefined

    everything = sorted(results, key=lambda result: result.document)
    if not everything:
        raise DataError("no result stands in this file", where=source, fix="let the analysis go on")
    script = _file("overview.js.jinja")
    data = _data(everything, text)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    first = everything[0]
    many = len(everything) > 1
    return environment.from_string(_file("overview.html.jinja")).render(
        title=f"{len(everything):,} documents: {first.task}" if many else f"{first.document}: {first.task}",
        source=source,
        facts=_facts(everything),
        head=_head(everything),
        uncalibrated=_uncalibrated(everything),
        bins=_bins(everything),
        failures=_reasons((r.document, _reason(r.error)) for r in everything if not r.success),
        notices=_notices(everything),
        data=data,
        json=_json(data),
        css=_file("overview.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _file(name: str) -> str:
    return (resources.files("glasshouse.documents.folders") / name).read_text(encoding="utf-8")


def _texts(results: Path) -> Callable[[str], str | None]:
    file = work_folder(results) / TEXTS
    return Texts(file).get if file.is_file() else lambda sha256: None


def _json(data: Any) -> str:
    """For a script element: nothing in it can end the element, or begin a comment."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _facts(results: list[Result]) -> str:
    def named(label: str, values: Iterable[str]) -> str:
        there = sorted({value for value in values if value})
        return f"{label} {', '.join(there[:4])}" if there else ""

    facts = [
        named("model", (result.model for result in results)),
        named("domain", (result.domain for result in results)),
        named("prompt", (result.prompt for result in results)),
    ]
    return "; ".join(fact for fact in facts if fact)


def _head(results: list[Result]) -> list[tuple[str, str]]:
    good = [result for result in results if result.success]
    quotes = Counter(quote.status for r in good for field in r.fields for quote in field.quotes)
    costs = [result.cost for result in results if result.cost is not None]
    sure = [result.confidence for result in good if result.confidence is not None]
    tokens = sum(result.prompt_tokens + result.new_tokens for result in results)
    without = len(results) - len(costs)
    unpriced = f", {without:,} documents without" if costs and without else ""
    failed_checks = sum(not check.passed for result in good for check in result.checks)
    return [
        (f"{len(good):,}", "documents analyzed"),
        (f"{len(results) - len(good):,}", "failed"),
        (f"{sum(len(result.review) for result in good):,}", "fields to be looked at"),
        (f"{fmean(sure):.2f}" if sure else show.NOTHING, "mean confidence of a document"),
        (f"{quotes['verbatim']:,}", "quotes, verbatim"),
        (
            f"{quotes['near']:,} · {sum(result.quotes_dropped for result in good):,}",
            "quotes not verbatim · dropped",
        ),
        (f"{sum(len(result.contradictions) for result in good):,}", "contradictions"),
        (f"{failed_checks:,}", "failed checks"),
        (show.dollars(sum(costs) if costs else None), f"cost{unpriced}"),
        (show.count(tokens), "tokens, cached ones left out"),
        (show.seconds(fmean(result.seconds for result in results)), "a document, on average"),
    ]


def _uncalibrated(results: list[Result]) -> str | None:
    fields = [field for result in results for field in result.fields if field.confidence is not None]
    raw = sum(not field.calibrated for field in fields)
    if not raw:
        return None
    which = "The confidences are" if raw == len(fields) else f"{raw:,} of {len(fields):,} confidences are"
    return (
        f"{which} uncalibrated: they order fields from less to more sure, but 0.9 does not mean nine right "
        "out of ten. Judge some with: glasshouse documents correct; then: glasshouse documents calibrate"
    )


def _bins(results: list[Result]) -> list[dict[str, Any]]:
    counts = [0] * BINS
    for result in results:
        for field in result.fields:
            if field.confidence is not None:
                counts[min(int(field.confidence * BINS), BINS - 1)] += 1
    if not any(counts):
        return []
    most = max(counts)
    return [
        {"low": at / BINS, "high": (at + 1) / BINS, "count": count, "share": round(85 * count / most, 1)}
        for at, count in enumerate(counts)
    ]


def _reason(error: str | None) -> str:
    """Without what differs from document to document: the place in brackets, and the fix behind it."""
    text = error or "failed"
    return text.partition(" (")[0].partition(". Fix: ")[0]


def _reasons(found: Iterable[tuple[str, str]]) -> list[tuple[str, int, str]]:
    """(reason, documents, one of them), the most frequent first."""
    counts: Counter[str] = Counter()
    example: dict[str, str] = {}
    for document, reason in found:
        counts[reason] += 1
        example.setdefault(reason, document)
    shown = [(reason, count, example[reason]) for reason, count in counts.most_common(REASONS)]
    rest = sum(counts.values()) - sum(count for _, count, _ in shown)
    return [*shown, ("other reasons", rest, "")] if rest else shown


def _notices(results: list[Result]) -> list[tuple[str, int, str]]:
    example: dict[str, str] = {}
    for result in results:
        for notice in result.notices:
            example.setdefault(notice.kind, f"{result.document}: {notice.what}")
    counts = _reasons((r.document, kind) for r in results for kind in {n.kind for n in r.notices})
    return [(kind, count, example.get(kind, "")) for kind, count, _ in counts]


def _data(results: list[Result], text: Callable[[str], str | None]) -> dict[str, Any]:
    """What the page's script shows."""
    documents = [_document(result, text) for result in results]
    review = [
        {
            "at": at,
            "path": field.path,
            "value": _plain(field.value),
            "confidence": field.confidence,
            "quote": next((quote.text or quote.asked for quote in field.quotes), None),
        }
        for at, result in enumerate(results)
        for field in result.fields
        if field.path in set(result.review)
    ]
    review.sort(key=lambda row: -1.0 if row["confidence"] is None else row["confidence"])
    counts = Counter(name for document in documents for name in document["cells"])
    columns = []
    for name, _ in counts.most_common(COLUMNS):
        values = [document["cells"][name][0] for document in documents if name in document["cells"]]
        numbers = all(isinstance(v, (int, float)) for v in values if v is not None)
        columns.append((name, "number" if numbers and any(v is not None for v in values) else ""))
    return {"documents": documents, "review": review, "columns": columns}


def _document(result: Result, text: Callable[[str], str | None]) -> dict[str, Any]:
    there = any(field.quotes for field in result.fields) or bool(result.contradictions)
    whole = text(result.sha256) if result.sha256 and there else None
    return {
        "name": result.document,
        "success": result.success,
        "error": result.error,
        "confidence": result.confidence,
        "review": list(result.review),
        "dropped": result.quotes_dropped,
        "notices": [{"kind": notice.kind, "what": notice.what} for notice in result.notices],
        "themes": list(result.themes),
        "fields": [
            {
                "path": field.path,
                "value": _plain(field.value),
                "confidence": field.confidence,
                "calibrated": field.calibrated,
                "quotes": [_quote(quote, whole) for quote in field.quotes],
            }
            for field in result.fields
        ],
        "contradictions": [
            {
                "path": found.path,
                "values": [_plain(value) for value in found.values],
                "resolution": found.resolution,
                "quotes": [_quote(quote, whole) for quote in found.quotes],
            }
            for found in result.contradictions
        ],
        "checks": [{"check": c.check, "what": c.what, "passed": c.passed} for c in result.checks],
        "cells": _cells(result),
        "foot": _foot(result),
    }


def _quote(quote: QuoteCheck, whole: str | None) -> dict[str, Any]:
    shown = {
        "asked": quote.asked,
        "status": quote.status,
        "page": quote.page,
        "text": quote.text,
        "difference": quote.difference,
        "times": quote.times,
    }
    if whole is not None and quote.start is not None and quote.end is not None:
        before, after = max(quote.start - CONTEXT, 0), min(quote.end + CONTEXT, len(whole))
        shown["before"] = ("… " if before else "") + whole[before : quote.start]
        shown["after"] = whole[quote.end : after] + (" …" if after < len(whole) else "")
    return {name: value for name, value in shown.items() if value is not None}


def _cells(result: Result) -> dict[str, tuple[Any, int]]:
    """Of the table of values: name of the field -> (value, whether it is to be looked at).

    The items of a list share a cell.
    """
    lists: dict[str, list[Any]] = {}
    low: dict[str, int] = {}
    review = set(result.review)
    for field in result.fields:
        name = _INDEX.sub("[]", field.path)
        lists.setdefault(name, []).append(_plain(field.value))
        low[name] = low.get(name, 0) or int(field.path in review)
    cells: dict[str, tuple[Any, int]] = {}
    for name, values in lists.items():
        one = values[0] if len(values) == 1 else "; ".join(_shown(v) for v in values if v is not None)
        cells[name] = one, low[name]
    return cells


def _plain(value: Any) -> Any:
    """JSON without numbers that JSON has not."""
    return json.loads(json.dumps(value, default=str), parse_constant=str)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _foot(result: Result) -> str:
    facts = [
        f"{result.chunks:,} parts" if result.chunks > 1 else "",
        show.seconds(result.seconds),
        f"{show.count(result.prompt_tokens)} + {show.count(result.new_tokens)} tokens",
        show.dollars(result.cost) if result.cost is not None else "",
        f"{result.quotes_dropped:,} quotes dropped" if result.quotes_dropped else "",
        result.prompt,
        f"SHA-256 {result.file_sha256[:12]}" if result.file_sha256 else "",
    ]
    return " · ".join(fact for fact in facts if fact)
