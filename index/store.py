"""The store: SQLite holds the truth, the vector index is derived from it.

One SQLite transaction makes a document visible or gone: text, passages, vectors, words and the list of what the vector index has still to learn
(`pending`) change together. The index is told afterwards; where it is broken, missing or behind, it is rebuilt from SQLite in the background.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from filelock import FileLock, Timeout

from index.database import CHANGES, NAME, SEAL, Database, batches, read_changes
from index.errors import EmbedderChanged, StoreDamaged, StoreError, StoreInUse, StoreTooNew
from index.salvage import make_sure, ours
from index.schema import (
    DOCUMENT,
    OWN_OR_SHARED,
    PASSAGES,
    SEEN,
    SEEN_EACH,
    VERSION,
    create,
    insert_document,
    insert_vectors,
    migrate,
    now,
    owner_of,
    read_document,
    read_passage,
    remove_document,
    set_meta,
    set_owner,
)
from index.schema import Entry as Entry
from index.seal import keep_private, private, write_seal
from index.threads import behind_others, give_way, is_behind
from index.types import Document, DocumentInfo, Known, Passage, Rejection, Span
from index.vectors import State, VectorIndex
from index.words import content_words

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUERY_WORDS = 300
"""Of a longer question, so many different words are searched for."""

RANKED = 2_000
"""Of a question's words those are ranked, the rarest first, that stand in so many passages in sum: ranking takes a few microseconds a passage, so words
that stand everywhere, and tell next to nothing, would cost more than all else. docs/benchmarks.md says how much."""

ENOUGH, RANKED_OF_FREQUENT = 20, 5_000
"""Where those find fewer passages, so many are ranked that hold the two next rarest words, and that hold the rarer of them alone."""

RANKED_WORDS = 32
"""So many words, the rarest, are ranked of a user's, or of chosen documents, that are few beside all: their passages are picked out by number."""

COUNTS_REMEMBERED = 10_000
"""Of so many words it is remembered in how many passages they stand."""

EMBEDDED_AT_ONCE = 64

INFO = "id, source, title, length, passages, indexed_at, root, size, json_array_length(pages)"
"""What a listing says of documents, but for their owners."""

T = TypeVar("T")

log = logging.getLogger(__name__)

_open_stores: weakref.WeakSet[Store] = weakref.WeakSet()


@atexit.register
def _close_stores() -> None:
    """A process that ends without closing its stores ends their threads first, as they would otherwise be cut off inside Chroma."""
    for store in list(_open_stores):
        store.close()


