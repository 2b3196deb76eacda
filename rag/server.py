"""The HTTP door: the same answers as ask(), as JSON or as a stream of server-sent events. The page is mounted onto this app."""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import uvicorn
from anyio import to_thread
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from index.errors import CitewellError, InvalidQuestion, NotAllowed, OverLimit
from rag.assistant import Assistant
from rag.library import listing
from rag.limits import refusal
from rag.settings import problem_told
from rag.types import Answer, Event, Evidence, Token, Turn

log = logging.getLogger(__name__)

GRACE_SECONDS = 0.5
"""How long open requests may still take once the server is to stop."""


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
            timeout_graceful_shutdown=3,
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


class AskedTurn(BaseModel):
    """One earlier message."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["user", "assistant"]
    text: str


class Asked(BaseModel):
    """The body of POST /api/ask. `documents` narrows to ids or sources."""

    model_config = ConfigDict(extra="forbid")
    question: str
    history: list[AskedTurn] = []
    documents: list[str] | None = None


class Folder(BaseModel):
    """The body of POST /api/sync and /api/forget: a folder on the machine that serves. `retry` is for sync alone."""

    model_config = ConfigDict(extra="forbid")
    folder: str
    retry: bool = False


class OwnPagesOnly:
    """Refuses what pages of other sites send.

    Browsers say where a request comes from; a page elsewhere must not start work here, even where it could not read the answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            site = Headers(scope=scope).get("sec-fetch-site", "none")
            if site not in ("same-origin", "none"):
                return await JSONResponse({"error": "This is not for pages of other sites."}, 403)(scope, receive, send)
        await self.app(scope, receive, send)


def create_app(assistant: Assistant) -> FastAPI:
    """The app that answers for one assistant, to this machine alone."""
    app = FastAPI(title="Citewell", docs_url=None, redoc_url=None, openapi_url=None)
    # A page elsewhere that points its own name at 127.0.0.1 must not get to read the documents.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])

    app.add_middleware(OwnPagesOnly)

    @app.exception_handler(CitewellError)
    def told(request: Request, error: CitewellError) -> Response:
        if isinstance(error, OverLimit):
            return refusal(error)
        known = {InvalidQuestion: 422, NotAllowed: 403}
        return JSONResponse({"error": str(error)}, known.get(type(error), 503))

    @app.exception_handler(RequestValidationError)
    def misunderstood(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"error": _misunderstood(request.url.path, error)}, 422)

    @app.exception_handler(StarletteHTTPException)
    def refused(request: Request, error: StarletteHTTPException) -> JSONResponse:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    @app.get("/healthz")
    def health() -> dict[str, str]:
        status = assistant.model_status()
        return {"status": "ok", "model": status.name, "model_state": status.state, "message": status.message}

    @app.post("/api/ask")
    async def ask(asked: Asked, request: Request) -> Any:
        history = [Turn(turn.role, turn.text) for turn in asked.history]
        events: Any = assistant.stream(asked.question, history, asked.documents)
        try:
            first = await run_in_threadpool(next, events)
        except KeyError as error:
            raise HTTPException(404, f"There is no document '{error.args[0]}'.") from None
        if "text/event-stream" in request.headers.get("accept", ""):
            return StreamingResponse(_sent(first, events), media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        last = first
        async for event in _each(events):
            last = event
            if await request.is_disconnected():  # nobody waits for the answer any more
                await run_in_threadpool(events.close)
                return Response(status_code=499)
        assert isinstance(last, Answer), "a stream ends in its Answer"
        return JSONResponse(last.to_dict())

    @app.post("/api/sync")
    async def sync(asked: Folder) -> StreamingResponse:
        return StreamingResponse(
            _synced(assistant, Path(asked.folder), asked.retry), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    @app.post("/api/forget")
    def forget(asked: Folder) -> dict[str, int]:
        return {"documents": assistant.library.forget(Path(asked.folder))}

    @app.get("/api/documents")
    def documents() -> list[dict[str, Any]]:
        return listing(assistant.store)

    @app.get("/api/documents/{document_id}/text")
    def text(document_id: str) -> PlainTextResponse:
        try:
            return PlainTextResponse(assistant.store.text(document_id))
        except KeyError:
            raise HTTPException(404, "There is no such document.") from None

    return app


async def _synced(assistant: Assistant, folder: Path, retry: bool) -> AsyncIterator[str]:
    """Progress and the report as server-sent events; a listener who leaves stops the work, and what is done is kept."""
    left = threading.Event()
    told: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            report = assistant.sync(
                folder,
                lambda done, total, current: told.put(_event("progress", {"done": done, "total": total, "current": current})),
                left.is_set,
                retry,
            )
            told.put(_event("report", asdict(report)))
        except CitewellError as error:
            told.put(_event("error", {"error": str(error)}))
        except Exception:
            log.exception("Syncing failed")
            told.put(_event("error", {"error": "Something went wrong here. The log of the server says what."}))
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


def _misunderstood(path: str, error: RequestValidationError) -> str:
    """What is wrong with a body that cannot be read, and what one looks like that can."""
    problems = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"][1:])
        problems.append(f"'{where}' {problem_told(problem)}" if where and problem["type"] != "json_invalid" else f"the body {problem_told(problem)}")
    example = '{"question": "Who made it?"}' if path == "/api/ask" else '{"folder": "/home/me/documents"}'
    return f"What was sent cannot be used: {', '.join(problems)}. Send JSON such as {example}, as application/json."


async def _each(events: Any) -> AsyncIterator[Event]:
    """The events, each made in a thread. Whoever is broken off does not wait for the one that is being made; it is the last."""
    left = threading.Event()

    def following() -> Event | None:
        event = next(events, None)
        if left.is_set():
            close()
        return event

    def close() -> None:
        with suppress(ValueError):  # still running in the thread, which closes it then
            events.close()

    try:
        while (event := await to_thread.run_sync(following, abandon_on_cancel=True)) is not None:
            yield event
    finally:
        left.set()
        close()


async def _sent(first: Event, events: Any) -> AsyncIterator[str]:
    """The events as server-sent events; a listener who leaves stops the model."""
    try:
        yield _line(first)
        async for event in _each(events):
            yield _line(event)
    except CitewellError as error:
        yield _event("error", {"error": str(error)})
    except Exception:
        log.exception("Answering failed")
        yield _event("error", {"error": "Something went wrong here. The log of the server says what."})
    finally:
        with suppress(ValueError):  # still running in its thread, see _each
            events.close()


def _line(event: Event) -> str:
    match event:
        case Evidence():
            name, data = "evidence", {"standalone_question": event.standalone_question, "hits": [asdict(hit) for hit in event.hits]}
        case Token():
            name, data = "token", {"text": event.text}
        case Answer():
            name, data = "answer", event.to_dict()
    return _event(name, data)


def _event(name: str, data: dict[str, Any]) -> str:
    # In ASCII: a line separator of Unicode inside the data would end the line for many readers.
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
