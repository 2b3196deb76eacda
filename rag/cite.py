"""From a draft to an answer whose every sentence is verified. Pure: no model, no store.

Each sentence of the draft is aligned with windows of one to three neighbouring sentences of the evidence (rag.support says what bears it out). The model's
own marks are dropped: small models forget or invent them.
This module alone builds a Citation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from index.split import sentences
from index.types import Hit, Passage, Span
from index.words import WORD, content_stems
from rag.facts import (
    later_names,
    names,
    negations,
)
from rag.support import claim, resembling, support
from rag.types import Citation
from rag.windows import Evidence, Window, gather

NAMED_TITLE = 15
"""Characters; a shorter title in a sentence may be anything but the document's name."""

FOREIGN, FOREIGN_WORDS = 1 / 3, 6
"""A sentence of so many words that nothing bears out, less than this part of which stands anywhere in evidence or question, is not about the documents at all."""

STAND_INS = 8
"""How many of the windows nearest to a sentence are looked at for one that may stand in its place."""

ASKED = 0.4
"""The least part of the question's words that a window must hold to speak of what is asked."""

_ADDRESS = re.compile(r"(?:https?://|www\.)[^\s)\]>\"”]+|[\w.+-]+@[\w-]+\.[\w.-]*\w", re.IGNORECASE)

_OF_THE_PASSAGES = re.compile(r"\b(?:passages?|documents?|texts?|context|information)\b", re.IGNORECASE)

_SENTENCE = re.compile(r"\A(?![#|]).*(?:[.!…。！](?!\d)|\A[-*•].*)[^\w|]*\Z", re.DOTALL)
"""What tells a sentence, or an item of a list, from a heading or a row of a table."""

MARK = re.compile(r"[ \t]*\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")


@dataclass(frozen=True, slots=True)
class Verified:
    """A draft after verification: its text with marks, the citations they resolve to, and the sentences that nothing supports.

    `leads`: the first sentence, which answers, is supported. `borne_out` are the supported sentences alone, without marks. `foreign` sentences, which
    the documents' words do not even resemble or which hold an address that is not theirs, are left out of the text.
    """

    text: str
    citations: tuple[Citation, ...]
    unsupported: tuple[str, ...]
    leads: bool = False
    borne_out: str = ""
    foreign: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Grounds:
    """What sentences are verified against: the hits with their documents' texts, the evidence in them, the names that it or the question tell, all their
    stems, and the documents' titles."""

    question: str
    hits: tuple[Hit, ...]
    texts: Mapping[str, str]
    evidence: Evidence
    known: frozenset[str]
    told: frozenset[str]
    titles: Mapping[str, str]


def grounds(question: str, hits: Sequence[Hit], texts: Mapping[str, str]) -> Grounds:
    """What sentences that answer the question are verified against. `texts` holds the stored text of every hit's document."""
    evidence = gather(hits, texts)
    known = names(question) | frozenset().union(*(later_names(window.text) for window in evidence.windows))
    told = frozenset(content_stems(question)).union(*(window.stems | window.title for window in evidence.windows))
    titles = {hit.passage.document_id: hit.passage.title for hit in hits if len(hit.passage.title) >= NAMED_TITLE}
    return Grounds(question, tuple(hits), texts, evidence, known, told, titles)


def certainty(sentence: str, against: Grounds) -> float:
    """How well the evidence bears a sentence out, from 0 to 1: at least 0.5 exactly where cite() would cite it."""
    return _borne_out(without_marks(sentence).strip(), against)[1]


def cite(draft: str, against: Grounds) -> Verified:
    """Verifies every sentence of a draft against what was read.

    In the result each supported sentence ends in its marks, numbered by first use; the others stay as they are and are listed in `unsupported`.
    """
    pieces: list[str] = []
    citations: dict[tuple[str, Span], Citation] = {}
    unsupported: list[str] = []
    borne_out: list[str] = []
    foreign: list[str] = []
    position = 0
    leads: bool | None = None
    for span in sentences(draft):
        written = draft[span.start : span.end]
        plain = without_marks(written).strip()
        pieces.append(draft[position : span.start])
        position = span.end
        if not WORD.search(plain):
            pieces.append(plain)
            continue
        found, _ = _borne_out(plain, against)
        made_up = _is_foreign(plain, against, bool(found))
        leads = bool(found) and not made_up if leads is None else leads
        if made_up:
            pieces.pop()
            foreign.append(plain)
            continue
        for window in found:
            key = (window.document_id, window.span)
            if key not in citations:
                citations[key] = _citation(len(citations) + 1, against.hits[window.hit].passage, window.span, against.texts[window.document_id])
        marks = "".join(f"[{citations[window.document_id, window.span].number}]" for window in found)
        pieces.append(f"{plain} {marks}" if marks else plain)
        (borne_out if marks else unsupported).append(plain)
    pieces.append(without_marks(draft[position:]))
    return Verified("".join(pieces).strip(), tuple(citations.values()), tuple(unsupported), bool(leads), " ".join(borne_out), tuple(foreign))


def _is_foreign(sentence: str, against: Grounds, supported: bool) -> bool:
    """Whether a sentence is none that could come from the evidence, as when a planted instruction was followed."""
    read = " ".join(window.text for window in against.evidence.windows).lower()
    if any(
        address.lower().rstrip(".,;:!?") not in read and address.lower() not in against.question.lower() for address in _ADDRESS.findall(sentence)
    ):
        return True
    stems = frozenset(content_stems(sentence))
    return not supported and len(stems) >= FOREIGN_WORDS and len(stems & against.told) < FOREIGN * len(stems)


