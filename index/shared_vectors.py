"""The vectors of a shared store: PostgreSQL has them, a Chroma server finds the nearest, and what it was not told yet is compared here.

A question first reads what is `pending`, then asks Chroma, then asks PostgreSQL which of all those are there: whatever was pending is compared exactly,
whatever was not Chroma had been told, and what is gone is not shown. So an answer is never behind a change that was made before the question, in whatever
process. Any process tells Chroma what any other left to be told. Where Chroma is away words answer, and it is looked for again by itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from index.chroma_server import ChromaAddress, ChromaAway, ChromaServer, Collection, CollectionMissing
from index.errors import StoreError
from index.postgres_database import PostgresDatabase
from index.postgres_schema import lock_of
from index.postgres_words import few, narrowed

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from psycopg import Connection

    from index.vectors import State

COMPARED = 20_000
"""Up to so many passages are compared with a question one by one, as in a store on one machine: that misses none, and needs no Chroma."""

COMPARED_OF_CHOSEN = 5_000
"""Of a larger store, up to so many passages of chosen documents are read and compared one by one."""

PENDING_COMPARED = 10_000
"""So many that Chroma was not told yet are compared at most; whoever adds more waits until it has been told."""

MOST_ASKED = 2_000
"""So many of the nearest are asked for at most to find those of chosen documents among them; then Chroma is asked for those alone."""

DOCUMENTS_NAMED = 1_000
"""So many documents are named to Chroma at most."""

STEP = 500
"""Passages told to Chroma in one transaction."""

SETTLED_SECONDS = 3.0
"""What Chroma was told so lately is still compared here: what one client was told is done, another's search does not always find at once."""

LOOK_AGAIN_SECONDS, RETRY_SECONDS = 1.0, 3.0
"""How often a process looks whether another left something to be told, and whether a server that was away is back."""

