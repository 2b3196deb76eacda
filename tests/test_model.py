"""Tests of rag.model against a server on 127.0.0.1 that speaks OpenAI's protocol well or badly, and against LlamaIndex's own mocks."""

from __future__ import annotations

import json
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from index.errors import ModelUnavailable
from rag.model import NICE, EmbeddedModel, Finished, LanguageModel, LlamaIndexModel, OpenAIModel, reply, yes_probability
from rag.types import Usage

KEY = "sk-never-to-be-shown"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who built Apollo? Reply yes or no."}]
Behaviour = Callable[["Request", dict[str, Any]], None]


class Request(BaseHTTPRequestHandler):
    """One request; the helpers write the replies that behaviours are made of."""

    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, dict(self.headers), body))
        with suppress(OSError):
            self.server.behaviour(self, body)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def send(self, status: int, content: str, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content.encode())))
        self.end_headers()
        self.wfile.write(content.encode())

    def begin(self, kind: str = "text/event-stream") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def piece(self, text: str | None = None, reason: str | None = None, usage: dict[str, Any] | None = None, choices: bool = True) -> None:
        delta = {} if text is None else {"content": text}
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        self.event(
            json.dumps(
                {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice] if choices else [], "usage": usage}
            )
        )

    def event(self, data: str) -> None:
        self.wfile.write(f"data: {data}\n\n".encode())
        self.wfile.flush()


class Server(ThreadingHTTPServer):
    """A model server whose behaviour a test sets; `asked` lists (path, headers, body)."""

    daemon_threads = True
    behaviour: Behaviour

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.gone = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def model(self, seconds: float = 10.0) -> OpenAIModel:
        return OpenAIModel(self.url, "tiny-model", KEY, seconds)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield made
    made.gone.set()
    made.shutdown()
    made.server_close()
    thread.join()


def speaks(*texts: str, reason: str = "stop", usage: dict[str, Any] | None = None) -> Behaviour:
    """Streams the texts and ends as OpenAI does."""

    def behaviour(request: Request, body: dict[str, Any]) -> None:
        request.begin()
        for text in texts:
            request.piece(text)
        request.piece(reason=reason)
        request.piece(choices=False, usage=usage or {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15})
        request.event("[DONE]")

    return behaviour


def told(content: str, top: dict[str, float] | None = None, usage: dict[str, Any] | None = None) -> Behaviour:
    """Answers in one piece, with the probabilities of the first token where `top` gives them."""
    logprobs = (
        None
        if top is None
        else {
            "content": [
                {
                    "token": content,
                    "logprob": -0.1,
                    "bytes": None,
                    "top_logprobs": [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in top.items()],
                }
            ]
        }
    )
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "length", "logprobs": logprobs}
    whole = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": usage or {"prompt_tokens": 20, "completion_tokens": 1, "total_tokens": 21},
    }
    return lambda request, body: request.send(200, json.dumps(whole))


def fails(status: int, message: str = "Incorrect API key sk-never-to-be-shown at /srv/models") -> Behaviour:
    return lambda request, body: request.send(status, json.dumps({"error": {"message": message, "type": "x", "code": None}}))


def both(model: LanguageModel) -> Iterator[str]:
    """The messages with which both kinds of call fail."""
    for call in (lambda: list(model.stream(MESSAGES, 5)), lambda: model.probability(MESSAGES)):
        with pytest.raises(ModelUnavailable) as caught:
            call()
        message = str(caught.value)
        assert KEY not in message
        assert "/v1" not in message
        assert "/srv" not in message
        assert "Traceback" not in message
        assert "127.0.0.1" not in message
        assert "\n" not in message
        assert message.startswith("The model 'tiny-model' ")
        yield message


# Replies that arrive


def test_pieces_come_as_they_are_spoken_then_the_usage(server: Server) -> None:
    server.behaviour = speaks("Grum", "", "man", ".")
    items = list(server.model().stream(MESSAGES, 77))
    assert items == ["Grum", "man", ".", Finished(Usage(12, 3), complete=True)]
    path, headers, body = server.asked[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert (body["model"], body["messages"], body["max_tokens"], body["stream"], body["temperature"]) == ("tiny-model", MESSAGES, 77, True, 0.0)


def test_reply_is_the_whole(server: Server) -> None:
    server.behaviour = speaks("Grum", "man")
    assert reply(server.model(), MESSAGES, 5) == ("Grumman", Usage(12, 3))


def test_an_answer_at_its_length_limit_is_not_complete(server: Server) -> None:
    server.behaviour = speaks("Grumman and", reason="length")
    assert list(server.model().stream(MESSAGES, 2))[-1] == Finished(Usage(12, 3), complete=False)


def test_tokens_that_a_cache_spared_are_not_counted(server: Server) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 3, "total_tokens": 103, "prompt_tokens_details": {"cached_tokens": 90}}
    server.behaviour = speaks("Hi", usage=usage)
    assert reply(server.model(), MESSAGES, 5)[1] == Usage(10, 3, 90)
    server.behaviour = told("yes", usage={**usage, "prompt_tokens_details": {"cached_tokens": 999}})
    assert server.model().probability(MESSAGES)[1] == Usage(0, 3, 999)


