"""The index of vectors: Chroma, derived from the vectors in SQLite and rebuilt from them whenever it cannot be trusted. The only user of chromadb.

A kill can leave Chroma's files so that opening them crashes the process, and damage to them shows in no error. So an index that was not closed in
good order is compared with SQLite in a child process first. Building, opening and comparing happen in a background thread, and a new index is filled
completely before one transaction names it the current one.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from index.database import Database, batches
from index.errors import CitewellError, StoreError
from index.schema import SEEN, SEEN_EACH, set_meta
from index.seal import break_seal, check_seal, make_private_folder, write_seal

if TYPE_CHECKING:
    from numpy.typing import NDArray

State = Literal["opening", "ready", "rebuilding", "failed"]

COLLECTION = "passages"

EVERYTHING_IN_MEMORY = 1_000_000
"""Chroma's sync_threshold: below so many new vectors it never rewrites its files, which a kill would leave broken. It reads them anew on opening."""

WRITTEN_EVERY = 5_000
"""While an index is built, where nobody minds a kill, its files are written every so many vectors: opening those takes milliseconds, not seconds."""

UNWRITTEN = 2_000
"""So many vectors may be added to an index before tidy() builds it anew; reading them on opening takes a second or so."""

STEP = 1_000
"""Vectors told to Chroma at once while building: between two steps it can be stopped."""

COMPARED = 20_000
"""Up to so many passages are compared with a question one by one, which takes milliseconds and misses none. Chroma's graph of a small collection now
and then holds a vector that no search reaches (5 of 150 collections of 60), and is no quicker."""

COMPARED_OF_CHOSEN = 5_000
"""Of a larger store, up to so many passages of chosen documents are read and compared one by one."""

MOST_ASKED = 2_000
"""So many of the nearest are asked for at most to find those of chosen documents among them."""

PROBE_SECONDS = 20.0
OPENING_SECONDS = 10.0
REBUILDING_SECONDS = 3.0
RETRY_SECONDS = 30.0
"""How long: a probe may take (and a second more for every thousand passages); a question waits for an index that opens, or is being rebuilt;
nothing is tried after a failure."""

SEAL = "seal.json"

log = logging.getLogger(__name__)


class IndexBroken(StoreError):
    """Chroma failed; SQLite still holds everything, so the answer is to rebuild."""


@dataclass(frozen=True, slots=True)
class _Known:
    """The vectors of a small store as rows of a matrix, with the passages' and documents' ids, as they were after so many changes."""

    changes: int
    ids: list[str]
    documents: list[str]
    matrix: NDArray[np.float32]
    seen: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    """By user, which rows they may see."""


class _Stopped(Exception):
    """The store is being closed."""


