"""Tests of the shared store, with a real PostgreSQL and a real `chroma run`: what one process does every other knows at once, whatever is killed or away.

The contract itself is tested in test_store.py, test_search.py, test_sync.py and test_ownership.py, on this store as on the other. Two stores opened in one
process are two processes as far as the store can tell.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import servers
from conftest import FakeEmbedder, FakeModel, Opening, make_assistant
from hypothesis import given
from hypothesis import strategies as st
from store_writer import PARTS, ROOT, identifier, parts, put, vector, visible

from index import postgres_words, shared_vectors
from index.chroma_server import ChromaAddress, ChromaAway, ChromaServer
from index.contract import DocumentStore, UploadKeeper
from index.errors import InvalidSettings, StoreError, StoreTooNew
from index.postgres import PostgresStore
from index.postgres_schema import kept, told
from index.schema import OWN_UPLOADS, UPLOADS, Entry
from index.store import Store
from index.types import Document
from index.visible import Visible
from rag.accounts import User
from rag.assistant import Assistant
from rag.settings import Settings

IDENTITY = "writer@1"
Servers = tuple[str, servers.Running]


@pytest.fixture
def by_chroma(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chroma is asked, however small a store is."""
    monkeypatch.setattr(shared_vectors, "COMPARED", 0)
    monkeypatch.setattr(shared_vectors, "COMPARED_OF_CHOSEN", 0)


@pytest.fixture
def two(shared_store: Opening, tmp_path: Path) -> Iterator[tuple[PostgresStore, PostgresStore]]:
    """The store as two machines have it open."""
    pair = tuple(shared_store(tmp_path / name, IDENTITY) for name in ("one", "two"))
    for one in pair:
        assert isinstance(one, PostgresStore)
        assert one.wait_for_index(60) == "ready"
    yield pair  # type: ignore[misc]
    for one in pair:
        one.close()


def eventually(true: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def pending(store: PostgresStore) -> int:
    return int(store._database.rows("SELECT count(*) FROM pending")[0][0])


# Several processes


@pytest.mark.parametrize("told_late", [False, True], ids=["told", "pending"])
def test_a_change_in_one_process_is_known_to_the_other_at_once(
    two: tuple[PostgresStore, PostgresStore], by_chroma: None, monkeypatch: pytest.MonkeyPatch, told_late: bool
) -> None:
    one, other = two
    if told_late:
        monkeypatch.setattr(shared_vectors.SharedVectors, "_tell_some", lambda self, name: False)
    for number in range(12):
        put(one, number)
        assert visible(other, number, 1)
    put(one, 3, 2)
    assert visible(other, 3, 2)
    assert not visible(other, 3, 1)
    other.remove(identifier(4))
    assert not visible(one, 4, 1)
    one.set_owner(identifier(5), "ann")
    passages = {passage.id for passage in parts(5, 1)[1]}
    assert passages & {found for found, _ in other.nearest(vector(5, 1, 0), 50, None, "ann")}
    assert not passages & {found for found, _ in other.nearest(vector(5, 1, 0), 50, None, "ben")}
    assert not passages & {found for found, _ in other.matching("doc5v1", 50, None, "ben")}
    assert (pending(one) > 0) is told_late or not told_late


def test_small_stores_are_compared_and_notice_what_others_change(two: tuple[PostgresStore, PostgresStore]) -> None:
    one, other = two
    for version in (1, 2, 3):
        put(one, 1, version)
        assert visible(other, 1, version)
        put(other, 2, version)
        assert visible(one, 2, version)
    other.remove_many([identifier(1), identifier(2)])
    assert one.nearest(vector(1, 3, 0), 5) == []
    put(one, 1)
    assert visible(other, 1, 1)


def test_of_two_that_replace_a_version_the_second_is_late(two: tuple[PostgresStore, PostgresStore]) -> None:
    one, other = two

    def entry(version: int, replaces: str) -> tuple[list[Entry], dict[bytes, Any]]:
        document, passages, keys, rows = parts(1, version)
        return [Entry(document, ROOT, passages, keys, replaces=replaces)], dict(zip(keys, rows, strict=True))

    assert one.put_many(*entry(1, "")) == []
    late = other.put_many(*entry(2, ""))
    assert [found.document.fingerprint for found in late] == ["1.2"]
    assert visible(one, 1, 1)
    assert other.put_many(*entry(3, "1.1")) == []
    assert visible(one, 1, 3)
    results: list[int] = []
    writers = [
        threading.Thread(target=lambda store=store, version=version: results.append(len(store.put_many(*entry(version, "1.3")))))
        for store, version in ((one, 4), (other, 5))
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(results) == [0, 1], "one of the two was late"


def test_vectors_that_another_sync_relies_on_stay(two: tuple[PostgresStore, PostgresStore]) -> None:
    one, other = two
    one.put_many([], {b"made early": vector(9, 9, 9)})
    with one.many_changes():
        assert other.forget_unused_vectors() == 0
        assert one.known_keys([b"made early"]) == {b"made early"}
    assert other.forget_unused_vectors() == 1
    with one.many_changes():
        one.put_many([], {b"made early": vector(9, 9, 9)})
        assert one.forget_unused_vectors() == 1, "its own sync is no hindrance"


def test_processes_that_write_ask_and_are_killed(shared_store: Opening, postgres_server: Servers, chroma_server: Servers, tmp_path: Path) -> None:
    shared_store(tmp_path / "first", IDENTITY).close()
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("shared_writer.py")), postgres_server[0], chroma_server[0], str(tmp_path / "log"), "6", "4"],
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-4_000:]
    report = json.loads(done.stdout)
    assert report["questions"] > 20, "each of which was checked for being stale"
    assert report["changes"] > 20
    assert report["pending"] == 0, "what the killed ones left to be told, others told"
    assert report["passages"] == PARTS * report["documents"] > 0
    assert report["held"] - report["passages"] <= 10 * PARTS, (
        "a kill between two requests may leave a vector; it is never shown, and goes when it is found"
    )


