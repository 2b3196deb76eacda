"""The store's tables, and how documents become rows and rows become documents: every row carries a checksum of what it says.

Version 3. A store of version 1 or 2 is taken over in one transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

from index.errors import StoreError
from index.types import Document, Passage, Span

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION = 3

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum BLOB NOT NULL);
CREATE TABLE documents (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, root TEXT NOT NULL, source TEXT NOT NULL, title TEXT NOT NULL, titled INTEGER NOT NULL,
  fingerprint TEXT NOT NULL, size INTEGER NOT NULL, pages TEXT NOT NULL, furniture TEXT NOT NULL, indexed_at TEXT NOT NULL, length INTEGER NOT NULL,
  passages INTEGER NOT NULL, owner TEXT NOT NULL, digest BLOB NOT NULL, checksum BLOB NOT NULL, stamp TEXT NOT NULL, reader INTEGER NOT NULL, text TEXT NOT NULL,
  UNIQUE (root, source));
CREATE INDEX documents_of ON documents (owner, id);
CREATE TABLE passages (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, document_id TEXT NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
  start_at INTEGER NOT NULL, end_at INTEGER NOT NULL, heading TEXT NOT NULL, pages TEXT NOT NULL, content_key BLOB NOT NULL, checksum BLOB NOT NULL);
CREATE INDEX passages_of_document ON passages (document_id, start_at);
CREATE TABLE vectors (content_key BLOB PRIMARY KEY, vector BLOB NOT NULL, checksum BLOB NOT NULL);
CREATE TABLE next_vectors (content_key BLOB PRIMARY KEY, vector BLOB NOT NULL, checksum BLOB NOT NULL);
CREATE VIRTUAL TABLE words USING fts5 (context, text, tokenize = 'porter unicode61 remove_diacritics 2');
CREATE TABLE pending (passage_id TEXT PRIMARY KEY);
CREATE TABLE rejected (
  root TEXT NOT NULL, source TEXT NOT NULL, reason TEXT NOT NULL, fingerprint TEXT NOT NULL, stamp TEXT NOT NULL, reader INTEGER NOT NULL,
  at TEXT NOT NULL, PRIMARY KEY (root, source));
CREATE TABLE lost (root TEXT NOT NULL, source TEXT NOT NULL, PRIMARY KEY (root, source));
CREATE TABLE owners (root TEXT NOT NULL, source TEXT NOT NULL, owner TEXT NOT NULL, checksum BLOB NOT NULL, PRIMARY KEY (root, source));
"""
"""A document's text stands last, so that SQLite reads the other columns without it. `vectors` are shared by all passages of equal content;
`next_vectors` are those of another embedding model, gathered until all are there. `pending` is what the vector index has still to learn: whatever
changes comes to stand last, so that rows up to a number stay what they were.
`lost` is what damage took: with an empty source whatever was in that folder, with an empty root in any. An owner is a user's id, empty for
documents that are shared; `owners` says whose a folder's documents are (with an empty source) or a single one, also before it is read."""

DOCUMENT = "id, root, source, title, titled, fingerprint, size, pages, furniture, indexed_at, length, passages, owner, digest"
"""The columns that a document's checksum covers, in its order; the text by its digest."""

DOCUMENT_2 = DOCUMENT.replace(" owner,", "")
"""The same of version 2."""

UPLOADS = "uploads"
"""The store knows the folder of everybody's uploaded files by this name and not by its path, as it moves with the store."""

OWN_UPLOADS = f"{UPLOADS}/"
"""What a user uploads alone is known by this and the user's id. No synced folder is: those are known by absolute paths."""

NOBODY = "?"
"""The owner of what damage left without one: no user sees it."""

SEEN = "IN (SELECT id FROM documents INDEXED BY documents_of WHERE owner IN ('', ?))"
"""Of a document's id: whether it is shared or belongs to a user. The index alone tells, without the documents being read. Right where all of them are
gone through, as the list is made each time: of 100,000 documents in a good part of a tenth of a second."""

SEEN_EACH = "EXISTS (SELECT 1 FROM documents s INDEXED BY documents_of WHERE s.owner IN ('', ?) AND s.id = p.document_id)"
"""The same of a passage p, looked up for each: right for the few that were found."""

PASSAGES = (
    "SELECT d.source, d.title, w.text, p.id, p.document_id, p.start_at, p.end_at, p.heading, p.pages, p.content_key, p.checksum "
    "FROM passages p JOIN documents d ON d.id = p.document_id JOIN words w ON w.rowid = p.number"
)
"""What read_passage() reads; all but the last is what a passage's checksum covers, in its order."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A document with all that is stored of it: `keys` are the passages' content keys, one a passage; `stamp` and `reader` are those of Known.

    `replaces` is the fingerprint of the version that it was made to take the place of, empty for none: where that has gone or changed meanwhile, the
    entry is out of date. None takes the place of whatever is there.
    """

    document: Document
    root: str
    passages: Sequence[Passage]
    keys: Sequence[bytes]
    stamp: str = ""
    reader: int = 0
    replaces: str | None = None


