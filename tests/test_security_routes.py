"""Every route that there is, Gradio's own among them, walked by strangers: nobody is let in anywhere but on the reviewed paths, by no spelling and no pretence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from security_world import HOST, METHODS, PASSWORD, Direct, Reply, World, through_the_proxy

from rag import access
from rag.accounts import Accounts

pytestmark = pytest.mark.usefixtures("fast_probes")

REVIEWED = {
    "/login": "the way in: a form, and nothing of what is behind it",
    "/healthz": "whether the server runs, for whoever watches over it: yes, and no word more to strangers",
    "/readyz": "whether questions can be answered: yes or no to strangers, and not why",
    "/favicon.ico": "our picture, the same for everybody; browsers ask for it before anybody has signed in",
}

ANSWERED = {
    "DELETE /api/conversations/{conversation}",
    "DELETE /api/documents/{document_id}",
    "DELETE /api/keys/{prefix}",
    "DELETE GET /mcp",
    "DELETE GET PATCH POST PUT /v1/{rest:path}",
    "GET /api/conversations",
    "GET /api/conversations/{conversation}",
    "GET /api/conversations/{conversation}/export",
    "GET /api/documents",
    "GET /api/documents/{document_id}",
    "GET /api/documents/{document_id}/text",
    "GET /api/keys",
    "GET /api/me",
    "GET /api/openapi.json",
    "GET /healthz",
    "GET /metrics",
    "GET /readyz",
    "GET /v1/models",
    "GET /v1/models/{name}",
    "GET HEAD /conversations",
    "GET HEAD /conversations/list",
    "GET HEAD /documents/{document_id:path}",
    "GET HEAD /documents/{document_id:path}/pages/{page}.png",
    "GET HEAD /library",
    "GET HEAD /library/list",
    "GET HEAD /library/work",
    "GET HEAD /login",
    "GET HEAD /password",
    "PATCH /api/conversations/{conversation}",
    "POST /api/ask",
    "POST /api/conversations",
    "POST /api/documents",
    "POST /api/documents/url",
    "POST /api/exchanges/{exchange}/feedback",
    "POST /api/forget",
    "POST /api/keys",
    "POST /api/password",
    "POST /api/sync",
    "POST /library/cancel",
    "POST /library/discard",
    "POST /library/remove",
    "POST /library/retry",
    "POST /library/share",
    "POST /library/url",
    "POST /login",
    "POST /logout",
    "POST /mcp",
    "POST /password",
    "POST /v1/chat/completions",
    "PUT /library/files",
}
"""Our own routes. Who adds one writes it here, and into tests/test_security_people.py what somebody else's ids do in it."""

GRADIOS = {
    "GET /", "HEAD /", "GET /assets/{path:path}", "GET /config", "GET /config/", "GET /favicon.ico", "GET /manifest.json", "GET /pwa_icon",
    "GET /robots.txt", "GET /static/{path:path}", "GET /theme.css", "GET /gradio_api/app_id", "GET /gradio_api/app_id/",
    "GET /gradio_api/heartbeat/{session_hash}", "GET /gradio_api/queue/data", "GET /gradio_api/startup-events",
    "POST /gradio_api/queue/join", "POST /gradio_api/run/{api_name}", "POST /gradio_api/run/{api_name}/",
}  # fmt: skip
"""Gradio's routes that somebody who is signed in gets to. The other sixty are not there for anybody; `cancel` and `reset` are for
events of one's own alone, with which tests/test_sessions.py tries them."""

