"""From a type to an object: what is asked for, what is read, what is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Literal

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from glasshouse.core.errors import ConfigError, UsageError
from glasshouse.llm import Completion, Usage
from glasshouse.llm.errors import InvalidOutputError, ServerFaultError
from glasshouse.llm.formats import Email, Money
from glasshouse.llm.interface import Capabilities
from glasshouse.llm.output_schema import NotStrictError, Shape, for_provider
from glasshouse.llm.structured import (
    CutOutputError,
    RefusedOutputError,
    find_json,
    structured,
    structured_blocking,
)

WORDS = Capabilities(output_schema=False)


class Item(BaseModel):
    name: str = Field(min_length=2)
    price: Money
    note: str | None = None
    pieces: int = Field(1, ge=1)


class Bill(BaseModel):
    issued: date
    mail: Email
    kind: Literal["bill", "credit"]
    items: list[Item] = Field(min_length=1)


class Node(BaseModel):
    name: str
    children: list[Node] = []


GOOD = {
    "issued": "2026-03-01",
    "mail": "a@Example.com",
    "kind": "bill",
    "items": [{"name": "tea", "price": "EUR 2.50", "note": None, "pieces": None}],
}


def run(llm, request, kind=None, tries=3):
    return asyncio.run(structured(llm, request, kind, tries))


def test_native_schema_goes_with_the_request_and_nulls_for_absent_things_come_back(scripted, ask):
    llm = scripted([json.dumps(GOOD)])
    got = run(llm, ask(), Bill)
    assert isinstance(got.value, Bill)
    assert got.value.items[0].pieces == 1  # null stood for "absent"
    assert got.value.mail == "a@example.com"
    assert (got.native, got.tries, got.problems, got.cut_away) == (True, 1, (), ())
    assert "minLength" in got.checked_here
    sent = llm.asked[0]
    assert sent.messages == ask().messages
    assert sent.output_schema["required"] == ["issued", "mail", "kind", "items"]


def test_blocking_twin(scripted, ask):
    assert structured_blocking(scripted(['{"value": [1, 2]}']), ask(), list[int]).value == [1, 2]


def test_elsewhere_the_schema_stands_in_words_and_json_is_found_among_prose(scripted, ask):
    good = {**GOOD, "items": [{"name": "tea", "price": "EUR 2.50"}]}
    bad = "Here it is:\n```json\n" + json.dumps(GOOD | {"items": []}) + "\n```\nEnjoy!"
    llm = scripted([bad, "Sorry. " + json.dumps(good)], can=WORDS)
    got = run(llm, ask("The bill?", seed=5), Bill)
    assert got.value.items[0].price == Money.parse("EUR 2.50")
    assert got.cut_away == ("Sorry.",)
    assert not got.native
    assert "cannot keep" in got.why_not_native
    assert got.tries == 2
    assert "items" in got.problems[0]
    first, second = llm.asked
    assert first.output_schema is None
    assert first.messages[-1]["content"].startswith("The bill?\n\n")
    assert json.dumps(Bill.model_json_schema()) in first.messages[-1]["content"]
    assert (first.seed, second.seed) == (5, 6)
    assert [message["role"] for message in second.messages] == ["user", "assistant", "user"]
    assert got.problems[0] in second.messages[-1]["content"]


def test_prose_around_json_is_an_error_where_the_backend_was_given_the_schema(scripted, ask):
    llm = scripted(['Sure: {"value": 3}', '{"value": 3}'])
    got = run(llm, ask(), int)
    assert (got.value, got.tries) == (3, 2)
    assert "not JSON" in got.problems[0]


def test_a_refusal_is_told_as_one_and_not_asked_again(scripted, ask):
    refusal = Completion("", "refusal", Usage(9, 1), refusal="I will not.", cost=0.25)
    llm = scripted([refusal])
    with pytest.raises(RefusedOutputError, match="refused to reply: I will not") as caught:
        run(llm, ask(), Bill)
    assert len(llm.asked) == 1
    assert (caught.value.usage, caught.value.cost) == (Usage(9, 1), 0.25)
    assert isinstance(caught.value, InvalidOutputError)


def test_a_cut_reply_is_told_as_one(scripted, ask):
    llm = scripted([Completion('{"issued": "20', "length", Usage(9, 32))])
    with pytest.raises(CutOutputError, match=r"cut after 32 tokens.*max_new_tokens above 32"):
        run(llm, ask(max_new_tokens=32), Bill)
    assert len(llm.asked) == 1


def test_after_the_last_try_the_error_has_everything(scripted, ask):
    llm = scripted([Completion("no", "stop", Usage(2, 3), cost=0.5)])
    with pytest.raises(InvalidOutputError, match="in 2 tries; the last one: it is not JSON") as caught:
        run(llm, ask(), Bill, tries=2)
    assert (caught.value.usage, caught.value.cost, caught.value.text) == (Usage(4, 6), 1.0, "no")
    assert not caught.value.retryable


def test_unknown_cost_stays_unknown_and_known_ones_add_up(scripted, ask):
    replies = [Completion("no", "stop", Usage(2, 3), cost=0.5), Completion('{"value": 1}', "stop", cost=None)]
    assert run(scripted(replies), ask(), int).cost is None
    replies = [Completion("no", "stop", Usage(2, 3), cost=0.5), Completion('{"value": 1}', "stop", cost=0.5)]
    got = run(scripted(replies), ask(), int)
    assert (got.cost, got.usage) == (1.0, Usage(2, 3))


def test_what_the_model_raises_goes_through(scripted, ask):
    with pytest.raises(ServerFaultError):
        run(scripted([ServerFaultError("down")]), ask(), int)


def test_wrong_use_is_told_before_any_call(scripted, ask):
    llm = scripted()
    with pytest.raises(UsageError, match="nothing says"):
        run(llm, ask())
    with pytest.raises(UsageError, match="one try"):
        run(llm, ask(), int, tries=0)
    with pytest.raises(UsageError, match="tools"):
        run(llm, ask(tools=[{"type": "function"}]), int)
    with pytest.raises(ConfigError, match="not a JSON Schema"):
        run(llm, ask(), {"type": "nonsense"})
    with pytest.raises(ConfigError, match="another one"):
        run(llm, ask(output_schema={"type": "string"}), int)
    with pytest.raises(ConfigError, match="not a JSON Schema"):  # and the network is not asked for it
        run(llm, ask(), {"$ref": "http://127.0.0.1:9/schema.json"})
    assert llm.asked == []


def test_the_requests_own_schema_is_enough(scripted, ask):
    schema = {"type": "object", "properties": {"tel": {"type": "string", "format": "phone-DE"}}}
    llm = scripted(['{"tel": "030 901820"}'])
    assert run(llm, ask(output_schema=schema)).value == {"tel": "+4930901820"}
    llm = scripted(['{"tel": "drei"}', '{"tel": null}'])
    got = run(llm, ask(output_schema=schema))
    assert got.value == {}
    assert "as one dials it in DE" in got.problems[0]


def test_a_schema_that_strict_mode_cannot_say_is_asked_for_in_words(scripted, ask):
    llm = scripted(['{"a": 1, "b": 2}'])
    got = run(llm, ask(), dict[str, int])
    assert got.value == {"a": 1, "b": 2}
    assert not got.native
    assert "any keys" in got.why_not_native


def test_types_other_than_models(scripted, ask):
    @dataclass
    class Point:
        x: int
        y: int = 0

    assert run(scripted(['{"x": 1, "y": null}']), ask(), Point).value == Point(1, 0)
    assert run(scripted(['{"value": "b"}']), ask(), Literal["a", "b"]).value == "b"
    small = Annotated[int, Field(lt=5)]
    got = run(scripted(['{"value": 7}', '{"value": 4}']), ask(), small)
    assert (got.value, got.tries) == (4, 2)


def test_pydantics_leniency_does_not_pass_for_a_right_reply(scripted, ask):
    got = run(scripted(['{"value": "3"}', '{"value": 3}']), ask(), int)
    assert (got.value, got.tries) == (3, 2)


def test_a_model_that_contains_itself(scripted, ask):
    reply = {"name": "a", "children": [{"name": "b", "children": None}]}
    got = run(scripted([json.dumps(reply)]), ask(), Node)
    assert got.native
    assert got.value == Node(name="a", children=[Node(name="b")])


def objects(schema):
    """Every object schema in a schema."""
    if isinstance(schema, list):
        for inner in schema:
            yield from objects(inner)
    if isinstance(schema, dict):
        if "properties" in schema and isinstance(schema["properties"], dict) and "type" in schema:
            yield schema
        for inner in schema.values():
            yield from objects(inner)


@pytest.mark.parametrize("kind", [Bill, Node, list[Item], Item | Node, Bill | None])
def test_strict_mode_has_every_object_closed_and_every_property_required(kind):
    schema, _, _ = for_provider(Shape.of(kind).schema)
    jsonschema_rs.meta.validate(schema)
    assert schema["type"] == "object"
    found = list(objects(schema))
    assert found
    for each in found:
        assert each["additionalProperties"] is False
        assert each["required"] == list(each["properties"])
    text = json.dumps(schema)
    for keyword in ("default", "minLength", "uniqueItems", "oneOf", '"format": "money"'):
        assert keyword not in text.replace("(minLength: 2)", "")


def test_strict_mode_follows_openais_own_helper_on_plain_models():
    from openai.lib._pydantic import to_strict_json_schema

    class Step(BaseModel):
        explanation: str
        output: str

    class Reply(BaseModel):
        steps: list[Step]
        answer: float
        done: bool

    assert for_provider(Reply.model_json_schema())[0] == to_strict_json_schema(Reply)


@pytest.mark.parametrize("kind", [Bill, Node, list[Item], Item | Node, Bill | None])
def test_anthropics_own_helper_takes_what_strict_mode_has(kind):
    from anthropic import transform_schema

    assert transform_schema(for_provider(Shape.of(kind).schema)[0])
    several = {"type": "object", "properties": {"a": {"type": ["string", "integer", "null"]}}}
    assert transform_schema(for_provider(several)[0])


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "array"},
        {"type": "object"},
        {"type": "object", "properties": {"a": {}}},
        {"type": "object", "properties": {"a": {"type": "object", "additionalProperties": True}}},
        {"type": "object", "properties": {"a": {"type": "array", "prefixItems": [{"type": "string"}]}}},
        {"type": "object", "properties": {"again": {"$ref": "#"}}},
        {"allOf": [{"type": "object"}, {"type": "object"}]},
    ],
)
def test_what_strict_mode_cannot_say(schema):
    with pytest.raises(NotStrictError):
        for_provider(schema)


leaves = st.sampled_from(
    [
        ({"type": "string"}, st.text(max_size=5)),
        ({"type": "integer", "minimum": 0}, st.integers(0, 9)),
        ({"type": "boolean"}, st.booleans()),
        ({"type": ["string", "null"]}, st.none() | st.text(max_size=3)),
        ({"enum": ["a", "b"]}, st.sampled_from(["a", "b"])),
    ]
)


def nested(inner):
    """Schemas of arrays, objects and unions of inner ones, each with a strategy of values that follow it."""

    def an_object(parts):
        properties = {f"p{i}": schema for i, ((schema, _), _) in enumerate(parts)}
        required = [f"p{i}" for i, (_, needed) in enumerate(parts) if needed]
        values = st.fixed_dictionaries(
            {f"p{i}": values for i, ((_, values), needed) in enumerate(parts) if needed},
            optional={f"p{i}": values for i, ((_, values), needed) in enumerate(parts) if not needed},
        )
        return (
            {"type": "object", "properties": properties, "required": required, "additionalProperties": False},
            values,
        )

    arrays = inner.map(lambda one: ({"type": "array", "items": one[0]}, st.lists(one[1], max_size=3)))
    unions = st.tuples(inner, inner).map(
        lambda two: ({"anyOf": [two[0][0], two[1][0]]}, two[0][1] | two[1][1])
    )
    return arrays | unions | st.lists(st.tuples(inner, st.booleans()), min_size=1, max_size=3).map(an_object)


def as_provider_writes(value, schema):
    """The value with null for each absent property, as strict mode makes a model write it."""
    if isinstance(value, list) and "items" in schema:
        return [as_provider_writes(inner, schema["items"]) for inner in value]
    if isinstance(value, dict) and "properties" in schema:
        return {
            key: as_provider_writes(value[key], inner) if key in value else None
            for key, inner in schema["properties"].items()
        }
    if "anyOf" in schema:
        for branch in schema["anyOf"]:
            if jsonschema_rs.validator_for(branch).is_valid(value):
                return as_provider_writes(value, branch)
    return value


@given(st.data(), st.recursive(leaves, nested, max_leaves=6))
def test_a_value_survives_the_way_through_strict_mode(data, kind):
    schema, values = kind
    value = data.draw(values)
    strict, _, wrapped = for_provider(schema)
    written = as_provider_writes(value, schema)
    written = {"value": written} if wrapped else written
    assert jsonschema_rs.validator_for(strict).is_valid(written)
    back = Shape.of(schema).from_provider(written, wrapped)
    assert jsonschema_rs.validator_for(schema).is_valid(back)
    # where branches overlap, or null is allowed beside absence, another reading may be as right
    if "anyOf" not in json.dumps(schema) and "null" not in json.dumps(schema):
        assert back == value


FITS = {"type": "object", "required": ["a"]}


@pytest.mark.parametrize(
    ("text", "value", "around"),
    [
        ('{"a": 1}', {"a": 1}, ()),
        ('  {"a": 1}\n', {"a": 1}, ()),
        ('```json\n{"a": 1}\n```', {"a": 1}, ("```json", "```")),
        ('See [1].\n{"a": 1} and so on', {"a": 1}, ("See [1].", "and so on")),
        ('{"b": 2} or rather {"a": 1}', {"a": 1}, ('{"b": 2} or rather',)),
        ('<think>{"a": 0}?</think>{"a": 1}', {"a": 1}, ('<think>{"a": 0}?</think>',)),
        ('{"a": "}"} {', {"a": "}"}, ("{",)),
        ('{"a": 1}\n\nAgain: {"a": 1}', {"a": 1}, ('Again: {"a": 1}',)),
    ],
)
def test_json_is_found_and_what_is_around_it_is_told(text, value, around):
    found, told = find_json(text, jsonschema_rs.validator_for(FITS).is_valid)
    assert found == value
    if "```" not in text:
        assert told == around


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty"),
        ("I cannot.", "not JSON"),
        ('{"a": 1', "not JSON"),
        ("{'a': 1}", "not JSON"),
        ('{"a": 1,}', "not JSON"),
        ('{"a": NaN}', "NaN"),
        ('{"a": 1, "a": 2}', "twice"),
        ('{"a": 1} or {"a": 2}', "2 different"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_nothing_is_mended(text, problem):
    with pytest.raises(ValueError, match=problem):
        find_json(text, jsonschema_rs.validator_for(FITS).is_valid)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), json_values), st.text("abc .,\n"), st.text("abc .,\n"))
def test_any_object_is_found_among_prose(value, before, after):
    found, _ = find_json(before + json.dumps(value) + after, lambda found: isinstance(found, dict))
    assert found == value


@given(st.text())
def test_no_text_makes_the_search_fail_otherwise(text):
    with contextlib.suppress(ValueError):
        find_json(text, lambda value: True)


def test_numbers_that_json_lacks_are_refused():
    with pytest.raises(ValueError, match="Infinity"):
        find_json(json.dumps({"a": math.inf}), lambda value: True)
