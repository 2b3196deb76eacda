"""Threads that stand back behind others: a sync's, so that questions which come meanwhile are answered as soon as at other times."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

STEPS = 5
"""Where others want all cores, a thread that is so far behind gets a quarter of one: a sync goes on under load too."""

_here = threading.local()


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
