"""Tests of index.hops: what a found passage leads on to."""

from __future__ import annotations

from index.hops import CHARACTERS, NAMES, names, onward
from index.types import Passage, Span


def passage(text: str, title: str = "Hello Love") -> Passage:
    return Passage("id", "document", "a.txt", title, "", Span(0, len(text)), text)


def test_names_come_once_in_the_order_of_the_text_without_those_of_the_question() -> None:
    told = passage("Hello Love is an album by Hank Snow. Hank Snow recorded it for RCA Victor in 1967.")
    assert names(told, frozenset({"hello", "love"})) == ["Hank Snow", "RCA Victor"]


def test_a_name_keeps_its_small_words_and_a_bare_number_is_none() -> None:
    assert names(passage("In 1967 the University of Nova Scotia opened.", title=""), frozenset()) == ["University of Nova Scotia"]


def test_a_passage_full_of_names_gives_the_first() -> None:
    assert len(names(passage(", ".join(f"Name{number} Person{number}" for number in range(40))), frozenset())) == NAMES


def test_the_question_is_asked_of_each_name_for_what_the_passage_leaves_open() -> None:
    told = passage("Hello Love is an album by Hank Snow.")
    assert onward("Where did the performer of Hello Love die?", told) == ["Hank Snow: Where did the performer of die?"]


def test_a_passage_that_leaves_nothing_open_leads_nowhere() -> None:
    assert onward("Who is on the album Hello Love?", passage("Hello Love is an album by Hank Snow.")) == []


def test_a_passage_about_something_else_leads_nowhere() -> None:
    question = "Where did the performer of Hello Love die?"
    aside = "Capitol Nights is a radio show by Ray Winter. It played Hello Love often."
    assert onward(question, passage(aside, title="Capitol Nights")) == []
    assert onward(question, passage(f"Hello Love (album) and others. {aside}", title="notes-7")) != [], "without a title, what comes first tells"


def test_half_a_title_is_enough_and_what_stands_in_brackets_does_not_count() -> None:
    about = "An album by Hank Snow."
    assert onward("Where did the performer of Hello die?", passage(about)) != []
    assert onward("Where did the performer of Hello Love die?", passage(about, title="Hello Love (1967 country record)")) != []
    assert onward("Where did the performer of Love die?", passage(about, title="Love Tender Evenings")) == []


def test_a_question_in_small_letters_leads_on_too() -> None:
    assert onward("where did the performer of hello love die", passage("Hello Love is an album by Hank Snow.")) != []


def test_a_long_question_is_asked_of_the_first_names_and_one_of_a_page_of_none() -> None:
    told = passage("Hello Love is an album by Hank Snow, Ann Lee, Bob Ray, Cy Poe, Di Roe.")
    short = onward("Where did the performer of Hello Love die?", told)
    assert [step.partition(":")[0] for step in short] == ["Hank Snow", "Ann Lee", "Bob Ray", "Cy Poe", "Di Roe"]
    asks = "Where did the performer of Hello Love die " + "after so many long years away " * 4
    long = onward(asks, told)
    assert [step.partition(":")[0] for step in long] == ["Hank Snow", "Ann Lee"]
    assert CHARACTERS / 2 < sum(map(len, long)) <= CHARACTERS
    assert onward(asks * 5, told) == []
