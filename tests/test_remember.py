"""Tests of index.remember: the same vectors, each made once, and no more kept than is said."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import FakeEmbedder
from numpy.typing import NDArray

from index import remember
from index.remember import Remembered


class Counting(FakeEmbedder):
    """Tells which texts it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[str] = []

    def embed(self, texts: list[str]) -> NDArray[np.float32]:  # type: ignore[override]
        self.given += texts
        return super().embed(texts)


def test_vectors_are_those_of_the_embedder_and_each_is_made_once() -> None:
    embedder = Counting()
    remembered = Remembered(embedder)
    for texts in (["one", "two", "one"], ["three", "two"], ["one"], []):
        assert np.array_equal(remembered.embed(texts), FakeEmbedder().embed(texts))
    assert embedder.given == ["one", "two", "three"]


def test_whoever_asks_while_the_model_is_loaded_is_told_after_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remember, "SOON_SECONDS", 0.05)
    embedder = Counting()
    embedder.loaded = False
    remembered = Remembered(embedder)
    assert (remembered.is_loading, remembered.soon()) == (False, True), "whoever asks loads it, where nobody else does"
    with remembered.loading():
        assert (remembered.is_loading, remembered.soon()) == (True, False)
        embedder.loaded = True
        assert (remembered.is_loading, remembered.soon()) == (False, True)
    embedder.loaded = False
    assert remembered.soon(), "it could not be loaded: whoever asks is told why"


def test_what_was_not_asked_for_longest_goes() -> None:
    embedder = Counting()
    remembered = Remembered(embedder, most=2)
    for text in ("one", "two", "one", "three", "one", "two"):
        remembered.embed([text])
    assert embedder.given == ["one", "two", "three", "two"]


def test_more_texts_at_once_than_are_kept() -> None:
    remembered = Remembered(FakeEmbedder(), most=2)
    texts = [f"text {number}" for number in range(5)]
    assert np.array_equal(remembered.embed(texts), FakeEmbedder().embed(texts))


def test_texts_that_no_encoding_takes_have_a_place_too() -> None:
    assert Remembered(FakeEmbedder()).embed(["\ud800", "ordinary"]).shape[0] == 2


def test_many_threads_get_what_they_asked_for() -> None:
    remembered, plain = Remembered(FakeEmbedder(), most=3), FakeEmbedder()
    asked = [[f"text {(start + step) % 7}" for step in range(4)] for start in range(200)]
    with ThreadPoolExecutor(8) as pool:
        for texts, vectors in zip(asked, pool.map(remembered.embed, asked), strict=True):
            assert np.array_equal(vectors, plain.embed(texts))