WELL_KNOWN = (
    "/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect", "/api", "/api/", "/api/docs", "/v1", "/v1/", "/v1/embeddings", "/mcp/", "/mcp/sse", "/sse",
    "/gradio_api/info", "/gradio_api/info/", "/gradio_api/openapi.json", "/gradio_api/file=/etc/passwd", "/gradio_api/file=http://127.0.0.1/",
    "/gradio_api/file/etc/passwd", "/file=/etc/passwd", "/gradio_api/upload", "/gradio_api/upload_progress?upload_id=x", "/gradio_api/proxy=http://127.0.0.1/",
    "/gradio_api/mcp", "/gradio_api/mcp/", "/gradio_api/mcp/sse", "/gradio_api/mcp/http", "/gradio_api/monitoring", "/monitoring", "/monitoring/summary",
    "/config", "/theme.css", "/gradio_api/component_server", "/gradio_api/queue/status", "/gradio_api/token", "/gradio_api/user", "/gradio_api/login_check",
    "/gradio_api/deep_link", "/gradio_api/vibe-code", "/gradio_api/dev/reload", "/gradio_api/custom_component/x/client/component/index.js", "/svelte/x.js",
    "/queue/join", "/queue/data", "/run/predict", "/call/predict", "/api/predict", "/reset", "/info", "/metrics", "/metrics/", "/debug", "/status", "/server-status",
    "/.env", "/.git/config", "/.well-known/security.txt", "/.well-known/openid-configuration", "/.well-known/mcp.json", "/robots.txt", "/sitemap.xml",
    "/citewell.toml", "/people.sqlite3", "/citewell.sqlite3", "/static/../../pyproject.toml", "/static/fonts/../../../config", "/assets/../config", "/__init__.py",
    "/login/", "/logout", "/healthz/x", "/readyz/", "/favicon.ico/x",
)  # fmt: skip

TRICKS = (
    "//{0}", "/.{1}", "/./{0}", "/x/..{1}", "/login/..{1}", "/healthz/..{1}", "/login/%2e%2e{1}", "/healthz/%2e%2e/{0}", "/login%2f..{1}", "/login%2F%2e%2e{1}",
    "/login/..;{1}", "/login;{1}", "/healthz;x=1{1}", "{1}/", "{1}//", "{1}/.", "{1}%2f", "{1};x=1", "{1};/login", "{1}%00", "{1}%20", "{1}%09", "{1}%0a", "{1}%23",
    "{1}#/login", "{1}?next=/login", "{1}?/healthz", "/%2f{0}", "/{0}%3f/login", "\\{0}", "/login\\..{1}", "/%5c{0}", "/%6cogin/..{1}", "/LOGIN{1}", "/login{1}",
    "http://docs.example.org{1}", "http://127.0.0.1{1}", "*", "", "/%c0%ae%c0%ae{1}", "/login/%252e%252e{1}", "/favicon.ico{1}", "/favicon.ico/..{1}",
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, fast_probes: None) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("walked"))
    made.furnish(made.ann)
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(world: World) -> Iterator[Direct]:
    with through_the_proxy(world).running() as client:
        yield client


def addresses(world: World) -> list[str]:
    """An address of every route, with a parameter that means nothing and, where something of Ann's would fit, with that."""
    made = {route.at() for route in world.routes}
    made |= {route.at(**dict.fromkeys(route.parameters, one)) for route in world.routes if not route.gradio for one in world.ann.ids.values()}
    return sorted(made | set(WELL_KNOWN))


def kept_out(reply: Reply, what: Any) -> None:
    """A stranger got nothing: told to sign in, led to where one does, or that it is forbidden."""
    assert reply.status in (303, 400, 401, 403), (what, reply)
    if reply.status == 303:
        assert reply.all("location")[0].partition("?")[0] == "/login", what
        assert reply.body == b"", what
    elif reply.status == 400:
        assert reply.body == b"Invalid host header", what
    else:
        assert list(reply.json) == ["error"], what
    assert not reply.all("set-cookie"), what
    assert "quokka" not in reply.text, what


def test_every_route_of_ours_was_thought_of(world: World) -> None:
    ours = {f"{' '.join(route.methods)} {route.path}" for route in world.routes if not route.gradio}
    assert ours == ANSWERED
    assert sum(route.gradio for route in world.routes) > 60, "Gradio's are walked too"


