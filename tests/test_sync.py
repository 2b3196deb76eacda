"""Tests of index.sync: every file of a folder is accounted for, and only what changed is embedded."""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import DOCUMENTS, FakeEmbedder
from numpy.typing import NDArray

import index.sync as module
from index.contract import DocumentStore
from index.errors import CitewellError, StoreError, UnreadableDocument
from index.store import Entry
from index.sync import SyncReport, sync

PARAGRAPH = "The {} was described at length by those who saw it, and each of them remembered it in another way than all of the others did. "


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> str:
    """What the contract says holds for a store of one machine and for a shared one."""
    return str(request.param)


def sources(store: DocumentStore) -> list[str]:
    return [document.source for document in store.documents()]


def found(store: DocumentStore, words: str) -> list[str]:
    return sorted({passage.source for passage in store.passages([one for one, _ in store.matching(words, 20)]).values()})


# What becomes of each file


def test_a_new_folder_is_added(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    report = sync(store, embedder, folder)
    assert report == SyncReport(added=("apollo.md", "tea.txt"))
    assert sources(store) == ["apollo.md", "tea.txt"]
    assert [document.title for document in store.documents()] == ["The Apollo lander", "Notes on tea"]
    for document in store.documents():
        assert store.text(document.id) == DOCUMENTS[document.source]


def test_an_unchanged_folder_embeds_nothing(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    sync(store, embedder, folder)
    embedder.embedded.clear()
    os.utime(folder / "tea.txt", (1, 1))
    assert sync(store, embedder, folder) == SyncReport(unchanged=("apollo.md", "tea.txt"))
    assert embedder.embedded == []


def test_a_changed_file_replaces_what_was_there(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    sync(store, embedder, folder)
    (folder / "tea.txt").write_text("Notes on tea\n\nOolong is brewed at 90 degrees.\n")
    assert sync(store, embedder, folder) == SyncReport(changed=("tea.txt",), unchanged=("apollo.md",))
    assert found(store, "oolong") == ["tea.txt"]
    assert found(store, "boiling") == []


def test_a_deleted_file_is_removed(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    sync(store, embedder, folder)
    (folder / "tea.txt").unlink()
    assert sync(store, embedder, folder) == SyncReport(removed=("tea.txt",), unchanged=("apollo.md",))
    assert sources(store) == ["apollo.md"]
    assert found(store, "boiling") == []


def test_an_emptied_folder_empties_what_came_from_it(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    sync(store, embedder, folder)
    for path in folder.iterdir():
        path.unlink()
    assert sync(store, embedder, folder).removed == ("apollo.md", "tea.txt")
    assert store.documents() == []


def test_what_cannot_be_read_is_rejected_with_its_reason_and_remembered(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    (folder / "sound.xyz").write_bytes(b"\x89\x00")
    (folder / "binary.txt").write_bytes(b"a\x00b")
    (folder / "empty.md").touch()
    report = sync(store, embedder, folder)
    assert report.added == ("apollo.md", "tea.txt")
    assert {source: reason.split(";")[0] for source, reason in report.rejected.items()} == {
        "sound.xyz": "files ending in '.xyz' cannot be read",
        "binary.txt": "it holds binary data, not text",
        "empty.md": "it is empty",
    }
    assert store.rejected() == report.rejected == sync(store, embedder, folder).rejected
    assert "rejected empty.md: it is empty" in str(report)
    assert str(report).startswith("2 added, 0 changed, 0 removed, 0 unchanged, 3 rejected")


def test_a_rejected_file_that_is_mended_becomes_a_document_and_one_that_goes_is_forgotten(
    store: DocumentStore, embedder: FakeEmbedder, folder: Path
) -> None:
    (folder / "one.md").touch()
    (folder / "two.md").touch()
    sync(store, embedder, folder)
    (folder / "one.md").write_text("Mended.")
    (folder / "two.md").unlink()
    assert sync(store, embedder, folder) == SyncReport(added=("one.md",), unchanged=("apollo.md", "tea.txt"))
    assert store.rejected() == {}


def test_a_document_that_turns_unreadable_no_longer_answers(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    sync(store, embedder, folder)
    (folder / "tea.txt").write_bytes(b"\x00")
    assert sync(store, embedder, folder).rejected.keys() == {"tea.txt"}
    assert sources(store) == ["apollo.md"]


def test_a_file_too_large_is_rejected_unread(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    for name, size in (("gigabyte.txt", 1_000_000_000), ("one-more.txt", module.MAX_BYTES + 1)):
        with (folder / name).open("wb") as file:
            file.truncate(size)
    assert sync(store, embedder, folder).rejected == dict.fromkeys(["gigabyte.txt", "one-more.txt"], "it is larger than 25 MB")


def test_the_largest_size_is_a_setting(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    report = sync(store, embedder, folder, max_bytes=(folder / "tea.txt").stat().st_size)
    assert report.added == ("tea.txt",)
    assert report.rejected.keys() == {"apollo.md"}


# Embedding no more than needed


def test_an_edited_file_embeds_only_the_passages_that_changed(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    path = folder / "long.txt"
    paragraphs = [PARAGRAPH.format(name) * 3 for name in ("comet", "glacier", "harvest", "lighthouse")]
    path.write_text("\n\n".join(paragraphs))
    sync(store, embedder, folder)
    embedder.embedded.clear()
    path.write_text("\n\n".join([*paragraphs[:2], PARAGRAPH.format("volcano") * 3, paragraphs[3]]))
    assert sync(store, embedder, folder).changed == ("long.txt",)
    assert embedder.embedded
    assert all("volcano" in text for text in embedder.embedded)
    assert found(store, "lighthouse") == found(store, "volcano") == ["long.txt"]
    assert found(store, "harvest") == []


def test_a_copied_or_renamed_file_embeds_nothing(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    sync(store, embedder, folder)
    embedder.embedded.clear()
    (folder / "copy.md").write_bytes((folder / "apollo.md").read_bytes())
    assert sync(store, embedder, folder).added == ("copy.md",)
    (folder / "apollo.md").rename(folder / "renamed.md")
    assert sync(store, embedder, folder) == SyncReport(added=("renamed.md",), removed=("apollo.md",), unchanged=("copy.md", "tea.txt"))
    assert embedder.embedded == []
    assert found(store, "Grumman") == ["copy.md", "renamed.md"]
    vector = FakeEmbedder().embed(["The Apollo lander\nThe lander Apollo was built by Grumman."])[0]
    assert {passage.source for passage in store.passages([one for one, _ in store.nearest(vector, 2)]).values()} == {"copy.md", "renamed.md"}


def test_passages_that_repeat_within_a_file_are_embedded_once(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    (folder / "same.txt").write_text("\n\n".join([PARAGRAPH.format("comet") * 7] * 4))
    sync(store, embedder, folder)
    assert len(embedder.embedded) == len(set(embedder.embedded))
    assert store.info(next(document.id for document in store.documents() if document.source == "same.txt")).passages >= 3


def test_a_failing_embedder_leaves_the_earlier_version_whole(
    store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(store, embedder, folder)
    (folder / "tea.txt").write_text("Oolong is brewed at 90 degrees.\n")

    def fails(texts: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(embedder, "embed", fails)
        with pytest.raises(RuntimeError, match="out of memory"):
            sync(store, embedder, folder)
    assert found(store, "boiling") == ["tea.txt"]
    assert found(store, "oolong") == []
    assert sync(store, embedder, folder).changed == ("tea.txt",)


# Folders


def test_a_missing_folder_is_an_error_and_loses_nothing(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    sync(store, embedder, folder)
    folder.rename(folder.with_name("away"))
    for missing in (folder, folder / "below", Path("~nobody-of-this-name/documents")):
        with pytest.raises(CitewellError, match="There is no folder"):
            sync(store, embedder, missing)
    with pytest.raises(CitewellError, match="There is no folder"):
        sync(store, embedder, folder.with_name("away") / "tea.txt")
    assert sources(store) == ["apollo.md", "tea.txt"]


def test_nested_folders_are_walked_and_hidden_ones_left_out(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    for source in ("a/b/c/deep.md", ".git/config.md", "a/.hidden.md", "a/.cache/x.md", ".DS_Store"):
        (folder / source).parent.mkdir(parents=True, exist_ok=True)
        (folder / source).write_text(f"Text of {source}.")
    report = sync(store, embedder, folder)
    assert report == SyncReport(added=("apollo.md", "tea.txt", "a/b/c/deep.md"))


def test_links_are_not_followed(store: DocumentStore, embedder: FakeEmbedder, folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.md").write_text("The secret of the outside.")
    (folder / "file-link.md").symlink_to(outside / "secret.md")
    (folder / "folder-link").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    (folder / "dangling.md").symlink_to(folder / "nowhere.md")
    (folder / "self.md").symlink_to(folder / "self.md")
    links = dict.fromkeys(["dangling.md", "file-link.md", "folder-link", "loop", "self.md"], "it is a link, and links are not followed")
    assert sync(store, embedder, folder) == SyncReport(added=("apollo.md", "tea.txt"), rejected=links)
    assert found(store, "secret") == []


def test_a_folder_reached_by_a_link_is_the_same_folder(
    store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(store, embedder, folder)
    link = folder.with_name("link")
    link.symlink_to(folder)
    monkeypatch.chdir(folder)
    for other in (link, Path("."), folder / ".." / folder.name):
        assert sync(store, embedder, other).unchanged == ("apollo.md", "tea.txt")


def test_two_folders_live_side_by_side(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    other = folder.with_name("other")
    other.mkdir()
    (other / "tea.txt").write_text("Tea of the other folder is white.")
    (other / "empty.md").touch()
    sync(store, embedder, folder)
    assert sync(store, embedder, other).added == ("tea.txt",)
    assert sources(store) == ["apollo.md", "tea.txt", "tea.txt"]
    (folder / "tea.txt").unlink()
    assert sync(store, embedder, folder).removed == ("tea.txt",)
    assert found(store, "white tea") == ["tea.txt"]
    assert store.rejected().keys() == {"empty.md"}


def test_a_folder_below_that_cannot_be_listed_keeps_its_documents(
    store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "share").mkdir()
    (folder / "share" / "far.md").write_text("Far away.")
    (folder / "shared.md").write_text("Not in the share.")
    sync(store, embedder, folder)
    (folder / "shared.md").unlink()
    real = os.scandir

    def stale(path: str) -> object:
        if str(path).endswith("share"):
            raise OSError(116, "Stale file handle", str(path))
        return real(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", stale)
        report = sync(store, embedder, folder)
    assert report.rejected == {"share": "its files cannot be listed (Stale file handle)"}
    assert report.removed == ("shared.md",)
    assert "share/far.md" in sources(store)
    assert sync(store, embedder, folder) == SyncReport(unchanged=("apollo.md", "tea.txt", "share/far.md"))
    assert store.rejected() == {}


def test_a_folder_that_cannot_be_listed_is_an_error_and_loses_nothing(
    store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(store, embedder, folder)

    def fails(path: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", fails)
    with pytest.raises(CitewellError, match=r"Permission denied.*Nothing was changed"):
        sync(store, embedder, folder)
    assert sources(store) == ["apollo.md", "tea.txt"]


# Odd files


def test_a_file_that_cannot_be_opened_is_rejected(
    store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def denied(path: Path, *more: int) -> int:
        if Path(path).name == "tea.txt":
            raise PermissionError(13, "Permission denied")
        return real(path, *more)

    monkeypatch.setattr(os, "open", denied)
    report = sync(store, embedder, folder)
    assert report == SyncReport(added=("apollo.md",), rejected={"tea.txt": "it cannot be opened (Permission denied)"})


def test_a_file_that_vanishes_while_the_folder_is_read_is_rejected(
    store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(store, embedder, folder)
    real = module._files

    def vanishing(*listed: Any) -> Iterator[tuple[str, Path]]:
        found = list(real(*listed))
        (folder / "tea.txt").unlink()
        yield from found

    with monkeypatch.context() as patched:
        patched.setattr(module, "_files", vanishing)
        report = sync(store, embedder, folder)
    assert report == SyncReport(unchanged=("apollo.md",), rejected={"tea.txt": "it cannot be opened (No such file or directory)"})
    assert sync(store, embedder, folder) == SyncReport(unchanged=("apollo.md",))
    assert store.rejected() == {}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.timeout(300)  # in which the servers of a shared store may be started
def test_pipes_and_sockets_are_rejected_and_never_waited_for(
    store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(folder / "pipe.txt")
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket.md")
        report = sync(store, embedder, folder)
    assert stat.S_ISFIFO((folder / "pipe.txt").stat().st_mode)
    assert report.rejected == {"pipe.txt": "it is no ordinary file", "socket.md": "it is no ordinary file"}


@pytest.mark.parametrize(
    "name",
    ["Über uns 🎉.md", "two  spaces .md", "new\nline.md", "tab\t.md", "quote'\"; DROP TABLE documents; --.md", "日本語.txt", "x" * 240 + ".md", "a..b..md", "~.md", "%s{0}.md", "back\\slash.md"],
    ids=ascii,
)  # fmt: skip
def test_odd_names_are_names_like_any_other(store: DocumentStore, embedder: FakeEmbedder, folder: Path, name: str) -> None:
    (folder / name).write_text("The zebra text.")
    assert sync(store, embedder, folder).added == tuple(sorted(["apollo.md", "tea.txt", name]))
    assert found(store, "zebra") == [name]
    assert sync(store, embedder, folder).unchanged == tuple(sorted(["apollo.md", "tea.txt", name]))
    (folder / name).unlink()
    assert sync(store, embedder, folder).removed == (name,)


def test_names_that_are_no_utf8_are_shown_by_their_bytes(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    below = os.fsencode(folder) + b"/caf\xe9"
    try:
        os.mkdir(below)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    for name, content in ((b"/\xff.md", b"The zebra text."), (b"/\xfe.md", b""), (b"/\xfd.xyz", b"x")):
        Path(os.fsdecode(below + name)).write_bytes(content)
    report = sync(store, embedder, folder)
    assert report.added == ("apollo.md", "tea.txt", "caf\\xe9/\\xff.md")
    assert report.rejected.keys() == {"caf\\xe9/\\xfe.md", "caf\\xe9/\\xfd.xyz"}
    assert str(report).encode("utf-8")
    assert sync(store, embedder, folder).unchanged == report.added
    assert found(store, "zebra") == ["caf\\xe9/\\xff.md"]
    within = SyncReport(added=("\\xff.md",), rejected={"\\xfd.xyz": report.rejected["caf\\xe9/\\xfd.xyz"], "\\xfe.md": "it is empty"})
    assert sync(store, embedder, Path(os.fsdecode(below))) == within


def test_progress_counts_up_to_all_files(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    (folder / "bad.exe").touch()
    calls: list[tuple[int, int, str]] = []
    sync(store, embedder, folder, lambda *call: calls.append(call))
    done = [call[0] for call in calls]
    assert done == sorted(done)
    assert {call[1] for call in calls} == {3}
    assert {"apollo.md", "bad.exe", "tea.txt"} <= {call[2] for call in calls}
    assert calls[-1] == (3, 3, "")


# What need not be read


def settle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes all files old enough that their stamps are trusted."""
    monkeypatch.setattr(module, "SETTLED_SECONDS", -1.0)


def test_an_unchanged_file_is_not_opened(store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "bad.txt").write_bytes(b"\x00")
    settle(folder, monkeypatch)
    sync(store, embedder, folder)

    def opened(path: Path, max_bytes: int) -> None:
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr(module, "load", opened)
    report = sync(store, embedder, folder)
    assert report == SyncReport(unchanged=("apollo.md", "tea.txt"), rejected={"bad.txt": "it holds binary data, not text"})


def test_an_edit_that_keeps_size_and_time_is_seen(
    store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(folder, monkeypatch)
    sync(store, embedder, folder)
    status = (folder / "tea.txt").stat()
    (folder / "tea.txt").write_text(DOCUMENTS["tea.txt"].replace("80", "70"))
    os.utime(folder / "tea.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert sync(store, embedder, folder).changed == ("tea.txt",)


def test_a_file_just_written_is_not_trusted_by_its_times(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    sync(store, embedder, folder)
    assert {known.stamp for known in store.known(module.root_of(folder)).values()} == {""}


def test_a_rejected_file_is_not_read_again_until_it_changes(
    store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "bad.txt").write_bytes(b"\x00")
    first = sync(store, embedder, folder).rejected

    def parsed(self: object, content: bytes, source: str, root: str) -> None:
        raise AssertionError(f"{source} was parsed")

    with monkeypatch.context() as patched:
        patched.setattr(module.Parser, "parse", parsed)
        assert sync(store, embedder, folder).rejected == first
    (folder / "bad.txt").write_text("Mended.")
    assert sync(store, embedder, folder).added == ("bad.txt",)


def test_what_a_newer_citewell_read_an_older_one_leaves(
    store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 and no more")
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    assert set(sync(store, embedder, folder).rejected) == {"broken.pdf"}
    known = store.known(module.root_of(folder))
    monkeypatch.undo()
    report = sync(store, embedder, folder)
    assert report.unchanged == ("apollo.md", "tea.txt")
    assert set(report.rejected) == {"broken.pdf"}
    assert {source: before.reader for source, before in store.known(module.root_of(folder)).items()} == {
        source: before.reader for source, before in known.items()
    }


def test_a_reader_that_learned_more_reads_old_files_again_and_embeds_only_what_differs(
    store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(folder, monkeypatch)
    sync(store, embedder, folder)
    embedder.embedded.clear()
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    assert sync(store, embedder, folder).changed == ("apollo.md", "tea.txt")
    assert embedder.embedded == []
    assert sync(store, embedder, folder).unchanged == ("apollo.md", "tea.txt")


def test_a_file_that_changes_while_it_is_read_keeps_its_old_version_and_comes_next_time(
    store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(store, embedder, folder)
    (folder / "tea.txt").write_text("Oolong is brewed at 90 degrees.\n")
    (folder / "new.txt").write_text("New.\n")
    real = os.fstat
    calls = 0

    def growing(opened: int) -> os.stat_result:
        nonlocal calls
        calls += 1
        with (folder / "tea.txt").open("a") as tea, (folder / "new.txt").open("a") as new:
            tea.write("more\n")
            new.write("more\n")
        return real(opened)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", growing)
        report = sync(store, embedder, folder)
    assert calls
    assert report.rejected.keys() == {"new.txt", "tea.txt"}
    assert "being written" in report.rejected["tea.txt"]
    assert found(store, "boiling") == ["tea.txt"]
    assert sync(store, embedder, folder) == SyncReport(added=("new.txt",), changed=("tea.txt",), unchanged=("apollo.md",))
    assert store.rejected() == {}


def test_a_file_without_a_title_of_its_own_is_renamed_without_embedding(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    (folder / "plain.txt").write_text("It begins with a sentence, and has no title. The comet came.")
    sync(store, embedder, folder)
    embedder.embedded.clear()
    (folder / "plain.txt").rename(folder / "other.txt")
    report = sync(store, embedder, folder)
    assert (report.added, report.removed) == (("other.txt",), ("plain.txt",))
    assert embedder.embedded == []


# Stopping


def test_a_stopped_sync_keeps_what_is_finished_and_loses_no_old_version(
    store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GROUP_DOCUMENTS", 1)
    for number in range(20):
        (folder / f"{number:02}.txt").write_text(f"Text of number {number}.")
    report = sync(store, embedder, folder, stopped=lambda: len(store.documents()) >= 5)
    assert report.cancelled
    assert 5 <= len(report.added) < 22
    assert sorted(report.added) == sources(store)
    assert "Cancelled" in str(report)
    again = sync(store, embedder, folder)
    assert not again.cancelled
    assert sorted([*report.added, *again.added]) == sources(store)


def test_stopping_in_the_middle_of_a_long_document_loses_no_embedding(
    store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "long.txt").write_text("\n\n".join(PARAGRAPH.format(f"comet{number}") * 7 for number in range(200)))
    report = sync(store, embedder, folder, stopped=lambda: len(embedder.embedded) > 100)
    assert report.cancelled
    assert "long.txt" not in sources(store)
    sync(store, embedder, folder)
    assert "long.txt" in sources(store)
    assert len(embedder.embedded) == len(set(embedder.embedded))


def test_documents_are_stored_while_the_next_are_embedded(
    store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GROUP_DOCUMENTS", 1)
    for number in range(6):
        (folder / f"{number}.txt").write_text(f"Text of number {number}.")
    calls = threading.Semaphore(0)
    embed, put_many = embedder.embed, store.put_many
    overlapped: list[bool] = []

    def embedding(texts: Sequence[str]) -> NDArray[np.float32]:
        calls.release()
        return embed(texts)

    def storing(entries: Sequence[Entry], vectors: Mapping[bytes, NDArray[np.float32]]) -> list[Entry]:
        # The first is stored only once the two after it have been begun.
        overlapped.append(bool(overlapped) or all(calls.acquire(timeout=10) for _ in range(1 + module.GROUPS_AT_ONCE)))
        return put_many(entries, vectors)

    monkeypatch.setattr(embedder, "embed", embedding)
    monkeypatch.setattr(store, "put_many", storing)
    report = sync(store, embedder, folder)
    assert len(report.added) == 8
    assert overlapped[0]


def test_what_is_gone_goes_in_groups_between_which_it_can_be_stopped(
    store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        (folder / f"gone-{number}.txt").write_text(f"Comet number {number} was seen.")
    sync(store, embedder, folder)
    for number in range(5):
        (folder / f"gone-{number}.txt").unlink()
    monkeypatch.setattr(module, "GROUP_DOCUMENTS", 2)
    report = sync(store, embedder, folder, stopped=lambda: len(sources(store)) < 7)
    assert report.cancelled
    assert report.removed == ("gone-0.txt", "gone-1.txt")
    assert sources(store) == ["apollo.md", "gone-2.txt", "gone-3.txt", "gone-4.txt", "tea.txt"]
    told: list[str] = []
    report = sync(store, embedder, folder, progress=lambda done, files, at_hand: told.append(at_hand))
    assert report == SyncReport(removed=("gone-2.txt", "gone-3.txt", "gone-4.txt"), unchanged=("apollo.md", "tea.txt"))
    assert "gone-3.txt" in told


def test_passages_that_repeat_from_group_to_group_are_embedded_once(
    store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GROUP_DOCUMENTS", 1)
    for number in range(8):
        (folder / f"copy-{number}.txt").write_text("The same words in every file.")
    report = sync(store, embedder, folder)
    assert len(report.added) == 10
    assert len(embedder.embedded) == len(set(embedder.embedded))


def test_what_is_read_first_is_embedded_before_a_group_is_full(
    store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        (folder / f"long-{number}.txt").write_text("\n\n".join(PARAGRAPH.format(f"comet {number}.{part}") * 5 for part in range(40)))
    calls: list[list[str]] = []
    embed = embedder.embed
    monkeypatch.setattr(embedder, "embed", lambda texts: (calls.append(list(texts)), embed(texts))[1])
    report = sync(store, embedder, folder)
    assert len(report.added) == 6
    # Of one long file alone: several threads embed, so that need not be the very first call.
    long = [[sum(f"comet {number}." in text for text in texts) for number in range(4)] for texts in calls]
    assert any(max(counts) >= module.FIRST_PASSAGES and counts.count(0) == 3 for counts in long)
    assert max(map(sum, long)) > 2 * module.FIRST_PASSAGES
    assert len(embedder.embedded) == len(set(embedder.embedded))


def test_a_sync_that_fails_gives_up_what_else_is_embedded(
    store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GROUP_DOCUMENTS", 1)
    monkeypatch.setattr(module, "GROUPS_AT_ONCE", 1)
    monkeypatch.setattr(module, "AT_ONCE", 1)
    for name in ("earth", "mars"):
        (folder / f"{name}.txt").write_text("\n\n".join(PARAGRAPH.format(f"{name} comet{number}") * 7 for number in range(200)))
    for name in DOCUMENTS:
        (folder / name).unlink()
    begun, failed, late = threading.Event(), threading.Event(), 0
    embed, first = embedder.embed, ""

    def embedding(texts: Sequence[str]) -> NDArray[np.float32]:
        nonlocal first, late
        name = "earth" if "earth" in texts[0] else "mars"
        first = first or name
        if name != first:
            begun.set()
            assert failed.wait(10)
            late += 1
            time.sleep(0.01)  # as embedding takes its time
        return embed(texts)

    def storing(entries: Sequence[Entry], vectors: Mapping[bytes, NDArray[np.float32]]) -> list[Entry]:
        if entries:
            assert begun.wait(10)
            failed.set()
            raise StoreError("The disk is full.")
        return []

    monkeypatch.setattr(embedder, "embed", embedding)
    monkeypatch.setattr(store, "put_many", storing)
    with pytest.raises(StoreError):
        sync(store, embedder, folder)
    assert late < 100


@pytest.mark.parametrize(("limit", "value"), [("AHEAD_FILES", 12), ("AHEAD_BYTES", 200)])
def test_memory_holds_a_bounded_number_of_files(
    store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    for number in range(100):
        (folder / f"{number:02}.txt").write_text(f"Text of number {number}.")
    loaded = 0
    real = module.load
    most = 0

    def load(path: Path, max_bytes: int) -> tuple[bytes, str]:
        nonlocal loaded, most
        loaded += 1
        most = max(most, loaded - len(store.documents()))
        return real(path, max_bytes)

    monkeypatch.setattr(module, "load", load)
    monkeypatch.setattr(module, "GROUP_DOCUMENTS", 8)
    monkeypatch.setattr(module, limit, value)
    sync(store, embedder, folder)
    assert loaded == 102
    assert most <= (2 + module.GROUPS_AT_ONCE) * 8 + 4 * 4 + 4


# What is not the file's fault, and what is no file of the folder


def test_two_names_that_look_alike_are_two_documents(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(folder) + b"/a\xff.txt")).write_text("The zebra text.")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (folder / "a\\xff.txt").write_text("The giraffe text.")
    assert len(sync(store, embedder, folder).added) == 4
    assert len(store.documents()) == 4
    assert len(sync(store, embedder, folder).unchanged) == 4


def test_the_stores_own_folder_is_no_source(store: DocumentStore, embedder: FakeEmbedder, folder: Path, tmp_path: Path) -> None:
    report = sync(store, embedder, tmp_path)
    assert report == SyncReport(added=("documents/apollo.md", "documents/tea.txt"))
    with pytest.raises(CitewellError, match="its own data"):
        sync(store, embedder, store.folder)


def test_a_disk_that_fails_drops_nothing(store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync(store, embedder, folder)
    real = os.open

    def failing(path: Path, *more: int) -> int:
        if Path(path).name == "tea.txt":
            raise OSError(5, "Input/output error")
        return real(path, *more)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", failing)
        assert sync(store, embedder, folder).rejected == {"tea.txt": "it cannot be opened (Input/output error)"}
    assert found(store, "boiling") == ["tea.txt"]
    assert sync(store, embedder, folder).unchanged == ("apollo.md", "tea.txt")


def test_a_reason_that_is_not_the_files_own_is_looked_at_again(
    store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(folder, monkeypatch)
    real = module.Parser.parse

    def needing(self: module.Parser, content: bytes, source: str, root: str) -> Any:
        if source == "tea.txt":
            raise UnreadableDocument("it needs OCR", lasting=False)
        return real(self, content, source, root)

    with monkeypatch.context() as patched:
        patched.setattr(module.Parser, "parse", needing)
        assert sync(store, embedder, folder).rejected == {"tea.txt": "it needs OCR"}
    assert sync(store, embedder, folder).added == ("tea.txt",)


def test_rejected_files_are_read_again_when_that_is_asked_for(
    store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(folder, monkeypatch)
    real = module.Parser.parse

    def slow(self: module.Parser, content: bytes, source: str, root: str) -> Any:
        if source == "tea.txt":
            raise UnreadableDocument("reading it takes longer than 60 seconds")
        return real(self, content, source, root)

    with monkeypatch.context() as patched:
        patched.setattr(module.Parser, "parse", slow)
        sync(store, embedder, folder)
    assert sync(store, embedder, folder).rejected.keys() == {"tea.txt"}
    assert sync(store, embedder, folder, retry=True) == SyncReport(added=("tea.txt",), unchanged=("apollo.md",))


def test_a_name_does_nothing_to_a_terminal() -> None:
    assert "\x1b" not in str(SyncReport(rejected={"red\x1b[31m.xyz": "no"}))
