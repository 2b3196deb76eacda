"""Two users and an admin: every id that one of them has, put by another into every parameter of every route. It is an id that does not exist, and nothing else."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from conftest import FakeModel
from security_world import MARKERS, Direct, Known, Person, Reply, World, through_the_proxy

pytestmark = pytest.mark.usefixtures("fast_probes")

ACCEPT = {"accept": "application/json, text/event-stream"}
EVENTS = {"accept": "text/event-stream"}
QUERY = ("id", "document_id", "documents", "source", "root", "folder", "name", "user", "owner", "conversation", "exchange", "q", "words", "kind", "format", "session_hash", "event_id", "key")  # fmt: skip
"""Names that a parameter might have, also where a route knows none."""

Body = Callable[[str, str], Any]
"""From an id and the root that goes with it to a body."""


def call(tool: str, **arguments: Any) -> Any:
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}


def form(name: str) -> bytes:
    return f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\nOne kea.\r\n--x--\r\n'.encode()


BODIES: dict[str, list[Body]] = {
    "POST /api/ask": [
        lambda one, root: {"question": "Who eats seeds?", "documents": [one]},
        lambda one, root: {"question": "Who eats seeds?", "documents": ["kea.txt", one]},
        lambda one, root: {"question": "Who eats seeds?", "conversation": one},
    ],
    "POST /api/conversations": [lambda one, root: {"title": one}],
    "PATCH /api/conversations/{conversation}": [lambda one, root: {"title": "mine"}, lambda one, root: {"shared": True}, lambda one, root: {"shared": False}],
    "POST /api/exchanges/{exchange}/feedback": [lambda one, root: {"verdict": "right", "reason": "mine"}, lambda one, root: {"verdict": ""}],
    "POST /api/keys": [lambda one, root: {"label": one}],
    "POST /api/password": [lambda one, root: {"old": one, "new": "short"}],
    "POST /password": [lambda one, root: urlencode({"old": one, "new": "short", "again": "short"}).encode()],
    "POST /api/documents": [lambda one, root: form(one)],
    "POST /api/documents/url": [lambda one, root: {"url": one}, lambda one, root: {"url": f"https://127.0.0.1/{one}"}],
    "POST /library/url": [lambda one, root: {"url": one}, lambda one, root: {"url": f"https://127.0.0.1/{one}"}],
    "POST /api/sync": [lambda one, root: {"folder": one}, lambda one, root: {"folder": root, "retry": True}],
    "POST /api/forget": [lambda one, root: {"folder": one}, lambda one, root: {"folder": root}],
    "POST /v1/chat/completions": [
        lambda one, root: {"model": "citewell", "messages": [{"role": "user", "content": "Who eats seeds?"}], "documents": [one], "user": one, "metadata": {"documents": one}},
        lambda one, root: {"model": one, "messages": [{"role": "user", "content": "Who eats seeds?"}]},
    ],
    "POST /mcp": [
        lambda one, root: call("read_span", document_id=one, start=0, end=5),
        lambda one, root: call("search", query="seeds", limit=50, documents=[one]),
        lambda one, root: call("search", query="seeds", limit=50, documents=["kea.txt", one]),
        lambda one, root: call("ask", question="Who eats seeds?", documents=[one]),
        lambda one, root: call(one),
        lambda one, root: {"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": f"citewell://{one}"}},
    ],
    "POST /library/remove": [lambda one, root: {"documents": [one]}],
    "POST /library/share": [lambda one, root: {"document": one, "shared": True}, lambda one, root: {"document": one, "shared": False}],
    "POST /library/discard": [lambda one, root: {"source": one, "root": root}, lambda one, root: {"source": one, "root": one}, lambda one, root: {"source": one, "root": f"{root}/.."}],
    "POST /library/retry": [lambda one, root: {"source": one, "root": root}, lambda one, root: {"source": one, "root": one}, lambda one, root: {"source": one, "root": f"uploads/../{root}"}],
    "PUT /library/files": [lambda one, root: b"One kea."],
    "POST /library/cancel": [lambda one, root: {"root": root}],
}  # fmt: skip
"""What is sent to every route that takes a body."""

WITHOUT = {"POST /login", "POST /logout", "DELETE GET PATCH POST PUT /v1/{rest:path}"}
"""Routes whose bodies say nothing of anybody's: they sign in and out, or do nothing."""


