"""How fast a folder is kept in sync, beside LlamaIndex's IngestionPipeline: a Markdown table of times, embeddings computed and peak memory.

usage: python tests/bench_sync.py [--files 10000] [--rival-files 1000] [--words 30 120]

Small text files (30 to 120 words unless told otherwise, from a fixed seed, of the seeds' sentences and those of the public question sets in CITEWELL_BENCH or
../shared/bench) are synced for the first time, again unchanged, with one in a hundred edited, and all renamed. Citewell and the pipeline take turns,
step by step, on --rival-files of them; then Citewell does --files alone, because the pipeline would take hours: compare rates. Every step is a process
of its own. Its clock starts after the imports, which would flatter us, and takes in opening what is stored and loading the embedding model.

The rival: SimpleDirectoryReader, SentenceSplitter with chunks the size of ours and no overlap, HuggingFaceEmbedding with the same weights,
ChromaVectorStore, SimpleDocumentStore with upserts and deletes, persisted after each step.
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
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RIVAL_CHUNK_TOKENS = 256
"""Makes the rival's chunks about as long as our passages, so that passages a second can be compared; the table gives characters a second too."""


def sentence_pool() -> list[str]:
    """Sentences to make files of: the seeds', and the public question sets' where they are."""
    from index.split import sentences

    texts = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "seeds").glob("*.md"))]
    bench = Path(os.environ.get("CITEWELL_BENCH", ROOT.parent / "shared" / "bench"))
    for name in ("musique", "product-docs", "chunk-spans"):
        corpus = bench / name / "corpus.jsonl"
        if corpus.exists():
            texts += [json.loads(line)["text"] for line in corpus.read_text(encoding="utf-8").splitlines()]
    return [text[span.start : span.end] for text in texts for span in sentences(text) if 30 <= span.end - span.start <= 400]


def make_files(folder: Path, count: int, pool: list[str], sizes: tuple[int, int]) -> None:
    """Writes `count` files, dated an hour ago, as those of a folder that nobody works in."""
    draw = random.Random(3)
    for number in range(count):
        wanted, words, text = draw.randint(*sizes), 0, [f"# Note {number}\n"]
        while words < wanted:
            paragraph = " ".join(draw.choice(pool) for _ in range(draw.randint(1, 4)))
            words += len(paragraph.split())
            text.append(paragraph + "\n")
        write(folder / f"{number % 100:02d}" / f"note-{number}.txt", "\n".join(text))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    hour_ago = time.time() - 3600
    os.utime(path, (hour_ago, hour_ago))


def edit_some(folder: Path, pool: list[str]) -> None:
    """Puts a sentence into the last paragraph of every hundredth file."""
    for path in sorted(folder.rglob("*.txt"))[::100]:
        text = path.read_text(encoding="utf-8")
        write(path, f"{text.rstrip()} Edited: {pool[len(text) % len(pool)]}\n")


def rename_all(folder: Path) -> None:
    for path in sorted(folder.rglob("*.txt")):
        path.rename(path.with_name(f"renamed-{path.name}"))


def sync_ours(folder: Path, data: Path) -> dict[str, Any]:
    """One sync by Citewell: seconds, passages, and embeddings computed."""
    from rag import Settings, open_assistant

    began = time.perf_counter()
    with open_assistant(Settings(data_dir=data, model="none")) as assistant:
        computed, embed = 0, assistant.embedder.embed

        def counted(texts: Any) -> Any:
            nonlocal computed
            computed += len(texts)
            return embed(texts)

        assistant.embedder.embed = counted
        report = assistant.sync(folder)
        seconds = time.perf_counter() - began
        assert not report.rejected, report.rejected
        return {"seconds": seconds, "passages": assistant.store.passage_count(), "embedded": computed, "embedder": assistant.embedder.identity}


def sync_rival(folder: Path, data: Path) -> dict[str, Any]:
    """One run of the pipeline over the folder: the same figures."""
    import chromadb
    import sentence_transformers  # noqa: F401
    import transformers
    from llama_index.core import SimpleDirectoryReader
    from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
    from llama_index.core.node_parser import SentenceSplitter
    from llama_index.core.storage.docstore import SimpleDocumentStore
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding
    from llama_index.vector_stores.chroma import ChromaVectorStore

    from index.embed import SentenceTransformerEmbedder

    transformers.utils.logging.disable_progress_bar()
    model = str(SentenceTransformerEmbedder()._folder)
    computed, embed = 0, HuggingFaceEmbedding._get_text_embeddings

    def counted(self: Any, texts: list[str]) -> list[list[float]]:
        nonlocal computed
        computed += len(texts)
        return embed(self, texts)

    HuggingFaceEmbedding._get_text_embeddings = counted
    began = time.perf_counter()
    settings = chromadb.config.Settings(anonymized_telemetry=False)
    collection = chromadb.PersistentClient(str(data / "chroma"), settings=settings).get_or_create_collection("rival", embedding_function=None)
    pipeline = IngestionPipeline(
        transformations=[
            SentenceSplitter(chunk_size=RIVAL_CHUNK_TOKENS, chunk_overlap=0),
            HuggingFaceEmbedding(model_name=model, embed_batch_size=16, device="cpu"),
        ],
        vector_store=ChromaVectorStore(chroma_collection=collection),
        docstore=SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
    )
    if (data / "pipeline").exists():
        pipeline.load(str(data / "pipeline"))
    # With its own metadata (paths and dates of access) it would embed more text and take every file for changed.
    reader = SimpleDirectoryReader(str(folder), recursive=True, filename_as_id=True, file_metadata=lambda path: {"file_name": Path(path).name})
    pipeline.run(documents=reader.load_data())
    pipeline.persist(str(data / "pipeline"))
    return {"seconds": time.perf_counter() - began, "passages": collection.count(), "embedded": computed, "embedder": "HuggingFaceEmbedding"}


