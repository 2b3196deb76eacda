"""Gradio's sessions and events: a user reaches their own alone, whatever ids they know."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import gradio as gr
import pytest
from gradio.state_holder import SessionState
from page_fake import STARTERS, FakeAssistant, FakeService
from starlette.applications import Starlette
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from rag.accounts import User
from ui import app as app_module
from ui import kept
from ui import sessions as sessions_module
from ui.app import UNEXPECTED, chat_page, mount
from ui.sessions import STREAMS_OF_ONE, Events, Pages, own_sessions, session_of

pytestmark = pytest.mark.timeout(90)  # a stream that nobody ends would be listened to for ever

ANN, BEN = User("a" * 32, "ann"), User("b" * 32, "ben")
JOIN, DATA, CANCEL, RESET, RUN = (f"/gradio_api/{name}" for name in ("queue/join", "queue/data", "cancel", "reset", "run/predict"))


class AsSaid:
    """Stands where rag.access.SignedIn stands: a header says who it is."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        who = dict(scope.get("headers", [])).get(b"who", b"ann")
        await self.app({**scope, "state": {**scope.get("state", {}), "user": BEN if who == b"ben" else ANN}}, receive, send)


@pytest.fixture(scope="module")
def service() -> FakeService:
    return FakeService(FakeAssistant(reading_seconds=0.0, token_seconds=0.0))


@pytest.fixture(scope="module")
def client(service: FakeService) -> Iterator[TestClient]:
    app = mount(Starlette(), service)
    app.add_middleware(AsSaid)
    with TestClient(app) as made:
        yield made


@pytest.fixture(scope="module")
def numbers(service: FakeService) -> dict[str, int]:
    """The numbers by which a browser asks for what is done when the page is opened, and for an answer."""
    functions = chat_page(service).fns.values()
    return {function.name: function._id for function in functions if function.name in ("opened", "ask", "stopped")}


def join(client: TestClient, session: str, number: int, data: list[Any], who: str = "ann", **more: Any) -> Any:
    body = {"session_hash": session, "fn_index": number, "data": data, "trigger_id": None, **more}
    return client.post(JOIN, json=body, headers={"who": who})


def streamed(client: TestClient, session: str, who: str = "ann") -> list[dict[str, Any]]:
    """All that is sent to whoever listens to a session."""
    response = client.get(DATA, params={"session_hash": session}, headers={"who": who})
    return [json.loads(line.removeprefix("data: ")) for line in response.text.splitlines() if line.startswith("data: ")]


def said(messages: list[dict[str, Any]]) -> str:
    return json.dumps(messages)


def test_a_user_hears_what_becomes_of_their_own_question_and_nobody_else_does(
    client: TestClient, numbers: dict[str, int], service: FakeService
) -> None:
    assert join(client, "s1", numbers["opened"], []).status_code == 200
    assert STARTERS[0] in said(streamed(client, "s1"))
    assert join(client, "s1", numbers["ask"], ["How long is the crossing of ann?", None, None]).status_code == 200
    stolen, made_up = (said(streamed(client, name, "ben")) for name in ("s1", "never used"))
    assert stolen == made_up
    assert "crossing" not in stolen
    heard = said(streamed(client, "s1"))
    assert "How long is the crossing of ann?" in heard
    assert "42 minutes" in heard
    # Ben's own session of that name is a new one, which knows nothing: it asks him to begin anew instead of going on with Ann's conversation.
    assert join(client, "s1", numbers["ask"], ["What did ann ask?", None, None], "ben").status_code == 200
    his = said(streamed(client, "s1", "ben"))
    assert "data-forgotten" in his
    assert "crossing" not in his
    asked = [question for question, _ in service.assistant.asked]
    assert asked == ["How long is the crossing of ann?"]


def test_what_one_user_asks_at_the_same_time_is_not_in_the_other_ones_stream(client: TestClient, numbers: dict[str, int]) -> None:
    for who in ("ann", "ben"):
        join(client, "t", numbers["opened"], [], who)
        streamed(client, "t", who)
    for who in ("ann", "ben"):
        join(client, "t", numbers["ask"], [f"A question of {who}?", None, None], who)
    heard = {who: said(streamed(client, "t", who)) for who in ("ann", "ben")}
    assert "A question of ann?" in heard["ann"]
    assert "A question of ann?" not in heard["ben"]
    assert "A question of ben?" in heard["ben"]
    assert "A question of ben?" not in heard["ann"]


