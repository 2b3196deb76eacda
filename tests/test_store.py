"""Tests of index.store with the real SQLite and the real Chroma: nothing half-visible, nothing lost, and a plain error for each way to fail."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pytest
from conftest import SQLITE, Opening
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from probe_server import ask, serving
from store_writer import DIMENSION, PARTS, ROOT, identifier, in_memory, opened, parts, put, report, vector, visible

from index import compare, shared_vectors, vectors
from index import store as stores
from index.contract import DocumentStore
from index.database import Database
from index.errors import EmbedderChanged, StoreError, StoreInUse, StoreTooNew
from index.split import passage_id
from index.store import QUERY_WORDS, Entry, Store
from index.types import Document, Known, Passage, Span

IDENTITY = "writer@1"
HERE = Path(__file__).resolve().parent


class Killed(KeyboardInterrupt):
    """Stands in for the end of the process: nothing may catch it."""


def killed(*_: object, **__: object) -> None:
    raise Killed


@pytest.fixture
def place() -> Iterator[Path]:
    with in_memory() as folder:
        yield folder / "data"


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> str:
    """What the contract says holds for a store of one machine and for a shared one."""
    return str(request.param)


@pytest.fixture(scope="module", autouse=True)
def fast_probes() -> Iterator[None]:
    with serving() as address, pytest.MonkeyPatch.context() as patched:
        patched.setattr(vectors, "probe", ask(address))
        yield


@pytest.fixture
def store(place: Path, opening: Opening) -> Iterator[DocumentStore]:
    store = opening(place, IDENTITY)
    assert store.wait_for_index(60) == "ready"
    yield store
    store.close()


def reopened(store: Store) -> Store:
    store.close()
    return opened(store.folder)


def filled(place: Path, count: int = 3) -> Path:
    """A closed store of some documents; returns its SQLite file."""
    store = Store(place, IDENTITY)
    for number in range(count):
        put(store, number)
    store.close()
    return place / "citewell.sqlite3"


def script(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=HERE.parent,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
    )


# Visible and gone


def test_a_document_is_visible_at_once_replaced_at_once_and_gone_at_once(store: DocumentStore) -> None:
    put(store, 1)
    put(store, 2)
    assert visible(store, 1, 1)
    put(store, 1, version=2)
    assert visible(store, 1, 2)
    assert not visible(store, 1, 1)
    store.remove(identifier(1))
    assert not visible(store, 1, 2)
    assert visible(store, 2, 1)
    assert [document.id for document in store.documents()] == [identifier(2)]
    assert store.passage_count() == PARTS


def test_several_vectors_find_what_each_of_them_finds(store: DocumentStore) -> None:
    for number in range(6):
        put(store, number)
    store.set_owner(identifier(3), "ann")
    asked = np.stack([vector(number, 1, 0) for number in range(6)])
    for more in ((), ([identifier(1), identifier(3)],), (None, "ben"), ([],)):
        each = store.nearest_each(asked, 4, *more)
        assert [[one for one, _ in found] for found in each] == [[one for one, _ in store.nearest(row, 4, *more)] for row in asked]
        assert len(each) == len(asked)
    assert [found[0][0] for found in store.nearest_each(asked, 1)] == [parts(number, 1)[1][0].id for number in range(6)]


@SQLITE
def test_a_syncs_changes_are_whole_whoever_makes_them(store: Store) -> None:
    """Those of one machine's store are made by another thread, which stands back."""
    names: list[str] = []
    document, passages, keys, _ = parts(2, 1)

    def noticed(change: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **named: names.append(threading.current_thread().name) or change(*given, **named)

    with pytest.MonkeyPatch.context() as patched, store.many_changes():
        for name in ("insert_document", "remove_document"):
            patched.setattr(stores, name, noticed(getattr(stores, name)))
        put(store, 1)
        assert visible(store, 1, 1), "at once"
        with pytest.raises(StoreError, match="without its vector"):
            store.put_many([Entry(document, ROOT, passages, keys)], {})
        with store.many_changes():
            put(store, 3)
        store.remove(identifier(1))
        assert store.forget_unused_vectors() == PARTS
    assert len(names) == 4
    assert {name.rpartition("_")[0] for name in names} == {"citewell-changes"}
    put(store, 4)
    assert [info.id for info in store.documents()] == [identifier(3), identifier(4)]
    with store.many_changes():
        store.close()
        with pytest.raises(StoreError, match="closed"):
            put(store, 6)


def test_the_latest_documents_are_told_without_the_others(store: DocumentStore) -> None:
    for number in range(5):
        put(store, number)
    put(store, 1, version=2)
    store.set_owner(identifier(4), "ann")
    assert {info.id for info in store.latest(2)} == {identifier(1), identifier(4)}
    assert {info.id for info in store.latest(2, "ben")} == {identifier(1), identifier(3)}
    assert {info.id: info.owner for info in store.latest(9, "ann")} == {identifier(n): "ann" if n == 4 else None for n in range(5)}
    assert store.latest(9) == sorted(store.documents(), key=lambda info: info.indexed_at, reverse=True)
    store.remove(identifier(1))
    assert {info.id for info in store.latest(2)} == {identifier(3), identifier(4)}


def test_documents_are_named_by_their_ids_and_sources(store: DocumentStore) -> None:
    for number in range(3):
        put(store, number)
    document, passages, keys, _ = parts(1, 1)
    twin = replace(document, id="twin")
    store.put_many([Entry(twin, "/elsewhere", [replace(one, id=f"twin{one.id}", document_id="twin") for one in passages], keys)], {})
    posing = parts(7, 1)[0]  # whose source is another's id
    store.put_many([Entry(replace(posing, source=identifier(2)), ROOT, [], [])], {})
    store.set_owner(identifier(0), "ann")
    named = store.ids_of([identifier(0), document.source, identifier(2), "nothing", "nothing\0"])
    assert {name: sorted(ids) for name, ids in named.items()} == {
        identifier(0): [identifier(0)],
        document.source: sorted([identifier(1), "twin"]),
        identifier(2): [identifier(2)],
    }
    assert store.ids_of([identifier(0), identifier(1)], "ben") == {identifier(1): [identifier(1)]}
    assert store.ids_of([]) == {}


def test_everything_is_there_after_reopening(store: DocumentStore, opening: Opening) -> None:
    put(store, 1)
    put(store, 2)
    store.remove(identifier(2))
    store.close()
    again = opening(store.folder, IDENTITY)
    assert visible(again, 1, 1)
    assert not visible(again, 2, 1)
    again.close()


def test_what_is_stored_comes_back_as_it_was(store: DocumentStore) -> None:
    put(store, 7)
    document, passages, keys, made = parts(7, 1)
    assert store.text(document.id) == document.text
    assert store.passages([passage.id for passage in passages]) == {passage.id: passage for passage in passages}
    assert store.edges(document.id) == [passages[0], passages[-1]]
    assert store.fingerprints(ROOT) == {document.source: (document.id, document.fingerprint)}
    info = store.info(document.id)
    assert (info.source, info.title, info.size, info.passages) == (document.source, document.title, len(document.text), PARTS)
    known = store.vectors_by_content([*keys, b"unknown"])
    assert all(np.array_equal(known[key], one) for key, one in zip(keys, made, strict=True))
    assert b"unknown" not in known


def test_unknown_documents_are_key_errors(store: DocumentStore) -> None:
    for use in (store.text, store.info, store.remove):
        with pytest.raises(KeyError):
            use("nobody")
    assert store.edges("nobody") == []
    assert store.passages(["nobody"]) == {}


def test_an_empty_store_finds_nothing(store: DocumentStore) -> None:
    assert store.nearest(vector(1, 1, 1), 5) == []
    assert store.matching("doc1", 5) == []
    assert store.documents() == []


def test_the_limit_and_the_documents_narrow_both_searches(store: DocumentStore) -> None:
    for number in range(60):
        put(store, number)
    assert len(store.nearest(vector(1, 1, 1), 7)) == 7
    assert len(store.matching("part1 part2", 7)) == 7
    assert store.nearest(vector(1, 1, 1), 0) == []
    for number in range(60):
        expected = {passage.id for passage in parts(number, 1)[1]}
        assert {one for one, _ in store.nearest(vector(1, 1, 1), 50, [identifier(number)])} == expected
        assert {one for one, _ in store.matching("part0 part1 part2", 50, [identifier(number)])} == expected
    assert store.nearest(vector(1, 1, 1), 5, []) == store.nearest(vector(1, 1, 1), 5, ()) == []
    assert store.matching("part1", 5, []) == store.matching("part1", 5, ()) == []
    assert store.matching("part1", 5, [f"no{number}" for number in range(40_000)]) == []


def test_nearest_comes_in_order_of_cosine_similarity(store: DocumentStore) -> None:
    for number in range(40):
        put(store, number)
    asked = vector(99, 1, 1)
    exact = sorted((float(asked @ vector(number, 1, part)) for number in range(40) for part in range(PARTS)), reverse=True)
    assert [similarity for _, similarity in store.nearest(asked, 10)] == pytest.approx(exact[:10], abs=1e-5)


def test_rejected_files_are_remembered_until_they_are_documents(store: DocumentStore) -> None:
    put(store, 1)
    store.reject(ROOT, "1.txt", "it broke")
    store.reject("/other", "x.txt", "it is binary")
    assert not visible(store, 1, 1)
    assert store.rejected() == {"1.txt": "it broke", "x.txt": "it is binary"}
    assert store.rejected(ROOT) == {"1.txt": "it broke"}
    put(store, 1, 2)
    assert store.rejected(ROOT) == {}
    store.forget_rejected("/other", ["x.txt"])
    assert store.rejected() == {}


def entry(number: int, version: int = 1, **more: Any) -> Entry:
    document, passages, keys, _ = parts(number, version)
    return Entry(document, ROOT, passages, keys, **more)


def test_many_documents_become_visible_at_once_or_none_does(store: DocumentStore) -> None:
    put(store, 1)
    made = {key: row for number in (1, 2, 3) for key, row in zip(parts(number, 2)[2], parts(number, 2)[3], strict=True)}
    lacking = {key: row for key, row in made.items() if key != parts(3, 2)[2][1]}
    with pytest.raises(StoreError, match=r"'3\.txt' came without its vector. Nothing was changed"):
        store.put_many([entry(1, 2), entry(2, 2), entry(3, 2)], lacking)
    assert visible(store, 1, 1)
    assert [document.id for document in store.documents()] == [identifier(1)]
    store.put_many([entry(1, 2), entry(2, 2), entry(3, 2)], made)
    assert all(visible(store, number, 2) for number in (1, 2, 3))
    assert not visible(store, 1, 1)
    store.remove_many([identifier(1), identifier(3), "nobody"])
    assert [document.id for document in store.documents()] == [identifier(2)]
    store.put_many([], {b"alone": vector(9, 9, 9)})
    assert store.known_keys([b"alone", b"none"]) == {b"alone"}


def test_vectors_are_shared_and_wait_for_the_end_of_a_sync(store: DocumentStore) -> None:
    put(store, 1)
    _, _, keys, made = parts(1, 1)
    assert store.known_keys([*keys, b"none"]) == set(keys)
    store.remove(identifier(1))
    assert store.known_keys(keys) == set(keys)
    # The same content in two documents of another name, with no vector given.
    document, passages, _, _ = parts(1, 1)
    for name in ("a", "b"):
        moved = [replace(passage, id=f"{name}{passage.id}", document_id=name, source=name) for passage in passages]
        store.put_many([Entry(replace(document, id=name, source=name), ROOT, moved, keys)], {})
    assert {one for one, similarity in store.nearest(made[1], 2) if similarity > 0.999} == {f"a{passages[1].id}", f"b{passages[1].id}"}
    store.remove("a")
    assert store.forget_unused_vectors() == 0
    store.remove("b")
    assert store.forget_unused_vectors() == PARTS
    assert store.known_keys(keys) == set()


def test_what_is_known_of_files_comes_back(store: DocumentStore) -> None:
    document = replace(parts(1, 1)[0], size=1234, titled=False, pages=(0, 19, 40), furniture=(Span(0, 4), Span(20, 24)))
    _, passages, keys, made = parts(1, 1)
    passages = [replace(passages[0], pages=((0, 1),)), replace(passages[1], pages=((19, 2), (30, 3))), passages[2]]
    store.put_many([Entry(document, ROOT, passages, keys, "stamp", 7)], dict(zip(keys, made, strict=True)))
    store.reject(ROOT, "x.pdf", "it is broken", "feed", "later", 8)
    store.reject("/other", "y.pdf", "it is empty")
    assert store.known(ROOT) == {"1.txt": Known(identifier(1), "1.1", "stamp", 7), "x.pdf": Known("", "feed", "later", 8, "it is broken")}
    many = [f"{number}.txt" for number in range(2_000)]
    assert store.known(ROOT, []) == {}
    assert store.known(ROOT, ["x.pdf", "y.pdf"]) == {"x.pdf": Known("", "feed", "later", 8, "it is broken")}
    assert store.known(ROOT, many) == {"1.txt": Known(identifier(1), "1.1", "stamp", 7)}
    store.touch(ROOT, {"1.txt": "new", "x.pdf": "newer", "nowhere": "lost"})
    assert [store.known(ROOT)[source].stamp for source in ("1.txt", "x.pdf")] == ["new", "newer"]
    assert store.roots() == ["/other", ROOT]
    assert [(one.root, one.source, one.reason) for one in store.rejections()] == [(ROOT, "x.pdf", "it is broken"), ("/other", "y.pdf", "it is empty")]
    assert [one.source for one in store.rejections(ROOT)] == ["x.pdf"]
    assert store.rejections()[0].at.endswith("+00:00")
    assert store.document(identifier(1)) == document
    assert store.furniture(identifier(1)) == (Span(0, 4), Span(20, 24))
    assert store.pages(identifier(1)) == (0, 19, 40)
    assert store.document_file(identifier(1)) == (ROOT, "1.txt", "1.1")
    info = store.info(identifier(1))
    assert (info.root, info.bytes, info.pages, info.size) == (ROOT, 1234, 3, len(document.text))
    assert store.edges(identifier(1)) == [passages[0], passages[2]]
    assert store.passages([passages[1].id])[passages[1].id].pages == ((19, 2), (30, 3))
    for ask_for in (store.furniture, store.pages, store.document_file, store.document):
        with pytest.raises(KeyError):
            ask_for("nobody")


def test_a_document_without_passages_is_listed_and_found_by_nothing(store: DocumentStore) -> None:
    store.put_many([Entry(Document("bare", "bare.txt", "Bare", "menu", "f", furniture=(Span(0, 4),)), ROOT, [], [])], {})
    assert store.info("bare").passages == 0
    assert store.edges("bare") == []
    assert store.matching("menu bare", 5) == []


@SQLITE
def test_a_listing_reads_no_texts(store: Store) -> None:
    text = "x" * 3_000_000
    for number in range(8):
        store.put_many([Entry(Document(f"big{number}", f"{number}.txt", "Big", text, "f"), ROOT, [], [])], {})
    started = time.monotonic()
    for _ in range(20):
        assert {document.size for document in store.documents()} == {3_000_000}
    listing = time.monotonic() - started
    started = time.monotonic()
    store._database.rows("SELECT sum(length(text)) FROM documents")
    assert listing < 20 * (time.monotonic() - started)


# Words


@pytest.mark.parametrize(
    "question",
    [
        '"doc1', 'doc1"', '"doc1" AND', "doc1 AND OR NOT", "NEAR(doc1 part1, 2)", "doc1*", "^doc1", "text:doc1", "-doc1", "doc1 + x", "(doc1", "doc1)", "{doc1} : [x]",
        "doc1; DROP TABLE words; --", "'doc1'", "doc1\x00\x01\x1b[0m", "\\doc1\\", "doc1 \ud800 \udcff", "🎉 doc1 🎉", "doc1%_?", "doc1’s “part1”", "context:doc1 text:",
    ],
)  # fmt: skip
def test_operators_in_a_question_do_no_harm(store: DocumentStore, question: str) -> None:
    put(store, 1)
    put(store, 2)
    assert {one for one, _ in store.matching(question, 50)} >= {passage.id for passage in parts(1, 1)[1]}


@pytest.mark.parametrize("question", ["", "   ", '"', "AND OR NOT", "?!*", "\x00", "what is it", "()", "zebra", "NEAR"])
def test_questions_without_known_words_find_nothing(store: DocumentStore, question: str) -> None:
    put(store, 1)
    assert store.matching(question, 50) == []


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store(tmp_path_factory.mktemp("shared"), IDENTITY)
    put(store, 1)
    yield store
    store.close()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text())
