"""The part of a store that one user sees: what is shared and what is theirs. What is somebody else's is, in every answer, not there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from index.contract import DocumentStore
from index.types import Document, DocumentInfo, Known, Passage, Rejection, Span

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from index.vectors import State


class Visible:
    """Reads a store as one user, by their id. It has those methods of Store that only read, each filtered, and no others: what is added to Store
    one day is refused here until somebody has thought about it.

    A document of somebody else raises the KeyError of one that does not exist. Where the folders stand that are synced is for those who are `told_folders`.
    """

    def __init__(self, store: DocumentStore, viewer: str, told_folders: bool = False) -> None:
        self._store, self.viewer, self._told_folders = store, viewer, told_folders

    def _checked(self, document_id: str) -> str:
        if not self._store.seen(document_id, self.viewer):
            raise KeyError(document_id)
        return document_id

    # Of the whole store, and nothing of any document

    @property
    def folder(self) -> Path:
        """The data folder."""
        return self._store.folder

    @property
    def index_state(self) -> State:
        """What the vector index does."""
        return self._store.index_state

    def wait_for_index(self, seconds: float) -> State:
        """Waits until the vector index is ready or has failed, at most so long; returns its state."""
        return self._store.wait_for_index(seconds)

    def notices(self) -> tuple[str, ...]:
        """What a user should know about the store now. Folders are named that damage took something from, and no document."""
        return self._store.notices() if self._told_folders else self._store.notices(lambda root: Path(root).name or root)

    # Of one document

    def text(self, document_id: str) -> str:
        """A document's stored text. Raises KeyError, StoreDamaged."""
        return self._store.text(self._checked(document_id))

    def document(self, document_id: str) -> Document:
        """A document as it was stored. Raises KeyError, StoreDamaged."""
        return self._store.document(self._checked(document_id))

    def furniture(self, document_id: str) -> tuple[Span, ...]:
        """The parts of a document that are not searched. Raises KeyError."""
        return self._store.furniture(self._checked(document_id))

    def pages(self, document_id: str) -> tuple[int, ...]:
        """The offsets at which a document's pages begin. Raises KeyError."""
        return self._store.pages(self._checked(document_id))

    def document_file(self, document_id: str) -> tuple[str, str, str]:
        """Root, source and fingerprint. Raises KeyError."""
        return self._store.document_file(self._checked(document_id))

    def info(self, document_id: str) -> DocumentInfo:
        """What a listing says of one document. Raises KeyError."""
        return self._store.info(self._checked(document_id))

    def owner(self, document_id: str) -> str | None:
        """The user's own id, or None for a shared document. Raises KeyError."""
        return self._store.owner(self._checked(document_id))

    def edges(self, document_id: str) -> list[Passage]:
        """A document's first and last passage; none where there is no such document."""
        return self._store.edges(document_id) if self._store.seen(document_id, self.viewer) else []

    # Of all documents

    def documents(self, document_id: str | None = None) -> list[DocumentInfo]:
        """All that the user sees by source, or the one asked for."""
        return self._store.documents(document_id, self.viewer)

    def latest(self, count: int) -> list[DocumentInfo]:
        """Those of what the user sees that were indexed last, the newest first."""
        return self._store.latest(count, self.viewer)

    def ids_of(self, names: Sequence[str]) -> dict[str, list[str]]:
        """The ids of documents that the user sees by name, as Store.ids_of()."""
        return self._store.ids_of(names, self.viewer)

    def document_count(self) -> int:
        """How many documents the user sees."""
        return self._store.document_count(self.viewer)

    def fingerprints(self, root: str) -> dict[str, tuple[str, str]]:
        """What the user sees of one synced folder: source to (document id, fingerprint)."""
        return {source: found for source, found in self._store.fingerprints(root).items() if self._store.seen(found[0], self.viewer)}

    def known(self, root: str, sources: Iterable[str] | None = None) -> dict[str, Known]:
        """What the user sees of every file of one synced folder, documents and rejected ones, by source; or of these files of it alone."""
        known = self._store.known(root, sources)
        rejected = self.rejected(root) if any(file.reason for file in known.values()) else {}
        return {
            source: file for source, file in known.items() if (source in rejected if file.reason else self._store.seen(file.document_id, self.viewer))
        }

    def rejected(self, root: str | None = None) -> dict[str, str]:
        """Files that could not become documents: source to reason."""
        return {rejection.source: rejection.reason for rejection in self.rejections(root)}

    def rejections(self, root: str | None = None) -> list[Rejection]:
        """Files that could not become documents, of those that the user may know of."""
        return self._store.rejections(root, self.viewer)

    def passages(self, ids: Sequence[str]) -> dict[str, Passage]:
        """The passages with these ids that the user sees."""
        return self._store.passages(ids, self.viewer)

    def nearest(self, vector: NDArray[np.float32], limit: int, document_ids: Sequence[str] | None = None) -> list[tuple[str, float]]:
        """Passage ids by meaning, as Store.nearest()."""
        return self._store.nearest(vector, limit, document_ids, self.viewer)

    def nearest_each(
        self, vectors: NDArray[np.float32], limit: int, document_ids: Sequence[str] | None = None, at_least: float = -1.0
    ) -> list[list[tuple[str, float]]]:
        """Passage ids by meaning, as Store.nearest_each()."""
        return self._store.nearest_each(vectors, limit, document_ids, self.viewer, at_least)

    def matching(self, query: str, limit: int, document_ids: Sequence[str] | None = None) -> list[tuple[str, float]]:
        """Passage ids by words, as Store.matching()."""
        return self._store.matching(query, limit, document_ids, self.viewer)
