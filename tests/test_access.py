"""Tests of rag.access, rag.login and rag.server_people: who is let in, who is not, and that a stranger gets to read nothing."""

from __future__ import annotations

import asyncio
import html
import re
import subprocess
import threading
import time
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from anyio import to_thread
from fastapi import FastAPI, Request
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from index.database import Database
from index.errors import InvalidAccount, InvalidSettings, NotAllowed, TooManyTries
from index.people import open_people
from rag.access import COOKIE, Policy, SignedIn, decide, is_loopback, protect, safe_path
from rag.accounts import LOCAL, MOST_KEYS, Accounts, Costs, User
from rag.assistant import Assistant
from rag.conversations import Conversations
from rag.login import FORM_COOKIE, login_routes
from rag.server_people import routes
from rag.service import Service
from rag.settings import Settings

RIGHT = "four words apart"
PAGE = {"Accept": "text/html"}
QUESTION = "Who built the lander Apollo?"


@pytest.fixture
def accounts(database: Database) -> Accounts:
    made = Accounts(database, Costs(1, 8, 1))
    made.add("ann", RIGHT)
    made.add("ben", RIGHT)
    return made


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return cert, key


# Deciding


def never() -> Accounts:
    raise AssertionError("accounts are not asked for")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_loopback_is_open_for_one_user(host: str) -> None:
    assert decide(Settings(host=host), never).open
    assert decide(Settings(host=host, public_url="http://localhost:7860"), never).open


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_any_other_address_without_https_refuses_to_start(host: str, accounts: Accounts) -> None:
    with pytest.raises(InvalidSettings, match=r"in the clear.*CITEWELL_TLS_CERT.*CITEWELL_TRUSTED_PROXIES"):
        decide(Settings(host=host), lambda: accounts)


@pytest.mark.parametrize(
    "settings",
    [
        {"host": "0.0.0.0", "trusted_proxies": ["10.0.0.1"]},
        {"trusted_proxies": ["127.0.0.1"]},
        {"public_url": "https://docs.example.org", "trusted_proxies": "127.0.0.1"},
    ],
)
def test_a_proxy_or_a_public_name_demands_accounts_on_loopback_too(settings: dict[str, Any], tmp_path: Path, accounts: Accounts) -> None:
    nobody = Accounts(open_people(tmp_path / "empty"), Costs(1, 8, 1))
    with pytest.raises(InvalidSettings, match=r"no account yet.*citewell users add NAME --admin"):
        decide(Settings(**settings), lambda: nobody)
    nobody.add("ann", RIGHT)
    nobody.disable("ann")
    with pytest.raises(InvalidSettings, match="no account yet"):
        decide(Settings(**settings), lambda: nobody)
    nobody._database.close()
    assert not decide(Settings(**settings), lambda: accounts).open


def test_a_container_may_ask_itself_whether_it_is_ready() -> None:
    """As the health check in docs/deploy/Containerfile does, beside a proxy of another address."""
    text = (Path(__file__).resolve().parent.parent / "docs" / "deploy" / "Containerfile").read_text(encoding="utf-8")
    (check,) = (line for line in text.splitlines() if line.startswith("HEALTHCHECK"))
    assert "http://127.0.0.1:7860/readyz" in check
    assert "header" not in check.lower(), "what a proxy would say is believed of a trusted proxy alone"
    own: dict[str, Any] = {"type": "http", "scheme": "http", "client": ("127.0.0.1", 50_000), "path": "/readyz", "headers": []}
    for proxy in ("10.89.7.3", "127.0.0.1"):
        assert not Policy(False, ("*",), (ip_network(proxy),)).in_the_clear(own)


