"""What strangers may write into bodies, addresses and headers: known fields of the right kind and size go in, all else is a 400 that says what is wrong, and nothing
is ever a 500. To a model's server goes what a request to a model is made of, and nothing of what a caller sent beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import FakeModel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from model_server import ModelServer, running
from security_world import Direct, Reply, World, through_the_proxy

from rag.limits import BODY_BYTES
from rag.model import OpenAIModel

pytestmark = pytest.mark.usefixtures("fast_probes")

JSON = {"content-type": "application/json"}
MCP = {"accept": "application/json, text/event-stream"}
CHAT = {"model": "citewell", "messages": [{"role": "user", "content": "Who eats seeds?"}]}

NESTED = b"[" * 100_000 + b"]" * 100_000
NUMBERS = (
    "NaN",
    "Infinity",
    "-Infinity",
    "-1",
    "-0.5",
    "1e999",
    "1" + "0" * 30,
    "9" * 5_000,
    "9223372036854775808",
    "-9223372036854775809",
    "1.5",
    "true",
)
ODD = ("\0", "\ud800", "\udfff\ud800", "a\0b", "\u202e", "\x1b[2J", "%00", "../../etc/passwd", "\\\\server\\share", "\r\nSet-Cookie: a=b", "'; DROP TABLE documents; --", "{{7*7}}", "${7*7}", "a" * 100_000, "\ufffe", "𝕫" * 500)  # fmt: skip

FIELDS: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/api/ask"): {"question": "Who eats seeds?", "history": [], "documents": None, "conversation": None},
    ("POST", "/api/documents/url"): {"url": "https://127.0.0.1/"},
    ("POST", "/library/url"): {"url": "https://127.0.0.1/"},
    ("POST", "/api/conversations"): {"title": "t"},
    ("PATCH", "/api/conversations/{conversation}"): {"title": "t", "shared": False},
    ("POST", "/api/exchanges/{exchange}/feedback"): {"verdict": "right", "reason": "r"},
    ("POST", "/api/keys"): {"label": "l"},
    ("POST", "/api/password"): {"old": "o", "new": "n"},
    ("POST", "/api/sync"): {"folder": "/nowhere", "retry": False},
    ("POST", "/api/forget"): {"folder": "/nowhere"},
    ("POST", "/v1/chat/completions"): {
        **CHAT, "stream": False, "stream_options": {"include_usage": True}, "n": 1, "temperature": 1, "top_p": 1, "max_tokens": 5, "max_completion_tokens": 5, "tools": [], "tool_choice": "auto",
        "function_call": "auto", "response_format": {"type": "text"}, "modalities": ["text"], "logprobs": False, "frequency_penalty": 0, "presence_penalty": 0, "seed": 1, "top_logprobs": 0,
    },
    ("POST", "/library/remove"): {"documents": []},
    ("POST", "/library/share"): {"document": "x", "shared": False},
    ("POST", "/library/discard"): {"root": "uploads", "source": "x"},
    ("POST", "/library/retry"): {"root": "uploads", "source": "x"},
}  # fmt: skip
"""A good body for each route that takes JSON."""

QUERIES = {
    "/api/conversations": {"limit": ("-1", "0", "201", *NUMBERS[:-1]), "offset": ("-1", *NUMBERS[:-1])},
}
"""Parameters behind a question mark, and values that are refused."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, fast_probes: None) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("fields"))
    made.furnish(made.ben)
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(world: World) -> Iterator[Direct]:
    with through_the_proxy(world).running() as client:
        yield client


def address(world: World, path: str) -> str:
    return path.format(**{name: world.ben.ids[name] for name in ("conversation", "exchange")})


INSIDE = ("Traceback", 'File "', "Error(", "sqlite")
OTHERS_WORDS = ("pydantic", "errors.", "input_value")
"""What the mcp package says, and nobody else, of a message that is none of its protocol's."""


def told(reply: Reply, what: Any, insides: tuple[str, ...] = (*INSIDE, *OTHERS_WORDS)) -> Reply:
    """A reply that is no fault of the server's, and tells nothing of its inside."""
    assert reply.status < 500, (what, reply)
    for inside in insides:
        assert inside not in reply.text, (what, reply)
    return reply


