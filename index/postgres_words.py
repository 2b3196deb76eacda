"""Keyword search over PostgreSQL: BM25 from postings that are kept as arrays of bytes, a row for each term and segment.

A transaction that adds passages writes one segment and locks nobody else's; segments of a size are merged in the background. A question reads the rows of
its own words and no passage that holds none of them. docs/scale.md has what was measured beside a row a posting, and beside tsvector with GIN.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from index import postings
from index.postgres_database import PostgresDatabase
from index.postgres_schema import INCARNATION, lock_of
from index.postings import Counted

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from psycopg import Connection


QUERY_WORDS = 300
"""Of a longer question, so many different words are searched for."""

SMALLEST, TOGETHER = 128, 8
"""Segments are of a size where they have up to so many passages, and up to so many times that, and so on; so many of a size become one."""

GONE_SHARE, GONE_LEAST = 0.05, 1_000
"""Segments are written anew without the passages that are gone when those are so large a part of all, and more than so many."""

ALLOWED = 20_000
"""Where a question is of documents with up to so many passages, those are read first; otherwise what is found is looked up in steps of so many."""

ATTEMPTS = 3
"""A question begins anew where what it found was replaced meanwhile, so often in all."""

FEW_DOCUMENTS = 2_000
"""More documents than that are never few."""

TIDYING = lock_of("segments")

log = logging.getLogger(__name__)


class WordIndex:
    """Which passages hold the words of a question."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._gone: tuple[str, int, NDArray[np.int64]] = ("", -1, np.empty(0, dtype=np.int64))
        """What was gone in a database after so many changes."""

    def add(self, connection: Connection[Any], passages: Iterable[tuple[int, Counted]]) -> None:
        """Makes passages found by their words, inside the caller's transaction."""
        of_terms: dict[str, list[tuple[int, int, int]]] = {}
        numbers = set()
        for number, counted in passages:
            for term, times in counted.terms.items():
                of_terms.setdefault(term, []).append((number, times, counted.words))
                numbers.add(number)
        if not of_terms:
            return
        ((segment,),) = connection.execute("INSERT INTO segments (passages) VALUES (%s) RETURNING number", (len(numbers),)).fetchall()
        with connection.cursor() as cursor, cursor.copy("COPY postings (term, segment, entries) FROM STDIN (FORMAT binary)") as rows:
            rows.set_types(["text", "int8", "bytea"])
            for term in sorted(of_terms):
                rows.write_row((term, segment, postings.packed(of_terms[term])))

    def drop(self, connection: Connection[Any], documents: Sequence[int]) -> None:
        """Has the passages of documents found no more, inside the caller's transaction and while they are still there."""
        connection.execute(
            "INSERT INTO gone SELECT number FROM passages WHERE document = ANY(%s) AND terms > 0 ON CONFLICT DO NOTHING", (list(documents),)
        )

    def matching(self, question: str, limit: int, document_ids: Sequence[str] | None, viewer: str | None) -> list[tuple[str, float]]:
        """Passage ids, best first, with their BM25; of these documents, and of what this user sees, where either is given."""
        words = postings.asked(question, QUERY_WORDS)
        if not words or limit < 1 or (document_ids is not None and not document_ids):
            self._database.rows("SELECT 1")
            return []
        for left in reversed(range(ATTEMPTS)):
            found, changes = self._found(words, limit, document_ids, viewer)
            # Where nothing was left out, nothing can have been replaced.
            if changes is None or not left or self._database.rows("SELECT changes FROM store") == [(changes,)]:
                break
        return found

    def _found(
        self, words: Sequence[tuple[str, ...]], limit: int, document_ids: Sequence[str] | None, viewer: str | None
    ) -> tuple[list[tuple[str, float]], int | None]:
        """What is found, and the number of the store's last change where something was left out that may have been replaced since."""
        # One statement, and so one moment: totals, what is gone and the postings belong together. What is gone is read where something has changed since.
        incarnation, known, gone = self._gone
        found: dict[str, list[bytes]] = {}
        passages, total, changes = 0, 0, 0
        for term, entries, *totals in self._database.rows(
            f"SELECT NULL, CASE WHEN {INCARNATION} = %(incarnation)s AND changes = %(known)s THEN NULL "
            "ELSE (SELECT coalesce(string_agg(int8send(passage), '' ORDER BY passage), '') FROM gone) END, passages, words, changes, "
            f"{INCARNATION} FROM store UNION ALL SELECT term, entries, NULL, NULL, NULL, NULL FROM postings WHERE term = ANY(%(terms)s)",
            {"incarnation": incarnation, "known": known, "terms": [term for terms in words for term in terms]},
            binary=True,
        ):
            if term is None:
                passages, total, changes, incarnation = totals
                if entries is not None:
                    gone = np.frombuffer(entries, dtype=">i8").astype(np.int64)
                    self._gone = (incarnation, changes, gone)
            else:
                found.setdefault(term, []).append(entries)
        numbers, scores = postings.ranked(words, found, gone, passages, total / max(passages, 1))
        seen, whole = self._seen(numbers, scores, limit, document_ids, viewer)
        return seen, None if whole else changes

    def _seen(
        self, numbers: NDArray[np.int64], scores: NDArray[np.float64], limit: int, document_ids: Sequence[str] | None, viewer: str | None
    ) -> tuple[list[tuple[str, float]], bool]:
        """The first of these passages that are there still and may be shown, and whether all that were looked at were there."""
        within, values = narrowed(document_ids, viewer)
        whole = True
        if values and few(self._database, within, values, ALLOWED):
            rows = self._database.rows(f"SELECT p.number FROM passages p JOIN documents d ON d.number = p.document WHERE {within}", values)
            allowed = np.isin(numbers, np.array([row[0] for row in rows], dtype=np.int64))
            # Those left out may be others' or replaced.
            numbers, scores, whole = numbers[allowed], scores[allowed], bool(allowed.all())
        found: list[tuple[str, float]] = []
        start, step = 0, 2 * limit
        while len(found) < limit and start < len(numbers):
            some = numbers[start : start + step].tolist()
            ids = dict(
                self._database.rows(
                    f"SELECT p.number, CASE WHEN {within} THEN p.id END FROM passages p JOIN documents d ON d.number = p.document "
                    "WHERE p.number = ANY(%(numbers)s)",
                    {**values, "numbers": some},
                )
            )
            whole = whole and len(ids) == len(some)
            found += [(ids[number], float(scores[start + place])) for place, number in enumerate(some) if ids.get(number)]
            start, step = start + step, min(ALLOWED, 8 * step)
        return found[:limit], whole

    def tidy(self) -> None:
        """Merges segments of a size, and writes them anew where much of them is gone. One process at a time does; nobody waits for it."""
        with self._database.transaction() as connection:
            if not connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (TIDYING,)).fetchone()[0]:
                return
            # Before the segments are listed: each of these is in one of those.
            gone = [row[0] for row in connection.execute("SELECT passage FROM gone ORDER BY passage").fetchall()]
            ((passages,),) = connection.execute("SELECT passages FROM store").fetchall()
            sizes = dict(connection.execute("SELECT number, passages FROM segments").fetchall())
            if len(gone) > max(GONE_LEAST, GONE_SHARE * passages):
                return self._purge(connection, list(sizes), gone)
            for together in mergeable(sizes):
                self._merge(connection, together, sum(sizes[one] for one in together))

    def _merge(self, connection: Connection[Any], segments: Sequence[int], passages: int) -> None:
        """Postings are written one behind the other as they are: the server does it without sending them."""
        ((made,),) = connection.execute("INSERT INTO segments (passages) VALUES (%s) RETURNING number", (passages,)).fetchall()
        connection.execute(
            "INSERT INTO postings SELECT term, %s, string_agg(entries, '' ORDER BY segment) FROM postings WHERE segment = ANY(%s) GROUP BY term ORDER BY term",
            (made, list(segments)),
        )
        self._forget(connection, segments)

    def _forget(self, connection: Connection[Any], segments: Sequence[int]) -> None:
        connection.execute("DELETE FROM postings WHERE segment = ANY(%s)", (list(segments),))
        connection.execute("DELETE FROM segments WHERE number = ANY(%s)", (list(segments),))

    def _purge(self, connection: Connection[Any], segments: Sequence[int], numbers: Sequence[int]) -> None:
        """One segment of all, without what is gone. What goes meanwhile stays noted as gone: only what was seen here is struck off."""
        gone = np.array(numbers, dtype=np.int64)
        ((passages,),) = connection.execute("SELECT sum(passages)::bigint FROM segments WHERE number = ANY(%s)", (list(segments),)).fetchall()
        ((made,),) = connection.execute("INSERT INTO segments (passages) VALUES (%s) RETURNING number", (max(0, passages - len(numbers)),)).fetchall()
        with connection.cursor("purged", binary=True) as read, connection.cursor() as write:
            read.itersize = 2_000
            read.execute(
                "SELECT term, string_agg(entries, '' ORDER BY segment) FROM postings WHERE segment = ANY(%s) GROUP BY term ORDER BY term",
                (list(segments),),
            )
            while some := read.fetchmany(2_000):
                left = [(term, made, kept) for term, entries in some if (kept := postings.without(entries, gone))]
                write.executemany("INSERT INTO postings VALUES (%s, %s, %s)", left)
        self._forget(connection, segments)
        connection.execute("DELETE FROM gone WHERE passage = ANY(%s)", (list(numbers),))


