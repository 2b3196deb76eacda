"""Who did what: whether what a claim names, counts, compares or denies stands where the evidence puts it. Pure; English only.

No parser: a thing's place is told by the words around it, on which side and how near. `A beat B` and `B was beaten by A` put A and B in the same
places, `B beat A` exchanges them.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from index.words import FUNCTION_WORDS, WORD, stem
from rag.facts import HYPHEN, alike, directions, name_runs, negations, one_name, plain_opening, quantities

REACH = 4
"""How many words that carry meaning are looked at on each side of a thing."""

OTHER_SIDE = 0.4
"""What a word counts that stands near a thing, but on its other side."""

SPARSE = 1.7
"""What stands around a place weighs at least this: a lone neighbour, or one beyond a comma, proves little."""

_BREAK = re.compile(r"[,;:—–]|--|\b(?:but|while|whereas|although|though|instead)\b", re.IGNORECASE)
_BY = re.compile(r"\W*(?:\w+\W+)??by\b")
_BE = frozenset(("is", "are", "was", "were", "be", "been", "being"))
_ARTICLES = frozenset(("the", "a", "an"))
_LINKS = frozenset("by from to into of over against in on at for with under after before than between as".split())  # noqa: SIM905

Kind = Literal["word", "thing", "name", "number", "direction", "denial"]


@dataclass(frozen=True, slots=True)
class Unit:
    """A word that carries meaning, or a name, quantity, direction or denial as a whole; a `thing` is a word behind an article.

    `clause` counts the clauses before it; `turned` marks a verb in the passive, whose sides are exchanged; `link` is the preposition right before
    it; `aside` tells that it stands in brackets.
    """

    kind: Kind
    value: tuple[str, ...]
    clause: int
    turned: bool
    link: str
    aside: bool
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Place:
    """Something in a sentence and what stands around it: for each neighbouring stem its weight, less the farther away and negative before it."""

    kind: Kind
    value: tuple[str, ...]
    aside: bool
    around: tuple[tuple[str, float], ...]


def _kinds(sentence: str) -> list[tuple[int, int, Kind, tuple[str, ...]]]:
    """Where the names, quantities, directions and denials of a sentence stand; where two would overlap, the first in this order."""
    found: list[tuple[int, int, Kind, tuple[str, ...]]] = []
    marked: list[tuple[int, int, Kind, tuple[str, ...]]] = [(start, end, "denial", ()) for start, end in negations(sentence)]
    marked += [(start, end, "number", (value,)) for start, end, value in quantities(sentence)]
    marked += [(start, end, "name", stems) for start, end, stems in name_runs(sentence)]
    marked += [(start, end, "direction", (str(row), str(column))) for start, end, (row, column) in directions(sentence)]
    for start, end, kind, value in marked:
        if not any(start < until and begun < end and (start, end, kind) != (begun, until, "number") for begun, until, _, _ in found):
            found.append((start, end, kind, value))
    return sorted(found)


def _asides(sentence: str) -> list[tuple[int, int]]:
    """What stands in brackets. One that was opened in the sentence before, or is closed in the next, counts."""
    found: list[tuple[int, int]] = []
    opened: list[int] = []
    for match in re.finditer(r"[()\[\]]", sentence):
        if match.group() in "([":
            opened.append(match.start())
        elif opened:
            found.append((opened.pop(), match.end()))
        else:
            found.append((0, match.end()))
    return found + [(start, len(sentence)) for start in opened]


@lru_cache(maxsize=4096)
def units(sentence: str) -> tuple[Unit, ...]:
    """A sentence's units in order; function words are left out."""
    marked = _kinds(sentence)
    covered = [(start, end) for start, end, _, _ in marked]
    plain: list[tuple[int, int, Kind, tuple[str, ...]]] = []
    for word in WORD.finditer(sentence):
        if any(start < word.end() and word.start() < end for start, end in covered):
            continue
        at = word.start()
        for piece in HYPHEN.split(word.group()):
            if re.sub(r"['’]s$", "", piece.lower()) not in FUNCTION_WORDS and piece:
                plain.append((at, at + len(piece), "word", (stem(piece),)))
            at += len(piece) + 1
    breaks = [match.start() for match in _BREAK.finditer(sentence)]
    asides = _asides(sentence)
    found = []
    for start, end, kind, value in sorted(marked + plain):
        before = sentence[max(0, start - 60) : start].lower().split()[-2:]
        turned = kind in ("word", "direction") and bool(_BE & set(before)) and _BY.match(sentence, end) is not None
        if kind == "word" and before and before[-1] in _ARTICLES:
            kind = "thing"
        link = before[-1] if before and before[-1] in _LINKS else ""
        found.append(
            Unit(kind, value, sum(at < start for at in breaks), turned, link, any(begun <= start < until for begun, until in asides), start, end)
        )
    return tuple(found)