def test_a_server_that_tells_no_usage_is_fine(server: Server) -> None:
    def behaviour(request: Request, body: dict[str, Any]) -> None:
        request.begin()
        request.piece("Hi")
        request.piece(reason="stop")

    server.behaviour = behaviour
    assert list(server.model().stream(MESSAGES, 5)) == ["Hi", Finished(Usage(), complete=True)]


def test_without_a_key_none_of_the_environments_is_sent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "somebody-elses")
    server.behaviour = speaks("Hi")
    reply(OpenAIModel(server.url, "tiny-model", "", 5), MESSAGES, 5)
    assert "somebody-elses" not in json.dumps(server.asked[0][1])


def test_this_machine_is_asked_without_the_proxy_between(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    server.behaviour = speaks("Hi")
    for url in (server.url, server.url.replace("127.0.0.1", "localhost")):
        assert reply(OpenAIModel(url, "tiny-model", KEY, 5), MESSAGES, 5)[0] == "Hi"


def test_closing_the_stream_hangs_up(server: Server) -> None:
    hung_up = threading.Event()

    def behaviour(request: Request, body: dict[str, Any]) -> None:
        request.begin()
        try:
            while not server.gone.wait(0.01):
                request.piece("word ")
        except OSError:
            hung_up.set()

    server.behaviour = behaviour
    pieces = server.model().stream(MESSAGES, 5)
    assert next(pieces) == "word "
    pieces.close()  # type: ignore[attr-defined]
    assert hung_up.wait(5)


# Probabilities


def test_probability_comes_from_the_first_tokens_choices(server: Server) -> None:
    server.behaviour = told("yes", {"yes": 0.5, " Yes": 0.1, "no": 0.15, "maybe": 0.2})
    likely, usage = server.model().probability(MESSAGES)
    assert likely == pytest.approx(0.6 / 0.75)
    assert usage == Usage(20, 1)
    assert (server.asked[0][2]["max_tokens"], server.asked[0][2]["logprobs"]) == (1, True)


@pytest.mark.parametrize(
    ("content", "likely"), [("Yes.", 1.0), (" yes, they do", 1.0), ("**Yes**", 1.0), ("No", 0.0), ("Yesterday", 0.0), ("Maybe", 0.0)]
)
@pytest.mark.parametrize("status", [400, 422])
def test_a_server_that_knows_no_probabilities_is_asked_in_words(server: Server, status: int, content: str, likely: float) -> None:
    def behaviour(request: Request, body: dict[str, Any]) -> None:
        (fails(status, "logprobs is not supported") if "logprobs" in body else told(content))(request, body)

    server.behaviour = behaviour
    assert server.model().probability(MESSAGES)[0] == likely
    assert len(server.asked) == 2


@pytest.mark.parametrize("top", [None, {}, {"maybe": 0.9}])
def test_probabilities_without_yes_and_no_fall_back_on_the_word(server: Server, top: dict[str, float] | None) -> None:
    server.behaviour = told("Yes", top)
    assert server.model().probability(MESSAGES)[0] == 1.0


@pytest.mark.parametrize(
    ("choices", "likely"),
    [
        ([("yes", 0.0)], 1.0),
        ([("No", -1.0)], 0.0),
        ([("yes", math.log(0.3)), (" YES ", math.log(0.3)), ("no", math.log(0.2))], 0.75),
        ([("y", 0.0)], None),
        ([], None),
        ([("yes", -9999.0)], None),
    ],
)
def test_yes_probability(choices: list[tuple[str, float]], likely: float | None) -> None:
    assert yes_probability(choices) == (None if likely is None else pytest.approx(likely))


# Replies that go wrong


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "CITEWELL_API_KEY"),
        (403, "CITEWELL_API_KEY"),
        (404, "CITEWELL_MODEL_NAME"),
        (429, "too often"),
        (500, "error 500"),
        (503, "error 503"),
        (400, "error 400"),
    ],
)
def test_a_refusal_says_what_to_do(server: Server, status: int, says: str) -> None:
    server.behaviour = fails(status)
    for message in both(server.model()):
        assert says in message
    assert len(server.asked) == (3 if status == 400 else 2), "nothing is tried again behind the user's back"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("<html><h1>Welcome to nginx</h1></html>", "text/html"),
        ("<html><h1>Welcome to nginx</h1></html>", "text/event-stream"),
        ("{not json", "application/json"),
        ("[]", "application/json"),
        ("null", "application/json"),
        ("{}", "application/json"),
        ('{"choices": []}', "application/json"),
        ('{"choices": [{}]}', "application/json"),
        ('{"choices": [{"message": null}]}', "application/json"),
        ('{"choices": 5, "usage": "many"}', "application/json"),
        ("", "application/json"),
        ("data: {oops}\n\n", "text/event-stream"),
        ("data: []\n\n", "text/event-stream"),
    ],
)
def test_garbage_is_told_as_such(server: Server, content: str, kind: str) -> None:
    server.behaviour = lambda request, body: request.send(200, content, kind)
    for message in both(server.model()):
        assert "cannot be read" in message


