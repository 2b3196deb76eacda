"""What the security tests share: the whole server with its page, several people who each keep something, and a client that sends any bytes there are."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import anyio
from anyio.from_thread import start_blocking_portal
from conftest import FakeEmbedder, FakeModel
from starlette.routing import Mount
from starlette.types import ASGIApp

from index.people import open_people
from index.store import Store
from rag.accounts import Accounts, Costs, User
from rag.assistant import Assistant
from rag.library import OWN_UPLOADS
from rag.model import LanguageModel, ModelStatus
from rag.server import create_app
from rag.service import Service, Visitors
from rag.settings import Settings

PASSWORD = "four words apart"
PROXY = "10.0.0.1"
HOST = "docs.example.org"
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND")
CHEAP = Costs(1, 8, 1)

MARKERS = {"ann": "quokka", "ben": "wombat"}
"""A word that stands in everything that somebody keeps, and nowhere else."""

SHARED = "The kea of everybody lives in the mountains. It eats seeds.\n"


# Requests


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. `ended` is False where the reply went on until the client left."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    ended: bool = True

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for known, value in self.headers if known == name]

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Direct:
    """Sends requests to an application as a server would: path, method, headers and peer as they are given, and nothing made tidy on the way."""

    def __init__(self, app: ASGIApp, headers: Mapping[str, str] | None = None, peer: str = PROXY) -> None:
        self.app, self.common, self.peer = app, dict(headers or {}), peer

    @contextmanager
    def running(self) -> Iterator[Direct]:
        """The application between its start and its stop, in a loop of its own."""
        with start_blocking_portal() as self._portal:
            begun, ending, ended = anyio.Event(), anyio.Event(), anyio.Event()
            told = iter(({"type": "lifespan.startup"},))

            async def receive() -> dict[str, Any]:
                first = next(told, None)
                if first is None:
                    await ending.wait()
                return first or {"type": "lifespan.shutdown"}

            async def send(message: Any) -> None:
                assert "failed" not in message["type"], message
                (begun if "startup" in message["type"] else ended).set()

            self._portal.start_task_soon(self.app, {"type": "lifespan", "state": {}}, receive, send)
            self._portal.call(begun.wait)
            try:
                yield self
            finally:
                self._portal.call(ending.set)
                self._portal.call(ended.wait)

    def send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | Sequence[bytes] | Any = b"",
        *,
        peer: str | None = None,
        scheme: str = "http",
        root_path: str = "",
        patience: float = 30.0,
    ) -> Reply:
        """One request. `body` is bytes, pieces of bytes, or what is sent as JSON; a reply that has not ended after `patience` seconds is left."""
        said = {"host": HOST, **self.common, **{name.lower(): value for name, value in (headers or {}).items()}}
        if not isinstance(body, bytes | list | tuple):
            body = json.dumps(body).encode()
            said.setdefault("content-type", "application/json")
        pieces = [body] if isinstance(body, bytes) else list(body)
        if body and "content-length" not in said and isinstance(body, bytes):
            said["content-length"] = str(len(body))
        path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": scheme,
            "path": root_path + unquote(path),
            "raw_path": (root_path + path).encode(),
            "query_string": query.encode(),
            "root_path": root_path,
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in said.items() if value],
            "client": (peer or self.peer, 4711),
            "server": ("127.0.0.1", 7860),
            "state": {},
        }
        return self._portal.call(self._exchanged, scope, pieces, patience)

    async def _exchanged(self, scope: dict[str, Any], pieces: list[bytes], patience: float) -> Reply:
        left, got, start, ended = anyio.Event(), bytearray(), {}, False
        waiting = iter(
            [
                *({"type": "http.request", "body": piece, "more_body": True} for piece in pieces[:-1]),
                {"type": "http.request", "body": pieces[-1] if pieces else b"", "more_body": False},
            ]
        )

        async def receive() -> Any:
            message = next(waiting, None)
            if message is None:
                await left.wait()
            return message or {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal ended
            if message["type"] == "http.response.start":
                start.update(message)
            elif message["type"] == "http.response.body":
                got.extend(message.get("body", b""))
                ended = not message.get("more_body")
                if ended:
                    left.set()

        async def leave() -> None:
            await anyio.sleep(patience)
            left.set()

        async with anyio.create_task_group() as together:
            together.start_soon(leave)
            with anyio.move_on_after(patience + 5):
                try:
                    await self.app(scope, receive, send)
                except Exception:
                    # What breaks off in the midst is cut off by a server, too; before that everything is answered.
                    assert start, scope["path"]
            together.cancel_scope.cancel()
        return Reply(
            start.get("status", 0),
            tuple((name.decode().lower(), value.decode("latin-1")) for name, value in start.get("headers", ())),
            bytes(got),
            ended,
        )

    def websocket(self, target: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """What is first said to a websocket."""
        said = {"host": HOST, **self.common, **{name.lower(): value for name, value in (headers or {}).items()}}
        path, _, query = target.partition("?")
        scope = {
            "type": "websocket", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "ws", "path": unquote(path), "raw_path": path.encode(),
            "query_string": query.encode(), "root_path": "", "headers": [(name.encode(), value.encode()) for name, value in said.items()],
            "client": (self.peer, 4711), "server": ("127.0.0.1", 7860), "subprotocols": [], "state": {},
        }  # fmt: skip
        return self._portal.call(self._opened, scope)

    async def _opened(self, scope: dict[str, Any]) -> dict[str, Any]:
        told: list[dict[str, Any]] = []

        async def receive() -> Any:
            return {"type": "websocket.disconnect", "code": 1000} if told else {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            told.append(message)

        with anyio.move_on_after(10):
            await self.app(scope, receive, send)
        return told[0] if told else {}


# Routes


@dataclass(frozen=True, slots=True)
class Known:
    """A route as the application has it: `gradio` tells that it is Gradio's own."""

    path: str
    methods: tuple[str, ...]
    gradio: bool
    query: tuple[str, ...] = ()

    def at(self, **values: str) -> str:
        """An address that it answers; a parameter that is not given has some value of its kind."""
        return re.sub(r"\{(\w+)(?::(\w+))?\}", lambda found: values.get(found[1], "1" if found[2] == "int" else "x"), self.path)

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of what stands in the path and is no number."""
        return tuple(name for name, kind in re.findall(r"\{(\w+)(?::(\w+))?\}", self.path) if kind != "int")


def every_route(routes: Iterable[Any], prefix: str = "", gradio: bool = False) -> Iterator[Known]:
    """All there is in an application, through everything that holds routes. What is of no kind that is known here fails, so that it is thought about."""
    for route in routes:
        if isinstance(route, Mount):
            yield from every_route(_wrapped(route.app).routes, prefix + route.path, True)
        elif hasattr(route, "effective_route_contexts"):
            for context in route.effective_route_contexts():
                yield Known(prefix + context.path, tuple(sorted(context.methods)), gradio, _query(context))
        else:
            assert type(route).__name__ in ("Route", "APIRoute"), f"a new kind of route: {route}"
            yield Known(prefix + route.path, tuple(sorted(route.methods or METHODS)), gradio, _query(route))


def _wrapped(app: Any) -> Any:
    """The application with routes inside the functions that are put around it."""
    if hasattr(app, "routes"):
        return app
    inner = (cell.cell_contents for cell in getattr(app, "__closure__", None) or ())
    return next((found for one in inner if callable(one) and (found := _wrapped(one)) is not None), None)


def _query(route: Any) -> tuple[str, ...]:
    return tuple(parameter.alias for parameter in getattr(getattr(route, "dependant", None), "query_params", ()))


# People


@dataclass(slots=True)
class Person:
    """Somebody with an account, and what they keep: each id of it by what it is."""

    user: User
    key: str
    session: str
    ids: dict[str, str] = field(default_factory=dict)

    @property
    def marker(self) -> str:
        return MARKERS.get(self.user.name, self.user.name)

    @property
    def by_key(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}

    @property
    def by_session(self) -> dict[str, str]:
        """As the page asks: with the cookie, and with the header that our script sends along."""
        return {"cookie": f"citewell={self.session}", "x-citewell": "1"}


class World:
    """The server with everything behind it."""

    def __init__(self, folder: Path, model: LanguageModel | None = None, **settings: Any) -> None:
        from ui.app import mount

        embedder = FakeEmbedder()
        self.store = Store(folder / "store", embedder.identity)
        self.model = model or FakeModel("The kea of everybody lives in the mountains.")
        demanded = {"host": "0.0.0.0", "trusted_proxies": PROXY}
        self.settings = Settings(**{"data_dir": self.store.folder, "model": "none", "requests_per_minute": 1_000_000, **demanded, **settings})
        database = open_people(self.store.folder)
        accounts = Accounts(database, CHEAP)
        for name, role in (("ann", "member"), ("ben", "member"), ("eve", "admin")):
            accounts.add(name, PASSWORD, role)
        database.close()
        self.assistant = Assistant(self.settings, self.store, embedder, self.model, ModelStatus("ready", "", "fake"))
        self.visitors = Visitors(self.settings)
        self.app = create_app(self.assistant, self.visitors)
        self.service: Service = self.app.state.service
        mount(self.app, self.service)
        self.folder = folder / "shared"
        self.folder.mkdir()
        (self.folder / "kea.txt").write_text(SHARED)
        self.assistant.sync(self.folder)
        made = self.accounts
        self.ann, self.ben, self.eve = (
            Person(made.named(name), made.create_key(name, MARKERS.get(name, name)), made.begin_session(made.named(name).id))
            for name in ("ann", "ben", "eve")
        )

    @property
    def accounts(self) -> Accounts:
        return self.visitors._every

    @cached_property
    def routes(self) -> tuple[Known, ...]:
        return tuple(every_route(self.app.routes))

    def close(self) -> None:
        self.assistant.close()
        self.visitors.close()

    def settled(self) -> None:
        """Waits until the library has nothing more to do."""
        deadline = time.monotonic() + 60
        while self.assistant.library.work() is not None:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def furnish(self, person: Person) -> None:
        """Gives a person one of everything that somebody can keep, their marker in all of it."""
        own, word, scratch = self.assistant.for_user(person.user), person.marker, self.store.folder / "scratch"
        for name, content in (
            (f"{word} notes.txt", f"The {word} of {word}town eats {word}seeds. Its burrow is {word}-deep.\n"),
            (f"{word}.md", f"# The {word} title\n\nA {word} sleeps.\n"),
        ):
            scratch.write_text(content)
            own.library.add(name, scratch)
        scratch.write_bytes(b"\x00\x01 no pdf")
        own.library.add(f"{word} broken.pdf", scratch)
        self.settled()
        scratch.unlink()
        (own.library.uploads / f"{word} waiting.txt").write_text(f"The {word} waits.")
        conversations = self.service.conversations
        conversation = conversations.begin(person.user.id, f"About the {word}")
        exchange = conversations.add(conversation, person.user.id, own.ask(f"What does the {word} eat?"))
        conversations.judge(exchange, person.user.id, "wrong", f"no {word}")
        documents = [info for info in own.store.documents() if info.owner == person.user.id]
        passages = [hit.passage.id for hit in own.search(f"{word} burrow notes", limit=20) if hit.passage.document_id in {d.id for d in documents}]
        assert len(documents) == 2
        assert passages
        person.ids = {
            "document": documents[0].id,
            "other document": documents[1].id,
            "source": f"{word} notes.txt",
            "rejected": f"{word} broken.pdf",
            "waiting": f"{word} waiting.txt",
            "root": OWN_UPLOADS + person.user.id,
            "root and source": f"{OWN_UPLOADS}{person.user.id}/{word} notes.txt",
            "folder": str(own.library.uploads),
            "passage": passages[0],
            "conversation": conversation,
            "exchange": exchange,
            "key": person.key[:11],
            "user": person.user.id,
        }

    def forget_what_is_new(self, person: Person) -> None:
        """Takes from a person all that they were not furnished with."""
        self.settled()
        own, conversations = self.assistant.for_user(person.user), self.service.conversations
        known = set(person.ids.values())
        for info in own.store.documents():
            if info.owner == person.user.id and info.id not in known:
                own.library.remove([info.id])
        for rejection in own.store.rejections(own.library.own_root):
            if rejection.source not in known:
                own.library.discard(own.library.own_root, rejection.source)
        for conversation in conversations.listing(person.user.id, 200):
            if conversation.owner == person.user.id and conversation.id not in known:
                conversations.delete(conversation.id, person.user.id)
        for key in self.accounts.keys(person.user.name):
            if key.prefix != person.key[:11]:
                self.accounts.revoke_key(key.prefix)
        self.settled()
        self.assistant.library._outcomes.clear()

    def kept(self, person: Person) -> Any:
        """All that a person keeps, to be compared with what they keep later."""
        own = self.assistant.for_user(person.user)
        files = {path.name: path.read_bytes() for path in sorted(own.library.uploads.iterdir())}
        conversations = self.service.conversations
        listed = [info for info in conversations.listing(person.user.id) if info.owner == person.user.id]
        return (
            [info for info in own.store.documents() if info.owner == person.user.id],
            own.store.rejections(own.library.own_root),
            own.library.waiting(),
            files,
            [(info, conversations.exchanges(info.id, person.user.id)) for info in listed],
            [(key.prefix, key.label) for key in self.accounts.keys(person.user.name)],
            self.accounts.by_session(person.session),
        )


def through_the_proxy(world: World) -> Direct:
    """A client whose requests come by way of the trusted proxy and by https, as those of people do."""
    return Direct(world.app, {"x-forwarded-proto": "https", "x-forwarded-for": "198.51.100.7"})
