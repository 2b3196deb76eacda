"""The vectors of a shared store: PostgreSQL has them, a Chroma server finds the nearest, and what it does not find yet is compared here.

A question first reads what is `pending`, then asks Chroma, then asks PostgreSQL which of all those are there: whatever was pending is compared exactly,
whatever was not Chroma had been told, and what is gone is not shown. So an answer is never behind a change that was made before the question, in whatever
process. Any process tells Chroma what any other left to be told, and nothing is struck off that a search for it does not find. Where Chroma is away words
answer, with what is pending, and it is looked for again by itself.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from index.chroma_server import ChromaAddress, ChromaAway, ChromaRefused, ChromaServer, Collection, CollectionMissing, look
from index.compare import ROUNDED, products
from index.errors import StoreError
from index.postgres_database import PostgresDatabase
from index.postgres_schema import INCARNATION, lock_of
from index.postgres_words import ATTEMPTS, few, narrowed

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from psycopg import Connection

    from index.vectors import State

COMPARED = 20_000
"""Up to so many passages are compared with a question one by one, as in a store on one machine: that misses none, and needs no Chroma."""

COMPARED_OF_CHOSEN = 5_000
"""Of a larger store, up to so many passages of chosen documents are read and compared one by one."""

PENDING_COMPARED, PENDING_MOST = 10_000, 100_000
"""Of what Chroma was not told yet, so many vectors are kept in memory, and so many are compared at most. Whoever adds more waits until it has been told."""

PAGE = 5_000
"""So many vectors are read at a time where they are not kept."""

MOST_ASKED = 2_000
"""So many of the nearest are asked for at most to find those of chosen documents among them; then Chroma is asked for those alone."""

DOCUMENTS_NAMED = 1_000
"""So many documents are named to Chroma at most."""

STEP = 500
"""Passages told to Chroma in one transaction."""

UNREACHED_AGAIN_SECONDS = 600.0
"""After so long a passage is told again that Chroma was told and does not find; until it does it is compared here."""

LOOKED_AFTER_SECONDS, LOOKED_AFTER = 60.0, 500
"""So often, where the store has changed, so many passages are looked for in Chroma: its graph loses its way to some when others change."""

LACKING_TOLD, LACKING_SHARE = 1_000, 0.1
"""Where a collection lacks more passages than the first, and than this share of all, it is filled anew; fewer are told to it."""

COUNTED_TIMES, COUNTED_AGAIN_SECONDS = 3, 0.5
"""So often a collection's vectors are counted before too few of them are believed, as others may be telling it something."""

LOOKED_FOR, LOOKED_FOR_PLACES = 1_000, 10
"""Where it has enough of them, so many are looked for at the end and at so many other places."""

REFUSED_TELLS, REFUSED_REBUILDS = 3, 5
"""So often a server that is there may refuse to be told before the page says so, and before a new collection is filled."""

LOOK_AGAIN_SECONDS, RETRY_SECONDS = 1.0, 3.0
"""How often a process looks whether another left something to be told, and whether a server that was away is back."""

TELLING = lock_of("collection")
"""Held by the process that tells Chroma something or fills a new collection: one at a time, so that no older word overtakes a newer one."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Now:
    """The store's own row. `incarnation` is that of this moment, `made_by` the one under which the collection was named."""

    identity: str
    incarnation: str
    made_by: str
    embedder: str
    collection: str
    passages: int
    changes: int

    @property
    def usable(self) -> str:
        """The collection, where it is known to be of this database."""
        return self.collection if self.incarnation == self.made_by else ""


@dataclass(frozen=True, slots=True)
class _Known:
    """The vectors of a small store as rows of a matrix, as they were after so many changes."""

    incarnation: str
    changes: int
    numbers: NDArray[np.int64]
    ids: list[str]
    documents: NDArray[np.int64]
    matrix: NDArray[np.float32]
    allowed: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    """By user, which rows they may see."""


