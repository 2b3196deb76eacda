"""What a sentence states that must be borne out exactly: numbers with their units, names, denial, direction. Pure; knows nothing of documents.

English only, like the stems that it is compared with: in other languages words still count, but units, denial and direction go unseen.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache

from index.words import FUNCTION_WORDS, WORD, stem

HYPHEN = re.compile(r"[-‐‑–/]")

_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()  # noqa: SIM905
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905
_SPELLED = {word: value for value, word in enumerate(_ONES)} | {word: 10 * value for value, word in enumerate(_TENS, 2)}
_SPELLED |= {f"{ten}{one}": _SPELLED[ten] + _SPELLED[one] for ten in _TENS for one in _ONES[1:10]}
_SPELLED |= {"third": 3, "fifth": 5, "eighth": 8, "ninth": 9, "twelfth": 12}
_SPELLED |= {f"{word}th": _SPELLED[word] for word in ("four", "six", "seven", "ten", "eleven", *_ONES[13:])}

_SCALES = {"k": 3, "m": 6, "mn": 6, "bn": 9, "b": 9, "tn": 12, "hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_MEASURES = {
    form: forms[0]
    for row in (  # noqa: SIM905
        "second s sec secs|minute min mins|hour hr hrs|day|week|month|year yr yrs|decade|century centuries|degree|kilometre kilometer km|metre meter"
        "|centimetre centimeter cm|millimetre millimeter mm|mile|foot feet ft|inch inches|yard|acre|hectare|kilogram kilo kg|gram|tonne ton"
        "|litre liter|ounce|mph|kmh|megawatt mw|kilowatt kw|dollar usd|euro eur|pound gbp|yen|yuan|% percent pct"
    ).split("|")
    for forms in [row.split()]
    for written in forms
    for form in (written, f"{written}s")
    if form != "s"
} | {"per cent": "%"}
_CURRENCIES = {"$": "dollar", "€": "euro", "£": "pound", "¥": "yen"}
_NUMBER = re.compile(
    r"(?<![\w.])(?P<sign>(?<![\w.\-–−][\-−])(?<![\w)])[-−])?(?P<currency>[$€£¥]\s?)?"
    rf"(?:(?P<digits>\d(?:[\d,]*\d)?(?:\.\d+)*)|(?P<word>(?:{'|'.join(_TENS)})\s?[\s-]\s?(?:{'|'.join(_ONES[1:10])})|{'|'.join(sorted(_SPELLED, key=len, reverse=True))})\b"
    r"|(?P<one>an?)(?=[\s-](?:hundred|thousand|million|billion|trillion)\b))"
    r"(?:(?P<short>k|m|mn|bn|b|tn)\b|[\s-]?(?P<scale>hundred|thousand|million|billion|trillion)s?\b)?"
    rf"(?:\s?-?\s?(?P<measure>{'|'.join(sorted(map(re.escape, _MEASURES), key=len, reverse=True))})(?!\w))?",
    re.IGNORECASE | re.ASCII,
)
_MONTHS = "january february march april may june july august september october november december".split()  # noqa: SIM905
_MONTH = rf"(?P<month>{'|'.join(f'{month.capitalize()}|{month[:3].capitalize()}' for month in _MONTHS)}|Sept)\b\.?"
_DATES = tuple(
    re.compile(pattern)
    for pattern in (
        r"\b(?P<year>\d{4})-(?P<number>\d{2})-(?P<day>\d{2})\b",
        rf"\b(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\s(?:of\s)?{_MONTH}(?:\s?,?\s(?P<year>\d{{4}})\b)?",
        rf"\b{_MONTH}\s(?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?!\d)(?:\s?,\s?(?P<year>\d{{4}})\b)?",
        rf"\b{_MONTH}\s?,?\s(?P<year>\d{{4}})\b",
        rf"\b(?P<month>{'|'.join(month.capitalize() for month in _MONTHS)})\b",
    )
)
_NO_NAME = re.compile(r"\d+(?:st|nd|rd|th|s)|\w*n['’]t", re.IGNORECASE)
_VERSION = re.compile(r"\b([A-Z]\w*)[ -](\d+(?:\.\d+)*)(?![\w%])")
_NEGATION = re.compile(
    r"\b(?:not(?!\s+(?:just|only|merely|simply|so much))|never|no(?!\s+doubt)|none|nobody|nothing|neither|nor|without|cannot"
    r"|\w*n['’]t(?!\s+(?:just|only|merely|simply))|lacks?|lacked|fail(?:s|ed)? to|unable|refus(?:e|es|ed) to)\b",
    re.IGNORECASE,
)

_DIRECTIONS = tuple(
    tuple(re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for words in row)
    for row in (
        (
            r"ris(?:e|es|en|ing)|rose|increas\w+|grow(?:s|n|ing|th)?|grew|gain\w*|soar\w*|climb\w*|rocket\w*|surg\w+",
            r"fall(?:s|en|ing)?|fell|drop\w*|declin\w+|decreas\w+|shr[aiu]nk\w*|plung\w+|slump\w*|sank|sink\w*",
        ),
        (
            r"above|over|more than|at least|exceed\w*|upwards of|no (?:fewer|less) than|minimum of",
            r"below|under|(?<!no )(?:less|fewer) than|at most|no more than|up to|maximum of",
        ),
        (r"more(?! than)", r"less(?! than)|fewer(?! than)"),
        (r"before|prior to|ahead of|earlier|until", r"after|following|since|later"),
        (r"higher|larger|bigger|longer|greater|faster|stronger|better|older", r"lower|smaller|shorter|lesser|slower|weaker|worse|younger"),
        (
            r"highest|largest|biggest|longest|greatest|fastest|strongest|best|oldest|most|maxim\w+",
            r"lowest|smallest|shortest|slowest|weakest|worst|youngest|least|minim\w+",
        ),
        (r"first", r"last|final", r"second", r"third"),
        (r"early", r"late"),
        (r"north(?:ern)?", r"south(?:ern)?", r"east(?:ern)?", r"west(?:ern)?"),
        (r"upper|inside|internal", r"lower|outside|external"),
        (r"buy|buys|bought|acquir\w+", r"sell|sells|sold"),
        (r"confirm\w*|admit\w*|accept\w*|approv\w+", r"den(?:y|ies|ied)|reject\w*|refus\w+"),
        (r"won|wins?|beat|beats|defeats|gain\w*", r"lost|loses?"),
        (r"open(?:s|ed)?|begins?|began|start(?:s|ed)?", r"clos(?:e|es|ed)|ends?|ended"),
    )
)
"""Rows of words that exclude each other: one of a row in the place of another turns a claim round."""


def alike(first: str, second: str) -> bool:
    """Whether two stems are of one family: `invest` and `investor`, `generat` and `generator`."""
    if first == second:
        return True
    shorter, longer = (first, second) if len(first) <= len(second) else (second, first)
    return len(shorter) >= 5 and len(longer) - len(shorter) <= 3 and longer.startswith(shorter)


def is_among(word: str, others: frozenset[str]) -> bool:
    """Whether one of the stems is alike() a stem: the same, without each of them being looked at twice over."""
    length = len(word)
    if word in others or any(word[:cut] in others for cut in range(max(5, length - 3), length)):
        return True
    return length >= 5 and any(other.startswith(word) and len(other) <= length + 3 for other in others)


def one_name(first: str, second: str) -> bool:
    """Whether two names are one, as country and people are: `China` and `Chinese`, `America` and `American`."""
    shorter, longer = (first, second) if len(first) <= len(second) else (second, first)
    return first == second or (len(shorter) >= 5 and len(longer) - len(shorter) <= 3 and longer.startswith(shorter[:-1]))


def _dates(text: str) -> list[tuple[int, int, tuple[str, ...]]]:
    """Where dates stand and what they state: the year, the month, the day of the month. A month that stands alone is one."""
    found: list[tuple[int, int, tuple[str, ...]]] = []
    for pattern in _DATES:
        for match in pattern.finditer(text):
            parts = match.groupdict()
            month = (
                int(parts["number"])
                if parts.get("number")
                else next(n for n, name in enumerate(_MONTHS, 1) if name.startswith(match["month"].lower()[:3]))
            )
            if not 1 <= month <= 12 or any(match.start() < end and start < match.end() for start, end, _ in found):
                continue
            stated = [f"month {month}"]
            if parts.get("day"):
                stated.append(f"day {month}-{int(parts['day'])}")
            if parts.get("year"):
                stated.append(parts["year"])
            found.append((*match.span(), tuple(stated)))
    return sorted(found)


def _value(match: re.Match[str]) -> str:
    """A number's value in digits, scale worked in: `1.2 billion` and `1,200 million` are one. Versions (`1.2.3`) stay as they are."""
    if match["word"]:
        word = re.sub(r"[\s-]", "", match["word"].lower())
        value = str(_SPELLED[word])
    else:
        value = "1" if match["one"] else match["digits"].replace(",", "")
    scale = _SCALES.get((match["short"] or match["scale"] or "").lower(), 0)
    if value.count(".") <= 1:
        value = f"{Decimal(value).scaleb(scale):f}"
        value = value.rstrip("0").rstrip(".") if "." in value else value
    return ("-" if match["sign"] else "") + value


