"""Tests of rag.decide: more evidence never turns a yes into a no, and certainty decides whatever the numbers were fitted to."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag import decide
from rag.decide import Signals

SHARE = st.floats(0, 1)


def signals(stated: float, confirmed: float, answered: float, supported: float) -> Signals:
    return Signals(stated=stated, confirmed=confirmed, answered=answered, supported=supported, lacks_quantity=False)


@given(SHARE, SHARE)
def test_more_probability_never_stops_a_draft(first: float, second: float) -> None:
    low, high = sorted((first, second))
    assert decide.worth_drafting(high) or not decide.worth_drafting(low)


@given(st.lists(st.tuples(SHARE, SHARE), min_size=4, max_size=4))
def test_stronger_signals_never_hold_an_answer_back(pairs: list[tuple[float, float]]) -> None:
    low, high = signals(*(min(pair) for pair in pairs)), signals(*(max(pair) for pair in pairs))
    assert decide.worth_giving(high) or not decide.worth_giving(low)


@given(SHARE, SHARE, SHARE, SHARE)
def test_more_likeness_never_holds_a_quotation_back(a: float, b: float, c: float, d: float) -> None:
    (low_similarity, similarity), (low_coverage, coverage) = sorted((a, b)), sorted((c, d))
    assert decide.worth_quoting(similarity, coverage, True) or not decide.worth_quoting(low_similarity, low_coverage, True)


def test_certainty_decides() -> None:
    assert decide.worth_drafting(1.0)
    assert not decide.worth_drafting(0.0)
    assert decide.worth_giving(signals(1.0, 1.0, 1.0, 1.0))
    assert not decide.worth_giving(signals(0.0, 0.0, 0.0, 1.0))
    assert not decide.worth_giving(signals(0.6, 0.6, 0.001, 1.0)), "a draft that is beside the point"
    assert not decide.worth_giving(signals(1.0, 1.0, 1.0, 0.0)), "a draft that nothing bears out"
    assert not decide.worth_giving(replace(signals(1.0, 1.0, 1.0, 1.0), lacks_quantity=True))
    assert decide.worth_quoting(1.0, 1.0, True)
    assert not decide.worth_quoting(0.0, 0.0, True)


@given(SHARE, SHARE)
def test_a_name_that_is_nowhere_told_is_never_quoted_for(similarity: float, coverage: float) -> None:
    assert not decide.worth_quoting(similarity, coverage, False)


@given(st.floats(1e-5, 1 - 1e-5))
def test_log_odds_are_symmetric_and_turn_back(probability: float) -> None:
    odds = decide.log_odds(probability)
    assert odds == pytest.approx(-decide.log_odds(1 - probability), abs=1e-6)
    assert 1 / (1 + math.exp(-odds)) == pytest.approx(probability)


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.5, 1.5])
def test_log_odds_are_finite_at_and_beyond_the_ends(probability: float) -> None:
    assert math.isfinite(decide.log_odds(probability))


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
    ],
)
def test_a_question_for_a_quantity_wants_one(question: str, reply: str, lacks: bool) -> None:
    assert decide.lacks_quantity(question, reply) is lacks
