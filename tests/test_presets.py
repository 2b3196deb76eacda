"""Every preset against a server that speaks its protocol; what models think before they reply; what servers refuse; `citewell models`."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import FakeEmbedder
from model_server import SAYS, SECRET, ModelServer, nobody, running
from pydantic import SecretStr
from typer.testing import CliRunner

from index.errors import InvalidSettings, ModelUnavailable
from index.store import Store
from rag import presets, resilient, thinking
from rag.assistant import Assistant, configured_model, fallback_model
from rag.cli import app
from rag.model import AnthropicModel, EmbeddedModel, Finished, OpenAIModel, reply
from rag.presets import PRESETS, Manners
from rag.settings import Settings
from rag.types import Answer, Usage

QUESTION = "Who built the lander Apollo?"
GATE = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Did Grumman build it? Reply yes or no."}]
OFFERED = {
    "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "stream", "stream_options", "logprobs", "top_logprobs", "system",
    "thinking", "reasoning_split", "enable_thinking", "reasoning_effort", "reasoning", "output_config",
}  # fmt: skip
"""Every field that any request may have."""


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with running() as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resilient, "WAITS", (0.02, 0.02))
    for preset in PRESETS.values():
        if preset.key:
            monkeypatch.delenv(preset.key, raising=False)


@pytest.fixture
def here(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> ModelServer:
    """All presets answer at the local server, and have keys."""
    for name, preset in PRESETS.items():
        monkeypatch.setitem(presets.PRESETS, name, replace(preset, url=server.url))  # type: ignore[arg-type]
        if preset.key:
            monkeypatch.setenv(preset.key, SECRET)
    return server


@pytest.fixture
def asked(store: Store, embedder: FakeEmbedder, folder: Path) -> Any:
    """A function from settings to the answer of the model that they name."""

    def ask(**settings: Any) -> Answer:
        chosen = Settings(data_dir=store.folder, model_seconds=5, **settings)
        model, status = configured_model(chosen)
        assistant = Assistant(chosen, store, embedder, model, status)  # type: ignore[arg-type]
        assistant.sync(folder)
        return assistant.ask(QUESTION)

    return ask


# Each preset


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_answers_with_citations(here: ModelServer, asked: Any, name: str) -> None:
    here.thinking = "fields" if PRESETS[name].manners.thinks and PRESETS[name].manners.protocol == "openai" else ""
    answer = asked(model=name)
    assert (answer.text, answer.notices) == (f"{SAYS} [1]", ())
    assert answer.model == (PRESETS[name].model or "local-model")
    assert answer.usage.prompt_tokens > 0
    gate, draft = here.asked[0], here.asked[-1]
    for path, headers, body, _ in here.asked:
        preset = PRESETS[name]
        if preset.manners.protocol == "anthropic":
            assert (path, headers["x-api-key"], headers["anthropic-version"]) == ("/v1/messages", SECRET, "2023-06-01")
            assert "Authorization" not in headers
            assert [message["role"] for message in body["messages"]] == ["user"]
            assert body["system"].startswith("You answer questions about documents.")
        else:
            assert path == "/v1/chat/completions"
            assert headers["Authorization"] == (f"Bearer {SECRET}" if preset.key else "Bearer none")
        assert set(body) <= OFFERED
        assert all(set(message) == {"role", "content"} for message in body["messages"])
        assert body["model"] == answer.model
        assert preset.manners.length in body
        assert ("temperature" in body) == (preset.manners.temperature is not None)
        assert all(body[field] == value for field, value in preset.manners.extras.items())
        assert SECRET not in json.dumps(body)
    assert draft[2]["stream"] is True
    assert ("logprobs" in gate[2]) == (PRESETS[name].manners.probabilities)
    assert gate[2][PRESETS[name].manners.length] >= PRESETS[name].manners.thinks


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(
    ("fault", "says"), [("401", "refused the key"), ("429", "asked too often"), ("500", "error 500"), ("garbage", "cannot be read")]
)
def test_a_preset_that_fails_says_how(here: ModelServer, asked: Any, name: str, fault: str, says: str) -> None:
    here.fault = fault
    answer = asked(model=name)
    assert says in answer.notices[0]
    assert SECRET not in answer.notices[0]
    assert answer.citations[0].quote == SAYS
    if fault == "401" and PRESETS[name].key:
        assert PRESETS[name].key in answer.notices[0]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(
    ("fault", "says"), [("cut", "broke off in the middle"), ("wrong type", "cannot be read"), ("huge", "far more than an answer|past the length")]
)
def test_a_preset_that_fails_while_it_writes_says_how(here: ModelServer, asked: Any, name: str, fault: str, says: str) -> None:
    here.fault, here.step = fault, "draft"
    answer = asked(model=name)
    assert re.search(says, answer.notices[0])
    assert answer.citations[0].quote == SAYS
    if fault == "cut":
        assert answer.notices[0].endswith("This answer is incomplete.")


@pytest.mark.parametrize(("code", "says"), [(1002, "asked too often"), (1004, "refused the key"), (1008, "asks for payment"), (1013, "error 500")])
@pytest.mark.parametrize("step", ["gate", "draft"])
def test_minimax_tells_errors_under_a_good_status(
    here: ModelServer, asked: Any, code: int, says: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import model_server

    wrong = {"base_resp": {"status_code": code, "status_msg": SECRET}}
    if step == "gate":
        monkeypatch.setattr(model_server._Request, "whole", lambda self, text, body: self.send(200, json.dumps({**wrong, "choices": None})))
    else:
        monkeypatch.setattr(model_server._Request, "stream", lambda self, text, body: (self.begin(), self.event(wrong)))
    answer = asked(model="minimax")
    assert says in answer.notices[0]
    assert SECRET not in answer.notices[0]
    assert answer.citations[0].quote == SAYS


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if preset.key])
def test_a_key_comes_from_its_own_variable_or_from_citewells(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSettings, match=rf"needs a key of .*Set {PRESETS[name].key} in the environment"):
        configured_model(Settings(model=name))
    model, _ = configured_model(Settings(model=name, api_key=SecretStr("sk-citewell")))
    assert "sk-citewell" in str(model._wire._headers)  # type: ignore[union-attr]
    monkeypatch.setenv(PRESETS[name].key, "sk-own")
    model, _ = configured_model(Settings(model=name.upper()))
    assert "sk-own" in str(model._wire._headers)  # type: ignore[union-attr]
    assert isinstance(model, AnthropicModel if name == "anthropic" else OpenAIModel)


def test_another_model_of_a_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", "sk")
    for settings in (Settings(model="deepseek", model_name="deepseek-v9"), Settings(model="deepseek#deepseek-v9")):
        assert configured_model(settings)[1].name == "deepseek-v9"


def test_every_preset_can_be_told_apart_and_traced() -> None:
    assert {"zai", "minimax", "qwen", "deepseek", "moonshot", "openai", "anthropic", "gemini", "openrouter", "ollama", "vllm", "lmstudio"} == set(
        PRESETS
    )
    for preset in PRESETS.values():
        assert preset.url.startswith("https://" if preset.key else "http://localhost:")
        assert not preset.url.endswith("/")
        assert not preset.key.startswith("CITEWELL_")
        assert preset.source


# The second model


def test_the_second_model_has_neither_key_nor_name_of_the_first(monkeypatch: pytest.MonkeyPatch, server: ModelServer) -> None:
    chosen = Settings(model="http://127.0.0.1:9/v1", model_name="first", api_key=SecretStr("sk-first"), fallback_model=server.url)
    second = fallback_model(chosen)
    assert isinstance(second, OpenAIModel)
    assert second.probability(GATE)[0] == pytest.approx(0.9)
    assert server.asked[0][2]["model"] == "local-model", "it was asked what it runs, and that is no model of embeddings"
    assert "sk-first" not in json.dumps(server.asked[0][1])
    server.runs, server.unloaded = "other-model", {"local-model"}
    assert second.probability(GATE)[0] == pytest.approx(0.9), "another was loaded meanwhile"
    assert second.name == "other-model"
    server.unloaded = {"local-model", "other-model"}
    with pytest.raises(ModelUnavailable, match="'other-model' is not known there"):
        second.probability(GATE)
    monkeypatch.setenv("DEEPSEEK_API_KEY", "sk-second")
    assert fallback_model(chosen.replaced(fallback_model="deepseek#other")).name == "other"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("chosen", "says"),
    [("deepseek", "DEEPSEEK_API_KEY"), ("nonsense", "is not known"), ("none", "leave it empty"), ("embedded-small", "citewell fetch")],
)
def test_a_second_model_that_cannot_work_is_told_when_it_is_set(chosen: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match=f"CITEWELL_FALLBACK_MODEL={chosen}.*{says}"):
        fallback_model(Settings(fallback_model=chosen, models_dir=tmp_path))


def test_the_doctor_looks_at_the_second_model(server: ModelServer) -> None:
    from rag.doctor import _second_model

    assert _second_model(Settings()) == []
    assert [finding.good for finding in _second_model(Settings(fallback_model=server.url))] == [True]
    (finding,) = _second_model(Settings(fallback_model="deepseek"))
    assert not finding.good
    assert "DEEPSEEK_API_KEY" in finding.text


def test_no_second_model_by_default_and_none_beside_none() -> None:
    assert fallback_model(Settings()) is None
    assert fallback_model(Settings(model="none", fallback_model="nonsense")) is None


# Thinking


@pytest.mark.parametrize(
    ("pieces", "left"),
    [
        (["<think>No.</think>", "Yes."], "Yes."),
        (["<th", "ink>No", ".</th", "ink>\n\n", "Yes", "."], "Yes."),
        ([*"<think>No.</think>Yes."], "Yes."),
        (["\n <THINKING>No</thinking> Yes."], "Yes."),
        (["<think>one</think><think>two</think>Yes."], "Yes."),
        (["<think>one</think>", "<think>two", "</think>Yes."], "Yes."),
        (["<think>never closed", " and on"], ""),
        (["<think>", "a < b, </thin", "g"], ""),
        (["Yes, <think> is a tag."], "Yes, <think> is a tag."),
        (["<the", " tag"], "<the tag"),
        (["<"], "<"),
        ([" ", "Yes"], " Yes"),
        ([], ""),
    ],
)
def test_thinking_is_taken_out_of_a_stream(pieces: Sequence[str], left: str) -> None:
    assert "".join(thinking.spoken(pieces)) == left


def test_thinking_whose_tag_stood_in_the_prompt_is_taken_out_of_the_text() -> None:
    assert thinking.without("First, Soyuz.</think>\n\nGrumman.").strip() == "Grumman."
    assert thinking.without("<think>on and on") == ""
    assert thinking.without("Grumman.") == "Grumman."


@pytest.mark.parametrize("how", ["tags", "fields", "hidden"])
def test_a_model_that_thinks_is_found_out_and_gets_room(server: ModelServer, asked: Any, how: Any) -> None:
    server.thinking = how
    answer = asked(model=server.url, model_name="thinker")
    assert (answer.text, answer.notices) == (f"{SAYS} [1]", ())
    room = [body["max_tokens"] for _, _, body, _ in server.asked]
    assert room[0] == 1
    assert all(tokens > 1000 for tokens in room[1:]), "once it is known, it has room from the beginning"


def test_a_draft_never_shows_thinking(server: ModelServer) -> None:
    server.thinking = "tags"
    model = OpenAIModel(server.url, "thinker", "", 5)
    pieces = [piece for piece in model.stream(GATE, 20) if isinstance(piece, str)]
    assert "".join(pieces).strip() == "yes"


def test_thinking_without_end_is_told(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.thinking = "fields"
    monkeypatch.setattr("rag.model.THINKING_TOKENS", 100)
    with pytest.raises(ModelUnavailable, match="thought until its length limit"):
        list(OpenAIModel(server.url, "thinker", "", 5).stream(GATE, 20))


def test_messages_without_thinking_and_their_usage(server: ModelServer) -> None:
    items = list(AnthropicModel(server.url, "claude", SECRET, 5).stream(GATE, 20))
    assert items == ["yes ", Finished(Usage(20, 3, 5))]


# What servers refuse


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        ("system", "System role not supported"),
        ("system", "Conversation roles must alternate user/assistant/user"),
        ("temperature", "Unsupported value: 'temperature' does not support 0.0 with this model."),
        ("max_tokens", "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
        ("stream_options", "Unknown field stream_options"),
        ("logprobs", "logprobs is not supported with this model"),
    ],
)
def test_what_a_server_refuses_is_left_out_once_and_for_all(server: ModelServer, refused: str, words: str) -> None:
    server.refuses = {refused: words}
    model = OpenAIModel(server.url, "strict", "", 5)
    assert model.probability(GATE)[0] in (1.0, pytest.approx(0.9))
    assert reply(model, GATE, 20)[0].strip() == "yes"
    before = len(server.asked)
    model.probability(GATE)
    reply(model, GATE, 20)
    assert len(server.asked) == before + 2
    if refused == "system":
        assert server.asked[-1][2]["messages"] == [{"role": "user", "content": f"{GATE[0]['content']}\n\n{GATE[1]['content']}"}]


def test_a_field_of_a_preset_that_another_model_refuses_is_left_out(server: ModelServer) -> None:
    server.refuses = {"reasoning_effort": "Unrecognized request argument supplied: reasoning_effort"}
    model = OpenAIModel(server.url, "older", "", 5, manners=Manners(extras={"reasoning_effort": "none"}))
    assert reply(model, GATE, 20)[0].strip() == "yes"
    assert "reasoning_effort" not in server.asked[-1][2]


def test_a_prompt_that_does_not_fit_is_told_as_such(server: ModelServer) -> None:
    server.refuses = {"model": "This model's maximum context length is 2048 tokens"}
    with pytest.raises(ModelUnavailable, match="context of 4,096 tokens"):
        reply(OpenAIModel(server.url, "small", "", 5), GATE, 20)


# On the command line


def test_models_lists_all_presets_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", SECRET)
    shown = CliRunner().invoke(app, ["models"])
    assert shown.exit_code == 0
    assert SECRET not in shown.output
    lines = {line.split()[0]: line for line in shown.output.splitlines() if line.strip()}
    assert "DEEPSEEK_API_KEY (set)" in lines["deepseek"]
    assert "OPENAI_API_KEY (not set)" in lines["openai"]
    assert "none needed" in lines["ollama"]
    assert all(name in lines for name in PRESETS)
    listed = json.loads(CliRunner().invoke(app, ["models", "--json"]).output)
    assert [one["name"] for one in listed] == list(PRESETS)
    assert listed[3]["key_set"] is True


@pytest.mark.parametrize("name", ["deepseek", "anthropic"])
def test_models_asks_one_whether_it_answers(here: ModelServer, name: str) -> None:
    tried = CliRunner().invoke(app, ["models", name])
    assert tried.exit_code == 0
    assert f"'{PRESETS[name].model}' answered “yes” in" in tried.output
    assert ("tells probabilities" in tried.output) == (name == "deepseek")
    told = json.loads(CliRunner().invoke(app, ["models", name, "--json"]).output)
    assert (told["answered"], told["probabilities"]) == (True, name == "deepseek")
    assert told["seconds"] >= 0


def test_models_says_in_one_line_why_one_does_not_answer(here: ModelServer) -> None:
    here.fault = "401"
    tried = CliRunner().invoke(app, ["models", "gemini"])
    assert tried.exit_code == 1
    assert tried.output.strip().count("\n") == 0
    assert "refused the key. Set GEMINI_API_KEY" in tried.output
    assert SECRET not in tried.output
    told = CliRunner().invoke(app, ["models", "gemini", "--json"])
    assert (told.exit_code, json.loads(told.output)["answered"]) == (1, False)


def test_a_local_server_that_does_not_run_is_called_by_its_title(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(presets.PRESETS, "vllm", replace(PRESETS["vllm"], url=nobody()))  # type: ignore[arg-type]
    tried = CliRunner().invoke(app, ["models", "vllm"])
    assert tried.exit_code == 1
    assert "The model 'vLLM' cannot be reached" in tried.output


def test_models_asks_any_address_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITEWELL_MODEL_NAME", "mine")
    tried = CliRunner().invoke(app, ["models", nobody()])
    assert tried.exit_code == 1
    assert "'mine' cannot be reached" in tried.output


# The real thing


@pytest.mark.model
def test_the_openai_protocol_against_the_real_embedded_server() -> None:
    from rag.weights import EMBEDDED, locate

    path = locate(EMBEDDED, Settings(model="none").models_dir)
    if path is None:
        pytest.skip("needs the embedded model: run `citewell fetch`")
    embedded = EmbeddedModel(path, "embedded", 120)
    try:
        model = embedded.load()
        likely, usage = model.probability(GATE)
        assert 0 < likely < 1, "it tells probabilities"
        assert usage.completion_tokens == 1
        text, usage = reply(model, [{"role": "user", "content": "Count from one to five in words."}], 30)
        assert "two" in text.lower()
        assert usage.completion_tokens > 1
        cut = list(model.stream([{"role": "user", "content": "Count from one to one hundred in words."}], 5))
        assert isinstance(cut[-1], Finished)
        assert not cut[-1].complete
        long = resilient.Resilient([model], 120)
        pieces = long.stream([{"role": "user", "content": "Tell a very long story."}], 2000)
        next(pieces)

        def read() -> None:
            with pytest.raises(resilient.Stopped):
                list(pieces)

        reading = threading.Thread(target=read, daemon=True)
        reading.start()
        time.sleep(0.3)
        long.stop()
        reading.join(2)
        assert not reading.is_alive()
        began = time.monotonic()
        model.probability(GATE)
        assert time.monotonic() - began < 20, "the server has stopped telling its story"
        wrong = OpenAIModel(f"{embedded._server.listening_address}/v1", "small", "sk-wrong", 10)
        with pytest.raises(ModelUnavailable, match="refused the key"):
            wrong.probability(GATE)
    finally:
        embedded.close()
