"""Long work at the command line: it stops at Ctrl-C with what is done, and goes on when a folder changes."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

SETTLING_MS = 1_600
"""Changes that come within this time are taken together: programs save a file in several steps."""

ANYWAY_SECONDS = 300.0
AWAY_SECONDS = 2.0


@contextmanager
def at_once() -> Iterator[None]:
    """Ctrl-C ends the process on the spot, like a kill, which a store survives. For work that leaves nothing half done.

    Python's own handler would have to wait until the language model's library lets go of the interpreter, while it loads or frees a model.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # a process in the background ignores Ctrl-C
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets; a second Ctrl-C breaks off at once."""
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def changes(folder: Path, apart: Path, stopped: threading.Event) -> Iterator[None]:
    """Yields once the folder is watched, then whenever something in it has changed, until `stopped` is set.

    What is hidden does not count, nor what changes in the folder `apart`. Some file systems (shares, mostly) tell of no change, so it also yields
    every few minutes; and a folder that goes away is waited for.
    """
    from watchfiles import Change, watch

    folder, apart = folder.expanduser().resolve(), apart.resolve()

    def counts(change: Change, path: str) -> bool:
        if Path(path).is_relative_to(apart):
            return False
        try:
            return not any(part.startswith(".") for part in Path(path).relative_to(folder).parts)
        except ValueError:
            return True

    while not stopped.is_set():
        last = -math.inf
        with suppress(OSError):
            for found in watch(
                folder, watch_filter=counts, stop_event=stopped, debounce=SETTLING_MS, rust_timeout=500, yield_on_timeout=True, raise_interrupt=False
            ):
                if found or time.monotonic() - last > ANYWAY_SECONDS:
                    yield
                    last = time.monotonic()
                if not folder.is_dir():
                    break
        while not stopped.wait(AWAY_SECONDS) and not folder.is_dir():
            pass
