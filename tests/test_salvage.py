"""Tests of index.salvage and index.seal: damage to any file of a store is noticed and said, what is whole is saved, and nothing wrong ever answers."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import mean

import pytest
from store_writer import PARTS, ROOT, identifier, in_memory, indexed, opened, parts, put, vector, visible

from index import salvage
from index import seal as seals
from index.errors import StoreDamaged, StoreError, StoreTooNew
from index.seal import break_seal, check_seal, write_seal
from index.store import Store
from index.types import Passage

IDENTITY = "writer@1"
FILE = "citewell.sqlite3"


pytestmark = pytest.mark.usefixtures("fast_probes")


def filled(place: Path, count: int = 3) -> Path:
    """A closed store of some documents; returns its SQLite file."""
    store = opened(place)
    for number in range(count):
        put(store, number)
    store.close()
    return place / FILE


def change(file: Path, statement: str, *values: object) -> None:
    """What a flipped bit in a row does: SQLite finds nothing wrong with it."""
    with closing(sqlite3.connect(file)) as connection, connection:
        assert connection.execute(statement, values).rowcount == 1


# Any byte of any file


def written(place: Path, killed: bool) -> dict[int, int]:
    """A store with a history: documents put, replaced and removed, and a rejected file. Returns versions by number."""
    store = opened(place)
    versions = dict.fromkeys(range(6), 1)
    for number in versions:
        put(store, number)
    store.reject(ROOT, "broken.pdf", "it is broken", "f00d", "stamp", 1)
    store.finish_sync(ROOT)
    put(store, 2, 2)
    versions[2] = 2
    store.remove(identifier(4))
    del versions[4]
    if killed:
        shutil.copytree(place, place.with_name("killed"))
    store.close()
    return versions


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with in_memory() as folder:
        yield folder


@pytest.fixture(scope="module")
def templates(folder: Path, fast_probes: None) -> list[tuple[Path, dict[int, int]]]:
    """The same store closed in good order, and as a kill leaves it, with what it has not yet moved out of its log."""
    folder = folder / "templates"
    versions = written(folder / "closed", killed=True)
    assert (folder / "killed" / f"{FILE}-wal").stat().st_size
    return [(folder / "closed", versions), (folder / "killed", versions)]


def harm(chance: random.Random, folder: Path) -> str:
    """Flips some bytes of one file of a store, or cuts it short; returns what was done."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = chance.choice([path for path in files if path.name.startswith(FILE) or chance.random() < 0.3] or files)
    content = bytearray(path.read_bytes())
    name = path.relative_to(folder).as_posix()
    if chance.random() < 0.3 or not content:
        size = chance.choice([0, chance.randrange(len(content) + 1), max(0, len(content) - chance.randrange(1, 9000))])
        path.write_bytes(content[:size])
        return f"{name} cut from {len(content)} to {size}"
    places = sorted({chance.randrange(len(content)) for _ in range(chance.choice([1, 1, 2, 20]))})
    for one in places:
        content[one] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    return f"{name} flipped at {places}"


EVER = {0: (1,), 1: (1,), 2: (1, 2), 3: (1,), 4: (1,), 5: (1,)}
"""The versions of each document that were ever put."""


