"""What goes wrong on the wire, and what each backend makes of it: real SDKs, a real socket."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from tests.llm.scripted_server import (
    Raw,
    Reply,
    broken_arguments,
    failure,
    half,
    not_json,
    rate_limited,
    refused,
    reset,
    server_fault,
    slow,
    too_long,
    unauthorized,
    unexpected,
    unknown_tool,
)

from glasshouse.llm.errors import (
    BadRequestError,
    BrokenStreamError,
    ContextTooLongError,
    GarbledReplyError,
    LLMError,
    NotAllowedError,
    RateLimitedError,
    ServerFaultError,
    TimedOutError,
    UnreachableError,
)
from glasshouse.llm.http_failures import retry_after
from glasshouse.llm.open import open_llm

BACKENDS = ("openai", "compatible", "anthropic", "ollama")
KEY = "sk-test-0123456789abcdef"


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture
def make(wire, monkeypatch, backend):
    """make(**settings): the backend, with the scripted server where the provider would be."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{wire.url}/v1")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", wire.url)
    monkeypatch.setenv("OLLAMA_HOST", wire.url)
    names = {
        "openai": "openai:m",
        "compatible": f"{wire.url}/v1#m",
        "anthropic": "anthropic:m",
        "ollama": "ollama:m",
    }
    return lambda **settings: open_llm(names[backend], **settings)


async def streamed(llm, request):
    """(the pieces' text, the completion)"""
    text, done = "", None
    async for chunk in llm.stream(request):
        assert done is None, "nothing follows the completion"
        text += chunk.text
        done = chunk.completion
    return text, done


def outcomes(llm, request):
    """What `complete` and then `stream` give: a completion or an error each."""

    async def ask():
        told = []
        for way in (llm.complete, lambda r: streamed(llm, r)):
            try:
                made = await way(request)
                told.append(made[1] if isinstance(made, tuple) else made)
            except LLMError as error:
                told.append(error)
        await llm.close()
        return told

    return asyncio.run(ask())


