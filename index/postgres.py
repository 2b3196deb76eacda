"""The shared store: PostgreSQL holds the truth for any number of processes and machines, a Chroma server has the vectors' index.

It keeps the contract of index.contract, as index.store does for one machine. A reader never waits. Writers of different files wait for each other only
for the moment in which they commit: each locks the files that it changes, in one order, and the one row of totals last of all.
"""

from __future__ import annotations

import atexit
import json
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from index.chroma_server import ChromaAddress
from index.errors import EmbedderChanged, StoreError, StoreTooNew
from index.postgres_database import PostgresDatabase, patient
from index.postgres_schema import (
    DOCUMENT,
    FORMAT,
    INCARNATION,
    OWN_OR_SHARED,
    PASSAGES,
    SCHEMA,
    TABLES,
    document_row,
    kept,
    lock_of,
    read_document,
    read_passage,
    told,
)
from index.postgres_words import WordIndex, narrowed
from index.postings import Counted, counted
from index.schema import OWN_UPLOADS, UPLOADS, Entry, now
from index.shared_vectors import TELLING, SharedVectors
from index.store import EMBEDDED_AT_ONCE
from index.types import Document, DocumentInfo, Known, Passage, Rejection, Span

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from psycopg import Connection

    from index.vectors import State

SWEEP = lock_of("vectors of no passage")
"""Held together by all that rely on the vectors that there are, and alone by whoever drops those that no passage refers to."""

ASKED_AGAIN_SECONDS = 0.2
"""How often whoever would have that lock alone, and must not wait for it, asks for it."""

LOCKED_SINGLY = 200
"""Up to so many files of a folder are locked one by one."""

_open_stores: weakref.WeakSet[PostgresStore] = weakref.WeakSet()


@atexit.register
def _close_stores() -> None:
    """A process that ends without closing its stores hangs up in order."""
    for store in list(_open_stores):
        store.close()


