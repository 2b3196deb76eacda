"""What belongs to people: accounts and conversations, in a second SQLite file beside the store's. This is the file, its tables and its care.

It is kept apart because it outlives the store's: documents can be indexed anew, conversations and passwords cannot. Several processes may have it
open, so that `citewell users` works beside a running server.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from index.database import Database, connect, is_damage
from index.errors import StoreDamaged, StoreError, StoreTooNew

PEOPLE = "people.sqlite3"

VERSION = 2

TABLES = """
CREATE TABLE conversations (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, title TEXT NOT NULL, created TEXT NOT NULL, changed TEXT NOT NULL,
  shared INTEGER NOT NULL);
CREATE INDEX conversations_of ON conversations (owner, changed);
CREATE TABLE exchanges (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, conversation INTEGER NOT NULL REFERENCES conversations (number) ON DELETE CASCADE,
  question TEXT NOT NULL, answer TEXT NOT NULL, asked TEXT NOT NULL, verdict TEXT NOT NULL, reason TEXT NOT NULL, checksum BLOB NOT NULL);
CREATE INDEX exchanges_of ON exchanges (conversation, number);
CREATE VIRTUAL TABLE spoken USING fts5 (title, questions, answers, tokenize = 'porter unicode61 remove_diacritics 2');
CREATE TABLE users (
  id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, password TEXT NOT NULL, role TEXT NOT NULL, disabled INTEGER NOT NULL, created TEXT NOT NULL);
CREATE TABLE sessions (
  token BLOB PRIMARY KEY, user TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE, created REAL NOT NULL, expires REAL NOT NULL);
CREATE INDEX sessions_of ON sessions (user);
CREATE TABLE keys (
  secret BLOB PRIMARY KEY, prefix TEXT NOT NULL UNIQUE, user TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE, label TEXT NOT NULL,
  created TEXT NOT NULL, used TEXT NOT NULL);
CREATE INDEX keys_of ON keys (user);
CREATE TABLE tries (subject BLOB PRIMARY KEY, wrong INTEGER NOT NULL, last REAL NOT NULL, name BLOB NOT NULL DEFAULT x'');
CREATE TABLE places (
  user TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE, place BLOB NOT NULL, last REAL NOT NULL, PRIMARY KEY (user, place))
"""
"""`spoken` has one row a conversation, of the same number. Tokens and keys are kept as SHA-256, passwords as Argon2id. `tries` counts wrong passwords by
the hash of a name, an address or both, with the name's where there is one; `places` has the hashes of addresses from which users signed in. Times are ISO 8601 in UTC, those that are compared seconds since 1970."""

SECOND = """
ALTER TABLE tries ADD COLUMN name BLOB NOT NULL DEFAULT x'';
CREATE TABLE places (
  user TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE, place BLOB NOT NULL, last REAL NOT NULL, PRIMARY KEY (user, place))
"""
"""What makes a file of version 1 one of version 2."""

ADVICE = "Stop Citewell, and bring the file back with `citewell restore`; or move it away, which loses accounts and conversations, and no document."


def open_people(folder: Path) -> Database:
    """The people's file of a data folder, made where there is none. Raises StoreError where it cannot be, StoreDamaged, StoreTooNew."""
    path = folder.absolute() / PEOPLE
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Made here, as SQLite would let everybody on the machine read it; its log takes over what the file has.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreError(f"The file {path} cannot be written ({error.strerror}). Choose another folder with CITEWELL_DATA_DIR.") from error
    database = Database(path, sealed=False, advice=ADVICE)
    try:
        version = database.rows("PRAGMA user_version")[0][0]
        _refuse(path, version)
        if version < VERSION:
            with database.transaction() as connection:
                # Asked again inside: another process may have made the tables meanwhile.
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version == 0 and connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                    raise StoreDamaged(f"The file {path} is damaged (it has lost its version). {ADVICE}")
                if version < VERSION:
                    for statement in (SECOND if version else TABLES).split(";\n"):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {VERSION}")
        trouble = _trouble(database.connection)
        if trouble:
            raise StoreDamaged(f"The file {path} is damaged ({trouble}). {ADVICE}")
    except sqlite3.Error as error:
        database.close()
        if is_damage(error):
            raise StoreDamaged(f"The file {path} is damaged ({error}). {ADVICE}") from error
        raise StoreError(f"The file {path} cannot be read ({error}). Check the disk and the permissions.") from error
    except BaseException:
        database.close()
        raise
    return database


def _refuse(path: Path, version: int) -> None:
    if version > VERSION:
        raise StoreTooNew(f"The file {path} was written by a newer Citewell (format {version}; this one knows {VERSION}). Update Citewell.")


def _trouble(connection: sqlite3.Connection) -> str:
    """What SQLite finds wrong with the file; nothing where it is whole."""
    ((said, *_), *_) = connection.execute("PRAGMA integrity_check(1)")
    return "" if said == "ok" else str(said)


def holds_nothing(path: Path) -> bool:
    """Whether the file has no tables: Citewell was ended between making it and filling it."""
    with closing(connect(path)) as connection:
        return not connection.execute("SELECT 1 FROM sqlite_master").fetchone()


def refuse_damaged_people(path: Path, what: str) -> None:
    """Raises StoreDamaged, naming the file as `what`, unless it is whole; StoreTooNew where a newer Citewell wrote it."""
    try:
        with closing(connect(path)) as connection:
            ((version,),) = connection.execute("PRAGMA user_version")
            _refuse(path, version)
            trouble = _trouble(connection) or ("" if version else "it is empty")
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
        trouble = str(error)
    if trouble:
        raise StoreDamaged(f"{what} is damaged ({trouble}).")