def test_no_question_breaks_the_word_search(shared: Store, question: str) -> None:
    assert {one for one, _ in shared.matching(f"doc1 {question}", 50)} == {passage.id for passage in parts(1, 1)[1]}


def test_a_very_long_question_is_answered_in_time(store: DocumentStore) -> None:
    put(store, 1)
    started = time.monotonic()
    assert len(store.matching("doc1 " + " ".join(f"word{number}" for number in range(100_000)), 5)) == PARTS
    assert len(store.matching("doc1 " * 200_000, 5)) == PARTS
    assert time.monotonic() - started < 10
    assert QUERY_WORDS < 10_000  # FTS5 would refuse, or take minutes


def put_words(store: Store, number: int, *texts: str) -> list[str]:
    """A document of passages with these texts; returns their ids."""
    document = Document(identifier(number), f"{number}.txt", "", "\n".join(texts), str(number))
    passages, start = [], 0
    for text in texts:
        span = Span(start, start + len(text))
        start = span.end + 1
        passages.append(Passage(passage_id(document.id, span, text), document.id, document.source, "", "", span, text))
    keys = [text.encode() + bytes([number, place]) for place, text in enumerate(texts)]
    store.put(document, ROOT, passages, keys, np.stack([vector(number, 1, place) for place in range(len(texts))]))
    return [passage.id for passage in passages]


