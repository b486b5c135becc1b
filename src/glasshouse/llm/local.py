"""A model folder as an `LLM`: the engine of this package, in this process."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch.nn import functional

from glasshouse.core.errors import DataError, UsageError
from glasshouse.inference import LanguageModel, Sampling
from glasshouse.inference import request as engine_request
from glasshouse.inference.chat import fit
from glasshouse.inference.engine import Engine, EngineSettings
from glasshouse.inference.reply_parser import ReasoningDelta, TextDelta
from glasshouse.inference.reply_plan import ReplyPlan, ToolUse
from glasshouse.inference.reply_stream import ReplyStream
from glasshouse.inference.template_messages import template_messages
from glasshouse.inference.token_names import finite, token_bytes, token_name
from glasshouse.llm.errors import BadRequestError, ContextTooLongError, ServerFaultError
from glasshouse.llm.interface import Capabilities, Chunk, Completion, Note, Request, TokenLogprob, Usage
from glasshouse.tools.definition import ToolDefinition
from glasshouse.tools.formats import ReplyFormat, detect_format

ROWS = 64
"""Texts that are written at once."""


def capabilities(chat_template: str | None) -> Capabilities:
    """Of a model with this template, loaded or not."""
    return Capabilities(
        tools=detect_format(chat_template).calls is not None,
        embeddings=True,
        counts_tokens=True,
        any_schema=True,
    )


class LocalLLM:
    """Replies of a model on this machine. What is asked beside a request cannot change its reply.

    Requests wait in the engine's queue as long as they must. `raw`: texts are told as the model wrote them,
    with its reasoning inside. Close it, or use it in a `with` block.
    """

    def __init__(
        self,
        model: LanguageModel,
        name: str = "local",
        raw: bool = False,
        *,
        cache_bytes: int | None = None,
    ) -> None:
        """`cache_bytes`: ceiling of keys and values; None leaves it to the engine."""
        self.name = name
        settings = EngineSettings(
            max_rows=ROWS, queue_limit=2**31, deterministic=True, cache_bytes=cache_bytes
        )
        self._engine = Engine(model, settings)
        self._form = detect_format(model.tokenizer.chat_template)
        self._read_as = ReplyFormat(self._form.calls, False) if raw else self._form
        self.can = capabilities(model.tokenizer.chat_template)

    @classmethod
    def load(
        cls, folder: str | Path, device: str = "auto", name: str | None = None, raw: bool = False
    ) -> Self:
        """Open a Hugging Face folder or a GGUF file; its path is the name unless another is given."""
        return cls(LanguageModel.load(folder, device=device), name or str(folder), raw)

    @property
    def context(self) -> int | None:
        return self._engine.model.context

    @property
    def model(self) -> LanguageModel:
        """For what an `LLM` is not asked: the probability of a given text."""
        return self._engine.model

    async def complete(self, request: Request) -> Completion:
        """Turns of the user and their answers go, oldest first, from what the context cannot hold.

        Raises ContextTooLongError where the last message alone is too long, BadRequestError for tools or a
        schema that this model cannot follow.
        """
        async for chunk in self.stream(request):
            if chunk.completion is not None:
                return chunk.completion
        raise ServerFaultError("the engine wrote no end of a reply", where=self.name, fix="ask again")

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        model, began, first, cached = self._engine.model, time.perf_counter(), None, 0
        prompt, plan, notes = self._prepared(request)
        given = request.model_dump(include={"temperature", "top_p", "seed"}, exclude_none=True)
        asked = engine_request.Request(
            prompt=tuple(prompt),
            max_new_tokens=request.max_new_tokens,
            sampling=Sampling.parse({"temperature": 0.0, "seed": 0} | given),
            stop=request.stop,
            stop_ids=model.stop_ids,
            logprobs=request.logprobs,
            grammar=plan.grammar,
        )
        reply = ReplyStream(plan.parser(), plan.use.parallel)
        try:
            async for event in self._engine.stream(asked):
                if isinstance(event, engine_request.PromptRead):
                    cached = event.cached
                    continue
                for part in reply.feed(event):
                    if not isinstance(part, TextDelta | ReasoningDelta):
                        continue
                    first = first or time.perf_counter() - began
                    yield Chunk(part.text) if isinstance(part, TextDelta) else Chunk(reasoning=part.text)
        except UsageError as error:  # a grammar that cannot be, for one
            raise BadRequestError(error.what, where=self.name, fix=error.fix) from None
        usage = Usage(len(prompt), reply.new_tokens, cached, reasoning_tokens=reply.reasoning_tokens)
        seconds = time.perf_counter() - began
        yield Chunk(completion=self._completion(request, reply, usage, notes, seconds, first))

    def _completion(
        self,
        request: Request,
        reply: ReplyStream,
        usage: Usage,
        notes: tuple[Note, ...],
        seconds: float,
        first: float | None,
    ) -> Completion:
        finish = reply.finish
        if finish is None or finish.reason not in ("stop", "length"):
            reason = "nothing" if finish is None else finish.reason
            raise ServerFaultError(f"a reply ended with {reason}", where=self.name, fix="ask again")
        return Completion(
            reply.text,
            "tool_calls" if reply.calls and finish.reason == "stop" else finish.reason,
            usage,
            self.name,
            tool_calls=tuple(
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in reply.calls
            ),
            reasoning=reply.reasoning or None,
            logprobs=None if request.logprobs is None else tuple(map(self._named, reply.scores)),
            seconds=seconds,
            first_token_seconds=first,
            notes=notes,
        )

    def _named(self, score: engine_request.TokenScore) -> TokenLogprob:
        tokenizer = self._engine.model.tokenizer

        def named(token: int, logprob: float) -> tuple[str, float]:
            return token_name(token_bytes(tokenizer, token)), finite(logprob)

        return TokenLogprob(*named(score.id, score.logprob), tuple(named(*other) for other in score.top))

    def _prepared(self, request: Request) -> tuple[list[int], ReplyPlan, tuple[Note, ...]]:
        """The prompt's ids, how the reply is held and read, and what was left out."""
        model = self._engine.model
        try:
            use = self._tools(request)
            messages = template_messages(request.messages)
        except UsageError as error:
            raise BadRequestError(error.what, where=self.name, fix=error.fix) from None
        try:
            tools = use.for_template() or None
            prompt, dropped, told = fit(
                model.tokenizer, messages, model.context, request.max_new_tokens, tools
            )
        except UsageError as error:
            raise ContextTooLongError(error.what, where=self.name, fix=error.fix) from None
        except DataError as error:  # of the chat template, which knows no such conversation
            raise BadRequestError(error.what, where=self.name, fix=error.fix) from None
        schema = request.output_schema
        asked = None if schema is None else engine_request.Grammar("json_schema", json.dumps(schema))
        try:
            plan = ReplyPlan.of(model.tokenizer, self._read_as, prompt, use, asked)
        except UsageError as error:
            raise BadRequestError(error.what, where=self.name, fix=error.fix) from None
        return prompt, plan, tuple(Note("local", note, {"dropped": len(dropped)}) for note in told)

    def _tools(self, request: Request) -> ToolUse:
        tools = [ToolDefinition.from_openai(tool) for tool in request.tools]
        match request.tool_choice:
            case "none" | "auto" | "required" as word:
                return ToolUse.of(tools, word, None, parallel=True)
            case None:
                return ToolUse.of(tools, "auto", None, parallel=True)
            case name:
                return ToolUse.of(tools, "required", name, parallel=True)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """The mean of each text's last hidden states, with length one."""
        if not texts:
            return []
        model = self._engine.model
        prompts = [self._ids(text) for text in texts]
        longest = max(map(len, prompts))
        if longest > model.context:
            raise ContextTooLongError(
                f"a text has {longest} tokens, the context holds {model.context}",
                where=self.name,
                fix="shorten it",
            )
        vectors = await asyncio.to_thread(self._engine.embed, prompts)
        return functional.normalize(vectors, dim=-1).tolist()

    def _ids(self, text: str) -> list[int]:
        """A text's ids as the server reads it: it begins a document, and may name special tokens."""
        tokenizer = self._engine.model.tokenizer
        ids = tokenizer.encode_with_special(text)
        return ids if ids and ids[0] == tokenizer.bos_id else [tokenizer.bos_id, *ids]

    async def count_tokens(self, request: Request) -> int:
        """Of the whole conversation, also where the context cannot hold it."""
        try:
            tools: Any = self._tools(request).for_template() or None
            messages = template_messages(request.messages)
            return len(self._engine.model.tokenizer.encode_chat(messages, True, tools).ids)
        except (UsageError, DataError) as error:
            raise BadRequestError(error.what, where=self.name, fix=error.fix) from None

    async def close(self) -> None:
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.close()
