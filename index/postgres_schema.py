"""The tables of a shared store in PostgreSQL, and what goes into them and comes out. Format 1; all stands in a schema of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from index.schema import OWN_UPLOADS
from index.types import Document, Passage, Span

SCHEMA = "citewell"

FORMAT = 1

TABLES = """
CREATE TABLE store (
  one boolean PRIMARY KEY DEFAULT true CHECK (one), identity text NOT NULL, incarnation text NOT NULL, format integer NOT NULL, embedder text NOT NULL,
  next_embedder text NOT NULL DEFAULT '', changes bigint NOT NULL DEFAULT 0, passages bigint NOT NULL DEFAULT 0, words bigint NOT NULL DEFAULT 0,
  collection text NOT NULL DEFAULT '') WITH (fillfactor = 10);
CREATE TABLE documents (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id text NOT NULL UNIQUE, root text COLLATE "C" NOT NULL, source text COLLATE "C" NOT NULL,
  title text NOT NULL, titled boolean NOT NULL, fingerprint text NOT NULL, size bigint NOT NULL, pages text NOT NULL, page_count integer NOT NULL,
  furniture text NOT NULL, indexed_at text NOT NULL, length bigint NOT NULL, passages integer NOT NULL, owner text NOT NULL, stamp text NOT NULL,
  reader integer NOT NULL, text text NOT NULL);
CREATE UNIQUE INDEX documents_place ON documents (md5(root), md5(source));
CREATE INDEX documents_root ON documents USING hash (root);
CREATE INDEX documents_source ON documents USING hash (source);
CREATE INDEX documents_of ON documents (owner) INCLUDE (number, id, passages);
CREATE TABLE passages (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id text NOT NULL UNIQUE, document bigint NOT NULL REFERENCES documents (number) ON DELETE CASCADE,
  start_at integer NOT NULL, end_at integer NOT NULL, heading text NOT NULL, pages text NOT NULL, content_key bytea NOT NULL, words integer NOT NULL,
  terms integer NOT NULL, text text NOT NULL);
CREATE INDEX passages_of_document ON passages (document, start_at);
CREATE INDEX passages_by_content ON passages (content_key);
CREATE TABLE vectors (content_key bytea PRIMARY KEY, vector bytea NOT NULL);
ALTER TABLE vectors ALTER COLUMN vector SET STORAGE EXTERNAL;
CREATE TABLE next_vectors (LIKE vectors INCLUDING ALL);
CREATE TABLE pending (number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, passage bigint NOT NULL, unreached timestamptz);
CREATE TABLE segments (number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, passages bigint NOT NULL);
CREATE TABLE postings (term text COLLATE "C" NOT NULL, segment bigint NOT NULL, entries bytea NOT NULL, PRIMARY KEY (term, segment));
ALTER TABLE postings ALTER COLUMN entries SET STORAGE EXTERNAL;
CREATE INDEX postings_of_segment ON postings (segment);
CREATE TABLE gone (passage bigint PRIMARY KEY);
CREATE TABLE rejected (
  root text COLLATE "C" NOT NULL, source text COLLATE "C" NOT NULL, reason text NOT NULL, fingerprint text NOT NULL, stamp text NOT NULL,
  reader integer NOT NULL, at text NOT NULL);
