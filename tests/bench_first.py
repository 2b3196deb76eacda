"""How fast a folder comes in for the first time: beside LlamaIndex, beside txtai, and beside the embedding session alone.

usage: python tests/bench_first.py [--sets chunk-spans product-docs musique] [--characters 60000 | --all] [--rounds 5] [--sides citewell limit]

Each document of a public question set (CITEWELL_BENCH or ../shared/bench) is a text file. All sides take turns, each step a process of its own, whose
clock starts when the embedding model is loaded and the store is open (how long that takes stands apart); the disk is warm.

`citewell` is Assistant.sync(). `limit` runs the same ONNX session on the same batches, tokenized and looked up beforehand, on as many threads: nothing
is read, split, tokenized, scaled or stored. `llamaindex` is VectorStoreIndex.from_documents() with SimpleDirectoryReader, SentenceSplitter (chunks about as
long as our passages), HuggingFaceEmbedding and ChromaVectorStore. `txtai` (installed by whoever wants it; left out where it is not) indexes and saves
our passages, which it is given, so that it neither reads nor splits. Both peers run the same weights in their own way, in batches of --batch.

Beside seconds stands processor time, of child processes too: other work on the machine makes less of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from bench_sync import RIVAL_CHUNK_TOKENS, ROOT, write

BENCH = Path(os.environ.get("CITEWELL_BENCH", ROOT.parent / "shared" / "bench")).absolute()
SETS = ("chunk-spans", "product-docs", "musique")
CHARACTERS = 60_000
"""Of each set, unless all is wanted: some seconds' work of ours."""

BATCH = 32
"""Of the peers."""

BATCHES, PASSAGES = "batches.npz", "passages.json"
"""What the first, unmeasured run of ours leaves for `limit` and for `txtai`."""

Figures = dict[str, Any]


def make_files(folder: Path, name: str, characters: int | None) -> None:
    """Writes a set's documents, one a file: all, or a seeded choice that comes to so many characters."""
    entries = [json.loads(line) for line in (BENCH / name / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = [f"{entry['title']}\n\n{entry['text']}\n" for entry in entries]
    order = list(range(len(texts)))
    if characters is not None:
        random.Random(6).shuffle(order)
    written = 0
    for number in order:
        if characters is not None and written >= characters:
            break
        # Of a set of few long documents the first part of one stands for it.
        text = texts[number] if characters is None else texts[number][: max(10_000, characters - written)]
        write(folder / f"{number % 20:02d}" / f"document-{number}.txt", text)
        written += len(text)


@contextmanager
def clocked(figures: Figures) -> Iterator[None]:
    """Notes seconds and processor seconds of what is done inside."""

    def processor() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in used)

    before, began = processor(), time.perf_counter()
    yield
    figures["seconds"] = time.perf_counter() - began
    figures["processor"] = processor() - before


def run_citewell(folder: Path, data: Path, batch: int, record: bool = False) -> Figures:
    """One first sync, with the processor seconds of its parts. With `record`, leaves batches and passages in the folder above `data`."""
    from index import bert, parse, vectors
    from index.sync import context
    from rag import Settings, open_assistant

    parts: dict[str, float] = defaultdict(float)

    def timed(part: str, function: Callable[..., Any], clock: Callable[[], float] = time.thread_time) -> Callable[..., Any]:
        @wraps(function)
        def measured(*given: Any, **named: Any) -> Any:
            began = clock()
            try:
                return function(*given, **named)
            finally:
                parts[part] += clock() - began

        return measured

    figures: Figures = {}
    began = time.perf_counter()
    with open_assistant(Settings(data_dir=data, model="none")) as assistant:
        assistant.store.wait_for_index(60)
        assistant.embedder.embed(["warm"] * 8)
        figures["loading"] = time.perf_counter() - began
        ids: list[Any] = []
        if record:
            look_up = bert.token_vectors
            bert.token_vectors = lambda weights, tokens: (ids.append(tokens), look_up(weights, tokens))[1]
        else:
            session, tokenizer = assistant.embedder._session, assistant.embedder._tokenizer
            assistant.embedder._session = Measured(session, run=timed("session", session.run))
            assistant.embedder._tokenizer = Measured(tokenizer, encode_batch_fast=timed("tokens", tokenizer.encode_batch_fast))
            bert.token_vectors = timed("tokens", bert.token_vectors)
            changed = assistant.store._changed  # in a thread of its own, and so is what is counted
            assistant.store._changed = lambda change: changed(timed("SQLite", change))
            parse.Parser.parse = timed("asking readers", parse.Parser.parse)
            # Chroma works in threads of its own, so seconds are counted.
            vectors.VectorIndex.catch_up = timed("Chroma", vectors.VectorIndex.catch_up, time.perf_counter)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        with clocked(figures):
            began = time.perf_counter()
            report = assistant.sync(folder)
        assert not report.rejected, report.rejected
        while assistant.store._database.rows("SELECT 1 FROM pending LIMIT 1"):
            time.sleep(0.005)
        figures["learned"] = time.perf_counter() - began  # Chroma learns of a small store in the background, when all is found already
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        parts["readers"] = ended.ru_utime + ended.ru_stime - children.ru_utime - children.ru_stime
        figures |= {"passages": assistant.store.passage_count(), "parts": parts}
        if record:
            np.savez(data.parent / BATCHES, *ids)
            passages = [
                context(assistant.store.document(one.document_id), one)
                for document in assistant.store.documents()
                for one in assistant.store.passages(
                    [row[0] for row in assistant.store._database.rows("SELECT id FROM passages WHERE document_id = ?", (document.id,))]
                ).values()
            ]
            (data.parent / PASSAGES).write_text(json.dumps(passages), encoding="utf-8")
    return figures


class Measured:
    """Something of which some methods are replaced."""

    def __init__(self, behind: Any, **methods: Callable[..., Any]) -> None:
        self.__dict__.update(methods, behind=behind)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.behind, name)


