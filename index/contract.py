"""What a store is, whoever keeps it: index.store on one machine, index.postgres for many. Sync, search and answers know no more of it than this."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from index.schema import Entry
    from index.types import Document, DocumentInfo, Known, Passage, Rejection, Span
    from index.vectors import State


class DocumentStore(Protocol):
    """Documents, passages, words and vectors. What one method wrote, every question asked after its return knows, in whatever process it is asked.

    A document is visible wholly or not at all. Everything raises StoreError once the store is closed, or where what keeps it does not answer.
    """

    folder: Path
    """The data folder of this process: its own files, and on one machine the store itself."""

    # Of the whole store

    def announce(self, address: str, key: str = "") -> None:
        """Leaves the address at which this process answers, where others have to ask it because it owns the store."""

    def close(self) -> None:
        """Gives back what is held. Safe to call twice."""

    @property
    def index_state(self) -> State:
        """What the vector index does: "opening", "ready", "rebuilding" or "failed"."""

    def wait_for_index(self, seconds: float) -> State:
        """Waits until the vector index is ready or has failed, at most so long; returns its state."""

    def notices(self, shown: Callable[[str], str] = str) -> tuple[str, ...]:
        """What a user should know about the store now, in whole sentences; `shown` makes of a folder's path what is said of it."""

    def lost(self) -> list[tuple[str, str]]:
        """Root and source of what damage took and no sync has brought back."""

    # Writing

    def put(self, document: Document, root: str, passages: Sequence[Passage], keys: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """Makes one document visible, in place of the version before it; `vectors` has one row a passage."""

    def put_many(self, entries: Sequence[Entry], vectors: Mapping[bytes, NDArray[np.float32]]) -> list[Entry]:
        """Makes documents visible, all at once, each in place of the version before it; returns those that were out of date and stay out.

        Out of date is an entry whose `replaces` is not what is there now, whichever process changed it. `vectors` holds, by content key, the unit
        vectors that the store lacks. Raises StoreError, and changes nothing, when a passage's key is in neither.
        """

    def many_changes(self) -> AbstractContextManager[None]:
        """For a sync, and for whatever else changes many documents: what is changed inside belongs together, and the vectors that known_keys() told of stay until
        its end. Changes inside may wait for the vector index where it is far behind."""

    def reject(self, root: str, source: str, reason: str, fingerprint: str = "", stamp: str = "", reader: int = 0) -> None:
        """Remembers why a file is not a document; a version indexed earlier goes."""

    def remove(self, document_id: str) -> None:
        """Makes a document gone. Raises KeyError when there is none."""

    def remove_many(self, document_ids: Iterable[str]) -> None:
        """Makes documents gone, all at once; ids that are no document's are passed over."""

    def touch(self, root: str, stamps: Mapping[str, str]) -> None:
        """Notes new stamps of files (source to stamp) whose content was found unchanged."""

    def forget_rejected(self, root: str, sources: Iterable[str]) -> None:
        """Drops the notes about rejected files that are no longer in the folder."""

    def set_owner(self, document_id: str, owner: str | None) -> None:
        """Gives a document to the user with this id, or shares it. Raises KeyError."""

    def set_folder_owner(self, root: str, owner: str | None) -> None:
        """Gives all documents of a synced folder to a user, or shares them, but not those given by set_owner()."""

    def folder_owner(self, root: str) -> str | None:
        """Whose the documents of a synced folder are; None where they are shared."""

    def forget_unused_vectors(self) -> int:
        """Drops the vectors that no passage refers to any more; returns how many."""

    def finish_sync(self, root: str) -> None:
        """For the end of a sync that was not cancelled: what nothing refers to goes."""

    def replace_vectors(
        self,
        embedder_identity: str,
        texts_of: Callable[[Document, Sequence[Passage]], Sequence[str]],
        embed: Callable[[Sequence[str]], NDArray[np.float32]],
        progress: Callable[[int, int], None] | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Gives every passage a vector of another embedding model; returns False when it was stopped before the end, and goes on there next time."""

    # Reading

    def text(self, document_id: str) -> str:
        """A document's stored text. Raises KeyError when there is none."""

    def document(self, document_id: str) -> Document:
        """A document as it was stored. Raises KeyError when there is none."""

    def furniture(self, document_id: str) -> tuple[Span, ...]:
        """The parts of a document that are not searched. Raises KeyError."""

    def pages(self, document_id: str) -> tuple[int, ...]:
        """The offsets at which a document's pages or slides begin. Raises KeyError."""

    def document_file(self, document_id: str) -> tuple[str, str, str]:
        """Where a document comes from: its root, source and fingerprint. Raises KeyError."""

    def info(self, document_id: str) -> DocumentInfo:
        """What a listing says of one document. Raises KeyError."""

    def documents(self, document_id: str | None = None, viewer: str | None = None) -> list[DocumentInfo]:
        """All documents by source, or the one asked for; with `viewer` only those that are shared or the user's with this id."""

    def latest(self, count: int, viewer: str | None = None) -> list[DocumentInfo]:
        """The documents that were indexed last, at most so many, the newest first; the others stay unread."""

    def ids_of(self, names: Sequence[str], viewer: str | None = None) -> dict[str, list[str]]:
        """The ids of documents by name: a name is the id of one, else the source of one or more. Names of none are left out."""

    def owner(self, document_id: str) -> str | None:
        """Whose a document is; None where it is shared. Raises KeyError."""

    def owned(self, owner: str) -> list[str]:
        """The ids of all documents that belong to the user with this id."""

    def seen(self, document_id: str, viewer: str) -> bool:
        """Whether there is such a document and it is shared or the user's."""

    def roots(self) -> list[str]:
        """All synced folders of which there is a document or a rejected file."""

    def fingerprints(self, root: str) -> dict[str, tuple[str, str]]:
        """What is stored of one synced folder: source to (document id, fingerprint)."""

    def known(self, root: str, sources: Iterable[str] | None = None) -> dict[str, Known]:
        """What is known of every file of one synced folder, documents and rejected ones, by source; or of these files of it alone."""

    def rejected(self, root: str | None = None) -> dict[str, str]:
        """Files that could not become documents: source to reason."""

    def rejections(self, root: str | None = None, viewer: str | None = None) -> list[Rejection]:
        """Files that could not become documents, by source."""

    def document_count(self, viewer: str | None = None) -> int:
        """How many documents there are; with `viewer` only those that the user sees."""

    def rejection_count(self) -> int:
        """How many files there are that could not become documents."""

    def passage_count(self) -> int:
        """How many passages there are in all documents."""

    def known_keys(self, keys: Iterable[bytes]) -> set[bytes]:
        """Those of the content keys for which the store has a vector."""

    def vectors_by_content(self, keys: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """The vectors that the store has for these content keys."""

    def passages(self, ids: Sequence[str], viewer: str | None = None) -> dict[str, Passage]:
        """The passages with these ids, those that are gone left out, and with `viewer` those that the user may not see."""

    def edges(self, document_id: str) -> list[Passage]:
        """A document's first and last passage; one passage when it has but one."""

    def nearest(
        self, vector: NDArray[np.float32], limit: int, document_ids: Sequence[str] | None = None, viewer: str | None = None
    ) -> list[tuple[str, float]]:
        """Passage ids by meaning, nearest first, with their cosine similarity to the unit `vector`.

        Nothing is found while the vectors of a large store cannot be asked, or are of another embedding model: notices() says so.
        """

    def nearest_each(
        self,
        vectors: NDArray[np.float32],
        limit: int,
        document_ids: Sequence[str] | None = None,
        viewer: str | None = None,
        at_least: float = -1.0,
    ) -> list[list[tuple[str, float]]]:
        """nearest() for each row of `vectors`; of what is less similar than `at_least` any part may be missing."""

    def matching(self, query: str, limit: int, document_ids: Sequence[str] | None = None, viewer: str | None = None) -> list[tuple[str, float]]:
        """Passage ids by words (BM25 over passage, title and headings), best first. How rare a word is, is counted over all documents."""


@runtime_checkable
class UploadKeeper(Protocol):
    """A store that keeps uploaded files too, as the processes that share it do not share a disk."""

    def keep_upload(self, root: str, source: str, content: bytes, fingerprint: str) -> None:
        """Keeps an uploaded file, in place of the one of its name. From then on a document of another version of it is out of date."""

    def drop_upload(self, root: str, source: str) -> None:
        """Lets go of an uploaded file, if there is one; a document that somebody makes of it meanwhile is out of date."""

    def uploads(self, root: str) -> dict[str, tuple[str, int]]:
        """What is kept under a root: source to fingerprint and size."""

    def upload_roots(self) -> list[str]:
        """All roots under which something is kept."""

    def unread_uploads(self) -> set[tuple[str, str, str]]:
        """Root, source and fingerprint of every kept file whose document, or whose rejection, is not of it; asked at once, whoever uploaded it."""

    def upload(self, root: str, source: str) -> bytes:
        """An uploaded file's bytes. Raises KeyError when there is none."""
