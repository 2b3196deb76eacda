"""Tests of index.backup: one file holds everything, and nothing is touched before all of it was checked."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import threading
import zipfile
from collections.abc import Callable
from contextlib import closing, suppress
from hashlib import sha256
from pathlib import Path

import pytest
from conftest import FakeEmbedder
from store_writer import ROOT, opened, parts, put, visible

from index import backup as module
from index.backup import backup, restore
from index.errors import StoreDamaged, StoreError, StoreInUse, StoreTooNew
from index.people import PEOPLE, open_people
from index.schema import OWN_UPLOADS, UPLOADS
from index.store import Store
from rag.conversations import Conversations
from rag.library import Library

FILE = "citewell.sqlite3"


pytestmark = pytest.mark.usefixtures("fast_probes")


def filled(place: Path, count: int = 4) -> Store:
    store = opened(place)
    for number in range(count):
        put(store, number)
    store.reject(ROOT, "x.bin", "it is broken")
    (place / "uploads" / "below").mkdir(parents=True, exist_ok=True)
    (place / "uploads" / "a.txt").write_text("uploaded")
    (place / "uploads" / "below" / "b.txt").write_text("below")
    return store


def files(place: Path) -> dict[str, bytes]:
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file() and path.name != "lock"}


def test_a_backup_brings_everything_back(place: Path) -> None:
    filled(place).close()
    target = place.parent / "backup.zip"
    before = files(place)
    backup(place, target)
    assert files(place) == before
    with zipfile.ZipFile(target) as archive:
        assert sorted(archive.namelist()) == [FILE, "manifest.json", "uploads/a.txt", "uploads/below/b.txt"]
    restore(target, place.parent / "new" / "data")
    store = opened(place.parent / "new" / "data")
    assert all(visible(store, number, 1) for number in range(4))
    assert store.rejected() == {"x.bin": "it is broken"}
    assert store.notices() == ()
    assert (store.folder / "uploads" / "a.txt").read_text() == "uploaded"
    assert (store.folder / "uploads" / "below" / "b.txt").read_text() == "below"
    store.close()
    assert sorted(path.name for path in place.parent.iterdir()) == ["backup.zip", "data", "new"]


@pytest.mark.skipif(os.name != "posix", reason="there are no such permissions")
def test_nobody_else_may_read_what_citewell_keeps(tmp_path: Path) -> None:
    place, target, again = tmp_path / "data", tmp_path / "backup.zip", tmp_path / "again"
    before = os.umask(0)
    try:
        store = opened(place)
        put(store, 0)
        assert store.wait_for_index(30) == "ready"
        library = Library(store, FakeEmbedder(), 1_000_000)
        (tmp_path / "sent").write_text("Ann's words.")
        library.add("notes.txt", tmp_path / "sent", OWN_UPLOADS + "ann")
        library.close()
        people(place, "Ann's talk")
        backup(place, target)
        restore(target, again)
        restore(target, again, replace=True)
        assert open_to_others(place, again, target) == []
        store.close()
        assert open_to_others(place, again, target) == []
    finally:
        os.umask(before)
    for path in (place, place / FILE, place / UPLOADS):
        path.chmod(0o777)
    opened(place).close()
    assert open_to_others(place) == [place], "a folder that was there keeps its mode, and the doctor tells of it"


def open_to_others(*places: Path) -> list[Path]:
    """Those files and folders that others may do something with, but for what lies in an index' folder, which nobody else can enter."""
    everything = [one for place in places for one in (place, *place.rglob("*"))]
    kept_by_their_folder = [one for one in everything if any(above.name.startswith("chroma-") for above in one.parents)]
    return [one for one in everything if stat.S_IMODE(one.stat().st_mode) & 0o077 and one not in kept_by_their_folder]


def test_a_store_in_use_is_backed_up_as_of_one_moment(place: Path) -> None:
    store = filled(place)
    done = threading.Event()

    def write() -> None:
        version = 1
        while not done.is_set():
            version += 1
            for number in (0, 1):
                put(store, number, version)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        backup(place, place.parent / "backup.zip")
    finally:
        done.set()
        writer.join()
    store.close()
    restore(place.parent / "backup.zip", place.parent / "new")
    store = opened(place.parent / "new")
    versions = [int(store.document_file(f"id{number}")[2].partition(".")[2]) for number in (0, 1)]
    assert versions[0] - versions[1] in (0, 1)
    assert all(visible(store, number, version) for number, version in enumerate(versions))
    assert visible(store, 3, 1)
    store.close()


def test_a_store_that_was_killed_is_backed_up(place: Path) -> None:
    store = filled(place)
    left = place.with_name("left")
    shutil.copytree(place, left)
    store.close()
    backup(left, place.parent / "backup.zip")
    restore(place.parent / "backup.zip", place.parent / "new")
    store = opened(place.parent / "new")
    assert all(visible(store, number, 1) for number in range(4))
    store.close()


