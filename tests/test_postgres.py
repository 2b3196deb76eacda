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
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import servers
from conftest import FakeEmbedder, FakeModel, Opening, make_assistant
from hypothesis import given
from hypothesis import strategies as st
from store_writer import PARTS, ROOT, identifier, parts, put, vector, visible

from index import postgres_database, postgres_words, shared_vectors
from index.chroma_server import ChromaAddress, ChromaAway, ChromaRefused, ChromaServer, Collection
from index.contract import DocumentStore, UploadKeeper
from index.errors import EmbedderChanged, InvalidSettings, StoreError, StoreTooNew
from index.postgres import PostgresStore, _lock_files
from index.postgres_schema import kept, told
from index.read import fingerprint
from index.schema import OWN_UPLOADS, UPLOADS, Entry
from index.search import search
from index.store import Store
from index.types import Document
from index.visible import Visible
from rag import library
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


def eventually(true: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def pending(store: PostgresStore) -> int:
    return int(store._database.rows("SELECT count(*) FROM pending")[0][0])


def collection(store: PostgresStore) -> Collection:
    """What Chroma has of the store."""
    return store._vectors._collection(store._vectors._now().collection)


def by_meaning(store: DocumentStore, number: int, version: int = 1) -> bool:
    """Whether all of a document's passages are found by their vectors."""
    return all(store.nearest(vector(number, version, part), 1)[0][1] > 0.999 for part in range(PARTS))


# Several processes


@pytest.mark.parametrize("told_late", [False, True], ids=["told", "pending"])
def test_a_change_in_one_process_is_known_to_the_other_at_once(
    two: tuple[PostgresStore, PostgresStore], by_chroma: None, monkeypatch: pytest.MonkeyPatch, told_late: bool
) -> None:
    one, other = two
    if told_late:
        monkeypatch.setattr(shared_vectors.SharedVectors, "_tell_some", lambda self, name: False)

    def settled() -> None:
        """Nothing is left to be compared, so that Chroma alone finds it; or nothing was told, so that Chroma finds nothing."""
        if not told_late:
            eventually(lambda: pending(one) == 0)

    for number in range(12):
        put(one, number)
        settled()
        assert visible(other, number, 1)
    put(one, 3, 2)
    settled()
    assert visible(other, 3, 2)
    assert not visible(other, 3, 1)
    other.remove(identifier(4))
    settled()
    assert not visible(one, 4, 1)
    one.set_owner(identifier(5), "ann")
    settled()
    passages = {passage.id for passage in parts(5, 1)[1]}
    assert passages & {found for found, _ in other.nearest(vector(5, 1, 0), 50, None, "ann")}
    assert not passages & {found for found, _ in other.nearest(vector(5, 1, 0), 50, None, "ben")}
    assert not passages & {found for found, _ in other.matching("doc5v1", 50, None, "ben")}
    assert (pending(one) > 0) is told_late
    held = {one for (one,) in two[0]._database.rows("SELECT number FROM passages")} if not told_late else set()
    assert collection(other).held(range(1, 60)) == held


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
        capture_output=True, text=True, timeout=540,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-4_000:]
    report = json.loads(done.stdout)
    assert report["questions"] > 20, "each of which was checked for being stale"
    assert report["changes"] > 20
    assert report["replaced by turns"] > 5
    assert report["without Chroma"] <= report["questions"] // 4, "of those the page would have said so"
    assert report["pending"] == 0, "what the killed ones left to be told, others told"
    assert report["passages"] == PARTS * report["documents"] > 0
    assert report["lacking"] == 0, "Chroma finds all that PostgreSQL does not call pending"
    assert report["ghosts"] <= 10 * PARTS, "a kill between two requests may leave a vector; it is never shown, and goes when it is found"


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
        eventually(lambda: pending(store) == 0)
        server.stop()
        put(store, 5)
        eventually(lambda: store.index_state == "failed")
        assert visible(store, 5, 1), "a small store needs no Chroma"
        assert "compared one by one" in store.notices()[0]
        monkeypatch.setattr(shared_vectors, "COMPARED", 0)
        monkeypatch.setattr(shared_vectors, "COMPARED_OF_CHOSEN", 0)
        started = time.monotonic()
        told, untold = ({passage.id for passage in parts(number, 1)[1]} for number in (1, 5))
        assert {one for one, _ in store.nearest(vector(1, 1, 1), 5)} == untold, "what Chroma was not told is compared as ever"
        assert time.monotonic() - started < 60, "and not as long as Chroma may take"
        assert {one for one, _ in store.matching("doc1", 50)} == told
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
        # It loses some of them while nobody looks, and holds as many that are gone.
        store.close()
        lessened = ChromaServer(with_chroma).collection(store_collection(postgres_server[0]))
        lessened.delete(list(range(1, 7)))
        lessened.add(list(range(900_001, 900_007)), [vector(99, 1, part) for part in range(6)], [{"document": 1, "owner": ""}] * 6)
        store = PostgresStore(tmp_path / "data", postgres_server[0], with_chroma, IDENTITY)
        eventually(lambda: store.index_state == "ready")
        eventually(lambda: pending(store) == 0)
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


