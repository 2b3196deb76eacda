"""Whoever leaves stops the model within two seconds: at every door, over real sockets, before the first token as in the midst of them."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from conftest import FakeEmbedder, make_assistant
from doors import QUESTION, STOPPED_SECONDS, Endless
from model_server import ModelServer, running

from index.store import Store
from rag.assistant import Assistant
from rag.model import OpenAIModel
from rag.service import Service

pytestmark = pytest.mark.usefixtures("fast_probes")

TAB = "a-tab-of-its-own"
CHAT = {"model": "citewell", "messages": [{"role": "user", "content": QUESTION}]}
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "ask", "arguments": {"question": QUESTION}}}
MCP = {"Accept": "application/json, text/event-stream"}

Begin = Callable[[str, socket.socket], None]


@contextmanager
def whole(assistant: Assistant) -> Iterator[tuple[str, Service]]:
    """The address of a real server with every door and the page, and what its doors share."""
    from rag.server import create_app
    from ui.app import mount

    app = create_app(assistant)
    mount(app, app.state.service)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", app.state.service
    finally:
        server.should_exit = True
        thread.join(10)


def posted(path: str, body: Any, headers: dict[str, str] | None = None) -> Begin:
    """Sends a request over a bare socket, which is then left as it is."""

    def begin(address: str, line: socket.socket) -> None:
        content = json.dumps(body)
        said = {"Host": address.removeprefix("http://"), "Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items()), "", content]
        line.sendall("\r\n".join(lines).encode())

    return begin


def on_the_page(address: str, line: socket.socket) -> None:
    """What the page's script does: it opens the page, sends the question, and listens."""
    with httpx.Client(base_url=address, trust_env=False, timeout=30) as page:
        config = page.get("/config").json()
        names = {component["id"]: component["props"].get("elem_id") for component in config["components"]}
        opening = next(one for one in config["dependencies"] if any(kind == "load" for _, kind in one["targets"]))
        asking = next(one for one in config["dependencies"] if any(names.get(target) == "send" for target, _ in one["targets"]))
        send = next(target for target, _ in asking["targets"] if names.get(target) == "send")
        join(page, opening["id"], [None] * len(opening["inputs"]), opening["targets"][0][0])
        with page.stream("GET", "/gradio_api/queue/data", params={"session_hash": TAB}) as events:
            assert any("process_completed" in event for event in events.iter_lines())
        join(page, asking["id"], [QUESTION, None, None], send)
    line.sendall(f"GET /gradio_api/queue/data?session_hash={TAB} HTTP/1.1\r\nHost: {address.removeprefix('http://')}\r\n\r\n".encode())


def join(page: httpx.Client, event: int, data: list[Any], target: int) -> None:
    sent = {"fn_index": event, "data": data, "session_hash": TAB, "trigger_id": target, "event_data": None}
    assert page.post("/gradio_api/queue/join", json=sent).status_code == 200


DOORS: dict[str, Begin] = {
    "http": posted("/api/ask", {"question": QUESTION}),
    "events": posted("/api/ask", {"question": QUESTION}, {"Accept": "text/event-stream"}),
    "openai": posted("/v1/chat/completions", CHAT),
    "openai-stream": posted("/v1/chat/completions", {**CHAT, "stream": True}),
    "mcp": posted("/mcp", CALL, MCP),
    "page": on_the_page,
}


def asked_and_left(address: str, begin: Begin, busy: Callable[[], bool]) -> float:
    """Asks, hangs up as soon as the model is at work, and tells when that was."""
    line = socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])))
    try:
        begin(address, line)
        deadline = time.monotonic() + 20
        while not busy():
            assert time.monotonic() < deadline, "the model was not asked"
            time.sleep(0.01)
    finally:
        line.close()
    return time.monotonic()


@pytest.mark.parametrize("door", DOORS)
def test_leaving_in_the_midst_of_the_answer(store: Store, embedder: FakeEmbedder, folder: Path, door: str) -> None:
    model = Endless()
    assistant = make_assistant(store, embedder, model)
    assistant.sync(folder)
    with whole(assistant) as (address, service):
        left = asked_and_left(address, DOORS[door], model.speaking.is_set)
        assert model.stopped.wait(STOPPED_SECONDS)
        assert time.monotonic() - left < STOPPED_SECONDS
        assert model.spoken < 500
        free(address, service)


@pytest.mark.parametrize("door", DOORS)
def test_leaving_before_the_first_token(store: Store, embedder: FakeEmbedder, folder: Path, door: str) -> None:
    """The model's server has the question whether the documents answer at all, and says nothing: the connection to it is cut."""
    with running() as server:
        server.fault, server.step = "hang", "gate"
        assistant = make_assistant(store, embedder, OpenAIModel(server.url, "tiny", "its-key", 60))
        assistant.sync(folder)
        with whole(assistant) as (address, service):
            left = asked_and_left(address, DOORS[door], lambda: len(server.asked) > 0)
            assert server.left.wait(STOPPED_SECONDS)
            assert time.monotonic() - left < STOPPED_SECONDS
            assert at_the_gate(server)
            free(address, service)


def at_the_gate(server: ModelServer) -> bool:
    return ["Reply yes or no" in body["messages"][-1]["content"] for _, _, body, _ in server.asked] == [True]


def free(address: str, service: Service) -> None:
    """The place of the question is given back, and the server answers others."""
    assert httpx.get(f"{address}/healthz", trust_env=False, timeout=10).json()["status"] == "ok"
    deadline = time.monotonic() + STOPPED_SECONDS
    while service.queue.taken:
        assert time.monotonic() < deadline
        time.sleep(0.01)
