"""Whether documents answer one question differently: which of them to ask, what tells their answers apart, and how both sides are told. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from index.types import Hit
from index.words import content_stems
from rag import decide
from rag.cite import Verified, first_sentence, merged, named, pointing, quote, without_marks
from rag.facts import later_names, names, numbers, one_name, sets_the_scene
from rag.prompt import asks_for_all
from rag.windows import Window, gather

RIVALS = 3
"""The most documents that are asked beside those that bear the answer out: each is read on its own, and the user waits."""

ABOUT = 0.5
"""The least part of the question's words, and of its names, that a passage must hold to be about the same."""

COPY = 0.7
"""Sentences that share this part of their words are two versions of one."""

_VALUE = re.compile(
    r"""^\W*(?:(?:in|on|at|to|from|by|for|of|with)\ )?(?:
    who(?!\ (?:are|were)\b)|whom|whose|when|where|which|how\ (?:many|much|old|long|tall|big|large|high|far|fast)
    |what(?:['’]s|\ is|\ was|\ will\ be)?\ (?:the|his|her|its|their|(?-i:[A-Z][\w.-]*(?:\ [A-Z][\w.-]*)*)['’]s?)\ (?!difference|purpose|role|best\b|point|idea|meaning)\w+
    |what\ (?!is\b|was\b|are\b|were\b|do\b|does\b|did\b|can\b|has\b|have\b|had\b|should|would|could|will|may|might|must|happen|about|if|else)\w+)""",
    re.IGNORECASE | re.VERBOSE,
)
_NUMERIC = re.compile(
    r"\bwhen\b|\bhow (?:many|much|old|long|tall|big|large|high|far|fast|often)\b|\b(?:year|date|day|month|century|age|number|population|price|percentage|amount|size|length|height|area|score|value)\b",
    re.IGNORECASE,
)
"""Questions whose answer is a number or a date."""

FEW = 8
"""So many words at most tell apart two answers that hold neither name nor number: longer ones put one thing in different words."""

PLACE_CHARACTERS = 1_000
"""How far around a window its neighbouring lines are looked for."""

_RELEASE = re.compile(r"\b[A-Z]\w*[a-z]\w*[ -]\d\.0(?![\w%.])")
"""A release by its name (`Kestrel 2.0`): amounts are hardly written so."""

_ENDED = re.compile(r"[.!?…][\"'”’)\]]*$")
"""A line at whose end a sentence ends."""

DISAGREE = "The documents disagree about this"


@dataclass(frozen=True, slots=True)
class Side:
    """An answer that some documents give, with their ids."""

    answer: Verified
    documents: frozenset[str]


def has_one_answer(question: str) -> bool:
    """Whether a question asks for one value (a name, a number, a date, the kind of a thing), so that two documents can contradict each other."""
    return bool(_VALUE.match(question)) and not asks_for_all(question)


def rivals(question: str, known: frozenset[str], hits: Sequence[Hit]) -> list[tuple[Hit, ...]]:
    """The hits of further documents that are about the same as the question, by document, best first. `known` are documents whose answer is known."""
    asked, called = frozenset(content_stems(question)), names(question[:1].lower() + question[1:])
    found: dict[str, list[Hit]] = {}
    for hit in hits:
        passage = hit.passage
        if passage.document_id in known:
            continue
        text = f"{passage.title}\n{passage.heading}\n{passage.text}"
        stems = frozenset(content_stems(text))
        there = names(text)
        if not numbers(question) <= numbers(text):
            continue  # another year, another version
        told = sum(name in stems or any(one_name(name, other) for other in there) for name in called)
        if told >= ABOUT * len(called) and asked and len(asked & stems) >= ABOUT * len(asked):
            found.setdefault(passage.document_id, []).append(hit)
    return [tuple(own) for own in found.values()]


def bearers(question: str, answer: Verified) -> frozenset[str]:
    """The documents whose cited words hold all that an answer answers with; where none does so alone, the one that is cited first."""
    values = _values(_lead(answer), question)
    held = frozenset(citation.document_id for citation in answer.citations if not _new(values, citation.quote))
    return held or frozenset(citation.document_id for citation in answer.citations[:1])


def agrees(question: str, answer: Verified, hits: Sequence[Hit], texts: Mapping[str, str]) -> bool:
    """Whether passages hold, in one place about the same, all that an answer answers with, so that nobody need be asked whether they say otherwise."""
    values = _values(_lead(answer), question)
    return bool(values) and any(not _new(values, window.text) and _about(question, window) for window in gather(hits, texts).windows)


def may_differ(question: str, answer: Verified, hits: Sequence[Hit], texts: Mapping[str, str]) -> bool:
    """Whether a document need be asked what its passages answer.

    Nothing excludes an answer that holds no value. And a reply to a question for a quantity is refused without one (`decide.lacks_quantity`): where no place
    about the same holds any but in a release's name, there is nothing to ask for.
    """
    if not _values(_lead(answer), question):
        return False
    if not decide.wants_quantity(question):
        return True
    return any(
        _about(question, window, hits[window.hit].passage.heading) and decide.holds_quantity(question, _RELEASE.sub("", _place(window, hits, texts)))
        for window in gather(hits, texts).windows
    )