class PostgresStore:
    """Documents, passages and their vectors in one PostgreSQL database, shared by all processes that open it.

    `folder` is this process's own data folder: nothing of the store is in it. Raises on opening: InvalidSettings, StoreTooNew, EmbedderChanged, StoreError.
    """

    def __init__(self, folder: Path, url: str, chroma: ChromaAddress, embedder_identity: str, reembed: bool = False) -> None:
        self.folder = folder.absolute()
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"The data folder {folder} cannot be written ({error.strerror}). Choose another with CITEWELL_DATA_DIR.") from error
        self._embedder = embedder_identity
        self._syncing = threading.local()
        self._database = PostgresDatabase(url)
        try:
            self._open(embedder_identity, reembed)
            self._words = WordIndex(self._database)
            self._vectors = SharedVectors(self._database, chroma, embedder_identity, self._words.tidy)
        except BaseException:
            self._database.close()
            raise
        _open_stores.add(self)

    # Opening and closing

    def _open(self, embedder_identity: str, reembed: bool) -> None:
        with self._database.transaction() as connection:
            # One makes the tables, the others wait and find them.
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (lock_of("opening"),))
            if not connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (SCHEMA,)).fetchone():
                connection.execute(f"CREATE SCHEMA {SCHEMA}")
            if not connection.execute("SELECT 1 FROM pg_tables WHERE schemaname = %s AND tablename = 'store'", (SCHEMA,)).fetchone():
                for statement in TABLES.split(";\n"):
                    connection.execute(statement)
            connection.execute(
                f"INSERT INTO store (identity, incarnation, format, embedder) VALUES (%s, {INCARNATION}, %s, %s) ON CONFLICT DO NOTHING",
                (secrets.token_hex(8), FORMAT, embedder_identity),
            )
            (version, made_by, passages) = connection.execute("SELECT format, embedder, passages FROM store FOR UPDATE").fetchone()
            if version > FORMAT:
                raise StoreTooNew(f"The shared store was written by a newer Citewell (format {version}; this one knows {FORMAT}). Update Citewell.")
            if made_by != embedder_identity and not passages:
                # Nobody may be about to add vectors of the other model.
                if not connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (SWEEP,)).fetchone()[0]:
                    raise EmbedderChanged(
                        f"Another Citewell is adding documents to the shared store with the embedding model '{made_by}', and '{embedder_identity}' is set. "
                        "Set CITEWELL_EMBEDDER to the same everywhere."
                    )
                connection.execute("TRUNCATE vectors, next_vectors")
                connection.execute("UPDATE store SET embedder = %s, collection = '', changes = changes + 1", (embedder_identity,))
            elif made_by != embedder_identity and not reembed:
                raise EmbedderChanged(
                    f"The shared store was made with the embedding model '{made_by}', but '{embedder_identity}' is set. "
                    "`citewell reembed` makes new vectors of all passages; or set CITEWELL_EMBEDDER back."
                )

    def announce(self, address: str, key: str = "") -> None:
        """Nobody has to be asked: whoever wants this store opens it too."""
        self._database.rows("SELECT 1")

    def close(self) -> None:
        """Ends what is under way and closes all connections. Safe to call twice."""
        if not self._database.closed:
            self._vectors.close()
            self._database.close()

    @property
    def server(self) -> str:
        """What keeps the store and what indexes it, with their versions; for `citewell doctor`."""
        return f"PostgreSQL {self._database.version}, {self._vectors.server()}"

    @property
    def index_state(self) -> State:
        """What the vector index does: "opening", "ready", "rebuilding" or "failed"."""
        return self._vectors.state

    def wait_for_index(self, seconds: float) -> State:
        """Waits until the vector index is ready or has failed, at most so long; returns its state."""
        return self._vectors.wait(seconds)

    def lost(self) -> list[tuple[str, str]]:
        """Nothing: PostgreSQL answers for its files, and says so itself where it cannot."""
        self._database.rows("SELECT 1")
        return []

    def notices(self, shown: Callable[[str], str] = str) -> tuple[str, ...]:
        """What a user should know about the store now, in whole sentences, none of which names a folder."""
        return self._vectors.notices()

    # Writing

    def put(self, document: Document, root: str, passages: Sequence[Passage], keys: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """Makes one document visible, in place of the version before it; `vectors` has one row a passage."""
        self.put_many([Entry(document, root, passages, keys)], dict(zip(keys, vectors, strict=True)))

    def put_many(self, entries: Sequence[Entry], vectors: Mapping[bytes, NDArray[np.float32]]) -> list[Entry]:
        """Makes documents visible, all at once, each in place of the version before it; returns those that were out of date and stay out."""
        words = {entry.document.id: _counted(entry) for entry in entries}
        indexed_at = now()
        with self._database.transaction() as connection:
            with patient(connection):
                connection.execute("SELECT pg_advisory_xact_lock_shared(%s)", (SWEEP,))
            self._refuse_other_vectors(connection)
            _lock_files(connection, [(entry.root, entry.document.source) for entry in entries])
            _insert_vectors(connection, "vectors", vectors)
            states = [(entry, _state(connection, entry)) for entry in entries]
            late = [entry for entry, state in states if state == "late"]
            fresh = [entry for entry, state in states if state == "fresh"]
            _refuse_lacking(connection, fresh)
            gone = [0, 0]
            for entry in fresh:
                place = (entry.root, entry.document.source)
                for which, many in enumerate(self._remove(connection, "id = %s OR (root = %s AND source = %s)", (entry.document.id, *place))):
                    gone[which] += many
                connection.execute("DELETE FROM rejected WHERE root = %s AND source = %s", place)
            added = [
                (one, passage, key, counted)
                for entry in fresh
                for one in (_insert_document(connection, entry, indexed_at),)
                for passage, key, counted in zip(entry.passages, entry.keys, words[entry.document.id], strict=True)
            ]
            numbers = _insert_passages(connection, added)
            self._words.add(connection, ((number, counted) for number, (*_, counted) in zip(numbers, added, strict=True)))
            if fresh:
                _count(connection, len(added) - gone[0], sum(counted.words for *_, counted in added) - gone[1])
        self._vectors.catch_up()
        return late

    def _refuse_other_vectors(self, connection: Connection[Any]) -> None:
        ((embedder,),) = connection.execute("SELECT embedder FROM store").fetchall()
        if embedder != self._embedder:
            raise StoreError(
                "The store's vectors are of another embedding model; nothing was changed. Run `citewell reembed`, or start this Citewell anew if that was done."
            )

    def _remove(self, connection: Connection[Any], which: str, values: Sequence[Any]) -> tuple[int, int]:
        """Drops documents with their passages and words; returns how many of both. Their vectors stay until a sync has ended."""
        numbers = [row[0] for row in connection.execute(f"SELECT number FROM documents d WHERE {which}", values).fetchall()]
        if not numbers:
            return 0, 0
        ((passages, words),) = connection.execute(
            "SELECT count(*), coalesce(sum(words), 0)::bigint FROM passages WHERE document = ANY(%s)", (numbers,)
        ).fetchall()
        connection.execute("INSERT INTO pending (passage) SELECT number FROM passages WHERE document = ANY(%s)", (numbers,))
        self._words.drop(connection, numbers)
        connection.execute("DELETE FROM documents WHERE number = ANY(%s)", (numbers,))
        return passages, words

    @contextmanager
    def many_changes(self) -> Iterator[None]:
        """For a sync: the vectors that known_keys() told of stay until its end, whoever else syncs."""
        with self._database.session() as connection:
            with patient(connection):
                connection.execute("SELECT pg_advisory_lock_shared(%s)", (SWEEP,))
            self._syncing.connection = connection
            try:
                yield
            finally:
                self._syncing.connection = None
        self._vectors.catch_up()

    def reject(self, root: str, source: str, reason: str, fingerprint: str = "", stamp: str = "", reader: int = 0) -> None:
        """Remembers why a file is not a document; a version indexed earlier goes, as it is not what the folder holds any more."""
        with self._database.transaction() as connection:
            _lock_files(connection, [(root, source)])
            if _is_upload(root):
                kept_now = connection.execute("SELECT fingerprint FROM uploads WHERE root = %s AND source = %s", (root, source)).fetchone()
                stored = connection.execute("SELECT fingerprint FROM documents WHERE root = %s AND source = %s", (root, source)).fetchone()
                if kept_now is None or (fingerprint and kept_now[0] != fingerprint) or stored == kept_now:
                    return  # the file is gone or a newer one, or another process could read what this one cannot
            connection.execute("DELETE FROM rejected WHERE root = %s AND source = %s", (root, source))
            connection.execute(
                "INSERT INTO rejected VALUES (%s, %s, %s, %s, %s, %s, %s)", (root, source, kept(reason), fingerprint, stamp, reader, now())
            )
            passages, words = self._remove(connection, "root = %s AND source = %s", (root, source))
            _count(connection, -passages, -words)
        self._vectors.catch_up()

    def remove(self, document_id: str) -> None:
        """Makes a document gone. Raises KeyError when there is none."""
        self.document_file(document_id)
        self.remove_many([document_id])

    def remove_many(self, document_ids: Iterable[str]) -> None:
        """Makes documents gone, all at once; ids that are no document's are passed over, and documents of uploaded files that are kept still: a process
        whose copies of those are older must not remove what another has just added."""
        ids = list(document_ids)
        if not ids:
            self._database.rows("SELECT 1")
            return
        with self._database.transaction() as connection:
            _lock_files(connection, connection.execute("SELECT root, source FROM documents WHERE id = ANY(%s)", (ids,)).fetchall())
            kept_still = "SELECT 1 FROM uploads u WHERE u.root = d.root AND u.source = d.source"
            passages, words = self._remove(connection, f"id = ANY(%s) AND NOT EXISTS ({kept_still})", (ids,))
            _count(connection, -passages, -words)
        self._vectors.catch_up()

    def touch(self, root: str, stamps: Mapping[str, str]) -> None:
        """Notes new stamps of files (source to stamp) whose content was found unchanged."""
        if not stamps:
            return
        with self._database.transaction() as connection:
            _lock_files(connection, [(root, source) for source in stamps])
            for table in ("documents", "rejected"):
                connection.execute(
                    f"UPDATE {table} t SET stamp = new.stamp FROM unnest(%s::text[], %s::text[]) AS new (source, stamp) "
                    "WHERE t.root = %s AND t.source = new.source",
                    (list(stamps), list(stamps.values()), root),
                )

    def forget_rejected(self, root: str, sources: Iterable[str]) -> None:
        """Drops the notes about rejected files that are no longer in the folder."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM rejected WHERE root = %s AND source = ANY(%s)", (root, list(sources)))

    def set_owner(self, document_id: str, owner: str | None) -> None:
        """Gives a document to the user with this id, or shares it; it stays theirs when its file changes or comes back. Raises KeyError."""
        root, source, _ = self.document_file(document_id)
        self._own(root, source, owner or "")

    def set_folder_owner(self, root: str, owner: str | None) -> None:
        """Gives all documents of a synced folder to a user, or shares them: those there are and those to come, but not those given by set_owner()."""
        self._own(root, "", owner or "")

    def _own(self, root: str, source: str, owner: str) -> None:
        which = "d.root = %(root)s AND d.source = %(source)s"
        if not source:
            which = "d.root = %(root)s AND NOT EXISTS (SELECT 1 FROM owners o WHERE o.root = d.root AND o.source = d.source)"
        values = {"root": root, "source": source, "owner": owner}
        with self._database.transaction() as connection:
            if source:
                _lock_files(connection, [(root, source)])
            else:
                # Whoever puts a document there holds this together with others: so none is put with the owner before.
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (lock_of(root),))
            connection.execute("DELETE FROM owners WHERE root = %(root)s AND source = %(source)s", values)
            connection.execute("INSERT INTO owners VALUES (%(root)s, %(source)s, %(owner)s)", values)
            changed = connection.execute(f"UPDATE documents d SET owner = %(owner)s WHERE {which} RETURNING d.number", values).fetchall()
            connection.execute("INSERT INTO pending (passage) SELECT number FROM passages WHERE document = ANY(%s)", ([row[0] for row in changed],))
            _count(connection, 0, 0)
        self._vectors.catch_up()

    def folder_owner(self, root: str) -> str | None:
        """Whose the documents of a synced folder are; None where they are shared."""
        rows = self._database.rows("SELECT owner FROM owners WHERE root = %s AND source = ''", (root,))
        return (rows[0][0] if rows else _uploader(root)) or None

    def forget_unused_vectors(self) -> int:
        """Drops the vectors that no passage refers to any more; returns how many. None, where another sync is under way that may rely on them."""
        return self._sweep(getattr(self._syncing, "connection", None))

    def _sweep(self, own: Connection[Any] | None) -> int:
        with self._database.session() if own is None else nullcontext(own) as connection:
            # A sync holds this lock itself, together with others: on its own connection it can still be had alone.
            if not connection.execute("SELECT pg_try_advisory_lock(%s)", (SWEEP,)).fetchone()[0]:
                return 0
            try:
                return int(
                    connection.execute(
                        "DELETE FROM vectors v WHERE NOT EXISTS (SELECT 1 FROM passages p WHERE p.content_key = v.content_key)"
                    ).rowcount
                )
            finally:
                connection.execute("SELECT pg_advisory_unlock(%s)", (SWEEP,))

    def finish_sync(self, root: str) -> None:
        """For the end of a sync that was not cancelled: what nothing refers to goes, and the index of words is merged."""
        self.forget_unused_vectors()
        self._words.tidy()
        self._vectors.catch_up()

    def replace_vectors(
        self,
        embedder_identity: str,
        texts_of: Callable[[Document, Sequence[Passage]], Sequence[str]],
        embed: Callable[[Sequence[str]], NDArray[np.float32]],
        progress: Callable[[int, int], None] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Gives every passage a vector of another embedding model; returns False when it was stopped before the end.

        What is made is kept as it comes; in one transaction the new vectors then replace the old. Other processes answer with the old ones until then, and
        by words alone from then on until they are started with the new model. Where the vectors are of that model already, nothing is done.
        """
        with self._database.transaction() as connection:
            ((made_by, next_one),) = connection.execute("SELECT embedder, next_embedder FROM store FOR UPDATE").fetchall()
            if made_by == embedder_identity:
                return True
            if next_one != embedder_identity:
                connection.execute("TRUNCATE next_vectors")
                connection.execute("UPDATE store SET next_embedder = %s", (embedder_identity,))
        lacking = "NOT EXISTS (SELECT 1 FROM next_vectors v WHERE v.content_key = p.content_key)"
        ((total,),) = self._database.rows("SELECT count(DISTINCT content_key) FROM passages")
        for (document_id,) in self._database.rows(
            f"SELECT DISTINCT d.id FROM passages p JOIN documents d ON d.number = p.document WHERE {lacking} ORDER BY 1"
        ):
            rows = self._database.rows(f"{PASSAGES} WHERE d.id = %s ORDER BY p.start_at, p.number", (document_id,))
            made = {
                row[0]
                for row in self._database.rows(
                    "SELECT v.content_key FROM next_vectors v JOIN passages p USING (content_key) JOIN documents d ON d.number = p.document WHERE d.id = %s",
                    (document_id,),
                )
            }
            if not rows:
                continue  # it was removed meanwhile
            texts = dict(zip((row[9] for row in rows), texts_of(self.document(document_id), [read_passage(row) for row in rows]), strict=True))
            # By length, so that short passages are not padded to the longest of their batch.
            missing = sorted(((key, text) for key, text in texts.items() if key not in made), key=lambda pair: len(pair[1]))
            for start in range(0, len(missing), EMBEDDED_AT_ONCE):
                if progress:
                    progress(int(self._database.rows("SELECT count(*) FROM next_vectors")[0][0]), total)
                if stopped():
                    return False
                batch = missing[start : start + EMBEDDED_AT_ONCE]
                vectors = embed([text for _, text in batch])
                with self._database.transaction() as connection:
                    _insert_vectors(connection, "next_vectors", dict(zip((key for key, _ in batch), vectors, strict=True)))
        with self._alone() as connection:
            with patient(connection):
                # Whoever tells Chroma something has read what is pending, and waits for the vectors. After the other lock: a sync holds that until its
                # end, and waits for Chroma to be told.
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (TELLING,))
            if connection.execute(f"SELECT 1 FROM passages p WHERE {lacking} LIMIT 1").fetchone():
                raise StoreError("Documents were added while new vectors were made. Run `citewell reembed` again.")
            connection.execute("DROP TABLE vectors")
            connection.execute("ALTER TABLE next_vectors RENAME TO vectors")
            connection.execute("CREATE TABLE next_vectors (LIKE vectors INCLUDING ALL)")
            connection.execute("TRUNCATE pending")
            connection.execute("UPDATE store SET embedder = %s, next_embedder = '', collection = '', changes = changes + 1", (embedder_identity,))
        self._vectors.catch_up()
        if progress:
            progress(total, total)
        return True

    @contextmanager
    def _alone(self) -> Iterator[Connection[Any]]:
        """A transaction while nobody syncs or adds. Asked for again and again: whoever waited for that lock would stand before the next part of the very
        sync that has to end first."""
        while True:
            with self._database.transaction() as connection:
                if connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (SWEEP,)).fetchone()[0]:
                    yield connection
                    return
            time.sleep(ASKED_AGAIN_SECONDS)

    # Uploaded files

    def keep_upload(self, root: str, source: str, content: bytes, fingerprint: str) -> None:
        """Keeps an uploaded file, in place of the one of its name. From then on a document of another version of it is out of date."""
        with self._database.transaction() as connection:
            _lock_files(connection, [(root, source)])
            connection.execute("DELETE FROM uploads WHERE root = %s AND source = %s", (root, source))
            connection.execute("INSERT INTO uploads VALUES (%s, %s, %s, %s, %s)", (root, source, fingerprint, len(content), content))

    def drop_upload(self, root: str, source: str) -> None:
        """Lets go of an uploaded file, if there is one; a document that somebody makes of it meanwhile is out of date."""
        with self._database.transaction() as connection:
            _lock_files(connection, [(root, source)])
            connection.execute("DELETE FROM uploads WHERE root = %s AND source = %s", (root, source))

    def uploads(self, root: str) -> dict[str, tuple[str, int]]:
        """What is kept under a root: source to fingerprint and size."""
        return {row[0]: (row[1], row[2]) for row in self._database.rows("SELECT source, fingerprint, size FROM uploads WHERE root = %s", (root,))}

    def upload_roots(self) -> list[str]:
        """All roots under which something is kept."""
        return [row[0] for row in self._database.rows("SELECT DISTINCT root FROM uploads ORDER BY 1")]

    def unread_uploads(self) -> set[tuple[str, str, str]]:
        """Root, source and fingerprint of every kept file whose document, or whose rejection, is not of it; asked at once, whoever uploaded it."""
        # A file that could not be opened is noted without a fingerprint.
        read = [
            f"SELECT 1 FROM {table} t WHERE md5(t.root) = md5(u.root) AND md5(t.source) = md5(u.source) AND t.root = u.root AND t.source = u.source "
            "AND t.fingerprint IN ('', u.fingerprint)"
            for table in ("documents", "rejected")
        ]
        return set(self._database.rows(f"SELECT root, source, fingerprint FROM uploads u WHERE NOT EXISTS ({read[0]}) AND NOT EXISTS ({read[1]})"))

    def upload(self, root: str, source: str) -> bytes:
        """An uploaded file's bytes. Raises KeyError when there is none."""
        rows = self._database.rows("SELECT content FROM uploads WHERE root = %s AND source = %s", (root, source), binary=True)
        if not rows:
            raise KeyError(source)
        return bytes(rows[0][0])

    # Reading

    def _one(self, columns: str, document_id: str) -> Sequence[Any]:
        rows: list[Sequence[Any]] = self._database.rows(f"SELECT {columns} FROM documents WHERE id = %s", (document_id,))
        if not rows:
            raise KeyError(document_id)
        return rows[0]

    def text(self, document_id: str) -> str:
        """A document's stored text. Raises KeyError when there is none."""
        return told(self._one("text", document_id)[0])

    def document(self, document_id: str) -> Document:
        """A document as it was stored. Raises KeyError when there is none."""
        return read_document(self._one("id, source, title, text, fingerprint, size, titled, pages, furniture", document_id))

    def furniture(self, document_id: str) -> tuple[Span, ...]:
        """The parts of a document that are not searched. Raises KeyError when there is no such document."""
        return tuple(Span(start, end) for start, end in json.loads(self._one("furniture", document_id)[0]))

    def pages(self, document_id: str) -> tuple[int, ...]:
        """The offsets at which a document's pages or slides begin, empty where the format has none. Raises KeyError when there is no such document."""
        return tuple(json.loads(self._one("pages", document_id)[0]))

    def document_file(self, document_id: str) -> tuple[str, str, str]:
        """Where a document comes from: its root, source and fingerprint. Raises KeyError when there is no such document."""
        root, source, fingerprint = self._one("root, source, fingerprint", document_id)
        return root, source, fingerprint

    def info(self, document_id: str) -> DocumentInfo:
        """What a listing says of one document. Raises KeyError when there is none."""
        for document in self.documents(document_id):
            return document
        raise KeyError(document_id)

    def documents(self, document_id: str | None = None, viewer: str | None = None) -> list[DocumentInfo]:
        """All documents by source, or the one asked for; with `viewer` only those that are shared or the user's with this id."""
        within, values = narrowed(None if document_id is None else [document_id], viewer)
        return self._infos(f"WHERE {within} ORDER BY source, root", values)

    def _infos(self, which: str, values: Mapping[str, Any]) -> list[DocumentInfo]:
        rows = self._database.rows(
            f"SELECT id, source, title, length, passages, indexed_at, root, size, page_count, owner FROM documents d {which}", values
        )
        return [DocumentInfo(*[*row[:2], told(row[2]), *row[3:-1], row[-1] or None]) for row in rows]

    def latest(self, count: int, viewer: str | None = None) -> list[DocumentInfo]:
        """The documents that were indexed last, at most so many, the newest first; the others stay unread."""
        within, values = narrowed(None, viewer)
        numbers = f"SELECT number FROM documents d WHERE {within} ORDER BY number DESC LIMIT %(count)s"
        return self._infos(f"WHERE number IN ({numbers}) ORDER BY indexed_at DESC, source, root", {**values, "count": count})

    def ids_of(self, names: Sequence[str], viewer: str | None = None) -> dict[str, list[str]]:
        """The ids of documents by name: a name is the id of one, else the source of one or more. Names of none are left out."""
        within, values = narrowed(None, viewer)
        found: dict[str, list[str]] = {}
        for column in ("id", "source"):
            by_name: dict[str, list[str]] = {}
            for name, identifier in self._database.rows(
                f"SELECT {column}, id FROM documents d WHERE {column} = ANY(%(names)s) AND {within} ORDER BY source, root",
                {**values, "names": [name for name in names if "\0" not in name and name not in found]},
            ):
                by_name.setdefault(name, []).append(identifier)
            found.update(by_name)
        return found

    def owner(self, document_id: str) -> str | None:
        """Whose a document is; None where it is shared. Raises KeyError when there is no such document."""
        return self._one("owner", document_id)[0] or None

    def owned(self, owner: str) -> list[str]:
        """The ids of all documents that belong to the user with this id."""
        return [row[0] for row in self._database.rows("SELECT id FROM documents WHERE owner = %s ORDER BY id", (owner,))]

    def seen(self, document_id: str, viewer: str) -> bool:
        """Whether there is such a document and it is shared or the user's."""
        return bool(self._database.rows("SELECT 1 FROM documents WHERE id = %s AND owner IN ('', %s)", (document_id, viewer)))

    def roots(self) -> list[str]:
        """All synced folders of which there is a document or a rejected file."""
        return [row[0] for row in self._database.rows("SELECT root FROM documents UNION SELECT root FROM rejected ORDER BY 1")]

    def fingerprints(self, root: str) -> dict[str, tuple[str, str]]:
        """What is stored of one synced folder: source to (document id, fingerprint)."""
        return {row[0]: (row[1], row[2]) for row in self._database.rows("SELECT source, id, fingerprint FROM documents WHERE root = %s", (root,))}

    def known(self, root: str, sources: Iterable[str] | None = None) -> dict[str, Known]:
        """What is known of every file of one synced folder, documents and rejected ones, by source; or of these files of it alone."""
        among = "" if sources is None else "AND source = ANY(%(sources)s)"
        rows = self._database.rows(
            f"SELECT source, id, fingerprint, stamp, reader, '' FROM documents WHERE root = %(root)s {among} "
            f"UNION ALL SELECT source, '', fingerprint, stamp, reader, reason FROM rejected WHERE root = %(root)s {among}",
            {"root": root, "sources": None if sources is None else list(sources)},
        )
        return {row[0]: Known(*[*row[1:-1], told(row[-1])]) for row in rows}

    def rejected(self, root: str | None = None) -> dict[str, str]:
        """Files that could not become documents: source to reason."""
        return {rejection.source: rejection.reason for rejection in self.rejections(root)}

    def rejections(self, root: str | None = None, viewer: str | None = None) -> list[Rejection]:
        """Files that could not become documents, by source; those of one synced folder, or of all; with `viewer` those that a user may know of."""
        whose = "SELECT o.owner FROM owners o WHERE o.root = r.root AND o.source IN (r.source, '') ORDER BY o.source DESC LIMIT 1"
        rows = self._database.rows(
            "SELECT root, source, reason, at FROM rejected r WHERE (%(root)s::text IS NULL OR root = %(root)s) "
            f"AND (%(viewer)s::text IS NULL OR coalesce(({whose}), {OWN_OR_SHARED}) IN ('', %(viewer)s)) ORDER BY source, root",
            {"root": root, "viewer": viewer},
        )
        return [Rejection(row[0], row[1], told(row[2]), row[3]) for row in rows]

    def document_count(self, viewer: str | None = None) -> int:
        """How many documents there are; with `viewer` only those that are shared or the user's with this id."""
        within, values = narrowed(None, viewer)
        return int(self._database.rows(f"SELECT count(*) FROM documents d WHERE {within}", values)[0][0])

    def rejection_count(self) -> int:
        """How many files there are that could not become documents."""
        return int(self._database.rows("SELECT count(*) FROM rejected")[0][0])

    def passage_count(self) -> int:
        """How many passages there are in all documents."""
        return int(self._database.rows("SELECT passages FROM store")[0][0])

    def known_keys(self, keys: Iterable[bytes]) -> set[bytes]:
        """Those of the content keys for which the store has a vector."""
        return {bytes(row[0]) for row in self._database.rows("SELECT content_key FROM vectors WHERE content_key = ANY(%s)", (list(keys),))}

    def vectors_by_content(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """The vectors that the store has for these content keys."""
        rows = self._database.rows("SELECT content_key, vector FROM vectors WHERE content_key = ANY(%s)", (list(keys),), binary=True)
        return {bytes(row[0]): np.frombuffer(row[1], dtype=np.float32) for row in rows}

    def passages(self, ids: Sequence[str], viewer: str | None = None) -> dict[str, Passage]:
        """The passages with these ids, those that are gone left out, and with `viewer` those that the user may not see."""
        within, values = narrowed(None, viewer)
        rows = self._database.rows(f"{PASSAGES} WHERE p.id = ANY(%(passages)s) AND {within}", {**values, "passages": list(ids)})
        return {found.id: found for found in map(read_passage, rows)}

    def edges(self, document_id: str) -> list[Passage]:
        """A document's first and last passage, where bylines and dates stand; one passage when it has but one."""
        ends = [self._database.rows(f"{PASSAGES} WHERE d.id = %s ORDER BY p.start_at {order} LIMIT 1", (document_id,)) for order in ("ASC", "DESC")]
        return list(dict.fromkeys(read_passage(row) for rows in ends for row in rows))

    def nearest(
        self, vector: NDArray[np.float32], limit: int, document_ids: Sequence[str] | None = None, viewer: str | None = None
    ) -> list[tuple[str, float]]:
        """Passage ids by meaning, nearest first, with their cosine similarity to the unit `vector`; with `viewer` of what that user may see.

        Nothing is found while the Chroma server of a large store does not answer, or the vectors are of another embedding model: notices() says so.
        """
        return self.nearest_each(vector[np.newaxis], limit, document_ids, viewer)[0]

    def nearest_each(
        self,
        vectors: NDArray[np.float32],
        limit: int,
        document_ids: Sequence[str] | None = None,
        viewer: str | None = None,
        at_least: float = -1.0,
    ) -> list[list[tuple[str, float]]]:
        """nearest() for each row of `vectors`, all asked at once; of what is less similar than `at_least` any part may be missing."""
        if limit < 1 or (document_ids is not None and not document_ids) or not len(vectors):
            self._database.rows("SELECT 1")
            return [[] for _ in vectors]
        return self._vectors.nearest(vectors, limit, document_ids, viewer, at_least)

    def matching(self, query: str, limit: int, document_ids: Sequence[str] | None = None, viewer: str | None = None) -> list[tuple[str, float]]:
        """Passage ids by words (BM25 over passage, title and headings), best first, with a score that grows with the match; with `viewer` of what that
        user may see. How rare a word is, is counted over all documents."""
        return self._words.matching(query, limit, document_ids, viewer)


def _counted(entry: Entry) -> list[Counted]:
    """The words of an entry's passages, as SQLite's index has them: each with its document's title and its headings."""
    return [counted(f"{entry.document.title} {passage.heading}", passage.text) for passage in entry.passages]


def _count(connection: Connection[Any], passages: int, words: int) -> None:
    """Notes a change, as the last thing of a transaction: from here to its end others wait."""
    connection.execute("UPDATE store SET changes = changes + 1, passages = passages + %s, words = words + %s", (passages, words))


def _lock_files(connection: Connection[Any], files: Iterable[tuple[str, str]]) -> None:
    """Nobody else changes these files, by root and source, until the transaction ends. In one order, so that two never wait for each other."""
    of_root: dict[str, set[str]] = {}
    for root, source in files:
        of_root.setdefault(root, set()).add(source)
    for key, root in sorted((lock_of(root), root) for root in of_root):
        # A server has room for some thousand locks. Of a folder of which much changes the whole is locked.
        connection.execute(f"SELECT pg_advisory_xact_lock{'_shared' if len(of_root[root]) <= LOCKED_SINGLY else ''}(%s)", (key,))
    for key in sorted(lock_of(root, source) for root, sources in of_root.items() if len(sources) <= LOCKED_SINGLY for source in sources):
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (key,))


