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

LEAST_THRESHOLD = 3
"""Chroma takes no smaller one."""

WRITTEN_EVERY = 5_000
"""While an index is built, where nobody minds a kill, its files are written every so many vectors: opening those takes milliseconds, not seconds."""

WRITTEN_TIMES = 4
"""But no more often than this in all, as the whole of it is written each time."""

UNWRITTEN = 2_000
"""So many vectors may be added to an index before tidy() builds it anew; reading them on opening takes a second or so."""

MERGED = 20_000
"""A sync that changes so many passages does not end before the index learns of them; until then they are compared one by one."""

MERGED_PART = 16
"""Of a larger index, a part of it, as it is copied each time."""

MERGED_FROM = 20_000
"""An index of fewer passages is built anew in seconds where much was added; of more, what is new is merged into a copy of its files."""

MERGE_SECONDS = 3_600.0

PIECES = 32
"""What is pending is put together again after so many additions."""

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


@dataclass(frozen=True, slots=True)
class _Recent:
    """The passages that the index has still to learn, as they were after so many changes, up to row `last` of them: ids, and vectors in pieces."""

    changes: int
    last: int
    ids: list[str]
    pieces: list[NDArray[np.float32]]


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

    def nearest(self, vectors: NDArray[np.float32], limit: int) -> list[list[str]]:
        """The ids nearest to each row."""
        with self._use() as collection:
            return [list(ids) for ids in collection.query(query_embeddings=list(vectors), n_results=limit, include=[])["ids"]]

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The unit vectors of those of the ids that it holds."""
        with self._use() as collection:
            found = collection.get(ids=list(ids), include=["embeddings"]) if ids else {"ids": [], "embeddings": []}
            return dict(zip(found["ids"], np.asarray(found["embeddings"], dtype=np.float32), strict=True))

    def keep_in_memory(self) -> None:
        """From the next opening on, Chroma rewrites its files no more."""
        self.write_after(EVERYTHING_IN_MEMORY)

    def write_after(self, changes: int) -> None:
        """From the next opening on, Chroma rewrites its files whenever it has been told of so many changes."""
        with self._use() as collection:
            collection.modify(configuration={"hnsw": {"sync_threshold": max(LEAST_THRESHOLD, changes)}})

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
        self._size = (-1, False)
        self._recent: _Recent | None = None
        self._recalling = threading.Lock()
        self._merging = False
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
            if not self._grown():
                self._tell(current)
            if not _holds(current, [row[0] for row in self._database.rows("SELECT passage_id FROM pending")], self._database.rows):
                return False
            self.progress = 1.0
            self._now("ready")
            return True

    def _passages(self) -> int:
        return int(self._database.rows("SELECT count(*) FROM passages")[0][0])

    def _large(self) -> bool:
        """Whether passages are too many to be compared one by one; counted no further, and again only when something has changed."""
        changes, large = self._size
        if changes != self._database.changes or changes < 0:
            changes = self._database.changes
            ((count,),) = self._database.rows("SELECT count(*) FROM (SELECT 1 FROM passages LIMIT ?)", (COMPARED + 1,))
            large = count > COMPARED
            self._size = (changes, large)
        return large

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
            folder = self._next_folder()
            made = None
            try:
                made, left = self._filled(folder)
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
                        set_meta(connection, "unwritten", str(left))
                        set_meta(connection, "buried", "0")
                    self._forget_recent()
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
            self._replaced(old, folder)

    def _next_folder(self) -> Path:
        numbers = [path.name.rpartition("-")[2] for path in self.folder.glob("chroma-*")]
        return self.folder / f"chroma-{max((int(number) for number in numbers if number.isdecimal()), default=0) + 1}"

    def _replaced(self, old: _Collection | None, folder: Path) -> None:
        """Closes what another index took the place of, and deletes all folders but that one's."""
        if old is not None:
            old.close()
        for leftover in self.folder.glob("chroma-*"):
            if leftover != folder:
                _delete(leftover)

    def _filled(self, folder: Path) -> tuple[_Collection, int]:
        """A new index of all passages as they are when it begins, and how many of them its files lack; what changes meanwhile gathers in `_told` and
        `pending`."""
        with self._database.writing:
            self._told = set()
            total = self._passages()
        _delete(folder)
        # All of it is written each time.
        every = max(STEP, total // min(WRITTEN_TIMES, max(1, round(total / WRITTEN_EVERY)))) if total > UNWRITTEN else EVERYTHING_IN_MEMORY
        made = _Collection(folder, every)
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
            return made, done % every
        except BaseException:
            made.close()
            raise

    def tidy(self) -> None:
        """Writes an index anew to which much was added since it was written, or is about to be; the present one answers meanwhile.

        A small one is built anew. Into a copy of a large one what is new is merged, until a third of it is buried under what was deleted.
        """
        if self.state != "ready" or self.withheld:
            return
        written, passages = self._noted("written"), self._passages()
        ((pending,),) = self._database.rows("SELECT count(*) FROM pending")
        # An older version told a large one up to a quarter more, and noted nothing of it.
        unwritten = self._noted("unwritten") or max(0, passages - pending - written)
        much = max(passages - written, pending) > max(UNWRITTEN, written // 4) if not self._grown() else self._noted("buried") > passages // 2
        try:
            if much:
                self._build()
            elif self._grown() and pending + unwritten > UNWRITTEN:
                self._merge()
        except (IndexBroken, StoreError) as error:
            log.warning("The vector index was not written anew and stays as it is: %s", error)
        except _Stopped:
            return

    def _noted(self, key: str) -> int:
        return int(self._database.meta(key) or 0)

    def _grown(self) -> bool:
        """Whether the index is so large that it is told nothing any more: each time it would keep searches waiting for a part of a second, or seconds."""
        return self._noted("written") >= MERGED_FROM

    def _merge(self) -> None:
        """Puts a copy of the current index in its place that has learned what is pending now, and has it in its files.

        A child process makes it, at low priority: searches go on undisturbed in the current one, which is told nothing meanwhile.
        """
        with self._building:
            with self._database.writing:
                self._go_on()
                old = self._current
                ((last,),) = self._database.rows("SELECT max(rowid) FROM pending")
                if old is None:
                    return
                self._merging = True
            folder = self._next_folder()
            made = None
            try:
                _delete(folder)
                make_private_folder(folder)
                unwritten = self._noted("unwritten") or max(0, self._passages() - self._noted("written"))
                values = [str(old.folder), str(folder), str(self._database.path), str(last or 0), str(unwritten)]
                trouble, said = _in_child("merge", values, MERGE_SECONDS, self._closing)
                self._go_on()
                if trouble or not said.startswith("buried "):
                    raise IndexBroken(f"what is new could not be merged into it: {trouble or said}")
                made = _Collection(folder)
                made.count()
                with self._database.writing:
                    self._go_on()
                    if self._current is not old:
                        raise IndexBroken("it broke while what is new was merged into a copy of it")
                    with self._database.transaction() as connection:
                        connection.execute("DELETE FROM pending WHERE rowid <= ?", (last or 0,))
                        set_meta(connection, "chroma", folder.name)
                        set_meta(connection, "written", str(self._passages()))
                        set_meta(connection, "unwritten", "0")
                        set_meta(connection, "buried", str(self._noted("buried") + int(said.removeprefix("buried "))))
                    self._forget_recent()
                    self._current = made
            except BaseException as error:
                if made is not None:
                    made.close()
                _delete(folder)
                if isinstance(error, OSError):
                    raise IndexBroken(str(error)) from error
                raise
            finally:
                self._merging = False
            self._replaced(old, folder)

    def _merge_in_background(self) -> None:
        def work() -> None:
            try:
                self._merge()
            except IndexBroken as error:
                log.warning("%s", error)
                self._failed_at = time.monotonic()

        if self._building.locked() or time.monotonic() - self._failed_at < RETRY_SECONDS:
            return
        self._in_background(work)

    # Keeping up

    def catch_up(self) -> None:
        """Tells Chroma everything in `pending` when it is ready; otherwise whoever makes it ready does."""
        with self._database.writing:
            if self._closing.is_set() or self._merging:
                return
            if self.state == "ready" and self._current is not None and self._grown():
                most = max(MERGED, self._noted("written") // MERGED_PART) if self._deferring else UNWRITTEN
                ((pending,),) = self._database.rows("SELECT count(*) FROM (SELECT 1 FROM pending LIMIT ?)", (most + 1,))
                if pending > most:
                    self._merge_in_background()
                return
            if self._deferring:
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
            buried = self._learn(collection, ids)
            if self._told is not None:
                self._told.update(ids)
            with self._database.transaction() as connection:
                connection.executemany("DELETE FROM pending WHERE passage_id = ?", [(one,) for one in ids])
                set_meta(connection, "unwritten", str(self._noted("unwritten") + len(ids)))
                set_meta(connection, "buried", str(self._noted("buried") + buried))
            self._forget_recent()

    def _learn(self, collection: _Collection, ids: Iterable[str]) -> int:
        return _learned(collection, ids, self._database.rows)

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
        self, vectors: NDArray[np.float32], limit: int, document_ids: Sequence[str] | None = None, viewer: str | None = None
    ) -> list[list[tuple[str, float]]]:
        """For each row of `vectors`: passage ids, nearest first, with their cosine similarity to that unit vector; nothing while there is no index to ask.

        The similarities are those of SQLite's vectors: of Chroma's files only the choice of passages is believed. With `viewer`, only passages of
        documents that are shared or belong to the user with this id.
        """
        if self.withheld or self._closing.is_set():
            self._database.rows("SELECT 1")
            return [[] for _ in vectors]
        if self.state == "failed":
            self._retry()
        if not self._large():
            return self._compare(vectors, limit, document_ids, viewer)
        if document_ids is None and viewer is None:
            return self._with_pending(vectors, limit)
        chosen = [] if document_ids is None else ["p.document_id IN (SELECT value FROM json_each(?))"]
        values = [*([] if document_ids is None else [json.dumps(list(document_ids))]), *([] if viewer is None else [viewer])]
        within = " AND ".join([*chosen, *([] if viewer is None else [f"p.document_id {SEEN}"])])
        of_those = " AND ".join([*chosen, *([] if viewer is None else [SEEN_EACH])])
        many = True
        if document_ids is not None:
            # Counted no further than matters.
            ((count,),) = self._database.rows(
                f"SELECT count(*) FROM (SELECT 1 FROM passages p WHERE {of_those} LIMIT ?)", (*values, COMPARED_OF_CHOSEN + 1)
            )
            many = count > COMPARED_OF_CHOSEN
        # Many chosen are a good part of all, as what a user sees mostly is: enough of them are among somewhat more of the nearest.
        found: dict[int, list[tuple[str, float]]] = {}
        wanted = limit * 4
        while many and wanted <= max(MOST_ASKED, limit * 4) and len(found) < len(vectors):
            rest = [place for place in range(len(vectors)) if place not in found]
            for place, hits in zip(rest, self._with_pending(vectors[rest], wanted, of_those, values), strict=True):
                if len(hits) >= limit or self.state != "ready":
                    found[place] = hits[:limit]
            wanted *= 4
        return [found[place] if place in found else self._scan(vector, limit, within, values) for place, vector in enumerate(vectors)]

    def answers_meanwhile(self) -> bool:
        """Whether passages are few enough to be compared one by one, so that nobody waits for the index."""
        return not self._large()

    def _compare(
        self, vectors: NDArray[np.float32], limit: int, document_ids: Sequence[str] | None, viewer: str | None
    ) -> list[list[tuple[str, float]]]:
        """The nearest passages, all compared one by one."""
        known = self._everything()
        if not known.ids:
            return [[] for _ in vectors]
        scores = np.asarray(vectors, dtype=np.float32) @ known.matrix.T
        if document_ids is not None:
            chosen = set(document_ids)
            scores = np.where([document in chosen for document in known.documents], scores, -np.inf)
        if viewer is not None:
            scores = np.where(self._seen(known, viewer), scores, -np.inf)
        return [[(known.ids[place], float(row[place])) for place in _best(row, limit) if row[place] > -np.inf] for row in scores]

    def _everything(self) -> _Known:
        """All passages with their vectors, kept from question to question; when the store has changed, only what came to it is read."""
        known, changes = self._known, self._database.changes
        if known is not None and known.changes == changes:
            return known
        everything = "SELECT p.id, p.document_id, v.vector FROM passages p JOIN vectors v USING (content_key)"
        there = {row[0] for row in self._database.rows("SELECT id FROM passages")} if known is not None else set()
        if known is None or len(new := there.difference(known.ids)) > len(there) // 2:
            rows, ids, documents, pieces = self._database.rows(f"{everything} ORDER BY p.number"), [], [], []
        else:
            rows = [row for batch, marks in batches(sorted(new)) for row in self._database.rows(f"{everything} WHERE p.id IN ({marks})", batch)]
            kept = [place for place, identifier in enumerate(known.ids) if identifier in there]
            ids, documents, pieces = [known.ids[place] for place in kept], [known.documents[place] for place in kept], [known.matrix[kept]]
        pieces = [piece for piece in (*pieces, _matrix([row[2] for row in rows])) if len(piece)] or [_matrix([])]
        matrix = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        known = self._known = _Known(changes, [*ids, *(row[0] for row in rows)], [*documents, *(row[1] for row in rows)], matrix)
        return known

    def _seen(self, known: _Known, viewer: str) -> NDArray[np.bool_]:
        mask = known.seen.get(viewer)
        if mask is None:
            own = {row[0] for row in self._database.rows("SELECT id FROM documents INDEXED BY documents_of WHERE owner IN ('', ?)", (viewer,))}
            mask = known.seen[viewer] = np.fromiter((document in own for document in known.documents), dtype=np.bool_, count=len(known.documents))
        return mask

    def _with_pending(self, vectors: NDArray[np.float32], limit: int, within: str = "1", values: Sequence[Any] = ()) -> list[list[tuple[str, float]]]:
        """What Chroma finds, and what it has not been told of yet, compared one by one."""
        # Before Chroma is asked: what it is told of between the two is found twice, and not never.
        recent = self._recall()
        if recent is None:
            return self._asked(vectors, limit, within, values)
        # Some of what it finds may be gone already, so more is asked for.
        found = [dict(hits) for hits in self._asked(vectors, limit * 4, within, values)]
        scores = np.concatenate([np.asarray(vectors, dtype=np.float32) @ piece.T for piece in recent.pieces], axis=1)
        there: set[str] = set()
        for most in (limit * 4, len(recent.ids)):
            chosen = [[recent.ids[place] for place in _best(row, most)] for row in scores]
            there |= {
                row[0]
                for batch, marks in batches({identifier for ids in chosen for identifier in ids} - there)
                for row in self._database.rows(f"SELECT p.id FROM passages p WHERE p.id IN ({marks}) AND {within}", [*batch, *values])
            }
            # What a user may not see, or is gone, can stand before what is wanted.
            if most >= len(recent.ids) or all(sum(identifier in there for identifier in ids) >= limit for ids in chosen):
                break
        for hits, row, ids in zip(found, scores, chosen, strict=True):
            hits.update((identifier, float(row[place])) for identifier, place in zip(ids, _best(row, most), strict=True) if identifier in there)
        return [sorted(hits.items(), key=lambda pair: -pair[1])[:limit] for hits in found]

    def _recall(self) -> _Recent | None:
        """What the index has still to learn, None where that is nothing; of what came to it since the last time alone the vectors are read."""
        with self._recalling:
            recent = self._recent
            changes = self._database.changes
            if recent is None or recent.changes != changes or changes < 0:
                ((last,),) = self._database.rows("SELECT max(rowid) FROM pending")
                rows = self._database.rows(
                    "SELECT p.id, v.vector FROM pending n JOIN passages p ON p.id = n.passage_id JOIN vectors v USING (content_key) "
                    "WHERE n.rowid > ? AND n.rowid <= ?",
                    (recent.last if recent else 0, last or 0),
                )
                ids, pieces = (recent.ids, recent.pieces) if recent else ([], [])
                if rows:
                    ids, pieces = [*ids, *(row[0] for row in rows)], [*pieces, _matrix([row[1] for row in rows])]
                if len(pieces) > PIECES:
                    pieces = [np.concatenate(pieces)]
                recent = self._recent = _Recent(changes, last or 0, ids, pieces)
            return recent if recent.ids else None

    def _forget_recent(self) -> None:
        """For whoever takes rows out of `pending`, with the writers' lock held: their numbers are given again."""
        with self._recalling:
            self._recent = None

    def _asked(self, vectors: NDArray[np.float32], limit: int, within: str = "1", values: Sequence[Any] = ()) -> list[list[tuple[str, float]]]:
        """What Chroma finds; where it cannot be asked now, after some waiting, or nothing."""
        found = self._ask(vectors, limit, within, values)
        if found is None:
            self.wait(OPENING_SECONDS if self.state == "opening" else REBUILDING_SECONDS)
            found = self._ask(vectors, limit, within, values)
        return [[] for _ in vectors] if found is None else found

    def _ask(self, vectors: NDArray[np.float32], limit: int, within: str = "1", values: Sequence[Any] = ()) -> list[list[tuple[str, float]]] | None:
        """What Chroma finds, put in order by SQLite's vectors; None when it cannot be asked."""
        current = self._current
        if current is None:
            return None
        try:
            found = current.nearest(vectors, limit)
        except IndexBroken as error:
            if self._current is not current:
                return self._ask(vectors, limit, within, values)
            self._broken(current, error)
            return None
        rows = [
            row
            for batch, marks in batches(dict.fromkeys(identifier for ids in found for identifier in ids))
            for row in self._database.rows(
                f"SELECT p.id, v.vector FROM passages p JOIN vectors v USING (content_key) WHERE p.id IN ({marks}) AND {within}", [*batch, *values]
            )
        ]
        matrix, place = _matrix([row[1] for row in rows]), {row[0]: number for number, row in enumerate(rows)}
        return [
            _ranked(vector, there, matrix[[place[identifier] for identifier in there]], limit)
            for vector, ids in zip(vectors, found, strict=True)
            for there in [[identifier for identifier in ids if identifier in place]]
        ]

    def _scan(self, vector: NDArray[np.float32], limit: int, within: str, values: Sequence[Any]) -> list[tuple[str, float]]:
        """The nearest of all the passages that the condition chooses, compared one by one."""
        best: list[tuple[str, float]] = []
        last = 0
        while rows := self._database.rows(
            f"SELECT p.number, p.id, v.vector FROM passages p JOIN vectors v USING (content_key) WHERE p.number > ? AND {within} ORDER BY p.number LIMIT ?",
            (last, *values, STEP * 5),
        ):
            last = rows[-1][0]
            best += _ranked(vector, [row[1] for row in rows], _matrix([row[2] for row in rows]), limit)
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
        self._forget_recent()
        self._known = None
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


def _ranked(vector: NDArray[np.float32], ids: Sequence[str], matrix: NDArray[np.float32], limit: int) -> list[tuple[str, float]]:
    if not ids:
        return []
    scores = matrix @ np.asarray(vector, dtype=np.float32)
    return [(ids[place], float(scores[place])) for place in _best(scores, limit)]


def _best(scores: NDArray[np.float32], limit: int) -> NDArray[np.intp]:
    """Places of the highest scores, highest first, of equal ones the first first. Of many, only those that come into question are sorted."""
    places = np.arange(len(scores))
    if len(scores) > 4 * limit:
        places = np.flatnonzero(scores >= np.partition(scores, -limit)[-limit])
    return places[np.argsort(-scores[places], kind="stable")[:limit]]


def _matrix(vectors: Sequence[bytes]) -> NDArray[np.float32]:
    return np.frombuffer(b"".join(vectors), dtype=np.float32).reshape(len(vectors), -1 if vectors else 0)


def _learned(collection: _Collection, ids: Iterable[str], rows: Callable[[str, Sequence[Any]], list[Any]]) -> int:
    """Tells a collection what became of passages, as `rows` reads it from the store; returns how many it had to delete."""
    buried = 0
    for batch, marks in batches(ids):
        known = rows(f"SELECT p.id, v.vector FROM passages p JOIN vectors v USING (content_key) WHERE p.id IN ({marks})", batch)
        held = collection.held(batch)
        # A passage keeps its words and thereby its vector; writing it anew would loosen it from the graph.
        new = [row for row in known if row[0] not in held]
        collection.add([row[0] for row in new], [row[1] for row in new])
        dead = held - {row[0] for row in known}
        collection.delete(list(dead))
        buried += len(dead)
    return buried


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
    trouble, said = _in_child("examine", [str(folder), str(truth)], seconds, stop)
    return trouble or said


def _in_child(what: str, values: Sequence[str], seconds: float, stop: threading.Event) -> tuple[str, str]:
    """Runs this module in a child process: what kept it from its end, if anything, and what it said."""
    here = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))}
    with subprocess.Popen(
        [sys.executable, "-m", "index.vectors", str(seconds), what, *values],
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
                    return f"it did not answer within {seconds:.0f} seconds", ""
        assert child.stdout is not None
        said = child.stdout.read().decode("utf-8", "replace").strip()
    return (f"opening it ended a process with status {child.returncode}", "") if child.returncode != 0 else ("", said)


def examine(folder: Path, truth: Path) -> str:
    """What is wrong with an index, compared with the store's file; nothing when it is right. In this very process, which Chroma may crash."""
    with _snapshot(truth) as rows:
        pending = {row[0] for row in rows("SELECT passage_id FROM pending", ())}
        try:
            with closing(_Collection(folder)) as collection:
                if not _holds(collection, sorted(pending), rows):
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
                            nearest = collection.vectors(collection.nearest(held[one][np.newaxis], 3)[0])
                            lost += max((_cosine(vector, stored[one]) for vector in nearest.values()), default=-1.0) < ITSELF
                # Here and there a vector is out of reach in a graph that is as good as Chroma makes them.
                if lost * 10 > asked:
                    return "passages do not find themselves in it"
        except IndexBroken as error:
            return f"it cannot be read ({error})"
    return ""


@contextmanager
def _snapshot(truth: Path) -> Iterator[Callable[[str, Sequence[Any]], list[Any]]]:
    """Reads the store's file as it is at one moment, without ever writing to it."""
    with closing(sqlite3.connect(f"{truth.absolute().as_uri()}?mode=ro", uri=True, timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        yield lambda statement, values: connection.execute(statement, values).fetchall()


def _cosine(vector: NDArray[np.float32], stored: bytes) -> float:
    other = np.frombuffer(stored, dtype=np.float32)
    if other.shape != vector.shape:
        return -1.0
    return float(vector @ other) / max(float(np.linalg.norm(vector) * np.linalg.norm(other)), 1e-12)


# Merging


def merge(source: Path, target: Path, truth: Path, last: int, unwritten: int) -> str:
    """Makes a copy of an index that has learned what is pending up to row `last`, and has all of it in its files; `source` is not being written.

    `unwritten` is how much it was told since it was written. Says "buried" and how many it had to delete, or what is wrong.
    """
    for path in source.rglob("*"):
        if path.is_file() and not path.name.startswith(("chroma.sqlite3", "seal.")):
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / path.relative_to(source))
    with closing(sqlite3.connect(source / "chroma.sqlite3")) as old, closing(sqlite3.connect(target / "chroma.sqlite3")) as new:
        old.backup(new)
    with _snapshot(truth) as rows:
        waiting = [row[0] for row in rows("SELECT passage_id FROM pending WHERE rowid <= ? ORDER BY rowid", (last,))]
        later = [row[0] for row in rows("SELECT passage_id FROM pending WHERE rowid > ?", (last,))]
        try:
            with closing(_Collection(target)) as collection:
                there, held = _there(rows, waiting), _held(collection, waiting)
                # It writes its files when it has been told so much: once, at the end.
                collection.write_after(len(there ^ held))
            buried = 0
            if there ^ held:
                with closing(_Collection(target)) as collection:
                    buried = _learned(collection, waiting, rows)
            if unwritten:
                # What it had read anew on opening counted too, so that it wrote its files too early for the last ones.
                with closing(_Collection(target)) as collection:
                    collection.write_after(1)
                with closing(_Collection(target)) as collection:
                    collection.count()
            with closing(_Collection(target)) as collection:
                collection.keep_in_memory()
                if not _holds(collection, later, rows):
                    return "the copy does not hold what the store holds"
        except IndexBroken as error:
            return f"it cannot be read ({error})"
    return f"buried {buried}"


def _holds(collection: _Collection, pending: Sequence[str], rows: Callable[[str, Sequence[Any]], list[Any]]) -> bool:
    """Whether a collection holds as many passages as the store, those left aside of which it has still to learn."""
    there, held = _there(rows, pending), _held(collection, pending)
    ((passages,),) = rows("SELECT count(*) FROM passages", ())
    return collection.count() == int(passages) - len(there - held) + len(held - there)


def _there(rows: Callable[[str, Sequence[Any]], list[Any]], ids: Sequence[str]) -> set[str]:
    return {row[0] for batch, marks in batches(ids) for row in rows(f"SELECT id FROM passages WHERE id IN ({marks})", batch)}


def _held(collection: _Collection, ids: Sequence[str]) -> set[str]:
    return {identifier for batch, _ in batches(ids) for identifier in collection.held(batch)}


def _main(seconds: str, what: str, *values: str) -> None:
    # Two ways to end with the parent or in time: a thread, and where Chroma lets no thread run, the system's alarm.
    if hasattr(signal, "alarm"):
        signal.alarm(int(float(seconds)) + 5)
    threading.Thread(target=lambda: (os.read(sys.stdin.fileno(), 1), os._exit(1)), daemon=True).start()
    if what == "merge":
        if hasattr(os, "nice"):
            os.nice(10)  # questions come first
        source, target, truth, last, unwritten = values
        said = merge(Path(source), Path(target), Path(truth), int(last), int(unwritten))
    else:
        said = examine(*map(Path, values))
    sys.stdout.write(said)
    sys.stdout.flush()
    # Not by way of the interpreter's end, where a broken index might hang after it has answered.
    os._exit(0)


if __name__ == "__main__":
    _main(*sys.argv[1:])
