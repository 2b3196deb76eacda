"""Tests of rag.conflict, through the straight line: documents that answer one question differently."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from conftest import FakeEmbedder, FakeModel, make_assistant

from index.errors import ModelUnavailable
from index.store import Store
from rag import conflict
from rag.assistant import Assistant
from rag.evaluation.measures import bare_sentences
from rag.model import Finished
from rag.prompt import Message
from rag.types import Answer, Usage

QUESTION = "In which year was the Tarn bridge opened?"


class Reader(FakeModel):
    """A model that gives the first sentence of its passages that holds the question's main word, of several documents' passages one that holds `together`; `fails` once it reads a word."""

    def __init__(self, wanted: str, fails: str = "nothing at all", together: str | None = None) -> None:
        super().__init__()
        self.wanted, self.fails, self.together = wanted, fails, together or wanted

    def sentence(self, messages: Sequence[Message]) -> str:
        passages = messages[-1]["content"].partition("\n\nQuestion:")[0]
        alone = passages.count("From “") == 1
        if self.fails in passages and alone:
            self.calls.append("failed")
            raise ModelUnavailable("The model 'fake' cannot be reached.")
        return next((said for said in re.findall(r"[^.\n:]+\.", passages) if (self.wanted if alone else self.together) in said), "").strip("- ")

    def probability(self, messages: Sequence[Message]) -> tuple[float, Usage]:
        self.calls.append(messages[-1]["content"])
        return (0.9 if self.sentence(messages) else 0.1), Usage(50, 1)

    def stream(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Finished]:
        self.calls.append(messages[-1]["content"])
        yield self.sentence(messages)
        yield Finished(Usage(10, 5))


def over(store: Store, embedder: FakeEmbedder, place: Path, model: FakeModel | None, **documents: str) -> Assistant:
    folder = place / "papers"
    folder.mkdir()
    for name, text in documents.items():
        (folder / f"{name}.md").write_text(f"# {name.title()} paper\n\n{text}\n", encoding="utf-8")
    assistant = make_assistant(store, embedder, model)
    assistant.sync(folder)
    return assistant


def cited_by(answer: Answer, sentence: str) -> set[str]:
    """The sources of the marks that follow a sentence in the text."""
    marks = answer.text.partition(sentence)[2].strip().partition(" ")[0]
    return {c.source for c in answer.citations if f"[{c.number}]" in marks}


def test_two_documents_that_disagree_are_both_told_and_cited(store: Store, embedder: FakeEmbedder, tmp_path: Path) -> None:
    model = Reader("opened")
    documents = {
        "north": "The Tarn bridge was opened in 1901 by the mayor.",
        "south": "Trains crossed the river when the Tarn bridge opened in 1910.",
    }
    answer = over(store, embedder, tmp_path, model, **documents).ask(QUESTION)
    assert len(answer.conflicts) == 1
    assert answer.conflicts[0].startswith(conflict.DISAGREE)
    assert "1901" in answer.text
    assert "1910" in answer.text
    assert {c.source for c in answer.citations} == {"north.md", "south.md"}
    assert all(store.text(c.document_id)[c.start : c.end] == c.quote for c in answer.citations)
    assert not bare_sentences(answer)


def test_a_single_voice_against_two_is_named_and_cited_but_not_repeated(store: Store, embedder: FakeEmbedder, tmp_path: Path) -> None:
    documents = {
        "north": "The Tarn bridge was opened in 1901 by the mayor.",
        "south": "Trains crossed the river when the Tarn bridge opened in 1910.",
        "west": "It was the year 1901 in which they opened the Tarn bridge.",
    }
    answer = over(store, embedder, tmp_path, Reader("opened"), **documents).ask(QUESTION)
    assert answer.conflicts == (f"{conflict.DISAGREE}: “South paper” says otherwise.",)
    assert "1901" in answer.text
    assert "1910" not in answer.text
    assert cited_by(answer, answer.conflicts[0]) == {"south.md"}


def test_the_many_lead_even_when_the_draft_followed_the_few(store: Store, embedder: FakeEmbedder, tmp_path: Path) -> None:
    documents = {
        "north": "The Tarn bridge was opened in the year 1910.",
        "south": "Trains crossed the river when the Tarn bridge opened in 1901.",
        "west": "It was in 1901 that they opened the Tarn bridge.",
    }
    answer = over(store, embedder, tmp_path, Reader("opened", together="opened in the year 1910"), **documents).ask(QUESTION)
    assert answer.text.partition(".")[0].endswith(("1901", "Tarn bridge"))
    assert "1910" not in answer.text
    assert cited_by(answer, answer.conflicts[0]) == {"north.md"}


def test_documents_that_agree_in_other_words_are_no_conflict(store: Store, embedder: FakeEmbedder, tmp_path: Path) -> None:
    documents = {"north": "The Tarn bridge was opened in 1901 by the mayor.", "west": "It was the year 1901 in which they opened the Tarn bridge."}
    answer = over(store, embedder, tmp_path, Reader("opened"), **documents).ask(QUESTION)
    assert answer.conflicts == ()
    assert conflict.DISAGREE not in answer.text


def test_a_version_with_another_value_is_told_without_a_model(store: Store, embedder: FakeEmbedder, tmp_path: Path) -> None:
    told = "The Tarn bridge was opened in {} after four years of work on its piers."
    answer = over(store, embedder, tmp_path, None, north=told.format(1901), south=told.format(1910)).ask(QUESTION)
    assert not answer.abstained
    assert {c.source for c in answer.citations} == {"north.md", "south.md"}
    assert answer.conflicts
    assert "1901" in answer.text
    assert "1910" in answer.text


def test_a_document_that_holds_the_answer_need_not_be_asked(store: Store, embedder: FakeEmbedder, tmp_path: Path) -> None:
    documents = {"north": "The Tarn bridge was opened in 1901 by the mayor.", "west": "Engineers call 1901 the year of the Tarn bridge."}
    model = Reader("opened")
    answer = over(store, embedder, tmp_path, model, **documents).ask(QUESTION)
    assert answer.conflicts == ()
    assert len(model.calls) == 2


@pytest.mark.parametrize(
    "other",
    [
        "People remember that the Tarn bridge opened in a year of floods.",
        "People remember the year in which the Tarn bridge opened, and came in the Kestrel 2.0 of the railway.",
        "People remember the year in which the Tarn bridge opened.\n\nThe mill upstream burned down with 40 sacks of flour.",
        "People remember the year in which the Tarn bridge opened.\nThe mill upstream burned down with 40 sacks of flour.",
    ],
    ids=["no number", "a release's number", "a number of something else", "on the next line"],
)
def test_a_document_without_a_number_about_the_same_is_not_asked_for_one(store: Store, embedder: FakeEmbedder, tmp_path: Path, other: str) -> None:
    model = Reader("mayor")
    over(store, embedder, tmp_path, model, north="The Tarn bridge was opened in the year 1901 by the mayor.", south=other).ask(QUESTION)
    assert len(model.calls) == 2


@pytest.mark.parametrize(
    ("question", "answer", "other"),
    [
        (QUESTION, "The Tarn bridge was opened in 1901 by the mayor.", "People remember 1910, the year in which the Tarn bridge opened."),
        (QUESTION, "The Tarn bridge was opened in 1901 by the mayor.", "People remember that the Tarn bridge opened. The year was 1910."),
        (QUESTION, "The Tarn bridge was opened in 1901 by the mayor.", "Trains crossed it when the Tarn bridge opened,\nin the year 1910, as people remember."),
        (QUESTION, "The Tarn bridge was opened in 1901 by the mayor.", "## How the Tarn bridge was opened\n\nIt happened in 1910, and trains crossed it."),
        (QUESTION, "The Tarn bridge was opened in 1901 by the mayor.", "## 1910\n\nThis was when the Tarn bridge was opened for trains."),
        ("How many people drowned under the Tarn bridge?", "3 people drowned under the Tarn bridge, says the mayor.", "Only one of the people under the Tarn bridge drowned."),
        ("How many arches does the 5-metre Tarn bridge have?", "The Tarn bridge of the mayor has 3 arches.", "Arches: the 5-metre Tarn bridge stands on 5 of these."),
        ("What is the price of the Tarn guide?", "The price of the Tarn guide is 12.99 dollars, says the mayor.", "Whoever buys the Tarn guide has a price of USD 14.99 to pay."),
        ("What score does Kestrel reach on MMLU?", "Kestrel reaches a score of 85.2 on MMLU, says the mayor.", "Better than last time was the score of Kestrel: MMLU 86.4."),
        ("Who was mayor when the Tarn bridge was opened?", "John Hill was mayor when the Tarn bridge was opened in 1901.", "As the Tarn bridge was opened, it had Peter Voss as its mayor."),
        ("Who built the Tarn bridge?", "The Tarn bridge was built by Ada Hill for the mayor.", "Nobody but Peter Voss and his men built the bridge at Tarn."),
    ],
    ids=["number", "beside", "broken line", "heading tells of what", "in the heading", "in words", "as in the question", "price", "score", "name, with a number", "name"],
)  # fmt: skip
def test_a_document_that_may_say_otherwise_is_asked(
    store: Store, embedder: FakeEmbedder, tmp_path: Path, question: str, answer: str, other: str
) -> None:
    model = Reader("says the mayor" if "says the mayor" in answer else "Hill" if "Hill" in answer else "the mayor")
    over(store, embedder, tmp_path, model, north=answer, south=other).ask(question)
    assert len(model.calls) == 3


def test_a_document_that_tells_less_exactly_counts_for_the_side_that_it_bears_out(store: Store, embedder: FakeEmbedder, tmp_path: Path) -> None:
    documents = {
        "north": "The Tarn bridge was opened on 12 March 1901 by the mayor.",
        "east": "It was the year 1901 in which they opened the Tarn bridge.",
        "south": "Trains crossed the river when the Tarn bridge opened in 1910.",
        "west": "They opened the Tarn bridge for carts in the year 1910.",
    }
    answer = over(store, embedder, tmp_path, Reader("opened", together="12 March"), **documents).ask(QUESTION)
    assert answer.text.partition(".")[0].endswith("by the mayor")
    assert "1910" in answer.text


def test_nobody_is_asked_beside_an_answer_that_no_other_can_exclude(store: Store, embedder: FakeEmbedder, tmp_path: Path) -> None:
    documents = {
        "north": "As we were told: the reason for the delay of the bridge was that neither winter nor ferry folk nor farmers upstream ever gave way to anything which engineers put down on paper.",
        "south": "The reason for the delay of the bridge, some say, was money.",
    }
    model = Reader("neither")
    answer = over(store, embedder, tmp_path, model, **documents).ask("What was the reason for the delay of the bridge?")
    assert not answer.abstained
    assert len(model.calls) == 2


def test_a_version_needs_no_further_reply_of_the_model(store: Store, embedder: FakeEmbedder, tmp_path: Path) -> None:
    told = "The Tarn bridge was opened in {} after four years of work on its piers."
    model = Reader("opened")
    answer = over(store, embedder, tmp_path, model, north=told.format(1901), south=told.format(1910)).ask(QUESTION)
    assert answer.conflicts
    assert len(model.calls) == 2


def test_an_answer_outlives_a_model_that_fails_on_another_document(store: Store, embedder: FakeEmbedder, tmp_path: Path) -> None:
    documents = {
        "north": "The Tarn bridge was opened in 1901 by the mayor.",
        "south": "Trains crossed the river when the Tarn bridge opened in 1910.",
    }
    model = Reader("opened", fails="Trains")
    answer = over(store, embedder, tmp_path, model, **documents).ask(QUESTION)
    assert "failed" in model.calls
    assert "1901" in answer.text
    assert answer.conflicts == ()


@pytest.mark.parametrize(
    ("question", "one"),
    [
        ("Who wrote it?", True),
        ("What is the height of the tower?", True),
        ("In which year did it open?", True),
        ("What colour was the ferry?", True),
        ("What is Ada's profession?", True),
        ("What is GLM-5?", False),
        ("Why did it close?", False),
        ("How does it work?", False),
        ("Which companies make video models?", False),
        ("List all years.", False),
        ("Who are the founders of X?", False),
        ("What are the advantages of GLM-5?", False),
        ("What happened to Sora?", False),
        ("What should I do next?", False),
        ("What's the difference in price?", False),
        ("Who is the mayor?", True),
    ],
)
def test_only_questions_for_one_value_can_be_answered_in_contradiction(question: str, one: bool) -> None:
    assert conflict.has_one_answer(question) is one


@pytest.mark.parametrize(
    ("north", "south"),
    [
        ("The Tarn bridge was opened in 1901 by Mayor Hill.", "In 1901 the Tarn bridge opened to trains of the Northern Railway."),
        ("The Tarn bridge was opened in the spring of 1901.", "The Tarn bridge opened in 1901 after Hill had paid for it."),
    ],
)
def test_what_each_document_adds_is_no_disagreement(store: Store, embedder: FakeEmbedder, tmp_path: Path, north: str, south: str) -> None:
    answer = over(store, embedder, tmp_path, Reader("opened"), north=north, south=south).ask(QUESTION)
    assert "1901" in answer.text
    assert answer.conflicts == ()


def test_names_that_come_first_are_told_apart(store: Store, embedder: FakeEmbedder, tmp_path: Path) -> None:
    documents = {"north": "Grumman built the lander for NASA.", "south": "Northrop built the lander for NASA."}
    answer = over(store, embedder, tmp_path, Reader("built"), **documents).ask("Who built the lander?")
    assert answer.conflicts
    assert "Grumman" in answer.text
    assert "Northrop" in answer.text


def test_another_year_is_no_version(store: Store, embedder: FakeEmbedder, tmp_path: Path) -> None:
    told = "The revenue of the harbour in {} was {} million crowns after taxes."
    documents = {"new": told.format(2024, 12), "old": told.format(2023, 10)}
    for model in (None, Reader("2024")):
        place = tmp_path / str(model is None)
        place.mkdir()
        answer = over(store, embedder, place, model, **documents).ask("What was the revenue of the harbour in 2024?")
        assert "12 million" in answer.text
        assert answer.conflicts == ()


def test_titles_with_marks_and_ends_of_sentences_stay_one_sentence(store: Store, embedder: FakeEmbedder, tmp_path: Path) -> None:
    assistant = over(store, embedder, tmp_path, Reader("opened"), north="The Tarn bridge was opened in 1901 by the mayor.")
    (tmp_path / "papers" / "south.md").write_text(
        "# What is Tarn? A guide [1]\n\nTrains crossed when the Tarn bridge opened in 1910.\n", encoding="utf-8"
    )
    assistant.sync(tmp_path / "papers")
    answer = assistant.ask(QUESTION)
    assert len(answer.conflicts) == 1
    assert not bare_sentences(answer)


def test_a_document_that_goes_away_meanwhile_takes_no_part(store: Store, embedder: FakeEmbedder, tmp_path: Path) -> None:
    class Removing(Reader):
        def stream(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Finished]:
            (tmp_path / "papers" / "south.md").unlink(missing_ok=True)
            assistant.sync(tmp_path / "papers")
            yield from super().stream(messages, max_tokens)

    documents = {
        "north": "The Tarn bridge was opened in 1901 by the mayor.",
        "south": "Trains crossed the river when the Tarn bridge opened in 1910.",
    }
    assistant = over(store, embedder, tmp_path, Removing("opened"), **documents)
    answer = assistant.ask(QUESTION)
    assert "1901" in answer.text or "1910" in answer.text