def _state(connection: Connection[Any], entry: Entry) -> Literal["fresh", "there", "late"]:
    """Whether an entry is to be stored: not where another process has stored it already, nor where the version that it was to replace, or the uploaded
    file that it was made of, was removed or replaced while it was made."""
    if entry.replaces is None:
        return "fresh"
    place, own = (entry.root, entry.document.source), entry.document.fingerprint
    if _is_upload(entry.root):
        # Of an uploaded file the kept one says what is to be there, whatever was read of it before.
        rows = connection.execute("SELECT fingerprint FROM uploads WHERE root = %s AND source = %s", place).fetchall()
        if rows != [(own,)]:
            return "late"
    rows = connection.execute("SELECT fingerprint, reader FROM documents WHERE root = %s AND source = %s", place).fetchall()
    stored, reader = rows[0] if rows else ("", 0)
    if stored == own and reader >= entry.reader:
        return "there"
    return "fresh" if _is_upload(entry.root) or stored in (entry.replaces, own) else "late"


def _insert_vectors(connection: Connection[Any], table: str, vectors: Mapping[bytes, NDArray[np.float32]]) -> None:
    """Stores vectors by content key; those that are there stay. In one order, as two that add the same wait for each other."""
    keys = sorted(vectors)
    connection.execute(
        f"INSERT INTO {table} SELECT * FROM unnest(%b::bytea[], %b::bytea[]) ON CONFLICT DO NOTHING",
        (keys, [np.asarray(vectors[key], dtype=np.float32).tobytes() for key in keys]),
    )