def run_limit(folder: Path, data: Path, batch: int) -> Figures:
    """The session on the recorded batches, in their order, on as many threads as the embedder has."""
    from index import bert
    from index.embed import QuantizedEmbedder

    figures: Figures = {}
    began = time.perf_counter()
    embedder = QuantizedEmbedder()
    embedder.embed(["warm"] * 8)
    figures["loading"] = time.perf_counter() - began
    with np.load(data.parent / BATCHES) as recorded:
        ids = [recorded[name] for name in recorded.files]
    # The tokenizer's padding is 0, and no text holds it.
    fed = [{"token_vectors": bert.token_vectors(embedder._weights, one), "attention_mask": (one != 0).astype(np.int32)} for one in ids]
    with ThreadPoolExecutor(embedder._workers._max_workers) as workers, clocked(figures):
        list(workers.map(lambda one: embedder._session.run(None, one), fed))
    # As many passages as ours, of which those that repeat are embedded once.
    return figures | {"passages": len(json.loads((data.parent / PASSAGES).read_text(encoding="utf-8")))}


def run_llamaindex(folder: Path, data: Path, batch: int) -> Figures:
    """Reading, splitting, embedding and storing by LlamaIndex."""
    import chromadb
    from llama_index.core import SimpleDirectoryReader, StorageContext, VectorStoreIndex
    from llama_index.core.node_parser import SentenceSplitter
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding
    from llama_index.vector_stores.chroma import ChromaVectorStore

    from index.embed import SentenceTransformerEmbedder

    figures: Figures = {}
    began = time.perf_counter()
    model = HuggingFaceEmbedding(model_name=str(SentenceTransformerEmbedder()._folder), embed_batch_size=batch, device="cpu")
    model.get_text_embedding("warm")
    settings = chromadb.config.Settings(anonymized_telemetry=False)
    collection = chromadb.PersistentClient(str(data), settings=settings).get_or_create_collection("rival", embedding_function=None)
    storage = StorageContext.from_defaults(vector_store=ChromaVectorStore(chroma_collection=collection))
    splitter = SentenceSplitter(chunk_size=RIVAL_CHUNK_TOKENS, chunk_overlap=0)
    figures["loading"] = time.perf_counter() - began
    with clocked(figures):
        # With its own metadata (paths and dates) it would embed more text.
        reader = SimpleDirectoryReader(str(folder), recursive=True, file_metadata=lambda path: {"file_name": Path(path).name})
        VectorStoreIndex.from_documents(reader.load_data(), storage_context=storage, transformations=[splitter], embed_model=model)
    return figures | {"passages": collection.count()}


def run_txtai(folder: Path, data: Path, batch: int) -> Figures:
    """Embedding and storing by txtai, of passages that are there."""
    from txtai import Embeddings

    from index.embed import SentenceTransformerEmbedder

    passages = json.loads((data.parent / PASSAGES).read_text(encoding="utf-8"))
    figures: Figures = {}
    began = time.perf_counter()
    model = str(SentenceTransformerEmbedder()._folder)
    embeddings = Embeddings(path=model, content=True, method="sentence-transformers", encodebatch=batch, gpu=False)
    embeddings.batchtransform(["warm"])
    figures["loading"] = time.perf_counter() - began
    with clocked(figures):
        embeddings.index([(number, text, None) for number, text in enumerate(passages)])
        embeddings.save(str(data))
    return figures | {"passages": embeddings.count()}


SIDES: dict[str, Callable[[Path, Path, int], Figures]] = {
    "citewell": run_citewell,
    "limit": run_limit,
    "llamaindex": run_llamaindex,
    "txtai": run_txtai,
}


