"""Passages whose vectors are compared with a question's one by one: all of a small store, those of chosen documents, and what an index has still to learn."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
"""What is kept to be compared is copied without the rows that are out of date when they are more than this and half as many as the others."""

ROUNDED = 1e-3
"""By so much a cosine that Chroma says may differ from that of the store's vectors, at the most."""


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
    place: dict[str, int]
    """The row of each passage that is there."""
    room: NDArray[np.float32]
    """The matrix of `known` is the used part of it."""
    gone: set[str]
    """The passages that went."""

    def tidied(self) -> Followed:
        """A copy without the rows that are out of date, where those are most."""
        known = self.known
        if len(known.there) <= len(self.place) * 3 // 2 + OUTDATED:
            return self
        rows = sorted(self.place.values())
        ids, room = [known.ids[row] for row in rows], known.matrix[rows]
        left = Known(known.changes, ids, [known.documents[row] for row in rows], room, np.ones(len(ids), dtype=np.bool_))
        return Followed(left, self.last, {one: row for row, one in enumerate(ids)}, room, self.gone)

    def grown(self, changes: int, last: int, new: Sequence[Sequence[Any]], changed: Iterable[str]) -> Followed:
        """The same with new rows (passage, document, vector) behind it. Of the passages that `changed` what was there is out of date.

        Lists and room are shared with what was before, which looks at their beginnings alone.
        """
        known, used, room = self.known, len(self.known.there), self.room
        if new:
            added = stacked([row[2] for row in new])
            if used + len(new) > len(room):
                room = np.empty((used + len(new) + used // 4, added.shape[1]), dtype=np.float32)
                if used:
                    room[:used] = known.matrix
            room[used : used + len(new)] = added
        there = np.concatenate([known.there, np.ones(len(new), dtype=np.bool_)])
        changed = list(changed)
        # A passage that comes again comes last, and with another vector it may be, or it is gone.
        there[[self.place.pop(one) for one in changed if one in self.place]] = False
        # Never more than are gone, not for a moment: a search under way may be looking.
        came = {row[0] for row in new}
        self.gone.difference_update(came)
        self.gone.update(one for one in changed if one not in came)
        self.place.update((row[0], used + number) for number, row in enumerate(new))
        known.ids.extend(row[0] for row in new)
        known.documents.extend(row[1] for row in new)
        return Followed(Known(changes, known.ids, known.documents, room[: used + len(new)], there), last, self.place, room, self.gone)

    def without(self, ids: Collection[str]) -> Followed:
        """The same without these passages, there or gone, which are nobody's concern here any more."""
        there = self.known.there.copy()
        there[[self.place.pop(one) for one in ids if one in self.place]] = False
        self.gone.difference_update(ids)
        return replace(self, known=replace(self.known, there=there, seen={}))


def _nothing() -> Followed:
    return Followed(Known(-2, [], [], stacked([]), np.zeros(0, dtype=np.bool_)), 0, {}, stacked([]), set())


class ExactSearch:
    """Compares passages of the store in `database`, and keeps what it has read of them from question to question."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._size = (-1, False)
        self._many: tuple[int, set[str]] = (-1, set())
        self._everything: Followed | None = None
        self._recent: Followed | None = None
        self._following = threading.Lock()

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
        every = self._everything
        if every is not None and every.known.changes == self._database.changes:  # without waiting for whoever changes something now
            return every.known
        with self._kept():
            every = self._everything = self._all() if self._everything is None else self._up_to_date(self._everything)
            return every.known

    def recall(self) -> Followed:
        """What the index has still to learn; of what came to it since the last time alone the vectors are read."""
        recent = self._recent
        if recent is not None and recent.known.changes == self._database.changes:
            return recent
        with self._kept():
            recent = self._recent = self._up_to_date(self._recent or _nothing())
            return recent

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """One at a time may touch what is kept. Whatever ends that in the middle, an interrupt say, all is read anew: half a change would be worse."""
        with self._following:
            try:
                yield
            except BaseException:
                self._everything = self._recent = None
                raise

    def _all(self) -> Followed:
        changes = self._database.changes
        # First, so that what changes while the rest is read is read again.
        ((last,),) = self._database.rows("SELECT coalesce(max(rowid), 0) FROM pending")
        rows = self._database.rows("SELECT p.id, p.document_id, v.vector FROM passages p JOIN vectors v USING (content_key) ORDER BY p.number")
        return _nothing().grown(changes, last, rows, ())

    def _up_to_date(self, before: Followed) -> Followed:
        """The same after what has changed since. All of that is read at one moment."""
        changes = self._database.changes
        if before.known.changes == changes:
            return before
        rows = self._database.rows(
            "SELECT n.rowid, n.passage_id, p.document_id, v.vector FROM pending n LEFT JOIN passages p ON p.id = n.passage_id "
            "LEFT JOIN vectors v ON v.content_key = p.content_key WHERE n.rowid > ? ORDER BY n.rowid",
            (before.last,),
        )
        last = rows[-1][0] if rows else before.last
        return before.tidied().grown(changes, last, [row[1:] for row in rows if row[3] is not None], [row[1] for row in rows])

    @contextmanager
    def taken_out(self, ids: Collection[str]) -> Iterator[None]:
        """For whoever takes these passages out of `pending`, as the index has learned of them, with the writers' lock held. The numbers of rows are given
        again, so what is kept is brought up to date before, and nobody goes on from it in between."""
        with self._kept():
            if self._everything is not None:
                self._everything = None if self.large() else self._up_to_date(self._everything)
            if self._recent is not None:
                self._recent = self._up_to_date(self._recent)
            yield
            ((last,),) = self._database.rows("SELECT coalesce(max(rowid), 0) FROM pending")
            if self._everything is not None:
                self._everything = replace(self._everything, last=last, gone=set())
            if self._recent is not None:
                self._recent = replace(self._recent.without(ids), last=last)

    def forget(self) -> None:
        """Forgets all vectors, as they are about to be others."""
        with self._following:
            self._recent = self._everything = None

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
