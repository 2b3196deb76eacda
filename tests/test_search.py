"""Tests of index.search: the fusion of two rankings, and that either of them alone brings the right passage up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FakeEmbedder
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.contract import DocumentStore
from index.search import NEAR_ENOUGH, Query, fuse, search
from index.sync import sync
from index.types import Passage
from index.visible import Visible

SCORES = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 1))


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> str:
    """What the contract says holds for a store of one machine and for a shared one."""
    return str(request.param)


class Topics(FakeEmbedder):
    """Knows two topics by lists of words, and so finds what shares no word with the question."""

    WORDS = (("lander", "grumman", "spacecraft", "cosmos"), ("tea", "brewed", "beverage", "infusion"))

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.embedded.extend(texts)
        vectors = np.array([[0.01 + sum(word in text.lower() for word in topic) for topic in self.WORDS] for text in texts], dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Blank(FakeEmbedder):
    """Knows no meaning at all: every text has the same vector."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.tile(np.array([1.0, 0.0], dtype=np.float32), (len(texts), 1))


def test_fused_scores_are_shares_of_the_best() -> None:
    fused = fuse({"a": 0.8, "b": 0.4}, {"b": 3.0, "c": 6.0}, share=0.6)
    assert fused == pytest.approx({"a": 0.6, "b": 0.6 * 0.5 + 0.4 * 0.5, "c": 0.6 * 0.5 + 0.4})


def test_what_only_words_found_is_no_nearer_than_the_farthest_that_meaning_found() -> None:
    assert fuse({"a": 0.9, "b": 0.3}, {"c": 1.0}, share=1.0)["c"] == pytest.approx(1 / 3)


def test_each_half_answers_alone() -> None:
    assert fuse({}, {"a": 2.0, "b": 1.0}) == pytest.approx({"a": 0.4, "b": 0.2})
    assert fuse({"a": 0.5}, {}) == pytest.approx({"a": 0.6})
    assert fuse({}, {}) == {}
    assert fuse({"a": -0.2, "b": -0.1}, {}) == {"a": 0.0, "b": 0.0}


@given(SCORES, SCORES)
def test_fusion_names_everything_once_and_keeps_the_order_of_each_half(meaning: dict[str, float], words: dict[str, float]) -> None:
    fused = fuse(meaning, words)
    assert set(fused) == set(meaning) | set(words)
    assert all(0 <= score <= 1 + 1e-9 for score in fused.values())
    alone = fuse(meaning, {})
    assert all((alone[one] > alone[other]) <= (meaning[one] > meaning[other]) for one in meaning for other in meaning)