def test_nobody_ends_what_another_asked(client: TestClient, numbers: dict[str, int]) -> None:
    join(client, "e", numbers["opened"], [])
    streamed(client, "e")
    event = join(client, "e", numbers["ask"], ["How long?", None, None]).json()["event_id"]
    for body in ({"event_id": event}, {"event_id": "made up"}, {"event_id": [event]}, {"event_id": None}, {}):
        ends = {"session_hash": "e", "fn_index": numbers["ask"], **body}
        for path, sent in ((RESET, body), (CANCEL, ends)):
            response = client.post(path, json=sent, headers={"who": "ben"})
            assert (response.status_code, response.text) == (404, "Not found"), (path, body)
    assert "42 minutes" in said(streamed(client, "e")), "the question was answered to its end"
    assert client.post(RESET, json={"event_id": event}).status_code == 200
    ends = {"session_hash": "e", "fn_index": numbers["ask"], "event_id": event}
    assert client.post(CANCEL, json=ends).status_code == 200


def test_a_direct_call_has_the_callers_session_too(client: TestClient, numbers: dict[str, int]) -> None:
    join(client, "d", numbers["opened"], [])
    streamed(client, "d")
    join(client, "d", numbers["ask"], ["What is it that ann asks?", None, None])
    streamed(client, "d")
    body = {"session_hash": "d", "fn_index": numbers["stopped"], "data": [None], "event_id": "made up"}
    shown = {who: client.post(RUN, json=body, headers={"who": who}).text for who in ("ann", "ben")}
    assert "What is it that ann asks?" in shown["ann"]
    assert "ann asks" not in shown["ben"]
    assert STARTERS[0] in shown["ben"]


@pytest.mark.parametrize("broken", ["Conversations.add", "keep"])
def test_an_answer_that_cannot_be_kept_is_shown_and_leaves_nothing_to_stop(
    client: TestClient, numbers: dict[str, int], service: FakeService, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a damaged row, /srv/citewell")

    if broken == "keep":
        monkeypatch.setattr(kept, "keep", fail)
    else:
        monkeypatch.setattr(service.conversations, "add", fail)
    join(client, broken, numbers["opened"], [])
    streamed(client, broken)
    join(client, broken, numbers["ask"], ["How long?", None, None])
    heard = streamed(client, broken)
    assert "42 minutes" in said(heard)
    assert "/srv" not in said(heard)
    assert kept.UNKEPT in said(heard) or broken == "keep"
    assert UNEXPECTED not in said(heard)
    body = {"session_hash": broken, "fn_index": numbers["stopped"], "data": [None], "event_id": "made up"}
    after = client.post(RUN, json=body).text
    assert "42 minutes" in after
    assert "Stopped" not in after


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b"[" * 100_000, b'"s1"', b"\xff"])
def test_what_cannot_be_read_is_not_passed_on(client: TestClient, content: bytes) -> None:
    for path in (JOIN, RUN, CANCEL, RESET):
        response = client.post(path, content=content, headers={"content-type": "application/json"})
        assert (response.status_code, response.text) == (404, "Not found")


def seen_by_gradio(method: str, path: str, query: bytes = b"", body: bytes = b"", who: User = ANN, root: str = "") -> Any:
    """The scope and the body that come through to Gradio; None where nothing does."""
    got: list[Any] = []

    async def gradio(scope: Scope, receive: Receive, send: Send) -> None:
        got.append((scope, (await receive())["body"] if method == "POST" else b""))

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        pass

    scope = {"type": "http", "method": method, "path": root + path, "root_path": root, "query_string": query, "headers": [], "state": {"user": who}}
    asyncio.run(own_sessions(gradio, FakeService(FakeAssistant()), print)(scope, receive, send))
    return got[0] if got else None


