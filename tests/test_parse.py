"""Tests of index.parse: files are read in child processes that cannot stall, crash, fill or leave this one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from index.errors import UnreadableDocument
from index.parse import PACKAGES, Parser
from index.read import read
from index.split import split

PROSE = "The comet was seen by all who looked. It came back, and nobody had expected that of it.\n\n"
LONG = (PROSE * 200_000).encode()


@pytest.fixture(scope="module")
def parser() -> Iterator[Parser]:
    with Parser(workers=2) as made:
        yield made


@pytest.mark.parametrize(
    ("source", "content"),
    [
        ("notes.md", b"# The comet\n\nIt was seen.\n\n## Later\n\nIt came back. \xf0\x9f\x98\x80 Twice.\n"),
        ("folder/plain.txt", PROSE.encode() * 30),
        ("code.py", b"# no heading\ndef f():\n    return 1\n"),
        ("utf16.txt", "Żółw i comet.".encode("utf-16")),
    ],
)
def test_a_child_reads_what_this_process_would_read(parser: Parser, source: str, content: bytes) -> None:
    document, passages = parser.parse(content, source, "/root")
    assert document == read(content, source, "/root")
    assert passages == split(document)


def test_reasons_come_through(parser: Parser) -> None:
    with pytest.raises(UnreadableDocument, match="binary data"):
        parser.parse(b"a\x00b", "a.txt", "/root")
    with pytest.raises(UnreadableDocument, match="no text"):
        parser.parse(b"  \n", "a.md", "/root")


def test_several_threads_share_the_children(parser: Parser) -> None:
    def one(number: int) -> str:
        return parser.parse(f"Text of number {number}.".encode(), f"{number}.txt", "/root")[0].text

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(100))) == [f"Text of number {number}." for number in range(100)]


def test_a_second_child_is_started_when_files_have_waited_for_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.parse.ANOTHER_AFTER", 60.0)
    with Parser(workers=2) as parser:
        parser.parse(b"Short.", "short.txt", "/root")
        (first,) = parser._children
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda number: parser.parse(b"Short.", f"{number}.txt", "/root"), range(10)))
            assert parser._children == {first}
            monkeypatch.setattr("index.parse.ANOTHER_AFTER", 0.1)
            long = [pool.submit(parser.parse, LONG, f"long{number}.txt", "/root") for number in range(2)]
            while len(parser._children) < 2:
                assert not all(one.done() for one in long), "one after the other"
                time.sleep(0.01)
            parser.close()
            assert all(isinstance(one.exception(), UnreadableDocument) for one in long)


def test_a_file_that_takes_too_long_is_given_up_and_the_next_is_read() -> None:
    with Parser(workers=1, seconds=1) as parser:
        began = time.monotonic()
        with pytest.raises(UnreadableDocument, match="longer than 1 seconds"):
            parser.parse(LONG, "long.txt", "/root")
        assert time.monotonic() - began < 30
        assert parser.parse(b"Short.", "short.txt", "/root")[0].text == "Short."


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limits")
def test_a_file_that_takes_too_much_memory_is_given_up_and_the_next_is_read() -> None:
    with Parser(workers=1, memory=70_000_000) as parser:
        with pytest.raises(UnreadableDocument, match="memory"):
            parser.parse(LONG, "long.txt", "/root")
        assert parser.parse(b"Short.", "short.txt", "/root")[0].text == "Short."


def test_a_crash_is_the_files_and_the_next_is_read() -> None:
    with Parser(workers=1) as parser:
        parser.parse(b"Short.", "short.txt", "/root")
        (child,) = parser._children
        threading.Timer(0.5, os.kill, (child.process.pid, signal.SIGSEGV)).start()
        with pytest.raises(UnreadableDocument, match="crashed"):
            parser.parse(LONG, "long.txt", "/root")
        assert parser.parse(b"Short.", "short.txt", "/root")[0].text == "Short."


def test_closing_gives_up_what_is_being_read_and_leaves_no_process() -> None:
    parser = Parser(workers=1)
    parser.parse(b"Short.", "short.txt", "/root")
    (child,) = parser._children
    threading.Timer(0.5, parser.close).start()
    with pytest.raises(UnreadableDocument, match="closed"):
        parser.parse(LONG, "long.txt", "/root")
    assert child.process.poll() is not None
    with pytest.raises(UnreadableDocument, match="closed"):
        parser.parse(b"Short.", "short.txt", "/root")
    parser.close()


def test_children_are_replaced_after_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.parse.REQUESTS", 2)
    seen = set()
    with Parser(workers=1) as parser:
        for _ in range(4):
            parser.parse(b"Short.", "short.txt", "/root")
            seen |= {child.process.pid for child in parser._children}
    assert len(seen) == 2


def confined(program: str) -> str:
    """What a program prints in a process that is confined as the readers are."""
    head = f"import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r}); from index.parse_child import confine; confine(1 << 30)\n"
    return subprocess.run([sys.executable, "-c", head + program], capture_output=True, text=True, timeout=60, check=True).stdout.strip()


def test_readers_have_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connect = f"import socket\ntry:\n    socket.create_connection(('127.0.0.1', {port}), 5); print('connected')\nexcept OSError as e: print(type(e).__name__)"
        assert confined(connect) == "PermissionError"
        resolve = "import socket\ntry:\n    socket.getaddrinfo('localhost', 80); print('resolved')\nexcept OSError as e: print(type(e).__name__)"
        assert confined(resolve) == "PermissionError"


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's namespaces")
def test_what_is_not_python_has_no_network_either() -> None:
    if subprocess.run(["unshare", "-rn" if os.geteuid() else "-n", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this kernel gives no namespaces to this account")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        native = (
            "import ctypes, socket, struct\nc = ctypes.CDLL(None, use_errno=True)\n"
            "s = c.socket(2, 1, 0)\n"
            f"a = struct.pack('<H', 2) + struct.pack('>H', {port}) + bytes([127, 0, 0, 1]) + bytes(8)\n"
            "print(c.connect(s, a, 16))"
        )
        assert confined(native) == "-1"


def test_readers_do_not_get_the_keys_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITEWELL_API_KEY", "secret-key")
    with Parser(workers=1) as parser:
        parser.parse(b"Short.", "short.txt", "/root")
        (child,) = parser._children
        if sys.platform == "linux":
            assert b"secret-key" not in Path(f"/proc/{child.process.pid}/environ").read_bytes()


def test_whether_readers_are_cut_off_by_the_system_is_known() -> None:
    refused = 'echo 0 > /proc/sys/user/max_net_namespaces && exec "$@"'
    own = ["unshare", "--user", "--map-root-user", "sh", "-c", refused, "sh"]
    asked = "from index.parse import Parser\nwith Parser(1) as parser: print(repr(parser.connected()))"
    environment = {**os.environ, "PYTHONPATH": PACKAGES}

    def said(*before: str) -> str:
        return subprocess.run([*before, sys.executable, "-c", asked], capture_output=True, text=True, check=True, env=environment).stdout.strip()

    if sys.platform != "linux":
        assert said() == "None"
    elif shutil.which("unshare") is None or subprocess.run([*own, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody refuse a network")
    else:
        assert said(*own) not in ("''", "None"), "the system refuses, and that is told"


def test_readers_with_a_network_are_warned_of_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("index.parse._warned", threading.Event())
    monkeypatch.setattr("index.parse._Child.ask", lambda *_: ({"connected": "Operation not permitted"}, b""))
    with Parser(1) as parser:
        assert parser.connected() == parser.connected() == "Operation not permitted"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "(Operation not permitted)" in caplog.text
