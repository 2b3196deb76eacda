"""How many threads work at a time, and which stand back behind others: a sync's, so that questions which come meanwhile are answered as soon as at other times."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

STEPS = 5
"""Where others want all cores, a thread that is so far behind gets a quarter of one: a sync goes on under load too."""

WAITED_SECONDS = 0.05
"""So long a step of a sync waits for searches at most: most have ended by then, and under load of all day a sync still goes on at about half its speed."""

LATELY_SECONDS = 60.0
"""So long after a search others are expected."""

_here = threading.local()
_searches = 0
_last_search = float("-inf")
_searched = threading.Condition()


@cache
def cores() -> int:
    """The physical cores that this process may use when it first asks: a core's second thread adds nothing to a product of matrices."""
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:
        return os.cpu_count() or 1
    shared = (Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list") for number in allowed)
    return len({path.read_text() if path.exists() else str(path) for path in shared})


def behind_others(by: int = STEPS) -> None:
    """Lowers the priority of the calling thread, and of those that it will begin: by so many steps below the process's own.

    For good, as no thread may raise its own again; on Linux alone, as elsewhere it would be the whole process's.
    """
    _here.behind = True
    if sys.platform == "linux":
        with suppress(OSError):  # it works all the same
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, os.getpid()) + by)


def is_behind() -> bool:
    """Whether the calling thread stands back: threads that are to last, and to serve others, are not begun in it."""
    return getattr(_here, "behind", False)


@contextmanager
def in_front() -> Iterator[None]:
    """For a search: a sync in this process makes no further step until it has ended, or WAITED_SECONDS are over."""
    global _searches, _last_search
    with _searched:
        _searches += 1
    try:
        yield
    finally:
        with _searched:
            _searches -= 1
            _last_search = time.monotonic()
            if not _searches:
                _searched.notify_all()


def searched_lately() -> bool:
    """Whether somebody searches in this process, or has within LATELY_SECONDS."""
    return _searches > 0 or time.monotonic() - _last_search < LATELY_SECONDS


def give_way() -> None:
    """Before a step of a sync: waits while somebody searches. Low priority alone does not keep the two apart: Python runs one thread at a time, and a
    processor's caches are everybody's."""
    if is_behind() and _searches:
        with _searched:
            _searched.wait_for(lambda: not _searches, WAITED_SECONDS)