TELLING = lock_of("collection")
"""Held by the process that tells Chroma something or fills a new collection: one at a time, so that no older word overtakes a newer one."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Known:
    """The vectors of a small store as rows of a matrix, as they were after so many changes."""

    changes: int
    numbers: NDArray[np.int64]
    ids: list[str]
    documents: NDArray[np.int64]
    matrix: NDArray[np.float32]
    allowed: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    """By user, which rows they may see."""


@dataclass(frozen=True, slots=True)
class _Now:
    """The store's own row."""

    identity: str
    embedder: str
    collection: str
    passages: int
    changes: int


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
        self._fresh: dict[int, NDArray[np.float32]] = {}
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
        return _Now(*self._database.rows("SELECT identity, embedder, collection, passages, changes FROM store")[0])

    def notices(self) -> tuple[str, ...]:
        """What a user should know, in whole sentences."""
        now = self._now()
        if now.embedder != self._embedder:
            return (
                "The passages' vectors are of another embedding model; until `citewell reembed` has made new ones, or Citewell is started with the model "
                "that made them, answers come from word search alone.",
            )
        if self.state not in ("failed", "rebuilding"):
            return ()
        meanwhile = "all passages are compared one by one" if now.passages <= COMPARED else "answers come from word search alone"
        if self.state == "failed":
            return (f"The Chroma server does not answer; until it does, {meanwhile}. It is tried again every few seconds.",)
        return (f"The vector index is being rebuilt ({100 * self.progress:.0f} %); until then {meanwhile}.",)

    def server(self) -> str:
        """The Chroma server and its version; asked now."""
        from index.chroma_server import look

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
        return int(self._database.rows("SELECT count(*) FROM (SELECT 1 FROM pending WHERE told IS NULL LIMIT %s) AS few", (most,))[0][0])

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wanted.clear()
            pause = LOOK_AGAIN_SECONDS
            try:
                if self._keep_up():
                    self._state("ready")
                    if self._news:
                        self._news = False
                        self._tidy()
            except ChromaAway as error:
                if self.state != "failed" and not self._closing.is_set():
                    log.warning("The Chroma server cannot be used: %s. It is tried again.", error)
                self._server, self._collections = None, {}
                self._state("failed")
                pause = RETRY_SECONDS
            except StoreError as error:
                # PostgreSQL is away; questions say so themselves.
                if not self._closing.is_set():
                    log.warning("%s", error)
                pause = RETRY_SECONDS
            except Exception:
                log.exception("The vector index could not be kept up")
                self._state("failed")
                pause = RETRY_SECONDS
            if pause == RETRY_SECONDS:
                self._closing.wait(pause)
            else:
                self._wanted.wait(pause)

    def _keep_up(self) -> bool:
        """Tells Chroma all that is pending; False where another process fills a new collection."""
        if self._server is None:
            self._server = ChromaServer(self._address)
            if not self._trusted(self._now()):
                return self._rebuild()
            if self._pending_count(PENDING_COMPARED) == PENDING_COMPARED:
                self._state("rebuilding")
        while not self._closing.is_set():
            now = self._now()
            try:
                told = bool(now.collection) and self._tell_some(now.collection)
            except CollectionMissing:
                if self._now().collection != now.collection:
                    continue
                return self._rebuild()
            if not now.collection:
                return self._rebuild()
            if not told:
                return True
        return False

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
        """Whether the collection that PostgreSQL names is there, can be searched, and lacks nothing but what is pending."""
        if not now.collection:
            return False
        try:
            collection = self._collection(now.collection)
            held, pending = collection.count(), self._pending_count(now.passages + 1)
            ((vectors,),) = self._database.rows("SELECT array_agg(vector) FROM (SELECT vector FROM vectors LIMIT 1) AS one")
            if held and vectors:
                collection.nearest(np.frombuffer(vectors[0], dtype=np.float32), 1)
        except CollectionMissing:
            return False
        # Counted again: another process may have told what was pending.
        return held >= self._now().passages - pending - self._pending_count(now.passages + 1)

    def _tell_some(self, name: str) -> bool:
        """Tells Chroma some of what is pending. False where nothing is left, or another process is at it.

        A process that is killed meanwhile gives up the lock and has struck off nothing, so another does it again. Told twice is told once.
        """
        with self._database.transaction() as connection:
            if not connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (TELLING,)).fetchone()[0]:
                return False
            if connection.execute("SELECT collection FROM store").fetchone()[0] != name:
                return True  # another process has just filled a new one
            collection = self._collection(name)
            connection.execute("DELETE FROM pending WHERE told < now() - make_interval(secs => %s)", (SETTLED_SECONDS,))
            rows = connection.execute("SELECT number, passage FROM pending WHERE told IS NULL ORDER BY number LIMIT %s", (STEP,)).fetchall()
            if not rows:
                return False
            self._tell(connection, collection, sorted({row[1] for row in rows}))
            connection.execute("UPDATE pending SET told = clock_timestamp() WHERE number = ANY(%s)", ([row[0] for row in rows],))
        return True

    def _tell(self, connection: Connection[Any], collection: Collection, numbers: Sequence[int]) -> None:
        """Makes the collection hold these passages as they are now, and not those that are gone."""
        there = {
            number: (vector, {"document": document, "owner": owner})
            for number, vector, document, owner in connection.execute(
                "SELECT p.number, v.vector, d.number, d.owner FROM passages p JOIN vectors v USING (content_key) JOIN documents d ON d.number = p.document "
                "WHERE p.number = ANY(%s)",
                (list(numbers),),
                binary=True,
            ).fetchall()
        }
        held = collection.held(numbers)
        new = [number for number in there if number not in held]
        collection.add(new, [np.frombuffer(there[number][0], dtype=np.float32) for number in new], [there[number][1] for number in new])
        # Writing a vector anew would loosen it from the graph; only whose it is can have changed.
        old = [number for number in there if number in held]
        collection.describe(old, [there[number][1] for number in old])
        collection.delete([number for number in held if number not in there])

    def _rebuild(self) -> bool:
        """Fills a new collection from PostgreSQL and names it in one transaction; False where another process is at it."""
        server = self._server
        assert server is not None
        with self._database.session() as connection:
            if not connection.execute("SELECT pg_try_advisory_lock(%s)", (TELLING,)).fetchone()[0]:
                self._state("rebuilding")
                return False
            now = self._now()
            self._collections = {}
            if self._trusted(now):  # another process was quicker
                return True
            if now.passages:
                log.warning("The Chroma server lacks passages of this store. A new collection is filled from PostgreSQL.")
            self.progress = 0.0
            self._state("rebuilding")
            beginning = f"citewell-{now.identity}-"
            numbers = [
                int(name.removeprefix(beginning)) for name in [*server.names(beginning), now.collection] if name.removeprefix(beginning).isdecimal()
            ]
            name = f"{beginning}{max(numbers, default=0) + 1}"
            made = server.create(name)
            done = last = 0
            while some := connection.execute(
                "SELECT number FROM passages WHERE number > %s ORDER BY number LIMIT %s", (last, STEP), prepare=False
            ).fetchall():
                if self._closing.is_set():
                    server.drop(name)
                    return False
                last = some[-1][0]
                self._tell(connection, made, [row[0] for row in some])
                done += len(some)
                self.progress = min(0.99, done / max(now.passages, 1))
            # What changed meanwhile is pending, and told to the new collection as to any other.
            connection.execute("UPDATE store SET collection = %s", (name,))
            for other in server.names(beginning):
                if other != name:
                    server.drop(other)
            self._collections = {name: made}
            self.progress = 1.0
        return self._keep_up()

    # Finding

    def nearest(
        self, vector: NDArray[np.float32], limit: int, document_ids: Sequence[str] | None = None, viewer: str | None = None
    ) -> list[tuple[str, float]]:
        """Passage ids, nearest first, with their cosine similarity to the unit `vector`, which is that of PostgreSQL's vectors."""
        now = self._now()
        if now.embedder != self._embedder:
            return []
        if now.passages <= COMPARED:
            return self._compare(now, vector, limit, document_ids, viewer)
        within, values = narrowed(document_ids, viewer)
        everything = document_ids is None and viewer is None
        if not everything and self._few(within, values):
            return self._scan(vector, limit, within, values)
        try:
            return self._found(now, vector, limit, within, values, viewer, everything)
        except ChromaAway as error:
            if self._now().collection != now.collection:  # another process has just filled a new one
                return self.nearest(vector, limit, document_ids, viewer)
            log.warning("The Chroma server did not answer a question: %s. Words answered it alone.", error)
            self._server, self._collections = None, {}
            self._state("failed")
            self._wanted.set()
            return []

    def _few(self, within: str, values: Mapping[str, Any]) -> bool:
        """Whether the chosen documents have few enough passages to be compared one by one."""
        return few(self._database, within, values, COMPARED_OF_CHOSEN)

    def _found(
        self, now: _Now, vector: NDArray[np.float32], limit: int, within: str, values: Mapping[str, Any], viewer: str | None, everything: bool
    ) -> list[tuple[str, float]]:
        pending = self._pending()  # before Chroma is asked: what is not among these it has been told
        if not now.collection:
            return []
        collection = self._collection(now.collection)
        found: list[tuple[str, float]] = []
        # More than wanted are asked for where some are not chosen, or gone while Chroma was not told yet.
        for wanted in _growing(limit if everything else 4 * limit, max(MOST_ASKED, 4 * limit)):
            numbers = collection.nearest(vector, wanted)
            found = self._ranked(vector, numbers, pending, limit, within, values, everything)
            if len(found) >= limit or len(numbers) < wanted:
                return found
        if everything:
            return found
        # Seldom chosen: Chroma is asked for those alone.
        named = [row[0] for row in self._database.rows(f"SELECT number FROM documents d WHERE {within} LIMIT {DOCUMENTS_NAMED + 1}", values)]
        if len(named) <= DOCUMENTS_NAMED:
            numbers = collection.nearest(vector, limit, {"document": {"$in": named}})
        elif viewer is not None and "ids" not in values:
            numbers = collection.nearest(vector, limit, {"owner": {"$in": ["", viewer]}})
        else:
            return self._scan(vector, limit, within, values)
        return self._ranked(vector, numbers, pending, limit, within, values, False)

    def _pending(self) -> dict[int, NDArray[np.float32]]:
        """The vectors of the passages that Chroma has still to be told of, by number. Read once each."""
        numbers = {row[0] for row in self._database.rows("SELECT passage FROM pending ORDER BY number LIMIT %s", (PENDING_COMPARED,))}
        fresh = {number: vector for number, vector in self._fresh.items() if number in numbers}
        lacking = [number for number in numbers if number not in fresh]
        if lacking:
            rows = self._database.rows(
                "SELECT p.number, v.vector FROM passages p JOIN vectors v USING (content_key) WHERE p.number = ANY(%s)", (lacking,), binary=True
            )
            fresh.update((number, np.frombuffer(vector, dtype=np.float32)) for number, vector in rows)
        self._fresh = fresh
        return fresh

    def _ranked(
        self,
        vector: NDArray[np.float32],
        numbers: Sequence[int],
        pending: Mapping[int, NDArray[np.float32]],
        limit: int,
        within: str,
        values: Mapping[str, Any],
        everything: bool,
    ) -> list[tuple[str, float]]:
        """The best of what Chroma found and of what it does not know yet, of those that are there."""
        near = list(pending)
        if pending:
            scores = np.stack(list(pending.values())) @ np.asarray(vector, dtype=np.float32)
            # Of the chosen documents any may be among them, of all the best are enough; some may be gone.
            near = [near[place] for place in np.argsort(-scores, kind="stable")[: 4 * limit if everything else len(near)]]
        rows = self._database.rows(
            "SELECT p.number, p.id, v.vector FROM passages p JOIN vectors v USING (content_key) JOIN documents d ON d.number = p.document "
            f"WHERE p.number = ANY(%(numbers)s) AND {within}",
            {**values, "numbers": list({*numbers, *near})},
            binary=True,
        )
        if everything and (ghosts := set(numbers) - {row[0] for row in rows} - pending.keys()):
            self._exorcise(ghosts)
        return _best(vector, sorted(rows), limit)

    def _exorcise(self, numbers: set[int]) -> None:
        """Has Chroma told again of passages that it holds and PostgreSQL does not: a process was killed between two requests."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO pending (passage) SELECT ghost.number FROM unnest(%s::bigint[]) AS ghost (number) "
                "WHERE NOT EXISTS (SELECT 1 FROM passages p WHERE p.number = ghost.number) "
                "AND NOT EXISTS (SELECT 1 FROM pending o WHERE o.passage = ghost.number)",
                (sorted(numbers),),
            )

    def _compare(
        self, now: _Now, vector: NDArray[np.float32], limit: int, document_ids: Sequence[str] | None, viewer: str | None
    ) -> list[tuple[str, float]]:
        """The nearest passages, all compared one by one; their vectors are kept, and those that others added are read."""
        known = self._matrix(now)
        if not known.ids:
            return []
        scores = known.matrix @ np.asarray(vector, dtype=np.float32)
        if document_ids is not None:
            scores = np.where(np.isin(known.documents, self._numbers(document_ids, viewer)), scores, -np.inf)
        elif viewer is not None:
            if viewer not in known.allowed:
                known.allowed[viewer] = np.isin(known.documents, self._numbers(None, viewer))
            scores = np.where(known.allowed[viewer], scores, -np.inf)
        best = np.argsort(-scores, kind="stable")[:limit]
        return [(known.ids[place], float(scores[place])) for place in best if scores[place] > -np.inf]

    def _numbers(self, document_ids: Sequence[str] | None, viewer: str | None) -> NDArray[np.int64]:
        within, values = narrowed(document_ids, viewer)
        return np.array([row[0] for row in self._database.rows(f"SELECT number FROM documents d WHERE {within}", values)], dtype=np.int64)

    def _matrix(self, now: _Now) -> _Known:
        with self._comparing:  # so that several questions after a change do not all read it
            before = self._known
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
            self._known = _Known(now.changes, numbers, [row[1] for row in rows], np.array([row[2] for row in rows], dtype=np.int64), matrix)
            return self._known

    def _scan(self, vector: NDArray[np.float32], limit: int, within: str, values: Mapping[str, Any]) -> list[tuple[str, float]]:
        """The nearest of all passages that the condition chooses, compared one by one."""
        best: list[tuple[str, float]] = []
        last = 0
        while rows := self._database.rows(
            "SELECT p.number, p.id, v.vector FROM passages p JOIN vectors v USING (content_key) JOIN documents d ON d.number = p.document "
            f"WHERE p.number > %(last)s AND {within} ORDER BY p.number LIMIT 5000",
            {**values, "last": last},
            binary=True,
        ):
            last = rows[-1][0]
            best = sorted([*best, *_best(vector, rows, limit)], key=lambda pair: -pair[1])[:limit]
        return best


def _growing(first: int, most: int) -> Iterator[int]:
    while first <= most:
        yield first
        first *= 4


def _best(vector: NDArray[np.float32], rows: Sequence[Sequence[Any]], limit: int) -> list[tuple[str, float]]:
    """Of rows of number, id and vector the nearest."""
    if not rows:
        return []
    scores = np.stack([np.frombuffer(row[2], dtype=np.float32) for row in rows]) @ np.asarray(vector, dtype=np.float32)
    return [(rows[place][1], float(scores[place])) for place in np.argsort(-scores, kind="stable")[:limit]]
