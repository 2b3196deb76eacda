"""Passages whose vectors are compared with a question's one by one: all of a small store, those of chosen documents, and what an index has still to learn."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
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
class Recent:
    """What the index has still to learn, up to row `last` of it: each passage's row in `known`, whose matrix is the used part of `room`."""

    known: Known
    last: int
    place: dict[str, int]
    room: NDArray[np.float32]
    gone: set[str]
    """The passages that went; grown in place, as only their number matters."""


class ExactSearch:
    """Compares passages of the store in `database`, and keeps what it has read of them from question to question."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: Known | None = None
        self._size = (-1, False)
        self._many: tuple[int, set[str]] = (-1, set())
        self._recent: Recent | None = None
        self._recalling = threading.Lock()

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
        if not known.ids:
            return [[] for _ in vectors]
        there = known.there
        if document_ids is not None:
            chosen = set(document_ids)
            there = there & np.fromiter((document in chosen for document in known.documents), dtype=np.bool_, count=len(known.documents))
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
        pieces = [piece for piece in (*pieces, stacked([row[3] for row in rows])) if len(piece)] or [stacked([])]
        matrix = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        ids, documents, keys = [*ids, *(row[0] for row in rows)], [*documents, *(row[1] for row in rows)], [*keys, *(row[2] for row in rows)]
        known = self._known = Known(changes, ids, documents, matrix, np.ones(len(ids), dtype=np.bool_), keys)
        return known

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
            mask = known.seen[viewer] = np.fromiter((document in own for document in known.documents), dtype=np.bool_, count=len(known.documents))
        return mask

    def recall(self) -> Recent:
        """What the index has still to learn; of what came to it since the last time alone the vectors are read."""
        with self._recalling:
            recent, changes = self._recent, self._database.changes
            if recent is not None and recent.known.changes == changes:
                return recent
            if recent is None or len(recent.known.ids) > 2 * len(recent.place) + OUTDATED:
                nothing = np.zeros(0, dtype=np.bool_)
                recent = Recent(Known(changes, [], [], stacked([]), nothing), 0, {}, stacked([]), set())
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
                added = stacked([row[2] for row in new])
                if used + len(new) > len(room):
                    room = np.empty((max(2 * len(room), used + len(new)), added.shape[1]), dtype=np.float32)
                    if used:
                        room[:used] = before.matrix
                room[used : used + len(new)] = added
            ids, documents = [*before.ids, *(row[0] for row in new)], [*before.documents, *(row[1] for row in new)]
            recent = self._recent = Recent(Known(changes, ids, documents, room[: len(ids)], there), last, place, room, recent.gone)
            return recent

    def forget_recent(self) -> None:
        """For whoever takes rows out of `pending`, with the writers' lock held: their numbers are given again."""
        with self._recalling:
            self._recent = None

    def forget(self) -> None:
        """Forgets all vectors, as they are about to be others."""
        self.forget_recent()
        self._known = None

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
