"""Every backend over HTTP against real servers: ours, and llama.cpp's where it is installed."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("openai")
pytest.importorskip("anthropic")

from tests.parity.test_openai_sdk import HELLO, TOOLS
from tests.server.conftest import Running, make_model, serving

from glasshouse.inference import LanguageModel
from glasshouse.inference.engine import EngineSettings
from glasshouse.llm import LocalLLM, Request, Usage, blocking, open_llm
from glasshouse.llm.anthropic_backend import AnthropicLLM
from glasshouse.llm.errors import (
    BadRequestError,
    ContextTooLongError,
    NotAllowedError,
    RateLimitedError,
    ServerFaultError,
)
from glasshouse.server.keys import VARIABLE, Keys

pytestmark = pytest.mark.parity

SCHEMA = {
    "type": "object",
    "properties": {"n": {"enum": [1, 2, 3]}, "ok": {"type": "boolean"}},
    "required": ["n", "ok"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tiny() -> LanguageModel:
    return make_model(context=1024)


@pytest.fixture(scope="module")
def server(tiny) -> Iterator[Running]:
    with serving(tiny) as running:
        yield running


@pytest.fixture(params=["openai", "anthropic"])
def llm(request, server):
    """Our server by either of its APIs. It has a temperature and a seed, whatever Anthropic's own has."""
    if request.param == "openai":
        llm: Any = open_llm(f"{server.url}/v1#tiny")
    else:
        greedy = {"temperature": 0, "seed": 0}
        llm = AnthropicLLM("tiny", api_key="none-needed", base_url=server.url, extra_body=greedy)
    yield llm
    blocking.wait(llm.close())


@pytest.fixture(scope="module")
def here(tiny):
    with LocalLLM(tiny) as llm:
        yield llm


def asked(**more: Any) -> Request:
    given = {"messages": HELLO, "max_new_tokens": 12, "temperature": 0.0, "seed": 0}
    return Request.parse(given | more)


def both(llm, request):
    """The reply whole, and the same streamed, which must be the same."""
    whole = blocking.complete(llm, request)
    *pieces, last = blocking.stream(llm, request)
    done = last.completion
    assert "".join(piece.text for piece in pieces) == done.text == whole.text
    assert done.finish == whole.finish
    if done.notes:  # llama.cpp's server counts nothing in a stream, and that is told
        assert [note.what for note in done.notes] == ["the server told no token counts"]
        assert done.usage == Usage()
    else:
        assert done.usage.new_tokens == whole.usage.new_tokens
    return whole


def test_a_reply_is_the_same_from_afar_as_in_this_process(llm, here):
    far, near = both(llm, asked()), blocking.complete(here, asked())
    assert (far.text, far.finish, far.model) == (near.text, near.finish, "tiny")
    assert far.usage.prompt_tokens == near.usage.prompt_tokens
    assert far.usage.new_tokens == near.usage.new_tokens
    assert far.id.startswith("req_")


def test_tokens_are_counted_exactly(llm, here):
    for request in (asked(), asked(tools=TOOLS)):
        count = blocking.wait(llm.count_tokens(request))
        assert count == blocking.wait(here.count_tokens(request))
        assert count == blocking.complete(llm, request).usage.prompt_tokens


def test_a_forced_tool_call(llm):
    done = both(llm, asked(tools=TOOLS, tool_choice="weather", max_new_tokens=120))
    assert done.finish == "tool_calls"
    function = done.tool_calls[0]["function"]
    assert function["name"] == "weather"
    assert json.loads(function["arguments"])["days"] in (1, 2, 3)
    messages = [
        *HELLO,
        {"role": "assistant", "content": done.text or None, "tool_calls": list(done.tool_calls)},
        *({"role": "tool", "tool_call_id": call["id"], "content": "Sun."} for call in done.tool_calls),
    ]
    assert blocking.complete(llm, asked(messages=messages, tools=TOOLS)).usage.new_tokens > 0


def test_a_schema(llm):
    done = both(llm, asked(output_schema=SCHEMA, max_new_tokens=60))
    assert json.loads(done.text)["n"] in (1, 2, 3)
    assert "output_schema" not in done.ignored


