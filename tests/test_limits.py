"""Tests of rag.limits: too often is a 429 that says when, too much a 413, and one user's hurry is nobody else's."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from fastapi import FastAPI, Request
from starlette.testclient import TestClient

from index.errors import InvalidSettings, OverLimit
from rag import limits as module
from rag.accounts import User
from rag.assistant import Assistant
from rag.limits import Limited, Queue, Rate
from rag.server import create_app
from rag.settings import Settings


class Clock:
    """A time that passes when it is told to."""

    moment = 100.0

    def __call__(self) -> float:
        return self.moment


def test_a_bucket_fills_with_time_and_tells_when() -> None:
    clock = Clock()
    rate = Rate(60, clock)
    for _ in range(60):
        rate.take("ann")
    with pytest.raises(OverLimit, match=r"60 a minute is the most. Wait 1 second and go on") as refused:
        rate.take("ann")
    assert refused.value.retry_after == pytest.approx(1.0)
    rate.take("ben")
    clock.moment += 1.01
    rate.take("ann")
    with pytest.raises(OverLimit):
        rate.take("ann")
    clock.moment += 3_600
    for _ in range(60):
        rate.take("ann")
    with pytest.raises(OverLimit):
        rate.take("ann")


def test_a_refused_request_costs_nothing() -> None:
    clock = Clock()
    rate = Rate(1, clock)
    rate.take("ann")
    for _ in range(30):
        with pytest.raises(OverLimit):
            rate.take("ann")
    clock.moment += 60
    rate.take("ann")


def test_strangers_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 100)
    rate = Rate(10, Clock())
    for _ in range(10):
        rate.take("ann")
    for number in range(1_000):
        rate.take(f"192.0.2.{number}", "address")
    assert {kind: len(buckets) for kind, buckets in rate._buckets.items()} == {"user": 1, "address": 100}
    with pytest.raises(OverLimit):
        rate.take("ann")


def test_threads_share_a_bucket() -> None:
    rate, taken = Rate(50, Clock()), []

    def hurry() -> None:
        for _ in range(20):
            try:
                rate.take("ann")
                taken.append(1)
            except OverLimit:
                pass

    threads = [threading.Thread(target=hurry) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 50


def test_a_queue_takes_so_many_questions_and_gives_places_back() -> None:
    queue = Queue(1, 2)
    with queue.place(), queue.place():
        with queue.place():
            assert queue.taken == 3
            with pytest.raises(OverLimit, match=r"3 are being answered or wait") as refused, queue.place():
                pass
            assert refused.value.retry_after
        with pytest.raises(ValueError, match="broke"), queue.place():
            raise ValueError("broke")
        with queue.place():
            pass
    assert queue.taken == 0


def test_one_user_leaves_places_to_others() -> None:
    queue = Queue(1, 20)
    anns = [queue.place("ann") for _ in range(7)]
    with pytest.raises(OverLimit, match=r"^7 of your questions are being answered") as refused:
        queue.place("ann")
    assert refused.value.retry_after
    bens = queue.place("ben")
    assert bens.ahead == 7
    anns[3].leave()
    assert queue.place("ann").ahead == 7
    assert bens.ahead == 6


def test_the_place_of_a_question_moves_up() -> None:
    queue = Queue(2, 5)
    places = [queue.place() for _ in range(5)]
    assert [place.ahead for place in places] == [0, 0, 1, 2, 3]
    places[0].leave()
    places[0].leave()
    assert [place.ahead for place in places[1:]] == [0, 0, 1, 2]


# Requests


class Named:
    """Stands where SignedIn stands: the user is whom the request says."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    async def __call__(self, scope, receive, send):  # type: ignore[no-untyped-def]
        if scope["type"] == "http":
            name = dict(scope["headers"]).get(b"x-user", b"").decode()
            scope = {**scope, "state": {"user": User(name, name) if name else None, "address": scope["client"][0]}}
        await self.app(scope, receive, send)


@pytest.fixture
def client() -> Iterator[TestClient]:
    app = FastAPI()

    @app.post("/library/files")
    async def echo(request: Request) -> int:
        return len(await request.body())

    @app.post("/api/json")
    async def parsed(body: dict[str, str]) -> int:
        return len(body)

    @app.get("/{path:path}")
    def page(path: str) -> str:
        return path

    app.add_middleware(Limited, rate=Rate(5, Clock()), max_upload_bytes=1_000_000)
    app.add_middleware(Named)
    with TestClient(app) as client:
        yield client


