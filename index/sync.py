"""Makes the store match a folder: what is new comes in, what changed is replaced, what is gone goes, and every file is accounted for."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
from numpy.typing import NDArray

from index.contract import DocumentStore
from index.embed import Embedder
from index.errors import CitewellError, UnreadableDocument
from index.parse import Parser
from index.read import MAX_BYTES, VERSION, fingerprint
from index.schema import Entry
from index.threads import behind_others
from index.types import Document, Known, Passage

Progress = Callable[[int, int, str], None]
"""Called with files done, files in all, and what is at hand."""

REMOVED_BY_HAND = "you removed it; choose 'retry' to have it back"
"""The reason of a file that stays out although it can be read, until it is asked for again."""

AT_ONCE = 64
"""So many texts are embedded between two looks at whether to stop: some seconds' work."""

GROUP_PASSAGES, GROUP_DOCUMENTS, GROUP_CHARACTERS = 128, 64, 4_000_000
"""Documents are embedded and stored in groups, closed when one of these is passed: one sorted batch, one transaction, bounded memory."""

FIRST_PASSAGES = 16
"""The first group is closed with so many: until it is, nothing is embedded at all."""

GROUPS_AT_ONCE = 2
"""So many groups are embedded at a time, while the one before them is stored: what one leaves idle at its end, the next uses."""

AHEAD_FILES, AHEAD_BYTES = 64, 8_000_000
"""Files are read ahead while others are embedded, until one of these is passed: they wait in memory."""

TOLD_SECONDS = 0.5
"""How often it is told how far a group is."""

SETTLED_SECONDS = 2.0
"""A file that changed within this time may change again under the same time stamp (FAT counts in two seconds), so its stamp is not trusted."""

LINK = "it is a link, and links are not followed"


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What became of every file, by source (path relative to the folder). `rejected` tells why.

    Where it was `cancelled`, what is listed is done and kept, and files not listed were not looked at.
    """

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    rejected: dict[str, str] = field(default_factory=dict)
    cancelled: bool = False

    def __str__(self) -> str:
        done = f"{len(self.added)} added, {len(self.changed)} changed, {len(self.removed)} removed"
        counts = f"{done}, {len(self.unchanged)} unchanged, {len(self.rejected)} rejected"
        left = ["Cancelled: what is done is kept, the rest was not looked at."] if self.cancelled else []
        return "\n".join([counts, *left, *(f"  rejected {_printable(source)}: {reason}" for source, reason in self.rejected.items())])


def _printable(name: str) -> str:
    """A name that does nothing to a terminal."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in name)


@dataclass(frozen=True, slots=True)
class _Seen:
    """One file as it was found. Neither `parsed` nor `reason`: as the store knows it. `passing`: to be tried again, and no reason to drop a version
    that was read earlier."""

    source: str
    stamp: str = ""
    fingerprint: str = ""
    reason: str = ""
    passing: bool = False
    parsed: tuple[Document, list[Passage]] | None = None


class _Passing(UnreadableDocument):
    """The file is being written, or its disk failed: no reason to drop what was read of it earlier."""


def context(document: Document, passage: Passage) -> str:
    """What is embedded: the passage under its title and headings, which help a question find it and are never quoted.

    A title that is only the file's name is left out, so that a renamed file need not be embedded again.
    """
    above = " > ".join(part for part in (document.title if document.titled else "", passage.heading) if part)
    return f"{above}\n{passage.text}"