def matched(store: Store, question: str, *chosen: Any, **named: Any) -> list[str]:
    return [one for one, _ in store.matching(question, 10, *chosen, **named)]


def test_of_a_question_the_rarest_words_are_ranked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    many = put_words(store, 1, *(f"harbour light number {number}" for number in range(20)))
    rare = put_words(store, 2, *(f"harbour whale {number}" for number in range(12)))
    put_words(store, 4, *(f"nothing of note {number}" for number in range(40)))
    monkeypatch.setattr(stores, "RANKED", 12)
    for asked in ("harbour light whale", "whale light harbour"):
        assert set(matched(store, asked)) < set(rare)
        assert set(matched(store, asked, viewer="ann")) < set(rare)
    assert set(matched(store, "whale nowhere")) < set(rare)
    monkeypatch.setattr(stores, "RANKED", 2)
    # None of its words fits: those passages come first that hold the two rarest, then those that hold the rarest.
    assert set(matched(store, "harbour light")) < set(many)
    both = put_words(store, 3, "the whale and the light")
    assert matched(store, "whale light harbour")[0] == both[0]
    assert len(matched(store, "whale light harbour")) == 10


def test_words_that_stand_nowhere_or_say_nothing_leave_others_their_place(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [put_words(store, number, *(f"battery cell {number} {place}" for place in range(3)))[0] for number in range(6)]
    plain = [put_words(store, number, f"another cell {number}")[0] for number in range(6, 12)]
    odd = put_words(store, 12, "Voltrom, a misprint")[0]
    both = put_words(store, 13, "the battery is replaced once a year")[0]
    monkeypatch.setattr(stores, "RANKED", 5)
    assert len(matched(store, "Voltron battery")) == 10
    assert set(matched(store, "battery Voltron cell")) & set(many)
    found = matched(store, "Voltrom battery cell")
    assert found[0] == odd
    assert len(found) == 10
    assert not set(found) & set(plain)
    assert both in matched(store, "battery replaced")[:1]
    assert matched(store, "nowhere never") == []


@SQLITE
def test_the_rarest_of_frequent_words_is_told_however_frequent_it_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, (word, times) in enumerate({"harbour": 70, "light": 40, "whale": 30}.items()):
        put_words(store, number, *(f"{word} {place}" for place in range(times)))
    both = put_words(store, 5, "a whale by the light")
    monkeypatch.setattr(stores, "RANKED", 2)
    for asked in ("harbour light whale", "whale light harbour"):
        found = store.matching(asked, 50)
        assert found[0][0] == both[0]
        assert len(found) == 31, "the whales, and neither harbour nor light alone"


@SQLITE
def test_a_word_is_counted_again_when_something_has_changed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "RANKED", 5)
    monkeypatch.setattr(stores, "ENOUGH", 1)
    harbour = put_words(store, 1, *(f"harbour {number}" for number in range(8)))
    whale = put_words(store, 2, *(f"whale {number}" for number in range(3)))
    put_words(store, 3, *(f"nothing of note {number}" for number in range(40)))
    counts: list[str] = []
    rows = store._database.rows
    monkeypatch.setattr(store._database, "rows", lambda statement, *more: (counts.append(statement), rows(statement, *more))[1])
    for times in (1, 2):
        assert set(matched(store, "whale harbour")) == set(whale), "the rarer of the two"
        words = [statement for statement in counts if "count(" in statement and "words MATCH" in statement]  # and not what the index counts meanwhile
        assert len(words) == 2, f"each word once, when asked {times} times"
    put_words(store, 4, *(f"another whale {number}" for number in range(10)))
    assert set(matched(store, "whale harbour")) == set(harbour), "which is now the other"
    store.remove(identifier(4))
    assert set(matched(store, "whale harbour")) == set(whale)


