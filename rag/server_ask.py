"""POST /api/ask: the same answer as ask(), as JSON or as server-sent events (evidence, tokens, answer)."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Literal

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict

from index.errors import CitewellError
from rag.awaitable import answered, each
from rag.server_replies import GONE, NO_STORE, UNEXPECTED, line, named, unless_gone
from rag.service import Service
from rag.types import Answer, Event, Turn

log = logging.getLogger(__name__)


class AskedTurn(BaseModel):
    """One earlier message."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["user", "assistant"]
    text: str


class Asked(BaseModel):
    """A question; `documents` narrows to ids or sources."""

    model_config = ConfigDict(extra="forbid")
    question: str
    history: list[AskedTurn] = []
    documents: list[str] | None = None


def routes(service: Service) -> APIRouter:
    """The one address."""
    router = APIRouter()

    @router.post("/api/ask", summary="Ask a question", response_model=None, responses={200: {"model": Answer}})
    async def ask(asked: Asked, request: Request) -> Response:
        """The verified answer as JSON; with `Accept: text/event-stream`, the evidence, the draft's tokens and then the answer as events."""
        history = [Turn(turn.role, turn.text) for turn in asked.history]
        events = each(service.stream("http", service.own(request.scope), asked.question, history, asked.documents))
        try:
            if "text/event-stream" not in request.headers.get("accept", ""):
                answer = await unless_gone(request, answered(events))
                return JSONResponse(answer.to_dict()) if answer else Response(status_code=GONE)
            first = await unless_gone(request, anext(events))
        except KeyError as error:
            raise HTTPException(404, f"There is no document '{error.args[0]}'.") from None
        if first is None:
            return Response(status_code=GONE)
        return StreamingResponse(_sent(first, events), media_type="text/event-stream", headers=NO_STORE)

    return router


async def _sent(first: Event, events: AsyncGenerator[Event, None]) -> AsyncIterator[str]:
    """The events as server-sent events; a listener who leaves stops the model."""
    async with aclosing(events):
        try:
            yield line(first)
            async for event in events:
                yield line(event)
        except CitewellError as error:
            yield named("error", {"error": str(error)})
        except Exception:
            log.exception("Answering failed")
            yield named("error", {"error": UNEXPECTED})