class SharedVectors:
    """Which passages are nearest to a vector. `state` and `progress` (0 to 1) tell what this process knows of the Chroma server."""

    def __init__(self, database: PostgresDatabase, address: ChromaAddress, embedder_identity: str, tidy: Callable[[], None]) -> None:
        self.state: State = "opening"
        self.progress = 0.0
        self._database, self._address, self._embedder, self._tidy = database, address, embedder_identity, tidy
        self._server: ChromaServer | None = None
        self._collections: dict[str, Collection] = {}
        self._known: _Known | None = None
        self._comparing = threading.Lock()
        self._checked = ""
        """The collection that was found to hold everything."""
        self._refused = 0
        self._fresh: tuple[str, dict[int, NDArray[np.float32]]] = ("", {})
        self._ghosts: set[int] = set()
        self._looked_after, self._looked_to, self._looked_at = time.monotonic(), 0, -1
        self._changed = threading.Condition()
        self._wanted = threading.Event()
        self._news = True
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="citewell-shared-vectors", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends what is under way; what is still to be told, others tell."""
        self._closing.set()
        self._wanted.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(10)
        self._hang_up()

    # States

    def _state(self, state: State) -> None:
        with self._changed:
            if state != self.state:
                self.state = state
                self._changed.notify_all()

    def wait(self, seconds: float) -> State:
        """Waits until the collection is ready and told everything, or the server is found away, or the time is over; returns the state."""
        self._database.rows("SELECT 1")
        with self._changed:
            self._changed.wait_for(lambda: self.state in ("ready", "failed") or self._closing.is_set(), timeout=seconds)
            return self.state

    @property
    def withheld(self) -> bool:
        """Whether the stored vectors are of another embedding model than this process's questions."""
        return self._now().embedder != self._embedder

    def _now(self) -> _Now:
        return _Now(*self._database.rows(f"SELECT identity, {INCARNATION}, incarnation, embedder, collection, passages, changes FROM store")[0])

    def notices(self) -> tuple[str, ...]:
        """What a user should know, in whole sentences."""
        now = self._now()
        if now.embedder != self._embedder:
            return (
                "The passages' vectors are of another embedding model; until `citewell reembed` has made new ones, or Citewell is started with the model "
                "that made them, answers come from word search alone.",
            )
        if self.state not in ("failed", "rebuilding") or (self.state == "rebuilding" and now.passages <= COMPARED):
            return ()
        meanwhile = "all passages are compared one by one" if now.passages <= COMPARED else "answers come from word search alone"
        if self.state == "failed":
            return (f"The Chroma server does not answer; until it does, {meanwhile}. It is tried again every few seconds.",)
        return (f"The vector index is being built ({100 * self.progress:.0f} %); until then answers come from word search alone.",)

    def server(self) -> str:
        """The Chroma server and its version; asked now."""
        try:
            return f"Chroma {look(self._address)} at {self._address.shown}"
        except ChromaAway:
            return f"a Chroma server at {self._address.shown} that does not answer"

    # Keeping up

    def catch_up(self) -> None:
        """Has Chroma told soon. Waits for that only where much more would be left to be compared with each question."""
        self._news = True
        self._wanted.set()
        while self.state == "ready" and not self._closing.is_set() and self._pending_count(PENDING_COMPARED) > PENDING_COMPARED // 2:
            self._wanted.set()
            self._closing.wait(0.05)

    def _pending_count(self, most: int) -> int:
        return int(self._database.rows("SELECT count(*) FROM (SELECT 1 FROM pending WHERE unreached IS NULL LIMIT %s) AS few", (most,))[0][0])

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wanted.clear()
            pause = LOOK_AGAIN_SECONDS
            try:
                if self._keep_up():
                    self._refused = 0
                    self._state("ready")
                    if self._news:
                        self._news = False
                        self._tidy()
            except ChromaAway as error:
                self._trouble(error)
                pause = RETRY_SECONDS
                if isinstance(error, ChromaRefused):  # counted, and so not at once again
                    self._closing.wait(pause)
                    continue
            except StoreError as error:
                # PostgreSQL is away; questions say so themselves.
                if not self._closing.is_set():
                    log.warning("%s", error)
                pause = RETRY_SECONDS
            except Exception:
                log.exception("The vector index could not be kept up")
                self._checked = ""
                self._state("failed")
                pause = RETRY_SECONDS
            self._wanted.wait(pause)

    def _trouble(self, error: ChromaAway) -> None:
        """Notes that Chroma could not be told something. A server that is there may do it the next time; one that never does has a broken collection."""
        self._checked = ""
        if isinstance(error, ChromaRefused):
            self._refused += 1
            if self._refused < REFUSED_TELLS:
                return
        else:
            self._hang_up()
        if self.state != "failed" and not self._closing.is_set():
            log.warning("The Chroma server cannot be used: %s. It is tried again.", error)
        self._state("failed")

    def _hang_up(self) -> None:
        server, self._server, self._collections = self._server, None, {}
        if server is not None:
            server.close()

    def _keep_up(self) -> bool:
        """Tells Chroma all that is pending; False where another process fills a new collection."""
        if self._server is None:
            self._server = ChromaServer(self._address)
        while not self._closing.is_set():
            now = self._now()
            if now.incarnation != now.made_by:
                self._renew()
                continue
            if not now.collection or self._refused >= REFUSED_REBUILDS:
                self._refused = 0
                return self._rebuild(now.collection)
            try:
                if self._checked != now.collection:
                    if not self._trusted(now):
                        return self._rebuild(now.collection)
                    self._drop_others(now)
                    self._checked = now.collection
                    if self._pending_count(PENDING_COMPARED) == PENDING_COMPARED:
                        self._state("rebuilding")
                self._tell_ghosts()
                if not self._tell_some(now.collection):
                    self._look_after(now)
                    return True
            except CollectionMissing:
                if self._now().collection == now.collection:
                    return self._rebuild(now.collection)
        return False

    def _renew(self) -> None:
        """For a database that is not the one whose collection is named: another name for it, and a collection of its own."""
        with self._database.transaction() as connection:
            connection.execute(
                f"UPDATE store SET identity = %s, collection = '', incarnation = {INCARNATION}, changes = changes + 1 WHERE incarnation <> {INCARNATION}",
                (secrets.token_hex(8),),
            )

    def _collection(self, name: str) -> Collection:
        """The collection of this name, looked up once."""
        found = self._collections.get(name)
        if found is None:
            server = self._server
            if server is None:
                raise ChromaAway("The Chroma server does not answer.")
            found = server.collection(name)
            self._collections = {name: found}
        return found

    def _trusted(self, now: _Now) -> bool:
        """Whether the collection that PostgreSQL names is there and can be searched. Of passages that it lacks it is told again, and they are compared
        until then; False where that is much. Where it holds as many as it should, and all of those that are looked for, it is not read through."""
        lacking: list[int] = []
        try:
            collection = self._collection(now.collection)
            if collection.count():
                for (vector,) in self._database.rows("SELECT vector FROM vectors LIMIT 1", binary=True):
                    collection.nearest(np.frombuffer(vector, dtype=np.float32)[np.newaxis], 1, -1.0)
            if not self._seems_whole(collection):
                last = 0
                while numbers := self._told_after(last):
                    last = numbers[-1]
                    lacking += _not_held(collection, numbers)
                    if self._closing.is_set() or len(lacking) > max(LACKING_TOLD, LACKING_SHARE * now.passages):
                        return False
        except CollectionMissing:
            return False
        if lacking:
            log.warning("The Chroma server lacks %d passages of this store. It is told of them again.", len(lacking))
            self._tell_again(lacking)
        return True

    def _seems_whole(self, collection: Collection) -> bool:
        """Whether a collection has as many vectors as it was told of, and those of the newest passages and of some between: one that was lost, or put back
        as it was at another time, has not."""
        for _ in range(COUNTED_TIMES):
            ((told, newest),) = self._database.rows(
                "SELECT s.passages - (SELECT count(*) FROM passages p WHERE p.number IN (SELECT passage FROM pending)), "
                "coalesce((SELECT p.number FROM passages p WHERE NOT EXISTS (SELECT 1 FROM pending o WHERE o.passage = p.number) "
                "ORDER BY p.number DESC LIMIT 1), 0) FROM store s"
            )
            if collection.count() >= told:
                break
            self._closing.wait(COUNTED_AGAIN_SECONDS)  # others tell it something meanwhile
        else:
            return False
        places = sorted({max(0, newest - LOOKED_FOR), *(secrets.randbelow(newest + 1) for _ in range(LOOKED_FOR_PLACES))})
        return not any(_not_held(collection, numbers) for numbers in (self._told_after(place, LOOKED_FOR) for place in places) if numbers)

    def _told_after(self, last: int, most: int = PAGE) -> list[int]:
        """The numbers of passages that Chroma was told of, in order, from behind one."""
        rows = self._database.rows(
            "SELECT p.number FROM passages p WHERE p.number > %s AND NOT EXISTS (SELECT 1 FROM pending o WHERE o.passage = p.number) "
            "ORDER BY p.number LIMIT %s",
            (last, most),
        )
        return [row[0] for row in rows]

    def _tell_again(self, numbers: Iterable[int], unreached: bool = False) -> None:
        """Has Chroma told of these passages, whether they are there or not."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO pending (passage, unreached) SELECT n.number, CASE WHEN %s THEN now() END FROM unnest(%s::bigint[]) AS n (number)",
                (unreached, sorted(numbers)),
            )

    def _tell_ghosts(self) -> None:
        """Has Chroma told of passages that it holds and PostgreSQL does not, and that nobody is about to tell it of: a process was killed between two
        requests."""
        if self._ghosts:
            ghosts, self._ghosts = self._ghosts, set()
            gone = (
                "NOT EXISTS (SELECT 1 FROM passages p WHERE p.number = n.number) AND NOT EXISTS (SELECT 1 FROM pending o WHERE o.passage = n.number)"
            )
            rows = self._database.rows(f"SELECT n.number FROM unnest(%s::bigint[]) AS n (number) WHERE {gone}", (sorted(ghosts),))
            if rows:
                self._tell_again(row[0] for row in rows)

    def _tell_some(self, name: str) -> bool:
        """Tells Chroma some of what is pending. False where nothing is left, or another process is at it.

        A process that is killed meanwhile gives up the lock and has struck off nothing, so another does it again. Told twice is told once.
        """
        with self._database.transaction() as connection:
            if not connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (TELLING,)).fetchone()[0]:
                return False
            if connection.execute("SELECT collection FROM store").fetchone()[0] != name:
                return True  # another process has just filled a new one
            rows = connection.execute(
                "SELECT number, passage FROM pending WHERE unreached IS NULL OR unreached < now() - make_interval(secs => %s) "
                "ORDER BY unreached NULLS FIRST, number LIMIT %s",
                (UNREACHED_AGAIN_SECONDS, STEP),
            ).fetchall()
            if not rows:
                return False
            unreached = self._tell(connection, self._collection(name), sorted({row[1] for row in rows}))
            connection.execute("DELETE FROM pending WHERE number = ANY(%s)", ([row[0] for row in rows if row[1] not in unreached],))
            connection.execute(
                "UPDATE pending SET unreached = clock_timestamp() WHERE number = ANY(%s)", ([r[0] for r in rows if r[1] in unreached],)
            )
        return True

    def _tell(self, connection: Connection[Any], collection: Collection, numbers: Sequence[int]) -> set[int]:
        """Makes the collection hold these passages as they are now, and not those that are gone; returns those that a search there does not find."""
        there = {
            number: (np.frombuffer(vector, dtype=np.float32), {"document": document, "owner": owner})
            for number, vector, document, owner in connection.execute(
                "SELECT p.number, v.vector, d.number, d.owner FROM passages p JOIN vectors v USING (content_key) JOIN documents d ON d.number = p.document "
                "WHERE p.number = ANY(%s)",
                (list(numbers),),
                binary=True,
            ).fetchall()
        }

        def add(which: Sequence[int]) -> None:
            collection.add(which, [there[number][0] for number in which], [there[number][1] for number in which])
            # PostgreSQL lets go of who says nothing in the middle of a transaction.
            connection.execute("SELECT 1")

        def unreached(which: Sequence[int]) -> list[int]:
            lost = collection.unreached(which, [there[number][0] for number in which])
            connection.execute("SELECT 1")
            return lost

        held = collection.held(numbers)
        add([number for number in there if number not in held])
        # Writing a vector anew would loosen it from the graph; only whose it is can have changed.
        old = [number for number in there if number in held]
        collection.describe(old, [there[number][1] for number in old])
        collection.delete([number for number in held if number not in there])
        lost = unreached(list(there))
        if lost:
            collection.delete(lost)
            add(lost)
            lost = unreached(lost)
        return set(lost)

    def _look_after(self, now: _Now) -> None:
        """Looks, now and then, whether some of the passages are still found; those that are not are compared from then on, and told again."""
        if now.changes == self._looked_at or time.monotonic() - self._looked_after < LOOKED_AFTER_SECONDS:
            return
        rows = self._database.rows(
            "SELECT p.number, v.vector FROM passages p JOIN vectors v USING (content_key) "
            "WHERE p.number > %s AND NOT EXISTS (SELECT 1 FROM pending o WHERE o.passage = p.number) ORDER BY p.number LIMIT %s",
            (self._looked_to, LOOKED_AFTER),
            binary=True,
        )
        lost = self._collection(now.collection).unreached([row[0] for row in rows], [np.frombuffer(row[1], dtype=np.float32) for row in rows])
        self._looked_after = time.monotonic()
        if len(rows) == LOOKED_AFTER:
            self._looked_to = rows[-1][0]
        else:  # all have been looked at since the last change that was known then
            self._looked_to, self._looked_at = 0, now.changes
        if lost:
            self._tell_again(lost)

    def _rebuild(self, instead_of: str) -> bool:
        """Fills a new collection from PostgreSQL and names it; False, as others may have to go on. Nothing is done where another process is at it or was."""
        server = self._server
        assert server is not None
        with self._database.session() as connection:
            self._state("rebuilding")
            if not connection.execute("SELECT pg_try_advisory_lock(%s)", (TELLING,)).fetchone()[0]:
                return False
            now = self._now()
            if now.usable != instead_of:
                return False  # another process was quicker
            if now.passages:
                log.warning("The Chroma server lacks passages of this store. A new collection is filled from PostgreSQL.")
            self.progress, self._collections = 0.0, {}
            beginning = _collections_of(now.identity)
            numbers = [
                int(name.removeprefix(beginning)) for name in [*server.names(beginning), now.collection] if name.removeprefix(beginning).isdecimal()
            ]
            name = f"{beginning}{max(numbers, default=0) + 1}"
            try:
                unreached = self._fill(connection, server.create(name), now.passages)
            except BaseException:
                with suppress(ChromaAway):
                    server.drop(name)
                raise
            # What changed meanwhile is pending, and told to the new collection as to any other.
            self._tell_again(unreached, unreached=True)
            connection.execute("UPDATE store SET collection = %s", (name,))
            _drop_but(server, beginning, name)
            self._checked, self.progress = name, 1.0
        self._wanted.set()
        return False

    def _drop_others(self, now: _Now) -> None:
        """Drops the collections of this database that nobody names any more: a process was killed before it could."""
        server = self._server
        assert server is not None
        with self._database.transaction() as connection:
            # Whoever fills a new one holds this.
            if connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (TELLING,)).fetchone()[0]:
                ((identity, collection),) = connection.execute("SELECT identity, collection FROM store").fetchall()
                if collection == now.collection:
                    _drop_but(server, _collections_of(identity), collection)

    def _fill(self, connection: Connection[Any], made: Collection, passages: int) -> set[int]:
        """Tells an empty collection of everything; returns what a search there does not find."""
        unreached: set[int] = set()
        done = last = 0
        while some := connection.execute(
            "SELECT number FROM passages WHERE number > %s ORDER BY number LIMIT %s", (last, STEP), prepare=False
        ).fetchall():
            if self._closing.is_set():
                raise ChromaAway("Citewell is being closed.")
            last = some[-1][0]
            unreached |= self._tell(connection, made, [row[0] for row in some])
            done += len(some)
            self.progress = min(0.99, done / max(passages, 1))
        return unreached

    # Finding

    def nearest(
        self,
        vectors: NDArray[np.float32],
        limit: int,
        document_ids: Sequence[str] | None = None,
        viewer: str | None = None,
        at_least: float = -1.0,
    ) -> list[list[tuple[str, float]]]:
        """For each row of unit `vectors` passage ids, nearest first, with their cosine similarity, which is that of PostgreSQL's vectors. All rows are asked
        of one moment, together; of what is less similar than `at_least` any part may be missing."""
        found: list[list[tuple[str, float]]] = [[] for _ in vectors]
        for left in reversed(range(ATTEMPTS)):
            now = self._now()
            if now.embedder != self._embedder:
                return [[] for _ in vectors]
            if now.passages <= COMPARED:
                return self._compare(now, vectors, limit, document_ids, viewer)
            found, whole = self._sought(now, vectors, limit, document_ids, viewer, at_least)
            if whole or not left:
                break
            after = self._now()
            if (after.changes, after.collection) == (now.changes, now.collection):
                break
            # What was replaced meanwhile was found as it was, and not as it is.
        return found

    def _sought(
        self, now: _Now, vectors: NDArray[np.float32], limit: int, document_ids: Sequence[str] | None, viewer: str | None, at_least: float
    ) -> tuple[list[list[tuple[str, float]]], bool]:
        """What is found in a large store, and whether all that was found was there still."""
        within, values = narrowed(document_ids, viewer)
        everything = document_ids is None and viewer is None
        if not everything and few(self._database, within, values, COMPARED_OF_CHOSEN):
            return self._scan(vectors, limit, within, values), False
        # Before Chroma is asked: what is not among these it has been told.
        name, pending, more = self._pending(now)
        found: list[list[tuple[str, float]]] = []
        # More than wanted are asked for where some are not chosen, or gone while Chroma was not told yet.
        for wanted in _growing(limit if everything else 4 * limit, max(MOST_ASKED, 4 * limit)):
            near = self._asked(name, vectors, wanted, at_least)
            found, whole = self._ranked(vectors, near or [], pending, more if near is not None else [], limit, within, values)
            if near is None:
                return found, whole and self._now().usable == name
            if all(len(best) >= limit or len(numbers) < wanted for best, numbers in zip(found, near, strict=True)):
                return found, whole
        if everything:
            return found, whole
        # Seldom chosen: Chroma is asked for those alone.
        named = [row[0] for row in self._database.rows(f"SELECT number FROM documents d WHERE {within} LIMIT {DOCUMENTS_NAMED + 1}", values)]
        if len(named) <= DOCUMENTS_NAMED:
            near = self._asked(name, vectors, limit, at_least, {"document": {"$in": named}})
        elif viewer is not None and "ids" not in values:
            near = self._asked(name, vectors, limit, at_least, {"owner": {"$in": ["", viewer]}})
        else:
            return self._scan(vectors, limit, within, values), False
        return self._ranked(vectors, near or [], pending, more, limit, within, values)

    def _asked(
        self, name: str, vectors: NDArray[np.float32], wanted: int, at_least: float, where: Mapping[str, Any] | None = None
    ) -> list[list[int]] | None:
        """What Chroma finds for each vector, without what it knows to be less similar than `at_least`; None where it cannot be asked. It is asked once more where it fails and is there: a deletion at the same
        moment is enough."""
        if not name:
            return None
        for again in (False, True):
            try:
                return self._collection(name).nearest(vectors, wanted, at_least - ROUNDED, where)
            except CollectionMissing:
                self._collections, self._checked = {}, ""
                self._wanted.set()
                return None
            except ChromaAway as error:
                if self._server is None:
                    return None
                if not again and (isinstance(error, ChromaRefused) or self._there()):
                    continue
                log.warning("The Chroma server did not answer a question: %s. Words answered it, and what Chroma was not told yet.", error)
                self._checked = ""
                if not isinstance(error, ChromaRefused):
                    self._hang_up()
                self._state("failed")
                self._wanted.set()
        return None

    def _there(self) -> bool:
        with suppress(ChromaAway):
            look(self._address)
            return True
        return False

    def _pending(self, now: _Now) -> tuple[str, dict[int, NDArray[np.float32]], list[int]]:
        """The collection, and of one moment with it what it does not find yet: the newest with their vectors, and the numbers of more."""
        rows = self._database.rows(
            "SELECT s.collection, o.passage FROM store s LEFT JOIN LATERAL ("
            "SELECT passage FROM pending WHERE EXISTS (SELECT 1 FROM passages p WHERE p.number = passage) GROUP BY passage "
            "ORDER BY max(pending.number) DESC LIMIT %s) o ON true",
            (PENDING_MOST,),
        )
        numbers = [row[1] for row in rows if row[1] is not None]
        incarnation, kept = self._fresh
        wanted = numbers[:PENDING_COMPARED]
        fresh = {number: kept[number] for number in wanted if number in kept} if incarnation == now.incarnation else {}
        lacking = [number for number in wanted if number not in fresh]
        if lacking:
            found = self._database.rows(
                "SELECT p.number, v.vector FROM passages p JOIN vectors v USING (content_key) WHERE p.number = ANY(%s)", (lacking,), binary=True
            )
            fresh.update((number, np.frombuffer(vector, dtype=np.float32)) for number, vector in found)
        self._fresh = (now.incarnation, fresh)
        return rows[0][0] if now.usable else "", fresh, numbers[PENDING_COMPARED:]

    def _ranked(
        self,
        vectors: NDArray[np.float32],
        found: Sequence[Sequence[int]],
        pending: Mapping[int, NDArray[np.float32]],
        more: Sequence[int],
        limit: int,
        within: str,
        values: Mapping[str, Any],
    ) -> tuple[list[list[tuple[str, float]]], bool]:
        """For each vector the best of what Chroma found and of what it does not find yet, of those that are there; and whether all were."""
        numbers = {number for one in found for number in one}
        asked = set(numbers)
        if pending:
            near = list(pending)
            scores = products(vectors, np.stack(list(pending.values())))
            # Of the chosen documents any may be among them, of all the best are enough; some may be gone.
            for row in scores:
                asked |= {near[place] for place in np.argsort(-row, kind="stable")[: len(near) if values else 4 * limit]}
        best: list[list[tuple[str, float]]] = [[] for _ in vectors]
        there: set[int] = set()
        pages = [list(asked), *(list(more[start : start + PAGE]) for start in range(0, len(more), PAGE))]
        for page in pages:
            rows = self._database.rows(
                f"SELECT p.number, p.id, CASE WHEN {within} THEN v.vector END FROM passages p JOIN vectors v USING (content_key) "
                "JOIN documents d ON d.number = p.document WHERE p.number = ANY(%(numbers)s)",
                {**values, "numbers": page},
                binary=True,
            )
            there |= {row[0] for row in rows}
            best = _better(best, vectors, sorted(row for row in rows if row[2] is not None), limit)
        ghosts = numbers - there
        if ghosts and self.state == "ready":
            # Removed a moment ago, or left behind by a process that was killed: others look which.
            self._ghosts |= ghosts
            self._wanted.set()
        return best, asked <= there

    def _compare(
        self, now: _Now, vectors: NDArray[np.float32], limit: int, document_ids: Sequence[str] | None, viewer: str | None
    ) -> list[list[tuple[str, float]]]:
        """The nearest passages, all compared one by one; their vectors are kept, and those that others added are read."""
        known = self._matrix(now)
        if not known.ids:
            return [[] for _ in vectors]
        scores = products(vectors, known.matrix)
        if document_ids is not None:
            scores = np.where(np.isin(known.documents, self._numbers(document_ids, viewer)), scores, -np.inf)
        elif viewer is not None:
            if viewer not in known.allowed:
                known.allowed[viewer] = np.isin(known.documents, self._numbers(None, viewer))
            scores = np.where(known.allowed[viewer], scores, -np.inf)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :limit]
        return [[(known.ids[place], float(row[place])) for place in places if row[place] > -np.inf] for row, places in zip(scores, best, strict=True)]

    def _numbers(self, document_ids: Sequence[str] | None, viewer: str | None) -> NDArray[np.int64]:
        within, values = narrowed(document_ids, viewer)
        return np.array([row[0] for row in self._database.rows(f"SELECT number FROM documents d WHERE {within}", values)], dtype=np.int64)

    def _matrix(self, now: _Now) -> _Known:
        with self._comparing:  # so that several questions after a change do not all read it
            before = self._known
            if before is not None and before.incarnation != now.incarnation:
                before = None
            if before is not None and before.changes >= now.changes:
                return before
            rows = self._database.rows("SELECT number, id, document FROM passages ORDER BY number", binary=True)
            numbers = np.array([row[0] for row in rows], dtype=np.int64)
            kept = np.isin(numbers, before.numbers) if before is not None else np.zeros(len(numbers), dtype=bool)
            new = dict(
                self._database.rows(
                    "SELECT p.number, v.vector FROM passages p JOIN vectors v USING (content_key) WHERE p.number = ANY(%s)",
                    (numbers[~kept].tolist(),),
                    binary=True,
                )
            )
            if before is not None and not len(before.ids):
                before = None
            # A passage that went while this was read has no vector here; it is left out, as it is of the next reading.
            whole = kept | np.isin(numbers, np.array(list(new), dtype=np.int64))
            rows, numbers, kept = [row for row, there in zip(rows, whole, strict=True) if there], numbers[whole], kept[whole]
            old = before.matrix[np.isin(before.numbers, numbers)] if before is not None else None
            added = np.stack([np.frombuffer(new[number], dtype=np.float32) for number in numbers[~kept].tolist()]) if new else None
            width = next(one.shape[1] for one in (old, added) if one is not None) if rows else 0
            matrix = np.empty((len(rows), width), dtype=np.float32)
            if old is not None and rows:
                matrix[kept] = old
            if added is not None and rows:
                matrix[~kept] = added
            self._known = _Known(
                now.incarnation, now.changes, numbers, [row[1] for row in rows], np.array([row[2] for row in rows], dtype=np.int64), matrix
            )
            return self._known

    def _scan(self, vectors: NDArray[np.float32], limit: int, within: str, values: Mapping[str, Any]) -> list[list[tuple[str, float]]]:
        """For each vector the nearest of all passages that the condition chooses, compared one by one."""
        best: list[list[tuple[str, float]]] = [[] for _ in vectors]
        last = 0
        while rows := self._database.rows(
            "SELECT p.number, p.id, v.vector FROM passages p JOIN vectors v USING (content_key) JOIN documents d ON d.number = p.document "
            f"WHERE p.number > %(last)s AND {within} ORDER BY p.number LIMIT {PAGE}",
            {**values, "last": last},
            binary=True,
        ):
            last = rows[-1][0]
            best = _better(best, vectors, rows, limit)
        return best


def _collections_of(identity: str) -> str:
    """How the names of a database's collections begin."""
    return f"citewell-{identity}-"