def content_key(text: str) -> bytes:
    """Tells whether a text was embedded before."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def root_of(folder: Path) -> str:
    """The name under which the store knows a folder: its absolute path, links resolved."""
    return readable(str(folder.resolve()))


def readable(name: str) -> str:
    """A path as text that can be stored and shown: bytes that are no UTF-8 are written as \\xff, and what looks like that already as \\x5cxff, so that
    no two paths become one text."""
    plain = re.sub(r"\\(?=x[0-9a-f]{2})", r"\\x5c", name)
    try:
        return plain.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # surrogates that no file system gives
        return plain.encode("utf-8", "backslashreplace").decode()


def _files(folder: Path, unlisted: dict[str, str], apart: Path) -> Iterator[tuple[str, Path]]:
    """Every file below the folder with its source, and links to folders; hidden files and folders are left out, and links are not followed.
    The folder `apart`, the store's own, is left out too.

    Folders that cannot be listed go into `unlisted` with the reason, the folder itself as '.'.
    """

    def note(error: OSError) -> None:
        unlisted[readable(Path(error.filename).relative_to(folder).as_posix())] = f"its files cannot be listed ({error.strerror})"

    for parent, folders, names in os.walk(folder, onerror=note):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and os.path.realpath(os.path.join(parent, name)) != str(apart))
        names += [name for name in folders if os.path.islink(os.path.join(parent, name))]
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith("."):
                yield readable(path.relative_to(folder).as_posix()), path


def _stamp(status: os.stat_result) -> str:
    """Changes whenever the file does: renaming and writing both set the change time, which no program can set back."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def load(path: Path, max_bytes: int = MAX_BYTES) -> tuple[bytes, str]:
    """A file's bytes, and its stamp, empty where it cannot be trusted yet. Raises UnreadableDocument with the reason."""
    try:
        if path.is_symlink():
            raise UnreadableDocument(LINK)
        # A pipe must not be waited for, and a file that turns into a link in this moment not be followed.
        opened = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
        with open(opened, "rb") as file:
            before = os.fstat(opened)
            if not stat.S_ISREG(before.st_mode):
                raise UnreadableDocument("it is no ordinary file")
            if before.st_size > max_bytes:
                raise UnreadableDocument(f"it is larger than {max_bytes / 1_000_000:g} MB")
            content = file.read(before.st_size + 1)  # for as many bytes room is made; one that grows meanwhile is refused below
            after = os.fstat(opened)
    except OSError as error:
        if not os.path.lexists(path) or stat.S_ISREG(os.lstat(path).st_mode):
            lasting = error.errno in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP)
            raise (UnreadableDocument if lasting else _Passing)(f"it cannot be opened ({error.strerror})") from error
        raise UnreadableDocument("it is no ordinary file") from error  # a socket
    if _stamp(before) != _stamp(after) or len(content) != after.st_size:
        raise _Passing("it was being written while it was read; sync again when that is done")
    settled = time.time() - max(after.st_mtime, after.st_ctime) > SETTLED_SECONDS
    return content, _stamp(after) if settled else ""


def _examined(source: str, path: Path, root: str, before: Known | None, parser: Parser, max_bytes: int) -> _Seen:
    """What a file is now. Only a file whose bytes are new is parsed."""
    try:
        content, stamp = load(path, max_bytes)
    except _Passing as error:
        return _Seen(source, reason=str(error), passing=True)
    except UnreadableDocument as error:
        return _Seen(source, reason=str(error))
    digest = fingerprint(content)
    if before is not None and before.fingerprint == digest and before.reader >= VERSION:
        return _Seen(source, stamp, digest, before.reason)
    try:
        return _Seen(source, stamp, digest, parsed=parser.parse(content, source, root))
    except UnreadableDocument as error:
        return _Seen(source, stamp, digest, str(error)) if error.lasting else _Seen(source, reason=str(error))


def _as_before(source: str, path: Path, before: Known | None) -> _Seen | None:
    """A file that need not be opened: its stamp is the one noted when it was read, or it was removed by hand."""
    if before is None:
        return None
    if before.reason == REMOVED_BY_HAND:
        return _Seen(source, before.stamp, before.fingerprint, before.reason)
    try:
        same = bool(before.stamp) and before.reader >= VERSION and before.stamp == _stamp(os.lstat(path))
    except OSError:
        return None
    return _Seen(source, before.stamp, before.fingerprint, before.reason) if same else None


def _in_parallel(
    files: Iterable[tuple[str, Path]], examine: Callable[[str, Path], _Seen | Future[_Seen]], at_least: int, stopped: Callable[[], bool]
) -> Iterator[_Seen]:
    """What `examine` finds, as it is found. `at_least` so many files are at hand at a time, and more while they are small."""
    done: SimpleQueue[tuple[Future[_Seen], int]] = SimpleQueue()
    running = ahead = 0

    def found() -> Iterator[_Seen]:
        nonlocal running, ahead
        try:
            future, size = done.get(timeout=0.2)
        except Empty:
            return
        running, ahead = running - 1, ahead - size
        yield future.result()

    for source, path in files:
        if stopped():
            break
        seen = examine(source, path)
        if isinstance(seen, _Seen):
            yield seen
            continue
        size = _size(path)
        running, ahead = running + 1, ahead + size
        seen.add_done_callback(lambda future, size=size: done.put((future, size)))  # type: ignore[misc]
        while running >= at_least and (running >= AHEAD_FILES or ahead >= AHEAD_BYTES) and not stopped():
            yield from found()
    while running and not stopped():
        yield from found()