def test_of_few_documents_every_word_is_ranked_however_often_it_stands_in_others(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "RANKED", 5)
    monkeypatch.setattr(compare, "COMPARED_OF_CHOSEN", 6)
    for number in range(20):
        put_words(store, number, f"pump and valve {number}", f"seal {number}")
        store.set_owner(identifier(number), "ben")
    own = put_words(store, 30, "the pump", "the valve", "the pump, the valve and the seal")
    store.set_owner(identifier(30), "ann")
    everything = [own[2], *own[:2]]
    for question in ("pump valve seal", "valve seal pump", "seal pump valve nowhere"):
        found = matched(store, question, viewer="ann")
        assert found[0] == everything[0]
        assert set(found) == set(everything)
        assert matched(store, question, [identifier(30)]) == found
        assert matched(store, question, [identifier(30), identifier(3)], viewer="ann") == found
        assert matched(store, question, [identifier(3)], viewer="ann") == []
    # One who sees more than a few gets what they may see, however the words were chosen.
    monkeypatch.setattr(compare, "COMPARED_OF_CHOSEN", 2)
    monkeypatch.setattr(shared_vectors, "COMPARED_OF_CHOSEN", 2)
    index = store._vectors
    getattr(index, "exact", index)._many = (-1, set())
    assert set(matched(store, "pump valve seal", viewer="ann")) <= set(own)
    assert matched(store, "pump valve seal", viewer="ann")


