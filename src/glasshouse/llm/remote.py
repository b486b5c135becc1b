"""What the backends behind HTTP share: a client for each event loop, and failures told in our words."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

import httpx2

from glasshouse.llm.errors import LLMError
from glasshouse.llm.http_failures import explain

T = TypeVar("T")
Client = TypeVar("Client")

TIMEOUT = 600.0
"""Seconds without a byte after which a call is given up, by default: what both providers' SDKs allow."""

CONNECT = 10.0
"""Seconds for a connection; a server that is there answers much sooner."""


def patience(seconds: float) -> httpx2.Timeout:
    return httpx2.Timeout(seconds, connect=min(seconds, CONNECT))


class Remote(Generic[Client]):
    """The base of a backend. Connections belong to the event loop in which they were opened, so that each
    loop gets a client of its own. Keys are known to the clients alone, and taken out of every message."""

    def __init__(
        self,
        name: str,
        make: Callable[[], Client],
        shut: Callable[[Client], Awaitable[None]],
        secrets: Iterable[str | None] = (),
        context: int | None = None,
    ) -> None:
        self.name, self._context = name, context
        self._make, self._shut = make, shut
        self._secrets = tuple(secret for secret in secrets if secret)
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, Client] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @property
    def context(self) -> int | None:
        return self._context

    @property
    def client(self) -> Client:
        """The SDK's own client, of the running event loop."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = self._make()
        return client

    async def asked(self, call: Awaitable[T]) -> T:
        """What the call returns; raises LLMError.

        It is raised outside of the `except`: an SDK's error holds the request and with it the key, so that
        it must not hang on ours, where a tool that reports errors would find it.
        """
        try:
            return await call
        except Exception as error:
            failure = self.explain(error)
        raise failure

    def explain(self, error: Exception, text: str = "", begun: bool = False) -> LLMError:
        """What the error means. Called in an `except`; one that is no failure of a call goes on."""
        failure = explain(error, self.name, self._secrets, text, begun)
        if failure is None:
            raise
        return failure

    async def close(self) -> None:
        """Close the connections, those of other event loops as well as far as these still run."""
        here = asyncio.get_running_loop()
        clients, self._clients = list(self._clients.items()), WeakKeyDictionary()
        for loop, client in clients:
            if loop is here:
                await self._shut(client)
            elif loop.is_running():
                asyncio.run_coroutine_threadsafe(self._ended(client), loop)

    async def _ended(self, client: Client) -> None:
        await self._shut(client)