def test_a_certificate_is_looked_at_before_anything_is_served(certificate: tuple[Path, Path], accounts: Accounts, tmp_path: Path) -> None:
    cert, key = certificate
    policy = decide(Settings(host="0.0.0.0", tls_cert=cert, tls_key=key), lambda: accounts)
    assert (policy.open, policy.hosts) == (False, ("*",))
    named = decide(Settings(host="0.0.0.0", tls_cert=cert, tls_key=key, public_url="https://docs.example.org/"), lambda: accounts)
    assert "docs.example.org" in named.hosts
    assert "0.0.0.0" not in named.hosts
    assert decide(Settings(tls_cert=cert, tls_key=key), never).open
    with pytest.raises(InvalidSettings, match="belong together"):
        decide(Settings(host="0.0.0.0", tls_cert=cert), lambda: accounts)
    other = tmp_path / "other.pem"
    for content in ("no certificate", key.read_text()):
        other.write_text(content)
        with pytest.raises(InvalidSettings, match="cannot be used"):
            decide(Settings(host="0.0.0.0", tls_cert=other, tls_key=key), lambda: accounts)
    with pytest.raises(InvalidSettings, match="No such file"):
        decide(Settings(host="0.0.0.0", tls_cert=tmp_path / "none.pem", tls_key=key), lambda: accounts)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("trusted_proxies", "proxy.local"), ("trusted_proxies", "0.0.0.0/0"), ("trusted_proxies", "::/0"), ("public_url", "docs.example.org"), ("public_url", "https://x/y")],
)  # fmt: skip
def test_settings_that_cannot_work_are_said(setting: str, value: str) -> None:
    with pytest.raises(InvalidSettings, match=f"'{setting}' cannot be used: it must"):
        Settings(**{setting: value})


def test_loopback_names() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "::1", "[::1]", "LOCALHOST")))
    assert not any(map(is_loopback, ("", "localhost.example.org", "127.0.0.1.example.org", "10.0.0.1")))


# Requests


def service_for(policy: Policy, accounts: Accounts | None, assistant: Assistant, conversations: Conversations) -> Service:
    visitors: Any = SimpleNamespace(policy=policy, accounts=accounts, conversations=conversations)
    return Service(assistant, visitors)


