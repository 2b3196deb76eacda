"""The index of vectors: Chroma, derived from the vectors in SQLite and rebuilt from them whenever it cannot be trusted.

A kill can leave Chroma's files so that opening them crashes the process, and damage to them shows in no error. So an index that was not closed in
good order is compared with SQLite in a child process first (index_worker.py). Building, opening and comparing happen in a background thread, and a new index
is filled completely before one transaction names it the current one.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from index import index_worker
from index.collection import SEAL, Collection, IndexBroken, delete, files
from index.compare import ROUNDED, ExactSearch, ranked, stacked
from index.database import Database, batches
from index.errors import StoreError
from index.index_worker import BEHIND, filled_here, holds, in_child, learned, probe
from index.schema import SEEN, SEEN_EACH, set_meta
from index.seal import check_seal, make_private_folder, write_seal
from index.threads import searched_lately

if TYPE_CHECKING:
    from numpy.typing import NDArray

State = Literal["opening", "ready", "rebuilding", "failed"]

MERGED = 20_000
"""Of a large store, a sync that changes so many passages does not end before the index learns of them; until then they are compared one by one."""

MERGED_PART = 32
"""Of a larger index, this part of it, as it is copied each time."""

PACE = 256
"""So many passages a second a sync may change at least, even while an index is being made and more is new than it may be: more than two cores embed. What comes faster, having been embedded
before or on a GPU, slows down every search, which compares it one by one until the index has learned it."""

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

GONE_LEFT = 0.25
"""However much is gone, an index is first asked for no more than if so much of it were left."""

REACHED = 0.9
"""An index that finds so large a part of all that it holds has no more to find."""

MOST_ASKED = 2_000
"""So many of the nearest are asked for at most to find those of chosen documents among them."""

LEARNING_SECONDS = 60.0
"""How long closing waits for what the index of a small store is learning, some 14 seconds of the largest."""

PROBE_SECONDS = 20.0
OPENING_SECONDS = 10.0
REBUILDING_SECONDS = 3.0
RETRY_SECONDS = 30.0
"""How long: a probe may take (and a second more for every thousand passages); a question waits for an index that opens, or is being rebuilt;
nothing is tried after a failure."""

NO_ROOM = "the disk has no room for a copy of it"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Those:
    """Of which passages the nearest are wanted: those that the condition chooses and that are not known to be gone; of as many as are `enough`, nearest
    first, the vectors are read, and of none that is less similar than `at_least` by what Chroma says."""

    within: str
    values: Sequence[Any]
    gone: Container[str]
    enough: int
    at_least: float


class _Stopped(Exception):
    """The store is being closed."""


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
        self._current: Collection | None = None
        self._changed = threading.Condition()
        self._building = threading.Lock()
        self._told: set[str] | None = None
        self._closing = threading.Event()
        self._patient = patient
        self._wanted = threading.Event()
        self._threads: list[threading.Thread] = []
        self._learning: threading.Thread | None = None
        self._failed_at = 0.0
        self.exact = ExactSearch(database)
        self._deferring = 0
        self._refusals = 0
        self._refused_at = 0.0
        if withheld:
            self.state = "rebuilding"
        else:
            self._in_background(self._open)

    # States

    def _in_background(self, work: Callable[[], None]) -> threading.Thread:
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
        return thread

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
        if self._patient and not self.exact.large():
            self._wanted.wait(PATIENCE_SECONDS)
            self._go_on()
        name = self._database.meta("chroma")
        for leftover in self.folder.glob("chroma-*"):
            if leftover.name != name:
                delete(leftover)
        folder = self.folder / name if name else None
        if folder is None or not folder.is_dir():
            if name and self._passages():  # without a name there was none yet: a patient one, opened after the first documents came
                log.warning("The vector index is missing. It is being built from the store.")
            return self._rebuild()
        if not self._grown() and self._pending_beyond(max(index_worker.UNWRITTEN, self._noted("written") // 4)):
            # As a first sync leaves it that was killed: telling it all that would take longer, and tidy() would build another nevertheless.
            log.info("Much of the store is new to the vector index. It is being built anew.")
            return self._rebuild()
        condition = check_seal(folder / SEAL, files(folder), self._sealer())
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
                    self.catch_up()
                    return
                trouble = trouble or "it holds another number of passages than the store"
            except IndexBroken as error:
                self._drop(self._current)
                trouble = str(error)
        log.warning("The vector index cannot be used: %s. It is being rebuilt from the store.", trouble)
        self._rebuild()

    def _connected(self, folder: Path, trouble: str) -> bool:
        """Opens an index; whether it is ready now that it knows what was pending. One that is behind only answers until there is another."""
        current = Collection(folder)
        current.load()  # before writers have to wait
        with self._database.writing:
            self._current = current
            if trouble:
                return False
            if not self._grown():
                self._tell(current)
            if not holds(current, [row[0] for row in self._database.rows("SELECT passage_id FROM pending")], self._database.rows):
                return False
            self.progress = 1.0
            self._now("ready")
            return True

    def _passages(self) -> int:
        return int(self._database.rows("SELECT count(*) FROM passages")[0][0])

    def _drop(self, broken: Collection | None) -> None:
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
                if told or len(later) <= max(index_worker.UNWRITTEN, index_worker.STEP):
                    learned(made, {*later, *told}, self._database.rows)
                    later = []
                if not holds(made, later, self._database.rows):
                    raise IndexBroken("a new one does not hold what the store holds")
                old = self._put_in_place(made, last if later else None, 0)
                self._told, self.progress, self.reason = None, 1.0, ""
                self._now("ready")
        except BaseException as error:
            self._told = None
            if made is not None:
                made.close()
            delete(folder)
            if isinstance(error, OSError):
                raise IndexBroken(str(error)) from error
            raise
        self._replaced(old, folder)

    def _put_in_place(self, made: Collection, last: int | None, buried: int) -> Collection | None:
        """Makes an index the current one that has learned what is pending up to row `last`, or all of it; returns the one before it.

        For whoever holds the writers' lock. Questions find what was pending twice for a moment, and never not at all.
        """
        old, self._current = self._current, made
        try:
            taken, passages = "FROM pending WHERE ?1 IS NULL OR rowid <= ?1", self._passages()
            ids = {row[0] for row in self._database.rows(f"SELECT passage_id {taken}", (last,))}
            with self.exact.taken_out(ids), self._database.transaction() as connection:
                connection.execute(f"DELETE {taken}", (last,))
                set_meta(connection, "chroma", made.folder.name)
                set_meta(connection, "written", str(passages))
                set_meta(connection, "buried", str(buried))
        except BaseException:
            with self._changed:
                if self._current is made:
                    self._current = old
            raise
        self.behind, self._refusals = "", 0
        return old

    def _next_folder(self) -> Path:
        numbers = [path.name.rpartition("-")[2] for path in self.folder.glob("chroma-*")]
        return self.folder / f"chroma-{max((int(number) for number in numbers if number.isdecimal()), default=0) + 1}"

    def _replaced(self, old: Collection | None, folder: Path) -> None:
        """Closes what another index took the place of, and deletes all folders but that one's."""
        if old is not None:
            old.close()
        for leftover in self.folder.glob("chroma-*"):
            if leftover != folder:
                delete(leftover)

    def _filled(self, folder: Path) -> Collection:
        """A new index of all passages as they are when it begins, in its files if they are many; what changes meanwhile gathers in `_told` and `pending`."""
        total = self._passages()
        delete(folder)

        def told(done: int) -> None:
            self.progress = min(0.99, done / max(total, 1))

        def step(done: int) -> None:
            self._go_on()
            told(done)

        if total <= FILLED_BESIDE:
            return filled_here(folder, total, self._database.rows, step)
        trouble, said = in_child(
            "fill",
            [str(folder), str(self._database.path), str(total)],
            MERGE_SECONDS + FILL_SECONDS_EACH * total,
            self._closing.is_set,
            told,
        )
        self._go_on()
        if trouble or said:
            raise IndexBroken(f"a new one could not be filled: {trouble or said}")
        made = Collection(folder)
        made.load()  # before writers have to wait
        return made

    def tidy(self) -> None:
        """Writes an index anew to which much was added since it was written, or is about to be; the present one answers meanwhile. Of a small store not
        before a sync has ended.

        A small one is built anew, and one of which a third is buried under what was deleted. Into a copy of a large one what is new is merged.
        """
        if self.state != "ready" or self.withheld or (self._deferring and not self.exact.large()):
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
                much = not self._grown() and max(passages - written, pending) > max(index_worker.UNWRITTEN, written // 4)
                if much or self._noted("buried") + dead > max(index_worker.UNWRITTEN, passages // 2):
                    self._build()
                elif self._grown() and pending + unwritten > index_worker.UNWRITTEN:
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
            if shutil.disk_usage(self.folder).free < sum(path.stat().st_size for path in files(old.folder)):
                raise IndexBroken(NO_ROOM)
            folder = self._next_folder()
            delete(folder)
            make_private_folder(folder)
            trouble, said = in_child(
                "merge",
                [str(old.folder), str(folder), str(self._database.path), str(last or 0)],
                MERGE_SECONDS,
                lambda: self._closing.is_set() or self._current is not old,
            )
            self._go_on()
            if trouble or not said.startswith("buried "):
                raise IndexBroken(f"what is new could not be merged into it: {trouble or said}")
            made = Collection(folder)
            made.load()
            with self._database.writing:
                self._go_on()
                if self._current is not old:
                    raise IndexBroken("it broke while what is new was merged into a copy of it")
                self._put_in_place(made, last or 0, self._noted("buried") + int(said.removeprefix("buried ")))
        except BaseException as error:
            if made is not None:
                made.close()
            if folder is not None:
                delete(folder)
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

    def catch_up(self, most_told: int = 0) -> bool:
        """Tells Chroma what is in `pending` when it is ready, all or so many; otherwise whoever makes it ready does. A large index is told nothing: what is
        new is merged into a copy of it when it is enough. Returns whether there is more to tell now."""
        with self._database.writing:
            if self._closing.is_set():
                return False
            if self.state == "ready" and self._current is not None and self._grown():
                most = self._most_new() if self._deferring else index_worker.UNWRITTEN
                if self._pending_beyond(most):
                    self._merge_in_background(most)
                return False
            if self._deferring:
                if self.state == "ready" and self._pending_beyond(MERGED):
                    self._build_in_background()
                return False
            if self._building.locked() and self._pending_beyond(MERGED):
                return False  # to tell both would be much; whoever builds comes back here
            if self.state == "ready" and self._current is not None:
                try:
                    return self._tell(self._current, most_told)
                except IndexBroken as error:
                    self._broken(self._current, error)
                except StoreError as error:
                    # The change itself is in the store. That the index knows it could not be noted, and telling it again does no harm.
                    log.warning("%s", error)
            elif self.state == "failed":
                self._retry()
            return False

    def keep_pace(self, changed: int) -> None:
        """For a sync that has changed so many passages: where somebody searches, waits while an index is being made and more is new than it may be; no longer
        than that many take at PACE."""
        end = time.monotonic() + changed / PACE
        if changed and self._building.locked() and searched_lately() and self._pending_beyond(self._most_new()):
            while self._building.locked() and (left := end - time.monotonic()) > 0 and not self._closing.is_set():
                self._closing.wait(min(left, 0.05))

    def _most_new(self) -> int:
        """So much may be new in a sync before the index of a large store learns of it."""
        return max(MERGED, self._noted("written") // MERGED_PART)

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """Tells Chroma nothing until the end, of the last where several threads do so: what it does not know is compared one by one, and where much is new a new
        index is quicker than telling.

        Where all passages are compared one by one no search needs it: then it learns in the background.
        """
        with self._database.writing:
            self._deferring += 1
        try:
            yield
        finally:
            with self._database.writing:
                self._deferring -= 1
                last = not self._deferring
            if last and (self._closing.is_set() or self.exact.large()):
                self.catch_up()
            elif last and self._pending_beyond(0):
                self._learning = self._in_background(self._keep_up)

    def _keep_up(self) -> None:
        """Builds the index of a small store anew, or tells it what is new: step by step, so that writers wait for one of them at most."""
        try:
            self.tidy()
            while not self._deferring and self.catch_up(index_worker.STEP):
                pass
        except StoreError as error:
            log.warning("The vector index stays as it is: %s", error)

    def _tell(self, collection: Collection, most: int = 0) -> bool:
        """Tells all, or so many, and returns whether there are more. Doing it twice is harmless, so a kill in the middle is too. Ends early where the store is
        being closed."""
        told = 0
        while not self._closing.is_set() and (
            ids := [row[0] for row in self._database.rows("SELECT passage_id FROM pending LIMIT ?", (index_worker.STEP,))]
        ):
            if most and told >= most:
                return True
            buried = learned(collection, ids, self._database.rows)
            if self._told is not None:
                self._told.update(ids)
            with self.exact.taken_out(ids), self._database.transaction() as connection:
                connection.executemany("DELETE FROM pending WHERE passage_id = ?", [(one,) for one in ids])
                set_meta(connection, "buried", str(self._noted("buried") + buried))
            told += len(ids)
        return False

    def _broken(self, collection: Collection, error: IndexBroken) -> None:
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
        self,
        vectors: NDArray[np.float32],
        limit: int,
        document_ids: Sequence[str] | None = None,
        viewer: str | None = None,
        at_least: float = -1.0,
    ) -> list[list[tuple[str, float]]]:
        """For each row of `vectors`: passage ids, nearest first, with their cosine similarity to that unit vector; nothing while there is no index to ask.
        Of what is less similar than `at_least` any part may be missing.

        The similarities are those of SQLite's vectors: of Chroma's files only the choice of passages is believed, which takes in how similar they are to
        be at least. With `viewer`, only passages of documents that are shared or belong to the user with this id.
        """
        if self.withheld or self._closing.is_set():
            self._database.rows("SELECT 1")
            return [[] for _ in vectors]
        if self.state == "failed":
            self._retry()
        if not self.exact.large():
            return self.exact.compare(self.exact.everything(), vectors, limit, document_ids, viewer)
        few = self.exact.few(document_ids, viewer)
        if few is not None:
            return self.exact.compare(self.exact.read(few), vectors, limit, document_ids, viewer)
        chosen = [] if document_ids is None else ["p.document_id IN (SELECT value FROM json_each(?))"]
        values = [*([] if document_ids is None else [json.dumps(list(document_ids))]), *([] if viewer is None else [viewer])]
        within = " AND ".join([*chosen, *([] if viewer is None else [f"p.document_id {SEEN}"])]) or "1"
        # Before Chroma is asked: what it is told of between the two is found twice, and not never.
        recent = self.exact.recall()
        found = [dict(hits) for hits in self.exact.compare(recent.known, vectors, limit, document_ids, viewer)]
        # Of what Chroma finds some may be gone, or somebody else's: then it is asked for more. Many are a good part of all, so that mostly suffices.
        wanted = limit if recent.last == 0 and within == "1" else limit + limit // 4 + 1
        if recent.gone:  # where half of all are, half of what is near is: to ask for twice as much costs less than to ask twice
            wanted = int(wanted / max(GONE_LEFT, 1 - len(recent.gone) / max(1, self._noted("written"))))
        most = max(MOST_ASKED, limit * 4)
        each = " AND ".join([*chosen, *([] if viewer is None else [SEEN_EACH])]) or "1"
        those = _Those(each, values, recent.gone, most if within != "1" else limit + limit // 4 + 1, at_least - ROUNDED)
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
        for place, hits in zip(rest, self.exact.scan(vectors[rest], limit, within, values) if rest else [], strict=True):
            found[place] = dict(hits)
        return [sorted(hits.items(), key=lambda pair: -pair[1])[:limit] for hits in found]

    def answers_meanwhile(self) -> bool:
        """Whether passages are few enough to be compared one by one, so that nobody waits for the index."""
        return not self.exact.large()

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
        held = REACHED * self._noted("written") if any(len(hits) < wanted for hits in found) else 0
        near = [
            [identifier for identifier, cosine in hits if not cosine < those.at_least and identifier not in those.gone][: those.enough]
            for hits in found
        ]
        rows = [
            row
            for batch, marks in batches(dict.fromkeys(identifier for ids in near for identifier in ids))
            for row in self._database.rows(
                f"SELECT p.id, v.vector FROM passages p JOIN vectors v USING (content_key) WHERE p.id IN ({marks}) AND {those.within}",
                [*batch, *those.values],
            )
        ]
        matrix, place = stacked([row[1] for row in rows]), {row[0]: number for number, row in enumerate(rows)}
        return [
            (
                ranked(vector, there, matrix[[place[identifier] for identifier in there]], wanted),
                # What comes after one that is not similar enough is no more so, if the graph has found its way.
                len(hits) < held if len(hits) < wanted else not hits[-1][1] < those.at_least,
            )
            for vector, hits, alive in zip(vectors, found, near, strict=True)
            for there in [[identifier for identifier in alive if identifier in place]]
        ]

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
        self.exact.forget()
        with self._changed:
            old, self._current = self._current, None
            self.withheld = False
            self.progress = 0.0
            self.state = "rebuilding"
        if old is not None:
            old.close()
        self._in_background(self._rebuild)

    def close(self) -> bool:
        """Stops what is under way and closes Chroma; returns whether all of it has ended. What is being built is built anew the next time.

        What a small store's index is learning it learns to the end, unless it is a patient one: a command ends after it, a server at once.
        """
        if self._learning is not None and not self._patient:
            self._learning.join(LEARNING_SECONDS)
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
                    write_seal(current.folder / SEAL, files(current.folder), self._sealer())
        return ended
