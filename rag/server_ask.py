"""POST /api/ask: the same answer as ask(), as JSON or as server-sent events (evidence, tokens, answer)."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Literal

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from index.errors import CitewellError, NotAllowed, OverLimit
from rag.awaitable import answered, each
from rag.conversations import Conversations
from rag.conversations import history as turns
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
    """A question; `documents` narrows to ids or sources. With `conversation`, the id of a kept one of the user's own, its turns are the history, and the
    answer is added to it."""

    model_config = ConfigDict(extra="forbid")
    question: str
    history: list[AskedTurn] = []
    documents: list[str] | None = None
    conversation: str | None = None


def routes(service: Service) -> APIRouter:
    """The one address."""
    router = APIRouter()

    @router.post("/api/ask", summary="Ask a question", response_model=None, responses={200: {"model": Answer}})
    async def ask(asked: Asked, request: Request) -> Response:
        """The verified answer as JSON; with `Accept: text/event-stream`, the evidence, the draft's tokens and then the answer as events.

        Where it is added to a conversation, the exchange's id is in the header `Citewell-Exchange`, and in a last event `kept`; where it could not be,
        `Citewell-Problem` says so, or `problem` in that event.
        """
        user = service.user(request.scope).id
        if asked.conversation is not None and asked.history:
            raise HTTPException(400, "Send either a conversation or a history: a kept conversation has its own turns.")
        history = [Turn(turn.role, turn.text) for turn in asked.history]
        if asked.conversation is not None:
            history = await run_in_threadpool(_turns, service.conversations, asked.conversation, user)

        async def kept(answer: Answer) -> dict[str, str]:
            if asked.conversation is None:
                return {}
            try:
                return {"exchange": await run_in_threadpool(service.conversations.add, asked.conversation, user, answer)}
            except KeyError:
                return {"problem": "The conversation was deleted meanwhile, so the answer is not kept."}
            except OverLimit as error:
                return {"problem": f"The answer is not kept. {error}"}
            except Exception:  # the answer is whole, whatever becomes of keeping it
                log.exception("An answer could not be kept")
                return {"problem": "The answer could not be kept. The log of the server says why."}

        events = each(service.stream("http", service.own(request.scope), asked.question, history, asked.documents))
        try:
            if "text/event-stream" not in request.headers.get("accept", ""):
                answer = await unless_gone(request, answered(events))
                if answer is None:
                    return Response(status_code=GONE)
                place = await kept(answer)
                return JSONResponse(answer.to_dict(), headers={f"Citewell-{name}": said for name, said in place.items()})
            first = await unless_gone(request, anext(events))
        except KeyError as error:
            if error.args[0] not in (asked.documents or ()):  # a fault of ours, whose words are for the log
                raise
            raise HTTPException(404, f"There is no document '{error.args[0]}'.") from None
        if first is None:
            return Response(status_code=GONE)
        return StreamingResponse(_sent(first, events, kept), media_type="text/event-stream", headers=NO_STORE)

    return router


def _turns(conversations: Conversations, conversation: str, user: str) -> list[Turn]:
    """What was said in a user's own conversation."""
    try:
        if conversations.info(conversation, user).owner != user:
            raise NotAllowed("This conversation is somebody else's. Begin one of your own, and ask there.")
        return list(turns(conversations.exchanges(conversation, user)))
    except (KeyError, UnicodeEncodeError):  # an id with half a character is no conversation's either
        raise HTTPException(404, "There is no such conversation.") from None


async def _sent(first: Event, events: AsyncGenerator[Event, None], kept: Callable[[Answer], Awaitable[dict[str, str]]]) -> AsyncIterator[str]:
    """The events as server-sent events; a listener who leaves stops the model."""
    async with aclosing(events):
        try:
            yield line(first)
            async for event in events:
                yield line(event)
                if isinstance(event, Answer) and (place := await kept(event)):
                    yield named("kept", place)
        except CitewellError as error:
            yield named("error", {"error": str(error)})
        except Exception:
            log.exception("Answering failed")
            yield named("error", {"error": UNEXPECTED})
