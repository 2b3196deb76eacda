"""Model servers that fail in twelve ways, met by a whole question: evidence, then an answer in time that says plainly what was wrong."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import FakeEmbedder, FakeModel
from model_server import FAULTS, SAYS, SECRET, STREAMED, ModelServer, Step, nobody, running

from index.errors import ModelUnavailable
from index.store import Store
from rag import resilient, wire
from rag.assistant import Assistant
from rag.model import AnthropicModel, EmbeddedModel, Finished, LanguageModel, LlamaIndexModel, ModelStatus, OpenAIModel, ServedModel
from rag.resilient import Pauses, Resilient
from rag.settings import Settings
from rag.types import Answer, Event, Evidence, Token, Turn
from rag.wire import retry_after

QUESTION = "Who built the lander Apollo?"
MESSAGES = [{"role": "user", "content": "Who built it?"}]
IN_TIME = 5.0
"""Seconds for a whole answer here, with the limits below; "within five seconds of detection" is less for each fault."""

SAID = {
    "refused": "cannot be reached",
    "500": "answered with error 500",
    "401": "refused the key",
    "429": "asked too often",
    "429 for a while": "asked too often",
    "garbage": "cannot be read",
    "drip": "did not",
    "cut": "broke off in the middle",
    "empty": "answered with nothing",
    "endless": "did not|far more|cannot be read|past the length",
    "huge": "far more than an answer|past the length",
    "wrong type": "cannot be read",
    "hang": "did not answer in time",
}
TRIED = {"500": 3, "429": 3, "429 for a while": 3, "401": 1, "garbage": 1, "wrong type": 1, "empty": 3, "hang": 1, "drip": 1}


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with running() as made:
        yield made


@pytest.fixture
def second() -> Iterator[ModelServer]:
    with running() as made:
        yield made


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resilient, "WAITS", (0.02, 0.02))


def model_at(url: str, name: str = "tiny-model", kind: type[ServedModel] = OpenAIModel, seconds: float = 1.5, silence: float = 0.7) -> ServedModel:
    return kind(url, name, SECRET, seconds, silence)


@pytest.fixture
def opened(store: Store, embedder: FakeEmbedder, folder: Path) -> Any:
    """A function that opens an assistant over the two documents with the models given."""

    def make(model: LanguageModel | None, fallback: LanguageModel | None = None, seconds: float = 20.0) -> Assistant:
        settings = Settings(data_dir=store.folder, model="none", answer_seconds=seconds)
        made = Assistant(settings, store, embedder, model, ModelStatus("ready", "", "tiny-model"), fallback)  # type: ignore[arg-type]
        made.sync(folder)
        return made

    return make


def asked(assistant: Assistant) -> tuple[list[Event], Answer, float]:
    """All events of the question, its answer, and the seconds it took; what must hold of every one is checked."""
    began = time.monotonic()
    events = list(assistant.stream(QUESTION))
    took = time.monotonic() - began
    assert isinstance(events[0], Evidence)
    assert events[0].hits
    answer = events[-1]
    assert isinstance(answer, Answer)
    for citation in answer.citations:
        assert assistant.store.text(citation.document_id)[citation.start : citation.end] == citation.quote
    for notice in answer.notices:
        assert not [word for word in (SECRET, "/srv", "127.0.0.1", "/v1", "Traceback", "line 3", "CUDA", "\n") if word in notice]
        assert notice.endswith((".", "!"))
    return events, answer, took


@pytest.mark.parametrize("step", ["gate", "draft"])
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_ends_in_an_answer_that_says_so(
    server: ModelServer, opened: Any, fault: str, step: Step, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.fault, server.step = fault, step
    refused = fault == "refused"
    events, answer, took = asked(opened(model_at(nobody() if refused else server.url)))
    assert took < IN_TIME
    assert re.search(SAID[fault], answer.notices[0])
    assert not answer.abstained
    assert answer.citations[0].quote == SAYS
    if step == "draft" and fault == "cut":
        assert answer.notices[0].endswith("This answer is incomplete.")
        assert (answer.text, answer.model) == (f"{SAYS} [1]", "tiny-model")
        assert any(isinstance(event, Token) for event in events)
    if step == "draft" and fault in ("endless", "huge"):
        assert "past the length" in answer.notices[0], "cut by its length, not by a deadline"
    if fault in TRIED:
        before = 0 if step == "gate" else sum("Reply yes or no" in body["messages"][-1]["content"] for _, _, body, _ in server.asked)
        assert len(server.asked) - before == TRIED[fault]
    for word in (SECRET, "/srv", "Traceback"):
        assert word not in caplog.text


@pytest.mark.parametrize("fault", STREAMED)
def test_the_other_protocols_streams_fail_as_plainly(server: ModelServer, opened: Any, fault: str) -> None:
    server.fault, server.step = fault, "draft"
    events, answer, took = asked(opened(model_at(server.url, kind=AnthropicModel)))
    assert took < IN_TIME
    assert re.search(SAID[fault], answer.notices[0])
    assert answer.citations[0].quote == SAYS
    if fault == "cut":
        assert answer.notices[0].endswith("This answer is incomplete.")
        assert answer.text == f"{SAYS} [1]"
        assert any(isinstance(event, Token) for event in events)


@pytest.mark.parametrize("kind", [OpenAIModel, AnthropicModel])
@pytest.mark.parametrize("said", ["", f"{SAYS} And then"])
def test_a_model_that_declines_is_not_told_as_cut_by_its_length(
    server: ModelServer, opened: Any, kind: type[ServedModel], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import model_server

    def decline(self: Any, *_: Any) -> None:
        self.begin()
        self.piece(said)
        self.end("content_filter")

    whole = model_server._Request.messages
    monkeypatch.setattr(model_server._Request, "stream", decline)
    monkeypatch.setattr(model_server._Request, "messages", lambda self, text: whole(self, text) if text.lower().startswith("yes") else decline(self))
    _, answer, _ = asked(opened(model_at(server.url, kind=kind)))
    assert "length limit" not in " ".join(answer.notices)
    assert answer.citations[0].quote == SAYS
    if said:
        assert (answer.text, answer.notices[0]) == (f"{SAYS} [1]", "The model 'tiny-model' declined to go on. This answer is incomplete.")
    else:
        assert answer.notices[0].startswith("The model 'tiny-model' declined to answer.")


BETWEEN_TWO = (Turn("user", "Is Apollo or Saturn older?"), Turn("assistant", "Apollo is older than Saturn."))
"""Words alone do not settle what `it` is behind this, so the model is asked."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_follow_up_has_its_evidence_before_any_model_is_asked(server: ModelServer, opened: Any, fault: str) -> None:
    """Where that model fails, the question is searched for as it stands."""
    server.fault, server.step = fault, "all"
    assistant = opened(model_at(nobody() if fault == "refused" else server.url))
    events = assistant.stream("And who built it?", BETWEEN_TWO)
    first = next(events)
    assert isinstance(first, Evidence)
    assert first.hits
    assert server.asked == [], "the evidence is there before"
    began = time.monotonic()
    *_, answer = events
    assert time.monotonic() - began < 2 * IN_TIME
    assert isinstance(answer, Answer)
    assert answer.notices or answer.asks_back


