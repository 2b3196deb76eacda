"""False claims made from true sentences by rule, one thing changed at a time: what verification must catch. Pure and seeded; English only.

The vocabulary here is its own, apart from the one that verification reads by: a rule that both shared would only measure itself.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

Kind = Literal["number", "unit", "date", "name", "negation", "swapped roles", "comparison"]

_MONTHS = "January February March April May June July August September October November December".split()  # noqa: SIM905
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()  # noqa: SIM905
_COUNTS = "two three four five six seven eight nine ten eleven twelve".split()  # noqa: SIM905
_FIGURE = re.compile(r"(?<![\w.,])\d+(?:,\d{3})*(?:\.\d+)?(?![\d,]*\d)(?=\W|$|(?:st|nd|rd|th|s)\b)")
_COUNT = re.compile(rf"\b(?:{'|'.join(_COUNTS)})\b", re.IGNORECASE)
_MONTH = re.compile(rf"\b(?:{'|'.join(_MONTHS)})\b(?=,? \d)|(?<=\d )(?:{'|'.join(_MONTHS)})\b|(?<=\b[Ii]n )(?:{'|'.join(_MONTHS)})\b")
_DATED = re.compile(rf"(?:\b\d{{1,2}} (?:{'|'.join(_MONTHS)})\b)|\b(?:{'|'.join(_MONTHS)}) \d{{1,2}}\b(?! \d)")
_CAPITAL = r"[A-Z][\w’'-]*\w(?:\.(?=[A-Z]))?"
_NAME = re.compile(rf"\b{_CAPITAL}(?:(?: (?:of|de|von|van|del|da) (?:the )?| ){_CAPITAL}){{0,4}}")
_NO_NAMES = frozenset(
    """the a an in on at by for from with as it its he his she her they their we our this that these those there when while where who which what
    how if after before since during although though because but and or however also both each every some many most more all any one no not to of
    such under over between until unlike like other another then thus only even i you your another""".split()  # noqa: SIM905
)
_UNITS = tuple(
    tuple(group.split("|"))
    for group in (
        "thousand|million|billion|trillion",
        "seconds|minutes|hours|days|weeks|months|years|decades|centuries",
        "second|minute|hour|day|week|month|year|decade|century",
        "millimetres|centimetres|metres|kilometres|miles",
        "millimeters|centimeters|meters|kilometers|miles",
        "mm|cm|m|km",
        "inches|feet|yards|miles",
        "grams|kilograms|tonnes",
        "kg|g|mg",
        "Celsius|Fahrenheit",
    )
)
_OPPOSITES = tuple(
    tuple(pair.split("|"))
    for pair in (  # noqa: SIM905
        "more|fewer less|more fewer|more most|least higher|lower highest|lowest larger|smaller largest|smallest bigger|smaller biggest|smallest "
        "longer|shorter longest|shortest greater|lesser older|younger oldest|youngest faster|slower fastest|slowest earlier|later first|last "
        "before|after above|below over|under increase|decrease increases|decreases increased|decreased increasing|decreasing rose|fell "
        "rises|falls rising|falling grew|shrank early|late maximum|minimum northern|southern eastern|western north|south east|west "
        "better|worse best|worst upper|lower inside|outside"
    ).split()
)
_NOT = re.compile(r"(?:\s|(?<=\w))(?:not|n['’]t|never)(?=\s)(?!\s(?:only|just|merely|simply)\b)")
_AUXILIARY = re.compile(
    r"(?<![-'’])\b(?:is|are|was|were|can|could|will|would|should|must|may|might|does|do|did)\b(?!\s+(?:n[o'’]t|no|none|nothing|neither|never|only|just|merely|simply)\b)|\b(?:has|have|had)\b(?=\s+(?:been|\w+ed)\b)"
)
_PAST = re.compile(
    r"(?<=[a-z\d)] )(?!need\b|speed\b|seed\b|indeed\b)[a-z]{3,}(?<!e)ed\b(?= (?:the|a|an|in|to|by|at|on|from|for|its|his|her|their)\b)"
)
_BLOCKS_PAST = re.compile(r"\b(?:the|a|an|is|are|was|were|be|been|being|has|have|had|of|and|or|more|most|,)\W*(?:\w+ly )?$", re.IGNORECASE)
_SAME = re.compile(
    r"(?:\W|\b(?:and|or|nor|is|was|are|were|as|the|a|an|also|both|called|named|known|referred|to|formerly|born|alias|aka|with|including|versus|vs|[A-Z]\w*|\d+)\b)*"
)
_PHRASE = re.compile(r"^((?:The|A|An) [a-z]+(?: [a-z]+)?) ((?:[a-z]+(?:ed|es|s)|is \w+ed by|was \w+ed by) )((?:the|a|an) [a-z]+)\b")


@dataclass(frozen=True, slots=True)
class Corruption:
    """A claim that its passage does not make, and the kind of thing that was changed."""

    kind: Kind
    text: str


def corruptions(sentence: str, passage: str, others: Sequence[str] = (), seed: int = 0) -> list[Corruption]:
    """The false claims that the rules make of a true sentence, each with one thing changed; rules that do not apply give none.

    `others` are texts of other passages, from which foreign names come. The same arguments give the same claims, in the same order.
    """
    rules: tuple[tuple[Kind, Callable[[random.Random], str | None]], ...] = (
        ("number", lambda chance: _number(sentence, passage, chance)),
        ("unit", lambda chance: _unit(sentence, chance)),
        ("date", lambda chance: _date(sentence, chance)),
        ("name", lambda chance: _name(sentence, [passage], chance)),
        ("name", lambda chance: _name(sentence, others, chance)),
        ("negation", lambda chance: _negation(sentence, chance)),
        ("swapped roles", lambda chance: _exchanged(sentence, _runs(sentence, [passage]), chance)),
        ("swapped roles", lambda chance: _exchanged(sentence, [match.span() for match in _FIGURE.finditer(sentence)], chance)),
        ("swapped roles", lambda chance: _turned(sentence)),
        ("comparison", lambda chance: _comparison(sentence, chance)),
    )
    found: list[Corruption] = []
    for number, (kind, rule) in enumerate(rules):
        text = rule(random.Random(f"{seed}/{number}/{sentence}"))  # noqa: S311 - repeatable, not secret
        if text is not None and text != sentence and text not in {made.text for made in found}:
            found.append(Corruption(kind, text))
    return found


def _put(text: str, start: int, end: int, new: str) -> str:
    return text[:start] + new + text[end:]


def _cased(new: str, old: str) -> str:
    return new[0].upper() + new[1:] if old[0].isupper() else new


def _number(sentence: str, passage: str, chance: random.Random) -> str | None:
    """Another figure of the passage, or one near the true one, in the place of a figure or a spelled count."""
    dated = [match.span() for match in _DATED.finditer(sentence)]
    places = [match for match in _FIGURE.finditer(sentence) if not any(start <= match.start() < end for start, end in dated)]
    places += list(_COUNT.finditer(sentence))
    if not places:
        return None
    place = chance.choice(places)
    old = place.group()
    if old[0].isalpha():
        return _put(sentence, *place.span(), _cased(chance.choice([count for count in _COUNTS if count not in sentence.lower()] or ["twenty"]), old))
    held = {match.group() for match in _FIGURE.finditer(sentence)}
    like = sorted({match.group() for match in _FIGURE.finditer(passage) if len(match.group()) == len(old)} - held)
    if like and chance.random() < 0.5:
        return _put(sentence, *place.span(), chance.choice(like))
    value = float(old.replace(",", ""))
    decimals = len(old.partition(".")[2])
    for _ in range(20):
        if decimals:
            new = f"{value * chance.uniform(0.3, 2.5):,.{decimals}f}"
        elif 1000 <= value <= 2100 and "," not in old:
            new = str(int(value) + chance.choice([-30, -10, -7, -3, -2, -1, 1, 2, 3, 7, 10, 30]))
        else:
            new = f"{max(1, int(value + chance.choice([-1, 1]) * max(1, value * chance.uniform(0.1, 0.8)))):{',' if ',' in old else ''}d}"
        if new not in held:
            return _put(sentence, *place.span(), new)
    return None


def _unit(sentence: str, chance: random.Random) -> str | None:
    """Another unit or order of magnitude behind a figure."""
    places = [
        (match.start(1), match.end(1), other)
        for group in _UNITS
        for match in re.finditer(rf"(?:\d|\b(?:{'|'.join(_COUNTS)}))[ -](?:degrees )?({'|'.join(group)})\b", sentence)
        for other in group
        if other != match.group(1)
    ]
    return _put(sentence, *chance.choice(places)) if places else None


def _date(sentence: str, chance: random.Random) -> str | None:
    """Another month, day of the month or day of the week."""
    places = [(match.start(), match.end(), month) for match in _MONTH.finditer(sentence) for month in _MONTHS if month != match.group()]
    places += [
        (match.start(), match.end(), day) for match in re.finditer(rf"\b(?:{'|'.join(_DAYS)})\b", sentence) for day in _DAYS if day != match.group()
    ]
    for match in _DATED.finditer(sentence):
        digits = re.search(r"\d+", match.group())
        assert digits
        start = match.start() + digits.start()
        places += [(start, start + len(digits.group()), str(day)) for day in range(1, 29) if str(day) != digits.group()]
    return _put(sentence, *chance.choice(places)) if places else None


def _runs(text: str, told: Iterable[str] = ()) -> list[tuple[int, int]]:
    """Where the names of a text stand. A capital at a sentence's beginning proves a name only where `told` has the word with one inside a sentence."""
    inside = {word for passage in told for word in re.findall(r"(?<=[a-z,;] )[A-Z][\w’'-]+", passage)}
    found = []
    for match in _NAME.finditer(text):
        start, end = match.span()
        first = match.group().split()[0]
        if first.lower() in _NO_NAMES:
            start += len(first) + 1
        elif re.search(r"(?:^|[.!?]['’”\"]?\s)\W*$", text[:start]) and first not in inside and " " not in match.group():
            continue
        name = text[start:end]
        if name[:1].isupper() and name not in _MONTHS + _DAYS and name.lower() not in _NO_NAMES:
            found.append((start, end))
    return found


