"""`make bench`: the figures of docs/benchmarks.md, measured in one run on this machine.

usage: python tests/bench.py [--quick] [--passages 500000] [--stores build/bench-stores]

Measures starts (bench_start.py) and the first sync (bench_first.py). Asks the seed questions that can be answered beside LlamaIndex's CitationQueryEngine
(Chroma, the same embedding model, its own defaults, the same GGUF behind the same server), each to both in turn, in a seeded random order: neighbours in the set
are often about one paragraph, and a prompt that is the one before costs the server nothing. Then all of them over our briefs and, where ../shared/seeds is
there, over the originals. At last search is measured in stores of growing size, up to --passages (bench_scale.py; making the largest takes a quarter of an
hour and 4 GB once, and --stores keeps it; another 4 GB for a while), and the shared store, where PostgreSQL is installed (bench_shared.py). An hour and a half in all.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import bench_first
import bench_start
import servers

from rag.assistant import open_assistant
from rag.evaluation import report
from rag.evaluation.measures import holds
from rag.evaluation.run import Options, evaluate
from rag.evaluation.sets import Question, load
from rag.settings import SEEDS, Settings

ROOT = Path(__file__).resolve().parent.parent


def evidence_ms(documents: Path) -> float:
    """Median milliseconds from a warm question to its evidence."""
    from rag.types import Evidence

    with tempfile.TemporaryDirectory() as scratch, open_assistant(Settings(data_dir=Path(scratch), model="none")) as assistant:
        assistant.sync(documents)
        taken = []
        for question in [
            "What is RynnBrain for?",
            "Who is Zhou?",
            "Which market will Z.ai list on?",
            "What does Li say about DeepSeek?",
            "What is AI?",
        ] * 2:
            began = time.perf_counter()
            assert isinstance(next(assistant.stream(question)), Evidence)
            taken.append((time.perf_counter() - began) * 1000)
        return median(taken[len(taken) // 2 :])


class Peer:
    """CitationQueryEngine with its defaults over Chroma, on the embedder and the model server that Citewell itself uses."""

    def __init__(self, documents: Path, folder: str, base_url: str, key: str) -> None:
        import chromadb
        from llama_index.core import Settings as Defaults
        from llama_index.core import SimpleDirectoryReader, StorageContext, VectorStoreIndex
        from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
        from llama_index.core.query_engine import CitationQueryEngine
        from llama_index.embeddings.huggingface import HuggingFaceEmbedding
        from llama_index.llms.openai_like import OpenAILike
        from llama_index.vector_stores.chroma import ChromaVectorStore

        from index.embed import SentenceTransformerEmbedder

        self.counter = TokenCountingHandler()
        Defaults.callback_manager = CallbackManager([self.counter])
        Defaults.embed_model = HuggingFaceEmbedding(model_name=str(SentenceTransformerEmbedder()._folder))
        Defaults.llm = OpenAILike(
            model="embedded", api_base=base_url, api_key=key, is_chat_model=True, context_window=4096, max_tokens=256, temperature=0.0, timeout=600
        )
        collection = chromadb.PersistentClient(folder).get_or_create_collection("peer", embedding_function=None)
        storage = StorageContext.from_defaults(vector_store=ChromaVectorStore(chroma_collection=collection))
        index = VectorStoreIndex.from_documents(SimpleDirectoryReader(str(documents)).load_data(), storage_context=storage)
        self.engine = CitationQueryEngine.from_args(index, streaming=True)

    def ask(self, question: str) -> dict[str, Any]:
        self.counter.reset_counts()
        began = time.perf_counter()
        answer = self.engine.query(question)
        first = None
        pieces = []
        for piece in answer.response_gen:
            first = first or time.perf_counter() - began
            pieces.append(piece)
        return {
            "first_token_s": first,
            "total_s": time.perf_counter() - began,
            "text": "".join(pieces),
            "prompt": "\n".join(str(event.prompt) for event in self.counter.llm_token_counts),
        }


def own_prompt_ms(url: str, key: str, messages: Any) -> float:
    """How many milliseconds llama.cpp itself says that it takes to read a prompt of which it has nothing in its cache."""
    import httpx

    told = httpx.post(
        f"{url.rstrip('/')}/chat/completions",
        json={"messages": messages, "max_tokens": 1, "cache_prompt": False},
        headers={"Authorization": f"Bearer {key}"},
        timeout=600,
    )
    return float(told.json()["timings"]["prompt_ms"])


def beside_peer(documents: Path, questions: Sequence[Question]) -> dict[str, Any]:
    """Citewell and CitationQueryEngine on the same questions, by turns, on one model server; prompt tokens as that server counts them.

    Right is what holds the phrases that the set demands, as `citewell evaluate` counts it.
    """
    import httpx

    from rag.model import EmbeddedModel

    with tempfile.TemporaryDirectory() as scratch, open_assistant(Settings(data_dir=Path(scratch, "store"), model="embedded")) as assistant:
        assistant.sync(documents)
        model, _ = assistant.answering_model()
        assert isinstance(model, EmbeddedModel)
        client = model.load()
        url, key = client._wire._url, client._wire._headers["Authorization"].removeprefix("Bearer ")
        peer = Peer(documents, str(Path(scratch, "peer")), url, key)
        drafted: list[Any] = []
        stream = model.stream
        model.stream = lambda messages, room: (drafted.append(messages), stream(messages, room))[1]  # type: ignore[method-assign]
        ours: list[dict[str, Any]] = []
        theirs: list[dict[str, Any]] = []
        alone: list[float] = []
        for question in questions:
            drafted.clear()
            answer = assistant.ask(question.question)
            ours.append(
                {
                    "prompt_tokens": answer.usage.prompt_tokens,
                    "sent_tokens": answer.usage.prompt_tokens + answer.usage.cached_tokens,
                    "first_token_s": (answer.timings.first_token_ms or answer.timings.total_ms) / 1000,
                    "total_s": answer.timings.total_ms / 1000,
                    "text": answer.text,
                }
            )
            if drafted and answer.timings.first_token_ms:
                alone.append(answer.timings.first_token_ms / own_prompt_ms(url, key, drafted[0]))
            row = peer.ask(question.question)
            told = httpx.post(
                url.removesuffix("/v1/").removesuffix("/v1") + "/tokenize",
                json={"content": row.pop("prompt")},
                headers={"Authorization": f"Bearer {key}"},
            )
            sent = len(told.json()["tokens"])
            theirs.append({**row, "prompt_tokens": sent, "sent_tokens": sent})
            print(
                json.dumps({"question": question.question, "citewell": ours[-1], "CitationQueryEngine": theirs[-1]}, ensure_ascii=False), flush=True
            )
        right = [sum(holds(question, row["text"]) for question, row in zip(questions, rows, strict=True)) for rows in (ours, theirs)]
        return {
            "first token to llama.cpp's own time for the draft's prompt, median ratio": round(median(alone), 3) if alone else None,
            "right": {"citewell": right[0], "CitationQueryEngine": right[1], "of": len(questions)},
        } | {
            measure: {
                "citewell": round(median(row[measure] for row in ours), 1),
                "CitationQueryEngine": round(median(row[measure] for row in theirs), 1),
                "median ratio": round(median(a[measure] / b[measure] for a, b in zip(ours, theirs, strict=True)), 3),
                "ratio of medians": round(median(a[measure] for a in ours) / median(b[measure] for b in theirs), 3),
            }
            for measure in ("prompt_tokens", "sent_tokens", "first_token_s", "total_s")
        }


def apart(script: str, *arguments: str, bench: Path) -> None:
    """Runs another benchmark in a process of its own, so that what this one holds in memory does not count."""
    sys.stdout.flush()
    subprocess.run([sys.executable, str(ROOT / "tests" / script), *arguments], env={**os.environ, "CITEWELL_BENCH": str(bench)}, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="five questions a set, and stores of up to 10,000 passages")
    parser.add_argument("--passages", type=int, default=500_000, help="passages of the largest store")
    parser.add_argument("--stores", type=Path, default=ROOT / "build" / "bench-stores", help="where the stores are kept for the next run")
    options = parser.parse_args()
    quick, passages = options.quick, min(options.passages, 10_000) if options.quick else options.passages
    bench = Path(os.environ.pop("CITEWELL_BENCH", ROOT.parent / "shared" / "bench")).resolve()
    print(f"{date.today()}  {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"warm question to evidence: {evidence_ms(SEEDS):.0f} ms\n")
    bench_start.report(3 if quick else 5)
    rounds = 1 if quick else 5
    print("\nThe first sync, beside the embedding session alone and beside others:\n")
    bench_first.report(bench_first.SETS, bench_first.CHARACTERS if quick else None, rounds, bench_first.BATCH)
    questions = bench / "seeds"
    if not questions.exists():
        print(f"\nThe seed question set is not at {questions}: set CITEWELL_BENCH to the folder of public question sets. Asking our own set instead.")
        questions = ROOT / "tests" / "questions.jsonl"
    originals = bench.parent / "seeds"
    print("\nBeside LlamaIndex's CitationQueryEngine, by turns:")
    chosen = [question for question in load(questions) if question.answerable and not question.history]
    random.Random(7).shuffle(chosen)
    chosen = chosen[: 2 if quick else None]
    print(json.dumps(beside_peer(originals if originals.exists() else SEEDS, chosen), indent=2))
    for documents in [SEEDS, *([originals] if originals.exists() else [])]:
        print(f"\n{questions} over {documents.name if documents == SEEDS else 'the originals'}:")
        with tempfile.TemporaryDirectory() as out:
            made, _ = evaluate(Options((str(questions),), documents, limit=5 if quick else None), Settings(), Path(out))
            print(report.markdown(made))
    print("\nGrowth:\n")
    options.stores.mkdir(parents=True, exist_ok=True)
    sizes = ("--passages", str(passages), "--rewritten", str(min(passages, 100_000)), "--questions", "400")
    apart("bench_scale.py", *sizes, "--stores", str(options.stores), "--plot", str(options.stores / "growth.svg"), bench=bench)
    if servers.postgres_programs() is None:
        print(f"\nThe shared store is not measured: {servers.NOT_THERE}.")
    else:
        print("\nThe shared store:\n")
        apart("bench_shared.py", *("10000" if quick else "10000 50000 100000").split(), bench=bench)


if __name__ == "__main__":
    main()
