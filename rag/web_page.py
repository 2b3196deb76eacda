"""What came from a web address as a file for the library: of which kind it is, and what it is called (pure)."""

from __future__ import annotations

import codecs
import hashlib
import re
from pathlib import PurePosixPath
from urllib.parse import unquote

from index.read import PICTURES, READERS
from index.split import CODE
from rag.web_address import WebAddress

NAME_BYTES = 120
"""Enough to recognise an address by; rag.library cuts longer names at their end, where the key stands."""

TYPES = {
    "text/html": ".html",
    "application/xhtml+xml": ".xhtml",
    "application/pdf": ".pdf",
    "application/x-pdf": ".pdf",
    "text/plain": ".txt",
    "text/markdown": ".md",
    "text/x-markdown": ".md",
    "text/x-rst": ".rst",
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "text/xml": ".xml",
    "application/xml": ".xml",
    "application/rss+xml": ".xml",
    "application/atom+xml": ".xml",
    "application/json": ".json",
    "application/ld+json": ".json",
    "application/x-ndjson": ".jsonl",
    "application/jsonl": ".jsonl",
    "application/x-ipynb+json": ".ipynb",
    "application/epub+zip": ".epub",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": ".pptx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
    "application/vnd.oasis.opendocument.text": ".odt",
    "application/vnd.oasis.opendocument.spreadsheet": ".ods",
    "application/vnd.ms-excel": ".xls",
    "application/vnd.ms-outlook": ".msg",
    "message/rfc822": ".eml",
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/tiff": ".tif",
}
"""What a server calls a file, and the suffix that index.read knows such a file by."""

UNTOLD = ("", "application/octet-stream", "binary/octet-stream", "application/x-download", "application/force-download")
"""What servers call a file that they know nothing of."""

_TEXT = frozenset((".txt", ".text", ".rst", ".md", ".markdown", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".ipynb", ".xml", *CODE))
"""Kinds that many servers call plain text: there the address knows better."""

_PACKED = frozenset((".pdf", ".epub", ".docx", ".pptx", ".xlsx", ".odt", ".ods", ".xls", ".msg", *PICTURES))
_CHARSETS = re.compile(r"iso-8859-\d{1,2}|latin1|windows-12\d\d|koi8-[ru]|gb2312|gbk|gb18030|big5|shift_jis|euc-jp|iso-2022-jp|euc-kr|tis-620")
"""What is taken at its word. UTF-8 is found out without being told, and Python knows encodings that no page has."""

_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<!doctype html|<html)\b", re.IGNORECASE)


def media_type(header: str) -> str:
    """The type in a Content-Type header, without its parameters; empty where there is none."""
    found = re.match(r"\s*([\w.+-]{1,100}/[\w.+-]{1,100})\s*(?:;|$)", header, re.ASCII)
    return found[1].lower() if found else ""


def in_utf8(content: bytes, header: str, suffix: str) -> bytes:
    """Text in UTF-8 that says so, where the charset in a Content-Type header tells how to read it: a file has no header that could. Else as it came."""
    found = re.search(r";\s*charset\s*=\s*[\"']?([\w.:-]{1,40})", header, re.ASCII | re.IGNORECASE)
    named = found[1].lower() if found else ""
    if not _CHARSETS.fullmatch(named) or suffix not in (".html", ".xhtml", *_TEXT):
        return content
    try:
        # What calls itself Latin-1 is Windows' in fact: https://encoding.spec.whatwg.org/#names-and-labels
        return codecs.BOM_UTF8 + content.decode("cp1252" if named in ("iso-8859-1", "latin1") else named).encode()
    except (LookupError, UnicodeError):
        return content


def may_be_read(declared: str) -> bool:
    """Whether what a server calls so can be a document; its bytes may tell that it is none."""
    return declared in TYPES or declared in UNTOLD or declared.startswith("text/")


def suffix_of(declared: str, address: WebAddress, beginning: bytes) -> str | None:
    """The suffix by which a file is read that a server calls `declared`, and that begins so; None where no reader is known to fit."""
    named = PurePosixPath(unquote(address.target.partition("?")[0])).suffix.lower()
    if beginning.startswith(b"%PDF-"):
        return ".pdf"
    if declared in UNTOLD:
        suffix = named if named and named in READERS else None
    elif declared.startswith("text/") and TYPES.get(declared, ".txt") == ".txt":
        suffix = named if named in _TEXT else ".txt"
    else:
        suffix = TYPES.get(declared)
    # In place of a file that one must sign in for, many servers send a page that says so.
    return ".html" if (suffix is None or suffix in _PACKED) and _PAGE.match(beginning) else suffix


def key_of(address: WebAddress) -> str:
    """What tells one address from another in a file's name: so the same address is the same file, and no two are."""
    return hashlib.blake2b(str(address).encode(), digest_size=5).hexdigest()


def is_keyed(name: str, key: str) -> bool:
    """Whether a file's name was made with this key."""
    return PurePosixPath(name).stem.endswith(f"-{key}")


def file_name(found: WebAddress, key: str, suffix: str) -> str:
    """A name that tells a reader where a page was found: host and path. What follows the ? is left out, as it may be secret."""
    path = unquote(found.target.partition("?")[0], errors="replace")
    readable = re.sub(r'[\s\\/:"<>|?*_]+', "_", "".join(filter(str.isprintable, f"{found.host}{path}"))).strip("_.")
    readable = readable.encode()[:NAME_BYTES].decode("utf-8", "ignore").removesuffix(suffix)
    return f"{readable}-{key}{suffix}"
