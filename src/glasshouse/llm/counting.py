"""Tokens of a prompt behind an OpenAI-like API, exactly or not at all.

OpenAI's own models: its published tokenizers, where they are on this disk already (nothing is downloaded).
Other servers: vLLM's and our /tokenize, which take a conversation, or llama.cpp's /apply-template and
/tokenize; which of them there is, is asked once.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
from openai import AsyncOpenAI

from glasshouse.llm.errors import NotAbleError
from glasshouse.llm.http_failures import garbled
from glasshouse.llm.interface import Request

_MESSAGE, _REPLY = 3, 3
"""Tokens around each message, and those that open the reply, of the chat models since cl100k_base (OpenAI's
cookbook, "How to count tokens with tiktoken"). A name costs one more."""

_Post = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any] | None]]

_FILES = "https://openaipublic.blob.core.windows.net/encodings/"


class Counter:
    """Counts for one model. `context`: tokens of the longest text, once a server told it."""

    def __init__(self, model: str, base_url: str | None, where: str) -> None:
        self._model, self._where = model, where
        self._root = None if base_url is None else base_url.rstrip("/").removesuffix("/v1")
        self._encoding = _encoding_on_disk(model) if base_url is None else None
        self._way: str | None = None  # "tokenize", "template" or "none"; None: not asked yet
        self.context: int | None = None

    @property
    def exact(self) -> bool:
        """Whether counting may work; a server is only asked when it comes to it."""
        return self._encoding is not None or (self._root is not None and self._way != "none")

    async def count(self, client: AsyncOpenAI, request: Request, headers: Mapping[str, Any]) -> int:
        """Raises NotAbleError where nobody can tell."""
        if self._encoding is not None:
            return self._published(request)
        if self._root is not None and self._way != "none":
            return await self._ask(partial(self._post, client, headers), request)
        raise self._unable("nobody counts the tokens of this model beforehand")

    def _unable(self, what: str) -> NotAbleError:
        return NotAbleError(what, where=self._where, fix="count with a model that can, or do without")

    def _published(self, request: Request) -> int:
        import tiktoken

        if request.tools or request.output_schema:
            raise self._unable("how OpenAI writes tools and schemas is not published")
        encoding = tiktoken.get_encoding(str(self._encoding))
        total = _REPLY
        for message in request.messages:
            total += _MESSAGE + ("name" in message)
            for value in (message["role"], message.get("content") or "", message.get("name", "")):
                if not isinstance(value, str) or "tool_calls" in message:
                    raise self._unable("how OpenAI writes images and tool calls is not published")
                total += len(encoding.encode(value, disallowed_special=()))
        return total

    async def _ask(self, post: _Post, request: Request) -> int:
        conversation = {"messages": request.messages, "tools": list(request.tools) or None}
        if self._way in (None, "tokenize"):
            asked = {"model": self._model, "add_generation_prompt": True, **conversation}
            told = await post("/tokenize", asked)
            if told is not None and isinstance(told.get("count"), int):
                self._way, self.context = "tokenize", told.get("max_model_len")
                return told["count"]
        if self._way in (None, "template"):
            told = await post("/apply-template", conversation)
            if told is not None and isinstance(told.get("prompt"), str):
                self._way = "template"
                asked = {"content": told["prompt"], "add_special": True, "parse_special": True}
                told = await post("/tokenize", asked)
                if told is not None and isinstance(told.get("tokens"), list):
                    return len(told["tokens"])
        self._way = self._way or "none"
        raise self._unable("this server has no way to count tokens")

    async def _post(
        self, client: AsyncOpenAI, headers: Mapping[str, Any], path: str, body: dict[str, Any]
    ) -> dict[str, Any] | None:
        """The answer; None where the server has no such path. It goes through the SDK's own connections."""
        sent = {key: value for key, value in body.items() if value is not None}
        try:
            options: Any = {"headers": headers}
            url = f"{self._root}{path}"
            answer = await client.post(url, body=sent, options=options, cast_to=httpx2.Response)
        except Exception as error:
            status = getattr(error, "status_code", None)
            if status in (404, 405, 501) or (status in (400, 422) and self._way is None):
                return None
            raise
        try:
            return answer.json()
        except ValueError:
            raise garbled("it is not JSON", self._where) from None


def _encoding_on_disk(model: str) -> str | None:
    """The name of the model's encoding if tiktoken has its file in its cache; else None."""
    import tiktoken

    try:
        name = tiktoken.encoding_name_for_model(model)
    except KeyError:
        return None
    file = {"o200k_harmony": "o200k_base"}.get(name, name)
    if file not in ("cl100k_base", "o200k_base"):  # older ones are of models without messages
        return None
    kept = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    folder = Path(tempfile.gettempdir(), "data-gym-cache") if kept is None else Path(kept)
    key = hashlib.sha1(f"{_FILES}{file}.tiktoken".encode()).hexdigest()
    return name if str(folder) and (folder / key).is_file() else None
