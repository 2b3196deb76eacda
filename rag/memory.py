"""What the C library does with the memory of a server that runs for weeks."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

HEAPS = 2
"""As many as the threads of a small machine can be in at once; Python's own lock keeps most of them out of it anyway."""

_ARENA_MAX = -8
"""M_ARENA_MAX in glibc's malloc.h."""


def share_heaps() -> bool:
    """Has all threads take memory from few heaps; to be called before any are begun. Whether it could be done: glibc alone knows of it.

    Of its own accord glibc makes up to eight heaps a core, and what is free in one is of no use to a thread at another: a server whose many threads come and
    go grows by what lies free. MALLOC_ARENA_MAX, where it is set, stands.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return False
    with suppress(AttributeError, OSError, TypeError):  # another C library, or none that can be asked
        return bool(ctypes.CDLL(None).mallopt(_ARENA_MAX, HEAPS))
    return False
