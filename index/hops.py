"""What a found passage leads on to: questions about the names in it, for what of the question it leaves open. Pure."""

from __future__ import annotations

import re

from index.types import Passage
from index.words import FUNCTION_WORDS, content_stems

NAMES = 5
"""About so many names of a passage the question is asked again; those that come first are what it is about."""

_NAME = re.compile(r"[A-Z0-9][\w’'&.\-]*\w(?:(?: (?:of|the|de|von|van|al|and|for))? [A-Z0-9][\w’'&.\-]*\w)*")

_OPENING = re.compile(rf"^(?:(?:{'|'.join(sorted(FUNCTION_WORDS))}|[\d.]+)(?: |$))+", re.IGNORECASE)
"""What a sentence begins with and no name does: `In 1967 the`."""


def names(passage: Passage, asked: frozenset[str]) -> list[str]:
    """The names in a passage's title and text that the question does not hold, first ones first, each once."""
    found: dict[frozenset[str], str] = {}
    for text in (passage.title, passage.text):
        for match in _NAME.finditer(text):
            name = _OPENING.sub("", match.group())
            stems = frozenset(content_stems(name))
            if stems and not stems <= asked:
                found.setdefault(stems, name)
    return list(found.values())[:NAMES]


def onward(question: str, passage: Passage) -> list[str]:
    """The question asked of each name in the passage, without the words that the passage holds: `Hank Snow: state where died`.

    Empty where the passage leaves nothing of the question open.
    """
    held = frozenset(content_stems(f"{passage.title} {passage.heading} {passage.text}"))
    if frozenset(content_stems(question)) <= held:
        return []
    # Words without a stem (`who`, `of`) hold the rest together.
    left = " ".join(word for word in question.split() if not (stems := frozenset(content_stems(word))) or not stems <= held)
    return [f"{name}: {left}" for name in names(passage, frozenset(content_stems(question)))]
