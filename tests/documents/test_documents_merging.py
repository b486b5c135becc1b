"""Extraction of long documents: what parts agree on, what they dispute, and who is right."""

import json

import pytest

from glasshouse.documents.analyzer import Analyzer
from glasshouse.documents.election import elect, elect_whole
from glasshouse.documents.merging import PartFields, merge
from glasshouse.documents.reply_schema import plain_schema
from glasshouse.documents.resolution import by_rules
from glasshouse.documents.result import FieldResult, QuoteCheck

TERM = {"type": "object", "properties": {"term": {"type": "string"}, "fee": {"type": "number"}}}
PEOPLE = {
    "type": "object",
    "properties": {
        "parties": {"type": "array", "items": {"type": "string"}},
        "people": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "age": {"type": "number"}},
            },
        },
    },
}


def said(path, value, start=0, **more):
    quotes = (
        ()
        if value is None
        else (QuoteCheck(asked="q", status="verbatim", start=start, end=start + 1, text="q"),)
    )
    match = None if value is None else 1.0
    return FieldResult(path=path, value=value, quotes=quotes, quote_match=match, **more)


def part(index, value, **signals):
    """A part whose fields all have their quote at 100 times its number."""

    def walk(inner, path):
        if isinstance(inner, dict):
            for key, each in inner.items():
                yield from walk(each, f"{path}.{key}" if path else key)
        elif isinstance(inner, list):
            for place, each in enumerate(inner):
                yield from walk(each, f"{path}[{place}]")
        else:
            yield path, said(path, inner, 100 * index, **signals)

    return PartFields(index, value, dict(walk(value, "")))


def test_what_is_not_mentioned_says_nothing_against_what_is():
    parts = [part(0, {"term": None, "fee": None}), part(1, {"term": "two years", "fee": None})]
    merged = merge(plain_schema(TERM), parts)
    assert merged.value == {"term": "two years", "fee": None}
    assert merged.disputes == []
    assert [quote.start for quote in merged.fields["term"].quotes] == [100]


def test_equal_values_agree_however_they_are_spelled_and_keep_all_quotes():
    values = [{"term": "Two years.", "fee": 1200}, {"term": "two  years", "fee": 1200.0}]
    merged = merge(plain_schema(TERM), [part(n, value) for n, value in enumerate(values)])
    assert merged.disputes == []
    assert [quote.start for quote in merged.fields["term"].quotes] == [0, 100]
    assert merged.value["fee"] == 1200


def test_not_mentioned_by_any_part_is_as_sure_as_all_of_them_together():
    parts = [part(n, {"term": None, "fee": None}, token_probability=0.9, vote_share=1.0) for n in range(3)]
    merged = merge(plain_schema(TERM), parts)
    assert merged.fields["fee"].token_probability == pytest.approx(0.9**3)
    assert merged.fields["fee"].vote_share == 1.0


def test_different_values_are_a_dispute_in_the_order_of_the_schema():
    parts = [part(0, {"term": "one year", "fee": 5}), part(1, {"term": "two years", "fee": 5})]
    merged = merge(plain_schema(TERM), parts)
    (dispute,) = merged.disputes
    assert [candidate.field.value for candidate in dispute.candidates] == ["one year", "two years"]
    dispute.settle(1)
    assert merged.value == {"term": "two years", "fee": 5}
    assert merged.fields["term"].value == "two years"
    assert merged.fields["term"].vote_share == 0.5
    assert list(merged.fields) == ["term", "fee"]


