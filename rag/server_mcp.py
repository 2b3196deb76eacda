"""/mcp: the tools for other assistants, over HTTP. rag.mcp_server says what they do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from rag.assistant import Assistant
from rag.service import Service

if TYPE_CHECKING:
    from rag.mcp_server import Context, OverHttp

log = logging.getLogger(__name__)


class Door:
    """The MCP server, made when its first request comes: its package takes seconds to import, and most servers are never asked by it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._wanted: asyncio.Event
        self._made: asyncio.Future[OverHttp]

    @asynccontextmanager
    async def running(self, app: Any = None) -> AsyncIterator[None]:
        """For the lifespan of an app. A task of its own begins and ends the server, as what it opens must be closed where it was opened."""
        self._wanted, self._made = asyncio.Event(), asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._serve())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self._made.cancel()

    async def _serve(self) -> None:
        while True:
            await self._wanted.wait()
            try:
                door = await asyncio.to_thread(self._new)
                async with door.running():
                    self._made.set_result(door)
                    await asyncio.Event().wait()
            except Exception as error:
                log.exception("The MCP door could not be opened")
                if self._made.done():
                    return
                self._made.set_exception(error)
                self._made.exception()  # it was told; that nobody waits any more is no fault
                self._wanted.clear()
                self._made = asyncio.get_running_loop().create_future()  # the next request tries again

    def _new(self) -> OverHttp:
        from rag.mcp_server import OverHttp, server_of

        return OverHttp(server_of(self._own, partial(self._service.stream, "mcp")))

    def _own(self, context: Context) -> Assistant:
        assert context.request is not None, "over HTTP there is one"
        return self._service.own(context.request.scope)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._wanted.set()
        made = await asyncio.shield(self._made)  # others wait for it, too
        await made(scope, receive, send)


class Handed(Response):
    """A response that the MCP server writes."""

    def __init__(self, door: Door) -> None:
        super().__init__()
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._door(scope, receive, send)


def routes(service: Service) -> APIRouter:
    """The one address. A route like the others, so that what is put before them is put before it."""
    door = Door(service)
    router = APIRouter(lifespan=door.running)

    @router.post("/mcp", include_in_schema=False)
    async def mcp() -> Response:
        return Handed(door)

    @router.api_route("/mcp", methods=["GET", "DELETE"], include_in_schema=False)
    async def sessionless() -> None:
        raise HTTPException(405, "There are no sessions here: nothing to listen to or to end. Send calls with POST.", {"Allow": "POST"})

    return router