class Store:
    """Documents, passages and their vectors in one folder, owned by one process at a time.

    Opening returns as soon as words can be searched; `index_state` and `notices()` tell how far the vectors are, and what damage was found.
    With `reembed`, a store whose vectors are of another embedding model opens nevertheless: words answer until replace_vectors() is through.
    A `patient` store opens the vector index of few passages some seconds later, or when it is waited for: all are compared meanwhile.
    Raises on opening: StoreInUse (another process owns the folder), StoreTooNew, EmbedderChanged, StoreError (the folder cannot be read or written).
    Everything raises StoreError once the store is closed, and StoreDamaged where a file is damaged under the open store.
    """

    def __init__(self, folder: Path, embedder_identity: str, reembed: bool = False, patient: bool = False) -> None:
        # Wherever the process goes, and in the one that probes, the folder is the same.
        folder = self.folder = folder.absolute()
        self._database = Database(folder / NAME)
        self._index: VectorIndex | None = None
        self._process = os.getpid()
        self._many = threading.local()
        self._closing = threading.Lock()
        self._lock = FileLock(folder / "lock", mode=0o600, thread_local=False)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            keep_private(ours(folder))
            with open(self._owner_file, "w", encoding="utf-8", opener=private) as file:
                json.dump({"pid": os.getpid(), "address": None}, file)
        except Timeout:
            raise StoreInUse(*owner(folder)) from None
        except OSError as error:
            self._lock.release()
            raise StoreError(f"The data folder {folder} cannot be written ({error.strerror}). Choose another with CITEWELL_DATA_DIR.") from error
        try:
            self._moved_now = make_sure(folder, embedder_identity)
            self._open(embedder_identity, reembed, patient)
        except BaseException:
            self.close()
            raise
        _open_stores.add(self)

    # Opening and closing

    @property
    def _owner_file(self) -> Path:
        return self.folder / "owner.json"

    def announce(self, address: str, key: str = "") -> None:
        """Leaves the address at which this process answers, and a key for it, for others who want the same store and may read its folder."""
        self._database.rows("SELECT 1")
        scratch = self._owner_file.with_suffix(".new")
        scratch.unlink(missing_ok=True)
        # Made for this user alone, before there is a key in it.
        with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump({"pid": os.getpid(), "address": address, "key": key}, file)
        os.replace(scratch, self._owner_file)

    def close(self) -> None:
        """Gives the folder back, its files sealed. Safe to call twice."""
        # A child that was forked off must not give away what is its parent's.
        if self._process != os.getpid():
            return
        with self._closing:
            if self._database.closed:
                return
            index, self._index = self._index, None
            ended = index is None or index.close()
            self._database.close()
            if ended and index is not None and not self._database.damaged:
                self._seal()
            with suppress(OSError):
                self._owner_file.unlink(missing_ok=True)
            self._lock.release()

    def _seal(self) -> None:
        log_file = self.folder / f"{NAME}-wal"
        with suppress(OSError):
            # What could not be moved from the log into the file is no part of what a seal over the file speaks for.
            if not (self.folder / SEAL).exists() and not (log_file.exists() and log_file.stat().st_size):
                write_seal(self.folder / SEAL, [self.folder / NAME], NAME)

    def _open(self, embedder_identity: str, reembed: bool, patient: bool) -> None:
        version = self._database.rows("PRAGMA user_version")[0][0]
        if version > VERSION:
            raise StoreTooNew(
                f"The store in {self.folder} was written by a newer Citewell (format {version}; this one knows {VERSION}). "
                "Update Citewell, or set another CITEWELL_DATA_DIR."
            )
        if version == 0:
            with self._database.transaction() as connection:
                create(connection)
                set_meta(connection, "embedder", embedder_identity)
        elif version < VERSION:
            log.info("The store in %s is taken over from version %d.", self.folder, version)
            with self._database.transaction() as connection:
                migrate(connection, version)
        # Never fewer than were noted: an older note beside a newer file is right, a newer one beside an older file is a loss.
        self._database.changes = max(int(self._database.meta("changes") or 0), read_changes(self.folder / CHANGES))
        made_by = self._database.meta("embedder")
        if made_by != embedder_identity and not self.passage_count():
            with self._database.transaction() as connection:
                connection.execute("DELETE FROM vectors")
                connection.execute("DELETE FROM next_vectors")
                set_meta(connection, "embedder", embedder_identity)
        elif made_by != embedder_identity and not reembed:
            raise EmbedderChanged(
                f"The store in {self.folder} was made with the embedding model '{made_by}', but '{embedder_identity}' is set. "
                "`citewell reembed` makes new vectors of all passages; or set CITEWELL_EMBEDDER back."
            )
        # After how many changes, and by term up to what and how much was counted.
        self._counted: tuple[int, dict[str, tuple[int, int]]] = (-1, {})
        self._embedder = self._database.meta("embedder")
        self._index = VectorIndex(self.folder, self._database, withheld=self._embedder != embedder_identity, patient=patient)

    @property
    def _vectors(self) -> VectorIndex:
        index = self._index
        if index is None:
            raise self._database.closed_error()
        return index

    @property
    def index_state(self) -> State:
        """What the vector index does: "opening", "ready", "rebuilding" or "failed"."""
        return self._vectors.state

    def wait_for_index(self, seconds: float) -> State:
        """Waits until the vector index is ready or has failed, at most so long; returns its state."""
        return self._vectors.wait(seconds)

    def lost(self) -> list[tuple[str, str]]:
        """Root and source of what damage took and no sync has brought back; an empty source or root where that is not known."""
        return [(root, source) for root, source in self._database.rows("SELECT root, source FROM lost ORDER BY root, source")]

    def notices(self, shown: Callable[[str], str] = str) -> tuple[str, ...]:
        """What a user should know about the store now, in whole sentences; `shown` makes of a folder's path what is said of it."""
        said = []
        index = self._vectors
        if index.withheld:
            said.append(
                "The passages' vectors are of another embedding model; until `citewell reembed` has made new ones, answers come from word search alone."
            )
        elif index.state == "rebuilding" and not index.answers_meanwhile():
            said.append(f"The vector index is being built ({100 * index.progress:.0f} %); until then answers come from word search alone.")
        elif index.state == "ready" and index.behind:
            said.append(
                f"What is new could not be put into the vector index ({index.behind}); it is found nevertheless, but answers take longer. "
                "Check the free disk space, and sync again."
            )
        elif index.state == "failed":
            meanwhile = "answers take a little longer" if index.answers_meanwhile() else "answers come from word search alone"
            said.append(
                f"The vector index cannot be built ({index.reason}); {meanwhile}. Your documents are safe: check the free disk space, and start Citewell again."
            )
        lost: dict[str, list[str]] = {}
        for root, source in self.lost():
            lost.setdefault(root, []).append(source)
        for root, sources in lost.items():
            count = sum(map(bool, sources))
            if count == 1:
                said.append(f"1 document was damaged on disk and dropped; sync its folder again: {shown(root)}")
            elif count:
                said.append(f"{count} documents were damaged on disk and dropped; sync their folder again: {shown(root)}")
            if "" in sources and root:
                said.append(f"The store was damaged on disk, and the last changes may be lost; sync this folder again: {shown(root)}")
            elif "" in sources and len(lost) == 1:
                said.append("The store was damaged on disk, and what it held may be lost; sync your folders again.")
        for kept in self._moved_now:
            said.append(
                f"The store's files as they were before are kept in the data folder, in {kept.name}. If nothing is missing, you can delete that folder."
            )
        return tuple(said)

    # Writing

    def put(self, document: Document, root: str, passages: Sequence[Passage], keys: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """Makes one document visible, in place of the version before it; `vectors` has one row a passage."""
        self.put_many([Entry(document, root, passages, keys)], dict(zip(keys, vectors, strict=True)))

    def put_many(self, entries: Sequence[Entry], vectors: Mapping[bytes, NDArray[np.float32]]) -> list[Entry]:
        """Makes documents visible, all at once, each in place of the version before it; returns those that were out of date and stay out.

        `vectors` holds, by content key, the unit vectors that the store lacks (see known_keys). Raises StoreError, and changes nothing, when a
        passage's key is in neither.
        """
        if self._vectors.withheld:
            raise StoreError("The store's vectors are of another embedding model. Run `citewell reembed` first; nothing was changed.")
        indexed_at = now()

        def put(connection: sqlite3.Connection) -> list[Entry]:
            insert_vectors(connection, vectors, self._embedder)
            late = [entry for entry in entries if self._late(connection, entry)]
            for entry in entries:
                if entry not in late:
                    insert_document(connection, entry, indexed_at, stored=vectors.keys())
            return late

        late = self._changed(put)
        if not is_behind():  # a thread that this begins would stand back too, and what it opens serves questions; the sync's own does it soon
            self._vectors.catch_up()
        self._keep_pace(sum(len(entry.passages) for entry in entries))
        return late

    def _keep_pace(self, changed: int) -> None:
        """Whoever makes many changes may have to wait after one of so many passages; nobody else."""
        if getattr(self._many, "aside", None) is not None:
            self._vectors.keep_pace(changed)

    def _changed(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """What a change gives that is made in one transaction; one of a sync's many in a thread that stands back behind those who ask meanwhile."""

        def changed() -> T:
            give_way()
            with self._database.transaction() as connection:
                return change(connection)

        aside: ThreadPoolExecutor | None = getattr(self._many, "aside", None)
        return changed() if aside is None else aside.submit(changed).result()

    @staticmethod
    def _late(connection: sqlite3.Connection, entry: Entry) -> bool:
        """Whether the version that an entry was to replace was removed or replaced while the entry was made."""
        if entry.replaces is None:
            return False
        rows = connection.execute("SELECT fingerprint FROM documents WHERE root = ? AND source = ?", (entry.root, entry.document.source)).fetchall()
        return (rows[0][0] if rows else "") != entry.replaces

    @contextmanager
    def many_changes(self) -> Iterator[None]:
        """The vector index of a small store learns what changes inside when this has ended, that of a large one whenever it is much. This thread's changes are made by
        one that stands back behind those who ask meanwhile."""
        with self._vectors.deferring(), ThreadPoolExecutor(1, thread_name_prefix="citewell-changes", initializer=behind_others) as aside:
            before, self._many.aside = getattr(self._many, "aside", None), aside
            try:
                yield
            finally:
                self._many.aside = before

    def reject(self, root: str, source: str, reason: str, fingerprint: str = "", stamp: str = "", reader: int = 0) -> None:
        """Remembers why a file is not a document; a version indexed earlier goes, as it is not what the folder holds any more."""
        with self._database.transaction() as connection:
            for (identifier,) in connection.execute("SELECT id FROM documents WHERE root = ? AND source = ?", (root, source)).fetchall():
                remove_document(connection, identifier)
            connection.execute(
                "INSERT OR REPLACE INTO rejected VALUES (?, ?, ?, ?, ?, ?, ?)", (root, source, reason, fingerprint, stamp, reader, now())
            )
        self._vectors.catch_up()

    def remove(self, document_id: str) -> None:
        """Makes a document gone. Raises KeyError when there is none."""
        self.info(document_id)
        self.remove_many([document_id])

    def remove_many(self, document_ids: Iterable[str]) -> None:
        """Makes documents gone, all at once; ids that are no document's are passed over."""
        ids = list(document_ids)

        removed = self._changed(lambda connection: sum(remove_document(connection, document_id) for document_id in ids))
        self._vectors.catch_up()
        self._keep_pace(removed)

    def touch(self, root: str, stamps: Mapping[str, str]) -> None:
        """Notes new stamps of files (source to stamp) whose content was found unchanged."""
        with self._database.transaction() as connection:
            for table in ("documents", "rejected"):
                connection.executemany(
                    f"UPDATE {table} SET stamp = ? WHERE root = ? AND source = ?", [(stamp, root, source) for source, stamp in stamps.items()]
                )

    def forget_rejected(self, root: str, sources: Iterable[str]) -> None:
        """Drops the notes about rejected files that are no longer in the folder."""
        with self._database.transaction() as connection:
            connection.executemany("DELETE FROM rejected WHERE root = ? AND source = ?", [(root, source) for source in sources])

    def set_owner(self, document_id: str, owner: str | None) -> None:
        """Gives a document to the user with this id, or shares it; it stays theirs when its file changes or comes back. Raises KeyError."""
        root, source, _ = self.document_file(document_id)
        with self._database.transaction() as connection:
            set_owner(connection, root, source, owner or "")

    def set_folder_owner(self, root: str, owner: str | None) -> None:
        """Gives all documents of a synced folder to a user, or shares them: those there are and those to come, but not those given by set_owner()."""
        with self._database.transaction() as connection:
            set_owner(connection, root, "", owner or "")

    def folder_owner(self, root: str) -> str | None:
        """Whose the documents of a synced folder are; None where they are shared."""
        return owner_of(self._database.connection, root, "") or None

    def forget_unused_vectors(self) -> int:
        """Drops the vectors that no passage refers to any more; returns how many. For the end of a sync: until then a file that moved finds them."""
        unused = "DELETE FROM vectors WHERE content_key NOT IN (SELECT content_key FROM passages)"
        return self._changed(lambda connection: connection.execute(unused).rowcount)

    def finish_sync(self, root: str) -> None:
        """For the end of a sync that was not cancelled: what damage took of the folder has been read again, and what nothing refers to goes.

        Where much was added to the vector index it is built anew, so that it opens quickly; where all passages are compared one by one that is done in the
        background, as nobody waits for it.
        """
        self._changed(lambda connection: connection.execute("DELETE FROM lost WHERE root IN (?, '')", (root,)))
        self.forget_unused_vectors()
        self._vectors.tidy()

    def replace_vectors(
        self,
        embedder_identity: str,
        texts_of: Callable[[Document, Sequence[Passage]], Sequence[str]],
        embed: Callable[[Sequence[str]], NDArray[np.float32]],
        progress: Callable[[int, int], None] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Gives every passage a vector of another embedding model; returns False when it was stopped before the end.

        `texts_of` tells what is embedded of a document's passages, `embed` makes unit vectors of texts. What is made is kept as it comes, so that
        after a stop or a kill it goes on where it was; in one transaction the new vectors then replace the old. Word search answers all the while.
        Where the vectors are of that model already, nothing is done.
        """
        if self._embedder == embedder_identity:
            return True
        if self._database.meta("next_embedder") != embedder_identity:
            with self._database.transaction() as connection:
                connection.execute("DELETE FROM next_vectors")
                set_meta(connection, "next_embedder", embedder_identity)
        self._vectors.withhold()
        total = int(self._database.rows("SELECT count(DISTINCT content_key) FROM passages")[0][0])
        for (document_id,) in self._database.rows(
            "SELECT DISTINCT document_id FROM passages WHERE content_key NOT IN (SELECT content_key FROM next_vectors) ORDER BY document_id"
        ):
            rows = self._database.rows(f"{PASSAGES} WHERE p.document_id = ? ORDER BY p.start_at, p.number", (document_id,))
            passages = [found for row in rows if (found := self._whole(row)) is not None]
            made = {
                row[0]
                for row in self._database.rows(
                    "SELECT content_key FROM next_vectors WHERE content_key IN (SELECT content_key FROM passages WHERE document_id = ?)",
                    (document_id,),
                )
            }
            if len(passages) < len(rows):
                continue
            texts = dict(zip((row[9] for row in rows), texts_of(self.document(document_id), passages), strict=True))
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
                    insert_vectors(connection, dict(zip((key for key, _ in batch), vectors, strict=True)), embedder_identity, "next_vectors")
        with self._database.transaction() as connection:
            if connection.execute("SELECT 1 FROM passages WHERE content_key NOT IN (SELECT content_key FROM next_vectors)").fetchone():
                raise StoreError("Documents were added while new vectors were made. Run `citewell reembed` again.")
            connection.execute("DROP TABLE vectors")
            connection.execute("ALTER TABLE next_vectors RENAME TO vectors")
            connection.execute("CREATE TABLE next_vectors (content_key BLOB PRIMARY KEY, vector BLOB NOT NULL, checksum BLOB NOT NULL)")
            connection.execute("DELETE FROM meta WHERE key IN ('next_embedder', 'chroma', 'written', 'buried')")
            connection.execute("DELETE FROM pending")
            set_meta(connection, "embedder", embedder_identity)
        self._embedder = embedder_identity
        self._vectors.start_again()
        if progress:
            progress(total, total)
        return True

    # Reading

    def _one(self, columns: str, document_id: str) -> Sequence[Any]:
        rows: list[Sequence[Any]] = self._database.rows(f"SELECT {columns} FROM documents WHERE id = ?", (document_id,))
        if not rows:
            raise KeyError(document_id)
        return rows[0]

    def text(self, document_id: str) -> str:
        """A document's stored text. Raises KeyError when there is none, StoreDamaged when it is not what was stored."""
        return self.document(document_id).text

    def document(self, document_id: str) -> Document:
        """A document as it was stored. Raises KeyError when there is none, StoreDamaged when it is not what was stored."""
        row = self._one(f"root, {DOCUMENT}, checksum, text", document_id)
        found = read_document(row[1:])
        if found is None:
            self._drop_damaged(document_id, row[0], row[3])
            raise StoreDamaged(f"'{row[3]}' was damaged on disk and dropped. Sync its folder '{Path(row[0]).name}' again.")
        return found

    def _whole(self, row: Sequence[Any]) -> Passage | None:
        """A passage as it was stored; None where damage has changed it, and then its document goes."""
        found = read_passage(row)
        if found is None:
            for root, source in self._database.rows("SELECT root, source FROM documents WHERE id = ?", (row[4],)):
                self._drop_damaged(row[4], root, source)
        return found

    def _drop_damaged(self, document_id: str, root: str, source: str) -> None:
        """Damage under an open store: the document answers no more, and notices() says so. Checked from end to end on the next opening."""
        self._database.damaged = True
        log.warning("'%s' of %s was damaged on disk and is dropped.", source, root)
        with suppress(StoreError):
            with self._database.transaction() as connection:
                remove_document(connection, document_id)
                connection.execute("INSERT OR IGNORE INTO lost VALUES (?, ?)", (root, source))
            self._vectors.catch_up()

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
        conditions, values = ["1"], []
        if document_id is not None:
            conditions, values = ["id = ?"], [document_id]
        if viewer is not None:
            conditions, values = [*conditions, f"id {SEEN}" if document_id is None else "owner IN ('', ?)"], [*values, viewer]
        where = " AND ".join(conditions)
        rows = self._database.rows(f"SELECT {INFO} FROM documents WHERE {where} ORDER BY source, root", values)
        # By the index: in a store that was taken over from version 2 the column stands behind the text, which would be read for it.
        if document_id is None:
            owners = dict(self._database.rows("SELECT id, owner FROM documents INDEXED BY documents_of WHERE owner > ''"))
        else:
            owners = {row[0]: self.owner(row[0]) for row in rows}
        return [DocumentInfo(*[*row, owners.get(row[0])]) for row in rows]

    def latest(self, count: int, viewer: str | None = None) -> list[DocumentInfo]:
        """The documents that were indexed last, at most so many, the newest first; the others stay unread."""
        whose, values = ("", []) if viewer is None else ("INDEXED BY documents_of WHERE owner IN ('', ?)", [viewer])
        numbers = f"SELECT number FROM documents {whose} ORDER BY number DESC LIMIT ?"
        rows = self._database.rows(
            f"SELECT {INFO}, owner FROM documents WHERE number IN ({numbers}) ORDER BY indexed_at DESC, source, root", [*values, count]
        )
        return [DocumentInfo(*[*row[:-1], row[-1] or None]) for row in rows]

    def ids_of(self, names: Sequence[str], viewer: str | None = None) -> dict[str, list[str]]:
        """The ids of documents by name: a name is the id of one, else the source of one or more. Names of none are left out."""
        whose, more = ("", []) if viewer is None else ("AND owner IN ('', ?)", [viewer])
        found: dict[str, list[str]] = {}
        for column in ("id", "source"):  # sources for the rest alone: for them all documents' are gone through
            by_name: dict[str, list[str]] = {}
            for batch, marks in batches([name for name in dict.fromkeys(names) if name not in found]):
                for name, identifier in self._database.rows(
                    f"SELECT {column}, id FROM documents WHERE {column} IN ({marks}) {whose} ORDER BY source, root", [*batch, *more]
                ):
                    by_name.setdefault(name, []).append(identifier)
            found.update(by_name)
        return found

    def owner(self, document_id: str) -> str | None:
        """Whose a document is; None where it is shared. Raises KeyError when there is no such document."""
        return self._one("owner", document_id)[0] or None

    def owned(self, owner: str) -> list[str]:
        """The ids of all documents that belong to the user with this id."""
        return [row[0] for row in self._database.rows("SELECT id FROM documents INDEXED BY documents_of WHERE owner = ?", (owner,))]

    def seen(self, document_id: str, viewer: str) -> bool:
        """Whether there is such a document and it is shared or the user's."""
        return bool(self._database.rows("SELECT 1 FROM documents INDEXED BY documents_of WHERE owner IN ('', ?) AND id = ?", (viewer, document_id)))

    def roots(self) -> list[str]:
        """All synced folders of which there is a document or a rejected file."""
        return [row[0] for row in self._database.rows("SELECT root FROM documents UNION SELECT root FROM rejected ORDER BY 1")]

    def fingerprints(self, root: str) -> dict[str, tuple[str, str]]:
        """What is stored of one synced folder: source to (document id, fingerprint)."""
        return {row[0]: (row[1], row[2]) for row in self._database.rows("SELECT source, id, fingerprint FROM documents WHERE root = ?", (root,))}

    def known(self, root: str, sources: Iterable[str] | None = None) -> dict[str, Known]:
        """What is known of every file of one synced folder, documents and rejected ones, by source; or of these files of it alone."""
        known = (
            "SELECT source, id, fingerprint, stamp, reader, '' FROM documents WHERE root = ?1 {0} "
            "UNION ALL SELECT source, '', fingerprint, stamp, reader, reason FROM rejected WHERE root = ?1 {0}"
        )
        if sources is None:
            rows = self._database.rows(known.format(""), (root,))
        else:
            some = [(batch, f"AND source IN ({','.join(f'?{number}' for number in range(2, 2 + len(batch)))})") for batch, _ in batches(sources)]
            rows = [row for batch, among in some for row in self._database.rows(known.format(among), (root, *batch))]
        return {row[0]: Known(*row[1:]) for row in rows}

    def rejected(self, root: str | None = None) -> dict[str, str]:
        """Files that could not become documents: source to reason."""
        return {rejection.source: rejection.reason for rejection in self.rejections(root)}

    def rejections(self, root: str | None = None, viewer: str | None = None) -> list[Rejection]:
        """Files that could not become documents, by source; those of one synced folder, or of all; with `viewer` those that a user may know of."""
        whose = "SELECT o.owner FROM owners o WHERE o.root = r.root AND o.source IN (r.source, '') ORDER BY o.source DESC LIMIT 1"
        rows = self._database.rows(
            "SELECT root, source, reason, at FROM rejected r WHERE (?1 IS NULL OR root = ?1) "
            f"AND (?2 IS NULL OR coalesce(({whose}), {OWN_OR_SHARED}) IN ('', ?2)) ORDER BY source, root",
            (root, viewer),
        )
        return [Rejection(*row) for row in rows]

    def document_count(self, viewer: str | None = None) -> int:
        """How many documents there are; with `viewer` only those that are shared or the user's with this id."""
        if viewer is None:
            return int(self._database.rows("SELECT count(*) FROM documents")[0][0])
        return int(self._database.rows("SELECT count(*) FROM documents INDEXED BY documents_of WHERE owner IN ('', ?)", (viewer,))[0][0])

    def rejection_count(self) -> int:
        """How many files there are that could not become documents."""
        return int(self._database.rows("SELECT count(*) FROM rejected")[0][0])

    def passage_count(self) -> int:
        """How many passages there are in all documents."""
        return int(self._database.rows("SELECT count(*) FROM passages")[0][0])

    def known_keys(self, keys: Iterable[bytes]) -> set[bytes]:
        """Those of the content keys for which the store has a vector."""
        found: set[bytes] = set()
        for batch, marks in batches(keys):
            found.update(row[0] for row in self._database.rows(f"SELECT content_key FROM vectors WHERE content_key IN ({marks})", batch))
        return found

    def vectors_by_content(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """The vectors that the store has for these content keys."""
        found: dict[bytes, NDArray[np.float32]] = {}
        for batch, marks in batches(keys):
            rows = self._database.rows(f"SELECT content_key, vector FROM vectors WHERE content_key IN ({marks})", batch)
            found.update((row[0], np.frombuffer(row[1], dtype=np.float32)) for row in rows)
        return found

    def passages(self, ids: Sequence[str], viewer: str | None = None) -> dict[str, Passage]:
        """The passages with these ids, those that are gone left out, and with `viewer` those that the user may not see."""
        whose, more = ("", []) if viewer is None else (f"AND {SEEN_EACH}", [viewer])
        rows = [row for batch, marks in batches(ids) for row in self._database.rows(f"{PASSAGES} WHERE p.id IN ({marks}) {whose}", [*batch, *more])]
        return {found.id: found for row in rows if (found := self._whole(row)) is not None}

    def edges(self, document_id: str) -> list[Passage]:
        """A document's first and last passage, where bylines and dates stand; one passage when it has but one."""
        ends = [
            self._database.rows(f"{PASSAGES} WHERE p.document_id = ? ORDER BY p.start_at {order} LIMIT 1", (document_id,))
            for order in ("ASC", "DESC")
        ]
        found = [passage for rows in ends for row in rows if (passage := self._whole(row)) is not None]
        return list(dict.fromkeys(found))

    def nearest(
        self, vector: NDArray[np.float32], limit: int, document_ids: Sequence[str] | None = None, viewer: str | None = None
    ) -> list[tuple[str, float]]:
        """Passage ids by meaning, nearest first, with their cosine similarity to the unit `vector`; with `viewer` of what that user may see.

        Nothing is found while the vectors of a large store are being indexed, or are of another embedding model: notices() says so.
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
        """nearest() for each row of `vectors`, which takes little longer than for one; of what is less similar than `at_least` any part may be missing."""
        if limit < 1 or (document_ids is not None and not document_ids):
            self._database.rows("SELECT 1")
            return [[] for _ in vectors]
        return self._vectors.nearest(vectors, limit, document_ids, viewer, at_least)

    def matching(self, query: str, limit: int, document_ids: Sequence[str] | None = None, viewer: str | None = None) -> list[tuple[str, float]]:
        """Passage ids by words (BM25 over passage, title and headings), best first, with a score that grows with the match; with `viewer` of what that
        user may see. How rare a word is, is counted over all documents."""
        terms = list(dict.fromkeys(word.lower() for word in content_words(query)))[:QUERY_WORDS]
        if not terms or (document_ids is not None and not document_ids):
            return []
        chosen = "" if document_ids is None else "AND p.document_id IN (SELECT value FROM json_each(?))"
        whose = "" if viewer is None else f"AND {SEEN_EACH}"
        values = [*([] if document_ids is None else [json.dumps(list(document_ids))]), *([] if viewer is None else [viewer])]

        def ranked(expression: str, most: int = -1, few: Sequence[int] | None = None) -> list[tuple[str, float]]:
            # With a plus, so that the numbers are not looked up one by one, each with a search of its own.
            among = "" if few is None else "AND +words.rowid IN (SELECT value FROM json_each(?))"
            # Where nothing about the passages decides, only those that are returned are looked up, and not each that is ranked. What damage has left of a
            # passage in the words' index alone, FTS5 cannot rank: it lacks the passage's length, which is quickly found.
            joined = "CROSS JOIN passages p ON p.number = words.rowid" if chosen or whose else "CROSS JOIN words_docsize l ON l.id = words.rowid"
            rows = self._database.rows(
                "SELECT p.id, f.score FROM (SELECT * FROM ("
                f"SELECT words.rowid AS number, -bm25(words) AS score FROM words {joined} WHERE words MATCH ? {among} {chosen} {whose} LIMIT ?"
                ") ORDER BY score DESC LIMIT ?) f CROSS JOIN passages p USING (number) ORDER BY f.score DESC",
                [expression, *([] if few is None else [json.dumps(few)]), *values, most, limit],
            )
            return [(row[0], float(row[1])) for row in rows]

        rare, frequent = self._by_rarity(terms)
        if not frequent:
            return ranked(_any_of(rare)) if rare else []
        few = self._vectors.exact.few(document_ids, viewer)
        if few is not None:
            return ranked(_any_of([*rare, *self._rarest(frequent)][:RANKED_WORDS]), few=few)
        found = dict(ranked(_any_of(rare))) if rare else {}
        if len(found) >= min(limit, ENOUGH):
            return sorted(found.items(), key=lambda pair: -pair[1])[:limit]
        # Two of these may be ranked: which are rarest, a count that ended early does not tell, and a longer one is only worth its time now.
        first, *others = map(_quoted, self._rarest_two(frequent))
        # No passage is in two of these, nor a word of one in another, so that what a passage scores adds up.
        for expression in [f"{first} AND {others[0]}", f"{first} NOT {others[0]}"] if others else [first]:
            if len(found) < min(limit, ENOUGH):
                for identifier, score in ranked(expression, RANKED_OF_FREQUENT):
                    found[identifier] = found.get(identifier, 0.0) + score
        return sorted(found.items(), key=lambda pair: -pair[1])[:limit]

    def _by_rarity(self, terms: Sequence[str]) -> tuple[list[str], list[str]]:
        """The terms that stand in the fewest passages, as many as stand in RANKED of them in sum, and those that are left; both the rarest first, as far as
        counts that end early tell."""
        counts = {term: count for term in terms if (count := self._occurrences(term, RANKED + 1))}
        ordered = sorted(counts, key=lambda term: counts[term])
        total = 0
        for place, term in enumerate(ordered):
            total += counts[term]
            if total > RANKED:
                return ordered[:place], ordered[place:]
        return ordered, []

    def _rarest(self, frequent: Sequence[str]) -> Sequence[str]:
        """Frequent terms, those in front that stand in the fewest passages, where they are too many to take all."""
        if len(frequent) <= 8:
            return frequent
        counts = {term: self._occurrences(term, 4 * RANKED) for term in frequent}
        return sorted(frequent, key=lambda term: counts[term])

    def _rarest_two(self, frequent: Sequence[str]) -> Sequence[str]:
        """The rarest two of frequent terms, of eight at most; those that stand in very many passages are not told apart."""
        left = self._rarest(frequent)[:8]
        if len(left) < 2:
            return left
        for most in (4 * RANKED, 32 * RANKED):
            counts = {term: self._occurrences(term, most) for term in left}
            # Two whole counts tell, or all but one: terms whose counts ended early come behind them.
            if sum(count < most for count in counts.values()) >= min(2, len(left) - 1):
                break
        return sorted(left, key=lambda term: counts[term])[:2]

    def _occurrences(self, term: str, most: int) -> int:
        """In how many passages a term stands, counted up to `most`; remembered until something changes, as questions share their frequent words."""
        changes, known = self._counted
        if changes != self._database.changes or len(known) >= COUNTS_REMEMBERED:
            changes, known = self._counted = (self._database.changes, {})
        before, count = known.get(term, (0, 0))
        if count == before < most:  # one below its limit is a whole count
            ((count,),) = self._database.rows("SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT ?)", (_quoted(term), most))
            known[term] = (most, int(count))
        return min(int(count), most)


def _any_of(terms: Sequence[str]) -> str:
    return " OR ".join(map(_quoted, terms))


def _quoted(term: str) -> str:
    """A term for FTS5, which stems it as it stemmed the text; quoting keeps its operators out of a user's question."""
    return f'"{term}"'


def owner(folder: Path) -> tuple[str, str | None, str]:
    """What to tell somebody who finds the store taken, and the owner's address and key if it gave them."""
    try:
        owner = json.loads((folder / "owner.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        owner = None
    if not isinstance(owner, dict):
        owner = {}
    address = owner.get("address")
    who = f"another Citewell process (pid {owner['pid']})" if owner.get("pid") else "another Citewell process"
    where = f"It answers at {address}: ask there, or stop it first." if address else "Wait for it to finish, or stop it first."
    return f"The store in {folder} is in use by {who}. {where}", address, str(owner.get("key") or "")