def test_a_user_has_so_many_streams_open_and_nobody_else_fewer() -> None:
    opened: list[str] = []

    async def walked() -> list[int]:
        released = asyncio.Event()

        async def gradio(scope: Scope, receive: Receive, send: Send) -> None:
            opened.append(scope["path"])
            await released.wait()

        async def asked(path: str, who: User) -> int:
            told: list[int] = []

            async def send(message: Any) -> None:
                if message["type"] == "http.response.start":
                    told.append(message["status"])
                    headers.update(dict(message["headers"]))

            scope = {"type": "http", "method": "GET", "path": path, "query_string": b"session_hash=s", "headers": [], "state": {"user": who}}
            await sessions(scope, receive, send)
            return told[0] if told else 200

        async def receive() -> Any:
            return {"type": "http.request", "body": b""}

        headers: dict[bytes, bytes] = {}
        service = FakeService(FakeAssistant())
        service.open = False
        sessions = own_sessions(gradio, service, opened.append)
        open_now = [asyncio.create_task(asked(path, ANN)) for path in (DATA, "/gradio_api/heartbeat/s") for _ in range(STREAMS_OF_ONE // 2)]
        while len(opened) < STREAMS_OF_ONE:
            await asyncio.sleep(0)
        statuses = [await asyncio.wait_for(asked(path, ANN), 10) for path in (DATA, "/gradio_api/heartbeat/s")]
        assert headers[b"retry-after"] == b"5"
        open_now.append(asyncio.create_task(asked(DATA, BEN)))
        while len(opened) < STREAMS_OF_ONE + 1:
            await asyncio.sleep(0)
        released.set()
        statuses += [status for status in await asyncio.gather(*open_now) if status != 200]
        return [*statuses, await asked(DATA, ANN)]

    assert asyncio.run(walked()) == [429, 429, 200]


def test_all_questions_that_there_is_room_for_are_begun(numbers: dict[str, int]) -> None:
    """Gradio begins 40 events of its own accord, and lets a hundred wait."""
    service = FakeService(FakeAssistant(reading_seconds=0.0, token_seconds=0.0))
    begun: list[str] = []
    stream = service.stream
    service.stream = lambda door, own, question, *more, **named: (begun.append(question), stream(door, own, question, *more, **named))[1]  # type: ignore[method-assign]
    app = mount(Starlette(), service)
    app.add_middleware(AsSaid)
    tabs = [f"tab {number}" for number in range(60)]
    with TestClient(app) as client:
        for tab in tabs:
            join(client, tab, numbers["opened"], [])
        assert all("process_completed" in said(streamed(client, tab)) for tab in tabs)
        service.ahead = 1
        assert [join(client, tab, numbers["ask"], [f"A question of {tab}?", None, None]).status_code for tab in tabs] == [200] * len(tabs)
        join(client, "newcomer", numbers["opened"], [])
        assert STARTERS[0] in said(streamed(client, "newcomer")), "a page opens while all others wait"
        for _ in range(200):
            if len(begun) == len(tabs):
                break
            time.sleep(0.1)
        assert sorted(begun) == sorted(f"A question of {tab}?" for tab in tabs)
        service.ahead = 0
        assert "42 minutes" in said(streamed(client, tabs[-1]))


def test_a_session_is_forgotten_once_its_page_has_been_gone_for_some_time_and_not_used(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sessions_module, app_module):
        monkeypatch.setattr(module, "LEFT_SECONDS", 0.3)
    page = chat_page(service)
    monkeypatch.setattr(app_module, "chat_page", lambda _: page)
    app = mount(Starlette(), service)
    held = page.state_holder
    left, used, stays = (session_of(ANN.id, name) for name in ("left", "used", "stays"))

    async def beating(name: str, gone: asyncio.Event) -> None:
        async def receive() -> Any:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            pass

        scope = {"type": "http", "method": "GET", "path": f"/gradio_api/heartbeat/{name}", "query_string": b"", "headers": [], "state": {"user": ANN}}
        await AsSaid(app)(scope, receive, send)

    async def walked() -> None:
        assert all(held[name] for name in (left, used, stays))
        gone, never = asyncio.Event(), asyncio.Event()
        pages = [asyncio.create_task(beating(name, event)) for name, event in (("left", gone), ("used", gone), ("stays", never))]
        await asyncio.sleep(0.1)
        gone.set()
        await asyncio.gather(*pages[:2])
        while left in held:
            held.time_last_used[used] = datetime.now() + timedelta(seconds=60)  # as by a page whose network broke, and which goes on asking
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)
        assert used in held
        assert stays in held
        held.time_last_used[used] = datetime.now() - timedelta(seconds=60)
        while used in held:
            await asyncio.sleep(0.02)
        never.set()
        await pages[2]

    asyncio.run(walked())


def test_a_page_that_is_open_again_is_waited_for_anew() -> None:
    forgotten: list[str] = []
    pages = Pages(lambda session: bool(forgotten.append(session)) or True)

    async def walked() -> int:
        loop, due = asyncio.get_running_loop(), []
        loop.call_later = lambda *arguments: due.append(real(*arguments)) or due[-1]  # type: ignore[method-assign,assignment,func-returns-value]
        for _ in range(3):
            with pages.open("a"), pages.open("a"):
                pass
        return sum(not timer.cancelled() for timer in due)

    loop = asyncio.new_event_loop()
    real = loop.call_later
    assert loop.run_until_complete(walked()) == 1
    loop.close()
    assert forgotten == []


def test_what_an_event_leaves_as_it_is_is_not_made_anew(service: FakeService) -> None:
    """And what it changes comes out as Gradio alone would have it."""
    page = chat_page(service)
    function = next(function for function in page.fns.values() if function.name == "ask")
    parts = {part.elem_id or index: part for index, part in enumerate(function.outputs)}
    running, send, state, nothing = parts["running"], parts["send"], function.outputs[0], gr.skip()
    for changes in (
        {running: "<p>few words</p>"},
        {running: "<p>more</p>", send: gr.update(visible=False), state: None},
        {state: 1},
        {send: gr.skip()},
    ):
        ours, theirs = SessionState(page), SessionState(page)
        before = {part._id: ours.blocks_config.blocks[part._id] for part in function.outputs}
        got = asyncio.run(page.postprocess_data(function, dict(changes), ours))
        # Of its own HTML it says that nothing changes in a property that there is not, too.
        assert got == [
            nothing if made == {**nothing, "props": nothing} else made
            for made in asyncio.run(gr.Blocks.postprocess_data(page, function, dict(changes), theirs))
        ]
        anew = {part._id for part in function.outputs if ours.blocks_config.blocks[part._id] is not before[part._id]}
        assert anew == ({send._id} if send in changes else set())
        assert ours.state_data == theirs.state_data


def test_every_way_to_name_a_session_is_renamed() -> None:
    mine = session_of(ANN.id, "x/ä")
    scope, _ = seen_by_gradio("GET", DATA, b"a=1&session_hash=x%2F%C3%A4&session_hash=y&__theme=dark")
    assert scope["query_string"].decode() == f"a=1&session_hash={mine}&session_hash={session_of(ANN.id, 'y')}&__theme=dark"
    for root in ("", "/below"):
        scope, _ = seen_by_gradio("GET", "/gradio_api/heartbeat/xyz/", root=root)
        assert scope["path"] == f"{root}/gradio_api/heartbeat/{session_of(ANN.id, 'xyz')}"
        assert scope["raw_path"].decode() == scope["path"]
    for path in (JOIN, RUN, f"{JOIN}/"):
        # The last of two keys of one name is what counts, and what is passed on.
        scope, body = seen_by_gradio("POST", path, body=b'{"session_hash": "s", "event_id": "e", "data": [1], "session_hash": "z"}')
        assert json.loads(body) == {"session_hash": session_of(ANN.id, "z"), "data": [1]}
        assert dict(scope["headers"])[b"content-length"] == str(len(body)).encode()
    assert json.loads(seen_by_gradio("POST", JOIN, body=b'{"session_hash": null, "data": []}')[1]) == {"session_hash": None, "data": []}
    assert seen_by_gradio("POST", RESET, body=b'{"event_id": "e"}') is None
    assert session_of(ANN.id, "z") != session_of(BEN.id, "z")
    assert seen_by_gradio("GET", "/config", b"session_hash=1")[0]["query_string"] == b"session_hash=1"


def test_only_the_last_events_are_remembered_and_a_forgotten_one_is_nobodys() -> None:
    events = Events(2)
    for event in ("1", "2", "3"):
        events.begun(event, ANN.id)
    assert [events.is_of(event, ANN.id) for event in ("1", "2", "3")] == [False, True, True]
    assert not events.is_of("3", BEN.id)
    assert not events.is_of(["3"], ANN.id)
