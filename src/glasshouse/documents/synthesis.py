"""One result of the results of a long document's parts: a tree of calls, each of which joins as many as fit.

What goes up the tree are results with quotes by number. Only quotes that stand in the document have one,
and a reply can only name numbers, so that whatever is written on the way, every quote of the whole is one
that was looked up. Where no model can join (its context is too small, it fails), joining.py does it by rules.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from glasshouse.core.errors import GlasshouseError
from glasshouse.documents.answers import Answer, answers
from glasshouse.documents.asking import SETTINGS, Sure, all_of, sure_of
from glasshouse.documents.joining import disagreements, join
from glasshouse.documents.question import Question, room_for_reply
from glasshouse.documents.reply_schema import Schema, choices, closed_object
from glasshouse.documents.result import Contradiction, QuoteCheck
from glasshouse.documents.room import BYTES_PER_TOKEN
from glasshouse.documents.signals import signals
from glasshouse.documents.values.equality import same
from glasshouse.documents.values.leaves import without_indices
from glasshouse.llm.interface import LLM, Completion, Request
from glasshouse.llm.prices import prompt_bound
from glasshouse.llm.prompts.template import Template
from glasshouse.llm.structured import structured

MOST = 12
"""Results that one call joins at most: of more, some are overlooked (an assumption)."""

TOKENS = 12_000
"""Of a prompt that joins, where the context would hold more: an assumption."""


@dataclass(frozen=True)
class PartResult:
    """What one part gave: its reply with quotes in it as the model wrote them, and where those stand."""

    where: str  # "pages 3 to 5", "characters 0 to 5,000"
    weight: float  # how much text it is
    value: dict[str, Any]
    answers: tuple[Sure, ...]
    quotes: Mapping[str, QuoteCheck]  # by the model's words


@dataclass(frozen=True)
class Synthesis:
    """`value`: of the task, its quotes as the document has them, "" where there is none."""

    value: dict[str, Any]
    answers: tuple[tuple[Sure, tuple[QuoteCheck, ...]], ...]
    themes: tuple[str, ...] = ()
    contradictions: tuple[Contradiction, ...] = ()
    calls: int = 0  # that joined
    by_rules: tuple[str, ...] = ()  # why rules joined some: one sentence for each


@dataclass(frozen=True)
class _Node:
    """A result on its way up. Its quotes are numbers, "" for none."""

    where: str
    weight: float
    value: dict[str, Any]
    sure: Mapping[tuple[str, str], float | None]  # (path without indices, value as JSON) -> probability
    themes: tuple[str, ...] = ()


@dataclass
class _Tree:
    llm: LLM | None
    template: Template
    question: Question
    quotes: dict[str, QuoteCheck] = field(default_factory=dict)  # "q1" -> ...
    contradictions: dict[frozenset[str], Contradiction] = field(default_factory=dict)
    calls: int = 0
    by_rules: list[str] = field(default_factory=list)


async def synthesise(
    llm: LLM | None, template: Template, question: Question, results: Sequence[PartResult]
) -> Synthesis:
    """The whole of two results or more. `llm`: None joins by rules alone."""
    tree = _Tree(llm, template, question)
    leaves = nodes = [_leaf(tree, result) for result in results]
    while len(nodes) > 1:
        groups = await _groups(tree, nodes)
        nodes = await all_of([_join(tree, group) for group in groups])
    if tree.calls == 0:  # a model that joins names contradictions itself
        _disagree(tree, leaves, nodes[0])
    return _whole(tree, nodes[0], results)


def _leaf(tree: _Tree, result: PartResult) -> _Node:
    numbers: dict[str, str] = {}
    for words, quote in result.quotes.items():
        if quote.status != "missing":
            known = next(
                (n for n, q in tree.quotes.items() if (q.start, q.end) == (quote.start, quote.end)), None
            )
            numbers[words] = known or f"q{len(tree.quotes) + 1}"
            tree.quotes.setdefault(numbers[words], quote)
    sure = {_key(each.answer): each.token_probability for each in result.answers}
    value = with_quotes(result.value, lambda words: numbers.get(words, ""))
    return _Node(result.where, result.weight, value, sure)


def with_quotes(value: Any, change: Callable[[str], str]) -> Any:
    """A reply with each of its quotes changed."""
    if isinstance(value, dict):
        return {
            key: change(inner or "") if key == "quote" else with_quotes(inner, change)
            for key, inner in value.items()
        }
    return [with_quotes(inner, change) for inner in value] if isinstance(value, list) else value


def _key(answer: Answer) -> tuple[str, str]:
    return without_indices(answer.path), json.dumps(answer.value, ensure_ascii=False)


async def _groups(tree: _Tree, nodes: Sequence[_Node]) -> list[list[_Node]]:
    """Neighbours that one call can join; at least two in each but the last."""
    groups: list[list[_Node]] = [[]]
    for node in nodes:
        last = groups[-1]
        if len(last) >= 2 and (len(last) == MOST or not await _fits(tree, [*last, node])):
            groups.append([])
        groups[-1].append(node)
    return groups


async def _fits(tree: _Tree, group: Sequence[_Node]) -> bool:
    if tree.llm is None:
        return True
    request, schema, room = _request(tree, tree.llm, group)
    if tree.llm.can.any_schema and tree.llm.can.counts_tokens:
        tokens, more = await tree.llm.count_tokens(request), room
    else:  # a schema counts as well, and a reply that is asked anew stands in the prompt
        written = prompt_bound(request) + len(json.dumps(schema))
        tokens, more = math.ceil(written / BYTES_PER_TOKEN), 2 * room
    most = TOKENS if tree.llm.context is None else min(tree.llm.context - more, TOKENS)
    return tokens <= most


def _request(tree: _Tree, llm: LLM, group: Sequence[_Node]) -> tuple[Request, Schema, int]:
    numbers = _numbers(tree, group)
    result = tree.question.reply_schema(numbers or [""])  # an enumeration of nothing is no schema
    definitions = result.pop("$defs", {})
    text = {"type": "string"}
    number = {"enum": numbers or [""]}
    contradiction = closed_object({"about": text, "first": number, "second": number, "resolution": text})
    properties: Schema = {
        "themes": {"type": "array", "items": text},
        "contradictions": {"type": "array", "items": contradiction},
    }
    schema = {**closed_object({**properties, "result": result}), "$defs": definitions}
    parts = [
        json.dumps(
            {"where": node.where, "result": node.value, **({"themes": node.themes} if node.themes else {})},
            ensure_ascii=False,
        )
        for node in group
    ]
    inputs: dict[str, Any] = {
        "parts": parts,
        "quotes": [f"{number}: {' '.join((tree.quotes[number].text or '').split())}" for number in numbers],
        "task": tree.question.task,
        "labels": list(tree.question.labels),
        "instructions": tree.question.instructions,
    }
    declared = tree.template.header.inputs
    request = tree.template.render({name: value for name, value in inputs.items() if name in declared})
    room = room_for_reply(tree.template, llm)
    changes: dict[str, Any] = {"max_new_tokens": room, "temperature": 0.0, "output_schema": None}
    if llm.can.logprobs:
        changes["logprobs"] = 0
    return request.model_copy(update=changes), schema, room


def _numbers(tree: _Tree, group: Sequence[_Node]) -> list[str]:
    """Of the quotes in these results, in the order of the document."""
    named: set[str] = set()

    def name(number: str) -> str:
        named.add(number)
        return number

    for node in group:
        with_quotes(node.value, name)
    return [number for number in tree.quotes if number in named]


async def _join(tree: _Tree, group: Sequence[_Node]) -> _Node:
    if len(group) == 1:
        return group[0]
    if tree.llm is None:
        return _joined(tree, group, "no model was given for it")
    if not await _fits(tree, group):
        return _joined(tree, group, "two results and the prompt do not fit in the model's context")
    request, schema, _ = _request(tree, tree.llm, group)
    try:
        reply = await structured(tree.llm, request, schema)
    except SETTINGS:
        raise
    except GlasshouseError as error:
        return _joined(tree, group, str(error))
    tree.calls += 1
    for told in reply.value["contradictions"]:
        _contradict(tree, told)
    value = reply.value["result"]
    sure = _sure(value, reply.value, reply.completion, choices(schema))
    themes = tuple(dict.fromkeys(theme.strip() for theme in reply.value["themes"] if theme.strip()))
    return _Node(_range(group), sum(node.weight for node in group), value, sure, themes)


def _sure(
    value: dict[str, Any], whole: dict[str, Any], completion: Completion, closed: frozenset[str]
) -> dict[tuple[str, str], float | None]:
    known = signals(completion, whole)
    return {
        _key(answer): sure_of(answer, f"result.{answer.path}", known, completion, closed).token_probability
        for answer in answers(value)
    }


def _contradict(tree: _Tree, told: Mapping[str, str]) -> None:
    """One contradiction of a reply; a quote cannot contradict itself, and a pair is told once."""
    pair = frozenset((told["first"], told["second"]))
    if len(pair) == 2 and pair not in tree.contradictions:
        quotes = (tree.quotes[told["first"]], tree.quotes[told["second"]])
        tree.contradictions[pair] = Contradiction(
            path=told["about"],
            values=tuple(quote.text for quote in quotes),
            quotes=quotes,
            resolution=told["resolution"],
        )


def _disagree(tree: _Tree, leaves: Sequence[_Node], root: _Node) -> None:
    """Contradictions between parts that rules have joined."""
    values, weights = [leaf.value for leaf in leaves], [leaf.weight for leaf in leaves]
    for found in disagreements(tree.question.task, values, weights, root.value):
        tree.contradictions[frozenset((found.path,))] = Contradiction(
            path=found.path,
            values=found.values,
            quotes=tuple(tree.quotes[number] for number in found.quotes),
            resolution=found.why,
        )


def _joined(tree: _Tree, group: Sequence[_Node], why: str) -> _Node:
    tree.by_rules.append(why)
    weights = [node.weight for node in group]
    value = join(tree.question.task, [node.value for node in group], weights)
    sure: dict[tuple[str, str], float | None] = {}
    for node in reversed(group):  # of equal answers the first counts
        sure |= node.sure
    themes = tuple(dict.fromkeys(theme for node in group for theme in node.themes))
    return _Node(_range(group), sum(weights), value, sure, themes)


def _range(group: Sequence[_Node]) -> str:
    return f"{group[0].where} up to {group[-1].where}"


def _whole(tree: _Tree, root: _Node, results: Sequence[PartResult]) -> Synthesis:
    closed = choices(tree.question.reply_schema(None))
    found = []
    for answer in answers(root.value):
        share = _share(answer, results) if answer.path in closed else None
        quote = tree.quotes.get(answer.quote or "")
        sure = Sure(answer, root.sure.get(_key(answer)), share)
        found.append((sure, () if quote is None else (quote,)))

    def words(number: str) -> str:
        quote = tree.quotes.get(number)
        return "" if quote is None else quote.text or ""

    return Synthesis(
        with_quotes(root.value, words),
        tuple(found),
        root.themes,
        tuple(tree.contradictions.values()),
        tree.calls,
        tuple(dict.fromkeys(tree.by_rules)),
    )


def _share(answer: Answer, results: Sequence[PartResult]) -> float:
    """Of the parts that choose the same."""
    return sum(same(result.value.get(answer.path), answer.value) for result in results) / len(results)
