"""From a file to a Document. One table of suffix to function; a document's text is what the file holds, unchanged."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from index.errors import UnreadableDocument
from index.split import blocks, heading_name
from index.types import Document

MAX_BYTES = 25_000_000
TITLE_CHARACTERS = 120
TITLE_WITHIN = 100_000
"""A title is looked for in this many characters from the start."""

_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_ENCODINGS = """cp1252 cp1250 cp1251 cp1253 cp1254 cp1255 cp1256 cp1257 koi8_r shift_jis euc_jp gb18030 big5 euc_kr""".split()  # noqa: SIM905
"""What files that are not Unicode are written in. Given every codec, the guesser finds UTF-16 in `Résumé` and EBCDIC in noise."""

_CENTRAL_EUROPEAN = re.compile(
    rb"(?<=[A-Za-z])[\x8a\x8d-\x8f\x9a\x9d-\x9f\xa3\xa5\xaf\xb3\xb9\xba\xbc\xbe]|[\x8a\x8d-\x8f\x9a\x9d-\x9f\xa3\xa5\xaf\xb3\xb9\xba\xbc\xbe](?=[a-z])"
)
"""Letters in cp1250, as in `żółw` and `šaty`, where cp1252 has signs that stand in no word."""


def decode(content: bytes) -> str:
    """The text of a file's bytes, newlines as they are. UTF-8 first, then what the bytes themselves suggest; binary is refused."""
    encoding = next((encoding for mark, encoding in _BYTE_ORDER_MARKS if content.startswith(mark)), None)
    if encoding is None and b"\x00" in content:
        raise UnreadableDocument("it holds binary data, not text")
    try:
        text = content.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        if encoding is not None:
            raise UnreadableDocument(f"it claims to be {encoding.removesuffix('-sig').upper()} but is not") from None
        text = _decode_by_guess(content)
    if "\x00" in text:
        raise UnreadableDocument("it holds binary data, not text")
    return text


def _decode_by_guess(content: bytes) -> str:
    telling = _telling(content)
    foreign = sum(byte > 127 for byte in telling)
    encoding: str | None = "cp1250"
    # Too few accents are beyond statistics; what has few is Latin script.
    if foreign > 30 or foreign * 3 > len(telling) or re.search(rb"[\x00-\x08\x0e-\x1f]", content):
        from charset_normalizer import from_bytes

        guess = from_bytes(telling, cp_isolation=_ENCODINGS).best()
        encoding = guess.encoding if guess else None
    if encoding == "cp1250" and len(_CENTRAL_EUROPEAN.findall(telling)) * 20 < foreign:
        # The guesser takes French for Czech.
        encoding = "cp1252"
    try:
        if encoding is not None:
            return content.decode(encoding)
    except UnicodeDecodeError:
        pass
    raise UnreadableDocument("its text encoding cannot be told; save it as UTF-8") from None


def _telling(content: bytes, size: int = 4_000) -> bytes:
    """The first lines that are not plain ASCII, as many as tell the encoding."""
    lines: list[bytes] = []
    for line in content.splitlines():
        if not line.isascii():
            lines.append(line)
            size -= len(line)
        if size < 0:
            break
    return b"\n".join(lines)


def _plain(content: bytes) -> tuple[str, str | None]:
    text = decode(content)
    first = next((line.strip() for line in text[:TITLE_WITHIN].splitlines() if line.strip()), "")
    return text, first if 0 < len(first) <= TITLE_CHARACTERS and not first.endswith((".", "!", "?", ":", ";", ",")) else None


def _markdown(content: bytes) -> tuple[str, str | None]:
    text = decode(content)
    beginning = text[:TITLE_WITHIN]
    return text, next((heading_name(beginning, block) for block in blocks(beginning) if block.level == 1), None)


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
