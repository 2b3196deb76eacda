"""A watch over this process: whatever would ask something of another machine is stopped, and noted, so that the test fails even where it got over it."""

from __future__ import annotations

import sys
from ipaddress import ip_address
from typing import Any

ASKING = ("socket.connect", "socket.sendto", "socket.sendmsg")
RESOLVING = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")

attempts: list[str] = []


def inside(host: object) -> bool:
    """Whether a host is this machine."""
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host or "localhost")
    try:
        address = ip_address(name.partition("%")[0])
    except ValueError:
        return name.lower().rstrip(".") == "localhost"
    return address.is_loopback or address.is_unspecified


def _numeric(host: object) -> bool:
    """Whether a host is an address already, for which no other machine is asked."""
    try:
        ip_address(host.decode() if isinstance(host, bytes) else str(host))
    except ValueError:
        return False
    return True


def _noticed(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ASKING:
        address = arguments[-1]
        outside = isinstance(address, tuple) and not inside(address[0])
    elif event in RESOLVING:
        address = arguments[0]
        outside = not inside(address) and not _numeric(address)
    else:
        return
    if outside:
        attempts.append(f"{event} {address!r}")
        raise PermissionError(f"Tests ask nothing of other machines, and this would: {address!r}")


def watch() -> None:
    """Begins the watch, for as long as the process lives."""
    sys.addaudithook(_noticed)