def _drop_but(server: ChromaServer, beginning: str, name: str) -> None:
    """Drops all collections that begin so but one. Where that is refused, they only take room."""
    try:
        for other in server.names(beginning):
            if other != name:
                server.drop(other)
    except ChromaRefused as error:
        log.warning("A collection that nobody needs any more could not be dropped: %s", error)


def _not_held(collection: Collection, numbers: Sequence[int]) -> list[int]:
    held = collection.held(numbers)
    return [number for number in numbers if number not in held]


def _growing(first: int, most: int) -> Iterator[int]:
    while first <= most:
        yield first
        first *= 4


def _better(
    best: Sequence[Sequence[tuple[str, float]]], vectors: NDArray[np.float32], rows: Sequence[Sequence[Any]], limit: int
) -> list[list[tuple[str, float]]]:
    """For each vector the nearest of those found before and of rows of number, id and vector."""
    if not rows:
        return [list(one) for one in best]
    scores = products(vectors, np.stack([np.frombuffer(row[2], dtype=np.float32) for row in rows]))
    return [
        sorted([*one, *((rows[place][1], float(row[place])) for place in np.argsort(-row, kind="stable")[:limit])], key=lambda pair: -pair[1])[:limit]
        for one, row in zip(best, scores, strict=True)
    ]