def test_a_follow_up_that_the_model_puts_in_full_brings_its_evidence_in_place_of_the_first(opened: Any) -> None:
    model = FakeModel("Who built the lander Apollo?")
    first, second, *_, answer = opened(model).stream("And who built it?", BETWEEN_TWO)
    assert isinstance(first, Evidence)
    assert isinstance(second, Evidence)
    assert second.standalone_question == answer.standalone_question == "Who built the lander Apollo?"
    assert second.hits[0].passage.text == answer.evidence[0].passage.text


@pytest.mark.parametrize(("kind", "status"), [("overloaded_error", 529), ("authentication_error", 401)])
def test_an_error_in_the_midst_of_messages_is_told(server: ModelServer, kind: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import model_server

    monkeypatch.setattr(model_server._Request, "messages", lambda self, text: (self.begin(), self.event({"type": "error", "error": {"type": kind}})))
    with pytest.raises(ModelUnavailable, match="refused the key" if status == 401 else f"error {status}") as caught:
        list(model_at(server.url, kind=AnthropicModel).stream(MESSAGES, 20))
    assert caught.value.passing == (status == 529)


# Tries and pauses


def test_what_passes_is_tried_again_and_then_answers(server: ModelServer, opened: Any) -> None:
    server.fault, server.times = "500", 2
    _, answer, _ = asked(opened(model_at(server.url)))
    assert (answer.text, answer.notices, answer.model) == (f"{SAYS} [1]", (), "tiny-model")


class Slow(FakeModel):
    """Fails, each time after so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def probability(self, messages: Any) -> Any:
        self.calls.append("")
        time.sleep(self.seconds)
        raise ModelUnavailable("The model cannot be reached.", passing=True)


@pytest.mark.parametrize(("seconds", "tries"), [(0.0, 3), (0.6, 2), (1.6, 1)])
def test_what_fails_slowly_is_told_in_time(seconds: float, tries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that drops what it is sent takes as long for each try: three of them would be told after fifteen seconds."""
    monkeypatch.setattr(resilient, "PATIENCE", 1.2)
    model = Slow(seconds)
    with pytest.raises(ModelUnavailable, match="cannot be reached"):
        Resilient([model], 60).probability(MESSAGES)
    assert len(model.calls) == tries


def test_retry_after_is_waited_for(server: ModelServer, opened: Any) -> None:
    server.fault, server.times, server.retry_after = "429 for a while", 1, "1"
    _, answer, _ = asked(opened(model_at(server.url)))
    assert answer.notices == ()
    assert server.asked[1][3] - server.asked[0][3] >= 1.0


def test_a_long_retry_after_is_told_at_once_and_kept_to(server: ModelServer, opened: Any) -> None:
    server.fault, server.times, server.retry_after = "429 for a while", 1, "120"
    assistant = opened(model_at(server.url))
    _, answer, took = asked(assistant)
    assert took < IN_TIME
    assert "asked too often" in answer.notices[0]
    assert len(server.asked) == 1
    _, again, _ = asked(assistant)
    assert "left alone for 1" in again.notices[0]
    assert len(server.asked) == 1, "the server asked for two minutes, and has them"


def test_a_model_that_failed_three_times_gets_a_pause(server: ModelServer) -> None:
    now = [100.0]
    pauses = Pauses(lambda: now[0])
    model = model_at(server.url)
    server.fault = "500"
    for failing in (True, True):
        with pytest.raises(ModelUnavailable, match="error 500"):
            Resilient([model], 10, pauses).probability(MESSAGES)
        assert len(server.asked) == 3, f"asked in the pause: {failing}"
    server.fault = ""
    now[0] += resilient.PAUSE + 1
    assert Resilient([model], 10, pauses).probability([{"role": "user", "content": "Reply yes or no."}])[0] == pytest.approx(0.9)


def test_a_key_that_was_refused_is_no_reason_for_a_pause(server: ModelServer, opened: Any) -> None:
    assistant = opened(model_at(server.url))
    server.fault, server.times = "401", 1
    assert "refused the key" in asked(assistant)[1].notices[0]
    assert asked(assistant)[1].notices == ()


def test_nothing_is_tried_again_once_the_model_has_spoken(server: ModelServer) -> None:
    server.fault = "cut"
    items = list(Resilient([model_at(server.url)], 10).stream(MESSAGES, 50))
    assert items[0] == f"{SAYS} It wei"
    assert isinstance(items[1], Finished)
    assert "broke off" in items[1].broken_off
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("told", "seconds"), [("3", 3.0), ("0.5", 0.5), ("-4", 0.0), ("", None), (None, None), ("soon", None), ("nan", None), ("inf", None)]
)
def test_retry_after_in_seconds(told: str | None, seconds: float | None) -> None:
    assert retry_after(told) == seconds