def test_lists_are_joined_and_each_thing_is_in_them_once():
    first = {
        "parties": ["Acme Corp.", "Bolt"],
        "people": [{"name": "Ann", "age": None}, {"name": "Bo", "age": 5}],
    }
    second = {
        "parties": ["acme corp", "Cask"],
        "people": [{"name": "Ann", "age": 40}, {"name": "Bo", "age": 6}],
    }
    merged = merge(plain_schema(PEOPLE), [part(0, first), part(1, second)])
    assert merged.value["parties"] == ["Acme Corp.", "Bolt", "Cask"]
    assert merged.value["people"] == [
        {"name": "Ann", "age": 40},
        {"name": "Bo", "age": 5},
        {"name": "Bo", "age": 6},
    ]
    assert merged.disputes == []
    assert set(merged.fields) == {
        *(f"parties[{n}]" for n in range(3)),
        *(f"people[{n}].{name}" for n in range(3) for name in ("name", "age")),
    }


# --- who is right ------------------------------------------------------------------------------------------

RULES = {
    "amendment": (
        [
            "The term is one year.",
            "Section 4 is amended to read: the term is two years.",
            "The term is one year.",
        ],
        "two years",
        "amends or corrects",
    ),
    "the last amendment": (
        [
            "The term is one year.",
            "The term, as amended, is two years.",
            "By the second letter the term is hereby amended: the term is three years.",
        ],
        "three years",
        "amends or corrects",
    ),
    "majority": (
        [
            "For all of us here the term is one year.",
            "For all of them there the term is two years.",
            "As has been said, the term of it is two years.",
        ],
        "two years",
        "2 parts",
    ),
    "position": (
        ["For all that is said here, the term is one year.", "For all the others, the term is two years."],
        "one year",
        "first",
    ),
}


def finds_term(shown):
    """A model that reads "the term is ..." off its part."""

    def reply(request):
        for sentence in shown(request).splitlines():
            for years in ("one year", "two years", "three years"):
                if years in sentence:
                    return json.dumps({"term": {"quote": sentence, "value": years}})
        return json.dumps({"term": {"quote": None, "value": None}})

    return reply


@pytest.mark.parametrize("rule", RULES)
def test_rules_resolve_and_both_quotes_stay_visible(scripted, document, shown, rule):
    sentences, right, why = RULES[rule]
    schema = {"type": "object", "properties": {"term": {"type": "string"}}}
    llm = scripted([finds_term(shown)])
    text = document(*sentences)
    result = Analyzer(Small(llm), chunk_tokens=14).analyze(text, "extraction", schema=schema)
    assert result.value == {"term": right}
    (contradiction,) = result.contradictions
    assert contradiction.path == "term"
    assert contradiction.values[0] == right
    assert why in contradiction.resolution
    assert len(contradiction.values) == len(contradiction.quotes) == len(set(contradiction.values))
    for value, quote in zip(contradiction.values, contradiction.quotes, strict=True):
        assert value in text.text[quote.start : quote.end]
        assert quote.page is not None
    assert result.fields[0].value == right


class Small:
    """A model whose context is too small to be asked which value holds."""

    def __init__(self, inner):
        self.inner = inner

    context = 4000

    def __getattr__(self, name):
        return getattr(self.inner, name)


def test_a_model_that_can_read_both_places_decides_by_number(scripted, document, shown):
    sentences = [
        "The term of everything else is one year.",
        "The term of the lease of the boat is two years.",
    ]
    schema = {
        "type": "object",
        "properties": {"term": {"type": "string", "description": "Of the boat's lease."}},
    }
    read = finds_term(shown)
    seen = []

    def reply(request):
        if request.labels["prompt"] != "resolution":
            return read(request)
        seen.append(request)
        return json.dumps({"reason": "Only the second speaks of the boat.", "choice": "2"})

    text = document(*sentences)
    result = Analyzer(scripted([reply]), chunk_tokens=14).analyze(text, "extraction", schema=schema)
    assert result.value == {"term": "two years"}
    assert result.contradictions[0].resolution == "Only the second speaks of the boat."
    assert result.contradictions[0].values == ("two years", "one year")
    prompt = seen[0].messages[-1]["content"]
    assert "page 1: The term of everything else is one year." in prompt
    assert "lease of the boat is two years" in prompt
    assert "Of the boat's lease." in seen[0].messages[0]["content"]


