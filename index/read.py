"""From a file to a Document. One table of suffix to function; the functions live in `index.formats`, by kind of file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from index.errors import UnreadableDocument
from index.split import CODE
from index.types import Document, Reading

MAX_BYTES = 25_000_000

VERSION = 1
"""Raised when a reader learns to read a format better: what an older one read is read again at the next sync."""

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")

READERS: dict[str, tuple[str, str]] = {
    "": ("text", "plain"),
    ".txt": ("text", "plain"),
    ".text": ("text", "plain"),
    ".rst": ("text", "plain"),
    ".md": ("text", "markdown"),
    ".markdown": ("text", "markdown"),
    ".pdf": ("pdf", "pdf"),
    ".docx": ("office", "docx"),
    ".odt": ("office", "odt"),
    ".pptx": ("slides", "pptx"),
    ".xlsx": ("tables", "xlsx"),
    ".xlsm": ("tables", "xlsx"),
    ".xlsb": ("tables", "xlsx"),
    ".ods": ("tables", "xlsx"),
    ".xls": ("tables", "xls"),
    ".csv": ("tables", "csv"),
    ".tsv": ("tables", "csv"),
    ".html": ("web", "html"),
    ".htm": ("web", "html"),
    ".xhtml": ("web", "html"),
    ".epub": ("web", "epub"),
    ".xml": ("web", "xml"),
    ".eml": ("mail", "eml"),
    ".msg": ("mail", "msg"),
    ".json": ("data", "json"),
    ".jsonl": ("data", "jsonl"),
    ".ndjson": ("data", "jsonl"),
    ".ipynb": ("data", "ipynb"),
    **dict.fromkeys(PICTURES, ("pdf", "picture")),
    **dict.fromkeys(sorted(CODE), ("text", "code")),
}
"""Suffix to reader, a module of `index.formats` and its function: from a file's bytes to its text and what is known of it. It raises UnreadableDocument with
a reason that fits behind 'rejected: '. A module is imported when the first file of its kind comes: most folders need few, and somebody waits for the first."""

_ZIPPED = frozenset((".docx", ".odt", ".pptx", ".xlsx", ".xlsm", ".xlsb", ".ods", ".xls", ".epub"))
_OLE = frozenset((".xls", ".msg", ".docx", ".pptx", ".xlsx", ".xlsm", ".xlsb"))
_SIGNATURES: tuple[tuple[re.Pattern[bytes], str, frozenset[str]], ...] = tuple(
    (re.compile(pattern, re.DOTALL), kind, frozenset(suffixes))
    for pattern, kind, suffixes in (
        (rb".{0,1000}?%PDF-\d", "a PDF", (".pdf",)),
        (rb"PK\x03\x04|PK\x05\x06", "a zip archive or a document packed as one", _ZIPPED),
        (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office file of the kind used before 2007", _OLE),
        (rb"\x89PNG\r\n\x1a\n", "a PNG picture", PICTURES),
        (rb"\xff\xd8\xff", "a JPEG picture", PICTURES),
        (rb"II\*\x00|MM\x00\*", "a TIFF picture", PICTURES),
        (rb"GIF8[79]a.{6,}\x00", "a GIF picture", ()),
        (rb"RIFF.{4}(?:WEBP|WAVE|AVI )", "a picture, sound or film", ()),
        (rb"ID3[\x02-\x04]\x00|.{4}ftyp|OggS\x00|fLaC\x00|\x1aE\xdf\xa3", "a sound or a film", ()),
        (rb"MZ.{0,62}\x00", "a program for Windows", ()),
        (rb"\x7fELF", "a program", ()),
        (rb"\x1f\x8b\x08|BZh[1-9]1AY|\xfd7zXZ\x00|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07", "a packed archive", ()),
        (rb"SQLite format 3\x00", "a database", ()),
        (rb"\{\\rtf1", "an RTF document", ()),
    )
)
"""How files of a kind begin, and the suffixes that such files rightly have."""
_PAGE = re.compile(rb"\s*(?:<!doctype html|<html)\b", re.IGNORECASE)
_BINARY = _ZIPPED | _OLE | {".pdf", *PICTURES}
_NOT_STORABLE = re.compile("[\x00\ud800-\udfff]")


def fingerprint(content: bytes) -> str:
    """What tells one version of a file from another: the SHA-256 of its bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def document_id(root: str, source: str) -> str:
    """The id of the document at `source` in the folder `root`: stable while the file is edited, 32 hexadecimal digits."""
    return hashlib.blake2b(f"{root}\0{source}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def read(content: bytes, source: str, root: str) -> Document:
    """The Document in a file's bytes. Raises UnreadableDocument with a reason that fits behind 'rejected: '."""
    suffix = Path(source).suffix.lower()
    reader = READERS.get(suffix)
    if reader is None:
        shown = "".join(filter(str.isprintable, suffix))[:20]
        raise UnreadableDocument(f"files ending in '{shown}' cannot be read")
    if not content:
        raise UnreadableDocument("it is empty")
    if not content.strip():
        raise UnreadableDocument("it holds no text")
    _check_kind(content, suffix)
    reading = _function(*reader)(content)
    title = " ".join((reading.title or Path(source).stem).split()) or "Untitled"
    if not reading.text.strip():
        raise UnreadableDocument("it holds no text")
    return Document(
        id=document_id(root, source),
        source=source,
        # SQLite and UTF-8 take neither NUL nor half a surrogate pair; one character stands for another, so every offset holds.
        title=_NOT_STORABLE.sub("\ufffd", title),
        text=_NOT_STORABLE.sub("\ufffd", reading.text),
        fingerprint=fingerprint(content),
        size=len(content),
        titled=bool(reading.title),
        pages=reading.pages,
        furniture=reading.furniture,
    )


def _function(module: str, name: str) -> Callable[[bytes], Reading]:
    return getattr(import_module(f"index.formats.{module}"), name)  # type: ignore[no-any-return]


def _check_kind(content: bytes, suffix: str) -> None:
    """Refuses a file whose bytes are plainly of another kind than its name says."""
    beginning = content[:1024]
    for pattern, kind, suffixes in _SIGNATURES:
        if pattern.match(beginning):
            if suffix in suffixes:
                return
            # Text about PDF files may well quote how they begin.
            if kind == "a PDF" and not beginning.startswith(b"%PDF-"):
                continue
            raise UnreadableDocument(f"it is {kind}, whatever its name says")
    if suffix in _BINARY:
        kind = "a web page" if _PAGE.match(content[:1024].removeprefix(b"\xef\xbb\xbf")) else f"no {suffix} file"
        raise UnreadableDocument(f"it is {kind}, whatever its name says")