def _refuse_lacking(connection: Connection[Any], entries: Sequence[Entry]) -> None:
    """Raises StoreError when a passage's vector is missing."""
    wanted = {key: entry.document.source for entry in reversed(entries) for key in entry.keys}
    there = {bytes(row[0]) for row in connection.execute("SELECT content_key FROM vectors WHERE content_key = ANY(%s)", (list(wanted),)).fetchall()}
    for key, source in wanted.items():
        if key not in there:
            raise StoreError(f"A passage of '{source}' came without its vector. Nothing was changed; sync the folder again.")


def _is_upload(root: str) -> bool:
    return root == UPLOADS or root.startswith(OWN_UPLOADS)


def _uploader(root: str) -> str:
    return root.removeprefix(OWN_UPLOADS) if root.startswith(OWN_UPLOADS) else ""


def _insert_document(connection: Connection[Any], entry: Entry, indexed_at: str) -> int:
    """Stores a document without its passages, as that of whom owners say; returns its number."""
    rows = connection.execute(
        "SELECT owner FROM owners WHERE root = %s AND source IN (%s, '') ORDER BY source DESC LIMIT 1", (entry.root, entry.document.source)
    ).fetchall()
    owner = rows[0][0] if rows else _uploader(entry.root)
    row = document_row(entry.document, entry.root, indexed_at, len(entry.passages), owner, entry.stamp, entry.reader)
    ((number,),) = connection.execute(f"INSERT INTO documents ({DOCUMENT}) VALUES ({', '.join(['%s'] * len(row))}) RETURNING number", row).fetchall()
    return int(number)


