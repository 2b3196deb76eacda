"""What runs in the child process that reads files: little memory, no network, one request after the other on its standard input.

A request is a line of JSON and the file's bytes, a reply a line of JSON and, for a picture, its bytes. Nothing that comes back is ever unpickled.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO

_NO_NETWORK = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg")
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
"""CLONE_NEWUSER and CLONE_NEWNET of <sched.h>."""


def confine(memory: int) -> str | None:
    """Takes from this process what a reader needs none of: memory past `memory` bytes, core dumps, the network.

    Returns why the system does not cut it off from the network, nothing where it does, and None where the platform has no such thing.
    """
    with suppress(ImportError):  # there are no such limits on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Where the kernel does not allow it, the hook below still stops what Python does.
    connected = _cut_off() if sys.platform == "linux" else None

    def refused(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _NO_NETWORK:
            raise PermissionError("readers of files have no network")

    sys.addaudithook(refused)
    return connected


def _cut_off() -> str:
    """Gives this process a network of its own, with nothing in it; returns why that failed, and nothing where it did not."""
    try:
        unshare = ctypes.CDLL(None, use_errno=True).unshare
    except (OSError, AttributeError) as error:
        return str(error)
    # Root needs no users of its own for it, unless its capabilities were taken.
    for kinds in (*((_NEW_NETWORK,) if os.geteuid() == 0 else ()), _NEW_USER | _NEW_NETWORK):
        if unshare(kinds) == 0:
            return ""
    return os.strerror(ctypes.get_errno())


def _allow_seconds(seconds: int) -> None:
    """Ends this process when one request takes more processor time than that, should whoever started it be gone."""
    with suppress(ImportError, ValueError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + seconds, hard))


def _read(request: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
    from index.read import read
    from index.split import split

    document = read(content, request["source"], request["root"])
    passages = [(passage.span.start, passage.span.end, passage.heading, passage.pages) for passage in split(document)]
    furniture = [(part.start, part.end) for part in document.furniture]
    return {
        "title": document.title,
        "titled": document.titled,
        "text": document.text,
        "pages": document.pages,
        "furniture": furniture,
        "passages": passages,
    }, b""


def _render(request: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
    from index.formats.pdf import render

    return {}, render(content, request["page"], request["start"], request["end"])


def _nothing(request: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
    return {}, b""


_WORK: dict[str, Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]]] = {"read": _read, "render": _render, "nothing": _nothing}


def _answer(request: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
    from index.errors import UnreadableDocument

    try:
        return _WORK[request["do"]](request, content)
    except UnreadableDocument as error:
        return {"rejected": str(error), "lasting": error.lasting}, b""
    except MemoryError:
        return {"rejected": "reading it takes more memory than a file may"}, b""
    except RecursionError:
        return {"rejected": "its parts are nested too deeply to be read"}, b""
    except Exception as error:
        import traceback

        return {
            "rejected": f"it is damaged, or of a kind that its reader does not know ({type(error).__name__})",
            "trace": traceback.format_exc(),
        }, b""


def main(memory: int, seconds: int) -> None:
    """Answers requests until its input ends."""
    requests: BinaryIO = os.fdopen(os.dup(0), "rb")
    replies: BinaryIO = os.fdopen(os.dup(1), "wb")
    # What libraries print must not get between the replies.
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    connected = confine(memory)
    while line := requests.readline():
        request = json.loads(line)
        content = requests.read(request["length"])
        if len(content) < request["length"]:
            return
        _allow_seconds(seconds)
        reply, picture = _answer(request, content)
        try:
            # In ASCII: escapes carry half a surrogate pair as well as any other character.
            head = json.dumps({**reply, "connected": connected, "length": len(picture)}).encode("ascii")
        except MemoryError:
            head, picture = json.dumps({"rejected": "reading it takes more memory than a file may", "length": 0}).encode("ascii"), b""
        replies.write(head + b"\n")
        replies.write(picture)
        replies.flush()
        del request, content, reply, picture, head