def test_an_error_in_the_midst_of_a_stream_is_told(server: Server) -> None:
    def behaviour(request: Request, body: dict[str, Any]) -> None:
        request.begin()
        request.piece("Grum")
        request.event(json.dumps({"error": {"message": f"out of memory at /srv/models with {KEY}"}}))

    server.behaviour = behaviour
    pieces = server.model().stream(MESSAGES, 5)
    assert next(pieces) == "Grum"
    with pytest.raises(ModelUnavailable) as caught:
        next(pieces)
    assert KEY not in str(caught.value)
    assert "/srv" not in str(caught.value)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_stream_without_an_end_broke_off(server: Server, chunked: bool) -> None:
    def behaviour(request: Request, body: dict[str, Any]) -> None:
        if chunked:  # the connection itself breaks: the last chunk is announced and never sent
            request.protocol_version = "HTTP/1.1"
            request.send_response(200)
            request.send_header("Content-Type", "text/event-stream")
            request.send_header("Transfer-Encoding", "chunked")
            request.end_headers()
            data = b'data: {"choices": [{"index": 0, "delta": {"content": "Grum"}, "finish_reason": null}]}\n\n'
            request.wfile.write(b"%x\r\n%s\r\nff\r\ndata: " % (len(data), data))
            request.wfile.flush()
            request.close_connection = True
        else:
            request.begin()
            request.piece("Grum")

    server.behaviour = behaviour
    pieces = server.model().stream(MESSAGES, 5)
    assert next(pieces) == "Grum"
    with pytest.raises(ModelUnavailable, match="broke off in the middle"):
        list(pieces)


def drip_words(request: Request) -> None:
    request.piece("word ")


def drip_comments(request: Request) -> None:
    request.wfile.write(b": still there\n\n")
    request.wfile.flush()


def drip_spaces(request: Request) -> None:
    request.wfile.write(b" ")
    request.wfile.flush()


@pytest.mark.parametrize("drip", [drip_words, drip_comments, drip_spaces])
def test_an_endless_drip_ends_at_the_deadline(server: Server, drip: Callable[[Request], None]) -> None:
    def behaviour(request: Request, body: dict[str, Any]) -> None:
        request.begin("text/event-stream" if body.get("stream") else "application/json")
        for _ in range(80):  # not for ever, so that a deadline that does not hold fails this test instead of hanging it
            drip(request)
            server.gone.wait(0.05)

    server.behaviour = behaviour
    began = time.monotonic()
    with pytest.raises(ModelUnavailable, match=r"did not finish within 0\.5 seconds.*CITEWELL_MODEL_SECONDS"):
        list(server.model(seconds=0.5).stream(MESSAGES, 5))
    assert 0.4 < time.monotonic() - began < 1.5
    began = time.monotonic()
    with pytest.raises(ModelUnavailable, match="in time"):
        server.model(seconds=0.3).probability(MESSAGES)
    assert time.monotonic() - began < 1.5


@pytest.mark.parametrize("after", ["nothing", "headers", "a piece"])
def test_a_server_that_hangs_is_given_up(server: Server, after: str) -> None:
    def behaviour(request: Request, body: dict[str, Any]) -> None:
        if after != "nothing":
            request.begin()
        if after == "a piece":
            request.piece("Grum")
        server.gone.wait(20)

    server.behaviour = behaviour
    began = time.monotonic()
    for message in both(server.model(seconds=0.4)):
        assert "did not" in message
        assert "CITEWELL_MODEL_SECONDS" in message
    assert time.monotonic() - began < 3


def test_nobody_there_is_told(server: Server) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/v1", f"http://anna:{KEY}@127.0.0.1:{port}/v1"):
        for message in both(OpenAIModel(url, "tiny-model", KEY, 2)):
            assert "cannot be reached" in message


@pytest.mark.parametrize("url", ["http://", "http://[bad/v1", "https:///v1"])
def test_an_impossible_address_is_told(url: str) -> None:
    assert len(list(both(OpenAIModel(url, "tiny-model", KEY, 2)))) == 2


