"""The documents' side of an assistant: folders that are synced, files that are uploaded or removed, one piece of work after the other."""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
import time
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from index.contract import DocumentStore, UploadKeeper
from index.embed import Embedder
from index.errors import CitewellError, NotAllowed, OverLimit
from index.read import fingerprint
from index.schema import OWN_UPLOADS, UPLOADS
from index.seal import make_private, make_private_folder
from index.sync import GROUP_DOCUMENTS, REMOVED_BY_HAND, Progress, SyncReport, readable, root_of, sync
from index.types import DocumentInfo, Known
from rag.accounts import LOCAL

NAME_BYTES = 200
"""File systems take names of 255 bytes; some room is left for what is put before them."""

READING_UPLOADS = "Reading uploaded files"

TOGETHER_SECONDS = 5.0
"""Uploads that follow each other within this time are told of in one report: the page sends the files of one choice one by one."""

OUTCOMES = 5
RATE_SECONDS = 30.0
"""The rate of work is that of the last half minute: the first files of a folder say little of the last."""

FATES = ("added", "changed", "removed", "unchanged")

UPLOADS_AT_ONCE = 2
UPLOAD_SECONDS = 5.0
"""So many uploads of one user may be coming in at a time; one more is told to come again after so long."""

APART = ".people"
"""Below the uploads and hidden, so that a sync of those leaves users' folders out."""

COPIES = "shared-uploads"
"""The folder for uploads where a shared store has them too."""

UNREAD_SECONDS = 60.0
"""What one server was sent and has not read for so long, another reads."""

