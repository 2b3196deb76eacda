"""Gradio's sessions and events, each its user's own: what a browser calls its session, Gradio knows under a name that no other user can say.

Gradio lets in whoever knows the id of a session or an event: to its state, its stream of answers, its end. Ids are in addresses and logs, so knowing one
must not be enough. A session's id is replaced by one that is made of it and of the user; the same id is, from another user, another and empty session, as any
id that was never used. Nothing has to be remembered for that, and nothing can be forgotten.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from index.errors import OverLimit
from rag.limits import Shares
from rag.problems import refusal
from ui.chat import Service

HEARTBEAT = re.compile(r"/gradio_api/heartbeat/([^/]+)/?")
STREAM = re.compile(r"/gradio_api/queue/data/?")
ASKING = re.compile(r"/gradio_api/(queue/join|run/predict)/?")
ENDING = re.compile(r"/gradio_api/(cancel|reset)/?")

STREAMS_OF_ONE, STREAMS = 20, 800
"""So many streams may be open for a user, two for each tab, and for all: fewer than the server keeps connections. Who has the machine to themselves is not counted."""

LEFT_SECONDS = 120.0
"""So long after its page was closed or lost a session is forgotten: Gradio would hold some 200 KB of each for the next 10,000 sessions. A page that comes back
later begins anew, with the conversation that was kept."""

EVENTS = 10_000
"""So many of the last events are known as somebody's. An older one can be ended by nobody; it has ended by itself long since."""


def session_of(user: str, name: str) -> str:
    """What Gradio knows a user's session as."""
    return sha256(f"{user}\n{name}".encode("utf-8", "surrogatepass")).hexdigest()


class Events:
    """Which user each of the last events is of, by the event's id."""

    def __init__(self, most: int = EVENTS) -> None:
        self._most = most
        self._users: OrderedDict[str, str] = OrderedDict()

    def begun(self, event: str, user: str) -> None:
        """Notes whose a new event is."""
        self._users[event] = user
        if len(self._users) > self._most:
            self._users.popitem(last=False)

    def is_of(self, event: Any, user: str) -> bool:
        """Whether an event is known to be this user's."""
        return isinstance(event, str) and self._users.get(event) == user


class Pages:
    """The sessions whose pages are open. `forget` is called with what Gradio knows a session as, once its page has been gone for LEFT_SECONDS; it answers
    whether it forgot it, and is asked again where the session was in use meanwhile."""

    def __init__(self, forget: Callable[[str], bool]) -> None:
        self._forget = forget
        self._open: Counter[str] = Counter()
        self._left: dict[str, asyncio.TimerHandle] = {}

    @contextmanager
    def open(self, session: str) -> Iterator[None]:
        """As long as a page says that it is there; from within a running event loop."""
        self._open[session] += 1
        if session in self._left:
            self._left.pop(session).cancel()
        try:
            yield
        finally:
            self._open[session] -= 1
            if self._open[session] <= 0:
                del self._open[session]
                self._wait(session)

    def _wait(self, session: str) -> None:
        self._left[session] = asyncio.get_running_loop().call_later(LEFT_SECONDS, self._gone, session)

    def _gone(self, session: str) -> None:
        del self._left[session]
        # A browser says but once that it is there: where the network broke meanwhile, its page goes on without saying so.
        if not self._forget(session):
            self._wait(session)


def own_sessions(gradio: ASGIApp, service: Service, forget: Callable[[str], bool], events: Events | None = None) -> ASGIApp:
    """Gradio's application, in which a user reaches the sessions and ends the events of that user alone. What names another's is as what names nothing.

    `forget` is as in Pages.
    """
    known, pages = events or Events(), Pages(forget)
    streams = Shares(STREAMS_OF_ONE, STREAMS, "Too many pages of Citewell are open. Close some.", 5.0)

    async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("Not found", status_code=404)(scope, receive, send)

    async def streamed(scope: Scope, receive: Receive, send: Send, user: str, beating: str) -> None:
        """Hands on a request for what does not end by itself: whether a session is alive, as which it is told by `beating`, or what becomes of its events."""
        if beating:
            session = session_of(user, beating)
            renamed = f"{scope.get('root_path', '')}/gradio_api/heartbeat/{session}"
            with pages.open(session):
                return await gradio({**scope, "path": renamed, "raw_path": quote(renamed).encode()}, receive, send)
        asked = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        query = urlencode([(name, session_of(user, value) if name == "session_hash" else value) for name, value in asked])
        try:
            return await gradio({**scope, "query_string": query.encode()}, receive, send)
        except RuntimeError as error:
            # Of a session that is not there Gradio tells in the stream, and then fails once more.
            if not isinstance(error.__cause__, HTTPException):
                raise
            return await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def owned(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await gradio(scope, receive, send)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        beat = HEARTBEAT.fullmatch(path)
        if beat or STREAM.fullmatch(path):
            user = service.user(scope).id
            try:
                with nullcontext() if service.open else streams.place(user):
                    return await streamed(scope, receive, send, user, beat[1] if beat else "")
            except OverLimit as error:
                return await refusal(path, error)(scope, receive, send)
        asking, ending = ASKING.fullmatch(path), ENDING.fullmatch(path)
        if not (asking or ending):
            return await gradio(scope, receive, send)
        user = service.user(scope).id
        try:
            body = json.loads(await Request(scope, receive).body())
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict) or (ending and not known.is_of(body.get("event_id"), user)):
            return await not_found(scope, receive, send)
        if asking:
            body.pop("event_id", None)  # Gradio gives each event an id of its own
        if isinstance(body.get("session_hash"), str):
            body["session_hash"] = session_of(user, body["session_hash"])

        # What was looked at is what is passed on, and not what was sent: two readers of JSON may differ on it.
        content = json.dumps(body).encode()
        # Without accept-encoding the answer comes uncompressed, and can be read.
        headers = [(name, value) for name, value in scope["headers"] if name not in (b"content-length", b"accept-encoding", b"transfer-encoding")]
        headers.append((b"content-length", str(len(content)).encode()))
        sent = False

        async def again() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": content, "more_body": False}

        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = message["status"] == 200 and path.rstrip("/") == "/gradio_api/queue/join"
            elif begun:
                known.begun(json.loads(message["body"])["event_id"], user)
                begun = False
            await send(message)

        await gradio({**scope, "headers": headers}, again, noted)

    return owned
