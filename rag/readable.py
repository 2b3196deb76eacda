"""An Answer as text that stands alone, for doors whose clients show nothing else: sources below it, and what nothing bears out marked. Pure."""

from __future__ import annotations

import re
from urllib.parse import quote

from rag.types import Answer, Citation

SOURCES = "\n\nSources:\n"
"""What the list of sources begins with; an answer's text has no such line."""

UNSUPPORTED = "(not supported by the documents)"

_ACTIVE = re.compile(r"([\\`*_\[\]<>~|$])")


def readable(answer: Answer, address: str = "") -> str:
    """The text, the cited words with where they stand, and the notices, as Markdown that reads as plain text too.

    `address` is that of a running server, without a slash at its end: titles then link to the words in their document. Whatever a document or
    a model says, no other link or picture than these comes of it, as a client that shows Markdown would fetch the picture.
    """
    text = answer.text
    for sentence in answer.unsupported:
        text = text.replace(sentence, f"{sentence} {UNSUPPORTED}")
    parts = [inert(text)]
    if answer.citations:
        parts.append(SOURCES + "\n".join(f"- {_source(citation, address)}" for citation in answer.citations))
    parts += [f"\n\n{inert(notice)}" for notice in answer.notices]
    return "".join(parts)


def without_sources(text: str) -> str:
    """A text that readable() made, as the answer said it: what comes back as a conversation's earlier turn."""
    return text.partition(SOURCES)[0].replace(f" {UNSUPPORTED}", "")


def inert(text: str) -> str:
    """A text from which Markdown makes no picture, link or HTML; all else stays as it is."""
    text = re.sub(r"!(?=\[)", "! ", text)
    text = re.sub(r"\](?=[(\[:])", "] ", text)
    return re.sub(r"<(?=[A-Za-z/!?])", "< ", text)


def _source(citation: Citation, address: str) -> str:
    title, page = _literal(citation.title), f", page {citation.page}" if citation.page else ""
    if address:
        title = f"[{title}]({address}/documents/{quote(citation.document_id, safe='')}?start={citation.start}&end={citation.end})"
    return f"[{citation.number}] {title}{page}: “{_literal(citation.quote)}”"


def _literal(text: str) -> str:
    """A text on one line in which Markdown changes nothing."""
    return _ACTIVE.sub(r"\\\1", " ".join(text.split()))