def test_what_strangers_may_ask_for_is_this_and_no_more(world: World, client: Direct) -> None:
    assert frozenset(REVIEWED) == access.REVIEWED
    told = {path: client.send("GET", path) for path in REVIEWED}
    assert (told["/healthz"].json, told["/readyz"].json) == ({"status": "ok"}, {"status": "ready"})
    assert {path: reply.status for path, reply in told.items()} == dict.fromkeys(REVIEWED, 200)
    assert told["/favicon.ico"].all("content-type")[0].startswith("image/")
    for path in REVIEWED:
        for method in METHODS:
            reply = client.send(method, path)
            assert reply.status in ((200, 403) if path == "/login" else (200,) if method in ("GET", "HEAD") else (404, 405)) or reply.status in (
                404,
                405,
            ), (method, path, reply)
            said = re.sub(r'name="token" value="[^"]*"', "", reply.text)  # which is random, and can hold any word
            assert not any(word in said for word in ("quokka", "kea", str(world.store.folder), "fake")), (method, path)


def test_strangers_get_nothing_from_any_route_by_any_method(world: World, client: Direct) -> None:
    walked = 0
    for address in addresses(world):
        if address.partition("?")[0] in REVIEWED:
            continue
        for method in METHODS:
            for accept in ("", "text/html,*/*;q=0.8"):
                kept_out(client.send(method, address, {"accept": accept}), (method, address, accept))
                walked += 1
    assert walked > 2_000


def test_strangers_open_no_websocket(world: World, client: Direct) -> None:
    for address in [*addresses(world), "/queue/join", "/ws", "/login/ws"]:
        if address.partition("?")[0] not in REVIEWED:
            assert client.websocket(address) == {"type": "websocket.close", "code": 1008}, address
    # Reviewed paths speak no websocket at all, nor does any other to whoever is signed in.
    for address in (*REVIEWED, "/", "/gradio_api/queue/join", "/api/ask", "/mcp"):
        assert client.websocket(address, world.ann.by_session).get("type") != "websocket.accept", address


def test_no_spelling_of_an_address_lets_a_stranger_in(world: World, client: Direct) -> None:
    document = world.ann.ids["document"]
    wanted = (
        "/api/documents",
        f"/api/documents/{document}/text",
        f"/documents/{document}",
        "/library/list",
        "/config",
        "/",
        "/metrics",
        "/api/conversations",
    )
    for path in wanted:
        for trick in TRICKS:
            address = trick.format(path.lstrip("/"), path)
            for root in ("", "/login", "/healthz", "/x"):
                reply = client.send("GET", address, root_path=root)
                if reply.status == 200:
                    # What is left is a reviewed path, with something behind the question mark or the number sign.
                    assert address.partition("?")[0].partition("#")[0] in REVIEWED, (root, address)
                assert "quokka" not in reply.text, (root, address)
                assert "kea" not in reply.text, (root, address)
                assert b"gradio" not in reply.body.lower(), (root, address)


def pretences(world: World) -> dict[str, dict[str, str]]:
    """Headers of those who are not let in, by what is the matter with them."""
    accounts = world.accounts
    revoked, ended = accounts.create_key("ben"), accounts.begin_session(world.ben.user.id)
    accounts.revoke_key(revoked)
    accounts.end_session(ended)
    dora = accounts.add("dora", PASSWORD)
    key, before = accounts.create_key("dora"), accounts.begin_session(dora.id)
    accounts.disable("dora")
    expired = Accounts(world.visitors._database, clock=lambda: 1.0).begin_session(world.ben.user.id)
    session, good = world.ben.session, world.ben.key
    return {
        "a made-up key": {"authorization": "Bearer cw_" + "x" * 43},
        "an empty key": {"authorization": "Bearer "},
        "no kind of key": {"authorization": good},
        "another kind": {"authorization": f"Basic {good}"},
        "a password": {"authorization": "Basic YW5uOmZvdXIgd29yZHMgYXBhcnQ="},
        "a revoked key": {"authorization": f"Bearer {revoked}"},
        "the key of somebody disabled": {"authorization": f"Bearer {key}"},
        "the beginning of a key": {"authorization": f"Bearer {good[:-1]}"},
        "a session as a key": {"authorization": f"Bearer {session}"},
        "a key as a session": {"cookie": f"citewell={good}"},
        "an ended session": {"cookie": f"citewell={ended}"},
        "an expired session": {"cookie": f"citewell={expired}"},
        "the session of somebody disabled": {"cookie": f"citewell={before}"},
        "a wrong key beside a good session": {"authorization": f"Bearer {revoked}", "cookie": f"citewell={session}"},
        "a cookie of another name": {"cookie": f"citewell-login={session}; Citewell={session}; access-token={session}"},
        "a user's id": {"cookie": f"citewell={world.ann.user.id}", "x-user": "ann", "x-forwarded-user": "ann", "remote-user": "ann", "x-remote-user": "ann"},
        "an empty local key": {"authorization": "Bearer"},
        "a loopback address": {"x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1", "forwarded": "for=127.0.0.1;proto=https"},
        "another method": {"x-http-method-override": "GET", "x-method-override": "GET"},
        "another address": {"x-original-url": "/login", "x-rewrite-url": "/login", "x-forwarded-prefix": "/login", "x-forwarded-path": "/login", "x-forwarded-uri": "/login"},
        "another host": {"x-forwarded-host": "127.0.0.1", "host": "127.0.0.1"},
    }  # fmt: skip


