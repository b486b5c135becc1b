"""Whether the server lives, and whether it takes work."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from glasshouse.server.body import StrictRoute
from glasshouse.server.service import Front


class Health(BaseModel):
    status: Literal["ok", "draining"]


def router(service: Front) -> APIRouter:
    routes = APIRouter(route_class=StrictRoute, tags=["Operation"])

    @routes.get("/healthz", response_model=Health)
    async def is_alive() -> Response:
        """The process answers."""
        return JSONResponse({"status": "ok"})

    @routes.get("/readyz", response_model=Health, responses={503: {"model": Health}})
    async def is_ready() -> Response:
        """New work is taken; 503 once the server is shutting down."""
        if service.draining:
            return JSONResponse({"status": "draining"}, status_code=503)
        return JSONResponse({"status": "ok"})

    return routes
