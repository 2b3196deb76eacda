"""Plain text: .txt, Markdown, reStructuredText, source code. The text is what the file holds, unchanged."""

from __future__ import annotations

import re

from index.errors import UnreadableDocument
from index.formats.furniture import furniture_in
from index.split import blocks, heading_name
from index.types import Reading

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
_ENCODINGS = """cp1252 cp1250 cp1251 cp1253 cp1254 cp1255 cp1256 cp1257 koi8_r cp932 euc_jp gb18030 big5 euc_kr""".split()  # noqa: SIM905
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


def plain(content: bytes) -> Reading:
    """Text without marks: its title is its first line, when that is short and no sentence."""
    text = decode(content)
    first = next((line.strip() for line in text[:TITLE_WITHIN].splitlines() if line.strip()), "")
    titled = 0 < len(first) <= TITLE_CHARACTERS and not first.endswith((".", "!", "?", ":", ";", ","))
    return Reading(text, first if titled else None, furniture=furniture_in(text))


def markdown(content: bytes) -> Reading:
    """Markdown: its title is its first heading of the first level."""
    text = decode(content)
    beginning = text[:TITLE_WITHIN]
    return Reading(
        text, next((heading_name(beginning, block) for block in blocks(beginning) if block.level == 1), None), furniture=furniture_in(text)
    )


def code(content: bytes) -> Reading:
    """Source code, configuration, logs: no title but the file's name."""
    return Reading(decode(content))
