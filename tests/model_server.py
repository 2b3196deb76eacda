"""A model server on 127.0.0.1 that speaks OpenAI's chat completions and Anthropic's Messages, well or with one of many faults."""

from __future__ import annotations

import json
import math
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

SAYS = "The lander Apollo was built by Grumman."
SECRET = "sk-never-to-be-shown"
LEAK = f"CUDA out of memory at /srv/models/weights.bin for key {SECRET}\n  File server.py, line 3, in run"
"""What a careless server says of itself when it fails."""

STREAMED = ("garbage", "drip", "cut", "empty", "endless", "huge", "wrong type", "hang")
FAULTS = ("refused", "500", "401", "429", "429 for a while", *STREAMED)

Step = Literal["gate", "draft", "all"]


class ModelServer(ThreadingHTTPServer):
    """What it does is set by attributes, also while it runs. `asked` lists (path, headers, body, time)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.says = SAYS
        self.fault = ""
        self.runs = "local-model"
        self.step: Step = "all"
        self.times = 1_000_000
        """How many requests the fault meets, and at which step."""
        self.retry_after = "1"
        self.probabilities = True
        self.thinking: Literal["", "tags", "fields", "hidden"] = ""
        self.unloaded: set[str] = set()
        self.refuses: dict[str, str] = {}
        """Body fields that are answered with 400 and the words beside them; `system` is the role."""
        self.asked: list[tuple[str, dict[str, str], dict[str, Any], float]] = []
        self.gone = threading.Event()
        self.left = threading.Event()
        """The server is going, and a client has hung up on it."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


@contextmanager
def running() -> Iterator[ModelServer]:
    server = ModelServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.gone.set()
        server.shutdown()
        server.server_close()
        thread.join()


