"""Tests of rag.awaitable and the awaitable forms of asking: the same answers, an event loop that goes on, and a model that stops when nobody waits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from conftest import FakeEmbedder, make_assistant
from doors import QUESTION, STOPPED_SECONDS, Endless, timeless

import rag
from index.errors import InvalidQuestion
from index.store import Store
from rag import assistant as module
from rag.assistant import Assistant
from rag.awaitable import each, in_thread
from rag.types import Answer, Event, Token, Turn


@pytest.fixture
def endless(store: Store, embedder: FakeEmbedder, folder: Path) -> tuple[Assistant, Endless]:
    model = Endless()
    assistant = make_assistant(store, embedder, model)
    assistant.sync(folder)
    return assistant, model


async def listed(events: AsyncGenerator[Event, None]) -> list[Event]:
    return [event async for event in events]


def kinds(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def test_the_awaited_answer_is_that_of_ask(assistant: Assistant) -> None:
    history = [Turn("user", "What is Apollo?"), Turn("assistant", "A lander.")]
    awaited = asyncio.run(assistant.aask("And who built it?", history, ["apollo.md"]))
    assert timeless(awaited.to_dict()) == timeless(assistant.ask("And who built it?", history, ["apollo.md"]).to_dict())
    assert awaited.text == "The lander Apollo was built by Grumman. [1]"


def test_the_awaited_events_are_those_of_stream(assistant: Assistant) -> None:
    events = asyncio.run(listed(assistant.astream(QUESTION)))
    assert kinds(events) == kinds(list(assistant.stream(QUESTION)))
    assert events[:-1] == list(assistant.stream(QUESTION))[:-1]


@pytest.mark.parametrize("given", [True, False])
def test_the_functions_ask_the_assistant_given_or_the_default_one(assistant: Assistant, given: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_default", None if given else assistant)
    more: dict[str, Any] = {"assistant": assistant} if given else {}
    assert asyncio.run(rag.aask(QUESTION, **more)).text == assistant.ask(QUESTION).text
    assert isinstance(asyncio.run(listed(rag.astream(QUESTION, **more)))[-1], Answer)


@pytest.mark.parametrize(("question", "documents", "error"), [("", None, InvalidQuestion), (QUESTION, ["gone.md"], KeyError)])
def test_what_ask_raises_is_raised(assistant: Assistant, question: str, documents: list[str] | None, error: type[Exception]) -> None:
    with pytest.raises(error):
        asyncio.run(assistant.aask(question, documents=documents))


def test_the_event_loop_goes_on_meanwhile() -> None:
    seen: list[str] = []

    def slow() -> Iterator[int]:
        time.sleep(0.2)
        seen.append("made")
        yield 1

    async def run() -> list[int]:
        asyncio.get_running_loop().call_later(0.02, seen.append, "loop")
        return [item async for item in each(slow())]

    assert asyncio.run(run()) == [1]
    assert seen == ["loop", "made"]


def test_cancelling_stops_the_model(endless: tuple[Assistant, Endless]) -> None:
    assistant, model = endless

    async def run() -> None:
        asking = asyncio.create_task(assistant.aask(QUESTION))
        await asyncio.to_thread(model.speaking.wait)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await asyncio.to_thread(model.stopped.wait, STOPPED_SECONDS)

    asyncio.run(run())
    assert model.spoken < 500


def test_closing_stops_the_model(endless: tuple[Assistant, Endless]) -> None:
    assistant, model = endless

    async def run() -> None:
        async with aclosing(rag.astream(QUESTION, assistant=assistant)) as events:
            async for event in events:
                if isinstance(event, Token):
                    break
        assert await asyncio.to_thread(model.stopped.wait, STOPPED_SECONDS)

    asyncio.run(run())


def test_what_is_cancelled_while_an_item_is_made_is_closed_after_it() -> None:
    closed, making = threading.Event(), threading.Event()

    def slow() -> Iterator[int]:
        try:
            making.set()
            time.sleep(0.3)
            yield 1
            yield 2
        finally:
            closed.set()

    async def run() -> float:
        first = asyncio.ensure_future(anext(each(slow())))
        await asyncio.to_thread(making.wait)
        began = time.monotonic()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        waited = time.monotonic() - began
        assert not closed.is_set()
        assert await asyncio.to_thread(closed.wait, STOPPED_SECONDS)
        return waited

    assert asyncio.run(run()) < 0.2


def test_threads_that_were_left_count_until_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.awaitable.AT_ONCE", 2)
    free, running = threading.Event(), threading.Semaphore(0)

    def work() -> bool:
        running.release()
        return free.wait(10)

    async def run() -> None:
        left = [asyncio.create_task(in_thread(work)) for _ in range(2)]
        for _ in left:
            await asyncio.to_thread(running.acquire)
        for task in left:
            task.cancel()
        await asyncio.wait(left)
        third = asyncio.create_task(in_thread(lambda: "done"))
        assert not (await asyncio.wait({third}, timeout=0.1))[0], "two threads are still at work"
        free.set()
        assert await third == "done"

    asyncio.run(run())


def test_the_packages_tell_that_they_are_typed() -> None:
    for package in ("rag", "index", "ui"):
        assert (Path(rag.__file__).parent.parent / package / "py.typed").is_file()
