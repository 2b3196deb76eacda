"""`python tests/airgap.py COMMAND...` runs a command where there is no network but loopback, and counts what it and all its children ask of the outside.

The kernel counts: in a network namespace of its own every packet, connection and look-up of a name that is not for this machine finds no route. Linux alone.

Many machines look names up by way of loopback, or of a socket in the file system: neither would be counted, and the second would be answered from outside. So
names are asked of an address elsewhere there, in a mount namespace.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

INSIDE = "AIRGAP_IS_ON"
SET_FLAGS, UP_AND_RUNNING = 0x8914, 0x1 | 0x40
ADD_ROUTE, REJECTED = 0x890B, 0x0200
AS_ROOT, OWN_NETWORK = ["unshare", "--net"], ["unshare", "--map-root-user", "--net"]
"""Whoever is root keeps the other users of the machine, as whom PostgreSQL runs; others get a namespace in which they are root, and alone."""

RESOLVING = {"/etc/resolv.conf": "nameserver 192.0.2.53\n", "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n"}
"""What says how names are looked up, and what it says inside: of an address kept for documentation, to which there is no way."""

ANSWERING = ("/run/nscd", "/run/systemd/resolve")
"""Where services listen that look names up outside."""


def loopback_up() -> None:
    """Brings the loopback interface up, which a new namespace has down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sh14x", b"lo", UP_AND_RUNNING))


def let_chromium_look() -> None:
    """Refuses the one address that Chromium looks for a way to, without sending anything, to learn whether there is IPv6: what is refused is not counted."""
    address = socket.inet_pton(socket.AF_INET6, "2001:4860:4860::8888")
    # The kernel's struct in6_rtmsg: a host's route, of 128 bits, that rejects.
    route = struct.pack("16s16s16sIHHILIi", address, b"", b"", 0, 128, 0, 1, 0, REJECTED, 0)
    with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as any_socket:  # where there is no IPv6, it is not looked for
        fcntl.ioctl(any_socket, ADD_ROUTE, route)


def look_names_up_outside(own: Path) -> bool:
    """Makes every look-up of a name ask another machine, so that the kernel counts it, with files in an empty folder; whether that could be done."""
    made = [mounted("-t", "tmpfs", "none", folder) for folder in ANSWERING if Path(folder).is_dir()]
    for number, (path, content) in enumerate(RESOLVING.items()):
        file, real = own / str(number), Path(path).resolve()
        file.write_text(content)
        if all(made) and any(real.is_relative_to(Path(folder)) for folder in ANSWERING):
            real.touch()  # it was just hidden with what listens beside it
        made.append(mounted("--bind", str(file), str(real)))
    return all(made)


def mounted(*how: str) -> bool:
    """Whether something could be mounted."""
    return subprocess.run(["mount", *how], capture_output=True, check=False).returncode == 0


def without_a_route() -> int:
    """How many times something was to be sent and had nowhere to go, by IPv4 and IPv6 together, since the namespace was made."""
    names, values = (line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Ip:"))
    found = re.search(r"Ip6OutNoRoutes\s+(\d+)", Path("/proc/net/snmp6").read_text()) if Path("/proc/net/snmp6").exists() else None
    return int(values[names.index("OutNoRoutes")]) + int(found[1] if found else 0)


def allowed(way: list[str]) -> bool:
    """Whether this user may have such namespaces."""
    return subprocess.run([*way, "true"], capture_output=True, check=False).returncode == 0


def main(command: list[str]) -> int:
    """The command's exit code; 1 where it asked something of the outside."""
    if not os.environ.get(INSIDE):
        own = next((way for way in (AS_ROOT, OWN_NETWORK) if allowed(way)), OWN_NETWORK)
        mounts = ["--mount"] if allowed([*own, "--mount"]) else []
        entered = [*own, *mounts, sys.executable, __file__, *command]
        return subprocess.run(entered, env={**os.environ, INSIDE: "with mounts" if mounts else "without mounts"}, check=False).returncode
    loopback_up()
    let_chromium_look()
    # For as long as the command: over a file that is gone, nobody could mount another, as a test of this very program does.
    with tempfile.TemporaryDirectory() as folder:
        if os.environ[INSIDE] != "with mounts" or not look_names_up_outside(Path(folder)):
            sys.stderr.write("Air gap: not all that looks names up could be taken away, so look-ups by way of this machine are not counted.\n")
        code = subprocess.run(command, check=False).returncode
    attempts = without_a_route()
    sys.stdout.write(f"Air gap: {attempts} attempts to reach another machine.\n")
    return code or (1 if attempts else 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
