"""A server on loopback that speaks the providers' wire formats by a script, faults included.

OpenAI's chat completions and embeddings, Anthropic's messages and count_tokens, Ollama's /api/chat,
/api/embed and /api/show; each of the chats whole and streamed. It is written on bare sockets, because half
of what it must do (resets, half a reply, JSON that ends too early) no framework lets one do.

    wire.script(rate_limited("2"), Reply("Yes."))       one outcome a call; the last one answers for ever
    wire.script(lambda asked: ...)                      or a function of the call
    wire.asked[0].body["messages"]                      what came in, headers and all
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

CHATS = ("/v1/chat/completions", "/v1/messages", "/api/chat")
"""The calls that `script` is about, unless it is told another path."""


@dataclass
class Asked:
    """A request as it came in; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any

    @property
    def streamed(self) -> bool:
        return self.body.get("stream", self.path == "/api/chat")


@dataclass(frozen=True)
class Reply:
    """What the model says. Streamed, every word is a piece. `tool_calls`: (name, arguments as text).

    `usage`: prompt tokens, new tokens, of the prompt from the cache; None: words are counted. `cut` stops
    after so many pieces: "closed" ends the stream in good form but without its end, "broken" in the middle of
    the transfer, "error" with the provider's error event, "not json" with an event that cannot be read. A
    reply that is not streamed is then sent in part.
    """

    text: str = "Yes."
    tool_calls: tuple[tuple[str, str], ...] = ()
    refusal: str | None = None
    reasoning: str | None = None
    finish: str | None = None  # the provider's own word; None: the usual one
    usage: tuple[int, int, int] | None = None
    logprobs: tuple[float, ...] = ()  # one for each word of the text
    seconds: float = 0.0  # before the first byte
    cut: int | None = None
    how: Literal["closed", "broken", "error", "not json"] = "broken"


@dataclass(frozen=True)
class Raw:
    """Any other answer: its status, headers and body. `reset` throws the connection away instead."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    reset: bool = False


def failure(
    status: int,
    message: str = "scripted",
    *,
    kind: str = "scripted_error",
    code: str | None = None,
    param: str | None = None,
    **headers: str,
) -> Raw:
    """An error in a shape that both SDKs read. Header names are written with _ for -."""
    error = {"type": kind, "message": message, "code": code, "param": param}
    body = {"type": "error", "error": error, "request_id": "req_scripted"}
    return Raw(status, json.dumps(body).encode(), {k.replace("_", "-"): v for k, v in headers.items()})


def rate_limited(after: str | None = None, **headers: str) -> Raw:
    told = headers if after is None else {"retry_after": after, **headers}
    return failure(429, "too many requests", kind="rate_limit_error", code="rate_limit_exceeded", **told)


def server_fault(status: int = 500) -> Raw:
    """500, 502, 503; 529 is Anthropic's "overloaded"."""
    return failure(status, "internal trouble", kind="overloaded_error" if status == 529 else "api_error")


def unauthorized() -> Raw:
    return failure(401, "incorrect key", kind="authentication_error", code="invalid_api_key")


def unsupported(parameter: str) -> Raw:
    """What OpenAI says when a model has no such setting."""
    message = f"Unsupported parameter: '{parameter}' is not supported with this model."
    return failure(400, message, kind="invalid_request_error", code="unsupported_parameter", param=parameter)


def too_long() -> Raw:
    message = (
        "This model's maximum context length is 100 tokens; prompt is too long: 200 tokens > 100 maximum"
    )
    return failure(
        400, message, kind="invalid_request_error", code="context_length_exceeded", param="messages"
    )


def reset() -> Raw:
    return Raw(reset=True)


def slow(seconds: float) -> Reply:
    return Reply(seconds=seconds)


def half(pieces: int = 1, how: Literal["closed", "broken", "error", "not json"] = "broken") -> Reply:
    """A reply of three words that stops after `pieces` of them."""
    return Reply("One two three.", cut=pieces, how=how)


def not_json() -> Raw:
    return Raw(200, b'{"id": "x", "choices": [', {"content-type": "application/json"})


