"""Zip archives (Office files, e-books) opened safely: what would unpack into harm is refused before it is unpacked."""

from __future__ import annotations

import io
import re
import stat
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from index.errors import UnreadableDocument

MAX_ENTRIES = 2_000
MAX_UNPACKED = 200_000_000
MAX_RATIO = 100
RATIO_FLOOR = 1_000_000
"""What unpacks to no more than this may be packed as tightly as it likes: an empty sheet or a blank picture is, and does no harm."""

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""How the files of Office before 2007 begin, and the encrypted ones of Office since."""
PASSWORD = "it is protected by a password; save it without one"  # noqa: S105
DAMAGED = "it is damaged: its packed parts cannot be read; save it again"
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Entries(Mapping[str, bytes]):
    """The files in an archive by name; each is unpacked when it is asked for. Raises UnreadableDocument for one that is damaged."""

    archive: ZipFile
    names: tuple[str, ...]

    def __getitem__(self, name: str) -> bytes:
        if name not in self.names:
            raise KeyError(name)
        try:
            return self.archive.read(name)
        # A damaged entry makes the standard library raise whatever it stumbles over.
        except Exception:
            raise UnreadableDocument(DAMAGED) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def entries(content: bytes) -> Entries:
    """The files in a zip archive, found harmless: afterwards any other library may open the same bytes too.

    At most 2,000 entries, 200 MB unpacked and 100 times the packed size, first as the archive's directory tells it, then as the entries truly unpack;
    no names that leave a folder, no links, no two of a name, none that share their bytes. Raises UnreadableDocument with the reason.
    """
    if content.startswith(OLE):
        old = "EncryptedPackage".encode("utf-16-le") not in content
        raise UnreadableDocument("it is in the format of Office before 2007; save it in the current one" if old else PASSWORD)
    # Counted by their marks, because the standard library would first build them all.
    if content.count(b"PK\x01\x02") > MAX_ENTRIES:
        raise UnreadableDocument(f"it is packed from more than {MAX_ENTRIES:,} files")
    try:
        archive = ZipFile(io.BytesIO(content))
        found = archive.infolist()
    # A crafted directory makes the standard library raise BadZipFile, struct.error, NotImplementedError, UnicodeDecodeError and more.
    except Exception:
        raise UnreadableDocument(DAMAGED) from None
    _check_directory(found, len(content))
    _check_entries(found, content)
    return Entries(archive, tuple(entry.filename for entry in found if not entry.is_dir()))


def _check_directory(found: list[ZipInfo], size: int) -> None:
    """Refuses what the archive's own directory tells."""
    seen: set[str] = set()
    for entry in found:
        name = entry.orig_filename
        if ".." in re.split(r"[/\\]", name) or re.match(r"[/\\]|[A-Za-z]:", name):
            raise UnreadableDocument("it is packed with a name that leads out of its folder")
        if "\0" in name:
            raise UnreadableDocument(DAMAGED)
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise UnreadableDocument("it is packed with a link to another file")
        if entry.filename in seen:
            raise UnreadableDocument("it is packed with two files of the same name")
        seen.add(entry.filename)
        if entry.flag_bits & 0x1:
            raise UnreadableDocument(PASSWORD)
        if entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            raise UnreadableDocument("it is packed in a way that documents never are; save it again")
        _check_size(entry.file_size, entry.compress_size)
    _check_size(sum(entry.file_size for entry in found), size)


def _check_size(unpacked: int, packed: int) -> None:
    if unpacked > MAX_UNPACKED:
        raise UnreadableDocument(f"it would unpack to more than {MAX_UNPACKED // 1_000_000} MB")
    if unpacked > max(RATIO_FLOOR, MAX_RATIO * packed):
        raise UnreadableDocument(f"it would unpack to more than {MAX_RATIO} times its size, as no document does")


def _check_entries(found: list[ZipInfo], content: bytes) -> None:
    """Refuses entries that share their bytes with another or unpack to more than the directory says; other libraries would not notice."""
    free = 0
    for entry in sorted(found, key=lambda entry: entry.header_offset):
        header = content[entry.header_offset : entry.header_offset + 30]
        start = entry.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        if entry.header_offset < free or not header.startswith(b"PK\x03\x04"):
            raise UnreadableDocument(DAMAGED)
        free = start + entry.compress_size
        if _unpacks_beyond(entry, content[start:free]):
            raise UnreadableDocument("it unpacks to more than it says, as only a damaged or a harmful file does")


def _unpacks_beyond(entry: ZipInfo, packed: bytes) -> bool:
    if entry.compress_type == ZIP_STORED:
        return len(packed) > entry.file_size
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    size = 0
    try:
        while size <= entry.file_size and not unpacker.eof:
            piece = unpacker.decompress(packed, _BLOCK)
            size += len(piece)
            packed = unpacker.unconsumed_tail
            if not piece and not packed:
                break
    except zlib.error:
        # Damaged, which concerns whoever reads this entry: an e-book is not lost for one of its pictures.
        pass
    return size > entry.file_size