@lru_cache(maxsize=4096)
def quantities(text: str) -> tuple[tuple[int, int, str], ...]:
    """The quantities and dates in a text with where they begin and end, in order, written one way.

    `fifteen seconds` and `15-second` are `15 second`, `$1.2B` is `1200000000 dollar`; `12 March 2024` is three: `month 3`, `day 3-12`, `2024`.
    """
    dates = _dates(text)
    found = [(start, end, part) for start, end, stated in dates for part in stated]
    for match in _NUMBER.finditer(text):
        if any(start < match.end() and match.start() < end for start, end, _ in dates):
            continue
        if (match["word"] or "").lower() == "one" and not match["scale"]:
            continue  # far more often a pronoun than a count
        measure = _MEASURES.get((match["measure"] or "").lower()) or _CURRENCIES.get((match["currency"] or "").strip(), "")
        found.append((match.start(), match.end(), f"{_value(match)} {measure}".strip()))
    return tuple(sorted(found))


def numbers(text: str) -> frozenset[str]:
    """The quantities in a text."""
    return frozenset(quantity for _, _, quantity in quantities(text))


def versions(text: str) -> frozenset[tuple[str, str]]:
    """The names in a text that a number stands right behind, each as (stem, number): `Kestrel 4.5`, `Kestrel-5`, `Boeing 747`. Dates are none."""
    dated = [(start, end) for start, end, _ in _dates(text)]
    return frozenset(
        (stem(match[1]), match[2])
        for match in _VERSION.finditer(text)
        if match[1].lower() not in FUNCTION_WORDS and not any(start < match.end() and match.start() < end for start, end in dated)
    )


