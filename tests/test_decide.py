"""Tests of rag.decide: more evidence never turns a yes into a no, and certainty decides whatever the numbers were fitted to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag import decide

SHARE = st.floats(0, 1)


@given(SHARE, SHARE, SHARE, SHARE, SHARE, SHARE)
def test_more_evidence_never_lowers_the_confidence(a: float, b: float, c: float, d: float, e: float, f: float) -> None:
    (stated, surer), (near, nearer), (covered, uncovered) = sorted((a, b)), sorted((c, d)), sorted((e, f))
    assert 0 <= decide.confidence(stated, near, uncovered) <= decide.confidence(surer, nearer, covered) <= 1


def test_the_settings_go_from_cautious_to_eager() -> None:
    assert decide.THRESHOLDS["cautious"] > decide.THRESHOLDS["balanced"] > decide.THRESHOLDS["eager"] > 0
    assert decide.THRESHOLDS["cautious"] < decide.confidence(1.0, 1.0, 0.0)


def test_words_that_no_text_holds_are_told_as_they_were_asked() -> None:
    missing, part = decide.uncovered("What do Kestrel's ferries cost in crowns?", ["The ferry Kestrel sails daily.", "Crown prices differ."])
    assert missing == ("cost",)
    assert part == pytest.approx(1 / 4)
    assert decide.uncovered("What is it?", ["Tea."]) == ((), 0.0)


@given(SHARE, SHARE, SHARE, SHARE)
def test_more_likeness_never_holds_a_quotation_back(a: float, b: float, c: float, d: float) -> None:
    (low_similarity, similarity), (low_coverage, coverage) = sorted((a, b)), sorted((c, d))
    assert decide.worth_quoting(similarity, coverage, True) or not decide.worth_quoting(low_similarity, low_coverage, True)


def test_certainty_decides() -> None:
    assert decide.confidence(1.0, None, 0.0) > 0.9
    assert decide.confidence(0.0, None, 0.0) < 0.1
    assert decide.worth_giving(True, "Who built Kestrel?", "Voss Motors built Kestrel.")
    assert not decide.worth_giving(False, "Who built Kestrel?", "Voss Motors built Kestrel."), "a draft whose first sentence nothing bears out"
    assert not decide.worth_giving(True, "How many cars fit?", "Cars fit."), "a draft of the wrong kind"
    assert decide.worth_quoting(1.0, 1.0, True)
    assert not decide.worth_quoting(0.0, 0.0, True)


@given(SHARE, SHARE)
def test_a_name_that_is_nowhere_told_is_never_quoted_for(similarity: float, coverage: float) -> None:
    assert not decide.worth_quoting(similarity, coverage, False)


@pytest.mark.parametrize(
    ("question", "reply", "lacks"),
    [
        ("How many passengers does Kestrel carry?", "Kestrel carries passengers.", True),
        ("How many passengers does Kestrel carry?", "Kestrel carries 180 passengers.", False),
        ("How many cars fit?", "Fifteen cars fit.", False),
        ("How long was the Kestrel of 2014 at sea?", "The Kestrel of 2014 was at sea.", True),
        ("How long is the crossing?", "The crossing takes half an hour.", False),
        ("In which year was Kestrel built?", "Kestrel was built in Gdansk.", True),
        ("Who built Kestrel?", "Voss Motors.", False),
        ("How many engines does Kestrel have?", "Kestrel carries 180 passengers.", True),
        ("How many passengers does Kestrel carry?", "Kestrel is a ferry. Merlin carries 90 passengers.", True),
        ("How many passengers does Kestrel carry?", "Kestrel is a ferry. It carries 90 passengers.", False),
        ("How many engines does Kestrel have?", "Kestrel carries 180 passengers. It has two engines.", False),
    ],
)
def test_a_question_for_a_quantity_wants_one(question: str, reply: str, lacks: bool) -> None:
    assert decide.lacks_quantity(question, reply) is lacks


@pytest.mark.parametrize(
    ("question", "told", "missing"),
    [
        ("Who built the lander and how much did it weigh?", "The lander was built by Grumman.", ("how much did it weigh",)),
        ("Who built the lander and how much did it weigh?", "Grumman built the lander. It weighed 15 tonnes.", ()),
        ("When was the bridge opened, and why was it painted green?", "The bridge was opened in 1931.", ("why was it painted green",)),
        ("Who built the lander?", "Grumman built it.", ()),
        ("What do cats and dogs eat?", "Cats eat fish.", ()),
        ("Who wrote it and what is its title?", "Nothing of the kind.", ()),
    ],
)
def test_the_part_of_a_question_that_an_answer_leaves_out_is_named(question: str, told: str, missing: tuple[str, ...]) -> None:
    assert decide.missing_parts(question, told) == missing