def _size(path: Path) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


@dataclass(slots=True)
class _Group:
    """Documents that are embedded and stored together."""

    entries: list[Entry] = field(default_factory=list)
    texts: dict[bytes, str] = field(default_factory=dict)
    characters: int = 0
    at_hand: str = ""
    """What is told of it while it is embedded."""

    def add(self, seen: _Seen, root: str, before: Known | None) -> None:
        assert seen.parsed is not None
        document, passages = seen.parsed
        texts = [context(document, passage) for passage in passages]
        keys = [content_key(text) for text in texts]
        replaces = before.fingerprint if before is not None and not before.reason else ""
        self.entries.append(Entry(document, root, passages, keys, seen.stamp, VERSION, replaces))
        self.texts.update(zip(keys, texts, strict=True))
        self.characters += len(document.text)

    @property
    def full(self) -> bool:
        return len(self.texts) >= GROUP_PASSAGES or len(self.entries) >= GROUP_DOCUMENTS or self.characters >= GROUP_CHARACTERS


def embed_missing(
    store: DocumentStore, embedder: Embedder, texts: Mapping[bytes, str], told: Callable[[int, int], None], stopped: Callable[[], bool]
) -> dict[bytes, NDArray[np.float32]] | None:
    """Vectors of those texts that the store has none of, by content key; None when it was stopped.

    Of long work the vectors are stored as they come, so that whoever stops it loses seconds: they wait there for their passages.
    """
    known = store.known_keys(list(texts))
    # By length, so that short texts are not padded to the longest of their batch.
    missing = sorted(((key, text) for key, text in texts.items() if key not in known), key=lambda pair: len(pair[1]))
    found: dict[bytes, NDArray[np.float32]] = {}
    for start in range(0, len(missing), AT_ONCE):
        if stopped():
            store.put_many([], found)
            return None
        told(start, len(missing))
        batch = missing[start : start + AT_ONCE]
        found.update(zip((key for key, _ in batch), embedder.embed([text for _, text in batch]), strict=True))
        if len(found) >= 8 * AT_ONCE:
            store.put_many([], found)
            found = {}
    return found


