"""Finds passages by meaning and by words, and fuses the two; looks a second time for what the first passages name and leave open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from index.embed import Embedder
from index.hops import onward
from index.store import Store
from index.types import Hit, Passage

POOL = 100
"""How many passages meaning and words contribute each."""

MEANING = 0.6
"""The share of the cosine in a passage's score, the rest is BM25's; each is divided by its best. docs/benchmarks.md says how it was chosen."""

FIRST_LOOK = 3
"""So many hits keep their places before what the second look found."""

SECOND_LOOK_FROM, SECOND_LOOK_POOL = 2, 40
"""From how many documents the second look sets out, and how many passages each of its questions brings."""

SECOND_LOOK, NEAR_ENOUGH = 2.0, 0.6
"""What the nearness of its findings counts, and the cosine from which it does: below it, a question that one passage answers loses more than
others gain. A cosine of the default model; docs/benchmarks.md says how it was chosen."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for, and what it counts beside the others."""

    text: str
    weight: float = 1.0


def fuse(meaning: Mapping[str, float], words: Mapping[str, float], share: float = MEANING) -> dict[str, float]:
    """Scores by id from cosines and BM25, each divided by its best; a passage that only words found counts as near as the farthest that meaning found."""
    nearest, most = max(meaning.values(), default=0.0), max(words.values(), default=0.0)
    farthest = max(0.0, min(meaning.values(), default=0.0))
    found = {}
    for identifier in [*meaning, *(identifier for identifier in words if identifier not in meaning)]:
        near = meaning.get(identifier, farthest) / nearest if nearest > 0 else 0.0
        said = words.get(identifier, 0.0) / most if most > 0 else 0.0
        found[identifier] = share * near + (1 - share) * said
    return found


def search(store: Store, embedder: Embedder, question: str | Sequence[Query], limit: int = 5, documents: Sequence[str] | None = None) -> list[Hit]:
    """The best passages for a question, or for several queries that say it, best first. `documents` narrows to ids or sources.

    Raises KeyError with the first name that is no document.
    """
    chosen = None if documents is None else _resolve(store, documents)
    queries = [Query(question)] if isinstance(question, str) else list(question)
    vectors = embedder.embed([query.text for query in queries])
    scores: dict[str, float] = {}
    similarity: dict[str, float] = {}
    for query, vector in zip(queries, vectors, strict=True):
        # Rounded: the last digits depend on how many passages were compared in one go.
        meaning = {identifier: round(cosine, 6) for identifier, cosine in store.nearest(vector, max(POOL, limit), chosen)}
        words = dict(store.matching(query.text, max(POOL, limit), chosen))
        for identifier, score in fuse(meaning, words).items():
            scores[identifier] = scores.get(identifier, 0.0) + query.weight * score
        similarity = similarity or meaning
    ranked = sorted(scores, key=lambda identifier: -scores[identifier])
    passages = store.passages(ranked[: max(limit, POOL)])
    ranked = [identifier for identifier in ranked if identifier in passages]
    if limit > FIRST_LOOK and ranked:
        ranked, scores, passages = _looked_again(store, embedder, queries[0].text, ranked, scores, passages, chosen)
    return [Hit(passages[identifier], scores[identifier], similarity.get(identifier)) for identifier in ranked[:limit]]


def _looked_again(
    store: Store,
    embedder: Embedder,
    question: str,
    ranked: Sequence[str],
    scores: Mapping[str, float],
    passages: Mapping[str, Passage],
    chosen: Sequence[str] | None,
) -> tuple[list[str], dict[str, float], dict[str, Passage]]:
    """The ranking with what the best passages lead to: `Who wrote the song that Hello Love is on?` finds the song first, then its writer."""
    best: dict[str, str] = {}
    for identifier in ranked:
        best.setdefault(passages[identifier].document_id, identifier)
        if len(best) == SECOND_LOOK_FROM:
            break
    steps = [(origin, text) for origin in best.values() for text in onward(question, passages[origin])]
    if not steps:
        return list(ranked), dict(scores), dict(passages)
    found = [store.nearest(vector, SECOND_LOOK_POOL, chosen) for vector in embedder.embed([text for _, text in steps])]
    near = [
        (origin, identifier, cosine) for (origin, _), hits in zip(steps, found, strict=True) for identifier, cosine in hits if cosine >= NEAR_ENOUGH
    ]
    everything = {**passages, **store.passages([identifier for _, identifier, _ in near if identifier not in passages])}
    gains: dict[str, float] = {}
    for origin, identifier, cosine in near:
        if identifier in everything and everything[identifier].document_id != passages[origin].document_id:
            gains[identifier] = max(gains.get(identifier, 0.0), SECOND_LOOK * round(cosine, 6) * scores[origin])
    first = list(ranked[:FIRST_LOOK])
    rest = {one: scores.get(one, 0.0) + gains.get(one, 0.0) for one in [*ranked[FIRST_LOOK:], *gains] if one not in first}
    # Scores order the hits: what the second look lifted stays below what the first put in front.
    shrink = min(1.0, scores[first[-1]] / max(rest.values(), default=1.0)) if rest else 1.0
    final = {**{one: shrink * score for one, score in rest.items()}, **{one: scores[one] for one in first}}
    return first + sorted(rest, key=lambda one: -rest[one]), final, everything


def _resolve(store: Store, names: Sequence[str]) -> list[str]:
    listing = store.documents()
    found = []
    for name in names:
        matches = [document.id for document in listing if name in (document.id, document.source)]
        if not matches:
            raise KeyError(name)
        found.extend(matches)
    return found
