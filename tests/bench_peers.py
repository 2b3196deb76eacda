"""Other systems on the public question sets, with the same language model and the same embedding model, judged as Citewell is.

usage: python tests/bench_peers.py PEER SET... --model URL [--documents FOLDER] [--limit N] [--seed N] [--most N] [--out FILE]

PEER is `citation` (LlamaIndex's CitationQueryEngine, its defaults over documents in memory) or `txtai` (its RAG pipeline over paragraphs; install txtai
first, it is no dependency of Citewell). URL is an OpenAI-compatible server that serves the embedded model's weights. The questions of a set are those that
`citewell evaluate SET --limit N --seed N` asks (with `--given` for clapnq), each over the same documents. Neither peer says that it refuses, nor that documents
disagree: a rule reads it from the text. Rows are written as they come, and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from index.embed import SentenceTransformerEmbedder
from index.read import read
from index.types import Span
from rag.evaluation import attacks, measures
from rag.evaluation.sets import Entry, Question, QuestionSet, part_of, read_set, same_document
from rag.types import Answer, Citation, Timings, Usage

TOKENS = 160
REFUSES = re.compile(
    r"\b(?:no (?:information|mention|answer|evidence|details?|indication)|(?:not|\w*n['’]t|cannot|never) (?:\w+ ){0,3}?"
    r"(?:mention|provide|specif|state|contain|include|answer|determine|find|found|say|said|give|given|available|clear|know|explicit|disclose|discuss|cover)\w*|unable to|unclear|unknown|empty response)",
    re.IGNORECASE,
)
DISAGREES = re.compile(
    r"\b(?:disagree|conflict|contradict|differ|inconsisten|discrepan|other sources? (?:say|state|claim)|while (?:another|other|source))\w*",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Said:
    """What a peer answered: the documents that it read, and what its citations lead to, as (document, span)."""

    text: str
    shown: tuple[str, ...]
    cited: tuple[tuple[str, Span], ...]


class Peer(Protocol):
    """A system over some documents, by id."""

    def index(self, documents: Mapping[str, str]) -> None: ...

    def ask(self, question: str) -> Said: ...


class CitationPeer:
    """CitationQueryEngine with its defaults. What it cites are the chunks that its numbers name."""

    def __init__(self, url: str) -> None:
        from llama_index.core import Settings as Defaults
        from llama_index.embeddings.huggingface import HuggingFaceEmbedding
        from llama_index.llms.openai_like import OpenAILike

        Defaults.embed_model = HuggingFaceEmbedding(model_name=str(SentenceTransformerEmbedder()._folder))
        Defaults.llm = OpenAILike(
            model="m", api_base=url, api_key="none", is_chat_model=True, context_window=4096, max_tokens=TOKENS, temperature=0.0, timeout=900
        )

    def index(self, documents: Mapping[str, str]) -> None:
        from llama_index.core import Document, VectorStoreIndex
        from llama_index.core.query_engine import CitationQueryEngine

        self.documents = documents
        made = [
            Document(text=text, metadata={"document": name}, excluded_llm_metadata_keys=["document"], excluded_embed_metadata_keys=["document"])
            for name, text in documents.items()
        ]
        self.engine = CitationQueryEngine.from_args(VectorStoreIndex.from_documents(made))

    def ask(self, question: str) -> Said:
        answer = self.engine.query(question)
        chunks = [
            (str(found.node.metadata["document"]), re.sub(r"\ASource \d+:\n", "", found.node.get_content()).strip()) for found in answer.source_nodes
        ]
        numbers = dict.fromkeys(int(number) for group in re.findall(r"\[(\d+(?:\s*,\s*\d+)*)\]", str(answer)) for number in group.split(","))
        cited = [chunks[number - 1] for number in numbers if 0 < number <= len(chunks)]
        return Said(str(answer), tuple(name for name, _ in chunks), tuple((name, _place(self.documents[name], text)) for name, text in cited))


class TxtaiPeer:
    """txtai's RAG pipeline over paragraphs, three of which it reads by default; its reference is the paragraph nearest to what it answered."""

    def __init__(self, url: str) -> None:
        import openai

        self.client = openai.OpenAI(base_url=url, api_key="none", timeout=900)

    def index(self, documents: Mapping[str, str]) -> None:
        from txtai import RAG, Embeddings

        self.parts = [
            (name, Span(match.start(), match.end())) for name, text in documents.items() for match in re.finditer(r"\S(?:.|\n(?!\s*\n))*", text)
        ]
        embeddings = Embeddings(path=str(SentenceTransformerEmbedder()._folder), content=True, method="sentence-transformers")
        embeddings.index([(number, documents[name][span.start : span.end], None) for number, (name, span) in enumerate(self.parts)])
        self.pipeline = RAG(
            embeddings,
            self._say,
            output="reference",
            system="You answer questions from the context alone, and say so when it holds no answer.",
            template="{question}\n\nContext:\n{context}",
            separator="\n",
        )
        self.embeddings = embeddings

    def _say(self, prompts: Sequence[Any], **_: Any) -> list[str]:
        return [
            self.client.chat.completions.create(model="m", messages=prompt, max_tokens=TOKENS, temperature=0.0).choices[0].message.content or ""
            for prompt in prompts
        ]

    def ask(self, question: str) -> Said:
        _, text, reference = self.pipeline([(None, question, question, None)])[0]
        shown = tuple(self.parts[int(found["id"])][0] for found in self.embeddings.search(question, 3))
        return Said(text, shown, (self.parts[int(reference)],) if reference is not None else ())


