"""POST /v1/embeddings: the mean of a text's last hidden states, with length one."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from torch import Tensor
from torch.nn import functional

from glasshouse.llm import genai
from glasshouse.server.body import StrictRoute
from glasshouse.server.call import Call
from glasshouse.server.errors import bad_request
from glasshouse.server.openai_requests import EmbeddingRequest
from glasshouse.server.openai_responses import ERRORS, Embeddings
from glasshouse.server.prompts import encode_prompts
from glasshouse.server.service import Service
from glasshouse.server.sse import unless_gone

WAITERS = 64
"""Threads that wait for vectors: their own, so that nothing else waits behind them."""


def router(service: Service) -> APIRouter:
    routes = APIRouter(route_class=StrictRoute, tags=["OpenAI"])
    waiters = ThreadPoolExecutor(WAITERS, thread_name_prefix="embed")

    async def embed(prompts: Sequence[Sequence[int]]) -> Tensor:
        return await asyncio.get_running_loop().run_in_executor(waiters, service.engine.embed, prompts)

    @routes.post("/v1/embeddings", response_model=Embeddings, responses=ERRORS)
    async def create_embeddings(body: EmbeddingRequest, http: HttpRequest) -> Response:
        """A vector for each text."""
        call = Call.of(http.scope)
        call.operation, call.model = genai.EMBEDDINGS, body.model
        body.note(call)
        if service.adapter(body.model) is not None:
            raise bad_request("vectors are made by the model without its adapters", "model")
        width = service.model.model.config.hidden_size
        if body.dimensions is not None and body.dimensions > width:
            raise bad_request(f"this model's vectors have {width} dimensions", "dimensions")
        prompts = await encode_prompts(service, body.input, begins=True)
        call.prompt_tokens = sum(map(len, prompts))
        with call.with_engine():
            made = await unless_gone(http.receive, embed(prompts))
        vectors = functional.normalize(made[:, : body.dimensions], dim=-1)
        data = [
            {"object": "embedding", "index": index, "embedding": _told(vector, body.encoding_format)}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": call.prompt_tokens, "total_tokens": call.prompt_tokens}
        return JSONResponse({"object": "list", "model": body.model, "data": data, "usage": usage})

    return routes


def _told(vector: Tensor, encoding: str | None) -> list[float] | str:
    if encoding == "base64":
        return base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode("ascii")
    return vector.tolist()
