"""Tests of index.split: nothing of a text is lost, offsets are exact, and sentences end where a reader sees them end."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from index.split import HEADING_CHARACTERS, PASSAGE_BYTES, SENTENCE_CHARACTERS, blocks, heading_name, paragraphs, pieces, sentences, split
from index.types import Document, Passage

PIECES = [
    *["One.", "Two words here", "Dr. Who", "e.g. this", "U.S. law", "M2.5", '"Stop!" he said.', "Wait...", "…", "?!", "a", "word " * 30, "x" * 700],
    *["\n", "\n\n", "\r\n", "\r", "\f", "\v", "\u2028", "\x85", "\x1c", " ", "\t", "\xa0", "\u3000", "\u200b", "\ufeff", "\x00"],
    *["# Title", "## Part ##", "#", "- item", "* item", "1. first", "|", "| a | b |", "```", "~~~", "> quote", "---"],
    *["这是。", "「はい。」", "مرحبا بالعالم.", "שלום!", "👩‍👩‍👧‍👦", "🇩🇪", "e\u0301", "नमस्ते।"],
]
TEXTS = st.one_of(
    st.text(), st.lists(st.sampled_from(PIECES), max_size=40).map("".join), st.lists(st.sampled_from(PIECES), max_size=40).map(" ".join)
)
AWKWARD = "a" * 650 + " " + "b" * 1300 + ". \r\rC d.\fE\n\n\n# F\n```\n# g\n"


def document(text: str, title: str = "Title") -> Document:
    return Document("id", "source.md", title, text, "")


def said(text: str) -> list[str]:
    return [text[sentence.start : sentence.end] for sentence in sentences(text)]


def passages(text: str, size: int = PASSAGE_BYTES) -> list[Passage]:
    return split(document(text), size)


@given(TEXTS)
@example(AWKWARD)
def test_every_character_but_white_space_is_in_exactly_one_sentence(text: str) -> None:
    covered = [0] * len(text)
    for sentence in sentences(text):
        for position in range(sentence.start, sentence.end):
            covered[position] += 1
    assert all(count == 1 or (count == 0 and character.isspace()) for count, character in zip(covered, text, strict=True))


@given(TEXTS)
@example(AWKWARD)
def test_sentences_are_ordered_trimmed_and_no_longer_than_the_limit(text: str) -> None:
    end = 0
    for sentence in sentences(text):
        assert end <= sentence.start < sentence.end <= len(text)
        quoted = text[sentence.start : sentence.end]
        assert quoted == quoted.strip()
        assert len(quoted) <= SENTENCE_CHARACTERS
        end = sentence.end


@given(TEXTS, st.sampled_from([10, 80, PASSAGE_BYTES]))
@example(AWKWARD, PASSAGE_BYTES)
def test_passages_are_exact_runs_of_whole_sentences_within_the_limit(text: str, size: int) -> None:
    left = sentences(text)
    found = passages(text, size)
    for passage in found:
        assert passage.text == text[passage.span.start : passage.span.end] == passage.text.strip()
        inside = [sentence for sentence in left if sentence.end <= passage.span.end]
        assert inside[0].start == passage.span.start
        assert inside[-1].end == passage.span.end
        assert len(passage.text) <= size or len(inside) == 1
        left = left[len(inside) :]
    assert left == []
    assert len({passage.id for passage in found}) == len(found)


@given(TEXTS)
def test_splitting_is_deterministic(text: str) -> None:
    assert passages(text) == passages(text)
    assert [sentence for block in paragraphs(text) for sentence in block] == sentences(text)


@given(TEXTS)
@settings(max_examples=50)
def test_line_ends_of_windows_change_nothing_but_offsets(text: str) -> None:
    unix = text.replace("\r", "")
    windows = unix.replace("\n", "\r\n")
    assert [one.split() for one in said(windows)] == [one.split() for one in said(unix)]
    assert [passage.heading for passage in passages(unix, 80)][:1] == [passage.heading for passage in passages(windows, 80)][:1]


@pytest.mark.parametrize(
    "line",
    [
        "The cat sat on the mat today. ",
        "x",
        "word ",
        ".",
        '."',
        "a. ",
        "。",
        "中文。",
        "# ",
        "``` ",
        "ab\r",
        "ab\f",
        "| a ",
        "-",
        "… ",
        "“",
        "👩‍👩‍👧‍👦 ",
    ],
    ids=repr,
)
def test_a_megabyte_without_newlines_takes_about_linear_time(line: str) -> None:
    text = line * (1_000_000 // len(line))
    started = time.process_time()
    found = sentences(text)
    assert found
    assert time.process_time() - started < 12  # it takes 0.1 to 2 s on two cores; quadratic code took minutes


def test_white_space_in_the_middle_takes_linear_time() -> None:
    started = time.process_time()
    assert said("a" + " " * 1_000_000 + "b. C." + " " * 1_000_000 + "\n")[0].startswith("a")
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "sentence",
    [
        "Dr. Smith met Prof. Jones of St. Mary's.",
        "Use fruit, e.g. Apples, or vegetables, i.e. Leeks.",
        "The U.S. Senate met.",
        "J. R. R. Tolkien wrote it.",
        "It costs 3.5 dollars or 1,000.25 euros.",
        "Z.ai made GLM-5 and M2.5 beat v1.2.3.",
        "See Fig. 3 and pp. 4 of vol. 2.",
        "He came at 5 p.m. and left.",
        '"Stop!" he said.',
        "Well... perhaps.",
        "He lives on Main St. in town.",
        "Visit www.example.com. it is open.",
    ],
)
def test_these_are_one_sentence(sentence: str) -> None:
    assert said(sentence) == [sentence]


@pytest.mark.parametrize(
    "expected",
    [
        ["It works.", "It is fast!", "Is it?", "Yes."],
        ['He said "Go."', "She went."],
        ["He said “Go.”", "She went."],
        ["(It is so.)", "It was not."],
        ["She asked: “Why?”", "“Because,” he said."],
        ["It costs $5.", "$6 is too much."],
        ["It was made by Acme Inc.", "The firm is old."],
        ["So did I.", "Then we left."],
        ["Wait…", "What?"],
        ["Really?!", "Yes."],
        ["It weighs 5 kg.", "7 more are coming."],
        ["They live in the U.S.", "The law is clear."],
        ["Das ist gut.", "Äpfel auch."],
        ["Это хорошо.", "Очень."],
    ],
    ids=repr,
)
def test_these_are_several_sentences(expected: list[str]) -> None:
    assert said(" ".join(expected)) == expected


def test_chinese_and_japanese_need_no_space_between_sentences() -> None:
    assert said("这是第一句。这是第二句！「はい。」そうです。") == ["这是第一句。", "这是第二句！", "「はい。」", "そうです。"]


def test_right_to_left_text_is_split_like_any_other() -> None:
    assert said("مرحبا بالعالم. أنا هنا! אני כאן. שלום!") == ["مرحبا بالعالم.", "أنا هنا!", "אני כאן.", "שלום!"]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r", "\f", "\u2028"], ids=repr)
def test_each_kind_of_line_end_ends_a_line(newline: str) -> None:
    assert said(newline.join(["First line", "Second line.", "Third"])) == ["First line", "Second line.", "Third"]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"], ids=repr)
def test_paragraphs_end_at_empty_lines(newline: str) -> None:
    found = blocks(newline.join(["one", "", "two", "three", "  ", "four"]))
    assert [block.paragraph for block in found] == [1, 2, 2, 3]


PROSE = (
    "The lander was built by a firm on Long Island that had never before made anything that was meant to fly outside the air, and it showed in the bill. "
    "Its legs were thin and its walls were thinner still, for every gram counted. Nobody who saw it standing on the floor of the hall would have trusted it, "
    "and yet it never failed. It flew ten times with people in it, and it brought all of them back to the ship that waited above."
)


def wrapped(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))


def test_hand_wrapped_paragraphs_read_as_one_line_paragraphs() -> None:
    whole = f"{PROSE}\n\n{PROSE}"
    by_hand = f"{wrapped(PROSE, 70)}\n\n{wrapped(PROSE, 70)}"
    assert [" ".join(one.split()) for one in said(by_hand)] == said(whole)
    assert len(said(whole)) == 8


def test_lists_tables_headings_and_fences_are_not_joined_to_wrapped_lines() -> None:
    parts = ["# Heading", "- an item", "| a | table row |", "1. a numbered item", "```", "code one", "code two", "```"]
    by_hand = "\n".join([wrapped(PROSE, 70), *parts, "", wrapped(PROSE, 70)])
    assert set(parts) <= set(said(by_hand))


def test_headings_form_a_trail_and_no_passage_crosses_one() -> None:
    text = "# Title\n\nIntro here.\n\n## Weight\n\nIt weighs much.\n\n### Dry ###\n\nLess, then.\n\n## Speed\n\nFast it is.\n"
    found = {passage.text.splitlines()[-1]: passage.heading for passage in passages(text)}
    assert found == {"Intro here.": "", "It weighs much.": "Weight", "Less, then.": "Weight > Dry", "Fast it is.": "Speed"}


def test_plain_text_headings_are_seen() -> None:
    text = "The Moon landing\n\nIt was a long way, and they took three days for it.\n\nThe way back\n\nIt took them three days again, as one would expect.\n"
    assert [passage.heading for passage in passages(text)] == ["The Moon landing", "The way back"]


@pytest.mark.parametrize("line", ["It ends in a stop.", "is in lower case", "- An item", "| A | B |", "Word " * 16, "Ends in colon:"])
def test_these_lines_are_no_plain_headings(line: str) -> None:
    assert blocks(f"{line}\n\n{PROSE}")[0].level == 0


def test_hashes_inside_fences_are_no_headings() -> None:
    found = blocks("# Real\n```python\n# comment\n```\n# Also real\n~~~\n# no\n~~~\n")
    assert [block.level for block in found if block.level == 1] == [1, 1]
    assert [heading_name("# Real\n# Also", block) for block in blocks("# Real\n# Also")] == ["Real", "Also"]


def test_inline_code_on_a_line_opens_no_fence() -> None:
    assert blocks("```one line```\n# Heading\n")[1].level == 1


@pytest.mark.parametrize(
    ("line", "name"), [("# Learn C#", "Learn C#"), ("## Closed ##", "Closed"), ("#\tTab", "Tab"), ("# #", ""), ("# #1 in 2026", "#1 in 2026")]
)
def test_heading_names_lose_their_marks_only(line: str, name: str) -> None:
    assert heading_name(line, blocks(line)[0]) == name


def test_a_heading_without_end_does_not_travel_with_every_passage() -> None:
    text = "# " + "endless " * 5_000 + "\n\n" + "Short sentence here. " * 500
    assert all(len(passage.heading) <= HEADING_CHARACTERS for passage in passages(text))
    assert passages(text)[-1].heading.startswith("endless endless")


def test_a_heading_equal_to_the_title_is_not_repeated() -> None:
    assert passages("# Title\n\nSome text.")[0].heading == ""


def test_passages_change_their_id_with_their_words_and_their_place() -> None:
    first = passages("Some text.")[0].id
    assert first != passages("Some texT.")[0].id
    assert first != passages(" Some text.")[0].id
    assert first == passages("Some text.")[0].id


@pytest.mark.parametrize("text", ["", " ", "\n\r\n\t\f\u3000", "\x85\u2028"], ids=repr)
def test_white_space_has_no_sentences_and_no_passages(text: str) -> None:
    assert sentences(text) == []
    assert passages(text) == []


def test_pieces_of_a_passage_are_whole_sentences_and_cover_it() -> None:
    text = "First comes a sentence. Then comes another one.\n\n## A heading\nBelow it stands a third. And a fourth that ends it."
    (passage,) = split(Document("d", "a.md", "T", text, ""), 1000)[:1]
    cut = pieces(passage, 30)
    assert all(text[piece.span.start : piece.span.end] == piece.text for piece in cut)
    assert " ".join(" ".join(piece.text for piece in cut).split()) == " ".join(passage.text.split())
    assert all(len(piece.text) <= 30 or len(sentences(piece.text)) == 1 for piece in cut)
    assert pieces(passage, 1000) == [passage]


def test_a_passage_is_measured_in_bytes_so_that_other_scripts_fit_the_model() -> None:
    sentence = "これは日本語の文です。"
    cut = split(Document("d", "a.txt", "T", sentence * 200, ""))
    assert max(len(passage.text.encode()) for passage in cut) <= PASSAGE_BYTES
    assert min(len(passage.text) for passage in cut[:-1]) > 300
