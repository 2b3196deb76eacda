"""The store: SQLite holds the truth, Chroma an index of its vectors that can be rebuilt at will.

One SQLite transaction makes a document visible or gone: text, passages, vectors, words and the list of what Chroma has still to learn
(`pending`) change together.
Chroma is brought up to date afterwards; where it is broken, missing or behind, it is rebuilt from the vectors in SQLite into a new folder.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from index.errors import CitewellError, EmbedderChanged, StoreDamaged, StoreError, StoreInUse, StoreTooNew
from index.types import Document, DocumentInfo, Passage, Span
from index.words import content_words

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION = 1
COLLECTION = "passages"

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE documents (
  id TEXT PRIMARY KEY, root TEXT NOT NULL, source TEXT NOT NULL, title TEXT NOT NULL, text TEXT NOT NULL,
  fingerprint TEXT NOT NULL, indexed_at TEXT NOT NULL, UNIQUE (root, source));
CREATE TABLE passages (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, document_id TEXT NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
  start_at INTEGER NOT NULL, end_at INTEGER NOT NULL, heading TEXT NOT NULL, content_key BLOB NOT NULL, vector BLOB NOT NULL);
CREATE INDEX passages_of_document ON passages (document_id, start_at);
CREATE INDEX passages_by_content ON passages (content_key);
CREATE VIRTUAL TABLE words USING fts5 (context, text, tokenize = 'porter unicode61 remove_diacritics 2');
CREATE TABLE pending (passage_id TEXT PRIMARY KEY);
CREATE TABLE rejected (root TEXT NOT NULL, source TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (root, source));
"""

PASSAGE_COLUMNS = (
    "p.number, p.id, p.document_id, d.source, d.title, p.heading, p.start_at, p.end_at, substr(d.text, p.start_at + 1, p.end_at - p.start_at)"
)

QUERY_WORDS = 300
"""Of a longer question, so many different words are searched for."""

log = logging.getLogger(__name__)


class _IndexBroken(StoreError):
    """Chroma failed; SQLite still holds everything, so the answer is to rebuild."""