@contextmanager
def _chroma() -> Iterator[None]:
    """Gives whatever Chroma raises one name. Its Rust panics are no Exceptions."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, CitewellError):
        raise
    except BaseException as error:
        raise IndexBroken(f"{type(error).__name__}: {error}") from error


class _Collection:
    """Chroma's one collection in one folder. Closing waits for queries that are under way."""

    def __init__(self, folder: Path, sync_threshold: int = EVERYTHING_IN_MEMORY) -> None:
        self.folder = folder
        self._using = 0
        self._idle = threading.Condition()
        self._closed = False
        with _chroma():
            import chromadb

            # The seal says how the files were when they were last closed; from here on they change.
            break_seal(folder / SEAL)
            make_private_folder(folder)  # what Chroma makes in it anybody might read
            self._client = chromadb.PersistentClient(str(folder), settings=chromadb.Settings(anonymized_telemetry=False))
            try:
                self._collection = self._client.get_or_create_collection(
                    COLLECTION,
                    embedding_function=None,
                    configuration={"hnsw": {"space": "cosine", "sync_threshold": sync_threshold, "ef_search": 200}},
                )
            except BaseException:
                self._client.close()
                raise

    @contextmanager
    def _use(self) -> Iterator[Any]:
        with self._idle:
            if self._closed:
                raise IndexBroken("it was closed")
            self._using += 1
        try:
            with _chroma():
                yield self._collection
        finally:
            with self._idle:
                self._using -= 1
                self._idle.notify_all()

    def count(self) -> int:
        with self._use() as collection:
            return int(collection.count())

    def held(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that it holds."""
        with self._use() as collection:
            return set(collection.get(ids=list(ids), include=[])["ids"])

    def add(self, ids: Sequence[str], vectors: Sequence[bytes]) -> None:
        if ids:
            with self._use() as collection:
                collection.upsert(ids=list(ids), embeddings=[np.frombuffer(vector, dtype=np.float32) for vector in vectors])

    def delete(self, ids: Sequence[str]) -> None:
        if ids:
            with self._use() as collection:
                collection.delete(ids=list(ids))

    def nearest(self, vector: NDArray[np.float32], limit: int) -> list[str]:
        with self._use() as collection:
            return list(collection.query(query_embeddings=[vector], n_results=limit, include=[])["ids"][0])

    def everything(self) -> tuple[list[str], NDArray[np.float32]]:
        """All ids, and their unit vectors as rows."""
        with self._use() as collection:
            found = collection.get(include=["embeddings"])
            return list(found["ids"]), np.asarray(found["embeddings"], dtype=np.float32)

    def keep_in_memory(self) -> None:
        """From the next opening on, Chroma rewrites its files no more."""
        with self._use() as collection:
            collection.modify(configuration={"hnsw": {"sync_threshold": EVERYTHING_IN_MEMORY}})

    def close(self) -> None:
        with self._idle:
            if self._closed:
                return
            self._closed = True
            self._idle.wait_for(lambda: not self._using, timeout=10)
        with suppress(IndexBroken), _chroma():
            self._client.close()


class VectorIndex:
    """Which passages are nearest to a vector. `state` and `progress` (0 to 1) tell what it does; `reason` is why it failed.

    `withheld` is for the time in which SQLite's vectors are of another embedding model than the questions: then nothing is found.
    """

    def __init__(self, folder: Path, database: Database, withheld: bool = False) -> None:
        self.folder = folder
        self.state: State = "opening"
        self.progress = 0.0
        self.reason = ""
        self.withheld = withheld
        self._database = database
        self._current: _Collection | None = None
        self._changed = threading.Condition()
        self._building = threading.Lock()
        self._told: set[str] | None = None
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._failed_at = 0.0
        self._known: _Known | None = None
        self._deferring = False
        if withheld:
            self.state = "rebuilding"
        else:
            self._in_background(self._open)

    # States

    def _in_background(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except _Stopped:
                pass
            except Exception as error:
                # Whatever it is, words still answer, and the state says that vectors do not.
                if not self._closing.is_set():
                    log.warning("The vector index could not be built: %s", error)
                    # Shown on the page, so without the paths that an error of the disk holds.
                    self.reason = getattr(error, "strerror", None) or "the log says why"
                    self._failed_at = time.monotonic()
                    self._now("failed")

        thread = threading.Thread(target=run, name="citewell-vectors", daemon=True)
        self._threads = [one for one in self._threads if one.is_alive()] + [thread]
        thread.start()

    def _now(self, state: State) -> None:
        with self._changed:
            self.state = state
            self._changed.notify_all()

    def wait(self, seconds: float) -> State:
        """Waits until the index is ready or has failed, or the time is over; returns its state."""
        with self._changed:
            self._changed.wait_for(lambda: self.state in ("ready", "failed") or self._closing.is_set(), timeout=seconds)
            return self.state

    def _go_on(self) -> None:
        if self._closing.is_set():
            raise _Stopped

    # Opening

    def _open(self) -> None:
        name = self._database.meta("chroma")
        for leftover in self.folder.glob("chroma-*"):
            if leftover.name != name:
                _delete(leftover)
        folder = self.folder / name if name else None
        if folder is None or not folder.is_dir():
            if self._passages():
                log.warning("The vector index is missing. It is being built from the store.")
            return self._rebuild()
        condition = check_seal(folder / SEAL, _files(folder), self._sealer())
        if condition == "intact":
            trouble = ""
        elif condition == "differs":
            trouble = "its files were changed since they were closed"
        else:
            trouble = probe(folder, self._database.path, PROBE_SECONDS + self._passages() / 1_000, self._closing)
            self._go_on()
        if not trouble or trouble.startswith(BEHIND):
            try:
                if self._connected(folder, trouble):
                    return self.tidy()
                trouble = trouble or "it holds another number of passages than the store"
            except IndexBroken as error:
                self._drop(self._current)
                trouble = str(error)
        log.warning("The vector index cannot be used: %s. It is being rebuilt from the store.", trouble)
        self._rebuild()

    def _connected(self, folder: Path, trouble: str) -> bool:
        """Opens an index; whether it is ready now that it knows what was pending. One that is behind only answers until there is another."""
        current = _Collection(folder)
        current.count()  # reads what was added since it was written, which may take seconds: before writers have to wait
        with self._database.writing:
            self._current = current
            if trouble:
                return False
            self._tell(current)
            if current.count() != self._passages():
                return False
            self.progress = 1.0
            self._now("ready")
            return True

    def _passages(self) -> int:
        return int(self._database.rows("SELECT count(*) FROM passages")[0][0])

    def _drop(self, broken: _Collection | None) -> None:
        with self._changed:
            if broken is not None and self._current is broken:
                self._current = None
        if broken is not None:
            broken.close()

    # Building

    def _rebuild(self) -> None:
        self.progress = 0.0
        self._now("rebuilding")
        self._build()

    def _build(self) -> None:
        """A new index, filled completely, in place of the current one."""
        with self._building:
            numbers = [path.name.rpartition("-")[2] for path in self.folder.glob("chroma-*")]
            folder = self.folder / f"chroma-{max((int(number) for number in numbers if number.isdecimal()), default=0) + 1}"
            made = None
            try:
                made = self._filled(folder)
                with self._database.writing:
                    self._go_on()
                    waiting = {row[0] for row in self._database.rows("SELECT passage_id FROM pending")}
                    self._learn(made, waiting | (self._told or set()))
                    if made.count() != self._passages():
                        raise IndexBroken("a new one does not hold what the store holds")
                    with self._database.transaction() as connection:
                        connection.execute("DELETE FROM pending")
                        set_meta(connection, "chroma", folder.name)
                        set_meta(connection, "written", str(self._passages()))
                    old, self._current = self._current, made
                    self._told, self.progress, self.reason = None, 1.0, ""
                    self._now("ready")
            except BaseException as error:
                self._told = None
                if made is not None:
                    made.close()
                _delete(folder)
                if isinstance(error, OSError):
                    raise IndexBroken(str(error)) from error
                raise
            if old is not None:
                old.close()
            for leftover in self.folder.glob("chroma-*"):
                if leftover != folder:
                    _delete(leftover)

    def _filled(self, folder: Path) -> _Collection:
        """A new index of all passages as they are when it begins; what changes meanwhile gathers in `_told` and `pending`."""
        with self._database.writing:
            self._told = set()
            total = self._passages()
        _delete(folder)
        parts = max(1, round(total / WRITTEN_EVERY))
        made = _Collection(folder, max(STEP, total // parts) if total > UNWRITTEN else EVERYTHING_IN_MEMORY)
        try:
            done = last = 0
            while True:
                self._go_on()
                rows = self._database.rows(
                    "SELECT p.number, p.id, v.vector FROM passages p JOIN vectors v USING (content_key) WHERE p.number > ? ORDER BY p.number LIMIT ?",
                    (last, STEP),
                )
                if not rows:
                    break
                made.add([row[1] for row in rows], [row[2] for row in rows])
                last = rows[-1][0]
                done += len(rows)
                self.progress = min(0.99, done / max(total, 1))
            if total > UNWRITTEN:
                made.keep_in_memory()
                made.close()
                made = _Collection(folder)
            return made
        except BaseException:
            made.close()
            raise

    def tidy(self) -> None:
        """Builds an index anew to which much was added since it was built, or is about to be; the present one answers meanwhile."""
        if self.state != "ready" or self.withheld:
            return
        written, passages = int(self._database.meta("written") or 0), self._passages()
        ((pending,),) = self._database.rows("SELECT count(*) FROM pending")
        if max(passages - written, pending) > max(UNWRITTEN, written // 4):
            try:
                self._build()
            except (IndexBroken, StoreError) as error:
                log.warning("The vector index was not built anew and stays as it is: %s", error)
            except _Stopped:
                return

    # Keeping up

    def catch_up(self) -> None:
        """Tells Chroma everything in `pending` when it is ready; otherwise whoever makes it ready does."""
        with self._database.writing:
            if self._closing.is_set() or self._deferring:
                return
            if self.state == "ready" and self._current is not None:
                try:
                    self._tell(self._current)
                except IndexBroken as error:
                    self._broken(self._current, error)
                except StoreError as error:
                    # The change itself is in the store. That the index knows it could not be noted, and telling it again does no harm.
                    log.warning("%s", error)
            elif self.state == "failed":
                self._retry()

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """Tells Chroma nothing until the end: what it does not know is compared one by one, and where much is new a new index is quicker than telling."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
            self.catch_up()

    def _tell(self, collection: _Collection) -> None:
        """Doing it twice is harmless, so a kill in the middle is too."""
        while ids := [row[0] for row in self._database.rows("SELECT passage_id FROM pending LIMIT ?", (STEP,))]:
            self._learn(collection, ids)
            if self._told is not None:
                self._told.update(ids)
            with self._database.transaction() as connection:
                connection.executemany("DELETE FROM pending WHERE passage_id = ?", [(one,) for one in ids])

    def _learn(self, collection: _Collection, ids: Iterable[str]) -> None:
        for batch, marks in batches(ids):
            known = self._database.rows(f"SELECT p.id, v.vector FROM passages p JOIN vectors v USING (content_key) WHERE p.id IN ({marks})", batch)
            held = collection.held(batch)
            # A passage keeps its words and thereby its vector; writing it anew would loosen it from the graph.
            new = [row for row in known if row[0] not in held]
            collection.add([row[0] for row in new], [row[1] for row in new])
            collection.delete(list(held - {row[0] for row in known}))

    def _broken(self, collection: _Collection, error: IndexBroken) -> None:
        """The index failed while it was in use: it goes, and another is built in the background."""
        with self._changed:
            if self._current is not collection or self.state not in ("ready", "rebuilding"):
                return
            again = self.state == "ready"
            self._current = None
            if again:
                self.progress = 0.0
                self.state = "rebuilding"
        log.warning("The vector index failed: %s. It is being rebuilt from the store.", error)
        collection.close()
        if again:
            self._in_background(self._rebuild)

    def _retry(self) -> None:
        with self._changed:
            if self.state != "failed" or time.monotonic() - self._failed_at < RETRY_SECONDS or self._closing.is_set():
                return
            self.state = "rebuilding"
        self._in_background(self._rebuild)

    # Finding

    def nearest(
        self, vector: NDArray[np.float32], limit: int, document_ids: Sequence[str] | None = None, viewer: str | None = None
    ) -> list[tuple[str, float]]:
        """Passage ids, nearest first, with their cosine similarity to the unit `vector`; nothing while there is no index to ask.

        The similarities are those of SQLite's vectors: of Chroma's files only the choice of passages is believed. With `viewer`, only passages of
        documents that are shared or belong to the user with this id.
        """
        if self.withheld or self._closing.is_set():
            self._database.rows("SELECT 1")
            return []
        if self.state == "failed":
            self._retry()
        passages = self._passages()
        if passages <= COMPARED:
            return self._compare(vector, limit, document_ids, viewer)
        if document_ids is None and viewer is None:
            return self._with_pending(vector, limit)
        chosen = [] if document_ids is None else ["p.document_id IN (SELECT value FROM json_each(?))"]
        values = [*([] if document_ids is None else [json.dumps(list(document_ids))]), *([] if viewer is None else [viewer])]
        within = " AND ".join([*chosen, *([] if viewer is None else [f"p.document_id {SEEN}"])])
        of_those = " AND ".join([*chosen, *([] if viewer is None else [SEEN_EACH])])
        # Counted no further than matters: a user may see nearly all of a large store.
        ((count,),) = self._database.rows(
            f"SELECT count(*) FROM (SELECT 1 FROM passages p WHERE {within} LIMIT ?)", (*values, COMPARED_OF_CHOSEN + 1)
        )
        # Many chosen are a good part of all: enough of them are among somewhat more of the nearest.
        wanted = limit * 4
        while count > COMPARED_OF_CHOSEN and wanted <= max(MOST_ASKED, limit * 4):
            found = self._with_pending(vector, min(wanted, passages), of_those, values)
            if len(found) >= limit or self.state != "ready":
                return found[:limit]
            wanted *= 4
        return self._scan(vector, limit, within, values)

    def answers_meanwhile(self) -> bool:
        """Whether passages are few enough to be compared one by one, so that nobody waits for the index."""
        return self._passages() <= COMPARED

    def _compare(self, vector: NDArray[np.float32], limit: int, document_ids: Sequence[str] | None, viewer: str | None) -> list[tuple[str, float]]:
        """The nearest passages, all compared one by one; their vectors are kept until the store changes."""
        known = self._known
        if known is None or known.changes != self._database.changes:
            changes = self._database.changes
            rows = self._database.rows("SELECT p.id, p.document_id, v.vector FROM passages p JOIN vectors v USING (content_key) ORDER BY p.number")
            known = self._known = _Known(changes, [row[0] for row in rows], [row[1] for row in rows], _matrix([row[2] for row in rows]))
        if not known.ids:
            return []
        scores = known.matrix @ np.asarray(vector, dtype=np.float32)
        if document_ids is not None:
            chosen = set(document_ids)
            scores = np.where([document in chosen for document in known.documents], scores, -np.inf)
        if viewer is not None:
            scores = np.where(self._seen(known, viewer), scores, -np.inf)
        best = np.argsort(-scores, kind="stable")[:limit]
        return [(known.ids[place], float(scores[place])) for place in best if scores[place] > -np.inf]

    def _seen(self, known: _Known, viewer: str) -> NDArray[np.bool_]:
        mask = known.seen.get(viewer)
        if mask is None:
            own = {row[0] for row in self._database.rows("SELECT id FROM documents INDEXED BY documents_of WHERE owner IN ('', ?)", (viewer,))}
            mask = known.seen[viewer] = np.fromiter((document in own for document in known.documents), dtype=np.bool_, count=len(known.documents))
        return mask

    def _with_pending(self, vector: NDArray[np.float32], limit: int, within: str = "1", values: Sequence[Any] = ()) -> list[tuple[str, float]]:
        """What Chroma finds, and what it has not been told of yet, compared one by one."""
        if not self._database.rows("SELECT 1 FROM pending LIMIT 1"):
            return self._asked(vector, limit, within, values)
        # Some of what it finds may be gone already, so more is asked for.
        found = dict(self._asked(vector, limit * 4, within, values))
        found.update(self._scan(vector, limit, f"p.id IN (SELECT passage_id FROM pending) AND {within}", values))
        return sorted(found.items(), key=lambda pair: -pair[1])[:limit]

    def _asked(self, vector: NDArray[np.float32], limit: int, within: str = "1", values: Sequence[Any] = ()) -> list[tuple[str, float]]:
        """What Chroma finds; where it cannot be asked now, after some waiting, or nothing."""
        found = self._ask(vector, limit, within, values)
        if found is None:
            self.wait(OPENING_SECONDS if self.state == "opening" else REBUILDING_SECONDS)
            found = self._ask(vector, limit, within, values)
        return found or []

    def _ask(self, vector: NDArray[np.float32], limit: int, within: str = "1", values: Sequence[Any] = ()) -> list[tuple[str, float]] | None:
        """What Chroma finds, put in order by SQLite's vectors; None when it cannot be asked."""
        current = self._current
        if current is None:
            return None
        try:
            ids = current.nearest(vector, limit)
        except IndexBroken as error:
            if self._current is not current:
                return self._ask(vector, limit, within, values)
            self._broken(current, error)
            return None
        rows = [
            row
            for batch, marks in batches(ids)
            for row in self._database.rows(
                f"SELECT p.id, v.vector FROM passages p JOIN vectors v USING (content_key) WHERE p.id IN ({marks}) AND {within}", [*batch, *values]
            )
        ]
        place = {identifier: number for number, identifier in enumerate(ids)}
        rows.sort(key=lambda row: place[row[0]])
        return _ranked(vector, [row[0] for row in rows], [row[1] for row in rows], limit)

    def _scan(self, vector: NDArray[np.float32], limit: int, within: str, values: Sequence[Any]) -> list[tuple[str, float]]:
        """The nearest of all the passages that the condition chooses, compared one by one."""
        best: list[tuple[str, float]] = []
        last = 0
        while rows := self._database.rows(
            f"SELECT p.number, p.id, v.vector FROM passages p JOIN vectors v USING (content_key) WHERE p.number > ? AND {within} ORDER BY p.number LIMIT ?",
            (last, *values, STEP * 5),
        ):
            last = rows[-1][0]
            best += _ranked(vector, [row[1] for row in rows], [row[2] for row in rows], limit)
            best = sorted(best, key=lambda pair: -pair[1])[:limit]
        return best

    # Closing

    def _sealer(self) -> str:
        """Files that one version of Chroma closed in good order are no promise for the next, nor for a store that has changed since."""
        return f"chromadb {version('chromadb')} after change {self._database.changes}"

    def withhold(self) -> None:
        """From now on nothing is found, until start_again(): the questions' vectors are of another model than the stored ones."""
        self.withheld = True
        self._now("rebuilding")

    def start_again(self) -> None:
        """Builds the index of wholly new vectors."""
        with self._changed:
            old, self._current = self._current, None
            self.withheld = False
            self.progress = 0.0
            self.state = "rebuilding"
        if old is not None:
            old.close()
        self._in_background(self._rebuild)

    def close(self) -> bool:
        """Stops what is under way and closes Chroma; returns whether all of it has ended. What is being built is built anew the next time."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(60)
        ended = not any(thread.is_alive() for thread in self._threads)
        current, self._current = self._current, None
        if current is not None:
            current.close()
            if ended and self.state == "ready":
                with suppress(OSError):
                    write_seal(current.folder / SEAL, _files(current.folder), self._sealer())
        return ended


def _ranked(vector: NDArray[np.float32], ids: Sequence[str], vectors: Sequence[bytes], limit: int) -> list[tuple[str, float]]:
    if not ids:
        return []
    scores = _matrix(vectors) @ np.asarray(vector, dtype=np.float32)
    return [(ids[place], float(scores[place])) for place in np.argsort(-scores, kind="stable")[:limit]]


def _matrix(vectors: Sequence[bytes]) -> NDArray[np.float32]:
    return np.frombuffer(b"".join(vectors), dtype=np.float32).reshape(len(vectors), -1 if vectors else 0)


def _delete(path: Path) -> None:
    """What cannot be deleted now goes at the next opening."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name not in (SEAL, "seal.new")]


# Probing

ITSELF = 0.999
"""A vector's cosine with itself, after rounding."""

BEHIND = "it does not hold the passages that the store holds"


def probe(folder: Path, truth: Path, seconds: float, stop: threading.Event) -> str:
    """Opens an index in a child process and compares it with the store's file; returns what is wrong with it, nothing when it is right.

    A crash, an error, or no answer in time is the trouble that is returned; `stop` ends the child at once.
    """
    here = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))}
    with subprocess.Popen(
        [sys.executable, "-m", "index.vectors", str(folder), str(truth), str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    ) as child:
        end = time.monotonic() + seconds
        while True:
            try:
                # Through communicate() standard input would be closed, which tells the child that its parent has died.
                child.wait(0.05)
                break
            except subprocess.TimeoutExpired:
                if stop.is_set() or time.monotonic() > end:
                    child.kill()
                    child.wait()
                    return f"it did not answer within {seconds:.0f} seconds"
        assert child.stdout is not None
        said = child.stdout.read().decode("utf-8", "replace").strip()
    if child.returncode != 0:
        return f"opening it ended a process with status {child.returncode}"
    return said


def examine(folder: Path, truth: Path) -> str:
    """What is wrong with an index, compared with the store's file; nothing when it is right. In this very process, which Chroma may crash."""
    with closing(sqlite3.connect(f"{truth.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
        stored = dict(connection.execute("SELECT p.id, v.vector FROM passages p JOIN vectors v USING (content_key)"))
        pending = {row[0] for row in connection.execute("SELECT passage_id FROM pending")}
    try:
        with closing(_Collection(folder)) as collection:
            ids, vectors = collection.everything()
            if (stored.keys() ^ set(ids)) - pending:
                return BEHIND
            settled = [number for number, identifier in enumerate(ids) if identifier in stored and identifier not in pending]
            for number in settled:
                if _cosine(vectors[number], stored[ids[number]]) < ITSELF:
                    return "it holds other vectors than the store"
            sample = settled[:: max(1, len(settled) // 50)]
            lost = 0
            for number in sample:
                found = collection.nearest(vectors[number], 3)
                lost += max((_cosine(vectors[number], stored[one]) for one in found if one in stored), default=-1.0) < ITSELF
            # Here and there a vector is out of reach in a graph that is as good as Chroma makes them.
            if lost * 10 > len(sample):
                return "passages do not find themselves in it"
    except IndexBroken as error:
        return f"it cannot be read ({error})"
    return ""


def _cosine(vector: NDArray[np.float32], stored: bytes) -> float:
    other = np.frombuffer(stored, dtype=np.float32)
    if other.shape != vector.shape:
        return -1.0
    return float(vector @ other) / max(float(np.linalg.norm(vector) * np.linalg.norm(other)), 1e-12)


def _main(folder: str, truth: str, seconds: str) -> None:
    # Two ways to end with the parent or in time: a thread, and where Chroma lets no thread run, the system's alarm.
    if hasattr(signal, "alarm"):
        signal.alarm(int(float(seconds)) + 5)
    threading.Thread(target=lambda: (os.read(sys.stdin.fileno(), 1), os._exit(1)), daemon=True).start()
    sys.stdout.write(examine(Path(folder), Path(truth)))
    sys.stdout.flush()
    # Not by way of the interpreter's end, where a broken index might hang after it has answered.
    os._exit(0)


if __name__ == "__main__":
    _main(*sys.argv[1:])
