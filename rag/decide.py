"""Whether the documents answer a question: from signals to yes or no. Pure.

docs/benchmarks.md says on which questions the weights and thresholds were chosen, and what they are worth on others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from index.split import sentences
from index.words import ASKING_WORDS, PIECE, content_stems, content_words, stem
from rag.facts import later_names, names, numbers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

THRESHOLDS = {"cautious": 0.7, "balanced": 0.5, "eager": 0.3}
"""By the setting `refusal`: below this confidence nothing is answered."""

BIAS, STATED, SIMILARITY, UNCOVERED = -0.99, 1.63, 1.38, -0.86
"""Weights of a logistic regression: of the log-odds of the model's own probability, of the best passage's cosine, of the part of the question's words that
the evidence leaves uncovered. The cosine is the default embedding model's. docs/benchmarks.md says on what they were fitted, and what they are worth on others."""

ENOUGH = 0.2
HOPELESS = 0.5
"""How far of the way from the threshold to certainty the confidence must be, and below which part of the threshold it must stay, for no more to be read than
the best excerpts. docs/benchmarks.md says how they were chosen."""

SURE = 4.0
"""Log-odds beyond which a model's probability counts as this: hosted models tell 0 or 1."""

TYPICAL_SIMILARITY = 0.5
"""What stands for the cosine where there is none, as when words alone were searched."""

SURE_OF_EVIDENCE = 0.05
"""So far above the threshold the confidence must be that the documents' own words answer where the draft's are not borne out."""

NOT_BORNE_OUT = 0.5
"""What is left of the confidence once a draft turned out not to be borne out."""

QUOTE_SIMILARITY = 0.4
QUOTE_COVERAGE = 0.5
"""Without a model: the least cosine of the best sentence with the question, and the least part of the question's words near it."""

_QUANTITY = re.compile(
    r"\b(?:how (?:many|much|long|old|tall|big|large|heavy|often|fast)|(?:what|which|in what|in which|on what|on which) (?:exact |calendar )?(?:year|date|day|month|price|percentage|number|amount|size|sum|share|score))\b",
    re.IGNORECASE,
)
_PART = re.compile(
    r"[,;]? and (?=(?:what|who|whom|whose|when|where|why|how|which|does|do|did|is|are|was|were|can|will)\b)|\?\s+(?=\w)", re.IGNORECASE
)
_COUNTED = re.compile(r"\bhow many (?:\w+ )??(\w+s)\b", re.IGNORECASE)
_MEASURE = re.compile(
    r"\b(?:seconds?|minutes?|hours?|days?|weeks?|months?|years?|decades?|centur(?:y|ies)|per ?cent|twice|half|double|daily|weekly|monthly|yearly|none|no one|one|once|"
    r"january|february|march|april|may|june|july|august|september|october|november|december|(?:mon|tues|wednes|thurs|fri|satur|sun)day|today|yesterday|tomorrow)\b",
    re.IGNORECASE,
)


def confidence(stated: float, similarity: float | None, uncovered: float) -> float:
    """The probability, from 0 to 1, that the evidence answers the question.

    `stated` is the model's own probability that it does, `similarity` the best passage's cosine with the question, `uncovered` the part of the question's words that
    no passage holds.
    """
    odds = max(-SURE, min(SURE, math.log(max(stated, 1e-9) / max(1 - stated, 1e-9))))
    near = TYPICAL_SIMILARITY if similarity is None else similarity
    return 1 / (1 + math.exp(-(BIAS + STATED * odds + SIMILARITY * near + UNCOVERED * uncovered)))


def settled(confidence: float, threshold: float) -> bool:
    """Whether the best excerpts have settled that there is an answer, or that there is none, so that reading more would seldom change it."""
    return confidence >= threshold + ENOUGH * (1 - threshold) or confidence < HOPELESS * threshold


def uncovered(question: str, texts: Iterable[str]) -> tuple[tuple[str, ...], float]:
    """The question's content words, as they are written there, that no text holds in any form, and what part of all they are."""
    held = frozenset(stemmed for text in texts for word in content_words(text) for stemmed in (stem(word), *map(stem, PIECE.findall(word))))
    told = content_words(question)
    told = told[1:] if told and told[0].lower() in ASKING_WORDS and question.lstrip().startswith(told[0]) else told
    asked = {stem(word): word for word in reversed(told)}
    left = [word for stemmed, word in reversed(asked.items()) if stemmed not in held]
    return tuple(left), len(left) / len(asked) if asked else 0.0


def wants_quantity(question: str) -> bool:
    """Whether a question asks for a number, a measure or a date (`How many parameters does Kestrel have?`), so that a reply without one is none."""
    return bool(_QUANTITY.search(question))


def holds_quantity(question: str, text: str) -> bool:
    """Whether a text holds a number, a measure or a date that the question did not tell."""
    asked = {match.lower() for match in _MEASURE.findall(question)}
    return bool(numbers(text) - numbers(question)) or any(match.lower() not in asked for match in _MEASURE.findall(text))


def lacks_quantity(question: str, reply: str) -> bool:
    """Whether a question for a number, a measure or a date got a reply that holds none but what the question told.

    `How many parameters does Kestrel have?` wants a number in a sentence about parameters, and about Kestrel if it is about anybody.
    """
    if not wants_quantity(question):
        return False
    counted = _COUNTED.search(question)
    thing = stem(counted.group(1)) if counted else None
    about = later_names(question)
    told: frozenset[str] = frozenset()
    for sentence in (reply[span.start : span.end] for span in sentences(reply)):
        told = names(sentence) or told  # a sentence without a name speaks of the one before
        if holds_quantity(question, sentence) and (thing is None or thing in content_stems(sentence)) and (not about or not told or about & told):
            return False
    return True


def missing_parts(question: str, borne_out: str) -> tuple[str, ...]:
    """The parts of a question of several (`Who made it, and what does it cost?`) that a verified answer says nothing of, as they were asked."""
    parts = [part.strip(" ,?") for part in _PART.split(question)]
    if len(parts) < 2:
        return ()
    told = frozenset(content_stems(borne_out))
    missing = []
    for part in parts:
        others = frozenset(content_stems(" ".join(other for other in parts if other is not part)))
        own = frozenset(content_stems(part)) - others
        if lacks_quantity(part, borne_out) or (own and not own & told):
            missing.append(part)
    # An answer that shares no word with any part says it in other words.
    return tuple(missing) if len(missing) < len(parts) else ()


def worth_giving(leads: bool, question: str, borne_out: str) -> bool:
    """Whether to give a verified draft rather than to say that nothing was found. `leads`: its first sentence, which answers, is borne out; `borne_out`: all its sentences that are."""
    return leads and not lacks_quantity(question, borne_out)


def about(vectors: NDArray[np.float32]) -> list[bool]:
    """Which texts are near enough to a question to answer it in other words: `vectors` (1 + n, dimension) are the question's and theirs, of unit length."""
    return [bool(similarity >= QUOTE_SIMILARITY) for similarity in vectors[1:] @ vectors[0]]


def worth_quoting(similarity: float, coverage: float, names_told: bool) -> bool:
    """Whether the best sentence of the evidence is an answer by itself: all names of the question must stand in or near it."""
    return names_told and coverage >= QUOTE_COVERAGE and similarity >= QUOTE_SIMILARITY
