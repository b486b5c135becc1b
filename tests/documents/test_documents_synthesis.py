"""Long documents: a tree of calls, quotes by number, and rules where no model can join."""

import json
import re

import pytest

from glasshouse.documents.analyzer import Analyzer
from glasshouse.documents.joining import disagreements, feeling, join, plurality
from glasshouse.documents.synthesis import MOST
from glasshouse.llm.errors import ServerFaultError
from glasshouse.llm.interface import Capabilities

SENTENCES = [f"In the year {1700 + n} the harbour of Ost counted {n} ships." for n in range(30)]


def summary_of(text):
    findings = [{"quote": line, "finding": f"It says: {line}"} for line in text.splitlines() if line][:2]
    return {"topic": "Ships.", "findings": findings, "conclusions": []}


def joins(request, themes=("ships",), contradictions=()):
    """A model that keeps the first two quotes it is given."""
    numbers = re.findall(r"^(q\d+): ", request.messages[1]["content"], re.MULTILINE)
    findings = [{"quote": number, "finding": f"Joined {number}."} for number in numbers[:2]]
    result = {"topic": "All ships.", "findings": findings, "conclusions": ["Ships come."]}
    return json.dumps({"themes": list(themes), "contradictions": list(contradictions), "result": result})


def summarises(shown, join=joins):
    def reply(request):
        if request.labels["prompt"] == "synthesis":
            return join(request)
        return json.dumps(summary_of(shown(request)))

    return reply


def test_a_tree_joins_all_parts_and_only_numbers_go_up(scripted, document, shown):
    llm = scripted([summarises(shown)])
    text = document(*SENTENCES)
    result = Analyzer(llm, chunk_tokens=16).analyze(text, "summary")
    assert result.success
    assert result.chunks == 30
    calls = [request for request in llm.asked if request.labels["prompt"] == "synthesis"]
    assert len(calls) == 3 + 1  # 12, 12 and 6 parts, and the three of them
    assert MOST == 12
    assert calls[0].messages[-1]["content"].count("<part>") == 12
    assert result.themes == ("ships",)
    assert result.value["topic"] == "All ships."
    assert [finding["quote"] for finding in result.value["findings"]] == SENTENCES[:2]
    for field in result.fields:
        for quote in field.quotes:
            assert (quote.status, text.text[quote.start : quote.end]) == ("verbatim", quote.text)
    assert [field.quotes[0].page for field in result.fields if field.quotes] == [1, 2]
    assert re.fullmatch(r"summary@1 \w{8} \+ synthesis@1 \w{8}", result.prompt)
    assert "joined_by_rules" not in {notice.kind for notice in result.notices}


def test_the_same_replies_give_the_same_result(scripted, document, shown):
    def once():
        result = Analyzer(scripted([summarises(shown)]), chunk_tokens=16).analyze(
            document(*SENTENCES), "summary"
        )
        return result.model_dump(exclude={"seconds", "chunk_results"})

    assert once() == once()


def test_a_quote_that_is_no_number_is_refused_and_rules_join(scripted, document, shown):
    """A synthesis cannot bring words of its own as a quote: its reply is asked anew, and then left."""

    def invents(request):
        reply = json.loads(joins(request))
        reply["result"]["findings"][0]["quote"] = "Ships came from the moon."
        return json.dumps(reply)

    llm = scripted([summarises(shown, invents)])
    text = document(*SENTENCES[:4])
    result = Analyzer(llm, chunk_tokens=16).analyze(text, "summary")
    assert result.success
    assert any(notice.kind == "joined_by_rules" for notice in result.notices)
    assert "moon" not in result.model_dump_json(include={"value", "fields"})
    assert [finding["quote"] for finding in result.value["findings"]] == SENTENCES[:4]
    assert all(quote.status == "verbatim" for field in result.fields for quote in field.quotes)


def test_only_quotes_that_stand_in_the_document_have_a_number(scripted, document, shown):
    def lies(request):
        found = summary_of(shown(request))
        if SENTENCES[1] in shown(request):
            found["findings"][0]["quote"] = "Elephants danced upon the roofs of Ost."
        return json.dumps(found)

    seen = []

    def reply(request):
        if request.labels["prompt"] != "synthesis":
            return lies(request)
        seen.append(request.messages[-1]["content"])
        return joins(request)

    result = Analyzer(scripted([reply]), chunk_tokens=16).analyze(document(*SENTENCES[:3]), "summary")
    assert result.quotes_dropped == 1
    assert "Elephants" not in seen[0]
    assert re.findall(r"^(q\d+): (.*)$", seen[0], re.MULTILINE) == [
        ("q1", SENTENCES[0]),
        ("q2", SENTENCES[2]),
    ]


