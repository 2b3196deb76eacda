"""What the browser is told not to do: the headers of every response, and that the real page works under them while what gets into it does not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_browser import served, watched
from page_fake import FERRY, FakeAssistant
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from test_evaluate_page import with_folder

from rag.assistant import Assistant
from rag.headers import HEADERS, SafeHeaders
from rag.server import create_app
from ui.app import mount


@pytest.fixture(scope="module")
def client(lasting: Assistant) -> Iterator[TestClient]:
    """The whole server: the page and every other door."""
    app = create_app(lasting)

    @app.get("/fails")
    def fails() -> None:
        raise RuntimeError

    with TestClient(mount(app, app.state.service), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


ADDRESSES = {
    "/": 200,
    "/login": 200,
    "/documents/nothing": 404,
    "/documents/nothing/pages/1.png": 404,
    "/library": 200,
    "/library/list": 200,
    "/api/documents": 200,
    "/api/openapi.json": 200,
    "/v1/models": 200,
    "/metrics": 200,
    "/healthz": 200,
    "/theme.css": 200,
    "/favicon.ico": 200,
    "/config": 200,
    "/gradio_api/file=/etc/hostname": 404,
    "/nowhere": 404,
    "/fails": 500,
}


@pytest.mark.parametrize("path", ADDRESSES)
def test_every_response_has_them(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == ADDRESSES[path]
    assert set(HEADERS) <= {name.title() for name in response.headers} | {"X-Content-Type-Options"}
    assert response.headers["x-content-type-options"] == "nosniff"
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    for needed in ("base-uri 'none'", "form-action ", "frame-ancestors 'none'"):
        assert needed in policy
    assert "unsafe-inline" not in policy
    assert "unsafe-eval" not in policy


def test_what_is_refused_before_any_route_has_them_too(client: TestClient) -> None:
    refused = [
        client.get("/", headers={"host": "elsewhere.example"}),
        client.post("/api/ask", content=b"{", headers={"content-type": "application/json"}),
        client.post("/api/ask", json={}, headers={"sec-fetch-site": "cross-site"}),
    ]
    assert [response.status_code for response in refused] == [400, 400, 403]
    for response in refused:
        assert {name: response.headers.get(name) for name in HEADERS} == HEADERS


@pytest.mark.parametrize(
    ("origin", "said"), [("https://docs.example.org", "max-age=31536000"), ("http://docs.example.org", None), ("https://localhost:7860", None)]
)
def test_where_it_serves_https_itself_browsers_are_to_come_by_nothing_else(origin: str, said: str | None) -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("here")(scope, receive, send)

    assert TestClient(SafeHeaders(page), base_url=origin).get("/").headers.get("strict-transport-security") == said


def test_each_page_has_a_nonce_of_its_own_on_its_scripts_and_styles(client: TestClient) -> None:
    first, second = client.get("/"), client.get("/")
    nonces = [re.search(r"script-src 'self' 'nonce-([^']{24,})'", page.headers["content-security-policy"])[1] for page in (first, second)]  # type: ignore[index]
    assert nonces[0] != nonces[1]
    opened = re.findall(r"<(?:script|style)\b[^>]*>", first.text)
    assert len(opened) > 5
    assert all(f'nonce="{nonces[0]}"' in tag for tag in opened)
    assert nonces[1] not in first.text
    assert "<base" not in first.text
    assert not re.search(r"<[a-z-]+[^>]*\sstyle=", first.text)
    assert not re.search(r"<[a-z-]+[^>]*\son[a-z]+=", first.text)


# In the browser


@pytest.mark.browser
def test_everything_that_a_user_does_keeps_to_the_policy(browser: Any, tmp_path: Path) -> None:
    """A violation would be found by `watched`."""
    expect = pytest.importorskip("playwright.sync_api").expect
    assistant = with_folder(tmp_path)
    with served(assistant) as address, watched(browser, address, ".starter") as page:

        def ask(question: str) -> None:
            page.get_by_role("textbox", name="Your question").fill(question)
            page.keyboard.press("Enter")

        def answered(count: int) -> Any:
            expect(page.locator(".log .exchange")).to_have_count(count)
            return page.locator(".log .exchange").last

        page.locator(".starter").first.click()
        answered(1).locator(".chip").first.click()
        expect(page.locator("dialog[open] #quote")).to_be_visible()
        page.keyboard.press("Escape")
        ask("What does the report say?")
        answered(2).locator(".chip").first.click()
        expect(page.locator("dialog[open] .picture img")).to_be_visible()
        page.get_by_role("button", name="Larger").click()
        page.keyboard.press("Escape")
        ask("A slow one?")
        expect(page.locator(".running .draft")).to_be_visible()
        page.get_by_role("button", name="Stop").click()
        expect(answered(3).locator(".stopped")).to_be_visible()
        ask("A crash?")
        expect(answered(4).locator(".problem")).to_be_visible()
        page.get_by_role("button", name="Retry").click()
        expect(page.locator(".running")).to_be_visible()
        expect(answered(4).locator(".problem")).to_be_visible()
        page.get_by_role("button", name="Not right?").first.click()
        expect(page.locator("[data-case=drop]")).to_have_count(1)
        page.get_by_role("button", name="See all, add or choose").click()
        view = page.get_by_role("dialog", name="Documents")
        view.locator("#library-files").set_input_files([{"name": "tides.md", "mimeType": "text/markdown", "buffer": b"High water is at six.\n"}])
        expect(view.locator(".outcome").first).to_contain_text("1 added")
        view.locator(f"[data-choose='{FERRY}']").check()
        expect(page.locator("#choice .choice")).to_have_count(1)
        view.get_by_role("button", name="Remove tides.md").click()
        page.get_by_role("alertdialog").get_by_role("button", name="Remove").click()
        expect(view.locator("tbody tr")).to_have_count(5)
        view.get_by_role("button", name="Close").click()
        page.get_by_role("button", name="New conversation").click()
        expect(page.locator(".starter").first).to_be_visible()


INTRUSIONS = {
    "an inline script": "const made = document.createElement('script'); made.textContent = 'hacked = 1'; document.body.append(made)",
    "a script of elsewhere": "const made = document.createElement('script'); made.src = 'http://outside.example/x.js'; document.body.append(made)",
    "an event handler": "document.querySelector('#masthead').innerHTML = '<img src=\"/nothing.png\" onerror=\"hacked = 1\">'",
    "an address that is a script": "document.body.insertAdjacentHTML('beforeend', '<a id=trap href=\"javascript:hacked=1\">x</a>'); trap.click()",
    "a string that is compiled": "eval('hacked = 1')",
    "another string that is compiled": "Function('hacked = 1')()",
    "a template that Gradio would compile": "Function('value', 'label', 'return `${hacked = 1}`')()",
    "a string for a timer": "setTimeout('hacked = 1', 0)",
    "a constructor's constructor": "(async () => {}).constructor('hacked = 1')()",
    "a picture of elsewhere": "new Image().src = 'http://outside.example/x.png'",
    "a request to elsewhere": "fetch('http://outside.example/x').catch(() => {})",
    "a frame": "document.body.insertAdjacentHTML('beforeend', '<iframe srcdoc=\"<script>parent.hacked = 1</script>\"></iframe>')",
    "an object": "document.body.insertAdjacentHTML('beforeend', '<object data=\"/favicon.ico\"></object>')",
    "a style": "document.body.insertAdjacentHTML('beforeend', '<style>body { background: url(http://outside.example/x.png) }</style>')",
    "a style attribute": "document.body.insertAdjacentHTML('beforeend', '<p style=\"background: url(http://outside.example/x.png)\"></p>')",
    "another base": "document.head.insertAdjacentHTML('afterbegin', '<base href=\"http://outside.example/\">')",
    "a form to elsewhere": "document.body.insertAdjacentHTML('beforeend', '<form id=sent action=\"http://outside.example/\"></form>'); sent.submit()",
    "a worker": "new Worker('/static/js/iframeResizer.contentWindow.min.js')",
}


@pytest.mark.browser
def test_what_gets_into_the_page_does_not_run_and_asks_for_nothing(browser: Any) -> None:
    """Even if something were not escaped: each of these is refused by the browser, and the refusal counted."""
    with served(FakeAssistant()) as address:
        page = browser.new_page()
        left: list[str] = []
        page.on("requestfailed", lambda sent: left.append(sent.url) if "outside.example" in sent.url and sent.failure != "csp" else None)
        page.on("requestfinished", lambda sent: left.append(sent.url) if "outside.example" in sent.url else None)
        page.on("dialog", lambda dialog: left.append("dialog"))
        page.add_init_script("document.addEventListener('securitypolicyviolation', () => { top.refused = (top.refused ?? 0) + 1 })")
        page.goto(address)
        page.locator(".starter").first.wait_for()
        for name, code in INTRUSIONS.items():
            before = page.evaluate("window.refused ?? 0")
            # In a listener, because what playwright evaluates may compile strings.
            page.evaluate(
                f"addEventListener('try', () => {{ try {{ {code} }} catch {{}} }}, {{once: true}}); setTimeout(() => dispatchEvent(new Event('try')))"
            )
            page.wait_for_function("before => (window.refused ?? 0) > before", arg=before, timeout=5_000)
            assert page.evaluate("window.hacked ?? null") is None, name
            assert page.url == address + "/", name
        page.close()
    assert left == []