def now() -> str:
    """The time in UTC as ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def checksum(*values: str | int | bytes) -> bytes:
    """Eight bytes that tell whether a row still says what was written."""
    return blake2b(repr(values).encode("utf-8", "surrogatepass"), digest_size=8).digest()


def digest(text: str) -> bytes:
    """Sixteen bytes that tell whether a document's text is what was written."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def create(connection: sqlite3.Connection) -> None:
    """Makes the tables of an empty store, inside the caller's transaction."""
    for statement in TABLES.split(";\n"):
        if statement.strip():
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {VERSION}")
    set_meta(connection, "format", str(VERSION))


def set_meta(connection: sqlite3.Connection, key: str, value: str) -> None:
    """Writes one of the store's own notes, inside the caller's transaction."""
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (key, value, checksum(key, value)))


def insert_vectors(connection: sqlite3.Connection, vectors: Mapping[bytes, NDArray[np.float32]], made_by: str, table: str = "vectors") -> None:
    """Stores vectors by content key; those that are there stay. Their checksum covers the embedding model too."""
    contents = ((key, np.asarray(vector, dtype=np.float32).tobytes()) for key, vector in vectors.items())
    connection.executemany(
        f"INSERT OR IGNORE INTO {table} VALUES (?, ?, ?)", ((key, content, checksum(key, content, made_by)) for key, content in contents)
    )


OWN_OR_SHARED = f"iif(substr(root, 1, {len(OWN_UPLOADS)}) = '{OWN_UPLOADS}', substr(root, {len(OWN_UPLOADS) + 1}), '')"
"""Whose a folder's files are of which nothing is said, in SQL."""


def owner_of(connection: sqlite3.Connection, root: str, source: str) -> str:
    """Whose a document is to be: what is said of it, else of its folder, else who uploads there, else everybody's."""
    for row in connection.execute(
        "SELECT root, source, owner, checksum FROM owners WHERE root = ? AND source IN (?, '') ORDER BY source DESC", (root, source)
    ):
        return row[2] if checksum(*row[:3]) == row[3] else NOBODY
    # Where damage took what was said, what somebody uploaded alone must not become everybody's.
    return root.removeprefix(OWN_UPLOADS) if root.startswith(OWN_UPLOADS) else ""


def set_owner(connection: sqlite3.Connection, root: str, source: str, owner: str) -> None:
    """Says whose a document is, there or not, or with an empty source whose all of a folder are of which nothing else is said."""
    connection.execute("INSERT OR REPLACE INTO owners VALUES (?, ?, ?, ?)", (root, source, owner, checksum(root, source, owner)))
    which, values = "source = ?", [root, source]
    if not source:
        which, values = "NOT EXISTS (SELECT 1 FROM owners o WHERE o.root = d.root AND o.source = d.source)", [root]
    rows = connection.execute(f"SELECT {DOCUMENT} FROM documents d WHERE root = ? AND {which}", values).fetchall()
    for *before, digested in rows:
        row = (*before[:-1], owner, digested)
        connection.execute("UPDATE documents SET owner = ?, checksum = ? WHERE id = ?", (owner, checksum(*row), row[0]))


REPLACED = """SELECT EXISTS (SELECT 1 FROM documents WHERE id = ?1) OR EXISTS (SELECT 1 FROM passages WHERE document_id = ?1),
  EXISTS (SELECT 1 FROM rejected WHERE root = ?2 AND source = ?3) OR EXISTS (SELECT 1 FROM lost WHERE root = ?2 AND source = ?3)"""
"""Whether anything is known of a document, and of its source: most new ones replace nothing, and to ask once is quicker than to delete five times."""


def insert_document(
    connection: sqlite3.Connection, entry: Entry, indexed_at: str, owner: str | None = None, stored: Container[bytes] = frozenset()
) -> None:
    """Stores a document in place of the version before it, as that of `owner` or of whom owner_of() says. Raises StoreError when a passage's vector is
    missing; those with the content keys `stored` are known to be there."""
    document = entry.document
    owner = owner_of(connection, entry.root, document.source) if owner is None else owner
    ((known, noted),) = connection.execute(REPLACED, (document.id, entry.root, document.source))
    if known:
        remove_document(connection, document.id)
    if noted:
        connection.execute("DELETE FROM rejected WHERE root = ? AND source = ?", (entry.root, document.source))
        connection.execute("DELETE FROM lost WHERE root = ? AND source = ?", (entry.root, document.source))
    furniture = json.dumps([[span.start, span.end] for span in document.furniture])
    row = (
        *(document.id, entry.root, document.source, document.title, int(document.titled), document.fingerprint, document.size),
        *(json.dumps(document.pages), furniture, indexed_at, len(document.text), len(entry.passages), owner, digest(document.text)),
    )
    connection.execute(
        f"INSERT INTO documents ({DOCUMENT}, checksum, stamp, reader, text) VALUES ({', '.join('?' * (len(row) + 4))})",
        (*row, checksum(*row), entry.stamp, entry.reader, document.text),
    )
    for passage, key in zip(entry.passages, entry.keys, strict=True):
        if key not in stored and not connection.execute("SELECT 1 FROM vectors WHERE content_key = ?", (key,)).fetchone():
            raise StoreError(f"A passage of '{document.source}' came without its vector. Nothing was changed; sync the folder again.")
        pages = json.dumps(passage.pages) if passage.pages else ""
        fields = (passage.id, document.id, passage.span.start, passage.span.end, passage.heading, pages, key)
        number = connection.execute(
            "INSERT INTO passages (id, document_id, start_at, end_at, heading, pages, content_key, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*fields, checksum(document.source, document.title, passage.text, *fields)),
        ).lastrowid
        connection.execute("INSERT INTO words (rowid, context, text) VALUES (?, ?, ?)", (number, f"{document.title} {passage.heading}", passage.text))
        connection.execute("INSERT OR REPLACE INTO pending VALUES (?)", (passage.id,))