def refused(reply: Reply, what: Any) -> None:
    assert told(reply, what).status == 400, (what, reply)
    assert list(reply.json) == ["error"], (what, reply)
    assert len(reply.body) < 1_500, "what was sent is not repeated"


def test_every_route_that_takes_json_is_here(world: World) -> None:
    taking = {(method, route.path) for route in world.routes if not route.gradio for method in route.methods if method in ("POST", "PUT", "PATCH")}
    others = {
        ("POST", "/login"),
        ("POST", "/logout"),
        ("POST", "/password"),
        ("POST", "/mcp"),
        ("POST", "/api/documents"),
        ("PUT", "/library/files"),
        ("POST", "/library/cancel"),
    }
    assert {one for one in taking if not one[1].startswith("/v1/{")} == set(FIELDS) | others


def test_bytes_that_are_no_body_are_a_400(world: World, client: Direct) -> None:
    bodies = (b"", b"{", b"\xff\xfe{}", b"\0", b"null", b"[]", b'"x"', b"1", b"{}{}", b"{'a': 1}", NESTED, b'{"question": ' + NESTED + b"}", b"9" * 5_000, b'{"question": ' + b"9" * 5_000 + b"}", b"{" * 50_000)  # fmt: skip
    for (method, path), good in FIELDS.items():
        for body in (*bodies, json.dumps({**good, "no such field": 1}).encode() if path.startswith("/api/") else b"{"):
            reply = client.send(method, address(world, path), {**world.ben.by_session, **JSON}, body)
            if path.startswith("/library/"):
                assert told(reply, (path, body[:50])).status == 422
            else:
                refused(reply, (path, body[:50]))


def test_fields_of_another_kind_or_size_are_a_400(world: World, client: Direct) -> None:
    free = {"tools": 1, "tool_choice": 1, "function_call": 1, "response_format": 1}
    for (method, path), good in FIELDS.items():
        if path.startswith("/library/"):
            continue
        for name in good:
            for number in NUMBERS:
                if number == "true" and name in ("shared", "retry", "stream", "n", "logprobs"):
                    continue  # that is what they are, or stands for 1
                if name in (
                    "temperature",
                    "top_p",
                    "frequency_penalty",
                    "presence_penalty",
                    "max_tokens",
                    "max_completion_tokens",
                    "seed",
                    "top_logprobs",
                ) and number in ("1.5", "true", "-1", "-0.5"):
                    continue  # looked at below, one by one
                body = json.dumps({**good, name: "@"}).replace('"@"', number).encode()
                refused(client.send(method, address(world, path), {**world.ben.by_session, **JSON}, body), (path, name, number[:20]))
            for wrong in ({"a": {"b": []}}, [[["x"]]], [None], 5):
                if name in free or (name, wrong) == ("stream_options", {"a": {"b": []}}) or isinstance(wrong, int):
                    continue
                if name == "modalities":
                    continue
                refused(client.send(method, address(world, path), {**world.ben.by_session, **JSON}, {**good, name: wrong}), (path, name, wrong))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("temperature", (-1, -0.5, 2.1)),
        ("top_p", (-0.5, 1.5)),
        ("n", (0, -1, 1.5)),
        ("max_tokens", (0, -1, 1.5, 10**9)),
        ("max_completion_tokens", (0, -1, 1.5, 10**9)),
        ("frequency_penalty", (-2.5, 2.5)),
        ("presence_penalty", (-2.5, 2.5)),
        ("seed", (1.5, 2**63, -(2**63) - 1)),
        ("top_logprobs", (-1, 21, 1.5)),
    ],
)
def test_numbers_out_of_range_are_a_400(world: World, client: Direct, name: str, values: tuple[float, ...]) -> None:
    for value in values:
        refused(client.send("POST", "/v1/chat/completions", world.ben.by_session, {**CHAT, name: value}), (name, value))


