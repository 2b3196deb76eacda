"""Rankings of documents: what they are worth, by ir-measures, and the plain rankers that search is compared with."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.words import content_stems

DEEPEST = 20
"""How far down a ranking recall is told."""

FUSION_OFFSET = 60
"""Reciprocal rank fusion's constant of Cormack et al. (2009)."""

SATURATION, LENGTH = 1.2, 0.75
"""BM25's k1 and b, as Lucene has them."""


def documents_of(passages: Sequence[str]) -> list[str]:
    """The documents of ranked passages; each counts once, at its best passage."""
    return list(dict.fromkeys(passages))


def worth(ranking: Sequence[str], relevant: Sequence[str]) -> dict[str, float]:
    """Recall at 1 to 20, reciprocal rank and nDCG@10 of one ranking, in [0, 1]."""
    import ir_measures

    run = [ir_measures.ScoredDoc("q", document, float(-rank)) for rank, document in enumerate(ranking)]
    gold = [ir_measures.Qrel("q", document, 1) for document in dict.fromkeys(relevant)]
    found = {metric.measure: metric.value for metric in ir_measures.iter_calc(list(_measures()), gold, run)}
    return {name: round(float(found.get(measure, 0.0)), 6) for measure, name in _measures().items()}


@cache
def _measures() -> dict[Any, str]:
    from ir_measures import RR, R, nDCG

    return {**{R @ k: f"document recall@{k}" for k in range(1, DEEPEST + 1)}, RR: "MRR", nDCG @ 10: "nDCG@10"}


class PlainRankers:
    """The embedding alone, BM25 alone and their fusion over the same passages: neither titles nor headings nor anything of our own search.

    `owners` are the passages' documents; `vectors` are their unit embeddings, a row a passage.
    """

    def __init__(self, texts: Sequence[str], owners: Sequence[str], vectors: NDArray[np.float32]) -> None:
        self._owners = owners
        self._vectors = vectors
        self._counts = [Counter(content_stems(text)) for text in texts]
        lengths = np.array([sum(counts.values()) for counts in self._counts], dtype=np.float64)
        self._norms = SATURATION * (1 - LENGTH + LENGTH * lengths / max(1.0, lengths.mean() if len(lengths) else 1.0))
        self._postings: dict[str, list[int]] = {}
        for number, counts in enumerate(self._counts):
            for stem in counts:
                self._postings.setdefault(stem, []).append(number)

    def rank(self, question: str, vector: NDArray[np.float32]) -> Mapping[str, list[str]]:
        """The documents that each ranker finds for a question, best first, by the ranker's name."""
        by_meaning = list(np.argsort(-(self._vectors @ vector), kind="stable"))
        scores = np.zeros(len(self._owners))
        for stem in set(content_stems(question)):
            at = self._postings.get(stem, [])
            rarity = math.log(1 + (len(self._owners) - len(at) + 0.5) / (len(at) + 0.5))
            for number in at:
                times = self._counts[number][stem]
                scores[number] += rarity * times * (SATURATION + 1) / (times + self._norms[number])
        by_words = [number for number in np.argsort(-scores, kind="stable") if scores[number] > 0]
        fused: dict[int, float] = {}
        for ranking in (by_meaning, by_words):
            for rank, number in enumerate(ranking):
                fused[number] = fused.get(number, 0.0) + 1 / (FUSION_OFFSET + rank + 1)
        found = {"embedding alone": by_meaning, "BM25 alone": by_words, "their fusion": sorted(fused, key=lambda number: -fused[number])}
        return {name: documents_of([self._owners[number] for number in ranking])[:DEEPEST] for name, ranking in found.items()}
