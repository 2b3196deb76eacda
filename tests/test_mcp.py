"""Tests of rag.mcp_server: three tools, over HTTP and standard input and output, with exact text and errors that say what to do."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import FakeEmbedder, FakeModel, make_assistant
from doors import QUESTION, STOPPED_SECONDS, Endless, as_json, served, timeless
from mcp import Client, StdioServerParameters
from starlette.testclient import TestClient

from index.store import Store
from rag import server_mcp
from rag.assistant import Assistant
from rag.mcp_server import MOST_CHARACTERS, plain, relay, server_of
from rag.metrics import Metrics
from rag.model import Finished
from rag.prompt import Message
from rag.remote import Running
from rag.server import create_app
from rag.types import Turn

pytestmark = pytest.mark.usefixtures("fast_probes")

HERE = Path(__file__).resolve().parent


def call(server: Any, name: str, arguments: dict[str, Any] | None = None, mode: str = "auto") -> Any:
    """What a client gets from a server, an address or a program."""

    async def run() -> Any:
        async with Client(server, mode=mode) as client:
            return await client.call_tool(name, arguments)

    return asyncio.run(run())


def said(result: Any) -> str:
    return "".join(block.text for block in result.content)


def test_the_tools_say_what_they_take_and_give(lasting: Assistant) -> None:
    async def run() -> Any:
        async with Client(server_of(lambda context: lasting)) as client:
            return (await client.list_tools()).tools

    tools = {tool.name: tool for tool in asyncio.run(run())}
    assert set(tools) == {"ask", "search", "read_span"}
    assert tools["ask"].input_schema["required"] == ["question"]
    assert set(tools["ask"].input_schema["properties"]) == {"question", "documents", "history"}
    assert {"text", "citations", "unsupported"} <= set(tools["ask"].output_schema["properties"])
    for tool in tools.values():
        assert tool.description
        assert tool.annotations.read_only_hint


def test_ask_gives_text_with_sources_and_the_answer(lasting: Assistant) -> None:
    result = call(server_of(lambda context: lasting), "ask", {"question": QUESTION})
    assert timeless(result.structured_content) == timeless(as_json(lasting.ask(QUESTION).to_dict()))
    assert said(result).startswith("The lander Apollo was built by Grumman. [1]\n\nSources:\n- [1] The Apollo lander: “")
    assert not result.is_error


def test_ask_understands_history_and_looks_where_it_is_told(lasting: Assistant) -> None:
    history = [{"role": "user", "text": "What is Apollo?"}, {"role": "assistant", "text": "A lander."}]
    result = call(server_of(lambda context: lasting), "ask", {"question": "And who built it?", "history": history, "documents": ["apollo.md"]})
    expected = lasting.ask("And who built it?", [Turn("user", "What is Apollo?"), Turn("assistant", "A lander.")], ["apollo.md"])
    assert timeless(result.structured_content) == timeless(as_json(expected.to_dict()))


def test_what_search_finds_read_span_reads(lasting: Assistant) -> None:
    server = server_of(lambda context: lasting)
    found = call(server, "search", {"query": QUESTION, "limit": 2})
    hits = found.structured_content["hits"]
    assert [hit["passage"]["id"] for hit in hits] == [hit.passage.id for hit in lasting.search(QUESTION, limit=2)]
    for hit in hits:
        passage = hit["passage"]
        span = {"document_id": passage["document_id"], "start": passage["span"]["start"], "end": passage["span"]["end"]}
        read = call(server, "read_span", span)
        assert said(read) == read.structured_content["text"] == passage["text"]
        assert read.structured_content["size"] == len(lasting.store.text(passage["document_id"]))
        assert passage["text"] in said(found), "who shows text alone sees the passages too"
        assert passage["document_id"] in said(found)


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("ask", {}, "'question' is missing"),
        ("ask", {"question": ""}, "The question is empty"),
        ("ask", {"question": "a" * 5000}, "Shorten it"),
        ("ask", {"question": QUESTION, "model": "x"}, "'model' is not known"),
        ("ask", {"question": QUESTION, "history": [{"role": "system", "text": "x"}]}, "'history.0.role' must be 'user' or 'assistant'"),
        ("ask", {"question": QUESTION, "documents": ["gone.md"]}, "There is no document 'gone.md'."),
        ("search", {"query": QUESTION, "limit": -1}, "'limit' must be 1 or more"),
        ("search", {"query": QUESTION, "limit": 10**12}, "'limit' must be 50 or less"),
        ("search", {"query": " "}, "The question is empty"),
        ("search", {"query": QUESTION, "documents": ["gone.md"]}, "There is no document 'gone.md'."),
        ("read_span", {"document_id": "gone", "start": 0, "end": 5}, "There is no document 'gone'."),
        ("read_span", {"document_id": "APOLLO", "start": -1, "end": 5}, "'start' must be 0 or more"),
        ("read_span", {"document_id": "APOLLO", "start": 5, "end": 5}, "'end' must be more than 'start'"),
        ("read_span", {"document_id": "APOLLO", "start": 0, "end": 10**9}, "characters, so 'end' can be at most"),
        ("read_span", {"document_id": "APOLLO", "start": "x", "end": 5}, "'start' must be a whole number"),
        ("delete", {}, "There is no tool 'delete'. There are: ask, search, read_span."),
    ],
)  # fmt: skip
def test_what_cannot_be_done_says_why(lasting: Assistant, name: str, arguments: dict[str, Any], says: str) -> None:
    apollo = next(document.id for document in lasting.store.documents() if document.source == "apollo.md")
    given = {key: apollo if value == "APOLLO" else value for key, value in arguments.items()}
    result = call(server_of(lambda context: lasting), name, given)
    assert result.is_error
    assert says in said(result)
    assert "pydantic" not in said(result)
    assert len(said(result)) < 400


def test_no_more_is_read_than_a_context_takes(assistant: Assistant, folder: Path) -> None:
    (folder / "long.txt").write_text("word " * MOST_CHARACTERS, encoding="utf-8")
    assistant.sync(folder)
    long = next(document.id for document in assistant.store.documents() if document.source == "long.txt")
    most = call(server_of(lambda context: assistant), "read_span", {"document_id": long, "start": 5, "end": MOST_CHARACTERS + 5})
    assert len(said(most)) == MOST_CHARACTERS
    more = call(server_of(lambda context: assistant), "read_span", {"document_id": long, "start": 5, "end": MOST_CHARACTERS + 6})
    assert "At most 20,000 characters" in said(more)


class Broken(FakeModel):
    def stream(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Finished]:
        raise RuntimeError("secret /srv/place")


def test_a_bug_is_told_without_path_or_stack(store: Store, embedder: FakeEmbedder, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = make_assistant(store, embedder, Broken())
    broken.sync(folder)
    result = call(server_of(lambda context: broken), "ask", {"question": QUESTION})
    assert (result.is_error, said(result)) == (True, "Something went wrong here. The log of Citewell says what.")
    assert "secret" in caplog.text, "the log has what the caller does not get"


# Over HTTP


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_server_answers_clients_of_either_age(lasting: Assistant, mode: str) -> None:
    with served(lasting) as address:
        result = call(f"{address}/mcp", "ask", {"question": QUESTION}, mode)
        numbers = httpx.get(f"{address}/metrics", trust_env=False, timeout=60).text
    assert timeless(result.structured_content) == timeless(as_json(lasting.ask(QUESTION).to_dict()))
    assert 'citewell_questions_total{door="mcp",outcome="answered"} 1.0' in numbers


def test_strangers_get_nothing(lasting: Assistant) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "search", "arguments": {"query": QUESTION}}}
    with TestClient(create_app(lasting), base_url="http://127.0.0.1") as client:
        accept = {"Accept": "application/json, text/event-stream"}
        assert client.get("/mcp", headers=accept).status_code == 405, "a stream that would stay open and never say anything"
        assert "Grumman" in client.post("/mcp", json=body, headers=accept).text
        for headers, status in (({"Host": "evil.example"}, 400), ({"Sec-Fetch-Site": "cross-site"}, 403)):
            refused = client.post("/mcp", json=body, headers={**accept, **headers})
            assert refused.status_code == status
            assert "Grumman" not in refused.text


async def _leaves(ask: Callable[[], Awaitable[Any]], model: Endless) -> None:
    asking = asyncio.ensure_future(ask())
    assert await asyncio.to_thread(model.speaking.wait, 10)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await asyncio.to_thread(model.stopped.wait, STOPPED_SECONDS)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_client_who_leaves_stops_the_model(store: Store, embedder: FakeEmbedder, folder: Path, mode: str) -> None:
    model = Endless()
    assistant = make_assistant(store, embedder, model)
    assistant.sync(folder)

    async def run(address: str) -> None:
        async def ask() -> None:
            async with Client(f"{address}/mcp", mode=mode) as client:
                await client.call_tool("ask", {"question": QUESTION})

        await _leaves(ask, model)

    with served(assistant) as address:
        asyncio.run(run(address))
    assert model.spoken < 800


def test_progress_is_told_to_whoever_asks_for_it(lasting: Assistant) -> None:
    told: list[str | None] = []

    async def heard(progress: float, total: float | None, message: str | None) -> None:
        told.append(message)

    async def run(address: str) -> None:
        async with Client(f"{address}/mcp") as client:
            await client.call_tool("ask", {"question": QUESTION}, progress_callback=heard)

    with served(lasting) as address:
        asyncio.run(run(address))
    assert told[0] == "Reading the passages"


def test_a_relay_hands_calls_to_the_server_that_owns_the_store(lasting: Assistant) -> None:
    with served(lasting) as address:
        server = relay(Running(address))
        result = call(server, "ask", {"question": QUESTION})
        assert timeless(result.structured_content) == timeless(as_json(lasting.ask(QUESTION).to_dict()))
        assert "There is no document 'gone.md'." in said(call(server, "ask", {"question": QUESTION, "documents": ["gone.md"]}))
    gone = call(server, "ask", {"question": QUESTION})
    assert gone.is_error
    assert "does not answer. Start it again" in said(gone)


def test_a_question_counts_once(lasting: Assistant) -> None:
    metrics = Metrics(lasting)
    call(server_of(lambda context: lasting, lambda own, *asked: metrics.counted("mcp", plain(own, *asked))), "ask", {"question": QUESTION})
    assert 'citewell_questions_total{door="mcp",outcome="answered"} 1.0' in metrics.text().decode()


# Over standard input and output


def program(folder: Path) -> StdioServerParameters:
    """`citewell mcp` on the store beside a folder of documents, with fakes inside."""
    env = {"PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
    return StdioServerParameters(
        command=sys.executable, args=[str(HERE / "mcp_stdio.py"), "mcp", "--data-dir", str(folder.parent / "data"), "--model", "none"], env=env
    )


def test_the_program_answers_and_its_output_stays_clean(assistant: Assistant, folder: Path) -> None:
    result = call(program(folder), "ask", {"question": QUESTION})
    assert timeless(result.structured_content)["text"] == assistant.ask(QUESTION).text
    assert [citation["quote"] for citation in result.structured_content["citations"]] == ["The lander Apollo was built by Grumman."]


def test_every_line_on_standard_output_is_of_the_protocol(folder: Path) -> None:
    asked = program(folder)
    start = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    lines = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": start},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "ask", "arguments": {"question": QUESTION}}},
    ]
    with subprocess.Popen(
        [asked.command, *asked.args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(asked.env or {})}
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write("".join(json.dumps(line) + "\n" for line in lines))
        process.stdin.flush()
        got = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.stdin.close()
        assert process.stdout.read() == ""
        assert "a library says hello" in process.stderr.read()
        assert process.wait(20) == 0
    assert [message["id"] for message in got] == [1, 2]
    assert got[1]["result"]["structuredContent"]["text"] == "The lander Apollo was built by Grumman. [1]"


# The door of the HTTP server


def test_the_door_opens_at_its_first_request_again_after_a_failure_and_in_another_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    door, tries = server_mcp.Door(None), []  # type: ignore[arg-type]

    class Opened:
        @asynccontextmanager
        async def running(self) -> AsyncIterator[None]:
            yield

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            scope["answered"] = True

    def new() -> Any:
        tries.append(1)
        if len(tries) == 1:
            raise ImportError("no such package")
        return Opened()

    monkeypatch.setattr(door, "_new", new)

    async def asked() -> None:
        async with door.running():
            begun = len(tries)
            scopes: list[dict[str, Any]] = [{}, {}]
            if not begun:
                with pytest.raises(ImportError):
                    await door({}, None, None)  # type: ignore[arg-type]
            await asyncio.wait_for(asyncio.gather(*(door(scope, None, None) for scope in scopes)), 60)  # type: ignore[arg-type]
            assert all(scope["answered"] for scope in scopes)

    asyncio.run(asked())
    assert len(tries) == 2
    asyncio.run(asked())
    assert len(tries) == 3
