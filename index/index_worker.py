"""What makes an index and what examines one: filling, merging and comparing with the store, in this process or in a child, where it fills and
merges at low priority.

A kill can leave Chroma's files so that opening them crashes the process, which is why a child opens them first; and in the server itself Chroma's work would
keep searches waiting.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from index.collection import EVERYTHING_IN_MEMORY, Collection, IndexBroken, write_out
from index.database import batches

if TYPE_CHECKING:
    from numpy.typing import NDArray

Rows = Callable[[str, Sequence[Any]], list[Any]]
"""Reads rows from the store."""

WRITTEN_EVERY = 5_000
"""While an index is built, where nobody minds a kill, its files are written every so many vectors: opening those takes milliseconds, not seconds."""

WRITTEN_TIMES = 4
"""But no more often than this in all, and once at the end, as the whole of it is written each time."""

UNWRITTEN = 2_000
"""So many vectors may be added to an index before tidy() writes it anew; reading them on opening takes a second or so."""

STEP = 1_000
"""Vectors told to Chroma at once while building: between two steps it can be stopped."""

ITSELF = 0.999
"""A vector's cosine with itself, after rounding."""

BEHIND = "it does not hold the passages that the store holds"

DONE = "done "
"""How a line begins that tells how far a child process is."""


# Filling


