"""Iterators that block, followed from an event loop: the awaitable forms of answering are the one implementation, run in threads."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

from rag.types import Answer, Event

Item = TypeVar("Item")

AT_ONCE = 64
"""How many iterators of one event loop are waited for at a time. Threads of their own: what a server else does in threads need not wait for a model."""

_limiter: RunVar[CapacityLimiter] = RunVar("citewell-awaited")


async def in_thread(work: Callable[[], Item]) -> Item:
    """What `work` returns, from a thread. Whoever is cancelled does not wait for it."""
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = CapacityLimiter(AT_ONCE)
        _limiter.set(limiter)
    return await to_thread.run_sync(work, abandon_on_cancel=True, limiter=limiter)


async def each(items: Iterator[Item]) -> AsyncGenerator[Item, None]:
    """The items, each made in a thread. Closing this, or cancelling whoever waits, closes the iterator: at once, or after the item that is being made."""
    left = threading.Event()
    end: Any = object()

    def following() -> Item:
        item: Item = next(items, end)
        if left.is_set():
            close()
        return item

    def close() -> None:
        with suppress(ValueError):  # still running in the thread, which closes it then
            getattr(items, "close", lambda: None)()

    try:
        while (item := await in_thread(following)) is not end:
            yield item
    finally:
        left.set()
        close()


async def answered(events: AsyncGenerator[Event, None]) -> Answer:
    """The last event of a stream. Cancelling this closes the stream."""
    last: Event | None = None
    async with aclosing(events) as following:
        async for event in following:
            last = event
    assert isinstance(last, Answer), "a stream ends in its Answer"
    return last