def test_a_key_that_cannot_be_sent_is_not_shown(server: Server) -> None:
    server.behaviour = speaks("Hi")
    with pytest.raises(ModelUnavailable) as caught:
        list(OpenAIModel(server.url, "tiny-model", "schlüssel\n✓", 2).stream(MESSAGES, 5))
    assert "schl" not in str(caught.value)


# Other models


def test_a_file_that_is_no_model_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(200))
    model = EmbeddedModel(broken, "broken", 5)
    for _ in range(2):
        with pytest.raises(ModelUnavailable, match=r"broken\.gguf cannot be loaded.*\.gguf file") as caught:
            model.probability(MESSAGES)
        assert str(tmp_path) not in str(caught.value)
        with pytest.raises(ModelUnavailable):
            next(model.stream(MESSAGES, 5))
    assert not model.loaded
    assert model.name == "broken"
    model.close()


@pytest.fixture(scope="module")
def custom_llm() -> Any:
    """A class of LlamaIndex models that say `says` word by word, slowly or not at all."""
    from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata

    class Custom(CustomLLM):
        says: str = "Yes it was Grumman"
        pause: float = 0.0
        error: str = ""
        spoken: list[str] = []  # noqa: RUF012

        @property
        def metadata(self) -> LLMMetadata:
            return LLMMetadata(model_name="custom")

        def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
            raise AssertionError("only streams are asked for")

        def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Iterator[CompletionResponse]:
            for word in self.says.split():
                time.sleep(self.pause)
                self.spoken.append(word)
                yield CompletionResponse(text=word, delta=f"{word} ")
                if self.error:
                    raise RuntimeError(self.error)

    return Custom


def test_any_llamaindex_model_answers(custom_llm: Any) -> None:
    model = LlamaIndexModel(custom_llm(), 5)
    assert model.name == "custom"
    assert list(model.stream(MESSAGES, 5)) == ["Yes ", "it ", "was ", "Grumman ", Finished(Usage())]
    talker = custom_llm()
    assert LlamaIndexModel(talker, 5).probability(MESSAGES) == (1.0, Usage())
    assert len(talker.spoken) == 2, "the first word decides, so the rest is not waited for"
    assert LlamaIndexModel(custom_llm(says="No, it was not"), 5).probability(MESSAGES)[0] == 0.0


def test_llamaindex_mock_repeats_its_prompt() -> None:
    from llama_index.core.llms import MockLLM

    text, _ = reply(LlamaIndexModel(MockLLM(), 5), MESSAGES, 5)
    assert "Who built Apollo?" in text


def test_a_llamaindex_model_that_fails_or_dawdles_is_told(custom_llm: Any) -> None:
    with pytest.raises(ModelUnavailable, match=r"'custom' failed \(RuntimeError\)") as caught:
        list(LlamaIndexModel(custom_llm(error=f"key {KEY}"), 5).stream(MESSAGES, 5))
    assert KEY not in str(caught.value)
    with pytest.raises(ModelUnavailable, match="did not finish within"):
        list(LlamaIndexModel(custom_llm(pause=0.1), 0.15).stream(MESSAGES, 5))


def test_closing_a_llamaindex_stream_stops_it(custom_llm: Any) -> None:
    llm = custom_llm(says="one two three four")
    pieces = LlamaIndexModel(llm, 5).stream(MESSAGES, 5)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert len(llm.spoken) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="a priority of one thread is Linux's")
def test_a_model_s_threads_stand_back_behind_those_of_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    priorities = []

    def served(model: EmbeddedModel) -> tuple[Any, str]:
        worker = threading.Thread(target=lambda: priorities.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
        worker.start()
        worker.join()
        return SimpleNamespace(listening_address="http://127.0.0.1:9"), "key"

    monkeypatch.setattr(EmbeddedModel, "_served", served)
    model = EmbeddedModel(tmp_path / "no.gguf", "small", 5)
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert not model.loaded
    assert model.load() is model.load()
    assert priorities == [min(19, own + NICE)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own


def test_a_model_is_not_loaded_again_once_it_was_closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    begun, going_on = threading.Event(), threading.Event()

    def served(model: EmbeddedModel) -> tuple[Any, str]:
        begun.set()
        assert going_on.wait(30)
        return SimpleNamespace(listening_address="http://127.0.0.1:9"), "key"

    monkeypatch.setattr(EmbeddedModel, "_served", served)
    model = EmbeddedModel(tmp_path / "no.gguf", "small", 5)
    with ThreadPoolExecutor(2) as pool:
        loading = pool.submit(model.load)
        assert begun.wait(30)
        closing = pool.submit(model.close)
        going_on.set()
        loading.result(30)
        closing.result(30)
    assert not model.loaded
    with pytest.raises(ModelUnavailable, match="'small' was closed"):
        model.probability(MESSAGES)
    assert model._server is None