_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"|?*/\\]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Work:
    """What is going on: `done` of `total` files, and the rate and time left where they can be told. `total` is 0 before the files are
    counted, `root` is the folder as the store knows it."""

    what: str
    done: int = 0
    total: int = 0
    current: str = ""
    files_per_second: float | None = None
    seconds_left: float | None = None
    root: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a piece of work: its report, or the `problem` that ended it."""

    what: str
    report: SyncReport | None
    problem: str = ""
    root: str = ""


@dataclass(frozen=True, slots=True)
class Quota:
    """How many files, and how many bytes in all, a user may have uploaded."""

    files: int
    bytes: int


class Library:
    """Keeps a store in step with folders and uploads. Its methods may be called from any thread."""

    def __init__(self, store: DocumentStore, embedder: Embedder, max_bytes: int) -> None:
        self._store, self._embedder, self._max_bytes = store, embedder, max_bytes
        # Where machines share the store it has the uploaded files too, and what lies here is a copy. Apart from what may have been uploaded to a store
        # in the same data folder before: that is nobody's copy.
        self._keeper = store if isinstance(store, UploadKeeper) else None
        self.uploads = store.folder / (UPLOADS if self._keeper is None else COPIES)
        """Where uploaded files are kept; synced like any other folder."""
        self.own_root = UPLOADS
        """What the store knows them by."""
        self._copied: dict[tuple[str, str], tuple[str, int, int]] = {}
        self._turn = threading.Lock()
        self._adding = threading.Lock()
        self._state = threading.Lock()
        self._waiting: dict[Path, tuple[str, frozenset[str]]] = {}
        self._uploads_read = 0.0
        self._coming: Counter[str] = Counter()
        self._worker: threading.Thread | None = None
        self._watcher: threading.Thread | None = None
        self._work: Work | None = None
        self._outcomes: deque[Outcome] = deque(maxlen=OUTCOMES)
        self._cancelled = threading.Event()
        self._closed = threading.Event()

    def close(self) -> None:
        """Stops what is going on, keeping what is finished, and waits for that."""
        self._closed.set()
        with self._state:
            self._waiting.clear()
            threads = (self._worker, self._watcher)
        for thread in threads:
            if thread is not None and thread is not threading.current_thread():
                thread.join()
        with self._turn:  # a sync in somebody else's thread ends too
            pass

    def sync(self, folder: Path, progress: Progress | None = None, stopped: Callable[[], bool] = lambda: False, retry: bool = False) -> SyncReport:
        """Makes the store match a folder, here and now, after whatever else is going on. Raises what index.sync.sync raises; what it raises is told to
        the caller alone, and is no outcome. Raises CitewellError for a folder inside the data folder: other people's uploads would become everybody's."""
        if folder.resolve().is_relative_to(self._store.folder.resolve()):
            raise CitewellError("What lies in Citewell's own data folder is not synced. Choose another folder.")
        what = f"Syncing {readable(str(folder))}"
        with self._turn:
            with self._state:  # both at once: who stops the work before this one must not stop this one
                self._cancelled.clear()
                self._work = Work(what, root=self.root(folder))
            report = self._synced(folder, what, progress, stopped, retry)
            self._outcomes.appendleft(Outcome(what, report, root=self.root(folder)))
            return report

    def _synced(self, folder: Path, what: str, progress: Progress | None, stopped: Callable[[], bool], retry: bool) -> SyncReport:
        begun, root = deque([(time.monotonic(), 0)]), self.root(folder)
        if is_upload(root):
            self._copy_uploads(root)

        def told(done: int, total: int, current: str) -> None:
            now = time.monotonic()
            begun.append((now, done))
            while now - begun[0][0] > RATE_SECONDS and len(begun) > 2:
                begun.popleft()
            (then, before) = begun[0]
            rate = (done - before) / (now - then) if done > before and now > then else None
            self._work = Work(what, done, total, current, rate, (total - done) / rate if rate else None, root)
            if progress:
                progress(done, total, current)

        self._work = Work(what, root=root)
        try:
            return sync(
                self._store,
                self._embedder,
                folder,
                told,
                lambda: self._cancelled.is_set() or self._closed.is_set() or stopped(),
                self._max_bytes,
                root if is_upload(root) else "",
                retry,
            )
        finally:
            self._work = None

    def _told(self, folder: Path, what: str, asked: frozenset[str]) -> None:
        """Syncs a folder for the `asked` files, for all where there are none, and keeps what came of it."""
        root = self.root(folder)
        try:
            before = self._store.known(root)
            report = self._synced(folder, what, None, lambda: False, False)
        except CitewellError as error:
            log.warning("%s", error)
            self._outcomes.appendleft(Outcome(what, None, str(error), root))
            return
        except Exception:
            log.exception("%s failed", what)
            self._outcomes.appendleft(Outcome(what, None, "Something went wrong; the log says what. What was finished is kept.", root))
            return
        if asked:
            report = _narrowed(report, asked, before)
        latest = self._outcomes[0] if self._outcomes else None
        before_it = latest.report if latest and (latest.what, latest.root) == (what, root) else None
        now = time.monotonic()
        if what == READING_UPLOADS and before_it and not before_it.cancelled and now - self._uploads_read < TOGETHER_SECONDS:
            self._outcomes[0] = Outcome(what, _joined(before_it, report), root=root)
        else:
            self._outcomes.appendleft(Outcome(what, report, root=root))
        if what == READING_UPLOADS:
            self._uploads_read = now

    def _copy_uploads(self, root: str) -> None:
        """Makes the folder of uploaded files hold what a shared store keeps. Raises CitewellError where that cannot be written."""
        if self._keeper is None:
            return
        kept = self._keeper.uploads(root)
        try:
            make_private_folder(self.folder(root))
            for name in os.listdir(self.folder(root)):
                if not name.startswith(".") and name not in kept:
                    (self.folder(root) / name).unlink(missing_ok=True)
        except OSError as error:
            raise CitewellError(f"Uploaded files could not be copied ({error.strerror}). Check the data folder and the free disk space.") from error
        for source, (wanted, _) in kept.items():
            with suppress(KeyError):  # it was removed meanwhile
                self._copy_upload(root, source, wanted)

    def _copy_upload(self, root: str, source: str, wanted: str) -> None:
        """Has one uploaded file lie here as the shared store keeps it. Raises KeyError where it keeps none."""
        assert self._keeper is not None
        path = self.folder(root) / safe_name(source)
        try:
            there = path.lstat() if path.exists() else None
            if there is not None and self._copied.get((root, source)) == (wanted, there.st_size, there.st_mtime_ns):
                return
            if there is None or fingerprint(path.read_bytes()) != wanted:
                content = self._keeper.upload(root, source)
                make_private_folder(path.parent)
                scratch = path.with_name(f".{uuid4().hex}")
                try:
                    make_private(scratch)
                    scratch.write_bytes(content)
                    os.replace(scratch, path)
                finally:
                    scratch.unlink(missing_ok=True)
                there = path.lstat()
            self._copied[root, source] = (wanted, there.st_size, there.st_mtime_ns)
        except OSError as error:
            raise CitewellError(f"'{source}' could not be copied ({error.strerror}). Check the data folder and the free disk space.") from error

    def file(self, root: str, source: str) -> Path:
        """Where one file is that the store knows; an uploaded one of a shared store is copied here first. It may be gone."""
        if self._keeper is not None and is_upload(root):
            with suppress(KeyError):
                self._copy_upload(root, source, self._keeper.uploads(root)[source][0])
        return self.folder(root) / source

    def folder(self, root: str) -> Path:
        """Where the files are that the store knows under a root."""
        if root.startswith(OWN_UPLOADS):
            return self.uploads / APART / safe_name(root.removeprefix(OWN_UPLOADS))
        return self.uploads if root == UPLOADS else Path(root)

    def root(self, folder: Path) -> str:
        """The name under which the store knows a folder."""
        if folder == self.uploads:
            return UPLOADS
        return OWN_UPLOADS + folder.name if folder.parent == self.uploads / APART else root_of(folder)

    def add(self, name: str, path: Path, root: str = UPLOADS, quota: Quota | None = None) -> str:
        """Takes over an uploaded file and reads it in the background; returns the source it will have. A file of the same name is replaced.

        `root` is where it is to lie, everybody's uploads or a user's, and `quota` what may lie there.
        Raises CitewellError when it is too large or cannot be copied, OverLimit where it would be more than the quota.
        """
        source, folder = safe_name(name), self.folder(root)
        try:
            size = path.stat().st_size
            if size > self._max_bytes:
                raise CitewellError(f"'{source}' is larger than {self._max_bytes / 1_000_000:g} MB, the most that a file may have.")
            make_private_folder(folder)
            # One at a time, so that two files do not both fit into the room that there is for one.
            with self._adding if quota else nullcontext():
                if quota:
                    _refuse_beyond(quota, self._others(root, (source,)), source, size)
                # Under a hidden name first: half a file must not be read, nor take the place of a whole one.
                scratch = folder / f".{uuid4().hex}"
                try:
                    make_private(scratch)
                    shutil.copyfile(path, scratch)
                    if self._keeper is not None:
                        content = scratch.read_bytes()
                        self._keeper.keep_upload(root, source, content, fingerprint(content))
                    os.replace(scratch, folder / source)
                finally:
                    scratch.unlink(missing_ok=True)
        except OSError as error:
            raise CitewellError(f"'{source}' could not be kept ({error.strerror}). Check the free disk space.") from error
        self._queue(folder, READING_UPLOADS, source)
        return source

    def room(self, replaced: Collection[str] = (), root: str = UPLOADS, quota: Quota | None = None) -> int:
        """How many bytes one more file may have that takes the place of those named; add() looks again. Raises OverLimit where no file fits in."""
        if quota is None:
            return self._max_bytes
        others = self._others(root, replaced)
        if len(others) + 1 > quota.files:
            raise OverLimit(f"You have uploaded {len(others):,} files, and {quota.files:,} is the most. Remove some first.")
        return max(0, min(self._max_bytes, quota.bytes - sum(others)))

    def _others(self, root: str, replaced: Collection[str]) -> list[int]:
        """The sizes of the uploaded files of a root but for those named."""
        if self._keeper is None:
            return _sizes_of_others(self.folder(root), replaced)
        return [size for source, (_, size) in self._keeper.uploads(root).items() if source not in replaced]

    @contextmanager
    def uploading(self, root: str = UPLOADS, quota: Quota | None = None) -> Iterator[None]:
        """For as long as an upload's bytes come in and are copied: they lie outside of what a quota counts. Raises OverLimit where enough are coming in."""
        if quota is None:
            yield
            return
        with self._state:
            if self._coming[root] >= UPLOADS_AT_ONCE:
                raise OverLimit(
                    f"{UPLOADS_AT_ONCE} uploads of yours are coming in already. Send the next when one of them is through.", UPLOAD_SECONDS
                )
            self._coming[root] += 1
        try:
            yield
        finally:
            with self._state:
                self._coming[root] -= 1
                if not self._coming[root]:
                    del self._coming[root]

    def resume(self) -> None:
        """Reads, in the background, what was uploaded before Citewell was stopped; of a shared store from now on also what another server leaves unread."""
        for root, source, _ in sorted(self._unread()):
            self._queue(self.folder(root), READING_UPLOADS, source)
        if self._keeper is not None and self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="citewell-unread", daemon=True)
            self._watcher.start()

    def _unread(self) -> set[tuple[str, str, str]]:
        """Root, source and fingerprint of every uploaded file whose document, or whose rejection, is not of it. Without fingerprints where they lie here
        alone: whoever replaces one reads it."""
        if self._keeper is None:
            return {(root, source, "") for root in (UPLOADS, *self._own_roots()) for _, source in self.waiting(root)}
        return self._keeper.unread_uploads()

    def _watch(self) -> None:
        """Reads what another server was sent and did not read, as it was stopped."""
        before: set[tuple[str, str, str]] = set()
        while not self._closed.wait(UNREAD_SECONDS):
            try:
                now = self._unread()
                for root, source, _ in now & before:
                    self._queue(self.folder(root), READING_UPLOADS, source)
                before = now
            except CitewellError as error:  # PostgreSQL is away, or this is being closed
                log.warning("%s", error)

    def remove(self, document_ids: Sequence[str]) -> None:
        """Makes documents gone at once: an uploaded file is deleted, one of a synced folder stays where it is and is left out from now on.

        Raises KeyError with the first id that is no document; the others are gone.
        """
        unknown: list[str] = []
        for document_id in document_ids:
            try:
                root, source, _ = self._store.document_file(document_id)
            except KeyError:
                unknown.append(document_id)
                continue
            if is_upload(root):
                self.discard(root, source)
                continue
            before = self._store.known(root, [source]).get(source)
            if before is not None:
                self._store.reject(root, source, REMOVED_BY_HAND, before.fingerprint, before.stamp, before.reader)
        if unknown:
            raise KeyError(unknown[0])

    def discard(self, root: str, source: str) -> None:
        """Deletes an uploaded file, with its document or the note that it was rejected. Raises KeyError for a file of another folder."""
        if not is_upload(root):
            raise KeyError(source)
        if self._keeper is not None:
            self._keeper.drop_upload(root, source)
        with suppress(OSError):
            (self.folder(root) / safe_name(source)).unlink(missing_ok=True)
        before = self._store.known(root, [source]).get(source)
        if before is not None and not before.reason:
            self._store.remove_many([before.document_id])
        self._store.forget_rejected(root, [source])
        if self._work is not None:  # which may have read the file already
            self._queue(self.folder(root), READING_UPLOADS, source)

    def retry(self, root: str, source: str) -> None:
        """Reads a rejected or waiting file again, in the background. Raises KeyError where there is no such file, CitewellError where its folder is gone."""
        folder, before = self.folder(root), self._store.known(root, [source]).get(source)
        if (before is None or not before.reason) and (root, source) not in (self.waiting(root) if is_upload(root) else ()):
            raise KeyError(source)
        if not folder.is_dir() and not (self._keeper is not None and is_upload(root)):
            raise CitewellError(f"The folder '{folder.name}' is not there. Bring it back, or let go of it with `citewell forget`.")
        self._store.forget_rejected(root, [source])
        self._queue(folder, f"Reading {source} again", source)

    def remove_user(self, owner: str) -> int:
        """Makes all documents of the user with this id gone, with the files that they uploaded. Returns how many documents there were."""
        documents = self._store.owned(owner)
        self.remove(documents)
        root = OWN_UPLOADS + owner
        for source in self._keeper.uploads(root) if self._keeper is not None else ():
            self.discard(root, source)
        self._store.forget_rejected(root, list(self._store.known(root)))
        shutil.rmtree(self.folder(root), ignore_errors=True)
        return len(documents)

    def forget(self, folder: Path) -> int:
        """Lets go of a synced folder, be it there or not: its documents are gone, its files stay. Returns how many documents it had.

        Where it is stopped before the end, what is left can be let go of again. Raises CitewellError where the store knows nothing of the folder.
        """
        root = root_of(folder)
        known = self._store.known(root)
        if not known:
            raise CitewellError(f"Nothing of the folder '{folder}' is in the store. `citewell documents` lists what is.")
        documents = [before.document_id for before in known.values() if not before.reason]
        with self._store.many_changes():
            # In groups, as a sync lets go of documents: whoever else changes something waits for one of them.
            for start in range(0, len(documents), GROUP_DOCUMENTS):
                self._store.remove_many(documents[start : start + GROUP_DOCUMENTS])
            self._store.forget_rejected(root, list(known))
        return len(documents)

    def sync_soon(self, folder: Path) -> None:
        """Makes the store match a folder, in the background."""
        self._queue(folder, f"Syncing {readable(str(folder))}")

    def cancel(self, waiting: Callable[[str], bool] = lambda root: True, running: Callable[[str], bool] = lambda root: True) -> bool:
        """Stops what is going on and drops what waits, of those folders whose roots the two say yes to; what is finished is kept.

        Returns False where there is work and none of it was to be stopped.
        """
        with self._state:  # in which the next work begins: what is asked about is what is stopped
            dropped = [folder for folder in self._waiting if waiting(self.root(folder))]
            work = self._work  # which may end meanwhile
            idle = work is None and not self._waiting
            stopped = work is not None and running(work.root)
            for folder in dropped:
                del self._waiting[folder]
            if stopped:
                self._cancelled.set()
            return idle or stopped or bool(dropped)

    def work(self) -> Work | None:
        """What is going on or about to."""
        with self._state:
            return self._work or next((Work(what, root=self.root(folder)) for folder, (what, _) in self._waiting.items()), None)

    def waiting(self, root: str = UPLOADS) -> tuple[tuple[str, str], ...]:
        """Root and source of every uploaded file that has not been read yet, of everybody's or of a user's."""
        known = self._store.known(root)
        return tuple((root, name) for name in self.names(root) if name not in known)

    def names(self, root: str) -> list[str]:
        """The names of all uploaded files of a root, read or not."""
        if self._keeper is not None:
            return sorted(self._keeper.uploads(root))
        try:
            return sorted(name for name in os.listdir(self.folder(root)) if not name.startswith("."))
        except OSError:
            return []

    def _own_roots(self) -> list[str]:
        if self._keeper is not None:
            return [root for root in self._keeper.upload_roots() if root != UPLOADS]
        try:
            return [OWN_UPLOADS + name for name in sorted(os.listdir(self.uploads / APART))]
        except OSError:
            return []

    def outcomes(self) -> tuple[Outcome, ...]:
        """What came of the last pieces of work, the latest first."""
        return tuple(self._outcomes)

    def size(self, root: str, source: str) -> int | None:
        """A file's size in bytes; None where there is no such file."""
        if self._keeper is not None and is_upload(root):
            return self._keeper.uploads(root).get(source, ("", None))[1]
        try:
            return (self.folder(root) / source).lstat().st_size
        except (OSError, ValueError):
            return None

    def _queue(self, folder: Path, what: str, source: str = "") -> None:
        """Has a folder synced, for one file of it or for all."""
        with self._state:
            if self._closed.is_set():
                raise CitewellError("Citewell is being closed; add the files again when it is back.")
            _, asked = self._waiting.get(folder, ("", frozenset((source,))))
            asked = asked | {source} if source and asked else frozenset()
            several = len(asked) > 1 and what != READING_UPLOADS
            self._waiting[folder] = (f"Reading {len(asked)} files again" if several else what, asked)
            if self._worker is None:
                self._worker = threading.Thread(target=self._run, name="citewell-library", daemon=True)
                self._worker.start()

    def _run(self) -> None:
        while True:
            with self._turn:
                with self._state:
                    if not self._waiting:
                        self._worker = None
                        return
                    folder = next(iter(self._waiting))
                    what, asked = self._waiting.pop(folder)
                    self._cancelled.clear()
                    self._work = Work(what, root=self.root(folder))
                self._told(folder, what, asked)


