"""The page where accounts are demanded, with the real server, store and accounts: who is signed in, whose everything is, and that nothing is anybody else's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from page_browser import ask, heard_out, serving, watched
from page_fake import FakeStore

from index.people import open_people
from rag.access import COOKIE
from rag.accounts import Accounts, Costs
from rag.assistant import Assistant
from rag.evaluation.cases import cases_file
from rag.library import OWN_UPLOADS, UPLOADS
from rag.server import create_app
from rag.service import Visitors
from rag.settings import Settings
from ui import kept, library
from ui.app import mount

PASSWORD = "four words apart"
QUESTION = "Who built the lander Apollo?"
OURS = {"x-citewell": "page"}
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class House:
    """A running server, and a session of each of its users."""

    address: str
    sessions: dict[str, str]

    def client(self, name: str) -> httpx.Client:
        return httpx.Client(base_url=self.address, cookies={COOKIE: self.sessions[name]}, trust_env=False)


@contextmanager
def house(assistant: Assistant) -> Iterator[House]:
    """A Citewell that demands accounts: a proxy on this machine is trusted, as on a server of a team. Ann is an admin."""
    folder = assistant.store.folder
    accounts = Accounts(open_people(folder), Costs(1, 8, 1))
    for name, role in (("ann", "admin"), ("ben", "member"), ("cat", "member")):
        accounts.add(name, PASSWORD, role)
    sessions = {name: accounts.begin_session(accounts.named(name).id) for name in ("ann", "ben", "cat")}
    with Visitors(Settings(data_dir=folder, trusted_proxies=["127.0.0.1"], requests_per_minute=6_000, model="none")) as visitors:
        app = create_app(assistant, visitors)
        with serving(mount(app, app.state.service)) as address:
            yield House(address, sessions)


def added(client: httpx.Client, name: str, content: str) -> None:
    """A file, uploaded and read."""
    assert client.put("/library/files", params={"name": name}, content=content.encode(), headers=OURS).status_code == 200
    deadline = time.monotonic() + 60
    while name not in [entry["source"] for entry in client.get("/api/documents").json()]:
        assert time.monotonic() < deadline, client.get("/library/work").text
        time.sleep(0.1)


# What a row of the documents view says and offers


@pytest.mark.parametrize(
    ("root", "owner", "admin", "whose", "offered"),
    [
        ("folder", None, False, "Everybody’s", []),
        ("folder", None, True, "Everybody’s", ["remove"]),
        (UPLOADS, None, True, "Everybody’s", ["remove"]),
        (f"{OWN_UPLOADS}me", "me", False, "Yours", ["share-document", "remove"]),
        (f"{OWN_UPLOADS}me", None, False, "Shared by you", ["share-document", "remove"]),
        (f"{OWN_UPLOADS}other", None, False, "Everybody’s", []),
    ],
)
def test_a_row_says_whose_it_is_and_offers_what_its_reader_may(root: str, owner: str | None, admin: bool, whose: str, offered: list[str]) -> None:
    info = replace(FakeStore().documents()[0], root=root, owner=owner)
    html = library.row_html(library.Entry(root, info.source, info), NOW, viewer=library.Viewer("me", admin, f"{OWN_UPLOADS}me"))
    assert f'<span class="owner">{whose}</span>' in html
    assert [name for name in ("share-document", "remove") if f"data-{name}=" in html] == offered
    alone = library.row_html(library.Entry(root, info.source, info), NOW)
    assert "owner" not in alone
    assert "share-document" not in alone
    assert "data-remove=" in alone


# In the browser


@pytest.mark.browser
def test_two_people_have_their_own_and_share_what_they_will(browser: Any, assistant: Assistant) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    with house(assistant) as there, there.client("ben") as ben, there.client("cat") as cat:
        added(ben, "secret.txt", "The harbour of Serrin was built by Ines Okafor in 1931.\n")
        with watched(browser, there.address, "form") as page:
            heard: list[str] = []
            page.on("request", lambda sent: heard.append(sent.url))
            page.get_by_label("Name").fill("ben")
            page.get_by_label("Password").fill(PASSWORD)
            page.get_by_role("button", name="Sign in").click()
            expect(page.locator(".who")).to_contain_text("ben")
            page.set_viewport_size({"width": 390, "height": 844})
            out = page.get_by_role("button", name="Sign out").bounding_box()
            assert out["x"] + out["width"] <= 390
            page.set_viewport_size({"width": 1280, "height": 800})
            ask(page, QUESTION)
            expect(page.locator(".log .answer")).to_contain_text("Grumman")
            page.get_by_role("button", name="Not right?").click()
            expect(page.locator(".verdict")).to_contain_text("Marked as not right.")
            assert "citewell evaluate" not in page.content()
            assert not cases_file(assistant.store.folder).exists()
            conversation = page.url.rpartition("=")[2]
            mine = next(url for url in heard if "queue/data" in url)

            # Ben's session, of which Cat knows the id, is to her as one that never was.
            made_up = mine.replace(httpx.URL(mine).params["session_hash"], "nobodys")
            assert cat.get(mine).text == cat.get(made_up).text
            for method, path in (("GET", ""), ("GET", "/export"), ("DELETE", ""), ("PATCH", "")):
                body = {"title": "Mine"} if method == "PATCH" else None
                assert cat.request(method, f"/api/conversations/{conversation}{path}", json=body).status_code == 404
            assert "There are no conversations yet" in cat.get("/conversations/list").text
            assert "secret.txt" not in cat.get("/library/list").text

            # The documents: whose they are, shared and no more.
            page.get_by_role("button", name="See all, add or choose").click()
            documents = page.get_by_role("dialog", name="Documents")
            row = documents.get_by_role("row").filter(has_text="secret.txt")
            expect(row).to_contain_text("Yours")
            others = documents.get_by_role("row").filter(has_text="tea.txt")
            expect(others).to_contain_text("Everybody’s")
            expect(others.get_by_role("button")).to_have_count(0)
            row.get_by_role("button", name="Share").click()
            page.get_by_role("alertdialog").get_by_role("button", name="Share").click()
            expect(row).to_contain_text("Shared by you")
            assert "secret.txt" in cat.get("/library/list").text
            shared = next(one["id"] for one in cat.get("/api/documents").json() if one["source"] == "secret.txt")
            refused = cat.post("/library/remove", json={"documents": [shared]}, headers=OURS)
            assert (refused.status_code, "everybody's" in refused.json()["error"]) == (403, True)
            assert cat.post("/library/share", json={"document": shared, "shared": False}, headers=OURS).status_code == 403
            row.get_by_role("button", name="Stop sharing").click()
            page.get_by_role("alertdialog").get_by_role("button", name="Stop sharing").click()
            expect(row).to_contain_text("Yours")
            assert cat.post("/library/share", json={"document": shared, "shared": True}, headers=OURS).status_code == 404
            page.keyboard.press("Escape")

            # The conversation: shared.
            page.get_by_role("button", name="Conversations").click()
            listed = page.get_by_role("dialog", name="Conversations").get_by_role("listitem")
            listed.get_by_role("button", name="Share").click()
            page.get_by_role("alertdialog").get_by_role("button", name="Share").click()
            expect(listed).to_contain_text("shared with everybody")
            assert "shared by somebody else" in cat.get("/conversations/list").text
            page.keyboard.press("Escape")
            heard_out(page)
            page.get_by_role("button", name="Sign out").click()
            expect(page.get_by_role("button", name="Sign in")).to_be_visible()
            assert ben.get("/library/list").status_code == 200, "a session of another browser goes on"


@pytest.mark.browser
def test_what_one_person_left_in_a_tab_is_not_there_for_the_next(browser: Any, assistant: Assistant) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    with house(assistant) as there:
        context = browser.new_context()
        context.add_cookies([{"name": COOKIE, "value": there.sessions["ben"], "url": there.address}])
        page = context.new_page()
        page.goto(there.address)
        expect(page.locator(".who")).to_contain_text("ben")
        ask(page, QUESTION)
        expect(page.locator(".log .answer")).to_contain_text("Grumman")
        # His session has ended: he signs in again, and finds all as it was.
        page.get_by_role("textbox", name="Your question").fill("And when?")
        page.request.post(f"{there.address}/logout")
        page.keyboard.press("Enter")
        page.get_by_label("Name").fill("ben")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator(".log .answer")).to_contain_text("Grumman")
        expect(page.locator(".exchange")).to_have_count(1)
        expect(page.get_by_role("textbox", name="Your question")).to_have_value("And when?")
        # In another tab somebody else has signed in meanwhile; this one is asked something more.
        context.add_cookies([{"name": COOKIE, "value": there.sessions["cat"], "url": there.address}])
        ask(page, "And when?")
        expect(page.locator(".who")).to_contain_text("cat")
        expect(page.get_by_text(kept.UNKNOWN)).to_be_visible()
        expect(page.locator(".exchange")).to_have_count(0)
        assert "Grumman" not in page.content()
        context.close()


def test_nobody_is_told_who_signed_in_on_an_open_citewell(tmp_path: Path) -> None:
    from ui import render

    assert "Sign out" not in render.masthead_html()
    assert "&lt;b&gt;" in render.masthead_html("<b>")
