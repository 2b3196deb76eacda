"""Tests of rag.extract: the documents' own sentences, ranked by what they bear on the question."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from conftest import FakeEmbedder
from hypothesis import given, settings
from hypothesis import strategies as st

from index.split import split
from index.types import Document, Hit, Span
from rag import extract
from rag.extract import Candidate, choose

APOLLO = """# The Apollo lander

The lander Apollo was built by Grumman. It weighed 15 tonnes.

## Landing

Apollo landed on 20 July 1969. Nobody was hurt.
"""
TEA = "Notes on tea\n\nGreen tea is brewed at 80 degrees. Black tea needs boiling water.\n"


def hits_of(*texts: str) -> tuple[list[Hit], dict[str, str]]:
    stored = {f"d{number}": text for number, text in enumerate(texts)}
    return [
        Hit(passage, 1.0) for key, text in stored.items() for passage in split(Document(key, f"{key}.md", text.split("\n")[0].strip("# "), text, ""))
    ], stored


def ranked(question: str, *texts: str) -> list[Candidate]:
    hits, stored = hits_of(*texts)
    return extract.candidates(question, hits, stored, FakeEmbedder().embed)


def words_of(candidate: Candidate, *texts: str) -> str:
    hits, stored = hits_of(*texts)
    return stored[hits[candidate.hit].passage.document_id][candidate.span.start : candidate.span.end]


@pytest.mark.parametrize(
    ("question", "best"),
    [
        ("Who built the lander Apollo?", "The lander Apollo was built by Grumman."),
        ("At how many degrees is green tea brewed?", "Green tea is brewed at 80 degrees."),
        ("What needs boiling water?", "Black tea needs boiling water."),
        ("When has Apollo landed?", "Apollo landed on 20 July 1969."),
    ],
)
def test_the_sentence_that_answers_is_first(question: str, best: str) -> None:
    assert words_of(ranked(question, APOLLO, TEA)[0], APOLLO, TEA) == best


def test_every_sentence_is_a_candidate_and_no_heading_is() -> None:
    found = {words_of(candidate, APOLLO) for candidate in ranked("Who built it?", APOLLO)}
    assert found == {"The lander Apollo was built by Grumman.", "It weighed 15 tonnes.", "Apollo landed on 20 July 1969.", "Nobody was hurt."}


def test_scores_fall_and_coverage_is_a_share() -> None:
    found = ranked("Who built the lander Apollo?", APOLLO, TEA)
    assert [candidate.score for candidate in found] == sorted((candidate.score for candidate in found), reverse=True)
    assert all(0 <= candidate.coverage <= 1 for candidate in found)
    assert found[0].coverage > found[-1].coverage == 0


def test_names_count_where_they_stand_before_the_sentence() -> None:
    told = {words_of(candidate, APOLLO, TEA): candidate.names_told for candidate in ranked("How much did Apollo weigh?", APOLLO, TEA)}
    assert told["It weighed 15 tonnes."] is True
    assert told["Black tea needs boiling water."] is False
    assert not any(candidate.names_told for candidate in ranked("How much did Soyuz weigh?", APOLLO, TEA))


def test_nothing_to_choose_from() -> None:
    assert extract.candidates("Who?", [], {}, FakeEmbedder().embed) == []
    assert choose([]) == []


def test_only_nearly_as_good_sentences_join_the_best_and_never_many() -> None:
    def candidate(similarity: float, start: int) -> Candidate:
        return Candidate(0, Span(start, start + 5), similarity, 0.5, True)

    best, near, far = candidate(0.9, 0), candidate(0.89, 10), candidate(0.2, 20)
    chosen = choose([best, near, far])
    assert chosen[0] == best
    assert far not in chosen
    assert len(choose([candidate(0.9, start) for start in range(0, 100, 10)])) <= extract.MOST


def test_one_call_embeds_question_and_sentences() -> None:
    calls: list[Sequence[str]] = []
    embedder = FakeEmbedder()

    def embed(texts: Sequence[str]) -> object:
        calls.append(texts)
        return embedder.embed(texts)

    hits, stored = hits_of(TEA)
    extract.candidates("How hot is tea?", hits, stored, embed)  # type: ignore[arg-type]
    assert calls == [["How hot is tea?", "Green tea is brewed at 80 degrees.", "Black tea needs boiling water."]]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200), st.text(min_size=1, max_size=40))
def test_whatever_the_text_candidates_lie_inside_their_passage(text: str, question: str) -> None:
    if not text.strip():
        return
    hits, stored = hits_of(text)
    for candidate in extract.candidates(question, hits, stored, FakeEmbedder().embed):
        span = hits[candidate.hit].passage.span
        assert span.start <= candidate.span.start < candidate.span.end <= span.end
        quoted = text[candidate.span.start : candidate.span.end]
        assert quoted == quoted.strip()
