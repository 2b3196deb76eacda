"""The values that the index works with. All are frozen; offsets are Unicode code points into a document's stored text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open range [start, end) of characters in one document's stored text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader makes of a file's bytes: the text that is stored, and what is known of it.

    `title` is None where the file tells none. `pages` are the offsets at which its pages (of a PDF) or slides begin, empty where a format has none;
    text before `pages[0]` stands on page 1. `furniture` are the parts that are no content (menus, sign-up forms, related stories), in order and
    apart from each other: they stay in the text and are not searched.
    """

    text: str
    title: str | None = None
    pages: tuple[int, ...] = ()
    furniture: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """One file as it is stored: its text is kept exactly as read.

    `source` is the path relative to the folder that was synced, with forward slashes. `fingerprint` is the SHA-256 of the file's bytes, `size` their
    number. `titled` is False where the file tells no title and `title` is its name. `pages` and `furniture` are those of the Reading.
    """

    id: str
    source: str
    title: str
    text: str
    fingerprint: str
    size: int = 0
    titled: bool = True
    pages: tuple[int, ...] = ()
    furniture: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """A stored document without its text, for listings.

    `size` is in characters, `bytes` the file's size (0 where an older version did not note it), `indexed_at` an ISO 8601 time in UTC, `root` the folder
    that was synced, `pages` the number of pages or slides, 0 where the format has none. `owner` is the id of the user whose it is, None where it is shared.
    """

    id: str
    source: str
    title: str
    size: int
    passages: int
    indexed_at: str
    root: str = ""
    bytes: int = 0
    pages: int = 0
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """A file that could not become a document: the `reason` fits behind 'rejected: ', `at` is an ISO 8601 time in UTC."""

    root: str
    source: str
    reason: str
    at: str


@dataclass(frozen=True, slots=True)
class Known:
    """What the store knows of one file of a synced folder, whether it is a document or was rejected (`reason` is empty unless it was).

    `stamp` is the file's size and times when it was read: while it stays, the file need not be opened. `reader` is the version of the readers that
    read it.
    """

    document_id: str
    fingerprint: str
    stamp: str
    reader: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Passage:
    """A run of whole sentences of one document: `text` is `document.text[span.start:span.end]`.

    `heading` is the trail of headings that the passage stands under; it helps search and is never quoted. `pages` are (offset in the document, page
    number from 1) for the page on which the passage begins and each that begins within it; empty where the format has none.
    """

    id: str
    document_id: str
    source: str
    title: str
    heading: str
    span: Span
    text: str
    pages: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that search found. `score` orders the hits (higher is better, no fixed scale).

    `similarity` is the cosine between question and passage in [-1, 1], and None where only the words matched.
    """

    passage: Passage
    score: float
    similarity: float | None = None