def _around(all_units: Sequence[Unit], before: int, after: int, clause: int, link: str, aside: bool) -> tuple[tuple[str, float], ...]:
    """What stands around a place between two units: up to REACH words each way, a clause's end counts as one."""
    around: list[tuple[str, float]] = []
    for step, others in ((-1, all_units[before::-1] if before >= 0 else ()), (1, all_units[after:])):
        distance, at, side = 0, clause, step
        for other in others:
            if other.kind == "denial" or (other.aside and not aside):
                continue
            distance += 1 + (other.clause != at)
            at = other.clause
            if distance > REACH:
                break
            if other.turned:
                side = -step  # what did it follows, and what it was done to went before
            words = ("/".join(other.value),) if other.kind == "direction" else other.value
            around += [(word, side / distance / len(words)) for word in words]
    if link:
        around.append((f"{link} ", -0.5))
    return tuple(around)


@lru_cache(maxsize=4096)
def places(sentence: str) -> tuple[Place, ...]:
    """The places of a sentence's names, quantities, directions, denials and things."""
    found = units(sentence)
    made = []
    for at, unit in enumerate(found):
        if unit.kind != "word":
            near = _next_words(sentence, unit.start, unit.end) if unit.kind == "denial" else ()
            made.append(Place(unit.kind, unit.value, unit.aside, _around(found, at - 1, at + 1, unit.clause, unit.link, unit.aside) + near))
    return tuple(made)


@lru_cache(maxsize=4096)
def gaps(sentence: str) -> tuple[Place, ...]:
    """The places before a sentence's words at which nothing is denied."""
    found = units(sentence)
    starts = [unit.start for unit in found]
    denials = {unit.start for unit in found if unit.kind == "denial"}
    made = []
    for word in WORD.finditer(sentence):
        at = bisect_left(starts, word.start())
        if word.start() not in denials and not (at and found[at - 1].start in denials and found[at - 1].end >= word.start() - 1):
            here = found[at] if at < len(found) else found[-1] if found else None
            clause, aside = (here.clause, here.aside) if here else (0, False)
            around = _around(found, at - 1, at, clause, "", aside) + _next_words(sentence, word.start(), word.start())
            made.append(Place("denial", (), aside, around))
    return tuple(made)


def _next_words(sentence: str, start: int, end: int) -> tuple[tuple[str, float], ...]:
    """The word before a denial and the two behind it, function words as well: `not the same as` denies no more than that."""
    before = WORD.findall(sentence[max(0, start - 60) : start])[-1:]
    after = WORD.findall(sentence[end : end + 60])[:2]
    return (*((f"{word.lower()} ", -0.5) for word in before), (" ".join(["", *map(stem, after)]), 1.0))


@lru_cache(maxsize=200_000)
def fit(place: Place, other: Place) -> float:
    """How much of what stands around one place stands around another, from 0 to 1."""
    got = 0.0
    for word, weight in place.around:
        got += max(
            (
                min(abs(weight), abs(near)) * (1.0 if weight * near > 0 else OTHER_SIDE)
                for there, near in other.around
                if word == there or alike(word, there)
            ),
            default=0.0,
        )
    return got / max(SPARSE, sum(abs(weight) for _, weight in place.around))


def same(place: Place, other: Place) -> bool:
    """Whether what stands in two places is one: the shorter name is part of the longer, the number has the same value."""
    if place.kind != other.kind:
        return False
    if place.kind == "name":
        shorter, longer = sorted((place.value, other.value), key=len)
        return all(any(one_name(word, there) for there in longer) for word in shorter)
    if place.kind == "number":
        return place.value == other.value or (place.value[0].split()[0] == other.value[0].split()[0] and not place.value[0][0].isalpha())
    return place.value == other.value


