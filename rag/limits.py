"""How much and how often: requests of a user or an address, questions that wait for the model, bytes of a request. Too much is a 413, too often a 429
with Retry-After; both say what to do. What a user may have uploaded is rag.library's to hold."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil
from typing import Literal, Self

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from index.errors import OverLimit
from rag.accounts import network_of
from rag.problems import refusal

Kind = Literal["user", "address"]

REMEMBERED = 10_000
"""So many users, and so many addresses, are kept count of; of more, those longest unheard of begin anew."""

BODY_BYTES = 4_000_000
"""A question with its history is far less."""

FILES_TOGETHER = 8
"""How many times the largest file all files of a request may have: they lie in a folder for temporary files until they are read."""

UPLOADING = re.compile(r"/api/documents|/library/files")
"""Where files come in, whose sizes are looked at there."""

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
        # Apart, as strangers may have any number of addresses, and would push the users out.
        self._buckets: dict[Kind, OrderedDict[str, tuple[float, float]]] = {"user": OrderedDict(), "address": OrderedDict()}
        self._lock = threading.Lock()

    def take(self, subject: str, kind: Kind = "user") -> None:
        """Counts one request. Raises OverLimit, which tells when there is room for the next, and counts nothing then."""
        moment = self._clock()
        with self._lock:
            buckets = self._buckets[kind]
            tokens, last = buckets.pop(subject, (self._capacity, moment))
            tokens = min(self._capacity, tokens + (moment - last) * self._capacity / 60)
            enough = tokens >= 1
            buckets[subject] = (tokens - 1 if enough else tokens, moment)
            if len(buckets) > REMEMBERED:
                buckets.popitem(last=False)
        if not enough:
            wait = (1 - tokens) * 60 / self._capacity
            raise OverLimit(f"Too many requests: {self._capacity:g} a minute is the most. Wait {_seconds(wait)} and go on.", wait)


class Queue:
    """Places for questions: those that are answered, and those that wait. Counts and never waits, as the model takes one after the other itself."""

    def __init__(self, at_once: int, length: int) -> None:
        self.at_once, self.places = at_once, at_once + length
        self._lock = threading.Lock()
        self._taken: dict[Place, str] = {}

    @property
    def taken(self) -> int:
        """How many places are taken now."""
        return len(self._taken)

    def place(self, user: str = "") -> Place:
        """A place for one question, which is to leave() it once its answer is whole. Raises OverLimit where all are taken, or a `user` that is named has
        a third of them already: the rest is for others."""
        with self._lock:
            own = sum(other == user for other in self._taken.values()) if user else 0
            if own >= max(2, self.places // 3):
                raise OverLimit(f"{own} of your questions are being answered or wait for it. Ask again once one of them is done.", ANSWER_SECONDS)
            if len(self._taken) >= self.places:
                raise OverLimit(
                    f"Too many questions are waiting: {len(self._taken)} are being answered or wait for it. Try again in {_seconds(ANSWER_SECONDS)}.",
                    ANSWER_SECONDS,
                )
            place = Place(self)
            self._taken[place] = user
            return place

    def ahead(self, place: Place) -> int:
        """How many questions came before this one and must be done with before it is answered; 0 once its turn has come."""
        with self._lock:
            before = next((number for number, other in enumerate(self._taken) if other is place), 0)
        return max(0, before - self.at_once + 1)

    def leave(self, place: Place) -> None:
        """Gives a place to the next. Safe to call twice."""
        with self._lock:
            self._taken.pop(place, None)


class Place:
    """Where one question stands in a Queue."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.leave()

    @property
    def ahead(self) -> int:
        """How many questions are answered before this one."""
        return self._queue.ahead(self)

    def leave(self) -> None:
        """Gives the place to the next. Safe to call twice, from any thread."""
        self._queue.leave(self)


class Shares:
    """Places for what takes long: so many at a time in all, and so many of them one user's, so that nobody takes all. Counts and never waits."""

    def __init__(self, each: int, together: int, refusal: str, seconds: float) -> None:
        self._each, self._together, self._refusal, self._seconds = each, together, refusal, seconds
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    @contextmanager
    def place(self, user: str) -> Iterator[None]:
        """A place for one thing of a user's, until it is done. Raises OverLimit where the user, or all together, have as many as there may be."""
        with self._lock:
            if self._taken[user] >= self._each or self._taken.total() >= self._together:
                raise OverLimit(f"{self._refusal} Try again in {_seconds(self._seconds)}.", self._seconds)
            self._taken[user] += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken[user] -= 1
                self._taken += Counter()  # which forgets whoever has none


class Limited:
    """Middleware behind SignedIn, whose user and address it reads: counts requests, and takes no larger body than it is told.

    Requests of a signed-in user count for the user wherever they come from, others for their address; without a `rate` none are counted.
    """

    def __init__(self, app: ASGIApp, rate: Rate | None, max_upload_bytes: int) -> None:
        self.app, self.rate, self.most_uploaded = app, rate, max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers, state, path = Headers(scope=scope), scope.get("state", {}), scope["path"].removeprefix(scope.get("root_path", ""))
        user = state.get("user")
        if self.rate is not None and not UNCOUNTED.fullmatch(path):
            try:
                if user is not None:
                    self.rate.take(user.id)
                else:
                    self.rate.take(network_of(state.get("address", "")), "address")
            except OverLimit as error:
                return await refusal(path, error)(scope, receive, send)
        uploads = UPLOADING.fullmatch(path)
        most = self.most_uploaded if uploads else BODY_BYTES
        too_large = OverLimit(
            f"What was sent is larger than {most / 1e6:,.4g} MB. "
            + ("Send the files in several requests." if uploads else "Shorten it, or add the long text as a document and ask about it.")
        )
        declared = headers.get("content-length", "0")
        if not (declared.isascii() and declared.isdecimal()) or int(declared[:16]) > most:
            return await refusal(path, too_large)(scope, receive, send)
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


def _seconds(wait: float) -> str:
    whole = max(1, ceil(wait))
    return f"{whole} second{'s' * (whole > 1)}"
