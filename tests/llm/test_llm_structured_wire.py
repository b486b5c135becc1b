"""Structured output over the providers' own SDKs, to a scripted server: what goes out, what comes back."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel, Field
from tests.llm.scripted_server import Reply, refused

from glasshouse.llm import blocking
from glasshouse.llm.anthropic_backend import AnthropicLLM
from glasshouse.llm.formats import Money
from glasshouse.llm.openai_backend import OpenAILLM
from glasshouse.llm.structured import CutOutputError, RefusedOutputError, structured_blocking


class Line(BaseModel):
    name: str = Field(min_length=2)
    price: Money
    note: str | None = None
    pieces: int = Field(1, ge=1)


GOOD = '{"name": "tea", "price": "EUR 2.50", "note": null, "pieces": null}'


@pytest.fixture(params=["openai", "anthropic", "compatible"])
def llm(request, wire, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", f"{wire.url}/v1")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", wire.url)
    made = {
        "openai": lambda: OpenAILLM("m", api_key="sk-test"),
        "anthropic": lambda: AnthropicLLM("m", api_key="sk-test"),
        "compatible": lambda: OpenAILLM("m", base_url=f"{wire.url}/v1", name="there"),
    }[request.param]()
    yield made
    blocking.wait(made.close())


def schema_sent(body):
    if "response_format" in body:
        assert body["response_format"]["json_schema"]["strict"] is True
        return body["response_format"]["json_schema"]["schema"]
    return body["output_config"]["format"]["schema"]


def test_the_schema_goes_out_strict_and_the_object_comes_back(llm, wire, ask):
    wire.script(Reply(GOOD))
    got = structured_blocking(llm, ask(), Line)
    assert got.value == Line(name="tea", price=Money.parse("EUR 2.50"))
    assert got.native
    assert got.completion.ignored == ()  # the backend took it for strict too
    sent = schema_sent(wire.asked[0].body)
    assert sent["additionalProperties"] is False
    assert sent["required"] == ["name", "price", "note", "pieces"]


def test_invalid_json_and_a_broken_rule_are_asked_for_again(llm, wire, ask):
    wire.script(Reply('{"name": "tea'), Reply(GOOD.replace("2.50", "2,50")), Reply(GOOD))
    got = structured_blocking(llm, ask("How much?"), Line)
    assert got.tries == 3
    last = wire.asked[2].body["messages"]
    assert [message["role"] for message in last] == ["user", "assistant", "user"]
    assert "EUR 1234.50" in json.dumps(last[-1])
    assert got.usage.new_tokens == sum(one.usage.new_tokens for one in got.completions) > 0


def test_a_refusal_and_a_cut_reply_are_told_as_such(llm, wire, ask):
    wire.script(refused("I cannot help with that."))
    with pytest.raises(RefusedOutputError):
        structured_blocking(llm, ask(), Line)
    wire.script(Reply('{"name": "t', finish="max_tokens" if isinstance(llm, AnthropicLLM) else "length"))
    with pytest.raises(CutOutputError, match="max_new_tokens"):
        structured_blocking(llm, ask(), Line)
    assert len(wire.asked) == 2