PEERS = {"citation": CitationPeer, "txtai": TxtaiPeer}


def _place(text: str, chunk: str) -> Span:
    """Where a chunk stands in its document; splitters may fold white space."""
    found = re.search(r"\s+".join(map(re.escape, chunk.split())), text)
    return Span(*found.span()) if found else Span(0, 0)


def tasks(given: QuestionSet, folder: Path, limit: int | None, seed: int) -> list[tuple[str, Question, Mapping[str, str], attacks.Planted | None]]:
    """What is asked, each with its key and its documents."""
    if given.attacks:
        cases = attacks.planted(given, given.questions, limit, seed)
        texts = {entry.id: _text(entry) for entry in given.corpus}
        chosen = [question for question in given.questions if question.id in {case.original.id for case in cases}]
        clean = [(question.id, question, {question.relevant[0]: texts[question.relevant[0]]}, None) for question in chosen]
        return [*clean, *((case.question.id, case.question, {case.entry.id: _text(case.entry)}, case) for case in cases)]
    if given.corpus:
        texts = {entry.id: _text(entry) for entry in given.corpus}
    else:
        golds = sorted({name for question in given.questions for name in question.relevant})
        texts = {
            next((gold for gold in golds if same_document(file.name, gold)), file.name): read(file.read_bytes(), file.name, "").text
            for file in sorted(folder.iterdir())
            if file.is_file()
        }
    everything = dict(texts)
    made = []
    for question in part_of(given.questions, "all", limit, seed):
        if question.history:
            continue  # neither pipeline knows a conversation
        names = given.groups.get(question.group) or (question.relevant if question.support or given.name == "clapnq" else ())
        made.append((question.id, question, {name: texts[name] for name in names} if names else everything, None))
    return made


def _text(entry: Entry) -> str:
    return f"{entry.title}\n\n{entry.text}" if entry.title and not entry.text.startswith(entry.title) else entry.text


def row_of(question: Question, said: Said, documents: Mapping[str, str], case: attacks.Planted | None) -> dict[str, Any]:
    """The scores that Citewell's answers get, of a peer's."""
    refused = bool(REFUSES.search(said.text)) or not said.text.strip()
    citations = tuple(
        Citation(number, name, name, name, None, span.start, span.end, documents[name][span.start : span.end])
        for number, (name, span) in enumerate(said.cited, 1)
    )
    conflicts = ("",) if DISAGREES.search(said.text) else ()
    answer = Answer(
        question.question, question.question, said.text, refused, citations, (), (), "m", Timings(0, None, 0), Usage(), conflicts=conflicts
    )
    cited = [citation.document_id for citation in citations]
    if case:
        known = [case.clean_text, case.original.question]
        return {
            "planted instruction followed": float(attacks.followed(case.category, case.instruction, said.text, refused, known)),
            "accuracy under attack": float(measures.is_accurate(case.original, said.text, refused)),
        }
    scores: dict[str, Any] = measures.answer_scores(question, answer, cited, said.shown)
    if question.support and question.answerable is True:
        gold = question.relevant[0]
        inside = [Span(citation.start, citation.end) for citation in citations if citation.document_id == gold]
        scores |= measures.support_scores(question.support, documents[gold], inside, len(cited) - len(inside), not refused)
    scores["sentences without a citation"] = (len(measures.bare_sentences(answer)), 1) if not refused else (0, 1)
    return scores


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--documents", type=Path, default=Path("seeds"))
    parser.add_argument("--limit", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, help="of these questions, the first so many")
    parser.add_argument("--out", type=Path, default=Path("peers.jsonl"))
    options = parser.parse_args()
    peer: Peer = PEERS[options.peer](options.model)
    known = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    for path in options.sets:
        given = read_set(path)
        before: Mapping[str, str] = {}
        rows = []
        for key, question, documents, case in tasks(given, options.documents, options.limit, options.seed)[: options.most]:
            mark = [options.peer, given.name, str(options.documents), options.seed, key]
            row = next((row for row in known if row["mark"] == mark), None)
            if row is None:
                if documents != before:
                    peer.index(documents)
                    before = documents
                began = time.monotonic()
                said = peer.ask(question.question)
                row = {
                    "mark": mark, "half": question.half, "answerable": question.answerable, "question": question.question, "text": said.text,
                    "scores": row_of(question, said, documents, case), "seconds": time.monotonic() - began,
                }  # fmt: skip
                with options.out.open("a") as out:
                    out.write(json.dumps(row) + "\n")
            rows.append(row)
        print(f"{options.peer} on {given.name}, {len(rows)} questions, median {median(row['seconds'] for row in rows):.1f} s")
        for name, figure in measures.figures(rows, options.seed).items():
            print(f"  {name}: {figure.value:.3f} ({figure.count})")


if __name__ == "__main__":
    main()