def rivals(place: Place, other: Place) -> bool:
    """Whether what stands in one place could stand in the other and would change what is said. What is named in brackets takes nobody's place."""
    if place.kind != other.kind or same(place, other):
        return False
    if place.kind == "direction":
        return place.value[0] == other.value[0]
    if place.kind == "number":
        # A month rivals a month, a day a day, and any other quantity any other.
        sorts = [quantity.value[0].split()[0] for quantity in (place, other)]
        return sorts[0] == sorts[1] or not any(sort.isalpha() for sort in sorts)
    return place.kind == "thing" or (place.kind == "name" and (place.aside or not other.aside))


@dataclass(frozen=True, slots=True)
class Setting:
    """The places of one or more sentences, and the gaps between their words, where a denial could stand and does not.

    `certain` leaves out what may be no name: a word whose capital may come only from standing first.
    """

    places: tuple[Place, ...]
    certain: tuple[Place, ...]
    gaps: tuple[Place, ...]


@lru_cache(maxsize=4096)
def setting(sentences: tuple[str, ...], known: frozenset[str]) -> Setting:
    """What stands where in some sentences. `known` are the words that are names even where they stand first."""
    found: list[Place] = []
    certain: list[Place] = []
    for sentence in sentences:
        opening = plain_opening(sentence)
        here = places(sentence)
        found += here
        certain += [place for place in here if place.kind != "name" or place.value != (opening,) or opening in known]
    return Setting(tuple(found), tuple(certain), tuple(gap for sentence in sentences for gap in gaps(sentence)))


def joined(settings: Sequence[Setting]) -> Setting:
    """Several settings as one, repeats left out."""
    return Setting(
        tuple(dict.fromkeys(place for one in settings for place in one.places)),
        tuple(dict.fromkeys(place for one in settings for place in one.certain)),
        tuple(dict.fromkeys(gap for one in settings for gap in one.gaps)),
    )


def displaced(claim: Setting, source: Sequence[Place], everywhere: Sequence[Place], rivalling: Sequence[Place]) -> float:
    """How plainly something else holds a place of the claim, from 0 to 1: two names, numbers or things exchanged, or one where a rival stands.

    What the claim tells is looked for in the `source`, and `everywhere` where that does not tell it at all; its rivals are looked for among
    `rivalling`. A rival that the claim itself puts where it stands is none, and a common word has only those that the claim holds too.
    """
    worst = 0.0
    for place in claim.certain:
        if place.kind == "denial":
            continue
        held: float | None = None
        for there in rivalling:
            if not rivals(place, there):
                continue
            kept = [other for other in claim.places if same(other, there)]
            if place.kind == "thing" and not kept:
                continue
            taken = fit(_exchanged(place, there) if kept else place, there)
            if taken <= worst:
                continue
            if held is None:
                own = [fit(place, other) for other in source if same(place, other)]
                held = max(own or (fit(place, other) for other in everywhere if same(place, other)), default=0.0)
            worst = max(worst, taken - max([held, *(fit(other, there) for other in kept)]))
    return worst


@lru_cache(maxsize=20_000)
def _exchanged(place: Place, other: Place) -> Place:
    """A place as it would be were it exchanged with another of its sentence: where that stood near it, it now stands near that."""
    swap = dict(zip(other.value, place.value * len(other.value), strict=False))
    return Place(place.kind, place.value, place.aside, tuple((swap.get(word, word), weight) for word, weight in place.around))


def denied(claim: Setting, source: Setting, stated: Sequence[Place]) -> float:
    """How plainly one side denies what the other says outright, from 0 to 1. What the claim denies may be `stated` anywhere in the evidence."""
    worst = 0.0
    for denials, others, gaps in ((claim.places, source.places, stated), (source.places, claim.places, claim.gaps)):
        for place in denials:
            if place.kind == "denial":
                own = max((fit(place, there) for there in others if there.kind == "denial"), default=0.0)
                worst = max([worst, *(fit(place, gap) - own for gap in gaps)])
    return worst
