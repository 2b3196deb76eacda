"""Questions that take something for granted which the documents tell otherwise. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from index.split import sentences
from index.types import Hit
from index.words import content_stems
from rag.facts import later_names, names, one_name, own_subject

_NAME = r"[A-Z][\w.’'-]*(?: [A-Z][\w.’'-]*)*"
_GRANTED = re.compile(
    rf"^\W*(?:why|how|when|where|(?:in|on|at|for|since|with) (?:what|which|whom)\b[^,]*?)\s+(?P<helps>did|has|had|will)\s+(?P<who>(?-i:{_NAME}))\s+(?P<did>(?P<deed>\w+)\s[^,;]+?)\W*$",
    re.IGNORECASE,
)
_DEEDS = frozenset(
    content_stems(
        "build built found founded create created launch launched develop developed invent invented acquire acquired buy bought write wrote written publish "
        "published make made design designed release released introduce introduced unveil unveiled produce produced discover discovered start started"
    )
)
"""What is done once, by somebody: whoever else is told to have done it, the question is wrong. Many can join, visit or use something."""


def granted(question: str) -> tuple[str, str] | None:
    """Who a question takes for granted to have done something, and the question who did it; None where it takes nothing so.

    `Why did Okafor build the Kestrel?` gives `Okafor` and `Who did build the Kestrel?`. What was done must name something, so that it can be found.
    """
    found = _GRANTED.match(question)
    if found is None or not _DEEDS & frozenset(content_stems(found["deed"])) or not later_names(f"It {found['did']}"):
        return None
    return found["who"], f"Who {found['helps'].lower()} {found['did']}?"


def is_told(who: str, done: str, hits: Sequence[Hit]) -> bool:
    """Whether some sentence of the passages speaks of somebody together with a name of what was done: then it may be true."""
    mine, others = names(f"It {who}"), later_names(done)

    def holds(there: frozenset[str], wanted: frozenset[str]) -> bool:
        return any(name in there or any(one_name(name, other) for other in there) for name in wanted)

    lines = (names(hit.passage.text[line.start : line.end]) for hit in hits for line in sentences(hit.passage.text))
    return any(holds(line, mine) and holds(line, others) for line in lines)


def corrects(answer: str, question: str, who: str) -> bool:
    """Whether an answer puts somebody whom the question did not name where the doer stands, first or behind `by`, and does not name whom it took for granted."""
    told, mine, asked = names(answer), names(f"It {who}"), names(f"It {question}")
    if any(name in told or any(one_name(name, other) for other in told) for name in mine):
        return False
    doers = own_subject(answer).union(*(names(f"It {found[1]}") for found in re.finditer(rf"\bby (?:the )?({_NAME})", answer)))
    return bool(doers - asked)