CREATE UNIQUE INDEX rejected_place ON rejected (md5(root), md5(source));
CREATE INDEX rejected_source ON rejected USING hash (source);
CREATE TABLE owners (root text COLLATE "C" NOT NULL, source text COLLATE "C" NOT NULL, owner text NOT NULL);
CREATE UNIQUE INDEX owners_place ON owners (md5(root), md5(source));
CREATE INDEX owners_source ON owners USING hash (source);
CREATE TABLE uploads (root text COLLATE "C" NOT NULL, source text COLLATE "C" NOT NULL, fingerprint text NOT NULL, size bigint NOT NULL, content bytea NOT NULL);
CREATE UNIQUE INDEX uploads_place ON uploads (md5(root), md5(source));
CREATE INDEX uploads_root ON uploads USING hash (root);
CREATE INDEX uploads_source ON uploads USING hash (source);
ALTER TABLE uploads ALTER COLUMN content SET STORAGE EXTERNAL
"""
"""`store` has one row, written last in every transaction that changes anything: so `changes` counts them in the order in which they become visible, and
`passages` and `words` are the totals that BM25 needs. A passage's number is never used again, and is its id in Chroma: whatever order two processes tell
Chroma things in, a number that was removed stays removed. `incarnation` tells whether this is the database that gave the numbers, see
INCARNATION. `pending` is what Chroma has still to be told, and what it was told and does not find since `unreached`. `postings` come in `segments`, one
for each transaction that adds passages, merged into larger ones in the background; `gone` are the passages that segments name and that are no more.
Paths can be longer than an index takes, hence the hashes."""

INCARNATION = (
    "concat_ws(' ', (SELECT system_identifier FROM pg_control_system()), substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8), "
    f"(SELECT oid FROM pg_database WHERE datname = current_database()), '{SCHEMA}.store'::regclass::oid)"
)
"""Another one after a dump was restored, here or elsewhere, and after another server took this one's place: numbers that Chroma knows may then be given
again, and its collection may be another database's."""

DOCUMENT = (
    "id, root, source, title, titled, fingerprint, size, pages, page_count, furniture, indexed_at, length, passages, owner, stamp, reader, text"
)

PASSAGES = (
    "SELECT d.source, d.title, p.text, p.id, d.id, p.start_at, p.end_at, p.heading, p.pages, p.content_key "
    "FROM passages p JOIN documents d ON d.number = p.document"
)
"""What read_passage() reads."""

OWN_OR_SHARED = f"CASE WHEN starts_with(root, '{OWN_UPLOADS}') THEN substr(root, {len(OWN_UPLOADS) + 1}) ELSE '' END"
"""Whose a folder's files are of which nothing is said, in SQL."""

_ESCAPE = "\uf8f0"
_UNSTORABLE = re.compile("[\x00\ud800-\udfff\uf8f0]")
_ESCAPED = re.compile("\uf8f0([0-9a-f]{4})")


def kept(text: str) -> str:
    """A text as PostgreSQL takes it, which refuses NUL and halves of surrogate pairs: those are written as four digits behind a letter for private use."""
    return _UNSTORABLE.sub(lambda found: f"{_ESCAPE}{ord(found[0]):04x}", text)


def told(text: str) -> str:
    """A text as it was before kept()."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text) if _ESCAPE in text else text


def lock_of(*parts: str) -> int:
    """The number under which something is locked: two things share one so seldom that it does not matter, and then one only waits."""
    return int.from_bytes(blake2b("\0".join(("citewell", *parts)).encode("utf-8", "surrogatepass"), digest_size=8).digest(), signed=True)


def document_row(document: Document, root: str, indexed_at: str, passages: int, owner: str, stamp: str, reader: int) -> tuple[Any, ...]:
    """The columns of DOCUMENT."""
    furniture = json.dumps([[span.start, span.end] for span in document.furniture])
    return (
        *(document.id, root, document.source, kept(document.title), document.titled, document.fingerprint, document.size),
        *(json.dumps(document.pages), len(document.pages), furniture, indexed_at, len(document.text), passages, owner, stamp, reader),
        kept(document.text),
    )


def read_document(row: Sequence[Any]) -> Document:
    """A document from its id, source, title, text, fingerprint, size, titled, pages and furniture."""
    identifier, source, title, text, fingerprint, size, titled, pages, furniture = row
    spans = tuple(Span(start, end) for start, end in json.loads(furniture))
    return Document(identifier, source, told(title), told(text), fingerprint, size, titled, tuple(json.loads(pages)), spans)


def read_passage(row: Sequence[Any]) -> Passage:
    """A passage from what PASSAGES selects."""
    source, title, text, identifier, document_id, start, end, heading, pages, _ = row
    marks = tuple((offset, page) for offset, page in json.loads(pages)) if pages else ()
    return Passage(identifier, document_id, source, told(title), told(heading), Span(start, end), told(text), marks)