# Chroma away, emptied, hung


@pytest.fixture
def own_chroma() -> Iterator[Servers]:
    with servers.chroma() as running:
        yield running


def test_without_chroma_words_answer_and_it_is_found_again_by_itself(
    postgres_server: Servers, own_chroma: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.emptied(postgres_server[0])
    monkeypatch.setattr(shared_vectors, "RETRY_SECONDS", 0.1)
    url, server = own_chroma
    with_chroma = ChromaAddress(url)
    store = PostgresStore(tmp_path / "data", postgres_server[0], with_chroma, IDENTITY)
    try:
        assert store.wait_for_index(60) == "ready"
        for number in range(5):
            put(store, number)
        server.stop()
        put(store, 5)
        eventually(lambda: store.index_state == "failed")
        assert visible(store, 5, 1), "a small store needs no Chroma"
        assert "compared one by one" in store.notices()[0]
        monkeypatch.setattr(shared_vectors, "COMPARED", 0)
        monkeypatch.setattr(shared_vectors, "COMPARED_OF_CHOSEN", 0)
        started = time.monotonic()
        assert store.nearest(vector(1, 1, 1), 5) == []
        assert time.monotonic() - started < 5
        assert len(store.matching("doc1", 50)) == PARTS
        assert "does not answer" in store.notices()[0]
        assert "word search alone" in store.notices()[0]
        assert "does not answer" in store.server
        put(store, 1, 2)
        store.remove(identifier(2))
        server.start()
        eventually(lambda: store.index_state == "ready")
        eventually(lambda: pending(store) == 0)
        assert store.notices() == ()
        assert visible(store, 1, 2)
        assert not visible(store, 1, 1)
        assert not visible(store, 2, 1)
        assert visible(store, 5, 1)
        # Somebody deletes the collection: it is filled anew from PostgreSQL, under another name.
        before = store._vectors._now().collection
        ChromaServer(with_chroma).drop(before)
        store.nearest(vector(1, 2, 0), 5)
        eventually(lambda: store._vectors._now().collection != before and store.index_state == "ready")
        assert visible(store, 1, 2)
        assert visible(store, 3, 1)
        # It loses some of them while nobody looks.
        store.close()
        collection = ChromaServer(with_chroma).collection(store_collection(postgres_server[0]))
        collection.delete(list(range(1, 7)))
        store = PostgresStore(tmp_path / "data", postgres_server[0], with_chroma, IDENTITY)
        eventually(lambda: store.index_state == "ready")
        assert all(visible(store, number, 1) for number in (0, 3, 4, 5))
        # It holds something that is gone: that is never shown, and goes.
        made = ChromaServer(with_chroma).collection(store_collection(postgres_server[0]))
        made.add([999_999], [vector(0, 1, 0)], [{"document": 1, "owner": ""}])
        assert len(store.nearest(vector(0, 1, 0), 3)) == 3, "others take its place"
        eventually(lambda: not made.held([999_999]))
        assert visible(store, 0, 1)
    finally:
        store.close()


def store_collection(url: str) -> str:
    import psycopg

    with psycopg.connect(url) as connection:
        return str(connection.execute("SELECT collection FROM citewell.store").fetchone()[0])  # type: ignore[index]


def test_a_chroma_that_hangs_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr("index.chroma_server.LOOK_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(ChromaAway):
            ChromaServer(ChromaAddress(f"http://127.0.0.1:{silent.getsockname()[1]}"))
        assert time.monotonic() - started < 10


def test_a_connected_chroma_has_a_deadline(chroma_server: Servers) -> None:
    server = ChromaServer(ChromaAddress(chroma_server[0]))
    assert server._client._server._session.timeout.read == pytest.approx(20.0), "Chroma's own client waits for ever"


# PostgreSQL away


def test_connections_that_the_server_drops_are_made_anew(two: tuple[PostgresStore, PostgresStore]) -> None:
    one, other = two
    put(one, 1)
    for _ in range(3):
        readers = [threading.Thread(target=one.documents) for _ in range(6)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        other._database.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name = 'citewell'")
        assert visible(one, 1, 1)
    put(one, 2)
    assert visible(other, 2, 1)


def test_a_postgres_that_is_away_is_a_plain_error_without_the_password(
    tmp_path: Path, chroma_server: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    port = servers.free_port()
    with pytest.raises(StoreError, match="does not answer") as caught:
        PostgresStore(tmp_path, f"postgresql://ann:pa55word@127.0.0.1:{port}/db", ChromaAddress(chroma_server[0]), IDENTITY)
    assert "pa55word" not in repr(caught.value) + caplog.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda url: url.replace("secret-of-tests", "pa55word"), "does not let this user in"),
        (lambda url: url.replace(":secret-of-tests", ""), "wants a password"),
        (lambda url: url.replace("/postgres", "/nowhere-pa55word"), "no such database"),
        (lambda url: url + "?no_such_thing=pa55word", "CITEWELL_STORE_URL"),
    ],
    ids=["password", "none", "database", "parameter"],
)
def test_what_a_server_refuses_is_told_without_the_address(
    postgres_server: Servers, tmp_path: Path, change: Callable[[str], str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises((StoreError, InvalidSettings), match=said) as caught:
        PostgresStore(tmp_path, change(postgres_server[0]), ChromaAddress("http://127.0.0.1:1"), IDENTITY)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert "pa55word" not in str(caught.value) + caplog.text
    assert "secret-of-tests" not in str(caught.value) + caplog.text


def test_a_write_that_fails_changes_nothing_and_repeats_no_content(two: tuple[PostgresStore, PostgresStore]) -> None:
    one, other = two
    put(one, 1)
    with one._database.transaction() as connection:
        connection.execute("ALTER TABLE passages ADD CONSTRAINT no_more CHECK (start_at < 20) NOT VALID")
    try:
        with pytest.raises(StoreError, match=r"CheckViolation.*Nothing was changed") as caught:
            put(one, 1, 2)
        assert "part" not in str(caught.value)
    finally:
        with one._database.transaction() as connection:
            connection.execute("ALTER TABLE passages DROP CONSTRAINT no_more")
    assert visible(other, 1, 1)
    put(one, 1, 2)
    assert visible(other, 1, 2)


def test_a_store_from_the_future_is_left_alone(two: tuple[PostgresStore, PostgresStore], shared_store: Opening, tmp_path: Path) -> None:
    with two[0]._database.transaction() as connection:
        connection.execute("UPDATE store SET format = 99")
    with pytest.raises(StoreTooNew, match=r"99.*Update Citewell"):
        PostgresStore(tmp_path / "three", two[0]._database._pool.conninfo, ChromaAddress("http://127.0.0.1:1"), IDENTITY)


# Words


def test_words_are_found_alike_before_and_after_segments_are_merged_and_purged(
    two: tuple[PostgresStore, PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    monkeypatch.setattr(postgres_words, "GONE_LEAST", 5)
    for number in range(20):
        put(one, number)
    before = one.matching("doc7 part0 part1 part2", 60)
    one._words.tidy()
    assert one._database.rows("SELECT count(*) FROM segments")[0][0] < 10
    assert other.matching("doc7 part0 part1 part2", 60) == before
    for number in range(10, 20):
        other.remove(identifier(number))
    left = one.matching("doc7 part0 part1 part2", 60)
    assert len(left) == 10 * PARTS

    def purged() -> bool:
        other._words.tidy()  # or a process's thread is at it
        return one._database.rows("SELECT (SELECT count(*) FROM gone), (SELECT sum(passages) FROM segments)::int") == [(0, 10 * PARTS)]

    eventually(purged)
    assert one.matching("doc7 part0 part1 part2", 60) == left
    assert all(visible(one, number, 1) is (number < 10) for number in range(20))
    assert one._database.rows("SELECT passages, words FROM store") == one._database.rows("SELECT count(*), sum(words)::bigint FROM passages")


def test_of_many_documents_those_of_a_user_are_found_by_words(two: tuple[PostgresStore, PostgresStore], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_words, "ALLOWED", 2)
    store = two[0]
    for number in range(30):
        put(store, number)
        store.set_owner(identifier(number), "ann" if number == 17 else "ben")
    assert {one for one, _ in store.matching("part0 part1 part2", 5, None, "ann")} == {passage.id for passage in parts(17, 1)[1]}
    assert len(store.matching("part0 part1 part2", 100, None, "ben")) == 29 * PARTS


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("\x00\ud800\udfff\uf8f0a0"))))
def test_every_text_is_kept_exactly(text: str) -> None:
    stored = kept(text)
    assert told(stored) == text
    assert "\x00" not in stored
    stored.encode()


def test_a_text_that_a_database_refuses_comes_back_as_it_was(two: tuple[PostgresStore, PostgresStore]) -> None:
    document, passages, keys, made = parts(1, 1)
    text = f"nul \x00, half \ud800, ours \uf8f0 {document.text}"
    two[0].put(replace(document, text=text, title="a\x00b"), ROOT, [replace(passages[0], text=text, heading="\udc00"), *passages[1:]], keys, made)
    assert two[1].text(document.id) == text
    assert two[1].info(document.id).title == "a\x00b"
    assert two[1].passages([passages[0].id])[passages[0].id].text == text


# Another embedding model


def test_new_vectors_replace_the_old_at_once_and_other_processes_say_what_to_do(
    two: tuple[PostgresStore, PostgresStore], shared_store: Opening, tmp_path: Path, by_chroma: None
) -> None:
    one, other = two
    for number in range(4):
        put(one, number)
    third = shared_store(tmp_path / "three", "other@2", True)
    embedder = FakeEmbedder("other@2", 128)
    seen: list[int] = []

    def embed(texts: Any) -> Any:
        seen.append(len(other.nearest(vector(1, 1, 1), 1)))
        return embedder.embed(texts)

    try:
        assert third.nearest(embedder.embed(["doc1"])[0], 3) == [], "its questions are of another model than the vectors"
        assert "reembed" in third.notices()[0]
        assert third.replace_vectors("other@2", lambda document, passages: [passage.text for passage in passages], embed)
        assert set(seen) == {1}, "the others answer meanwhile"
        assert other.nearest(vector(1, 1, 1), 1) == []
        assert len(other.matching("doc1", 9)) == PARTS
        assert "another embedding model" in other.notices()[0]
        with pytest.raises(StoreError, match="another embedding model"):
            put(other, 1, 2)
        eventually(lambda: third.nearest(embedder.embed(["doc1 doc1v1 part1."])[0], 1))
        found = third.nearest(embedder.embed(["doc1 doc1v1 part1."])[0], 1)
        assert found[0] == (parts(1, 1)[1][1].id, pytest.approx(1.0, abs=1e-5))
    finally:
        third.close()


# Uploads


ANN = User("id-of-ann", "ann")


@pytest.fixture
def assistants(shared_store: Opening, tmp_path: Path) -> Iterator[tuple[Assistant, Assistant]]:
    """Two servers over the shared store, each with a disk of its own."""
    made = tuple(
        make_assistant(shared_store(tmp_path / name, "fake@1"), FakeEmbedder(), FakeModel("The zebra eats grass.")) for name in ("one", "two")
    )
    yield made  # type: ignore[misc]
    for assistant in made:
        assistant.close()


def add(assistant: Assistant, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "upload").write_text(text)
    assistant.library.add(name, tmp_path / "upload")
    eventually(lambda: assistant.library.work() is None)


def test_uploads_are_every_servers(assistants: tuple[Assistant, Assistant], tmp_path: Path) -> None:
    one, other = assistants
    add(one, tmp_path, "zebra.txt", "The zebra eats grass.")
    assert [hit.passage.source for hit in other.search("What does the zebra eat?")] == ["zebra.txt"]
    assert other.library.file(UPLOADS, "zebra.txt").read_text() == "The zebra eats grass."
    add(other, tmp_path, "lion.txt", "The lion eats zebras.")
    add(one, tmp_path, "ant.txt", "The ant eats sugar.")
    assert {info.source for info in one.store.documents()} == {"zebra.txt", "lion.txt", "ant.txt"}, "no server takes the others' for removed"
    add(other, tmp_path, "zebra.txt", "The zebra eats hay.")
    assert "hay" in one.search("What does the zebra eat?")[0].passage.text
    assert one.library.file(UPLOADS, "zebra.txt").read_text() == "The zebra eats hay."
    (document,) = [info.id for info in one.store.documents() if info.source == "zebra.txt"]
    one.library.remove([document])
    assert {info.source for info in other.store.documents()} == {"lion.txt", "ant.txt"}
    add(other, tmp_path, "bee.txt", "The bee eats honey.")
    assert {info.source for info in one.store.documents()} == {"lion.txt", "ant.txt", "bee.txt"}, "what was removed stays removed"
    assert not other.library.file(UPLOADS, "zebra.txt").exists()


def test_a_users_uploads_are_theirs_on_every_server(assistants: tuple[Assistant, Assistant], tmp_path: Path) -> None:
    one, other = assistants
    add(one.for_user(ANN), tmp_path, "secret.txt", "The zebra of Ann eats plums.")
    eventually(lambda: one.library.work() is None)
    assert [hit.passage.source for hit in other.for_user(ANN).search("zebra")] == ["secret.txt"]
    assert other.for_user(User("id-of-ben", "ben")).search("zebra") == []
    assert other.library.size(OWN_UPLOADS + ANN.id, "secret.txt") == len("The zebra of Ann eats plums.")
    assert other.library.remove_user(ANN.id) == 1
    assert one.for_user(ANN).search("zebra") == []
    assert one.library.waiting(OWN_UPLOADS + ANN.id) == ()


def test_what_is_removed_while_another_server_reads_it_stays_out(two: tuple[PostgresStore, PostgresStore]) -> None:
    one, other = two
    document, passages, keys, rows = parts(1, 1)
    entry = Entry(document, UPLOADS, passages, keys, replaces="")
    vectors = dict(zip(keys, rows, strict=True))
    one.keep_upload(UPLOADS, document.source, b"bytes", document.fingerprint)
    one.drop_upload(UPLOADS, document.source)
    assert other.put_many([entry], vectors) == [entry]
    one.keep_upload(UPLOADS, document.source, b"bytes", document.fingerprint)
    assert other.put_many([entry], vectors) == []
    other.remove_many([document.id])
    assert visible(one, 1, 1), "a server whose copies are older does not remove what is kept"
    one.keep_upload(UPLOADS, document.source, b"newer bytes", "newer")
    one.reject(UPLOADS, document.source, "it is broken", document.fingerprint)
    assert one.rejected() == {}, "what is said of an older version is not of this one"
    one.drop_upload(UPLOADS, document.source)
    other.remove_many([document.id])
    assert not visible(one, 1, 1)
    with pytest.raises(KeyError):
        one.upload(UPLOADS, document.source)


# The doors


def test_the_doctor_says_which_store_and_which_chroma_and_no_secret(
    shared_store: Opening, postgres_server: Servers, chroma_server: Servers, tmp_path: Path, no_real_embedder: None
) -> None:
    from rag.doctor import examine

    def findings(**more: object) -> dict[str, Any]:
        settings = {"data_dir": tmp_path, "model": "none", "store_url": postgres_server[0], "chroma_url": chroma_server[0], **more}
        return {finding.about: finding for finding in examine(lambda: Settings(**settings))}

    good = findings()["store"]
    assert good.good
    assert "PostgreSQL 1" in good.text
    assert f"at {chroma_server[0]}" in good.text
    assert "0 documents" in good.text
    away = findings(chroma_url=f"http://127.0.0.1:{servers.free_port()}")["store"]
    assert not away.good
    assert "does not answer" in away.text
    refused = findings(store_url=postgres_server[0].replace("secret-of-tests", "pa55word"))
    assert not refused["store"].good
    for found in (good, away, *refused.values()):
        assert "secret-of-tests" not in found.text
        assert "pa55word" not in found.text


def test_a_missing_driver_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InvalidSettings, match=r"citewell\[postgres\]"):
        PostgresStore(tmp_path, "postgresql://somebody@nowhere/db", ChromaAddress("http://127.0.0.1:1"), IDENTITY)


def test_nothing_of_the_driver_is_logged_with_a_password(
    postgres_server: Servers, two: tuple[PostgresStore, PostgresStore], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        put(two[0], 1)
        two[0]._database.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name = 'citewell'"
        )
        assert visible(two[1], 1, 1)
    assert "secret-of-tests" not in caplog.text
    assert "secret-of-tests" not in repr(two[0].__dict__) + repr(two[0]._database)


def test_an_empty_document_and_a_bare_one_are_kept(two: tuple[PostgresStore, PostgresStore]) -> None:
    two[0].put_many([Entry(Document("bare", "bare.txt", "Bare", "", "f"), ROOT, [], [])], {})
    assert two[1].text("bare") == ""
    assert two[1].vectors_by_content([]) == {}


def test_both_stores_have_the_whole_contract() -> None:
    wanted = {name for name in vars(DocumentStore) if not name.startswith("_")}
    assert wanted > {"put_many", "nearest", "matching", "replace_vectors"}
    for kind in (Store, PostgresStore):
        assert wanted <= set(dir(kind))
    more = {name for name in vars(PostgresStore) if not name.startswith("_")} - {name for name in vars(Store) if not name.startswith("_")}
    assert more == {name for name in vars(UploadKeeper) if not name.startswith("_")} | {"server"}
    assert not more & set(vars(Visible)), "what a user may not call"
