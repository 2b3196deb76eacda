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
from pathlib import Path

INSIDE = "AIRGAP_IS_ON"
SET_FLAGS, UP_AND_RUNNING = 0x8914, 0x1 | 0x40


def loopback_up() -> None:
    """Brings the loopback interface up, which a new namespace has down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sh14x", b"lo", UP_AND_RUNNING))


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
    code = subprocess.run(command, check=False).returncode
    attempts = without_a_route()
    sys.stdout.write(f"Air gap: {attempts} attempts to reach another machine.\n")
    return code or (1 if attempts else 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
