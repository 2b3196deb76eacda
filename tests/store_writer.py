"""Documents whose words and vectors tell number and version, and a process that writes them until it is killed. For test_store.py."""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import probe_server
from numpy.typing import NDArray

from index import compare, index_worker, vectors
from index.collection import IndexBroken
from index.split import passage_id
from index.store import Entry, Store
from index.types import Document, Passage, Span

ROOT = "/root"
PARTS = 3
DIMENSION = 16


def identifier(number: int) -> str:
    return f"id{number}"


def vector(number: int, version: int, part: int) -> NDArray[np.float32]:
    made = np.random.default_rng((number, version, part)).normal(size=DIMENSION).astype(np.float32)
    return np.asarray(made / np.linalg.norm(made), dtype=np.float32)


def parts(number: int, version: int) -> tuple[Document, list[Passage], list[bytes], NDArray[np.float32]]:
    """A document of three passages, with everything that Store.put wants."""
    texts = [f"doc{number} doc{number}v{version} part{part}." for part in range(PARTS)]
    document = Document(identifier(number), f"{number}.txt", f"title{number}", "\n".join(texts), f"{number}.{version}")
    passages = []
    for text in texts:
        start = document.text.index(text)
        span = Span(start, start + len(text))
        passages.append(Passage(passage_id(document.id, span, text), document.id, document.source, document.title, "", span, text))
    return document, passages, [text.encode() for text in texts], np.stack([vector(number, version, part) for part in range(PARTS)])


def opened(folder: Path) -> Store:
    """A store whose vector index is ready, so that what is found by meaning is found by it."""
    store = Store(folder, "writer@1")
    assert store.wait_for_index(60) == "ready"
    return store


def put(store: Store, number: int, version: int = 1) -> None:
    document, passages, keys, vectors = parts(number, version)
    store.put(document, ROOT, passages, keys, vectors)


def indexed(store: Store) -> bool:
    """Whether the vector index holds exactly the passages and vectors of the store, but for those that it has still to learn."""
    index = store._index
    assert index is not None
    assert index._current is not None
    pending = {row[0] for row in store._database.rows("SELECT passage_id FROM pending")}
    assert index._grown() or not pending
    stored = dict(store._database.rows("SELECT p.id, v.vector FROM passages p JOIN vectors v USING (content_key)"))
    settled = {one: np.frombuffer(stored[one], np.float32) for one in stored if one not in pending}
    held = index._current.vectors(list(settled))
    return (
        held.keys() == settled.keys()
        and index._current.count() == len(settled) + len(index_worker._held(index._current, list(pending)))
        and all(np.allclose(held[one], settled[one], atol=1e-5) for one in settled)
    )


def visible(store: Store, number: int, version: int) -> bool:
    """Whether a document's version can be found; asserts that listing, words and vectors agree on all of its passages."""
    passages = {passage.id for passage in parts(number, version)[1]}
    by_words = {one for one, _ in store.matching(f"doc{number}v{version}", 50)}
    by_meaning = {one for part in range(PARTS) for one, similarity in store.nearest(vector(number, version, part), 2) if similarity > 0.999}
    text = parts(number, version)[0].text
    listed = any(document.id == identifier(number) and store.text(document.id) == text for document in store.documents())
    assert by_words == by_meaning == (passages if listed else set()), (number, version, len(by_words), len(by_meaning), listed)
    return listed


@contextmanager
def in_memory() -> Iterator[Path]:
    """A folder in memory where there is such a thing: thousands of transactions wait long for a disk."""
    with TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None, prefix="citewell-") as folder:
        yield Path(folder)


# A writer that is killed again and again


def states(log: str) -> dict[int, set[int]]:
    """What may be visible of each document after a log: its versions, 0 for none. What was done is certain, what was begun may be or not."""
    found: dict[int, set[int]] = {}
    for line in log.splitlines():
        event, _, rest = line.partition(" ")
        for pair in rest.split() if event in ("begin", "done", "is") else ():
            number, version = map(int, pair.split(":"))
            found[number] = found.get(number, {0}) | {version} if event == "begin" else {version}
    return found


def asked_of_the_index(store: Store, found: dict[int, int], latest: int) -> None:
    """Asserts that a store that asks its index finds what that has still to learn, and nothing that is gone."""
    pending = {row[0] for row in store._database.rows("SELECT passage_id FROM pending")}
    compared, compare.COMPARED = compare.COMPARED, 0
    try:
        store._vectors.exact._size = (-1, False)
        for number, version in found.items():
            passages = [passage.id for passage in parts(number, version)[1]] if version else []
            for part, one in enumerate(passages):
                near = [identifier for identifier, similarity in store.nearest(vector(number, version, part), 2) if similarity > 0.999]
                # A graph now and then holds a vector that no search reaches.
                assert near == [one] or (one not in pending and near == []), (number, version, part)
            # What was there before or may have been.
            for gone in range(max(1, latest - 20), latest + 1):
                near = [one for one, similarity in store.nearest(vector(number, gone, 0), 2) if similarity > 0.999]
                assert gone == version or not near, (number, gone)
    finally:
        compare.COMPARED = compared
        store._vectors.exact._size = (-1, False)


