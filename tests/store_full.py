"""Stores on a disk that fills up, each at another offset: what fails says so and changes nothing, and later all is well. For test_store.py.

A limit on the size of files stands in for the full disk: SQLite and Chroma get an error from the same calls.
"""

from __future__ import annotations

import logging
import os
import random
import resource
import signal
import sys
import time
import traceback
from pathlib import Path

import probe_server
from store_writer import check, identifier, indexed, opened, put

from index import vectors
from index.errors import StoreError
from index.store import Store


def limit(size: int | None) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most if size is None else size, most))


def fill(place: Path, seed: int) -> str:
    """Writes to a store until the disk is full, twice; asserts that nothing acknowledged is lost. Returns what was refused."""
    chance = random.Random(seed)
    log: list[str] = []

    def change(number: int, version: int) -> None:
        pair = f"{number}:{version}"
        log.append(f"begin {pair}")
        if version:
            put(store, number, version)
        else:
            store.remove_many([identifier(number)])
        log.append(f"done {pair}")

    def settled(number: int) -> None:
        """What was refused has changed nothing: the document is as it was before."""
        del log[next(place for place in range(len(log) - 1, -1, -1) if log[place].startswith(f"begin {number}:")) :]

    store = opened(place)
    for number in range(5):
        change(number, 1)
    refused = ""
    if seed % 5 == 0:
        store.close()
    files = {path: path.stat().st_size for path in place.rglob("*") if path.is_file()}
    sizes = sorted(files.values())
    size = chance.choice([chance.randrange(1, sizes[-1] + 1), chance.choice(sizes) + chance.randrange(60_000), sizes[-1] + chance.randrange(200_000)])
    if seed % 5 == 1:
        # The store itself has room, its index has none.
        store._database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        size = max(size for path, size in files.items() if path.name == "chroma.sqlite3") + chance.randrange(20_000)
    if seed % 10 == 0:
        (place / "seal.json").unlink()
        size = chance.randrange(1, 40_000)
    index = "" if store._database.closed else store._database.meta("chroma")
    limit(size)
    if seed % 5 == 0:
        try:
            store = Store(place, "writer@1")
        except StoreError:
            refused = "opening "
            limit(None)
            store = opened(place)
    for step in range(40):
        number, version = chance.randrange(12), 0 if chance.random() < 0.2 else step + 2
        try:
            change(number, version)
        except StoreError as error:
            if "Nothing was changed" not in str(error):
                raise AssertionError("unclear") from error
            refused += "writing "
            settled(number)
            check(store, "\n".join(log))
            break
    if store.index_state == "failed":
        refused += "indexing"
        assert "free disk space" in store.notices()[0]
    elif store._database.meta("chroma") != index:
        refused += "indexing, which went on in a new folder"
    check(store, "\n".join(log))
    if seed % 2:
        # Closed, and opened again, while the disk is still full.
        store.close()
        try:
            store = Store(place, "writer@1")
            check(store, "\n".join(log))
        except StoreError:
            refused += " reopening"
        else:
            store.close()
        limit(None)
        store = opened(place)
    limit(None)
    for number in range(12):
        change(number, 100)
    deadline = time.monotonic() + 30
    while store.wait_for_index(30) != "ready" and time.monotonic() < deadline:
        change(0, 101)
    check(store, "\n".join(log))
    assert indexed(store)
    assert store.notices() == (), store.notices()
    store.close()
    store = opened(place)
    check(store, "\n".join(log))
    assert indexed(store)
    assert store.notices() == (), store.notices()
    store.close()
    return refused.strip() or "nothing"


def main(folder: Path, offsets: int) -> None:
    import chromadb  # noqa: F401 - once, not once a fork

    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    vectors.RETRY_SECONDS = 0.0
    failed = False
    with probe_server.serving() as address:
        vectors.probe = probe_server.ask(address)
        for seed in range(offsets):
            child = os.fork()
            if child == 0:
                try:
                    os.write(1, f"{seed} refused: {fill(folder / str(seed), seed)}\n".encode())
                    os._exit(0)
                except BaseException:
                    limit(None)
                    os.write(1, f"{seed} WRONG: {traceback.format_exc()}\n".encode())
                finally:
                    os._exit(1)
            _, status = os.waitpid(child, 0)
            failed |= status != 0
    sys.exit(failed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
