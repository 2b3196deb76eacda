"""Tests of index.read: every encoding that people save in, exact text, titles, and reasons for what is refused."""

from __future__ import annotations

import hashlib
import random
import time
from importlib import import_module

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.errors import UnreadableDocument
from index.formats.text import TITLE_CHARACTERS, decode
from index.read import READERS, document_id, fingerprint, read
from index.split import split

TEXT = "Grüße\r\nЗдравствуй, 世界 🎉\r\n\r\nEnd\n"


def title(content: str, source: str = "folder/name.md") -> str:
    return read(content.encode(), source, "root").title


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_unicode_is_read_exactly(encoding: str) -> None:
    assert read(TEXT.encode(encoding), "a.txt", "root").text == TEXT


@pytest.mark.parametrize(("mark", "encoding"), [(b"\xfe\xff", "utf-16-be"), (b"\xff\xfe", "utf-16-le"), (b"\x00\x00\xfe\xff", "utf-32-be")])
def test_byte_order_marks_of_both_orders_are_understood(mark: bytes, encoding: str) -> None:
    assert decode(mark + TEXT.encode(encoding)) == TEXT


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Résumé", "cp1252"),
        ("It’s a “test” of £5 and €6.", "cp1252"),
        ("Der Bär aß süße Äpfel. Über die Straße läuft ein Mädchen.", "cp1252"),
        ("Les élèves français étudient à l’école.\r\nOù êtes-vous allés hier soir ?\r\n" * 200, "cp1252"),
        ("Zażółć gęślą jaźń. Pójdź, kińże tę chmurność w głąb flaszy. " * 10, "cp1250"),
        ("Příliš žluťoučký kůň úpěl ďábelské ódy.", "cp1250"),
        ("España, mañana, el niño comió piñas. ¿Qué? " * 10, "cp1252"),
        ("Москва — столица России.\n" * 30, "cp1251"),
        ("これは日本語の文章です。東京は日本の首都です。" * 5, "shift_jis"),
        ("这是一个中文句子。北京是中国的首都。" * 5, "gb18030"),
    ],
    ids=lambda value: value[:20],
)
def test_older_encodings_are_guessed(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)) == text


def test_large_files_of_an_older_encoding_are_guessed_in_no_time() -> None:
    content = ("Plain English for a while. " * 100 + "\nLes élèves français étudient à l’école.\n").encode("cp1252") * 3_000
    started = time.process_time()
    assert "élèves français" in decode(content)
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "PNG picture"),
        ("UTF-16 without a mark".encode("utf-16-le"), "binary"),
        (b"\xef\xbb\xbfwith a mark \x00 and a null", "binary"),
        ("a\x00b".encode("utf-16"), "binary"),
        (bytes(random.Random(1).choices(range(1, 256), k=2_000)), "encoding cannot be told"),
        (b"\xef\xbb\xbf\xff\xff", "claims to be UTF-8"),
        (b"\xff\xfea", "claims to be UTF-16"),
        (b"\xff\xfe\x00\x00abc", "claims to be UTF-32"),
        (b"", "^it is empty$"),
        (b" \r\n\t\x0c\n", "no text"),
        ("\ufeff \u3000\u2028".encode(), "no text"),
        ("\ufeff".encode("utf-16-le"), "no text"),
    ],
    ids=repr,
)
def test_what_is_no_text_is_refused_with_its_reason(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableDocument, match=reason):
        read(content, "a.txt", "root")


@pytest.mark.parametrize("source", ["a.exe", "archive.tar.gz", "folder.md/file.xyz", "a.md~"])
def test_unknown_suffixes_are_refused(source: str) -> None:
    with pytest.raises(UnreadableDocument, match=r"cannot be read$"):
        read(b"text", source, "root")


@pytest.mark.parametrize("source", ["Makefile", "folder.md/LICENSE", ".md"])
def test_files_without_a_suffix_are_read_as_text(source: str) -> None:
    assert read(b"text", source, "root").text == "text"


def test_the_case_of_a_suffix_does_not_matter() -> None:
    assert read(b"text", "README.MD", "root").text == "text"


@given(st.binary(max_size=300), st.sampled_from(["a.txt", "a.md"]))
def test_any_bytes_become_a_document_with_passages_or_a_reason(content: bytes, source: str) -> None:
    try:
        document = read(content, source, "root")
    except UnreadableDocument:
        return
    assert split(document)
    assert document.title
    assert document.text.encode("utf-8")


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), min_size=1).filter(str.strip))
def test_the_text_is_kept_exactly(text: str) -> None:
    assert read(text.encode("utf-8"), "a.md", "root").text == text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("# The title\n\nText.", "The title"),
        ("\n\nIntro.\n\n# Later #\n", "Later"),
        ("## Second level only\n", "name"),
        ("#no space\n", "name"),
        ("#\n\nText under an empty heading\n", "name"),
        ("```sh\n# install it\n```\n\n# Real title\n", "Real title"),
        ("# Learn C#\n", "Learn C#"),
        ("# Windows\r\n\r\nText\r\n", "Windows"),
        ("No heading.", "name"),
        ("# \n", "name"),
    ],
    ids=repr,
)
def test_titles_of_markdown(content: str, expected: str) -> None:
    assert title(content) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("Notes on tea\n\nGreen tea is green.", "Notes on tea"),
        ("\n  \n  Indented title  \nMore", "Indented title"),
        ("A whole sentence.\nMore", "name"),
        ("x" * (TITLE_CHARACTERS + 1) + "\nMore", "name"),
    ],
    ids=repr,
)
def test_titles_of_plain_text(content: str, expected: str) -> None:
    assert title(content, "folder/name.txt") == expected


@pytest.mark.parametrize("middle", [" " * 200_000, " #" * 100_000, "#" * 200_000, "x" * 5_000_000], ids=["spaces", "marks", "hashes", "long"])
def test_a_hostile_heading_is_titled_briefly_and_at_once(middle: str) -> None:
    started = time.process_time()
    assert len(title(f"# a{middle}b\n")) <= TITLE_CHARACTERS
    assert time.process_time() - started < 5


def test_fingerprints_are_of_bytes_and_ids_of_places() -> None:
    one, edited, moved, elsewhere = read(b"one", "a.md", "r"), read(b"two", "a.md", "r"), read(b"one", "b.md", "r"), read(b"one", "a.md", "s")
    assert one.fingerprint == fingerprint(b"one") == hashlib.sha256(b"one").hexdigest() != edited.fingerprint
    assert one.id == edited.id == document_id("r", "a.md")
    assert len({one.id, moved.id, elsewhere.id}) == 3
    assert document_id("r", "\udcff.md") != document_id("r", "\udcfe.md")


def test_each_suffix_has_a_reader_that_is_there() -> None:
    for suffix, (module, name) in READERS.items():
        assert callable(getattr(import_module(f"index.formats.{module}"), name)), suffix