def filled_here(folder: Path, total: int, rows: Rows, told: Callable[[int], None]) -> Collection:
    """A new index of all passages, some `total`, made in this very process, in its files if they are many; says how many it has after each step."""
    # In whole steps, after which alone Chroma looks whether it is time to write.
    parts = min(WRITTEN_TIMES, max(1, round(total / WRITTEN_EVERY)))
    made = Collection(folder, max(STEP, total // parts // STEP * STEP) if total > UNWRITTEN else EVERYTHING_IN_MEMORY)
    try:
        done = last = 0
        while True:
            told(done)
            found = rows(
                "SELECT p.number, p.id, v.vector FROM passages p JOIN vectors v USING (content_key) WHERE p.number > ? ORDER BY p.number LIMIT ?",
                (last, STEP),
            )
            if not found:
                break
            made.add([row[1] for row in found], [row[2] for row in found])
            last = found[-1][0]
            done += len(found)
        if total > UNWRITTEN:
            write_out(made)
            made = Collection(folder)
        return made
    except BaseException:
        made.close()
        raise


def fill(folder: Path, truth: Path, total: int) -> str:
    """Fills a new index with all passages of the store's file, each as it is when its turn comes; returns what is wrong with it. Each step is said in a line
    of its own: how many it has."""
    try:
        # Step by step, and not of one moment: that would keep SQLite from shortening its log for as long as this lasts.
        with _reading(truth) as rows:
            filled_here(folder, total, rows, lambda done: print(f"{DONE}{done}", flush=True)).close()
    except (IndexBroken, OSError, sqlite3.Error) as error:
        return str(error)
    return ""


# Merging


def merge(source: Path, target: Path, truth: Path, last: int) -> str:
    """Makes a copy of an index that has learned what is pending up to row `last`, and has all of it in its files; `source` is not being written.

    Says "buried" and how many it had to delete, or what is wrong.
    """
    try:
        for path in source.rglob("*"):
            if path.is_file() and not path.name.startswith(("chroma.sqlite3", "seal.")):
                (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target / path.relative_to(source))
        with closing(sqlite3.connect(source / "chroma.sqlite3")) as old, closing(sqlite3.connect(target / "chroma.sqlite3")) as new:
            old.backup(new)
        with _snapshot(truth) as rows:
            waiting = [row[0] for row in rows("SELECT passage_id FROM pending WHERE rowid <= ? ORDER BY rowid", (last,))]
            later = [row[0] for row in rows("SELECT passage_id FROM pending WHERE rowid > ?", (last,))]
            with closing(Collection(target)) as collection:
                buried = learned(collection, waiting, rows)
                write_out(collection)
            with closing(Collection(target)) as collection:
                if not holds(collection, later, rows):
                    return "the copy does not hold what the store holds"
    except (IndexBroken, OSError, sqlite3.Error) as error:
        return f"it cannot be copied ({error})"
    return f"buried {buried}"


def learned(collection: Collection, ids: Iterable[str], rows: Rows) -> int:
    """Tells a collection what became of passages, as `rows` reads it from the store; returns how many it had to delete."""
    buried = 0
    for batch, marks in batches(ids):
        known = dict(rows(f"SELECT p.id, v.vector FROM passages p JOIN vectors v USING (content_key) WHERE p.id IN ({marks})", batch))
        held = collection.vectors(batch)
        # Writing a vector anew would loosen it from the graph, so it stays; but under another title or heading the same words have another one.
        dead = {one for one, vector in held.items() if one not in known or _cosine(vector, known[one]) < ITSELF}
        new = [one for one in known if one not in held or one in dead]
        collection.delete(list(dead))
        collection.add(new, [known[one] for one in new])
        buried += len(dead)
    return buried


def holds(collection: Collection, pending: Sequence[str], rows: Rows) -> bool:
    """Whether a collection holds as many passages as the store, those left aside of which it has still to learn."""
    there, held = _there(rows, pending), _held(collection, pending)
    ((passages,),) = rows("SELECT count(*) FROM passages", ())
    return collection.count() == int(passages) - len(there - held) + len(held - there)


def _there(rows: Rows, ids: Sequence[str]) -> set[str]:
    return {row[0] for batch, marks in batches(ids) for row in rows(f"SELECT id FROM passages WHERE id IN ({marks})", batch)}


def _held(collection: Collection, ids: Sequence[str]) -> set[str]:
    return {identifier for batch, _ in batches(ids) for identifier in collection.held(batch)}


# Examining


def examine(folder: Path, truth: Path) -> str:
    """What is wrong with an index, compared with the store's file; nothing when it is right. In this very process, which Chroma may crash."""
    with _snapshot(truth) as rows:
        pending = {row[0] for row in rows("SELECT passage_id FROM pending", ())}
        try:
            with closing(Collection(folder)) as collection:
                if not holds(collection, sorted(pending), rows):
                    return BEHIND
                ((passages,),) = rows("SELECT count(*) FROM passages", ())
                last = seen = asked = lost = 0
                while found := rows(
                    "SELECT p.number, p.id, v.vector FROM passages p JOIN vectors v USING (content_key) WHERE p.number > ? ORDER BY p.number LIMIT ?",
                    (last, STEP),
                ):
                    last = found[-1][0]
                    stored = {row[1]: row[2] for row in found if row[1] not in pending}
                    held = collection.vectors(list(stored))
                    if held.keys() != stored.keys():
                        return BEHIND
                    if any(_cosine(held[one], stored[one]) < ITSELF for one in stored):
                        return "it holds other vectors than the store"
                    for one in stored:
                        seen += 1
                        if seen % max(1, passages // 50) == 0:
                            asked += 1
                            nearest = collection.vectors([near for near, _ in collection.nearest(held[one][np.newaxis], 3)[0]])
                            lost += max((_cosine(vector, stored[one]) for vector in nearest.values()), default=-1.0) < ITSELF
                # Here and there a vector is out of reach in a graph that is as good as Chroma makes them.
                if lost * 10 > asked:
                    return "passages do not find themselves in it"
        except IndexBroken as error:
            return f"it cannot be read ({error})"
    return ""


@contextmanager
def _reading(truth: Path) -> Iterator[Rows]:
    """Reads the store's file, without ever writing to it."""
    with closing(sqlite3.connect(f"{truth.absolute().as_uri()}?mode=ro", uri=True, timeout=30, isolation_level=None)) as connection:
        yield lambda statement, values: connection.execute(statement, values).fetchall()


@contextmanager
def _snapshot(truth: Path) -> Iterator[Rows]:
    """Reads the store's file as it is at one moment."""
    with _reading(truth) as rows:
        rows("BEGIN", ())
        yield rows


def _cosine(vector: NDArray[np.float32], stored: bytes) -> float:
    other = np.frombuffer(stored, dtype=np.float32)
    if other.shape != vector.shape:
        return -1.0
    return float(vector @ other) / max(float(np.linalg.norm(vector) * np.linalg.norm(other)), 1e-12)


# In a child process


def probe(folder: Path, truth: Path, seconds: float, stop: threading.Event) -> str:
    """Opens an index in a child process and compares it with the store's file; returns what is wrong with it, nothing when it is right.

    A crash, an error, or no answer in time is the trouble that is returned; `stop` ends the child at once.
    """
    trouble, said = in_child("examine", [str(folder), str(truth)], seconds, stop.is_set)
    return trouble or said


def in_child(
    what: str, values: Sequence[str], seconds: float, unwanted: Callable[[], bool], told: Callable[[int], None] = lambda done: None
) -> tuple[str, str]:
    """Runs this module in a child process, until it is unwanted: what kept it from its end, if anything, and what it said. `told` hears how far it is."""
    here = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))}
    with subprocess.Popen(
        [sys.executable, "-m", "index.index_worker", str(seconds), what, *values],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    ) as child:
        said: list[str] = []

        def listen() -> None:
            assert child.stdout is not None
            for line in child.stdout:
                text = line.decode("utf-8", "replace").strip()
                if text.startswith(DONE):
                    told(int(text.removeprefix(DONE)))
                else:
                    said.append(text)

        listening = threading.Thread(target=listen, name="citewell-child", daemon=True)
        listening.start()
        end = time.monotonic() + seconds
        while True:
            try:
                # Through communicate() standard input would be closed, which tells the child that its parent has died.
                child.wait(0.05)
                break
            except subprocess.TimeoutExpired:
                if unwanted() or time.monotonic() > end:
                    child.kill()
                    child.wait()
                    listening.join()
                    return f"it did not answer within {seconds:.0f} seconds", ""
        listening.join()
    return (f"opening it ended a process with status {child.returncode}", "") if child.returncode != 0 else ("", "\n".join(said).strip())


def _main(seconds: str, what: str, *values: str) -> None:
    # Two ways to end with the parent or in time: a thread, and where Chroma lets no thread run, the system's alarm.
    if hasattr(signal, "alarm"):
        signal.alarm(int(float(seconds)) + 5)
    threading.Thread(target=lambda: (os.read(sys.stdin.fileno(), 1), os._exit(1)), daemon=True).start()
    if what != "examine" and hasattr(os, "nice"):
        os.nice(10)  # questions come first
    if what == "merge":
        source, target, truth, last = values
        said = merge(Path(source), Path(target), Path(truth), int(last))
    elif what == "fill":
        folder, truth, total = values
        said = fill(Path(folder), Path(truth), int(total))
    else:
        said = examine(*map(Path, values))
    sys.stdout.write(said)
    sys.stdout.flush()
    # Not by way of the interpreter's end, where a broken index might hang after it has answered.
    os._exit(0)


if __name__ == "__main__":
    _main(*sys.argv[1:])
