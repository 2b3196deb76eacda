"""Tests of rag.library: uploads, removals and folders, one piece of work after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import FakeEmbedder
from numpy.typing import NDArray

from index.errors import CitewellError, StoreError
from index.store import Store
from index.sync import GROUP_DOCUMENTS, REMOVED_BY_HAND, SyncReport, root_of
from rag.library import Library, Outcome, listing, safe_name


class SlowEmbedder(FakeEmbedder):
    """Waits for `go` before each batch, so that a test can look in between."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.begun = threading.Event()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.begun.set()
        assert self.go.wait(30)
        return super().embed(texts)


@pytest.fixture
def library(store: Store, embedder: FakeEmbedder) -> Iterator[Library]:
    made = Library(store, embedder, 1_000_000)
    yield made
    made.close()


@pytest.fixture
def upload(tmp_path: Path) -> Callable[[str], Path]:
    def made(text: str) -> Path:
        path = tmp_path / "sent"
        path.write_text(text, encoding="utf-8")
        return path

    return made


def settled(library: Library) -> tuple[Outcome, ...]:
    """The outcomes, once nothing is going on any more."""
    deadline = time.monotonic() + 30
    while library.work() is not None or library._worker is not None:
        assert time.monotonic() < deadline, library.work()
        time.sleep(0.01)
    return library.outcomes()


def sources(store: Store) -> list[str]:
    return [document.source for document in store.documents()]


def test_an_uploaded_file_is_kept_and_indexed(library: Library, store: Store, upload: Callable[[str], Path]) -> None:
    assert library.add("notes.txt", upload("The zebra text.")) == "notes.txt"
    assert settled(library)[0].report == SyncReport(added=("notes.txt",))
    assert store.text(store.documents()[0].id) == "The zebra text."
    assert (library.uploads / "notes.txt").read_text() == "The zebra text."


def test_a_file_of_the_same_name_takes_the_place_of_the_earlier(library: Library, store: Store, upload: Callable[[str], Path]) -> None:
    library.add("notes.txt", upload("The zebra text."))
    settled(library)
    library.add("notes.txt", upload("The giraffe text."))
    assert settled(library)[0].report == SyncReport(changed=("notes.txt",))
    assert store.text(store.documents()[0].id) == "The giraffe text."


def test_a_broken_file_is_rejected_with_its_reason_and_can_be_let_go(library: Library, store: Store, upload: Callable[[str], Path]) -> None:
    library.add("notes.pdf", upload("This is no PDF."))
    (outcome,) = settled(library)
    assert outcome.report is not None
    assert outcome.report.rejected.keys() == {"notes.pdf"}
    (rejection,) = store.rejections()
    with pytest.raises(KeyError):
        library.discard("/elsewhere", rejection.source)
    library.discard(rejection.root, rejection.source)
    assert store.rejections() == []
    assert list(library.uploads.iterdir()) == []


def test_a_file_too_large_is_refused_and_not_kept(library: Library, upload: Callable[[str], Path]) -> None:
    with pytest.raises(CitewellError, match="larger than 1 MB"):
        library.add("big.txt", upload("x" * 1_000_001))
    assert not library.uploads.exists()


def test_removing_an_upload_deletes_its_file(library: Library, store: Store, upload: Callable[[str], Path]) -> None:
    library.add("notes.txt", upload("The zebra text."))
    settled(library)
    library.remove([store.documents()[0].id])
    assert store.documents() == []
    assert not (library.uploads / "notes.txt").exists()


def test_a_document_removed_from_a_folder_stays_out_until_it_is_retried(library: Library, store: Store, folder: Path) -> None:
    library.sync(folder)
    tea = next(document for document in store.documents() if document.source == "tea.txt")
    library.remove([tea.id])
    assert sources(store) == ["apollo.md"]
    assert (folder / "tea.txt").exists()
    (folder / "tea.txt").write_text("Oolong is brewed at 90 degrees.")
    assert library.sync(folder).rejected == {"tea.txt": REMOVED_BY_HAND}
    library.retry(root_of(folder), "tea.txt")
    assert settled(library)[0].report == SyncReport(added=("tea.txt",))


def test_unknown_ids_are_named_and_the_others_are_gone(library: Library, store: Store, folder: Path) -> None:
    library.sync(folder)
    with pytest.raises(KeyError, match="nothing"):
        library.remove(["nothing", *[document.id for document in store.documents()]])
    assert store.documents() == []


def test_an_upload_that_is_removed_and_sent_again_while_others_are_read_stays(store: Store, folder: Path, upload: Callable[[str], Path]) -> None:
    embedder = SlowEmbedder()
    embedder.go.set()
    library = Library(store, embedder, 1_000_000)
    library.add("notes.txt", upload("The zebra text."))
    settled(library)
    embedder.go.clear()
    embedder.begun.clear()
    library.sync_soon(folder)
    assert embedder.begun.wait(30)
    library.remove([store.documents()[0].id])
    library.add("notes.txt", upload("The giraffe text."))
    embedder.go.set()
    settled(library)
    library.close()
    assert sources(store) == ["apollo.md", "notes.txt", "tea.txt"]
    assert (library.uploads / "notes.txt").read_text() == "The giraffe text."


