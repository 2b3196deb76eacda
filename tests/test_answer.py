"""Tests of rag.answer: the straight line from question to verified answer, with fakes for embedder and model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from conftest import DOCUMENTS, FakeEmbedder, FakeModel, make_assistant

from index.errors import InvalidQuestion, ModelUnavailable
from index.store import Store
from rag.answer import IN_THEIR_WORDS
from rag.assistant import Assistant
from rag.evaluation.measures import bare_sentences
from rag.model import Finished, LanguageModel
from rag.prompt import Message
from rag.types import Answer, Citation, Event, Evidence, Token, Turn, Usage

QUESTION = "Who built the lander Apollo?"
DOWN = ModelUnavailable("The model 'fake' cannot be reached. Check its address.")


class Failing(FakeModel):
    """A model that breaks down at one step: gate, or draft (after some tokens)."""

    def __init__(self, step: str) -> None:
        super().__init__("The lander Apollo was built by Grumman.")
        self.step = step

    def probability(self, messages: Sequence[Message]) -> tuple[float, Usage]:
        if self.step == "gate":
            raise DOWN
        return super().probability(messages)

    def stream(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Finished]:
        for number, item in enumerate(super().stream(messages, max_tokens)):
            if number == 2 and self.step == "draft":
                raise DOWN
            yield item


class Rewriting(FakeModel):
    """A model whose rewriting and drafting say different things."""

    def __init__(self, rewrite: str | Exception, draft: str) -> None:
        super().__init__(draft)
        self.rewrite = rewrite

    def stream(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Finished]:
        if "Last question:" not in messages[-1]["content"]:
            yield from super().stream(messages, max_tokens)
            return
        self.calls.append(messages[-1]["content"])
        if isinstance(self.rewrite, Exception):
            raise self.rewrite
        yield self.rewrite
        yield Finished(Usage(30, 7))


def opened(assistant: Assistant, model: LanguageModel | None) -> Assistant:
    """The same documents, another model."""
    return make_assistant(assistant.store, assistant.embedder, model)  # type: ignore[arg-type]


def kinds(events: Sequence[Event]) -> list[str]:
    """The names of the events in order, runs of one kind written once."""
    names = [type(event).__name__ for event in events]
    return [name for number, name in enumerate(names) if not number or names[number - 1] != name]


def check(answer: Answer, assistant: Assistant) -> Answer:
    """What holds of every answer."""
    for citation in answer.citations:
        assert assistant.store.text(citation.document_id)[citation.start : citation.end] == citation.quote
        assert f"[{citation.number}]" in answer.text
    assert [citation.number for citation in answer.citations] == list(range(1, len(answer.citations) + 1))
    assert answer.abstained or bare_sentences(answer) == []
    assert all(sentence in answer.text for sentence in answer.unsupported)
    assert not (answer.abstained and answer.citations)
    assert json.loads(json.dumps(answer.to_dict())) == json.loads(json.dumps(answer.to_dict(), ensure_ascii=False))
    assert 0 <= answer.timings.evidence_ms <= answer.timings.total_ms
    return answer


def test_events_come_in_order_and_the_answer_is_cited(assistant: Assistant) -> None:
    events = list(assistant.stream(QUESTION))
    assert kinds(events) == ["Evidence", "Token", "Answer"]
    evidence, answer = events[0], events[-1]
    assert isinstance(evidence, Evidence)
    assert isinstance(answer, Answer)
    check(answer, assistant)
    assert answer.text == "The lander Apollo was built by Grumman. [1]"
    assert answer.citations == (
        Citation(1, answer.citations[0].document_id, "The Apollo lander", "apollo.md", None, 21, 60, "The lander Apollo was built by Grumman."),
    )
    assert "".join(event.text for event in events if isinstance(event, Token)).strip() == "The lander Apollo was built by Grumman."
    assert evidence.standalone_question == QUESTION
    assert {hit.passage.id for hit in answer.evidence} == {hit.passage.id for hit in evidence.hits}
    assert (answer.question, answer.standalone_question, answer.model, answer.abstained, answer.notices) == (QUESTION, QUESTION, "fake", False, ())


def test_evidence_comes_before_the_model_is_asked_anything(assistant: Assistant) -> None:
    model = FakeModel("The lander Apollo was built by Grumman.")
    events = opened(assistant, model).stream(QUESTION)
    assert isinstance(next(events), Evidence)
    assert model.calls == []


def test_usage_and_timings_are_counted_over_all_calls(assistant: Assistant) -> None:
    model = FakeModel("The lander Apollo was built by Grumman.")
    answer = opened(assistant, model).ask(QUESTION)
    asked = len(model.calls) - 1  # questions for yes or no; one call is the draft
    assert answer.usage == Usage(50 * asked + 100, asked + 7)
    assert answer.timings.first_token_ms is not None
    assert answer.timings.evidence_ms <= answer.timings.first_token_ms <= answer.timings.total_ms


def test_the_gate_refuses_before_anything_is_drafted(assistant: Assistant) -> None:
    model = FakeModel("The lander Apollo was built by Grumman.", stated=0.01)
    events = list(opened(assistant, model).stream(QUESTION))
    assert kinds(events) == ["Evidence", "Answer"]
    answer = events[-1]
    assert isinstance(answer, Answer)
    check(answer, assistant)
    assert answer.abstained
    assert "could not find" in answer.text
    assert "The Apollo lander" in answer.text, "it says what was looked at"
    assert len(model.calls) == 1
    assert answer.timings.first_token_ms is None
    assert answer.usage == Usage(50, 1)


def test_a_draft_that_nothing_supports_is_not_given(assistant: Assistant) -> None:
    model = FakeModel("Soyuz was assembled by Energia in Samara.")
    answer = check(opened(assistant, model).ask(QUESTION), assistant)
    assert (answer.abstained, answer.citations, answer.unsupported) == (True, (), ())
    assert "Energia" not in answer.text
    assert len(model.calls) == 2, "gate and draft"


@pytest.mark.parametrize("draft", ["[1]", "..."])
def test_a_model_that_says_nothing_to_the_point_abstains(assistant: Assistant, draft: str) -> None:
    assert check(opened(assistant, FakeModel(draft)).ask(QUESTION), assistant).abstained


@pytest.mark.parametrize("draft", ["", "  "])
def test_a_model_that_says_nothing_at_all_leaves_the_documents_own_words(assistant: Assistant, draft: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.resilient.WAITS", (0.0, 0.0))
    model = FakeModel(draft)
    answer = check(opened(assistant, model).ask(QUESTION), assistant)
    assert answer.citations[0].quote == "The lander Apollo was built by Grumman."
    assert "answered with nothing" in answer.notices[0]
    assert len(model.calls) == 1 + 3, "the gate, and three tries of the draft"


def test_a_quantity_is_not_answered_with_something_else(assistant: Assistant) -> None:
    answer = check(opened(assistant, FakeModel("The lander Apollo was built by Grumman.")).ask("How many tonnes did Apollo weigh?"), assistant)
    assert answer.abstained
    assert "Grumman" not in answer.text


def test_a_sentence_that_nothing_supports_is_kept_and_listed(assistant: Assistant) -> None:
    answer = check(opened(assistant, FakeModel("The lander Apollo was built by Grumman. Pirates stole the second one.")).ask(QUESTION), assistant)
    assert answer.text == "The lander Apollo was built by Grumman. [1] Pirates stole the second one."
    assert answer.unsupported == ("Pirates stole the second one.",)
    assert not answer.abstained


@pytest.mark.parametrize("model", [None, FakeModel("Grumman.")])
def test_without_documents_it_says_so_and_asks_no_model(store: Store, embedder: FakeEmbedder, model: FakeModel | None) -> None:
    empty = make_assistant(store, embedder, model)
    events = list(empty.stream(QUESTION))
    assert kinds(events) == ["Evidence", "Answer"]
    answer = events[-1]
    assert isinstance(answer, Answer)
    assert (answer.abstained, answer.evidence, answer.usage) == (True, (), Usage())
    assert "citewell sync" in answer.text
    assert model is None or model.calls == []


@pytest.mark.parametrize("step", ["gate", "draft"])
def test_a_model_that_breaks_down_leaves_the_documents_own_words(assistant: Assistant, step: str) -> None:
    events = list(opened(assistant, Failing(step)).stream(QUESTION))
    answer = events[-1]
    assert isinstance(answer, Answer)
    check(answer, assistant)
    assert not answer.abstained
    assert answer.citations[0].quote == "The lander Apollo was built by Grumman."
    assert str(DOWN) in answer.notices[0]
    assert kinds(events) == (["Evidence", "Answer"] if step == "gate" else ["Evidence", "Token", "Answer"])


def test_a_model_that_breaks_down_over_an_unanswerable_question_abstains_with_the_notice(assistant: Assistant) -> None:
    answer = check(opened(assistant, Failing("gate")).ask("How deep is the Mariana trench?"), assistant)
    assert answer.abstained
    assert str(DOWN) in answer.notices[0]


def test_without_a_model_the_documents_own_sentences_answer(assistant: Assistant) -> None:
    quoting = opened(assistant, None)
    answer = check(quoting.ask("At how many degrees is green tea brewed?"), assistant)
    assert (answer.model, answer.abstained, answer.usage, answer.timings.first_token_ms) == ("none", False, Usage(), None)
    assert answer.citations[0].quote == "Green tea is brewed at 80 degrees."
    assert answer.notices == ("No language model is set, so the documents' own sentences answer.",)
    assert check(quoting.ask("Who won the football cup in Wellington?"), assistant).abstained


def test_closing_the_stream_stops_the_model(assistant: Assistant) -> None:
    model = FakeModel("The lander Apollo was built by Grumman.")
    events = opened(assistant, model).stream(QUESTION)
    for event in events:
        if isinstance(event, Token):
            break
    assert not model.closed
    events.close()  # type: ignore[attr-defined]
    assert model.closed
    assert list(events) == []


def test_an_answer_that_was_cut_off_says_so(assistant: Assistant) -> None:
    answer = check(opened(assistant, FakeModel("The lander Apollo was built by Grumman. It", complete=False)).ask(QUESTION), assistant)
    assert any("may be incomplete" in notice for notice in answer.notices)
    assert "The lander Apollo was built by Grumman. [1]" in answer.text


HISTORY = (Turn("user", "What is Apollo?"), Turn("assistant", "A lander."))


def test_a_follow_up_is_searched_with_its_subject(assistant: Assistant) -> None:
    model = FakeModel("The lander Apollo was built by Grumman.")
    answer = opened(assistant, model).ask("And who built it?", HISTORY)
    assert (answer.question, answer.standalone_question) == ("And who built it?", "Who built Apollo?")
    assert "Question: Who built Apollo?" in model.calls[0]
    assert not answer.abstained
    assert not any("Last question:" in call for call in model.calls), "what its words settle is not asked of the model"


def test_a_question_that_stands_alone_is_left_alone(assistant: Assistant) -> None:
    assert assistant.ask("How hot is water for green tea brewed?", HISTORY).standalone_question == "How hot is water for green tea brewed?"


LEANING = (Turn("user", "Was Apollo bigger than Soyuz?"), Turn("assistant", "Yes."))


def test_the_model_rewrites_what_words_do_not_settle(assistant: Assistant) -> None:
    model = Rewriting("Who built the lander Apollo?", "The lander Apollo was built by Grumman.")
    answer = opened(assistant, model).ask("Who built the first one?", LEANING)
    assert answer.standalone_question == "Who built the lander Apollo?"
    assert answer.usage.completion_tokens == 7 + 7 + len(model.calls) - 2, "rewriting counts too"


@pytest.mark.parametrize("model", [None, Rewriting(DOWN, "The lander Apollo was built by Grumman.")])
def test_without_a_rewrite_the_turn_before_is_searched_too(assistant: Assistant, model: LanguageModel | None) -> None:
    answer = opened(assistant, model).ask("Who built the first one?", LEANING)
    assert answer.standalone_question == "Was Apollo bigger than Soyuz? Who built the first one?"


def test_only_the_chosen_documents_are_looked_at(assistant: Assistant) -> None:
    answer = check(assistant.ask(QUESTION, documents=["tea.txt"]), assistant)
    assert answer.abstained
    assert {hit.passage.source for hit in answer.evidence} == {"tea.txt"}
    assert "the documents you chose" in answer.text
    identifier = next(document.id for document in assistant.store.documents() if document.source == "apollo.md")
    by_id = check(assistant.ask(QUESTION, documents=[identifier]), assistant)
    assert [citation.source for citation in by_id.citations] == ["apollo.md"]


def test_choosing_no_document_is_not_the_same_as_having_none(assistant: Assistant) -> None:
    answer = assistant.ask(QUESTION, documents=[])
    assert (answer.abstained, answer.evidence) == (True, ())
    assert "no documents to look in yet" not in answer.text


def test_an_unknown_document_and_an_empty_question_are_refused(assistant: Assistant) -> None:
    with pytest.raises(KeyError, match=r"gone\.md"):
        assistant.ask(QUESTION, documents=["tea.txt", "gone.md"])
    with pytest.raises(InvalidQuestion):
        next(assistant.stream(" ?! "))


def test_questions_about_the_document_read_its_edges(store: Store, embedder: FakeEmbedder, tmp_path: Path) -> None:
    made = tmp_path / "long"
    made.mkdir()
    filler = "\n\n".join(
        f"The harbour of town {number} opened for ferries and cargo boats, and the quay was rebuilt over and over again by its people."
        for number in range(60)
    )
    (made / "harbours.md").write_text(f"# Harbours\n\nBy Ines Duarte, for the Coastal Review.\n\n{filler}\n\nPrinted in Porto.\n", encoding="utf-8")
    model = FakeModel("By Ines Duarte, for the Coastal Review.")
    assistant = make_assistant(store, embedder, model)
    assistant.sync(made)
    answer = check(assistant.ask("Who wrote about the harbour of town 31 and its ferries?"), assistant)
    assert any("Ines Duarte" in hit.passage.text for hit in answer.evidence)
    assert len({hit.passage.id for hit in answer.evidence}) == len(answer.evidence)


DRAFTS = (
    "The lander Apollo was built by Grumman. It weighed 15 tonnes.",
    "- Grumman built the lander Apollo.\n- Apollo landed on 20 July 1969.\n- It sank.",
    "Answer: The lander Apollo was built by Grumman [7]. Green tea is brewed at 80 degrees [1][2]!",
    "**Apollo** landed on 20 July 1969, and nobody was hurt.",
    "Apollo landed on 20 July 1969.\n\nNotes on tea (Grumman)",
    *(text.replace("#", "") for text in DOCUMENTS.values()),
)


@pytest.mark.parametrize("draft", DRAFTS)
@pytest.mark.parametrize("complete", [True, False])
def test_every_sentence_is_marked_or_listed(assistant: Assistant, draft: str, complete: bool) -> None:
    answer = check(opened(assistant, FakeModel(draft, complete=complete)).ask("Who built the lander Apollo, and how hot is green tea?"), assistant)
    assert not answer.abstained
    assert answer.citations


def test_a_list_says_how_many_documents_it_was_drawn_from(assistant: Assistant) -> None:
    answer = opened(assistant, FakeModel("The lander Apollo was built by Grumman.")).ask("List all landers that were built.")
    assert any(f"of {len(assistant.store.documents())} documents" in notice for notice in answer.notices)
    assert not any("documents" in notice for notice in opened(assistant, FakeModel("The lander Apollo was built by Grumman.")).ask(QUESTION).notices)


def test_the_confidence_is_told_and_its_setting_decides(store: Store, embedder: FakeEmbedder, folder: Path) -> None:
    model = FakeModel("The lander Apollo was built by Grumman.", stated=0.55)
    answers = {}
    for refusal in ("cautious", "eager"):
        assistant = make_assistant(store, embedder, model)
        assistant.settings = assistant.settings.replaced(refusal=refusal)
        assistant.sync(folder)
        answers[refusal] = assistant.ask("Who built the lander Apollo out of plywood and hope?")
    assert answers["cautious"].abstained
    assert not answers["eager"].abstained
    assert answers["cautious"].confidence == answers["eager"].confidence
    assert "“plywood” or “hope”" in answers["cautious"].text


class Reader(FakeModel):
    """As sure as it was told to be, one time after the other."""

    def __init__(self, draft: str, stated: Sequence[float]) -> None:
        super().__init__(draft)
        self.told = iter(stated)

    def probability(self, messages: Sequence[Message]) -> tuple[float, Usage]:
        _, usage = super().probability(messages)
        return next(self.told), usage


@pytest.mark.parametrize(
    ("stated", "read", "abstained"),
    [
        ([0.99], [3, 3], False),
        ([0.5, 0.99], [3, 6, 6], False),
        ([0.5, 0.01], [3, 6], True),
        ([0.001], [3], True),
        ([0.0, 1.0], [3, 6, 6], False),  # of one that says yes or no and no more
        ([0.0, 0.0], [3, 6], True),
        ([1.0], [3, 3], False),
    ],
)
def test_the_best_excerpts_are_read_first_and_the_others_where_those_are_not_enough(
    store: Store, embedder: FakeEmbedder, tmp_path: Path, stated: list[float], read: list[int], abstained: bool
) -> None:
    makers = ["Grumman", "Boeing", "Northrop", "Convair", "Bell", "Martin"]
    for number, maker in enumerate(makers):
        (tmp_path / f"{number}.md").write_text(f"# The lander {maker}\n\nThe lander Apollo {number} was built by {maker} of plywood.\n")
    model = Reader("The lander Apollo 0 was built by Grumman.", stated)
    assistant = make_assistant(store, embedder, model)
    assistant.sync(tmp_path)
    answer = check(assistant.ask("Who built the lander Apollo 0?"), assistant)
    told = [sum(f"built by {maker}" in call for maker in makers) for call in model.calls]
    assert told[: len(read)] == read
    assert answer.abstained is abstained
    assert len(told) == len(read) or not abstained


@pytest.mark.parametrize(("near", "read"), [(1, 2), (2, 2), (3, 3), (4, 3)])
def test_an_excerpt_that_is_far_from_the_question_is_not_read_first(
    store: Store, embedder: FakeEmbedder, tmp_path: Path, near: int, read: int
) -> None:
    for number in range(6):
        text = f"The lander Apollo {number} was built by Grumman." if number < near else f"Potatoes grow in field {number}."
        (tmp_path / f"{number}.md").write_text(text)
    model = FakeModel("The lander Apollo 0 was built by Grumman.", stated=0.99)
    assistant = make_assistant(store, embedder, model)
    assistant.sync(tmp_path)
    assistant.ask("Who built the lander Apollo?")
    assert [call.count("Apollo ") + call.count("Potatoes") for call in model.calls[:2]] == [read, read]


def test_a_list_is_drawn_from_all_that_is_read(store: Store, embedder: FakeEmbedder, tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.md").write_text(f"# Lander {number}\n\nThe lander Apollo {number} was built by Grumman.\n")
    model = FakeModel("The lander Apollo 0 was built by Grumman.", stated=0.99)
    assistant = make_assistant(store, embedder, model)
    assistant.sync(tmp_path)
    assistant.ask("List all landers that Grumman built.")
    assert [call.count("was built by Grumman") for call in model.calls[:2]] == [6, 6]


def test_a_draft_that_is_not_borne_out_lowers_the_confidence(assistant: Assistant) -> None:
    answer = opened(assistant, FakeModel("The lander Vostok was built by Boeing.")).ask(QUESTION)
    assert answer.abstained
    assert answer.confidence is not None
    assert answer.confidence < 0.5


def test_the_documents_own_words_stand_in_for_a_draft_that_is_not_borne_out(assistant: Assistant) -> None:
    answer = check(opened(assistant, FakeModel("Grumman's pirates built the lander Apollo on Mars.", stated=0.97)).ask(QUESTION), assistant)
    assert not answer.abstained
    assert answer.text == "The lander Apollo was built by Grumman. [1]"
    assert IN_THEIR_WORDS in answer.notices


def test_what_is_far_from_all_words_is_refused_however_sure_the_model_is(assistant: Assistant) -> None:
    assert opened(assistant, FakeModel("Wizards sing loudly in cold caves.", stated=0.99)).ask(QUESTION).abstained


class Unsure(FakeModel):
    """A model that finds one question answered and no other."""

    def __init__(self, answered: str, draft: str) -> None:
        super().__init__(draft)
        self.answered = answered

    def probability(self, messages: Sequence[Message]) -> tuple[float, Usage]:
        super().probability(messages)
        return (0.99 if self.answered in messages[-1]["content"] else 0.01), Usage(50, 1)


def test_what_a_question_takes_for_granted_is_set_right(assistant: Assistant) -> None:
    asked, who = "Why did Boeing build the lander Apollo?", "Who did build the lander Apollo?"
    right = opened(assistant, Unsure(who, "The lander Apollo was built by Grumman."))
    answer = right.ask(asked)
    assert not answer.abstained
    assert "Grumman" in answer.text
    assert answer.citations
    assert any("Boeing" in notice for notice in answer.notices)
    assert right.ask("Why did Grumman build the lander Apollo?").abstained
    assert opened(assistant, Unsure(who, "The lander Apollo was built by Boeing.")).ask(asked).abstained
