"""Damage: how it is noticed before a store is opened, and what is saved of a damaged one. Nothing is ever deleted; the damaged file is moved aside.

A store that was closed in good order is believed when its seal says that no byte has changed. One that was not is checked from end to end: SQLite's
structure, the index of words, every row's checksum, and whether the last transactions are still there.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from index.database import CHANGES, NAME, SEAL, connect, is_damage, read_changes
from index.errors import StoreDamaged, StoreError
from index.people import PEOPLE
from index.schema import (
    DOCUMENT,
    DOCUMENT_2,
    NOBODY,
    PASSAGES,
    UPLOADS,
    VERSION,
    Entry,
    checksum,
    create,
    insert_document,
    insert_vectors,
    read_document,
    read_passage,
    set_meta,
)
from index.seal import break_seal, check_seal, flush_folder
from index.types import Passage, Span

SALVAGED = NAME + ".salvaged"
RESTORED = NAME + ".restored"
KEPT = {SALVAGED: "damaged", RESTORED: "replaced"}
"""A whole new file of this name is to take the store's place, and what is there to be kept in a folder whose name begins so."""

"""The folder beside the store's file in which uploaded files are kept."""

RESTORED_UPLOADS = UPLOADS + ".restored"
RESTORED_PEOPLE = PEOPLE + ".restored"
RESTORING = ".restoring-"

HEADER = b"SQLite format 3\x00"

log = logging.getLogger(__name__)


def make_sure(folder: Path, embedder_identity: str) -> list[Path]:
    """Before a store is opened: finishes what a kill interrupted, looks for damage, and saves what can be saved. `lost` tells the rest.

    Returns the folders into which files were moved now that others took the place of.
    Raises StoreError when the files cannot be read or written, which is no damage; then nothing was changed.
    """
    try:
        kept = take_over(folder)
        trouble = _trouble(folder)
        if trouble:
            log.warning("The store in %s is damaged: %s. What is whole is being saved.", folder, trouble)
            _salvage(folder, embedder_identity)
            kept += take_over(folder)
        return kept
    except sqlite3.Error as error:
        raise StoreError(f"The store in {folder} cannot be checked ({error}). Check the free disk space and that its files may be read.") from error
    except OSError as error:
        raise StoreError(
            f"The store in {folder} cannot be read or written ({error.strerror}). Check the disk, its free space and the permissions."
        ) from error


