"""One PostgreSQL database for all threads of a process: a pool of connections, transactions that happen wholly or not at all, and plain errors.

No error here repeats what PostgreSQL or the address says: a password can stand in either.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from index.errors import InvalidSettings, StoreError
from index.postgres_schema import SCHEMA

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg_pool import ConnectionPool

CONNECTIONS = 10
"""So many at most does one process hold; a question takes one for milliseconds."""

CONNECT_SECONDS, WAIT_SECONDS, SILENT_SECONDS = 5, 15.0, 20
"""How long a connection may take to be made, a thread to get one, and the network to say nothing before a connection counts as lost."""

LOCK_SECONDS, IDLE_SECONDS = 30, 60
"""How long a writer waits for another, and how long the server keeps the locks of a process that says nothing in the middle of a transaction."""

SESSION = f"""
SET search_path TO {SCHEMA}; SET lock_timeout = '{LOCK_SECONDS}s'; SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s';
SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3;
SELECT set_config('synchronous_commit', 'local', false) WHERE current_setting('synchronous_commit') = 'off'
"""
"""Of each connection. A machine that loses its power says nothing, and the server's own settings would keep its locks for hours. What Chroma is told must
last, or a passage's number could be given twice."""

SHUT_DOWN = ("57P01", "57P02", "57P03")
"""What PostgreSQL says where it ends a connection, and while it starts."""

UNANSWERED = "The PostgreSQL server does not answer. Check that it runs and can be reached; Citewell goes on by itself when it does."

UNKNOWN = "The PostgreSQL server was lost while a change was being kept, so it is not known whether it was. Look, and make it again if it was not."

Values = Sequence[Any] | Mapping[str, Any]


def _driver() -> Any:
    try:
        import psycopg
        import psycopg_pool  # noqa: F401 - both are needed
    except ImportError:
        raise InvalidSettings(
            "A store in PostgreSQL needs the package psycopg. Install it with `pip install 'citewell[postgres]'`, or take out CITEWELL_STORE_URL."
        ) from None
    return psycopg


