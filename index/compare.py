"""Passages whose vectors are compared with a question's one by one: all of a small store, those of chosen documents, and what an index has still to learn."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from index.database import Database, batches

if TYPE_CHECKING:
    from numpy.typing import NDArray

COMPARED = 20_000
"""Up to so many passages are compared with a question one by one, which takes milliseconds and misses none. Chroma's graph of a small collection now
and then holds a vector that no search reaches (5 of 150 collections of 60), and is no quicker."""

COMPARED_OF_CHOSEN = 5_000
"""Of a larger store, up to so many passages of chosen documents, or of all that a user sees, are read and compared one by one."""

SCANNED = 5_000
"""Of a store that is read through, so many passages are held at once."""

AT_HAND = 1_024
"""Rows of a matrix that are compared with all vectors before the next: they stay in a core's cache meanwhile."""

OUTDATED = 1_000
"""What the index has still to learn is read anew when more rows of it than this, and than half, are out of date."""


@dataclass(frozen=True, slots=True)
class Known:
    """Vectors as rows of a matrix, with their passages' and documents' ids, as they were after so many changes.

    Rows that came later stand behind them in the same lists, whose first ones alone count, as many as `there` has; a row that is not there is out of date.
    """

    changes: int
    ids: list[str]
    documents: list[str]
    matrix: NDArray[np.float32]
    there: NDArray[np.bool_]
    seen: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    """By user, which rows they may see."""


@dataclass(frozen=True, slots=True)
class Followed:
    """Passages that are kept from change to change, up to row `last` of what the index has still to learn. All but `known` is for whoever goes on from here."""

    known: Known
    last: int
    keys: list[bytes]
    """Of each row the content key, which tells what has changed: a passage of the same words has another vector where title or heading is another."""
    place: dict[str, int]
    """The row of each passage that is there."""
    room: NDArray[np.float32]
    """The matrix of `known` is the used part of it."""
    gone: set[str]
    """The passages that went."""

    @property
    def wasteful(self) -> bool:
        """Whether most of what is kept is out of date."""
        return len(self.known.there) > 2 * len(self.place) + OUTDATED

    def only(self, rows: Sequence[int]) -> Followed:
        """A copy with these rows alone, all of which are there."""
        known = self.known
        ids, keys, room = [known.ids[row] for row in rows], [self.keys[row] for row in rows], known.matrix[list(rows)]
        left = Known(known.changes, ids, [known.documents[row] for row in rows], room, np.ones(len(ids), dtype=np.bool_))
        return Followed(left, self.last, keys, {one: row for row, one in enumerate(ids)}, room, set())


def _nothing() -> Followed:
    return Followed(Known(-1, [], [], stacked([]), np.zeros(0, dtype=np.bool_)), 0, [], {}, stacked([]), set())