def test_what_each_api_cannot_do(server, here):
    request = asked(logprobs=2, top_p=0.9)
    openai, anthropic = (
        open_llm(f"{server.url}/v1#tiny"),
        AnthropicLLM("tiny", api_key="x", base_url=server.url),
    )
    far, near = blocking.complete(openai, request), blocking.complete(here, request)
    assert far.ignored == ()
    assert [score.token for score in far.logprobs] == [score.token for score in near.logprobs]
    told = [score.logprob for score in far.logprobs]
    assert told == pytest.approx([score.logprob for score in near.logprobs], abs=1e-3)
    done = blocking.complete(anthropic, request)
    assert set(done.ignored) == {"temperature", "top_p", "seed", "logprobs"}
    assert done.logprobs is None
    for llm in (openai, anthropic):
        blocking.wait(llm.close())


def test_vectors(server, here):
    llm = open_llm(f"{server.url}/v1#tiny")
    texts = ["Ada keeps an owl.", "Hello"]
    far, near = blocking.wait(llm.embed(texts)), blocking.wait(here.embed(texts))
    assert far == [pytest.approx(vector, abs=1e-4) for vector in near]
    blocking.wait(llm.close())


def test_a_prompt_that_is_too_long(llm):
    with pytest.raises(ContextTooLongError):
        blocking.complete(llm, asked(messages=[{"role": "user", "content": "owl " * 5000}]))


def test_keys_and_names(tiny, monkeypatch):
    monkeypatch.setenv(VARIABLE, "the-right-key-of-this-server")
    monkeypatch.setenv("OPENAI_API_KEY", "not-for-this-server")
    with serving(tiny, keys=Keys.load(None)) as running:
        name = f"{running.url}/v1#tiny"
        for wrong in (
            open_llm(name),
            open_llm(name, api_key="wrong-key"),
            AnthropicLLM("tiny", api_key="wrong-key", base_url=running.url),
        ):
            with pytest.raises(NotAllowedError):
                blocking.complete(wrong, asked())
        right = open_llm(name, key_variable=VARIABLE)
        assert blocking.complete(right, asked()).text
        with pytest.raises(BadRequestError, match="does not exist"):
            blocking.complete(open_llm(f"{running.url}/v1#other", key_variable=VARIABLE), asked())


def test_a_full_queue_says_when_to_come_back(tiny):
    with serving(tiny, engine=EngineSettings(max_rows=1, queue_limit=0)) as running:
        llm = open_llm(f"{running.url}/v1#tiny")

        async def many():
            calls = [llm.complete(asked(max_new_tokens=300)) for _ in range(8)]
            return await asyncio.gather(*calls, return_exceptions=True)

        told = blocking.wait(many())
        refused = [error for error in told if isinstance(error, RateLimitedError)]
        assert refused
        assert all(error.retry_after >= 1 for error in refused)
        assert len(refused) < len(told)


def test_a_reply_that_takes_longer_than_the_server_allows(tiny):
    with serving(tiny, request_timeout=0.001) as running:
        with pytest.raises(ServerFaultError) as failed:
            blocking.complete(open_llm(f"{running.url}/v1#tiny"), asked(max_new_tokens=500))
        assert (failed.value.status, failed.value.retryable) == (504, False)


@pytest.fixture(scope="module")
def llama_server(tiny, tmp_path_factory) -> Iterator[str]:
    """llama-cpp-python's own server, with our tiny model as a GGUF file."""
    pytest.importorskip("llama_cpp")
    app = pytest.importorskip("llama_cpp.server.app")
    settings = pytest.importorskip("llama_cpp.server.settings")
    import uvicorn

    from glasshouse.model.gguf_file import save_gguf

    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    save_gguf(tiny.model, tiny.tokenizer, path)
    model = settings.ModelSettings(model=str(path), model_alias="tiny", n_ctx=512, verbose=False)
    made = app.create_app(server_settings=settings.ServerSettings(), model_settings=[model])
    server = uvicorn.Server(uvicorn.Config(made, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def test_llama_cpp(llama_server, here):
    llm = open_llm(f"{llama_server}/v1#tiny")
    done = both(llm, asked())
    assert done.finish in ("stop", "length")
    assert done.usage.prompt_tokens == blocking.wait(here.count_tokens(asked()))
    assert blocking.complete(llm, asked(output_schema=SCHEMA, max_new_tokens=60)).text.startswith("{")
    blocking.wait(llm.close())
