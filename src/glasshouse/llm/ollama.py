"""Ollama's native API, because its OpenAI-like one cannot set the context size.

Left to itself Ollama cuts a prompt that is longer than its window, without a word. So the window is always
sent (`num_ctx`), and with it the wish to be told instead (`truncate` and `shift` false; older servers do not
read them).
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from glasshouse.llm.errors import BadRequestError, LLMError, NotAbleError
from glasshouse.llm.http_failures import broken, from_answer, garbled
from glasshouse.llm.interface import (
    Capabilities,
    Chunk,
    Completion,
    Finish,
    Message,
    Request,
    TokenLogprob,
    Usage,
)
from glasshouse.llm.remote import TIMEOUT, Remote, patience
from glasshouse.llm.unsupported import ignored

HOST = "http://127.0.0.1:11434"

WINDOW = 8192
"""Tokens of the context where neither the user nor the model's own file names a number, as far as the model
goes: Ollama's default depends on the machine, and a context that nobody knows cannot be kept."""

_NUM_CTX = re.compile(r"^num_ctx\s+(\d+)", re.MULTILINE)
_FINISH: dict[str, Finish] = {"stop": "stop", "length": "length"}


class OllamaLLM(Remote[httpx2.AsyncClient]):
    """One model of the Ollama server at `base_url`. `context`: tokens of prompt and reply (num_ctx).

    `extra_body` goes along with every call: {"think": False, "keep_alive": "1h"}, for example. `timeout` is
    in seconds without a byte: a model that is not loaded yet answers late.
    """

    can = Capabilities(embeddings=True)

    def __init__(
        self,
        model: str,
        *,
        base_url: str = HOST,
        api_key: str | None = None,
        name: str | None = None,
        timeout: float = TIMEOUT,
        context: int | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}

        def make() -> httpx2.AsyncClient:
            limits = httpx2.Limits(max_connections=1000, max_keepalive_connections=100)
            return httpx2.AsyncClient(
                base_url=base_url, timeout=patience(timeout), headers=headers, limits=limits
            )

        super().__init__(name or f"ollama:{model}", make, httpx2.AsyncClient.aclose, [api_key], context)
        self.model, self._extra_body = model, dict(extra_body or {})
        self._known = False  # whether the model's own context was asked for

    async def complete(self, request: Request) -> Completion:
        began, reply = time.perf_counter(), _Reply(self.name)
        answer = await self.asked(self._post("/api/chat", await self._body(request, stream=False)))
        reply.line(answer)
        return reply.completion(_ignored(request, reply), time.perf_counter() - began)

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        began, first, reply = time.perf_counter(), None, _Reply(self.name)
        failure: LLMError | None = None
        body = await self._body(request, stream=True)
        try:
            async with self.client.stream("POST", "/api/chat", json=body) as response:
                if response.status_code >= 400:
                    await response.aread()
                    raise self._refused(response)
                async for line in response.aiter_lines():
                    text, thought = reply.line(json.loads(line)) if line else ("", "")
                    if text or thought:
                        first = first or time.perf_counter() - began
                        yield Chunk(text, thought)
        except Exception as error:
            failure = self.explain(error, "".join(reply.text), begun=reply.begun)
        if failure is not None:
            raise failure
        seconds = time.perf_counter() - began
        yield Chunk(completion=reply.completion(_ignored(request, reply), seconds, first))

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        if not texts:
            return []
        asked = {"model": self.model, "input": list(texts), "truncate": False}
        answer = await self.asked(self._post("/api/embed", asked))
        vectors = answer.get("embeddings")
        if not isinstance(vectors, list) or len(vectors) != len(texts):
            raise garbled("these are not the vectors of the texts", self.name)
        return vectors

    async def count_tokens(self, request: Request) -> int:
        raise NotAbleError(
            "Ollama counts no tokens beforehand", where=self.name, fix="serve the model's GGUF with llama.cpp"
        )

    async def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        response = await self.client.post(path, json=body)
        if response.status_code >= 400:
            raise self._refused(response)
        answer = response.json()
        if not isinstance(answer, dict):
            raise garbled("it is no JSON object", self.name)
        return answer

    def _refused(self, response: httpx2.Response) -> LLMError:
        try:
            told = response.json()
        except ValueError:
            told = response.text
        failure = from_answer(response.status_code, response.headers, told, self.name, self._secrets)
        if response.status_code == 404 and "not found" in failure.what:
            return BadRequestError(
                failure.what, where=self.name, fix=f"fetch it with: ollama pull {self.model}", status=404
            )
        return failure

    async def _window(self) -> int:
        """Tokens of the context that are asked for; what the model's file says is asked once."""
        if not self._known:
            told = await self.asked(self._post("/api/show", {"model": self.model}))
            info = told.get("model_info") or {}
            most = info.get(f"{info.get('general.architecture')}.context_length")
            given = _NUM_CTX.search(told.get("parameters") or "")
            wanted = self._context or (int(given[1]) if given else WINDOW)
            self._context, self._known = min(wanted, most) if isinstance(most, int) else wanted, True
        assert self._context is not None
        return self._context

    async def _body(self, request: Request, stream: bool) -> dict[str, Any]:
        options: dict[str, Any] = {"num_ctx": await self._window(), "num_predict": request.max_new_tokens}
        for name in ("temperature", "top_p", "seed"):
            if (value := getattr(request, name)) is not None:
                options[name] = value
        if request.stop:
            options["stop"] = list(request.stop)
        extra = dict(self._extra_body)
        options |= extra.pop("options", {})
        body: dict[str, Any] = {
            "model": self.model,
            "messages": _messages(request.messages, self.name),
            "stream": stream,
            "truncate": False,
            "shift": False,
            "options": options,
        }
        if request.tools and request.tool_choice != "none":
            body["tools"] = request.tools
        if request.output_schema is not None:
            body["format"] = request.output_schema
        if request.logprobs is not None:
            body["logprobs"], body["top_logprobs"] = True, request.logprobs
        return body | extra


