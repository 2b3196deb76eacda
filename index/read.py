"""From a file to a Document. One table of suffix to function; a document's text is what the file holds, unchanged."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from index.errors import UnreadableDocument
from index.types import Document

MAX_BYTES = 25_000_000
TITLE_CHARACTERS = 120

_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\x00\x00", "utf-32"), (b"\x00\x00\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_MARKDOWN_TITLE = re.compile(r"^#\s+(.+?)\s*#*\s*$", re.MULTILINE)


def decode(content: bytes) -> str:
    """The text of a file's bytes, newlines as they are. UTF-8 first, then what the bytes themselves suggest; binary is refused."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            try:
                return content.decode(encoding)
            except UnicodeDecodeError:
                raise UnreadableDocument(f"it claims to be {encoding.removesuffix('-sig').upper()} but is not") from None
    if b"\x00" in content:
        raise UnreadableDocument("it holds binary data, not text")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        from charset_normalizer import from_bytes

        guess = from_bytes(content).best()
        if guess is None:
            raise UnreadableDocument("its text encoding cannot be told; save it as UTF-8") from None
        return content.decode(guess.encoding)


def _plain(content: bytes) -> tuple[str, str | None]:
    text = decode(content)
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return text, first if 0 < len(first) <= TITLE_CHARACTERS and not first.endswith((".", "!", "?", ":", ";", ",")) else None


def _markdown(content: bytes) -> tuple[str, str | None]:
    text = decode(content)
    heading = _MARKDOWN_TITLE.search(text)
    return text, heading.group(1) if heading else None


READERS: dict[str, Callable[[bytes], tuple[str, str | None]]] = {".txt": _plain, ".md": _markdown, ".markdown": _markdown}
"""Suffix to reader: from a file's bytes to its text and its title, if it tells one."""


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
        raise UnreadableDocument(f"files ending in '{suffix or source}' cannot be read yet; these can: {', '.join(sorted(READERS))}")
    text, title = reader(content)
    if not text.strip():
        raise UnreadableDocument("it holds no text")
    return Document(id=document_id(root, source), source=source, title=title or Path(source).stem, text=text, fingerprint=fingerprint(content))
