"""`python tests/airgap.py COMMAND...` runs a command where there is no network but loopback, and counts what it and all its children ask of the outside.

The kernel counts: in a network namespace of its own every packet, connection and look-up of a name that is not for this machine finds no route. Linux alone.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

INSIDE = "AIRGAP_IS_ON"
SET_FLAGS, UP_AND_RUNNING = 0x8914, 0x1 | 0x40
ADD_ROUTE, REJECTED = 0x890B, 0x0200


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


def without_a_route() -> int:
    """How many times something was to be sent and had nowhere to go, by IPv4 and IPv6 together, since the namespace was made."""
    names, values = (line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Ip:"))
    found = re.search(r"Ip6OutNoRoutes\s+(\d+)", Path("/proc/net/snmp6").read_text()) if Path("/proc/net/snmp6").exists() else None
    return int(values[names.index("OutNoRoutes")]) + int(found[1] if found else 0)


def main(command: list[str]) -> int:
    """The command's exit code; 1 where it asked something of the outside."""
    if not os.environ.get(INSIDE):
        entered = ["unshare", "--map-root-user", "--net", sys.executable, __file__, *command]
        return subprocess.run(entered, env={**os.environ, INSIDE: "1"}, check=False).returncode
    loopback_up()
    let_chromium_look()
    code = subprocess.run(command, check=False).returncode
    attempts = without_a_route()
    sys.stdout.write(f"Air gap: {attempts} attempts to reach another machine.\n")
    return code or (1 if attempts else 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