def is_upload(root: str) -> bool:
    """Whether the store knows uploaded files under this root, everybody's or a user's."""
    return root == UPLOADS or root.startswith(OWN_UPLOADS)


def without_room(name: str, room: int) -> OverLimit:
    """What is said of a file for which there is less room than it needs."""
    return OverLimit(f"'{safe_name(name)}' is not taken: there is room for {room / 1e6:,.6g} MB more of your files. Remove some first.")


def _sizes_of_others(folder: Path, replaced: Collection[str]) -> list[int]:
    """The sizes of a folder's files but for those named. Hidden files count too, as half a file is also on the disk."""
    try:
        return [entry.stat(follow_symlinks=False).st_size for entry in os.scandir(folder) if entry.name not in replaced]
    except FileNotFoundError:  # nobody has uploaded anything yet
        return []


def _refuse_beyond(quota: Quota, others: Sequence[int], source: str, size: int) -> None:
    """Raises OverLimit unless a file of this size fits in beside the others, whose sizes these are."""
    if len(others) + 1 > quota.files:
        raise OverLimit(f"'{source}' is not taken: you have uploaded {len(others):,} files, and {quota.files:,} is the most. Remove some first.")
    if sum(others) + size > quota.bytes:
        raise OverLimit(
            f"'{source}' is not taken: with it your files would be {(sum(others) + size) / 1e6:,.1f} MB, and {quota.bytes / 1e6:,.6g} MB is the most. "
            "Remove some first."
        )


