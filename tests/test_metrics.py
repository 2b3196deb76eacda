"""Tests of rag.metrics and the addresses for whoever watches over a server: what is counted, by door and outcome, and no word of a question in it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import FakeEmbedder, FakeModel, make_assistant
from doors import QUESTION, Endless
from starlette.testclient import TestClient

from index.errors import InvalidQuestion
from index.store import Store
from rag.assistant import Assistant, configured_model
from rag.metrics import Door, Metrics
from rag.model import ModelStatus
from rag.prompt import Message
from rag.server import create_app
from rag.service import Service, Visitors
from rag.settings import Settings
from rag.types import Answer, Token, Usage

pytestmark = pytest.mark.usefixtures("fast_probes")


def numbers(text: str) -> dict[str, float]:
    """Each line's name with its labels, and its value."""
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))}


def told(metrics: Metrics) -> dict[str, float]:
    return numbers(metrics.text().decode())


def questions(metrics: Metrics) -> dict[tuple[str, str], float]:
    """How many questions there were, by door and outcome; what is 0 is left out."""
    found = (re.fullmatch(r'citewell_questions_total\{door="(\w+)",outcome="(\w+)"\}', name) for name in told(metrics))
    return {(m[1], m[2]): value for m in found if m and (value := told(metrics)[m[0]])}


@pytest.fixture
def client(assistant: Assistant) -> TestClient:
    return TestClient(create_app(assistant), base_url="http://127.0.0.1", raise_server_exceptions=False)


@pytest.mark.parametrize("door", ["page", "http", "openai", "mcp"])
def test_an_answer_counts_for_its_door(lasting: Assistant, door: Door) -> None:
    metrics = Metrics(lasting)
    answer = list(metrics.counted(door, lasting.stream(QUESTION)))[-1]
    assert questions(metrics) == {(door, "answered"): 1}
    now = told(metrics)
    assert now["citewell_tokens_read_total"] == answer.usage.prompt_tokens == 150
    assert now["citewell_tokens_written_total"] == answer.usage.completion_tokens
    for name in ("evidence", "first_token", "answer"):
        assert now[f"citewell_{name}_seconds_count"] == 1
    assert now["citewell_answer_seconds_sum"] == pytest.approx(answer.timings.total_ms / 1000)
    assert now["citewell_evidence_seconds_sum"] == pytest.approx(answer.timings.evidence_ms / 1000)


def test_refusals_and_questions_asked_back_are_told_apart(store: Store, embedder: FakeEmbedder, folder: Path) -> None:
    assistant = make_assistant(store, embedder, FakeModel("It was built by Grumman.", stated=0.0))
    assistant.sync(folder)
    metrics = Metrics(assistant)
    refused = list(metrics.counted("http", assistant.stream("Who painted the ceiling?")))[-1]
    assert isinstance(refused, Answer)
    assert refused.abstained
    list(metrics.counted("http", iter([replace(refused, asks_back=True)])))
    assert questions(metrics) == {("http", "refused"): 1, ("http", "asked_back"): 1}
    assert told(metrics)["citewell_first_token_seconds_count"] == 0


class Broken(FakeModel):
    def probability(self, messages: Sequence[Message]) -> tuple[float, Usage]:
        raise RuntimeError("secret")


def test_what_fails_what_is_left_and_what_cannot_be_asked_count_as_such(store: Store, embedder: FakeEmbedder, folder: Path) -> None:
    broken = make_assistant(store, embedder, Broken())
    broken.sync(folder)
    metrics = Metrics(broken)
    with pytest.raises(RuntimeError):
        list(metrics.counted("mcp", broken.stream(QUESTION)))
    with pytest.raises(InvalidQuestion):
        list(metrics.counted("mcp", broken.stream("")))
    with pytest.raises(KeyError):
        list(metrics.counted("mcp", broken.stream(QUESTION, documents=["gone.md"])))
    model = Endless()
    events = metrics.counted("page", make_assistant(store, embedder, model).stream(QUESTION))
    while not isinstance(next(events), Token):
        pass
    assert told(metrics)['citewell_questions_in_progress{door="page"}'] == 1
    events.close()  # type: ignore[attr-defined]
    assert model.stopped.is_set(), "who leaves stops the model, counted or not"
    assert questions(metrics) == {("mcp", "failed"): 1, ("mcp", "rejected"): 2, ("page", "left"): 1}
    assert told(metrics)['citewell_questions_in_progress{door="page"}'] == 0


