"""One question through every door, each with a client that people use; every answer is the same but for the time it took."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from conftest import FakeEmbedder, make_assistant
from doors import QUESTION, Endless, as_json, served, timeless
from mcp import Client
from test_mcp import program

import rag
from index.store import Store
from rag.assistant import Assistant

pytestmark = pytest.mark.usefixtures("fast_probes")

ROOT = Path(__file__).resolve().parent.parent

Asking = Callable[[str, Assistant], Any]


def curl(address: str, *options: str, path: str, body: dict[str, Any]) -> str:
    command = ["curl", "--silent", "--noproxy", "*", *options, f"{address}{path}", "-H", "Content-Type: application/json", "-d", json.dumps(body)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


def by_ask(address: str, assistant: Assistant) -> Any:
    return rag.ask(QUESTION, assistant=assistant).to_dict()


def by_stream(address: str, assistant: Assistant) -> Any:
    *_, answer = rag.stream(QUESTION, assistant=assistant)
    assert isinstance(answer, rag.Answer)
    return answer.to_dict()


def by_aask(address: str, assistant: Assistant) -> Any:
    return asyncio.run(rag.aask(QUESTION, assistant=assistant)).to_dict()


def by_astream(address: str, assistant: Assistant) -> Any:
    async def run() -> Any:
        return [event async for event in rag.astream(QUESTION, assistant=assistant)][-1]

    return asyncio.run(run()).to_dict()


def by_curl(address: str, assistant: Assistant) -> Any:
    return json.loads(curl(address, path="/api/ask", body={"question": QUESTION}))


def by_curl_as_events(address: str, assistant: Assistant) -> Any:
    events = curl(address, "-N", "-H", "Accept: text/event-stream", path="/api/ask", body={"question": QUESTION})
    name, data = events.strip().split("\n\n")[-1].split("\n")
    assert name == "event: answer"
    return json.loads(data.removeprefix("data: "))


def by_openai(address: str, assistant: Assistant) -> Any:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", http_client=httpx.Client(trust_env=False, timeout=60)) as client:
        got = client.chat.completions.create(model="citewell", messages=[{"role": "user", "content": QUESTION}])
    return (got.model_extra or {})["citewell"]


def by_openai_as_a_stream(address: str, assistant: Assistant) -> Any:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", http_client=httpx.Client(trust_env=False, timeout=60)) as client:
        chunks = list(client.chat.completions.create(model="citewell", messages=[{"role": "user", "content": QUESTION}], stream=True))
    return (chunks[-1].model_extra or {})["citewell"]


def by_mcp(address: str, assistant: Assistant) -> Any:
    async def run() -> Any:
        async with Client(f"{address}/mcp") as client:
            return await client.call_tool("ask", {"question": QUESTION})

    return asyncio.run(run()).structured_content


def by_llamaindex(address: str, assistant: Assistant) -> Any:
    return assistant.as_query_engine().query(QUESTION).metadata["answer"]


def by_the_command_line(address: str, assistant: Assistant) -> Any:
    """`citewell ask`, which finds the store in use and asks the server that owns it."""
    assistant.store.announce(address)
    command = [sys.executable, "-m", "rag.cli", "ask", QUESTION, "--json", "--model", "none", "--data-dir", str(assistant.store.folder)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, env=env).stdout)


DOORS: list[Asking] = [
    by_ask, by_stream, by_aask, by_astream, by_curl, by_curl_as_events, by_openai, by_openai_as_a_stream, by_mcp, by_llamaindex, by_the_command_line,
]  # fmt: skip


@pytest.fixture(scope="module")
def address(lasting: Assistant) -> Any:
    with served(lasting) as where:
        yield where


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__.removeprefix("by_"))
def test_every_door_gives_the_same_answer(address: str, lasting: Assistant, door: Asking) -> None:
    expected = as_json(lasting.ask(QUESTION).to_dict())
    assert (expected["text"], expected["abstained"]) == ("The lander Apollo was built by Grumman. [1]", False)
    got = door(address, lasting)
    assert timeless(as_json(got)) == timeless(expected)
    assert set(got["timings"]) == set(expected["timings"])
    (citation,) = got["citations"]
    text = httpx.get(f"{address}/api/documents/{citation['document_id']}/text", trust_env=False, timeout=60).text
    assert text[citation["start"] : citation["end"]] == citation["quote"]


@pytest.mark.browser
def test_the_page_gives_the_same_answer(lasting: Assistant) -> None:
    """Asked in a real browser; what is kept of it is what the other doors give."""
    from page_browser import ask, launched, serving

    from rag.server import create_app
    from ui.app import mount

    expected = as_json(lasting.ask(QUESTION).to_dict())
    door = create_app(lasting)
    with launched() as browser, serving(mount(door, door.state.service)) as address:
        page = browser.new_page()
        page.goto(address)
        page.get_by_role("textbox", name="Your question").wait_for()
        ask(page, QUESTION)
        page.locator(".log .chip").first.wait_for()
        with httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
            (kept, *_) = client.get("/api/conversations").json()
            (exchange,) = client.get(f"/api/conversations/{kept['id']}").json()["exchanges"]
        assert page.locator(".passage mark").first.inner_text() in expected["citations"][0]["quote"]
    assert timeless(exchange["answer"]) == timeless(expected)


def test_the_tools_of_a_program_give_the_same_answer(lasting: Assistant, folder: Path) -> None:
    """`citewell mcp` on a store of its own: ids follow from the folder, all else is the same."""

    async def run() -> Any:
        async with Client(program(folder)) as client:
            return await client.call_tool("ask", {"question": QUESTION})

    got, expected = asyncio.run(run()).structured_content, as_json(lasting.ask(QUESTION).to_dict())
    for answer in (got, expected):
        for citation in answer["citations"]:
            citation["document_id"] = None
        answer["evidence"] = [hit["passage"]["text"] for hit in answer["evidence"]]
    assert timeless(got) == timeless(expected)


def test_curl_that_is_stopped_stops_the_model(store: Store, embedder: FakeEmbedder, folder: Path) -> None:
    model = Endless()
    assistant = make_assistant(store, embedder, model)
    assistant.sync(folder)
    with served(assistant) as address:
        with pytest.raises(subprocess.CalledProcessError):
            curl(address, "--max-time", "1", path="/api/ask", body={"question": QUESTION})
        assert model.stopped.wait(2)
    assert 0 < model.spoken < 500
