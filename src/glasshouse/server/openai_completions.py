"""POST /v1/completions: raw prompts, one or many, with `echo` and the scores of the prompt's own tokens.

lm-eval's `local-completions` reads the scores of a whole text from here. It asks for `echo`, `logprobs` and
one new token, and takes it for granted that every prompt token and that new one has a position, that the
first has no score, and that a token's score is the very same number in `token_logprobs` and `top_logprobs`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from glasshouse.inference.request import Event, Finish, PromptRead, Request
from glasshouse.llm import genai
from glasshouse.server import openai_sampling as options
from glasshouse.server.body import StrictRoute
from glasshouse.server.call import Call
from glasshouse.server.openai_requests import CompletionRequest
from glasshouse.server.openai_responses import STREAMED, Completion
from glasshouse.server.prompts import encode_prompts
from glasshouse.server.running import Running
from glasshouse.server.service import Service
from glasshouse.server.sse import COMMENT, EventStream, cancel, event, unless_gone
from glasshouse.server.token_scores import ScoredText

DEFAULT_TOKENS = 16
"""The API's own default of `max_tokens`."""


def router(service: Service) -> APIRouter:
    routes = APIRouter(route_class=StrictRoute, tags=["OpenAI"])

    @routes.post("/v1/completions", response_model=Completion, responses=STREAMED)
    async def create_completion(body: CompletionRequest, http: HttpRequest) -> Response:
        """Texts that continue the prompts; with `stream` as server-sent events."""
        made = await _Completions.begin(service, body, Call.of(http.scope))
        if not body.stream:
            return JSONResponse(await unless_gone(http.receive, made.whole()))
        first = await made.start(0)
        return EventStream(made.stream(first), COMMENT, service.settings.ping, first.abandon)

    return routes


@dataclass
class _Choice:
    """One text as it grows."""

    index: int
    text: str = ""
    new: int = 0
    finish: Finish | None = None
    scored: ScoredText | None = None