def test_what_cannot_be_backed_up_is_said(place: Path, tmp_path: Path) -> None:
    target = place.parent / "backup.zip"
    with pytest.raises(StoreError, match="no store"):
        backup(place, target)
    filled(place).close()
    with pytest.raises(StoreError, match="cannot be written"):
        backup(place, place.parent / "nowhere" / "backup.zip")
    target.write_text("mine")
    with pytest.raises(StoreError, match="exists already"):
        backup(place, target)
    assert target.read_text() == "mine"
    target.unlink()
    content = (place / FILE).read_bytes()
    where = content.rindex(b"doc2 doc2v1 part1")
    (place / FILE).write_bytes(content[:where] + b"DOC" + content[where + 3 :])
    with pytest.raises(StoreDamaged, match="saves what is whole"):
        backup(place, target)
    assert not target.exists()
    assert sorted(path.name for path in place.parent.iterdir()) == ["data"]


def test_a_store_is_replaced_only_when_told_and_kept_aside(place: Path) -> None:
    filled(place).close()
    target = place.parent / "backup.zip"
    backup(place, target)
    store = opened(place)
    put(store, 1, 2)
    put(store, 9)
    (place / "uploads" / "a.txt").write_text("changed")
    (place / "uploads" / "new.txt").write_text("new")
    with pytest.raises(StoreInUse):
        restore(target, place, replace=True)
    store.close()
    before = files(place)
    with pytest.raises(StoreError, match="--replace"):
        restore(target, place)
    assert files(place) == before
    moved = restore(target, place, replace=True)
    store = opened(place)
    assert visible(store, 1, 1)
    assert not visible(store, 1, 2)
    assert not visible(store, 9, 1)
    (kept,) = place.glob("replaced-*")
    assert moved == [kept]
    assert store.notices() == (), "who restored was told; nobody needs it at every start"
    assert (place / "uploads" / "a.txt").read_text() == "uploaded"
    assert not (place / "uploads" / "new.txt").exists()
    assert (kept / "uploads" / "new.txt").read_text() == "new"
    store.close()
    again = opened(kept)  # a whole store, should anybody want it back
    assert visible(again, 9, 1)
    again.close()


def packed(target: Path, contents: dict[str, bytes], **manifest: object) -> Path:
    """A zip file with a manifest that agrees with it, as somebody with bad intentions could make one."""
    listed = {name: {"size": len(content), "sha256": sha256(content).hexdigest()} for name, content in contents.items()}
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
        archive.writestr("manifest.json", json.dumps({"format": 1, "store": 2, "files": listed, **manifest}))
    return target


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/evil.txt", "uploads/../../evil.txt", "uploads/../evil.txt", "evil.txt", "uploads", "seal.json", "chroma-1/x", "uploads\\..\\evil", ".."]
)  # fmt: skip
def test_no_name_leaves_its_place(place: Path, name: str) -> None:
    filled(place).close()
    content = (place / FILE).read_bytes()
    target = packed(place.parent / "evil.zip", {FILE: content, name: b"evil"})
    before = files(place.parent)
    with pytest.raises(StoreError):
        restore(target, place.parent / "new")
    assert files(place.parent) == before
    assert not (place.parent / "new").exists()


def test_every_flipped_or_missing_byte_of_a_backup_is_noticed_before_anything_is_touched(place: Path) -> None:
    filled(place).close()
    target = place.parent / "backup.zip"
    backup(place, target)
    whole = target.read_bytes()
    before = files(place)
    refused = 0
    for seed in range(60):
        chance = random.Random(seed)
        damaged = bytearray(whole)
        if seed % 3 == 0:
            del damaged[chance.randrange(len(damaged)) :]
        else:
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        target.write_bytes(damaged)
        try:
            restore(target, place.parent / "new")
        except StoreError:
            refused += 1
            assert not (place.parent / "new").exists()
            continue
        # A date or a flag of the zip file that says nothing about the content.
        store = Store(place.parent / "new", "writer@1")
        assert all(visible(store, number, 1) for number in range(4))
        store.close()
        shutil.rmtree(place.parent / "new")
    assert refused > 40
    assert files(place) == before


def test_a_backup_whose_store_is_damaged_or_newer_is_refused(place: Path) -> None:
    filled(place).close()
    content = (place / FILE).read_bytes()
    where = content.rindex(b"doc2 doc2v1 part1")
    with pytest.raises(StoreDamaged):
        restore(packed(place.parent / "a.zip", {FILE: content[:where] + b"DOC" + content[where + 3 :]}), place.parent / "new")
    with pytest.raises(StoreDamaged):
        restore(packed(place.parent / "b.zip", {FILE: b""}), place.parent / "new")
    with pytest.raises(StoreTooNew):
        restore(packed(place.parent / "c.zip", {FILE: content}, store=9), place.parent / "new")
    with pytest.raises(StoreError, match="no file"):
        restore(place.parent / "none.zip", place.parent / "new")
    for wrong in (b"", b"text", b"PK\x03\x04"):
        (place.parent / "d.zip").write_bytes(wrong)
        with pytest.raises(StoreDamaged, match="no backup"):
            restore(place.parent / "d.zip", place.parent / "new")
    assert not (place.parent / "new").exists()