class ExactSearch:
    """Compares passages of the store in `database`, and keeps what it has read of them from question to question."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._size = (-1, False)
        self._many: tuple[int, set[str]] = (-1, set())
        self._everything: Followed | None = None
        self._recent: Followed | None = None
        self._following = threading.Lock()
        self._interrupted = False

    def large(self) -> bool:
        """Whether passages are too many to be compared one by one; counted no further, and again only when something has changed."""
        changes, large = self._size
        if changes != self._database.changes or changes < 0:
            changes = self._database.changes
            ((count,),) = self._database.rows("SELECT count(*) FROM (SELECT 1 FROM passages LIMIT ?)", (COMPARED + 1,))
            large = count > COMPARED
            self._size = (changes, large)
        return large

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

    def compare(
        self, known: Known, vectors: NDArray[np.float32], limit: int, document_ids: Sequence[str] | None, viewer: str | None
    ) -> list[list[tuple[str, float]]]:
        """The nearest of passages that are compared one by one."""
        there = known.there
        if not len(there):
            return [[] for _ in vectors]
        if document_ids is not None:
            chosen = set(document_ids)
            there = there & np.fromiter((document in chosen for document in known.documents), dtype=np.bool_, count=len(there))
        if viewer is not None:
            there = there & self._seen(known, viewer)
        scores = products(vectors, known.matrix)
        if not there.all():
            scores = np.where(there, scores, -np.inf)
        return [[(known.ids[place], float(row[place])) for place in highest(row, limit) if row[place] > -np.inf] for row in scores]

    def read(self, numbers: Sequence[int]) -> Known:
        """The passages with these numbers. A number may be another document's by now, so it is still to be asked which of them a user may see."""
        found = [
            row
            for batch, marks in batches(numbers)
            for row in self._database.rows(
                f"SELECT p.id, p.document_id, v.vector FROM passages p JOIN vectors v USING (content_key) WHERE p.number IN ({marks})", batch
            )
        ]
        return Known(
            -1, [row[0] for row in found], [row[1] for row in found], stacked([row[2] for row in found]), np.ones(len(found), dtype=np.bool_)
        )

    def everything(self) -> Known:
        """All passages with their vectors, kept from question to question; when the store has changed, only what came to it is read."""
        with self._following:
            every, changes = self._everything, self._database.changes
            if every is None or every.known.changes != changes:
                stale = every is None or self._interrupted or every.wasteful
                every = self._everything = self._all(every, changes) if every is None or stale else self._gone_on(every, changes)
            return every.known

    def _all(self, before: Followed | None, changes: int) -> Followed:
        """All passages, of which the vectors are read that were not there before."""
        self._interrupted = False
        # First, so that what changes while this reads is read again.
        ((last,),) = self._database.rows("SELECT coalesce(max(rowid), 0) FROM pending")
        everything = "SELECT p.id, p.document_id, p.content_key, v.vector FROM passages p JOIN vectors v USING (content_key)"
        kept: list[int] = []
        if before is not None:
            there = dict(self._database.rows("SELECT id, content_key FROM passages"))
            kept = [place for one, place in before.place.items() if there.get(one) == before.keys[place]]
        if before is None or len(there) - len(kept) > len(there) // 2:
            rows, kept = self._database.rows(f"{everything} ORDER BY p.number"), []
        else:
            new = there.keys() - {before.known.ids[place] for place in kept}
            rows = [row for batch, marks in batches(sorted(new)) for row in self._database.rows(f"{everything} WHERE p.id IN ({marks})", batch)]
        return _grown(_nothing() if before is None or not kept else before.only(kept), changes, last, rows)

    def _seen(self, known: Known, viewer: str) -> NDArray[np.bool_]:
        mask = known.seen.get(viewer)
        if mask is None:
            own = {
                row[0]
                for batch, marks in batches(dict.fromkeys(known.documents))
                for row in self._database.rows(
                    f"SELECT id FROM documents INDEXED BY documents_of WHERE owner IN ('', ?) AND id IN ({marks})", [viewer, *batch]
                )
            }
            mask = known.seen[viewer] = np.fromiter((document in own for document in known.documents), dtype=np.bool_, count=len(known.there))
        return mask

    def recall(self) -> Followed:
        """What the index has still to learn; of what came to it since the last time alone the vectors are read."""
        with self._following:
            recent, changes = self._recent, self._database.changes
            if recent is None or recent.known.changes != changes:
                recent = self._recent = self._gone_on(_nothing() if recent is None or recent.wasteful else recent, changes)
            return recent

    def _gone_on(self, before: Followed, changes: int) -> Followed:
        """The same after what has changed since. All of it is read at one moment."""
        rows = self._database.rows(
            "SELECT n.rowid, n.passage_id, p.document_id, p.content_key, v.vector FROM pending n LEFT JOIN passages p ON p.id = n.passage_id "
            "LEFT JOIN vectors v ON v.content_key = p.content_key WHERE n.rowid > ? ORDER BY n.rowid",
            (before.last,),
        )
        last = rows[-1][0] if rows else before.last
        return _grown(before, changes, last, [row[1:] for row in rows if row[4] is not None], [row[1] for row in rows])

    @contextmanager
    def interrupted(self) -> Iterator[None]:
        """For whoever takes rows out of `pending`, with the writers' lock held: their numbers are given again."""
        with self._following:
            self._interrupted = True  # before, so that nobody misses what is being taken out
        try:
            yield
        finally:
            self.forget_recent()

    def forget_recent(self) -> None:
        with self._following:
            self._recent, self._interrupted = None, True

    def forget(self) -> None:
        """Forgets all vectors, as they are about to be others."""
        with self._following:
            self._recent = self._everything = None

    def scan(self, vectors: NDArray[np.float32], limit: int, within: str, values: Sequence[Any]) -> list[list[tuple[str, float]]]:
        """The nearest of all the passages that the condition chooses, compared one by one."""
        best: list[list[tuple[str, float]]] = [[] for _ in vectors]
        last = 0
        while rows := self._database.rows(
            f"SELECT p.number, p.id, v.vector FROM passages p JOIN vectors v USING (content_key) WHERE p.number > ? AND {within} ORDER BY p.number LIMIT ?",
            (last, *values, SCANNED),
        ):
            last = rows[-1][0]
            ids, matrix = [row[1] for row in rows], stacked([row[2] for row in rows])
            best = [
                sorted([*before, *ranked(vector, ids, matrix, limit)], key=lambda pair: -pair[1])[:limit]
                for before, vector in zip(best, vectors, strict=True)
            ]
        return best


