"""Tests of rag.excerpts: what the model reads of the passages that search found."""

from __future__ import annotations

from conftest import FakeEmbedder

from index.split import pieces, split
from index.types import Document, Hit
from rag.excerpts import CHARACTERS, chosen, edges, spread

TEXT = " ".join(f"Sentence {number} speaks of the weather in valley {number} and of nothing else at all." for number in range(12))


def hits(*texts: str) -> list[Hit]:
    found = []
    for number, text in enumerate(texts):
        document = Document(f"document-{number}", f"{number}.txt", f"Title {number}", text, "")
        found += [Hit(passage, 1.0 - 0.1 * number) for passage in split(document)]
    return found


def test_excerpts_are_exact_parts_of_the_stored_text() -> None:
    found = chosen("What does sentence 7 say of the valley?", hits(TEXT), 3, FakeEmbedder().embed)
    assert found
    for hit in found:
        assert TEXT[hit.passage.span.start : hit.passage.span.end] == hit.passage.text
        assert len(hit.passage.text) <= CHARACTERS
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)


def test_the_excerpt_that_answers_comes_first() -> None:
    text = f"{TEXT} The bridge at Arlen was closed in May because of rust. {TEXT}"
    found = chosen("Why was the bridge at Arlen closed?", hits(text), 1, FakeEmbedder().embed)
    assert "because of rust" in found[0].passage.text


def test_what_repeats_is_read_once_and_what_differs_in_a_number_twice() -> None:
    repeated = "The old mill at Arlen has 14 wheels and stands by the river."
    alike = chosen("How many wheels has the mill?", hits(repeated, repeated), 5, FakeEmbedder().embed)
    assert len(alike) == 1
    apart = chosen("How many wheels has the mill?", hits(repeated, repeated.replace("14", "41")), 5, FakeEmbedder().embed)
    assert len(apart) == 2


def test_a_short_passage_stays_the_passage_it_was() -> None:
    (hit,) = hits("The old mill at Arlen has 14 wheels.")
    assert chosen("How many wheels?", [hit], 5, FakeEmbedder().embed)[0].passage == hit.passage


def test_nothing_found_is_nothing_read() -> None:
    assert chosen("How many wheels?", [], 5, FakeEmbedder().embed) == []
    assert edges([]) == []


def test_the_edges_are_where_a_document_begins_and_ends() -> None:
    passages = [hit.passage for hit in hits(TEXT)]
    ends = edges(passages)
    assert [hit.passage.text for hit in ends] == [pieces(passages[0], CHARACTERS)[0].text, pieces(passages[-1], CHARACTERS)[-1].text]


def test_a_list_draws_on_documents_that_rank_behind() -> None:
    many = hits(*[TEXT] * 4)
    first = [hit for hit in many if hit.passage.document_id == "document-0"] * 3
    found = spread([*first, *many[len(many) // 2 :]], 4)
    assert found[:2] == first[:2]
    assert len({hit.passage.document_id for hit in found}) == 3
    assert spread(many, 100) == many


def test_where_one_document_holds_all_it_keeps_all_places() -> None:
    own = list(hits(TEXT)) * 6
    assert spread(own, 4) == own[:4]
