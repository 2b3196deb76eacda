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
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
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
"""But no more often than this in all, and once at the end, as the whole of it is written each time."""

UNWRITTEN = 2_000
"""So many vectors may be added to an index before tidy() writes it anew; reading them on opening takes a second or so."""

MERGED = 20_000
"""A sync that changes so many passages does not end before the index learns of them; until then they are compared one by one."""

MERGED_PART = 16
"""Of a larger index, a part of it, as it is copied each time."""

MERGED_FROM = 20_000
"""An index of fewer passages is built anew in seconds where much was added; of more, what is new is merged into a copy of its files."""

FILLED_BESIDE = 20_000
"""An index of more passages is filled by a child process at low priority too: in the server itself it would keep searches waiting for seconds."""

MERGE_SECONDS, FILL_SECONDS_EACH = 3_600.0, 0.05
"""How long a child process may merge; and how much longer it may fill an index, for each passage."""

MERGED_AGAIN, MERGED_AGAIN_AT_MOST = 30.0, 3_600.0
"""Seconds until what could not be merged is tried again, twice as long each time."""

PATIENCE_SECONDS = 6.0
"""How long a patient index stays unopened while nobody waits for it."""

LOOKED_AT = 500
"""How many passages of a large index a search looks at (HNSW's ef_search). docs/benchmarks.md says what it finds of the nearest, and how long it takes."""

STEP = 1_000
"""Vectors told to Chroma at once while building: between two steps it can be stopped."""

COMPARED = 20_000
"""Up to so many passages are compared with a question one by one, which takes milliseconds and misses none. Chroma's graph of a small collection now
and then holds a vector that no search reaches (5 of 150 collections of 60), and is no quicker."""

COMPARED_OF_CHOSEN = 5_000
"""Of a larger store, up to so many passages of chosen documents, or of all that a user sees, are read and compared one by one."""

GONE_LEFT = 0.25
"""However much is gone, an index is first asked for no more than if so much of it were left."""

REACHED = 0.9
"""An index that finds so large a part of all that it holds has no more to find."""

MOST_ASKED = 2_000
"""So many of the nearest are asked for at most to find those of chosen documents among them."""

PROBE_SECONDS = 20.0
OPENING_SECONDS = 10.0
REBUILDING_SECONDS = 3.0
RETRY_SECONDS = 30.0
"""How long: a probe may take (and a second more for every thousand passages); a question waits for an index that opens, or is being rebuilt;
nothing is tried after a failure."""

SEAL = "seal.json"

NO_ROOM = "the disk has no room for a copy of it"

log = logging.getLogger(__name__)


class IndexBroken(StoreError):
    """Chroma failed; SQLite still holds everything, so the answer is to rebuild."""


@dataclass(frozen=True, slots=True)
class _Known:
    """Vectors as rows of a matrix, with their passages' and documents' ids, as they were after so many changes. A row that is not `there` is out of date."""

    changes: int
    ids: list[str]
    documents: list[str]
    matrix: NDArray[np.float32]
    there: NDArray[np.bool_]
    keys: list[bytes] = field(default_factory=list)
    """Of all passages of a small store their content keys, which tell what has changed."""
    seen: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    """By user, which rows they may see."""


@dataclass(frozen=True, slots=True)
class _Recent:
    """What the index has still to learn, up to row `last` of it: each passage's row in `known`, whose matrix is the used part of `room`."""

    known: _Known
    last: int
    place: dict[str, int]
    room: NDArray[np.float32]
    gone: set[str]
    """The passages that went; grown in place, as only their number matters."""


