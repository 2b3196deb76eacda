"""Tests of index.threads: a sync's steps wait for searches, and not for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_writer import identifier, parts, put, vector

from index import compare, embed, search, store, threads
from index.collection import Collection
from index.threads import behind_others, give_way, in_front, is_behind


def stepped(done: threading.Event) -> None:
    give_way()
    done.set()


def test_a_step_waits_until_the_last_search_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "WAITED_SECONDS", 60.0)
    done = threading.Event()
    with ThreadPoolExecutor(1, initializer=behind_others) as sync, in_front():
        with in_front():
            step = sync.submit(stepped, done)
        assert not done.wait(0.2)
    step.result(10)
    assert done.is_set()


def test_a_step_waits_for_a_search_that_takes_long_no_longer_than_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "WAITED_SECONDS", 0.01)
    with ThreadPoolExecutor(1, initializer=behind_others) as sync, in_front():
        sync.submit(give_way).result(10)


def test_who_does_not_stand_back_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "WAITED_SECONDS", 60.0)
    assert not is_behind()
    began = time.monotonic()
    with in_front():
        give_way()
    assert time.monotonic() - began < 30


def test_a_search_that_fails_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "WAITED_SECONDS", 60.0)
    with pytest.raises(ValueError, match="broke"), in_front():
        raise ValueError("broke")
    with ThreadPoolExecutor(1, initializer=behind_others) as sync:
        sync.submit(give_way).result(10)


def test_a_search_goes_before_and_a_syncs_changes_and_batches_give_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gave_way: list[str] = []
    searching: list[int] = []

    class Embedder:
        identity, loaded = "writer@1", True

        def load(self) -> None: ...

        def embed(self, texts: Sequence[str]) -> Any:
            searching.append(threads._searches)
            return np.stack([vector(1, 1, 0) for _ in texts])

    monkeypatch.setattr(store, "give_way", lambda: gave_way.append("change"))
    monkeypatch.setattr(embed, "give_way", lambda: gave_way.append("batch"))
    with closing(store.Store(tmp_path, "writer@1")) as small:
        with small.many_changes():
            put(small, 1)
        assert "change" in gave_way
        assert search.search(small, Embedder(), "What is part 0?")
    assert searching
    assert set(searching) == {1}
    assert threads._searches == 0
    embedder = embed.QuantizedEmbedder()
    embedder.embed(["a text"])
    assert "batch" in gave_way


@pytest.mark.parametrize("compared", [0, 20_000], ids=["Chroma is asked", "all are compared"])
def test_what_is_there_is_found_while_others_change_and_the_index_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compared: int) -> None:
    def exactly(self: Collection, rows: Any, limit: int) -> list[list[tuple[str, float]]]:
        with self._use() as collection:
            held = collection.get(include=["embeddings"])
        cosines = np.asarray(held["embeddings"]) @ np.asarray(rows).T
        return [[(held["ids"][place], float(row[place])) for place in np.argsort(-row)[:limit]] for row in cosines.T]

    monkeypatch.setattr(Collection, "nearest", exactly)  # a graph now and then holds a vector that no search reaches
    monkeypatch.setattr(compare, "COMPARED", compared)
    monkeypatch.setattr(compare, "OUTDATED", 5)
    stop = threading.Event()
    wrong: list[Any] = []
    turns = 0
    with closing(store.Store(tmp_path, "writer@1")) as changing:
        assert changing.wait_for_index(30) == "ready"
        for number in range(8):
            put(changing, number)

        def look() -> None:
            nonlocal turns
            while not stop.is_set():
                turns += 1
                for number in range(4):  # which nobody touches
                    passages = [passage.id for passage in parts(number, 1)[1]]
                    near = changing.nearest_each(np.stack([vector(number, 1, part) for part in range(len(passages))]), 1)
                    if [one for ((one, _),) in near] != passages:
                        wrong.append((number, near))

        with ThreadPoolExecutor(1) as other:
            looking = other.submit(look)
            try:
                for turn in range(15):
                    with changing.many_changes():
                        for number in range(4, 8):
                            put(changing, number, turn + 2)
                        changing.remove_many([identifier(4 + turn % 4)])
                    put(changing, 4 + turn % 4, 1)
            finally:
                stop.set()
            looking.result(60)
    assert turns > 3
    assert wrong == []