def _name(sentence: str, passages: Sequence[str], chance: random.Random) -> str | None:
    """A name that the passages tell and the sentence does not, in the place of one that it does."""
    own = _runs(sentence, passages)
    words = set(re.findall(r"\w+", sentence.lower()))
    new = sorted({passage[start:end] for passage in passages for start, end in _runs(passage, [passage])})
    new = [name for name in new if not words & set(re.findall(r"\w+", name.lower()))]
    return _put(sentence, *chance.choice(own), chance.choice(new)) if own and new else None


def _negation(sentence: str, chance: random.Random) -> str | None:
    """A denial taken out, or put in behind an auxiliary or before a verb in the past."""
    said = list(_NOT.finditer(sentence))
    if said:
        taken = chance.choice(said)
        less = _put(sentence, *taken.span(), "")
        return re.sub(r"\b([Cc])a(?= )(?<=\b[Cc]a)", r"\1an", less)
    at = next(_AUXILIARY.finditer(sentence), None)
    if at is not None:
        return _put(sentence, at.end(), at.end(), " not")
    if " cannot " in sentence:
        return sentence.replace(" cannot ", " can ", 1)
    for past in _PAST.finditer(sentence):
        if not _BLOCKS_PAST.search(sentence[: past.start()]):
            return _put(sentence, past.start(), past.start(), "never ")
    return None


