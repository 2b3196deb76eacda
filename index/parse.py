"""Reads files in child processes, so that no file can stall, crash or fill the process that answers questions."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from index.errors import UnreadableDocument
from index.read import document_id, fingerprint
from index.split import passage_id
from index.types import Document, Passage, Span

SECONDS = 60
MEMORY = 1 << 30
"""What one file may take: seconds, and bytes of address space."""

WATCHED_SECONDS = 0.2
"""How often it is looked for files that take too long."""

ANOTHER_AFTER = 1.0
"""Further children are started once files have waited so many seconds for the first, in sum: starting one takes a tenth of a second or two of a processor,
in which a child reads hundreds of short texts. docs/benchmarks.md tells what it saves a short sync."""

REQUESTS = 1_000
"""After so many files a child is replaced: what its libraries leaked goes with it."""

PACKAGES = str(Path(__file__).resolve().parent.parent)

log = logging.getLogger(__name__)

_warned = threading.Event()
"""That readers have a network is told once in the life of a process."""


class _Child:
    """One process, and the pipe to it."""

    def __init__(self, seconds: int, memory: int) -> None:
        program = f"import sys; sys.path.insert(0, {PACKAGES!r}); from index.parse_child import main; main({memory}, {seconds + 10})"
        # One thread each: a pool of threads takes address space for every core of the machine.
        alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
        secret = ("CITEWELL_", "PYTHON")
        inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith(secret)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**inherited, **alone},
            cwd=os.path.abspath(os.sep),
            start_new_session=True,  # Ctrl-C is for the process that asks
        )
        self.requests = 0
        self.late = threading.Event()

    def ask(self, request: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        """Sends a request and waits for the reply. Raises TimeoutError after give_up(), and EOFError where the process ended."""
        pipe_in, pipe_out = self.process.stdin, self.process.stdout
        assert pipe_in is not None
        assert pipe_out is not None
        try:
            pipe_in.write(json.dumps({**request, "length": len(content)}).encode("ascii") + b"\n")
            pipe_in.write(content)
            pipe_in.flush()
            line = pipe_out.readline()
            if not line.endswith(b"\n"):
                raise EOFError
            reply = json.loads(line)
            picture = pipe_out.read(reply["length"])
            if len(picture) < reply["length"]:
                raise EOFError
        except (OSError, EOFError, ValueError):  # the last where it was closed in this moment
            if self.late.is_set():
                raise TimeoutError from None
            raise EOFError from None
        self.requests += 1
        return reply, picture

    def give_up(self) -> None:
        """Ends the process because it takes too long; whoever waits for its reply learns that."""
        self.late.set()
        self.process.kill()

    def close(self) -> None:
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self.process.wait()


class Parser:
    """At most `workers` child processes, started when they are needed. Its methods may be called from several threads at once."""

    def __init__(self, workers: int | None = None, seconds: int = SECONDS, memory: int = MEMORY) -> None:
        self.workers = workers or max(2, min(4, (os.cpu_count() or 2) // 2))
        self._seconds, self._memory = seconds, memory
        self._closed = False
        self._closing = threading.Lock()
        self._children: set[_Child] = set()
        self._due: dict[_Child, float] = {}
        self._watching = False
        self._free = threading.Condition()
        self._idle: list[_Child] = []
        self._places = self.workers  # how many further children may be started
        self._waited = 0.0

    def __enter__(self) -> Parser:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the child processes; what they are reading is given up. Safe to call twice."""
        with self._closing:
            self._closed = True
            children, self._children = self._children, set()
        for child in children:
            child.close()

    def parse(self, content: bytes, source: str, root: str) -> tuple[Document, list[Passage]]:
        """The Document in a file's bytes and its passages. Raises UnreadableDocument with a reason that fits behind 'rejected: '."""
        reply, _ = self._asked({"do": "read", "source": source, "root": root}, content)
        document = Document(
            document_id(root, source),
            source,
            reply["title"],
            reply["text"],
            fingerprint(content),
            len(content),
            reply["titled"],
            tuple(reply["pages"]),
            tuple(Span(*part) for part in reply["furniture"]),
        )
        passages = []
        for start, end, heading, pages in reply["passages"]:
            text = document.text[start:end]
            span = Span(start, end)
            identifier = passage_id(document.id, span, text)
            passages.append(
                Passage(identifier, document.id, source, document.title, heading, span, text, tuple((offset, page) for offset, page in pages))
            )
        return document, passages

    def render(self, content: bytes, page: int, start: int, end: int) -> bytes:
        """A PDF's page (from 1) as a PNG, the characters [start, end) of that page's text highlighted. Raises UnreadableDocument."""
        return self._asked({"do": "render", "page": page, "start": start, "end": end}, content)[1]

    def connected(self) -> str | None:
        """Why the system does not cut readers off from the network; nothing where it does, None where the platform has no such thing.

        Raises UnreadableDocument where no reader starts.
        """
        reply, _ = self._asked({"do": "nothing"}, b"")
        return reply["connected"]  # type: ignore[no-any-return]

    def _asked(self, request: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        child = self._taken()
        try:
            if child is None:
                child = self._started()
            with self._in_time(child):
                reply, picture = child.ask(request, content)
        except TimeoutError:
            child = self._drop(child)
            raise UnreadableDocument(f"reading it takes longer than {self._seconds} seconds") from None
        except EOFError:
            child = self._drop(child)
            if self._closed:
                raise UnreadableDocument("reading it was given up, as Citewell was closed") from None
            raise UnreadableDocument("its reader crashed on it: it is damaged, or takes more memory than a file may") from None
        except BaseException:
            child = self._drop(child)
            raise
        finally:
            # One that was given up just as it replied is none for the next file.
            if child is not None and (child.requests >= REQUESTS or child.late.is_set()):
                child = self._drop(child)
            self._give_back(child)
        if reply.get("connected") and not _warned.is_set():
            _warned.set()
            log.warning(
                "The system does not cut the readers of files off from the network (%s). What they do in Python is stopped nevertheless, "
                "what a native library does is not. `citewell doctor` says more.",
                reply["connected"],
            )
        if "trace" in reply:
            log.warning("A file could not be read:\n%s", reply["trace"])
        if "rejected" in reply:
            raise UnreadableDocument(reply["rejected"], reply.get("lasting", True))
        return reply, picture

    @contextmanager
    def _in_time(self, child: _Child) -> Iterator[None]:
        """Gives a child up that takes longer than a file may. One thread watches all of them while there is work: starting one for each file costs more
        than a small file does."""
        with self._closing:
            self._due[child] = time.monotonic() + self._seconds
            if not self._watching:
                threading.Thread(target=self._watch, name="citewell-watch", daemon=True).start()
                self._watching = True
        try:
            yield
        finally:
            with self._closing:
                del self._due[child]

    def _watch(self) -> None:
        while True:
            time.sleep(WATCHED_SECONDS)
            with self._closing:
                if not self._due:
                    self._watching = False
                    return
                now = time.monotonic()
                for child, due in self._due.items():
                    if due <= now:
                        child.give_up()

    def _taken(self) -> _Child | None:
        """A child that nobody uses, waiting for one if need be; None where the caller is to start one."""
        with self._free:
            while not self._idle:
                none_yet = self._places == self.workers
                if self._places and (none_yet or self._waited >= ANOTHER_AFTER):
                    self._places -= 1
                    return None
                began = time.monotonic()
                self._free.wait(ANOTHER_AFTER - self._waited if self._places else None)
                self._waited += time.monotonic() - began
            return self._idle.pop()

    def _give_back(self, child: _Child | None) -> None:
        with self._free:
            if child is None:
                self._places += 1
            else:
                self._idle.append(child)
            self._free.notify()

    def _started(self) -> _Child:
        with self._closing:
            if self._closed:
                raise UnreadableDocument("reading it was given up, as Citewell was closed")
            child = _Child(self._seconds, self._memory)
            self._children.add(child)
        return child

    def _drop(self, child: _Child | None) -> _Child | None:
        """Ends a child; None takes its place, until the next is needed."""
        if child is not None:
            with self._closing:
                self._children.discard(child)
            child.close()
        return None
