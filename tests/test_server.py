"""Tests of rag.server: the same answers as ask(), as JSON and as events; nothing for strangers; a listener who leaves stops the model."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import FakeEmbedder, FakeModel, make_assistant
from doors import QUESTION, STOPPED_SECONDS, Endless, as_json, served, timeless
from starlette.testclient import TestClient

from index.errors import OverLimit, StoreDamaged
from index.store import Store
from rag.assistant import Assistant
from rag.conversations import Conversations
from rag.model import Finished
from rag.prompt import MAX_QUESTION, Message
from rag.server import Server, create_app
from rag.types import Turn

EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture
def client(assistant: Assistant) -> TestClient:
    return TestClient(create_app(assistant), base_url="http://127.0.0.1", raise_server_exceptions=False)


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The events of a stream, read as a browser reads them: by newlines alone."""
    found = []
    for block in text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


@pytest.mark.parametrize("more", [{}, {"documents": ["tea.txt"]}, {"documents": None, "history": []}])
def test_json_is_what_ask_returns(client: TestClient, assistant: Assistant, more: dict[str, Any]) -> None:
    response = client.post("/api/ask", json={"question": QUESTION, **more})
    assert response.status_code == 200
    expected = assistant.ask(QUESTION, documents=more.get("documents")).to_dict()
    assert timeless(response.json()) == timeless(as_json(expected))
    assert set(response.json()["timings"]) == set(expected["timings"])


def test_history_is_understood(client: TestClient, assistant: Assistant) -> None:
    history = [{"role": "user", "text": "What is Apollo?"}, {"role": "assistant", "text": "A lander."}]
    response = client.post("/api/ask", json={"question": "And who built it?", "history": history})
    expected = assistant.ask("And who built it?", [Turn("user", "What is Apollo?"), Turn("assistant", "A lander.")])
    assert timeless(response.json()) == timeless(as_json(expected.to_dict()))
    assert response.json()["standalone_question"] == "Who built Apollo?"


def test_events_are_evidence_tokens_and_the_same_answer(client: TestClient, assistant: Assistant) -> None:
    response = client.post("/api/ask", json={"question": QUESTION}, headers=EVENTS)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    events = events_of(response.text)
    assert [name for name, _ in events] == ["evidence", *["token"] * (len(events) - 2), "answer"]
    assert len(events) > 4
    answer = events[-1][1]
    assert timeless(answer) == timeless(as_json(assistant.ask(QUESTION).to_dict()))
    assert events[0][1]["standalone_question"] == QUESTION
    shown = {hit["passage"]["id"]: hit["passage"]["text"] for hit in events[0][1]["hits"]}
    assert answer["evidence"]
    assert all(any(hit["passage"]["text"] in text for text in shown.values()) for hit in answer["evidence"])
    assert "".join(data["text"] for name, data in events if name == "token").strip() == "The lander Apollo was built by Grumman."


@pytest.mark.parametrize("headers", [{}, EVENTS])
@pytest.mark.parametrize(
    ("question", "says"), [("", "empty"), ("  ?!", "empty"), ("a" * (MAX_QUESTION + 1), "Shorten it"), ("b" * 100_000, "Shorten it")]
)
def test_a_question_that_cannot_be_asked_is_400(client: TestClient, headers: dict[str, str], question: str, says: str) -> None:
    response = client.post("/api/ask", json={"question": question}, headers=headers)
    assert response.status_code == 400
    assert says in response.json()["error"]
    assert len(response.text) < 500


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"question": 5},
        {"question": None},
        {"question": "Who?", "stream": True},
        {"question": "Who?", "history": [{"role": "system", "text": "x"}]},
        {"question": "Who?", "documents": "a"},
        [],
        "text",
    ],
)
def test_a_body_that_is_no_request_is_400(client: TestClient, body: object) -> None:
    response = client.post("/api/ask", json=body)
    assert response.status_code == 400
    assert list(response.json()) == ["error"]


@pytest.mark.parametrize(
    ("path", "content", "says"),
    [
        ("/api/ask", b"{", "the body is no JSON"),
        ("/api/ask", b"[]", "the body must be a JSON object"),
        ("/api/ask", b"{}", "'question' is missing"),
        ("/api/ask", b'{"question": 5}', "'question' must be text"),
        ("/api/ask", b'{"question": "Who?", "stream": true, "documents": "a"}', "'documents' must be a list, 'stream' is not known"),
        ("/api/ask", b'{"question": "Who?", "history": [{"role": "system", "text": "x"}]}', "'history.0.role' must be 'user' or 'assistant'"),
        ("/api/sync", b"{}", "'folder' is missing"),
    ],
)
def test_what_is_wrong_with_a_body_is_told_as_everything_else_is(client: TestClient, path: str, content: bytes, says: str) -> None:
    told = client.post(path, content=content, headers={"Content-Type": "application/json"}).json()
    assert list(told) == ["error"]
    assert says in told["error"]
    assert ('{"question"' if path == "/api/ask" else '{"folder"') in told["error"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"question": "\\ud800"}'])
