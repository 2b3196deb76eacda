"""Whether the evidence bears a sentence out: which windows of it, and how well. Pure.

A window supports a sentence when it holds the sentence's words, every number and every name in it, and does not say otherwise: who did it, what is
counted, compared or denied stands where the sentence puts it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from index.split import sentences
from index.words import content_stems
from rag.facts import (
    held_numbers,
    is_among,
    name_runs,
    names,
    negations,
    numbers,
    one_name,
    plain_opening,
    quantities,
    sets_the_scene,
    versions,
)
from rag.roles import Setting, denied, displaced, joined, setting
from rag.windows import Evidence, Window

SUPPORT_FRESH = 0.6
SUPPORT = 0.5
"""The least part of a sentence's words that its spans must hold: of those that the question did not hold already, and of all."""

OWN = 0.4
"""The least part of a sentence's words that a window must hold itself before names told elsewhere count for it."""

DISPLACED = 0.32
DENIED = 0.6
"""How much better, from 0 to 1, something else may fit a place than what the sentence puts there, and a denial on one side alone, before the evidence
says otherwise. Fitted on half of ClapNQ's questions."""

LENGTH = 0.004
"""What a character of a span costs, in words borne out."""

SPANS = 4
"""The most spans that one sentence may need together: a list can draw on several places."""


