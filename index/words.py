"""Words as search and verification compare them: lower case, stemmed, without function words. Knows nothing of passages."""

from __future__ import annotations

import re
import threading
import unicodedata
from functools import lru_cache

import snowballstemmer

WORD = re.compile(r"[^\W_]+(?:[.'’\-][^\W_]+)*")
"""A word keeps its inner marks, so that K.io, Kestrel-5, M2.5 and Voss's stay whole."""

PIECE = re.compile(r"[^\W_]+")

FUNCTION_WORDS = frozenset(
    """a about above after again against all also am an and any are as at be because been before being below between both but by can could did do
    does doing down during each either else ever every few for from further get gets got had has have having he her here hers herself him
    himself his how however i if in into is it its itself just let like made make makes many may me might more most much must my myself near
    neither no nor not of off on once only or other our ours ourselves out over own per please same say says shall she should since so some such
    than that the their theirs them themselves then there these they this those though through thus to too under until up upon us use used uses
    using very via was we were what whatever when where whether which while who whom whose why will with within without would yes yet you your
    yours yourself yourselves according called document documents mention mentioned named passage passages tell text texts""".split()  # noqa: SIM905
)
"""Words that say how something is asked, not what is asked."""

ASKING_WORDS = frozenset("explain describe list name give find show summarise summarize".split())  # noqa: SIM905
"""Words that a question can open with, and that are not what it is about: `Find the sum of …`."""

_HYPHEN = re.compile("[-‐‑–]")
_POSSESSIVE = re.compile("['’][sS]$")

REMEMBERED_CHARACTERS = 1_500
"""The stems of texts up to this length are remembered: one answer asks for those of the same sentences and passages many times over."""

_stemmer = snowballstemmer.stemmer("english")
_stemming = threading.Lock()
"""A stemmer works on a state of its own, so two threads must not use it at once."""


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """The stem of one word, lower-cased, without accents and without a possessive ending."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", word.lower().replace("’", "'")) if not unicodedata.combining(c))
    with _stemming:
        return str(_stemmer.stemWord(plain.removesuffix("'s").removesuffix("'")))


def words(text: str) -> list[str]:
    """All words of a text as written, inner marks kept."""
    return WORD.findall(text)


def content_words(text: str) -> list[str]:
    """The words that carry meaning, in order, repeats kept, no possessive endings. Hyphenated ones count as their parts: `open-source` as two."""
    found = []
    for word in WORD.findall(text):
        # Most words are letters alone, and nothing is to be taken from them.
        for piece in (word,) if word.isalnum() else _HYPHEN.split(word):
            plain = piece if piece.isalnum() else _POSSESSIVE.sub("", piece)
            if plain and plain.lower().replace("’", "'") not in FUNCTION_WORDS:
                found.append(plain)
    return found


def content_stems(text: str) -> list[str]:
    """Stems of the words that carry meaning, in order, repeats kept."""
    return list(_content_stems(text) if len(text) <= REMEMBERED_CHARACTERS else map(stem, content_words(text)))


@lru_cache(maxsize=4_096)
def _content_stems(text: str) -> tuple[str, ...]:
    return tuple(map(stem, content_words(text)))


def numeric(text: str) -> frozenset[str]:
    """The words of a text that hold a digit, as written."""
    return frozenset(word for word in WORD.findall(text) if any(letter.isdigit() for letter in word))