def app_for(policy: Policy, accounts: Accounts | None, assistant: Assistant, conversations: Conversations, local_key: str = "") -> FastAPI:
    """An application with our doors, some page and some program's route, all behind SignedIn."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(routes(service_for(policy, accounts, assistant, conversations)))
    app.router.routes.extend(login_routes(policy, accounts))

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    def anything(request: Request, path: str) -> dict[str, Any]:
        return {"user": getattr(request.state.user, "name", None), "address": request.state.address}

    app.add_middleware(SignedIn, policy=policy, accounts=accounts, local_key=local_key)
    return app


@pytest.fixture
def guarded(accounts: Accounts, database: Database, assistant: Assistant) -> TestClient:
    """A client of a Citewell that demands accounts, reached by https."""
    app = app_for(Policy(False, ("*",)), accounts, assistant, Conversations(database))
    return TestClient(app, base_url="https://docs.example.org", follow_redirects=False, client=("198.51.100.7", 1))


def signed_in(client: TestClient, name: str = "ann", password: str = RIGHT, back: str = "/") -> Any:
    token = re.search(r'name="token" value="([^"]+)"', client.get("/login", params={"next": back}, headers=PAGE).text)
    assert token
    return client.post("/login", data={"token": token[1], "name": name, "password": password, "next": back})


def test_a_stranger_gets_to_the_login_page_and_nowhere_else(guarded: TestClient) -> None:
    for path in (
        "/",
        "/documents/x",
        "/library",
        "/library/list",
        "/assets/app.js",
        "/login/",
        "/login2",
        "/LOGIN",
        "//login",
        "/healthz/x",
        "/nothing",
    ):
        response = guarded.get(path, headers=PAGE)
        assert (response.status_code, response.headers["location"].partition("?")[0]) == (303, "/login"), path
        assert guarded.get(path).status_code == 401, "what is no page is told by its status"
    for path in ("/api/ask", "/api/documents", "/api", "/v1/chat/completions", "/mcp", "/api/conversations", "/api/me"):
        for response in (guarded.get(path, headers=PAGE), guarded.post(path, json={})):
            assert response.status_code == 401, path
            assert response.headers["www-authenticate"] == "Bearer"
            assert "citewell keys create" in str(response.json()["error"])
    assert guarded.post("/logout").status_code == 401
    for path in ("/healthz", "/readyz"):
        assert guarded.get(path).json() == {"user": None, "address": "198.51.100.7"}
    with pytest.raises(WebSocketDisconnect) as closed, guarded.websocket_connect("/queue"):
        pass
    assert closed.value.code == 1008


def test_signing_in_and_out(guarded: TestClient) -> None:
    response = guarded.get("/documents/x?start=1&end=2", headers=PAGE)
    assert response.headers["location"] == "/login?next=%2Fdocuments%2Fx%3Fstart%3D1%26end%3D2"
    done = signed_in(guarded, back="/documents/x?start=1&end=2")
    assert (done.status_code, done.headers["location"]) == (303, "/documents/x?start=1&end=2")
    (cookie,) = [value for value in done.headers.get_list("set-cookie") if value.startswith(f"{COOKIE}=")]
    assert {"HttpOnly", "Secure", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
    assert guarded.get("/x").json()["user"] == "ann"
    assert guarded.get("/api/me").json() == {"name": "ann", "role": "member", "local": False}
    assert guarded.get("/login", headers=PAGE).headers["location"] == "/"
    token = guarded.cookies[COOKIE]
    out = guarded.post("/logout")
    assert (out.status_code, out.headers["location"]) == (303, "/login")
    assert COOKIE not in guarded.cookies
    assert guarded.get("/x", headers={"Cookie": f"{COOKIE}={token}"}).status_code == 401, "ended, and not only forgotten by the browser"


def test_a_password_is_changed_on_a_page_of_its_own(guarded: TestClient, accounts: Accounts) -> None:
    signed_in(guarded)
    elsewhere, new = accounts.begin_session(accounts.named("ann").id), "another long enough one"
    assert re.findall(r'name="(old|new|again)" type="password"', guarded.get("/password", headers=PAGE).text) == ["old", "new", "again"]
    for fields, status, said in (
        ({"old": "wrong", "new": new, "again": new}, 400, "The old password is wrong."),
        ({"old": RIGHT, "new": new, "again": f"{new}!"}, 400, "not typed twice the same"),
        ({"old": RIGHT, "new": "short", "again": "short"}, 400, "Password"),
        ({"old": RIGHT, "new": "x" * 20_000, "again": ""}, 413, "too large"),
        ({}, 400, "assword"),
        ({f"field{number}": "x" for number in range(30)}, 413, "too large"),
    ):
        refused = guarded.post("/password", data=fields)
        assert (refused.status_code, said.lower() in refused.text.lower()) == (status, True), refused.text
    assert accounts.by_session(elsewhere)
    before = guarded.cookies[COOKIE]
    assert "It is changed." in guarded.post("/password", data={"old": RIGHT, "new": new, "again": new}).text
    assert accounts.by_session(elsewhere) is accounts.by_session(before) is None
    assert guarded.get("/x").json()["user"] == "ann", "where it was changed, one stays signed in"
    assert guarded.post("/password", data={"old": new, "new": RIGHT, "again": RIGHT}, headers={"Origin": "https://evil.example"}).status_code == 403
    guarded.post("/logout")
    assert guarded.post("/password", data={"old": new, "new": RIGHT, "again": RIGHT}).status_code == 401
    key = {"Authorization": f"Bearer {accounts.create_key('ann')}"}
    assert "not with a key" in guarded.post("/password", data={"old": new, "new": RIGHT, "again": RIGHT}, headers=key).text
    assert signed_in(guarded, password=RIGHT).status_code == 401
    assert signed_in(guarded, password=new).status_code == 303


def test_the_machines_own_key_has_no_keys_of_its_own(accounts: Accounts, database: Database, assistant: Assistant) -> None:
    app = app_for(Policy(False, ("*",)), accounts, assistant, Conversations(database), "the machine's")
    client = TestClient(app, base_url="https://docs.example.org", headers={"Authorization": "Bearer the machine's"})
    for refused in (client.get("/api/keys"), client.post("/api/keys", json={}), client.delete("/api/keys/x")):
        assert (refused.status_code, "belongs to no account" in refused.text) == (404, True)


def test_a_proxy_may_look_whether_the_server_is_there(accounts: Accounts, database: Database, assistant: Assistant) -> None:
    policy = Policy(False, ("*",), (ip_network("198.51.100.7"),))
    client = TestClient(app_for(policy, accounts, assistant, Conversations(database)), base_url="http://10.0.0.2", client=("198.51.100.7", 1))
    assert [client.get(path).status_code for path in ("/healthz", "/readyz", "/login", "/healthz/", "/")] == [200, 200, 403, 403, 403]
    stranger = TestClient(client.app, base_url="http://10.0.0.2", client=("203.0.113.9", 1))
    assert stranger.get("/healthz").status_code == 403


def test_a_new_session_takes_the_place_of_the_one_before(guarded: TestClient, accounts: Accounts) -> None:
    planted = accounts.begin_session(accounts.named("ben").id)
    page = guarded.get("/login", headers=PAGE)
    token = re.search(r'name="token" value="([^"]+)"', page.text)
    assert token
    guarded.cookies.set(COOKIE, planted, domain="docs.example.org")
    guarded.post("/login", data={"token": token[1], "name": "ann", "password": RIGHT})
    assert accounts.by_session(planted) is None


def test_what_is_wrong_is_said_on_the_page_and_the_eleventh_try_waits(guarded: TestClient) -> None:
    for _ in range(10):
        refused = signed_in(guarded, "<b>ann</b>", "wrong")
        assert refused.status_code == 401
        assert "The name or the password is wrong." in refused.text
        assert "<b>" not in refused.text
        assert html.escape("<b>ann</b>") in refused.text
    slowed = signed_in(guarded, "ann", RIGHT)
    assert (slowed.status_code, slowed.headers["retry-after"].isdecimal()) == (429, True)
    assert "Wait" in slowed.text
    assert COOKIE not in guarded.cookies


def test_a_form_from_elsewhere_signs_nobody_in(guarded: TestClient) -> None:
    good = {"name": "ann", "password": RIGHT}
    assert guarded.post("/login", data=good).status_code == 403
    guarded.get("/login", headers=PAGE)
    assert guarded.post("/login", data={**good, "token": "made up"}).status_code == 403
    token = guarded.cookies[FORM_COOKIE]
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
        assert guarded.post("/login", data={**good, "token": token}, headers=headers).status_code == 403
    assert guarded.post("/login", content=b"x" * 20_000).status_code == 413
    assert guarded.post("/login", content=b"\xff=&&&;;%%%").status_code == 403
    assert COOKIE not in guarded.cookies
    assert (
        guarded.post(
            "/login", data={**good, "token": token}, headers={"Origin": "https://docs.example.org", "Sec-Fetch-Site": "same-origin"}
        ).status_code
        == 303
    )


def test_pages_of_other_sites_change_nothing_in_a_users_name(guarded: TestClient) -> None:
    signed_in(guarded)
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {"Origin": "http://docs.example.org"}):
        assert guarded.post("/api/ask", headers=headers).status_code == 403
    assert guarded.post("/api/ask", headers={"Origin": "https://docs.example.org"}).json()["user"] == "ann"
    assert guarded.post("/api/ask").json()["user"] == "ann"
    with pytest.raises(WebSocketDisconnect) as closed, guarded.websocket_connect("/queue", headers={"Origin": "https://evil.example"}):
        pass
    assert closed.value.code == 1008


def test_the_login_page_needs_nothing_from_elsewhere(guarded: TestClient) -> None:
    page = guarded.get("/login", headers=PAGE)
    assert not re.search(r"(?:src|href|url\()\s*=?\s*[\"']?(?:https?:)?//", page.text)
    assert "<script" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("wanted", "path"),
    [
        ("/documents/x?start=1", "/documents/x?start=1"),
        *[(evil, "/") for evil in ("", "x", "//evil.example", "/\\evil.example", "https://evil.example", "/x\r\nSet-Cookie: a", "/a\\b", "javascript:x", "/login?next=/", "/logout")],
    ],
)  # fmt: skip
def test_one_is_led_back_to_this_server_alone(wanted: str, path: str) -> None:
    assert safe_path(wanted) == path


def test_a_key_lets_a_program_in_until_it_is_revoked(guarded: TestClient, accounts: Accounts) -> None:
    key = accounts.create_key("ben")
    bearer = {"Authorization": f"Bearer {key}"}
    assert guarded.post("/api/ask", headers=bearer).json()["user"] == "ben"
    signed_in(guarded)
    assert guarded.get("/api/me", headers=bearer).json()["name"] == "ben"
    for wrong in ("Bearer cw_wrong", "Bearer", "", f"Basic {key}", key):
        assert guarded.get("/api/me", headers={"Authorization": wrong}).status_code == 401, "a wrong key is not made good by a session"
    accounts.revoke_key(key)
    assert guarded.post("/api/ask", headers=bearer).status_code == 401


def test_a_user_who_is_disabled_is_out_with_the_next_request(guarded: TestClient, accounts: Accounts) -> None:
    signed_in(guarded)
    assert guarded.get("/api/me").status_code == 200
    accounts.disable("ann")
    assert guarded.get("/api/me").status_code == 401


def test_passwords_do_not_travel_in_the_clear(accounts: Accounts, database: Database, assistant: Assistant) -> None:
    app = app_for(Policy(False, ("*",)), accounts, assistant, Conversations(database))
    outside = TestClient(app, base_url="http://docs.example.org", client=("198.51.100.7", 1))
    for path in ("/login", "/", "/healthz"):
        assert outside.get(path).status_code == 403
    spoofed = outside.get("/login", headers={"X-Forwarded-Proto": "https", "X-Forwarded-For": "127.0.0.1"})
    assert spoofed.status_code == 403
    beside = TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 1))
    assert beside.get("/healthz").status_code == 200
    assert beside.get("/api/me").status_code == 401


def test_what_is_asked_for_in_vain_is_counted_too(accounts: Accounts, database: Database, assistant: Assistant) -> None:
    app = FastAPI()
    policy = Policy(False, ("*",))
    app.include_router(routes(service_for(policy, accounts, assistant, Conversations(database))))
    protect(app, Settings(requests_per_minute=3), policy, accounts)
    stranger = TestClient(app, base_url="https://docs.example.org", client=("198.51.100.7", 1))
    assert [stranger.get("/api/me", headers={"Authorization": "Bearer cw_guess"}).status_code for _ in range(5)] == [401, 401, 401, 429, 429]
    strangers = (TestClient(app, base_url="https://docs.example.org", client=(f"2001:db8::{number:x}", 1)) for number in range(5))
    assert [one.get("/api/me").status_code for one in strangers] == [401, 401, 401, 429, 429], "what of IPv6 everybody has the whole of is one"
    anns = {"Authorization": f"Bearer {accounts.create_key('ann')}"}
    told = [stranger.get("/api/me", headers=anns) for _ in range(4)]
    assert [response.status_code for response in told] == [200, 200, 200, 429], "a user has a count of their own"
    assert told[-1].headers["retry-after"] == "20"


def test_a_request_is_answered_by_its_users_assistant(accounts: Accounts, database: Database, assistant: Assistant) -> None:
    service = service_for(Policy(False, ("*",)), accounts, assistant, Conversations(database))
    ann = User("id-of-ann", "ann")
    assistant.store.set_owner(assistant.store.documents()[0].id, "somebody")
    assert len(service.own({"state": {"user": ann}}).store.documents()) == 1
    for scope in ({}, {"state": {}}, {"state": {"user": None}}, {"state": {"user": "ann"}}):
        with pytest.raises(NotAllowed):
            service.own(scope)


def test_who_makes_all_threads_wait_keeps_nobody_else_out(accounts: Accounts) -> None:
    policy, released = Policy(False, ("*",)), threading.Event()
    app = FastAPI()

    @app.get("/slow")
    def slow() -> None:
        assert released.wait(60)

    @app.get("/v1/models")
    async def quick() -> str:
        return "here"

    app.router.routes.extend(login_routes(policy, accounts))
    app.add_middleware(SignedIn, policy=policy, accounts=accounts)
    anns, bens = ({"Authorization": f"Bearer {accounts.create_key(name)}"} for name in ("ann", "ben"))

    async def hurried() -> tuple[int, int]:
        transport = httpx.ASGITransport(app, client=("198.51.100.7", 1))
        async with httpx.AsyncClient(transport=transport, base_url="https://docs.example.org") as client:
            slow = [asyncio.create_task(client.get("/slow", headers=anns)) for _ in range(45)]
            try:
                threads = to_thread.current_default_thread_limiter()
                while threads.available_tokens:
                    await asyncio.sleep(0)
                model = await asyncio.wait_for(client.get("/v1/models", headers=bens), 10)
                page = await client.get("/login")
                token = re.search(r'name="token" value="([^"]+)"', page.text)
                assert token
                form = {"token": token[1], "name": "ben", "password": RIGHT}
                entered = await asyncio.wait_for(client.post("/login", data=form), 10)
                left = await asyncio.wait_for(client.post("/logout"), 10)
            finally:
                released.set()
            assert {answer.status_code for answer in await asyncio.gather(*slow)} == {200}
            return model.status_code, entered.status_code + left.status_code

    assert asyncio.run(hurried()) == (200, 606)


def test_a_user_changes_their_own_password(guarded: TestClient, accounts: Accounts) -> None:
    new = "four other words apart"
    other, key = accounts.begin_session(accounts.named("ann").id), accounts.create_key("ann")
    signed_in(guarded)
    asked = {"old": RIGHT, "new": new}
    for headers in ({"Authorization": f"Bearer {key}"}, {"Authorization": f"Bearer {accounts.create_key('ben')}"}):
        with pytest.raises(NotAllowed, match="not with a key"):
            guarded.post("/api/password", json=asked, headers=headers)
    weak = guarded.post("/api/password", json={**asked, "new": "short"})
    assert (weak.status_code, "too short" in weak.text) == (400, True)
    for _ in range(10):
        with pytest.raises(NotAllowed, match="The old password is wrong"):
            guarded.post("/api/password", json={**asked, "old": "wrong"})
    with pytest.raises(TooManyTries):
        guarded.post("/api/password", json=asked)
    assert accounts.by_session(other) is not None
    accounts._clock = lambda: time.time() + 60
    assert guarded.post("/api/password", json=asked).status_code == 204
    assert guarded.get("/api/me").json()["name"] == "ann", "this session goes on"
    assert accounts.by_session(other) is None
    assert accounts.by_key(key) is not None
    with pytest.raises(InvalidAccount):
        accounts.sign_in("ann", RIGHT, "203.0.113.9")
    assert accounts.sign_in("ann", new, "203.0.113.9")
    assert accounts.sign_in("ben", RIGHT, "203.0.113.9")


# Proxies


def test_only_a_trusted_proxy_is_believed(accounts: Accounts, database: Database, assistant: Assistant) -> None:
    policy = decide(Settings(host="0.0.0.0", trusted_proxies=["10.0.0.1", "10.9.0.0/16", "fd00::/8"]), lambda: accounts)
    app = app_for(policy, accounts, assistant, Conversations(database))

    def address(peer: str, forwarded: str, proto: str = "https") -> Any:
        client = TestClient(app, base_url="http://docs.example.org", client=(peer, 1))
        response = client.get("/healthz", headers={"X-Forwarded-For": forwarded, "X-Forwarded-Proto": proto})
        return response.json().get("address", response.status_code)

    assert address("10.0.0.1", "198.51.100.7") == "198.51.100.7"
    assert address("10.0.0.1", "1.2.3.4, 198.51.100.7") == "198.51.100.7", "what stands further left, anybody could have written"
    assert address("10.0.0.1", "198.51.100.7, 10.9.3.4") == "198.51.100.7"
    assert address("10.0.0.1", "198.51.100.7:4711") == "198.51.100.7"
    assert address("fd00::1", "[2001:db8::7]:4711, fd00::2") == "2001:db8::7"
    assert address("10.0.0.1", "127.0.0.1, nonsense") == "10.0.0.1"
    assert address("10.0.0.1", "") == "10.0.0.1"
    assert address("::ffff:10.0.0.1", "198.51.100.7") == "198.51.100.7"
    assert address("10.0.0.2", "198.51.100.7") == 403, "not the proxy, and in the clear"
    secure = TestClient(app, base_url="http://docs.example.org", client=("10.0.0.1", 1), headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in secure.get("/login").headers["set-cookie"]
    ours = {"Origin": "https://docs.example.org"}
    assert secure.post("/api/ask", headers=ours).status_code == 401
    assert secure.post("/api/ask", headers={"Origin": "https://evil.example"}).status_code == 403


@pytest.mark.parametrize("public_url", ["", "https://docs.example.org"])
@pytest.mark.parametrize("proxy", ["10.0.0.1", "127.0.0.1"])
def test_a_proxy_that_was_asked_by_plain_http_gets_nobody_in(
    accounts: Accounts, database: Database, assistant: Assistant, public_url: str, proxy: str
) -> None:
    policy = decide(Settings(host="0.0.0.0", trusted_proxies=["10.0.0.1", "127.0.0.1"], public_url=public_url), lambda: accounts)
    app = app_for(policy, accounts, assistant, Conversations(database))
    client = TestClient(app, base_url="http://docs.example.org", client=(proxy, 1))
    plain = {"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "http"}
    for response in (client.get("/login", headers=plain), client.post("/login", headers=plain), client.get("/api/me", headers=plain)):
        assert response.status_code == 403
        assert "X-Forwarded-Proto" in response.json()["error"]
        assert "set-cookie" not in response.headers
    unsaid = client.get("/login", headers={"X-Forwarded-For": "198.51.100.7"})
    assert unsaid.status_code == (200 if public_url else 403), "a proxy that does not say so is believed where the public address is https"
    if public_url:
        assert "Secure" in unsaid.headers["set-cookie"]
    itself = client.get("/login")
    assert itself.status_code == (200 if public_url or proxy == "127.0.0.1" else 403), "programs of this machine come without a proxy"
    if itself.status_code == 200:
        assert ("Secure" in itself.headers["set-cookie"]) == bool(public_url)


# Open


@pytest.fixture
def opened(database: Database, assistant: Assistant) -> TestClient:
    app = app_for(decide(Settings(), never), None, assistant, Conversations(database))
    return TestClient(app, base_url="http://127.0.0.1:7860", follow_redirects=False, client=("127.0.0.1", 1))


def test_an_open_citewell_asks_nobody_who_they_are(opened: TestClient) -> None:
    assert opened.get("/x").json()["user"] == LOCAL
    assert opened.get("/api/me").json() == {"name": LOCAL, "role": "admin", "local": True}
    assert opened.get("/login").headers["location"] == "/"
    assert opened.post("/login", data={"name": "x"}).headers["location"] == "/"
    assert opened.get("/api/keys").status_code == 404
    assert opened.post("/api/password", json={"old": "o", "new": "n"}).status_code == 404
    assert opened.post("/x", headers={"Origin": "http://127.0.0.1:7860"}).status_code == 200
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}):
        assert opened.post("/x", headers=headers).status_code == 403


@pytest.mark.parametrize("name", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP"])
def test_an_open_citewell_does_not_answer_through_a_proxy(opened: TestClient, name: str) -> None:
    response = opened.get("/x", headers={name: "198.51.100.7"})
    assert response.status_code == 403
    assert "CITEWELL_TRUSTED_PROXIES" in response.json()["error"]


# Conversations over HTTP


def test_conversations_over_http(opened: TestClient, database: Database, assistant: Assistant) -> None:
    conversations = Conversations(database)
    identifier = opened.post("/api/conversations", json={}).json()["id"]
    exchange = conversations.add(identifier, LOCAL, assistant.ask(QUESTION))
    (listed,) = opened.get("/api/conversations").json()
    assert (listed["title"], listed["own"], "owner" in listed) == (QUESTION, True, False)
    assert opened.get("/api/conversations", params={"q": "grumman"}).json()[0]["id"] == identifier
    assert opened.get("/api/conversations", params={"q": "nothing here"}).json() == []
    shown = opened.get(f"/api/conversations/{identifier}").json()
    assert shown["exchanges"][0]["citations_now"][0]["state"] == "unchanged"
    assert opened.post(f"/api/exchanges/{exchange}/feedback", json={"verdict": "wrong", "reason": "no"}).status_code == 204
    assert opened.get(f"/api/conversations/{identifier}").json()["exchanges"][0]["reason"] == "no"
    assert opened.patch(f"/api/conversations/{identifier}", json={"title": "Ä/b: <c>"}).json()["title"] == "Ä/b: <c>"
    assert opened.patch(f"/api/conversations/{identifier}", json={"title": " "}).status_code == 400
    markdown = opened.get(f"/api/conversations/{identifier}/export")
    assert markdown.headers["content-type"].startswith("text/markdown")
    assert markdown.headers["content-disposition"].startswith("attachment;")
    assert "[^1]: " in markdown.text
    assert opened.get(f"/api/conversations/{identifier}/export?format=json").json()["exchanges"][0]["question"] == QUESTION
    assert opened.get(f"/api/conversations/{identifier}/export?format=exe").status_code == 400
    assert opened.delete(f"/api/conversations/{identifier}").status_code == 204
    for path in ("", "/export"):
        assert opened.get(f"/api/conversations/{identifier}{path}").status_code == 404
    assert opened.post(f"/api/exchanges/{exchange}/feedback", json={"verdict": "wrong"}).status_code == 404


def test_conversations_and_keys_are_their_users_own_over_http(guarded: TestClient, accounts: Accounts, database: Database) -> None:
    anns, bens = ({"Authorization": f"Bearer {accounts.create_key(name)}"} for name in ("ann", "ben"))
    identifier = guarded.post("/api/conversations", json={"title": "Ann's"}, headers=anns).json()["id"]
    assert guarded.get("/api/conversations", headers=bens).json() == []
    for method, path, body in (
        ("GET", "", None),
        ("GET", "/export", None),
        ("DELETE", "", None),
        ("PATCH", "", {"title": "mine"}),
        ("PATCH", "", {"shared": True}),
    ):
        assert guarded.request(method, f"/api/conversations/{identifier}{path}", json=body, headers=bens).status_code == 404
    guarded.patch(f"/api/conversations/{identifier}", json={"shared": True}, headers=anns)
    quote = {"number": 1, "document_id": "not-bens", "title": "T", "source": "t.md", "page": None, "start": 0, "end": 2, "quote": "Hi"}
    kept, ann = Conversations(database), accounts.named("ann").id
    exchange = kept.add(identifier, ann, {"question": "Q?", "text": "Hi [1].", "citations": [quote]})
    kept.judge(exchange, ann, "wrong", "A reason.")
    shown = [guarded.get(f"/api/conversations/{identifier}", headers=whose).json()["exchanges"][0] for whose in (anns, bens)]
    assert [(one["verdict"], one["reason"], one["citations_now"][0]["state"]) for one in shown] == [
        ("wrong", "A reason.", "gone"),
        ("", "", "unavailable"),
    ]
    (seen,) = guarded.get("/api/conversations", headers=bens).json()
    assert (seen["own"], accounts.named("ann").id in str(seen)) == (False, False)
    ann, ben = ({"Cookie": f"{COOKIE}={accounts.begin_session(accounts.named(name).id)}"} for name in ("ann", "ben"))
    made = guarded.post("/api/keys", json={"label": "x"}, headers=ann).json()["key"]
    assert [key["label"] for key in guarded.get("/api/keys", headers=anns).json()] == ["", "x"]
    assert guarded.delete(f"/api/keys/{made[:11]}", headers=ben).status_code == 404
    assert guarded.delete(f"/api/keys/{made[:11]}", headers=ann).status_code == 204
    assert accounts.by_key(made) is None


def test_a_key_makes_and_revokes_no_keys(guarded: TestClient, accounts: Accounts) -> None:
    key = accounts.create_key("ann")
    session = {"Cookie": f"{COOKIE}={accounts.begin_session(accounts.named('ann').id)}"}
    for headers in ({"Authorization": f"Bearer {key}"}, {"Authorization": f"Bearer {key}", **session}):
        for method, path in (("POST", "/api/keys"), ("DELETE", f"/api/keys/{key[:11]}")):
            with pytest.raises(NotAllowed, match="signed in with a password"):
                guarded.request(method, path, json={"label": "x"} if method == "POST" else None, headers=headers)
    assert len(accounts.keys("ann")) == 1
    for _ in range(MOST_KEYS - 1):
        assert guarded.post("/api/keys", json={}, headers=session).status_code == 201
    refused = guarded.post("/api/keys", json={}, headers=session)
    assert (refused.status_code, "50 keys already" in refused.text) == (409, True)
    assert len(accounts.keys("ann")) == MOST_KEYS
    accounts.create_key("ben")
