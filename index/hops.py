"""What a found passage leads on to: questions about the names in it, for what of the question it leaves open. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate

from index.types import Passage
from index.words import FUNCTION_WORDS, content_stems

NAMES = 5
"""About so many names of a passage the question is asked again; those that come first are what it is about."""

CHARACTERS = 450
"""So long are the questions of a second look at most, all together: they take as long as all the rest of a search, and a long question asked of five names
longer still. docs/benchmarks.md says what others would cost."""

ABOUT = 0.5
"""A question leads on from a passage of which it holds so much of the title, or of the first name in the text. docs/benchmarks.md says how that was chosen."""

_NAME = re.compile(r"[A-Z0-9][\w’'&.\-]*\w(?:(?: (?:of|the|de|von|van|al|and|for))? [A-Z0-9][\w’'&.\-]*\w)*")

_OPENING = re.compile(rf"^(?:(?:{'|'.join(sorted(FUNCTION_WORDS))}|[\d.]+)(?: |$))+", re.IGNORECASE)
"""What a sentence begins with and no name does: `In 1967 the`."""

_IN_BRACKETS = re.compile(r"\([^()]*\)")
"""What tells a title from others of its name: `Dead Ernest (novel)`."""


def names(passage: Passage, asked: frozenset[str]) -> list[str]:
    """The names in a passage's title and text that the question does not hold, first ones first, each once."""
    found: dict[frozenset[str], str] = {}
    for text in (passage.title, passage.text):
        for name, stems in _named(text):
            if not stems <= asked:
                found.setdefault(stems, name)
    return list(found.values())[:NAMES]


def onward(question: str, passage: Passage) -> list[str]:
    """The question asked of each name in the passage, without the words that the passage holds: `Hank Snow: state where died`; of fewer where that is long.

    Empty where the passage is not about something that the question names, or leaves nothing of the question open.
    """
    asked = frozenset(content_stems(question))
    held = frozenset(content_stems(f"{passage.title} {passage.heading} {passage.text}"))
    if asked <= held or not _is_about(passage, asked):
        return []
    # Words without a stem (`who`, `of`) hold the rest together.
    left = " ".join(word for word in question.split() if not (stems := frozenset(content_stems(word))) or not stems <= held)
    steps = [f"{name}: {left}" for name in names(passage, asked)]
    return [step for step, characters in zip(steps, accumulate(map(len, steps)), strict=True) if characters <= CHARACTERS]


def _is_about(passage: Passage, asked: frozenset[str]) -> bool:
    """Whether the question names what the passage is about: a second look from any other found nothing, and costs as much as all the rest of a search."""
    title = frozenset(content_stems(_IN_BRACKETS.sub("", passage.title)))
    _, first = next(_named(passage.text), ("", frozenset()))
    return any(len(subject & asked) >= ABOUT * len(subject) for subject in (title, first) if subject)


def _named(text: str) -> Iterator[tuple[str, frozenset[str]]]:
    """The names in a text, with the stems of their words."""
    for match in _NAME.finditer(text):
        name = _OPENING.sub("", match.group())
        if stems := frozenset(content_stems(name)):
            yield name, stems