def test_bytes_that_are_no_json_are_400(client: TestClient, content: bytes) -> None:
    response = client.post("/api/ask", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert "Traceback" not in response.text


@pytest.mark.parametrize("headers", [{}, EVENTS])
def test_an_unknown_document_is_404(client: TestClient, headers: dict[str, str]) -> None:
    response = client.post("/api/ask", json={"question": QUESTION, "documents": ["gone.md"]}, headers=headers)
    assert response.status_code == 404
    assert response.json() == {"error": "There is no document 'gone.md'."}


def test_documents_and_their_text(client: TestClient, assistant: Assistant, folder: Path) -> None:
    listing = client.get("/api/documents").json()
    assert [(entry["source"], entry["title"]) for entry in listing] == [("apollo.md", "The Apollo lander"), ("tea.txt", "Notes on tea")]
    answer = client.post("/api/ask", json={"question": QUESTION}).json()
    citation = answer["citations"][0]
    text = client.get(f"/api/documents/{citation['document_id']}/text")
    assert text.text == (folder / "apollo.md").read_text(encoding="utf-8")
    assert text.headers["content-type"].startswith("text/plain")
    assert text.text[citation["start"] : citation["end"]] == citation["quote"]
    assert client.get("/api/documents/gone/text").status_code == 404
    assert client.get("/api/documents/..%2F..%2Fetc%2Fpasswd/text").status_code == 404
    assert str(folder) not in json.dumps(listing)


def test_health_tells_the_models_state(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "ok", "model": "fake", "model_state": "ready", "message": ""}


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "192.168.0.7", "0.0.0.0", "", "evil.example:7860", "127.0.0.1@evil.example"],
)
def test_a_foreign_host_is_refused(client: TestClient, host: str) -> None:
    for response in (
        client.get("/api/documents", headers={"Host": host}),
        client.post("/api/ask", json={"question": QUESTION}, headers={"Host": host}),
    ):
        assert response.status_code == 400
        assert "apollo" not in response.text.lower()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.1:7860", "localhost:7860", "[::1]:7860", "[::1]", "LOCALHOST"])