_PRONOUN = re.compile(r"\W*(?:it|they|he|she|this|these|those|its|their|his|her)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a sentence of the draft says, as it is compared.

    `fresh` are the stems that the question did not hold. `subject` is the name that comes first; `bound` pairs each number with the name before it,
    `written` the numbers told by one expression with its stems: `12 March` is borne out by `2024-03-12`, in other words.
    """

    text: str
    stems: frozenset[str]
    fresh: frozenset[str]
    numbers: frozenset[str]
    names: frozenset[str]
    subject: frozenset[str]
    bound: tuple[tuple[str, str], ...]
    written: tuple[tuple[frozenset[str], frozenset[str]], ...]
    setting: Setting


def claim(sentence: str, question: str, known: frozenset[str], told: frozenset[str]) -> Claim:
    """What a sentence says. `known` are names that evidence or question tell elsewhere than at a sentence's start, `told` all their stems."""
    stems = frozenset(stem for stem in content_stems(sentence) if not negations(stem))  # `hasn't` is told by `has not`
    found = names(sentence)
    expressions: dict[tuple[int, int], set[str]] = {}
    for start, end, quantity in quantities(sentence):
        expressions.setdefault((start, end), set()).add(quantity)
    opening = plain_opening(sentence)
    # `Improving …` is no name; but a first word that nobody told, where a subject stands, may be one that the model made up.
    if opening is not None and opening not in known and (opening in told or sets_the_scene(sentence)):
        found -= {opening}
    runs = [(at, [name for name in run if name in found]) for at, _, run in name_runs(sentence)]
    runs = [(at, run) for at, run in runs if run]
    before = [(quantity, [run[-1] for start, run in runs if start < at][-1:]) for at, _, quantity in quantities(sentence)]
    return Claim(
        sentence,
        stems,
        stems - frozenset(content_stems(question)),
        numbers(sentence),
        frozenset(found),
        frozenset(runs[0][1]) if runs else frozenset(),
        tuple((quantity, nearest[0]) for quantity, nearest in before if nearest),
        tuple((frozenset(told), frozenset(content_stems(sentence[start:end])) & stems) for (start, end), told in expressions.items()),
        setting((sentence,), known),
    )


def _held_names(wanted: frozenset[str], there: frozenset[str]) -> frozenset[str]:
    return frozenset(name for name in wanted if name in there or any(one_name(name, other) for other in there))


@lru_cache(maxsize=4096)  # windows overlap, so the same line is asked for several times over
def _held(wanted: frozenset[str], there: frozenset[str]) -> frozenset[str]:
    return frozenset(word for word in wanted if is_among(word, there))


@dataclass(frozen=True, slots=True)
class Cover:
    """What of a sentence some windows bear out so far. `inferred` names stand near them, not in them."""

    stems: frozenset[str] = frozenset()
    numbers: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    inferred: frozenset[str] = frozenset()

    def joined(self, other: Cover) -> Cover:
        names = self.names | other.names
        return Cover(self.stems | other.stems, self.numbers | other.numbers, names, (self.inferred | other.inferred) - names)

    def suffices(self, sentence: Claim) -> bool:
        """Every number and name, and enough of the words: of all, and of those that answer."""
        exact = sentence.numbers <= self.numbers and sentence.names <= self.names | self.inferred
        return (
            exact and 0 < SUPPORT * len(sentence.stems) <= len(self.stems) and SUPPORT_FRESH * len(sentence.fresh) <= len(self.stems & sentence.fresh)
        )

    def worth(self, sentence: Claim) -> float:
        """How much is borne out: words once, words that the question did not hold twice, numbers and names twice more, inferred names little."""
        return len(self.stems) + len(self.stems & sentence.fresh) + 2.0 * len(self.numbers) + 2.0 * len(self.names) + 0.5 * len(self.inferred)


def _cover(sentence: Claim, window: Window, evidence: Evidence) -> Cover:
    own = _held(sentence.stems, window.stems)
    names_held = _held_names(sentence.names, window.names | window.stems)
    # What the question and the document's title both say, the document need not repeat: it is the one that is asked about.
    titled = _held(sentence.stems - sentence.fresh, window.title) if own & sentence.fresh else frozenset()
    inferred = _held_names(sentence.names - names_held, window.title) if titled else frozenset()
    if len(own | titled) >= OWN * len(sentence.stems):
        # A name that the window leaves to a pronoun counts when its paragraph or heading told it before, or the document is about it;
        # a first name when the last name stands there. A window that holds little else of the sentence earns no such trust.
        inferred |= _held_names(sentence.names - names_held, window.context | evidence.topics.get(window.document_id, frozenset()))
        for pieces, last in evidence.full_names:
            if last in names_held:
                inferred |= (sentence.names - names_held) & pieces
    said = [len(_held(sentence.stems, line)) for line in window.lines]
    speaks_of = window.subjects[said.index(max(said))] if said else frozenset()
    if speaks_of and not _held_names(speaks_of, sentence.names):
        inferred -= sentence.subject  # the sentence that says most of it is plainly about somebody else
    if window.told and _PRONOUN.match(window.text):
        # `It` is what its paragraph told, and not what the whole document is about.
        inferred = _held_names(inferred, window.told)
        titled -= sentence.names - inferred
    siblings = evidence.siblings.get(window.document_id, {})
    inferred = frozenset(name for name in inferred if not siblings.get(name, frozenset()) & window.names)
    counted = held_numbers(sentence.numbers, window.numbers)
    own |= frozenset().union(*(stems for told, stems in sentence.written if told <= counted))
    return Cover(own | titled | (inferred & sentence.stems), counted, names_held, inferred)


def support(sentence: Claim, evidence: Evidence) -> tuple[list[Window], float]:
    """The fewest, smallest windows that together bear the sentence out, and one of each other document that does so alone; empty when nothing does.

    With them how well it is borne out, from 0 to 1: at least 0.5 exactly where there are windows.
    """
    whole = Cover(sentence.stems, sentence.numbers, sentence.names).worth(sentence)
    found = [
        (window, _cover(sentence, window, evidence), _contradiction(sentence, window.setting, window.setting, evidence))
        for window in evidence.windows
    ]
    nearest = max((cover.worth(sentence) * (1 - min(1.0, otherwise / 4)) for _, cover, otherwise in found), default=0.0)
    refused = 0.49 * min(1.0, nearest / whole) if whole else 0.0
    agreeing = [(window, cover) for window, cover, otherwise in found if otherwise <= 1]
    parts = _chosen(sentence, agreeing)
    if not parts or not _hangs_together(sentence, parts):
        return [], refused
    parts = _shrunk(sentence, parts, agreeing)
    windows = list(dict.fromkeys(window for window, _ in parts))
    # Pieces can be found that agree, while the sentence which says most plainly what this is about says otherwise.
    doubt = _contradiction(sentence, joined([window.setting for window in windows]), evidence.whole, evidence)
    if doubt > 1:
        return [], refused
    total = Cover()
    for _, cover in parts:
        total = total.joined(cover)
    sure = min(1.0, total.worth(sentence) / whole) * (1 - doubt / 2)
    return windows + _others(sentence, agreeing, {window.document_id for window in windows}), 0.5 + sure / 2


def _contradiction(sentence: Claim, source: Setting, rivals: Setting, evidence: Evidence) -> float:
    """How plainly the rivals say otherwise than the sentence, the source borne in mind; above 1 they contradict it."""
    return max(
        displaced(sentence.setting, source.places, evidence.whole.places, rivals.certain) / DISPLACED,
        denied(sentence.setting, source, rivals.gaps) / DENIED,
    )


def _chosen(sentence: Claim, covers: Sequence[tuple[Window, Cover]]) -> list[tuple[Window, Cover]]:
    """The windows that cover the sentence together, none where that takes too many. Greedy: the window that adds most comes first.

    Length costs a little; ties go to the better hit.
    """
    parts: list[tuple[Window, Cover]] = []
    total = Cover()
    while not total.suffices(sentence):
        ranked = [
            (total.joined(cover).worth(sentence) - total.worth(sentence) - LENGTH * len(window.text), -window.hit, window, cover)
            for window, cover in covers
            if cover.stems and (not parts or _earns(total, cover, sentence))
        ]
        gain, _, window, cover = max(ranked, key=lambda entry: entry[:2], default=(0.0, 0, None, Cover()))
        if gain <= 0 or window is None or len(parts) == SPANS:
            return []
        parts.append((window, cover))
        total = total.joined(cover)
    return parts


def _shrunk(sentence: Claim, parts: list[tuple[Window, Cover]], covers: Sequence[tuple[Window, Cover]]) -> list[tuple[Window, Cover]]:
    """The windows, each cut down to the shortest one inside it with which the sentence is still borne out."""
    for number, (window, _) in enumerate(parts):
        inside = [
            (part, cover)
            for part, cover in covers
            if part.document_id == window.document_id
            and window.span.start <= part.span.start
            and part.span.end <= window.span.end
            and len(part.text) < len(window.text)
        ]
        for shorter in sorted(inside, key=lambda entry: len(entry[0].text)):
            tried = [*parts[:number], shorter, *parts[number + 1 :]]
            total = Cover()
            for _, cover in tried:
                total = total.joined(cover)
            if total.suffices(sentence) and _hangs_together(sentence, tried):
                parts = tried
                break
    return parts


def _hangs_together(sentence: Claim, parts: Sequence[tuple[Window, Cover]]) -> bool:
    """Whether windows that bear a sentence out together do not merely hold its pieces: `Kestrel`, and far from it somebody else's `15 days`.

    The subject must stand where much of the sentence is borne out, and each number by the name that it follows.
    """
    if sentence.subject:
        predicate = sentence.fresh - sentence.subject
        foremost, leading = max(parts, key=lambda part: len(part[1].stems & predicate))
        if _speaks_of_it(foremost, predicate) and not sentence.subject <= _held_names(
            sentence.subject, leading.names | leading.inferred | (foremost.told or foremost.context) | foremost.stems
        ):
            return False  # what is said most plainly is said of `it`, and nothing before tells that this is the subject
        told = any(
            _tells_subject(sentence, window, cover)
            and (cover is leading or len((cover.stems & sentence.fresh | cover.names) - sentence.subject) + len(cover.numbers) >= 2)
            for window, cover in parts
        )
        if not told:
            return False
    # The number of another name's version bears nothing out: `Merlin 4.5` tells of no Kestrel 4.5.
    told_versions = frozenset().union(*(versions(window.text) for window, _ in parts))
    for name, number in versions(sentence.text):
        bearers = {other for other, told_number in told_versions if told_number == number}
        if bearers and name not in bearers:
            return False
    return all(any(number in cover.numbers and name in cover.names | cover.inferred for _, cover in parts) for number, name in sentence.bound)


def _speaks_of_it(window: Window, predicate: frozenset[str]) -> bool:
    """Whether the sentence of a window that says most of a predicate opens with a pronoun."""
    said = [len(_held(predicate, line)) for line in window.lines]
    written = sentences(window.text)
    # Cut anew, a window can fall into other sentences than its paragraph did.
    at = said.index(max(said)) if said and len(written) == len(said) else 0
    return bool(written) and bool(_PRONOUN.match(window.text[written[at].start :]))


def _tells_subject(sentence: Claim, window: Window, cover: Cover) -> bool:
    """Whether a window names the subject in or before the sentence that says most of it: what `it` stands for was told before, not after."""
    if not sentence.subject <= cover.names | cover.inferred:
        return False
    predicate = sentence.stems - sentence.subject
    said = [len(_held(predicate, line)) for line in window.lines]
    until = said.index(max(said)) + 1 if said else 0
    speaks_of = window.subjects[until - 1] if until else frozenset()
    if speaks_of and not _held_names(speaks_of, sentence.names) and not _held_names(sentence.subject, window.lines[until - 1]):
        return False
    told = frozenset().union(*window.lines[:until]) | window.context | cover.inferred
    return sentence.subject <= _held_names(sentence.subject, told) | cover.inferred


def _earns(total: Cover, cover: Cover, sentence: Claim) -> bool:
    """Whether a further window brings more than one stray word or name, which any sentence might hold by chance."""
    joined = total.joined(cover)
    new = len((joined.stems | joined.names) - (total.stems | total.names | total.inferred)) + len(joined.numbers - total.numbers)
    return new >= 2 or (new == 1 and len(cover.stems) >= OWN * len(sentence.stems))


def _others(sentence: Claim, covers: Sequence[tuple[Window, Cover]], cited: set[str]) -> list[Window]:
    """The shortest window of each further document that bears the sentence out by itself."""
    best: dict[str, Window] = {}
    for window, cover in covers:
        alone = window.document_id not in cited and cover.suffices(sentence) and sentence.fresh <= cover.stems
        if (
            alone
            and _hangs_together(sentence, [(window, cover)])
            and (window.document_id not in best or len(window.text) < len(best[window.document_id].text))
        ):
            best[window.document_id] = window
    return list(best.values())[: max(0, SPANS - 1)]


def resembling(sentence: Claim, windows: Sequence[Window], evidence: Evidence) -> list[Window]:
    """Those of the windows that hold something of what the sentence answers and much of its words, the nearest first, though they do not bear it out."""

    def closeness(window: Window, cover: Cover) -> float:
        otherwise = min(1.0, _contradiction(sentence, window.setting, window.setting, evidence) / 2)
        return cover.worth(sentence) - 3 * LENGTH * len(window.text) - 2 * otherwise

    covers = [(window, _cover(sentence, window, evidence)) for window in windows]
    # What a window leaves to a pronoun (`the role`) counts here as it would where a whole sentence were borne out.
    holding = [
        (window, cover)
        for window, cover in covers
        if (cover.stems & sentence.fresh or cover.numbers) and len(cover.stems | sentence.stems & window.context) >= OWN * len(sentence.stems)
    ]
    return [window for window, _ in sorted(holding, key=lambda entry: closeness(*entry), reverse=True)]
