"""Answers without a language model: the documents' own sentences that bear most on the question. Pure, given a function that embeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from index.split import blocks, sentences
from index.types import Hit, Span
from index.words import content_stems
from rag.facts import names

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST = 3
"""How many sentences make an answer at most."""

NEAR = 0.9
"""A further sentence must score this part of the best one."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence of the evidence. `similarity` is its cosine with the question, `coverage` the part of the question's words that it and its surroundings hold."""

    hit: int
    span: Span
    similarity: float
    coverage: float
    names_told: bool

    @property
    def score(self) -> float:
        return self.similarity + 0.5 * self.coverage


def candidates(
    question: str, hits: Sequence[Hit], texts: Mapping[str, str], embed: Callable[[Sequence[str]], NDArray[np.float32]]
) -> list[Candidate]:
    """Every sentence of the hits' passages, best first; headings are left out."""
    asked = frozenset(content_stems(question))
    asked_names = names(question[0].lower() + question[1:])
    found: list[tuple[int, Span, str, str]] = []
    for number, hit in enumerate(hits):
        passage = hit.passage
        above = f"{passage.title} {passage.heading}"
        for block in blocks(passage.text):
            if block.level:
                continue
            before = above
            for sentence in sentences(passage.text[block.span.start : block.span.end]):
                start = passage.span.start + block.span.start + sentence.start
                text = texts[passage.document_id][start : start + sentence.end - sentence.start]
                found.append((number, Span(start, start + len(text)), text, before))
                before = f"{before} {text}"
    if not found:
        return []
    vectors = embed([question, *(text for _, _, text, _ in found)])
    closeness = vectors[1:] @ vectors[0]
    ranked = []
    for (number, span, text, before), similarity in zip(found, closeness, strict=True):
        near = frozenset(content_stems(f"{before} {text}"))
        own = frozenset(content_stems(text))
        coverage = (len(asked & own) + 0.5 * len((asked & near) - own)) / max(1, len(asked))
        ranked.append(Candidate(number, span, float(similarity), coverage, asked_names <= near | names(f"{before} {text}")))
    return sorted(ranked, key=lambda candidate: (-candidate.score, candidate.hit, candidate.span.start))


def choose(ranked: Sequence[Candidate]) -> list[Candidate]:
    """The sentences that make the answer: the best, and those that score nearly as high."""
    if not ranked:
        return []
    floor = NEAR * ranked[0].score
    return [candidate for candidate in ranked if candidate.score >= floor][:MOST]