def sync(
    store: DocumentStore,
    embedder: Embedder,
    folder: Path,
    progress: Progress | None = None,
    stopped: Callable[[], bool] = lambda: False,
    max_bytes: int = MAX_BYTES,
    root: str = "",
    retry: bool = False,
) -> SyncReport:
    """Makes the store match the folder. Files that cannot be read are reported, never skipped; other folders' documents stay.

    Files are read in child processes while others are embedded. When `stopped` turns true, what is finished is kept and the report says so.
    `root` is the name under which the store knows the folder, its path unless told otherwise. With `retry`, files that were rejected are read again
    although they have not changed.
    Raises CitewellError when the folder is not there or cannot be listed, and changes nothing then. What lies in a folder below it that cannot be
    listed stays as it is, and the folder is among the rejected. A folder that is there and empty empties what came from it.
    """
    folder = Path(os.path.expanduser(folder))
    shown = readable(str(folder))
    if not folder.is_dir():
        raise CitewellError(f"There is no folder '{shown}'. Give the folder that holds your documents.")
    own = store.folder.resolve()
    if folder.resolve() == own:
        raise CitewellError(f"'{shown}' is where Citewell keeps its own data. Give the folder that holds your documents.")
    root = root or root_of(folder)
    known = store.known(root)
    if retry:
        store.forget_rejected(root, [source for source, before in known.items() if before.reason])
        known = {source: before for source, before in known.items() if not before.reason}
    rejected: dict[str, str] = {}
    files = list(_files(folder, rejected, own))
    if "." in rejected:
        raise CitewellError(f"The folder '{shown}' cannot be read: {rejected['.']}. Nothing was changed.")
    unlisted = tuple(f"{source}/" for source in rejected)
    for source, reason in rejected.items():
        store.reject(root, source, reason)

    present = {source for source, _ in files} | set(rejected)
    gone = [source for source in sorted(known) if source not in present and not source.startswith(unlisted)]
    removed = [source for source in gone if not known[source].reason]
    fates: dict[str, str] = {}
    stamps: dict[str, str] = {}
    group = _Group()
    embedding: deque[tuple[_Group, Future[dict[bytes, NDArray[np.float32]] | None]]] = deque()
    embedders = ThreadPoolExecutor(GROUPS_AT_ONCE, thread_name_prefix="citewell-groups", initializer=behind_others)
    given_up = threading.Event()

    def tell(at_hand: str) -> None:
        if progress:
            progress(len(fates), len(files), at_hand)

    def begin() -> None:
        """Has the group embedded, all but what comes with the groups before it."""
        nonlocal group
        begun, group = group, _Group()
        begun.at_hand = last = begun.entries[-1].document.source
        coming = set().union(*(before.texts for before, _ in embedding))
        missing = {key: text for key, text in begun.texts.items() if key not in coming}

        def told(done: int, all_: int) -> None:
            if all_ > AT_ONCE:
                begun.at_hand = f"{last} ({100 * done // all_} % of {all_} passages)"

        embedding.append((begun, embedders.submit(embed_missing, store, embedder, missing, told, lambda: given_up.is_set() or stopped())))

    def store_next() -> bool:
        """Stores the group that was begun first; False when it was stopped before that."""
        begun, coming = embedding.popleft()
        while wait([coming], timeout=TOLD_SECONDS).not_done:
            tell(begun.at_hand)
        vectors = coming.result()
        if vectors is None:
            # What was computed of the groups after it waits in the store for the next time; their documents may need vectors of this one.
            for _, other in embedding:
                store.put_many([], other.result() or {})
            embedding.clear()
            return False
        late = {entry.document.source for entry in store.put_many(begun.entries, vectors)}
        for entry in begun.entries:
            source = entry.document.source
            if source in late:
                rejected[source] = fates[source] = "it was removed while it was being read"
            else:
                fates[source] = "changed" if entry.replaces else "added"
        return True

    with store.many_changes():
        # In groups: writers, and whoever wants to stop it, wait for one of them and not for all.
        let_go: list[str] = []
        while True:
            some = removed[len(let_go) : len(let_go) + GROUP_DOCUMENTS]
            store.remove_many([known[source].document_id for source in some])
            let_go += some
            if len(let_go) == len(removed) or stopped():
                break
            tell(some[-1])
        store.forget_rejected(root, set(gone) - set(removed))
        with Parser() as parser, ThreadPoolExecutor(parser.workers, thread_name_prefix="citewell-read", initializer=behind_others) as pool:

            def examine(source: str, path: Path) -> _Seen | Future[_Seen]:
                before = known.get(source)
                return _as_before(source, path, before) or pool.submit(_examined, source, path, root, before, parser, max_bytes)

            try:
                for seen in _in_parallel(files, examine, 4 * parser.workers, stopped):
                    source, before = seen.source, known.get(seen.source)
                    tell(source)
                    if seen.parsed:
                        group.add(seen, root, before)
                        if group.full or (not embedding and len(group.texts) >= FIRST_PASSAGES):
                            begin()
                        if len(embedding) > GROUPS_AT_ONCE and not store_next():
                            break
                        continue
                    if seen.reason:
                        rejected[source] = fates[source] = seen.reason
                        if not (seen.passing and before is not None) and (
                            before is None or before.reader < VERSION or (before.reason, before.fingerprint) != (seen.reason, seen.fingerprint)
                        ):
                            store.reject(root, source, seen.reason, seen.fingerprint, seen.stamp, VERSION)
                            continue
                    else:
                        fates[source] = "unchanged"
                    if before is not None and seen.stamp != before.stamp:
                        stamps[source] = seen.stamp
                if group.entries and not stopped():
                    begin()
                while embedding and store_next():
                    pass
            finally:
                given_up.set()
                parser.close()  # nothing waits for files that nobody wants any more
                pool.shutdown(cancel_futures=True)
                embedders.shutdown(cancel_futures=True)
        store.touch(root, stamps)
        cancelled = stopped() and (len(fates) < len(files) or len(let_go) < len(removed))
        if not cancelled:
            tell("tidying up")
            store.finish_sync(root)
    tell("")
    in_order = [source for source, _ in files]
    return SyncReport(
        tuple(source for source in in_order if fates.get(source) == "added"),
        tuple(source for source in in_order if fates.get(source) == "changed"),
        tuple(let_go),
        tuple(source for source in in_order if fates.get(source) == "unchanged"),
        {source: rejected[source] for source in [*sorted(set(rejected) - set(in_order)), *(s for s in in_order if s in rejected)]},
        cancelled,
    )
