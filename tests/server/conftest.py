"""A real server over a real socket, with a tiny random model behind it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection
from io import StringIO
from typing import Any

import pytest
import torch
import uvicorn

from glasshouse.inference import LanguageModel
from glasshouse.inference.engine import Engine, EngineSettings
from glasshouse.model import ModelConfig, Transformer, initialise
from glasshouse.server.app import build
from glasshouse.server.keys import Keys
from glasshouse.server.logs import RequestLog
from glasshouse.server.service import Service
from glasshouse.server.settings import ServerSettings
from glasshouse.tokenizer import Tokenizer

TEXTS = [
    "Ada Moor was born in Tarnhaven. She keeps an owl.",
    "Où est née Zoé? Née à Ünterwald — vérité, naïveté, 日本語, 🦉🦉.",
    'To be, or not to be: {"name": "Ada", "age": 36}',
]


@dataclass
class Answer:
    """What came back over the socket."""

    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]

    @property
    def events(self) -> list[tuple[str | None, Any]]:
        """Server-sent events: (name, data), the data read as JSON unless it is [DONE]."""
        events = []
        for block in self.body.decode("utf-8").split("\n\n"):
            lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if "data" in lines:
                data = lines["data"]
                events.append((lines.get("event"), data if data == "[DONE]" else json.loads(data)))
        return events


class Running:
    """A server in a thread of this process."""

    def __init__(self, service: Service, log: StringIO, keys: Keys) -> None:
        self.service, self.log = service, log
        self.app = build(service, keys, RequestLog(service.settings.log_content, log))
        config = uvicorn.Config(self.app, host="127.0.0.1", port=0, log_level="error")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._server.serve()), daemon=True)
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.005)
        self.port: int = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """One request on a connection of its own; a body that is not bytes is sent as JSON."""
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, raw, {"content-type": "application/json", **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def post(self, path: str, **body: Any) -> Answer:
        return self.ask("POST", path, {"model": "tiny", **body})

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, headers)

    def logged(self, request_id: str) -> dict[str, Any]:
        """The line of a request in the log; it is written after the answer, so it may take a moment."""
        for _ in range(1000):
            for line in self.log.getvalue().splitlines():
                if (told := json.loads(line)).get("request_id") == request_id and told["event"] == "request":
                    return told
            time.sleep(0.005)
        raise AssertionError(f"{request_id} is not in the log")

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)


def make_model(seed: int = 0, context: int = 256, vocab: int = 320) -> LanguageModel:
    tokenizer = Tokenizer.train(TEXTS * 3, vocab_size=vocab)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        head_dim=16,
        max_position_embeddings=context,
    )
    return LanguageModel(awake(config, seed), tokenizer)


def awake(config: ModelConfig, seed: int = 0) -> Transformer:
    """Random weights everywhere: a new model's output projections are zero."""
    model = initialise(config, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


@contextmanager
def serving(
    model: LanguageModel, keys: Keys | None = None, engine: EngineSettings | None = None, **settings: object
) -> Iterator[Running]:
    service = Service(Engine(model, engine), "tiny", ServerSettings.parse(settings))
    running = Running(service, StringIO(), keys or Keys())
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def model() -> LanguageModel:
    return make_model()


@pytest.fixture(scope="session")
def server(model: LanguageModel) -> Iterator[Running]:
    with serving(model) as running:
        yield running
