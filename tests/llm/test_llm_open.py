"""A model's name opens it; keys come from the environment and go nowhere but to the server they are for."""

from __future__ import annotations

import gc
import logging
import pickle
import subprocess
import sys
import traceback

import pytest
from tests.llm.scripted_server import failure, half, not_json, reset, too_long, unauthorized

import glasshouse
from glasshouse.core.errors import UsageError
from glasshouse.llm import blocking
from glasshouse.llm.errors import LLMError
from glasshouse.llm.open import open_llm

KEY = "sk-proj-0123456789abcdefSECRET"


@pytest.fixture
def keys(monkeypatch):
    for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(variable, KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-SECRET")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-SECRET")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("openai:gpt-5-mini", "OpenAILLM"),
        ("OpenAI:gpt-5-mini", "OpenAILLM"),
        ("anthropic:claude-x", "AnthropicLLM"),
        ("ollama:qwen3:4b", "OllamaLLM"),
        ("http://127.0.0.1:8000/v1#tiny", "OpenAILLM"),
        ("https://example.org/api/v1/#org/model", "OpenAILLM"),
        ("http://127.0.0.1:11434#qwen3:4b", "OllamaLLM"),
        ("http://127.0.0.1:11434/#qwen3:4b", "OllamaLLM"),
    ],
)
def test_names(name, kind, keys):
    llm = open_llm(name)
    assert (type(llm).__name__, llm.name) == (kind, name)
    for member in ("can", "context", "complete", "stream", "embed", "count_tokens", "close"):
        assert hasattr(llm, member)


def test_a_folder_is_opened_in_this_process(tmp_path, random_model):
    from glasshouse.model.hf_folder import save
    from glasshouse.tokenizer import Tokenizer

    tokenizer = Tokenizer.train([], 265)
    save(random_model(vocab_size=tokenizer.vocab_size), tokenizer, tmp_path / "model")
    llm = glasshouse.llm(tmp_path / "model", device="cpu")
    assert (type(llm).__name__, llm.context) == ("LocalLLM", 64)
    assert llm.name == str(tmp_path / "model")
    blocking.wait(llm.close())
    blocking.wait(llm.close())


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("openai:", {}, "openai:NAME"),
        ("opanai:gpt-5", {}, "did you mean openai:gpt-5"),
        ("xyz:pro", {}, "openai:, anthropic:, ollama:"),
        ("no/such/folder", {}, "no such model folder"),
        ("http://127.0.0.1:8000/v1", {}, "http://host:port/v1#NAME"),
        ("http://#x", {}, "http://host:port/v1#NAME"),
        ("http://me:hunter2@there/v1#x", {}, "key_variable"),
        ("http://there/v1?key=hunter2#x", {}, "key_variable"),
        ("openai:gpt-5", {"timeuot": 3}, "did you mean 'timeout'"),
        ("no/such/folder", {"timeout": 3}, "known settings: device"),
        ("http://127.0.0.1:8000/v1#x", {"key_variable": "MY_KEY"}, "MY_KEY"),
    ],
)
def test_what_is_no_name_says_what_to_write(name, settings, words, keys):
    with pytest.raises(UsageError, match=words) as failed:
        open_llm(name, **settings)
    assert "hunter2" not in str(failed.value)


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_key_is_named(provider, value, monkeypatch):
    variable = f"{provider.upper()}_API_KEY"
    monkeypatch.delenv(variable, raising=False)
    if value is not None:
        monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=variable):
        open_llm(f"{provider}:m")