@dataclass(frozen=True, slots=True)
class _Those:
    """Of which passages the nearest are wanted: those that the condition chooses and that are not known to be gone; of as many as are `enough`, nearest
    first, the vectors are read."""

    within: str
    values: Sequence[Any]
    gone: Container[str]
    enough: int


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
                    configuration={"hnsw": {"space": "cosine", "sync_threshold": sync_threshold, "ef_search": LOOKED_AT}},
                )
                known = (self._collection.configuration.get("hnsw") or {}).get("ef_search")
                if known != LOOKED_AT:  # made by an earlier version; from the next opening on
                    self._collection.modify(configuration={"hnsw": {"ef_search": LOOKED_AT}})
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
    """Which passages are nearest to a vector. `state` and `progress` (0 to 1) tell what it does; `reason` is why it failed, `behind` why what is new
    could not be merged into it, empty where it could.

    `withheld` is for the time in which SQLite's vectors are of another embedding model than the questions: then nothing is found. A `patient` one that is not
    needed yet, as all passages are compared, opens some seconds later, or when somebody waits for it: importing Chroma holds up all that a start does.
    """

    def __init__(self, folder: Path, database: Database, withheld: bool = False, patient: bool = False) -> None:
        self.folder = folder
        self.state: State = "opening"
        self.progress = 0.0
        self.reason = ""
        self.behind = ""
        self.withheld = withheld
        self._database = database
        self._current: _Collection | None = None
        self._changed = threading.Condition()
        self._building = threading.Lock()
        self._told: set[str] | None = None
        self._closing = threading.Event()
        self._patient = patient
        self._wanted = threading.Event()
        self._threads: list[threading.Thread] = []
        self._failed_at = 0.0
        self._known: _Known | None = None
        self._size = (-1, False)
        self._many: tuple[int, set[str]] = (-1, set())
        self._recent: _Recent | None = None
        self._recalling = threading.Lock()
        self._deferring = False
        self._refusals = 0
        self._refused_at = 0.0
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
        self._wanted.set()
        with self._changed:
            self._changed.wait_for(lambda: self.state in ("ready", "failed") or self._closing.is_set(), timeout=seconds)
            return self.state

    def _go_on(self) -> None:
        if self._closing.is_set():
            raise _Stopped

    # Opening

    def _open(self) -> None:
        if self._patient and not self._large():
            self._wanted.wait(PATIENCE_SECONDS)
            self._go_on()
        name = self._database.meta("chroma")
        for leftover in self.folder.glob("chroma-*"):
            if leftover.name != name:
                _delete(leftover)
        folder = self.folder / name if name else None
        if folder is None or not folder.is_dir():
            if name and self._passages():  # without a name there was none yet: a patient one, opened after the first documents came
                log.warning("The vector index is missing. It is being built from the store.")
            return self._rebuild()
        if not self._grown() and self._pending_beyond(max(UNWRITTEN, self._noted("written") // 4)):
            # As a first sync leaves it that was killed: telling it all that would take longer, and tidy() would build another nevertheless.
            log.info("Much of the store is new to the vector index. It is being built anew.")
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
                    self.tidy()
                    return self.catch_up()
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
        with self._building:
            self._build()
        if self._pending_beyond(0):  # what came meanwhile was too much to wait for, and nobody else may come back to it
            self.catch_up()

    def _build(self) -> None:
        """A new index, filled completely, in place of the current one. For whoever holds `_building`."""
        folder = self._next_folder()
        made = None
        try:
            with self._database.writing:
                self._told = set()
                ((last,),) = self._database.rows("SELECT coalesce(max(rowid), 0) FROM pending")
            made = self._filled(folder)
            with self._database.writing:
                self._go_on()
                # What came meanwhile it learns too, unless that is so much that writers would wait for it: then it stays pending. Where the index before it
                # was told something meanwhile, rows were taken out, and their numbers tell nothing.
                told = self._told or set()
                later = [row[0] for row in self._database.rows("SELECT passage_id FROM pending WHERE ? OR rowid > ?", (bool(told), last))]
                if told or len(later) <= max(UNWRITTEN, STEP):
                    self._learn(made, {*later, *told})
                    later = []
                if not _holds(made, later, self._database.rows):
                    raise IndexBroken("a new one does not hold what the store holds")
                old = self._put_in_place(made, last if later else None, 0)
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

    def _put_in_place(self, made: _Collection, last: int | None, buried: int) -> _Collection | None:
        """Makes an index the current one that has learned what is pending up to row `last`, or all of it; returns the one before it.

        For whoever holds the writers' lock. Questions find what was pending twice for a moment, and never not at all.
        """
        old, self._current = self._current, made
        try:
            with self._database.transaction() as connection:
                connection.execute("DELETE FROM pending WHERE ?1 IS NULL OR rowid <= ?1", (last,))
                set_meta(connection, "chroma", made.folder.name)
                set_meta(connection, "written", str(self._passages()))
                set_meta(connection, "buried", str(buried))
        except BaseException:
            with self._changed:
                if self._current is made:
                    self._current = old
            raise
        self._forget_recent()
        self.behind, self._refusals = "", 0
        return old

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

    def _filled(self, folder: Path) -> _Collection:
        """A new index of all passages as they are when it begins, in its files if they are many; what changes meanwhile gathers in `_told` and `pending`."""
        total = self._passages()
        _delete(folder)

        def told(done: int) -> None:
            self.progress = min(0.99, done / max(total, 1))

        def step(done: int) -> None:
            self._go_on()
            told(done)

        if total <= FILLED_BESIDE:
            return _filled_here(folder, total, self._database.rows, step)
        trouble, said = _in_child(
            "fill",
            [str(folder), str(self._database.path), str(total)],
            MERGE_SECONDS + FILL_SECONDS_EACH * total,
            self._closing.is_set,
            told,
        )
        self._go_on()
        if trouble or said:
            raise IndexBroken(f"a new one could not be filled: {trouble or said}")
        made = _Collection(folder)
        made.count()  # reads it, before writers have to wait
        return made

    def tidy(self) -> None:
        """Writes an index anew to which much was added since it was written, or is about to be; the present one answers meanwhile.

        A small one is built anew, and one of which a third is buried under what was deleted. Into a copy of a large one what is new is merged.
        """
        if self.state != "ready" or self.withheld:
            return
        try:
            # Counted when nothing else is being made: what is merged now need not be merged again.
            with self._building:
                if self.state != "ready":
                    return
                written, passages = self._noted("written"), self._passages()
                gone = "NOT EXISTS (SELECT 1 FROM passages p WHERE p.id = n.passage_id)"
                ((pending, dead),) = self._database.rows(f"SELECT count(*), coalesce(sum({gone}), 0) FROM pending n")
                # Of a large one, of an older version, that was told up to a quarter more.
                unwritten = max(0, passages - pending - written)
                much = not self._grown() and max(passages - written, pending) > max(UNWRITTEN, written // 4)
                if much or self._noted("buried") + dead > max(UNWRITTEN, passages // 2):
                    self._build()
                elif self._grown() and pending + unwritten > UNWRITTEN:
                    self._merge()
        except StoreError as error:
            log.warning("The vector index was not written anew and stays as it is: %s", error)
        except _Stopped:
            return

    def _noted(self, key: str) -> int:
        return int(self._database.meta(key) or 0)

    def _grown(self) -> bool:
        """Whether the index is so large that it is told nothing any more: each time it would keep searches waiting for a part of a second, or seconds."""
        return self._noted("written") >= MERGED_FROM

    def _merge(self) -> None:
        """Puts a copy of the current index in its place that has learned what is pending now, and has it in its files. For whoever holds `_building`.

        A child process makes it, at low priority: searches go on undisturbed in the current one, which is told nothing meanwhile.
        """
        with self._database.writing:
            self._go_on()
            old = self._current
            ((last,),) = self._database.rows("SELECT max(rowid) FROM pending")
        if old is None:
            return
        made = folder = None
        try:
            if shutil.disk_usage(self.folder).free < sum(path.stat().st_size for path in _files(old.folder)):
                raise IndexBroken(NO_ROOM)
            folder = self._next_folder()
            _delete(folder)
            make_private_folder(folder)
            trouble, said = _in_child(
                "merge",
                [str(old.folder), str(folder), str(self._database.path), str(last or 0)],
                MERGE_SECONDS,
                lambda: self._closing.is_set() or self._current is not old,
            )
            self._go_on()
            if trouble or not said.startswith("buried "):
                raise IndexBroken(f"what is new could not be merged into it: {trouble or said}")
            made = _Collection(folder)
            made.count()
            with self._database.writing:
                self._go_on()
                if self._current is not old:
                    raise IndexBroken("it broke while what is new was merged into a copy of it")
                self._put_in_place(made, last or 0, self._noted("buried") + int(said.removeprefix("buried ")))
        except BaseException as error:
            if made is not None:
                made.close()
            if folder is not None:
                _delete(folder)
            if isinstance(error, (OSError, StoreError)) and self._current is old:
                self._refusals += 1
                self._refused_at = time.monotonic()
                self.behind = NO_ROOM if NO_ROOM in str(error) else "the log says why"
            if isinstance(error, OSError):
                raise IndexBroken(str(error)) from error
            raise
        self._replaced(old, folder)

    def _merge_in_background(self, most: int) -> None:
        """Merges where more than `most` is pending, unless that failed a short while ago."""

        def work() -> None:
            try:
                with self._building:
                    # What was under way until now may have been just that.
                    if self.state == "ready" and self._grown() and self._pending_beyond(most):
                        self._merge()
                # What came meanwhile nobody else may look at for a long time.
                self.catch_up()
            except StoreError as error:
                log.warning("The vector index stays as it is: %s", error)

        if not self._building.locked() and self._may_try_again():
            self._in_background(work)

    def _build_in_background(self) -> None:
        """Builds an index of a store that has none to speak of, while a sync adds to it: what it has not learned is compared with each question."""

        def work() -> None:
            try:
                with self._building:
                    if self.state == "ready" and not self._grown() and self._pending_beyond(MERGED):
                        self._build()
                self.catch_up()
            except (OSError, StoreError) as error:
                self._refusals += 1
                self._refused_at = time.monotonic()
                log.warning("The vector index stays as it is: %s", error)

        if not self._building.locked() and self._may_try_again():
            self._in_background(work)

    def _may_try_again(self) -> bool:
        """Whether what failed the last time has waited long enough."""
        wait = min(MERGED_AGAIN_AT_MOST, MERGED_AGAIN * 2 ** min(self._refusals - 1, 10)) if self._refusals else 0.0
        return time.monotonic() - self._refused_at >= wait

    def _pending_beyond(self, most: int) -> bool:
        ((pending,),) = self._database.rows("SELECT count(*) FROM (SELECT 1 FROM pending LIMIT ?)", (most + 1,))
        return int(pending) > most

    # Keeping up

    def catch_up(self) -> None:
        """Tells Chroma everything in `pending` when it is ready; otherwise whoever makes it ready does. A large index is told nothing: what is new is
        merged into a copy of it when it is enough."""
        with self._database.writing:
            if self._closing.is_set():
                return
            if self.state == "ready" and self._current is not None and self._grown():
                most = max(MERGED, self._noted("written") // MERGED_PART) if self._deferring else UNWRITTEN
                if self._pending_beyond(most):
                    self._merge_in_background(most)
                return
            if self._deferring:
                if self.state == "ready" and self._pending_beyond(MERGED):
                    self._build_in_background()
                return
            if self._building.locked() and self._pending_beyond(MERGED):
                return  # to tell both would be much; whoever builds comes back here
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
            return self._compare(self._everything(), vectors, limit, document_ids, viewer)
        few = self.few(document_ids, viewer)
        if few is not None:
            return self._compare(self._read(few), vectors, limit, document_ids, viewer)
        chosen = [] if document_ids is None else ["p.document_id IN (SELECT value FROM json_each(?))"]
        values = [*([] if document_ids is None else [json.dumps(list(document_ids))]), *([] if viewer is None else [viewer])]
        within = " AND ".join([*chosen, *([] if viewer is None else [f"p.document_id {SEEN}"])]) or "1"
        # Before Chroma is asked: what it is told of between the two is found twice, and not never.
        recent = self._recall()
        found = [dict(hits) for hits in self._compare(recent.known, vectors, limit, document_ids, viewer)]
        # Of what Chroma finds some may be gone, or somebody else's: then it is asked for more. Many are a good part of all, so that mostly suffices.
        wanted = limit if recent.last == 0 and within == "1" else limit + limit // 4 + 1
        if recent.gone:  # where half of all are, half of what is near is: to ask for twice as much costs less than to ask twice
            wanted = int(wanted / max(GONE_LEFT, 1 - len(recent.gone) / max(1, self._noted("written"))))
        most = max(MOST_ASKED, limit * 4)
        each = " AND ".join([*chosen, *([] if viewer is None else [SEEN_EACH])]) or "1"
        those = _Those(each, values, recent.gone, most if within != "1" else limit + limit // 4 + 1)
        rest = list(range(len(vectors)))
        while rest:
            asked = self._asked(vectors[rest], wanted, those)
            if asked is None:
                rest = []
                break
            for place, (hits, _) in zip(rest, asked, strict=True):
                found[place].update(hits)
            # What it was not asked for is no nearer than the last that it found; where it has no more, there is nothing that was not asked for.
            rest = [
                place
                for place, (hits, more) in zip(rest, asked, strict=True)
                if more and (not hits or sum(cosine >= hits[-1][1] for cosine in found[place].values()) < limit)
            ]
            if wanted >= most:
                break
            wanted = min(wanted * 4, most)
        for place, hits in zip(rest, self._scan(vectors[rest], limit, within, values) if rest else [], strict=True):
            found[place] = dict(hits)
        return [sorted(hits.items(), key=lambda pair: -pair[1])[:limit] for hits in found]

    def few(self, document_ids: Sequence[str] | None, viewer: str | None) -> list[int] | None:
        """The numbers of the passages of chosen documents, or of all that a user sees; None where they are more than COMPARED_OF_CHOSEN, or all are meant."""
        if document_ids is None and viewer is None:
            return None
        changes, many = self._many
        if changes != self._database.changes:
            changes, many = self._many = (self._database.changes, set())
        if viewer is not None and document_ids is None and viewer in many:
            return None
        tables, conditions, values = ["passages p"], [], []
        if viewer is not None:
            tables.insert(0, "documents s INDEXED BY documents_of")
            conditions, values = ["p.document_id = s.id", "s.owner IN ('', ?)"], [viewer]
        if document_ids is not None:
            tables.insert(0, "(SELECT DISTINCT value FROM json_each(?)) c")
            conditions, values = (
                [f"{'p.document_id' if viewer is None else 's.id'} = c.value", *conditions],
                [json.dumps(list(document_ids)), *values],
            )
        rows = self._database.rows(
            f"SELECT p.number FROM {' CROSS JOIN '.join(tables)} WHERE {' AND '.join(conditions)} LIMIT ?", (*values, COMPARED_OF_CHOSEN + 1)
        )
        if len(rows) <= COMPARED_OF_CHOSEN:
            return [row[0] for row in rows]
        if viewer is not None and document_ids is None:
            many.add(viewer)
        return None

    def answers_meanwhile(self) -> bool:
        """Whether passages are few enough to be compared one by one, so that nobody waits for the index."""
        return not self._large()

    def _compare(
        self, known: _Known, vectors: NDArray[np.float32], limit: int, document_ids: Sequence[str] | None, viewer: str | None
    ) -> list[list[tuple[str, float]]]:
        """The nearest of passages that are compared one by one."""
        if not known.ids:
            return [[] for _ in vectors]
        there = known.there
        if document_ids is not None:
            chosen = set(document_ids)
            there = there & np.fromiter((document in chosen for document in known.documents), dtype=np.bool_, count=len(known.documents))
        if viewer is not None:
            there = there & self._seen(known, viewer)
        scores = np.asarray(vectors, dtype=np.float32) @ known.matrix.T
        if not there.all():
            scores = np.where(there, scores, -np.inf)
        return [[(known.ids[place], float(row[place])) for place in _best(row, limit) if row[place] > -np.inf] for row in scores]

    def _read(self, numbers: Sequence[int]) -> _Known:
        """The passages with these numbers. A number may be another document's by now, so it is still to be asked which of them a user may see."""
        found = [
            row
            for batch, marks in batches(numbers)
            for row in self._database.rows(
                f"SELECT p.id, p.document_id, v.vector FROM passages p JOIN vectors v USING (content_key) WHERE p.number IN ({marks})", batch
            )
        ]
        return _Known(
            -1, [row[0] for row in found], [row[1] for row in found], _matrix([row[2] for row in found]), np.ones(len(found), dtype=np.bool_)
        )

    def _everything(self) -> _Known:
        """All passages with their vectors, kept from question to question; when the store has changed, only what came to it is read."""
        known, changes = self._known, self._database.changes
        if known is not None and known.changes == changes:
            return known
        everything = "SELECT p.id, p.document_id, p.content_key, v.vector FROM passages p JOIN vectors v USING (content_key)"
        # A passage of the same words has another vector where title or heading is another: the key tells.
        there = {(row[0], row[1]) for row in self._database.rows("SELECT id, content_key FROM passages")} if known is not None else set()
        before = list(zip(known.ids, known.keys, strict=True)) if known is not None else []
        if known is None or len(new := there.difference(before)) > len(there) // 2:
            rows, ids, documents, keys, pieces = self._database.rows(f"{everything} ORDER BY p.number"), [], [], [], []
        else:
            rows = [
                row
                for batch, marks in batches(sorted(identifier for identifier, _ in new))
                for row in self._database.rows(f"{everything} WHERE p.id IN ({marks})", batch)
            ]
            kept = [place for place, one in enumerate(before) if one in there]
            ids, documents, keys = (
                [known.ids[place] for place in kept],
                [known.documents[place] for place in kept],
                [known.keys[place] for place in kept],
            )
            pieces = [known.matrix[kept]]
        pieces = [piece for piece in (*pieces, _matrix([row[3] for row in rows])) if len(piece)] or [_matrix([])]
        matrix = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        ids, documents, keys = [*ids, *(row[0] for row in rows)], [*documents, *(row[1] for row in rows)], [*keys, *(row[2] for row in rows)]
        known = self._known = _Known(changes, ids, documents, matrix, np.ones(len(ids), dtype=np.bool_), keys)
        return known

    def _seen(self, known: _Known, viewer: str) -> NDArray[np.bool_]:
        mask = known.seen.get(viewer)
        if mask is None:
            own = {
                row[0]
                for batch, marks in batches(dict.fromkeys(known.documents))
                for row in self._database.rows(
                    f"SELECT id FROM documents INDEXED BY documents_of WHERE owner IN ('', ?) AND id IN ({marks})", [viewer, *batch]
                )
            }
            mask = known.seen[viewer] = np.fromiter((document in own for document in known.documents), dtype=np.bool_, count=len(known.documents))
        return mask

    def _recall(self) -> _Recent:
        """What the index has still to learn; of what came to it since the last time alone the vectors are read."""
        with self._recalling:
            recent, changes = self._recent, self._database.changes
            if recent is not None and recent.known.changes == changes:
                return recent
            if recent is None or len(recent.known.ids) > 2 * len(recent.place) + STEP:
                nothing = np.zeros(0, dtype=np.bool_)
                recent = _Recent(_Known(changes, [], [], _matrix([]), nothing), 0, {}, _matrix([]), set())
            ((last,),) = self._database.rows("SELECT coalesce(max(rowid), 0) FROM pending")
            rows = self._database.rows(
                "SELECT n.passage_id, p.document_id, v.vector FROM pending n LEFT JOIN passages p ON p.id = n.passage_id "
                "LEFT JOIN vectors v ON v.content_key = p.content_key WHERE n.rowid > ? AND n.rowid <= ?",
                (recent.last, last),
            )
            new = [row for row in rows if row[2] is not None]
            recent.gone.update(row[0] for row in rows if row[2] is None)
            recent.gone.difference_update(row[0] for row in new)
            before, used = recent.known, len(recent.known.ids)
            there = np.concatenate([before.there, np.ones(len(new), dtype=np.bool_)])
            place = dict(recent.place)
            # A passage that comes again comes last, and with another vector it may be, or it is gone.
            there[[place.pop(row[0]) for row in rows if row[0] in place]] = False
            place.update((row[0], used + number) for number, row in enumerate(new))
            room = recent.room
            if new:
                added = _matrix([row[2] for row in new])
                if used + len(new) > len(room):
                    room = np.empty((max(2 * len(room), used + len(new)), added.shape[1]), dtype=np.float32)
                    if used:
                        room[:used] = before.matrix
                room[used : used + len(new)] = added
            ids, documents = [*before.ids, *(row[0] for row in new)], [*before.documents, *(row[1] for row in new)]
            recent = self._recent = _Recent(_Known(changes, ids, documents, room[: len(ids)], there), last, place, room, recent.gone)
            return recent

    def _forget_recent(self) -> None:
        """For whoever takes rows out of `pending`, with the writers' lock held: their numbers are given again."""
        with self._recalling:
            self._recent = None

    def _asked(self, vectors: NDArray[np.float32], wanted: int, those: _Those) -> list[tuple[list[tuple[str, float]], bool]] | None:
        """What Chroma finds, and whether it has more; where it cannot be asked now, after some waiting, or None."""
        found = self._ask(vectors, wanted, those)
        if found is None:
            self.wait(OPENING_SECONDS if self.state == "opening" else REBUILDING_SECONDS)
            found = self._ask(vectors, wanted, those)
        return found

    def _ask(self, vectors: NDArray[np.float32], wanted: int, those: _Those) -> list[tuple[list[tuple[str, float]], bool]] | None:
        """What Chroma finds, put in order by SQLite's vectors, and whether it has more; None when it cannot be asked."""
        current = self._current
        if current is None:
            return None
        try:
            found = current.nearest(vectors, wanted)
        except IndexBroken as error:
            if self._current is not current:
                return self._ask(vectors, wanted, those)
            self._broken(current, error)
            return None
        # Fewer than were asked for are all that there are, unless its graph has lost its way to more than here and there one.
        held = REACHED * self._noted("written") if any(len(ids) < wanted for ids in found) else 0
        near = [[identifier for identifier in ids if identifier not in those.gone][: those.enough] for ids in found]
        rows = [
            row
            for batch, marks in batches(dict.fromkeys(identifier for ids in near for identifier in ids))
            for row in self._database.rows(
                f"SELECT p.id, v.vector FROM passages p JOIN vectors v USING (content_key) WHERE p.id IN ({marks}) AND {those.within}",
                [*batch, *those.values],
            )
        ]
        matrix, place = _matrix([row[1] for row in rows]), {row[0]: number for number, row in enumerate(rows)}
        return [
            (_ranked(vector, there, matrix[[place[identifier] for identifier in there]], wanted), len(ids) == wanted or len(ids) < held)
            for vector, ids, alive in zip(vectors, found, near, strict=True)
            for there in [[identifier for identifier in alive if identifier in place]]
        ]

    def _scan(self, vectors: NDArray[np.float32], limit: int, within: str, values: Sequence[Any]) -> list[list[tuple[str, float]]]:
        """The nearest of all the passages that the condition chooses, compared one by one."""
        best: list[list[tuple[str, float]]] = [[] for _ in vectors]
        last = 0
        while rows := self._database.rows(
            f"SELECT p.number, p.id, v.vector FROM passages p JOIN vectors v USING (content_key) WHERE p.number > ? AND {within} ORDER BY p.number LIMIT ?",
            (last, *values, STEP * 5),
        ):
            last = rows[-1][0]
            ids, matrix = [row[1] for row in rows], _matrix([row[2] for row in rows])
            best = [
                sorted([*before, *_ranked(vector, ids, matrix, limit)], key=lambda pair: -pair[1])[:limit]
                for before, vector in zip(best, vectors, strict=True)
            ]
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
        self._forget_recent()
        self._known = None
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
        self._wanted.set()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(60)
        ended = not any(thread.is_alive() for thread in self._threads)
        # What another thread has merged is put in place before this, or not at all.
        with self._database.writing:
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
        known = dict(rows(f"SELECT p.id, v.vector FROM passages p JOIN vectors v USING (content_key) WHERE p.id IN ({marks})", batch))
        held = collection.vectors(batch)
        # Writing a vector anew would loosen it from the graph, so it stays; but under another title or heading the same words have another one.
        dead = {one for one, vector in held.items() if one not in known or _cosine(vector, known[one]) < ITSELF}
        new = [one for one in known if one not in held or one in dead]
        collection.delete(list(dead))
        collection.add(new, [known[one] for one in new])
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


# Filling


def _filled_here(folder: Path, total: int, rows: Callable[[str, Sequence[Any]], list[Any]], told: Callable[[int], None]) -> _Collection:
    """A new index of all passages, some `total`, made in this very process, in its files if they are many; says how many it has after each step."""
    # In whole steps, after which alone Chroma looks whether it is time to write.
    parts = min(WRITTEN_TIMES, max(1, round(total / WRITTEN_EVERY)))
    made = _Collection(folder, max(STEP, total // parts // STEP * STEP) if total > UNWRITTEN else EVERYTHING_IN_MEMORY)
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
            _write_out(made)
            made = _Collection(folder)
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
            _filled_here(folder, total, rows, lambda done: print(f"{DONE}{done}", flush=True)).close()
    except (IndexBroken, OSError, sqlite3.Error) as error:
        return str(error)
    return ""


# Probing

ITSELF = 0.999
"""A vector's cosine with itself, after rounding."""

BEHIND = "it does not hold the passages that the store holds"


def probe(folder: Path, truth: Path, seconds: float, stop: threading.Event) -> str:
    """Opens an index in a child process and compares it with the store's file; returns what is wrong with it, nothing when it is right.

    A crash, an error, or no answer in time is the trouble that is returned; `stop` ends the child at once.
    """
    trouble, said = _in_child("examine", [str(folder), str(truth)], seconds, stop.is_set)
    return trouble or said


DONE = "done "
"""How a line begins that tells how far a child process is."""


def _in_child(
    what: str, values: Sequence[str], seconds: float, unwanted: Callable[[], bool], told: Callable[[int], None] = lambda done: None
) -> tuple[str, str]:
    """Runs this module in a child process, until it is unwanted: what kept it from its end, if anything, and what it said. `told` hears how far it is."""
    here = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))}
    with subprocess.Popen(
        [sys.executable, "-m", "index.vectors", str(seconds), what, *values],
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
def _reading(truth: Path) -> Iterator[Callable[[str, Sequence[Any]], list[Any]]]:
    """Reads the store's file, without ever writing to it."""
    with closing(sqlite3.connect(f"{truth.absolute().as_uri()}?mode=ro", uri=True, timeout=30, isolation_level=None)) as connection:
        yield lambda statement, values: connection.execute(statement, values).fetchall()


@contextmanager
def _snapshot(truth: Path) -> Iterator[Callable[[str, Sequence[Any]], list[Any]]]:
    """Reads the store's file as it is at one moment."""
    with _reading(truth) as rows:
        rows("BEGIN", ())
        yield rows


def _cosine(vector: NDArray[np.float32], stored: bytes) -> float:
    other = np.frombuffer(stored, dtype=np.float32)
    if other.shape != vector.shape:
        return -1.0
    return float(vector @ other) / max(float(np.linalg.norm(vector) * np.linalg.norm(other)), 1e-12)


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
            with closing(_Collection(target)) as collection:
                buried = _learned(collection, waiting, rows)
                _write_out(collection)
            with closing(_Collection(target)) as collection:
                if not _holds(collection, later, rows):
                    return "the copy does not hold what the store holds"
    except (IndexBroken, OSError, sqlite3.Error) as error:
        return f"it cannot be copied ({error})"
    return f"buried {buried}"


def _write_out(collection: _Collection) -> None:
    """Closes an index, and has it write into its files what they lack: reading that anew on each opening would take as long as adding it."""
    collection.write_after(1)
    collection.close()
    with closing(_Collection(collection.folder)) as again:
        again.count()
        again.keep_in_memory()


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