def test_each_user_and_each_address_has_requests_of_their_own(client: TestClient) -> None:
    for _ in range(5):
        assert client.get("/api/x", headers={"X-User": "ann"}).status_code == 200
    refused = client.get("/api/x", headers={"X-User": "ann"})
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "12")
    assert refused.json()["error"] == "Too many requests: 5 a minute is the most. Wait 12 seconds and go on."
    for _ in range(5):
        assert client.get("/api/x", headers={"X-User": "ben"}).status_code == 200
        assert client.post("/login").status_code == 405
    assert client.post("/login").status_code == 429


def test_half_an_address_of_ipv6_is_one_address(client: TestClient) -> None:
    def asked(number: int, network: str = "2001:db8:0:7") -> int:
        return TestClient(client.app, client=(f"{network}::{number:x}", 1)).get("/api/x").status_code

    assert [asked(number) for number in range(1, 8)] == [200] * 5 + [429] * 2
    assert asked(1, "2001:db8:0:8") == 200


def test_what_a_page_loads_by_itself_is_not_counted(client: TestClient) -> None:
    for path in (
        "/assets/a.js",
        "/static/b.css",
        "/healthz",
        "/readyz",
        "/theme.css",
        "/gradio_api/heartbeat/x",
        "/gradio_api/queue/data",
        "/library/work",
    ):
        for _ in range(10):
            assert client.get(path).status_code == 200
    for path in ("/assets", "/healthz/x", "/api/assets/x"):
        client.get(path)
    client.get("/")
    client.get("/")
    assert client.get("/").status_code == 429


def test_a_body_that_is_too_large_is_a_413_before_it_is_read(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.post("/library/files", content=b"x" * 1_000_000).json() == 1_000_000
    refused = client.post("/library/files", content=b"x" * 1_000_001)
    assert (refused.status_code, refused.json()["error"]) == (413, "What was sent is larger than 1 MB. Send the files in several requests.")
    assert client.post("/library/files", content=b"x", headers={"Content-Length": "many"}).status_code == 413


def test_a_body_that_does_not_tell_its_length_is_cut_off(client: TestClient) -> None:
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        for _ in range(50):
            read += 100_000
            yield b"x" * 100_000

    assert client.post("/library/files", content=endless()).status_code == 413


def test_what_is_no_file_is_short_where_files_may_be_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BODY_BYTES", 1_000)
    app = FastAPI()

    @app.post("/json")
    async def parsed(body: dict[str, str]) -> int:
        return len(body)

    app.add_middleware(Limited, rate=Rate(5, Clock()), max_upload_bytes=1_000_000)
    client = TestClient(app)
    assert client.post("/json", json={"a": "b"}).json() == 1
    assert client.post("/json", json={"a": "b" * 1_000}).status_code == 413


def test_a_limit_inside_the_http_door_is_told_as_one(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    client = TestClient(create_app(assistant), base_url="http://127.0.0.1", raise_server_exceptions=False)
    for error, status, wait in ((OverLimit("too often", 2.5), 429, "3"), (OverLimit("too much"), 413, None)):

        def refuse(*_: object, error: OverLimit = error) -> None:
            raise error

        monkeypatch.setattr(Assistant, "stream", refuse)
        response = client.post("/api/ask", json={"question": "q"})
        assert (response.status_code, response.headers.get("retry-after"), response.json()) == (status, wait, {"error": str(error)})


def test_a_full_queue_is_told_at_every_door(assistant: Assistant) -> None:
    """One question is held in the one place that there is."""
    assistant.settings = assistant.settings.replaced(queue_length=0)
    app = create_app(assistant)
    queue = app.state.service.queue
    places = [queue.place(f"user {number}") for number in range(queue.places)]
    chat = {"model": "citewell", "messages": [{"role": "user", "content": "Who built the lander Apollo?"}]}
    tool = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "ask", "arguments": {"question": "Who built the lander Apollo?"}}}
    accepted = {"accept": "application/json, text/event-stream"}
    with TestClient(app, base_url="http://127.0.0.1") as client:
        for path, body in (("/api/ask", {"question": "q?"}), ("/v1/chat/completions", chat), ("/v1/chat/completions", {**chat, "stream": True})):
            refused = client.post(path, json=body)
            assert refused.status_code == 429, path
            assert int(refused.headers["retry-after"]) > 0
            assert "Too many questions are waiting" in refused.text
        assert "Too many questions are waiting" in client.post("/mcp", json=tool, headers=accepted).text
        places[0].leave()
        assert client.post("/api/ask", json={"question": "Who built the lander Apollo?"}).status_code == 200


@pytest.mark.parametrize(("setting", "value"), [("user_files", 0), ("user_mb", 0), ("requests_per_minute", 0), ("queue_length", -1)])
def test_limits_that_let_nothing_through_are_refused(setting: str, value: int) -> None:
    with pytest.raises(InvalidSettings, match=f"'{setting}' cannot be used"):
        Settings(**{setting: value})