@pytest.mark.parametrize(
    "word", ["skies", "dying", "generously", "한국어", "がっこう", "ﬁnance", "Übergröße", "Z.ai", "M2.5", "naïve", "Schneider's", "ætt", "½", "x²"]
)
def test_a_word_of_a_text_finds_it(store: DocumentStore, word: str) -> None:
    document, passages, keys, made = parts(1, 1)
    text = f"Here stands {word} indeed."
    changed = [replace(passages[0], text=text), *passages[1:]]
    store.put(replace(document, text=text + document.text), ROOT, changed, keys, made)
    assert [one for one, _ in store.matching(f"What is {word}?", 1)] == [passages[0].id]


# Failing midway


@SQLITE
@pytest.mark.parametrize("before", [False, True], ids=["new", "replaced"])
def test_a_put_that_fails_midway_changes_nothing(store: Store, before: bool) -> None:
    if before:
        put(store, 1, 1)
    document, passages, keys, made = parts(1, 2)
    with pytest.raises(ValueError, match="zip"):
        store.put(document, ROOT, passages, keys, made[:2])
    store._database.connection.execute(
        "CREATE TEMP TRIGGER failing BEFORE INSERT ON main.passages WHEN NEW.start_at > 20 BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END"
    )
    with pytest.raises(StoreError, match=r"disk I/O error.*Nothing was changed"):
        store.put(document, ROOT, passages, keys, made)
    store._database.connection.execute("DROP TRIGGER failing")
    again = reopened(store)
    assert visible(again, 1, 1) is before
    assert not visible(again, 1, 2)
    put(again, 1, 2)
    assert visible(again, 1, 2)
    again.close()