def check(store: Store, versions: dict[int, int], behind: bool = False) -> set[int]:
    """Asserts that all a store says is what was put last, or where it is `behind` what was ever put; returns the documents that it has not."""
    there = {document.id: document for document in store.documents()}
    missing = set(versions)
    texts: dict[str, Passage] = {}
    for number, ever in EVER.items():
        info = there.pop(identifier(number), None)
        if info is None:
            assert not store.matching(f"doc{number}", 50)
            continue
        try:
            version = int(store.document_file(info.id)[2].partition(".")[2])
            assert version in ever if behind else version == versions.get(number)
            document, passages, _, _ = parts(number, version)
            assert (info.source, info.title, info.size, info.passages, info.root) == (
                document.source,
                document.title,
                len(document.text),
                PARTS,
                ROOT,
            )
            assert store.document_file(document.id) == (ROOT, document.source, document.fingerprint)
            assert store.document(document.id) == document
            assert {one for one, _ in store.matching(f"doc{number}", 50)} == {passage.id for passage in passages}
            assert visible(store, number, version)
            assert store.edges(document.id) == [passages[0], passages[-1]]
            texts |= {passage.id: passage for passage in passages}
            missing.discard(number)
        except StoreDamaged:
            assert not visible(store, number, version)
    assert not there
    for one in [*(one for one, _ in store.matching("part0 part1 part2 title1", 50)), *(one for one, _ in store.nearest(vector(1, 1, 1), 50))]:
        assert store.passages([one]) == {one: texts[one]}
    for rejection in store.rejections():
        assert (rejection.root, rejection.source, rejection.reason) == (ROOT, "broken.pdf", "it is broken")
    return missing


def damage_and_mend(seed: int, template: Path, versions: dict[int, int], place: Path) -> str:
    """Damages a copy of a store and opens it; returns how that ended. Asserts that nothing it says is wrong and nothing is missing unsaid."""
    shutil.copytree(template, place)
    done = f"{seed} {template.name}: {harm(random.Random(seed), place)}"
    try:
        store = Store(place, IDENTITY)
    except StoreTooNew:  # the one damage that cannot be told from a newer store, which is left alone
        shutil.rmtree(place)
        return "refused"
    try:
        said = store.notices()
        # What a lost log held is known by the number of changes alone: then older versions may be there, and all folders are named.
        behind = any("may be lost" in notice for notice in said)
        for waited in (False, True):
            assert not waited or store.wait_for_index(60) == "ready"
            missing = check(store, versions, behind)
            assert not missing or said, f"{missing} missing and nothing said"
        for number, version in versions.items():
            put(store, number, version)
        store.remove_many([identifier(4)])
        store.reject(ROOT, "broken.pdf", "it is broken")
        store.finish_sync(ROOT)
        assert check(store, versions) == set()
        assert indexed(store)
        assert not any("lost" in notice or "dropped" in notice for notice in store.notices())
    except AssertionError as error:
        raise AssertionError(f"{done}: {error}") from error
    finally:
        store.close()
    shutil.rmtree(place)
    return "whole" if not said else "lost" if missing else "behind" if behind else "mended"


def test_200_damaged_files_are_mended_or_said(templates: list[tuple[Path, dict[int, int]]], folder: Path) -> None:
    outcomes = Counter(damage_and_mend(seed, *templates[seed % 2], folder / str(seed)) for seed in range(200))
    assert outcomes["whole"] > 50
    assert outcomes["lost"] > 10
    assert outcomes["mended"] > 10


# Seals


def test_a_seal_covers_every_part_of_a_large_file_and_those_of_an_older_kind_say_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seals, "PART", 8)
    monkeypatch.setattr(seals, "BLOCK", 4)
    content = b"0123456789abcdefghijklmn" + b"last"
    file, seal = tmp_path / "file", tmp_path / "seal.json"
    file.write_bytes(content)
    write_seal(seal, [file], "me")
    for place in range(len(content)):
        file.write_bytes(content[:place] + b"X" + content[place + 1 :])
        assert check_seal(seal, [file], "me") == "differs", place
    # Parts that change places are not what was sealed either.
    file.write_bytes(content[8:16] + content[:8] + content[16:])
    assert check_seal(seal, [file], "me") == "differs"
    file.write_bytes(content)
    assert check_seal(seal, [file], "me") == "intact"
    monkeypatch.setattr(seals, "SUMS", "another way")
    assert check_seal(seal, [file], "me") == "none"


