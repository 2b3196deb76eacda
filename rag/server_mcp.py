"""/mcp: the tools for other assistants, over HTTP. rag.mcp_server says what they do."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, HTTPException
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from rag.assistant import Assistant
from rag.mcp_server import Context, OverHttp, server_of
from rag.service import Service


class Handed(Response):
    """A response that the MCP server writes."""

    def __init__(self, door: OverHttp) -> None:
        super().__init__()
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._door(scope, receive, send)


def routes(service: Service) -> APIRouter:
    """The one address. A route like the others, so that what is put before them is put before it."""

    def own(context: Context) -> Assistant:
        assert context.request is not None, "over HTTP there is one"
        return service.own(context.request.scope)

    door = OverHttp(server_of(own, partial(service.stream, "mcp")))
    router = APIRouter(lifespan=door.running)

    @router.post("/mcp", include_in_schema=False)
    async def mcp() -> Response:
        return Handed(door)

    @router.api_route("/mcp", methods=["GET", "DELETE"], include_in_schema=False)
    async def sessionless() -> None:
        raise HTTPException(405, "There are no sessions here: nothing to listen to or to end. Send calls with POST.", {"Allow": "POST"})

    return router