def test_no_pretence_lets_anybody_in(world: World, client: Direct) -> None:
    assert client.send("GET", "/api/me", world.ben.by_key).json["name"] == "ben"
    assert client.send("GET", "/api/me", world.ben.by_session).json["name"] == "ben"
    walked = sorted({(route.at(), method) for route in world.routes for method in route.methods if route.path not in REVIEWED})
    for name, headers in pretences(world).items():
        for address, method in walked:
            kept_out(client.send(method, address, headers), (name, method, address))


def test_headers_that_name_an_address_or_https_are_a_trusted_proxys_alone(world: World, client: Direct) -> None:
    """From elsewhere they buy neither a way in nor a sign-in without https."""
    claims = {
        "x-forwarded-proto": "https",
        "x-forwarded-for": "127.0.0.1",
        "forwarded": "for=127.0.0.1;proto=https",
        "x-real-ip": "127.0.0.1",
        "x-forwarded-scheme": "https",
        "x-forwarded-ssl": "on",
    }
    for route in world.routes:
        for method in route.methods:
            reply = client.send(method, route.at(), {**claims, **world.ben.by_session}, peer="198.51.100.9")
            assert (reply.status, list(reply.json)) == (403, ["error"]), (method, route.path)
    # On the machine itself, without a proxy: accounts are demanded there too.
    reply = client.send("GET", "/api/documents", {"x-forwarded-for": "", "x-forwarded-proto": ""}, peer="127.0.0.1")
    assert reply.status == 401


def test_gradio_answers_for_what_the_page_needs_and_for_nothing_else(world: World, client: Direct) -> None:
    got = set()
    for route in world.routes:
        if not route.gradio:
            continue
        for method in route.methods:
            address = route.at(api_name="predict", path="index.js", size="192", session_hash="mine")
            reply = client.send(method, f"{address}?session_hash=mine", world.ann.by_session, body={} if method == "POST" else b"", patience=0.2)
            if not (reply.status == 404 and reply.body in (b"Not found", b'{"error":"Not found"}', b"")):
                got.add(f"{method} {route.path}")
    shadowed = {f"{method} {route.path}" for route in world.routes if route.gradio for method in route.methods if route.path in ("/login", "/logout")}
    assert got - shadowed == GRADIOS, "a route of Gradio's that the page does not need"


# Pages of other sites


FOREIGN = (
    "https://evil.example",
    "null",
    "http://docs.example.org",
    "https://docs.example.org.evil.example",
    "http://localhost:7860",
    "https://docs.example.org:444",
)