def test_several_queries_are_weighed(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    sync(store, embedder, folder)
    for weights, first in (((1.0, 0.2), "apollo.md"), ((0.2, 1.0), "tea.txt")):
        queries = [Query("Who built Apollo?", weights[0]), Query("boiling water for tea", weights[1])]
        assert search(store, embedder, queries)[0].passage.source == first


def synced_hops(store: DocumentStore, embedder: FakeEmbedder, tmp_path: Path) -> Path:
    """A folder, synced, in which a song's document leads to its singer's, among others that share the question's words."""
    folder = tmp_path / "hops"
    folder.mkdir()
    (folder / "song.txt").write_text("Crimson Tide Waltz is a song that Odalys Verne performed for the harbour feast.")
    (folder / "singer.txt").write_text("Odalys Verne grew up on Texel. Her birthplace is the village Oosterend.")
    for number in range(30):
        (folder / f"other-{number}.txt").write_text(
            f"A waltz performed by band {number} has a birthplace too: the village of hall {number}, where its song was sung."
        )
    sync(store, embedder, folder)
    return folder


def test_a_second_look_finds_what_the_first_passage_names(store: DocumentStore, embedder: FakeEmbedder, tmp_path: Path) -> None:
    synced_hops(store, embedder, tmp_path)
    hits = search(store, embedder, "What is the birthplace of who performed Crimson Tide Waltz?", limit=5)
    assert hits[0].passage.source == "song.txt"
    assert "singer.txt" in [hit.passage.source for hit in hits]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_a_second_look_sets_out_from_the_best_document_alone(store: DocumentStore, embedder: FakeEmbedder, tmp_path: Path) -> None:
    synced_hops(store, embedder, tmp_path)
    given: list[list[str]] = []

    class Told(FakeEmbedder):
        def embed(self, texts: Sequence[str]) -> Any:
            given.append(list(texts))
            return embedder.embed(texts)

    search(store, Told(), "What is the birthplace of who performed Crimson Tide Waltz?", limit=5)
    question, steps = given
    assert len(question) == 1
    assert {step.partition(":")[0] for step in steps} == {"Odalys Verne"}, "the only name of the best document that was not asked for"


def test_a_second_look_asks_for_nothing_that_is_not_near_enough(
    store: DocumentStore, embedder: FakeEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced_hops(store, embedder, tmp_path)
    asked: list[float] = []
    nearest_each = store.nearest_each

    def told(vectors: Any, limit: int, chosen: Any = None, viewer: Any = None, at_least: float = -1.0) -> Any:
        asked.append(at_least)
        return nearest_each(vectors, limit, chosen, viewer, at_least)

    monkeypatch.setattr(store, "nearest_each", told)
    for seen in (store, Visible(store, "ann")):
        search(seen, embedder, "What is the birthplace of who performed Crimson Tide Waltz?", limit=5)
        assert asked == [-1.0, NEAR_ENOUGH]
        asked.clear()


@pytest.mark.parametrize("name", ["song.txt", "singer.txt"], ids=["found first", "found by the second look"])
def test_what_is_replaced_while_it_is_asked_for_is_found_as_it_is_then(
    store: DocumentStore, embedder: FakeEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = synced_hops(store, embedder, tmp_path)
    (old,) = store.edges(next(document.id for document in store.documents() if document.source == name))
    real, calls = store.passages, []

    def replaced_before_it_is_read(ids: Sequence[str], *rest: Any) -> dict[str, Passage]:
        calls.append(old.id in ids)
        if calls.count(True) == 1 and calls[-1]:
            (folder / name).write_text(f"{old.text} So it is now.")
            sync(store, embedder, folder)
        return real(ids, *rest)

    monkeypatch.setattr(store, "passages", replaced_before_it_is_read)
    hits = search(store, embedder, "What is the birthplace of who performed Crimson Tide Waltz?", limit=5)
    assert calls.index(True) == (0 if name == "song.txt" else 1)
    assert f"{old.text} So it is now." in [hit.passage.text for hit in hits]


def test_of_what_was_found_only_what_is_shown_is_read(
    store: DocumentStore, embedder: FakeEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(120):
        (folder / f"{number}.txt").write_text(f"Harbour number {number} has a light and a pier.")
    sync(store, embedder, folder)
    read: list[str] = []
    real = store.passages
    monkeypatch.setattr(store, "passages", lambda ids, *rest: (read.extend(ids), real(ids, *rest))[1])
    assert len(search(store, embedder, "harbour light pier", limit=6)) == 6
    assert len(read) <= 12
    assert len(read) == len(set(read))


def test_no_second_look_where_the_first_left_nothing_open(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    sync(store, embedder, folder)
    embedder.embedded.clear()
    search(store, embedder, "Apollo lander?", documents=["apollo.md"])
    assert embedder.embedded == ["Apollo lander?"]
    search(store, embedder, "Apollo lander in Peru?", documents=["apollo.md"])
    assert len(embedder.embedded) > 2


def test_the_right_passage_comes_first_by_words_only(store: DocumentStore, folder: Path) -> None:
    sync(store, Blank(), folder)
    hits = search(store, Blank(), "Which tea needs boiling water?")
    assert hits[0].passage.source == "tea.txt"
    assert "boiling" in hits[0].passage.text


def test_the_right_passage_comes_first_by_meaning_only(store: DocumentStore, folder: Path) -> None:
    embedder = Topics()
    sync(store, embedder, folder)
    assert store.matching("some infusion beverage", 5) == []
    hits = search(store, embedder, "some infusion beverage")
    assert hits[0].passage.source == "tea.txt"
    assert hits[0].similarity == pytest.approx(1.0, abs=0.01)
    assert search(store, embedder, "a cosmos spacecraft")[0].passage.source == "apollo.md"


def test_hits_quote_their_document_exactly_and_come_best_first(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    sync(store, embedder, folder)
    hits = search(store, embedder, "Who built Apollo?")
    assert "Grumman" in hits[0].passage.text
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert len({hit.passage.id for hit in hits}) == len(hits) > 1
    for hit in hits:
        span = hit.passage.span
        assert store.text(hit.passage.document_id)[span.start : span.end] == hit.passage.text


def test_a_hit_by_words_alone_has_no_similarity(store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync(store, embedder, folder)
    monkeypatch.setattr(store, "nearest_each", lambda vectors, *_, **__: [[] for _ in vectors])
    assert [hit.similarity for hit in search(store, embedder, "boiling")] == [None]


def test_the_limit_holds(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    sync(store, embedder, folder)
    everything = search(store, embedder, "Apollo tea")
    assert len(everything) == store.passage_count()
    for limit in range(4):
        assert search(store, embedder, "Apollo tea", limit=limit) == everything[:limit]


def test_documents_narrow_by_id_and_by_source(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    sync(store, embedder, folder)
    tea = next(document.id for document in store.documents() if document.source == "tea.txt")
    for names in ([tea], ["tea.txt"], (tea, "tea.txt")):
        hits = search(store, embedder, "Apollo lander", documents=names)
        assert hits
        assert {hit.passage.document_id for hit in hits} == {tea}
    assert {hit.passage.source for hit in search(store, embedder, "Apollo tea", documents=["tea.txt", "apollo.md"])} == {"tea.txt", "apollo.md"}
    assert search(store, embedder, "Apollo", documents=[]) == []


def test_an_unknown_document_is_a_key_error(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    sync(store, embedder, folder)
    with pytest.raises(KeyError, match=r"nothing\.pdf"):
        search(store, embedder, "Apollo", documents=["tea.txt", "nothing.pdf"])


def test_one_source_in_two_folders_means_both(store: DocumentStore, embedder: FakeEmbedder, folder: Path) -> None:
    other = folder.with_name("other")
    other.mkdir()
    (other / "tea.txt").write_text("White tea is rare.")
    sync(store, embedder, folder)
    sync(store, embedder, other)
    assert len({hit.passage.document_id for hit in search(store, embedder, "tea", documents=["tea.txt"])}) == 2


def test_an_empty_store_has_no_hits(store: DocumentStore, embedder: FakeEmbedder) -> None:
    assert search(store, embedder, "Apollo") == []


def test_a_passage_removed_meanwhile_is_left_out(store: DocumentStore, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync(store, embedder, folder)
    known = search(store, embedder, "Apollo tea")
    monkeypatch.setattr(store, "matching", lambda *_: [("gone", 9.0), *((hit.passage.id, 1.0) for hit in known)])
    assert {hit.passage.id for hit in search(store, embedder, "Apollo tea")} == {hit.passage.id for hit in known}