def unexpected() -> Raw:
    """JSON, but of no reply."""
    return Raw(200, b'{"hello": "world"}', {"content-type": "application/json"})


def refused(words: str = "I cannot help with that.") -> Reply:
    return Reply("", refusal=words)


def unknown_tool() -> Reply:
    return Reply("", tool_calls=(("no_such_tool", '{"x": 1}'),))


def broken_arguments(name: str) -> Reply:
    """A call of a tool that exists, whose arguments are JSON but not what its schema asks for."""
    return Reply("", tool_calls=((name, '{"no_such_argument": []}'),))


Step = Reply | Raw


class Wire:
    """The server, in a thread of its own from `start` to `stop`."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.open = self.most_at_once = 0
        self._scripts: dict[str | None, list[Step | Callable[[Asked], Step]]] = {None: [Reply()]}
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait()

    @property
    def url(self) -> str:
        """Without a path, as Anthropic's SDK and Ollama want it; OpenAI's wants `url` + "/v1"."""
        return f"http://127.0.0.1:{self.port}"

    def script(self, *steps: Step | Callable[[Asked], Step], path: str | None = None) -> None:
        """What to answer from now on, to chats or to calls of `path`."""
        self._scripts[path] = list(steps)

    def chats(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.path in CHATS]

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)

    def _run(self, started: threading.Event) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        server = loop.run_until_complete(asyncio.start_server(self._connection, "127.0.0.1", 0))
        self.port: int = server.sockets[0].getsockname()[1]
        started.set()
        loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._call(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, as clients do
        finally:
            writer.close()

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; whether the connection may be used again."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        asked = Asked(method, path.partition("?")[0], headers, json.loads(raw) if raw else None)
        self.asked.append(asked)
        self.open += 1
        self.most_at_once = max(self.most_at_once, self.open)
        try:
            step = self._step(asked)
            if step.seconds:
                await asyncio.sleep(step.seconds)
            if isinstance(step, Raw):
                return await _send_raw(writer, step)
            if asked.streamed:
                return await _send_stream(writer, asked, step)
            body = json.dumps(_whole(asked, step)).encode()
            if step.cut is not None:
                return await _send_part(writer, body, step.how)
            return await _send_raw(writer, Raw(body=body, headers={"content-type": "application/json"}))
        finally:
            self.open -= 1

    def _step(self, asked: Asked) -> Step:
        script = self._scripts.get(asked.path) or (self._scripts[None] if asked.path in CHATS else None)
        if script is None:
            return _other(asked)
        step = script.pop(0) if len(script) > 1 else script[0]
        return step if isinstance(step, Reply | Raw) else step(asked)


async def _send_raw(writer: asyncio.StreamWriter, raw: Raw) -> bool:
    if raw.reset:
        # Linger 0: the kernel sends a reset instead of a farewell.
        pair = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pair)
        writer.transport.abort()
        return False
    _head(writer, raw.status, {"content-type": "application/json", **raw.headers}, len(raw.body))
    writer.write(raw.body)
    await writer.drain()
    return True


async def _send_part(writer: asyncio.StreamWriter, body: bytes, how: str) -> bool:
    """Half a body that was promised whole; or, as a whole, half a JSON text."""
    cut = body[: len(body) // 2]
    promised = len(body) if how == "broken" else len(cut)
    _head(writer, 200, {"content-type": "application/json"}, promised)
    writer.write(cut)
    await writer.drain()
    return how != "broken"


async def _send_stream(writer: asyncio.StreamWriter, asked: Asked, reply: Reply) -> bool:
    kind = "application/x-ndjson" if asked.path == "/api/chat" else "text/event-stream"
    _head(writer, 200, {"content-type": kind}, None)
    pieces, ending = _pieces(asked, reply)
    events = [*pieces, *ending] if reply.cut is None else _cut(asked, reply, pieces)
    for event in events:
        writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
        await writer.drain()
    if reply.cut is not None and reply.how == "broken":
        writer.write(b"40\r\ndata: {")  # promises more bytes than come
        await writer.drain()
        return False
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


def _head(writer: asyncio.StreamWriter, status: int, headers: dict[str, str], length: int | None) -> None:
    given = {"x-request-id": "req_scripted", "request-id": "req_scripted", **headers}
    given["transfer-encoding" if length is None else "content-length"] = (
        "chunked" if length is None else str(length)
    )
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in given.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))


def _cut(asked: Asked, reply: Reply, pieces: list[bytes]) -> list[bytes]:
    """The pieces of the text up to the cut, and what comes instead of the rest."""
    opening = {"/v1/chat/completions": 1, "/v1/messages": 2, "/api/chat": 0}[asked.path]
    kept = pieces[: opening + (reply.cut or 0)]
    if reply.how == "error":
        error = {"type": "overloaded_error", "message": "overloaded", "code": "overloaded"}
        whole = {"type": "error", "error": error}
        kept.append(
            _line({"error": "overloaded"})
            if asked.path == "/api/chat"
            else _event(whole, "error")
            if asked.path == "/v1/messages"
            else _event(whole)
        )
    if reply.how == "not json":
        event = b"event: content_block_delta\n" if asked.path == "/v1/messages" else b""
        kept.append(b'{"mess\n' if asked.path == "/api/chat" else event + b'data: {"choi\n\n')
    return kept


def _event(data: dict[str, Any], name: str | None = None) -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()


def _line(data: dict[str, Any]) -> bytes:
    return json.dumps(data).encode() + b"\n"


def words(text: str) -> list[str]:
    """Each with the space behind it, as they are streamed."""
    parts = text.split(" ")
    return [part + " " for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def prompt_words(body: dict[str, Any]) -> int:
    """What this server calls the tokens of a prompt: the words of all its strings named text or content."""

    def count(value: Any, key: str = "") -> int:
        if isinstance(value, dict):
            return sum(count(v, k) for k, v in value.items())
        if isinstance(value, list):
            return sum(count(v, key) for v in value)
        return len(value.split()) if isinstance(value, str) and key in ("content", "text", "system") else 0

    return count(body.get("messages", [])) + count(body.get("system", ""), "system")


def _usage(asked: Asked, reply: Reply) -> tuple[int, int, int]:
    return reply.usage or (prompt_words(asked.body), max(1, len(words(reply.text))), 0)


def _whole(asked: Asked, reply: Reply) -> dict[str, Any]:
    if asked.path == "/v1/messages":
        return _anthropic(asked, reply)
    return _ollama(asked, reply) if asked.path == "/api/chat" else _openai(asked, reply)


def _pieces(asked: Asked, reply: Reply) -> tuple[list[bytes], list[bytes]]:
    """(the opening and the pieces of text, what follows them)."""
    if asked.path == "/v1/messages":
        return _anthropic_pieces(asked, reply)
    return _ollama_pieces(asked, reply) if asked.path == "/api/chat" else _openai_pieces(asked, reply)


# OpenAI --------------------------------------------------------------------------------------------------


def _openai_calls(reply: Reply) -> list[dict[str, Any]]:
    return [
        {
            "index": at,
            "id": f"call_{at}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        for at, (name, arguments) in enumerate(reply.tool_calls)
    ]


def _openai_usage(asked: Asked, reply: Reply) -> dict[str, Any]:
    prompt, new, cached = _usage(asked, reply)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": new,
        "total_tokens": prompt + new,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": len((reply.reasoning or "").split())},
    }


def _openai_finish(reply: Reply) -> str:
    return reply.finish or ("tool_calls" if reply.tool_calls else "stop")


def _openai_logprobs(reply: Reply) -> dict[str, Any] | None:
    if not reply.logprobs:
        return None
    pairs = zip(words(reply.text), reply.logprobs, strict=True)
    entry = [
        {
            "token": word,
            "logprob": value,
            "bytes": list(word.encode()),
            "top_logprobs": [
                {"token": word, "logprob": value, "bytes": None},
                {"token": "no", "logprob": -9.0, "bytes": None},
            ],
        }
        for word, value in pairs
    ]
    return {"content": entry, "refusal": None}


def _openai(asked: Asked, reply: Reply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None, "refusal": reply.refusal}
    if reply.tool_calls:
        message["tool_calls"] = [
            {k: v for k, v in call.items() if k != "index"} for call in _openai_calls(reply)
        ]
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": _openai_finish(reply),
        "logprobs": _openai_logprobs(reply),
    }
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": 1,
        "model": f"{asked.body['model']}-as-served",
        "choices": [choice],
        "usage": _openai_usage(asked, reply),
    }


def _openai_pieces(asked: Asked, reply: Reply) -> tuple[list[bytes], list[bytes]]:
    def chunk(
        delta: dict[str, Any], finish: str | None = None, logprobs: dict[str, Any] | None = None
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
        return _event({**head, "choices": [choice]})

    head = {
        "id": "chatcmpl-scripted",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": f"{asked.body['model']}-as-served",
    }
    told = (_openai_logprobs(reply) or {"content": []})["content"]
    pieces = [chunk({"role": "assistant", "content": ""})]
    pieces += [chunk({"reasoning_content": word}) for word in words(reply.reasoning or "")]
    pieces += [
        chunk({"content": word}, logprobs={"content": told[at : at + 1], "refusal": None} if told else None)
        for at, word in enumerate(words(reply.text))
    ]
    ending = [chunk({"refusal": word}) for word in words(reply.refusal or "")]
    for call in _openai_calls(reply):
        named = {**call, "function": {"name": call["function"]["name"], "arguments": ""}}
        ending.append(chunk({"tool_calls": [named]}))
        ending += [
            chunk({"tool_calls": [{"index": call["index"], "function": {"arguments": letter}}]})
            for letter in call["function"]["arguments"]
        ]
    ending.append(chunk({}, _openai_finish(reply)))
    if (asked.body.get("stream_options") or {}).get("include_usage"):
        ending.append(_event({**head, "choices": [], "usage": _openai_usage(asked, reply)}))
    return pieces, [*ending, b"data: [DONE]\n\n"]


# Anthropic -----------------------------------------------------------------------------------------------


def _anthropic_blocks(reply: Reply) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if reply.reasoning:
        blocks.append({"type": "thinking", "thinking": reply.reasoning, "signature": "c2lnbmVk"})
    if reply.text:
        blocks.append({"type": "text", "text": reply.text})
    for at, (name, arguments) in enumerate(reply.tool_calls):
        blocks.append({"type": "tool_use", "id": f"toolu_{at}", "name": name, "input": json.loads(arguments)})
    return blocks


def _anthropic_usage(asked: Asked, reply: Reply) -> dict[str, Any]:
    prompt, new, cached = _usage(asked, reply)
    return {
        "input_tokens": prompt - cached,
        "output_tokens": new,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": 0,
    }


def _anthropic_stop(reply: Reply) -> tuple[str, dict[str, Any] | None]:
    if reply.refusal is not None:
        return "refusal", {"type": "refusal", "category": "cyber", "explanation": reply.refusal}
    return reply.finish or ("tool_use" if reply.tool_calls else "end_turn"), None


def _anthropic(asked: Asked, reply: Reply) -> dict[str, Any]:
    reason, details = _anthropic_stop(reply)
    return {
        "id": "msg_scripted",
        "type": "message",
        "role": "assistant",
        "model": f"{asked.body['model']}-as-served",
        "content": _anthropic_blocks(reply),
        "stop_reason": reason,
        "stop_details": details,
        "stop_sequence": None,
        "usage": _anthropic_usage(asked, reply),
    }


def _anthropic_pieces(asked: Asked, reply: Reply) -> tuple[list[bytes], list[bytes]]:
    def event(kind: str, **data: Any) -> bytes:
        return _event({"type": kind, **data}, kind)

    def delta(at: int, **data: Any) -> bytes:
        return event("content_block_delta", index=at, delta=data)

    whole = _anthropic(asked, reply)
    usage = {**whole["usage"], "output_tokens": 1}
    opened = {**whole, "content": [], "stop_reason": None, "stop_details": None, "usage": usage}
    pieces = [event("message_start", message=opened)]
    for at, block in enumerate(whole["content"]):
        kind = block["type"]
        empty = {
            "text": {"text": ""},
            "thinking": {"thinking": "", "signature": ""},
            "tool_use": {"input": {}},
        }
        pieces.append(event("content_block_start", index=at, content_block={**block, **empty[kind]}))
        if kind == "text":
            pieces += [delta(at, type="text_delta", text=word) for word in words(block["text"])]
        elif kind == "thinking":
            pieces += [delta(at, type="thinking_delta", thinking=word) for word in words(block["thinking"])]
            pieces.append(delta(at, type="signature_delta", signature=block["signature"]))
        else:
            arguments = json.dumps(block["input"])
            pieces += [delta(at, type="input_json_delta", partial_json=letter) for letter in arguments]
        pieces.append(event("content_block_stop", index=at))
    stop = {"stop_reason": whole["stop_reason"], "stop_sequence": None, "stop_details": whole["stop_details"]}
    told = {"output_tokens": whole["usage"]["output_tokens"]}
    return pieces, [event("message_delta", delta=stop, usage=told), event("message_stop")]


# Ollama --------------------------------------------------------------------------------------------------


def _ollama(asked: Asked, reply: Reply) -> dict[str, Any]:
    prompt, new, _ = _usage(asked, reply)
    message: dict[str, Any] = {"role": "assistant", "content": reply.text}
    if reply.reasoning:
        message["thinking"] = reply.reasoning
    if reply.tool_calls:
        message["tool_calls"] = [
            {"function": {"name": name, "arguments": json.loads(arguments)}}
            for name, arguments in reply.tool_calls
        ]
    if reply.logprobs:
        told = (_openai_logprobs(reply) or {})["content"]
        return {**_ollama_end(asked, reply, prompt, new), "message": message, "logprobs": told}
    return {**_ollama_end(asked, reply, prompt, new), "message": message}


def _ollama_end(asked: Asked, reply: Reply, prompt: int, new: int) -> dict[str, Any]:
    return {
        "model": asked.body["model"],
        "created_at": "2026-01-01T00:00:00Z",
        "done": True,
        "done_reason": reply.finish or "stop",
        "prompt_eval_count": prompt,
        "eval_count": new,
    }


def _ollama_pieces(asked: Asked, reply: Reply) -> tuple[list[bytes], list[bytes]]:
    def line(**message: Any) -> bytes:
        said = {"role": "assistant", "content": "", **message}
        return _line({"model": asked.body["model"], "created_at": "x", "message": said, "done": False})

    whole = _ollama(asked, reply)
    pieces = [line(thinking=word) for word in words(reply.reasoning or "")]
    pieces += [line(content=word) for word in words(reply.text)]
    ending = [line(tool_calls=whole["message"]["tool_calls"])] if reply.tool_calls else []
    return pieces, [*ending, _line({**whole, "message": {"role": "assistant", "content": ""}})]


# What is no chat -----------------------------------------------------------------------------------------


def vector(text: str) -> list[float]:
    return [float(len(text)), float(text.count(" ")), 1.0]


def _other(asked: Asked) -> Raw:
    """Vectors, counts and descriptions, unless a script for their path says otherwise."""
    body = asked.body or {}
    if asked.path == "/v1/embeddings":
        texts: Iterable[str] = [body["input"]] if isinstance(body["input"], str) else body["input"]
        data = [{"object": "embedding", "index": at, "embedding": vector(t)} for at, t in enumerate(texts)]
        answer: Any = {
            "object": "list",
            "model": body["model"],
            "data": data[::-1],  # in another order: the index counts
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        }
    elif asked.path == "/v1/messages/count_tokens":
        answer = {"input_tokens": prompt_words(body)}
    elif asked.path == "/api/embed":
        answer = {"model": body["model"], "embeddings": [vector(text) for text in body["input"]]}
    elif asked.path == "/api/show":
        answer = {
            "model_info": {"general.architecture": "qwen3", "qwen3.context_length": 40960},
            "capabilities": ["completion", "tools"],
            "parameters": 'num_ctx 8192\nstop "<|im_end|>"',
        }
    else:
        return failure(404, f"no such path: {asked.path}", kind="not_found_error")
    return Raw(body=json.dumps(answer).encode(), headers={"content-type": "application/json"})
