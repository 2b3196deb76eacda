"""What a shared store takes and how fast it answers, with a PostgreSQL and a `chroma run` of its own: `python tests/bench_shared.py 10000 50000`.

Real text repeated with variations, vectors of random directions around as many centres as there are texts. Prints a table of Markdown; see docs/scale.md.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import servers
from conftest import BENCH

from index import shared_vectors
from index.chroma_server import ChromaAddress
from index.postgres import PostgresStore
from index.schema import Entry
from index.split import passage_id
from index.types import Document, Passage, Span
from rag.settings import SEEDS

DIMENSION, PASSAGES, WORDS, VARIED = 384, 10, 75, 0.25
"""Of the default model; in a document; in a passage; the share of words that a repetition changes."""

QUESTIONS = 200


def texts() -> list[list[str]]:
    """Runs of words of the public corpora, or of the seeds where those are not."""
    whole = [json.loads(line)["text"] for path in sorted(BENCH.glob("*/corpus.jsonl")) for line in path.open(encoding="utf-8")]
    whole = whole or [path.read_text(encoding="utf-8") for path in sorted(SEEDS.glob("*.md"))]
    return [words[start : start + WORDS] for words in map(str.split, whole) for start in range(0, len(words), WORDS)]


class Corpus:
    """Documents by number, always the same."""

    def __init__(self) -> None:
        self._base = texts()
        self._words = [word for text in self._base for word in text]
        self._centres = np.random.default_rng(1).normal(size=(len(self._base), DIMENSION)).astype(np.float32)

    def passage(self, number: int) -> str:
        words = list(self._base[number % len(self._base)])
        if number >= len(self._base):
            chance = random.Random(number)
            words = [chance.choice(self._words) if chance.random() < VARIED else word for word in words]
        return f"{' '.join(words)} v{number}."

    def vector(self, number: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        made = self._centres[number % len(self._base)] + 0.7 * np.random.default_rng(number).normal(size=DIMENSION).astype(np.float32)
        return np.asarray(made / np.linalg.norm(made), dtype=np.float32)

    def question(self, number: int) -> str:
        chance = random.Random(f"question {number}")
        words = self._base[chance.randrange(len(self._base))]
        start = chance.randrange(max(1, len(words) - 12))
        return " ".join(words[start : start + 12])

    def entry(self, number: int) -> tuple[Entry, dict[bytes, np.ndarray[tuple[int], np.dtype[np.float32]]]]:
        name, parts, offset = f"{number}.txt", [], 0
        for place in range(number * PASSAGES, (number + 1) * PASSAGES):
            parts.append(self.passage(place))
        document = Document(f"id{number}", name, f"Document {number}", "\n".join(parts), f"f{number}")
        passages, keys = [], []
        for place, text in enumerate(parts):
            span = Span(offset, offset + len(text))
            offset = span.end + 1
            passages.append(Passage(passage_id(document.id, span, text), document.id, name, document.title, "", span, text))
            keys.append((number * PASSAGES + place).to_bytes(16))
        return Entry(document, "/bench", passages, keys), {key: self.vector(int.from_bytes(key)) for key in keys}


def timed(work: Callable[[int], object], count: int = QUESTIONS) -> str:
    for number in range(10):
        work(count + number)
    spent = []
    for number in range(count):
        begun = time.perf_counter()
        work(number)
        spent.append(1_000 * (time.perf_counter() - begun))
    spent.sort()
    return f"{statistics.median(spent):.1f} / {spent[int(0.95 * count)]:.1f}"


def memory_of(process: int) -> float:
    """Megabytes that a process holds now."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1_000 for line in lines if line.startswith("VmRSS"))


def disk_of(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def sizes(store: PostgresStore) -> dict[str, int]:
    """Bytes by table, with indexes and what lies beside it."""
    store._database.rows("SELECT 1")
    rows = store._database.rows(
        "SELECT relname, pg_total_relation_size(c.oid)::bigint FROM pg_class c WHERE relkind = 'r' AND relnamespace = 'citewell'::regnamespace"
    )
    return {name: size for name, size in rows if size > 100_000}


def main(steps: list[int]) -> None:
    corpus = Corpus()
    with servers.postgres() as (url, _), servers.chroma() as (chroma, chroma_process):
        folder = Path(chroma_process.folder)
        store = PostgresStore(folder / "data", url, ChromaAddress(chroma), "bench@1")
        assert store.wait_for_index(60) == "ready"
        empty = memory_of(chroma_process.process.pid)
        done = 0
        for step in steps:
            begun = time.perf_counter()
            while done < step // PASSAGES:
                made = [corpus.entry(number) for number in range(done, min(done + 12, step // PASSAGES))]
                store.put_many([entry for entry, _ in made], {key: row for _, rows in made for key, row in rows.items()})
                done += len(made)
            stored = time.perf_counter() - begun
            while store._database.rows("SELECT 1 FROM pending WHERE unreached IS NULL LIMIT 1"):
                time.sleep(0.1)
            told = time.perf_counter() - begun
            store.finish_sync("/bench")
            with store._database.session() as connection:
                connection.execute("VACUUM ANALYZE")
            held = sizes(store)
            sys.stdout.write(f"## {step} passages\nstored {stored:.1f} s, Chroma told after {told:.1f} s\n")
            for name, size in sorted(held.items(), key=lambda pair: -pair[1]):
                sys.stdout.write(f"{name}: {size / step:.0f} bytes a passage\n")
            sys.stdout.write(f"PostgreSQL: {sum(held.values()) / step:.0f} bytes a passage\n")
            sys.stdout.write(
                f"Chroma: {memory_of(chroma_process.process.pid):.0f} MB of memory (empty {empty:.0f}), {disk_of(folder / 'chroma'):.0f} MB on the disk\n"
            )
            shared_vectors.COMPARED = 0
            sys.stdout.write(f"words: {timed(lambda number: store.matching(corpus.question(number), 100))} ms (median / p95)\n")
            sys.stdout.write(f"meaning, by Chroma: {timed(lambda number: store.nearest(corpus.vector(10**9 + number), 100))} ms\n")
            sys.stdout.write(
                f"meaning, of a user's documents: {timed(lambda number: store.nearest(corpus.vector(10**9 + number), 100, None, 'ann'))} ms\n"
            )
            sys.stdout.write(f"a document put: {timed(lambda number: store.put_many(*one(corpus.entry(number))), 50)} ms\n")
            sys.stdout.flush()
        sys.stdout.write(f"this process: {memory_of(os.getpid()):.0f} MB\n")
        store.close()


def one(
    made: tuple[Entry, dict[bytes, np.ndarray[tuple[int], np.dtype[np.float32]]]],
) -> tuple[list[Entry], dict[bytes, np.ndarray[tuple[int], np.dtype[np.float32]]]]:
    return [made[0]], made[1]


if __name__ == "__main__":
    main([int(step) for step in sys.argv[1:]] or [10_000, 50_000])
