"""A real Chromium that asks nothing of the outside, a page served for it, and a watch over what the page does."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import pytest

if TYPE_CHECKING:
    from page_fake import FakeAssistant, FakeService
    from playwright.sync_api import Playwright

CANDIDATES = ("/usr/bin/chromium", "/usr/bin/chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",  # it looks up names of its maker's by itself
]


def chromium(playwright: Playwright) -> str | None:
    """The path of a Chromium, the system's before playwright's own; None when there is neither."""
    return next((path for path in (*CANDIDATES, playwright.chromium.executable_path) if Path(path).exists()), None)


@contextmanager
def launched() -> Iterator[Any]:
    """A browser; a test without one is skipped."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    sync_api.expect.set_options(timeout=10_000)  # a machine that does other work besides
    with sync_api.sync_playwright() as playwright:
        path = chromium(playwright)
        if path is None:
            pytest.skip("needs Chromium: install your system's chromium package, or run `playwright install chromium`")
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def served(assistant: FakeAssistant | FakeService, port: int = 0) -> Iterator[str]:
    """The address of the whole page, at any port that is free or at the one wanted, for as long as it is wanted. Beside it is the HTTP door to conversations."""
    from fastapi import FastAPI
    from page_fake import FakeService

    from rag import server_people
    from rag.headers import SafeHeaders
    from ui.app import mount

    service: Any = assistant if isinstance(assistant, FakeService) else FakeService(assistant)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(server_people.routes(service))
    app.add_middleware(SafeHeaders)
    with serving(mount(app, service), port) as address:
        yield address


@contextmanager
def serving(app: Any, port: int = 0) -> Iterator[str]:
    """The address of an application, for as long as it is wanted."""
    import uvicorn

    listener = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, proxy_headers=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.05)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


VIOLATIONS = """window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => violations.push(`${event.effectiveDirective} forbids ${event.blockedURI} ${event.sample}`));"""


def ask(page: Any, question: str) -> None:
    """Types a question into the chat page and sends it."""
    page.get_by_role("textbox", name="Your question").fill(question)
    page.keyboard.press("Enter")


class Hearing:
    """The requests of a page by which it hears from Gradio's queue at this moment, and when the last of them began or ended."""

    def __init__(self, page: Any) -> None:
        self.requests: set[Any] = set()
        self.last = time.monotonic()
        page.on("request", self._begun)
        page.on("requestfinished", self._ended)
        page.on("requestfailed", self._ended)

    def _begun(self, sent: Any) -> None:
        if sent.is_navigation_request() and sent.frame.parent_frame is None:
            self.requests.clear()  # they went with the page that was left
        elif "/gradio_api/queue/" in sent.url:
            self.requests.add(sent)
            self.last = time.monotonic()

    def _ended(self, sent: Any) -> None:
        if sent in self.requests:
            self.requests.discard(sent)
            self.last = time.monotonic()


HEARING: WeakKeyDictionary[Any, Hearing] = WeakKeyDictionary()


def heard_out(page: Any) -> None:
    """Waits until a page has heard all that the server has to say: Gradio complains in the console when it is left before. Half a second of silence is the
    end, as an event may follow the one before it.
    """
    hearing = HEARING[page]
    while hearing.requests or time.monotonic() - hearing.last < 0.5:
        assert time.monotonic() - hearing.last < 15, [sent.url for sent in hearing.requests]
        page.wait_for_timeout(100)


@contextmanager
def watched(browser: Any, address: str, ready: str, **options: Any) -> Iterator[Any]:
    """The page, opened; afterwards nothing may have been asked of the outside or against the page's policy, and the console must be clean."""
    page = browser.new_page(**{"viewport": {"width": 1280, "height": 800}, **options})
    page.set_default_timeout(10_000)
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url))
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    HEARING[page] = Hearing(page)
    page.add_init_script(VIOLATIONS)
    page.goto(address)
    page.locator(ready).first.wait_for()
    yield page
    hacked, violations = page.evaluate("[window.hacked ?? null, window.violations]")
    page.close()
    assert violations == []
    assert [url for url in asked if not url.startswith((address + "/", "data:"))] == [], asked
    assert wrong == [], wrong
    assert hacked is None
