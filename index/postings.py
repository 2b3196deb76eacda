"""The keyword index of a shared store: the terms of a text, their postings as bytes, and BM25 over them. Pure; index.postgres keeps the bytes.

It ranks as SQLite's FTS5 does for a store on one machine: the same stemmer (Porter's), the same formula and constants, words joined by a mark (`Z.ai`)
looked for beside each other. A posting is one number of 64 bits, so that many of them are one array and are read without a loop.
"""

from __future__ import annotations

import threading
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import snowballstemmer

from index.words import FUNCTION_WORDS, PIECE, WORD, content_words

if TYPE_CHECKING:
    from numpy.typing import NDArray

K1, B = 1.2, 0.75
"""FTS5's constants."""

RAREST = 1e-6
"""What a word counts that stands in more than half of all passages: FTS5's least."""

MOST_TIMES, MOST_WORDS = 0xFF, 0xFFFF
"""More often than that a posting does not count a term, nor more words of a passage."""

TERM_BYTES = 200
"""Of a longer term only so much is kept: an index of a database takes no keys of any length."""

_porter = snowballstemmer.stemmer("porter")
_stemming = threading.Lock()


@dataclass(frozen=True, slots=True)
class Counted:
    """What a passage says: how often each term stands in it, and how many words it has."""

    terms: Mapping[str, int]
    words: int


@lru_cache(maxsize=65_536)
def _stem(piece: str) -> str:
    if len(piece) < 3:  # as FTS5 leaves them
        return piece
    with _stemming:
        return str(_porter.stemWord(piece))


def _plain(text: str) -> str:
    """Lower case, without accents."""
    lower = text.lower()
    if lower.isascii():
        return lower
    decomposed = unicodedata.normalize("NFD", lower)
    return unicodedata.normalize("NFC", "".join(letter for letter in decomposed if not "\u0300" <= letter <= "\u036f"))


def _pairs(stems: Sequence[str]) -> list[str]:
    """Neighbours within one word, by which `m2.5` is found and not whatever holds an m2 and a 5."""
    return [f"{first} {second}" for first, second in pairwise(stems)]


def _short(term: str) -> str:
    return term if len(term) <= TERM_BYTES // 4 else term.encode("utf-8", "replace")[:TERM_BYTES].decode("utf-8", "ignore")


def counted(*texts: str) -> Counted:
    """The terms of a passage's texts. Function words count as words and are no terms: no question asks for them."""
    times: Counter[str] = Counter()
    length = 0
    for text in texts:
        for word in WORD.findall(_plain(text)):
            pieces = PIECE.findall(word)
            stems = [_stem(piece) for piece in pieces]
            length += len(stems)
            times.update(_short(stem) for piece, stem in zip(pieces, stems, strict=True) if piece not in FUNCTION_WORDS)
            times.update(map(_short, _pairs(stems)))
    return Counted(times, length)


def asked(question: str, most: int) -> list[tuple[str, ...]]:
    """The words of a question, of so many at most, each as the terms that a passage must all hold: one, or the pairs of a word with inner marks.

    Two words of one stem count twice, as with FTS5.
    """
    found = []
    for word in list(dict.fromkeys(map(str.lower, content_words(question))))[:most]:
        stems = [_stem(piece) for piece in PIECE.findall(_plain(word))]
        terms = stems if len(stems) < 2 else _pairs(stems)
        if terms:
            found.append(tuple(map(_short, terms)))
    return found


def packed(postings: Iterable[tuple[int, int, int]]) -> bytes:
    """Postings as bytes: of each the passage's number, how often it holds the term, and its words."""
    made = [number << 24 | min(times, MOST_TIMES) << 16 | min(words, MOST_WORDS) for number, times, words in postings]
    return np.array(made, dtype="<i8").tobytes()


def without(entries: bytes, gone: NDArray[np.int64]) -> bytes:
    """Postings but for those of passages that are gone, whose numbers come in order."""
    unpacked = np.frombuffer(entries, dtype="<i8")
    return unpacked[~_among(unpacked >> 24, gone)].tobytes()


def _among(numbers: NDArray[np.int64], sorted_numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
    if not len(sorted_numbers):
        return np.zeros(len(numbers), dtype=bool)
    places = np.minimum(np.searchsorted(sorted_numbers, numbers), len(sorted_numbers) - 1)
    return np.asarray(sorted_numbers[places] == numbers)


def ranked(
    words: Sequence[Sequence[str]], postings: Mapping[str, Sequence[bytes]], gone: NDArray[np.int64], passages: int, mean_words: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The numbers of all passages that hold a word of the question, best first, with their BM25.

    `postings` has each term's, in any number of pieces, `gone` the numbers (in order) of passages that they still name; `passages` is how many there
    are in all, `mean_words` how many words one has.
    """
    numbers, scores = [], []
    for terms in words:
        found = _holding([_unpacked(postings.get(term, ()), gone) for term in terms])
        if not len(found):
            continue
        rarity = max(RAREST, float(np.log((passages - len(found) + 0.5) / (len(found) + 0.5)))) if passages > len(found) else RAREST
        times = ((found >> 16) & MOST_TIMES).astype(np.float64)
        length = (found & MOST_WORDS).astype(np.float64)
        numbers.append(found >> 24)
        scores.append(rarity * times * (K1 + 1) / (times + K1 * (1 - B + B * length / max(mean_words, 1e-9))))
    if not numbers:
        return np.empty(0, dtype=np.int64), np.empty(0)
    which, place = np.unique(np.concatenate(numbers), return_inverse=True)
    summed = np.bincount(place, weights=np.concatenate(scores), minlength=len(which))
    order = np.lexsort((which, -summed))
    return np.asarray(which[order], dtype=np.int64), np.asarray(summed[order], dtype=np.float64)


def _unpacked(pieces: Sequence[bytes], gone: NDArray[np.int64]) -> NDArray[np.int64]:
    entries = np.frombuffer(b"".join(pieces), dtype="<i8").astype(np.int64, copy=False)
    return entries[~_among(entries >> 24, gone)] if len(gone) else entries


def _holding(of_terms: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The postings of passages that hold all of the terms, as often as they hold the one that they hold least."""
    first, *others = of_terms
    for other in others:
        _, mine, theirs = np.intersect1d(first >> 24, other >> 24, assume_unique=True, return_indices=True)
        fewer = np.minimum(first[mine] & (MOST_TIMES << 16), other[theirs] & (MOST_TIMES << 16))
        first = (first[mine] & ~(MOST_TIMES << 16)) | fewer
    return first
