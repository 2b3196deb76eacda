"""Asks a question set and counts what was right, rightly cited and rightly refused. The format is described in tests/questions.md."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from index.errors import CitewellError
from index.split import sentences
from index.store import Store
from index.types import Span
from rag.assistant import Assistant, open_assistant
from rag.cite import MARK, without_marks
from rag.settings import SEEDS, Settings
from rag.types import Answer, Turn

_MARKS_BEHIND = re.compile(r"([.!?…。！？]+[\"'”’»)]*)\s*((?:\[\d+\])+)")


@dataclass(frozen=True, slots=True)
class Question:
    """One line of a question set. `must` are groups of phrases, one of each of which a right answer holds; `relevant` are the gold documents."""

    id: str
    kind: str
    question: str
    history: tuple[Turn, ...]
    answerable: bool | None
    relevant: frozenset[str]
    must: tuple[tuple[str, ...], ...]
    must_not: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one question. None where the set does not tell what is right."""

    id: str
    kind: str
    answerable: bool | None
    abstained: bool
    right: bool | None
    cited: bool | None
    found: bool | None
    wrong_spans: int
    bare: int
    prompt_tokens: int
    first_token_ms: float | None
    total_ms: float
    text: str


def load(path: Path) -> list[Question]:
    """The questions of a set: a folder with questions.jsonl, or such a file. Raises CitewellError with the line that is wrong."""
    file = path / "questions.jsonl" if path.is_dir() else path
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise CitewellError(f"There is no question set at {path} ({reason}). Give a folder with questions.jsonl, or the file itself.") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            answerable = entry.get("answerable")
            if not isinstance(entry["question"], str) or not all(isinstance(group, list) for group in entry.get("must", ())):
                raise TypeError("'question' must be text, and 'must' a list of lists")
            found.append(
                Question(
                    id=str(entry.get("id", number)),
                    kind=str(entry.get("kind", "")),
                    question=entry["question"],
                    history=tuple(Turn(turn["role"], turn["text"]) for turn in entry.get("history", ())),
                    answerable=answerable if isinstance(answerable, bool) else None,
                    relevant=frozenset(entry.get("relevant", ())),
                    must=tuple(tuple(group) for group in entry.get("must", ())),
                    must_not=tuple(entry.get("must_not", ())),
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"Line {number} of {file} is no question ({error!r})."
            raise CitewellError(f"{what} Each line is a JSON object with at least 'question'.") from error
    return found


def same_document(source: str, gold: str) -> bool:
    """Whether a source is a gold document: by name, or by the number that a brief shares with its original (000-… and 000_….txt)."""
    name = Path(source).name
    gold = gold.replace("/", "_")  # as _unpacked() names its files
    numbered = [text[:3] if text[:3].isdigit() and text[3:4] in ("-", "_") else None for text in (name, gold)]
    return name == gold or Path(name).stem == gold or (numbered[0] is not None and numbered[0] == numbered[1])


def holds(question: Question, text: str) -> bool:
    """Whether a text holds one phrase of every group that it must, and none that it must not; letter case ignored."""
    low = text.lower()
    must = all(any(phrase.lower() in low for phrase in group) for group in question.must)
    return must and not any(phrase.lower() in low for phrase in question.must_not)


def judge(question: Question, answer: Answer, store: Store) -> Row:
    """Scores one answer."""
    given = not answer.abstained
    right = cited = found = None
    if question.answerable is False:
        right = answer.abstained
    elif question.answerable and question.must:
        right = given and holds(question, answer.text)
    if question.relevant:
        cited = given and any(same_document(citation.source, gold) for citation in answer.citations for gold in question.relevant)
        found = any(same_document(hit.passage.source, gold) for hit in answer.evidence[:5] for gold in question.relevant)
    return Row(
        question.id,
        question.kind,
        question.answerable,
        answer.abstained,
        right,
        cited,
        found,
        wrong_spans=sum(store.text(c.document_id)[c.start : c.end] != c.quote for c in answer.citations),
        bare=0 if answer.abstained else sum(1 for sentence in bare_sentences(answer)),
        prompt_tokens=answer.usage.prompt_tokens,
        first_token_ms=answer.timings.first_token_ms,
        total_ms=answer.timings.total_ms,
        text=answer.text,
    )


def bare_sentences(answer: Answer) -> list[str]:
    """Sentences of an answer that neither carry a mark nor are listed as unsupported; there should be none."""
    # Marks stand behind the full stop; moved before it, each is in the sentence that it belongs to.
    text = _MARKS_BEHIND.sub(r" \2\1", answer.text)
    listed = {_folded(sentence[span.start : span.end]) for sentence in answer.unsupported for span in [*sentences(sentence), Span(0, len(sentence))]}
    written = (text[span.start : span.end] for span in sentences(text))
    bare = [sentence for sentence in written if any(c.isalnum() for c in without_marks(sentence)) and not MARK.search(sentence)]
    return [sentence for sentence in bare if _folded(sentence) not in listed]


def _folded(text: str) -> str:
    return " ".join(text.split())


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Counts as (hits, of); medians of times in milliseconds and of prompt tokens."""
    answerable = [row for row in rows if row.answerable]
    unanswerable = [row for row in rows if row.answerable is False]
    refused = [row for row in rows if row.abstained and row.answerable is not None]
    spoken = [row.first_token_ms for row in rows if row.first_token_ms is not None]
    return {
        "questions": len(rows),
        "answered right": _share([bool(row.right) for row in answerable if row.right is not None]),
        "answered right and rightly cited": _share([bool(row.right and row.cited) for row in answerable if row.right is not None]),
        "gold document in evidence@5": _share([bool(row.found) for row in rows if row.found is not None]),
        "refusal recall": _share([row.abstained for row in unanswerable]),
        "refusal precision": _share([row.answerable is False for row in refused]),
        "spans that are not their quote": sum(row.wrong_spans for row in rows),
        "sentences neither cited nor unsupported": sum(row.bare for row in rows),
        "median prompt tokens": median(row.prompt_tokens for row in rows) if rows else 0,
        "median ms to first token": median(spoken) if spoken else None,
        "median ms in all": median(row.total_ms for row in rows) if rows else 0,
    }


def _share(hits: Sequence[bool]) -> dict[str, Any]:
    return {"hits": sum(hits), "of": len(hits), "percent": round(100 * sum(hits) / len(hits), 1) if hits else None}


def run(path: Path, folder: Path | None, settings: Settings, limit: int | None = None, show: bool = True) -> dict[str, Any]:
    """Asks the whole set over its documents in a store of its own: `folder`, else the set's corpus.jsonl, else the seeds.

    Prints a line a question if `show`.
    """
    questions = load(path)[:limit]
    with tempfile.TemporaryDirectory(prefix="citewell-evaluate-") as scratch:
        corpus = path / "corpus.jsonl" if path.is_dir() else path.parent / "corpus.jsonl"
        documents = folder or (_unpacked(corpus, Path(scratch, "documents")) if corpus.exists() else SEEDS)
        with open_assistant(settings.replaced(data_dir=Path(scratch, "store"))) as assistant:
            report = assistant.sync(documents)
            if show:
                print(f"Documents: {report}", flush=True)
            rows = [_asked(question, assistant, show) for question in questions]
    counted = summary(rows)
    if show:
        for name, value in counted.items():
            print(f"{name}: {value['hits']}/{value['of']} ({value['percent']} %)" if isinstance(value, dict) and value["of"] else f"{name}: {value}")
    return {"set": str(path), "model": settings.model_shown, "summary": counted, "rows": [asdict(row) for row in rows]}


def _asked(question: Question, assistant: Assistant, show: bool) -> Row:
    row = judge(question, assistant.ask(question.question, question.history), assistant.store)
    if show:
        verdict = {True: "right", False: "WRONG", None: "     "}[row.right]
        print(f"{verdict}  {row.id}  {row.total_ms / 1000:5.1f} s  {question.question}\n         {row.text}", flush=True)
    return row


def _unpacked(corpus: Path, folder: Path) -> Path:
    """A corpus.jsonl as a folder of text files named by their ids."""
    folder.mkdir(parents=True)
    for number, line in enumerate(corpus.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            title = entry.get("title")
            text = entry["text"] if not title or entry["text"].startswith(title) else f"{title}\n\n{entry['text']}"
            name = str(entry["id"]).replace("/", "_")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CitewellError(f"Line {number} of {corpus} is no document ({error!r}). Each line is a JSON object with 'id' and 'text'.") from error
        Path(folder, f"{name}.txt").write_text(text, encoding="utf-8")
    return folder