def _borne_out(sentence: str, against: Grounds) -> tuple[list[Window], float]:
    """The windows that bear a sentence out, and how well. Where it names documents by their titles, each of those must do so, and no other is asked."""
    evidence = against.evidence
    named = {document_id: title for document_id, title in against.titles.items() if title in sentence}
    without = sentence
    for title in sorted(named.values(), key=len, reverse=True):
        without = without.replace(title, " ")
    if not named or not content_stems(without):
        return support(claim(sentence, against.question, against.known, against.told), evidence)
    said = claim(without, against.question, against.known, against.told)
    found: list[Window] = []
    score = 1.0
    for document_id in named:
        inside = replace(evidence, windows=tuple(window for window in evidence.windows if window.document_id == document_id))
        windows, sure = support(said, inside)
        if not windows:
            return [], sure
        found += windows
        score = min(score, sure)
    return found, score


def quote(hits: Sequence[Hit], texts: Mapping[str, str], spans: Sequence[tuple[int, Span]]) -> Verified:
    """An answer made of the documents' own sentences: each span, given with the number of its hit, becomes a line that cites itself."""
    citations = []
    for number, (hit, span) in enumerate(spans, 1):
        passage = hits[hit].passage
        citations.append(_citation(number, passage, span, texts[passage.document_id]))
    lines = [" ".join(without_marks(citation.quote).split()) for citation in citations]
    # A span of several sentences carries its mark behind each of them: no sentence stands without one.
    marked = "\n".join(
        " ".join(f"{line[span.start : span.end]} [{citation.number}]" for span in sentences(line))
        for line, citation in zip(lines, citations, strict=True)
    )
    return Verified(marked, tuple(citations), (), bool(lines), " ".join(lines))


def nearest(sentence: str, against: Grounds, about: Callable[[Sequence[str]], Sequence[bool]]) -> Verified | None:
    """The documents' own words that come nearest to a sentence that they do not bear out as it stands, cited; None where nothing is near.

    They must speak of what is asked, in its words or as `about` tells of some texts, and hold something of what the sentence answers, and ask nothing
    themselves: a draft can have followed what was planted in a document. A sentence about what the passages leave out answers nothing.
    """
    if negations(sentence) and _OF_THE_PASSAGES.search(sentence):
        return None
    said = claim(without_marks(sentence).strip(), against.question, against.known, against.told)
    asked = frozenset(content_stems(against.question))
    telling = [window for window in against.evidence.windows if _SENTENCE.search(window.text) and "?" not in window.text]
    best = resembling(said, telling, against.evidence)[:STAND_INS]
    near = about([window.text for window in best])
    for window, is_near in zip(best, near, strict=True):
        if is_near or len(asked & (window.stems | window.title | window.context)) >= ASKED * len(asked):
            return quote(against.hits, against.texts, [(window.hit, window.span)])
    return None


def repeats(one: Verified, other: Verified) -> bool:
    """Whether all that a text cites stands inside what another cites."""
    return all(
        any(cited.document_id == there.document_id and there.start <= cited.start and cited.end <= there.end for there in other.citations)
        for cited in one.citations
    )


def merged(parts: Sequence[Verified]) -> Verified:
    """Several verified texts as one: citations numbered anew by first use, the same span once. The first part leads."""
    citations: dict[tuple[str, int, int], Citation] = {}
    texts: list[str] = []
    for part in parts:
        own = {citation.number: citation for citation in part.citations}

        def renumbered(mark: re.Match[str], own: dict[int, Citation] = own) -> str:
            cited = own.get(int(mark.group(1)))
            if cited is None:
                return mark.group()
            key = (cited.document_id, cited.start, cited.end)
            if key not in citations:
                citations[key] = replace(cited, number=len(citations) + 1)
            return f"[{citations[key].number}]"

        texts.append(re.sub(r"\[(\d+)\]", renumbered, part.text))
    return Verified(
        "\n\n".join(texts),
        tuple(citations.values()),
        tuple(sentence for part in parts for sentence in part.unsupported),
        parts[0].leads,
        " ".join(part.borne_out for part in parts if part.borne_out),
        tuple(sentence for part in parts for sentence in part.foreign),
    )


def pointing(sentence: str, answers: Sequence[Verified]) -> Verified:
    """A sentence of our own about some answers, with marks that lead to the first words that each of them cites."""
    citations = tuple(replace(answer.citations[0], number=number) for number, answer in enumerate(answers, 1))
    return Verified(f"{sentence} {''.join(f'[{citation.number}]' for citation in citations)}", citations, ())


def named(title: str) -> str:
    """A title as it can stand within a sentence of ours: without marks and without ends of sentences."""
    plain = without_marks(title)
    return " – ".join(plain[span.start : span.end].strip().rstrip(".!?…。！？") for span in sentences(plain)) or plain


def first_sentence(text: str) -> str:
    """The first sentence of a text, which answers."""
    first = next(iter(sentences(text)), Span(0, len(text)))
    return text[first.start : first.end]


def without_marks(text: str) -> str:
    """A text without marks like [1], those that appear once others are gone included."""
    while (less := MARK.sub("", text)) != text:
        text = less
    return text


def _citation(number: int, passage: Passage, span: Span, text: str) -> Citation:
    page = max((page for offset, page in passage.pages if offset <= span.start), default=None)
    return Citation(number, passage.document_id, passage.title, passage.source, page, span.start, span.end, text[span.start : span.end])
