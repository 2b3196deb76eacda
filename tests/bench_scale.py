"""How search, opening and memory grow with the store: Markdown tables, and docs/growth.svg.

usage: python tests/bench_scale.py [--passages 100000] [--questions 200] [--rewritten 100000] [--stores FOLDER] [--plot docs/growth.svg]

Stores of 1,000, 10,000, 100,000 and --passages passages are made by way of Store.put_many, as a sync makes them, and kept in --stores, so that a second run
builds none again. Their text is that of the seeds and of the public question sets in CITEWELL_BENCH or ../shared/bench, repeated: the first copy as it is,
each further one with a sixth of its words exchanged for others of the same texts, drawn as often as they occur, and some for invented ones, as real
collections grow in words too. A copy's vector is the passage's real one plus noise (cosine about .85). Questions are those of the public sets, else
sentences of the seeds. Each store is measured in a process of its own, by way of Assistant.search and the evidence event, each question once and embedded
alone just before. At last --rewritten passages of a copy of the largest store are removed and added again by another thread, as a sync does, and new
files are read and embedded, while questions are asked, none of whose texts is remembered.
"""

from __future__ import annotations

import argparse
import bisect
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SIZES = (1_000, 10_000, 100_000)
SETS = ("chunk-spans", "product-docs", "musique", "hotpotqa", "clapnq", "conflicts", "multi-turn")
NOISE = 0.62
EXCHANGED, INVENTED = 1 / 6, 1 / 60
PASSAGES_OF_A_DOCUMENT = 8
DOCUMENTS_AT_ONCE = 64
TURN = 10
"""So many questions are asked of one store before the other's turn."""

FRESH = 150
"""Files that are new, of 8 passages each: some ten seconds of embedding."""
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
FOLDER = "/bench"


# Making stores


def corpora() -> Iterator[tuple[str, str]]:
    """Titles and texts of the seeds and of the public question sets, where they are."""
    for path in sorted((ROOT / "seeds").glob("*.md")):
        yield path.stem, path.read_text(encoding="utf-8")
    for name in SETS:
        corpus = bench() / name / "corpus.jsonl"
        for line in corpus.read_text(encoding="utf-8").splitlines() if corpus.exists() else ():
            document = json.loads(line)
            yield document["title"], document["text"]


def bench() -> Path:
    return Path(os.environ.get("CITEWELL_BENCH", ROOT.parent / "shared" / "bench"))