def _insert_passages(connection: Connection[Any], added: Sequence[tuple[int, Passage, bytes, Counted]]) -> list[int]:
    """Stores passages, each of the document with this number, and notes that Chroma is to be told of them; returns their numbers."""
    sequence = "pg_get_serial_sequence('passages', 'number')"
    numbers = [row[0] for row in connection.execute(f"SELECT nextval({sequence}) FROM generate_series(1, %s)", (len(added),)).fetchall()]
    if not added:
        return []
    columns = "number, id, document, start_at, end_at, heading, pages, content_key, words, terms, text"
    with connection.cursor() as cursor:
        with cursor.copy(f"COPY passages ({columns}) FROM STDIN (FORMAT binary)") as rows:
            rows.set_types(["int8", "text", "int8", "int4", "int4", "text", "text", "bytea", "int4", "int4", "text"])
            for number, (document, passage, key, words) in zip(numbers, added, strict=True):
                pages = json.dumps(passage.pages) if passage.pages else ""
                place = (number, passage.id, document, passage.span.start, passage.span.end, kept(passage.heading), pages)
                rows.write_row((*place, key, words.words, len(words.terms), kept(passage.text)))
        with cursor.copy("COPY pending (passage) FROM STDIN (FORMAT binary)") as rows:
            rows.set_types(["int8"])
            for number in numbers:
                rows.write_row((number,))
    return numbers
