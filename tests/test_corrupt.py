"""Tests of rag.corrupt: each rule changes one thing of a true sentence, and the same seed changes the same."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.corrupt import corruptions

SENTENCE = "The ferry Kestrel beat Merlin by 12 minutes on 4 May 2014, and it was the first of 30 races before noon."
PASSAGE = f"{SENTENCE} Captain Mara Voss led the crew from Bergen, and about 87 people watched."
OTHERS = ["Green tea was brewed by Okafor at 80 degrees."]


def made(kind: str, sentence: str = SENTENCE) -> list[str]:
    return [claim.text for claim in corruptions(sentence, PASSAGE, OTHERS, 3) if claim.kind == kind]


def test_every_kind_is_made_of_a_rich_sentence() -> None:
    kinds = [claim.kind for claim in corruptions(SENTENCE, PASSAGE, OTHERS)]
    assert set(kinds) == {"number", "unit", "date", "name", "negation", "swapped roles", "comparison"}
    assert kinds.count("name") == 2, "one name of the passage, one of another"
    assert kinds.count("swapped roles") == 2, "names, and figures"


def test_the_same_seed_makes_the_same_and_another_makes_others() -> None:
    assert corruptions(SENTENCE, PASSAGE, OTHERS, 1) == corruptions(SENTENCE, PASSAGE, OTHERS, 1)
    assert any(corruptions(SENTENCE, PASSAGE, OTHERS, 1) != corruptions(SENTENCE, PASSAGE, OTHERS, seed) for seed in range(2, 6))


def test_names_come_from_the_passage_and_from_others() -> None:
    near, far = made("name")
    assert any(name in near for name in ("Mara Voss", "Bergen"))
    assert "Okafor" in far


def test_names_are_exchanged() -> None:
    assert any("Merlin beat Kestrel" in text for text in made("swapped roles", "The ferry was slow when Kestrel beat Merlin."))


@pytest.mark.parametrize(
    ("sentence", "turned"),
    [
        ("The ferry is new.", "The ferry is not new."),
        ("The ferry is not new.", "The ferry is new."),
        ("The ferry does n't sail .", "The ferry does sail ."),
        ("The ferry can't sail.", "The ferry can sail."),
        ("The crew painted the ferry.", "The crew never painted the ferry."),
    ],
)
def test_a_denial_is_put_in_or_taken_out(sentence: str, turned: str) -> None:
    assert made("negation", sentence) == [turned]


@pytest.mark.parametrize(
    "sentence",
    ["It carries Kestrel and Merlin.", "It carries Kestrel, Merlin and Falcon.", "Kestrel, also known as Merlin, sails.", "It ran from 3 - 5."],
)
def test_what_may_be_said_in_any_order_is_not_exchanged(sentence: str) -> None:
    assert not made("swapped roles", sentence)


def test_rules_that_do_not_apply_make_nothing() -> None:
    assert corruptions("tea helps", PASSAGE) == []


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200), st.text(max_size=200), st.integers(0, 5))
def test_whatever_the_sentence_a_claim_differs_from_it(sentence: str, passage: str, seed: int) -> None:
    texts = [claim.text for claim in corruptions(sentence, passage, [passage], seed)]
    assert sentence not in texts
    assert len(texts) == len(set(texts))
