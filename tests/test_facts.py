"""Tests of rag.facts: quantities, dates, names, denials and directions are read one way however they are written."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.facts import alike, directions, held_numbers, is_among, names, negations, numbers


@pytest.mark.parametrize(
    "same",
    [
        ("12 March 2024", "March 12, 2024", "March 12 , 2024", "2024-03-12", "12th of March 2024", "Mar. 12, 2024"),
        ("1.2 billion", "1,200 million", "1,200,000,000", "1.2bn", "1.20 billion"),
        ("$1.2 billion", "1.2 billion dollars", "$ 1.2 billion"),
        ("fifteen seconds", "15 seconds", "15-second", "15 sec"),
        ("twenty-seven ships", "27 ships", "twenty - seven ships"),
        ("50%", "50 percent", "50 per cent", "fifty percent"),
        ("5 km", "5 kilometres", "five kilometers"),
        ("a million", "one million", "1,000,000"),
        ("the fifth", "the 5th"),
        ("the 1990s", "1990"),
    ],
)
def test_a_quantity_is_one_however_it_is_written(same: tuple[str, ...]) -> None:
    assert len({numbers(text) for text in same}) == 1
    assert numbers(same[0])


@pytest.mark.parametrize(
    ("claim", "source", "held"),
    [
        ("in March 2024", "on 12 March 2024", True),
        ("on 12 March", "on 12 April, and on 3 March", False),
        ("in 2023", "on 12 March 2024", False),
        ("50 of them", "50% of them", False),
        ("180", "180 metres", True),
        ("180 miles", "180 metres", False),
        ("5 dollars", "5 euros", False),
        ("30 seconds", "30 to 40 seconds", True),
        ("1.2 billion", "1.2 million", False),
        ("-5 degrees", "5 degrees", False),
    ],
)
def test_a_quantity_is_held_by_one_that_says_as_much(claim: str, source: str, held: bool) -> None:
    assert (held_numbers(numbers(claim), numbers(source)) == numbers(claim)) is held


def test_one_alone_is_no_quantity() -> None:
    assert numbers("One of them sails, and one does not.") == frozenset()


@pytest.mark.parametrize("version", ["1.2.3", "10.0.0.1"])
def test_a_version_is_no_decimal(version: str) -> None:
    assert numbers(f"release {version}") == {version}


def test_dates_and_denials_are_no_names() -> None:
    assert names("Don't sail on 12 March 2024, Mara Voss.") == {"mara", "voss"}


def test_a_country_in_capitals_is_no_pronoun() -> None:
    assert "us" in names("The ferry left the US in May.")
    assert "us" not in names("THE FERRY LEFT US.")


@pytest.mark.parametrize(
    ("text", "denials"),
    [
        ("It does not sail.", 1),
        ("It doesn't sail.", 1),
        ("It does n't sail.", 1),
        ("It cannot sail.", 1),
        ("It never sails without wind.", 2),
        ("It not only sails.", 0),
        ("It sails, no doubt.", 0),
        ("Another knot.", 0),
    ],
)
def test_denials_are_seen(text: str, denials: int) -> None:
    assert len(negations(text)) == denials


def test_opposites_share_a_row_and_not_a_column() -> None:
    (_, _, rose), (_, _, fell), (_, _, before) = directions("Profits rose, sales fell before noon.")
    assert rose[0] == fell[0] != before[0]
    assert rose[1] != fell[1]


@settings(deadline=None)
@given(st.text("ab", max_size=9), st.frozensets(st.text("ab", max_size=9), max_size=6))
def test_a_word_is_among_others_exactly_where_it_is_like_one_of_them(word: str, others: frozenset[str]) -> None:
    assert is_among(word, others) == any(alike(word, other) for other in others)
