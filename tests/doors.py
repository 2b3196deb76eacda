"""What the tests of the doors share: a real server on loopback, answers without what differs from run to run, and a model that speaks until it is stopped."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn
from conftest import FakeModel

from rag.assistant import Assistant
from rag.model import Finished
from rag.prompt import Message

QUESTION = "Who built the lander Apollo?"
STOPPED_SECONDS = 2.0
"""How long a model may go on after whoever asked has left."""


@contextmanager
def served(assistant: Assistant) -> Iterator[str]:
    """The address of a real server for the assistant."""
    from rag.server import create_app

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(assistant), log_level="warning", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


def timeless(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer's JSON without what differs from run to run."""
    return {**answer, "timings": None}


def as_json(value: object) -> Any:
    return json.loads(json.dumps(value))


class Endless(FakeModel):
    """A model that speaks until it is stopped, and tells when it was."""

    def __init__(self) -> None:
        super().__init__()
        self.spoken = 0
        self.speaking = threading.Event()
        self.stopped = threading.Event()

    def stream(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Finished]:
        try:
            while self.spoken < 1000:
                time.sleep(0.01)
                self.spoken += 1
                self.speaking.set()
                yield "Apollo "
        finally:
            self.stopped.set()