def in_child(who: str, folder: Path, data: Path, batch: int) -> Figures:
    """One run of one side in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", who, str(folder), str(data), str(batch)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", "TOKENIZERS_PARALLELISM": "false"},
    )
    if done.returncode:
        raise SystemExit(f"{who} failed with {done.returncode}:\n{done.stderr[-3000:]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def measured(name: str, characters: int | None, rounds: int, batch: int, sides: Sequence[str]) -> dict[str, list[Figures]]:
    """The sides on one set, by turns: a list of rounds each."""
    rows: dict[str, list[Figures]] = defaultdict(list)
    sides = [who for who in sides if who != "txtai" or find_spec("txtai")]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "files")
        make_files(folder, name, characters)
        size = sum(len(path.read_text(encoding="utf-8")) for path in folder.rglob("*.txt"))
        in_child("record", folder, Path(scratch, "record"), batch)
        draw = random.Random(8)
        for number in range(rounds):
            # In another order each time: a machine that others share may not be as fast after half a minute of one side as after another's.
            for who in draw.sample(sides, len(sides)):
                figures = in_child(who, folder, Path(scratch, f"{who}-{number}"), batch)
                rows[who].append({**figures, "characters": size})
                print(json.dumps({"set": name, "side": who, "load": os.getloadavg()[0], **rows[who][-1]}), file=sys.stderr, flush=True)
    return rows


def table(name: str, rows: dict[str, list[Figures]]) -> str:
    """One set as Markdown: medians, and the ratios that are wanted."""

    def middle(who: str, what: str) -> float:
        return median(row[what] for row in rows[who])

    def ratio(other: str, what: str = "passages", by: str = "seconds") -> float:
        """Ours over theirs, round by round."""
        pairs = zip(rows["citewell"], rows[other], strict=True)
        return median((ours[what] / ours[by]) / (theirs[what] / theirs[by]) for ours, theirs in pairs)

    lines = [
        f"{name}: {rows['citewell'][0]['characters']:,} characters, {len(rows['citewell'])} rounds\n",
        "| | passages | seconds | passages/s | characters/s | processor seconds | loading, apart | ours over it: passages/s | characters/s | passages per processor second |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for who in rows:
        count, seconds = rows[who][0]["passages"], middle(who, "seconds")
        ratios = (
            ["", "", ""] if who == "citewell" else [f"{value:.2f}" for value in (ratio(who), ratio(who, "characters"), ratio(who, by="processor"))]
        )
        whole = [who, f"{count:,}", f"{seconds:.2f}", f"{count / seconds:.1f}", f"{rows[who][0]['characters'] / seconds:,.0f}"]
        apart = [f"{middle(who, what):.2f}" for what in ("processor", "loading")]
        lines.append(f"| {' | '.join([*whole, *apart, *ratios])} |")
    for who in [one for one in rows if one != "citewell"]:
        pairs = zip(rows["citewell"], rows[who], strict=True)
        until = median((ours["passages"] / ours["learned"]) / (theirs["passages"] / theirs["seconds"]) for ours, theirs in pairs)
        lines.append(f"\nOver {who} until Chroma has learned all too, which it does after the sync has ended: {until:.2f} in passages/s.")
    parts = sorted({part for row in rows["citewell"] for part in row["parts"]})
    share = {part: median(row["parts"].get(part, 0.0) for row in rows["citewell"]) for part in parts}
    lines.append(
        f"\nOurs, processor seconds: {', '.join(f'{part} {seconds:.2f}' for part, seconds in sorted(share.items(), key=lambda one: -one[1]))}."
    )
    return "\n".join(lines)


def report(sets: Sequence[str], characters: int | None, rounds: int, batch: int, sides: Sequence[str] = tuple(SIDES)) -> None:
    """Measures and prints one table a set."""
    for name in sets:
        if not (BENCH / name / "corpus.jsonl").exists():
            print(f"{name} is not below {BENCH}: set CITEWELL_BENCH to the folder of public question sets.")
            continue
        print(table(name, measured(name, characters, rounds, batch, sides)), flush=True)
        print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--characters", type=int, default=CHARACTERS, help="of each set, a seeded choice of documents of so many characters")
    parser.add_argument("--all", action="store_true", help="all documents")
    parser.add_argument("--sides", nargs="+", default=tuple(SIDES), choices=tuple(SIDES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=BATCH, help="texts that the peers embed at a time")
    parser.add_argument("--child", nargs=4, metavar=("WHO", "FOLDER", "DATA", "BATCH"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        who, folder, data, batch = chosen.child
        if who == "record":
            figures = run_citewell(Path(folder), Path(data), int(batch), record=True)
        else:
            figures = SIDES[who](Path(folder), Path(data), int(batch))
        print(json.dumps(figures))
        return
    print(f"{date.today()}  {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}\n")
    report(chosen.sets, None if chosen.all else chosen.characters, chosen.rounds, chosen.batch, chosen.sides)


if __name__ == "__main__":
    main()
