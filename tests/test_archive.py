"""Tests of index.formats.archive: honest archives open, and everything that would unpack into harm is refused with a true reason, quickly."""

from __future__ import annotations

import io
import struct
import time
import zipfile
import zlib

import pytest

from index.errors import UnreadableDocument
from index.formats.archive import MAX_ENTRIES, MAX_UNPACKED, OLE, entries
from index.read import read

MEGABYTE = 1_000_000


def packed(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def by_hand(files: list[tuple[bytes, bytes, int]], claimed: int | None = None, local: bool = True, flags: int = 0) -> bytes:
    """An archive written byte by byte, deflated; each file's size is `claimed` where given, and each has its bytes apart only if `local`."""
    body = directory = b""
    for number, (name, content, attributes) in enumerate(files):
        squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
        data = squeezer.compress(content) + squeezer.flush()
        size = len(content) if claimed is None else claimed
        fields = struct.pack("<HHHHHLLLHH", 20, flags, 8, 0, 33, zlib.crc32(content), len(data), size, len(name), 0)
        offset = len(body) if local or not number else 0
        if local or not number:
            body += b"PK\x03\x04" + fields + name + data
        directory += b"PK\x01\x02\x14\x03" + fields + struct.pack("<HHHLL", 0, 0, 0, attributes, offset) + name
    return body + directory + b"PK\x05\x06" + struct.pack("<HHHHLLH", 0, 0, len(files), len(files), len(directory), len(body), 0)


def reason(content: bytes) -> str:
    started = time.process_time()
    with pytest.raises(UnreadableDocument) as refused:
        entries(content)
    assert time.process_time() - started < 5
    return str(refused.value)


def test_an_honest_archive_opens_as_a_mapping() -> None:
    found = entries(packed({"word/document.xml": b"<w/>", "empty.txt": b"", "folder/": b""}))
    assert dict(found) == {"word/document.xml": b"<w/>", "empty.txt": b""}
    assert "missing" not in found
    assert len(found) == 2


def test_an_archive_written_by_hand_opens_too() -> None:
    assert dict(entries(by_hand([(b"a.xml", b"hello" * 10, 0), (b"b.xml", b"there", 0)]))) == {"a.xml": b"hello" * 10, "b.xml": b"there"}


def test_stored_entries_and_small_ones_that_pack_tightly_are_fine() -> None:
    assert entries(packed({"blank.xml": b" " * 900_000}))["blank.xml"] == b" " * 900_000
    assert entries(packed({"a.xml": b"a" * 5}, zipfile.ZIP_STORED))["a.xml"] == b"aaaaa"


def test_what_unpacks_to_a_hundred_times_its_size_is_refused() -> None:
    assert "100 times" in reason(packed({"bomb.xml": bytes(20 * MEGABYTE)}))


def test_what_unpacks_to_more_than_the_limit_is_refused_by_its_directory_alone() -> None:
    assert "more than 200 MB" in reason(by_hand([(b"bomb.xml", b"x", 0)], claimed=MAX_UNPACKED + 1))


def test_many_entries_that_are_too_much_together_are_refused() -> None:
    assert "more than 200 MB" in reason(by_hand([(b"%d.xml" % number, b"x", 0) for number in range(300)], claimed=990_000))
    assert "100 times" in reason(by_hand([(b"%d.xml" % number, b"x", 0) for number in range(100)], claimed=990_000))


def test_a_header_that_lies_about_the_size_is_found_out_without_unpacking_it_all() -> None:
    assert "unpacks to more than it says" in reason(by_hand([(b"bomb.xml", bytes(20 * MEGABYTE), 0)], claimed=100))


def test_entries_that_share_their_bytes_are_refused() -> None:
    shared = [(b"%d.xml" % number, b"x" * 1000, 0) for number in range(50)]
    assert "damaged" in reason(by_hand(shared, local=False))


def test_too_many_entries_are_refused() -> None:
    assert "more than 2,000 files" in reason(packed({f"{number}": b"" for number in range(MAX_ENTRIES + 1)}))
    assert len(entries(packed({f"{number}": b"" for number in range(MAX_ENTRIES)}))) == MAX_ENTRIES


def test_a_directory_of_half_a_million_entries_costs_nothing() -> None:
    assert "more than 2,000 files" in reason(by_hand([(b"a", b"", 0)], local=False)[:-22] + b"PK\x01\x02" * 6 * MEGABYTE)


@pytest.mark.parametrize("name", [b"../evil.xml", b"a/../../evil.xml", b"/etc/passwd", b"C:\\evil.xml", b"..\\evil.xml", b"\\\\server\\share"])
def test_names_that_leave_the_folder_are_refused(name: bytes) -> None:
    assert "leads out of its folder" in reason(by_hand([(name, b"x", 0)]))


def test_a_name_that_stops_midway_is_damaged() -> None:
    assert "damaged" in reason(by_hand([(b"a\0b", b"x", 0)]))


def test_links_are_refused() -> None:
    assert "link" in reason(by_hand([(b"link", b"/etc/passwd", 0o120777 << 16)]))


def test_two_entries_of_one_name_are_refused() -> None:
    assert "same name" in reason(by_hand([(b"a.xml", b"one", 0), (b"a.xml", b"two", 0)]))


def test_encrypted_entries_are_refused_for_their_password() -> None:
    assert "password" in reason(by_hand([(b"a.xml", b"x", 0)], flags=1))


def test_office_files_in_the_old_container_are_told_apart() -> None:
    assert "password" in reason(OLE + bytes(512) + "EncryptedPackage".encode("utf-16-le"))
    assert "before 2007" in reason(OLE + bytes(512))


def test_compression_that_no_document_uses_is_refused() -> None:
    assert "never are" in reason(packed({"a.xml": b"x" * 1000}, zipfile.ZIP_BZIP2))


@pytest.mark.parametrize("cut", [1, 30, 60, 100])
def test_truncated_archives_are_damaged(cut: int) -> None:
    assert "damaged" in reason(packed({"a.xml": b"x" * 1000})[:-cut])


def test_a_damaged_entry_is_refused_when_it_is_asked_for() -> None:
    content = bytearray(packed({"good.xml": b"good", "bad.xml": bytes(range(256)) * 40}))
    at = content.index(b"bad.xml") + len(b"bad.xml") + 20
    content[at : at + 4] = b"\xff\xff\xff\xff"
    found = entries(bytes(content))
    assert found["good.xml"] == b"good"
    with pytest.raises(UnreadableDocument, match="damaged"):
        found["bad.xml"]


@pytest.mark.parametrize("suffix", [".docx", ".pptx", ".xlsx", ".odt", ".ods", ".epub", ".xlsm", ".xls"])
def test_every_format_that_is_packed_refuses_a_bomb(suffix: str) -> None:
    with pytest.raises(UnreadableDocument, match="unpack to more"):
        read(packed({"[Content_Types].xml": bytes(20 * MEGABYTE)}), f"bomb{suffix}", "root")


def test_archives_within_archives_are_never_unpacked() -> None:
    inner = packed({"0.zip": packed({"0.dll": bytes(20 * MEGABYTE)})})
    nested = packed({f"{number}.zip": inner for number in range(16)}, zipfile.ZIP_STORED)
    with pytest.raises(UnreadableDocument, match=r"'\.zip' cannot be read"):
        read(nested, "42.zip", "root")
    started = time.process_time()
    with pytest.raises(UnreadableDocument):
        read(nested, "42.docx", "root")
    assert time.process_time() - started < 5