def test_retry_after_as_a_date() -> None:
    later = datetime.now(UTC) + timedelta(seconds=90)
    assert retry_after(format_datetime(later, usegmt=True)) == pytest.approx(90, abs=2)
    assert retry_after(format_datetime(later - timedelta(days=1), usegmt=True)) == 0.0


# The second model


@pytest.mark.parametrize("step", ["gate", "draft"])
@pytest.mark.parametrize("fault", ["refused", "500", "401", "hang", "garbage"])
def test_the_second_model_answers_and_it_is_said(server: ModelServer, second: ModelServer, opened: Any, fault: str, step: Step) -> None:
    server.fault, server.step = fault, step
    first = model_at(nobody() if fault == "refused" else server.url)
    _, answer, took = asked(opened(first, model_at(second.url, "other-model")))
    assert took < IN_TIME
    assert (answer.text, answer.model) == (f"{SAYS} [1]", "other-model")
    assert len(answer.notices) == 1
    assert SAID[fault] in answer.notices[0]
    assert answer.notices[0].endswith("So the second model, 'other-model', answered.")


def test_where_neither_answers_both_are_told(server: ModelServer, second: ModelServer, opened: Any) -> None:
    server.fault, second.fault = "401", "garbage"
    _, answer, _ = asked(opened(model_at(server.url), model_at(second.url, "other-model")))
    assert "refused the key" in answer.notices[0]
    assert "'other-model' sent an answer that cannot be read" in answer.notices[0]
    assert "answered." not in answer.notices[0]
    assert answer.model == "none"


