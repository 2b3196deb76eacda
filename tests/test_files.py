"""Every real file of the public sample sets, and every naughty string, through `index.read.read`: indexed or rejected with a reason, never anything else.

`python tests/test_files.py` prints what becomes of each file.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import pytest
from conftest import BENCH, FakeEmbedder

from index.errors import UnreadableDocument
from index.read import read
from index.split import split
from index.store import Store
from index.sync import readable, sync
from index.types import Document

FILES = BENCH / "files"
NEEDED = pytest.mark.skipif(not FILES.is_dir(), reason="no sample files: set CITEWELL_BENCH to the folder of public sets")
SAMPLES = sorted(path for path in FILES.rglob("*") if path.is_file()) if FILES.is_dir() else []
SECONDS = 60
KINDS = (".txt", ".md", ".html", ".csv", ".tsv", ".json", ".jsonl", ".eml", ".xml", "")


def outcome(content: bytes, source: str) -> Document | str:
    """The document in a file's bytes, or the reason why there is none."""
    try:
        return read(content, source, "root")
    except UnreadableDocument as reason:
        return str(reason)


def naughty_strings() -> list[str]:
    """The 515 strings of the big list of naughty strings."""
    strings: list[str] = json.loads((FILES / "blns" / "blns.json").read_text(encoding="utf-8"))
    return strings


def check(found: Document | str) -> None:
    """Passages are exact slices of a text that can be stored, and reasons are sentences."""
    if isinstance(found, str):
        assert 10 < len(found) < 400
        assert "\n" not in found
        assert not any(name in found for name in ("Error", "Exception", "Traceback", "object at"))
        return
    assert found.text.strip()
    assert found.title
    found.text.encode("utf-8")
    found.title.encode("utf-8")
    assert "\0" not in found.text
    for passage in split(found):
        assert found.text[passage.span.start : passage.span.end] == passage.text
        assert passage.text.strip()
    assert list(found.pages) == sorted(found.pages)
    assert all(0 <= start <= len(found.text) for start in found.pages)
    end = 0
    for span in found.furniture:
        assert end <= span.start < span.end <= len(found.text)
        end = span.end


@NEEDED
@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.relative_to(FILES).as_posix())
def test_every_file_is_indexed_or_rejected_with_a_reason(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without OCR, which has tests of its own: the scans among them take half a minute.
    monkeypatch.setattr(shutil, "which", lambda name: None)
    started = time.process_time()
    check(outcome(path.read_bytes(), path.relative_to(FILES).as_posix()))
    assert time.process_time() - started < SECONDS


@NEEDED
def test_the_samples_are_all_there() -> None:
    assert len(SAMPLES) >= 156


@NEEDED
@pytest.mark.parametrize("suffix", KINDS)
def test_naughty_strings_are_read_as_content(suffix: str) -> None:
    written = {
        ".eml": lambda string: f"Subject: {string}\nFrom: {string}\n\n{string}",
        ".html": lambda string: f"<title>{string}</title><p title='{string}'>{string}",
        ".xml": lambda string: f"<a title='{string}'>{string}</a>",
        ".json": lambda string: json.dumps({string: [string, {string: string}]}),
        ".csv": lambda string: f"name,said\nAnn,{string}\nBob,{string}\n",
    }.get(suffix, lambda string: f"Some words.\n{string}\n")
    for string in naughty_strings():
        if suffix != ".html":
            check(outcome(string.encode("utf-8", "surrogatepass"), f"naughty{suffix}"))
        check(outcome(written(string).encode("utf-8", "surrogatepass"), f"naughty{suffix}"))


@NEEDED
def test_naughty_strings_are_only_names_as_names() -> None:
    for string in naughty_strings():
        for name in (string, f"{string}.md", f"../{string}/{string}.txt", f"/etc/{string}.csv"):
            found = outcome(b"Some words.", name)
            check(found)
            if isinstance(found, Document):
                assert (found.source, found.text) == (name, "Some words.")


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@NEEDED
def test_naughty_strings_are_names_of_real_files(store: Store, embedder: FakeEmbedder, tmp_path: Path) -> None:
    folder = tmp_path / "naughty"
    folder.mkdir()
    written = 0
    for string in naughty_strings():
        name = string.replace("/", "\N{DIVISION SLASH}").replace("\0", "")
        name = name.encode("utf-8", "surrogatepass")[:200].decode("utf-8", "ignore") + ".md"
        try:
            (folder / name).write_text(f"Some words about {written}.", encoding="utf-8")
            written += 1
        except (OSError, ValueError):
            continue
    before = tree(tmp_path)
    report = sync(store, embedder, folder)
    assert report.rejected == {}
    visible = sum(not path.name.startswith(".") for path in folder.iterdir())
    assert len(report.added) == visible > 400
    assert {document.source for document in store.documents()} == {readable(path.name) for path in folder.iterdir() if not path.name.startswith(".")}
    assert {name for name in tree(tmp_path) - before if not name.startswith("store")} == set()
    assert sync(store, embedder, folder).unchanged == report.added


@NEEDED
def test_every_file_goes_through_a_real_sync(store: Store, embedder: FakeEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Children that find no tesseract: OCR has tests of its own, and takes half a minute for the scans among these.
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = tmp_path / "files"
    shutil.copytree(FILES, folder)
    before = tree(tmp_path)
    report = sync(store, embedder, folder)
    accounted = {*report.added, *report.rejected}
    assert accounted == {path.relative_to(FILES).as_posix() for path in SAMPLES}
    assert len(report.added) > 100
    for document in store.documents():
        text = store.text(document.id)
        for passage in store.passages([one for one, _ in store.matching(text[:300], 40, [document.id])]).values():
            assert text[passage.span.start : passage.span.end] == passage.text
    assert {name for name in tree(tmp_path) - before if not name.startswith("store")} == set()
    assert sync(store, embedder, folder).unchanged == report.added


def main() -> None:
    """Prints a table of what became of each file."""
    rows = []
    for path in SAMPLES:
        started = time.perf_counter()
        found = outcome(path.read_bytes(), path.relative_to(FILES).as_posix())
        taken = time.perf_counter() - started
        if isinstance(found, Document):
            pages = f", pages: {len(found.pages)}" if found.pages else ""
            marked = f", pieces of furniture: {len(found.furniture)}" if found.furniture else ""
            rows.append((path, f"indexed: {len(found.text):,} characters{pages}{marked}", taken))
        else:
            rows.append((path, f"rejected: {found}", taken))
    sys.stdout.write("| source | outcome | seconds |\n|---|---|---:|\n")
    for path, said, taken in rows:
        sys.stdout.write(f"| {path.relative_to(FILES).as_posix()} | {said} | {taken:.2f} |\n")
    indexed = sum(said.startswith("indexed") for _, said, _ in rows)
    sys.stdout.write(f"\n{len(rows)} files: {indexed} indexed, {len(rows) - indexed} rejected\n")


if __name__ == "__main__":
    main()
