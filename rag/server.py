"""The HTTP door: the same answers as ask(), as JSON or as a stream of server-sent events. The page is mounted onto this app."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Literal

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware

from index.errors import CitewellError, InvalidQuestion
from rag.assistant import Assistant
from rag.types import Answer, Event, Evidence, Token, Turn

log = logging.getLogger(__name__)


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


def create_app(assistant: Assistant) -> FastAPI:
    """The app that answers for one assistant, to this machine alone."""
    app = FastAPI(title="Citewell", docs_url=None, redoc_url=None, openapi_url=None)
    # A page elsewhere that points its own name at 127.0.0.1 must not get to read the documents.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])

    @app.exception_handler(CitewellError)
    def told(request: Request, error: CitewellError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 422 if isinstance(error, InvalidQuestion) else 503)

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
        async for event in iterate_in_threadpool(events):
            last = event
            if await request.is_disconnected():  # nobody waits for the answer any more
                await run_in_threadpool(events.close)
                return Response(status_code=499)
        assert isinstance(last, Answer), "a stream ends in its Answer"
        return JSONResponse(last.to_dict())

    @app.get("/api/documents")
    def documents() -> list[dict[str, Any]]:
        return [
            {"id": d.id, "source": d.source, "title": d.title, "size": d.size, "passages": d.passages, "indexed_at": d.indexed_at}
            for d in assistant.store.documents()
        ]

    @app.get("/api/documents/{document_id}/text")
    def text(document_id: str) -> PlainTextResponse:
        try:
            return PlainTextResponse(assistant.store.text(document_id))
        except KeyError:
            raise HTTPException(404, "There is no such document.") from None

    return app


async def _sent(first: Event, events: Any) -> AsyncIterator[str]:
    """The events as server-sent events; a listener who leaves stops the model."""
    try:
        yield _line(first)
        async for event in iterate_in_threadpool(events):
            yield _line(event)
    except CitewellError as error:
        yield f"event: error\ndata: {json.dumps({'error': str(error)})}\n\n"
    except Exception:
        log.exception("Answering failed")
        yield f"event: error\ndata: {json.dumps({'error': 'Something went wrong here. The log of the server says what.'})}\n\n"
    finally:
        with suppress(ValueError):  # still running in its thread; it is closed when that lets go of it
            events.close()


def _line(event: Event) -> str:
    match event:
        case Evidence():
            name, data = "evidence", {"standalone_question": event.standalone_question, "hits": _hits(event)}
        case Token():
            name, data = "token", {"text": event.text}
        case Answer():
            name, data = "answer", event.to_dict()
    # In ASCII: a line separator of Unicode inside the data would end the line for many readers.
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def _hits(event: Evidence) -> list[dict[str, Any]]:
    from dataclasses import asdict

    return [asdict(hit) for hit in event.hits]