def mergeable(sizes: dict[int, int]) -> list[list[int]]:
    """Groups of segments, by number and size, that are to become one each."""
    of_size: dict[int, list[int]] = {}
    for number, size in sorted(sizes.items()):
        tier, bound = 0, SMALLEST
        while size > bound:
            tier, bound = tier + 1, bound * TOGETHER
        of_size.setdefault(tier, []).append(number)
    return [numbers for numbers in of_size.values() if len(numbers) >= TOGETHER]


def few(database: PostgresDatabase, within: str, values: Mapping[str, Any], most: int) -> bool:
    """Whether the documents that a condition chooses have at most so many passages. Read no further than matters: a user may see nearly all of a large store."""
    ((documents, passages),) = database.rows(
        f"SELECT count(*), coalesce(sum(passages), 0)::bigint FROM (SELECT passages FROM documents d WHERE {within} LIMIT %(most)s) AS few",
        {**values, "most": FEW_DOCUMENTS + 1},
    )
    return bool(documents <= FEW_DOCUMENTS and passages <= most)


def narrowed(document_ids: Sequence[str] | None, viewer: str | None) -> tuple[str, dict[str, Any]]:
    """A condition on documents d, with its values: these alone, and what this user sees."""
    conditions, values = ["true"], {}
    if document_ids is not None:
        conditions.append("d.id = ANY(%(ids)s)")
        values["ids"] = list(document_ids)
    if viewer is not None:
        conditions.append("d.owner = ANY(%(owners)s)")
        values["owners"] = ["", viewer]
    return " AND ".join(conditions), values