def test_the_second_model_stands_in_while_the_first_is_not_there(second: ModelServer, opened: Any) -> None:
    _, answer, _ = asked(opened(None, model_at(second.url, "other-model")))
    assert answer.model == "other-model"
    assert "So the second model, 'other-model', answered." in answer.notices[0]


# Deadlines and ends


@pytest.mark.parametrize("fault", ["hang", "hang before", "drip"])
@pytest.mark.parametrize("step", ["gate", "draft"])
def test_the_whole_answers_deadline_is_hard(server: ModelServer, opened: Any, fault: str, step: Step) -> None:
    server.fault, server.step = fault, step
    _, answer, took = asked(opened(model_at(server.url, seconds=60, silence=60), seconds=1.0))
    assert 0.9 < took < 5
    assert "within 1 seconds" in answer.notices[0]
    assert "CITEWELL_ANSWER_SECONDS" in answer.notices[0]


def test_what_the_deadline_cuts_is_verified_and_labelled(server: ModelServer, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resilient, "CHARACTERS_A_TOKEN", 1_000_000)
    import model_server

    def speak(self: Any, text: str, body: dict[str, Any]) -> None:
        self.begin()
        self.piece(f"{SAYS} It also")
        self.wait_for_the_end()

    monkeypatch.setattr(model_server._Request, "stream", speak)
    _, answer, took = asked(opened(model_at(server.url, seconds=60, silence=60), seconds=1.0))
    assert took < 5
    assert answer.text == f"{SAYS} [1]"
    assert "This answer is incomplete." in answer.notices[0]


@pytest.mark.parametrize("fault", ["hang", "hang before", "drip", "endless"])
def test_closing_from_another_thread_hangs_up(server: ModelServer, opened: Any, fault: str) -> None:
    server.fault, server.step = fault, "gate"
    events = opened(model_at(server.url, seconds=60, silence=60)).stream(QUESTION)
    seen: list[Event] = []
    reading = threading.Thread(target=lambda: seen.extend(events), daemon=True)
    reading.start()
    while not server.asked:
        time.sleep(0.01)
    time.sleep(0.1)
    began = time.monotonic()
    events.close()
    reading.join(2)
    assert not reading.is_alive()
    assert time.monotonic() - began < 2
    assert [type(event) for event in seen] == [Evidence]
    if fault != "drip":  # it notices at its next byte only
        assert server.left.wait(2), "the server can stop generating"
    assert list(events) == []


def test_a_library_that_hangs_is_left_behind(opened: Any) -> None:
    from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata

    free = threading.Event()

    class Hanging(CustomLLM):
        @property
        def metadata(self) -> LLMMetadata:
            return LLMMetadata(model_name="hanging")

        def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
            raise AssertionError("only streams are asked for")

        def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Iterator[CompletionResponse]:
            free.wait(30)
            yield CompletionResponse(text="Yes", delta="Yes")

    try:
        _, answer, took = asked(opened(LlamaIndexModel(Hanging(), 60), seconds=0.7))
        assert took < 5
        assert "CITEWELL_ANSWER_SECONDS" in answer.notices[0]
    finally:
        free.set()


def test_an_answer_leaves_no_watch_behind(opened: Any) -> None:
    before = threading.active_count()
    assistant = opened(FakeModel(SAYS))
    for _ in range(3):
        asked(assistant)
    time.sleep(0.05)
    assert threading.active_count() <= before + 1


