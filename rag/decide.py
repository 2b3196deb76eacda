"""Whether the documents answer a question: from signals in [0, 1] to yes or no. Pure.

The numbers were fitted on tests/questions.jsonl and are reported on other questions: see docs/benchmarks.md.
"""

from __future__ import annotations

import math

DRAFT_FLOOR = 0.55
"""Below this probability that the passages state the answer, no draft is made."""

GIVE = 0.0
"""The least log-odds, gate and check together, at which an answer is given."""

QUOTE_SIMILARITY = 0.42
QUOTE_COVERAGE = 0.45
"""Without a model: the least cosine of the best sentence with the question, and the least part of the question's words near it."""


def worth_drafting(stated: float) -> bool:
    """Whether to draft at all. `stated` is the model's probability that the passages state the answer."""
    return stated >= DRAFT_FLOOR


def log_odds(probability: float) -> float:
    bounded = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(bounded / (1 - bounded))


def worth_giving(stated: float, answered: float) -> bool:
    """Whether to give a verified draft. `answered` is the model's probability that the draft gives what was asked for."""
    return log_odds(stated) + log_odds(answered) >= GIVE


def worth_quoting(similarity: float, coverage: float, names_told: bool) -> bool:
    """Whether the best sentence of the evidence is an answer by itself: all names of the question must stand in or near it."""
    return names_told and coverage >= QUOTE_COVERAGE and similarity + coverage >= QUOTE_SIMILARITY + QUOTE_COVERAGE