def remove_document(connection: sqlite3.Connection, document_id: str) -> int:
    """Drops a document with its passages and words, and returns how many passages; its vectors stay until nothing is left that refers to them and a sync has
    ended."""
    removed = connection.execute("INSERT OR REPLACE INTO pending SELECT id FROM passages WHERE document_id = ?", (document_id,))
    connection.execute("DELETE FROM words WHERE rowid IN (SELECT number FROM passages WHERE document_id = ?)", (document_id,))
    connection.execute("DELETE FROM documents WHERE id = ?", (document_id,))
    return removed.rowcount


def read_passage(row: Sequence[Any]) -> Passage | None:
    """A passage from what PASSAGES selects; None where it is not what was written."""
    if checksum(*row[:-1]) != row[-1]:
        return None
    source, title, text, identifier, document_id, start, end, heading, pages, _, _ = row
    marks = tuple((offset, page) for offset, page in json.loads(pages)) if pages else ()
    return Passage(identifier, document_id, source, title, heading, Span(start, end), text, marks)


def read_document(row: Sequence[Any]) -> Document | None:
    """A document from the columns of DOCUMENT or DOCUMENT_2, checksum and text; None where it is not what was written."""
    *fields, checked, text = row
    if checksum(*fields) != checked or not isinstance(text, str) or digest(text) != fields[-1]:
        return None
    identifier, _, source, title, titled, fingerprint, size, pages, furniture, *_ = fields
    spans = tuple(Span(start, end) for start, end in json.loads(furniture))
    return Document(identifier, source, title, text, fingerprint, size, bool(titled), tuple(json.loads(pages)), spans)


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Takes a store of an older version over, inside the caller's transaction. All its documents are shared."""
    if version == 1:
        return _migrate_1(connection)
    connection.execute("ALTER TABLE documents ADD COLUMN owner TEXT NOT NULL DEFAULT ''")
    for statement in TABLES.split(";\n"):
        if "documents_of" in statement or "TABLE owners" in statement:
            connection.execute(statement)
    for row in connection.execute(f"SELECT {DOCUMENT} FROM documents").fetchall():
        connection.execute("UPDATE documents SET checksum = ? WHERE id = ?", (checksum(*row), row[0]))
    connection.execute(f"PRAGMA user_version = {VERSION}")
    set_meta(connection, "format", str(VERSION))


def _migrate_1(connection: sqlite3.Connection) -> None:
    """Files of version 1 are read anew at the next sync, as `reader` is 0."""
    connection.execute("DROP INDEX passages_of_document")
    connection.execute("DROP INDEX passages_by_content")
    for table in ("documents", "passages", "words", "pending", "rejected", "meta"):
        connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    create(connection)
    notes = dict(connection.execute("SELECT key, value FROM old_meta"))
    for key, value in notes.items():
        set_meta(connection, key, value)
    for identifier, root, source, title, text, fingerprint, indexed_at in connection.execute(
        "SELECT id, root, source, title, text, fingerprint, indexed_at FROM old_documents"
    ):
        rows = connection.execute(
            "SELECT p.id, p.heading, p.start_at, p.end_at, w.text, p.content_key, p.vector FROM old_passages p JOIN old_words w ON w.rowid = p.number "
            "WHERE p.document_id = ? ORDER BY p.number",
            (identifier,),
        ).fetchall()
        passages = [Passage(one, identifier, source, title, heading, Span(start, end), words) for one, heading, start, end, words, _, _ in rows]
        insert_vectors(connection, {key: np.frombuffer(vector, dtype=np.float32) for *_, key, vector in rows}, notes["embedder"])
        entry = Entry(Document(identifier, source, title, text, fingerprint), root, passages, [row[-2] for row in rows])
        insert_document(connection, entry, indexed_at)
    connection.execute("DELETE FROM pending")
    connection.execute("INSERT INTO pending SELECT passage_id FROM old_pending")
    connection.execute("INSERT INTO rejected SELECT root, source, reason, '', '', 0, ? FROM old_rejected", (now(),))
    for table in ("passages", "words", "pending", "rejected", "meta", "documents"):
        connection.execute(f"DROP TABLE old_{table}")