SYNCS: dict[str, Callable[[Path, Path], dict[str, Any]]] = {"citewell": sync_ours, "pipeline": sync_rival}


def in_child(who: str, folder: Path, data: Path) -> dict[str, Any]:
    """Runs one step in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", who, str(folder), str(data)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"},
    )
    if done.returncode:
        raise SystemExit(f"{who} failed with {done.returncode}; its error stands above.")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def child(who: str, folder: Path, data: Path) -> None:
    figures = SYNCS[who](folder, data)
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures["peak_child_mb"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(json.dumps(figures))


def characters(folder: Path) -> int:
    return sum(len(path.read_text(encoding="utf-8")) for path in folder.rglob("*.txt"))


def steps(count: int, who: list[str], pool: list[str], sizes: tuple[int, int]) -> list[dict[str, Any]]:
    """The four steps on `count` files, by each in turn: a row for each step and each of `who`."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "files")
        make_files(folder, count, pool, sizes)
        changes: dict[str, Callable[[], None]] = {
            "first sync": lambda: None,
            "unchanged": lambda: None,
            "1 % edited": lambda: edit_some(folder, pool),
            "all renamed": lambda: rename_all(folder),
        }
        for step, change in changes.items():
            change()
            size = characters(folder)
            for name in who:
                figures = in_child(name, folder, Path(scratch, name))
                rows.append({"files": count, "step": step, "who": name, "characters": size, **figures})
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown. Rates count all files' passages and characters, and stand only where all were embedded."""
    lines = [
        "| files | step | | seconds | embedded | passages | passages/s | characters/s | peak MB | largest child MB |",
        "|--:|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        whole = row["step"] == "first sync"
        rates = (
            [
                f"{row[what] / row['seconds']:,.1f}" if what == "passages" else f"{row[what] / row['seconds']:,.0f}"
                for what in ("passages", "characters")
            ]
            if whole
            else ["", ""]
        )
        cells = [
            f"{row['files']:,}", row["step"], row["who"], f"{row['seconds']:.1f}", f"{row['embedded']:,}", f"{row['passages']:,}",
            *rates, f"{row['peak_mb']:.0f}", f"{row['peak_child_mb']:.0f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def ratios(rows: list[dict[str, Any]]) -> str:
    """What the comparison comes to, in sentences."""
    found = {(row["files"], row["step"], row["who"]): row for row in rows}
    sizes = sorted({row["files"] for row in rows})
    small, large = sizes[0], sizes[-1]
    lines = []
    for step in dict.fromkeys(row["step"] for row in rows):
        ours, theirs = found[small, step, "citewell"], found.get((small, step, "pipeline"))
        if theirs:
            lines.append(f"- {step}, {small:,} files: {theirs['seconds'] / ours['seconds']:.1f} times as fast as the pipeline")
    first, rival = found[small, "first sync", "citewell"], found.get((small, "first sync", "pipeline"))
    if rival:
        for what in ("passages", "characters"):
            ratio = first[what] / first["seconds"] / (rival[what] / rival["seconds"])
            lines.append(f"- first sync, {what} a second: {ratio:.2f} times the pipeline's")
    if large > small:
        more = found[large, "first sync", "citewell"]
        if rival:
            ratio = more["passages"] / more["seconds"] / (rival["passages"] / rival["seconds"])
            lines.append(f"- first sync, passages a second at {large:,} files over the pipeline's at {small:,}: {ratio:.2f}")
        lines.append(f"- peak memory of the first sync at {large:,} files over that at {small:,}: {more['peak_mb'] / first['peak_mb']:.2f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000, help="files that Citewell syncs alone")
    parser.add_argument("--rival-files", type=int, default=1_000, help="files that both sync by turns")
    parser.add_argument("--words", type=int, nargs=2, default=(30, 120), help="the fewest and the most words of a file")
    parser.add_argument("--child", nargs=3, metavar=("WHO", "FOLDER", "DATA"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        who, folder, data = chosen.child
        child(who, Path(folder), Path(data))
        return
    pool = sentence_pool()
    rows = steps(chosen.rival_files, ["citewell", "pipeline"], pool, tuple(chosen.words))
    if chosen.files > chosen.rival_files:
        rows += steps(chosen.files, ["citewell"], pool, tuple(chosen.words))
    print(f"{date.today()}  {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, embedder {rows[0]['embedder']}\n")
    print(table(rows))
    print()
    print(ratios(rows))


if __name__ == "__main__":
    main()