def take_over(folder: Path) -> list[Path]:
    """Puts a whole new file in the store's place, if there is one, and the present files aside; returns where. Can be killed and called again."""
    moved: list[Path] = []
    for name in (NAME + ".new", NAME + ".new-wal", NAME + ".new-shm", NAME + ".new-journal"):
        (folder / name).unlink(missing_ok=True)
    for leftover in folder.glob(f"{RESTORING}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    if not (folder / RESTORED).exists():
        shutil.rmtree(folder / RESTORED_UPLOADS, ignore_errors=True)
        (folder / RESTORED_PEOPLE).unlink(missing_ok=True)
    for name, kept in KEPT.items():
        if not (folder / name).exists():
            continue
        aside = folder / f"{kept}-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"
        aside.mkdir(mode=0o700)
        # The write-ahead log goes first: beside another file it would be played into that one.
        for part in (f"{NAME}-wal", f"{NAME}-shm", SEAL, CHANGES, NAME):
            with suppress(FileNotFoundError):
                (folder / part).rename(aside / part)
        if (folder / RESTORED_UPLOADS).exists():
            with suppress(FileNotFoundError):
                (folder / UPLOADS).rename(aside / UPLOADS)
            (folder / RESTORED_UPLOADS).rename(folder / UPLOADS)
        # A backup of a time without accounts leaves those that there are: nobody is let in, or locked out, by what it does not know.
        if (folder / RESTORED_PEOPLE).exists():
            for part in (f"{PEOPLE}-wal", f"{PEOPLE}-shm", PEOPLE):
                with suppress(FileNotFoundError):
                    (folder / part).rename(aside / part)
            flush_folder(folder)
            (folder / RESTORED_PEOPLE).rename(folder / PEOPLE)
        flush_folder(folder)
        (folder / name).rename(folder / NAME)
        flush_folder(folder)
        with suppress(OSError):
            aside.rmdir()  # where there was nothing to keep
        if aside.exists():
            moved.append(aside)
    return moved


def ours(folder: Path) -> list[Path]:
    """What of a data folder is Citewell's: its files, and those folders within which everything is."""
    names = (f"{NAME}*", f"{PEOPLE}*", f"{SEAL}*", CHANGES, "owner.json", "lock", UPLOADS, "chroma-*", *(f"{kept}-*" for kept in KEPT.values()))
    return [path for name in names for path in folder.glob(name)]


def kept_aside(folder: Path) -> list[Path]:
    """The folders in which files were kept that others took the place of."""
    return sorted(path for kept in KEPT.values() for path in folder.glob(f"{kept}-*") if path.is_dir())


def _trouble(folder: Path) -> str:
    """What is wrong with a store's file; nothing when it is whole, new, or of a newer Citewell."""
    path = folder / NAME
    size = path.stat().st_size if path.exists() else 0
    log_size = path.with_name(f"{NAME}-wal").stat().st_size if path.with_name(f"{NAME}-wal").exists() else 0
    lived = log_size > 0 or (folder / SEAL).exists() or read_changes(folder / CHANGES) >= 0 or any(folder.glob("chroma-*"))
    if size == 0:
        return "its file is empty or missing" if lived else ""
    with path.open("rb") as file:
        header = file.read(100)
    if not header.startswith(HEADER):
        return "its file is no SQLite file"
    if int.from_bytes(header[60:64]) > VERSION:
        return ""
    condition = check_seal(folder / SEAL, [path], NAME)
    if condition == "intact":
        return ""
    if condition == "differs":
        return "its file was changed after it was closed"
    trouble = trouble_in(path) or _forgotten(folder)
    if not trouble:
        with suppress(OSError):
            break_seal(folder / SEAL)  # none is written over one that is there: one that says nothing would have all checked again at each opening
    return trouble


def trouble_in(path: Path) -> str:
    """What is wrong with a store's file, checked from end to end; nothing when it is whole. Raises sqlite3.Error when it cannot be read."""
    try:
        with closing(connect(path)) as connection:
            return _trouble_within(connection)
    except sqlite3.Error as error:
        if is_damage(error):
            return str(error)
        raise
    except (ValueError, TypeError) as error:
        # What was a number or a text is none any more.
        return f"a row makes no sense ({error})"


def _trouble_within(connection: sqlite3.Connection) -> str:
    ((version,),) = connection.execute("PRAGMA user_version")
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    if version == 0:
        return "it has lost its version" if tables else ""
    if version > VERSION:
        return ""
    ((said, *_), *_) = connection.execute("PRAGMA integrity_check(1)")
    if said != "ok":
        return str(said)
    # Compares the index of words with the words; it says so by failing.
    connection.execute("INSERT INTO words (words) VALUES ('integrity-check')")
    if version == 1:
        return "it has lost its version" if "next_vectors" in tables else ""
    if version == 2 and "owners" in tables:
        return "it has lost its version"
    notes = _notes(connection)
    ((count,),) = connection.execute("SELECT count(*) FROM meta")
    if len(notes) != count or notes.get("format") != str(version):
        return "its notes are not what was written"
    for table, made_by in (("vectors", notes.get("embedder", "")), ("next_vectors", notes.get("next_embedder", ""))):
        for key, vector, checked in connection.execute(f"SELECT content_key, vector, checksum FROM {table}"):
            if checksum(key, vector, made_by) != checked:
                return "a vector is not what was written"
    for row in connection.execute(f"SELECT {DOCUMENT if version > 2 else DOCUMENT_2}, checksum, text FROM documents"):
        if read_document(row) is None:
            return "a document is not what was written"
    for *said_of, checked in connection.execute("SELECT root, source, owner, checksum FROM owners") if version > 2 else ():
        if checksum(*said_of) != checked:
            return "an owner is not what was written"
    seen = 0
    for row in connection.execute(PASSAGES):
        seen += 1
        if read_passage(row) is None:
            return "a passage is not what was written"
    ((passages, announced, bare, words),) = connection.execute(
        "SELECT (SELECT count(*) FROM passages), (SELECT coalesce(sum(passages), 0) FROM documents), "
        "(SELECT count(*) FROM passages WHERE content_key NOT IN (SELECT content_key FROM vectors)), (SELECT count(*) FROM words)"
    )
    if not seen == passages == announced == words or bare:
        return "passages are missing"
    return ""


def _notes(connection: sqlite3.Connection) -> dict[str, str]:
    """The store's notes about itself, those that are not what was written left out."""
    return {key: value for key, value, checked in connection.execute("SELECT key, value, checksum FROM meta") if checksum(key, value) == checked}


def _forgotten(folder: Path) -> str:
    """Notes as lost what was in transactions that are no longer there: damage to the write-ahead log shows in nothing else.

    Which documents those were is not known, so all folders are named.
    """
    noted = read_changes(folder / CHANGES)
    with closing(connect(folder / NAME)) as connection:
        ((version,),) = connection.execute("PRAGMA user_version")
        if not 2 <= version <= VERSION:
            return "its last changes are missing" if version == 0 and noted >= 0 else ""
        held = int(_notes(connection).get("changes", "0"))
        if held >= noted:
            return ""
        log.warning("The last %d changes to the store in %s are lost.", noted - held, folder)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT OR IGNORE INTO lost VALUES ('', '')")
        connection.execute("INSERT OR IGNORE INTO lost SELECT DISTINCT root, '' FROM documents UNION SELECT root, '' FROM rejected")
        set_meta(connection, "changes", str(noted))
        connection.execute("COMMIT")
    return ""


# Saving what is whole


class _Reader:
    """Reads what can be read of a damaged file; `failed` tells that something could not."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.failed = False

    def rows(self, statement: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """Rows up to the first that cannot be read."""
        try:
            yield from self.connection.execute(statement, values)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if isinstance(error, sqlite3.Error) and not is_damage(error):
                raise
            self.failed = True

    def both_ways(self, columns: str, table: str, index: str = "") -> set[Any]:
        """Rows of a table read from both ends towards the damage, and again from an index that may be whole."""
        found: set[Any] = set()
        for order in ("ASC", "DESC"):
            found.update(self.rows(f"SELECT {columns} FROM {table} ORDER BY number {order}"))
        if index:
            found.update(self.rows(f"SELECT {columns} FROM {table} INDEXED BY {index}"))
        return found


def _salvage(folder: Path, embedder_identity: str) -> None:
    """Makes a new file of every document whose text, passages and vectors are what was written, ready to take the store's place."""
    scratch = folder / f"{NAME}.new"
    scratch.unlink(missing_ok=True)
    with closing(connect(scratch)) as new:
        new.execute("BEGIN IMMEDIATE")
        create(new)
        lost: set[tuple[str, str]] = set()
        changes = read_changes(folder / CHANGES)
        made_by = embedder_identity
        try:
            with closing(sqlite3.connect(f"{(folder / NAME).absolute().as_uri()}?mode=ro", uri=True)) as old:
                reader = _Reader(old)
                notes = {
                    key: value for key, value, checked in reader.rows("SELECT key, value, checksum FROM meta") if checksum(key, value) == checked
                }
                made_by = notes.get("embedder", embedder_identity)
                held = int(notes.get("changes", "-1"))
                lost |= _save(reader, new, made_by, whole=held >= changes)
                changes = max(changes, held)
        except sqlite3.Error as error:
            # A read-only connection cannot open what is missing, or whose beginning is damaged.
            if not is_damage(error) and (folder / NAME).exists():
                raise
            lost.add(("", ""))
        set_meta(new, "embedder", made_by)
        set_meta(new, "changes", str(changes + 1))
        new.executemany("INSERT OR IGNORE INTO lost VALUES (?, ?)", sorted(lost))
        ((saved,),) = new.execute("SELECT count(*) FROM documents")
        new.execute("COMMIT")
    with scratch.open("rb+") as file:
        os.fsync(file.fileno())
    scratch.rename(folder / SALVAGED)
    flush_folder(folder)
    log.warning(
        "%d documents of the damaged store were saved; lost: %s",
        saved,
        ", ".join(f"{root or '?'}/{source or '?'}" for root, source in sorted(lost)) or "none",
    )


def _save(reader: _Reader, new: sqlite3.Connection, made_by: str, whole: bool) -> set[tuple[str, str]]:
    """Copies documents that are whole; returns root and source of those that are not, an empty source or root where that is not known.

    `whole` is False where the last transactions are missing.
    """
    files = {(root, source) for root, source in reader.rows("SELECT root, source FROM documents INDEXED BY sqlite_autoindex_documents_2")}
    numbers = {number for (number,) in reader.both_ways("number", "documents", "sqlite_autoindex_documents_1")}
    saved: set[tuple[str, str]] = set()
    columns = DOCUMENT if any(row[1] == "owner" for row in reader.rows("PRAGMA table_info(documents)")) else DOCUMENT_2
    if columns == DOCUMENT:
        for root, source, owner, checked in reader.rows("SELECT root, source, owner, checksum FROM owners"):
            if all(isinstance(part, str) for part in (root, source)):
                # What was somebody's must not become everybody's.
                owner = owner if checksum(root, source, owner) == checked else NOBODY
                new.execute("INSERT OR REPLACE INTO owners VALUES (?, ?, ?, ?)", (root, source, owner, checksum(root, source, owner)))
    for number in sorted(numbers):
        for row in reader.rows(f"SELECT {columns}, checksum, text, stamp, reader FROM documents WHERE number = ?", (number,)):
            place = (row[1], row[2])
            files.add(place if all(isinstance(part, str) for part in place) else ("", ""))
            with suppress(ValueError, TypeError):
                if _save_document(reader, new, row, made_by, row[12] if columns == DOCUMENT else ""):
                    saved.add(place)
    for row in reader.rows("SELECT root, source, reason, fingerprint, stamp, reader, at FROM rejected"):
        # Without its fingerprint it is read again at the next sync, whatever damage made of it.
        if all(isinstance(part, str) for part in row[:3]) and isinstance(row[6], str) and (row[0], row[1]) not in files:
            new.execute("INSERT OR IGNORE INTO rejected VALUES (?, ?, ?, '', '', 0, ?)", (*row[:3], row[6]))
    earlier = {(root, source) for root, source in reader.rows("SELECT root, source FROM lost") if isinstance(root, str) and isinstance(source, str)}
    lost = (files - saved) | (earlier - saved)
    if reader.failed or not whole:
        lost |= {("", "")} | {(root, "") for root, _ in files}
    return lost


def _save_document(reader: _Reader, new: sqlite3.Connection, row: Sequence[Any], made_by: str, owner: str) -> bool:
    found = read_document(row[:-2])
    if found is None:
        return False
    root, indexed_at, expected = row[1], row[9], row[11]
    passages: list[Passage] = []
    keys: list[bytes] = []
    # By the index, and where that is damaged by looking through all.
    for column in ("document_id", "+document_id"):
        rows = list(
            reader.rows(
                "SELECT id, document_id, start_at, end_at, heading, pages, content_key, checksum FROM passages "
                f"WHERE {column} = ? ORDER BY start_at, number",
                (found.id,),
            )
        )
        if len(rows) == expected:
            break
    else:
        return False
    for *described, checked in rows:
        identifier, _, start, end, heading, pages, key = described
        text = found.text[start:end]
        if checksum(found.source, found.title, text, *described) != checked:
            return False
        marks = tuple((offset, page) for offset, page in json.loads(pages)) if pages else ()
        passages.append(Passage(identifier, found.id, found.source, found.title, heading, Span(start, end), text, marks))
        keys.append(key)
    vectors = {}
    for key in set(keys):
        for vector, checked in reader.rows("SELECT vector, checksum FROM vectors WHERE content_key = ?", (key,)):
            if checksum(key, vector, made_by) == checked:
                vectors[key] = np.frombuffer(vector, dtype=np.float32)
    if len(vectors) != len(set(keys)):
        return False
    insert_vectors(new, vectors, made_by)
    insert_document(new, Entry(found, root, passages, keys, str(row[-2]), int(row[-1])), indexed_at, owner)
    return True


def refuse_damaged(path: Path, what: str) -> None:
    """Raises StoreDamaged, naming the file as `what`, unless it is whole from end to end."""
    trouble = trouble_in(path)
    with path.open("rb") as file:
        if not trouble and int.from_bytes(file.read(100)[60:64]) == 0:
            trouble = "it is empty"
    if trouble:
        raise StoreDamaged(f"{what} is damaged ({trouble}).")