class OwnLibrary:
    """The library as one user sees and changes it: their own uploads. What is everybody's only an admin changes.

    It has those methods of Library that a page or a program asks for, and no others.
    """

    def __init__(self, library: Library, store: DocumentStore, viewer: str, admin: bool, quota: Quota | None = None) -> None:
        self._library, self._store, self._viewer, self._admin, self._quota = library, store, viewer, admin, quota
        # The store knows the user's uploads by this. What the local user adds is everybody's: whoever has the machine to themselves has nobody to keep it from.
        self.own_root = UPLOADS if viewer == LOCAL else OWN_UPLOADS + viewer

    def _mine(self, root: str) -> None:
        """Raises KeyError for the files of others, NotAllowed for everybody's unless the user is an admin."""
        if root != self.own_root and root.startswith(OWN_UPLOADS):
            raise KeyError(root)
        owner = self._viewer if root == self.own_root else self._store.folder_owner(root)
        if owner not in (None, self._viewer):
            raise KeyError(root)
        if owner is None and not self._admin:
            raise NotAllowed("These documents are everybody's. Ask an admin of this Citewell to change them.")

    @property
    def uploads(self) -> Path:
        """Where the user's uploaded files are kept."""
        return self._library.folder(self.own_root)

    def folder(self, root: str) -> Path:
        """Where the files are that the store knows under a root."""
        return self._library.folder(root)

    def names(self, root: str) -> list[str]:
        """The names of the user's uploaded files."""
        return self._library.names(self.own_root) if root == self.own_root else []

    def file(self, root: str, source: str) -> Path:
        """Where one file is that the store knows, as Library.file()."""
        return self._library.file(root, source)

    def add(self, name: str, path: Path) -> str:
        """Takes over an uploaded file that is the user's alone, as Library.add()."""
        # Before the file is there: its document is nobody else's from its first moment on.
        if self.own_root != UPLOADS and self._store.folder_owner(self.own_root) != self._viewer:
            self._store.set_folder_owner(self.own_root, self._viewer)
        return self._library.add(name, path, self.own_root, self._quota)

    def room(self, replaced: Collection[str] = ()) -> int:
        """How many bytes one more file of the user's may have, as Library.room(). Raises OverLimit."""
        return self._library.room(replaced, self.own_root, self._quota)

    @contextmanager
    def uploading(self) -> Iterator[None]:
        """For as long as an upload of the user's comes in, as Library.uploading(). Raises OverLimit."""
        with self._library.uploading(self.own_root, self._quota):
            yield

    def remove(self, document_ids: Sequence[str]) -> None:
        """Makes documents gone, the user's own and for an admin the shared ones; where one of them is not theirs to remove, none is, and NotAllowed raised.

        Raises KeyError with the first id that is no document; the others are gone.
        """
        seen = [document_id for document_id in document_ids if self._store.seen(document_id, self._viewer)]
        if not all(map(self._may_change, seen)):
            raise NotAllowed("A document among these is everybody's. Ask an admin of this Citewell to remove it.")
        self._library.remove(seen)
        for document_id in document_ids:
            if document_id not in seen:
                raise KeyError(document_id)

    def share(self, document_id: str, shared: bool) -> None:
        """Lets everybody see a document that the user uploaded, or nobody else again. Raises KeyError, NotAllowed.

        An admin also ends the sharing of others' uploads, which are then their uploaders' again, and makes theirs what is shared of everybody's folders.
        """
        if not self._store.seen(document_id, self._viewer):
            raise KeyError(document_id)
        if not self._may_change(document_id):
            raise NotAllowed("This document is everybody's. Ask an admin of this Citewell to change that.")
        root = self._store.document_file(document_id)[0]
        uploader = root.removeprefix(OWN_UPLOADS) if root.startswith(OWN_UPLOADS) else self._viewer
        self._store.set_owner(document_id, None if shared else uploader)

    def _may_change(self, document_id: str) -> bool:
        return self._admin or self._store.owner(document_id) == self._viewer or self._store.document_file(document_id)[0] == self.own_root

    def forget(self, folder: Path) -> int:
        """Lets go of a synced folder, as Library.forget(). Raises NotAllowed unless the user is an admin, CitewellError."""
        if not self._admin:
            raise NotAllowed("Folders of the server are an admin's to let go of. Ask one.")
        return self._library.forget(folder)

    def discard(self, root: str, source: str) -> None:
        """Deletes an uploaded file that was rejected, as Library.discard(). Raises KeyError, NotAllowed."""
        self._mine(root)
        self._library.discard(root, source)

    def retry(self, root: str, source: str) -> None:
        """Reads a rejected or waiting file again, as Library.retry(). Raises KeyError, NotAllowed, CitewellError."""
        self._mine(root)
        self._library.retry(root, source)

    def cancel(self) -> None:
        """Stops what is going on and what waits of the user's own; an admin also stops what is going on of others', and drops what waits of everybody's.

        Raises NotAllowed where there is work and none of it is theirs to stop.
        """
        stopped = self._library.cancel(self._may_drop, lambda root: self._admin or root == self.own_root)
        if not stopped:
            raise NotAllowed("What is going on is not yours. Ask an admin of this Citewell to stop it.")

    def _may_drop(self, root: str) -> bool:
        return root == self.own_root or (self._admin and self._told_of(root))

    def work(self) -> Work | None:
        """What is going on. Of other people's files not even the names are told."""
        work = self._library.work()
        return work if work is None or self._told_of(work.root) else Work("Reading other people's files", work.done, work.total)

    def outcomes(self) -> tuple[Outcome, ...]:
        """What came of the last pieces of work that were on the user's files, and for an admin on everybody's."""
        return tuple(outcome for outcome in self._library.outcomes() if self._told_of(outcome.root))

    def waiting(self) -> tuple[tuple[str, str], ...]:
        """Root and source of every uploaded file that has not been read yet, the user's, and for an admin everybody's."""
        everybody_s = self._library.waiting() if self._admin and self.own_root != UPLOADS else ()
        return (*everybody_s, *self._library.waiting(self.own_root))

    def size(self, root: str, source: str) -> int | None:
        """A file's size in bytes; None where there is no such file, or it is not the user's to know."""
        return self._library.size(root, source) if self._told_of(root) else None

    def _told_of(self, root: str) -> bool:
        """Whether the names of a folder's files may be told. Of a folder that is everybody's single files may be somebody's, so an admin alone is told."""
        if root.startswith(OWN_UPLOADS):
            return root == self.own_root
        return self._store.folder_owner(root) in ((None, self._viewer) if self._admin else (self._viewer,))


