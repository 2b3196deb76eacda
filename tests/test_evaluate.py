"""Tests of rag.evaluate: reading question sets, judging answers, counting. No model and no embedder is loaded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from index.errors import CitewellError
from rag import evaluate
from rag.assistant import Assistant
from rag.evaluate import Question, Row, bare_sentences, holds, judge, load, same_document, summary
from rag.settings import Settings
from rag.types import Answer, Timings, Turn, Usage

QUESTION = Question("q", "fact", "Who built Apollo?", (), True, frozenset({"apollo.md"}), (("grumman",),), ())
ROW = Row("q", "fact", True, False, True, True, True, 0, 0, 100, 50.0, 200.0, "Grumman.")


def an_answer(text: str, unsupported: tuple[str, ...] = (), abstained: bool = False) -> Answer:
    return Answer("?", "?", text, abstained, (), unsupported, (), "fake", Timings(1, None, 2), Usage())


def test_a_set_is_read_from_a_folder_or_a_file(tmp_path: Path) -> None:
    lines = [
        {"question": "Who?"},
        {
            "id": 7,
            "question": "And\u2028why?",
            "history": [{"role": "user", "text": "Hi"}],
            "answerable": False,
            "must": [["a", "b"]],
            "must_not": ["c"],
            "relevant": ["d"],
            "kind": "x",
        },
    ]
    (tmp_path / "questions.jsonl").write_text("\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n", encoding="utf-8")
    read = load(tmp_path)
    assert read == load(tmp_path / "questions.jsonl")
    assert read[0] == Question("1", "", "Who?", (), None, frozenset(), (), ())
    assert read[1] == Question("7", "x", "And\u2028why?", (Turn("user", "Hi"),), False, frozenset({"d"}), (("a", "b"),), ("c",))


@pytest.mark.parametrize(
    "wrong",
    [
        "not json",
        "[]",
        "5",
        "{}",
        '{"question": 5}',
        '{"question": "Who?", "history": [{"role": "user"}]}',
        '{"question": "Who?", "must": 5}',
        '{"question": "Who?", "must": ["grumman"]}',
    ],
)
def test_a_wrong_line_is_named_by_its_number(tmp_path: Path, wrong: str) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text('{"question": "Who?"}\n\n' + wrong + "\n", encoding="utf-8")
    with pytest.raises(CitewellError, match=r"^Line 3 of .*questions\.jsonl is no question"):
        load(tmp_path)


def test_a_missing_or_unreadable_set_is_told(tmp_path: Path) -> None:
    with pytest.raises(CitewellError, match=r"There is no question set at .*nowhere"):
        load(tmp_path / "nowhere")
    (tmp_path / "questions.jsonl").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(CitewellError, match="it is not UTF-8"):
        load(tmp_path)


@pytest.mark.parametrize("line", ["no json", '{"id": "a"}', '{"text": "a"}', "[]"])
def test_a_wrong_line_of_the_corpus_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"id": "a", "text": "b"}\n' + line, encoding="utf-8")
    with pytest.raises(CitewellError, match=r"^Line 2 of "):
        evaluate._unpacked(tmp_path / "corpus.jsonl", tmp_path / "made")


@pytest.mark.parametrize(
    ("source", "gold", "same"),
    [
        ("apollo.md", "apollo.md", True),
        ("deep/apollo.md", "apollo.md", True),
        ("apollo.txt", "apollo", True),
        ("apollo.txt", "apollo.md", False),
        ("wiki_12.txt", "wiki/12", True),
        ("000-brief.md", "000_170e600082755717.txt", True),
        ("001-brief.md", "000_170e600082755717.txt", False),
        ("000-brief.md", "000", False),
        ("0001-brief.md", "000_x.txt", False),
        ("", "", True),
    ],
)
def test_a_source_is_a_gold_document_by_name_or_number(source: str, gold: str, same: bool) -> None:
    assert same_document(source, gold) is same


@pytest.mark.parametrize(
    ("must", "must_not", "text", "right"),
    [
        ((("grumman",),), (), "It was GRUMMAN.", True),
        ((("grumman",), ("1969", "sixty-nine")), (), "Grumman, in sixty-nine", True),
        ((("grumman",), ("1969",)), (), "Grumman", False),
        ((("grumman",),), ("boeing",), "Grumman and Boeing", False),
        ((), (), "anything", True),
        ((), ("boeing",), "Boeing", False),
    ],
)
def test_holds_needs_one_of_each_group_and_none_that_is_barred(
    must: tuple[tuple[str, ...], ...], must_not: tuple[str, ...], text: str, right: bool
) -> None:
    assert holds(replace(QUESTION, must=must, must_not=must_not), text) is right


@pytest.mark.parametrize(
    ("text", "unsupported", "bare"),
    [
        ("Grumman built it. [1] It flew. [2][3]", (), []),
        ("Grumman built it [1]. It flew.", (), ["It flew."]),
        ("Grumman built it.", (), ["Grumman built it."]),
        ("Grumman built it. [1] It flew.", (), ["It flew."]),
        ("Grumman built it. [1] It flew.", ("It flew. Once.",), []),
        ("Grumman built it. [1] It flew.", ("It flew away.",), ["It flew."]),
        ("Grumman built it. [1] It flew.", ("It flew.",), []),
        ("- Grumman [1]\n- Boeing", (), ["- Boeing"]),
        ("Grumman built it. [1] …", (), []),
        ("", (), []),
    ],
)
def test_bare_sentences_are_those_without_mark_or_warning(text: str, unsupported: tuple[str, ...], bare: list[str]) -> None:
    assert bare_sentences(an_answer(text, unsupported)) == bare


def test_an_answer_is_judged_right_cited_and_found(assistant: Assistant) -> None:
    answer = assistant.ask(QUESTION.question)
    row = judge(QUESTION, answer, assistant.store)
    assert (row.right, row.cited, row.found, row.wrong_spans, row.bare, row.abstained) == (True, True, True, 0, 0, False)
    elsewhere = judge(replace(QUESTION, relevant=frozenset({"tea.txt"})), answer, assistant.store)
    assert elsewhere.cited is False
    moved = replace(answer, citations=(replace(answer.citations[0], start=answer.citations[0].start + 1),))
    assert judge(QUESTION, moved, assistant.store).wrong_spans == 1


@pytest.mark.parametrize(
    ("answerable", "abstained", "right"),
    [(False, True, True), (False, False, False), (True, True, False), (True, False, True), (None, False, None), (None, True, None)],
)
def test_refusals_are_right_only_where_there_is_no_answer(assistant: Assistant, answerable: bool | None, abstained: bool, right: bool | None) -> None:
    answer = an_answer("It was Grumman.", abstained=abstained)
    assert judge(replace(QUESTION, answerable=answerable), answer, assistant.store).right is right


def test_summary_counts_shares_and_medians() -> None:
    rows = [
        ROW,
        replace(ROW, right=False, cited=False, found=False, wrong_spans=2, bare=1, prompt_tokens=300, first_token_ms=150.0, total_ms=400.0),
        replace(ROW, abstained=True, right=False, first_token_ms=None, total_ms=1000.0),
        replace(ROW, answerable=False, abstained=True, right=True, cited=None, found=None, first_token_ms=None),
        replace(ROW, answerable=False, abstained=False, right=False, cited=None, found=None, first_token_ms=None),
        replace(ROW, answerable=None, abstained=True, right=None, cited=None, found=None, first_token_ms=None),
    ]
    counted = summary(rows)
    assert counted["questions"] == 6
    assert counted["answered right"] == {"hits": 1, "of": 3, "percent": 33.3}
    assert counted["answered right and rightly cited"] == {"hits": 1, "of": 3, "percent": 33.3}
    assert counted["gold document in evidence@5"] == {"hits": 2, "of": 3, "percent": 66.7}
    assert counted["refusal recall"] == {"hits": 1, "of": 2, "percent": 50.0}
    assert counted["refusal precision"] == {"hits": 1, "of": 2, "percent": 50.0}
    assert (counted["spans that are not their quote"], counted["sentences neither cited nor unsupported"]) == (2, 1)
    assert (counted["median ms to first token"], counted["median ms in all"], counted["median prompt tokens"]) == (100.0, 200.0, 100)


def test_summary_of_nothing_divides_by_nothing() -> None:
    counted = summary([])
    assert counted["answered right"] == {"hits": 0, "of": 0, "percent": None}
    assert counted["median ms to first token"] is None


def test_a_set_with_its_own_corpus_is_asked_over_it(tmp_path: Path, no_real_embedder: None, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = [
        {"id": "moon/1", "title": "Landers", "text": "The lander Apollo was built by Grumman.\u2028It landed."},
        {"id": "tea", "text": "Green tea is brewed at 80 degrees."},
    ]
    questions = [
        {"id": "a", "question": "Who built the lander Apollo?", "answerable": True, "must": [["grumman"]], "relevant": ["moon/1"]},
        {"id": "b", "question": "How deep is the Mariana trench?", "answerable": False},
    ]
    for name, lines in (("corpus", corpus), ("questions", questions)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    report = evaluate.run(tmp_path, None, Settings(model="none"))
    assert [(row["id"], row["right"], row["cited"]) for row in report["rows"]] == [("a", True, True), ("b", True, None)]
    assert report["summary"]["refusal recall"] == {"hits": 1, "of": 1, "percent": 100.0}
    shown = capsys.readouterr().out
    assert "2 added" in shown
    assert "right  a" in shown
    assert json.loads(json.dumps(report)) == report
    assert evaluate.run(tmp_path, None, Settings(model="none"), limit=1, show=False)["summary"]["questions"] == 1
    assert capsys.readouterr().out == ""