def test_contradictions_come_with_two_quotes_of_the_document(scripted, document, shown):
    told = [
        {"about": "ships", "first": "q2", "second": "q1", "resolution": "The later year holds."},
        {"about": "nothing", "first": "q1", "second": "q1", "resolution": "A quote against itself."},
    ]
    llm = scripted([summarises(shown, lambda request: joins(request, contradictions=told))])
    text = document(*SENTENCES[:3])
    (found,) = Analyzer(llm, chunk_tokens=16).analyze(text, "summary").contradictions
    assert (found.path, found.resolution) == ("ships", "The later year holds.")
    assert found.values == (SENTENCES[1], SENTENCES[0])
    for quote, value in zip(found.quotes, found.values, strict=True):
        assert text.text[quote.start : quote.end] == value


def test_a_call_that_fails_loses_nothing(scripted, document, shown):
    llm = scripted([summarises(shown, lambda request: ServerFaultError("it burns"))])
    result = Analyzer(llm, chunk_tokens=16).analyze(document(*SENTENCES[:3]), "summary")
    assert result.success
    assert [finding["quote"] for finding in result.value["findings"]] == SENTENCES[:3]
    assert any(notice.kind == "joined_by_rules" and "it burns" in notice.what for notice in result.notices)
    assert "synthesis" not in result.prompt


def test_no_call_is_larger_than_the_context(scripted, document, shown):
    """Results that are long leave room for few in a call; the tree gets deeper."""

    def reply(request):
        if request.labels["prompt"] == "synthesis":
            return joins(request)
        found = summary_of(shown(request))
        found["conclusions"] = [f"word{n} " * 30 for n in range(6)]
        return json.dumps(found)

    llm = scripted([reply], context=6000, can=Capabilities(counts_tokens=False))
    result = Analyzer(llm, chunk_tokens=16).analyze(document(*SENTENCES[:12]), "summary")
    assert result.success
    calls = [request for request in llm.asked if request.labels["prompt"] == "synthesis"]
    sizes = [sum(len(message["content"].encode()) for message in call.messages) for call in calls]
    assert len(calls) > 2
    for call, size in zip(calls, sizes, strict=True):
        assert size / 3 + call.max_new_tokens <= 6000


# --- by rules ----------------------------------------------------------------------------------------------


def classified(primary, *quotes, secondary=()):
    features = [{"quote": quote, "feature": f"like {primary} {n}"} for n, quote in enumerate(quotes)]
    return {
        "features": features,
        "primary": primary,
        "secondary": list(secondary),
        "uncertainty": [f"no {primary}"],
    }


def test_the_class_of_most_of_the_text_is_the_whole_documents():
    values = [classified("a", "q1"), classified("b", "q2", "", "q3"), classified("a")]
    joined = join("classification", values, [1, 5, 2])
    assert joined["primary"] == "b"
    assert joined["secondary"] == ["a"]
    assert [feature["quote"] for feature in joined["features"]] == ["q2", "q3", ""]
    assert joined["uncertainty"] == ["no a", "no b"]
    assert plurality(["x", "y"], [1, 1]) == "x"


@pytest.mark.parametrize(
    ("said", "weights", "right"),
    [
        (["neutral", "neutral"], [1, 1], "neutral"),
        (["positive", "neutral"], [1, 9], "positive"),
        (["positive", "negative"], [1, 1], "mixed"),
        (["positive", "negative"], [9, 1], "positive"),
        (["mixed", "mixed", "negative"], [1, 1, 1], "mixed"),
    ],
)
def test_good_and_bad_side_by_side_are_mixed(said, weights, right):
    assert feeling(said, weights) == right