@pytest.mark.parametrize(
    "said", ['{"reason": "", "choice": "unclear"}', "no json", '{"reason": "x", "choice": "7"}']
)
def test_where_it_cannot_tell_the_rules_do(scripted, document, shown, said):
    sentences, right, why = RULES["majority"]
    read = finds_term(shown)
    llm = scripted([lambda request: said if request.labels["prompt"] == "resolution" else read(request)])
    schema = {"type": "object", "properties": {"term": {"type": "string"}}}
    result = Analyzer(llm, chunk_tokens=14).analyze(document(*sentences), "extraction", schema=schema)
    assert result.value == {"term": right}
    assert why in result.contradictions[0].resolution


def test_a_value_without_a_quote_gives_way_and_so_does_a_less_sure_one(document):
    text = document("It costs five.", "It costs six.")
    schema = plain_schema({"type": "object", "properties": {"fee": {"type": "number"}}})
    bare = PartFields(0, {"fee": 5}, {"fee": FieldResult(path="fee", value=5, quote_match=0.0)})
    (dispute,) = merge(schema, [bare, part(1, {"fee": 6})]).disputes
    assert by_rules(text, dispute.candidates) == (1, "Only this value's quote stands in the document.")
    unsure = part(0, {"fee": 5}, token_probability=0.3)
    (dispute,) = merge(schema, [unsure, part(1, {"fee": 6}, token_probability=0.9)]).disputes
    chosen, why = by_rules(text, dispute.candidates)
    assert (chosen, "surer" in why) == (1, True)


# --- samples -----------------------------------------------------------------------------------------------


def pair(value, quote="q"):
    return {"quote": None if value is None else quote, "value": value}


def test_an_election_tells_from_which_reply_each_value_is():
    schema = plain_schema({"type": "object", "properties": {**TERM["properties"], **PEOPLE["properties"]}})
    ann, bo = {"name": pair("Ann"), "age": pair(40)}, {"name": pair("Bo"), "age": pair(None)}
    replies = [
        {"term": pair("a"), "fee": pair(None), "parties": [pair("x"), pair("y")], "people": [bo]},
        {"term": pair("b"), "fee": pair(7), "parties": [pair("z"), pair("X")], "people": [ann, bo]},
        {"term": pair("b"), "fee": pair(7), "parties": [pair("x")], "people": [ann, bo]},
    ]
    elected = elect(schema, replies)
    assert elected.reply["term"] == pair("b")
    assert elected.reply["fee"] == pair(7)
    assert elected.reply["parties"] == [pair("x")]
    assert elected.reply["people"] == [ann, bo]
    assert elected.origins["term"] == (1, "term")
    assert elected.origins["parties[0]"] == (0, "parties[0]")
    assert elected.origins["people[0].name"] == (1, "people[0].name")


def test_equally_many_votes_go_to_the_first_and_evidence_counts():
    schema = plain_schema({"type": "object", "properties": {"fee": {"type": "number"}}})
    replies = [{"fee": pair(5)}, {"fee": pair(6)}]
    assert elect(schema, replies).reply == {"fee": pair(5)}
    bare = {"fee": {"quote": None, "value": 5}}
    assert elect(schema, [bare, {"fee": pair(5, "five")}]).origins == {"fee": (1, "fee")}


def test_a_text_is_chosen_whole_by_its_choices_and_then_its_quotes():
    def reply(primary, *quotes):
        features = [{"quote": quote, "feature": f"f{n}"} for n, quote in enumerate(quotes)]
        return {"features": features, "primary": primary, "secondary": [], "uncertainty": []}

    closed = frozenset({"primary", "secondary[]"})
    replies = [reply("a", "1"), reply("b", "2"), reply("b", "3"), reply("b", "2", "4")]
    elected = elect_whole(closed, replies)
    assert elected.reply["primary"] == "b"
    assert elected.reply is replies[1]
