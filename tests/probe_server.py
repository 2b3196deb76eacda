"""Probes of the vector index in processes forked from one that has imported Chroma already: the real probe takes a second or two for that.

Forked from a process that has never opened Chroma, each is as good as new; as the real one does, it ends with whoever asked.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from index.index_worker import examine

Probe = Callable[[Path, Path, float, threading.Event], str]
HERE = Path(__file__).resolve().parent


def ask(address: str) -> Probe:
    """A function like index.index_worker.probe that asks the server at an address."""

    def probe(folder: Path, truth: Path, seconds: float, stop: threading.Event) -> str:
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(address)
            asked.sendall(f"{folder}\n{truth}\n".encode())
            asked.settimeout(0.02)
            end = time.monotonic() + seconds
            answer = b""
            while not stop.is_set() and time.monotonic() < end:
                with suppress(TimeoutError):
                    part = asked.recv(10_000)
                    if not part:
                        return answer.decode().removeprefix("said:") if answer else "opening it ended a process"
                    answer += part
            return "it did not answer in time"

    return probe


@contextmanager
def serving() -> Iterator[str]:
    """Runs a server; gives its address."""
    with TemporaryDirectory() as folder:
        address = str(Path(folder, "probe"))
        server = subprocess.Popen(
            [sys.executable, str(HERE / "probe_server.py"), address],
            env={**os.environ, "PYTHONPATH": str(HERE.parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield address
        finally:
            server.kill()
            server.communicate()


def main(address: str) -> None:
    import chromadb  # noqa: F401 - once, not once a fork

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # The server ends with whoever started it.
    threading.Thread(target=lambda: (os.read(sys.stdin.fileno(), 1), os._exit(0)), daemon=True).start()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen(8)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            connection, _ = listening.accept()
            if os.fork():
                connection.close()
                continue
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.alarm(60)
            lines = connection.makefile("r")
            folder, truth = Path(lines.readline().rstrip("\n")), Path(lines.readline().rstrip("\n"))
            if not truth.name:  # whoever asked was killed in the middle of it
                os._exit(0)
            threading.Thread(target=lambda one=connection: (one.recv(1), os._exit(1)), daemon=True).start()
            answer = examine(folder, truth)
            with suppress(OSError):
                connection.sendall(f"said:{answer}".encode())
            os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