@contextmanager
def _chroma() -> Iterator[None]:
    """Gives whatever Chroma raises one name. Its Rust panics are no Exceptions."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, CitewellError):
        raise
    except BaseException as error:
        raise _IndexBroken(
            f"The vector index cannot be used ({type(error).__name__}: {error}). "
            "Your documents are safe: check the free disk space and open the store again."
        ) from error


class Store:
    """Documents, passages and their vectors in one folder, owned by one process at a time.

    Raises on opening: StoreInUse (another process owns the folder), StoreTooNew, StoreDamaged, EmbedderChanged, StoreError (folder cannot be
    written). Everything raises StoreError once the store is closed.
    """

    def __init__(self, folder: Path, embedder_identity: str) -> None:
        self.folder = folder
        self._local = threading.local()
        self._connections: list[tuple[threading.Thread, sqlite3.Connection]] = []
        self._connecting = threading.Lock()
        self._client: Any = None
        self._collection: Any = None
        self._writing = threading.RLock()
        self._closed = False
        self._lock = FileLock(folder / "lock", thread_local=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            self._owner_file.write_text(json.dumps({"pid": os.getpid(), "address": None}), encoding="utf-8")
        except Timeout:
            raise StoreInUse(*owner(folder)) from None
        except OSError as error:
            self._lock.release()
            raise StoreError(f"The data folder {folder} cannot be written ({error.strerror}). Choose another with CITEWELL_DATA_DIR.") from error
        try:
            self._open_sqlite(embedder_identity)
            self._open_chroma()
            self._catch_up()
        except BaseException:
            self.close()
            raise

    # Opening and closing

    @property
    def _owner_file(self) -> Path:
        return self.folder / "owner.json"

    def announce(self, address: str) -> None:
        """Leaves the address at which this process answers, for others who want the same store."""
        if self._closed:
            raise self._closed_error()
        scratch = self._owner_file.with_suffix(".new")
        scratch.write_text(json.dumps({"pid": os.getpid(), "address": address}), encoding="utf-8")
        os.replace(scratch, self._owner_file)

    def close(self) -> None:
        """Gives the folder back. Safe to call twice."""
        if self._closed:
            return
        with self._writing, self._connecting:
            self._closed = True
            for thread, connection in self._connections:
                # One that another thread may be reading from closes itself when that thread lets go of it; closing it here could crash the process.
                if thread is threading.current_thread() or not thread.is_alive():
                    with suppress(sqlite3.Error):
                        connection.close()
            self._connections.clear()
            self._disconnect_chroma()
        with suppress(OSError):
            self._owner_file.unlink(missing_ok=True)
        self._lock.release()

    @property
    def _connection(self) -> sqlite3.Connection:
        """This thread's connection. Those of threads that have ended are closed when a new one is made."""
        if self._closed:
            raise self._closed_error()
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            with self._connecting:
                if self._closed:
                    raise self._closed_error()
                connection = sqlite3.connect(self.folder / "citewell.sqlite3", isolation_level=None, check_same_thread=False, timeout=30)
                for _, old in [pair for pair in self._connections if not pair[0].is_alive()]:
                    old.close()
                self._connections = [pair for pair in self._connections if pair[0].is_alive()]
                self._connections.append((threading.current_thread(), connection))
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            self._local.connection = connection
        return connection

    @staticmethod
    def _closed_error() -> StoreError:
        return StoreError("This store has been closed; open it again with open_assistant().")

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query. Raises StoreDamaged where the file cannot be read."""
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            if self._closed:
                raise self._closed_error() from error
            raise StoreDamaged(
                f"The store's file {self.folder / 'citewell.sqlite3'} cannot be read ({error}). "
                f"Move the folder {self.folder} aside and sync your documents again."
            ) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._writing:
            connection = self._connection
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise StoreError(
                    f"The store in {self.folder} could not be written ({error}). Nothing was changed. Check the free disk space."
                ) from error
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

    def _open_sqlite(self, embedder_identity: str) -> None:
        version = self._rows("PRAGMA user_version")[0][0]
        if version > VERSION:
            raise StoreTooNew(
                f"The store in {self.folder} was written by a newer Citewell (format {version}; this one knows {VERSION}). "
                "Update Citewell, or set another CITEWELL_DATA_DIR."
            )
        if version == 0:
            with self._transaction() as connection:
                for statement in SCHEMA.split(";\n"):
                    if statement.strip():
                        connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {VERSION}")
                connection.execute("INSERT INTO meta VALUES ('embedder', ?)", (embedder_identity,))
        made_by = self._meta("embedder")
        if made_by != embedder_identity:
            if self.passage_count():
                raise EmbedderChanged(
                    f"The store in {self.folder} was made with the embedding model '{made_by}', but '{embedder_identity}' is set. "
                    "Set CITEWELL_EMBEDDER back, or choose another CITEWELL_DATA_DIR and sync again."
                )
            with self._transaction() as connection:
                connection.execute("INSERT OR REPLACE INTO meta VALUES ('embedder', ?)", (embedder_identity,))

    def _meta(self, key: str) -> str | None:
        rows = self._rows("SELECT value FROM meta WHERE key = ?", (key,))
        return rows[0][0] if rows else None

    # Chroma

    def _open_chroma(self) -> None:
        current = self._meta("chroma")
        for leftover in self.folder.glob("chroma-*"):
            if leftover.name != current:
                shutil.rmtree(leftover, ignore_errors=True)
        if current is not None and (self.folder / current).is_dir():
            try:
                self._connect_chroma(self.folder / current)
                return
            except _IndexBroken as error:
                log.warning("%s It is being rebuilt from the store.", error)
        self._rebuild()

    def _connect_chroma(self, folder: Path) -> None:
        import chromadb

        self._disconnect_chroma()
        with _chroma():
            self._client = chromadb.PersistentClient(str(folder), settings=chromadb.Settings(anonymized_telemetry=False))
            # sync_threshold: below it Chroma never rewrites its index files, which a kill would leave broken.
            self._collection = self._client.get_or_create_collection(
                COLLECTION, embedding_function=None, configuration={"hnsw": {"space": "cosine", "sync_threshold": 1_000_000, "ef_search": 200}}
            )

    def _disconnect_chroma(self) -> None:
        client, self._client, self._collection = self._client, None, None
        if client is not None:
            with suppress(StoreError), _chroma():
                client.close()

    def _rebuild(self) -> None:
        """A new Chroma folder, to be filled from the vectors in SQLite by _tell_chroma; the old one goes."""
        old = self._meta("chroma")
        name = f"chroma-{int(old.rpartition('-')[2]) + 1 if old else 1}"
        shutil.rmtree(self.folder / name, ignore_errors=True)
        self._connect_chroma(self.folder / name)
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('chroma', ?)", (name,))
            connection.execute("INSERT OR IGNORE INTO pending SELECT id FROM passages")
        if old:
            shutil.rmtree(self.folder / old, ignore_errors=True)

    def _catch_up(self) -> None:
        """Tells Chroma everything in `pending`, and rebuilds it where it fails or does not hold what the store holds."""
        with self._writing:
            try:
                self._tell_chroma()
                with _chroma():
                    held = self._collection.count()
                if held == self.passage_count():
                    return
                log.warning("The vector index holds %d passages and the store %d; it is being rebuilt.", held, self.passage_count())
            except _IndexBroken as error:
                log.warning("%s It is being rebuilt from the store.", error)
            self._rebuild()
            self._tell_chroma()

    def _tell_chroma(self) -> None:
        """Doing it twice is harmless, so a kill in the middle is too."""
        with _chroma():
            limit = min(5_000, self._client.get_max_batch_size())
        while ids := [row[0] for row in self._rows("SELECT passage_id FROM pending LIMIT ?", (limit,))]:
            marks = ",".join("?" * len(ids))
            known = self._rows(f"SELECT id, vector, document_id FROM passages WHERE id IN ({marks})", ids)
            gone = list(set(ids) - {row[0] for row in known})
            with _chroma():
                if known:
                    self._collection.upsert(
                        ids=[row[0] for row in known],
                        embeddings=[np.frombuffer(row[1], dtype=np.float32) for row in known],
                        metadatas=[{"document": row[2]} for row in known],
                    )
                if gone:
                    self._collection.delete(ids=gone)
            with self._transaction() as connection:
                connection.execute(f"DELETE FROM pending WHERE passage_id IN ({marks})", ids)

    # Writing

    def put(self, document: Document, root: str, passages: Sequence[Passage], keys: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """Makes a document visible, in place of the version before it. `keys` are the passages' content keys, `vectors` one row a passage."""
        with self._transaction() as connection:
            self._remove_rows(connection, document.id)
            connection.execute("DELETE FROM rejected WHERE root = ? AND source = ?", (root, document.source))
            connection.execute(
                "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    document.id,
                    root,
                    document.source,
                    document.title,
                    document.text,
                    document.fingerprint,
                    datetime.now(UTC).isoformat(timespec="seconds"),
                ),
            )
            for passage, key, vector in zip(passages, keys, vectors, strict=True):
                number = connection.execute(
                    "INSERT INTO passages (id, document_id, start_at, end_at, heading, content_key, vector) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        passage.id,
                        document.id,
                        passage.span.start,
                        passage.span.end,
                        passage.heading,
                        key,
                        np.asarray(vector, dtype=np.float32).tobytes(),
                    ),
                ).lastrowid
                connection.execute(
                    "INSERT INTO words (rowid, context, text) VALUES (?, ?, ?)", (number, f"{document.title} {passage.heading}", passage.text)
                )
                connection.execute("INSERT OR IGNORE INTO pending VALUES (?)", (passage.id,))
        self._catch_up()

    def reject(self, root: str, source: str, reason: str) -> None:
        """Remembers why a file is not a document; a version indexed earlier goes, as it is not what the folder holds any more."""
        with self._transaction() as connection:
            for (identifier,) in connection.execute("SELECT id FROM documents WHERE root = ? AND source = ?", (root, source)).fetchall():
                self._remove_rows(connection, identifier)
            connection.execute("INSERT OR REPLACE INTO rejected VALUES (?, ?, ?)", (root, source, reason))
        self._catch_up()

    def remove(self, document_id: str) -> None:
        """Makes a document gone. Raises KeyError when there is none."""
        self.info(document_id)
        with self._transaction() as connection:
            self._remove_rows(connection, document_id)
        self._catch_up()

    def forget_rejected(self, root: str, sources: Iterable[str]) -> None:
        """Drops the notes about rejected files that are no longer in the folder."""
        with self._transaction() as connection:
            connection.executemany("DELETE FROM rejected WHERE root = ? AND source = ?", [(root, source) for source in sources])

    @staticmethod
    def _remove_rows(connection: sqlite3.Connection, document_id: str) -> None:
        connection.execute("INSERT OR IGNORE INTO pending SELECT id FROM passages WHERE document_id = ?", (document_id,))
        connection.execute("DELETE FROM words WHERE rowid IN (SELECT number FROM passages WHERE document_id = ?)", (document_id,))
        connection.execute("DELETE FROM documents WHERE id = ?", (document_id,))

    # Reading

    def text(self, document_id: str) -> str:
        """A document's stored text. Raises KeyError when there is none."""
        rows = self._rows("SELECT text FROM documents WHERE id = ?", (document_id,))
        if not rows:
            raise KeyError(document_id)
        return str(rows[0][0])

    def info(self, document_id: str) -> DocumentInfo:
        """What a listing says of one document. Raises KeyError when there is none."""
        for document in self.documents(document_id):
            return document
        raise KeyError(document_id)

    def documents(self, document_id: str | None = None) -> list[DocumentInfo]:
        """All documents by source, or the one asked for."""
        where = "" if document_id is None else "WHERE d.id = ?"
        rows = self._rows(
            "SELECT d.id, d.source, d.title, length(d.text), (SELECT count(*) FROM passages p WHERE p.document_id = d.id), d.indexed_at "
            f"FROM documents d {where} ORDER BY d.source, d.root",
            () if document_id is None else (document_id,),
        )
        return [DocumentInfo(*row) for row in rows]

    def fingerprints(self, root: str) -> dict[str, tuple[str, str]]:
        """What is stored of one synced folder: source to (document id, fingerprint)."""
        return {row[0]: (row[1], row[2]) for row in self._rows("SELECT source, id, fingerprint FROM documents WHERE root = ?", (root,))}

    def rejected(self, root: str | None = None) -> dict[str, str]:
        """Files that could not become documents: source to reason."""
        return dict(self._rows("SELECT source, reason FROM rejected WHERE ? IS NULL OR root = ? ORDER BY source", (root, root)))

    def passage_count(self) -> int:
        return int(self._rows("SELECT count(*) FROM passages")[0][0])

    def vectors_by_content(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """Vectors that some passage with the same content has already: content key to vector."""
        found: dict[bytes, NDArray[np.float32]] = {}
        for start in range(0, len(keys), 500):
            batch = list(keys[start : start + 500])
            rows = self._rows(f"SELECT content_key, vector FROM passages WHERE content_key IN ({','.join('?' * len(batch))})", batch)
            found.update((row[0], np.frombuffer(row[1], dtype=np.float32)) for row in rows)
        return found

    def passages(self, ids: Sequence[str]) -> dict[str, Passage]:
        """The passages with these ids, those that are gone left out."""
        rows = self._rows(
            f"SELECT {PASSAGE_COLUMNS} FROM passages p JOIN documents d ON d.id = p.document_id WHERE p.id IN ({','.join('?' * len(ids))})", list(ids)
        )
        return {row[1]: _passage(row) for row in rows}

    def edges(self, document_id: str) -> list[Passage]:
        """A document's first and last passage, where bylines and dates stand; one passage when it has but one."""
        rows = self._rows(
            f"SELECT {PASSAGE_COLUMNS} FROM passages p JOIN documents d ON d.id = p.document_id WHERE p.document_id = ? ORDER BY p.start_at",
            (document_id,),
        )
        return [_passage(row) for row in ([rows[0], rows[-1]] if len(rows) > 1 else rows)]

    def nearest(self, vector: NDArray[np.float32], limit: int, document_ids: Sequence[str] | None = None) -> list[tuple[str, float]]:
        """Passage ids by meaning, nearest first, with their cosine similarity to the unit `vector`."""
        if limit < 1 or (document_ids is not None and not document_ids) or not self.passage_count():
            return []
        where = None if document_ids is None else {"document": {"$in": list(document_ids)}}
        try:
            found = self._query_chroma(vector, limit, where)
        except _IndexBroken:
            with self._writing:  # whoever held this may just have mended it
                try:
                    found = self._query_chroma(vector, limit, where)
                except _IndexBroken as error:
                    log.warning("%s It is being rebuilt from the store.", error)
                    self._rebuild()
                    self._tell_chroma()
                    found = self._query_chroma(vector, limit, where)
        return [(identifier, 1.0 - float(distance)) for identifier, distance in zip(found["ids"][0], found["distances"][0], strict=True)]

    def _query_chroma(self, vector: NDArray[np.float32], limit: int, where: dict[str, Any] | None) -> Any:
        with _chroma():
            return self._collection.query(query_embeddings=[vector], n_results=limit, where=where, include=["distances"])

    def matching(self, query: str, limit: int, document_ids: Sequence[str] | None = None) -> list[tuple[str, float]]:
        """Passage ids by words (BM25 over passage, title and headings), best first, with a score that grows with the match."""
        terms = list(dict.fromkeys(word.lower() for word in content_words(query)))[:QUERY_WORDS]
        if not terms or (document_ids is not None and not document_ids):
            return []
        # FTS5 stems the words as it stemmed the text; quoting keeps its operators out of a user's question.
        expression = " OR ".join(f'"{term}"' for term in terms)
        chosen = "" if document_ids is None else "AND p.document_id IN (SELECT value FROM json_each(?))"
        rows = self._rows(
            "SELECT p.id, -bm25(words, 0.5, 1.0) FROM words JOIN passages p ON p.number = words.rowid "
            f"WHERE words MATCH ? {chosen} ORDER BY bm25(words, 0.5, 1.0) LIMIT ?",
            [expression, *([] if document_ids is None else [json.dumps(list(document_ids))]), limit],
        )
        return [(row[0], float(row[1])) for row in rows]


def _passage(row: Sequence[Any]) -> Passage:
    _, identifier, document_id, source, title, heading, start, end, text = row
    return Passage(identifier, document_id, source, title, heading, Span(start, end), text)


def owner(folder: Path) -> tuple[str, str | None]:
    """What to tell somebody who finds the store taken, and the owner's address if it gave one."""
    try:
        owner = json.loads((folder / "owner.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        owner = None
    if not isinstance(owner, dict):
        owner = {}
    address = owner.get("address")
    who = f"another Citewell process (pid {owner['pid']})" if owner.get("pid") else "another Citewell process"
    where = f"It answers at {address}: ask there, or stop it first." if address else "Wait for it to finish, or stop it first."
    return f"The store in {folder} is in use by {who}. {where}", address
