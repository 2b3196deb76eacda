"""Questions that take something for granted which the documents tell otherwise. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from index.split import sentences
from index.types import Hit
from rag.facts import later_names, names, one_name

_NAME = r"[A-Z][\w.’'-]*(?: [A-Z][\w.’'-]*)*"
_GRANTED = re.compile(
    rf"^\W*(?:why|how|when|where|(?:in|on|at|for|since|with) (?:what|which|whom)\b[^,]*?|what)\s+(?P<helps>did|does|has|had|was|is|will)\s+(?P<who>(?-i:{_NAME}))\s+(?P<did>[^,;]+?)\W*$",
    re.IGNORECASE,
)


def granted(question: str) -> tuple[str, str] | None:
    """Who a question takes for granted to have done something, and the question who did it; None where it takes nothing so.

    `Why did Okafor build the Kestrel?` gives `Okafor` and `Who did build the Kestrel?`. What was done must name something, so that it can be found.
    """
    found = _GRANTED.match(question)
    if found is None or not later_names(f"It {found['did']}"):
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
    """Whether an answer names somebody whom the question did not, and not the one it took for granted."""
    told = names(answer)
    return bool(told - names(f"It {question}")) and not told & names(f"It {who}")