class Killed(KeyboardInterrupt):
    """Stands in for the end of the process: nothing may catch it."""


def restored_until(nth: int, target: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Restores over a store, and is killed at the nth renaming if there are so many."""
    left, real = [nth], Path.rename

    def rename(self: Path, to: Path) -> Path:
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return real(self, to)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename)
        with suppress(Killed):
            restore(target, place, replace=True)


@pytest.mark.parametrize("nth", range(1, 12))
def test_a_kill_while_restoring_leaves_the_one_or_the_other(place: Path, monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
    filled(place).close()
    target = place.parent / "backup.zip"
    backup(place, target)
    store = opened(place)
    put(store, 1, 2)
    (place / "uploads" / "a.txt").write_text("changed")
    store.close()
    restored_until(nth, target, place, monkeypatch)
    store = opened(place)
    new = visible(store, 1, 1)
    assert new is not visible(store, 1, 2)
    assert all(visible(store, number, 1) for number in (0, 2, 3))
    assert (place / "uploads" / "a.txt").read_text() == ("uploaded" if new else "changed")
    assert nth > 1 or not new
    assert nth < 9 or new
    store.close()


# Accounts and conversations


def people(place: Path, *titles: str) -> None:
    with closing(open_people(place)) as database:
        for title in titles:
            Conversations(database).begin("ann", title)


def titles(place: Path) -> list[str]:
    with closing(open_people(place)) as database:
        return sorted(info.title for info in Conversations(database).listing("ann"))


def test_accounts_and_conversations_come_back_with_the_store(place: Path) -> None:
    filled(place).close()
    people(place, "before")
    target = place.parent / "backup.zip"
    backup(place, target)
    people(place, "after")
    restore(target, place, replace=True)
    opened(place).close()
    assert titles(place) == ["before"]
    assert stat.S_IMODE((place / PEOPLE).stat().st_mode) == 0o600
    (kept,) = place.glob("replaced-*")
    assert titles(kept) == ["after", "before"]


def test_a_file_in_use_is_backed_up_with_what_its_log_holds(place: Path) -> None:
    filled(place).close()
    with closing(open_people(place)) as database:
        Conversations(database).begin("ann", "in the log")
        backup(place, place.parent / "backup.zip")
    restore(place.parent / "backup.zip", place.parent / "new")
    assert titles(place.parent / "new") == ["in the log"]


def test_a_backup_without_accounts_leaves_those_that_there_are(place: Path) -> None:
    filled(place).close()
    target = place.parent / "backup.zip"
    backup(place, target)
    people(place, "later")
    restore(target, place, replace=True)
    opened(place).close()
    assert titles(place) == ["later"]


def test_damaged_accounts_are_neither_backed_up_nor_restored(place: Path) -> None:
    filled(place).close()
    people(place, "one")
    whole = (place / PEOPLE).read_bytes()
    (place / PEOPLE).write_bytes(whole[:4096] + b"\xff" * 4096 + whole[8192:])
    with pytest.raises(StoreDamaged):
        backup(place, place.parent / "backup.zip")
    content = (place / FILE).read_bytes()
    for wrong in (b"", b"no database", whole[:4096] + b"\xff" * 4096 + whole[8192:]):
        target = packed(place.parent / "evil.zip", {FILE: content, PEOPLE: wrong})
        with pytest.raises(StoreDamaged):
            restore(target, place.parent / "new")
        assert not (place.parent / "new").exists()


@pytest.mark.parametrize("nth", range(1, 18))
def test_a_kill_while_restoring_never_mixes_accounts_with_another_store(place: Path, monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
    filled(place).close()
    people(place, "before")
    target = place.parent / "backup.zip"
    backup(place, target)
    store = opened(place)
    put(store, 1, 2)
    store.close()
    people(place, "after")
    restored_until(nth, target, place, monkeypatch)
    store = opened(place)
    new = visible(store, 1, 1)
    store.close()
    assert titles(place) == (["before"] if new else ["after", "before"])


def test_a_full_disk_leaves_all_as_it_was(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(place).close()
    target = place.parent / "backup.zip"

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patched:
        patched.setattr(module, "_pack", full)
        with pytest.raises(StoreError, match="No space left"):
            backup(place, target)
    assert not target.exists()
    backup(place, target)
    before = files(place)
    patch: Callable[..., None] = full
    with monkeypatch.context() as patched:
        patched.setattr(module.os, "fsync", patch)
        with pytest.raises(StoreError, match=r"No space left.*Nothing was changed"):
            restore(target, place, replace=True)
    assert files(place) == before
    store = opened(place)
    assert store.document("id1") == parts(1, 1)[0]
    store.close()


def test_a_people_s_file_that_was_never_filled_is_no_hindrance(place: Path) -> None:
    filled(place).close()
    (place / PEOPLE).touch()
    backup(place, place.parent / "backup.zip")
    with zipfile.ZipFile(place.parent / "backup.zip") as archive:
        assert PEOPLE not in archive.namelist()
