"""Iterators that block, followed from an event loop: the awaitable forms of answering are the one implementation, run in threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TypeVar

from anyio.lowlevel import RunVar

from rag.types import Answer, Event

Item = TypeVar("Item")

AT_ONCE = 128
"""How many iterators of one event loop are followed at a time. A thread that its caller has left counts until it ends."""

_room: RunVar[asyncio.Semaphore] = RunVar("citewell-awaited")


@dataclass(frozen=True, slots=True)
class _End:
    """Stands behind the last item; `error` is what ended it, if something did."""

    error: BaseException | None = None


async def batches(items: Iterator[Item]) -> AsyncGenerator[list[Item], None]:
    """The items, made in a thread of their own; those together that came while nobody waited.

    Closing this, or cancelling whoever waits, closes the iterator: at once, or after the item that is being made. Nobody waits for that.
    """
    loop, left = asyncio.get_running_loop(), threading.Event()
    made: asyncio.Queue[Item | _End] = asyncio.Queue()
    try:
        room = _room.get()
    except LookupError:
        room = asyncio.Semaphore(AT_ONCE)
        _room.set(room)

    def close() -> None:
        with suppress(ValueError):  # still running in the thread, which closes it then
            getattr(items, "close", lambda: None)()

    def tell(item: Item | _End) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            loop.call_soon_threadsafe(made.put_nowait, item)

    def follow() -> None:
        end = _End()
        try:
            for item in items:
                if left.is_set():
                    break
                tell(item)
            close()
        except BaseException as error:
            end = _End(error)
        tell(end)
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(room.release)

    try:
        await room.acquire()
        threading.Thread(target=follow, name="citewell-following", daemon=True).start()
        while True:
            batch = [await made.get()]
            while not made.empty():
                batch.append(made.get_nowait())
            told = [item for item in batch if not isinstance(item, _End)]
            if told:
                yield told
            if isinstance(batch[-1], _End):
                if batch[-1].error is not None:
                    raise batch[-1].error
                return
    finally:
        left.set()
        close()


async def each(items: Iterator[Item]) -> AsyncGenerator[Item, None]:
    """The items of batches(), one by one."""
    async with aclosing(batches(items)) as made:
        async for batch in made:
            for item in batch:
                yield item


async def in_thread(work: Callable[[], Item]) -> Item:
    """What `work` returns, from a thread. Whoever is cancelled does not wait for it."""
    async with aclosing(each(done() for done in (work,))) as results:
        return await anext(results)


async def answered(events: AsyncGenerator[Event, None]) -> Answer:
    """The last event of a stream. Cancelling this closes the stream."""
    last: Event | None = None
    async with aclosing(events) as following:
        async for event in following:
            last = event
    assert isinstance(last, Answer), "a stream ends in its Answer"
    return last