def test_a_seal_tells_intact_from_changed_and_from_nothing(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "below" / "b"]
    files[1].parent.mkdir()
    for file in files:
        file.write_bytes(b"content")
    seal = tmp_path / "seal.json"
    assert check_seal(seal, files, "me") == "none"
    write_seal(seal, files, "me")
    assert check_seal(seal, files, "me") == "intact"
    assert check_seal(seal, files, "another") == "none"
    assert check_seal(seal, files[:1], "me") == "differs"
    files[1].write_bytes(b"Content")
    assert check_seal(seal, files, "me") == "differs"
    files[1].write_bytes(b"content")
    whole = seal.read_bytes()
    for damage in (b"", b"{}", whole[:-1], whole.replace(b"below", b"Below"), b"\x00" + whole[1:]):
        seal.write_bytes(damage)
        assert check_seal(seal, files, "me") == "none"
    break_seal(seal)
    break_seal(seal)
    assert check_seal(seal, files, "me") == "none"


def test_a_seal_of_another_kind_gives_way_to_a_new_one_once_all_is_checked(place: Path) -> None:
    store = opened(place)
    put(store, 1)
    store.close()
    sealed = (place / "seal.json").read_bytes()
    (place / "seal.json").write_text('{"by": "an earlier version"}')
    opened(place).close()
    assert (place / "seal.json").read_bytes() == sealed


def test_a_store_that_was_only_read_keeps_its_seal(place: Path) -> None:
    filled(place)
    before = (place / "seal.json").read_bytes()
    store = opened(place)
    assert visible(store, 1, 1)
    assert (place / "seal.json").exists()  # a kill now leaves it believed
    put(store, 1, 2)
    assert not (place / "seal.json").exists()
    store.close()
    assert (place / "seal.json").read_bytes() != before


# What is whole is saved


DAMAGE = {
    "a text": ("UPDATE documents SET text = replace(text, 'part1', 'part9') WHERE id = 'id1'", {1}),
    "a title": ("UPDATE documents SET title = 'another' WHERE id = 'id1'", {1}),
    "where it begins": ("UPDATE passages SET start_at = start_at + 1 WHERE document_id = 'id1' AND start_at > 0 AND end_at < 40", {1}),
    "a heading": ("UPDATE passages SET heading = 'another' WHERE document_id = 'id1' AND start_at = 0", {1}),
    "a vector": ("UPDATE vectors SET vector = zeroblob(64) WHERE content_key = CAST('doc1 doc1v1 part2.' AS BLOB)", {1}),
    "no vector": ("DELETE FROM vectors WHERE content_key = CAST('doc1 doc1v1 part2.' AS BLOB)", {1}),
    "a passage gone": ("DELETE FROM passages WHERE document_id = 'id1' AND start_at = 0", {1}),
    "words gone": ("DELETE FROM words WHERE rowid = 2", set()),
    "a word": ("UPDATE words_content SET c1 = 'another' WHERE id = 2", set()),
    "the words' index": ("DELETE FROM words_idx", set()),
    "a note": ("UPDATE meta SET value = 'another' WHERE key = 'format'", set()),
    "the embedder's name": ("UPDATE meta SET value = 'another@3' WHERE key = 'embedder'", set()),
    "its version": ("PRAGMA user_version = 0", set()),
    "the version before": ("PRAGMA user_version = 1", set()),
    "a file's name": ("UPDATE documents SET source = 'another' WHERE id = 'id1'", {1}),
    "no text but bytes": ("UPDATE documents SET text = x'ff00ff' WHERE id = 'id1'", {1}),
}