def test_rules_take_in_turn_and_nothing_twice():
    def aspect(name, sentiment, quote):
        return {"quote": quote, "aspect": name, "sentiment": sentiment}

    one = {"aspects": [aspect("Price", "positive", ""), aspect("port", "neutral", "q1")], "emotions": ["joy"]}
    two = {"aspects": [aspect("price", "negative", "q2")], "emotions": ["joy", "fear"]}
    values = [{**one, "overall": "positive"}, {**two, "overall": "negative"}]
    joined = join("sentiment", values, [1, 1])
    assert joined["aspects"] == [aspect("Price", "mixed", "q2"), aspect("port", "neutral", "q1")]
    assert joined["emotions"] == ["joy", "fear"]
    assert joined["overall"] == "mixed"
    reasons = [
        {
            "claims": [
                {"quote": f"q{n}{k}", "claim": f"c{k if k else n}", "support": "weak"} for k in range(3)
            ],
            "logical_flow": f"Flow {n}.",
            "gaps": ["gap", f"gap {n}"],
            "evidence_quality": "low",
            "strength": "weak",
            "overall": "Thin.",
        }
        for n in range(2)
    ]
    joined = join("reasoning", reasons, [1, 1])
    assert [claim["claim"] for claim in joined["claims"]] == ["c0", "c1", "c2"]
    assert (joined["logical_flow"], joined["overall"]) == ("Flow 0. Flow 1.", "Thin.")
    assert joined["gaps"] == ["gap", "gap 0", "gap 1"]


def test_rules_name_what_parts_disagree_about_with_a_quote_of_each(scripted, document, shown):
    def reply(request):
        if request.labels["prompt"] == "synthesis":
            return "no json"
        quote = shown(request)
        return json.dumps(classified("b" if "1702" in quote else "a", quote))

    text = document(*SENTENCES[:4])
    result = Analyzer(scripted([reply]), chunk_tokens=16).analyze(
        text, "classification", schema={"enum": ["a", "b"]}
    )
    assert result.value is not None
    assert result.value["primary"] == "a"
    (found,) = result.contradictions
    assert (found.path, found.values) == ("primary", ("a", "b"))
    assert [quote.text for quote in found.quotes] == [SENTENCES[0], SENTENCES[2]]
    assert "75% of the text" in found.resolution
    assert {field.path: field.vote_share for field in result.fields}["primary"] == 0.75


def test_rules_name_feelings_that_differ_about_one_thing():
    def aspect(sentiment, quote):
        return {"quote": quote, "aspect": "Price", "sentiment": sentiment}

    values = [{"aspects": [aspect("negative", "q1")]}, {"aspects": [aspect("positive", "q2")]}]
    joined = {"aspects": [aspect("mixed", "q1")]}
    (found,) = disagreements("sentiment", values, [1, 1], joined)
    assert (found.path, found.values, found.quotes) == (
        "aspects[0].sentiment",
        ("negative", "positive"),
        ("q1", "q2"),
    )
    assert "mixed" in found.why
    assert disagreements("sentiment", values[:1], [1], joined) == []


@pytest.mark.parametrize("task", ["reasoning", "classification", "sentiment", "summary"])
def test_every_task_is_joined_by_rules_into_its_own_type(scripted, document, shown, task):
    """Where no model can: its context is too small for the prompt that joins."""
    from glasshouse.documents.reply_schema import KINDS

    replies = {
        "reasoning": lambda quote: {
            "claims": [{"quote": quote, "claim": "Ships came.", "support": "strong"}],
            "logical_flow": "Year by year.",
            "gaps": [],
            "evidence_quality": "high",
            "strength": "strong",
            "overall": "Well kept.",
        },
        "classification": lambda quote: classified("a", quote),
        "sentiment": lambda quote: {
            "aspects": [{"quote": quote, "aspect": quote[12:16], "sentiment": "positive"}],
            "emotions": [],
            "overall": "positive",
        },
        "summary": summary_of,
    }

    def reply(request):
        if request.labels["prompt"] == "synthesis":
            return "no json"
        return json.dumps(replies[task](shown(request)))

    labels = {"enum": ["a", "b"]} if task == "classification" else None
    llm = scripted([reply])
    result = Analyzer(llm, chunk_tokens=16).analyze(document(*SENTENCES[:3]), task, schema=labels)
    assert result.success
    KINDS[task].model_validate(result.value)
    assert any(notice.kind == "joined_by_rules" for notice in result.notices)
    quotes = [quote for field in result.fields for quote in field.quotes]
    assert quotes
    assert {quote.text for quote in quotes} <= set(SENTENCES)
    closed = {field.path: field.vote_share for field in result.fields if field.vote_share is not None}
    assert set(closed.values()) <= {1.0}  # all parts choose alike
