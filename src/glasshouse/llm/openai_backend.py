"""OpenAI's models, and every server that speaks its chat completions: vLLM, llama.cpp, ours."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx2
from openai import APIStatusError, AsyncOpenAI, Omit

from glasshouse.llm.counting import Counter
from glasshouse.llm.errors import LLMError, NotAbleError
from glasshouse.llm.http_failures import garbled
from glasshouse.llm.interface import Capabilities, Chunk, Completion, Request
from glasshouse.llm.openai_reply import OpenAIReply, told
from glasshouse.llm.remote import TIMEOUT, Remote, patience
from glasshouse.llm.unsupported import ignored, turned_down

_FIELDS = {  # of the body: the field of a Request that is then not followed
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "stop": "stop",
    "logprobs": "logprobs",
    "top_logprobs": "logprobs",
    "response_format": "output_schema",
    "stream_options": None,
}
ANONYMOUS: Any = {"Authorization": Omit(), "OpenAI-Organization": Omit(), "OpenAI-Project": Omit()}
"""Headers of a call without a key: the SDK would take them from the environment."""

_LENGTHS = ("max_completion_tokens", "max_tokens")


class OpenAILLM(Remote[AsyncOpenAI]):
    """One model of OpenAI's, or of the server at `base_url`.

    `api_key` is sent as it is given; None sends none at all, whatever the environment holds. Where the
    server turns a setting down ("unsupported parameter"), the call is made again without it, and so from then
    on; `Completion.ignored` and `can` tell. `extra_body` goes along with every call, for what only this
    server knows. `timeout` is in seconds without a byte; `context` in tokens.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        name: str | None = None,
        timeout: float = TIMEOUT,
        context: int | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        def make() -> AsyncOpenAI:
            return AsyncOpenAI(
                base_url=base_url,
                api_key=api_key or "none",  # never sent: see ANONYMOUS
                max_retries=0,
                timeout=patience(timeout),
            )

        super().__init__(name or f"openai:{model}", make, AsyncOpenAI.close, [api_key], context)
        self.model, self._extra_body = model, dict(extra_body or {})
        self._own = base_url is None  # OpenAI itself
        self._length = _LENGTHS[0] if self._own else _LENGTHS[1]
        self._headers = {} if api_key else ANONYMOUS
        self._gone: set[str] = set()  # fields of the body that the server turned down
        self._json_object = False  # a schema goes in llama-cpp-python's form
        self._counter = Counter(model, base_url, self.name)
        self.can = Capabilities(embeddings=True, counts_tokens=self._counter.exact)

    @property
    def context(self) -> int | None:
        return self._context or self._counter.context

    async def complete(self, request: Request) -> Completion:
        began, reply = time.perf_counter(), OpenAIReply(self.name)
        answer: httpx2.Response = await self.asked(self._create(request, stream=False))
        reply.whole(told(answer.content))
        id = answer.headers.get("x-request-id")
        return reply.completion(self._ignored(request, reply), time.perf_counter() - began, id=id)

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        began, first, reply = time.perf_counter(), None, OpenAIReply(self.name)
        events = await self.asked(self._create(request, stream=True))
        failure: LLMError | None = None
        try:
            async for event in events:
                text, thought = reply.chunk(event)
                if text or thought:
                    first = first or time.perf_counter() - began
                    yield Chunk(text, thought)
        except Exception as error:
            failure = self.explain(error, "".join(reply.text), begun=True)
        finally:
            await events.close()
        if failure is not None:
            raise failure
        id = events.response.headers.get("x-request-id")
        seconds = time.perf_counter() - began
        yield Chunk(completion=reply.completion(self._ignored(request, reply), seconds, first, id))

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Raises NotAbleError where the server makes no vectors."""
        if not texts:
            return []
        call = self.client.embeddings.create(
            model=self.model, input=list(texts), encoding_format="float", extra_headers=self._headers
        )
        try:
            answer = await self.asked(call)
        except LLMError as error:
            if error.status not in (404, 405, 501):
                raise
            answer = None
        if answer is None:
            raise NotAbleError("no vectors are made here", where=self.name, fix="name an embedding model")
        try:
            vectors = {item.index: item.embedding for item in answer.data}
            return [vectors[index] for index in range(len(texts))]
        except (AttributeError, TypeError, KeyError):
            raise garbled("these are not the vectors of the texts", self.name) from None

    async def count_tokens(self, request: Request) -> int:
        """Exact, or NotAbleError. See `counting.py` for who counts."""
        return await self.asked(self._counter.count(self.client, request, self._headers))

    async def _create(self, request: Request, stream: bool) -> Any:
        """The server's answer, or the SDK's stream of chunks.

        A whole answer is taken as it came: on its way to the SDK's own types, every field of every message
        would be looked up in them, which costs half as much as the call.
        """
        body = self._body(request, stream)
        extra: Any = {"headers": self._headers, "extra_json": self._extra_body}
        while True:
            try:
                if not stream:
                    return await self.client.post(
                        "/chat/completions", cast_to=httpx2.Response, body=body, options=extra
                    )
                return await self.client.chat.completions.create(
                    **body, extra_headers=self._headers, extra_body=self._extra_body
                )
            except APIStatusError as error:
                if self._asks_for_json_object(error, body):
                    self._json_object = True
                    body["response_format"] = self._format(request)
                elif error.status_code not in (400, 422) or not self._leave_out(error.body, body):
                    raise

    def _asks_for_json_object(self, error: APIStatusError, body: Mapping[str, Any]) -> bool:
        """llama-cpp-python's server takes a schema beside the type "json_object" alone, and calls OpenAI's
        form of it a fault of its own (500)."""
        told = str(error.body)
        return (
            body.get("response_format", {}).get("type") == "json_schema"
            and error.status_code in (400, 422, 500)
            and "response_format" in told
            and "json_object" in told
        )

    def _leave_out(self, told: object, body: dict[str, Any]) -> bool:
        """Take what the server has no setting for out of the body, and remember; False: it is not that."""
        if turned_down(told, [self._length]):
            other = _LENGTHS[self._length == _LENGTHS[0]]
            if other in self._gone:
                return False
            self._gone.add(self._length)
            body[other] = body.pop(self._length)
            self._length = other
            return True
        setting = turned_down(told, [name for name in _FIELDS if name in body])
        if setting is None:
            return False
        gone = {"logprobs", "top_logprobs"} if setting == "logprobs" else {setting}
        self._gone |= gone
        for name in gone:
            body.pop(name, None)
        if (capability := _FIELDS[setting]) and setting != "top_logprobs":
            self.can = replace(self.can, **{capability: False})
        return True

    def _body(self, request: Request, stream: bool) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": request.messages,
            self._length: request.max_new_tokens,
        }
        for name in ("temperature", "top_p", "seed"):
            if (value := getattr(request, name)) is not None:
                body[name] = value
        if request.stop:
            body["stop"] = list(request.stop)
        if request.tools:
            body["tools"] = request.tools
            if request.tool_choice is not None:
                body["tool_choice"] = _tool_choice(request.tool_choice)
        if request.output_schema is not None:
            body["response_format"] = self._format(request)
        if request.logprobs is not None:
            body["logprobs"] = True
            if request.logprobs:
                body["top_logprobs"] = request.logprobs
        if stream:
            body["stream"] = True
            body["stream_options"] = {"include_usage": True}
        for name in self._gone:
            body.pop(name, None)
        return body

    def _format(self, request: Request) -> dict[str, Any]:
        if self._json_object:
            return {"type": "json_object", "schema": request.output_schema}
        assert request.output_schema is not None
        strict = not self._own or _is_strict(request.output_schema)
        named = {"name": "reply", "schema": request.output_schema, "strict": strict}
        return {"type": "json_schema", "json_schema": named}

    def _ignored(self, request: Request, reply: OpenAIReply) -> tuple[str, ...]:
        """What was asked for and not followed, as far as one can know."""
        if (
            not self._gone
            and (request.logprobs is None or reply.logprobs is not None)
            and (request.output_schema is None or not self._own)
        ):
            return ()
        gone = {_FIELDS[name] for name in self._gone if name in _FIELDS}
        if request.logprobs is not None and reply.logprobs is None:
            gone.add("logprobs")
        if request.output_schema is not None and self._own and not _is_strict(request.output_schema):
            gone.add("output_schema")  # OpenAI takes such a schema as advice only
        return ignored({name: getattr(request, name) for name in _FIELDS.values() if name}, gone)


def _tool_choice(choice: str) -> Any:
    if choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def _is_strict(schema: Any) -> bool:
    """Whether OpenAI keeps replies to this schema: every object names all its keys and requires them all."""
    if isinstance(schema, list):
        return all(map(_is_strict, schema))
    if not isinstance(schema, dict):
        return True
    if "properties" in schema or schema.get("type") == "object":
        keys = set(schema.get("properties", ()))
        if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != keys:
            return False
        inner = [*schema.get("properties", {}).values()]
    else:
        inner = []
    for key in ("items", "anyOf"):
        inner.append(schema.get(key))
    return all(map(_is_strict, [*inner, *schema.get("$defs", {}).values()]))