def test_the_page_of_numbers_tells_the_store_and_the_model_and_no_words(client: TestClient, assistant: Assistant) -> None:
    client.post("/api/ask", json={"question": QUESTION})
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    now = numbers(response.text)
    assert (now["citewell_documents"], now["citewell_passages"]) == (2, assistant.store.passage_count())
    assert now['citewell_questions_total{door="http",outcome="answered"}'] == 1
    assert now['citewell_questions_total{door="openai",outcome="failed"}'] == 0, "a rate needs the line before the first one happens"
    assert [name for name, value in now.items() if name.startswith("citewell_model_state") and value] == ['citewell_model_state{state="ready"}']
    assert not re.search(r"(?i)apollo|lander|grumman|built", response.text)


def test_two_servers_in_one_process_count_apart(assistant: Assistant) -> None:
    first, second = Metrics(assistant), Metrics(assistant)
    list(first.counted("http", assistant.stream(QUESTION)))
    assert (len(questions(first)), len(questions(second))) == (1, 0)


def test_the_chat_page_counts_too(assistant: Assistant) -> None:
    from ui.app import events_of

    with Visitors(assistant.settings) as visitors:
        service = Service(assistant, visitors)

        async def asked() -> None:
            async for _ in events_of(service.stream("page", assistant, QUESTION)):
                pass

        asyncio.run(asked())
        assert questions(service.metrics) == {("page", "answered"): 1}
        assert service.queue.taken == 0


@pytest.mark.parametrize(("model", "ahead"), [("none", 0), ("embedded", 1)])
def test_only_for_a_model_in_this_process_questions_wait_for_each_other(store: Store, embedder: FakeEmbedder, model: str, ahead: int) -> None:
    """The embedded one counts while it is still to be fetched, too."""
    settings = Settings(data_dir=store.folder, model=model, models_dir=store.folder / "empty")
    with Visitors(settings) as visitors:
        assistant = Assistant(settings, store, embedder, *configured_model(settings))
        service = Service(assistant, visitors)
        asked = [service.stream("http", assistant, QUESTION) for _ in range(2)]
        assert [answering.ahead for answering in asked] == [0, ahead]
        for answering in asked:
            answering.close()


def test_ready_once_the_embedding_model_is_loaded_and_while_the_store_is_open(
    client: TestClient, assistant: Assistant, embedder: FakeEmbedder
) -> None:
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "model": "fake", "model_state": "ready", "message": ""})
    embedder.loaded = False
    unready = client.get("/readyz")
    assert (unready.status_code, unready.json()["status"]) == (503, "unready")
    assert "embedding model" in unready.json()["why"]
    embedder.loaded = True
    assistant.store.close()
    closed = client.get("/readyz")
    assert closed.status_code == 503
    assert "closed" in closed.json()["why"]
    assert client.get("/healthz").status_code == 200, "it runs nevertheless"
    assert "citewell_documents" not in client.get("/metrics").text


def test_a_model_that_loads_does_not_keep_from_being_ready(client: TestClient, assistant: Assistant) -> None:
    assistant._status = ModelStatus("loading", "The language model is loading.", "big")
    told = client.get("/readyz")
    assert (told.status_code, told.json()["model_state"], told.json()["message"]) == (200, "loading", "The language model is loading.")
    assert 'citewell_model_state{state="loading"} 1.0' in client.get("/metrics").text
