"""GET /v1/models in both dialects: Anthropic's clients are known by their header."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from glasshouse.server.body import StrictRoute
from glasshouse.server.call import Call
from glasshouse.server.openai_responses import ErrorResponse
from glasshouse.server.service import Service


class Model(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int


class AnthropicModel(BaseModel):
    id: str
    type: Literal["model"]
    display_name: str
    created_at: str
    lifecycle: Literal["active"]
    max_input_tokens: int
    max_tokens: int


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[Model]


class AnthropicModelList(BaseModel):
    data: list[AnthropicModel]
    has_more: bool
    first_id: str
    last_id: str


def router(service: Service) -> APIRouter:
    routes = APIRouter(route_class=StrictRoute, tags=["OpenAI", "Anthropic"])
    unknown: dict[int | str, dict[str, Any]] = {
        401: {"model": ErrorResponse, "description": "no API key, or an unknown one"},
        404: {"model": ErrorResponse, "description": "no such model"},
    }

    def describe(name: str, call: Call) -> dict[str, Any]:
        if call.dialect == "openai":
            return {
                "id": name,
                "object": "model",
                "created": service.created,
                "owned_by": "glasshouse",
                "max_model_len": service.context,
            }
        return {
            "id": name,
            "type": "model",
            "display_name": name,
            "created_at": datetime.fromtimestamp(service.created, UTC).isoformat(),
            "lifecycle": "active",
            "max_input_tokens": service.context,
            "max_tokens": service.context,
        }

    @routes.get("/v1/models", response_model=ModelList | AnthropicModelList, responses={401: unknown[401]})
    async def list_models(http: Request) -> Response:
        """The model, and once more with each of its adapters."""
        call = Call.of(http.scope)
        data = [describe(name, call) for name in service.models]
        if call.dialect == "openai":
            return JSONResponse({"object": "list", "data": data})
        ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]}
        return JSONResponse({"data": data, "has_more": False, **ends})

    @routes.get("/v1/models/{model:path}", response_model=Model | AnthropicModel, responses=unknown)
    async def read_model(model: str, http: Request) -> Response:
        """One of them. Raises 404 for a name that is not served."""
        service.adapter(model)
        return JSONResponse(describe(model, Call.of(http.scope)))

    return routes
