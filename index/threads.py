"""Threads that stand back behind others."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress


def behind_others(by: int = 10) -> None:
    """Lowers the priority of the calling thread, and of those that it will begin. For good, as no thread may raise its own again; on Linux alone, as
    elsewhere it would be the whole process's.
    """
    if sys.platform == "linux":
        with suppress(OSError):  # it works all the same
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + by)
