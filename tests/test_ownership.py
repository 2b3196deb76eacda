"""Tests of who sees what: index.visible, the store's owners, rag.own and rag.library's users. Of somebody else's nothing is read by any way there is."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SQLITE, FakeEmbedder, FakeModel, Opening, make_assistant
from fastapi import FastAPI
from numpy.typing import NDArray
from starlette.testclient import TestClient
from starlette.types import Message
from store_writer import ROOT, identifier, opened, parts, put, vector, visible

import rag.server_documents
from index import compare, shared_vectors
from index.contract import DocumentStore, UploadKeeper
from index.errors import NotAllowed, OverLimit
from index.read import fingerprint
from index.salvage import trouble_in
from index.schema import DOCUMENT, DOCUMENT_2, NOBODY, OWN_UPLOADS, TABLES, UPLOADS, checksum
from index.store import Store
from index.sync import sync
from index.visible import Visible
from rag.accounts import LOCAL_USER, User
from rag.assistant import Assistant
from rag.library import OwnLibrary, Work, listing
from rag.own import OwnAssistant
from rag.server import create_app
from ui.web import OURS, library_routes

pytestmark = pytest.mark.usefixtures("fast_probes")

ANN, BEN, EVE = User("id-of-ann", "ann"), User("id-of-ben", "ben"), User("id-of-eve", "eve", "admin")
FILE = "citewell.sqlite3"

WHOSE = {0: None, 1: ANN.id, 2: BEN.id, 3: None, 4: ANN.id, 5: BEN.id}


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> str:
    """What the contract says holds for a store of one machine and for a shared one."""
    return str(request.param)


@pytest.fixture
def store(place: Path, opening: Opening) -> Iterator[DocumentStore]:
    """Documents 0 and 3 are shared, 1 and 4 are Ann's, 2 and 5 are Ben's."""
    made = opening(place, "writer@1")
    assert made.wait_for_index(60) == "ready"
    for number, owner in WHOSE.items():
        put(made, number)
        made.set_owner(identifier(number), owner)
    yield made
    made.close()


def may_see(user: User) -> set[int]:
    return {number for number, owner in WHOSE.items() if owner in (None, user.id)}


def nothing_of_others(store: DocumentStore, user: User) -> None:
    """Asks everything that can be asked, of every id, by words, vectors and name."""
    view, mine = Visible(store, user.id), may_see(user)
    assert {info.id for info in view.documents()} == {identifier(number) for number in mine}
    assert view.document_count() == len(mine)
    assert set(view.fingerprints(ROOT)) == {f"{number}.txt" for number in mine}
    sources = [f"{number}.txt" for number in WHOSE]
    assert (
        set(view.known(ROOT))
        == set(view.known(ROOT, [*sources, *view.rejected(ROOT)]))
        == {f"{number}.txt" for number in mine} | set(view.rejected(ROOT))
    )
    everything = [passage for number in WHOSE for passage in parts(number, 1)[1]]
    own = {passage.id for passage in everything if int(passage.document_id.removeprefix("id")) in mine}
    assert set(view.passages([passage.id for passage in everything])) == own
    assert {one for one, _ in view.matching("part0 part1 part2", 100)} == own
    everyone = [identifier(number) for number in WHOSE]
    for number in WHOSE:
        document, passages, _, _ = parts(number, 1)
        ids = {passage.id for passage in passages}
        found = {one for one, _ in view.matching(f"doc{number}v1", 50)}
        chosen = {one for one, _ in view.matching(f"doc{number}v1", 50, everyone)}
        near = {one for one, _ in view.nearest(vector(number, 1, 0), 100)}
        assert near == {one for one, _ in view.nearest(vector(number, 1, 0), 100, everyone)} == own
        assert found == chosen == (ids if number in mine else set())
        assert {one for one, _ in view.nearest(vector(number, 1, 0), 1)} <= own
        reads: tuple[Callable[[str], object], ...] = (
            view.text, view.document, view.furniture, view.pages, view.document_file, view.info, view.owner
        )  # fmt: skip
        for read in reads:
            if number in mine:
                read(document.id)
            else:
                with pytest.raises(KeyError) as refused:
                    read(document.id)
                assert refused.value.args == (document.id,), "as if there were none"
        assert bool(view.documents(document.id)) is bool(view.edges(document.id)) is (number in mine)
        assert [one for one, _ in view.nearest(vector(number, 1, 0), 5, [document.id])] == [] or number in mine


@pytest.mark.parametrize("user", [ANN, BEN, EVE], ids=lambda user: user.name)
def test_no_user_reads_what_is_anothers(store: DocumentStore, user: User) -> None:
    nothing_of_others(store, user)


@pytest.mark.parametrize("user", [ANN, BEN, EVE], ids=lambda user: user.name)
@pytest.mark.parametrize("few", [0, 5_000])
def test_nor_in_a_large_store(store: DocumentStore, user: User, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (compare, shared_vectors):
        monkeypatch.setattr(module, "COMPARED", 0)
        monkeypatch.setattr(module, "COMPARED_OF_CHOSEN", few)
    nothing_of_others(store, user)


def test_nor_while_the_vector_index_has_yet_to_learn(store: DocumentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (compare, shared_vectors):
        monkeypatch.setattr(module, "COMPARED", 0)
        monkeypatch.setattr(module, "COMPARED_OF_CHOSEN", 0)
    if isinstance(store, Store):
        monkeypatch.setattr(store._index, "catch_up", lambda: None)
    else:
        monkeypatch.setattr(shared_vectors.SharedVectors, "_tell_some", lambda self, name: False)
    for number in WHOSE:
        put(store, number)
    assert store._database.rows("SELECT count(*) FROM pending") != [(0,)]
    nothing_of_others(store, ANN)


def test_a_document_that_is_given_away_is_gone_at_once(store: DocumentStore) -> None:
    view = Visible(store, ANN.id)
    assert view.nearest(vector(1, 1, 0), 1)[0][1] > 0.99
    store.set_owner(identifier(1), BEN.id)
    assert not any(similarity > 0.99 for _, similarity in view.nearest(vector(1, 1, 0), 100))
    assert view.matching("doc1v1", 5) == []
    store.set_owner(identifier(1), None)
    assert view.nearest(vector(1, 1, 0), 1)[0][1] > 0.99
    with pytest.raises(KeyError):
        store.set_owner("none", ANN.id)


def test_an_owner_stays_through_a_new_version_a_removal_and_a_reopening(store: DocumentStore, opening: Opening) -> None:
    put(store, 1, 2)
    assert store.owner(identifier(1)) == ANN.id
    store.remove(identifier(1))
    put(store, 1, 3)
    assert store.owner(identifier(1)) == ANN.id
    store.reject(ROOT, "4.txt", "it is broken")
    put(store, 4)
    assert store.owner(identifier(4)) == ANN.id
    store.close()
    again = opening(store.folder, "writer@1")
    assert again.owned(ANN.id) == [identifier(1), identifier(4)]
    assert {info.id: info.owner for info in again.documents()} == {identifier(number): owner for number, owner in WHOSE.items()}
    again.close()


def test_a_folders_documents_are_its_owners_from_their_first_moment_on(place: Path, opening: Opening) -> None:
    store = opening(place, "writer@1")
    put(store, 0)
    store.set_owner(identifier(0), None)
    put(store, 1)
    store.set_folder_owner(ROOT, ANN.id)
    put(store, 2)
    store.reject(ROOT, "secret.bin", "it is broken")
    assert store.folder_owner(ROOT) == ANN.id
    assert {info.id: info.owner for info in store.documents()} == {"id0": None, "id1": ANN.id, "id2": ANN.id}
    assert Visible(store, BEN.id).rejected() == {}
    assert Visible(store, ANN.id).rejected() == {"secret.bin": "it is broken"}
    assert all(visible(store, number, 1) for number in range(3))
    store.close()


def test_a_view_has_no_way_to_write_and_every_reader_was_thought_of() -> None:
    reads = {name for name in vars(Visible) if not name.startswith("_")}
    public = {name for name in vars(Store) if not name.startswith("_")}
    writes = {
        "announce", "close", "put", "put_many", "many_changes", "reject", "remove", "remove_many", "touch", "forget_rejected", "set_owner",
        "set_folder_owner", "forget_unused_vectors", "finish_sync", "replace_vectors",
    }  # fmt: skip
    whole = {"lost", "roots", "rejection_count", "passage_count", "known_keys", "vectors_by_content", "folder_owner", "owned", "seen"}
    assert not reads & (writes | whole)
    assert public - reads == writes | whole, "a new method of Store: may a user call it, and what does it tell of others?"


# What is kept


def as_version_2(place: Path) -> None:
    """A closed store as version 2 wrote it."""
    (place / "seal.json").unlink()
    with closing(sqlite3.connect(place / FILE, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("DROP TABLE owners")
        connection.execute("DROP INDEX documents_of")
        connection.execute("ALTER TABLE documents DROP COLUMN owner")
        for row in connection.execute(f"SELECT {DOCUMENT_2} FROM documents").fetchall():
            connection.execute("UPDATE documents SET checksum = ? WHERE id = ?", (checksum(*row), row[0]))
        connection.execute("UPDATE meta SET value = '2', checksum = ? WHERE key = 'format'", (checksum("format", "2"),))
        connection.execute("PRAGMA user_version = 2")
        connection.execute("COMMIT")


def filled(place: Path) -> None:
    store = opened(place)
    for number in range(4):
        put(store, number)
    store.close()


def test_a_store_of_version_2_is_taken_over_whole_and_shared(place: Path) -> None:
    filled(place)
    as_version_2(place)
    store = opened(place)
    assert store.notices() == ()
    assert not list(place.glob("damaged-*"))
    assert all(visible(store, number, 1) for number in range(4))
    assert {info.owner for info in store.documents()} == {None}
    store.set_owner(identifier(1), ANN.id)
    assert identifier(1) not in {info.id for info in Visible(store, BEN.id).documents()}
    store.close()
    assert trouble_in(place / FILE) == ""
    again = opened(place)
    assert again.owner(identifier(1)) == ANN.id
    again.close()


def test_a_damaged_store_of_version_2_is_saved_as_far_as_it_is_whole(place: Path) -> None:
    filled(place)
    as_version_2(place)
    with closing(sqlite3.connect(place / FILE, isolation_level=None)) as connection:
        connection.execute("UPDATE documents SET text = replace(text, 'part1', 'PART1') WHERE id = 'id2'")
    store = opened(place)
    assert [info.id for info in store.documents()] == ["id0", "id1", "id3"]
    assert store.lost() == [(ROOT, "2.txt")]
    told, hidden = (" ".join(Visible(store, BEN.id, folders).notices()) for folders in (True, False))
    assert f"again: {ROOT}" in told
    assert f"again: {Path(ROOT).name}" in hidden, "where folders stand on the server is not for everybody"
    store.close()


def test_a_kill_while_version_2_is_taken_over_changes_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(place)
    as_version_2(place)
    with monkeypatch.context() as patched:
        patched.setattr("index.schema.set_meta", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            Store(place, "writer@1")
    store = opened(place)
    assert all(visible(store, number, 1) for number in range(4))
    store.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE documents SET text = text || 'x' WHERE id = 'id0'",
        "UPDATE documents SET owner = '' WHERE id = 'id1'",
        "UPDATE owners SET owner = '' WHERE source = '1.txt'",
        "UPDATE owners SET owner = 'id-of-ben' WHERE source = '1.txt'",
        "DROP TABLE owners",
        "PRAGMA user_version = 2",
    ],
)
@SQLITE
def test_no_damage_shows_anybody_what_was_anothers(store: Store, damage: str) -> None:
    store.close()
    (store.folder / "seal.json").unlink()
    with closing(sqlite3.connect(store.folder / FILE, isolation_level=None)) as connection:
        connection.execute(damage)
    again = opened(store.folder)
    assert not {info.id for info in Visible(again, BEN.id).documents()} & {"id1", "id4"}
    assert not {info.id for info in Visible(again, ANN.id).documents()} & {"id2", "id5"}
    assert list(store.folder.glob("damaged-*"))
    if "'1.txt'" in damage:
        put(again, 1, 2)
        assert again.owner(identifier(1)) == NOBODY
    again.close()


def test_the_tables_say_where_the_owner_stands() -> None:
    assert DOCUMENT.split(", ")[12] == "owner", "salvage reads it by its place"
    assert DOCUMENT.replace(", owner", "") == DOCUMENT_2
    assert TABLES.index("owner TEXT") < TABLES.index("text TEXT NOT NULL,\n  UNIQUE")


# Assistants


@pytest.fixture
def whole(place: Path, tmp_path: Path, embedder: FakeEmbedder, opening: Opening) -> Iterator[Assistant]:
    """An assistant with a shared document and one upload each of Ann and Ben, all about zebras."""
    store = opening(place, embedder.identity)
    made = make_assistant(store, embedder, FakeModel("The zebra runs."))
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "all.txt").write_text("The zebra of everybody eats grass. It is striped.")
    made.sync(shared)
    for user in (ANN, BEN):
        upload(made.for_user(user), tmp_path, "notes.txt", f"The zebra of {user.name} eats {user.name}apples. It is striped.")
    settled(made)
    yield made
    made.close()


def upload(assistant: Assistant, tmp_path: Path, name: str, text: str) -> str:
    path = tmp_path / "upload"
    path.write_text(text)
    return assistant.library.add(name, path)


def settled(assistant: Assistant) -> None:
    deadline = time.monotonic() + 30
    while assistant.library.work() is not None and time.monotonic() < deadline:
        time.sleep(0.02)


def told(assistant: Assistant) -> str:
    """Everything that a door tells of the documents."""
    said: list[object] = [
        listing(assistant.store),
        assistant.starters(),
        assistant.store.notices(),
        assistant.library.outcomes(),
        assistant.library.waiting(),
    ]
    said += [assistant.search("What does the zebra eat?", limit=50), assistant.store.documents()]
    said += [
        assistant.ask("What does the zebra eat?"),
        assistant.ask("What does the zebra of ann eat?"),
        assistant.ask("What does the zebra of ben eat?"),
    ]
    return repr([one.to_dict() if hasattr(one, "to_dict") else one for one in said]).replace("of ann eat?", "").replace("of ben eat?", "")


def test_the_same_name_uploaded_twice_is_two_documents(whole: Assistant) -> None:
    assert sorted((info.root, info.source) for info in whole.store.documents() if info.source == "notes.txt") == [
        (OWN_UPLOADS + ANN.id, "notes.txt"),
        (OWN_UPLOADS + BEN.id, "notes.txt"),
    ]
    texts = {user.id: whole.for_user(user).store.documents() for user in (ANN, BEN)}
    assert all({info.owner for info in infos} == {None, owner} for owner, infos in texts.items())


def test_no_door_tells_a_user_of_anothers_documents(whole: Assistant) -> None:
    for user, other in ((ANN, BEN), (BEN, ANN)):
        said = told(whole.for_user(user))
        assert f"{user.name}apples" in said
        assert f"{other.name}apples" not in said
        assert f"zebra of {other.name}" not in said
        assert other.id not in said
    admin = told(whole.for_user(EVE))
    assert "annapples" not in admin
    assert "benapples" not in admin, "an admin runs the place and reads no one's documents"
    assert "everybody" in admin


def test_the_http_door_serves_a_users_assistant(whole: Assistant) -> None:
    bens = whole.store.owned(BEN.id)[0]
    client = TestClient(create_app(whole.for_user(ANN)), base_url="http://127.0.0.1")
    assert client.get(f"/api/documents/{bens}/text").status_code == 404
    assert "benapples" not in client.get("/api/documents").text
    for names in ([bens], [OWN_UPLOADS + BEN.id]):
        assert client.post("/api/ask", json={"question": "What does the zebra eat?", "documents": names}).status_code == 404
    assert "benapples" not in client.post("/api/ask", json={"question": "What does the zebra of ben eat?"}).text


def test_a_user_changes_their_own_documents_alone(whole: Assistant, tmp_path: Path) -> None:
    ann, ben = whole.for_user(ANN), whole.for_user(BEN)
    (anns,), (bens,) = whole.store.owned(ANN.id), whole.store.owned(BEN.id)
    (shared,) = [info.id for info in whole.store.documents() if info.owner is None]
    with pytest.raises(KeyError):
        ann.library.remove([bens])
    with pytest.raises(NotAllowed, match="everybody's"):
        ann.library.remove([anns, shared])
    with pytest.raises(KeyError):
        ann.library.share(bens, True)  # type: ignore[attr-defined]
    with pytest.raises(NotAllowed):
        ann.library.share(shared, False)  # type: ignore[attr-defined]
    for root in (OWN_UPLOADS + BEN.id, f"{OWN_UPLOADS}../{BEN.id}"):
        with pytest.raises(KeyError):
            ann.library.discard(root, "notes.txt")
        with pytest.raises(KeyError):
            ann.library.retry(root, "notes.txt")
        assert ann.library.size(root, "notes.txt") is None
    with pytest.raises(NotAllowed):
        ann.library.discard(UPLOADS, "notes.txt")
    with pytest.raises(NotAllowed, match="upload your files"):
        ann.sync(tmp_path)
    with pytest.raises(NotAllowed):
        ann.library.forget(tmp_path)
    with pytest.raises(NotAllowed):
        ann.reembed()
    assert len(whole.store.documents()) == 3
    ann.library.share(anns, True)  # type: ignore[attr-defined]
    assert "annapples" in ben.store.text(anns)
    with pytest.raises(NotAllowed):
        ben.library.remove([anns])
    ann.library.share(anns, False)  # type: ignore[attr-defined]
    with pytest.raises(KeyError):
        ben.store.text(anns)
    ann.library.remove([anns])
    assert whole.store.owned(ANN.id) == []
    assert not (whole.library.folder(OWN_UPLOADS + ANN.id) / "notes.txt").exists()
    assert (whole.library.folder(OWN_UPLOADS + BEN.id) / "notes.txt").exists()
    whole.for_user(EVE).library.remove([shared])
    assert [info.id for info in whole.store.documents()] == [bens]


def test_a_sync_of_everybodys_uploads_leaves_those_of_users_alone(whole: Assistant, embedder: FakeEmbedder, tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_text("For everybody.")
    whole.library.add("shared.txt", path)
    settled(whole)
    report = sync(whole.store, embedder, whole.library.uploads, root=UPLOADS)
    assert (report.unchanged, report.removed) == (("shared.txt",), ())
    assert [info.source for info in whole.store.documents() if info.owner is None] == ["all.txt", "shared.txt"]
    assert (UPLOADS, "shared.txt") not in whole.for_user(ANN).library.waiting()


def test_what_was_uploaded_before_a_stop_is_read_as_its_owners(whole: Assistant, embedder: FakeEmbedder) -> None:
    late = b"The late giraffe of ann."
    if isinstance(whole.store, UploadKeeper):
        whole.store.keep_upload(OWN_UPLOADS + ANN.id, "late.txt", late, fingerprint(late))
    else:
        (whole.library.folder(OWN_UPLOADS + ANN.id) / "late.txt").write_bytes(late)
    assert whole.for_user(ANN).library.waiting() == ((OWN_UPLOADS + ANN.id, "late.txt"),)
    assert whole.for_user(BEN).library.waiting() == ()
    whole.library.resume()
    settled(whole)
    assert {info.owner for info in whole.store.documents() if info.source == "late.txt"} == {ANN.id}


def test_others_work_is_told_without_names(whole: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    whole.library._work = Work("Reading secret.txt again", 1, 2, "secret.txt", root=OWN_UPLOADS + BEN.id)
    try:
        assert whole.for_user(ANN).library.work() == Work("Reading other people's files", 1, 2)
        assert whole.for_user(BEN).library.work() == whole.library._work
        with pytest.raises(NotAllowed):
            whole.for_user(ANN).library.cancel()
    finally:
        whole.library._work = None


@pytest.fixture
def busy(whole: Assistant, tmp_path: Path) -> Iterator[Assistant]:
    """The assistant with a folder of the server at work, that waits for `go`, and behind it uploads of everybody, Ann and Ben that wait in turn."""
    go, begun = threading.Event(), threading.Event()
    embed = whole.library._embedder.embed

    def held(texts: Sequence[str]) -> NDArray[np.float32]:
        begun.set()
        assert go.wait(30)
        return embed(texts)

    whole.library._embedder.embed = held  # type: ignore[method-assign]
    server = tmp_path / "server"
    server.mkdir()
    (server / "long.txt").write_text("A long giraffe.")
    whole.library.sync_soon(server)
    assert begun.wait(30)
    whole.library.add("all.txt", server / "long.txt")
    for user in (ANN, BEN):
        upload(whole.for_user(user), tmp_path, "late.txt", f"The late giraffe of {user.name}.")
    yield whole
    go.set()
    settled(whole)


def queued(assistant: Assistant) -> set[str]:
    return {assistant.library.root(folder) for folder in assistant.library._waiting}


def test_a_users_stop_drops_their_own_uploads_alone(busy: Assistant) -> None:
    busy.for_user(ANN).library.cancel()
    assert queued(busy) == {UPLOADS, OWN_UPLOADS + BEN.id}
    assert not busy.library._cancelled.is_set(), "what is going on is not hers"
    with pytest.raises(NotAllowed, match="not yours"):
        busy.for_user(ANN).library.cancel()
    assert queued(busy) == {UPLOADS, OWN_UPLOADS + BEN.id}


def test_an_admins_stop_ends_what_is_going_on_and_no_ones_own_uploads(busy: Assistant) -> None:
    busy.for_user(EVE).library.cancel()
    assert queued(busy) == {OWN_UPLOADS + ANN.id, OWN_UPLOADS + BEN.id}
    assert busy.library._cancelled.is_set()


def test_a_users_stop_of_their_own_work_ends_it_and_no_one_elses(whole: Assistant, tmp_path: Path) -> None:
    whole.library._work = Work("Reading uploaded files", root=OWN_UPLOADS + ANN.id)
    whole.library._waiting[whole.library.folder(OWN_UPLOADS + BEN.id)] = ("Reading uploaded files", frozenset({"late.txt"}))
    try:
        whole.for_user(ANN).library.cancel()
        assert whole.library._cancelled.is_set()
        assert queued(whole) == {OWN_UPLOADS + BEN.id}
    finally:
        whole.library._work = None
        whole.library._waiting.clear()


def test_an_upload_that_is_not_shared_any_more_is_its_owners_again(whole: Assistant) -> None:
    (anns,) = whole.store.owned(ANN.id)
    whole.for_user(ANN).library.share(anns, True)  # type: ignore[attr-defined]
    whole.for_user(EVE).library.share(anns, False)  # type: ignore[attr-defined]
    assert whole.store.owner(anns) == ANN.id
    assert anns not in {info.id for info in whole.for_user(EVE).store.documents()}
    (everybodys,) = [info.id for info in whole.store.documents() if info.owner is None]
    whole.for_user(EVE).library.share(everybodys, False)  # type: ignore[attr-defined]
    assert whole.store.owner(everybodys) == EVE.id


def test_no_listing_tells_a_users_inner_id(whole: Assistant, tmp_path: Path) -> None:
    upload(whole.for_user(ANN), tmp_path, "broken.pdf", "This is no PDF.")
    settled(whole)
    (anns,) = [info.id for info in whole.store.documents() if info.owner == ANN.id]
    whole.for_user(ANN).library.share(anns, True)  # type: ignore[attr-defined]
    told_of = {user.id: {(one["source"], one["status"], one["folder"]) for one in listing(whole.for_user(user).store)} for user in (ANN, BEN)}
    assert ("notes.txt", "indexed", "uploads") in told_of[BEN.id]
    assert told_of[ANN.id] == {("all.txt", "indexed", "shared"), ("notes.txt", "indexed", "uploads"), ("broken.pdf", "rejected", "uploads")}


def test_uploads_stop_at_the_quota(whole: Assistant, tmp_path: Path) -> None:
    settings = whole.settings.replaced(user_files=2, user_mb=0.001)
    whole.settings = settings
    ann = whole.for_user(ANN)
    upload(ann, tmp_path, "notes.txt", "replaced, so no more")
    upload(ann, tmp_path, "second.txt", "x" * 500)
    with pytest.raises(OverLimit, match=r"2 files, and 2 is the most") as refused:
        upload(ann, tmp_path, "third.txt", "x")
    assert refused.value.retry_after is None
    with pytest.raises(OverLimit, match=r"0\.001 MB is the most"):
        upload(ann, tmp_path, "second.txt", "x" * 990)
    assert (whole.library.folder(OWN_UPLOADS + ANN.id) / "second.txt").read_text() == "x" * 500
    upload(whole.for_user(BEN), tmp_path, "third.txt", "x")
    settled(whole)


# Uploads that come in


def served_to(whole: Assistant, user: User) -> FastAPI:
    """The doors by which files come in, as a user has them."""
    app = create_app(whole)
    app.state.service.own = lambda scope: whole.for_user(user)
    app.router.routes.extend(library_routes(app.state.service))
    return app


def refused_after(app: FastAPI, method: str, target: str, headers: dict[str, str], *parts: bytes) -> tuple[int, str]:
    """The reply to a request of which no more than these parts of its body may be asked for."""
    left, said = list(parts), []
    path, _, query = target.partition("?")

    async def receive() -> Message:
        assert left, "more of the body is read than is needed to refuse it"
        return {"type": "http.request", "body": left.pop(0), "more_body": True}

    async def send(message: Message) -> None:
        said.append(message)

    named = {"host": "127.0.0.1", OURS: "1", **headers}
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "scheme": "http", "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 9), "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return said[0]["status"], b"".join(message.get("body", b"") for message in said).decode()


FORM = {"content-type": "multipart/form-data; boundary=x", "content-length": "100000"}


def part_of(name: str, content: bytes) -> bytes:
    return f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode() + content


def test_what_there_is_no_room_for_is_refused_before_it_is_read(whole: Assistant) -> None:
    whole.settings = whole.settings.replaced(user_files=2, user_mb=0.001)
    app = served_to(whole, ANN)
    status, said = refused_after(app, "PUT", "/library/files?name=large.txt", {"content-length": "2000"})
    assert (status, "'large.txt' is not taken: there is room for 0.00" in said) == (413, True)
    assert refused_after(app, "PUT", "/library/files?name=large.txt", {}, b"x" * 600, b"x" * 600)[0] == 413, "nor where no length was told"
    status, said = refused_after(app, "POST", "/api/documents", FORM, part_of("large.txt", b"x" * 2_000))
    assert (status, "'large.txt' is not taken" in said) == (413, True)
    whole.settings = whole.settings.replaced(user_files=1)
    for method, target, headers, sent in (
        ("PUT", "/library/files?name=more.txt", {"content-length": "1"}, ()),
        ("POST", "/api/documents", FORM, (part_of("more.txt", b"x"),)),
    ):
        status, said = refused_after(app, method, target, headers, *sent)
        assert (status, "1 files, and 1 is the most" in said) == (413, True)
    client = TestClient(app, base_url="http://127.0.0.1")
    assert client.put("/library/files?name=notes.txt", content=b"replaced", headers={OURS: "1"}).status_code == 200
    assert client.post("/api/documents", files={"file": ("notes.txt", b"replaced twice")}).json()["files"][0]["status"] == "indexed"


def test_two_uploads_of_a_user_come_in_at_a_time(whole: Assistant) -> None:
    ann = whole.for_user(ANN).library
    with ann.uploading(), ann.uploading():
        for method, target, headers in (("PUT", "/library/files?name=third.txt", {"content-length": "1"}), ("POST", "/api/documents", FORM)):
            status, said = refused_after(served_to(whole, ANN), method, target, headers)
            assert (status, "2 uploads of yours" in said) == (429, True)
        with whole.for_user(BEN).library.uploading():
            pass
        refused = TestClient(served_to(whole, ANN), base_url="http://127.0.0.1").put(
            "/library/files?name=third.txt", content=b"x", headers={OURS: "1"}
        )
        assert refused.headers["retry-after"] == "5"
    with ann.uploading():
        pass
    assert not whole.library._coming


def test_nothing_of_an_upload_lies_about_while_it_is_read(busy: Assistant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.server_documents.READ_SECONDS", 0.0)  # it waits behind what is going on
    lying: list[list[Path]] = []
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    told_of = rag.server_documents.fates

    def looked(*asked: Any) -> list[dict[str, Any]]:
        lying.append(list((tmp_path / "temporary").iterdir()))
        return told_of(*asked)

    monkeypatch.setattr("rag.server_documents.fates", looked)
    client = TestClient(served_to(busy, ANN), base_url="http://127.0.0.1")
    assert client.post("/api/documents", files={"file": ("slow.txt", b"A slow giraffe.")}).json()["files"][0]["status"] == "waiting"
    assert lying == [[]]


def test_a_users_assistant_cannot_close_or_write_the_store(whole: Assistant) -> None:
    view = whole.for_user(LOCAL_USER)
    view.close()
    assert whole.store.documents()
    for name in ("put", "remove", "set_owner", "close", "roots", "lost"):
        with pytest.raises(AttributeError):
            getattr(view.store, name)
    for name in ("sync", "sync_soon", "resume", "close", "root"):
        with pytest.raises(AttributeError):
            getattr(view.library, name)
    assert view.answering_model() == whole.answering_model()
    public = {name for name, _ in inspect.getmembers(Assistant, inspect.isfunction) if not name.startswith("_")}
    # These ask the view's own stream(), search, store and library.
    answered = {"add_url", "search", "find", "stream", "ask", "astream", "aask", "as_retriever", "as_query_engine", "starters", "page_image"}
    assert public - answered <= set(vars(OwnAssistant)), "a new method of Assistant: what does it do for one user?"
    assert isinstance(view.library, OwnLibrary)


@SQLITE
def test_where_damage_took_what_was_said_uploads_of_one_user_stay_theirs(store: Store, tmp_path: Path) -> None:
    root = OWN_UPLOADS + ANN.id
    store.set_folder_owner(root, ANN.id)
    for number in WHOSE:
        store.remove(identifier(number))
    document, *rest = parts(7, 1)
    store.put(document, root, *rest)
    store.reject(root, "secret.bin", "it is broken")
    with store._database.transaction() as connection:
        connection.execute("DELETE FROM owners")
    store.put(document, root, *rest)
    assert [info.owner for info in store.documents()] == [ANN.id]
    assert store.folder_owner(root) == ANN.id
    assert Visible(store, BEN.id).rejections() == Visible(store, BEN.id).documents() == []
    assert [one.source for one in Visible(store, ANN.id).rejections()] == ["secret.bin"]