@SQLITE
def test_a_full_disk_is_a_plain_error_and_loses_nothing(store: Store) -> None:
    put(store, 1)
    (pages,) = store._database.connection.execute("PRAGMA page_count").fetchone()
    store._database.connection.execute(f"PRAGMA max_page_count = {pages + 1}")
    number = 1
    with pytest.raises(StoreError, match=r"full.*free disk space"):  # noqa: PT012 - which one fails depends on the page size
        while number < 500:
            number += 1
            put(store, number)
    assert all(visible(store, written, 1) for written in range(1, number))
    assert not visible(store, number, 1)
    store._database.connection.execute("PRAGMA max_page_count = 1000000")
    put(store, number)
    assert visible(store, number, 1)


def settled(store: Store) -> None:
    """Waits until its index is open, and has been told in the background of what came before that: afterwards whoever changes something tells it."""
    for thread in store._vectors._threads:
        thread.join(30)
    assert store.wait_for_index(0) == "ready"


@SQLITE
@pytest.mark.parametrize("moment", ["upsert", "delete"])
def test_a_kill_between_sqlite_and_chroma_is_made_good_on_opening(store: Store, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    for number in (1, 2, 3):
        put(store, number)
    settled(store)
    with monkeypatch.context() as patched:
        patched.setattr(chromadb.Collection, moment, killed)
        with pytest.raises(Killed):
            put(store, 1, version=2)  # replacing takes an upsert and a delete
        with pytest.raises(Killed):
            store.remove(identifier(2)) if moment != "upsert" else put(store, 4)
    again = reopened(store)
    assert visible(again, 1, 2)
    assert not visible(again, 1, 1)
    assert visible(again, 2, 1) is (moment == "upsert")
    assert visible(again, 3, 1)
    assert visible(again, 4, 1) is (moment == "upsert")
    again.close()


@SQLITE
def test_a_kill_after_chroma_has_learnt_but_before_that_is_noted_is_harmless(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, 1)
    settled(store)
    real = Database.transaction
    transactions = iter([real, killed])
    with monkeypatch.context() as patched:
        patched.setattr(Database, "transaction", lambda self: next(transactions)(self))
        with pytest.raises(Killed):
            put(store, 1, version=2)
    again = reopened(store)
    assert visible(again, 1, 2)
    assert not visible(again, 1, 1)
    again.close()


# Refused


def test_a_store_from_the_future_is_left_alone(place: Path) -> None:
    path = filled(place)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreTooNew, match=r"99.*Update Citewell"):
        Store(place, IDENTITY)


