"""Which sentences of the passages the model reads: search finds broad passages, a prompt holds few words. Pure, given a function that embeds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from index.split import pieces
from index.types import Hit, Passage
from index.words import content_stems, numeric

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHARACTERS = 450
"""An excerpt is closed before it grows past this."""

MEANING, WORDS, PASSAGE = 0.5, 0.3, 0.2
"""What an excerpt's score is made of: its cosine, the words of the question that it holds, and the score of its passage; each divided by its best."""

ALIKE = 0.9
"""Excerpts that share this part of their words, and all numbers, are one to the reader."""


def chosen(question: str, hits: Sequence[Hit], limit: int, embed: Callable[[Sequence[str]], NDArray[np.float32]]) -> list[Hit]:
    """The best excerpts of the hits' passages, at most `limit`, best first; what repeats a better one is left out."""
    cut = [(hit, piece) for hit in hits for piece in pieces(hit.passage, CHARACTERS)]
    if not cut:
        return []
    asked = set(content_stems(question))
    held = [Counter(content_stems(f"{piece.heading} {piece.text}")) for _, piece in cut]
    rarity = {word: math.log(1 + len(cut) / (1 + sum(word in words for words in held))) for word in asked}
    said = [sum(rarity[word] for word in asked if word in words) for words in held]
    vectors = embed([question, *(f"{piece.title} > {piece.heading}\n{piece.text}" for _, piece in cut)])
    near = vectors[1:] @ vectors[0]
    nearest, most, top = max(float(near.max()), 1e-9), max(max(said), 1e-9), max(max(hit.score for hit in hits), 1e-9)
    scores = [
        MEANING * float(near[number]) / nearest + WORDS * said[number] / most + PASSAGE * hit.score / top for number, (hit, _) in enumerate(cut)
    ]
    found: list[Hit] = []
    kept: list[tuple[Counter[str], frozenset[str]]] = []
    for number in sorted(range(len(cut)), key=lambda number: -scores[number]):
        hit, piece = cut[number]
        told = numeric(piece.text)
        if any(told == numbers and _shared(held[number], words) >= ALIKE for words, numbers in kept):
            continue
        kept.append((held[number], told))
        found.append(replace(hit, passage=piece, score=scores[number]))
        if len(found) == limit:
            break
    return found


def _shared(first: Counter[str], second: Counter[str]) -> float:
    """The part of their words that two texts have in common."""
    union = sum((first | second).values())
    return sum((first & second).values()) / union if union else 1.0


def spread(hits: Sequence[Hit], limit: int) -> list[Hit]:
    """At most `limit` hits in their order, so that half of the places go to documents of which no better hit is there: a list draws on many."""
    if len(hits) <= limit:
        return list(hits)
    first = hits[: limit - limit // 2]
    known = {hit.passage.document_id for hit in first}
    fresh: list[int] = []
    for number, hit in enumerate(hits[len(first) :], len(first)):
        if hit.passage.document_id not in known:
            known.add(hit.passage.document_id)
            fresh.append(number)
    others = [number for number in range(len(first), len(hits)) if number not in fresh]
    chosen = sorted([*fresh, *others][: limit // 2])
    return [*first, *(hits[number] for number in chosen)]


def edges(passages: Sequence[Passage]) -> list[Hit]:
    """The beginning of a document's first passage and the end of its last, where bylines and dates stand."""
    if not passages:
        return []
    ends = [pieces(passages[0], CHARACTERS)[0], pieces(passages[-1], CHARACTERS)[-1]]
    return [Hit(piece, 0.0) for piece in dict.fromkeys(ends)]
