"""One file that holds a whole store with its accounts and conversations, and the way back. The vector index is not in it: it is built anew from the store."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
import zipfile
import zlib
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock, Timeout

from index.database import NAME, connect, is_damage
from index.errors import StoreDamaged, StoreError, StoreInUse, StoreTooNew
from index.people import PEOPLE, holds_nothing, refuse_damaged_people
from index.salvage import RESTORED, RESTORED_PEOPLE, RESTORED_UPLOADS, RESTORING, refuse_damaged, take_over
from index.schema import UPLOADS, VERSION
from index.seal import flush_folder, make_private_folder, private

MANIFEST = "manifest.json"
FORMAT = 1
MANIFEST_BYTES = 200_000_000


def backup(folder: Path, target: Path) -> None:
    """Writes the store, the files that were uploaded to it, accounts and conversations into one new zip file; also while the store is in use.

    The store is as of one moment, and accounts and conversations as of the next.

    Raises StoreError where there is no store or `target` exists or cannot be written, StoreDamaged where the store is not whole.
    """
    if not (folder / NAME).is_file():
        raise StoreError(f"There is no store in {folder}, so there is nothing to back up.")
    if target.exists():
        raise StoreError(f"{target} exists already. Give another name, or move it away first.")
    try:
        with tempfile.TemporaryDirectory(prefix=".citewell-", dir=target.absolute().parent) as scratch:
            copy = Path(scratch, NAME)
            _copy(folder / NAME, copy)
            refuse_damaged(copy, f"The store in {folder}")
            files = {NAME: copy}
            if (folder / PEOPLE).exists():
                people = Path(scratch, PEOPLE)
                _copy(folder / PEOPLE, people)
                if not holds_nothing(people):
                    refuse_damaged_people(people, f"The file {folder / PEOPLE}")
                    files[PEOPLE] = people
            for path in sorted((folder / UPLOADS).rglob("*")):
                if path.is_file() and not path.is_symlink():
                    files[path.relative_to(folder).as_posix()] = path
            packed = Path(scratch, "packed.zip")
            _pack(packed, files)
            # Linking fails where the name has been taken meanwhile; a rename would replace that file.
            try:
                os.link(packed, target)
            except FileExistsError:
                raise
            except OSError:
                packed.rename(target)
            flush_folder(target.absolute().parent)
    except sqlite3.Error as error:
        raise StoreError(f"The store in {folder} cannot be copied ({error}). Check the free disk space beside {target}.") from error
    except StoreDamaged as error:
        raise StoreDamaged(f"{error} Open it with Citewell, which saves what is whole, and back it up then.") from error
    except OSError as error:
        raise StoreError(f"The backup {target} cannot be written ({error.strerror}). Check the folder and the free disk space.") from error


def _copy(source: Path, target: Path) -> None:
    """A copy of one moment, whoever writes to the source meanwhile."""
    try:
        with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True, timeout=30)) as old, closing(sqlite3.connect(target)) as new:
            old.backup(new)
    except sqlite3.Error as error:
        if is_damage(error):
            raise StoreDamaged(f"The store's file {source} is damaged ({error}).") from error
        raise


def _pack(target: Path, files: dict[str, Path]) -> None:
    described: dict[str, Any] = {}
    with open(target, "xb", opener=private) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, path in files.items():
            whole, size = hashlib.sha256(), 0
            with path.open("rb") as source, archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as packed:
                while block := source.read(1 << 20):
                    packed.write(block)
                    whole.update(block)
                    size += len(block)
            described[name] = {"size": size, "sha256": whole.hexdigest()}
        note = {"format": FORMAT, "store": VERSION, "made": datetime.now(UTC).isoformat(timespec="seconds"), "files": described}
        archive.writestr(MANIFEST, json.dumps(note, indent=1))
    with target.open("rb+") as written:
        os.fsync(written.fileno())


def restore(archive: Path, folder: Path, replace: bool = False) -> list[Path]:
    """Brings a store back from its backup into `folder`. Everything is checked before anything there is touched, and it happens wholly or not at all.

    Returns the folders into which the store that was there before was put, if there was one. Raises StoreError where the folder holds a store already,
    unless `replace` is set: then that is moved into a folder beside it. Raises StoreDamaged where the backup is not what was written, StoreTooNew where a newer Citewell wrote it, StoreInUse where the store is in use.
    """
    from index.store import owner

    if not archive.is_file():
        raise StoreError(f"There is no file {archive}. Check its name.")
    try:
        made = not folder.exists()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(folder / "lock", mode=0o600, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise StoreInUse(*owner(folder)) from None
        try:
            take_over(folder)
            if (folder / NAME).exists() and not replace:
                raise StoreError(f"There is a store in {folder} already. Add --replace to put it aside, or set another CITEWELL_DATA_DIR.")
            with tempfile.TemporaryDirectory(prefix=RESTORING, dir=folder) as scratch:
                _unpack(archive, Path(scratch))
                refuse_damaged(Path(scratch, NAME), f"The backup {archive}")
                if Path(scratch, PEOPLE).exists():
                    refuse_damaged_people(Path(scratch, PEOPLE), f"The backup {archive}")
                _forget_index(Path(scratch, NAME))
                make_private_folder(Path(scratch, UPLOADS))
                Path(scratch, UPLOADS).rename(folder / RESTORED_UPLOADS)
                if Path(scratch, PEOPLE).exists():
                    Path(scratch, PEOPLE).rename(folder / RESTORED_PEOPLE)
                # From here on it is decided: whoever opens the store finishes it.
                Path(scratch, NAME).rename(folder / RESTORED)
            flush_folder(folder)
            kept = take_over(folder)
            made = False
        finally:
            lock.release()
            if made:
                shutil.rmtree(folder, ignore_errors=True)
        return kept
    except (OSError, sqlite3.Error) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise StoreError(
            f"The backup {archive} cannot be restored into {folder} ({said}). Nothing was changed. Check the free disk space."
        ) from error


def _unpack(archive: Path, into: Path) -> None:
    """Unpacks what the manifest names, and nothing else. Raises StoreDamaged unless every byte is what the manifest says."""
    damaged = f"The backup {archive} is damaged"
    try:
        with zipfile.ZipFile(archive) as opened:
            names = opened.namelist()
            if opened.getinfo(MANIFEST).file_size > MANIFEST_BYTES:
                raise StoreDamaged(f"{damaged}: its list of files is too long.")
            note = json.loads(opened.read(MANIFEST))
            if note["format"] > FORMAT or note["store"] > VERSION:
                raise StoreTooNew(f"The backup {archive} was written by a newer Citewell. Update Citewell first.")
            files = note["files"]
            if sorted(names) != sorted([*files, MANIFEST]) or NAME not in files:
                raise StoreDamaged(f"{damaged}: it does not hold the files that it lists.")
            for name, described in files.items():
                parts = PurePosixPath(name).parts
                if name not in (NAME, PEOPLE) and (
                    len(parts) < 2 or parts[0] != UPLOADS or ".." in parts or "\\" in name or "\0" in name or Path(name).drive
                ):
                    raise StoreDamaged(f"{damaged}: it holds a file of a name that no backup has.")
                target = into.joinpath(*parts)
                make_private_folder(target.parent)
                whole, size = hashlib.sha256(), 0
                with opened.open(name) as packed, open(target, "xb", opener=private) as file:
                    while block := packed.read(1 << 20):
                        size += len(block)
                        if size > described["size"]:
                            break
                        whole.update(block)
                        file.write(block)
                    file.flush()
                    os.fsync(file.fileno())
                if size != described["size"] or whole.hexdigest() != described["sha256"]:
                    raise StoreDamaged(f"{damaged}: '{name}' in it is not what was written.")
    except FileNotFoundError:
        raise StoreError(f"There is no file {archive}. Check its name.") from None
    except (zipfile.BadZipFile, LookupError, ValueError, TypeError, AttributeError, EOFError, RuntimeError, zlib.error) as error:
        raise StoreDamaged(f"{damaged}, or no backup of Citewell's ({error}).") from error


def _forget_index(path: Path) -> None:
    """The vector index that the store had is not the one beside it now."""
    with closing(connect(path)) as connection:
        connection.execute("DELETE FROM meta WHERE key IN ('chroma', 'written')")
    with path.open("rb+") as file:
        os.fsync(file.fileno())
