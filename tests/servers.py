"""A real PostgreSQL and a real Chroma server for tests, on this machine alone and gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import pytest

from index import chroma_server, postgres_database

SECONDS, STARTS = 180, 3
"""How long a server may take to start, and how often it is tried: another process may take its port before it does."""

MEMORY = 2**30
"""So much must be free in memory for a database to lie there; each process of a test run has one."""

OLDEST = 13

NOT_THERE = "PostgreSQL is not installed; on Debian, `apt install postgresql`"


def unhurried(patched: pytest.MonkeyPatch) -> None:
    """A busy machine is not taken for a server that is away: whoever waits for one waits for minutes."""
    for module, limits in (
        (chroma_server, {"ANSWER_SECONDS": 120.0, "LOOK_SECONDS": 60.0}),
        (postgres_database, {"CONNECT_SECONDS": 60, "WAIT_SECONDS": 120.0, "SILENT_SECONDS": 120, "LOCK_SECONDS": 120, "IDLE_SECONDS": 600}),
    ):
        for name, limit in limits.items():
            patched.setattr(module, name, limit)
    session = postgres_database.SESSION
    assert session.count("'30s'") == session.count("'60s'") == 1
    patched.setattr(postgres_database, "SESSION", session.replace("'30s'", "'120s'").replace("'60s'", "'600s'"))


def postgres_programs() -> Path | None:
    """The folder of initdb and postgres, which Debian keeps off the path; None where there is none."""
    found = [path for path in Path("/usr/lib/postgresql").glob("[1-9][0-9]/bin/initdb") if int(path.parts[-3]) >= OLDEST]
    on_path = shutil.which("initdb")
    return max(found).parent if found else Path(on_path).parent if on_path else None


def _as_nobody() -> dict[str, object]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid():
        return {}
    name = next((name for name in ("postgres", "nobody") if _is_user(name)), "nobody")
    user = pwd.getpwnam(name)
    if not _known(user.pw_uid):
        pytest.skip("PostgreSQL refuses to run as root, and in this namespace there is nobody else")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _known(number: int) -> bool:
    """Whether this process's namespace has a user of that number."""
    ranges = (
        [tuple(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()] if Path("/proc/self/uid_map").exists() else []
    )
    return not ranges or any(first <= number < first + count for first, _, count in ranges)


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Running:
    """A server on a free port, that can be killed, and started again there with what it had on its disk."""

    def __init__(self, command: Callable[[int], list[str]], ready: Callable[[int], bool], log: Path, **more: object) -> None:
        self._command, self._ready, self._log, self._more = command, ready, log, more
        self.folder = log.parent
        for left in reversed(range(STARTS)):
            self.port = free_port()
            try:
                self.start()
                return
            except RuntimeError:
                if not left:
                    raise

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command(self.port), stdout=log, stderr=log, **self._more)  # type: ignore[call-overload]
        end = time.monotonic() + SECONDS
        while self.process.poll() is not None or not self._ready(self.port):
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(self._log.read_text(errors="replace")[-3_000:])
            time.sleep(0.02)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def postgres() -> Iterator[tuple[str, Running]]:
    """The address of an empty database, and its server."""
    programs = postgres_programs()
    assert programs is not None, NOT_THERE
    # A container may have no more than 64 MB of it.
    memory = "/dev/shm" if os.path.isdir("/dev/shm") and shutil.disk_usage("/dev/shm").free > MEMORY else None
    with TemporaryDirectory(dir=memory, prefix="citewell-postgres-") as folder:
        place, user = Path(folder), _as_nobody()
        if user:
            os.chown(place, user["user"], user["group"])  # type: ignore[arg-type]
        log = place / "log"
        password = place / "password"
        password.write_text("secret-of-tests\n")
        password.chmod(0o644)
        options = ["-U", "citewell", "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8", "--locale=C", "--no-sync"]
        made = subprocess.run([programs / "initdb", "-D", place / "data", *options], capture_output=True, text=True, cwd=place, **user)  # type: ignore[call-overload]
        assert made.returncode == 0, made.stdout + made.stderr
        quick = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "64MB", "max_connections": "200"}
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": str(place), **quick}

        def ready(port: int) -> bool:
            return subprocess.run([programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]).returncode == 0

        options = [part for pair in settings.items() for part in ("-c", "=".join(pair))]
        command = [str(programs / "postgres"), "-D", str(place / "data"), *options]
        server = Running(lambda port: [*command, "-p", str(port)], ready, log, cwd=place, **user)
        try:
            yield f"postgresql://citewell:secret-of-tests@127.0.0.1:{server.port}/postgres", server
        finally:
            server.process.terminate()
            try:
                server.process.wait(60)
            except subprocess.TimeoutExpired:
                server.stop()


@contextmanager
def chroma() -> Iterator[tuple[str, Running]]:
    """The address of a `chroma run`, and its process."""
    with TemporaryDirectory(prefix="citewell-chroma-") as folder:

        def ready(port: int) -> bool:
            try:
                with urlopen(f"http://127.0.0.1:{port}/api/v2/heartbeat", timeout=10) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        beside = Path(sys.executable).with_name("chroma")
        program = beside if beside.exists() else shutil.which("chroma")
        if program is None:
            pytest.skip("the command chroma, which comes with chromadb, is not installed")
        command = [str(program), "run", "--path", str(Path(folder) / "chroma"), "--host", "127.0.0.1", "--port"]
        server = Running(lambda port: [*command, str(port)], ready, Path(folder) / "log")
        try:
            yield f"http://127.0.0.1:{server.port}", server
        finally:
            server.stop()


def emptied(url: str) -> None:
    """Makes the shared store as good as new: its tables stay, as making them takes longer."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        tables = [row[0] for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'citewell'").fetchall()]
        if tables:
            connection.execute(f"TRUNCATE {', '.join(f'citewell.{table}' for table in tables)} RESTART IDENTITY")
