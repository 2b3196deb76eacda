"""Who wrote a document, read from the line that tells it. Pure.

A name that stands alone is no sentence: a model is unsure what it tells, and verification finds nothing in it that says `wrote`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from index.split import sentences
from index.types import Hit, Span
from index.words import ASKING_WORDS, FUNCTION_WORDS, content_stems
from rag.cite import Verified, merged, named, pointing, quote

EDGE_LINES = 6
"""How many lines at the beginning and at the end of a text can hold its byline."""

OPENING = 300
"""Characters of a text, behind its title, that tell what it is about."""

_ASKED = re.compile(
    r"\bwho (?:wrote|authored|penned|is the (?:author|writer))\b|\bwho(?:se)? .* written by\b|\bname of the (?:author|writer)\b", re.IGNORECASE
)
_DOCUMENT = frozenset(
    content_stems("piece article document text essay post story page file blog wrote write written author authored writer penned name")
)
"""Words for a document itself. A letter or a report may be what a document is about, and somebody else's."""
_WROTE = re.compile(r"\b(?:wrote|writes|written|authored|penned)\b", re.IGNORECASE)
_LED = re.compile(r"\s*(?:written by|words by|by|author:|text:)\s+", re.IGNORECASE)
_TAIL = re.compile(r"\s*[,|·–—].*$")
_WORD = r"[^\W\d_][\w.'’-]*"
_PERSON = re.compile(rf"{_WORD}(?: {_WORD}){{1,3}}")
_PARTICLES = frozenset("de da del di van von der den al bin ibn la le".split())  # noqa: SIM905


def asks_who_wrote(question: str) -> bool:
    """Whether a question asks for a document's author."""
    return bool(_ASKED.search(question))


def byline(text: str) -> Span | None:
    """Where a text names its author on a line of its own; None where no line does.

    Led by `by`, near the beginning or the end; without, near the end where the next line goes on about the same person: a name alone may be a heading, a
    place or a company.
    """
    lines = [Span(match.start(), match.end()) for match in re.finditer(r"\S[^\n]*", text)]
    for at, line in enumerate(lines):
        if EDGE_LINES <= at < len(lines) - EDGE_LINES:
            continue
        written = text[line.start : line.end].rstrip().rstrip("*_")
        begin = len(written) - len(written.lstrip("*_"))
        led = _LED.match(written, begin)
        begin = led.end() if led else begin
        name = _TAIL.sub("", written[begin:]) if led else written[begin:]
        if not _is_person(name):
            continue
        following = text[lines[at + 1].start : lines[at + 1].end] if at + 1 < len(lines) else ""
        about = following.startswith((f"{name} ", f"{name.split()[0]} ")) and following.rstrip().endswith((".", "!", "”", '"'))
        if led or (at >= EDGE_LINES and about):
            return Span(line.start + begin, line.start + begin + len(name))
    return None


def _is_person(name: str) -> bool:
    words = name.split()
    capital = all(word[0].isupper() or word in _PARTICLES for word in words)
    return bool(_PERSON.fullmatch(name)) and capital and not any(word.lower() in FUNCTION_WORDS for word in words if word[0].isupper())


def written_by(question: str, hits: Sequence[Hit], texts: Mapping[str, str]) -> Verified | None:
    """The answer to a question for the author of a document, cited; None where the document or its author is not plain.

    All that the question says of the document must stand in its title or opening, of every document where that holds of several; a question that says
    nothing of it needs hits of one document alone. Where a sentence tells who wrote what is asked about, that may be something else than the document.
    """
    if not hits or not asks_who_wrote(question):
        return None
    asked = frozenset(content_stems(question))
    said = asked - _DOCUMENT - frozenset(content_stems(" ".join(ASKING_WORDS)))
    lines = (hit.passage.text[line.start : line.end] for hit in hits for line in sentences(hit.passage.text))
    if any(_WROTE.search(line) and said & frozenset(content_stems(line)) for line in lines):
        return None
    titles = {hit.passage.document_id: hit.passage.title for hit in hits}
    meant = [document for document, title in titles.items() if said <= frozenset(content_stems(f"{title} {texts[document][:OPENING]}"))]
    if hits[0].passage.document_id not in meant or (not said and len(titles) > 1):
        return None
    answers = [_named(document, titles[document], hits, texts[document], texts) for document in meant]
    found = [answer for answer in answers if answer is not None]
    return merged(found) if len(found) == len(meant) else None


def _named(document: str, title: str, hits: Sequence[Hit], text: str, texts: Mapping[str, str]) -> Verified | None:
    """One document's author, where a byline among the hits names one."""
    line = byline(text)
    holding = [
        number
        for number, hit in enumerate(hits)
        if line and hit.passage.document_id == document and hit.passage.span.start <= line.start and line.end <= hit.passage.span.end
    ]
    if line is None or not holding:
        return None
    sentence = f"“{named(title)}” names {text[line.start : line.end]} as its author."
    if len(sentences(sentence)) != 1:
        return None  # an initial that reads like the end of a sentence would leave a part of it without its mark
    return pointing(sentence, [quote(hits, texts, [(holding[0], line)])])
