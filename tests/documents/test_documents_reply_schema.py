"""What a reply must look like: made of the user's schema, whatever it has in it."""

import pytest
from jsonschema_rs import validator_for

from glasshouse.core.errors import ConfigError
from glasshouse.documents.extraction import extracted
from glasshouse.documents.reply_schema import KINDS, choices, leaves, plain_schema, reply_schema

COMPANY = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "description": "Of the company."},
        "size": {"type": "integer", "minimum": 1},
        "kind": {"enum": ["firm", "guild"]},
        "seat": {"type": "object", "properties": {"town": {"type": "string"}}},
        "names": {"type": "array", "items": {"type": "string"}},
        "people": {
            "type": "array",
            "maxItems": 9,
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "age": {"type": "number"}},
            },
        },
    },
}


def pair(quote, value):
    return {"quote": quote, "value": value}


NOTHING = pair(None, None)
EMPTY = {
    "name": NOTHING,
    "size": NOTHING,
    "kind": NOTHING,
    "seat": {"town": NOTHING},
    "names": [],
    "people": [],
}


def test_every_leaf_becomes_a_quote_and_a_value_in_this_order():
    schema = reply_schema("extraction", schema=plain_schema(COMPANY))
    name = schema["properties"]["name"]
    assert list(name["properties"]) == ["quote", "value"]
    assert name["required"] == ["quote", "value"]
    assert name["additionalProperties"] is False
    assert name["description"] == "Of the company."
    assert schema["required"] == list(COMPANY["properties"])
    person = schema["properties"]["people"]["items"]["properties"]["age"]
    assert list(person["properties"]) == ["quote", "value"]
    assert schema["properties"]["people"]["maxItems"] == 9


@pytest.mark.parametrize(
    ("change", "right"),
    [
        ({}, True),
        ({"name": pair("q", 5)}, False),
        ({"size": pair("q", 0)}, False),
        ({"size": pair("q", 1)}, True),
        ({"kind": pair("q", "guild")}, True),
        ({"kind": pair("q", "state")}, False),
        ({"names": [pair("q", "a"), pair("q", None)]}, True),
        ({"names": ["a"]}, False),
        ({"people": [{"name": pair("q", "Ann"), "age": pair("q", 40)}]}, True),
        ({"people": [{"name": pair("q", "Ann")}]}, False),
        ({"seat": {"town": pair("q", "Ost")}}, True),
        ({"more": pair("q", "a")}, False),
    ],
)
def test_replies_that_fit_and_replies_that_do_not(change, right):
    validator = validator_for(reply_schema("extraction", schema=plain_schema(COMPANY)))
    assert validator.is_valid(EMPTY | change) is right


def test_where_quotes_are_given_nothing_else_can_be_quoted():
    schema = reply_schema("extraction", schema=plain_schema(COMPANY), quotes=["One.", "Two.", "One."])
    assert schema["$defs"]["quote"]["enum"] == ["One.", "Two.", None]
    validator = validator_for(schema)
    assert validator.is_valid(EMPTY | {"name": pair("Two.", "x")})
    assert not validator.is_valid(EMPTY | {"name": pair("Three.", "x")})
    for task in KINDS:
        made = reply_schema(task, labels=["a", "b"], quotes=["One."])
        assert made["$defs"]["quote"]["enum"] == ["One."]


def test_the_other_tasks_keep_their_types_and_labels_are_the_only_classes():
    schema = reply_schema("classification", labels=["a", "b"])
    right = {"features": [], "primary": "a", "secondary": ["b"], "uncertainty": []}
    assert validator_for(schema).is_valid(right)
    assert not validator_for(schema).is_valid(right | {"primary": "c"})
    assert not validator_for(schema).is_valid(right | {"secondary": ["c"]})
    with pytest.raises(ConfigError, match="labels"):
        reply_schema("classification")
    assert choices(schema) == {"primary", "secondary[]"}
    assert choices(reply_schema("reasoning")) == {"claims[].support", "evidence_quality", "strength"}


def test_what_pydantic_writes_is_read():
    """References, optional fields and their defaults."""
    from pydantic import BaseModel

    class Person(BaseModel):
        name: str
        age: int | None = None

    class Firm(BaseModel):
        """A firm."""

        title: str
        head: Person | None = None
        staff: list[Person] = []

    plain = plain_schema(Firm.model_json_schema())
    assert leaves(plain) == ["title", "head.name", "head.age", "staff[].name", "staff[].age"]
    assert "$defs" not in plain


@pytest.mark.parametrize(
    ("schema", "what"),
    [
        ({"type": "string"}, "object of named properties"),
        ({"type": "object", "properties": {}}, "holds nothing"),
        ({"type": "object", "properties": {"a": {}}}, "anything may stand"),
        ({"type": "object", "properties": {"a": {"type": "array"}}}, "an array of anything"),
        ({"type": "object", "properties": {"a": {"type": "object"}}}, "without properties"),
        ({"type": "object", "properties": {"a": {"type": "no type"}}}, "not a JSON Schema"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}}, "leads nowhere|not a JSON Schema"),
        (
            {
                "$defs": {"b": {"type": "object", "properties": {"b": {"$ref": "#/$defs/b"}}}},
                "type": "object",
                "properties": {"a": {"$ref": "#/$defs/b"}},
            },
            "refers to itself",
        ),
    ],
)
def test_schemas_that_cannot_be_are_told(schema, what):
    with pytest.raises(ConfigError, match=what):
        plain_schema(schema)


def test_a_reply_becomes_the_users_object_and_each_value_keeps_its_quote():
    reply = {
        "name": pair("Acme is a firm.", "Acme"),
        "size": pair("It has none.", None),
        "kind": NOTHING,
        "seat": {"town": pair("In Ost.", "Ost")},
        "names": [pair("a", "A"), NOTHING, pair("b", "B")],
        "people": [
            {"name": NOTHING, "age": NOTHING},
            {"name": pair("Ann is 40.", "Ann"), "age": pair("Ann is 40.", 40)},
        ],
    }
    value, found = extracted(plain_schema(COMPANY), reply)
    assert value == {
        "name": "Acme",
        "size": None,
        "kind": None,
        "seat": {"town": "Ost"},
        "names": ["A", "B"],
        "people": [{"name": "Ann", "age": 40}],
    }
    told = {answer.path: answer for answer in found}
    assert list(told) == [
        "name",
        "size",
        "kind",
        "seat.town",
        "names[0]",
        "names[1]",
        "people[0].name",
        "people[0].age",
    ]
    assert (told["size"].quote, told["size"].due) == (None, False)  # words beside no value prove nothing
    assert (told["names[1]"].quote, told["names[1]"].source) == ("b", "names[2]")
    assert told["people[0].age"].source == "people[1].age"
