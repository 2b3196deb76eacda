"""What a sentence states that must be borne out exactly: numbers with their units, names, denial, direction. Pure; knows nothing of documents.

English only, like the stems that it is compared with: in other languages words still count, but units, denial and direction go unseen.
"""

from __future__ import annotations

import re
from functools import lru_cache

from index.words import FUNCTION_WORDS, WORD, stem

HYPHEN = re.compile(r"[-‐‑–/]")

_UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"
_SPELLED = {word: str(value) for value, word in enumerate(_UNITS.split())}
_SPELLED |= {
    word: str(value) for value, word in zip(range(30, 100, 10), ["thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], strict=True)
}
del _SPELLED["one"]  # far more often a pronoun than a count

_SCALES = {"k": "thousand", "m": "million", "mn": "million", "bn": "billion", "b": "billion", "tn": "trillion"}
_SCALE_WORDS = ("hundred", "thousand", "million", "billion", "trillion")
_MEASURES = {
    form: unit
    for unit in (
        "second",
        "minute",
        "hour",
        "day",
        "week",
        "month",
        "year",
        "decade",
        "century",
        "degree",
        "kilometre",
        "metre",
        "mile",
        "kilogram",
        "tonne",
    )
    for form in (unit, f"{unit}s", unit.replace("metre", "meter"), f"{unit.replace('metre', 'meter')}s")
} | {"centuries": "century", "percent": "%", "per cent": "%", "%": "%"}
_NUMBER = re.compile(
    rf"(?<![\w.])(?P<sign>(?<![\w.\-–−][\-−])(?<![\w)])[-−])?[$€£¥]?(?:(?P<digits>\d(?:[\d,]*\d)?(?:\.\d+)*)|(?P<word>{'|'.join(_SPELLED)})\b)"
    rf"(?:(?P<short>k|m|mn|bn|b|tn)\b|[\s-]?(?P<scale>{'|'.join(_SCALE_WORDS)})s?\b)?"
    rf"(?:[\s-]?(?P<measure>{'|'.join(sorted(map(re.escape, _MEASURES), key=len, reverse=True))})(?!\w))?",
    re.IGNORECASE | re.ASCII,
)
_NEGATION = re.compile(
    r"\b(?:not(?!\s+(?:just|only|merely|simply|so much))|never|no(?!\s+doubt)|none|nobody|nothing|neither|nor|without|cannot"
    r"|\w+n['’]t(?!\s+(?:just|only|merely|simply))|lacks?|lacked|fail(?:s|ed)? to|unable|refus(?:e|es|ed) to)\b",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"[,;:—–()]|\b(?:but|while|whereas|although|though|instead)\b", re.IGNORECASE)

_OPPOSITES = tuple(
    (re.compile(rf"\b(?:{one})\b", re.IGNORECASE), re.compile(rf"\b(?:{other})\b", re.IGNORECASE))
    for one, other in (
        (
            r"ris(?:e|es|en|ing)|rose|increas\w+|grow(?:s|n|ing|th)?|grew|gain\w*|soar\w*|climb\w*|rocket\w*|surg\w+",
            r"fall(?:s|en|ing)?|fell|drop\w*|declin\w+|decreas\w+|shr[aiu]nk\w*|plung\w+|slump\w*|sank|sink\w*",
        ),
        (r"above|over|more than|at least|exceed\w*|upwards of", r"below|under|less than|fewer than|at most|no more than"),
        (r"before|prior to|ahead of", r"after|following|since"),
        (r"higher|larger|bigger|longer|greater|faster|stronger|better|older", r"lower|smaller|shorter|slower|weaker|worse|younger"),
        (
            r"highest|largest|biggest|longest|greatest|fastest|strongest|best|oldest|most",
            r"lowest|smallest|shortest|slowest|weakest|worst|youngest|least",
        ),
        (r"first", r"last|second|third"),
        (r"buy|buys|bought|acquir\w+", r"sell|sells|sold"),
        (r"confirm\w*|admit\w*|accept\w*|approv\w+", r"den(?:y|ies|ied)|reject\w*|refus\w+"),
        (r"won|wins?|beat|beats", r"lost|loses?"),
        (r"open(?:s|ed)?", r"clos(?:e|es|ed)"),
    )
)


def quantities(text: str) -> list[tuple[int, str]]:
    """The quantities in a text with the offsets at which they begin, in order, written one way.

    `fifteen seconds` and `15-second` are `15 second`, `$1.2B` is `1.2 billion`, thousands marks go.
    """
    found = []
    for match in _NUMBER.finditer(text):
        value = (match["digits"] or _SPELLED[match["word"].lower()]).replace(",", "")
        scale = _SCALES.get((match["short"] or "").lower(), (match["scale"] or "").lower())
        measure = _MEASURES.get((match["measure"] or "").lower(), "")
        found.append((match.start(), " ".join(part for part in (("-" if match["sign"] else "") + value, scale, measure) if part)))
    return found


def numbers(text: str) -> frozenset[str]:
    """The quantities in a text."""
    return frozenset(quantity for _, quantity in quantities(text))


def name_runs(text: str) -> list[tuple[int, tuple[str, ...]]]:
    """The names in a text with the offsets at which they begin, in order: `Jordan Schneider` is one run of two stems.

    A word looks like a name when it has a capital, or a digit among letters; function words are left out.
    """
    found: list[tuple[int, tuple[str, ...]]] = []
    until = -1
    for word in WORD.finditer(text):
        stems = tuple(
            stem(piece)
            for piece in HYPHEN.split(word.group())
            if re.search(r"[A-Z]|[a-z]\d|\d[a-z]", piece) and re.sub(r"['’].*", "", piece.lower()) not in FUNCTION_WORDS
        )
        if stems and text[until : word.start()] == " ":
            found[-1] = (found[-1][0], found[-1][1] + stems)
        elif stems:
            found.append((word.start(), stems))
        # A possessive ends a run: Google's Gemini are two names.
        until = word.end() if stems and not re.search(r"['’]s?$", word.group()) else -1
    return found


def names(text: str) -> frozenset[str]:
    """Stems of the words that look like names."""
    return frozenset(name for _, run in name_runs(text) for name in run)


def later_names(text: str) -> frozenset[str]:
    """The names of a text but for its first word, whose capital may come only from standing first."""
    opening = WORD.search(text)
    return names(text[opening.end() :]) if opening else frozenset()


def plain_opening(sentence: str) -> str | None:
    """The stem of a sentence's first word where its capital proves nothing: `Improving models …`, not `GLM …`."""
    first = WORD.search(sentence)
    if first is None:
        return None
    piece = HYPHEN.split(first.group())[0]
    return None if re.search(r"\w[A-Z]|\d", piece) else stem(piece)


def sets_the_scene(sentence: str) -> bool:
    """Whether a sentence opens with a word that is no subject: `Unfortunately, …`, `Building on …`."""
    return bool(re.match(r"\W*\w+(?:ly|ing|ed)\b|\W*\w+[,:]", sentence))


_REPORTS = (
    r"(?:(?:also|then|further|has|have) )?(?:say|says|said|explain|note|state|argue|admit|add|claim|report|write|wrote|believe|suggest|highlight|observe|warn|think|tell|told"
    r"|points? out|pointed out|conclude|describe|stress|emphasi[sz]e|insist|recall)(?:s|d|ed|es)?"
)
_REPORTING = re.compile(
    rf"^\W*(?:According to [^,]{{2,60}},\s*|(?:[A-Za-z]+ )?(?:[A-Z][\w.’'-]* ?){{1,4}}(?:, [^,]{{2,60}},)? {_REPORTS}\b(?: that\b)?[\s,:\"“]*)"
)


def own_subject(sentence: str) -> frozenset[str]:
    """The name that a sentence opens with, within its first three words, who says it left aside: `Voss says that Merlin sails` is about Merlin."""
    told = _REPORTING.sub("", sentence)
    for at, run in name_runs(told):
        return frozenset(run) if len(told[:at].split()) <= 2 else frozenset()
    return frozenset()


def denies(text: str) -> bool:
    """Whether a text denies something. `not only` and its kin deny nothing."""
    return bool(_NEGATION.search(text))


@lru_cache(maxsize=4096)
def clauses(text: str) -> tuple[str, ...]:
    """A text's clauses, roughly: what stands between commas, dashes, brackets and contrasting words."""
    return tuple(clause for clause in _CLAUSE.split(text) if clause.strip())


def opposes(sentence: str, other: str) -> bool:
    """Whether one says `rose` where the other says `fell`, and the like: a direction of the sentence is turned round in the other text."""
    for one, counterpart in _OPPOSITES:
        up, down = bool(one.search(sentence)), bool(counterpart.search(sentence))
        if up != down and (counterpart if up else one).search(other) and not (one if up else counterpart).search(other):
            return True
    return False