def test_another_embedder_is_refused_where_there_are_vectors(place: Path, opening: Opening) -> None:
    store = opening(place, IDENTITY)
    put(store, 1)
    store.close()
    with pytest.raises(EmbedderChanged, match=r"writer@1.*other@2"):
        opening(place, "other@2")
    opening(place, IDENTITY).close()


@pytest.mark.parametrize("dimension", [DIMENSION, DIMENSION * 2])
def test_an_empty_store_adopts_another_embedder(place: Path, dimension: int, opening: Opening) -> None:
    store = opening(place, IDENTITY)
    put(store, 0)
    store.remove(identifier(0))
    store.close()
    store = opening(place, "other@2")
    document, passages, keys, _ = parts(1, 1)
    made = np.eye(PARTS, dimension, dtype=np.float32)
    store.put(document, ROOT, passages, keys, made)
    assert store.nearest(made[1], 1)[0][0] == passages[1].id
    store.close()
    with pytest.raises(EmbedderChanged):
        opening(place, IDENTITY)
    opening(place, "other@2").close()


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match="CITEWELL_DATA_DIR"):
            Store(place, IDENTITY)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_a_store_error(place: Path) -> None:
    filled(place)
    place.chmod(0o500)
    try:
        with pytest.raises(StoreError, match="CITEWELL_DATA_DIR"):
            Store(place, IDENTITY)
    finally:
        place.chmod(0o700)


# One owner


@SQLITE
def test_a_second_store_is_told_who_owns_the_folder(store: Store) -> None:
    started = time.monotonic()
    with pytest.raises(StoreInUse, match=f"pid {os.getpid()}") as caught:
        Store(store.folder, IDENTITY)
    assert caught.value.address is None
    store.announce("http://127.0.0.1:7860")
    with pytest.raises(StoreInUse, match=r"answers at http://127\.0\.0\.1:7860") as caught:
        Store(store.folder, IDENTITY)
    assert caught.value.address == "http://127.0.0.1:7860"
    assert time.monotonic() - started < 1
    put(store, 1)
    assert visible(store, 1, 1)


@SQLITE
@pytest.mark.parametrize("note", ["", "[]", "7", "{", '{"pid": null}', "\x00"])
def test_a_strange_note_about_the_owner_does_no_harm(store: Store, note: str) -> None:
    (store.folder / "owner.json").write_text(note)
    with pytest.raises(StoreInUse, match="another Citewell process"):
        Store(store.folder, IDENTITY)


TRY = """
import sys
from pathlib import Path
from index.errors import StoreInUse
from index.store import Store
try:
    Store(Path(sys.argv[1]), "writer@1")
except StoreInUse as error:
    print(error.address)
"""

HOLD = """
import sys, time
from pathlib import Path
sys.path.insert(0, "tests")
from probe_server import ask, serving
from store_writer import Store, put
store = Store(Path(sys.argv[1]), "writer@1")
put(store, 1)
store.announce("http://there")
print("ready", flush=True)
time.sleep(60)
"""


