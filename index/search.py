"""Finds passages by meaning and by words, and fuses the two rankings into one."""

from __future__ import annotations

from collections.abc import Sequence

from index.embed import Embedder
from index.store import Store
from index.types import Hit

POOL = 40
"""How many passages each of the two rankings contributes."""

RANK_OFFSET = 10
"""Reciprocal rank fusion's constant: smaller trusts the top ranks more. Cormack et al. (2009) use 60 for pools of a thousand."""


def fuse(rankings: Sequence[Sequence[str]], weights: Sequence[float]) -> list[tuple[str, float]]:
    """Weighted reciprocal rank fusion: ids with their scores, best first; ties keep the first ranking's order."""
    scores: dict[str, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, identifier in enumerate(ranking):
            scores[identifier] = scores.get(identifier, 0.0) + weight / (RANK_OFFSET + rank + 1)
    return sorted(scores.items(), key=lambda pair: -pair[1])


def search(store: Store, embedder: Embedder, question: str, limit: int = 5, documents: Sequence[str] | None = None) -> list[Hit]:
    """The best passages for a question, best first. `documents` narrows to ids or sources.

    Raises KeyError with the first name that is no document.
    """
    chosen = None if documents is None else _resolve(store, documents)
    by_words = store.matching(question, POOL, chosen)
    by_meaning = store.nearest(embedder.embed([question])[0], POOL, chosen)
    # Rounded: the last digits depend on how many passages were compared in one go.
    similarity = {identifier: round(cosine, 6) for identifier, cosine in by_meaning}
    ranked = fuse([[identifier for identifier, _ in by_meaning], [identifier for identifier, _ in by_words]], [1.0, 1.0])[:limit]
    passages = store.passages([identifier for identifier, _ in ranked])
    return [Hit(passages[identifier], score, similarity.get(identifier)) for identifier, score in ranked if identifier in passages]


def _resolve(store: Store, names: Sequence[str]) -> list[str]:
    listing = store.documents()
    found = []
    for name in names:
        matches = [document.id for document in listing if name in (document.id, document.source)]
        if not matches:
            raise KeyError(name)
        found.extend(matches)
    return found