def _ignored(request: Request, reply: _Reply) -> tuple[str, ...]:
    gone = set()
    if request.logprobs is not None and not reply.logprobs:  # older servers
        gone.add("logprobs")
    if request.tools and request.tool_choice not in (None, "auto", "none"):
        gone.add("tool_choice")
    return ignored({"logprobs": request.logprobs, "tool_choice": request.tool_choice}, gone) if gone else ()


@dataclass
class _Reply:
    """What has come so far."""

    where: str
    text: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    end: dict[str, Any] | None = None
    begun: bool = False

    def line(self, told: Any) -> tuple[str, str]:
        """One JSON object of the answer; (new text, new thoughts). Raises LLMError."""
        self.begun = True
        if isinstance(told, dict) and "error" in told:
            raise from_answer(500, {}, told, self.where, told_late=True)
        try:
            message = told["message"]
            text, thought = message.get("content") or "", message.get("thinking") or ""
            for call in message.get("tool_calls") or ():
                self.calls.append(_call(call, len(self.calls)))
            for score in told.get("logprobs") or ():
                top = tuple((other["token"], other["logprob"]) for other in score.get("top_logprobs") or ())
                self.logprobs.append(TokenLogprob(score["token"], score["logprob"], top))
            if told.get("done"):
                self.end = told
        except (AttributeError, TypeError, KeyError):
            raise garbled("it is no message", self.where) from None
        self.text.append(text)
        self.thoughts.append(thought)
        return text, thought

    def completion(self, ignored: tuple[str, ...], seconds: float, first: float | None = None) -> Completion:
        """Raises BrokenStreamError where no end was told."""
        text = "".join(self.text)
        if self.end is None:
            raise broken("the stream ended before the reply did", self.where, text)
        finish = _FINISH.get(self.end.get("done_reason") or "stop")
        if finish is None:
            raise garbled(f"it ended with {self.end['done_reason']!r}", self.where)
        return Completion(
            text,
            "tool_calls" if self.calls and finish == "stop" else finish,
            Usage(self.end.get("prompt_eval_count") or 0, self.end.get("eval_count") or 0),
            self.end.get("model") or "",
            tool_calls=tuple(self.calls),
            reasoning="".join(self.thoughts) or None,
            logprobs=tuple(self.logprobs) or None,
            seconds=seconds,
            first_token_seconds=first,
            ignored=ignored,
        )


def _call(call: Mapping[str, Any], index: int) -> dict[str, Any]:
    """A tool call in OpenAI's shape: with an id, and its arguments as text."""
    function = call["function"]
    arguments = json.dumps(function.get("arguments") or {}, ensure_ascii=False)
    return {
        "id": call.get("id") or f"call_{index}",
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }


def _messages(messages: Sequence[Message], where: str) -> list[Message]:
    """The conversation as Ollama has it: one text a message, images beside it, arguments as objects."""
    names: dict[str, str] = {}
    made = []
    for message in messages:
        text, images = _content(message.get("content"), where)
        told: Message = {"role": message["role"], "content": text}
        if images:
            told["images"] = images
        if calls := message.get("tool_calls"):
            told["tool_calls"] = [_sent_call(call, where) for call in calls]
            names |= {call["id"]: call["function"]["name"] for call in calls}
        if message["role"] == "tool":
            told["tool_call_id"] = message["tool_call_id"]
            told["tool_name"] = names.get(message["tool_call_id"], "")
        made.append(told)
    return made


def _sent_call(call: Mapping[str, Any], where: str) -> dict[str, Any]:
    function = call["function"]
    arguments = function["arguments"]
    try:
        value = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        raise BadRequestError(
            f"the arguments of a call of '{function['name']}' are no JSON", where=where, fix="leave it out"
        ) from None
    return {"id": call["id"], "function": {"name": function["name"], "arguments": value}}


def _content(content: object, where: str) -> tuple[str, list[str]]:
    """(text, images in base64)"""
    if content is None or isinstance(content, str):
        return content or "", []
    texts, images = [], []
    for part in content:  # pyright: ignore[reportGeneralTypeIssues]
        if part.get("type") == "text":
            texts.append(part["text"])
        elif part.get("type") == "image_url" and part["image_url"]["url"].startswith("data:"):
            images.append(_checked(part["image_url"]["url"].partition(",")[2], where))
        else:
            raise BadRequestError(
                f"content of type '{part.get('type')}' cannot be sent to this server",
                where=where,
                fix="send text, or images as data: addresses",
            )
    return "".join(texts), images


def _checked(data: str, where: str) -> str:
    try:
        base64.b64decode(data, validate=True)
    except ValueError:
        raise BadRequestError("an image is not valid base64", where=where) from None
    return data
