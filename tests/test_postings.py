"""Tests of index.postings: the terms of a text, and a ranking that is FTS5's."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index import postings
from index.postgres_words import mergeable
from index.words import content_words
from rag.settings import SEEDS

NOTHING = np.empty(0, dtype=np.int64)

QUESTIONS = (
    "How long can Kling 3.0 videos be?",
    "Why does Z.ai open-source its models?",
    "How does the Chinese government fund AI research?",
    "What did MiniMax's researchers say of M2.5 and of benchmarks, cities and a city?",
    "Who is Zhou, and why can he not rely on brute force?",
    "Übergröße naïve 2026 model models modelling",
    "zebra",
)


def index_of(texts: list[str]) -> tuple[dict[str, list[bytes]], float]:
    found: dict[str, list[tuple[int, int, int]]] = {}
    counts = [postings.counted(text) for text in texts]
    for number, counted in enumerate(counts, 1):
        for term, times in counted.terms.items():
            found.setdefault(term, []).append((number, times, counted.words))
    return {term: [postings.packed(entries)] for term, entries in found.items()}, sum(counted.words for counted in counts) / len(counts)


def test_the_ranking_is_that_of_fts5() -> None:
    # But for words whose stem is a function word (`one`, `on`): FTS5 counts that too, and here it is no term.
    texts = [part for path in sorted(SEEDS.glob("*.md")) for part in path.read_text(encoding="utf-8").split("\n\n") if part.strip()]
    assert len(texts) > 50
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE VIRTUAL TABLE words USING fts5 (text, tokenize = 'porter unicode61 remove_diacritics 2')")
    connection.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", enumerate(texts, 1))
    index, mean = index_of(texts)
    found = 0
    for question in QUESTIONS:
        asked = " OR ".join(f'"{word}"' for word in dict.fromkeys(word.lower() for word in content_words(question)))
        expected = dict(connection.execute("SELECT rowid, -bm25(words) FROM words WHERE words MATCH ?", (asked,)))
        numbers, scores = postings.ranked(postings.asked(question, 300), index, NOTHING, len(texts), mean)
        assert dict(zip(numbers.tolist(), scores.tolist(), strict=True)) == pytest.approx(expected, rel=0.02)
        best = max(expected.values(), default=0.0)
        assert not best or expected[int(numbers[0])] == pytest.approx(best, rel=0.02)
        found += len(expected)
    connection.close()
    assert found > 100


def test_a_word_with_inner_marks_is_found_as_a_whole() -> None:
    index, mean = index_of(["It is M2.5 today", "An M2 and a 5", "Version 1.2.3 came", "Version 1.2 and 2.4 came"])
    for question, expected in (("M2.5", [1]), ("1.2.3", [3]), ("1.2", [3, 4])):
        numbers, _ = postings.ranked(postings.asked(question, 300), index, NOTHING, 4, mean)
        assert sorted(numbers.tolist()) == expected


def test_what_is_gone_is_not_found_and_does_not_count() -> None:
    texts = ["tea and milk", "tea and sugar", "coffee", "water", "wine"]
    index, mean = index_of(texts)
    gone = np.array([2], dtype=np.int64)
    with_gone, scores = postings.ranked(postings.asked("tea", 300), index, gone, 4, mean)
    assert with_gone.tolist() == [1]
    left = {term: [postings.without(entries, gone) for entries in pieces] for term, pieces in index.items()}
    again, same = postings.ranked(postings.asked("tea", 300), left, NOTHING, 4, mean)
    assert (again.tolist(), same.tolist()) == (with_gone.tolist(), scores.tolist())


@given(st.lists(st.tuples(st.integers(1, 2**39 - 1), st.integers(1, 10**6), st.integers(1, 10**7)), unique_by=lambda one: one[0]))
def test_postings_come_back_as_far_as_they_count(given: list[tuple[int, int, int]]) -> None:
    entries = np.frombuffer(postings.packed(given), dtype="<i8")
    assert [(int(one) >> 24, int(one) >> 16 & 0xFF, int(one) & 0xFFFF) for one in entries] == [
        (number, min(times, 0xFF), min(words, 0xFFFF)) for number, times, words in given
    ]


@given(st.text())
def test_any_text_has_terms_that_a_database_takes(text: str) -> None:
    counted = postings.counted(text, text)
    assert all(term and "\x00" not in term and len(term.encode()) <= 2 * postings.TERM_BYTES for term in counted.terms)
    assert counted.words >= 0


def test_segments_of_a_size_are_merged_when_there_are_enough() -> None:
    assert mergeable({}) == []
    assert mergeable(dict.fromkeys(range(7), 100)) == []
    assert mergeable({**dict.fromkeys(range(8), 100), 50: 900}) == [list(range(8))]
    assert mergeable(dict.fromkeys(range(9), 1000)) == [list(range(9))]