@pytest.mark.parametrize("sealed", [True, False], ids=["closed", "killed"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_a_changed_row_costs_its_document_alone(place: Path, kind: str, sealed: bool) -> None:
    statement, lost = DAMAGE[kind]
    file = filled(place)
    if not sealed:
        (place / "seal.json").unlink()
    with closing(sqlite3.connect(file)) as connection, connection:
        assert connection.execute(statement).rowcount in (-1, 1, 3)
    store = opened(place)
    for number in range(3):
        assert visible(store, number, 1) is (number not in lost)
    assert len(store.matching("part1", 50)) == 3 - len(lost)
    notices = store.notices()
    if lost:
        place_lost = "1.txt" if kind != "a file's name" else "another"
        assert store._database.rows("SELECT root, source FROM lost") == [(ROOT, place_lost)]
        assert notices[0] == f"1 document was damaged on disk and dropped; sync its folder again: {ROOT}"
        assert "1.txt" not in store.known(ROOT)
    put(store, 1)
    store.finish_sync(ROOT)
    assert visible(store, 1, 1)
    assert not any("dropped" in notice for notice in store.notices())
    store.close()
    again = opened(place)
    assert all(visible(again, number, 1) for number in range(3))
    assert again.notices() == ()
    again.close()
    kept = list(place.glob("damaged-*"))
    assert len(kept) <= 1
    if kept:
        assert (kept[0] / FILE).stat().st_size > 10_000
        assert any(kept[0].name in notice for notice in notices)


@pytest.mark.parametrize("sealed", [True, False], ids=["closed", "killed"])
@pytest.mark.parametrize(
    "content", [b"", b"rubbish", bytes(100_000), random.Random(1).randbytes(100_000), None], ids=["empty", "short", "zeros", "noise", "missing"]
)
def test_a_file_of_rubbish_is_put_aside_and_everything_is_said_to_be_lost(place: Path, content: bytes | None, sealed: bool) -> None:
    file = filled(place)
    if not sealed:
        (place / "seal.json").unlink()
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    store = opened(place)
    assert store.documents() == []
    assert store.notices()[0] == "The store was damaged on disk, and what it held may be lost; sync your folders again."
    for number in range(3):
        put(store, number)
    store.finish_sync(ROOT)
    assert all(visible(store, number, 1) for number in range(3))
    store.close()
    again = opened(place)
    assert all(visible(again, number, 1) for number in range(3))
    assert not any("lost" in notice for notice in again.notices())
    again.close()
    if content:
        (kept,) = place.glob(f"damaged-*/{FILE}")
        assert kept.read_bytes() == content


def test_a_new_folder_is_no_damage(place: Path) -> None:
    place.mkdir()
    (place / FILE).write_bytes(b"")  # killed before the first transaction
    store = opened(place)
    assert store.notices() == ()
    store.close()


def test_pages_that_cannot_be_read_cost_what_stands_on_them(place: Path) -> None:
    file = filled(place, 60)
    (place / "seal.json").unlink()
    whole = file.read_bytes()
    saved = []
    for page in range(1, len(whole) // 4_096, 3):
        shutil.copytree(place, place.with_name("copy"))
        (place.with_name("copy") / FILE).write_bytes(whole[: page * 4_096] + random.Random(page).randbytes(4_096) + whole[(page + 1) * 4_096 :])
        store = Store(place.with_name("copy"), IDENTITY)
        there = {document.id for document in store.documents()}
        assert len(there) == 60 or store.notices()
        for number in range(0, 60, 7):
            assert visible(store, number, 1) is (identifier(number) in there)
        saved.append(len(there))
        store.close()
        shutil.rmtree(place.with_name("copy"))
    assert max(saved) == 60
    assert mean(saved) > 30
    assert min(saved) < 60


def test_a_kill_is_no_damage(templates: list[tuple[Path, dict[int, int]]], place: Path) -> None:
    _, (killed, versions) = templates
    shutil.copytree(killed, place)
    store = opened(place)
    assert store.notices() == ()
    assert check(store, versions) == set()
    assert not list(place.glob("damaged-*"))
    store.close()


@pytest.mark.parametrize("left", [0, 32, 5_000, None], ids=str)
def test_transactions_that_are_gone_with_the_log_are_said(templates: list[tuple[Path, dict[int, int]]], place: Path, left: int | None) -> None:
    _, (killed, versions) = templates
    shutil.copytree(killed, place)
    log = place / f"{FILE}-wal"
    if left is None:
        log.unlink()
    else:
        log.write_bytes(log.read_bytes()[:left])
    store = opened(place)
    assert any("may be lost" in notice for notice in store.notices())
    for number, version in versions.items():
        put(store, number, version)
    store.finish_sync(ROOT)
    assert not any("may be lost" in notice for notice in store.notices())
    store.close()
    assert not any("may be lost" in notice for notice in opened(place).notices())


class Killed(KeyboardInterrupt):
    """Stands in for the end of the process: nothing may catch it."""


@pytest.mark.parametrize("nth", range(1, 9))
def test_a_kill_while_saving_loses_nothing_more(place: Path, monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
    change(filled(place), "UPDATE documents SET title = 'another' WHERE id = 'id1'")
    left, real = [nth], Path.rename

    def rename(self: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return real(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename)
        try:
            Store(place, IDENTITY).close()
        except Killed:
            assert nth <= 7
    store = opened(place)
    assert visible(store, 0, 1)
    assert visible(store, 2, 1)
    assert not visible(store, 1, 1)
    assert any("1 document was damaged" in notice for notice in store.notices())
    assert sum(1 for _ in place.glob(f"damaged-*/{FILE}")) == 1
    store.close()


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")], ids=["permission", "disk"])
def test_a_file_that_cannot_be_read_is_not_damage(place: Path, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    file = filled(place)
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    with monkeypatch.context() as patched:
        patched.setattr(salvage, "check_seal", lambda *_: (_ for _ in ()).throw(error))
        with pytest.raises(StoreError, match=str(error.strerror)) as caught:
            Store(place, IDENTITY)
        assert not isinstance(caught.value, StoreDamaged)
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
    store = opened(file.parent)
    assert visible(store, 1, 1)
    store.close()


def test_damage_under_an_open_store_is_noticed_when_it_is_read(place: Path) -> None:
    filled(place)
    store = opened(place)
    change(place / FILE, "UPDATE documents SET text = replace(text, 'part1', 'part9') WHERE id = 'id1'")
    change(place / FILE, "UPDATE words_content SET c1 = 'another' WHERE c1 LIKE 'doc2 %part0.'")
    with pytest.raises(StoreDamaged, match=r"'1\.txt' was damaged on disk and dropped"):
        store.text(identifier(1))
    with pytest.raises(KeyError):
        store.text(identifier(1))
    ids = [passage.id for passage in parts(2, 1)[1]]
    assert set(store.passages(ids)) == set(ids[1:])
    assert store.passages(ids) == {}
    assert not visible(store, 1, 1)
    assert not visible(store, 2, 1)
    assert visible(store, 0, 1)
    assert store.notices() == (f"2 documents were damaged on disk and dropped; sync their folder again: {ROOT}",)
    store.close()
    store = opened(place)
    assert visible(store, 0, 1)
    assert len(store.documents()) == 1
    store.close()


def test_a_newer_store_is_left_alone_even_where_its_seal_differs(place: Path) -> None:
    file = filled(place)
    change_version = sqlite3.connect(file)
    change_version.execute("PRAGMA user_version = 99")
    change_version.close()
    before = file.read_bytes()
    with pytest.raises(StoreTooNew):
        Store(place, IDENTITY)
    assert file.read_bytes() == before


# Version 1


VERSION_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE documents (
  id TEXT PRIMARY KEY, root TEXT NOT NULL, source TEXT NOT NULL, title TEXT NOT NULL, text TEXT NOT NULL,
  fingerprint TEXT NOT NULL, indexed_at TEXT NOT NULL, UNIQUE (root, source));
CREATE TABLE passages (
  number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, document_id TEXT NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
  start_at INTEGER NOT NULL, end_at INTEGER NOT NULL, heading TEXT NOT NULL, content_key BLOB NOT NULL, vector BLOB NOT NULL);
CREATE INDEX passages_of_document ON passages (document_id, start_at);
CREATE INDEX passages_by_content ON passages (content_key);
CREATE VIRTUAL TABLE words USING fts5 (context, text, tokenize = 'porter unicode61 remove_diacritics 2');
CREATE TABLE pending (passage_id TEXT PRIMARY KEY);
CREATE TABLE rejected (root TEXT NOT NULL, source TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (root, source));
"""


def written_by_version_1(place: Path, count: int) -> Path:
    """A store as version 1 wrote it, with the statements that it used."""
    place.mkdir()
    connection = sqlite3.connect(place / FILE, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    for statement in VERSION_1.split(";\n"):
        if statement.strip():
            connection.execute(statement)
    connection.execute("PRAGMA user_version = 1")
    connection.execute("INSERT INTO meta VALUES ('embedder', ?)", (IDENTITY,))
    connection.execute("INSERT INTO meta VALUES ('chroma', 'chroma-1')")
    for number in range(count):
        document, passages, keys, made = parts(number, 1)
        connection.execute(
            "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?)",
            (document.id, ROOT, document.source, document.title, document.text, document.fingerprint, "2026-01-01T00:00:00+00:00"),
        )
        for passage, key, one in zip(passages, keys, made, strict=True):
            row = (passage.id, document.id, passage.span.start, passage.span.end, passage.heading, key, one.tobytes())
            rowid = connection.execute(
                "INSERT INTO passages (id, document_id, start_at, end_at, heading, content_key, vector) VALUES (?, ?, ?, ?, ?, ?, ?)", row
            ).lastrowid
            connection.execute(
                "INSERT INTO words (rowid, context, text) VALUES (?, ?, ?)", (rowid, f"{document.title} {passage.heading}", passage.text)
            )
    connection.execute("INSERT INTO rejected VALUES (?, 'x.bin', 'it holds binary data, not text')", (ROOT,))
    connection.close()
    return place / FILE


def test_a_store_of_version_1_is_taken_over(place: Path) -> None:
    written_by_version_1(place, 4)
    store = opened(place)
    assert all(visible(store, number, 1) for number in range(4))
    assert store.notices() == ()
    for number in range(4):
        document, passages, keys, _ = parts(number, 1)
        assert store.document(document.id) == document
        assert store.passages([passage.id for passage in passages]) == {passage.id: passage for passage in passages}
        assert store.known_keys(keys) == set(keys)
        assert store.info(document.id).indexed_at == "2026-01-01T00:00:00+00:00"
    assert store.rejected(ROOT) == {"x.bin": "it holds binary data, not text"}
    assert {known.reader for known in store.known(ROOT).values()} == {0}
    put(store, 1, 2)
    store.remove(identifier(2))
    store.close()
    again = opened(place)
    assert visible(again, 1, 2)
    assert visible(again, 0, 1)
    assert not visible(again, 2, 1)
    again.close()


def test_a_kill_while_a_store_is_taken_over_changes_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written_by_version_1(place, 4)
    with monkeypatch.context() as patched:
        patched.setattr("index.schema.insert_vectors", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            Store(place, IDENTITY)
    with closing(sqlite3.connect(place / FILE)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT count(vector) FROM passages").fetchone() == (4 * PARTS,)
    store = opened(place)
    assert all(visible(store, number, 1) for number in range(4))
    store.close()


def test_a_damaged_store_of_version_1_is_put_aside_and_its_folder_named(place: Path) -> None:
    file = written_by_version_1(place, 40)
    whole = file.read_bytes()
    page = whole.rindex(b"doc7 doc7v1 part0.") // 4_096
    file.write_bytes(whole[: page * 4_096] + random.Random(3).randbytes(4_096) + whole[(page + 1) * 4_096 :])
    store = opened(place)
    assert store.documents() == []
    assert any("may be lost" in notice for notice in store.notices())
    assert len(list(place.glob(f"damaged-*/{FILE}"))) == 1
    store.close()