NAMES = ("source", "rejected", "root and source")
"""What a file might be called that is uploaded; reading one takes a while."""

KEEPING = ("/api/documents", "/library/files", "/api/conversations", "/api/keys")
"""Routes by which somebody gets things of their own, called by whatever name they give; these are taken away again, as they are found by that name."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, fast_probes: None) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("people"), add_urls=True)
    made.furnish(made.ann)
    made.furnish(made.ben)
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(world: World) -> Iterator[Direct]:
    with through_the_proxy(world).running() as client:
        yield client


def nobodys(person: Person, one: str) -> str:
    """An id of the same kind that does not exist."""
    mirrored = one.replace(person.user.id, person.user.id[::-1]).replace(person.marker, "dodo")
    if mirrored != one:
        return mirrored
    return one[::-1] if re.fullmatch("[0-9a-f]+", one) else one[:3] + one[3:][::-1]


def plain(text: str, *sent: str) -> str:
    """A reply without what was sent, as which it may come back."""
    forms = {
        form
        for one in sent
        for form in (
            one,
            quote(one),
            quote(one, safe=""),
            html.escape(one),
            json.dumps(one)[1:-1],
            one.replace("/", "_"),
            one.rpartition("/")[2],
            one[:11],
            one[:100],
        )
    }
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "*")
    return text


def timeless(text: str) -> str:
    """A reply without what differs from one time to the next."""
    text = re.sub(r'\\?"(timings|created|indexed_at|changed|similarity|score|confidence)\\?": ?(\{[^}]*\}|\\?"[^"]*"|[\d.]+)', "*", text)
    text = re.sub(r'"key": ?"cw_[\w-]+"', "*", text)
    return re.sub(r"[0-9a-f]{32}|chatcmpl-\w+|\d\d:\d\d:\d\d|\d+(\.\d+)? ms", "*", text)


def nothing_of(person: Person, reply: Reply, what: Any, *sent: str) -> None:
    """A reply holds no word that somebody keeps, and none of their ids, but for what was sent."""
    said = plain(reply.text, *sent) + repr([value for _, value in reply.headers if not value.startswith("form-action")])
    assert person.marker not in plain(said, *sent).lower(), what
    for name, one in person.ids.items():
        assert one in sent or one not in said, (what, name)


def requests(route: Known, one: str, root: str) -> Iterator[tuple[str, str, bytes | Any, dict[str, str]]]:
    """Every way of putting an id into a route."""
    addresses = [route.at(**{name: quote(one, safe=safe)}) for name in route.parameters for safe in ("", "/")] or [route.at()]
    addresses += [f"{route.at()}?{'&'.join(f'{name}={quote(one, safe=str())}' for name in dict.fromkeys((*QUERY, *route.query)))}"]
    addresses += [f"{route.at()}?{name}={quote(one, safe='')}" for name in route.query]
    if "{document_id" in route.path:
        addresses += [f"{address}?{more}" for address in addresses[:1] for more in ("start=0&end=3", "view=page&page=1", "fragment=1", "format=json")]
    for method in route.methods:
        bodies = next((made for known, made in BODIES.items() if known == f"{method} {route.path}"), None)
        for address in dict.fromkeys(addresses):
            if bodies is None:
                yield method, address, b"", {}
                continue
            for body in bodies:
                headers = {"content-type": "multipart/form-data; boundary=x"} if (method, route.path) == ("POST", "/api/documents") else ACCEPT
                yield method, address, body(one, root), headers
                if route.path in ("/api/ask", "/v1/chat/completions"):
                    made = body(one, root)
                    yield method, address, {**made, **({"stream": True} if route.path != "/api/ask" else {})}, EVENTS


def test_every_body_was_thought_of(world: World) -> None:
    takes = {
        f"{' '.join(route.methods)} {route.path}" for route in world.routes if not route.gradio and set(route.methods) & {"POST", "PUT", "PATCH"}
    }
    assert takes == set(BODIES) | WITHOUT


@pytest.mark.parametrize("name", ["ben", "eve"])
def test_the_ids_of_somebody_else_are_ids_of_nothing(world: World, client: Direct, name: str) -> None:
    ann, other = world.ann, getattr(world, name)
    before, shared, sent = world.kept(ann), world.store.text(shared_document(world)), 0
    root, no_root = ann.ids["root"], nobodys(ann, ann.ids["root"])
    for route in world.routes:
        if route.gradio or route.path in ("/logout", "/login"):
            continue
        for kind, one in ann.ids.items():
            if set(route.methods) & {"POST", "PUT"} and route.path in ("/api/documents", "/library/files") and kind not in NAMES:
                continue
            none = nobodys(ann, one)
            for real, made_up in zip(requests(route, one, root), requests(route, none, no_root), strict=True):
                (method, address, body, headers), (_, control, nothing, _) = real, made_up
                got, expected = (
                    client.send(method, where, {**other.by_session, **headers}, what, patience=60)
                    for where, what in ((address, body), (control, nothing))
                )
                what = (method, address, body, got)
                nothing_of(ann, got, what, one, root)
                assert got.status == expected.status, what
                assert timeless(plain(got.text, one, root)) == timeless(plain(expected.text, none, no_root)), (what, expected)
                assert got.status < 500, what
                sent += 1
                if route.path in KEEPING and method != "GET":
                    world.forget_what_is_new(other)
    assert sent > 900
    assert world.kept(ann) == before
    assert world.store.text(shared_document(world)) == shared


def shared_document(world: World) -> str:
    return next(info.id for info in world.store.documents() if info.source == "kea.txt")


def test_ann_has_all_that_nobody_else_gets(world: World, client: Direct) -> None:
    """The walk above would find it: by each of these ways its owner gets what others do not."""
    ids, who = world.ann.ids, {**world.ann.by_session, **ACCEPT}
    got = [
        client.send("GET", f"/api/documents/{ids['document']}/text", who),
        client.send("GET", f"/documents/{quote(ids['document'], safe='')}", who),
        client.send("GET", f"/api/conversations/{ids['conversation']}", who),
        client.send("GET", f"/api/conversations/{ids['conversation']}/export", who),
        client.send("GET", "/library/list", who),
        client.send("GET", "/api/conversations?q=quokka", who),
        client.send("GET", "/api/keys", who),
        client.send("POST", "/mcp", who, call("read_span", document_id=ids["document"], start=0, end=40)),
        client.send("POST", "/api/ask", who, {"question": "Who eats?", "documents": [ids["source"]]}),
        client.send("POST", "/mcp", who, call("search", query="burrow", documents=[ids["document"]])),
    ]
    for reply in got:
        assert reply.status == 200, reply
        assert "quokka" in reply.text, reply


WORDS = ("What does the quokka eat?", "quokkatown quokkaseeds quokka-deep", "About the quokka", "quokka notes.txt", "no quokka", "The quokka title", "Is its burrow deep?", "Who sleeps?", "Who waits?")  # fmt: skip


@pytest.mark.parametrize("name", ["ben", "eve"])
def test_somebody_elses_words_find_nothing_of_theirs(world: World, client: Direct, name: str) -> None:
    person: Person = getattr(world, name)
    for words in (*WORDS, *world.ann.ids.values()):
        chat = {"model": "citewell", "messages": [{"role": "user", "content": words}]}
        asked: list[tuple[str, str, Any, dict[str, str]]] = [
            ("POST", "/api/ask", {"question": words}, {}),
            ("POST", "/api/ask", {"question": words}, EVENTS),
            ("POST", "/api/ask", {"question": f"List all of {words}"}, {}),
            ("POST", "/api/ask", {"question": "And what does it eat?", "history": [{"role": "user", "text": words}]}, {}),
            ("POST", "/v1/chat/completions", chat, {}),
            ("POST", "/v1/chat/completions", {**chat, "stream": True}, {}),
            ("POST", "/mcp", call("ask", question=words), ACCEPT),
            ("POST", "/mcp", call("search", query=words, limit=50), ACCEPT),
            ("GET", f"/api/conversations?q={quote(words)}", b"", {}),
            ("GET", f"/library/list?words={quote(words)}", b"", {}),
        ]
        model = world.model
        assert isinstance(model, FakeModel)
        model.calls.clear()
        for method, address, body, headers in asked:
            reply = client.send(method, address, {**person.by_session, **headers}, body)
            assert reply.status == 200, reply
            for one in ("quokkatown", "quokkaseeds", "quokka-deep", *world.ann.ids.values()):
                assert one in words or one not in reply.text, (address, words, one)
            sent = {words, words.lower().rstrip("?"), *re.findall(r"[\w-]*quokka[\w-]*", words)}
            assert "quokka" not in plain(reply.text, *sent), (address, words, reply)
        for prompt in model.calls:
            assert not re.search("quokkatown|quokkaseeds|quokka-deep", prompt.replace(words, "")), prompt


@pytest.mark.parametrize("name", ["ben", "eve"])
def test_nothing_that_is_listed_tells_of_somebody_else(world: World, client: Direct, name: str) -> None:
    person: Person = getattr(world, name)
    for route in world.routes:
        if not route.gradio and "GET" in route.methods:
            nothing_of(world.ann, client.send("GET", route.at(), person.by_session), route.path)
    own = world.assistant.for_user(person.user)
    told = repr([own.starters(), own.store.notices(), own.library.outcomes(), own.library.waiting(), own.library.work(), own.model_status()])
    assert "quokka" not in told
    assert world.ann.user.id not in told
    if name == "ben":
        assert client.send("GET", "/metrics", person.by_session).status == 403
    else:
        metrics = client.send("GET", "/metrics", person.by_session)
        assert metrics.status == 200
        for word in (*MARKERS.values(), *world.ann.ids.values(), "kea", "ann"):
            assert not re.search(rf"\b{re.escape(word)}\b", metrics.text), word


def test_what_somebody_may_not_do_changes_nothing_and_says_so(world: World, client: Direct) -> None:
    """What is everybody's, an admin changes and no member."""
    document, bens = shared_document(world), world.ben.by_session
    folder = str(world.folder)
    for method, address, body, status in (
        ("DELETE", f"/api/documents/{document}", b"", 403),
        ("POST", "/library/remove", {"documents": [document]}, 403),
        ("POST", "/library/remove", {"documents": [document, world.ben.ids["document"]]}, 403),
        ("POST", "/library/discard", {"root": folder, "source": "kea.txt"}, 403),
        ("POST", "/library/retry", {"root": folder, "source": "kea.txt"}, 403),
        ("POST", "/library/discard", {"root": "uploads", "source": "kea.txt"}, 403),
        ("POST", "/api/forget", {"folder": folder}, 403),
    ):
        reply = client.send(method, address, bens, body)
        assert (reply.status, list(reply.json)) == (status, ["error"]), (method, address, reply)
    assert client.send("POST", "/api/sync", bens, {"folder": folder}).text.startswith("event: error\n")
    assert world.store.text(document)
    assert world.store.text(world.ben.ids["document"])


