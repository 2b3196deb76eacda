"""Finds passages by meaning and by words, and fuses the two; looks a second time for what the first passages name and leave open."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from index.contract import DocumentStore
from index.embed import Embedder
from index.hops import onward
from index.remember import Remembered
from index.threads import in_front
from index.types import Hit, Passage

POOL = 100
"""How many passages meaning and words contribute each."""

MEANING = 0.6
"""The share of the cosine in a passage's score, the rest is BM25's; each is divided by its best. docs/benchmarks.md says how it was chosen."""

FIRST_LOOK = 3
"""So many hits keep their places before what the second look found."""

SECOND_LOOK_POOL = 20
"""How many passages each question of the second look brings."""

SECOND_LOOK, NEAR_ENOUGH = 2.0, 0.6
"""What the nearness of its findings counts, and the cosine from which it does: below it, a question that one passage answers loses more than
others gain. A cosine of the default model; docs/benchmarks.md says how it was chosen."""

ATTEMPTS = 3
"""A question begins anew where what it found was replaced meanwhile, so often in all."""

HALF = re.compile("[\ud800-\udfff]")
"""Half a character, which stands in no document's name."""

_beside = ThreadPoolExecutor(32, thread_name_prefix="citewell-words")
"""Threads that last, as each has its own connection to a store; so many that nobody waits for another's words."""


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


def search(
    store: DocumentStore, embedder: Embedder | Remembered, question: str | Sequence[Query], limit: int = 5, documents: Sequence[str] | None = None
) -> list[Hit]:
    """The best passages for a question, or for several queries that say it, best first. `documents` narrows to ids or sources.

    Words alone find them while a large embedding model is loaded in the background. Raises KeyError with the first name that is no document.
    """
    chosen = None if documents is None else _resolve(store, documents)
    with in_front():
        return _found(store, embedder, [Query(question)] if isinstance(question, str) else list(question), limit, chosen, ATTEMPTS - 1)


def _found(
    store: DocumentStore,
    embedder: Embedder | Remembered,
    queries: Sequence[Query],
    limit: int,
    chosen: Sequence[str] | None,
    attempts_left: int,
) -> list[Hit]:
    # Words are looked up while the model reads: both leave the interpreter to others.
    matching = [_beside.submit(store.matching, query.text, max(POOL, limit), chosen) for query in queries]
    with_meaning = not isinstance(embedder, Remembered) or embedder.soon()
    near_each = (
        store.nearest_each(embedder.embed([query.text for query in queries]), max(POOL, limit), chosen) if with_meaning else [[]] * len(queries)
    )
    scores: dict[str, float] = {}
    similarity: dict[str, float] = {}
    for query, near, said in zip(queries, near_each, matching, strict=True):
        # Rounded: the last digits depend on how many passages were compared in one go.
        meaning = {identifier: round(cosine, 6) for identifier, cosine in near}
        words = dict(said.result())
        for identifier, score in fuse(meaning, words).items():
            scores[identifier] = scores.get(identifier, 0.0) + query.weight * score
        similarity = similarity or meaning
    ranked = sorted(scores, key=lambda identifier: -scores[identifier])[: max(limit, POOL)]
    passages, all_there = _read(store, ranked, max(limit, FIRST_LOOK))
    if with_meaning and limit > FIRST_LOOK and passages and (all_there or not attempts_left):
        passages, scores, all_there = _looked_again(store, embedder, queries[0].text, ranked, scores, passages, limit, chosen)
    if attempts_left and not all_there:
        # What was replaced since it was found is there in another version, which must be found as well.
        return _found(store, embedder, queries, limit, chosen, attempts_left - 1)
    return [Hit(passage, scores[passage.id], similarity.get(passage.id)) for passage in passages[:limit]]


def _read(store: DocumentStore, ranked: Sequence[str], wanted: int) -> tuple[list[Passage], bool]:
    """The first passages that are still there, so many or all, and whether each that was read was there.

    The text of what nobody sees stays unread.
    """
    found: list[Passage] = []
    read = 0
    for start in range(0, len(ranked), wanted):
        batch = ranked[start : start + wanted]
        known = store.passages(batch)
        read += len(batch)
        found += [known[identifier] for identifier in batch if identifier in known]
        if len(found) >= wanted:
            break
    return found, len(found) == read


def _looked_again(
    store: DocumentStore,
    embedder: Embedder | Remembered,
    question: str,
    ranked: Sequence[str],
    scores: Mapping[str, float],
    passages: Sequence[Passage],
    limit: int,
    chosen: Sequence[str] | None,
) -> tuple[list[Passage], dict[str, float], bool]:
    """The first `limit` passages, and scores, with what the best leads to: `Who wrote the song that Hello Love is on?` finds the song first, then its writer.

    `passages` are the first of `ranked` that are there. Returns as well whether each passage that was read was there.
    """
    origin = passages[0]
    steps = onward(question, origin)
    if not steps:
        return list(passages), dict(scores), True
    gains: dict[str, float] = {}
    for hits in store.nearest_each(embedder.embed(steps), SECOND_LOOK_POOL, chosen, at_least=NEAR_ENOUGH):
        for identifier, cosine in hits:
            if cosine >= NEAR_ENOUGH:
                gains[identifier] = max(gains.get(identifier, 0.0), SECOND_LOOK * round(cosine, 6) * scores[origin.id])
    known = {passage.id: passage for passage in passages}
    first = [passage.id for passage in passages[:FIRST_LOOK]]
    gone = set(ranked[: max((place for place, one in enumerate(ranked) if one in known), default=-1) + 1]) - known.keys()
    # What a passage can come to at most, before it is known whether it is of the document that led to it.
    most = {one: scores.get(one, 0.0) + gains.get(one, 0.0) for one in [*ranked, *gains]}
    order = sorted((one for one in most if one not in first and one not in gone), key=lambda one: -most[one])
    rest: dict[str, float] = {}
    all_there = True
    for start in range(0, len(order), limit):
        batch = order[start : start + limit]
        known.update(store.passages([one for one in batch if one not in known]))
        all_there = all_there and all(one in known for one in batch)
        for one in batch:
            gain = gains.get(one, 0.0) if one in known and known[one].document_id != origin.document_id else 0.0
            if one in known and (gain or one in scores):
                rest[one] = scores.get(one, 0.0) + gain
        following = most[order[start + limit]] if start + limit < len(order) else 0.0
        if sum(score >= following for score in rest.values()) >= limit - len(first):
            break
    # Scores order the hits: what the second look lifted stays below what the first put in front.
    shrink = min(1.0, scores[first[-1]] / max(rest.values(), default=1.0)) if rest else 1.0
    final = {**{one: shrink * score for one, score in rest.items()}, **{one: scores[one] for one in first}}
    return [known[one] for one in [*first, *sorted(rest, key=lambda one: -rest[one])][:limit]], final, all_there


def _resolve(store: DocumentStore, names: Sequence[str]) -> list[str]:
    known = store.ids_of([name for name in names if not HALF.search(name)])
    return [identifier for name in names for identifier in known[name]]
