"""Seals: a note left beside files that were closed in good order, by which damage to them is told from an unfinished end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Literal

Condition = Literal["intact", "differs", "none"]

PART, BLOCK = 1 << 26, 1 << 20
SUMS = "SHA-256 of the SHA-256 of each 64 MB"
"""How files are summed up: in parts, so that all cores share a large one. A seal of another kind speaks for nothing."""


def _sum(path: Path) -> str:
    parts = range(0, max(path.stat().st_size, 1), PART)
    if len(parts) == 1:
        return sha256(_sum_part(path, 0)).hexdigest()
    try:
        with ThreadPoolExecutor() as pool:
            sums = list(pool.map(partial(_sum_part, path), parts))
    except RuntimeError:
        # A process that is about to end, which is when many a store is closed, starts no threads any more.
        sums = [_sum_part(path, part) for part in parts]
    return sha256(b"".join(sums)).hexdigest()


def _sum_part(path: Path, start: int) -> bytes:
    part = sha256()
    with path.open("rb") as file:
        file.seek(start)
        for _ in range(PART // BLOCK):
            part.update(file.read(BLOCK))
    return part.digest()


def _note(folder: Path, files: Iterable[Path], made_by: str) -> dict[str, object]:
    return {"by": made_by, "sums": SUMS, "files": {path.relative_to(folder).as_posix(): [path.stat().st_size, _sum(path)] for path in sorted(files)}}


def _line(note: dict[str, object]) -> bytes:
    said = json.dumps(note, sort_keys=True).encode()
    return said + b"\n" + blake2b(said, digest_size=16).hexdigest().encode()


def write_seal(seal: Path, files: Iterable[Path], made_by: str) -> None:
    """Notes size and checksum of files, which nobody may change from now on. Raises OSError; then there is no seal."""
    scratch = seal.with_suffix(".new")
    try:
        with open(scratch, "wb", opener=private) as file:
            file.write(_line(_note(seal.parent, files, made_by)))
        scratch.replace(seal)
    except OSError:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise


def check_seal(seal: Path, files: Iterable[Path], made_by: str) -> Condition:
    """Whether files are as they were sealed; "none" where there is no seal, or one that cannot speak for them. Raises OSError."""
    try:
        line = seal.read_bytes()
    except FileNotFoundError:
        return "none"
    try:
        note = json.loads(line.partition(b"\n")[0])
        if line != _line(note) or note["by"] != made_by or note["sums"] != SUMS:
            return "none"
    except (ValueError, TypeError, KeyError):
        return "none"
    return "intact" if _note(seal.parent, files, made_by) == note else "differs"


def break_seal(seal: Path) -> None:
    """Before files are changed. Lasts through a power failure, as a seal that came back would call the changes damage. Raises OSError."""
    try:
        seal.unlink()
    except FileNotFoundError:
        return
    flush_folder(seal.parent)


def private(path: str | Path, flags: int) -> int:
    """An `opener` for open(): a file that is made is its user's alone from its first moment on, whatever the umask says."""
    return os.open(path, flags, 0o600)


def make_private(path: Path) -> None:
    """Makes an empty file that is its user's alone, for others to write into; one that is there stays as it is. Raises OSError.

    Such a one is not even opened: closing it would take SQLite's locks on it from the whole process.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def make_private_folder(folder: Path) -> None:
    """Makes a folder, and those above it that are not there, for its user alone. Raises OSError."""
    for missing in reversed([one for one in (folder, *folder.parents) if not one.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)


def keep_private(paths: Iterable[Path]) -> None:
    """Takes from files and folders that there are what others may do with them, where the system knows of others."""
    if os.name != "posix":
        return
    for path in paths:
        with suppress(OSError):  # somebody else's, or on a disk without permissions
            if not path.is_symlink():
                path.chmod(0o700 if path.is_dir() else 0o600)


def flush_folder(folder: Path) -> None:
    """Makes names that were made, renamed or removed in a folder last through a power failure, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
