"""Tests of rag.byline: a document's author, read from the line that names it."""

from __future__ import annotations

import pytest

from index.split import split
from index.types import Document, Hit
from rag.byline import asks_who_wrote, byline, written_by

BODY = "The ferry crosses the sound in winter.\n\nIt is painted white, and it is old."


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (f"The Old Ferry\n\nBy Ines de la Cruz\n\n{BODY}", "Ines de la Cruz"),
        (f"The Old Ferry\n\n**By Élodie Okafor**, 3 May 2024\n\n{BODY}", None),
        (f"The Old Ferry\n\nBy Élodie Okafor, 3 May 2024\n\n{BODY}", "Élodie Okafor"),
        (f"The Old Ferry\n\n*By Ines Okafor*\n\n{BODY}", "Ines Okafor"),
        (f"The Old Ferry\n\n{BODY}\n\n{BODY}\n\nIO\n\nInes Okafor\n\nInes Okafor writes about ships and the sea.", "Ines Okafor"),
        (f"The Old Ferry\n\n{BODY}\n\n{BODY}\n\n{BODY}\n\nInes Okafor\n\nInes writes about ships and the sea.", "Ines Okafor"),
        (f"The Old Ferry\n\n{BODY}\n\nNew York", None),
        ("Vendors\n\nOkafor Works\n\nOkafor Works builds ships.", None),
        (f"The Old Ferry\n\n{BODY}\n\nAuthor: Ines Okafor\n\nAll rights reserved.", "Ines Okafor"),
        (f"The Old Ferry\n\nHarbour Notes\n\n{BODY}", None),
        (f"The Old Ferry\n\n{BODY}\n\nBottom Line\n\nIt should be painted anew.", None),
        (f"The Old Ferry\n\n{BODY}\n\nThe End", None),
        ("Ines Okafor", None),
        ("", None),
    ],
)
def test_a_byline_is_a_line_of_its_own_near_an_edge(text: str, name: str | None) -> None:
    found = byline(text)
    assert (text[found.start : found.end] if found else None) == name


def test_a_name_in_the_middle_is_no_byline() -> None:
    text = "\n\n".join([BODY] * 6 + ["By Ines Okafor"] + [BODY] * 6)
    assert byline(text) is None


def hits_of(*texts: str) -> tuple[list[Hit], dict[str, str]]:
    documents = [Document(f"d{number}", f"d{number}.md", text.split("\n")[0], text, "") for number, text in enumerate(texts)]
    return [Hit(passage, 1.0) for document in documents for passage in split(document)], {document.id: document.text for document in documents}


FERRY, TRAIN = f"The Old Ferry\n\n{BODY}\n\nBy Ines Okafor", "The Night Train\n\nIt runs on rails at night.\n\nBy Otto Brandt"


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("Who wrote the piece about the old ferry?", "Ines Okafor"),
        ("Who is the author of the article on the ferry?", "Ines Okafor"),
        ("Who wrote War and Peace?", None),
        ("Who wrote the piece about the old ferry of Serrin?", None),
        ("Who wrote this?", None),
        ("Who built the old ferry?", None),
    ],
)
def test_an_author_is_told_of_the_document_that_the_question_is_about(question: str, name: str | None) -> None:
    hits, texts = hits_of(FERRY, TRAIN)
    answer = written_by(question, hits, texts)
    if name is None:
        assert answer is None
    else:
        assert answer is not None
        assert name in answer.text
        assert answer.text.endswith("[1]")
        assert [citation.quote for citation in answer.citations] == [name]


def test_one_document_alone_may_be_called_this() -> None:
    assert written_by("Who wrote this?", *hits_of(TRAIN)) is not None
    assert written_by("Who wrote this?", [], {}) is None


def test_questions_for_an_author_are_known() -> None:
    assert asks_who_wrote("Who wrote it?")
    assert not asks_who_wrote("What did the author say?")


def test_several_documents_about_the_same_are_all_told() -> None:
    hits, texts = hits_of(FERRY, "The new ferry\n\nBy Otto Brandt\n\nIt is faster.")
    answer = written_by("Who wrote the article about the ferry?", hits, texts)
    assert answer is not None
    assert [citation.quote for citation in answer.citations] == ["Ines Okafor", "Otto Brandt"]


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Voss gets a letter\n\nBy Ines Okafor\n\nOtto Brandt wrote a letter to Voss.", "Who wrote the letter to Voss?"),
        ("Draft on safety draws fire\n\nBy Ines Okafor\n\nThe text on safety was written by Otto Brandt.", "Who wrote the text on safety?"),
        ("Report on safety draws fire\n\nBy Ines Okafor\n\nIt is disputed.", "Who wrote the memo on safety?"),
    ],
)
def test_what_a_document_is_about_may_be_somebody_elses(text: str, question: str) -> None:
    assert written_by(question, *hits_of(text)) is None