def test_a_clock_that_strikes_too_late_ends_no_other_questions_call() -> None:
    class Client:
        pass

    connection = wire.Connection(Client())  # type: ignore[arg-type]
    first = connection.begin()
    connection.finish()
    second = connection.begin()
    connection.end("late", first)
    assert not connection.ended
    connection.end("late", second)
    assert connection.ended == "late"


def test_a_model_in_this_process_gets_no_pause(tmp_path: Path) -> None:
    class Slow(EmbeddedModel):
        asked = 0

        def probability(self, messages: Any) -> Any:
            self.asked += 1
            raise ModelUnavailable("It did not finish in time.", hung=True)

    model, pauses = Slow(tmp_path / "a.gguf", "slow", 1), resilient.Pauses()
    for _ in range(2):
        with pytest.raises(ModelUnavailable, match="in time"):
            resilient.Resilient([model], 5, pauses).probability([])
    assert model.asked == 2


class Taken(EmbeddedModel):
    """A model in this process that tells who has it, and answers when it is let."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "taken", 5)
        self.asked: list[str] = []
        self.go_on = threading.Semaphore(0)

    def probability(self, messages: Any) -> Any:
        self.asked.append(messages)
        assert self.go_on.acquire(timeout=10)
        return 1.0, None


def wait_for(turns: resilient.Turns, number: int) -> None:
    ends = time.monotonic() + 10
    while len(turns._waiting) < number:
        assert time.monotonic() < ends
        time.sleep(0.001)


def test_a_model_in_this_process_has_one_question_after_the_other(tmp_path: Path) -> None:
    model, turns, answered = Taken(tmp_path / "a.gguf"), resilient.Turns(), []

    def ask(name: str) -> None:
        asked = resilient.Resilient([model], 5, turns=turns)
        for step in ("gate", "draft"):
            asked.probability(f"{name} {step}")  # type: ignore[arg-type]
        answered.append(name)
        asked.close()

    threads = []
    for number, name in enumerate(("first", "second", "third"), 1):
        threads.append(threading.Thread(target=ask, args=(name,), daemon=True))
        threads[-1].start()
        wait_for(turns, number)
    for _ in range(6):
        model.go_on.release()
    for thread in threads:
        thread.join(10)
    assert model.asked == [f"{name} {step}" for name in ("first", "second", "third") for step in ("gate", "draft")]
    assert answered == ["first", "second", "third"]
    assert turns._waiting == []


def test_no_time_passes_while_a_question_waits_for_its_turn_and_who_leaves_waits_no_more(tmp_path: Path) -> None:
    model, turns = Taken(tmp_path / "a.gguf"), resilient.Turns()
    first, left, second = (resilient.Resilient([model], seconds, turns=turns) for seconds in (30, 30, 0.3))
    ended = threading.Event()

    def leave() -> None:
        with pytest.raises(resilient.Stopped):
            left.probability("left")  # type: ignore[arg-type]
        left.close()
        ended.set()

    results: list[Any] = []
    model.go_on.release()
    first.probability("first")  # type: ignore[arg-type]
    threading.Thread(target=leave, daemon=True).start()
    waiting = threading.Thread(target=lambda: results.append(second.probability("second")), daemon=True)  # type: ignore[arg-type]
    waiting.start()
    wait_for(turns, 3)
    left.stop()
    assert ended.wait(2)
    waiting.join(0.5)
    assert results == [], "it is the first one's turn still"
    model.go_on.release()
    first.close()
    waiting.join(5)
    assert results == [(1.0, None)], "its third of a second begins with its turn"
    second.close()


def test_a_second_model_needs_no_turn(tmp_path: Path, server: ModelServer) -> None:
    turns = resilient.Turns()

    class Broken(EmbeddedModel):
        def probability(self, messages: Any) -> Any:
            raise ModelUnavailable("It cannot be loaded.")

    asked = resilient.Resilient([Broken(tmp_path / "a.gguf", "broken", 5), OpenAIModel(server.url, "m", "", 5)], 5, turns=turns)
    asked.probability([{"role": "user", "content": "Reply yes or no"}])
    assert turns._waiting == [], "the next question can have the model"
    asked.close()