def test_an_admin_cannot_have_somebodys_files_synced_as_everybodys(world: World, client: Direct) -> None:
    uploads = world.assistant.library.uploads
    for folder in (uploads / ".people", uploads / ".people" / world.ann.user.id, uploads, world.store.folder, uploads / ".." / "uploads" / ".people"):
        reply = client.send("POST", "/api/sync", world.eve.by_session, {"folder": str(folder)})
        assert reply.text.startswith("event: error\n"), reply
    assert {info.owner for info in world.store.documents() if "quokka" in info.source} == {world.ann.user.id}
    assert "quokka" not in client.send("GET", "/api/documents", world.ben.by_session).text


def test_a_page_that_is_told_of_others_documents_learns_nothing(world: World, client: Direct) -> None:
    """Gradio's own calls: with another's ids in whatever the page's script can send."""
    config = client.send("GET", "/config", world.ben.by_session).json
    ids = list(world.ann.ids.values())
    told = 0
    for dependency in config["dependencies"]:
        sent = {
            "fn_index": dependency["id"],
            "data": [None] * len(dependency["inputs"]),
            "event_data": {"documents": ids, "turn": 1, "key": ids[0], "case": "keep", "question": "Who waits?"},
            "session_hash": "bens-own-tab",
            "trigger_id": (dependency["targets"] or [[0]])[0][0],
        }
        reply = client.send("POST", "/gradio_api/run/predict", world.ben.by_session, sent)
        joined = client.send("POST", "/gradio_api/queue/join", world.ben.by_session, sent)
        nothing_of(world.ann, reply, dependency["id"], *ids)
        nothing_of(world.ann, joined, dependency["id"], *ids)
        told += reply.status == 200
    stream = client.send("GET", "/gradio_api/queue/data?session_hash=bens-own-tab", world.ben.by_session, patience=8)
    nothing_of(world.ann, stream, "queue", *ids)
    assert told, "some of the page's events are answered at once"
    assert "kea.txt" in stream.text or "The kea" in stream.text or "kea" in stream.text, "and the others by the stream"