def _narrowed(report: SyncReport, asked: frozenset[str], before: Mapping[str, Known]) -> SyncReport:
    """What a report says of the `asked` files, and what else has come about since `before`."""
    reasons = {source: known.reason for source, known in before.items()}
    return replace(
        report,
        unchanged=tuple(source for source in report.unchanged if source in asked),
        rejected={source: reason for source, reason in report.rejected.items() if source in asked or reasons.get(source) != reason},
    )


def _joined(first: SyncReport, then: SyncReport) -> SyncReport:
    """Two reports on one folder as one: each file stands where it came to last, and as unchanged only where nothing else became of it."""
    fates: dict[str, str] = {}
    for report in (first, then):
        fates.update((source, "unchanged") for source in report.unchanged if source not in fates)
        fates.update((source, "rejected") for source in report.rejected)
        fates.update((source, name) for name in FATES[:3] for source in getattr(report, name))
    added, changed, removed, unchanged = (tuple(sorted(source for source, fate in fates.items() if fate == name)) for name in FATES)
    reasons = {**first.rejected, **then.rejected}
    rejected = {source: reasons[source] for source, fate in fates.items() if fate == "rejected"}
    return SyncReport(added, changed, removed, unchanged, rejected, then.cancelled)


def fates(library: Library, store: DocumentStore, taken: Sequence[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """What every door says has become of uploaded files, each a source, a fingerprint and why it was not taken: indexed, rejected, or waiting still."""
    busy = library.work() is not None  # asked first: what is done in between is seen below
    known = store.known(library.own_root, [source for source, _, _ in taken])
    return [_fate(source, reason, known.get(source), wanted, busy) for source, wanted, reason in taken]


def _fate(source: str, reason: str, now: Known | None, wanted: str, busy: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"source": source, "id": None, "status": "rejected", "reason": reason}
    if reason:
        return told
    if now is None or (busy and now.fingerprint != wanted):
        return {**told, "status": "waiting"} if busy else {**told, "reason": "It could not be read; the log of the server says why."}
    return {**told, "reason": now.reason} if now.reason else {**told, "id": now.document_id, "status": "indexed"}


def listing(store: DocumentStore) -> list[dict[str, Any]]:
    """What every door says of the documents and of the files that were rejected (`status`, `reason`), by source. Sizes in bytes and characters."""
    indexed = [entry(document) for document in store.documents()]
    rejected = [
        {
            "id": None, "source": r.source, "title": "", "type": _type(r.source), "bytes": 0, "size": 0, "pages": 0,
            "passages": 0, "status": "rejected", "reason": r.reason, "indexed_at": r.at, "folder": _folder_name(r.root),
        }
        for r in store.rejections()
    ]  # fmt: skip
    return sorted(indexed + rejected, key=lambda entry: (str(entry["source"]), str(entry["folder"])))


def entry(d: DocumentInfo) -> dict[str, Any]:
    """What every door says of one document."""
    return {
        "id": d.id, "source": d.source, "title": d.title, "type": _type(d.source), "bytes": d.bytes, "size": d.size, "pages": d.pages,
        "passages": d.passages, "status": "indexed", "reason": "", "indexed_at": d.indexed_at, "folder": _folder_name(d.root),
    }  # fmt: skip


def _folder_name(root: str) -> str:
    """What a folder is called to whoever may see a document of it: never by its uploader's id."""
    return UPLOADS if is_upload(root) else Path(root).name


def _type(source: str) -> str:
    return Path(source).suffix.lower().removeprefix(".")


def safe_name(name: str) -> str:
    """A file name made from one that somebody sent: no folders, nothing hidden, nothing that a file system refuses."""
    plain = unicodedata.normalize("NFC", name.replace("\\", "/").rpartition("/")[2].encode("utf-8", "backslashreplace").decode())
    plain = _UNSAFE.sub("_", plain).strip(" .")
    if _RESERVED.fullmatch(plain):
        plain = f"_{plain}"
    stem, dot, suffix = plain.rpartition(".")
    if not stem or len(suffix) > 10:
        stem, dot, suffix = plain, "", ""
    room = NAME_BYTES - len(f"{dot}{suffix}".encode())
    return (stem.encode()[:room].decode("utf-8", "ignore").strip(" .") or "document") + dot + suffix
