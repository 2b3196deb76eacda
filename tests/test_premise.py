"""Tests of rag.premise: what a question takes for granted."""

from __future__ import annotations

import pytest

from index.split import split
from index.types import Document, Hit
from rag.premise import corrects, granted, is_told


@pytest.mark.parametrize(
    ("question", "taken"),
    [
        ("Why did Okafor build the Kestrel?", ("Okafor", "Who did build the Kestrel?")),
        ("How has Voss Motors built the Kestrel so fast?", ("Voss Motors", "Who has built the Kestrel so fast?")),
        ("When did Okafor join the Harbour League?", None),  # others can have joined it too
        ("What did Okafor say about the Kestrel?", None),
        ("When did World War II end in Europe?", None),
        ("In what year did Okafor Works launch Kestrel 3?", ("Okafor Works", "Who did launch Kestrel 3?")),
        ("why did okafor build the kestrel?", None),
        ("Why did Okafor build so many cars?", None),
        ("Who built the Kestrel?", None),
        ("How much money did it raise?", None),
        ("Did Okafor build the Kestrel?", None),
    ],
)
def test_somebody_and_what_was_done_are_taken_apart(question: str, taken: tuple[str, str] | None) -> None:
    assert granted(question) == taken


def test_what_some_sentence_tells_may_be_true() -> None:
    text = "Okafor spoke of the Kestrel. Voss Motors built it, and Brandt sold it."
    hits = [Hit(passage, 1.0) for passage in split(Document("d", "d.md", "d", text, ""))]
    assert is_told("Okafor", "Who did build the Kestrel?", hits)
    assert not is_told("Brandt", "Who did build the Kestrel?", hits)


def test_an_answer_corrects_only_with_a_name_of_its_own() -> None:
    question = "Why did Okafor build the Kestrel?"
    assert corrects("Voss Motors built the Kestrel.", question, "Okafor")
    assert corrects("The Kestrel was built by Voss Motors in Texas.", question, "Okafor")
    assert not corrects("The Kestrel was built in a hall.", question, "Okafor")
    assert not corrects("The Kestrel was built in Texas.", question, "Okafor")
    assert not corrects("Okafor and Voss Motors built the Kestrel.", question, "Okafor")
