"""The HTTP door: what all its addresses have in common, and the app that holds them. The page is mounted onto this app."""

from __future__ import annotations

import asyncio
import logging
import queue
import socket
import threading
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from index.errors import CitewellError, InvalidQuestion, NotAllowed, NotFetched, OverLimit
from rag import __version__, server_ask, server_documents, server_mcp, server_openai, server_people, server_status
from rag.access import protect
from rag.assistant import Assistant
from rag.headers import SafeHeaders
from rag.login import login_routes
from rag.problems import problem, refusal
from rag.server_replies import NO_STORE, UNEXPECTED, UNPARSED, misunderstood, named, unparsed
from rag.service import Service, Visitors

log = logging.getLogger(__name__)

GRACE_SECONDS = 0.5
"""How long open requests may still take once the server is to stop."""


CONNECTIONS = 1_000
"""So many connections are open at a time; who comes then is told at once that the server is busy, and nobody is left without an answer for want of files."""


class Server(uvicorn.Server):
    """Serves an app until it is told to stop, and then breaks off what is still open: each page that is open keeps a connection for as long as it is.

    uvicorn alone would wait for them, and then report each as an error.
    """

    def __init__(self, app: ASGIApp, certificate: Path | None = None, key: Path | None = None) -> None:
        self._leaving = False

        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await app(scope, receive, send)
            except BaseException:  # that a request was broken off, and whatever is made of that on the way, is no news now
                if not self._leaving:
                    raise

        # What a proxy says of the client is for rag.access to believe or not; uvicorn would believe whoever is on this machine.
        config = uvicorn.Config(
            served,
            log_level="warning",
            log_config=None,  # what rag.logs takes out of the log is taken out of uvicorn's lines too
            timeout_graceful_shutdown=3,
            limit_concurrency=CONNECTIONS,
            proxy_headers=False,
            server_header=False,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        super().__init__(config)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stops serving; called by uvicorn."""
        breaking_off = asyncio.create_task(self._break_off())
        await super().shutdown(sockets)
        breaking_off.cancel()

    async def _break_off(self) -> None:
        await asyncio.sleep(GRACE_SECONDS)
        self._leaving = True
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        # Most requests notice by themselves that nobody listens any more.
        await asyncio.sleep(GRACE_SECONDS / 5)
        for task in list(self.server_state.tasks):
            task.cancel()


class Folder(BaseModel):
    """The body of POST /api/sync and /api/forget: a folder on the machine that serves. `retry` is for sync alone."""

    model_config = ConfigDict(extra="forbid")
    folder: str
    retry: bool = False


class Failures:
    """Logs what no request should raise, and tells it in a plain sentence: uvicorn alone would also cut the connection off, on which the next request may be."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = scope["type"] != "http"

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except CitewellError as error:
            if begun:
                raise
            await problem(scope["path"], str(error), 503)(scope, receive, send)
        except Exception:
            if begun:
                raise
            log.exception("A request failed")
            await problem(scope["path"], UNEXPECTED, 500)(scope, receive, send)


def create_app(assistant: Assistant, visitors: Visitors | None = None) -> FastAPI:
    """The app that answers for one assistant; what its doors share is its `state.service`. Without `visitors`, the assistant's settings say who may come in.

    Raises InvalidSettings where others could reach it and it is not made safe for that.
    """
    visitors = visitors or Visitors(assistant.settings)
    if visitors.accounts is not None:
        threading.Thread(target=visitors.accounts.prepare, name="citewell-accounts", daemon=True).start()
    service = Service(assistant, visitors)
    app = FastAPI(title="Citewell", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.service = service
    # No other site may read anything. Gradio would let every site do so, with cookies, and leaves that be where its parent sees to it.
    app.add_middleware(CORSMiddleware, allow_origins=())
    # The last is the first that a request meets.
    protect(app, assistant.settings, visitors.policy, visitors.accounts, visitors.local_key)
    # A page elsewhere that points its own name at this address must not get to read the documents.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(visitors.policy.hosts), www_redirect=False)
    app.add_middleware(Failures)
    app.add_middleware(SafeHeaders)

    @app.exception_handler(CitewellError)
    def told(request: Request, error: CitewellError) -> Response:
        if isinstance(error, OverLimit):
            return refusal(request.url.path, error)
        known = {InvalidQuestion: 400, NotFetched: 422, NotAllowed: 403}
        return problem(request.url.path, str(error), known.get(type(error), 503))

    @app.exception_handler(RequestValidationError)
    def unread(request: Request, error: RequestValidationError) -> JSONResponse:
        return misunderstood(request.url.path, error)

    @app.exception_handler(StarletteHTTPException)
    def refused(request: Request, error: StarletteHTTPException) -> JSONResponse:
        message = unparsed(request.url.path) if error.detail == UNPARSED else str(error.detail)
        return problem(request.url.path, message, error.status_code, headers=error.headers)

    app.router.routes.extend(login_routes(visitors.policy, visitors.accounts))
    for routes in (
        server_status.routes,
        server_ask.routes,
        server_documents.routes,
        server_people.routes,
        server_openai.routes,
        server_mcp.routes,
        _syncing,
    ):
        app.include_router(routes(service))

    @app.get("/api/openapi.json", include_in_schema=False)
    async def described() -> dict[str, Any]:
        return app.openapi()

    return app


def _syncing(service: Service) -> APIRouter:
    """What the command line asks of the server that owns its store, and what admins may."""
    router = APIRouter()

    @router.post("/api/sync", summary="Make the store match a folder of this machine", response_class=StreamingResponse)
    async def sync(request: Request, asked: Folder) -> StreamingResponse:
        events = _synced(service.own(request.scope), Path(asked.folder), asked.retry)
        return StreamingResponse(events, media_type="text/event-stream", headers=NO_STORE)

    @router.post("/api/forget", summary="Let go of a synced folder")
    def forget(request: Request, asked: Folder) -> dict[str, int]:
        library = service.own(request.scope).library
        try:
            return {"documents": library.forget(Path(asked.folder))}
        except CitewellError as error:
            if type(error) is not CitewellError:
                raise
            raise StarletteHTTPException(404, str(error)) from None

    return router


async def _synced(assistant: Assistant, folder: Path, retry: bool) -> AsyncIterator[str]:
    """Progress and the report as server-sent events; a listener who leaves stops the work, and what is done is kept."""
    left = threading.Event()
    told: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            report = assistant.sync(
                folder,
                lambda done, total, current: told.put(named("progress", {"done": done, "total": total, "current": current})),
                left.is_set,
                retry,
            )
            told.put(named("report", asdict(report)))
        except CitewellError as error:
            told.put(named("error", {"error": str(error)}))
        except Exception:
            log.exception("Syncing failed")
            told.put(named("error", {"error": UNEXPECTED}))
        finally:
            told.put(None)

    threading.Thread(target=work, name="citewell-sync", daemon=True).start()
    try:
        while True:
            try:
                line = await run_in_threadpool(told.get, True, 0.5)
            except queue.Empty:
                yield ": waiting\n\n"  # a listener who left is noticed only when something is sent
                continue
            if line is None:
                return
            yield line
    finally:
        left.set()