def test_where_ollama_is(monkeypatch, wire, ask):
    for host, at in (
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("box", "http://box:11434"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("https://box.example", "https://box.example"),
        ("http://box:99/", "http://box:99"),
    ):
        from glasshouse.llm.open import _ollama_host

        monkeypatch.setenv("OLLAMA_HOST", host)
        assert _ollama_host() == at


def called(name, request, **settings):
    """The reply to one call, as `complete` gives it."""
    llm = open_llm(name, **settings)
    try:
        return blocking.complete(llm, request)
    finally:
        blocking.wait(llm.close())


def test_a_server_is_sent_no_key_that_is_not_its_own(keys, wire, ask):
    """Nor the organization that the environment names for OpenAI: in chats, vectors or counts."""
    llm = open_llm(f"{wire.url}/v1#m")
    blocking.complete(llm, ask())
    blocking.wait(llm.embed(["x"]))
    with pytest.raises(LLMError):
        blocking.wait(llm.count_tokens(ask()))
    for _ in blocking.stream(llm, ask()):
        pass
    blocking.wait(llm.close())
    called(f"{wire.url}#m", ask())
    assert len(wire.asked) >= 6
    for asked in wire.asked:
        assert "authorization" not in asked.headers
        assert "SECRET" not in repr(asked)


def test_a_server_is_sent_the_key_that_is_named_for_it(keys, wire, ask, monkeypatch):
    monkeypatch.setenv("MY_KEY", "mine-123456")
    for name in (f"{wire.url}/v1#m", f"{wire.url}#m"):
        called(name, ask(), key_variable="MY_KEY")
        assert wire.asked[-1].headers["authorization"] == "Bearer mine-123456"
        called(name, ask(), api_key="given-123456")
        assert wire.asked[-1].headers["authorization"] == "Bearer given-123456"


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_provider_is_sent_its_key(provider, keys, wire, ask, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", f"{wire.url}/v1")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", wire.url)
    called(f"{provider}:m", ask())
    assert wire.asked[-1].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("provider", ["openai", "anthropic", "compatible", "ollama"])
def test_a_key_reaches_no_log_no_repr_and_no_error(provider, keys, wire, ask, monkeypatch, caplog):
    """Not even where the server itself says it back, and not through the chain of an error's causes."""
    monkeypatch.setenv("OPENAI_BASE_URL", f"{wire.url}/v1")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", wire.url)
    caplog.set_level(logging.DEBUG)
    address = {"compatible": f"{wire.url}/v1#m", "ollama": f"{wire.url}#m"}.get(provider)
    settings = {"api_key": KEY} if address else {}
    llm = open_llm(address or f"{provider}:m", **settings)
    told = [repr(llm), str(llm)]
    steps = [
        unauthorized(),
        failure(401, f"Incorrect API key provided: {KEY}. Find yours at ..."),
        failure(400, f"bad header 'Authorization: Bearer {KEY}'"),
        failure(500, "sk-proj-another0123456789SECRET of somebody else"),
        too_long(),
        reset(),
        half(),
        not_json(),
    ]
    for step in steps:
        wire.script(step)
        for way in (lambda: blocking.complete(llm, ask()), lambda: list(blocking.stream(llm, ask()))):
            with pytest.raises(LLMError) as failed:
                way()
            error = failed.value
            told += [str(error), repr(error), repr(vars(error)), repr(error.args)]
            told += traceback.format_exception(error)
            seen = set()
            while error is not None and id(error) not in seen:  # whoever reports errors walks these
                seen.add(id(error))
                told.append(repr(vars(error)))
                request = getattr(error, "request", None)
                told.append(repr(dict(request.headers)) if request is not None else "")
                error = error.__cause__ or error.__context__
    wire.script(half(how="error"))
    with pytest.raises(LLMError):
        list(blocking.stream(llm, ask()))
    blocking.wait(llm.close())
    told += [record.getMessage() for record in caplog.records]
    assert len(told) > 50
    assert [line for line in told if "SECRET" in line] == []
    assert any(asked.headers.get("authorization") == f"Bearer {KEY}" for asked in wire.asked)


def test_an_object_that_holds_a_key_cannot_be_written_out(keys):
    with pytest.raises(Exception, match="pickle"):
        pickle.dumps(open_llm("openai:m"))
    gc.collect()


def test_the_room_costs_nothing_before_it_is_used():
    """No torch and no provider's SDK; and each backend loads its own SDK alone."""
    heavy = (
        "[m for m in ('torch', 'openai', 'anthropic', 'httpx2', 'pydantic', 'tiktoken') if m in sys.modules]"
    )
    code = (
        "import sys, glasshouse, glasshouse.llm as llm\n"
        f"print({heavy})\n"
        "glasshouse.llm.Request, llm.open_llm\n"
        "print('torch' in sys.modules, 'openai' in sys.modules)\n"
        "glasshouse.llm('anthropic:m', api_key='x')\n"
        "print('torch' in sys.modules, 'openai' in sys.modules, 'anthropic' in sys.modules)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["[]", "False False", "False False True"]


def test_the_room_lists_its_names_and_refuses_others():
    from glasshouse import llm

    assert set(llm.__all__) <= set(dir(llm))
    for name in llm.__all__:
        assert getattr(llm, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = llm.no_such_name