def _exchanged(sentence: str, places: Sequence[tuple[int, int]], chance: random.Random) -> str | None:
    """Two names, or two figures, each in the other's place; not two of one list or two names of one thing, where the claim would stay true."""
    pairs = []
    for (start, end), (after, until) in combinations(places, 2):
        one, other = sentence[start:end], sentence[after:until]
        if not _SAME.fullmatch(sentence[end:after]) and not set(one.lower().split()) & set(other.lower().split()):
            pairs.append(sentence[:start] + other + sentence[end:after] + one + sentence[until:])
    return chance.choice(pairs) if pairs else None


def _turned(sentence: str) -> str | None:
    """`The fox hunts the hare` becomes `The hare hunts the fox`."""
    match = _PHRASE.match(sentence)
    if match is None or match[1].lower() == match[3]:
        return None
    subject = match[1][0].lower() + match[1][1:]
    return f"{_cased(match[3], match[1])} {match[2]}{subject}{sentence[match.end() :]}"


def _comparison(sentence: str, chance: random.Random) -> str | None:
    """The opposite of a word that compares or tells a direction."""
    places = []
    for one, other in _OPPOSITES:
        for old, new in ((one, other), (other, one)):
            places += [(match.start(), match.end(), _cased(new, match.group())) for match in re.finditer(rf"\b{old}\b", sentence, re.IGNORECASE)]
    return _put(sentence, *chance.choice(sorted(places))) if places else None
