"""Tests of rag.assistant: which model the settings name, what happens when it cannot be had, and the default assistant."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import FakeEmbedder, FakeModel, FakeSentenceTransformer, make_assistant
from pydantic import SecretStr

import rag
from index import remember
from index.errors import CitewellError, DamagedWeights, InvalidQuestion, InvalidSettings, ModelUnavailable, StoreError, StoreInUse
from index.store import Store
from rag import assistant as module
from rag import weights
from rag.answer import LOADING
from rag.assistant import NO_MODEL, STARTERS, Assistant, configured_model, open_assistant, seed
from rag.model import EmbeddedModel, LlamaIndexModel, OpenAIModel
from rag.settings import SEEDS, Settings
from rag.types import Answer, Evidence, Turn

QUESTION = "Who built the lander Apollo?"


@pytest.fixture(autouse=True)
def no_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Each test has its own default assistant and its own, empty folder for model files."""
    monkeypatch.setattr(module, "_default", None)
    monkeypatch.setenv("CITEWELL_MODELS_DIR", str(tmp_path / "models"))
    yield
    if module._default is not None:
        module._default.close()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Fetching fails; lists what was to be fetched."""
    wanted: list[str] = []

    def fetch(what: weights.Weights, folder: Path, progress: Any = None, sources: Any = None) -> Path:
        wanted.append(what.name)
        if progress:
            progress(50, 200, "nowhere")
        raise ModelUnavailable("The model could not be fetched: there is no network. Run `citewell fetch` later.")

    monkeypatch.setattr(weights, "fetch", fetch)
    return wanted


# Which model


def test_a_server_whose_embedding_model_loads_answers_by_words(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remember, "SOON_SECONDS", 0.05)
    released = threading.Event()

    class Slow(FakeEmbedder):
        def load(self) -> None:
            released.wait(30)
            self.loaded = True

    embedder = Slow()
    with make_assistant(store, embedder, FakeModel("The lander Apollo was built by Grumman.")) as assistant:
        assistant.sync(folder)
        embedder.loaded = False
        assistant.prepare_in_background()
        eventually = time.monotonic() + 10
        while not assistant.remembered.is_loading:
            assert time.monotonic() < eventually
        events = assistant.stream("Who built the lander Apollo?")
        evidence = next(events)
        assert isinstance(evidence, Evidence)
        assert not embedder.loaded
        assert "Grumman" in evidence.hits[0].passage.text
        assert {hit.similarity for hit in evidence.hits} == {None}
        released.set()
        *_, answer = events
        assert isinstance(answer, Answer)
        assert LOADING in answer.notices
        assert LOADING not in assistant.ask("Who built the lander Apollo?").notices


def test_none_needs_nothing() -> None:
    model, status = configured_model(Settings(model="none"))
    assert (model, status.state, status.message, status.name) == (None, "none", NO_MODEL, "none")


def test_an_embedded_model_that_is_not_there_is_to_be_fetched() -> None:
    model, status = configured_model(Settings(model="embedded-small"))
    assert (model, status.state, status.name) == (None, "fetching", "embedded-small")
    assert "not been fetched" in status.message


def test_a_damaged_embedded_model_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / weights.EMBEDDED.file).write_bytes(b"GGUF")
    with pytest.raises(DamagedWeights, match="citewell fetch"):
        configured_model(Settings(model="embedded"))


def test_a_url_needs_the_name_of_a_model() -> None:
    with pytest.raises(InvalidSettings, match="CITEWELL_MODEL_NAME") as caught:
        configured_model(Settings(model="https://anna:hunter2@models.example/v1", api_key=SecretStr("sk-hidden")))
    assert "https://models.example/v1" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    model, status = configured_model(Settings(model="http://127.0.0.1:9/v1", model_name="tiny"))
    assert isinstance(model, OpenAIModel)
    assert (model.name, status.state, status.message, status.name) == ("tiny", "ready", "", "tiny")


def test_a_file_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "My.GGUF").write_bytes(b"GGUF and more")
    for setting in (str(tmp_path / "My.GGUF"), "~/My.GGUF"):
        model, status = configured_model(Settings(model=setting))
        assert isinstance(model, EmbeddedModel)
        assert (model.loaded, model.name, status.state) == (False, "My", "ready")


@pytest.mark.parametrize(
    ("setting", "error", "says"),
    [
        ("gpt-nonsense", InvalidSettings, "'gpt-nonsense' is not known.*embedded-small.*none"),
        ("", InvalidSettings, "is not known"),
        ("None", InvalidSettings, "is not known"),
        ("ftp://models.example/v1", InvalidSettings, "is not known"),
        ("{folder}/gone.gguf", InvalidSettings, "no such file"),
        ("{folder}", InvalidSettings, "is not known"),
        ("{folder}/folder.gguf", InvalidSettings, "no such file"),
        ("{folder}/text.gguf", DamagedWeights, "no GGUF file"),
        ("{folder}/empty.gguf", DamagedWeights, "no GGUF file"),
    ],
)
def test_a_model_that_cannot_work_is_refused(tmp_path: Path, setting: str, error: type[CitewellError], says: str) -> None:
    (tmp_path / "folder.gguf").mkdir()
    (tmp_path / "text.gguf").write_text("I am text", encoding="utf-8")
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(error, match=says):
        configured_model(Settings(model=setting.format(folder=tmp_path)))


# Opening


@pytest.mark.usefixtures("no_real_embedder")
def test_an_assistant_opens_empty_and_gives_its_store_back(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", model="none")
    with open_assistant(settings) as opened:
        assert opened.store.documents() == []
        assert opened.model_status().state == "none"
        with pytest.raises(StoreInUse):
            open_assistant(settings)
    with open_assistant(settings):
        pass
    opened.close()
    with pytest.raises(StoreError, match="closed"):
        opened.ask(QUESTION)


@pytest.mark.usefixtures("no_real_embedder")
def test_the_store_is_given_back_when_the_body_raises(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", model="none")
    with pytest.raises(ZeroDivisionError), open_assistant(settings):
        raise ZeroDivisionError
    open_assistant(settings).close()


@pytest.mark.usefixtures("no_real_embedder")
def test_without_fetching_the_documents_answer_and_the_status_says_why(tmp_path: Path, folder: Path, no_network: list[str]) -> None:
    with open_assistant(Settings(data_dir=tmp_path / "data", model="embedded"), fetch=False) as opened:
        assert no_network == []
        assert opened.model_status().state == "fetching"
        opened.sync(folder)
        answer = opened.ask(QUESTION)
        assert answer.citations[0].quote == "The lander Apollo was built by Grumman."
        assert answer.notices == (opened.model_status().message,)


@pytest.mark.usefixtures("no_real_embedder")
def test_a_fetch_that_fails_leaves_an_assistant_that_answers(tmp_path: Path, folder: Path, no_network: list[str]) -> None:
    told: list[tuple[int, int, str]] = []
    with open_assistant(Settings(data_dir=tmp_path / "data", model="embedded-small"), progress=lambda *what: told.append(what)) as opened:
        assert no_network == ["embedded-small"]
        assert told == [(50, 200, "nowhere")]
        status = opened.model_status()
        assert (status.state, status.name) == ("missing", "embedded-small")
        assert "there is no network" in status.message
        opened.sync(folder)
        answer = opened.ask(QUESTION)
        assert (answer.abstained, answer.model) == (False, "none")
        assert "there is no network" in answer.notices[0]


@pytest.mark.usefixtures("no_real_embedder")
def test_a_fetch_that_is_interrupted_gives_the_store_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(weights, "fetch", interrupted)
    settings = Settings(data_dir=tmp_path / "data", model="embedded")
    with pytest.raises(KeyboardInterrupt):
        open_assistant(settings)
    open_assistant(settings, fetch=False).close()


@pytest.mark.usefixtures("no_real_embedder")
def test_a_model_that_cannot_be_loaded_leaves_an_assistant_that_answers(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    with open_assistant(Settings(data_dir=tmp_path / "data", model=str(tmp_path / "broken.gguf"))) as opened:
        opened.prepare()
        assert opened.model_status().state == "missing"
        assert opened.answering_model()[0] is None
        opened.sync(folder)
        assert "cannot be loaded" in opened.ask(QUESTION).notices[0]


@pytest.mark.usefixtures("no_real_embedder")
def test_prepare_fetches_and_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = tmp_path / "fetched.gguf"
    fetched.write_bytes(b"GGUF")
    monkeypatch.setattr(weights, "fetch", lambda what, folder, progress=None: fetched)
    monkeypatch.setattr(EmbeddedModel, "load", lambda self: setattr(self, "_client", object()))
    with open_assistant(Settings(data_dir=tmp_path / "data", model="embedded"), fetch=False) as opened:
        opened.prepare()
        model, _ = opened.answering_model()
        assert (opened.model_status().state, opened.model_status().message) == ("ready", "")
        assert isinstance(model, EmbeddedModel)
        assert model.name == "embedded"
    assert not model.loaded, "closing frees the model's memory"


@pytest.mark.usefixtures("no_real_embedder")
def test_any_llamaindex_model_takes_the_settings_place(tmp_path: Path) -> None:
    from llama_index.core.llms import MockLLM

    with open_assistant(Settings(data_dir=tmp_path / "data", model="embedded"), llm=MockLLM()) as opened:
        model, _ = opened.answering_model()
        assert isinstance(model, LlamaIndexModel)
        assert opened.model_status().state == "ready"


# Asking


def test_search_needs_no_model(store: Store, embedder: FakeEmbedder, folder: Path) -> None:
    model = FakeModel()
    made = make_assistant(store, embedder, model)
    made.sync(folder)
    hits = made.search(QUESTION, limit=2)
    assert len(hits) == 2
    assert hits[0].passage.source == "apollo.md"
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    follow_up = made.search("And who built it?", history=[Turn("user", "What is Apollo?")])
    assert follow_up[0].passage.source == "apollo.md"
    assert {hit.passage.source for hit in made.search(QUESTION, documents=["tea.txt"])} == {"tea.txt"}
    assert model.calls == []
    with pytest.raises(KeyError):
        made.search(QUESTION, documents=["gone"])
    with pytest.raises(InvalidQuestion):
        made.search("")


def test_ask_returns_the_streams_last_event(assistant: Assistant) -> None:
    *_, last = rag.stream(QUESTION, assistant=assistant, documents=["apollo.md"])
    answer = rag.ask(QUESTION, assistant=assistant, documents=["apollo.md"])
    assert isinstance(last, Answer)
    assert (answer.text, answer.citations, answer.evidence) == (last.text, last.citations, last.evidence)
    assert module._default is None, "an assistant that is given is the one that is asked"


def test_starters_are_about_the_documents(assistant: Assistant) -> None:
    assert assistant.starters() == ("What does “The Apollo lander” say?", "What does “Notes on tea” say?")
    for document in assistant.store.documents():
        assistant.store.remove(document.id)
    assert assistant.starters() == ()


# The default assistant


@pytest.fixture
def few_seeds(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    monkeypatch.setenv("CITEWELL_MODEL", "none")
    monkeypatch.setattr(module, "SEEDS", folder)
    return folder


@pytest.mark.usefixtures("no_real_embedder")
def test_ask_seeds_an_empty_store_once(few_seeds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    real = open_assistant

    def counted(settings: Settings | None = None, **options: Any) -> Assistant:
        made = real(settings, **options)
        opened.append(made.store.folder)
        return made

    monkeypatch.setattr(module, "open_assistant", counted)
    assert rag.ask(QUESTION).citations[0].source == "apollo.md"
    (few_seeds / "later.txt").write_text("Soyuz was built by Energia.", encoding="utf-8")
    assert isinstance(next(iter(rag.stream("Who built Soyuz?"))), Evidence)
    assert len(opened) == 1
    default = module._default
    assert default is not None
    assert [document.source for document in default.store.documents()] == ["apollo.md", "tea.txt"]
    assert default.starters() == STARTERS, "these documents are the seeds here"


@pytest.mark.usefixtures("no_real_embedder")
def test_a_store_with_documents_is_not_seeded(few_seeds: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "mine.txt").write_text("My own words about boats.", encoding="utf-8")
    with open_assistant() as opened:
        opened.sync(own)
    rag.ask("What about boats?")
    assert module._default is not None
    assert [document.source for document in module._default.store.documents()] == ["mine.txt"]


@pytest.mark.usefixtures("no_real_embedder")
def test_seeding_that_fails_can_be_tried_again(few_seeds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = FakeSentenceTransformer.embed
    monkeypatch.setattr(FakeSentenceTransformer, "embed", lambda self, texts: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        rag.ask(QUESTION)
    monkeypatch.setattr(FakeSentenceTransformer, "embed", real)
    assert caught.value is not None, "the failed attempt is still referred to, and must not hold the store"
    gc.collect()
    assert not rag.ask(QUESTION).abstained


def test_the_starters_seeds_are_there() -> None:
    assert len(list(SEEDS.glob("00*.md"))) == 4
    assert len(set(STARTERS)) == len(STARTERS) == 4


def test_a_store_that_damage_emptied_is_not_filled_with_the_seeds(tmp_path: Path, folder: Path, embedder: FakeEmbedder) -> None:
    with make_assistant(Store(tmp_path / "store", embedder.identity), embedder, None) as assistant:
        assistant.sync(folder)
    (tmp_path / "store" / "citewell.sqlite3").write_bytes(b"no database " * 500)
    with make_assistant(Store(tmp_path / "store", embedder.identity), embedder, None) as assistant:
        assert seed(assistant) is None
        assert assistant.store.documents() == []
        assert any("sync" in notice for notice in assistant.store.notices())
        assistant.sync(folder)
        assert not any("sync" in notice for notice in assistant.store.notices())
