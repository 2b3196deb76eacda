"""One SQLite file: a connection for each thread, transactions that happen wholly or not at all, and plain errors."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from index.errors import StoreDamaged, StoreError
from index.schema import checksum, set_meta
from index.seal import break_seal, make_private

NAME = "citewell.sqlite3"
SEAL = "seal.json"
CHANGES = "changes"
"""The file beside it that holds the number of the last transaction: where the store holds fewer, some were lost."""

SAVED_ON_OPENING = "Close Citewell and start it again: what can be saved is saved then, and you are told the rest."

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISMATCH}
"""What SQLite reports when a file's content makes no sense. Our own statements are right, so SQLITE_ERROR means that the schema is not."""


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error speaks of the file's content, and not of permissions, locks or the disk."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        # Raised by the module and not by SQLite: a text that is not UTF-8 any more.
        return isinstance(error, sqlite3.OperationalError) and "decode" in str(error)
    return code == sqlite3.SQLITE_IOERR_SHORT_READ or code & 0xFF in _DAMAGE


def connect(path: Path) -> sqlite3.Connection:
    """A connection that commits to disk before it says so, and leaves beginning and ending transactions to us."""
    with suppress(OSError):  # what is wrong, SQLite says; its log takes over what the file has
        make_private(path)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        connection.close()
        raise
    return connection


@dataclass(slots=True, eq=False)
class _Mine:
    """A thread's connection; whoever uses it or closes it holds the lock, as closing one that is in use can crash the process."""

    thread: threading.Thread
    connection: sqlite3.Connection
    lock: threading.Lock = field(default_factory=threading.Lock)


class Database:
    """One SQLite file for all threads of a process. Everything raises StoreError once it is closed.

    `damaged` turns True when any query finds the file unreadable. `changes` counts the transactions since the store was made, -1 before it is known,
    and for a file beside the store, which is not `sealed` with it. `advice` ends what is said of a damaged file.
    """

    def __init__(self, path: Path, sealed: bool = True, advice: str = SAVED_ON_OPENING) -> None:
        self.path = path
        self._sealed, self._advice = sealed, advice
        self.writing = threading.RLock()
        self.closed = False
        self.damaged = False
        self.changes = -1
        self._local = threading.local()
        self._open: list[_Mine] = []
        self._opening = threading.Lock()

    def _mine(self) -> _Mine:
        """This thread's connection. Those of threads that have ended are closed when a new one is made."""
        if self.closed:
            raise self.closed_error()
        mine: _Mine | None = getattr(self._local, "mine", None)
        if mine is None:
            with self._opening:
                if self.closed:
                    raise self.closed_error()
                try:
                    mine = _Mine(threading.current_thread(), connect(self.path))
                except sqlite3.Error as error:
                    raise self._unreadable(error) from error
                for old in [one for one in self._open if not one.thread.is_alive()]:
                    old.connection.close()
                    self._open.remove(old)
                self._open.append(mine)
            self._local.mine = mine
        return mine

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's connection, for use inside a transaction."""
        return self._mine().connection

    @staticmethod
    def closed_error() -> StoreError:
        """What is raised by everything once the store is closed."""
        return StoreError("This store has been closed; open it again with open_assistant().")

    def _unreadable(self, error: sqlite3.Error) -> StoreError:
        if self.closed:
            return self.closed_error()
        if is_damage(error):
            self.damaged = True
            return StoreDamaged(f"The store's file {self.path.name} is damaged ({error}). {self._advice}")
        return StoreError(f"The store's file {self.path.name} cannot be read ({error}). Check that the disk is there and that the file may be read.")

    def _unwritable(self, reason: object) -> StoreError:
        return StoreError(f"The store's file {self.path.name} could not be written ({reason}). Nothing was changed. Check the free disk space.")

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query. Raises StoreDamaged where the file makes no sense, StoreError where it cannot be read."""
        mine = self._mine()
        with mine.lock:
            if self.closed:
                raise self.closed_error()
            try:
                return mine.connection.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise self._unreadable(error) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything done inside happens wholly or not at all; one at a time."""
        with self.writing:
            connection = self.connection
            try:
                if self._sealed:
                    break_seal(self.path.with_name(SEAL))
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                if self.changes >= 0:
                    set_meta(connection, "changes", str(self.changes + 1))
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                if is_damage(error) and error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                    raise self._unreadable(error) from error
                raise self._unwritable(error) from error
            except BaseException as error:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                if isinstance(error, OSError):
                    raise self._unwritable(error.strerror) from error
                raise
            if self.changes >= 0:
                self.changes += 1
                write_changes(self.path.with_name(CHANGES), self.changes)

    def meta(self, key: str) -> str:
        """One of the store's own notes, empty where there is none."""
        rows = self.rows("SELECT value FROM meta WHERE key = ?", (key,))
        return str(rows[0][0]) if rows else ""

    def close(self) -> None:
        """Closes every thread's connection, when each is done with what it does. Safe to call twice."""
        with self.writing, self._opening:
            self.closed = True
            for mine in self._open:
                with mine.lock, suppress(sqlite3.Error):
                    mine.connection.close()
            self._open.clear()


def batches(values: Iterable[Any]) -> Iterator[tuple[list[Any], str]]:
    """Values in batches that one statement may name, each with its question marks."""
    rest = list(values)
    for start in range(0, len(rest), 900):
        batch = rest[start : start + 900]
        yield batch, ",".join("?" * len(batch))


def read_changes(path: Path) -> int:
    """The number of the last transaction that was noted, -1 where the note is missing or damaged."""
    try:
        noted = path.read_bytes()
    except OSError:
        return -1
    number = int.from_bytes(noted[:8])
    return number if noted[8:] == checksum(number) else -1


def write_changes(path: Path, number: int) -> None:
    """Notes the number of a transaction. A note that cannot be written is only older than it might be."""
    with suppress(OSError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.write(handle, number.to_bytes(8) + checksum(number))
        finally:
            os.close(handle)