def all_told(store: PostgresStore, numbers: Iterable[int]) -> None:
    for number in numbers:
        put(store, number)
    eventually(lambda: pending(store) == 0)


@pytest.mark.parametrize("said", [ChromaRefused, ChromaAway])
def test_one_error_of_chroma_costs_no_answer(
    two: tuple[PostgresStore, PostgresStore], by_chroma: None, monkeypatch: pytest.MonkeyPatch, said: type[ChromaAway]
) -> None:
    store, nearest, fails = two[0], Collection.nearest, iter([True])

    def failing(self: Collection, *given: Any) -> list[int]:
        if next(fails, False):
            raise said("searching failed")
        return nearest(self, *given)

    all_told(store, range(4))
    monkeypatch.setattr(Collection, "nearest", failing)
    assert by_meaning(store, 1)
    assert next(fails, None) is None
    assert store.notices() == ()


def test_errors_of_chroma_leave_what_is_pending_and_end_by_themselves(
    two: tuple[PostgresStore, PostgresStore], by_chroma: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, nearest = two[0], Collection.nearest
    all_told(store, range(4))
    monkeypatch.setattr(shared_vectors, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(shared_vectors, "REFUSED_REBUILDS", 10**9)
    monkeypatch.setattr(shared_vectors.SharedVectors, "_tell_some", lambda self, name: False)
    put(store, 5)

    def failing(self: Collection, *given: Any) -> list[int]:
        raise ChromaRefused("searching failed")

    monkeypatch.setattr(Collection, "nearest", failing)
    assert by_meaning(store, 5), "nobody needs Chroma for that"
    assert not by_meaning(store, 1)
    eventually(lambda: "does not answer" in " ".join(store.notices()))  # what was begun before it failed may say once more that all is well
    before = store._vectors._now().collection
    monkeypatch.setattr(Collection, "nearest", nearest)
    eventually(lambda: store.index_state == "ready")
    assert store._vectors._now().collection == before
    assert by_meaning(store, 1)


def test_a_collection_that_never_answers_is_filled_anew(
    two: tuple[PostgresStore, PostgresStore], by_chroma: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, nearest = two[0], Collection.nearest
    all_told(store, range(4))
    broken = store._vectors._now().collection

    def failing(self: Collection, *given: Any) -> list[int]:
        if self._collection.name == broken:
            raise ChromaRefused("searching failed")
        return nearest(self, *given)

    monkeypatch.setattr(shared_vectors, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(Collection, "nearest", failing)
    store.nearest(vector(1, 1, 0), 1)
    eventually(lambda: store._vectors._now().collection != broken and store.index_state == "ready")
    assert by_meaning(store, 1)


def test_what_a_search_in_chroma_does_not_find_stays_pending_and_is_found(
    two: tuple[PostgresStore, PostgresStore], by_chroma: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    nearest, unreached = Collection.nearest, Collection.unreached
    all_told(one, range(3))
    added = one._database.rows("SELECT last_value FROM passages_number_seq")[0][0] + 1  # the next one's number
    lost = [added]

    monkeypatch.setattr(Collection, "nearest", lambda self, *given: [number for number in nearest(self, *given) if number not in lost])
    monkeypatch.setattr(
        Collection, "unreached", lambda self, numbers, vectors: [*unreached(self, numbers, vectors), *(one for one in numbers if one in lost)]
    )
    put(one, 3)
    eventually(lambda: one._database.rows("SELECT passage FROM pending WHERE unreached IS NOT NULL") == [(added,)])
    assert by_meaning(other, 3)
    # An update of others can lose one that was found before: it is looked for now and then.
    monkeypatch.setattr(shared_vectors, "LOOKED_AFTER_SECONDS", 0.0)
    lost.append(2)
    put(one, 4)
    eventually(lambda: {row[0] for row in one._database.rows("SELECT passage FROM pending")} == {added, 2})
    assert by_meaning(other, 0)
    # Later it is told again, and found.
    lost.clear()
    monkeypatch.setattr(shared_vectors, "UNREACHED_AGAIN_SECONDS", 0.0)
    eventually(lambda: pending(one) == 0)
    assert all(by_meaning(other, number) for number in range(5))


def test_chroma_itself_finds_each_vector_and_knows_of_one_that_it_does_not(two: tuple[PostgresStore, PostgresStore]) -> None:
    store = two[0]
    all_told(store, range(3))
    there = collection(store)
    assert there.unreached([1, 2], [vector(0, 1, 0), vector(0, 1, 1)]) == []
    assert there.unreached([1, 777], [vector(0, 1, 0), vector(7, 7, 7)]) == [777]
    there.add(list(range(800, 830)), [vector(5, 5, 5)] * 30, [{"document": 1, "owner": ""}] * 30)
    assert there.unreached(list(range(800, 830)), [vector(5, 5, 5)] * 30) == [], "any of the same will do"


def test_a_collection_that_lacks_much_is_not_trusted_on_the_second_look(
    two: tuple[PostgresStore, PostgresStore], shared_store: Opening, tmp_path: Path, by_chroma: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_vectors, "LACKING_TOLD", 0)
    monkeypatch.setattr(shared_vectors, "LACKING_SHARE", 0.0)
    one, other = two
    all_told(one, range(4))
    with other._database.session() as connection:
        # Another process is just telling Chroma something.
        connection.execute("SELECT pg_advisory_lock(%s)", (shared_vectors.TELLING,))
        collection(one).delete([1, 2, 3])
        three = shared_store(tmp_path / "three", IDENTITY)
        eventually(lambda: three.index_state == "rebuilding")
        assert three.wait_for_index(1.5) == "rebuilding"
    eventually(lambda: three.index_state == "ready")
    assert all(by_meaning(three, number) for number in range(4))
    three.close()


def test_several_questions_are_asked_of_chroma_and_of_postgres_at_once(
    two: tuple[PostgresStore, PostgresStore], by_chroma: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    all_told(one, range(6))
    asked = np.stack([vector(number, 1, 0) for number in range(6)])
    alone = [other.nearest(row, 4) for row in asked]
    times: list[int] = []
    nearest, rows = Collection.nearest, other._database.rows
    monkeypatch.setattr(Collection, "nearest", lambda self, vectors, *more: times.append(len(vectors)) or nearest(self, vectors, *more))
    statements: list[str] = []

    def counted(statement: str, *more: Any, **options: Any) -> list[Any]:
        if threading.current_thread() is threading.main_thread():
            statements.append(statement)
        return rows(statement, *more, **options)

    monkeypatch.setattr(other._database, "rows", counted)
    together = other.nearest_each(asked, 4)
    assert times == [6]
    assert len(statements) == 3, "how the store stands, what is pending, and what was found"
    assert [[found for found, _ in hits] for hits in together] == [[found for found, _ in hits] for hits in alone]
    assert [hits[0][1] for hits in together] == pytest.approx([1.0] * 6, abs=1e-5)


def test_what_is_not_similar_enough_is_not_read(two: tuple[PostgresStore, PostgresStore], by_chroma: None, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = two
    all_told(one, range(12))
    one.set_owner(identifier(5), "ann")
    one.set_owner(identifier(6), "ben")
    asked = np.stack([vector(7, 1, 1), vector(10, 1, 0)])
    read: list[int] = []
    rows = other._database.rows

    def counted(statement: str, *more: Any, **options: Any) -> list[Any]:
        found = rows(statement, *more, **options)
        if threading.current_thread() is threading.main_thread() and "v.vector" in statement:
            read.append(len(found))
        return found

    monkeypatch.setattr(other._database, "rows", counted)
    for more in ((None, None), (None, "ann"), ([identifier(number) for number in range(7, 12)], None)):
        everything = other.nearest_each(asked, 20, *more)
        least = float(np.median([cosine for _, cosine in everything[0]]))
        before = sum(read)
        read.clear()
        found = other.nearest_each(asked, 20, *more, at_least=least)
        wanted = [[pair for pair in hits if pair[1] >= least] for hits in everything]
        assert [[pair for pair in hits if pair[1] >= least] for hits in found] == wanted
        assert 0 < sum(read) < before
        read.clear()


@pytest.mark.parametrize("kind", ["cosine", "l2", "ip", "said by nobody", "hosted"])
def test_how_similar_something_is_chroma_says_in_any_distance(chroma_server: tuple[str, Any], monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    server = ChromaServer(ChromaAddress(chroma_server[0]))
    create = server._client.create_collection

    def creating(name: str, **options: Any) -> Any:
        if "configuration" in options and kind == "said by nobody":
            raise ValueError("hnsw is not for here")
        if "configuration" in options and kind in ("l2", "ip"):
            options["configuration"]["hnsw"]["space"] = kind
        return create(name, **options)

    monkeypatch.setattr(server._client, "create_collection", creating)
    made = server.create("distances")
    if kind == "hosted":
        made = Collection(SimpleNamespace(configuration={"spann": {"space": "cosine"}}, query=made._collection.query), made.batch)
    else:
        assert server.collection("distances")._of_distance == made._of_distance
    rows = [vector(number, 1, 0) for number in range(20)]
    server.collection("distances").add(range(20), rows, [{"document": 1, "owner": ""}] * 20)
    cosines = {number: float(row @ rows[0]) for number, row in enumerate(rows)}
    least = sorted(cosines.values())[10] - 1e-4
    ((found),) = made.nearest(np.stack(rows[:1]), 20, least)
    assert set(found) == ({number for number in cosines if cosines[number] >= least} if kind != "hosted" else set(cosines))
    assert set(made.nearest(np.stack(rows[:1]), 20, -1.001)[0]) == set(cosines)
    server.drop("distances")
    server.close()


def test_what_is_gone_is_read_again_only_where_something_changed(two: tuple[PostgresStore, PostgresStore], monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = two
    for number in range(4):
        put(one, number)
    one.remove(identifier(2))
    ranked, given = postgres_words.postings.ranked, []

    def noticed(words: Any, found: Any, gone: Any, *more: Any) -> Any:
        given.append(gone)
        return ranked(words, found, gone, *more)

    monkeypatch.setattr(postgres_words.postings, "ranked", noticed)
    for _ in range(3):
        assert other.matching("doc2v1", 5) == []
        assert other.matching("doc1v1", 5)
    assert len(given[0]) == PARTS
    assert all(later is given[0] for later in given)
    one.remove(identifier(1))
    assert other.matching("doc1v1", 5) == []
    assert len(given[-1]) == 2 * PARTS


def test_a_collection_that_was_put_back_as_it_was_is_noticed_without_being_read_through(
    two: tuple[PostgresStore, PostgresStore], shared_store: Opening, tmp_path: Path, by_chroma: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_vectors, "LOOKED_FOR", 2)
    monkeypatch.setattr(shared_vectors, "LOOKED_FOR_PLACES", 0)
    monkeypatch.setattr(shared_vectors, "PAGE", 5)
    one, _ = two
    all_told(one, range(8))
    looked_for: list[int] = []
    held = Collection.held
    monkeypatch.setattr(Collection, "held", lambda self, numbers: looked_for.extend(numbers) or held(self, numbers))
    three = shared_store(tmp_path / "three", IDENTITY)
    assert three.wait_for_index(60) == "ready"
    assert len(looked_for) == 2, "it holds as many as it should, and the newest"
    three.close()
    newest = max(row[0] for row in one._database.rows("SELECT number FROM passages"))
    # As many as before, but not the same: as a copy of another day may be.
    collection(one).delete([newest])
    collection(one).add([newest + 1_000], [vector(99, 99, 0)], [{"document": 1, "owner": ""}])
    four = shared_store(tmp_path / "four", IDENTITY)
    assert four.wait_for_index(60) == "ready"
    eventually(lambda: pending(one) == 0)
    assert held(collection(one), [newest]) == {newest}
    assert all(by_meaning(four, number) for number in range(8))
    four.close()


def test_a_collection_that_nobody_names_any_more_goes(two: tuple[PostgresStore, PostgresStore], shared_store: Opening, tmp_path: Path) -> None:
    one, _ = two
    all_told(one, range(2))
    now, server = one._vectors._now(), one._vectors._server
    assert server is not None
    left, others = f"citewell-{now.identity}-999", f"citewell-{now.identity[:-1]}x-1"
    for name in (left, others):
        server.create(name)
    three = shared_store(tmp_path / "three", IDENTITY)
    assert three.wait_for_index(60) == "ready"
    assert set(server.names("citewell-")) >= {now.collection, others}
    assert left not in server.names("citewell-")
    server.drop(others)
    three.close()


def test_a_collection_that_chroma_does_not_drop_keeps_nothing_up(
    two: tuple[PostgresStore, PostgresStore], shared_store: Opening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one, _ = two
    all_told(one, range(2))
    now, server = one._vectors._now(), one._vectors._server
    assert server is not None
    server.create(f"citewell-{now.identity}-999")

    def refused(self: ChromaServer, name: str) -> None:
        raise ChromaRefused("deleting a collection failed (AuthorizationError)")

    with monkeypatch.context() as patched:
        patched.setattr(ChromaServer, "drop", refused)
        three = shared_store(tmp_path / "three", IDENTITY)
        assert three.wait_for_index(60) == "ready"
        assert three.notices() == ()
        assert "could not be dropped" in caplog.text
        assert one._vectors._now().collection == now.collection
        three.close()
    server.drop(f"citewell-{now.identity}-999")


def test_a_restored_dump_takes_a_collection_of_its_own(
    two: tuple[PostgresStore, PostgresStore], shared_store: Opening, postgres_server: Servers, chroma_server: Servers, tmp_path: Path, by_chroma: None
) -> None:
    programs = servers.postgres_programs()
    assert programs is not None
    for number in range(4):
        put(two[0], number)
    eventually(lambda: pending(two[0]) == 0)
    subprocess.run([programs / "pg_dump", "-n", "citewell", "-f", tmp_path / "dump", postgres_server[0]], check=True)
    # What was done since is undone, and its numbers are given again.
    two[0].remove(identifier(1))
    for number in (10, 11):
        put(two[1], number)
    eventually(lambda: pending(two[0]) == 0)
    before = two[0]._vectors._now()
    for store in two:
        store.close()
    restoring = [programs / "psql", "-q", "-v", "ON_ERROR_STOP=1", "-c", "DROP SCHEMA citewell CASCADE", "-f", tmp_path / "dump", postgres_server[0]]
    subprocess.run(restoring, check=True, capture_output=True)
    restored = shared_store(tmp_path / "three", IDENTITY)
    try:
        put(restored, 20)
        put(restored, 21)
        assert isinstance(restored, PostgresStore)
        eventually(lambda: restored.index_state == "ready" and pending(restored) == 0)
        assert all(visible(restored, number, 1) for number in (0, 1, 2, 3, 20, 21))
        assert not visible(restored, 10, 1)
        now = restored._vectors._now()
        assert now.collection.startswith(f"citewell-{now.identity}-")
        assert now.identity != before.identity
        assert ChromaServer(ChromaAddress(chroma_server[0])).collection(before.collection).count() > 0, (
            "which may be that of the database that was dumped"
        )
    finally:
        restored.close()


@pytest.mark.parametrize("most", [1_000, 6], ids=["compared", "the newest are"])
def test_of_much_that_is_pending_the_newest_is_compared(
    two: tuple[PostgresStore, PostgresStore], by_chroma: None, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    one, other = two
    all_told(one, range(10))
    monkeypatch.setattr(shared_vectors, "PENDING_COMPARED", 4)
    monkeypatch.setattr(shared_vectors, "PENDING_MOST", most)
    monkeypatch.setattr(shared_vectors, "PAGE", 2)
    monkeypatch.setattr(shared_vectors.SharedVectors, "_tell_some", lambda self, name: False)
    monkeypatch.setattr(shared_vectors.SharedVectors, "catch_up", lambda self: None)
    one.remove_many([identifier(number) for number in range(8)])
    for number in range(20, 24):
        put(one, number)
    one.set_owner(identifier(22), "ann")
    for number in (22, 23) if most == 6 else (8, 9, 20, 21, 22, 23):
        assert by_meaning(other, number)
    assert {one for one, _ in other.nearest(vector(22, 1, 0), 100, None, "ben")}.isdisjoint(passage.id for passage in parts(22, 1)[1])


def test_a_document_that_is_replaced_while_it_is_asked_for_is_found(
    two: tuple[PostgresStore, PostgresStore], by_chroma: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    all_told(one, range(3))
    nearest, seen, passages = Collection.nearest, postgres_words.WordIndex._seen, PostgresStore.passages
    versions = iter(range(2, 9))
    embedder = FakeEmbedder(dimension=16)
    monkeypatch.setattr(embedder, "embed", lambda texts: np.stack([vector(1, 1, 0) for _ in texts]))

    def replaced_in_between(kind: type, name: str, original: Callable[..., Any]) -> None:
        once = iter([True])

        def both(self: Any, *given: Any) -> Any:
            found = original(self, *given) if kind is Collection else None
            if next(once, False):
                put(other, 1, next(versions))
            return original(self, *given) if found is None else found

        monkeypatch.setattr(kind, name, both)

    for which in (None, [identifier(1)], [identifier(1), identifier(2)]):
        replaced_in_between(Collection, "nearest", nearest)
        assert {found.split("-")[0] for found in sources(one, one.nearest(vector(1, 1, 0), 100, which))} >= {"1.txt"}
        replaced_in_between(postgres_words.WordIndex, "_seen", seen)
        assert len(one.matching("doc1", 50, which)) == PARTS
    for name, original in (("passages", passages),):
        replaced_in_between(PostgresStore, name, original)
        assert "1.txt" in {hit.passage.source for hit in search(one, embedder, "doc1", 3 * PARTS)}


def sources(store: DocumentStore, found: Iterable[tuple[str, float]]) -> set[str]:
    return {passage.source for passage in store.passages([one for one, _ in found]).values()}


def test_clients_of_chroma_are_closed(two: tuple[PostgresStore, PostgresStore], monkeypatch: pytest.MonkeyPatch) -> None:
    from chromadb.api.shared_system_client import SharedSystemClient

    monkeypatch.setattr(shared_vectors, "RETRY_SECONDS", 0.05)
    vectors = two[0]._vectors

    def open_ones() -> int:
        return sum(system._running for system in {id(one): one for one in SharedSystemClient._identifier_to_system.values()}.values())

    before = open_ones()
    for _ in range(3):
        server = vectors._server
        vectors._trouble(ChromaAway("it was away"))
        vectors._wanted.set()
        eventually(lambda server=server: vectors.state == "ready" and vectors._server not in (None, server))
        assert server is not None
        assert server._client._server._session.is_closed
    assert open_ones() <= before


def test_a_chroma_that_hangs_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr("index.chroma_server.LOOK_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(ChromaAway):
            ChromaServer(ChromaAddress(f"http://127.0.0.1:{silent.getsockname()[1]}"))
        assert time.monotonic() - started < 60


def test_an_address_of_the_sixth_version_keeps_its_brackets() -> None:
    address = ChromaAddress("http://[::1]:9000", "ck-hidden")
    assert (address.shown, address.host, address.port) == ("http://[::1]:9000", "[::1]", 9000)
    assert "ck-hidden" not in repr(address)


def test_a_connected_chroma_has_a_deadline(chroma_server: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.chroma_server.ANSWER_SECONDS", 77.0)
    server = ChromaServer(ChromaAddress(chroma_server[0]))
    assert server._client._server._session.timeout.read == pytest.approx(77.0), "Chroma's own client waits for ever"


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
    tmp_path: Path, postgres_server: Servers, chroma_server: Servers, caplog: pytest.LogCaptureFixture
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


def test_locks_of_a_process_that_says_nothing_are_taken_and_waiting_for_one_that_works_ends(
    postgres_server: Servers, chroma_server: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from psycopg import Error

    servers.emptied(postgres_server[0])
    chroma = ChromaAddress(chroma_server[0])
    store = PostgresStore(tmp_path / "one", postgres_server[0], chroma, IDENTITY)
    names = ("tcp_keepalives_idle", "lock_timeout", "idle_in_transaction_session_timeout", "synchronous_commit")
    shown = "SELECT " + ", ".join(f"current_setting('{name}')" for name in names)
    assert store._database.rows(shown) == [("30", "2min", "10min", "local")], "the server's own is off"
    monkeypatch.setattr(postgres_database, "SESSION", postgres_database.SESSION + "; SET default_transaction_isolation = 'repeatable read'")
    silent = PostgresStore(tmp_path / "two", postgres_server[0], chroma, IDENTITY)
    try:
        # In the end the server has ended it.
        with suppress(Error), silent._database._pool.connection() as connection:
            with connection.transaction():
                assert connection.execute("SHOW transaction_isolation").fetchone() == ("repeatable read",), "as an operator may have it"
            with silent._database.transaction() as its_own:
                assert its_own.execute("SHOW transaction_isolation").fetchone() == ("read committed",)
            connection.execute("SET idle_in_transaction_session_timeout = '3s'")
            connection.execute("BEGIN")
            _lock_files(connection, [(ROOT, "1.txt")])
            put(store, 1)  # waits for the lock, until the server has taken it
        assert visible(store, 1, 1)
        with store._database.transaction() as connection:
            _lock_files(connection, [(ROOT, "1.txt")])
            with monkeypatch.context() as impatient:
                impatient.setattr(postgres_database, "LOCK_SECONDS", 1)
                with pytest.raises(StoreError, match=r"Another Citewell has been changing the same files.*Nothing was changed"):
                    put(silent, 1, 2)
        put(silent, 1, 2)
        assert visible(store, 1, 2)
    finally:
        silent.close()
        store.close()


def test_a_commit_whose_answer_is_lost_is_not_called_undone(two: tuple[PostgresStore, PostgresStore]) -> None:
    one, other = two
    with pytest.raises(StoreError, match="not known whether"), one._database.transaction() as connection:
        other._database.rows("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))


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
    # A single one that is gone is enough: a store's own thread may come between the removals and leave few.
    monkeypatch.setattr(postgres_words, "GONE_LEAST", 0)
    monkeypatch.setattr(postgres_words, "GONE_SHARE", 0.0)
    for number in range(20):
        put(one, number)
    before = one.matching("doc7 part0 part1 part2", 60)

    def merged() -> bool:
        one._words.tidy()  # or a store's thread is at it
        return bool(one._database.rows("SELECT count(*) FROM segments")[0][0] < 10)

    eventually(merged)
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


def test_new_vectors_wait_for_a_sync_and_do_not_stand_in_its_way(two: tuple[PostgresStore, PostgresStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a lock in PostgreSQL stands before all who ask for it after: the next part of the sync that has it, too."""
    one, other = two
    put(one, 1)
    embedder, refused = FakeEmbedder("other@2", 128), threading.Event()
    asked, alone = threading.Event(), other._alone

    def told() -> Any:
        asked.set()
        return alone()

    monkeypatch.setattr(other, "_alone", told)

    def replace() -> None:
        with pytest.raises(StoreError, match="were added while new vectors were made"):
            other.replace_vectors("other@2", lambda document, passages: [passage.text for passage in passages], embedder.embed)
        refused.set()

    with one.many_changes():
        threading.Thread(target=replace, daemon=True).start()
        assert asked.wait(60)
        time.sleep(0.5)  # it asks, and is told no
        adding = threading.Thread(target=put, args=(one, 2), daemon=True)
        adding.start()
        adding.join(60)
        assert not adding.is_alive()
        assert not refused.is_set()
    assert refused.wait(60)
    assert visible(other, 1, 1)
    assert visible(other, 2, 1)


def test_an_empty_store_takes_another_model_only_where_nobody_adds_to_it(
    two: tuple[PostgresStore, PostgresStore], shared_store: Opening, tmp_path: Path
) -> None:
    with two[0].many_changes(), pytest.raises(EmbedderChanged, match=r"another.*same everywhere|Another.*same everywhere"):
        shared_store(tmp_path / "three", "other@2")
    shared_store(tmp_path / "three", "other@2").close()
    with pytest.raises(StoreError, match="another embedding model"):
        put(two[0], 1)


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


def test_files_that_were_uploaded_before_the_store_was_shared_stay(assistants: tuple[Assistant, Assistant], tmp_path: Path) -> None:
    one, _ = assistants
    for name in ("a.txt", ".people/id-of-ann/b.txt"):
        path = one.store.folder / UPLOADS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("kept by a store on this machine")
    add(one, tmp_path, "zebra.txt", "The zebra eats grass.")
    add(one.for_user(ANN), tmp_path, "secret.txt", "The zebra of Ann eats plums.")
    eventually(lambda: one.library.work() is None)
    assert (one.store.folder / UPLOADS / "a.txt").exists()
    assert (one.store.folder / UPLOADS / ".people/id-of-ann/b.txt").exists()
    assert {info.source for info in one.store.documents()} == {"zebra.txt", "secret.txt"}


def test_a_server_reads_what_another_was_sent_and_did_not_read(
    assistants: tuple[Assistant, Assistant], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = assistants
    add(one, tmp_path, "zebra.txt", "The zebra eats grass.")
    keeper = other.store
    assert isinstance(keeper, UploadKeeper)
    monkeypatch.setattr(library, "UNREAD_SECONDS", 0.05)
    one.library.resume()
    for name, text in (("zebra.txt", "The zebra eats hay."), ("lion.txt", "The lion eats zebras.")):
        keeper.keep_upload(UPLOADS, name, text.encode(), fingerprint(text.encode()))  # and then it is killed
    eventually(lambda: {info.source for info in other.store.documents()} == {"zebra.txt", "lion.txt"})
    eventually(lambda: "hay" in other.search("What does the zebra eat?")[0].passage.text)
    eventually(lambda: one.library._unread() == set())


def test_what_one_server_cannot_read_stays_as_another_read_it(two: tuple[PostgresStore, PostgresStore]) -> None:
    one, other = two
    document, passages, keys, rows = parts(1, 1)
    vectors = dict(zip(keys, rows, strict=True))
    one.keep_upload(UPLOADS, document.source, b"bytes", document.fingerprint)
    entry = Entry(document, UPLOADS, passages, keys, reader=3, replaces="")
    assert one.put_many([entry], vectors) == []
    numbers = one._database.rows("SELECT number FROM passages")
    assert other.put_many([entry], vectors) == [], "it is there, and nobody removed it"
    assert one._database.rows("SELECT number FROM passages") == numbers, "nor was it stored again"
    other.reject(UPLOADS, document.source, "it is larger than 1 MB")
    assert other.rejected() == {}
    assert visible(one, 1, 1)
    one.keep_upload(UPLOADS, document.source, b"newer", "1.2")
    other.remove_many([document.id])
    assert visible(one, 1, 1), "a sync that was begun before the file was there removes nothing"
    newer = parts(1, 2)
    entry = Entry(newer[0], UPLOADS, newer[1], newer[2], reader=3, replaces="1.1")
    assert other.put_many([entry], dict(zip(newer[2], newer[3], strict=True))) == []
    assert visible(one, 1, 2)
    one.keep_upload(UPLOADS, document.source, b"newest", "1.3")
    other.reject(UPLOADS, document.source, "it is larger than 1 MB")
    newest = parts(1, 3)
    entry = Entry(newest[0], UPLOADS, newest[1], newest[2], reader=3, replaces="1.2")
    assert one.put_many([entry], dict(zip(newest[2], newest[3], strict=True))) == [], "the other was quicker, and could not read it"
    assert visible(one, 1, 3)
    assert one.rejected() == {}
    one.drop_upload(UPLOADS, document.source)
    one.remove_many([document.id])
    other.reject(UPLOADS, document.source, "it is larger than 1 MB")
    assert other.rejected() == {}, "there is no such file"


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


def test_a_pool_that_cannot_connect_does_not_repeat_the_address(two: tuple[PostgresStore, PostgresStore], caplog: pytest.LogCaptureFixture) -> None:
    from psycopg_pool import ConnectionPool

    with (
        caplog.at_level(logging.WARNING),
        ConnectionPool(f"postgresql://ann:pa55word@127.0.0.1:{servers.free_port()}/db", min_size=1, reconnect_timeout=0.1, open=True) as pool,
    ):
        eventually(lambda: pool.get_stats().get("connections_errors"))
    assert "error connecting" not in caplog.text


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