ENDS = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from index import seal
from store_writer import opened, put
seal.PART, seal.BLOCK = 4096, 1024
store = opened(Path(sys.argv[1]))
put(store, 1)
"""


def test_a_process_that_ends_without_closing_leaves_seals_of_large_files_too(place: Path) -> None:
    with script(ENDS, place) as ending:
        assert ending.wait(60) == 0
    assert [path.parent.name for path in sorted(place.rglob("seal.json"))] == ["chroma-1", place.name]
    assert not (place / "owner.json").exists()


@SQLITE
def test_another_process_is_told_the_address(store: Store) -> None:
    store.announce("http://here")
    assert script(TRY, store.folder).communicate(timeout=60)[0] == "http://here\n"


def test_the_folder_of_a_killed_owner_opens(place: Path) -> None:
    owner = script(HOLD, place)
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "ready\n"
        with pytest.raises(StoreInUse) as caught:
            Store(place, IDENTITY)
        assert caught.value.address == "http://there"
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.communicate()
    store = Store(place, IDENTITY)
    assert visible(store, 1, 1)
    store.close()


def test_100_kills_at_any_moment_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    log = tmp_path / "log"
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    with in_memory() as folder:
        subprocess.run(
            [sys.executable, str(HERE / "store_writer.py"), str(folder / "store"), str(log), "100"], check=True, timeout=500, env=environment
        )
    kills, checks, opening, ready = report(log.read_text())
    assert kills == 101
    assert checks > 60  # the others were killed while opening, and the next one checked
    assert log.read_text().count("\ndone ") > 200
    # Of those checks some found a large index that had still to learn what was done last.
    assert sum(line.startswith("untold ") and line != "untold 0" for line in log.read_text().splitlines()) > 5
    assert opening < 10
    assert ready < 10


def test_50_disks_that_fill_up_lose_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    with in_memory() as folder:
        done = subprocess.run(
            [sys.executable, str(HERE / "store_full.py"), str(folder), "50"], capture_output=True, text=True, timeout=500, env=environment
        )
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-2_000:]
    lines = done.stdout.splitlines()
    assert len(lines) == 50
    for kind in ("opening", "writing", "indexing", "reopening"):
        assert sum(kind in line for line in lines) > 1, kind


# Threads and closing


def test_readers_are_never_disturbed_by_a_writer(store: DocumentStore) -> None:
    put(store, 0)
    failures: list[BaseException] = []
    done = threading.Event()
    looked = [0]

    def look() -> None:
        try:
            while not done.is_set():
                assert store.nearest(vector(0, 1, 1), 1)[0][1] > 0.999
                found = [one for one, _ in store.matching("doc1", 50)]
                assert len(found) in (0, PARTS)
                for passage in store.passages(found).values():
                    assert passage.text.startswith("doc1 doc1v")
                looked[0] += 1
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()
    end = time.monotonic() + 1.5
    version = 0
    while time.monotonic() < end and not failures:
        version += 1
        put(store, 1, version)
        if version % 3 == 0:
            store.remove(identifier(1))
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert looked[0] > 3
    assert version > 3


def test_several_writers_take_turns(store: DocumentStore) -> None:
    failures: list[BaseException] = []

    def write(first: int) -> None:
        try:
            for number in range(first, first + 8):
                put(store, number)
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(100 * one,)) for one in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failures == []
    assert all(visible(store, 100 * one + number, 1) for one in range(3) for number in range(8))


@SQLITE
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
def test_threads_that_have_ended_leave_no_files_open(store: Store) -> None:
    for _ in range(30):
        thread = threading.Thread(target=store.documents)
        thread.start()
        thread.join()
    opened = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink() and os.readlink(path) == str(store.folder / "citewell.sqlite3")]
    assert len(opened) < 10


@SQLITE
def test_closing_twice_is_harmless_and_gives_the_folder_back(store: Store) -> None:
    put(store, 1)
    store.close()
    store.close()
    assert not (store.folder / "owner.json").exists()
    again = Store(store.folder, IDENTITY)
    store.close()
    with pytest.raises(StoreInUse):
        Store(store.folder, IDENTITY)
    again.close()


@pytest.mark.parametrize(
    "use",
    [
        lambda store: put(store, 2),
        lambda store: store.remove(identifier(1)),
        lambda store: store.reject(ROOT, "1.txt", "reason"),
        lambda store: store.forget_rejected(ROOT, []),
        lambda store: store.text(identifier(1)),
        lambda store: store.documents(),
        lambda store: store.fingerprints(ROOT),
        lambda store: store.rejected(),
        lambda store: store.passage_count(),
        lambda store: store.passages(["x"]),
        lambda store: store.edges(identifier(1)),
        lambda store: store.vectors_by_content([b"x"]),
        lambda store: store.nearest(vector(1, 1, 1), 1),
        lambda store: store.matching("doc1", 1),
        lambda store: store.announce("http://late"),
    ],
    ids=["put", "remove", "reject", "forget_rejected", "text", "documents", "fingerprints", "rejected", "passage_count", "passages", "edges", "vectors", "nearest", "matching", "announce"],
)  # fmt: skip
def test_a_closed_store_says_so(place: Path, use: Callable[[DocumentStore], Any], opening: Opening) -> None:
    store = opening(place, IDENTITY)
    store.close()
    with pytest.raises(StoreError, match="has been closed"):
        use(store)


def test_closing_while_others_read_is_a_store_error_at_worst(store: DocumentStore) -> None:
    for number in range(5):
        put(store, number)
    failures: list[BaseException] = []

    def look() -> None:
        try:
            while True:
                store.nearest(vector(1, 1, 1), 3)
                store.matching("doc1 part1", 5)
        except StoreError:
            return
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()
    time.sleep(0.3)
    store.close()
    for reader in readers:
        reader.join(10)
        assert not reader.is_alive()
    assert failures == []


def test_a_store_closed_by_another_thread_is_free(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", "fake@1")
    closer = threading.Thread(target=store.close)
    closer.start()
    closer.join()
    Store(tmp_path / "s", "fake@1").close()
