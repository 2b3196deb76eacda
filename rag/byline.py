"""Who wrote a document, read from the line that tells it. Pure.

A name that stands alone is no sentence: a model is unsure what it tells, and verification finds nothing in it that says `wrote`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from index.split import sentences
from index.types import Hit, Span
from index.words import ASKING_WORDS, FUNCTION_WORDS, content_stems
from rag.cite import Verified, named, pointing, quote

EDGE_LINES = 6
"""How many lines at the beginning and at the end of a text can hold its byline."""

OPENING = 300
"""Characters of a text, behind its title, that tell what it is about."""

_ASKED = re.compile(
    r"\bwho (?:wrote|authored|penned|is the (?:author|writer))\b|\bwho(?:se)? .* written by\b|\bname of the (?:author|writer)\b", re.IGNORECASE
)
_KINDS = frozenset(
    content_stems(
        "wrote write written author authored writer penned name piece article document report text essay post paper story commentary column brief "
        "interview memo letter note entry page file chapter review blog"
    )
)
_LED = re.compile(r"\s*(?:written by|words by|by|author:|text:)\s+", re.IGNORECASE)
_PERSON = re.compile(r"[A-Z][\w.'’-]*(?: (?:[A-Z][\w.'’-]*|de|da|del|di|van|von|der|den|al|bin|ibn|la|le)){1,3}")


def asks_who_wrote(question: str) -> bool:
    """Whether a question asks for a document's author."""
    return bool(_ASKED.search(question))


def byline(text: str) -> Span | None:
    """Where a text names its author on a line of its own; None where no line does.

    Led by `by`, near the beginning or the end; without, the last line, or one near the end whose next line goes on about the same person.
    A lone name at the beginning may be a heading, and is not taken.
    """
    lines = [Span(match.start(), match.end()) for match in re.finditer(r"\S[^\n]*", text)]
    for at, line in enumerate(lines):
        if EDGE_LINES <= at < len(lines) - EDGE_LINES:
            continue
        written = text[line.start : line.end].rstrip()
        led = _LED.match(written)
        start = led.end() if led else 0
        name = written[start:]
        if not _PERSON.fullmatch(name) or any(word.lower() in FUNCTION_WORDS for word in name.split() if word[0].isupper()):
            continue
        following = text[lines[at + 1].start : lines[at + 1].end] if at + 1 < len(lines) else None
        alone = at >= max(1, len(lines) - EDGE_LINES) and (following is None or following.startswith((name, name.split()[0] + " ")))
        if led or alone:
            return Span(line.start + start, line.start + start + len(name))
    return None


def written_by(question: str, hits: Sequence[Hit], texts: Mapping[str, str]) -> Verified | None:
    """The answer to a question for the author of the document that was found first, cited; None where the document or its author is not plain.

    All that the question says of the document must stand in its title or opening; a question that says nothing of it needs hits of one document alone.
    """
    if not hits or not asks_who_wrote(question):
        return None
    document = hits[0].passage.document_id
    text, title = texts[document], hits[0].passage.title
    said = frozenset(content_stems(question)) - _KINDS - {word.lower() for word in ASKING_WORDS}
    if not said <= frozenset(content_stems(f"{title} {text[:OPENING]}")) or (not said and any(hit.passage.document_id != document for hit in hits)):
        return None
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