class PostgresDatabase:
    """A PostgreSQL database. Everything raises StoreError once it is closed, and where the server does not answer. `url` may hold a password.

    Raises on opening: InvalidSettings without the driver or with an address that is none, StoreError where the server cannot be used.
    """

    def __init__(self, url: str) -> None:
        psycopg = _driver()
        from psycopg_pool import ConnectionPool

        options: dict[str, Any] = {
            "autocommit": True,
            "connect_timeout": CONNECT_SECONDS,
            "client_encoding": "utf8",
            "keepalives_idle": 60,
            "tcp_user_timeout": SILENT_SECONDS * 1000,
            "application_name": "citewell",
            # A standby is behind, and takes no changes.
            "target_session_attrs": "read-write",
        }
        try:
            # By itself first: the pool would try again and again where the password is wrong.
            with psycopg.connect(url, **options) as connection:
                self.version = str(connection.execute("SHOW server_version").fetchone()[0]).partition(" ")[0]
                if connection.execute("SHOW server_encoding").fetchone() != ("UTF8",):
                    raise StoreError("The PostgreSQL database does not keep its texts as UTF-8. Make one with `createdb --encoding=UTF8`.")
        except psycopg.OperationalError as error:
            raise StoreError(_refused(str(error))) from None
        except (psycopg.ProgrammingError, UnicodeError):
            raise InvalidSettings("CITEWELL_STORE_URL is no address of a PostgreSQL database. One is postgresql://USER@HOST:5432/DATABASE.") from None
        # Its warnings repeat what the server says, with its address and the user.
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
        self._psycopg = psycopg
        self.closed = False
        self._closing = threading.Lock()
        self._pool: ConnectionPool[Connection[Any]] = ConnectionPool(
            url,
            kwargs=options,
            min_size=1,
            max_size=CONNECTIONS,
            timeout=WAIT_SECONDS,
            reconnect_timeout=CONNECT_SECONDS,
            configure=_in_our_schema,
            open=True,
            name="citewell",
        )

    @staticmethod
    def closed_error() -> StoreError:
        """What is raised by everything once the store is closed."""
        return StoreError("This store has been closed; open it again with open_assistant().")

    def _failed(self, error: Exception, changed_nothing: bool = False) -> StoreError:
        if self.closed:
            return self.closed_error()
        from psycopg_pool import PoolTimeout

        if isinstance(error, PoolTimeout) or (isinstance(error, self._psycopg.OperationalError) and getattr(error, "sqlstate", None) is None):
            return StoreError(UNANSWERED)
        if getattr(error, "sqlstate", None) == "55P03":
            return StoreError(
                f"Another Citewell has been changing the same files for more than {LOCK_SECONDS} seconds. Nothing was changed; try again."
            )
        # By its name in PostgreSQL, such as DiskFull; its text can hold what was to be stored.
        kind = type(error).__name__
        if changed_nothing:
            return StoreError(f"The PostgreSQL database could not be written ({kind}). Nothing was changed. Its server's log says more.")
        return StoreError(f"The PostgreSQL database could not be read ({kind}). Its server's log says more.")

    def _lost(self, error: Exception) -> bool:
        """Whether a connection was dropped, as when the server was started anew: the next one may be new, so it is tried again."""
        dropped = isinstance(error, self._psycopg.OperationalError) and getattr(error, "sqlstate", None) in (None, *SHUT_DOWN)
        return dropped and not self.closed and "Pool" not in type(error).__name__

    @contextmanager
    def _connection(self, begin: str = "") -> Iterator[Connection[Any]]:
        """A connection that works, inside a transaction where there is a statement to begin one with. Those that the server has dropped meanwhile are
        let go of."""
        if self.closed:
            raise self.closed_error()
        for left in reversed(range(CONNECTIONS + 1)):
            with ExitStack() as held:
                try:
                    connection = held.enter_context(self._pool.connection())
                    connection.execute(begin or "SELECT 1", prepare=False)
                except self._psycopg.Error as error:
                    if left and self._lost(error):
                        continue
                    raise
                yield connection
                return

    def rows(self, statement: str, values: Values = (), binary: bool = False) -> list[Any]:
        """All rows of one query, which sees the database as it is at one moment. Raises StoreError."""
        if self.closed:
            raise self.closed_error()
        for left in reversed(range(CONNECTIONS + 1)):
            try:
                with self._pool.connection() as connection:
                    return list(connection.execute(statement, values, binary=binary).fetchall())
            except self._psycopg.Error as error:
                if left and self._lost(error):
                    continue
                raise self._failed(error) from None
        raise StoreError(UNANSWERED)

    @contextmanager
    def transaction(self) -> Iterator[Connection[Any]]:
        """Everything done inside happens wholly or not at all. Raises StoreError."""
        committing = False
        try:
            with self._connection("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE") as connection:
                try:
                    yield connection
                    committing = True
                    connection.execute("COMMIT", prepare=False)
                except BaseException:
                    if not connection.broken:
                        connection.execute("ROLLBACK", prepare=False)
                    raise
        except self._psycopg.Error as error:
            lost = isinstance(error, self._psycopg.OperationalError) and getattr(error, "sqlstate", None) in (None, *SHUT_DOWN)
            if committing and lost and not self.closed:
                raise StoreError(UNKNOWN) from None
            raise self._failed(error, changed_nothing=True) from None

    @contextmanager
    def session(self) -> Iterator[Connection[Any]]:
        """A connection of one's own, for locks that outlast a transaction. Raises StoreError."""
        try:
            with self._connection() as connection:
                try:
                    yield connection
                finally:
                    # A connection that was lost has lost its locks with it.
                    with suppress(self._psycopg.OperationalError):
                        connection.execute("SELECT pg_advisory_unlock_all()", prepare=False)
        except self._psycopg.Error as error:
            raise self._failed(error) from None

    def close(self) -> None:
        """Closes all connections. Safe to call twice."""
        with self._closing:
            if self.closed:
                return
            self.closed = True
        self._pool.close(timeout=5)


def _in_our_schema(connection: Connection[Any]) -> None:
    connection.execute(SESSION)


@contextmanager
def patient(connection: Connection[Any]) -> Iterator[None]:
    """Inside, a lock is waited for as long as it takes: whoever has it is at long work."""
    connection.execute("SELECT set_config('lock_timeout', '0', false)")
    yield
    connection.execute("SELECT set_config('lock_timeout', %s, false)", (f"{LOCK_SECONDS}s",))


def _refused(said: str) -> str:
    """What to tell somebody whom a server does not let in. What it said is read and not repeated."""
    if "no password supplied" in said:
        return "The PostgreSQL server wants a password. Set PGPASSWORD in the environment, or CITEWELL_STORE_URL with the password in it."
    if "authentication failed" in said or "pg_hba.conf" in said:
        return "The PostgreSQL server does not let this user in. Check user and password in CITEWELL_STORE_URL, and the server's pg_hba.conf."
    if "does not exist" in said and "No such file" not in said:
        return "The PostgreSQL server knows no such database or user. Make them with `createuser` and `createdb --encoding=UTF8`, or mend CITEWELL_STORE_URL."
    return "The PostgreSQL server in CITEWELL_STORE_URL does not answer. Check the address, and that the server runs."