def test_no_other_site_may_read_what_anything_answers(world: World, client: Direct) -> None:
    people: tuple[dict[str, str], ...] = ({}, world.ann.by_session, world.ann.by_key)
    for route in world.routes:
        for origin in FOREIGN:
            for who in people:
                preflight = {
                    **who,
                    "origin": origin,
                    "access-control-request-method": "POST",
                    "access-control-request-headers": "x-citewell, content-type",
                }
                refused = client.send("OPTIONS", route.at(), preflight)
                assert refused.status in (303, 400, 401, 403, 404, 405), (route.path, origin, refused)
                replies = [refused]
                if "GET" in route.methods:
                    replies.append(client.send("GET", f"{route.at()}?session_hash=mine", {**who, "origin": origin}, patience=0.05))
                for reply in replies:
                    assert not reply.all("access-control-allow-origin"), (route.path, origin, who)
                    assert not reply.all("access-control-allow-credentials"), (route.path, origin, who)


def test_no_other_site_changes_anything(world: World, client: Direct) -> None:
    before = world.kept(world.ann)
    ours = client.send("POST", "/api/conversations", {**world.ann.by_session, "origin": f"https://{HOST}", "sec-fetch-site": "same-origin"}, {})
    assert ours.status == 201
    world.service.conversations.delete(ours.json["id"], world.ann.user.id)
    for route in world.routes:
        for method in {*route.methods, "POST", "PUT", "PATCH", "DELETE"} - {"GET", "HEAD", "OPTIONS"}:
            for headers in ({"origin": origin} for origin in FOREIGN):
                assert client.send(method, route.at(), {**world.ann.by_session, **headers}, {}).status == 403, (method, route.path, headers)
            for site in ("cross-site", "same-site", "nonsense"):
                # A browser that says so is believed whatever the origin looks like.
                headers = {"sec-fetch-site": site, "origin": f"https://{HOST}"}
                assert client.send(method, route.at(), {**world.ann.by_session, **headers}, {}).status == 403, (method, route.path, site)
    assert world.kept(world.ann) == before


def test_every_cookie_is_kept_from_scripts_other_sites_and_the_clear(world: World, client: Direct) -> None:
    seen = set()
    signed = client.send("GET", "/login", {"accept": "text/html"})
    token = next(value for value in signed.all("set-cookie")).partition("=")[2].partition(";")[0]
    form = f"token={token}&name=ann&password={PASSWORD.replace(' ', '+')}".encode()
    replies = [
        signed,
        client.send("POST", "/login", {"cookie": f"citewell-login={token}", "content-type": "application/x-www-form-urlencoded"}, form),
    ]
    assert replies[1].status == 303
    session = world.accounts.begin_session(world.ann.user.id)
    for route in world.routes:
        who = {"cookie": f"citewell={session}", "x-citewell": "1"} if route.path == "/logout" else world.ann.by_session
        for method in route.methods:
            if (method, route.path) in (("DELETE", "/mcp"), ("GET", "/mcp")) or method in ("GET", "HEAD", "POST"):
                replies.append(client.send(method, f"{route.at()}?session_hash=mine", who, patience=0.05))
    for reply in replies:
        for cookie in reply.all("set-cookie"):
            parts = {part.strip().lower() for part in cookie.split(";")[1:]}
            assert {"httponly", "secure"} <= parts, cookie
            assert parts & {"samesite=lax", "samesite=strict"}, cookie
            seen.add(cookie.partition("=")[0])
    assert seen == {"citewell", "citewell-login"}


def test_a_server_of_a_known_name_answers_to_no_other(tmp_path_factory: pytest.TempPathFactory, fast_probes: None) -> None:
    world = World(tmp_path_factory.mktemp("named"), public_url=f"https://{HOST}")
    try:
        with through_the_proxy(world).running() as client:
            assert client.send("GET", "/healthz").status == 200
            for route in world.routes:
                for host in ("evil.example", f"{HOST}.evil.example", "192.168.0.7", "", f"{HOST}@evil.example", f"evil.example:{HOST}"):
                    reply = client.send("GET", route.at(), {"host": host, **world.eve.by_key}, patience=0.05)
                    assert (reply.status, reply.body) == (400, b"Invalid host header"), (route.path, host)
    finally:
        world.close()
