"""The values that the index works with. All are frozen; offsets are Unicode code points into a document's stored text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open range [start, end) of characters in one document's stored text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Document:
    """One file as it is stored: its text is kept exactly as read.

    `source` is the path relative to the folder that was synced, with forward slashes. `fingerprint` is the SHA-256 of the file's bytes.
    """

    id: str
    source: str
    title: str
    text: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """A stored document without its text, for listings. `size` is in characters, `indexed_at` an ISO 8601 time in UTC."""

    id: str
    source: str
    title: str
    size: int
    passages: int
    indexed_at: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A run of whole sentences of one document: `text` is `document.text[span.start:span.end]`.

    `heading` is the trail of headings that the passage stands under; it helps search and is never quoted.
    """

    id: str
    document_id: str
    source: str
    title: str
    heading: str
    span: Span
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that search found. `score` orders the hits (higher is better, no fixed scale).

    `similarity` is the cosine between question and passage in [-1, 1], and None where only the words matched.
    """

    passage: Passage
    score: float
    similarity: float | None = None
