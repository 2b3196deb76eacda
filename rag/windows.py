"""The evidence as verification reads it: windows of one to three neighbouring sentences, and what each of them holds. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from index.split import paragraphs, sentences
from index.types import Hit, Span
from index.words import WORD, content_stems, stem
from rag.facts import HYPHEN, later_names, name_runs, names, numbers, own_subject
from rag.roles import Setting, joined, setting

WINDOW = 3
"""The longest run of neighbouring sentences that may be quoted for one sentence."""

TOPIC_CHARACTERS = 100_000
"""How far into a document its topics are looked for."""

PARAGRAPH_CHARACTERS = 1_500
"""How far back from a passage the beginning of its first paragraph is looked for."""

_LIST = re.compile(
    r"\b[A-Z][\w.’'-]*(?: [A-Z\d][\w.’'-]*)*(?:, (?:and |or )?[A-Z][\w.’'-]*(?: [A-Z\d][\w.’'-]*)*| (?:and|or|vs\.?) [A-Z][\w.’'-]*(?: [A-Z\d][\w.’'-]*)*)+"
)
_FULL_NAME = re.compile(r"\b[A-Z]\w+(?: [A-Z]\w+){1,3}\b")


@dataclass(frozen=True, slots=True)
class Window:
    """Neighbouring sentences of one paragraph of one document, and what they hold. `told` are the names
    told before them in the paragraph, `context` those and the ones above it, `title` the stems of the document's title,
    `lines` the stems of each sentence, `subjects` the name that each opens with."""

    hit: int
    document_id: str
    span: Span
    text: str
    stems: frozenset[str]
    numbers: frozenset[str]
    names: frozenset[str]
    told: frozenset[str]
    context: frozenset[str]
    title: frozenset[str]
    lines: tuple[frozenset[str], ...]
    subjects: tuple[frozenset[str], ...]
    setting: Setting


@dataclass(frozen=True, slots=True)
class Evidence:
    """All windows of the passages; the names of several words that they tell (`Jordan Schneider`), each as (stems, last stem).

    By document id, `topics` are the names that the document is about, so that its sentences may leave them out, and `siblings` the names that it lists
    side by side: a sentence that tells one of them and not the other is not about the other.
    """

    windows: tuple[Window, ...]
    full_names: tuple[tuple[frozenset[str], str], ...]
    topics: Mapping[str, frozenset[str]]
    siblings: Mapping[str, Mapping[str, frozenset[str]]]
    whole: Setting


def gather(hits: Sequence[Hit], texts: Mapping[str, str]) -> Evidence:
    """All windows of the hits' passages. `texts` holds the stored text of every hit's document, by document id."""
    known = frozenset().union(*(later_names(hit.passage.text[line.start : line.end]) for hit in hits for line in sentences(hit.passage.text)))
    found: list[Window] = []
    everywhere: list[Setting] = []
    told: dict[frozenset[str], str] = {}
    for number, hit in enumerate(hits):
        passage = hit.passage
        above = names(f"{passage.title} {passage.heading}")
        titled = frozenset(content_stems(passage.title))
        for match in _FULL_NAME.finditer(passage.text):
            pieces = [stem(word) for word in WORD.findall(match.group())]
            if not match.group().split()[-1].isupper():
                told[frozenset(pieces)] = pieces[-1]
        whole = texts[passage.document_id]
        for paragraph in paragraphs(passage.text):
            # A paragraph can have begun in the passage before.
            opening = max(whole.rfind("\n", 0, passage.span.start + paragraph[0].start), passage.span.start - PARAGRAPH_CHARACTERS) + 1
            written = [passage.text[line.start : line.end] for line in paragraph]
            everywhere.append(setting(tuple(written), known))
            lines = tuple(frozenset(content_stems(line)) | names(line) for line in written)
            subjects = tuple(own_subject(line) for line in written)
            for first in range(len(paragraph)):
                before = names(whole[opening : passage.span.start + paragraph[first].start])
                for last in range(first, min(first + WINDOW, len(paragraph))):
                    span = Span(passage.span.start + paragraph[first].start, passage.span.start + paragraph[last].end)
                    text = whole[span.start : span.end]
                    held = lines[first : last + 1]
                    stems = frozenset().union(*held)
                    found.append(
                        Window(
                            number,
                            passage.document_id,
                            span,
                            text,
                            stems,
                            numbers(text),
                            names(text),
                            before,
                            before | above,
                            titled,
                            held,
                            subjects[first : last + 1],
                            setting(tuple(written[first : last + 1]), known),
                        )
                    )
    heads = {hit.passage.document_id: texts[hit.passage.document_id][:TOPIC_CHARACTERS] for hit in hits}
    topics = {document_id: _topics(head) for document_id, head in heads.items()}
    return Evidence(
        tuple(found), tuple(told.items()), topics, {document_id: _siblings(head) for document_id, head in heads.items()}, joined(everywhere)
    )


@lru_cache(maxsize=256)
def _siblings(text: str) -> Mapping[str, frozenset[str]]:
    """Names that a text lists side by side (`Alibaba, ByteDance and Kuaishou`), each with all that it stands beside somewhere."""
    found: dict[str, set[str]] = {}
    for listed in _LIST.finditer(text):
        row = {run[-1] for _, _, run in name_runs(listed.group())}
        for name in row:
            found.setdefault(name, set()).update(row - {name})
    return {name: frozenset(others) for name, others in found.items()}


@lru_cache(maxsize=256)
def _topics(text: str) -> frozenset[str]:
    """The names that a text tells nearly as often as any: what it is about."""
    counts = Counter(stem(piece) for word in WORD.findall(text) for piece in HYPHEN.split(word) if names(piece))
    most = max(counts.values(), default=0)
    return frozenset(name for name, count in counts.items() if count >= max(4, 0.3 * most))
