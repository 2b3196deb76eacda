"""Tests of index.vectors with the real Chroma: broken, missing or behind, it is noticed and rebuilt, and nothing wrong is found meanwhile."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pytest
from store_writer import DIMENSION, PARTS, identifier, indexed, opened, parts, put, vector, visible

from index import compare, index_worker, threads, vectors
from index.collection import LEAST_THRESHOLD, Collection, IndexBroken
from index.errors import StoreError
from index.index_worker import BEHIND, examine
from index.store import Store
from index.threads import in_front

IDENTITY = "writer@1"
real_probe, real_child = vectors.probe, vectors.in_child
HERE = Path(__file__).resolve().parent


pytestmark = pytest.mark.usefixtures("fast_probes")


@pytest.fixture
def store(place: Path) -> Iterator[Store]:
    store = opened(place)
    yield store
    store.close()


def filled(place: Path, count: int = 3) -> Path:
    """A closed store of some documents; returns its SQLite file."""
    store = opened(place)
    for number in range(count):
        put(store, number)
    store.close()
    return place / "citewell.sqlite3"


def unsealed(place: Path) -> None:
    """As a kill leaves it: nothing says that the files are as they were when they were closed."""
    for seal in place.rglob("seal.json"):
        seal.unlink()


def vector_folder(place: Path) -> Path:
    """The current one; the one before it is deleted a moment after it was replaced."""
    with closing(sqlite3.connect(place / "citewell.sqlite3")) as connection:
        ((name,),) = connection.execute("SELECT value FROM meta WHERE key = 'chroma'")
    return place / str(name)


# Failing in use


@pytest.mark.parametrize("method", ["upsert", "delete"])
@pytest.mark.parametrize("error", [RuntimeError, BaseException], ids=["error", "panic"])
def test_an_index_that_fails_is_rebuilt_and_answers_go_on(
    store: Store, monkeypatch: pytest.MonkeyPatch, method: str, error: type[BaseException]
) -> None:
    put(store, 1)
    put(store, 2)
    broken, real = vector_folder(store.folder).name, getattr(chromadb.Collection, method)

    def fails_in_the_old_folder(self: Any, *arguments: Any, **named: Any) -> Any:
        if (store.folder / broken).is_dir():
            raise error("broken")
        return real(self, *arguments, **named)

    monkeypatch.setattr(chromadb.Collection, method, fails_in_the_old_folder)
    put(store, 1, version=2)
    store.remove(identifier(2))
    assert visible(store, 1, 2)
    assert not visible(store, 1, 1)
    assert not visible(store, 2, 1)
    # Building a new one deletes the old one last, and until then it fails too: one failure more, then none.
    monkeypatch.setattr(chromadb.Collection, method, real)
    monkeypatch.setattr(vectors, "RETRY_SECONDS", 0.0)
    deadline = time.monotonic() + 60
    while store.wait_for_index(30) != "ready" and time.monotonic() < deadline:
        put(store, 3)
    assert vector_folder(store.folder).name != broken
    assert indexed(store)
    assert visible(store, 1, 2)
    assert not visible(store, 2, 1)


def test_an_index_that_keeps_failing_says_so_words_answer_and_it_comes_back(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no space left")

    put(store, 1)
    with monkeypatch.context() as patched:
        patched.setattr(chromadb.Collection, "upsert", broken)
        put(store, 2)
        assert store.wait_for_index(30) == "failed"
        assert visible(store, 2, 1)
        (notice,) = store.notices()
        assert "the log says why" in notice
        assert "no space left" in caplog.text
        assert "documents are safe" in notice
        put(store, 3)
        assert store.index_state == "failed"  # not tried again at once
    patched.setattr(vectors, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(vectors, "RETRY_SECONDS", 0.0)
    put(store, 4)
    assert store.wait_for_index(30) == "ready"
    assert store.notices() == ()
    assert indexed(store)
    assert all(visible(store, number, 1) for number in (1, 2, 3, 4))


# Damage


def empty(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()


def garble(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(random.Random(1).randbytes(50_000))


def truncate(folder: Path) -> None:
    for path in folder.rglob("*.sqlite3"):
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)


def zero_the_middle(folder: Path) -> None:
    for path in folder.rglob("*.sqlite3"):
        with path.open("r+b") as file:
            file.seek(8_192)
            file.write(bytes(path.stat().st_size - 8_192))


def cut_to_nothing(folder: Path) -> None:
    for path in folder.rglob("*.sqlite3"):
        path.write_bytes(b"")


def delete(folder: Path) -> None:
    shutil.rmtree(folder)


def replace_by_file(folder: Path) -> None:
    delete(folder)
    folder.write_text("not a folder")


def another_store(folder: Path) -> None:
    """An index in good order that holds something else."""
    delete(folder)
    filled(folder.parent.parent / "other", 4)
    vector_folder(folder.parent.parent / "other").rename(folder)


@pytest.mark.parametrize("sealed", [True, False], ids=["closed", "killed"])
@pytest.mark.parametrize(
    "damage", [delete, empty, garble, truncate, zero_the_middle, cut_to_nothing, replace_by_file, another_store], ids=lambda one: one.__name__
)
def test_a_damaged_index_is_rebuilt(place: Path, damage: Callable[[Path], None], sealed: bool) -> None:
    filled(place)
    damage(vector_folder(place))
    if not sealed:
        unsealed(place)
    store = opened(place)
    assert indexed(store)
    assert all(visible(store, number, 1) for number in range(3))
    put(store, 1, 2)
    store.remove(identifier(0))
    assert indexed(store)
    store.close()
    again = opened(place)
    assert indexed(again)
    assert visible(again, 1, 2)
    assert not visible(again, 0, 1)
    assert len([path for path in place.glob("chroma-*") if path.is_dir()]) == 1
    again.close()


# Not truncate: a file that is cut while it is mapped into memory is a bus error, whoever reads it.
@pytest.mark.parametrize("damage", [delete, garble], ids=lambda one: one.__name__)
def test_an_index_damaged_under_an_open_store_answers_or_mends(store: Store, damage: Callable[[Path], None]) -> None:
    put(store, 1)
    damage(vector_folder(store.folder))
    put(store, 2)
    assert visible(store, 1, 1)
    assert visible(store, 2, 1)
    store.close()
    again = opened(store.folder)
    assert indexed(again)
    assert visible(again, 1, 1)
    assert visible(again, 2, 1)
    again.close()


# Probing


def test_an_index_closed_in_good_order_is_not_probed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(place)
    monkeypatch.setattr(vectors, "probe", lambda *_: pytest.fail("probed"))
    before = vector_folder(place)
    opened(place).close()
    assert vector_folder(place) == before


def test_the_seal_of_an_index_does_not_speak_for_another_store(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = filled(place)
    before = file.read_bytes()
    store = opened(place)
    put(store, 1, 2)
    store.close()
    file.write_bytes(before)  # as a user does who copies an older file back
    for name in ("seal.json", "changes"):
        (place / name).unlink()
    asked = []
    probe = vectors.probe
    monkeypatch.setattr(vectors, "probe", lambda *arguments: asked.append(1) or probe(*arguments))
    store = opened(place)
    assert asked
    assert visible(store, 1, 1)
    assert not visible(store, 1, 2)
    store.close()


def test_the_real_probe_finds_a_good_index_good(place: Path) -> None:
    file = filled(place)
    assert real_probe(vector_folder(place), file, 60, threading.Event()) == ""


def test_a_store_in_a_relative_folder_is_probed_and_stays_where_it_is(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    filled(place)
    unsealed(place)
    monkeypatch.setattr(vectors, "probe", real_probe)
    monkeypatch.setattr(vectors, "PROBE_SECONDS", 120.0)  # a busy machine is not what is tested
    monkeypatch.chdir(place.parent)
    store = Store(Path(place.name), IDENTITY)
    monkeypatch.chdir("/")
    assert store.wait_for_index(60) == "ready"
    thread = threading.Thread(target=put, args=(store, 7))
    thread.start()
    thread.join()
    assert visible(store, 7, 1)
    store.close()
    assert "rebuilt" not in caplog.text
    assert not (place / "damaged").exists()


def test_the_real_probe_survives_a_crash_and_a_hang(place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = filled(place)
    for code, expected in (
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "status -11"),
        ("import time; time.sleep(60)", "within 2 seconds"),
    ):
        (tmp_path / "sitecustomize.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        started = time.monotonic()
        # sitecustomize runs before anything else in the child.
        said = real_probe(vector_folder(place), file, 2, threading.Event())
        assert expected in said
        assert time.monotonic() - started < 20


def test_a_probe_is_ended_when_the_store_is_closed(place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    filled(place)
    unsealed(place)
    (tmp_path / "sitecustomize.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(vectors, "probe", real_probe)
    monkeypatch.setattr(vectors, "PROBE_SECONDS", 120.0)  # a busy machine is not what is tested
    store = Store(place, IDENTITY)
    time.sleep(0.2)
    assert store.index_state == "opening"
    assert visible(store, 1, 1)  # answered meanwhile
    started = time.monotonic()
    store.close()
    assert time.monotonic() - started < 5


def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert true()


def at_work(place: Path) -> bool:
    """Whether a child process of the index of this store is there."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"index.index_worker" in line and str(place).encode() in line:
                return True
    return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_a_probe_ends_with_the_process_that_asked(place: Path) -> None:
    filled(place)
    unsealed(place)
    code = "import sys, time; from pathlib import Path; from index.store import Store; s = Store(Path(sys.argv[1]), 'writer@1'); print('up', flush=True); time.sleep(60)"
    asking = subprocess.Popen(
        [sys.executable, "-c", code, str(place)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
    )
    assert asking.stdout is not None
    asking.stdout.readline()

    until(lambda: at_work(place))
    asking.kill()
    asking.communicate()
    until(lambda: not at_work(place))


def test_what_an_index_holds_is_compared_vector_by_vector(place: Path) -> None:
    file = filled(place, 5)
    folder = vector_folder(place)
    assert examine(folder, file) == ""

    def change(work: Callable[[Any], None]) -> str:
        client = chromadb.PersistentClient(str(folder), settings=chromadb.Settings(anonymized_telemetry=False))
        work(client.get_collection("passages"))
        client.close()
        return examine(folder, file)

    first = parts(1, 1)[1][0].id
    assert change(lambda one: one.upsert(ids=[first], embeddings=[vector(9, 9, 9)])) == "it holds other vectors than the store"
    assert change(lambda one: one.delete(ids=[first])) == BEHIND
    assert change(lambda one: one.upsert(ids=[first], embeddings=[vector(1, 1, 0)])) == ""
    assert change(lambda one: one.upsert(ids=["stranger"], embeddings=[vector(1, 1, 0)])) == BEHIND


# Large stores: with the limits made small


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, limits in {
        compare: {"COMPARED": 20, "COMPARED_OF_CHOSEN": 12, "SCANNED": 125, "OUTDATED": 25},
        index_worker: {"UNWRITTEN": 50, "WRITTEN_EVERY": 60, "STEP": 25},
        vectors: {"REBUILDING_SECONDS": 0.2, "OPENING_SECONDS": 0.2},
    }.items():
        for name, value in limits.items():
            monkeypatch.setattr(module, name, value)


def reached(store: Store, numbers: range, version: int = 1) -> float:
    """How many of some documents' passages find themselves: Chroma's graph now and then holds a vector that no search reaches."""
    asked = [(number, part) for number in numbers for part in range(PARTS)]
    return float(np.mean([store.nearest(vector(n, version, k), 1)[0][0] == parts(n, version)[1][k].id for n, k in asked]))


def gone(store: Store, number: int, version: int) -> bool:
    near = {one for part in range(PARTS) for one, _ in store.nearest(vector(number, version, part), 3)}
    return not store.matching(f"doc{number}v{version}", 5) and not near & {passage.id for passage in parts(number, version)[1]}


def bulk(store: Store, count: int, first: int = 0) -> None:
    from index.store import Entry

    made = [parts(number, 1) for number in range(first, first + count)]
    store.put_many(
        [Entry(document, "/root", passages, keys) for document, passages, keys, _ in made],
        {key: one for _, _, keys, rows in made for key, one in zip(keys, rows, strict=True)},
    )


def test_while_a_large_index_is_rebuilt_words_answer_and_it_says_so(store: Store, monkeypatch: pytest.MonkeyPatch, small_limits: None) -> None:
    bulk(store, 40)
    going_on, real = threading.Event(), chromadb.Collection.upsert

    def slow(self: Any, *arguments: Any, **named: Any) -> Any:
        going_on.wait(30)
        return real(self, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(chromadb.Collection, "query", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("broken")))
        patched.setattr(chromadb.Collection, "upsert", slow)
        started = time.monotonic()
        assert store.nearest(vector(1, 1, 1), 3) == []
        assert time.monotonic() - started < 3
        assert store.index_state == "rebuilding"
        assert store.notices() == ("The vector index is being built (0 %); until then answers come from word search alone.",)
        assert len(store.matching("doc1v1", 10)) == PARTS
        put(store, 1, 2)
        store.remove(identifier(2))
    going_on.set()
    assert store.wait_for_index(30) == "ready"
    assert indexed(store)
    assert gone(store, 1, 1)
    assert gone(store, 2, 1)
    assert reached(store, range(3, 40)) > 0.95
    assert store.notices() == ()


def test_while_the_index_of_a_small_store_is_built_nothing_is_said_as_nobody_notices(store: Store) -> None:
    bulk(store, 5)
    store._vectors._now("rebuilding")
    assert store.notices() == ()
    assert visible(store, 3, 1)
    store._vectors._now("ready")


def test_an_index_that_is_behind_still_answers_while_another_is_built(place: Path, monkeypatch: pytest.MonkeyPatch, small_limits: None) -> None:
    store = opened(place)
    bulk(store, 40)
    store.close()
    client = chromadb.PersistentClient(str(vector_folder(place)), settings=chromadb.Settings(anonymized_telemetry=False))
    client.get_collection("passages").delete(ids=[parts(5, 1)[1][0].id])
    client.get_collection("passages").upsert(ids=["stranger"], embeddings=[vector(7, 1, 1)])
    client.close()
    unsealed(place)
    building, going_on, real = threading.Event(), threading.Event(), vectors.VectorIndex._filled

    def held(self: Any, folder: Path) -> Any:
        building.set()
        going_on.wait(30)
        return real(self, folder)

    monkeypatch.setattr(vectors.VectorIndex, "_filled", held)
    store = Store(place, IDENTITY)
    assert building.wait(30)
    assert store.index_state == "rebuilding"
    found = store.nearest(vector(7, 1, 1), 2)
    assert found[0][0] == parts(7, 1)[1][1].id
    assert "stranger" not in dict(found)
    store.remove(identifier(7))
    assert parts(7, 1)[1][1].id not in dict(store.nearest(vector(7, 1, 1), 5))
    going_on.set()
    assert store.wait_for_index(30) == "ready"
    assert indexed(store)
    assert reached(store, range(8, 40)) > 0.95
    assert gone(store, 7, 1)
    store.close()


def test_an_index_is_read_into_memory_while_other_threads_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chroma's count holds all of them up while it reads a large one."""
    filled = opened(place)
    put(filled, 1)
    filled.close()
    calls: list[str] = []

    def recorded(name: str) -> Any:
        real = getattr(chromadb.Collection, name)
        return lambda self, *given, **named: (calls.append(name), real(self, *given, **named))[1]

    for name in ("get", "query", "count"):
        monkeypatch.setattr(chromadb.Collection, name, recorded(name))
    with closing(opened(place)) as store:
        assert calls[0] == "get"
        calls.clear()
        monkeypatch.setattr(vectors, "FILLED_BESIDE", 0)
        store._vectors._rebuild()
        assert calls[0] == "get"
        assert "count" in calls


def test_what_is_not_similar_enough_is_not_read(store: Store, small_limits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    bulk(store, 60)
    assert store.wait_for_index(30) == "ready"
    store.set_owner(identifier(5), "ann")
    asked = np.stack([vector(7, 1, 1), vector(20, 1, 0)])
    read: list[int] = []
    rows = store._database.rows

    def counted(statement: str, *more: Any) -> list[Any]:
        found = rows(statement, *more)
        if threading.current_thread() is threading.main_thread() and "v.vector" in statement:
            read.append(len(found))
        return found

    for more in ((None, None), (None, "ann"), ([identifier(number) for number in range(5, 60)], None)):
        all_of_them = store.nearest_each(asked, 20, *more)
        middle = float(np.median([cosine for _, cosine in all_of_them[0]]))
        wanted = [[pair for pair in hits if pair[1] >= middle] for hits in all_of_them]
        read.clear()
        with monkeypatch.context() as patched:
            patched.setattr(store._database, "rows", counted)
            found = store.nearest_each(asked, 20, *more, at_least=middle)
        assert [[pair for pair in hits if pair[1] >= middle] for hits in found] == wanted
        assert 0 < sum(read) <= sum(map(len, wanted)) + 2
        assert [hits[0][0] for hits in store.nearest_each(asked, 20, *more, at_least=0.999)] == [hits[0][0] for hits in all_of_them]
        assert store.nearest_each(-asked, 20, *more, at_least=0.999) == [[], []]
    # A graph that has lost its way shows little, and that far off: then all are compared.
    lost = [(parts(40, 1)[1][0].id, -0.2), (parts(41, 1)[1][0].id, -0.3)]
    monkeypatch.setattr(store._vectors, "_noted", lambda key: 60 * PARTS)
    monkeypatch.setattr(Collection, "nearest", lambda self, rows, limit: [lost for _ in rows])
    assert [hits[0][0] for hits in store.nearest_each(asked, 20, at_least=0.999)] == [parts(7, 1)[1][1].id, parts(20, 1)[1][0].id]


def test_many_chosen_documents_are_no_trouble(store: Store, small_limits: None) -> None:
    bulk(store, 60)
    ids = [identifier(number) for number in range(60)]
    strangers = [f"stranger{number}" for number in range(40_000)]
    everything = store.nearest(vector(7, 1, 1), 5)
    assert store.nearest(vector(7, 1, 1), 5, ids + strangers) == everything
    assert everything[0][0] == parts(7, 1)[1][1].id
    exact = sorted((float(vector(7, 1, 1) @ vector(number, 1, part)) for number in range(20, 60) for part in range(PARTS)), reverse=True)
    assert [similarity for _, similarity in store.nearest(vector(7, 1, 1), 5, ids[20:] + strangers)] == pytest.approx(exact[:5], abs=1e-5)
    assert store.nearest(vector(7, 1, 1), 5, strangers) == []
    assert len(store.matching("part1", 500, ids[20:] + strangers)) == 40


def test_much_that_was_added_is_written_at_the_end_of_a_sync(store: Store, small_limits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    bulk(store, 60)
    before = vector_folder(store.folder)
    assert not list(before.rglob("index_metadata.pickle"))
    store.finish_sync("/root")
    after = vector_folder(store.folder)
    assert after != before
    assert list(after.rglob("index_metadata.pickle"))  # written: read in milliseconds on opening
    put(store, 100)
    store.remove(identifier(3))
    store.finish_sync("/root")
    assert vector_folder(store.folder) == after
    store.close()
    unsealed(store.folder)
    written = next(iter(after.rglob("data_level0.bin"))).read_bytes()
    again = opened(store.folder)
    assert vector_folder(store.folder) == after
    assert indexed(again)
    assert gone(again, 3, 1)
    assert reached(again, range(4, 60)) > 0.95
    again.close()
    assert next(iter(after.rglob("data_level0.bin"))).read_bytes() == written  # never rewritten where a kill could break it


def test_a_query_that_fails_has_the_index_rebuilt(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "COMPARED", 0)
    put(store, 1)
    before = vector_folder(store.folder)
    with monkeypatch.context() as patched:
        patched.setattr(chromadb.Collection, "query", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("broken")))
        store.nearest(vector(1, 1, 1), 1)
    assert store.wait_for_index(30) == "ready"
    assert vector_folder(store.folder) != before
    assert indexed(store)
    assert store.nearest(vector(1, 1, 1), 1)


def test_no_vector_is_written_anew_when_a_document_is_replaced(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, 1)
    written: list[str] = []
    real = chromadb.Collection.upsert
    monkeypatch.setattr(chromadb.Collection, "upsert", lambda self, **named: (written.extend(named["ids"]), real(self, **named)))
    put(store, 1)
    assert written == []
    put(store, 1, 2)
    assert set(written) == {passage.id for passage in parts(1, 2)[1]}
    assert indexed(store)


def test_similarities_are_those_of_the_store_even_where_the_index_is_wrong(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "COMPARED", 0)
    put(store, 1)
    put(store, 2)
    assert store._index is not None
    assert store._index._current is not None
    store._index._current._collection.upsert(ids=[parts(2, 1)[1][0].id], embeddings=[vector(1, 1, 1)])
    found = dict(store.nearest(vector(1, 1, 1), 6))
    assert found[parts(2, 1)[1][0].id] == pytest.approx(float(vector(1, 1, 1) @ vector(2, 1, 0)), abs=1e-5)
    assert found[parts(2, 1)[1][0].id] < 0.9
    put(store, 1)
    store.remove(identifier(2))
    assert parts(2, 1)[1][0].id not in dict(store.nearest(vector(1, 1, 1), 6))


# Another embedding model


def texts_of(document: Any, passages: Any) -> list[str]:
    return [f"{document.title}: {passage.text}" for passage in passages]


class Model:
    """Another embedding model, of another dimension; can fail after some texts."""

    def __init__(self, dimension: int = DIMENSION * 2, fails_after: int = 10**9) -> None:
        self.dimension, self.left, self.seen = dimension, fails_after, 0

    def embed(self, texts: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        self.seen += len(texts)
        made = np.stack([np.random.default_rng(list(text.encode())).normal(size=self.dimension) for text in texts]).astype(np.float32)
        return made / np.linalg.norm(made, axis=1, keepdims=True)


def finds_itself(store: Store, number: int) -> bool:
    document, passages, _, _ = parts(number, 1)
    return all(
        store.nearest(Model().embed([text])[0], 1)[0][0] == passage.id for text, passage in zip(texts_of(document, passages), passages, strict=True)
    )


def test_reembedding_goes_on_after_a_kill_and_words_answer_meanwhile(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(place, 12)
    monkeypatch.setattr("index.store.EMBEDDED_AT_ONCE", 3)
    store = Store(place, "other@2", reembed=True)
    asked = Model().embed(["anything"])[0]
    assert store.nearest(asked, 5) == []
    assert len(store.matching("doc1v1", 10)) == PARTS
    assert "citewell reembed" in store.notices()[0]
    with pytest.raises(StoreError, match="reembed"):
        put(store, 50)
    with pytest.raises(KeyboardInterrupt):
        store.replace_vectors("other@2", texts_of, Model(fails_after=5).embed)
    store.close()
    # Whoever goes back to the old model finds all as it was.
    store = opened(place)
    assert all(visible(store, number, 1) for number in range(12))
    store.close()
    store = Store(place, "other@2", reembed=True)
    model, said = Model(), []
    assert store.replace_vectors("other@2", texts_of, model.embed, lambda done, total: said.append((done, total)))
    assert model.seen == (12 - 5) * PARTS
    assert said[0] == (15, 36)
    assert said[-1] == (36, 36)
    assert store.wait_for_index(30) == "ready"
    assert all(finds_itself(store, number) for number in range(12))
    store.close()
    again = Store(place, "other@2")
    assert again.wait_for_index(30) == "ready"
    assert all(finds_itself(again, number) for number in range(12))
    assert again.notices() == ()
    again.close()


def test_reembedding_stops_when_asked_and_begins_anew_for_a_third_model(place: Path) -> None:
    filled(place, 3)
    store = Store(place, "other@2", reembed=True)
    asked = iter([False, True])
    assert not store.replace_vectors("other@2", texts_of, Model().embed, stopped=lambda: next(asked))
    store.close()
    store = Store(place, "third@3", reembed=True)
    model = Model()
    assert store.replace_vectors("third@3", texts_of, model.embed)
    assert model.seen == 3 * PARTS
    assert store.wait_for_index(30) == "ready"
    assert finds_itself(store, 2)
    store.close()


def test_what_two_change_at_once_is_told_when_the_last_has_ended(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.wait_for_index(30) == "ready"
    told: list[int] = []
    real = Collection.add

    def counted(self: Any, ids: Sequence[str], rows: Sequence[bytes]) -> None:
        told.append(len(ids))
        real(self, ids, rows)

    monkeypatch.setattr(Collection, "add", counted)
    begun, ended = threading.Event(), threading.Event()

    def other() -> None:
        with store.many_changes():
            begun.set()
            ended.wait(30)

    thread = threading.Thread(target=other)
    with store.many_changes():
        thread.start()
        assert begun.wait(30)
        put(store, 0)
    put(store, 1)
    assert not told
    ended.set()
    thread.join()
    until(lambda: not pending(store))
    assert sum(told) == 2 * PARTS


@pytest.mark.parametrize("compared", [0, 20_000])
def test_many_changes_are_told_at_the_end_and_found_all_the_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compared: int) -> None:
    monkeypatch.setattr(compare, "COMPARED", compared)
    told: list[int] = []
    real = Collection.add

    def counted(self: Any, ids: Sequence[str], rows: Sequence[bytes]) -> None:
        told.append(len(ids))
        real(self, ids, rows)

    with closing(Store(tmp_path, "writer@1")) as store:
        assert store.wait_for_index(30) == "ready"
        for number in range(5):
            put(store, number)
        monkeypatch.setattr(Collection, "add", counted)
        with store.many_changes():
            put(store, 1, 2)
            store.remove(identifier(0))
            put(store, 5)
            assert not any(told)
            assert visible(store, 1, 2)
            assert visible(store, 5, 1)
            assert not visible(store, 0, 1)
            assert not visible(store, 1, 1)
        if compared:  # nobody waits for what nobody asks
            until(lambda: not pending(store))
        assert sum(told) == 2 * PARTS
        assert store._index is not None
        assert store._index._current is not None
        assert store._index._current.count() == 5 * PARTS
        assert visible(store, 1, 2)
        assert visible(store, 5, 1)
        assert not visible(store, 0, 1)
        assert not pending(store)


def pending(store: Store) -> list[Any]:
    return store._database.rows("SELECT * FROM pending")


@pytest.mark.parametrize("outdated", [5, 1_000])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("small", [True, False], ids=["everything", "what is pending"])
def test_what_is_kept_to_compare_is_what_the_store_holds_whatever_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: bool, seed: int, outdated: int
) -> None:
    monkeypatch.setattr(compare, "OUTDATED", outdated)
    monkeypatch.setattr(compare, "COMPARED", 20_000 if small else 0)
    monkeypatch.setattr(index_worker, "STEP", 3)
    chance = random.Random(seed)
    with closing(Store(tmp_path, "writer@1")) as store:
        assert store.wait_for_index(30) == "ready"
        exact, rows = store._vectors.exact, store._database.rows
        anew: list[int] = []
        read_all = exact._all
        monkeypatch.setattr(exact, "_all", lambda: (anew.append(1), read_all())[1])

        def change() -> None:
            number = chance.randrange(12)
            if chance.random() < 0.3:
                store.remove_many([identifier(number)])
            else:
                put(store, number, chance.randrange(1, 3))

        def check() -> None:
            which = "" if small else " WHERE p.id IN (SELECT passage_id FROM pending)"
            truth = {
                row[0]: row[1:] for row in rows(f"SELECT p.id, p.document_id, v.vector FROM passages p JOIN vectors v USING (content_key){which}")
            }
            known = exact.everything() if small else exact.recall().known
            there = np.flatnonzero(known.there)
            assert {known.ids[row]: (known.documents[row], known.matrix[row].tobytes()) for row in there} == truth
            assert len(there) == len(truth), "each once"
            if not small:
                gone = {row[0] for row in rows("SELECT passage_id FROM pending WHERE passage_id NOT IN (SELECT id FROM passages)")}
                assert exact.recall().gone == gone

        for _ in range(12):
            with store.many_changes():
                check()
                for _ in range(chance.randrange(6)):
                    change()
                    if chance.random() < 0.7:  # else there is more to follow the next time, or when it is told
                        check()
            if chance.random() < 0.5:
                change()
            check()
        assert len(anew) == small, "followed, and not read again"


def test_a_small_store_that_is_closed_before_its_index_has_learned_tells_it_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closing_now, stepped = threading.Event(), threading.Event()
    real = vectors.learned

    def slow(*given: Any) -> int:
        stepped.set()
        assert closing_now.wait(30)
        return real(*given)

    monkeypatch.setattr(index_worker, "STEP", 2)
    store = Store(tmp_path, "writer@1")
    assert store.wait_for_index(30) == "ready"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(vectors, "learned", slow)
        with store.many_changes():
            for number in range(4):
                put(store, number)
            store.finish_sync("/root")
        assert visible(store, 3, 1), "the sync has ended, and all is found"
        assert stepped.wait(30)
        assert store._index is not None
        store._index._closing.set()
        closing_now.set()
        store.close()
    with closing(sqlite3.connect(tmp_path / "citewell.sqlite3")) as file:
        ((left,),) = file.execute("SELECT count(*) FROM pending").fetchall()
    assert 0 < left < 4 * PARTS, "one step was told"
    with closing(Store(tmp_path, "writer@1")) as again:
        assert visible(again, 3, 1)
        assert again.wait_for_index(30) == "ready"
        assert indexed(again)


@pytest.mark.parametrize("compared", [0, 20_000])
def test_where_nearly_all_is_new_a_new_index_is_built_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compared: int) -> None:
    monkeypatch.setattr(compare, "COMPARED", compared)
    monkeypatch.setattr(index_worker, "UNWRITTEN", 5)
    with closing(Store(tmp_path, "writer@1")) as store:
        assert store.wait_for_index(30) == "ready"
        for number in range(4):
            put(store, number)
        store.finish_sync("/root")
        before = store._database.meta("chroma")
        with store.many_changes():
            store.remove_many([identifier(number) for number in range(4)])
            for number in range(10, 14):
                put(store, number)
            store.finish_sync("/root")
        if compared:
            until(lambda: not pending(store))
        assert store._database.meta("chroma") != before
        assert all(visible(store, number, 1) for number in range(10, 14))
        assert not any(visible(store, number, 1) for number in range(4))
        assert not pending(store)


# Grown indexes: what is new is merged into a copy


@pytest.fixture
def grown(place: Path, small_limits: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store whose index was built with 90 passages and is held to be large; child processes are spared."""
    monkeypatch.setattr(vectors, "MERGED_FROM", 50)
    monkeypatch.setattr(vectors, "MERGED", 60)
    monkeypatch.setattr(index_worker, "UNWRITTEN", 10)
    merged_here(monkeypatch)
    store = opened(place)
    bulk(store, 30)
    store.finish_sync("/root")
    yield store
    store.close()


def merged_here(monkeypatch: pytest.MonkeyPatch, before: Callable[[], None] = lambda: None) -> None:
    def here(what: str, values: Sequence[str], *_: object) -> tuple[str, str]:
        assert what == "merge"
        before()
        source, target, truth, last = values
        return "", index_worker.merge(Path(source), Path(target), Path(truth), int(last))

    monkeypatch.setattr(vectors, "in_child", here)


def test_a_large_index_learns_in_a_copy_and_everything_is_found_all_the_while(grown: Store) -> None:
    before = vector_folder(grown.folder)
    with grown.many_changes():
        grown.remove_many([identifier(number) for number in range(5)])
        bulk(grown, 10, first=40)
        put(grown, 20, 2)
        assert all(visible(grown, number, 1) for number in range(40, 50))
        assert gone(grown, 3, 1)
        assert gone(grown, 20, 1)
        assert vector_folder(grown.folder) == before
        grown.finish_sync("/root")
    after = vector_folder(grown.folder)
    assert after != before
    assert list(after.rglob("index_metadata.pickle"))
    assert grown._database.rows("SELECT * FROM pending") == []
    assert grown._database.meta("buried") == str(6 * PARTS)
    assert indexed(grown)
    assert reached(grown, range(40, 50)) > 0.95
    assert visible(grown, 20, 2)
    assert gone(grown, 3, 1)
    grown.close()
    again = opened(grown.folder)
    assert vector_folder(grown.folder) == after
    assert indexed(again)
    assert reached(again, range(40, 50)) > 0.95
    again.close()


def test_a_few_changes_are_never_told_to_a_large_index_and_found_after_a_kill_too(grown: Store, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Collection, "add", lambda *_: pytest.fail("told"))
    monkeypatch.setattr(Collection, "delete", lambda *_: pytest.fail("told"))
    before = vector_folder(grown.folder)
    put(grown, 70)
    put(grown, 71)
    grown.remove(identifier(70))
    grown.remove(identifier(7))
    grown.finish_sync("/root")
    grown.close()
    for unclean in (False, True):
        if unclean:
            unsealed(place)
        again = opened(place)
        assert vector_folder(place) == before
        assert visible(again, 71, 1)
        assert gone(again, 7, 1)
        assert gone(again, 70, 1)
        again.close()


def test_what_changes_while_a_large_index_is_copied_is_learned_the_next_time(grown: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile() -> None:
        grown.remove(identifier(41))
        put(grown, 42, 2)
        put(grown, 3)
        put(grown, 80)

    with grown.many_changes():
        bulk(grown, 8, first=40)
        grown.remove(identifier(3))
        merged_here(monkeypatch, meanwhile)
        grown.finish_sync("/root")
        merged_here(monkeypatch)
        waiting = {row[0] for row in grown._database.rows("SELECT passage_id FROM pending")}
        changed = [passage.id for number, version in ((41, 1), (42, 1), (42, 2), (3, 1), (80, 1)) for passage in parts(number, version)[1]]
        assert waiting == set(changed)
        for number, version in ((42, 2), (3, 1), (80, 1), (40, 1)):
            assert visible(grown, number, version)
        assert gone(grown, 41, 1)
        assert gone(grown, 42, 1)
        grown.finish_sync("/root")
    assert grown._database.rows("SELECT * FROM pending") == []
    assert indexed(grown)


def test_so_much_is_not_left_to_the_end_of_a_sync(grown: Store) -> None:
    before = vector_folder(grown.folder)
    with grown.many_changes():
        bulk(grown, 25, first=100)
        deadline = time.monotonic() + 60
        while vector_folder(grown.folder) == before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert vector_folder(grown.folder) != before
        assert visible(grown, 110, 1)


def test_a_merge_that_fails_leaves_the_index_as_it_was(grown: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    before = vector_folder(grown.folder)
    for said in (("opening it ended a process with status -11", ""), ("", "the copy does not hold what the store holds")):
        monkeypatch.setattr(vectors, "in_child", lambda *_, said=said: said)
        with grown.many_changes():
            bulk(grown, 5, first=60)
            grown.finish_sync("/root")
        assert "".join(said) in caplog.text
        assert vector_folder(grown.folder) == before
        assert grown.index_state == "ready"
        assert visible(grown, 61, 1)
    assert [path for path in grown.folder.glob("chroma-*") if path.is_dir()] == [before]


def test_an_index_that_is_mostly_buried_is_built_anew(grown: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for merged in (True, False):
        if not merged:
            monkeypatch.setattr(vectors, "in_child", lambda *_: pytest.fail("merged"))
        with grown.many_changes():
            for number in range(0, 9) if merged else range(9, 18):
                put(grown, number, 2)
            grown.finish_sync("/root")
        assert grown._database.meta("buried") == (str(9 * PARTS) if merged else "0")
        assert indexed(grown)
    assert reached(grown, range(18), 2) > 0.95


def test_a_real_child_merges(grown: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(vectors, "MERGED_FROM", 50)
    monkeypatch.setattr(index_worker, "UNWRITTEN", 10)
    monkeypatch.setattr(compare, "COMPARED", 20)
    bulk(grown, 5, first=60)
    grown._vectors.wait(0)
    grown.finish_sync("/root")
    with grown._vectors._building:
        pass
    assert grown._database.rows("SELECT * FROM pending") == []
    assert indexed(grown)
    assert reached(grown, range(60, 65)) > 0.95


def test_what_a_user_may_not_see_of_what_is_pending_does_not_stand_in_the_way(grown: Store) -> None:
    with grown.many_changes():
        bulk(grown, 8, first=40)
        for number in range(41, 48):
            grown.set_owner(identifier(number), "ben")
        nearest = grown.nearest(vector(44, 1, 1), 1)
        assert nearest[0][0] == parts(44, 1)[1][1].id
        assert grown.nearest(vector(44, 1, 1), 1, viewer="ben") == nearest
        seen = dict(grown.nearest(vector(44, 1, 1), 93, viewer="ann"))
        everything = [passage.id for number in [*range(30), 40] for passage in parts(number, 1)[1]]
        assert set(seen) == set(everything)
        assert set(dict(grown.nearest(vector(44, 1, 1), 5, [identifier(40)]))) == {passage.id for passage in parts(40, 1)[1]}


def test_of_a_small_store_that_changes_only_what_is_new_is_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        put(store, number)
    store.nearest(vector(1, 1, 1), 1)
    read: list[int] = []
    real = store._database.rows

    def rows(statement: str, values: Sequence[Any] = ()) -> list[Any]:
        found = real(statement, values)
        if "v.vector" in statement and "document_id" in statement:
            read.append(sum(row[-1] is not None for row in found))
        return found

    monkeypatch.setattr(store._database, "rows", rows)
    put(store, 7)
    store.remove(identifier(2))
    put(store, 3, 2)
    assert dict(store.nearest(vector(7, 1, 1), 1)).keys() == {parts(7, 1)[1][1].id}
    assert sum(read) == 2 * PARTS
    assert dict(store.nearest(vector(3, 2, 0), 1)).keys() == {parts(3, 2)[1][0].id}
    assert gone(store, 2, 1)
    assert gone(store, 3, 1)
    assert all(visible(store, number, 1) for number in (0, 1, 4, 5, 7))


def put_changed(store: Store, number: int, added: int = 100) -> list[Any]:
    """The same document with the same text under another title, say: its passages keep their ids and get other vectors, which are returned."""
    document, passages, keys, _ = parts(number, 1)
    other = np.stack([vector(number, 1 + added, part) for part in range(PARTS)])
    store.put(document, "/root", passages, [key + b"%d" % added for key in keys], other)
    return list(other)


def finds(store: Store, one: Any, limit: int = 1) -> dict[str, float]:
    return {identifier: round(similarity, 4) for identifier, similarity in store.nearest(one, limit)}


def unwritten(folder: Path) -> int:
    """How much of what an index was told stands only in Chroma's log, and is learned anew on each opening."""
    with closing(sqlite3.connect(f"file:{folder / 'chroma.sqlite3'}?mode=ro", uri=True)) as connection:
        ((written,),) = connection.execute("SELECT max(seq_id) FROM max_seq_id WHERE segment_id IN (SELECT id FROM segments WHERE scope = 'VECTOR')")
        ((last,),) = connection.execute("SELECT max(seq_id) FROM embeddings_queue")
    return int(last or 0) - int(written or 0)


@pytest.mark.parametrize("count", [34, 41, 50])
def test_all_of_a_large_index_stands_in_its_files_whatever_its_size(
    place: Path, monkeypatch: pytest.MonkeyPatch, small_limits: None, count: int
) -> None:
    monkeypatch.setattr(index_worker, "STEP", 10)
    monkeypatch.setattr(index_worker, "WRITTEN_EVERY", 20)
    store = opened(place)
    bulk(store, count)
    store.finish_sync("/root")
    store.close()
    assert unwritten(vector_folder(place)) < LEAST_THRESHOLD


def test_what_is_merged_stands_in_the_files_too(grown: Store) -> None:
    with grown.many_changes():
        bulk(grown, 7, first=40)
        grown.remove_many([identifier(number) for number in range(6)])
        grown.finish_sync("/root")
    grown.close()
    assert unwritten(vector_folder(grown.folder)) < LEAST_THRESHOLD


def test_an_index_to_which_nearly_all_is_new_is_built_anew_on_opening(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_limits: None
) -> None:
    put(store, 100)
    with store.many_changes():
        bulk(store, 30)
        shutil.copytree(store.folder, tmp_path / "killed")
    (tmp_path / "killed" / "owner.json").unlink()
    monkeypatch.setattr(vectors.VectorIndex, "_tell", lambda *_: pytest.fail("told"))
    again = opened(tmp_path / "killed")
    assert again._database.rows("SELECT * FROM pending") == []
    assert indexed(again)
    assert reached(again, range(30)) > 0.95
    again.close()


def test_passages_that_were_removed_leave_their_places_to_others(grown: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_worker, "UNWRITTEN", 1_000)
    question = vector(3, 1, 1)
    everything = [(parts(number, 1)[1][part].id, number, float(question @ vector(number, 1, part))) for number in range(30) for part in range(PARTS)]
    everything.sort(key=lambda one: -one[2])
    # The nearest stays, so that what the index finds first is not nothing, but too little.
    removed = {number for _, number, _ in everything[1:30]} - {everything[0][1]}
    grown.remove_many([identifier(number) for number in sorted(removed)])
    assert grown._database.rows("SELECT count(*) FROM pending") == [(PARTS * len(removed),)]
    left = [(one, similarity) for one, number, similarity in everything if number not in removed]
    assert len(left) > 5
    assert grown.nearest(question, 5) == [(one, pytest.approx(similarity, abs=1e-5)) for one, similarity in left[:5]]
    chosen = [identifier(number) for number in range(30)]
    assert grown.nearest(question, 5, chosen, "ann") == [(one, pytest.approx(similarity, abs=1e-5)) for one, similarity in left[:5]]


@pytest.mark.parametrize("compared", [0, 20_000])
def test_the_same_words_under_another_title_are_found_by_their_new_vectors(store: Store, monkeypatch: pytest.MonkeyPatch, compared: int) -> None:
    monkeypatch.setattr(compare, "COMPARED", compared)
    for number in range(4):
        put(store, number)
    one = parts(1, 1)[1][0].id
    assert finds(store, vector(1, 1, 0)) == {one: 1.0}
    other = put_changed(store, 1)
    assert finds(store, other[0]) == {one: 1.0}
    assert finds(store, vector(1, 1, 0), 12)[one] == round(float(vector(1, 1, 0) @ other[0]), 4)
    assert indexed(store)
    put(store, 1)
    assert finds(store, vector(1, 1, 0)) == {one: 1.0}
    assert indexed(store)


def test_a_large_index_too_learns_the_new_vectors_of_the_same_words(grown: Store) -> None:
    one = parts(4, 1)[1][0].id
    other = put_changed(grown, 4)
    assert finds(grown, other[0]) == {one: 1.0}
    again = put_changed(grown, 4, 200)
    assert finds(grown, again[0]) == {one: 1.0}
    assert finds(grown, other[0], 100)[one] < 0.99
    with grown.many_changes():
        bulk(grown, 5, first=60)
        grown.finish_sync("/root")
    assert grown._database.rows("SELECT * FROM pending") == []
    assert grown._database.meta("buried") == str(PARTS)
    assert indexed(grown)
    assert finds(grown, again[0]) == {one: 1.0}


def ends(work: Callable[[], object], within: float) -> threading.Thread | None:
    """Does it in a thread; returns that where it goes on for longer."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(within)
    return thread if thread.is_alive() else None


@pytest.fixture
def far_behind(grown: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store in which somebody has just searched, and whose index is being made while more is new than it may be."""
    monkeypatch.setattr(vectors, "MERGED", 10 * PARTS)
    monkeypatch.setattr(vectors, "PACE", 0.01)
    with in_front():
        pass
    with grown._vectors._building:
        bulk(grown, 11, first=100)
        yield grown


def syncing(store: Store, change: Callable[[], object]) -> Callable[[], None]:
    def work() -> None:
        with store.many_changes():
            change()

    return work


@pytest.mark.parametrize(
    "change", [lambda store: bulk(store, 1, first=300), lambda store: store.remove_many([identifier(100)])], ids=["adds", "removes"]
)
def test_a_sync_waits_while_an_index_is_made_that_is_far_behind(grown: Store, far_behind: Store, change: Callable[[Store], object]) -> None:
    waiting = ends(syncing(far_behind, lambda: change(far_behind)), 0.5)
    assert waiting is not None
    far_behind._vectors._building.release()
    waiting.join(30)
    far_behind._vectors._building.acquire()
    assert not waiting.is_alive()


def test_no_longer_than_what_it_changed_takes_at_the_least_pace(far_behind: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "PACE", PARTS / 0.05)
    assert ends(syncing(far_behind, lambda: bulk(far_behind, 1, first=300)), 30) is None
    assert visible(far_behind, 300, 1)


def test_nobody_waits_who_changes_nothing_or_syncs_nothing_or_is_alone(far_behind: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ends(lambda: bulk(far_behind, 1, first=300), 30) is None
    assert ends(syncing(far_behind, lambda: far_behind.remove_many([])), 30) is None
    monkeypatch.setattr(threads, "_last_search", time.monotonic() - threads.LATELY_SECONDS)
    assert ends(syncing(far_behind, lambda: bulk(far_behind, 1, first=400)), 30) is None


def test_what_is_being_closed_keeps_nobody_waiting(far_behind: Store) -> None:
    waiting = ends(syncing(far_behind, lambda: bulk(far_behind, 1, first=300)), 0.5)
    assert waiting is not None
    far_behind._vectors._closing.set()
    waiting.join(30)
    assert not waiting.is_alive()


def test_what_changes_again_and_again_is_kept_once(grown: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "OUTDATED", 5)
    for _ in range(20):
        put(grown, 50)
        put(grown, 51)
        assert visible(grown, 51, 1)
        recent = grown._vectors.exact._recent
        assert recent is not None
        assert len(recent.place) == 2 * PARTS
        assert len(recent.known.ids) <= 2 * 2 * PARTS + 5 + 2 * PARTS
    grown.remove(identifier(51))
    assert gone(grown, 51, 1)
    assert visible(grown, 50, 1)


def test_of_a_users_few_documents_everything_is_found_whatever_the_index_does(grown: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(27):
        grown.set_owner(identifier(number), "ben")
    own = [28, 29, 27]
    put(grown, 28, 2)
    expected = sorted(
        (
            (passage.id, float(vector(5, 1, 1) @ vector(number, version, part)))
            for number, version in ((27, 1), (28, 2), (29, 1))
            for part, passage in enumerate(parts(number, version)[1])
        ),
        key=lambda pair: -pair[1],
    )
    monkeypatch.setattr(Collection, "nearest", lambda *_: pytest.fail("asked"))
    for state in ("ready", "opening", "rebuilding"):
        grown._vectors.state = state  # type: ignore[assignment]
        one, two = grown.nearest_each(np.stack([vector(5, 1, 1), vector(28, 2, 0)]), 9, viewer="ann")
        assert one == [(identifier, pytest.approx(similarity, abs=1e-5)) for identifier, similarity in expected]
        assert two[0][0] == parts(28, 2)[1][0].id
        chosen = grown.nearest(vector(5, 1, 1), 9, [identifier(number) for number in (0, 1, *own)], "ann")
        assert [identifier for identifier, _ in chosen] == [identifier for identifier, _ in one]
    grown._vectors.state = "ready"


def test_an_index_of_which_most_was_removed_is_built_anew(grown: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "in_child", lambda *_: pytest.fail("merged"))
    with grown.many_changes():
        grown.remove_many([identifier(number) for number in range(19)])
        grown.finish_sync("/root")
    assert grown._database.meta("buried") == "0"
    assert grown._database.meta("written") == str(11 * PARTS)
    assert indexed(grown)


def test_one_sync_after_another_merges_once(grown: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    merges: list[int] = []
    started, going_on = threading.Event(), threading.Event()

    def held() -> None:
        merges.append(1)
        started.set()
        going_on.wait(30)

    merged_here(monkeypatch, held)
    bulk(grown, 5, first=60)
    assert started.wait(30)
    ending = threading.Thread(target=grown.finish_sync, args=("/root",))
    ending.start()
    going_on.set()
    ending.join(60)
    assert merges == [1]
    assert grown._database.rows("SELECT * FROM pending") == []


def test_what_gathers_while_a_large_index_is_copied_is_merged_without_a_sync(grown: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    more = iter([True])

    def meanwhile() -> None:
        if next(more, False):
            bulk(grown, 5, first=70)

    merged_here(monkeypatch, meanwhile)
    bulk(grown, 5, first=60)
    deadline = time.monotonic() + 60
    while grown._database.rows("SELECT * FROM pending LIMIT 1") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert grown._database.rows("SELECT * FROM pending") == []
    assert indexed(grown)


def test_a_merge_without_room_says_so_waits_and_keeps_the_index(grown: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = vector_folder(grown.folder)
    tried: list[int] = []

    def full(*_: object) -> None:
        tried.append(1)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", full)
        bulk(grown, 5, first=60)
        for thread in grown._vectors._threads:
            thread.join(30)
        put(grown, 80)
        for thread in grown._vectors._threads:
            thread.join(30)
        assert tried == [1]  # not again at each change
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
        patched.setattr(vectors, "in_child", lambda *_: pytest.fail("begun"))
        grown.finish_sync("/root")
    (notice,) = grown.notices()
    assert "no room" in notice
    assert "found nevertheless" in notice
    assert grown.index_state == "ready"
    assert vector_folder(grown.folder) == before
    assert [path for path in grown.folder.glob("chroma-*") if path.is_dir()] == [before]
    assert visible(grown, 61, 1)
    grown.finish_sync("/root")
    assert grown.notices() == ()
    assert indexed(grown)


def test_a_store_that_cannot_note_a_merge_keeps_the_index_it_has(grown: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = vector_folder(grown.folder)
    current = grown._vectors._current

    def refused(connection: Any, key: str, value: str) -> None:
        raise StoreError("locked") if key == "chroma" else AssertionError(key)

    with monkeypatch.context() as patched:
        patched.setattr(vectors, "set_meta", refused)
        bulk(grown, 5, first=60)
        for thread in grown._vectors._threads:
            thread.join(30)
    assert grown.index_state == "ready"
    assert grown._vectors._current is current
    assert vector_folder(grown.folder) == before
    assert visible(grown, 61, 1)


# With a real child


def a_child_that(does: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every child process that merges does this when it begins to copy."""
    folder = tmp_path / "site"
    folder.mkdir()
    code = f"import os, shutil, signal, time\nfrom pathlib import Path\ndef copyfile(_, target): {does}\nshutil.copyfile = copyfile\n"
    (folder / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(vectors, "in_child", real_child)


def test_a_large_index_is_filled_by_a_child_that_says_how_far_it_is(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "FILLED_BESIDE", 50)
    here, progress, begun = vectors.in_child, [], threading.Event()

    def heard(what: str, values: Sequence[str], seconds: float, unwanted: Callable[[], bool], told: Callable[[int], None]) -> tuple[str, str]:
        assert what == "fill"
        begun.set()
        return real_child(what, values, seconds, unwanted, lambda done: progress.append(done) or told(done))

    store = opened(place)
    bulk(store, 30)
    told_here: list[str] = []
    monkeypatch.setattr(Collection, "add", lambda self, ids, rows: told_here.extend(ids))
    monkeypatch.setattr(vectors, "in_child", heard)
    before, index = vector_folder(place), store._vectors
    index._in_background(index._rebuild)
    assert begun.wait(30)
    store.remove(identifier(3))  # meanwhile
    until(lambda: store.index_state == "ready" and vector_folder(place) != before)
    assert told_here == []
    assert progress[0] == 0
    assert progress[-1] in (29 * PARTS, 30 * PARTS), "as it is when it begins, with or without what was removed"
    assert indexed(store)
    assert gone(store, 3, 1)
    assert reached(store, range(4, 30)) > 0.95
    after = vector_folder(place)
    store.close()
    monkeypatch.setattr(vectors, "in_child", here)
    again = opened(place)
    assert vector_folder(place) == after
    again.close()


def test_a_fill_that_fails_leaves_words_and_is_tried_again(place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    store = opened(place)
    bulk(store, 30)
    monkeypatch.setattr(vectors, "FILLED_BESIDE", 50)
    monkeypatch.setattr(vectors, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(vectors, "in_child", lambda *_: ("opening it ended a process with status -9", ""))
    index = store._vectors
    assert index._current is not None
    index._broken(index._current, IndexBroken("for the test"))
    assert index.wait(30) == "failed"
    assert "status -9" in caplog.text
    assert store.matching("doc5v1", 3)
    assert visible(store, 5, 1), "few passages are compared"
    monkeypatch.setattr(vectors, "in_child", real_child)
    monkeypatch.setattr(compare, "COMPARED", 0)
    store.nearest(vector(5, 1, 1), 3)
    assert index.wait(60) == "ready"
    assert indexed(store)
    store.close()


def test_closing_ends_a_fill_at_once(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(place)
    bulk(store, 30)
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import sqlite3, time\nconnect = sqlite3.connect\ndef slow(*a, **k): time.sleep(60)\nsqlite3.connect = slow\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(vectors, "FILLED_BESIDE", 50)
    began, real = threading.Event(), real_child
    monkeypatch.setattr(vectors, "in_child", lambda *given: began.set() or real(*given))
    before = vector_folder(place)
    store._vectors._in_background(store._vectors._rebuild)
    assert began.wait(30)
    started = time.monotonic()
    store.close()
    assert time.monotonic() - started < 15
    assert [path for path in place.glob("chroma-*") if path.is_dir()] == [before]


def test_where_half_is_gone_twice_as_many_are_asked_for_at_once(grown: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with grown.many_changes():
        grown.remove_many([identifier(number) for number in range(0, 30, 2)])
        asked: list[int] = []
        nearest = Collection.nearest
        monkeypatch.setattr(Collection, "nearest", lambda self, rows, limit: asked.append(limit) or nearest(self, rows, limit))
        grown.nearest(vector(5, 1, 1), 8)
        assert asked[0] == 2 * (8 + 2 + 1)
        put(grown, 0)
        grown.nearest(vector(5, 1, 1), 8)
        assert asked[-1] < asked[0], "what came again is not gone"


def held_once_filled(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """A new index that is filled is held back before it is put in place: the first event says that it is, the second lets it go on."""
    building, going_on, real = threading.Event(), threading.Event(), vectors.VectorIndex._filled

    def held(self: Any, folder: Path) -> Any:
        made = real(self, folder)
        building.set()
        assert going_on.wait(30)
        return made

    monkeypatch.setattr(vectors.VectorIndex, "_filled", held)
    return building, going_on


def test_a_large_sync_into_an_empty_store_does_not_leave_all_of_it_to_the_end(
    place: Path, monkeypatch: pytest.MonkeyPatch, small_limits: None
) -> None:
    monkeypatch.setattr(vectors, "MERGED", 60)
    monkeypatch.setattr(vectors, "MERGED_FROM", 50)
    monkeypatch.setattr(index_worker, "STEP", 10)
    monkeypatch.setattr(index_worker, "UNWRITTEN", 10)
    merged_here(monkeypatch)
    store = opened(place)
    before = vector_folder(place)
    building, going_on = held_once_filled(monkeypatch)
    with store.many_changes():
        bulk(store, 25)
        assert building.wait(30)
        # More than it learns while writers wait; of it some is new, some replaces what the index has, and some of that goes.
        bulk(store, 10, first=40)
        put(store, 3, 2)
        store.remove(identifier(4))
        going_on.set()
        until(lambda: vector_folder(place) != before)
        waiting = {row[0] for row in store._database.rows("SELECT passage_id FROM pending")}
        assert waiting == {
            one.id for number, version in ((3, 1), (3, 2), (4, 1), *((n, 1) for n in range(40, 50))) for one in parts(number, version)[1]
        }
        assert store._database.meta("written") == str(34 * PARTS)
        assert all(visible(store, number, 1) for number in (1, 2, 24, 40, 49))
        assert visible(store, 3, 2)
        assert gone(store, 3, 1)
        assert gone(store, 4, 1)
        store.finish_sync("/root")
    assert store._database.rows("SELECT * FROM pending") == []
    assert indexed(store)
    assert gone(store, 4, 1)
    assert reached(store, range(40, 50)) > 0.95
    store.close()


def test_where_an_index_finds_less_than_it_holds_all_is_read_through(grown: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    nearest = Collection.nearest
    monkeypatch.setattr(Collection, "nearest", lambda self, rows, limit: [ids[:1] for ids in nearest(self, rows, limit)])
    found = grown.nearest(vector(5, 1, 1), 8)
    exact = sorted((float(vector(5, 1, 1) @ vector(number, 1, part)) for number in range(30) for part in range(PARTS)), reverse=True)[:8]
    assert [cosine for _, cosine in found] == pytest.approx(exact, abs=1e-5)


def test_a_build_that_fails_during_a_sync_is_not_begun_with_each_change(
    place: Path, monkeypatch: pytest.MonkeyPatch, small_limits: None, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(vectors, "MERGED", 60)
    store = opened(place)
    before, begun = vector_folder(place), []

    def full(self: Any, folder: Path) -> Any:
        begun.append(folder)
        raise OSError(28, "No space left on device")

    with store.many_changes():
        with monkeypatch.context() as patched:
            patched.setattr(vectors.VectorIndex, "_filled", full)
            bulk(store, 25)
            until(lambda: store._vectors._refusals and not store._vectors._building.locked())
            for number in range(30, 36):
                put(store, number)
            assert len(begun) == 1
            assert "stays as it is" in caplog.text
            assert store.index_state == "ready"
            assert visible(store, 24, 1)
            assert vector_folder(place) == before
        store._vectors._refused_at -= vectors.MERGED_AGAIN
        put(store, 40)
        until(lambda: vector_folder(place) != before)
        assert store._vectors._refusals == 0
    assert indexed(store)
    store.close()


def test_what_an_index_was_told_while_another_is_built_that_learns_too(place: Path, monkeypatch: pytest.MonkeyPatch, small_limits: None) -> None:
    monkeypatch.setattr(index_worker, "UNWRITTEN", 10)
    monkeypatch.setattr(index_worker, "STEP", 10)
    store = opened(place)
    bulk(store, 20)
    before = vector_folder(place)
    building, going_on = held_once_filled(monkeypatch)
    index = store._vectors

    def build() -> None:
        with index._building:
            index._build()

    index._in_background(build)
    assert building.wait(30)
    store.remove(identifier(3))
    bulk(store, 12, first=30)  # told to the present one at once: so their rows are out of `pending`, and numbers begin anew
    assert store._database.rows("SELECT * FROM pending") == []
    put(store, 5, 2)
    going_on.set()
    until(lambda: vector_folder(place) != before)
    assert index.wait(30) == "ready"
    assert store._database.rows("SELECT * FROM pending") == []
    assert indexed(store)
    assert gone(store, 3, 1)
    assert gone(store, 5, 1)
    assert visible(store, 5, 2)
    assert reached(store, range(30, 42)) > 0.95
    store.close()


def test_where_an_index_has_no_more_nothing_is_read_through(grown: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "MERGED", 1_000)  # it is told nothing of all this
    monkeypatch.setattr(compare.ExactSearch, "scan", lambda *_: pytest.fail("read through"))
    with grown.many_changes():
        grown.remove_many([identifier(number) for number in range(30)])
        bulk(grown, 10, first=100)
        assert all(visible(grown, number, 1) for number in range(100, 110))
        assert len(grown.nearest(vector(105, 1, 0), 25)) == 25
        assert gone(grown, 3, 1)


KILLED = "os.kill(os.getpid(), signal.SIGKILL)"
HELD = "(target.parent / 'held').touch(); time.sleep(60)"


def held_in(place: Path) -> Path | None:
    """The folder that a child process fills, and was held in."""
    # By os.walk(): folders may go meanwhile.
    return next((Path(parent) for parent, _, names in os.walk(place) if "held" in names), None)


def test_a_child_that_is_killed_while_it_merges_leaves_everything_as_it_was(
    grown: Store, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = vector_folder(place)
    a_child_that(KILLED, tmp_path, monkeypatch)
    bulk(grown, 5, first=60)
    grown.finish_sync("/root")
    assert "status -9" in caplog.text
    assert [path for path in place.glob("chroma-*") if path.is_dir()] == [before]
    assert grown.index_state == "ready"
    assert visible(grown, 62, 1)
    merged_here(monkeypatch)
    grown.finish_sync("/root")
    assert grown._database.rows("SELECT * FROM pending") == []
    assert indexed(grown)


def test_closing_or_breaking_ends_a_merge_at_once(grown: Store, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_child_that(HELD, tmp_path, monkeypatch)
    bulk(grown, 5, first=60)
    until(lambda: held_in(place))
    index = grown._vectors
    assert index._current is not None
    started = time.monotonic()
    index._broken(index._current, IndexBroken("for the test"))
    assert index.wait(30) == "ready"
    assert time.monotonic() - started < 15
    until(lambda: held_in(place) is None)
    assert indexed(grown)
    assert visible(grown, 62, 1)
    bulk(grown, 5, first=70)
    until(lambda: held_in(place))
    started = time.monotonic()
    grown.close()
    assert time.monotonic() - started < 5
    merged_here(monkeypatch)
    again = opened(place)
    assert held_in(place) is None
    assert visible(again, 72, 1)
    again.close()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_a_child_that_merges_ends_with_its_parent_and_what_it_made_goes(
    grown: Store, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown.close()
    before = vector_folder(place)
    a_child_that(HELD, tmp_path, monkeypatch)
    code = (
        "import sys; from pathlib import Path; from index import index_worker, vectors; from test_vectors import bulk, opened\n"
        "vectors.MERGED_FROM, index_worker.UNWRITTEN = 50, 10\n"
        "bulk(opened(Path(sys.argv[1])), 5, first=60); __import__('time').sleep(60)"
    )
    paths = [str(tmp_path / "site"), str(HERE.parent), str(HERE)]
    with subprocess.Popen([sys.executable, "-c", code, str(place)], env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}) as asking:
        until(lambda: held_in(place))
        asking.kill()
    until(lambda: not at_work(place))
    assert held_in(place)
    merged_here(monkeypatch)
    again = opened(place)
    assert visible(again, 62, 1)
    until(lambda: not again._vectors._building.locked())
    assert held_in(place) is None
    assert vector_folder(place) != before  # learned on opening
    assert indexed(again)
    again.close()


def test_a_patient_index_opens_when_it_is_waited_for_and_all_is_found_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(opened(tmp_path)) as store:
        put(store, 1, 1)

    monkeypatch.setattr(vectors, "PATIENCE_SECONDS", 3_600.0)
    with closing(Store(tmp_path, "writer@1", patient=True)) as store:
        assert store.nearest(vector(1, 1, 1), 1)[0][0] == parts(1, 1)[1][1].id
        assert store.index_state == "opening"
        assert store.wait_for_index(60) == "ready"
    begun = time.monotonic()
    Store(tmp_path, "writer@1", patient=True).close()
    assert time.monotonic() - begun < 60, "closing ends the wait"
