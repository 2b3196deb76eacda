"""What the modules of the HTTP door share: events as lines, what is wrong with a body, and a caller who leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import asdict
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from rag.problems import problem
from rag.settings import problem_told
from rag.types import Answer, Event, Evidence, Token

Result = TypeVar("Result")

UNEXPECTED = "Something went wrong here. The log of the server says what."
UNPARSED = "There was an error parsing the body"
"""What FastAPI says where bytes cannot be decoded."""

GONE = 499
"""The status, which nobody sees, of a reply to a caller who has left."""

NO_STORE = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Events are for one listener, now: no proxy may keep or collect them."""

EXAMPLES = {
    "/api/ask": '{"question": "Who made it?"}',
    "/v1/": '{"model": "citewell", "messages": [{"role": "user", "content": "Who made it?"}]}',
    "/api/documents/url": '{"url": "https://example.org/page.html"}',
    "": '{"folder": "/home/me/documents"}',
}
"""Beginning of an address -> a body that can be read there."""


def misunderstood(path: str, error: RequestValidationError) -> JSONResponse:
    """What is wrong with a body that cannot be read, and what one looks like that can. What was sent is not repeated."""
    problems, names = [], []
    for found in error.errors():
        where = ".".join(str(part) for part in found["loc"][1:])
        named = bool(where) and found["type"] != "json_invalid"
        problems.append(f"'{where}' {problem_told(found)}" if named else f"the body {problem_told(found)}")
        names += [where] if named else []
    message = f"What was sent cannot be used: {', '.join(problems)}. {_instead(path)}"
    return problem(path, message, 400, names[0] if names else None, "invalid_value")


def unparsed(path: str) -> str:
    """What is said of bytes that are no text."""
    return f"What was sent cannot be used: the body is no JSON. {_instead(path)}"


def _instead(path: str) -> str:
    example = next(body for begins, body in EXAMPLES.items() if path.startswith(begins))
    return f"Send JSON such as {example}, as application/json."


async def unless_gone(request: Request, work: Awaitable[Result]) -> Result | None:
    """What the work comes to; None when the caller leaves first, and then it is cancelled. The request's body must have been read."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, leaving):
            task.cancel()
        with suppress(asyncio.CancelledError, Exception):  # what a cancelled work ends in is no news
            await working


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def line(event: Event) -> str:
    """An event of answering as a server-sent event."""
    match event:
        case Evidence():
            return named("evidence", {"standalone_question": event.standalone_question, "hits": [asdict(hit) for hit in event.hits]})
        case Token():
            return named("token", {"text": event.text})
        case Answer():
            return named("answer", event.to_dict())


def named(name: str, data: dict[str, Any]) -> str:
    """A server-sent event."""
    # In ASCII: a line separator of Unicode inside the data would end the line for many readers.
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
