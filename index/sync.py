"""Makes the store match a folder: what is new comes in, what changed is replaced, what is gone goes, and every file is accounted for."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from index.embed import BATCH, Embedder
from index.errors import CitewellError, UnreadableDocument
from index.read import MAX_BYTES, fingerprint, read
from index.split import split
from index.store import Store
from index.types import Document, Passage

Progress = Callable[[int, int, str], None]
"""Called with files done, files in all, and the file at hand."""


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What became of every file, by source (path relative to the folder). `rejected` tells why."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    rejected: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        done = f"{len(self.added)} added, {len(self.changed)} changed, {len(self.removed)} removed"
        counts = f"{done}, {len(self.unchanged)} unchanged, {len(self.rejected)} rejected"
        return "\n".join([counts, *(f"  rejected {source}: {reason}" for source, reason in self.rejected.items())])


def context(passage: Passage) -> str:
    """What is embedded: the passage under its title and headings, which help a question find it and are never quoted."""
    above = " > ".join(part for part in (passage.title, passage.heading) if part)
    return f"{above}\n{passage.text}"


def content_key(text: str) -> bytes:
    """Tells whether a text was embedded before."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _readable(name: str) -> str:
    """A path as text that can be stored and shown: bytes that are no UTF-8 are written as \\xff."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _files(folder: Path, unlisted: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """Every file below the folder with its source; hidden files and folders are left out, and links are not followed.

    Folders that cannot be listed go into `unlisted` with the reason, the folder itself as '.'.
    """

    def note(error: OSError) -> None:
        unlisted[_readable(Path(error.filename).relative_to(folder).as_posix())] = f"its files cannot be listed ({error.strerror})"

    for parent, folders, names in os.walk(folder, onerror=note):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith("."):
                yield _readable(path.relative_to(folder).as_posix()), path


def _load(path: Path) -> bytes:
    try:
        if path.is_symlink():
            raise UnreadableDocument("it is a link, and links are not followed")
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableDocument("it is no ordinary file")
        if status.st_size > MAX_BYTES:
            raise UnreadableDocument(f"it is larger than {MAX_BYTES // 1_000_000} MB")
        return path.read_bytes()
    except OSError as error:
        raise UnreadableDocument(f"it cannot be opened ({error.strerror})") from error


def index(store: Store, embedder: Embedder, document: Document, root: str) -> None:
    """Splits, embeds and stores one document. Passages whose words the store has embedded before are not embedded again."""
    passages = split(document)
    texts = [context(passage) for passage in passages]
    keys = [content_key(text) for text in texts]
    known = store.vectors_by_content(keys)
    # By length, so that short passages are not padded to the longest of their batch.
    missing = sorted({key: text for key, text in zip(keys, texts, strict=True) if key not in known}.items(), key=lambda pair: len(pair[1]))
    for start in range(0, len(missing), BATCH):
        batch = missing[start : start + BATCH]
        known.update(zip((key for key, _ in batch), embedder.embed([text for _, text in batch]), strict=True))
    store.put(document, root, passages, keys, np.stack([known[key] for key in keys]))


def sync(store: Store, embedder: Embedder, folder: Path, progress: Progress | None = None) -> SyncReport:
    """Makes the store match the folder. Files that cannot be read are reported, never skipped; other folders' documents stay.

    Raises CitewellError when the folder is not there: an unplugged disk must not empty the store. What lies in a folder below it that cannot be
    listed stays as it is, and the folder is among the rejected.
    """
    folder = Path(os.path.expanduser(folder))
    if not folder.is_dir():
        raise CitewellError(f"There is no folder '{folder}'. Give the folder that holds your documents.")
    root = _readable(str(folder.resolve()))
    stored = store.fingerprints(root)
    rejected: dict[str, str] = {}
    files = list(_files(folder, rejected))
    if "." in rejected:
        raise CitewellError(f"The folder '{folder}' cannot be read: {rejected['.']}. Nothing was changed.")
    unlisted = tuple(f"{source}/" for source in rejected)
    for source, reason in rejected.items():
        store.reject(root, source, reason)
    added: list[str] = []
    changed: list[str] = []
    unchanged: list[str] = []
    for number, (source, path) in enumerate(files):
        if progress:
            progress(number, len(files), source)
        try:
            content = _load(path)
            if source in stored and stored[source][1] == fingerprint(content):
                unchanged.append(source)
                continue
            index(store, embedder, read(content, source, root), root)
            (changed if source in stored else added).append(source)
        except UnreadableDocument as error:
            store.reject(root, source, str(error))
            rejected[source] = str(error)
    present = {source for source, _ in files} | set(rejected) | {source for source in stored if source.startswith(unlisted)}
    removed = sorted(set(stored) - present)
    for source in removed:
        store.remove(stored[source][0])
    store.forget_rejected(root, set(store.rejected(root)) - present)
    if progress:
        progress(len(files), len(files), "")
    return SyncReport(tuple(added), tuple(changed), tuple(removed), tuple(unchanged), rejected)