def check(store: Store, log: str) -> dict[int, int]:
    """Asserts that a store holds what was acknowledged, wholly, and nothing else, each passage found by words and by vector; returns the versions."""
    there = {document.id: store.document_file(document.id)[2] for document in store.documents()}
    found = {}
    for number, allowed in states(log).items():
        _, _, version = there.pop(identifier(number), "0.0").partition(".")
        assert int(version) in allowed, f"document {number} is {version} and should be one of {allowed}"
        for one in {*allowed, int(version)} - {0}:
            assert visible(store, number, one) is (one == int(version)), f"document {number}: version {one}"
        found[number] = int(version)
    assert not there, f"{there} were never put"
    assert store.passage_count() == PARTS * len(store.documents())
    return found


def _work(folder: Path, log_file: Path, seed: int, opening_alone: bool) -> None:
    """Opens, checks, and then puts, replaces, removes, rebuilds and opens again until it is killed. Each step is noted before and after it."""
    log = os.open(log_file, os.O_WRONLY | os.O_APPEND)

    def note(line: str) -> None:
        os.write(log, f"{line}\n".encode())

    chance = random.Random(seed)
    if opening_alone and chance.random() < 0.5:
        # Without a seal it is probed, without a folder rebuilt.
        for path in folder.glob("chroma-*"):
            shutil.rmtree(path)
    started = time.monotonic()
    store = Store(folder, "writer@1")
    opening = time.monotonic() - started
    if opening_alone:
        time.sleep(60)
    known = log_file.read_text()
    found = check(store, known)
    assert store.wait_for_index(60) == "ready"
    ready = time.monotonic() - started
    latest = max((version for versions in states(known).values() for version in versions), default=0)
    untold = len(store._database.rows("SELECT * FROM pending")) if store._vectors._grown() else 0
    asked_of_the_index(store, found, latest)
    assert indexed(store), "the vector index holds something else than the store"
    assert check(store, known) == found
    assert not store.notices(), store.notices()
    for number, version in found.items():
        note(f"is {number}:{version}")
    note(f"untold {untold}")
    note(f"checked {opening:.3f} {ready:.3f}")
    while True:
        latest += 1
        step = chance.choice(["put", "put", "many", "remove", "rebuild", "tidy", "open"])
        number = chance.randrange(12)
        if step == "put":
            note(f"begin {number}:{latest}")
            put(store, number, latest)
            note(f"done {number}:{latest}")
        elif step == "many":
            steps = " ".join(f"{one}:{latest}" for one in range(number, number + 3))
            made = [parts(one, latest) for one in range(number, number + 3)]
            note(f"begin {steps}")
            store.put_many(
                [Entry(document, ROOT, passages, keys) for document, passages, keys, _ in made],
                {key: row for _, _, keys, rows in made for key, row in zip(keys, rows, strict=True)},
            )
            note(f"done {steps}")
        elif step == "remove":
            note(f"begin {number}:0")
            store.remove_many([identifier(number)])
            note(f"done {number}:0")
        elif step == "rebuild" and chance.random() < 0.2 and store._index is not None and store._index._current is not None:
            store._index._broken(store._index._current, IndexBroken("for the test"))
        elif step == "tidy":
            store.finish_sync(ROOT)
        elif step == "open" and chance.random() < 0.3:
            store.close()
            store = Store(folder, "writer@1")


def _merged_here(what: str, values: Sequence[str], *_: object) -> tuple[str, str]:
    source, target, truth, last = values
    return "", index_worker.merge(Path(source), Path(target), Path(truth), int(last))


def main(folder: Path, log_file: Path, kills: int) -> None:
    """Kills a writer so often, each time at another moment; every kill is followed by one that opens the store and checks it."""
    import chromadb  # noqa: F401 - once, not once a fork

    logging.disable(logging.CRITICAL)
    # So small that building an index takes several steps and writes its files, as that of a large store does.
    index_worker.UNWRITTEN, index_worker.WRITTEN_EVERY, index_worker.STEP = 15, 15, 10
    compare.SCANNED, compare.OUTDATED = 50, 10
    # And so that one in two is large enough to be merged into and not built anew, in this very process, which is killed in the middle of it.
    vectors.MERGED_FROM = 18
    vectors.in_child = _merged_here
    log_file.touch()
    chance = random.Random(5)
    with probe_server.serving() as address:
        vectors.probe = probe_server.ask(address)
        for kill in range(kills + 1):
            last = kill == kills
            opening_alone = not last and chance.random() < 0.25
            size = log_file.stat().st_size
            child = os.fork()
            if child == 0:
                try:
                    _work(folder, log_file, kill, opening_alone)
                except BaseException:
                    with log_file.open("a") as log:
                        log.write(f"wrong {traceback.format_exc()}\n")
                finally:
                    os._exit(1)
            while not opening_alone and b"\nchecked" not in b"\n" + log_file.read_bytes()[size:] and os.waitpid(child, os.WNOHANG) == (0, 0):
                time.sleep(0.002)
            time.sleep(chance.uniform(0.0, 0.2))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            assert os.WIFSIGNALED(status), f"the writer ended by itself: {log_file.read_text()[-3_000:]}"
            with log_file.open("a") as log:
                log.write(f"killed {'while opening' if opening_alone else ''}\n")


def report(log: str) -> tuple[int, int, float, float]:
    """Of a log: how often the writer was killed and the store checked afterwards, and the longest it took to open and to be ready."""
    checked = [tuple(map(float, line.split()[1:])) for line in log.splitlines() if line.startswith("checked")]
    kills = sum(line.startswith("killed") for line in log.splitlines())
    return kills, len(checked), max(opening for opening, _ in checked), max(ready for _, ready in checked)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
    sys.stdout.write("{} kills, {} checks; opened within {:.2f} s, index ready within {:.2f} s\n".format(*report(Path(sys.argv[2]).read_text())))