def test_queries_out_of_range_are_a_400(world: World, client: Direct) -> None:
    for path, names in QUERIES.items():
        for name, values in names.items():
            for value in values:
                refused(client.send("GET", f"{path}?{name}={value}", world.ben.by_session), (path, name, value[:30]))


def test_odd_text_is_taken_or_refused_and_breaks_nothing(world: World, client: Direct) -> None:
    who = {**world.ben.by_session, **JSON}
    for odd in ODD:
        for (method, path), good in FIELDS.items():
            for name, value in good.items():
                for wrong in (odd, [odd], {odd: odd}):
                    told(client.send(method, address(world, path), who, {**good, name: wrong}), (path, name, odd[:20]))
                if isinstance(value, list):
                    for wrong in ([{"role": "user", "text": odd}], [{"role": "user", "content": odd}], [{"role": odd}], [{"type": odd}]):
                        told(client.send(method, address(world, path), who, {**good, name: wrong}), (path, name, odd[:20]))
        world.forget_what_is_new(world.ben)


def test_odd_addresses_break_nothing(world: World, client: Direct) -> None:
    values = (
        "%00",
        "%ff%fe",
        "%ed%a0%80",
        "..%2f..%2fetc%2fpasswd",
        "%5c..%5c",
        "a" * 60_000,
        "9" * 5_000,
        "-1",
        "NaN",
        "%0d%0aSet-Cookie:%20a=b",
        "{x}",
        "%25%30",
        "%F0%9D%95%AB",
    )
    shared = next(info.id for info in world.store.documents() if info.owner is None)
    names = ("start", "end", "page", "limit", "offset", "q", "words", "kind", "status", "order", "format", "view", "fragment", "name", "next")
    for route in world.routes:
        if route.gradio or route.path == "/logout":
            continue
        for method in route.methods:
            for value in values:
                for where in {
                    route.at(**dict.fromkeys(route.parameters, value)),
                    route.at(document_id=shared, page=value),
                    f"{route.at(document_id=shared)}?{'&'.join(f'{name}={value}' for name in names)}&view=page",
                }:
                    reply = told(client.send(method, where, {**world.ben.by_session, "x-citewell": "1"}), (method, where[:80]))
                    assert "set-cookie" not in dict(reply.headers) or "a=b" not in reply.all("set-cookie"), where


ANY = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(some.characters(), max_size=20),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@given(data=some.data())
@settings(max_examples=400, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_at_all_breaks_anything(world: World, client: Direct, data: some.DataObject) -> None:
    (method, path), good = data.draw(some.sampled_from(sorted(FIELDS.items(), key=repr)))
    changed = data.draw(some.dictionaries(some.sampled_from([*good, "extra"]), ANY, min_size=1, max_size=3))
    body = json.dumps({**good, **changed}).encode()
    reply = told(client.send(method, address(world, path), {**world.ben.by_session, **JSON}, body, patience=20), (path, body))
    if "extra" in changed and path.startswith("/api/"):
        assert reply.status == 400


def test_mcp_refuses_what_it_does_not_know_in_its_own_words(world: World, client: Direct) -> None:
    def call(tool: Any, arguments: Any) -> Reply:
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
        return told(client.send("POST", "/mcp", {**world.ben.by_session, **MCP}, body), (tool, arguments))

    good: dict[str, dict[str, Any]] = {
        "ask": {"question": "Who eats seeds?"},
        "search": {"query": "seeds", "limit": 5},
        "read_span": {"document_id": world.ben.ids["document"], "start": 0, "end": 5},
    }
    for tool, arguments in good.items():
        assert '"isError":false' in call(tool, arguments).text.replace(" ", "")
        for more in ({"extra": 1}, {"model": "x"}, {"temperature": 2}, {"api_key": "x"}):
            assert "is not known" in call(tool, {**arguments, **more}).text
        for name in arguments:
            for wrong in (None, -1, 10**30, 2**63, 1.5, float("nan"), "\ud800", [], {}, "a" * 100_000):
                reply = call(tool, {**arguments, name: wrong})
                assert "isError" in reply.text or reply.status == 400, (tool, name, reply)
                assert not (isinstance(wrong, int | float) and '"isError":false' in reply.text.replace(" ", "")), (tool, name, wrong)
    for body in (
        b"",
        b"{",
        b"[]",
        b"null",
        NESTED,
        b"9" * 5_000,
        b'{"jsonrpc": "2.0"}',
        b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": ' + NESTED + b"}",
    ):
        reply = told(client.send("POST", "/mcp", {**world.ben.by_session, **MCP, **JSON}, body), body[:50], INSIDE)
        assert reply.status == 400, (body[:50], reply)


