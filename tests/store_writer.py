"""Documents whose words and vectors tell number and version, and a process that writes them until it is killed. For test_store.py."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.split import passage_id
from index.store import Store
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


def put(store: Store, number: int, version: int = 1) -> None:
    document, passages, keys, vectors = parts(number, version)
    store.put(document, ROOT, passages, keys, vectors)


def visible(store: Store, number: int, version: int) -> bool:
    """Whether a document's version can be found; asserts that listing, words and vectors agree on all of its passages."""
    passages = {passage.id for passage in parts(number, version)[1]}
    by_words = {one for one, _ in store.matching(f"doc{number}v{version}", 50)}
    by_meaning = {one for part in range(PARTS) for one, similarity in store.nearest(vector(number, version, part), 2) if similarity > 0.999}
    text = parts(number, version)[0].text
    listed = any(document.id == identifier(number) and store.text(document.id) == text for document in store.documents())
    assert by_words == by_meaning == (passages if listed else set()), (number, version, len(by_words), len(by_meaning), listed)
    return listed


def _write_for_ever(folder: Path, log: int) -> None:
    """Puts, replaces and removes; each step is noted in `log` before it begins and after it is done."""
    store = Store(folder, "writer@1")
    number = 1_000 * os.getpid()
    while True:
        number += 1
        for step in ("put 1", "put 2", "remove 0") if number % 3 == 0 else ("put 1",):
            os.write(log, f"begin {number} {step}\n".encode())
            if step == "remove 0":
                store.remove(identifier(number))
            else:
                put(store, number, int(step[-1]))
            os.write(log, f"done {number} {step}\n".encode())


def main(folder: Path, log_file: Path, kills: int) -> None:
    import chromadb  # noqa: F401 - once, not once a fork

    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    chance = random.Random(5)
    for _ in range(kills):
        size = os.fstat(log).st_size
        child = os.fork()
        if child == 0:
            try:
                _write_for_ever(folder, log)
            finally:
                os._exit(1)
        while os.fstat(log).st_size == size and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.01)
        time.sleep(chance.uniform(0.0, 0.8))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the writer ended by itself"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