@dataclass
class _Completions:
    """One HTTP request: its prompts' requests to the engine, and how their events become OpenAI's."""

    service: Service
    body: CompletionRequest
    call: Call
    requests: list[Request]
    echoes: list[str]  # the text of each prompt
    end_ids: frozenset[int]  # tokens that end a text
    id: str = field(default_factory=lambda: f"cmpl-{secrets.token_hex(16)}")
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    async def begin(cls, service: Service, body: CompletionRequest, call: Call) -> _Completions:
        asked = DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
        call.operation = genai.TEXT_COMPLETION
        options.note(body, call, asked)
        adapter = service.adapter(body.model)
        begins = not body.echo if body.add_special_tokens is None else body.add_special_tokens
        prompts = await encode_prompts(service, body.prompt, begins)
        sampling, stop = options.sampling(body, service), options.stop_texts(body)
        end_ids, grammar = options.stop_ids(body, service), options.grammar(body)
        requests = [
            Request(
                prompt=prompt,
                max_new_tokens=service.new_tokens(len(prompt), asked),
                sampling=sampling,
                n=body.n or 1,
                stop=stop,
                # A lone new token has a position even where it ends the text, so `_add` looks at it instead.
                stop_ids=end_ids if asked > 1 else frozenset(),
                logprobs=body.logprobs,
                prompt_logprobs=body.logprobs if body.echo else None,
                grammar=grammar,
                adapter=adapter,
                timeout=service.settings.request_timeout,
            )
            for prompt in prompts
        ]
        echoes = [service.tokenizer.decode(prompt) if body.echo else "" for prompt in prompts]
        made = cls(service, body, call, requests, echoes, end_ids)
        call.response_id = made.id
        return made

    async def start(self, place: int) -> Running:
        return await self.service.start(self.requests[place], self.call)

    async def whole(self) -> dict[str, Any]:
        """All choices of all prompts. A bounded number of prompts is with the engine at a time."""
        limit = asyncio.Semaphore(self.service.settings.batch_limit)

        async def complete(place: int) -> list[_Choice]:
            async with limit:
                choices = self._choices(place)
                with await self.start(place) as running:
                    async for happened in running.events():
                        self._add(place, choices, happened)
                return choices

        tasks = [asyncio.ensure_future(complete(place)) for place in range(len(self.requests))]
        try:
            choices = [choice for made in await asyncio.gather(*tasks) for choice in made]
        finally:
            await cancel(*tasks)
        return self._head() | {
            "choices": [
                {
                    "index": choice.index,
                    "text": choice.text,
                    "logprobs": choice.scored.told() if choice.scored else None,
                    "finish_reason": self._reason(choice),
                }
                for choice in choices
            ],
            "usage": self._usage(choices),
        }

    async def stream(self, running: Running) -> AsyncGenerator[bytes, None]:
        """Chunks of text, prompt after prompt; the usage if asked for; [DONE]."""
        told: list[_Choice] = []
        try:
            for place in range(len(self.requests)):
                choices = self._choices(place)
                told += choices
                with running if place == 0 else await self.start(place) as current:
                    async for piece in current.written(partial(self._chunks, place, choices)):
                        yield piece
        except Exception as error:
            yield event(self.call.failed(error).body("openai", self.call.id))
            return
        if self.body.stream_options and self.body.stream_options.include_usage:
            yield event(self._head() | {"choices": [], "usage": self._usage(told)})
        yield event("[DONE]")

    def _choices(self, place: int) -> list[_Choice]:
        n, tokenizer = self.requests[place].n, self.service.tokenizer
        made = [_Choice(place * n + choice) for choice in range(n)]
        if self.body.logprobs is not None:
            for choice in made:
                choice.scored = ScoredText(tokenizer)
        return made

    def _add(self, place: int, choices: list[_Choice], happened: Event) -> list[tuple[int, str]]:
        """Take an event in; which of the choices are to be told of it, and with what text."""
        if isinstance(happened, PromptRead):
            if not self.body.echo:
                return []
            prompt, scores = self.requests[place].prompt, happened.scores or ()
            for choice in choices:
                choice.text = self.echoes[place]
                if choice.scored:
                    choice.scored.add(zip(prompt, scores, strict=True))
            return [(index, self.echoes[place]) for index in range(len(choices))]
        choice = choices[happened.choice]
        choice.new += len(happened.ids)
        choice.finish = happened.finish
        text = happened.text
        if choice.scored:
            choice.scored.add((score.id, score) for score in happened.scores)
        if self.requests[place].max_new_tokens == 1 and not self.end_ids.isdisjoint(happened.ids):
            text = ""
            choice.finish = choice.finish and Finish("stop", happened.ids[0])
        choice.text += text
        return [(happened.choice, text)] if text or happened.finish else []

    def _chunks(self, place: int, choices: list[_Choice], happened: Event) -> list[bytes]:
        told = self._add(place, choices, happened)
        return [self._chunk(choices[index], text) for index, text in told]

    def _head(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.body.model,
        }

    def _chunk(self, choice: _Choice, text: str) -> bytes:
        made = {
            "index": choice.index,
            "text": text,
            "logprobs": choice.scored.told() if choice.scored else None,
            "finish_reason": self._reason(choice) if choice.finish else None,
        }
        return event(self._head() | {"choices": [made]})

    def _reason(self, choice: _Choice) -> str:
        reason = "stop" if choice.finish and choice.finish.reason == "stop" else "length"
        self.call.finish_reasons.append(reason)
        self.call.replies.append(choice.text)
        return reason

    def _usage(self, choices: Sequence[_Choice]) -> dict[str, Any]:
        prompt = sum(len(request.prompt) for request in self.requests)
        new = sum(choice.new for choice in choices)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": new,
            "total_tokens": prompt + new,
            "prompt_tokens_details": {"cached_tokens": self.call.cached_tokens},
        }
