"""The server as a process: its socket, its signals, and how it ends.

SIGTERM or Ctrl-C: /readyz turns 503, new work is refused, and what runs may end within `drain` seconds; then
the rest is cancelled. A second signal ends at once.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType

import torch
import uvicorn
from starlette.types import ASGIApp

from glasshouse.core.errors import UsageError
from glasshouse.inference.native_runner import NativeRunner
from glasshouse.server.service import Front, Service

BACKLOG = 2048
"""Connections that may wait to be accepted."""

KEEP_ALIVE = 65
"""Seconds that an idle connection stays open: longer than those in the pools of common clients."""


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes any free one. Raises UsageError where that is not possible."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}, port {port}: {error.strerror}", fix="choose another with --port"
        ) from None
    return bound


class Process(uvicorn.Server):
    """Runs an application until a signal."""

    def __init__(self, app: ASGIApp, service: Front, started: Callable[[], None] = lambda: None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,  # our own log has a line for every request
                access_log=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=5,
                server_header=False,
            )
        )
        self.service, self._tell = service, started
        self._until: float | None = None  # when what still runs is cancelled

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._tell()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._until is not None:
            self.force_exit = self.should_exit = True
            return
        self.service.draining = True
        self._until = time.monotonic() + self.service.settings.drain

    async def on_tick(self, counter: int) -> bool:
        if self._until is not None and not self.should_exit:
            late = time.monotonic() >= self._until
            if late:
                await self.service.close()  # ends every stream with an error
            self.should_exit = late or self.service.in_flight == 0
        return await super().on_tick(counter)


SWITCH = 0.0005
"""Seconds after which a thread must let another one run Python; the interpreter's own 0.005 is more than the
engine needs for a token, and a reply alone would wait for it with every one."""


def run(process: Process, bound: socket.socket) -> None:
    """Serve until the end. More open files are allowed first: every client is one.

    Where the native runner has threads of its own, PyTorch's would only wait awake beside them.
    """
    sys.setswitchinterval(SWITCH)
    service = process.service
    if isinstance(service, Service) and isinstance(service.engine.runner, NativeRunner):
        torch.set_num_threads(1)
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on Windows; not where it is forbidden
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    process.run(sockets=[bound])
