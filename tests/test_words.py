"""Tests of index.words: what counts as a word, as the same word, and as a word that carries meaning."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.words import FUNCTION_WORDS, content_stems, content_words, stem, words


@pytest.mark.parametrize("name", ["Z.ai", "GLM-5", "M2.5", "Schneider's", "Schneider’s", "Qwen3", "Übergröße", "東京"])
def test_names_stay_whole(name: str) -> None:
    assert words(f"It is ({name}), they say.") == ["It", "is", name, "they", "say"]


@pytest.mark.parametrize("text", ["", " \n\t", "... --- !!!", "_ __", "🎉 🎉", "\x00\x01\ufeff", "\ud800"])
def test_texts_without_letters_have_no_words(text: str) -> None:
    assert words(text) == content_words(text) == content_stems(text) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [("Weighs", "weighed"), ("Schneider's", "Schneider"), ("Schneider’s", "schneider"), ("Café", "cafe"), ("models", "Model"), ("GRÖSSE", "grosse")],
)
def test_forms_of_one_word_share_a_stem(one: str, other: str) -> None:
    assert stem(one) == stem(other)


@pytest.mark.parametrize(("one", "other"), [("universe", "lander"), ("15", "50"), ("M2.5", "M2"), ("한국", "서울"), ("か", "き")])
def test_different_words_have_different_stems(one: str, other: str) -> None:
    assert stem(one) != stem(other)


def test_hyphenated_words_count_as_their_parts() -> None:
    assert content_stems("an open-source state‑of‑the‑art model") == content_stems("open source state art model")


def test_function_words_carry_no_meaning() -> None:
    assert content_words("What is the weight of it?") == ["weight"]
    assert content_stems(" ".join(FUNCTION_WORDS)) == []
    assert content_words("What's Apollo's weight?") == ["Apollo", "weight"]
    assert content_words("APOLLO’S WEIGHT") == ["APOLLO", "WEIGHT"]


def test_repeats_are_kept_in_order() -> None:
    assert content_words("tea Tea coffee tea") == ["tea", "Tea", "coffee", "tea"]


@given(st.text())
def test_words_are_parts_of_the_text_in_order(text: str) -> None:
    position = 0
    for word in words(text):
        position = text.index(word, position) + len(word)
        assert not any(character.isspace() for character in word)
    assert len(content_stems(text)) == len(content_words(text))


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyzéüñ", min_size=1))
def test_case_never_tells_words_apart(word: str) -> None:
    assert stem(word) == stem(word.upper())


def test_threads_do_not_disturb_each_others_stems() -> None:
    from concurrent.futures import ThreadPoolExecutor

    forms = [
        f"{root}{number}{ending}" for number in range(400) for root, ending in (("connect", "ions"), ("general", "izations"), ("hope", "fulness"))
    ]
    alone = [stem.__wrapped__(form) for form in forms]
    with ThreadPoolExecutor(4) as pool:
        for together in pool.map(lambda _: [stem.__wrapped__(form) for form in forms], range(8)):
            assert together == alone