def nobody() -> str:
    """An address where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


class _Request(BaseHTTPRequestHandler):
    server: ModelServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.send(200, json.dumps({"data": [{"id": "text-embedding-nomic"}, {"id": self.server.runs}]}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, dict(self.headers), body, time.monotonic()))
        gate = "Reply yes or no" in body["messages"][-1]["content"]
        with suppress(OSError):
            if body["model"] in self.server.unloaded:
                self.send(404, json.dumps({"error": {"message": "no such model"}}))
                return
            for name, words in self.server.refuses.items():
                if name in body or any(message["role"] == name for message in body["messages"]):
                    self.send(400, json.dumps({"error": {"message": words}}))
                    return
            if self.server.fault and self.server.times > 0 and self.server.step in ("all", "gate" if gate else "draft"):
                self.server.times -= 1
                self.fail(body)
            elif self.path.endswith("/messages"):
                self.messages("yes" if gate else self.server.says)
            elif body.get("stream"):
                self.stream("yes" if gate else self.server.says, body)
            else:
                self.whole("yes" if gate else self.server.says, body)

    # What is sent

    def send(self, status: int, content: str, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content.encode())))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content.encode())

    def begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()

    def event(self, data: dict[str, Any] | str, name: str = "") -> None:
        text = data if isinstance(data, str) else json.dumps(data)
        self.wfile.write((f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode())
        self.wfile.flush()

    def piece(self, text: str) -> None:
        """A piece of text in the protocol that was asked in."""
        if self.path.endswith("/messages"):
            self.event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}, "content_block_delta")
        else:
            self.event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})

    def end(self, reason: str = "stop") -> None:
        if self.path.endswith("/messages"):
            told = {"end_turn": "end_turn", "stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}[reason]
            self.event({"type": "message_delta", "delta": {"stop_reason": told}, "usage": {"output_tokens": 3}}, "message_delta")
            self.event({"type": "message_stop"}, "message_stop")
        else:
            self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
            self.event({"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 3}})
            self.event("[DONE]")

    # What goes well

    def stream(self, text: str, body: dict[str, Any]) -> None:
        self.begin()
        room = body.get("max_tokens") or body.get("max_completion_tokens") or 0
        if self.server.thinking == "tags":
            for part in ("<th", "ink>The user asks", " about Apollo.</th", "ink>\n\n"):
                self.piece(part)
        elif self.server.thinking == "fields":
            for name in ("reasoning_content", "reasoning"):
                self.event({"choices": [{"index": 0, "delta": {name: "The user asks about Apollo."}, "finish_reason": None}]})
        if self.server.thinking and room < 1000:
            self.end("length")
            return
        for word in text.split(" "):
            self.piece(f"{word} ")
        self.end()

    def whole(self, text: str, body: dict[str, Any]) -> None:
        room = body.get("max_tokens") or body.get("max_completion_tokens") or 0
        message: dict[str, Any] = {"role": "assistant", "content": text}
        reason = "stop"
        if self.server.thinking and room < 1000:
            reason = "length"
            message["content"] = "<think>The" if self.server.thinking == "tags" else ""
        elif self.server.thinking == "tags":
            message["content"] = f"<think>\nNo, or yes?\n</think>\n\n{text}"
        if self.server.thinking == "fields":
            message["reasoning_content"] = "No, or yes?"
        logprobs = None
        if body.get("logprobs") and self.server.probabilities and not self.server.thinking:
            top = [{"token": "yes", "logprob": math.log(0.9)}, {"token": "no", "logprob": math.log(0.1)}]
            logprobs = {"content": [{"token": "yes", "logprob": math.log(0.9), "top_logprobs": top}]}
        choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": logprobs}
        self.send(200, json.dumps({"choices": [choice], "usage": {"prompt_tokens": 20, "completion_tokens": 1}}))

    def messages(self, text: str) -> None:
        self.begin()
        self.event({"type": "message_start", "message": {"usage": {"input_tokens": 20, "cache_read_input_tokens": 5}}}, "message_start")
        self.event({"type": "ping"}, "ping")
        self.event({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}, "content_block_start")
        self.event({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "No, or yes?"}})
        for word in text.split(" "):
            self.piece(f"{word} ")
        self.end()

    # What goes wrong

    def fail(self, body: dict[str, Any]) -> None:
        streams = bool(body.get("stream"))
        match self.server.fault:
            case "500" | "401":
                self.send(int(self.server.fault), json.dumps({"error": {"message": LEAK}}))
            case "429":
                self.send(429, json.dumps({"error": {"message": LEAK}}))
            case "429 for a while":
                self.send(429, json.dumps({"error": {"message": LEAK}}), Retry_After=self.server.retry_after)
            case "garbage":
                self.send(200, "data: \x00\x01{{{" + LEAK, "text/event-stream" if streams else "application/json")
            case "wrong type":
                self.send(200, f"<html><h1>Welcome to nginx</h1>{LEAK}</html>", "text/html")
            case "empty":
                if streams:
                    self.begin()
                    self.end()
                else:
                    self.send(200, json.dumps({"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]}))
            case "cut" if streams:
                self.begin()
                self.piece(f"{SAYS} It wei")
            case "cut":
                self.send_response(200)
                self.send_header("Content-Length", "500")
                self.end_headers()
                self.wfile.write(b'{"choices": [')
            case "drip":
                self.begin()
                for byte in b'data: {"choices": [{"index": 0, "delta": {"content": "Grum"}, "finish_reason": null}]}\n\n' * 3:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    if self.server.gone.wait(0.1):
                        return
            case "endless":
                self.begin()
                try:
                    while not self.server.gone.wait(0.001):
                        self.piece("Apollo flew on and on. ")
                except OSError:
                    self.server.left.set()
            case "huge" if streams:
                self.begin()
                self.piece("word " * 100_000)
                self.end()
            case "huge":
                self.send(200, json.dumps({"choices": [{"message": {"content": "x" * 17_000_000}}]}))
            case "hang" | "hang before":
                if self.server.fault == "hang":
                    self.begin()
                self.wait_for_the_end()
            case other:
                raise AssertionError(other)

    def wait_for_the_end(self) -> None:
        """Says nothing until the client hangs up."""
        while not self.server.gone.is_set():
            if select.select([self.connection], [], [], 0.02)[0]:
                with suppress(OSError):
                    if self.connection.recv(1, socket.MSG_PEEK):
                        continue
                self.server.left.set()
                return