def versions(question: str, answer: Verified, hits: Sequence[Hit], texts: Mapping[str, str]) -> list[Side]:
    """What other documents say in a version of the cited words that puts another name or number where the answer's stands. No model is needed."""
    key = _values(_lead(answer), question)
    found: list[Side] = []
    if not key:
        return found
    cited = bearers(question, answer)
    quotes = [frozenset(content_stems(citation.quote)) for citation in answer.citations]
    others = [hit for hit in hits if hit.passage.document_id not in cited]
    for own in [
        tuple(hit for hit in others if hit.passage.document_id == document) for document in dict.fromkeys(hit.passage.document_id for hit in others)
    ]:
        for window in gather(own, texts).windows:
            copy = any(len(window.stems & stems) >= COPY * max(len(window.stems), len(stems)) for stems in quotes if len(stems) >= 4)
            other = _values(window.text, question) - frozenset().union(*quotes)
            same = numbers(question) <= window.numbers | numbers(own[0].passage.title) and _about(question, window)
            if copy and same and other and _new(key, window.text):
                said = quote(own, texts, [(window.hit, window.span)])
                found.append(Side(said, frozenset([window.document_id])))
                break
    return found


def differ(question: str, first: Side, second: Side) -> bool:
    """Whether two answers exclude each other: each tells a value of the kind that is asked for which does not stand in the words that the other cites."""
    one, other = _values(_lead(first.answer), question), _values(_lead(second.answer), question)
    return bool(_new(one, _cited(second)) and _new(other, _cited(first)))


def joined(question: str, sides: Sequence[Side]) -> list[Side]:
    """The sides, those that do not exclude each other made one, the one with most documents first; the order given decides where they are as many."""
    found: list[Side] = []
    for side in sides:
        for number, known in enumerate(found):
            if not differ(question, known, side):
                found[number] = Side(known.answer, known.documents | side.documents)
                break
        else:
            found.append(side)
    return sorted(found, key=lambda side: -len(side.documents))


def told(sides: Sequence[Side], titles: Mapping[str, str]) -> tuple[Verified, tuple[str, ...]]:
    """One answer of several sides, each cited, and the sentences of it that tell of the disagreement.

    Sides with as many documents as the first are told in full; a side with fewer is named and cited, its words stand in its citation.
    """
    others = sides[1:]
    shown = list(dict.fromkeys(f"“{named(titles[document])}”" for side in others for document in sorted(side.documents)))
    listed = " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
    sentence = f"{DISAGREE}: {listed} {'says' if len(shown) == 1 else 'say'} otherwise."
    equal = [side.answer for side in others if len(side.documents) == len(sides[0].documents)]
    return merged([sides[0].answer, pointing(sentence, [side.answer for side in others]), *equal]), (sentence,)


def _cited(side: Side) -> str:
    """What a side says and cites of its own documents: a citation of another may be what says otherwise."""
    return "\n".join([_lead(side.answer), *(citation.quote for citation in side.answer.citations if citation.document_id in side.documents)])


def _lead(answer: Verified) -> str:
    return first_sentence(without_marks(answer.text))


def _values(sentence: str, question: str) -> frozenset[str]:
    """What a sentence answers with, the question's own words left out: numbers where it asks for them, else names, else a few other words."""
    asked = frozenset(content_stems(question))
    told = later_names(sentence) if sets_the_scene(sentence) else names(sentence)
    counted, called = numbers(sentence) - numbers(question), told - asked
    exact = counted or called if _NUMERIC.search(question) else called or counted
    others = frozenset(content_stems(sentence)) - asked
    return exact or (others if len(others) <= FEW else frozenset())


def _place(window: Window, hits: Sequence[Hit], texts: Mapping[str, str]) -> str:
    """A window below its heading, with the lines beside it where a sentence goes on over their ends, or a list follows."""
    text, span = texts[window.document_id], window.span
    before = text[max(0, span.start - PLACE_CHARACTERS) : span.start].split("\n")
    after = text[span.end : span.end + PLACE_CHARACTERS].split("\n")
    above = before[-2].rstrip() if len(before) > 1 and not before[-1].strip() else ""
    below = after[1] if len(after) > 1 and not after[0].strip() else ""
    return "\n".join(
        [hits[window.hit].passage.heading, "" if _ENDED.search(above) else above, window.text, "" if _ENDED.search(window.text) else below]
    )


def _about(question: str, window: Window, heading: str = "") -> bool:
    """Whether a window, below a heading, speaks of what the question is about."""
    asked = frozenset(content_stems(question))
    return len(asked & (window.stems | window.title | window.context | frozenset(content_stems(heading)))) >= ABOUT * len(asked)


def _new(values: frozenset[str], evidence: str) -> frozenset[str]:
    held = frozenset(content_stems(evidence)) | numbers(evidence) | names(evidence)
    return frozenset(value for value in values if value not in held and not any(one_name(value, other) for other in held))