def held_numbers(wanted: frozenset[str], there: frozenset[str]) -> frozenset[str]:
    """The quantities that others bear out. A measure can be left out of the claim, but for %, and stand with a neighbour in the source: `30 to 40 seconds`."""
    measures = {measure for value, _, measure in (quantity.partition(" ") for quantity in there)}
    bare = {value for value, _, measure in (quantity.partition(" ") for quantity in there) if measure != "%"}

    def held(quantity: str) -> bool:
        value, _, measure = quantity.partition(" ")
        if quantity in there or (not measure and value in bare):
            return True
        return value in there and (measure in measures or measure in _CURRENCIES.values())

    return frozenset(quantity for quantity in wanted if held(quantity))


@lru_cache(maxsize=4096)
def name_runs(text: str) -> tuple[tuple[int, int, tuple[str, ...]], ...]:
    """The names in a text with where they begin and end, in order: `Jordan Schneider` is one run of two stems.

    A word looks like a name when it has a capital, or a digit among letters; function words and dates are left out.
    """
    dated = [(start, end) for start, end, _ in _dates(text)]
    mixed = not text.isupper()  # where not all is in capitals, `US` is no pronoun
    found: list[tuple[int, int, tuple[str, ...]]] = []
    until = -1
    for word in WORD.finditer(text):
        stems = tuple(
            stem(piece)
            for piece in HYPHEN.split(word.group())
            if re.search(r"[A-Z]|[a-z]\d|\d[a-z]", piece)
            and (re.sub(r"['’].*", "", piece.lower()) not in FUNCTION_WORDS or (mixed and len(piece) > 1 and piece.isupper()))
        )
        if any(start < word.end() and word.start() < end for start, end in dated) or _NO_NAME.fullmatch(word.group()):
            stems = ()
        if stems and text[until : word.start()] == " ":
            found[-1] = (found[-1][0], word.end(), found[-1][2] + stems)
        elif stems:
            found.append((word.start(), word.end(), stems))
        # A possessive ends a run: Google's Gemini are two names.
        until = word.end() if stems and not re.search(r"['’]s?$", word.group()) else -1
    return tuple(found)


def names(text: str) -> frozenset[str]:
    """Stems of the words that look like names."""
    return frozenset(name for _, _, run in name_runs(text) for name in run)


def later_names(text: str) -> frozenset[str]:
    """The names of a text but for its first word, whose capital may come only from standing first."""
    opening = WORD.search(text)
    return names(text[opening.end() :]) if opening else frozenset()


def plain_opening(sentence: str) -> str | None:
    """The stem of a sentence's first word where its capital proves nothing: `Improving models …`, not `NASA …`."""
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
    for at, _, run in name_runs(told):
        return frozenset(run) if len(told[:at].split()) <= 2 else frozenset()
    return frozenset()


def negations(text: str) -> list[tuple[int, int]]:
    """Where a text denies something. `not only` and its kin deny nothing."""
    return [match.span() for match in _NEGATION.finditer(text)]


def directions(text: str) -> list[tuple[int, int, tuple[int, int]]]:
    """Where a text compares or tells a direction, each with its row and its place in the row: `rose` and `fell` share a row."""
    found: list[tuple[int, int, tuple[int, int]]] = []
    for row, columns in enumerate(_DIRECTIONS):
        for column, words in enumerate(columns):
            found += [(*match.span(), (row, column)) for match in words.finditer(text)]
    return sorted(found)
