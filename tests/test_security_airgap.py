"""The watches that keep tests from asking anything of other machines: they notice, and they let loopback be."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import outside
import pytest

AIRGAP = Path(__file__).resolve().parent / "airgap.py"


def namespaces(*more: str) -> bool:
    """Whether this machine lets a process have a network of its own, and what more is asked for."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "--map-root-user", "--net", *more, "true"], capture_output=True, check=False).returncode == 0


def test_no_library_keeps_an_identifier_of_the_machine_or_tells_its_makers_of_the_process(tmp_path: Path) -> None:
    """ONNX Runtime does both from the moment it is loaded, unless it was told not to before; the door that readers and the embedder come through tells it."""
    told = {name: value for name, value in os.environ.items() if not name.endswith("_DISABLE_TELEMETRY") and name != "XDG_CACHE_HOME"}
    script = "import rag.assistant, onnxruntime, os; print(os.environ['ORT_DISABLE_TELEMETRY'], os.environ['HF_HUB_DISABLE_TELEMETRY'])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**told, "HOME": str(tmp_path), "PYTHONPATH": str(AIRGAP.parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["1", "1"], done.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture
def noticed() -> Iterator[list[str]]:
    """What the watch has noted, which is taken back at the end: it was meant."""
    before = len(outside.attempts)
    yield outside.attempts
    del outside.attempts[before:]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost", "LOCALHOST.", "", None, b"localhost", "0.0.0.0", "::"])
def test_this_machine_is_inside(host: object) -> None:
    assert outside.inside(host)


@pytest.mark.parametrize(
    "host", ["192.0.2.1", "10.0.0.1", "2001:db8::1", "example.org", "localhost.example.org", "127.0.0.1.example.org", b"example.org"]
)
def test_other_machines_are_not(host: object) -> None:
    assert not outside.inside(host)


def test_what_asks_another_machine_is_stopped_and_noted(noticed: list[str]) -> None:
    begun = len(noticed)
    for kind, address in ((socket.AF_INET, ("192.0.2.1", 80)), (socket.AF_INET6, ("2001:db8::1", 80))):
        for how in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(kind, how) as one, pytest.raises(PermissionError, match="other machines"):
                one.connect(address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, pytest.raises(PermissionError):
        one.sendto(b"x", ("192.0.2.1", 53))
    for resolve in (lambda: socket.getaddrinfo("example.org", 80), lambda: socket.gethostbyname("example.org")):
        with pytest.raises(PermissionError):
            resolve()
    assert len(noticed) - begun == 7


def test_loopback_is_let_be(noticed: list[str]) -> None:
    begun = len(noticed)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(("localhost", server.getsockname()[1])):
        pass
    with socket.socketpair()[0]:
        pass
    assert len(noticed) == begun


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
@pytest.mark.parametrize(
    ("does", "code", "count"),
    [
        ("import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())", 0, 0),
        ("import socket; socket.socket().connect_ex(('192.0.2.1', 80))", 1, 1),
        ("import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect_ex(('192.0.2.1', 53))", 1, 1),
        ("import socket; socket.socket(socket.AF_INET6).connect_ex(('2001:db8::1', 80))", 1, 1),
        ("import subprocess, sys; subprocess.run([sys.executable, '-c', 'import socket; socket.socket().connect_ex((\"192.0.2.1\", 80))'])", 1, 1),
        ("raise SystemExit(3)", 3, 0),
    ],
    ids=["loopback", "connection", "datagram", "version 6", "child", "failure"],
)
def test_the_air_gap_counts_what_a_command_and_its_children_ask(does: str, code: int, count: int) -> None:
    if not namespaces():
        pytest.skip("needs a kernel that gives users network namespaces")
    done = in_the_gap([], does)
    assert (done.returncode, done.stdout) == (code, f"Air gap: {count} attempts to reach another machine.\n")


def in_the_gap(first: list[str], does: str) -> subprocess.CompletedProcess[str]:
    """What became of Python code in an air gap, which was itself entered by way of another command."""
    environment = {name: value for name, value in os.environ.items() if name != "AIRGAP_IS_ON"}
    return subprocess.run(
        [*first, sys.executable, str(AIRGAP), sys.executable, "-c", does], capture_output=True, text=True, env=environment, check=False, timeout=60
    )


LOOKED_UP = """
import socket
try:
    socket.getaddrinfo("example.org", 80)
except socket.gaierror:
    raise SystemExit(0)
raise SystemExit(7)
"""


ON_LOOPBACK = 'echo "nameserver 127.0.0.53" >"$0/conf" && mount --bind "$0/conf" "$(realpath /etc/resolv.conf)" && exec "$@"'
AS_A_LINK = """
mkdir -p "$0/etc" && ln -sf ../run/systemd/resolve/stub-resolv.conf "$0/etc/resolv.conf"
for name in passwd group hosts nsswitch.conf ld.so.cache; do cp "/etc/$name" "$0/etc/" 2>/dev/null; done
mount --bind "$0/etc" /etc && mount -t tmpfs none /run && mkdir -p /run/systemd/resolve && echo "nameserver 127.0.0.53" >/etc/resolv.conf && exec "$@"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
@pytest.mark.parametrize("arranged", [ON_LOOPBACK, AS_A_LINK], ids=["file", "link into /run, as systemd has it"])
def test_the_air_gap_counts_look_ups_that_a_resolver_on_loopback_would_take(arranged: str, tmp_path: Path) -> None:
    if not namespaces("--mount"):
        pytest.skip("needs a kernel that gives users namespaces of their own")
    as_with_resolved = ["unshare", "--map-root-user", "--mount", "sh", "-c", arranged, str(tmp_path)]
    done = in_the_gap(as_with_resolved, LOOKED_UP)
    assert (done.returncode, done.stderr) == (1, "")
    assert re.fullmatch(r"Air gap: [1-9]\d* attempts to reach another machine\.\n", done.stdout)
    # Names of this machine are nobody else's to know.
    done = in_the_gap(as_with_resolved, "import socket; socket.getaddrinfo('localhost', 80)")
    assert (done.returncode, done.stdout) == (0, "Air gap: 0 attempts to reach another machine.\n")
