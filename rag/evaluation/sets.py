"""Question sets: reading them, choosing a half or a sample, and laying a corpus out as files. tests/questions.md describes the format."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, TypeVar

from index.errors import CitewellError
from rag.types import Turn

Half = Literal["tune", "report"]
Made = TypeVar("Made")

_NOT_IN_FILE_NAMES = re.compile(r'[\\/:*?"<>|\x00-\x1f\x7f]|^[.~\s]|[.\s]$')


@dataclass(frozen=True, slots=True)
class GoldSpan:
    """Characters [start, end) of a document that answer a question."""

    document: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Question:
    """One line of a question set; empty where the set does not tell. What is measured follows from what is there.

    `must` are groups of phrases, one of each of which a right answer holds; `relevant` are the gold documents, `support` their sentences that bear the
    answer out. `wrong_answers` is None where the set does not speak of them. `documents` narrows the question to these; `given` is the answer that a
    case was kept for.
    """

    id: str
    question: str
    kind: str = ""
    history: tuple[Turn, ...] = ()
    answerable: bool | str | None = None
    relevant: tuple[str, ...] = ()
    spans: tuple[GoldSpan, ...] = ()
    answers: tuple[str, ...] = ()
    wrong_answers: tuple[str, ...] | None = None
    support: tuple[str, ...] = ()
    must: tuple[tuple[str, ...], ...] = ()
    must_not: tuple[str, ...] = ()
    group: str = ""
    documents: tuple[str, ...] = ()
    given: str = ""

    @property
    def half(self) -> Half:
        """The half that a question is in, by a stable hash of its id: one is for choosing thresholds, the other for reporting."""
        return "report" if int(blake2b(self.id.encode(), digest_size=8).hexdigest(), 16) % 2 else "tune"

    @property
    def sort(self) -> str:
        """What a question is counted under: its kind, or what the set tells instead."""
        if self.kind:
            return self.kind
        if isinstance(self.answerable, str):
            return self.answerable
        if self.answerable is False:
            return "unanswerable"
        if self.wrong_answers is not None:
            return "documents disagree" if self.wrong_answers else "documents agree"
        return f"{len(self.relevant)} gold documents" if len(self.relevant) > 1 else "answerable" if self.answerable else ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One document of a corpus."""

    id: str
    title: str
    text: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """A set as it was read. `corpus` is empty where the documents come from elsewhere; `attacks` are instructions to plant, as (category, text).

    `own`: the user's cases, of the user's own store.
    """

    name: str
    questions: tuple[Question, ...]
    corpus: tuple[Entry, ...] = ()
    attacks: tuple[tuple[str, str], ...] = ()
    digest: str = ""
    own: bool = False

    @property
    def groups(self) -> dict[str, list[str]]:
        """The documents that stand in one group, by the group's name."""
        found: dict[str, list[str]] = {}
        for entry in self.corpus:
            if entry.group:
                found.setdefault(entry.group, []).append(entry.id)
        return found


def load(path: Path) -> list[Question]:
    """The questions of a set: a folder with questions.jsonl, or such a file. Raises CitewellError with the line that is wrong."""
    file = path / "questions.jsonl" if path.is_dir() else path
    taken: set[str] = set()

    def made(entry: Any, number: int) -> Question:
        question = _question(entry, number)
        if question.id in taken:
            raise ValueError(f"the id '{question.id}' was used before")
        taken.add(question.id)
        return question

    return _lines(
        file, f"There is no question set at {path}", "Give a folder with questions.jsonl, or the file itself.", made, "question", "'question'"
    )