def questions(wanted: int) -> list[str]:
    """Different questions from all the sets that are there, else sentences of the seeds, in a seeded order."""
    found = [
        json.loads(line)["question"]
        for name in SETS
        if (bench() / name / "questions.jsonl").exists()
        for line in (bench() / name / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    if not found:
        from index.split import sentences

        found = [text[span.start : span.end] for _, text in corpora() for span in sentences(text)]
    found = [question for question in dict.fromkeys(found) if 15 <= len(question) <= 300]
    random.Random(5).shuffle(found)
    return found[:wanted]


class Material:
    """Documents by number, as many as are wanted, always the same; the real vectors are made once and kept in `folder`."""

    def __init__(self, folder: Path, embedder: Any) -> None:
        from index.split import split
        from index.sync import context
        from index.types import Document

        self.passages = [
            (title, context(document, passage), passage.text)
            for number, (title, text) in enumerate(corpora())
            for document in [Document(f"d{number}", f"{number}.txt", title, text, "")]
            for passage in split(document)
        ]
        random.Random(1).shuffle(self.passages)
        kept = folder / f"vectors-{len(self.passages)}.npy"
        if not kept.exists():
            say(f"embedding {len(self.passages):,} passages")
            np.save(kept, embedder.embed([text for _, text, _ in self.passages]))
        self.vectors = np.load(kept)
        occurring = Counter(word for _, _, text in self.passages for word in text.split())
        self.words, counts = list(occurring), list(accumulate(occurring.values()))
        self.drawn = [counts, counts[-1]]

    def _word(self, draw: random.Random) -> str:
        counts, total = self.drawn
        return self.words[bisect.bisect(counts, draw.random() * total)]

    def _varied(self, text: str, draw: random.Random) -> str:
        words = text.split(" ")
        for _ in range(int(len(words) * EXCHANGED)):
            words[draw.randrange(len(words))] = self._word(draw)
        for _ in range(max(1, int(len(words) * INVENTED))):
            # The square root of an even draw makes some of them frequent and most of them rare.
            rank = int(1 / max(draw.random(), 1e-6))
            words[draw.randrange(len(words))] = "".join(SYLLABLES[(rank * 7919 + place * 31 + rank // 70**place) % 70] for place in range(4))
        return " ".join(words)

    def entry(self, number: int) -> tuple[Any, dict[bytes, Any]]:
        """The document of this number as the store takes it, and its vectors."""
        from index.split import passage_id
        from index.store import Entry
        from index.sync import content_key
        from index.types import Document, Passage, Span

        draw, noise = random.Random(number), np.random.default_rng(number)
        first = number * PASSAGES_OF_A_DOCUMENT
        chosen = [divmod(one, len(self.passages)) for one in range(first, first + PASSAGES_OF_A_DOCUMENT)]
        title = f"{self.passages[chosen[0][1]][0]} {number}"
        parts, vectors = [], np.empty((len(chosen), self.vectors.shape[1]), dtype=np.float32)
        for place, (copy, base) in enumerate(chosen):
            text, vector = self.passages[base][2], self.vectors[base]
            if copy:
                text = self._varied(text, draw)
                step = noise.standard_normal(len(vector)).astype(np.float32)
                vector = vector + NOISE * step / np.linalg.norm(step)
            parts.append(text)
            vectors[place] = vector / np.linalg.norm(vector)
        source, whole = f"{number // 1000}/{number}.txt", "\n\n".join(parts)
        identifier = f"scale{number:08d}"
        document = Document(identifier, source, title, whole, f"{number:064x}", len(whole))
        passages, start = [], 0
        for part in parts:
            span = Span(start, start + len(part))
            passages.append(Passage(passage_id(identifier, span, part), identifier, source, title, "", span, part))
            start = span.end + 2
        keys = [content_key(f"{number} {place}") for place in range(len(parts))]
        return Entry(document, FOLDER, passages, keys, reader=1), dict(zip(keys, vectors, strict=True))


def put(store: Any, entries: Sequence[tuple[Any, dict[bytes, Any]]]) -> None:
    store.put_many([entry for entry, _ in entries], {key: vector for _, vectors in entries for key, vector in vectors.items()})


def groups(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(numbers), DOCUMENTS_AT_ONCE):
        yield numbers[start : start + DOCUMENTS_AT_ONCE]


def build(folder: Path, stores: Path, passages: int, embedder: Any) -> None:
    """Makes a store, or goes on where an earlier run was stopped; the seconds that it took stand beside it."""
    from index.store import Store

    made, note = folder / "built.json", folder / "building.json"
    if made.exists():
        return
    took = json.loads(note.read_text()) if note.exists() else {"storing": 0.0, "indexing": 0.0}
    material = Material(stores, embedder)
    documents = passages // PASSAGES_OF_A_DOCUMENT
    store = Store(folder / "store", embedder.identity)
    try:
        began = time.perf_counter()
        with store.many_changes():
            there = store.document_count()
            for group in groups(range(there, documents)):
                put(store, [material.entry(number) for number in group])
                took["storing"], began = took["storing"] + time.perf_counter() - began, time.perf_counter()
                note.write_text(json.dumps(took))
                if group[0] % 8192 == 0:
                    say(f"{group[0] * PASSAGES_OF_A_DOCUMENT:,} of {passages:,} passages stored")
            began = time.perf_counter()
            store.finish_sync(FOLDER)
        waited(store)
        took["indexing"] += time.perf_counter() - began
    finally:
        store.close()
    made.write_text(json.dumps(took))


def waited(store: Any) -> None:
    while store.wait_for_index(60) not in ("ready", "failed"):
        say(" ".join(store.notices()) or "the index is opening")
    if store.index_state != "ready":
        raise SystemExit("The vector index could not be built; the log above says why.")


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


# Measuring


def resident() -> float:
    """Megabytes of memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def percentile(values: Sequence[float], part: float) -> float:
    return float(np.percentile(values, 100 * part)) if values else float("nan")


class Clock:
    """Adds up the milliseconds that calls take, by name, until they are taken."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                self.spent[name] += 1000 * (time.perf_counter() - began)

        return timed

    def taken(self) -> dict[str, float]:
        spent, self.spent = dict(self.spent), defaultdict(float)
        return spent


def opened(folder: Path) -> tuple[Any, dict[str, float]]:
    """An assistant over the store with its embedder loaded, and the seconds until words and until vectors answered."""
    from rag import Settings, open_assistant
    from rag.assistant import Assistant

    settings = Settings(data_dir=folder, model="none")
    with tempfile.TemporaryDirectory() as scratch, open_assistant(Settings(data_dir=Path(scratch), model="none")) as other:
        # Imports, the model and Chroma's own code are loaded by then: what is measured is the store.
        other.embedder.load()
        other.store.wait_for_index(30)
        vector = other.embedder.embed(["warm"])[0]
    before = resident()
    began = time.perf_counter()
    assistant: Assistant = open_assistant(settings)
    assistant.store.matching("weather report", 10)
    words = time.perf_counter() - began
    waited(assistant.store)
    assistant.store.nearest(vector, 10)
    return assistant, {"words_s": words, "vectors_s": time.perf_counter() - began, "before_mb": before}


def timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - began)


def measured(folder: Path, asked: Sequence[str]) -> dict[str, Any]:
    """Opening, memory, and the milliseconds of search and of its parts, of the evidence event, and of embedding the question alone."""
    assistant, figures = opened(folder)
    with assistant:
        store, embedder, clock = assistant.store, assistant.embedder, Clock()
        alone = embedder.embed
        for name in ("nearest", "nearest_each", "matching", "passages"):
            if hasattr(store, name):
                setattr(store, name, clock.around(name.partition("_")[0], getattr(store, name)))
        embedder.embed = clock.around("embed", alone)
        rows: list[dict[str, float]] = []
        for number, question in enumerate(asked):
            embedding = timed(lambda question=question: alone([question]))
            if number % 2:
                rows.append({"embedding": embedding, "evidence": timed(lambda question=question: next(assistant.stream(question)))})
                clock.taken()
            else:
                took = timed(lambda question=question: assistant.search(question))
                rows.append({"embedding": embedding, "search": took, **{f"in {name}": spent for name, spent in clock.taken().items()}})
        again = [timed(lambda question=question: assistant.search(question)) for question in asked[0:40:2]]
        figures["after_mb"] = resident()
        figures["passages"] = store.passage_count()
        figures["recall"] = recall(store, alone(asked[:200]))
    counted = rows[10:]  # the first ones fill caches

    def of(name: str) -> list[float]:
        return [row[name] for row in counted if name in row]

    for name in sorted({name for row in counted for name in row}):
        figures[f"{name} p50"], figures[f"{name} p95"] = statistics.median(of(name)), percentile(of(name), 0.95)
    for name in ("search", "evidence"):
        more = [row[name] - row["embedding"] for row in counted if name in row]
        figures[f"{name} beside p50"], figures[f"{name} beside p95"] = statistics.median(more), percentile(more, 0.95)
    figures["asked again p50"] = statistics.median(again)
    figures["sqlite_mb"] = (folder / "citewell.sqlite3").stat().st_size / 1e6
    figures["chroma_mb"] = sum(path.stat().st_size for path in folder.glob("chroma-*/**/*") if path.is_file()) / 1e6
    return figures


def by_turns(small: Path, large: Path, asked: Sequence[str]) -> dict[str, Any]:
    """The milliseconds of search in two stores, some questions in the one and the same ones in the other: the machine's pace is the same for both."""
    took: dict[str, list[float]] = {"small": [], "large": []}
    beside: list[float] = []
    with opened(large)[0] as full, opened(small)[0] as little:
        for start in range(0, len(asked), TURN):
            for name, assistant in (("small", little), ("large", full)):
                for question in asked[start : start + TURN]:
                    embedding = timed(lambda question=question, assistant=assistant: assistant.embedder.embed([question]))
                    took[name].append(timed(lambda question=question, assistant=assistant: assistant.search(question)))
                    if name == "large":
                        beside.append(took[name][-1] - embedding)
    counted = {**{name: values[TURN:] for name, values in took.items()}, "large beside": beside[TURN:]}  # the first ones fill caches
    figures = {f"{name} p50": statistics.median(values) for name, values in counted.items()}
    return figures | {f"{name} p95": percentile(values, 0.95) for name, values in counted.items()}


def recall(store: Any, vectors: Any, count: int = 10) -> float:
    """The part of the nearest passages, all compared one by one, that the store finds: recall@10."""
    last, ids, scores = 0, np.empty((len(vectors), 0), dtype=object), np.empty((len(vectors), 0), dtype=np.float32)
    while rows := store._database.rows(
        "SELECT p.number, p.id, v.vector FROM passages p JOIN vectors v USING (content_key) WHERE p.number > ? ORDER BY p.number LIMIT 20000", (last,)
    ):
        last = rows[-1][0]
        matrix = np.frombuffer(b"".join(row[2] for row in rows), dtype=np.float32).reshape(len(rows), -1)
        scores = np.concatenate([scores, vectors @ matrix.T], axis=1)
        ids = np.concatenate([ids, np.tile(np.array([row[1] for row in rows], dtype=object), (len(vectors), 1))], axis=1)
        best = np.argsort(-scores, axis=1)[:, :count]
        scores, ids = np.take_along_axis(scores, best, axis=1), np.take_along_axis(ids, best, axis=1)
    found = [{one for one, _ in hits} for hits in store.nearest_each(vectors, count)]
    return float(np.mean([len(hits & set(exact)) / len(exact) for hits, exact in zip(found, ids, strict=True)]))


def rewriting(folder: Path, stores: Path, asked: Sequence[str], rewritten: int) -> dict[str, Any]:
    """Search idle (before and after), while a sync removes so many passages, while the next one adds them again, and while one reads and embeds files that are new."""
    assistant, _ = opened(folder)
    with assistant:
        store = assistant.store
        material = Material(stores, assistant.embedder)
        there = store.document_count()
        # Spread over the store, as a folder's documents are over what questions are near to.
        numbers = list(range(0, there, max(1, there * PASSAGES_OF_A_DOCUMENT // rewritten)))
        figures: dict[str, Any] = {"passages": store.passage_count(), "rewritten": len(numbers) * PASSAGES_OF_A_DOCUMENT}

        def removing() -> None:
            with store.many_changes():
                for group in groups(numbers):
                    store.remove_many([f"scale{number:08d}" for number in group])
                store.finish_sync(FOLDER)

        # Made beforehand: a sync has what it stores from child processes.
        made = [[material.entry(number) for number in group] for group in groups(numbers)]

        def adding() -> None:
            with store.many_changes():
                for entries in made:
                    put(store, entries)
                store.finish_sync(FOLDER)

        turn = 0

        def ask() -> float:
            nonlocal turn
            turn += 1
            question = asked[turn % len(asked)]
            assistant.remembered._vectors.clear()  # as for somebody who asks it first
            return timed(lambda: assistant.search(question))

        def embedding() -> None:
            report = assistant.sync(fresh)
            assert len(report.added) > 0.9 * FRESH, report  # of random words one text or other looks like binary data

        for _ in range(20):
            ask()
        idle = [ask() for _ in range(len(asked))]
        fresh = folder.parent / "fresh"
        fresh.mkdir()
        for number in range(there, there + FRESH):
            (fresh / f"{number}.txt").write_text(material.entry(number)[0].document.text, encoding="utf-8")
        for name, work in (("removing", removing), ("adding", adding), ("embedding", embedding)):
            took = []
            began = time.perf_counter()
            with ThreadPoolExecutor(1) as syncing:
                done = syncing.submit(work)
                while not done.done():
                    took.append(ask())
                    time.sleep(0.05)  # somebody reads before asking on
                done.result()
            figures[f"{name} s"] = time.perf_counter() - began
            figures[f"{name} p50"], figures[f"{name} p95"], figures[f"{name} most"] = statistics.median(took), percentile(took, 0.95), max(took)
            figures[f"{name} asked"] = len(took)
            say(json.dumps(figures))
        waited(store)
        while store._vectors._building.locked():  # searches are answered meanwhile, so waited() does not wait for it
            time.sleep(0.1)
        idle += [ask() for _ in range(len(asked))]  # again, as the machine's pace drifts within these minutes
        figures["idle p50"], figures["idle p95"] = statistics.median(idle), percentile(idle, 0.95)
        say(f"idle before / after, p95: {percentile(idle[: len(asked)], 0.95):.1f} / {percentile(idle[len(asked) :], 0.95):.1f} ms")
        store.remove_many([known.document_id for known in store.known(str(fresh.resolve())).values()])
        if store.passage_count() != figures["passages"] or store.index_state != "ready" or store.notices():
            raise SystemExit(f"The store is not what it was before: {store.passage_count()} passages, {store.index_state}, {store.notices()}")
        vectors = assistant.embedder.embed(asked[:200])
        figures["recall"] = recall(store, vectors)
        # Where questions were nearest a hundred documents are gone, of which the index has not been told.
        near = {one for hits in store.nearest_each(vectors, 1) for one, _ in hits}
        store.remove_many(sorted({passage.document_id for passage in store.passages(list(near)).values()})[:100])
        figures["untold"] = len(store._database.rows("SELECT 1 FROM pending"))
        figures["recall untold"] = recall(store, vectors)
    _, again = opened(folder)
    figures["opened again"] = again
    return figures


def in_child(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"},
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed with {done.returncode}; its error stands above.")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


# Telling


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The figures as Markdown, a column for each store."""
    lines = [
        ("opening, s: until words / vectors answer", lambda row: f"{row['words_s']:.2f} / {row['vectors_s']:.2f}"),
        ("memory of the store, MB / per 100,000 passages", lambda row: f"{row['after_mb'] - row['before_mb']:.0f} / {per_100_000(row):.0f}"),
        ("files, MB: SQLite / Chroma", lambda row: f"{row['sqlite_mb']:.0f} / {row['chroma_mb']:.0f}"),
        ("stored / indexed, passages a second", lambda row: f"{rate(row, 'storing')} / {rate(row, 'indexing')}"),
        ("embedding the question alone, ms", lambda row: both(row, "embedding")),
        ("search, ms", lambda row: both(row, "search")),
        ("search beside the embedding alone, ms", lambda row: both(row, "search beside")),
        ("question to evidence, ms", lambda row: both(row, "evidence")),
        ("question to evidence beside the embedding alone, ms", lambda row: both(row, "evidence beside")),
        ("recall@10 of the nearest against comparing all", lambda row: f"{row['recall']:.3f}"),
        ("the same question again, ms", lambda row: f"{row['asked again p50']:.1f}"),
        *((f"in search: {name}, ms", lambda row, name=name: both(row, f"in {name}")) for name in ("embed", "nearest", "matching", "passages")),
    ]
    sizes = " | ".join(f"{row['passages']:,}" for row in rows)
    return "\n".join(
        [
            f"| median / p95 | {sizes} |",
            f"|---|{'--:|' * len(rows)}",
            *(f"| {name} | {' | '.join(told(row) for row in rows)} |" for name, told in lines),
        ]
    )


def both(row: dict[str, Any], name: str) -> str:
    return f"{row.get(f'{name} p50', float('nan')):.1f} / {row.get(f'{name} p95', float('nan')):.1f}"


def rate(row: dict[str, Any], what: str) -> str:
    return f"{row['passages'] / row[what]:,.0f}" if row.get(what) else "?"


def per_100_000(row: dict[str, Any]) -> float:
    return float((row["after_mb"] - row["before_mb"]) * 100_000 / row["passages"])


def plot(rows: Sequence[dict[str, Any]]) -> str:
    """Search and its parts by number of passages as an SVG; the number grows tenfold a step, milliseconds evenly."""
    width, height, left, right, top, bottom = 760, 400, 60, 190, 30, 50
    curves = {
        "search, p95": ("search p95", "#b03060"),
        "search, median": ("search p50", "#205090"),
        "evidence, median": ("evidence p50", "#208050"),
        "the question's embedding, median": ("embedding p50", "#808080"),
    }
    most = 1.1 * max(row[name] for row in rows for name, _ in curves.values())
    low, high = np.log10(rows[0]["passages"]), np.log10(rows[-1]["passages"])

    def x(passages: float) -> float:
        return float(left + (np.log10(passages) - low) / max(high - low, 1e-9) * (width - left - right))

    def y(milliseconds: float) -> float:
        return height - bottom - milliseconds / most * (height - top - bottom)

    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if most / step <= 8)
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{left}" y="18">Milliseconds of a search, by passages in the store</text>',
    ]
    for number in range(int(most // step) + 1):
        line = y(number * step)
        drawn.append(
            f'<path d="M{left} {line:.1f}H{width - right}" stroke="#ddd"/><text x="{left - 8}" y="{line + 4:.1f}" text-anchor="end">{number * step}</text>'
        )
    drawn += [f'<text x="{x(row["passages"]):.1f}" y="{height - bottom + 18}" text-anchor="middle">{row["passages"]:,}</text>' for row in rows]
    # Where two curves end near each other, their names stand one below the other.
    ends = sorted((y(rows[-1][name]), label, name, colour) for label, (name, colour) in curves.items())
    below = -1e9
    for end, label, name, colour in ends:
        below = max(end, below + 15)
        points = " ".join(f"{x(row['passages']):.1f},{y(row[name]):.1f}" for row in rows)
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn.append(f'<text x="{width - right + 8}" y="{below + 4:.1f}" fill="{colour}">{label}</text>')
    return "\n".join([*drawn, "</svg>"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=100_000, help="passages of the largest store")
    parser.add_argument("--questions", type=int, default=400, help="questions that are asked of each store")
    parser.add_argument("--rewritten", type=int, default=100_000, help="passages that are removed and added again, 0 for none")
    parser.add_argument("--stores", type=Path, help="a folder in which the stores are kept for the next run")
    parser.add_argument("--plot", type=Path, help="where the plot of growth goes")
    parser.add_argument("--only", type=int, nargs="*", help="sizes to measure, in place of all")
    parser.add_argument("--child", nargs=2, metavar=("WHAT", "PASSAGES"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        what, passages = chosen.child[0], int(chosen.child[1])
        folder = chosen.stores / str(passages)
        if what == "build":
            from index.embed import open_embedder

            folder.mkdir(parents=True, exist_ok=True)
            build(folder, chosen.stores, passages, open_embedder())
            print("{}")
        elif what == "measure":
            print(json.dumps({**json.loads((folder / "built.json").read_text()), **measured(folder / "store", questions(chosen.questions))}))
        elif what == "turns":
            print(json.dumps(by_turns(chosen.stores / str(chosen.only[0]) / "store", folder / "store", questions(chosen.questions))))
        else:
            with tempfile.TemporaryDirectory(dir=chosen.stores) as scratch:
                shutil.copytree(folder / "store", Path(scratch, "store"))
                print(json.dumps(rewriting(Path(scratch, "store"), chosen.stores, questions(chosen.questions), chosen.rewritten)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        stores = (chosen.stores or Path(scratch)).absolute()
        stores.mkdir(parents=True, exist_ok=True)
        rest = ["--stores", str(stores), "--questions", str(chosen.questions), "--rewritten", str(chosen.rewritten)]
        rows = []
        for passages in chosen.only or sorted({*(size for size in SIZES if size < chosen.passages), chosen.passages}):
            passages -= passages % PASSAGES_OF_A_DOCUMENT
            in_child("--child", "build", str(passages), *rest)
            rows.append(in_child("--child", "measure", str(passages), *rest))
            say(json.dumps(rows[-1]))
        print(f"{date.today()}  {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {chosen.questions} questions\n")
        print(table(rows))
        if len(rows) > 1:
            turns = in_child("--child", "turns", str(rows[-1]["passages"]), "--only", str(rows[0]["passages"]), *rest)
            print(
                f"\nThe same questions by turns, {TURN} at a time, all of them for search, ms, median / p95: {rows[0]['passages']:,} passages {both(turns, 'small')}, "
                f"{rows[-1]['passages']:,} passages {both(turns, 'large')}, which is {turns['large p95'] / turns['small p95']:.2f} times the p95, "
                f"and beside the embedding {both(turns, 'large beside')}."
            )
        if chosen.plot:
            chosen.plot.write_text(plot(rows), encoding="utf-8")
        if chosen.rewritten:
            written = in_child("--child", "rewrite", str(rows[-1]["passages"]), *rest)
            print(
                f"\n{written['passages']:,} passages, {written['rewritten']:,} of them removed and added again. Search, ms, median / p95: idle {both(written, 'idle')}, ",
                end="",
            )
            print(
                f"while removing ({written['removing s']:.0f} s) {both(written, 'removing')}, while adding ({written['adding s']:.0f} s) {both(written, 'adding')}, "
                f"while {FRESH} new files are read and embedded ({written['embedding s']:.0f} s) {both(written, 'embedding')}."
            )
            print(
                f"recall@10 {written['recall']:.3f}, and {written['recall untold']:.3f} when the nearest of 100 documents were removed ({written['untold']} passages untold)."
            )
            print(f"Opened again afterwards: words {written['opened again']['words_s']:.2f} s, vectors {written['opened again']['vectors_s']:.2f} s.")


if __name__ == "__main__":
    main()
