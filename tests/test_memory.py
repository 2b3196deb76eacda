"""Few heaps for many threads, seen in what glibc tells of its heaps."""

from __future__ import annotations

import inspect
import os
import platform
import subprocess
import sys

import pytest

from rag import cli
from rag.memory import HEAPS

THREADS = 12
CHILD = f"""
import ctypes, os, sys, threading
from rag import memory

done = memory.share_heaps() if sys.argv[1] == "few" else None
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.fopen.restype, libc.malloc_info.argtypes = ctypes.c_void_p, ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
together = threading.Barrier({THREADS})

def take():
    together.wait()
    libc.malloc(1_000)
    together.wait()  # a thread that ends gives its heap to the next

threads = [threading.Thread(target=take) for _ in range({THREADS})]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
file = libc.fopen(sys.argv[2].encode(), b"w")
libc.malloc_info(0, file)
libc.fflush(ctypes.c_void_p(file))
print(done, open(sys.argv[2]).read().count("<heap nr="))
"""


def heaps(how: str, place: object, **environment: str) -> tuple[str, int]:
    """What share_heaps() answered in a process of its own, and how many heaps its threads came to."""
    known = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    ran = subprocess.run([sys.executable, "-c", CHILD, how, str(place)], env={**known, **environment}, capture_output=True, text=True, check=True)
    done, count = ran.stdout.split()
    return done, int(count)


def test_a_server_shares_them_before_it_begins_threads() -> None:
    code = inspect.getsource(cli.serve)
    assert 0 < code.index("memory.share_heaps()") < code.index("open_assistant(settings")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_threads_share_few_heaps(tmp_path: object) -> None:
    place = f"{tmp_path}/heaps.xml"
    assert heaps("many", place)[1] > HEAPS, "glibc would have kept to few of its own accord"
    assert heaps("few", place) == ("True", HEAPS)
    assert heaps("few", place, MALLOC_ARENA_MAX="1") == ("False", 1)