def test_what_is_removed_while_it_is_synced_stays_removed_though_the_sync_fails(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = SlowEmbedder()
    embedder.go.set()
    library = Library(store, embedder, 1_000_000)
    library.sync(folder)
    tea = next(document for document in store.documents() if document.source == "tea.txt")
    (folder / "tea.txt").write_text("Oolong is brewed at 90 degrees.")
    embedder.go.clear()
    embedder.begun.clear()
    library.sync_soon(folder)
    assert embedder.begun.wait(30)
    library.remove([tea.id])
    monkeypatch.setattr(store, "finish_sync", None)  # what comes after it was to be stored fails
    embedder.go.set()
    settled(library)
    library.close()
    assert sources(store) == ["apollo.md"]


def test_what_waited_when_citewell_was_stopped_is_read_when_it_is_back(store: Store, embedder: FakeEmbedder) -> None:
    library = Library(store, embedder, 1_000_000)
    library.uploads.mkdir()
    (library.uploads / "notes.txt").write_text("The zebra text.")
    assert library.waiting() == (("uploads", "notes.txt"),)
    library.resume()
    settled(library)
    assert sources(store) == ["notes.txt"]
    library.resume()
    assert library.work() is None
    library.close()


def test_only_rejected_and_waiting_files_are_read_again(library: Library, store: Store, folder: Path, tmp_path: Path) -> None:
    (folder / "bad.txt").write_bytes(b"\x00")
    library.sync(folder)
    for root, source in (("", "x"), (root_of(tmp_path), "x"), (root_of(folder), "tea.txt"), (root_of(folder), "nothing")):
        with pytest.raises(KeyError):
            library.retry(root, source)
    folder.rename(folder.with_name("away"))
    with pytest.raises(CitewellError, match="not there"):
        library.retry(str(folder.resolve()), "bad.txt")
    assert [rejection.source for rejection in store.rejections()] == ["bad.txt"]


def test_a_folder_that_has_gone_can_be_let_go(library: Library, store: Store, folder: Path) -> None:
    (folder / "bad.txt").write_bytes(b"\x00")
    library.sync(folder)
    folder.rename(folder.with_name("away"))
    assert library.forget(folder) == 2
    assert store.documents() == []
    assert store.rejections() == []
    with pytest.raises(CitewellError, match="Nothing of the folder"):
        library.forget(folder)


def test_a_large_folder_is_let_go_in_groups(library: Library, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2 * GROUP_DOCUMENTS):
        (folder / f"{number}.txt").write_text(f"Note {number} is about tea.")
    library.sync(folder)
    there = store.document_count()
    groups: list[int] = []
    monkeypatch.setattr(store, "remove_many", lambda ids: (groups.append(len(ids)), Store.remove_many(store, ids)))
    assert library.forget(folder) == there == sum(groups)
    assert max(groups) <= GROUP_DOCUMENTS
    assert store.documents() == []


def test_a_folder_that_was_let_go_in_part_can_be_let_go_again(library: Library, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(GROUP_DOCUMENTS):
        (folder / f"{number}.txt").write_text(f"Note {number} is about tea.")
    (folder / "bad.txt").write_bytes(b"\x00")
    library.sync(folder)
    there = store.document_count()
    remove, gone = store.remove_many, 0

    def once(ids: Sequence[str]) -> None:
        nonlocal gone
        if gone:
            raise StoreError("The disk is full.")
        gone += len(ids)
        remove(ids)

    monkeypatch.setattr(store, "remove_many", once)
    with pytest.raises(StoreError):
        library.forget(folder)
    assert store.document_count() == there - gone > 0
    assert [one.source for one in store.rejections()] == ["bad.txt"]
    monkeypatch.setattr(store, "remove_many", remove)
    assert library.forget(folder) == there - gone
    assert store.documents() == []
    assert store.rejections() == []


def test_what_is_removed_while_it_is_synced_stays_removed(store: Store, folder: Path) -> None:
    embedder = SlowEmbedder()
    embedder.go.set()
    library = Library(store, embedder, 1_000_000)
    library.sync(folder)
    tea = next(document for document in store.documents() if document.source == "tea.txt")
    (folder / "tea.txt").write_text("Oolong is brewed at 90 degrees.")
    embedder.go.clear()
    embedder.begun.clear()
    library.sync_soon(folder)
    assert embedder.begun.wait(30)
    library.remove([tea.id])
    embedder.go.set()
    settled(library)
    library.close()
    assert sources(store) == ["apollo.md"]


def test_work_is_shown_and_can_be_cancelled(store: Store, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.sync.AT_ONCE", 1)
    embedder = SlowEmbedder()
    library = Library(store, embedder, 1_000_000)
    assert library.work() is None
    library.sync_soon(folder)
    assert embedder.begun.wait(30)
    work = library.work()
    assert work is not None
    assert (work.what, work.done, work.total) == (f"Syncing {folder}", 0, 2)
    library.sync_soon(tmp_path)
    library.cancel()
    embedder.go.set()
    (outcome,) = settled(library)
    assert outcome.report is not None
    assert outcome.report.cancelled
    assert store.documents() == []
    assert library.sync(folder).added == ("apollo.md", "tea.txt")
    library.close()


def test_an_upload_waits_until_it_is_read(store: Store, upload: Callable[[str], Path]) -> None:
    embedder = SlowEmbedder()
    library = Library(store, embedder, 1_000_000)
    assert library.waiting() == ()
    library.add("notes.txt", upload("The zebra text."))
    assert embedder.begun.wait(30)
    assert library.waiting() == (("uploads", "notes.txt"),)
    embedder.go.set()
    settled(library)
    assert library.waiting() == ()
    library.close()


def test_files_that_are_uploaded_together_are_told_of_together(store: Store, upload: Callable[[str], Path]) -> None:
    embedder = SlowEmbedder()
    library = Library(store, embedder, 1_000_000)
    library.add("one.txt", upload("The zebra text."))
    assert embedder.begun.wait(30)
    library.add("two.txt", upload("The giraffe text."))
    library.add("three.pdf", upload("This is no PDF."))
    embedder.go.set()
    settled(library)
    library.add("one.txt", upload("The zebra text."))
    (outcome,) = settled(library)
    library.close()
    assert outcome.report is not None
    assert (outcome.report.added, outcome.report.unchanged, [*outcome.report.rejected]) == (("one.txt", "two.txt"), (), ["three.pdf"])


def test_later_uploads_have_a_report_of_their_own(library: Library, upload: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.library.TOGETHER_SECONDS", 0.0)
    library.add("one.txt", upload("The zebra text."))
    settled(library)
    library.add("two.txt", upload("The giraffe text."))
    assert [outcome.report for outcome in settled(library)] == [SyncReport(added=("two.txt",)), SyncReport(added=("one.txt",))]


def test_reading_one_file_again_tells_of_that_file_alone(library: Library, store: Store, upload: Callable[[str], Path]) -> None:
    for name in ("one.pdf", "two.pdf", "good.txt"):
        library.add(name, upload("These are words."))
    settled(library)
    library.retry("uploads", "one.pdf")
    outcome = settled(library)[0]
    assert outcome.what == "Reading one.pdf again"
    assert outcome.report is not None
    assert (outcome.report.unchanged, [*outcome.report.rejected]) == ((), ["one.pdf"])


def test_a_mistake_of_whoever_asked_is_told_to_nobody_else(library: Library, tmp_path: Path) -> None:
    with pytest.raises(CitewellError, match="There is no folder"):
        library.sync(tmp_path / "nowhere")
    assert library.outcomes() == ()


def test_the_size_of_a_file_that_was_rejected_is_known(library: Library, upload: Callable[[str], Path], tmp_path: Path) -> None:
    library.add("one.pdf", upload("This is no PDF."))
    settled(library)
    assert library.size("uploads", "one.pdf") == 15
    assert library.size(root_of(tmp_path), "nothing") is None
    assert library.size("uploads", "a\x00b") is None


def test_a_folder_that_is_not_there_is_an_outcome(library: Library, tmp_path: Path) -> None:
    library.sync_soon(tmp_path / "nowhere")
    (outcome,) = settled(library)
    assert outcome.report is None
    assert "There is no folder" in outcome.problem


def test_closing_stops_what_is_going_on(store: Store, folder: Path) -> None:
    embedder = SlowEmbedder()
    library = Library(store, embedder, 1_000_000)
    library.sync_soon(folder)
    assert embedder.begun.wait(30)
    threading.Timer(0.2, embedder.go.set).start()
    library.close()
    assert library.work() is None
    with pytest.raises(CitewellError, match="being closed"):
        library.sync_soon(folder)


def test_the_listing_tells_documents_and_rejected_files(library: Library, store: Store, folder: Path) -> None:
    (folder / "empty.md").touch()
    library.sync(folder)
    entries = listing(store)
    assert [(entry["source"], entry["type"], entry["status"], entry["bytes"]) for entry in entries] == [
        ("apollo.md", "md", "indexed", (folder / "apollo.md").stat().st_size),
        ("empty.md", "md", "rejected", 0),
        ("tea.txt", "txt", "indexed", (folder / "tea.txt").stat().st_size),
    ]
    assert entries[1]["reason"] == "it is empty"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\notes.txt", "notes.txt"),
        (".hidden.md", "hidden.md"),
        ("a\x00b\nc.txt", "a_b_c.txt"),
        ("..", "document"),
        ("", "document"),
        ("/", "document"),
        ("con.txt", "_con.txt"),
        ("what?.md", "what_.md"),
        ("e\u0301.txt", "é.txt"),
        ("no suffix", "no suffix"),
        ("half\ud800.txt", "half_ud800.txt"),
    ],
)
def test_names_that_are_sent_are_made_safe(sent: str, kept: str) -> None:
    assert safe_name(sent) == kept


def test_long_names_keep_their_suffix() -> None:
    name = safe_name("日本語" * 200 + ".docx")
    assert name.endswith(".docx")
    assert len(name.encode()) <= 200