def _lines(file: Path, missing: str, advice: str, made: Callable[[Any, int], Made], what: str, needed: str) -> list[Made]:
    """What `made` makes of the JSON value of each line and its number."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise CitewellError(f"{missing} ({reason}). {advice}") from error
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(made(json.loads(line), number))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                wrong = f"Line {number} of {file} is no {what} ({error!r})."
                raise CitewellError(f"{wrong} Each line is a JSON object with at least {needed}.") from error
    return found


def _question(entry: Any, number: int) -> Question:
    if not isinstance(entry["question"], str) or not all(isinstance(group, list) for group in entry.get("must", ())):
        raise TypeError("'question' must be text, and 'must' a list of lists")
    answerable = entry.get("answerable")
    wrong = entry.get("wrong_answers")
    return Question(
        id=str(entry.get("id", number)),
        question=entry["question"],
        kind=str(entry.get("kind", "")),
        history=tuple(Turn(turn["role"], turn["text"]) for turn in entry.get("history", ())),
        answerable=answerable if isinstance(answerable, bool | str) else None,
        relevant=tuple(entry.get("relevant", ())),
        spans=tuple(GoldSpan(span["doc"], int(span["start"]), int(span["end"])) for span in entry.get("spans", ())),
        answers=tuple(entry.get("answers", ())),
        wrong_answers=None if wrong is None else tuple(wrong),
        support=tuple(entry.get("support", ())),
        must=tuple(tuple(group) for group in entry.get("must", ())),
        must_not=tuple(entry.get("must_not", ())),
        group=str(entry.get("group", "")),
        documents=tuple(entry.get("documents", ())),
        given=str(entry.get("given", "")),
    )


def read_set(path: Path) -> QuestionSet:
    """A set with its corpus and its attacks, where it has such. Raises CitewellError with the line that is wrong."""
    questions = load(path)
    if not path.is_dir():
        return QuestionSet(path.stem, tuple(questions), digest=_digest([path]))
    corpus, planted = path / "corpus.jsonl", path / "attacks.json"
    attacks: list[tuple[str, str]] = []
    if planted.exists():
        try:
            attacks = [(str(attack["category"]), str(attack["text"])) for attack in json.loads(planted.read_bytes())]
        except (ValueError, KeyError, TypeError) as error:
            raise CitewellError(f"{planted} cannot be read ({error!r}). It is a JSON list of objects with 'category' and 'text'.") from error
    entries = load_corpus(corpus) if corpus.exists() else []
    files = [file for file in (path / "questions.jsonl", corpus, planted) if file.exists()]
    return QuestionSet(path.resolve().name, tuple(questions), tuple(entries), tuple(attacks), _digest(files))


def _digest(files: Sequence[Path]) -> str:
    return blake2b(b"\0".join(file.read_bytes() for file in files), digest_size=8).hexdigest()


def load_corpus(file: Path) -> list[Entry]:
    """The documents of a corpus.jsonl. Raises CitewellError with the line that is wrong."""

    def made(entry: Any, number: int) -> Entry:
        if not isinstance(entry["text"], str):
            raise TypeError("'text' must be text")
        return Entry(str(entry["id"]), str(entry.get("title") or ""), entry["text"], str(entry.get("group", "")))

    return _lines(file, f"There is no corpus at {file}", "Give the folder of documents with --documents.", made, "document", "'id' and 'text'")


def part_of(questions: Sequence[Question], part: str, limit: int | None, seed: int) -> list[Question]:
    """The questions of one half ("tune", "report") or of "all"; of these, `limit` chosen at random with the seed, in their order."""
    chosen = [question for question in questions if part in ("all", question.half)]
    if limit is None or limit >= len(chosen):
        return chosen
    kept = set(random.Random(seed).sample(range(len(chosen)), limit))  # noqa: S311 - repeatable, not secret
    return [question for number, question in enumerate(chosen) if number in kept]


def lay_out(corpus: Sequence[Entry], folder: Path, titled: bool) -> dict[str, str]:
    """Writes a corpus as text files; returns the file's name of each document and its id. With `titled`, a title stands before a text without it."""
    folder.mkdir(parents=True, exist_ok=True)
    sources: dict[str, str] = {}
    taken: set[str] = set()
    for entry in corpus:
        name = _NOT_IN_FILE_NAMES.sub("_", entry.id)
        if len(name.encode()) > 180 or name.casefold() in taken:
            name = f"{name.encode()[:150].decode(errors='ignore')}-{blake2b(entry.id.encode(), digest_size=6).hexdigest()}"
        taken.add(name.casefold())
        sources[f"{name}.txt"] = entry.id
        text = f"{entry.title}\n\n{entry.text}" if titled and entry.title and not entry.text.startswith(entry.title) else entry.text
        file = folder / f"{name}.txt"
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8", newline="")
    return sources


def same_document(source: str, gold: str) -> bool:
    """Whether a file is a gold document: by name, or by the number that a brief shares with its original (000-… and 000_….txt)."""
    name = Path(source).name
    numbered = [text[:3] if text[:3].isdigit() and text[3:4] in ("-", "_") else None for text in (name, gold)]
    return name == gold or Path(name).stem == gold or (numbered[0] is not None and numbered[0] == numbered[1])
