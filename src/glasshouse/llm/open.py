"""From the name of a model to an `LLM`, wherever it runs."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from glasshouse.core.config import nearest
from glasshouse.core.errors import UsageError
from glasshouse.llm.interface import LLM

PROVIDERS = ("openai", "anthropic", "ollama")

_PREFIX = re.compile(r"([A-Za-z][\w.-]+):(?!//)(.*)", re.DOTALL)


def open_llm(name: str | Path, **settings: Any) -> LLM:
    """The model of that name.

        openai:NAME, anthropic:NAME         with the key in OPENAI_API_KEY, ANTHROPIC_API_KEY
        ollama:NAME                         of the Ollama server on this machine, or the one in OLLAMA_HOST
        http://host:port/v1#NAME            of a server that speaks OpenAI's API: vLLM, llama.cpp, ours
        http://host:port#NAME               of another machine's Ollama
        runs/pocket, a model folder, a .gguf file, hf://ORG/NAME         in this process

    Settings: `timeout` (seconds without a byte), `context` (tokens), `extra_body` (sent along with every
    call), `api_key`, or better `key_variable`: the environment variable that holds the key. A server is sent
    no key unless one of these is given. Of models in this process only `device`.

    Nothing is asked over the network before the first call. Raises UsageError, and ModelError for a folder
    that is none.
    """
    text = str(name)
    if text.startswith(("http://", "https://")):
        return _at_address(text, settings)
    prefix = _PREFIX.fullmatch(text)
    if prefix is None or Path(text).exists():
        return _here(text, settings)
    provider, model = prefix[1].lower(), prefix[2]
    if provider not in PROVIDERS:
        close = nearest(provider, PROVIDERS)
        raise UsageError(
            f"no models are called '{prefix[1]}:...'",
            where=text,
            fix=f"did you mean {close}:{model}?"
            if close
            else "use openai:, anthropic:, ollama:, an address http://host:port/v1#NAME, or a model folder",
        )
    if not model:
        raise UsageError("the model's name is missing", where=text, fix=f"write {provider}:NAME")
    if provider == "ollama":
        from glasshouse.llm.ollama import OllamaLLM

        return _made(OllamaLLM, model, {"base_url": _ollama_host()} | _with_key(text, settings), name=text)
    variable = f"{provider.upper()}_API_KEY"
    if provider == "openai":
        from glasshouse.llm.openai_backend import OpenAILLM as Provider
    else:
        from glasshouse.llm.anthropic_backend import AnthropicLLM as Provider
    return _made(Provider, model, _with_key(text, settings, variable), name=text)


def _at_address(text: str, settings: Mapping[str, Any]) -> LLM:
    address, _, model = text.partition("#")
    parts = urlsplit(address)
    if parts.username or parts.password or parts.query:
        raise UsageError(
            "an address with credentials in it ends up in logs",
            where=f"{parts.scheme}://{parts.hostname}",
            fix='name the environment variable that holds the key: key_variable="NAME"',
        )
    if not parts.hostname or not model:
        raise UsageError(
            "the address does not name a model", where=text, fix="write http://host:port/v1#NAME"
        )
    address = address.rstrip("/")
    given = {"base_url": address} | _with_key(text, settings)
    if parts.path in ("", "/"):
        from glasshouse.llm.ollama import OllamaLLM

        return _made(OllamaLLM, model, given, name=text)
    from glasshouse.llm.openai_backend import OpenAILLM

    return _made(OpenAILLM, model, given, name=text)


def _here(text: str, settings: Mapping[str, Any]) -> LLM:
    from glasshouse.llm.local import LocalLLM
    from glasshouse.model.folders import resolve_model

    _check(inspect.signature(LocalLLM.load).parameters, {"folder", "name"}, settings, text)
    return LocalLLM.load(resolve_model(text), name=text, **settings)


def _with_key(text: str, settings: Mapping[str, Any], variable: str | None = None) -> dict[str, Any]:
    """The settings with the key that they or the environment give. Raises UsageError where there is none."""
    given = dict(settings)
    variable = given.pop("key_variable", variable)
    if given.get("api_key") or variable is None:
        return given
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UsageError(
            "there is no key for this model",
            where=text,
            fix=f"put it into the environment variable {variable}",
        )
    return given | {"api_key": key}


def _made(kind: Callable[..., LLM], model: str, settings: dict[str, Any], name: str) -> LLM:
    _check(inspect.signature(kind).parameters, {"model", "name"}, settings, name)
    return kind(model, name=name, **settings)


def _check(known: Mapping[str, object], ours: set[str], given: Mapping[str, Any], where: str) -> None:
    names = [name for name in known if name not in ours and name != "cls"]
    for setting in given:
        if setting not in names:
            close = nearest(setting, [*names, "key_variable"])
            raise UsageError(
                f"unknown setting '{setting}'",
                where=where,
                fix=f"did you mean '{close}'?" if close else f"known settings: {', '.join(names)}",
            )


def _ollama_host() -> str:
    """Where OLLAMA_HOST says; as Ollama's own client reads it, port 11434 and http by default."""
    host = os.environ.get("OLLAMA_HOST", "").strip().rstrip("/")
    if not host:
        from glasshouse.llm.ollama import HOST

        return HOST
    parts = urlsplit(host if "://" in host else f"http://{host}")
    name = "127.0.0.1" if parts.hostname in (None, "0.0.0.0", "::") else parts.hostname
    name = f"[{name}]" if ":" in name else name
    port = parts.port or {"http": 11434, "https": 443}[parts.scheme] if "://" not in host else parts.port
    return f"{parts.scheme}://{name}" + (f":{port}" if port else "") + parts.path