CASES = {
    "429": (rate_limited("7"), RateLimitedError, True, 7.0, 429),
    "429 in ms": (rate_limited(retry_after_ms="1500"), RateLimitedError, True, 1.5, 429),
    "429 without a word": (rate_limited(), RateLimitedError, True, None, 429),
    "500": (server_fault(), ServerFaultError, True, None, 500),
    "503": (server_fault(503), ServerFaultError, True, None, 503),
    "529": (server_fault(529), ServerFaultError, True, None, 529),
    "reset": (reset(), UnreachableError, True, None, None),
    "401": (unauthorized(), NotAllowedError, False, None, 401),
    "403": (failure(403, kind="permission_error"), NotAllowedError, False, None, 403),
    "400": (failure(400, "bad", kind="invalid_request_error"), BadRequestError, False, None, 400),
    "404": (failure(404, "no such model", kind="not_found_error"), BadRequestError, False, None, 404),
    "422": (failure(422, "bad"), BadRequestError, False, None, 422),
    "too long": (too_long(), ContextTooLongError, False, None, 400),
    "no JSON in an error": (
        Raw(502, b"<html>bad gateway</html>", {"content-type": "text/html"}),
        ServerFaultError,
        True,
        None,
        502,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_refused_call_is_one_error_and_one_call(case, make, wire, ask):
    """Streamed or not. The SDKs' own retries are off: ours decide."""
    step, kind, retryable, after, status = CASES[case]
    wire.script(step)
    for error in outcomes(make(), ask()):
        assert type(error) is kind
        assert (error.retryable, error.retry_after, error.status) == (retryable, after, status)
        assert error.usage is None
    assert len(wire.chats()) == 2


BROKEN = {
    "cut off": (half(how="broken"), BrokenStreamError, BrokenStreamError),
    "closed too early": (half(how="closed"), GarbledReplyError, BrokenStreamError),
    "error event": (half(how="error"), GarbledReplyError, ServerFaultError),
    "broken event": (half(how="not json"), GarbledReplyError, GarbledReplyError),
    "no JSON": (not_json(), GarbledReplyError, None),
    "JSON of no reply": (unexpected(), GarbledReplyError, None),
    "a page": (
        Raw(200, b"<html>log in</html>", {"content-type": "text/html"}),
        GarbledReplyError,
        None,
    ),
    "JSON of another kind": (
        Raw(200, b'{"choices": [{"message": 5}], "content": 5, "message": 5}', {}),
        GarbledReplyError,
        None,
    ),
    "no end": (Reply(finish="what is this"), GarbledReplyError, GarbledReplyError),
}


@pytest.mark.parametrize("case", BROKEN)
def test_half_a_reply_is_no_reply(case, make, wire, ask):
    step, whole, piecewise = BROKEN[case]
    wire.script(step)
    first, second = outcomes(make(), ask())
    assert type(first) is whole
    assert isinstance(second, piecewise or (GarbledReplyError, BrokenStreamError))
    assert first.retryable
    assert second.retryable
    if piecewise is BrokenStreamError:
        assert second.text == "One "


def test_the_pieces_that_came_before_a_stream_broke_have_gone_out(make, wire, ask):
    wire.script(half(2))
    got = []

    async def read():
        llm = make()
        try:
            async for chunk in llm.stream(ask()):
                got.append(chunk.text)
        finally:
            await llm.close()

    with pytest.raises(BrokenStreamError) as failed:
        asyncio.run(read())
    assert ("".join(got), failed.value.text) == ("One two ", "One two ")


def test_a_slow_answer_is_a_timeout(make, wire, ask):
    wire.script(slow(5))
    for error in outcomes(make(timeout=0.05), ask()):
        assert type(error) is TimedOutError
        assert error.retryable


def test_nobody_there(make, wire, ask):
    wire.stop()
    for error in outcomes(make(), ask()):
        assert type(error) is UnreachableError


def test_a_tool_call_that_is_wrong_is_told_as_it_came(make, wire, ask):
    """Whether a tool exists and its arguments fit is for those to say who run it: the call succeeded."""
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    for step, name, arguments in (
        (unknown_tool(), "no_such_tool", '{"x": 1}'),
        (broken_arguments("look"), "look", '{"no_such_argument": []}'),
    ):
        wire.script(step)
        for done in outcomes(make(), ask(tools=tools)):
            assert done.finish == "tool_calls"
            (call,) = done.tool_calls
            assert (call["function"]["name"], call["function"]["arguments"]) == (name, arguments)


def test_a_refusal_is_a_reply_that_says_so(make, wire, ask, backend):
    if backend == "ollama":
        pytest.skip("Ollama has no word for a refusal")
    wire.script(refused("Not that."))
    for done in outcomes(make(), ask()):
        assert (done.text, done.finish, done.refusal) == ("", "refusal", "Not that.")


def test_what_a_call_used_up_is_told(make, wire, ask, backend):
    wire.script(Reply("Three small words.", usage=(40, 3, 30)))
    cached = 0 if backend == "ollama" else 30
    for done in outcomes(make(), ask()):
        assert (done.text, done.finish) == ("Three small words.", "stop")
        usage = done.usage
        assert (usage.prompt_tokens, usage.new_tokens, usage.cached_tokens) == (40, 3, cached)
        assert done.seconds > 0
        assert done.cost is None
    first, second = outcomes(make(), ask())
    assert first.first_token_seconds is None
    assert 0 < second.first_token_seconds <= second.seconds


def test_anthropic_tells_what_a_broken_stream_had_read(wire, ask):
    from glasshouse.llm.anthropic_backend import AnthropicLLM

    wire.script(Reply("One two three.", cut=1, usage=(40, 3, 10)))
    _, error = outcomes(AnthropicLLM("m", api_key=KEY, base_url=wire.url), ask())
    assert (error.usage.prompt_tokens, error.usage.cached_tokens) == (40, 10)


def test_whoever_stops_reading_lets_go_of_the_connection(make, wire, ask):
    wire.script(Reply("one two three four five six seven eight nine ten"))

    async def read():
        llm = make()
        for _ in range(3):
            stream = llm.stream(ask())
            async for _ in stream:
                break
            await stream.aclose()
        done = await llm.complete(ask())
        await llm.close()
        return done

    assert asyncio.run(read()).finish == "stop"


def test_one_object_serves_several_event_loops(make, ask):
    """Connections belong to a loop; the object does not."""
    llm = make()
    for _ in range(2):
        assert asyncio.run(llm.complete(ask())).text == "Yes."
    asyncio.run(llm.close())
    asyncio.run(llm.close())


def test_retry_after_as_a_date_and_as_nonsense():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    seconds = retry_after({"retry-after": soon})
    assert seconds is not None
    assert 80 < seconds <= 90
    assert retry_after({"retry-after": format_datetime(datetime(2001, 1, 1, tzinfo=UTC))}) == 0
    assert retry_after({"retry-after": "-3"}) == 0
    assert [retry_after({"retry-after": text}) for text in ("soon", "nan", "inf", "")] == [None] * 4
    assert retry_after({}) is None
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25


def test_a_server_that_says_so_is_not_asked_again(make, wire, ask):
    """Our own server says it of a reply that took longer than it allows."""
    wire.script(failure(504, x_should_retry="false"))
    assert [error.retryable for error in outcomes(make(), ask())] == [False, False]
    wire.script(failure(429, code="insufficient_quota"))
    assert [error.retryable for error in outcomes(make(), ask())] == [False, False]
