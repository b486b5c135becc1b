"""What a server is told at its start. Everything that bounds a stranger's request stands here."""

from __future__ import annotations

from pydantic import Field

from glasshouse.core.config import Config


class ServerSettings(Config):
    """Limits and habits of one server."""

    host: str = Field("127.0.0.1", description="address; any other than loopback requires keys")
    port: int = Field(8000, ge=0, le=65535, description="0: any free one")
    body_limit: int = Field(8 * 2**20, ge=1024, description="bytes of a request's body")
    body_timeout: float = Field(20.0, gt=0, description="seconds for a body to arrive")
    request_timeout: float = Field(600.0, gt=0, description="seconds from a request to the end of its reply")
    max_new_tokens: int | None = Field(None, ge=1, description="ceiling of one choice; None: the context's")
    batch_limit: int = Field(
        64, ge=1, description="prompts of one request that are with the engine at a time"
    )
    drain: float = Field(30.0, ge=0, description="seconds that running replies get after SIGTERM")
    ping: float = Field(15.0, gt=0, description="seconds of silence after which a stream says that it lives")
    log_content: bool = Field(False, description="whether logs hold what was asked and answered")
    traces: str | None = Field(None, description="spans: 'console', 'otlp', or a file for JSON lines")
