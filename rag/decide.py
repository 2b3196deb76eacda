"""Whether the documents answer a question: from signals to yes or no. Pure.

The weights were fitted on tests/questions.jsonl and are reported on other questions: docs/benchmarks.md says how.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from rag.facts import numbers

DRAFT_FLOOR = 0.4
"""Below this probability that the passages state the answer, no draft is made."""

QUOTE_SIMILARITY = 0.4
QUOTE_COVERAGE = 0.5
"""Without a model: the least cosine of the best sentence with the question, and the least part of the question's words near it."""

_QUANTITY = re.compile(
    r"\b(?:how (?:many|much|long|old|tall|big|large|heavy|often|fast)|(?:what|which|in what|in which|on what|on which) (?:exact |calendar )?(?:year|date|day|month|price|percentage|number|amount|size|sum|share))\b",
    re.IGNORECASE,
)
_MEASURE = re.compile(
    r"\b(?:seconds?|minutes?|hours?|days?|weeks?|months?|years?|decades?|centur(?:y|ies)|per ?cent|twice|half|double|daily|weekly|monthly|yearly|none|no one|one|once|"
    r"january|february|march|april|may|june|july|august|september|october|november|december|(?:mon|tues|wednes|thurs|fri|satur|sun)day|today|yesterday|tomorrow)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Signals:
    """What is known once a draft is verified. The three probabilities are the model's, each from one token.

    `stated`: the passages state the answer (asked before drafting); `confirmed`: the passages state this draft; `answered`: the draft gives what was asked
    for (asked without the passages). `supported` is the part of the draft's sentences that spans bear out; `lacks_quantity` as below.
    """

    stated: float
    confirmed: float
    answered: float
    supported: float
    lacks_quantity: bool


def worth_drafting(stated: float) -> bool:
    """Whether to draft at all. `stated` is the model's probability that the passages state the answer."""
    return stated >= DRAFT_FLOOR


def lacks_quantity(question: str, reply: str) -> bool:
    """Whether a question for a number, a measure or a date got a reply that holds none but what the question told."""
    if not _QUANTITY.search(question):
        return False
    fresh = numbers(reply) - numbers(question)
    asked = {match.lower() for match in _MEASURE.findall(question)}
    return not fresh and all(match.lower() in asked for match in _MEASURE.findall(reply))


def log_odds(probability: float) -> float:
    bounded = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(bounded / (1 - bounded))


def worth_giving(signals: Signals) -> bool:
    """Whether to give a verified draft rather than to say that nothing was found."""
    if signals.lacks_quantity or not signals.supported:
        return False
    return log_odds(signals.stated) + log_odds(signals.confirmed) + log_odds(signals.answered) >= 1.5


def worth_quoting(similarity: float, coverage: float, names_told: bool) -> bool:
    """Whether the best sentence of the evidence is an answer by itself: all names of the question must stand in or near it."""
    return names_told and coverage >= QUOTE_COVERAGE and similarity >= QUOTE_SIMILARITY