def test_this_machine_is_let_in(client: TestClient, host: str) -> None:
    assert client.get("/api/documents", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"])
def test_there_are_no_pages_about_the_api(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_other_methods_and_origins_get_nothing(client: TestClient) -> None:
    assert client.get("/api/ask").status_code == 405
    response = client.post("/api/ask", json={"question": QUESTION}, headers={"Origin": "http://evil.example"})
    assert response.status_code == 403
    assert not any(name.startswith("access-control-") for name in response.headers)
    # A form elsewhere can send text/plain without asking first; it must not be taken for a question.
    plain = {"Content-Type": "text/plain"}
    assert client.post("/api/ask", content=json.dumps({"question": QUESTION}), headers=plain).status_code == 400
    assert client.post("/api/ask", content=json.dumps({"question": QUESTION}), headers={**plain, "Origin": "http://evil.example"}).status_code == 403


class Broken(FakeModel):
    """A model that raises what no model should."""

    def stream(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Finished]:
        yield "The "
        raise RuntimeError("secret /srv/place")


def test_a_bug_is_told_without_path_or_stack(store: Store, embedder: FakeEmbedder, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = make_assistant(store, embedder, Broken())
    broken.sync(folder)
    client = TestClient(create_app(broken), base_url="http://127.0.0.1", raise_server_exceptions=False)
    with caplog.at_level(logging.ERROR):
        streamed = client.post("/api/ask", json={"question": QUESTION}, headers=EVENTS)
    name, data = events_of(streamed.text)[-1]
    assert name == "error"
    assert "log" in data["error"]
    assert "RuntimeError" in caplog.text, "the log has what the listener does not get"
    whole = client.post("/api/ask", json={"question": QUESTION})
    assert whole.status_code == 500
    for text in (streamed.text, whole.text):
        assert "/srv" not in text
        assert "RuntimeError" not in text
        assert "Traceback" not in text


@pytest.mark.parametrize("headers", [{}, EVENTS])
def test_a_store_that_fails_is_one_plain_sentence(
    client: TestClient, assistant: Assistant, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StoreDamaged("The store cannot be read. Sync again.")

    monkeypatch.setattr(Assistant, "find", fail)
    response = client.post("/api/ask", json={"question": QUESTION}, headers=headers)
    assert (response.status_code, response.json()) == (503, {"error": "The store cannot be read. Sync again."})


def test_line_separators_inside_the_data_end_no_line(store: Store, embedder: FakeEmbedder, tmp_path: Path) -> None:
    made = tmp_path / "odd"
    made.mkdir()
    (made / "odd.txt").write_text("Kestrel\u0085sails \u2028 at noon. The ferry Kestrel sails daily 🛳.", encoding="utf-8")
    assistant = make_assistant(store, embedder, FakeModel("The ferry Kestrel sails daily 🛳."))
    assistant.sync(made)
    client = TestClient(create_app(assistant), base_url="http://127.0.0.1")
    response = client.post("/api/ask", json={"question": "When does the ferry Kestrel sail?"}, headers=EVENTS)
    assert all(line == "" or line.startswith(("event: ", "data: ")) for line in response.text.splitlines())
    assert timeless(events_of(response.text)[-1][1]) == timeless(as_json(assistant.ask("When does the ferry Kestrel sail?").to_dict()))


def test_a_listener_who_leaves_stops_the_model(store: Store, embedder: FakeEmbedder, folder: Path) -> None:
    model = Endless()
    assistant = make_assistant(store, embedder, model)
    assistant.sync(folder)
    with served(assistant) as address:
        with httpx.stream("POST", f"{address}/api/ask", json={"question": QUESTION}, headers=EVENTS, trust_env=False) as response:
            lines = response.iter_lines()
            assert next(lines) == "event: evidence"
            while next(lines) != "event: token":
                pass
        assert model.stopped.wait(STOPPED_SECONDS)
        assert model.spoken < 500
        assert httpx.get(f"{address}/healthz", trust_env=False).json()["status"] == "ok"


def test_a_caller_who_waits_for_json_and_leaves_stops_the_model_too(store: Store, embedder: FakeEmbedder, folder: Path) -> None:
    model = Endless()
    assistant = make_assistant(store, embedder, model)
    assistant.sync(folder)
    with served(assistant) as address:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{address}/api/ask", json={"question": QUESTION}, timeout=httpx.Timeout(5, read=0.3), trust_env=False)
        assert model.stopped.wait(STOPPED_SECONDS)
        assert 0 < model.spoken < 500


def test_several_are_answered_at_once(assistant: Assistant) -> None:
    answers: list[Any] = []
    with served(assistant) as address:

        def ask() -> None:
            answers.append(httpx.post(f"{address}/api/ask", json={"question": QUESTION}, trust_env=False, timeout=30).json()["text"])

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert answers == ["The lander Apollo was built by Grumman. [1]"] * 6


def test_the_example_in_the_readme_is_answered(client: TestClient) -> None:
    readme = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
    body = readme.partition("/api/ask -H")[2].partition("-d '")[2].partition("'\n")[0]
    response = client.post("/api/ask", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 200
    assert response.json()["question"] == "And who made it?"


# Stopping


async def an_open_page(scope: Any, receive: Any, send: Any) -> None:
    """What stays open until the listener leaves, ends badly when it is broken off, or waits in a thread that nothing can stop."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"data: ALIVE\n\n", "more_body": True})
    if scope["path"] == "/thread":
        from anyio import to_thread

        await to_thread.run_sync(time.sleep, 8, abandon_on_cancel=True)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        raise KeyError("as Gradio does") from None


@pytest.mark.parametrize("path", ["/", "/thread"])
def test_what_is_open_does_not_keep_the_server_nor_make_it_complain(path: str, caplog: pytest.LogCaptureFixture) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(an_open_page)
    thread = threading.Thread(target=asyncio.run, args=(server.serve([listener]),), daemon=True)
    thread.start()
    with socket.create_connection(listener.getsockname(), timeout=20) as page:
        page.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        received = b""
        while b"ALIVE" not in received:
            received += page.recv(1000)
        server.should_exit, began = True, time.monotonic()
        thread.join(20)
        assert time.monotonic() - began < 2.5
    assert caplog.records == []


def test_who_finds_no_connection_free_is_told_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.server.CONNECTIONS", 2)
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(an_open_page)
    thread = threading.Thread(target=asyncio.run, args=(server.serve([listener]),), daemon=True)
    thread.start()
    asked, received = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b""
    with socket.create_connection(listener.getsockname(), timeout=20) as page:
        page.sendall(asked)
        while b"ALIVE" not in received:
            received += page.recv(1000)
        with socket.create_connection(listener.getsockname(), timeout=20) as other:
            other.sendall(asked)
            assert other.recv(1000).startswith(b"HTTP/1.1 503 ")
        server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()


# Syncing


def synced_events(client: TestClient, folder: Path) -> list[tuple[str, dict[str, Any]]]:
    found = []
    name = ""
    with client.stream("POST", "/api/sync", json={"folder": str(folder)}) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found.append((name, json.loads(line.removeprefix("data: "))))
    return found


def test_a_folder_is_synced_with_progress_and_a_report(client: TestClient, folder: Path) -> None:
    (folder / "new.txt").write_text("The zebra text.")
    found = synced_events(client, folder)
    assert found[-1] == (
        "report",
        {"added": ["new.txt"], "changed": [], "removed": [], "unchanged": ["apollo.md", "tea.txt"], "rejected": {}, "cancelled": False},
    )
    assert ("progress", {"done": 3, "total": 3, "current": ""}) in found


def test_a_folder_that_is_not_there_is_told(client: TestClient, folder: Path) -> None:
    ((name, data),) = synced_events(client, folder / "nowhere")
    assert name == "error"
    assert "There is no folder" in data["error"]


def test_other_sites_cannot_make_this_one_work(client: TestClient, folder: Path) -> None:
    for site in ("cross-site", "same-site"):
        for path in ("/api/sync", "/api/forget", "/api/ask"):
            assert client.post(path, json={"folder": str(folder)}, headers={"Sec-Fetch-Site": site}).status_code == 403
    for origin, refused in (("https://evil.example", True), ("http://testserver:1", True), (str(client.base_url).rstrip("/"), False)):
        status = client.post("/api/forget", json={"folder": str(folder)}, headers={"Origin": origin}).status_code
        assert (status == 403) is refused, origin
    plain = client.post("/api/sync", content=json.dumps({"folder": str(folder)}), headers={"Content-Type": "text/plain"})
    assert plain.status_code == 400


def test_a_folder_is_let_go(client: TestClient, folder: Path) -> None:
    assert client.post("/api/forget", json={"folder": str(folder)}).json() == {"documents": 2}
    assert client.get("/api/documents").json() == []
    assert "Nothing of the folder" in client.post("/api/forget", json={"folder": str(folder)}).json()["error"]


# Kept conversations


def test_an_answer_is_added_to_the_conversation_that_it_was_asked_in(client: TestClient) -> None:
    made = client.post("/api/conversations", json={}).json()["id"]
    first = client.post("/api/ask", json={"question": QUESTION, "conversation": made})
    then = client.post("/api/ask", json={"question": "And who built it?", "conversation": made}, headers={"Accept": "text/event-stream"})
    kept = client.get(f"/api/conversations/{made}").json()
    assert [exchange["id"] for exchange in kept["exchanges"]] == [first.headers["citewell-exchange"], events_of(then.text)[-1][1]["exchange"]]
    assert kept["title"] == QUESTION
    assert kept["exchanges"][0]["answer"] == first.json()
    assert "Apollo" in kept["exchanges"][1]["answer"]["standalone_question"], "the turns before it are its history"
    assert client.post("/api/ask", json={"question": QUESTION}).headers.get("citewell-exchange") is None


def test_a_conversation_that_cannot_be_asked_in_is_told(client: TestClient) -> None:
    turn = {"role": "user", "text": "Who?"}
    made = client.post("/api/conversations", json={}).json()["id"]
    both = client.post("/api/ask", json={"question": QUESTION, "conversation": made, "history": [turn]})
    assert both.status_code == 400
    assert "either" in both.json()["error"]
    gone = client.post("/api/ask", json={"question": QUESTION, "conversation": "gone"})
    assert (gone.status_code, gone.json()) == (404, {"error": "There is no such conversation."})
    conversations = client.app.state.service.conversations  # type: ignore[attr-defined]
    others = conversations.begin("somebody")
    assert client.post("/api/ask", json={"question": QUESTION, "conversation": others}).status_code == 404
    conversations.share(others, "somebody", True)
    shared = client.post("/api/ask", json={"question": QUESTION, "conversation": others})
    assert (shared.status_code, "somebody else's" in shared.json()["error"]) == (403, True)


def test_an_answer_that_could_not_be_kept_is_given(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    made = client.post("/api/conversations", json={}).json()["id"]
    for error, said in (
        (KeyError("secret"), "deleted meanwhile"),
        (StoreDamaged("secret"), "could not be kept"),
        (ValueError("secret"), "could not be kept"),
        (OverLimit("Delete some first."), "not kept. Delete some first."),
    ):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(Conversations, "add", fail)
        whole = client.post("/api/ask", json={"question": QUESTION, "conversation": made})
        assert (whole.status_code, whole.json()["abstained"]) == (200, False)
        assert said in whole.headers["citewell-problem"]
        streamed = events_of(client.post("/api/ask", json={"question": QUESTION, "conversation": made}, headers={"Accept": "text/event-stream"}).text)
        assert [name for name, _ in streamed[-2:]] == ["answer", "kept"]
        assert said in streamed[-1][1]["problem"]
        assert "secret" not in str(streamed)
