"""Tests of rag.server_openai and rag.readable: what OpenAI's client expects, sources in the text, nothing unverified in a stream, and errors in its shape."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest
from conftest import FakeEmbedder, FakeModel, make_assistant
from doors import QUESTION, STOPPED_SECONDS, Endless, as_json, served, timeless
from starlette.testclient import TestClient

from index.database import Database
from index.store import Store
from rag import server_openai
from rag.access import Policy
from rag.accounts import Accounts, Costs
from rag.assistant import Assistant
from rag.conversations import Conversations
from rag.model import Finished
from rag.prompt import MAX_QUESTION, Message
from rag.readable import readable, without_sources
from rag.server import create_app
from rag.server_openai import pieces
from rag.types import Citation, Turn

pytestmark = pytest.mark.usefixtures("fast_probes")

TEXT = "The lander Apollo was built by Grumman. [1]"
ASKED: list[Any] = [{"role": "user", "content": QUESTION}]


@pytest.fixture(scope="module")
def raw(lasting: Assistant) -> TestClient:
    return TestClient(create_app(lasting), base_url="http://127.0.0.1", raise_server_exceptions=False)


def client_of(address: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, http_client=httpx.Client(trust_env=False, timeout=60))


@pytest.fixture
def client(assistant: Assistant) -> Iterator[openai.OpenAI]:
    with served(assistant) as address, client_of(address) as made:
        yield made


def sent(raw: TestClient, messages: object = ASKED, **more: Any) -> Any:
    return raw.post("/v1/chat/completions", json={"model": "citewell", "messages": messages, **more})


# What the client gets


def test_the_client_gets_the_answer_with_readable_sources(client: openai.OpenAI, assistant: Assistant) -> None:
    answer = assistant.ask(QUESTION)
    got = client.chat.completions.create(model="citewell", messages=ASKED)
    (choice,) = got.choices
    assert (got.object, got.model, choice.finish_reason, choice.message.role) == ("chat.completion", "citewell", "stop", "assistant")
    assert timeless((got.model_extra or {})["citewell"]) == timeless(as_json(answer.to_dict()))
    assert choice.message.content == readable(answer, str(client.base_url).removesuffix("/v1/"))
    assert choice.message.content.startswith(f"{TEXT}\n\nSources:\n- [1] [The Apollo lander](http://127.0.0.1:")
    assert "“The lander Apollo was built by Grumman.”" in choice.message.content
    assert got.usage is not None
    assert (got.usage.prompt_tokens, got.usage.total_tokens) == (150, 150 + answer.usage.completion_tokens)


def test_the_link_in_the_sources_opens_the_document_at_the_words(assistant: Assistant) -> None:
    (citation,) = assistant.ask(QUESTION).citations
    text = readable(assistant.ask(QUESTION), "http://127.0.0.1:7860")
    assert f"(http://127.0.0.1:7860/documents/{citation.document_id}?start={citation.start}&end={citation.end})" in text


@pytest.mark.parametrize("usage", [True, False])
def test_a_stream_sends_the_verified_text_and_then_the_answer(client: openai.OpenAI, assistant: Assistant, usage: bool) -> None:
    more: dict[str, Any] = {"stream_options": {"include_usage": True}} if usage else {}
    chunks = list(client.chat.completions.create(model="citewell", messages=ASKED, stream=True, **more))
    whole = client.chat.completions.create(model="citewell", messages=ASKED)
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert (chunks[0].choices[0].delta.role, chunks[0].choices[0].delta.content) == ("assistant", "")
    talking = [chunk for chunk in chunks if chunk.choices]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in talking) == whole.choices[0].message.content
    assert len(talking) > 5, "in pieces"
    assert [chunk.choices[0].finish_reason for chunk in talking] == [*[None] * (len(talking) - 1), "stop"]
    assert timeless((talking[-1].model_extra or {})["citewell"]) == timeless(as_json(assistant.ask(QUESTION).to_dict()))
    assert chunks[-1].usage == (whole.usage if usage else None)
    assert len(chunks) - len(talking) == usage


class Slow(FakeModel):
    """Speaks for half a second."""

    def stream(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Finished]:
        for word in ["The", "lander", "Apollo", "was", "built", "by", "Grumman.", "Zebras", "painted", "it."]:
            time.sleep(0.05)
            yield f"{word} "


def test_a_stream_stays_alive_and_sends_nothing_that_is_not_verified(
    store: Store, embedder: FakeEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_openai, "ALIVE_SECONDS", 0.1)
    assistant = make_assistant(store, embedder, Slow())
    assistant.sync(folder)
    with served(assistant) as address:
        body = {"model": "citewell", "messages": ASKED, "stream": True}
        began = time.monotonic()
        with httpx.stream("POST", f"{address}/v1/chat/completions", json=body, trust_env=False, timeout=60) as response:
            came = [(line, time.monotonic() - began) for line in response.iter_lines() if line]
    lines = [line for line, _ in came]
    assert came[0][1] < came[-1][1] - 0.3, "the first chunk comes before the model has spoken"
    assert sum(line.startswith(":") for line in lines) >= 2
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith((":", "data: ")) for line in lines)
    contents = [json.loads(line[6:])["choices"][0]["delta"].get("content", "") for line in lines[:-1] if line.startswith("data: ")]
    answer = assistant.ask(QUESTION)
    assert "".join(contents) == readable(answer, address)
    spoken = next(at for line, at in came if '"content": "The' in line)
    assert spoken > 0.5, "nothing of the draft before it is whole and verified"


def test_a_refusal_is_an_answer(store: Store, embedder: FakeEmbedder, folder: Path) -> None:
    assistant = make_assistant(store, embedder, FakeModel("Nobody.", stated=0.0))
    assistant.sync(folder)
    got = sent(TestClient(create_app(assistant), base_url="http://127.0.0.1")).json()
    assert got["citewell"]["abstained"] is True
    assert got["choices"][0]["message"]["content"] == got["citewell"]["text"], "no sources below a refusal"
    assert got["choices"][0]["finish_reason"] == "stop"


def test_the_models_are_one(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["citewell"]
    assert client.models.retrieve("citewell").owned_by == "citewell"
    with pytest.raises(openai.NotFoundError, match="Ask for 'citewell'"):
        client.models.retrieve("gpt-4o")


# What is asked


def test_messages_become_question_and_history(raw: TestClient, lasting: Assistant) -> None:
    assistant = lasting
    before = assistant.ask("What is Apollo?")
    messages = [
        {"role": "system", "content": "Answer like a pirate."},
        {"role": "user", "content": [{"type": "text", "text": "What is Apollo?"}]},
        {"role": "assistant", "content": readable(before, "http://127.0.0.1")},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "42", "tool_call_id": "x"},
        {"role": "user", "content": "And who built it?"},
        {"role": "system", "content": "Be brief."},
    ]
    expected = assistant.ask("And who built it?", [Turn("user", "What is Apollo?"), Turn("assistant", before.text)])
    got = sent(raw, messages).json()["citewell"]
    assert timeless(got) == timeless(as_json(expected.to_dict()))
    assert got["standalone_question"] == "Who built Apollo?"


@pytest.mark.parametrize(
    "more",
    [
        {"temperature": 1.5, "top_p": 0.9, "frequency_penalty": 1, "seed": 7, "stop": ["\n"], "user": "somebody", "metadata": {"a": "b"}},
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "auto"},
        {"n": 1, "max_tokens": 5, "max_completion_tokens": 5, "logprobs": False, "response_format": {"type": "text"}, "modalities": ["text"]},
        {"n": None, "stream": None, "temperature": None, "stream_options": None, "tools": None, "tool_choice": "none"},
        {"chat_id": "of another program", "background_tasks": {}, "documents": ["gone.md"]},
    ],
)
def test_what_is_harmless_is_taken_and_changes_nothing(raw: TestClient, more: dict[str, Any]) -> None:
    response = sent(raw, **more)
    assert response.status_code == 200
    assert response.json()["citewell"]["text"] == TEXT


@pytest.mark.parametrize(
    ("more", "param", "says"),
    [
        ({"n": 2}, "n", "one answer"),
        ({"n": 0}, "n", "1 or more"),
        ({"n": -1}, "n", "1 or more"),
        ({"temperature": -0.1}, "temperature", "0 or more"),
        ({"temperature": 1e300}, "temperature", "2 or less"),
        ({"top_p": 2}, "top_p", "1 or less"),
        ({"max_tokens": -5}, "max_tokens", "1 or more"),
        ({"max_tokens": 10**30}, "max_tokens", "999999 or less"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "1 or more"),
        ({"tools": [{}], "tool_choice": "required"}, "tool_choice", "no tools"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice", "no tools"),
        ({"function_call": {"name": "f"}}, "function_call", "no tools"),
        ({"response_format": {"type": "json_object"}}, "response_format", "in text"),
        ({"modalities": ["text", "audio"]}, "modalities", "in text"),
        ({"logprobs": True}, "logprobs", "logprobs"),
        ({"stream": "yes please"}, "stream", "true or false"),
        ({"messages": []}, "messages", "messages"),
        ({"messages": "Who?"}, "messages", "list"),
        ({"messages": [{"role": "user", "content": "x?"}] * 1001}, "messages", "messages"),
        ({"messages": [{"role": "pirate", "content": "Who?"}]}, "messages.0.role", "user"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content", "must be text"),
        ({"messages": [{"role": "user", "content": ["Who?"]}]}, "messages.0.content", "must be text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]}]},
            "messages.0.content",
            "pictures",
        ),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages", "last message"),
        ({"messages": [*ASKED, {"role": "assistant", "content": "It was"}]}, "messages", "last message"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages", "empty"),
        ({"messages": [{"role": "user", "content": "a" * (MAX_QUESTION + 1)}]}, "messages", "Shorten it"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_given_is_a_400_in_openais_shape(raw: TestClient, more: dict[str, Any], param: str, says: str, stream: bool) -> None:
    response = raw.post("/v1/chat/completions", json={"model": "citewell", "messages": ASKED, "stream": stream, **more})
    assert response.status_code == 400
    (error,) = response.json().values()
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert says in error["message"]
    assert len(response.text) < 600


def test_the_client_understands_the_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="citewell", messages=ASKED, n=3)
    assert (bad.value.param, bad.value.code, bad.value.type) == ("n", "unsupported_value", "invalid_request_error")
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-4o", messages=ASKED)
    assert (unknown.value.param, unknown.value.code) == ("model", "model_not_found")
    with pytest.raises(openai.NotFoundError, match="no such address"):
        client.embeddings.create(model="citewell", input="x")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"model": "citewell"}', b'{"messages": []}'])
def test_bytes_that_are_no_request_are_a_400_in_openais_shape(raw: TestClient, content: bytes) -> None:
    response = raw.post("/v1/chat/completions", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert '"model": "citewell"' in response.json()["error"]["message"], "an example of what can be read"


@pytest.mark.parametrize("path", ["/v1/models", "/v1/nothing", "/v1/"])
def test_other_methods_and_addresses_are_told_in_openais_shape(raw: TestClient, path: str) -> None:
    response = raw.delete(path)
    assert response.status_code in (404, 405)
    assert response.json()["error"]["type"] == "invalid_request_error"


class Broken(FakeModel):
    def stream(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Finished]:
        yield "The "
        raise RuntimeError("secret /srv/place")


def test_a_bug_is_told_without_path_or_stack(store: Store, embedder: FakeEmbedder, folder: Path) -> None:
    broken = make_assistant(store, embedder, Broken())
    broken.sync(folder)
    with served(broken) as address, client_of(address) as client:
        with pytest.raises(openai.InternalServerError) as whole:
            client.chat.completions.create(model="citewell", messages=ASKED)
        with pytest.raises(openai.APIError) as streamed:
            list(client.chat.completions.create(model="citewell", messages=ASKED, stream=True))
    for error in (whole.value, streamed.value):
        assert "The log of the server says what" in error.message
        assert "/srv" not in str(error.body)
        assert "RuntimeError" not in str(error.body)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_who_leaves_stops_the_model(store: Store, embedder: FakeEmbedder, folder: Path, stream: bool) -> None:
    model = Endless()
    assistant = make_assistant(store, embedder, model)
    assistant.sync(folder)
    with served(assistant) as address:
        body = {"model": "citewell", "messages": ASKED, "stream": stream}
        with httpx.Client(trust_env=False, timeout=60) as client:
            if stream:
                with client.stream("POST", f"{address}/v1/chat/completions", json=body):
                    assert model.speaking.wait(5)
            else:
                with pytest.raises(httpx.ReadTimeout):
                    client.post(f"{address}/v1/chat/completions", json=body, timeout=httpx.Timeout(5, read=0.5))
                assert model.speaking.is_set()
        assert model.stopped.wait(STOPPED_SECONDS)
        assert model.spoken < 500


# What can be read


def test_what_nothing_bears_out_is_marked_and_comes_back_unmarked(assistant: Assistant) -> None:
    answer = replace(assistant.ask(QUESTION), text=f"{TEXT} It was blue.", unsupported=("It was blue.",), notices=("Slow today.",))
    text = readable(answer)
    assert "It was blue. (not supported by the documents)" in text
    assert text.endswith("\n\nSlow today.")
    assert without_sources(text) == answer.text


def test_documents_and_models_make_no_picture_or_link(assistant: Assistant) -> None:
    evil = "![x](http://evil.example/a.png) <img src=http://evil.example> [go](http://evil.example) [a]: http://evil.example `code`"
    citation = Citation(1, "d/1", f"Title ]( {evil}", "a.md", 3, 0, 5, evil)
    text = readable(replace(assistant.ask(QUESTION), text=f"{evil} [1]", citations=(citation,)), "http://127.0.0.1")
    said, _, sources = text.partition("\n\nSources:\n")
    for active in ("![", "](", "]:", "<img"):
        assert active not in said
    assert len(re.findall(r"(?<!\\)\]\(", sources)) == 1, "the one link is ours"
    assert not re.search(r"(?<!\\)!\[|(?<!\\)<|(?<!\\)`", sources)
    assert "](http://127.0.0.1/documents/d%2F1?start=0&end=5), page 3: “" in sources


@pytest.mark.parametrize("text", ["", " ", "a", TEXT, "x" * 500, "Two\n\nparagraphs  here. \n", "🛳 sails [1] [2]\t– “daily”"])
def test_pieces_join_to_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text


@pytest.mark.parametrize("public_url", ["", "https://docs.example.org"])
def test_links_lead_to_where_the_browser_is_and_not_to_how_a_proxy_asked(assistant: Assistant, database: Database, public_url: str) -> None:
    policy = Policy(False, ("*",), (ip_network("10.0.0.1"),), public_url)
    visitors: Any = SimpleNamespace(policy=policy, accounts=Accounts(database, Costs(1, 8, 1)), conversations=Conversations(database), local_key="k")
    headers = {"Authorization": "Bearer k", "X-Forwarded-Proto": "https", "Host": "docs.example.org"}
    client = TestClient(create_app(assistant, visitors), base_url="http://127.0.0.1", client=("10.0.0.1", 1), headers=headers)
    whole = sent(client).json()["choices"][0]["message"]["content"]
    lines = [line.removeprefix("data: ") for line in sent(client, stream=True).text.splitlines() if line.startswith("data: {")]
    streamed = "".join(choice["delta"].get("content", "") for line in lines for choice in json.loads(line)["choices"])
    assert whole == streamed
    assert "(https://docs.example.org/documents/" in whole