def test_a_body_of_a_byte_too_many_is_a_413_however_it_comes(world: World, client: Direct) -> None:
    for (method, path), good in FIELDS.items():
        much = json.dumps({**good, "x": ""}).encode()
        much = much[:-2] + b"a" * (BODY_BYTES + 1 - len(much)) + much[-2:]
        assert len(much) == BODY_BYTES + 1
        pieces = [much[start : start + 1_000_000] for start in range(0, len(much), 1_000_000)]
        for body in (much, pieces):
            reply = told(client.send(method, address(world, path), {**world.ben.by_session, **JSON}, body), path)
            assert reply.status == 413, (path, reply.text[:200])
    for declared in ("-1", "1e9", "99999999999999999999", "０", "1, 2"):
        reply = told(
            client.send("POST", "/api/ask", {**world.ben.by_session, **JSON, "content-length": declared.encode().decode("latin-1")}, [b"{}"]),
            declared,
        )
        assert reply.status in (400, 413)


def test_only_known_fields_reach_the_model(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A server that notes what it is sent: the same words and the same fields, whatever came along with the question."""
    extra = {"extra": "stowaway", "tools": [{"type": "function", "function": {"name": "stowaway"}}], "user": "stowaway", "metadata": {"stowaway": 1}, "stop": ["stowaway"], "seed": 7, "logit_bias": {"50256": -100}, "temperature": 1.9, "top_p": 0.1, "max_tokens": 999_999, "frequency_penalty": 2, "service_tier": "stowaway", "api_key": "stowaway", "base_url": "http://stowaway.example", "extra_body": {"stowaway": 1}, "stream_options": {"include_usage": True}}  # fmt: skip
    with running() as server:
        model = OpenAIModel(server.url, "tiny", "its-key", 20)
        world = World(tmp_path_factory.mktemp("stowaways"), model)
        try:
            with through_the_proxy(world).running() as client:
                plain = _sent(server, client, world, CHAT)
                assert plain
                messages = [
                    {"role": "system", "content": "stowaway", "name": "stowaway"},
                    {**CHAT["messages"][0], "name": "stowaway", "tool_calls": [{"id": "stowaway"}]},
                ]  # type: ignore[index]
                for body in ({**CHAT, **extra}, {**CHAT, **extra, "stream": True}, {**CHAT, "messages": messages}):
                    assert _sent(server, client, world, body) == plain
        finally:
            world.close()


def _sent(server: ModelServer, client: Direct, world: World, body: dict[str, Any]) -> list[dict[str, Any]]:
    """What the model's server is sent for one request."""
    server.asked.clear()
    headers = {**world.ben.by_session, "x-stowaway": "stowaway", "openai-organization": "stowaway", "user-agent": "stowaway"}
    assert client.send("POST", "/v1/chat/completions", headers, body).status == 200
    for _, said, sent, _ in server.asked:
        assert "stowaway" not in json.dumps([said, sent])
        assert said.get("Authorization") == "Bearer its-key"
        assert set(sent) <= {"model", "messages", "max_tokens", "temperature", "stream", "stream_options", "logprobs", "top_logprobs"}
    return [sent for _, _, sent, _ in server.asked]


def test_the_fake_model_is_asked_at_all(world: World, client: Direct) -> None:
    assert isinstance(world.model, FakeModel)
    world.model.calls.clear()
    assert client.send("POST", "/v1/chat/completions", world.ben.by_session, CHAT).status == 200
    assert world.model.calls
