"""How much and how often: requests of a user or an address, questions that wait for the model, bytes of a request. Too much is a 413, too often a 429
with Retry-After; both say what to do. What a user may have uploaded is rag.library's to hold."""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from index.errors import OverLimit

REMEMBERED = 10_000
"""So many users and addresses are kept count of; of more, those longest unheard of begin anew."""

JSON_BYTES = 4_000_000
"""A question with its history is far less."""

BESIDE_THE_FILE = 100_000
"""What a form puts around an uploaded file."""

ANSWER_SECONDS = 15.0
"""When a place for a question may be free, where it is not known better."""

UNCOUNTED = re.compile(
    r"/(healthz|readyz|metrics|favicon\.ico|theme\.css|manifest\.json|config|library/work|(assets|static)/.*|gradio_api/(heartbeat/.*|queue/data|startup-events|app_id))/?"
)
"""What a page asks for by itself, dozens at a time when it opens, and what costs nothing."""


class Rate:
    """A bucket of tokens for each subject: so many a minute, and after a pause as many at once. Its methods may be called from any thread."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity, self._clock = float(per_minute), clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, subject: str) -> None:
        """Counts one request. Raises OverLimit, which tells when there is room for the next, and counts nothing then."""
        moment = self._clock()
        with self._lock:
            tokens, last = self._buckets.pop(subject, (self._capacity, moment))
            tokens = min(self._capacity, tokens + (moment - last) * self._capacity / 60)
            enough = tokens >= 1
            self._buckets[subject] = (tokens - 1 if enough else tokens, moment)
            if len(self._buckets) > REMEMBERED:
                self._buckets.popitem(last=False)
        if not enough:
            wait = (1 - tokens) * 60 / self._capacity
            raise OverLimit(f"Too many requests: {self._capacity:g} a minute is the most. Wait {_seconds(wait)} and go on.", wait)


class Queue:
    """Places for questions: those that are answered, and those that wait. Counts and never waits, as the model takes one after the other itself."""

    def __init__(self, at_once: int, length: int) -> None:
        self._places = at_once + length
        self._lock = threading.Lock()
        self._taken = 0

    @property
    def taken(self) -> int:
        """How many places are taken now."""
        return self._taken

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for one question, until its answer is whole. Raises OverLimit where all are taken."""
        with self._lock:
            if self._taken >= self._places:
                raise OverLimit(
                    f"Too many questions are waiting: {self._taken} are being answered or wait for it. Try again in {_seconds(ANSWER_SECONDS)}.",
                    ANSWER_SECONDS,
                )
            self._taken += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken -= 1


class Limited:
    """Middleware behind SignedIn, whose user and address it reads: counts requests, and takes no larger body than it is told.

    Requests of a signed-in user count for the user wherever they come from, others for their address.
    """

    def __init__(self, app: ASGIApp, rate: Rate, max_file_bytes: int) -> None:
        self.app, self.rate, self.most = app, rate, max_file_bytes + BESIDE_THE_FILE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers, state = Headers(scope=scope), scope.get("state", {})
        user = state.get("user")
        if not UNCOUNTED.fullmatch(scope["path"].removeprefix(scope.get("root_path", ""))):
            try:
                self.rate.take(f"user {user.id}" if user is not None else f"address {state.get('address', '')}")
            except OverLimit as error:
                return await refusal(error)(scope, receive, send)
        most = min(self.most, JSON_BYTES) if headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json" else self.most
        too_large = OverLimit(f"What was sent is too large: {most / 1e6:,.4g} MB is the most.")
        declared = headers.get("content-length", "0")
        if not (declared.isascii() and declared.isdecimal()) or int(declared[:16]) > most:
            return await refusal(too_large)(scope, receive, send)
        got = 0

        async def counted() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > most:
                # As an HTTPException it comes through whoever reads the body, and to the handler that makes JSON of it.
                raise HTTPException(413, str(too_large))
            return message

        await self.app(scope, counted, send)


def refusal(error: OverLimit) -> Response:
    """A limit as a response: 429 with Retry-After where waiting helps, else 413."""
    if error.retry_after is None:
        return JSONResponse({"error": str(error)}, 413)
    return JSONResponse({"error": str(error)}, 429, {"Retry-After": str(max(1, ceil(error.retry_after)))})


def _seconds(wait: float) -> str:
    whole = max(1, ceil(wait))
    return f"{whole} second{'s' * (whole > 1)}"