def _grown(before: Followed, changes: int, last: int, new: Sequence[Sequence[Any]], changed: Iterable[str] = ()) -> Followed:
    """What was followed, with new rows (passage, document, content key, vector) behind it. Of `changed` passages what was there is out of date.

    Lists and room are shared with those before, which look at their beginnings alone.
    """
    known, place, used = before.known, before.place, len(before.known.there)
    room = before.room
    if new:
        added = stacked([row[3] for row in new])
        if used + len(new) > len(room):
            room = np.empty((max(2 * len(room), used + len(new)), added.shape[1]), dtype=np.float32)
            if used:
                room[:used] = known.matrix
        room[used : used + len(new)] = added
    there = np.concatenate([known.there, np.ones(len(new), dtype=np.bool_)])
    changed = list(changed)
    # A passage that comes again comes last, and with another vector it may be, or it is gone.
    there[[place.pop(one) for one in changed if one in place]] = False
    before.gone.update(changed)
    before.gone.difference_update(row[0] for row in new)
    place.update((row[0], used + number) for number, row in enumerate(new))
    known.ids.extend(row[0] for row in new)
    known.documents.extend(row[1] for row in new)
    before.keys.extend(row[2] for row in new)
    return Followed(Known(changes, known.ids, known.documents, room[: used + len(new)], there), last, before.keys, place, room, before.gone)


def products(vectors: NDArray[np.float32], matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """The dot product of each vector with each row of a matrix, shape (vectors, rows).

    In the calling thread alone: NumPy's product of matrices uses all cores, and its library's threads then keep them busy for some milliseconds with
    waiting for the next one, which is what the rest of the search and the making of an index beside it lack.
    """
    vectors = np.asarray(vectors, dtype=np.float32)
    found = np.empty((len(vectors), len(matrix)), dtype=np.float32)
    for start in range(0, len(matrix), AT_HAND):
        rows = matrix[start : start + AT_HAND]
        np.vecdot(rows[np.newaxis], vectors[:, np.newaxis], out=found[:, start : start + len(rows)])
    return found


def ranked(vector: NDArray[np.float32], ids: Sequence[str], matrix: NDArray[np.float32], limit: int) -> list[tuple[str, float]]:
    if not ids:
        return []
    (scores,) = products(vector[np.newaxis], matrix)
    return [(ids[place], float(scores[place])) for place in highest(scores, limit)]


def highest(scores: NDArray[np.float32], limit: int) -> NDArray[np.intp]:
    """Places of the highest scores, highest first, of equal ones the first first. Of many, only those that come into question are sorted."""
    places = np.arange(len(scores))
    if len(scores) > 4 * limit:
        places = np.flatnonzero(scores >= np.partition(scores, -limit)[-limit])
    return places[np.argsort(-scores[places], kind="stable")[:limit]]


def stacked(vectors: Sequence[bytes]) -> NDArray[np.float32]:
    return np.frombuffer(b"".join(vectors), dtype=np.float32).reshape(len(vectors), -1 if vectors else 0)
