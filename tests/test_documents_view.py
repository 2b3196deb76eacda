"""The documents view: what it lists and says, its routes, and the whole of it in a real Chromium, with a library that needs no model."""

from __future__ import annotations

import asyncio
import io
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from page_browser import heard_out, served, watched
from page_fake import (
    CLOCK,
    FERRY,
    FOLDER,
    MINUTES,
    QUAY,
    REPORT,
    TOWN,
    UPLOADS,
    FakeAssistant,
    FakeOutcome,
    FakeReport,
    FakeService,
    FakeStore,
    FakeWork,
)
from PIL import Image, ImageDraw
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from index.errors import OverLimit
from index.formats import pdf
from index.read import document_id
from index.types import Rejection
from rag.accounts import User
from rag.headers import SafeHeaders
from ui import library
from ui.library import Wanted, ago, entries, kind_of, left_text, listing, size_text
from ui.web import document_routes, library_routes

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OURS = {"x-citewell": "page"}


# What is listed and said


@pytest.mark.parametrize(
    ("source", "kind"),
    [("a/report.PDF", "PDF"), ("Makefile", "TEXT"), ("archive.tar.gz", "GZ"), (".hidden", "TEXT"), ("https://example.org/page.html", "HTML")],
)
def test_a_name_says_its_kind(source: str, kind: str) -> None:
    assert kind_of(source) == kind


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (9_960, "10 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (25_000_000, "25 MB"),
        (3_210_000_000, "3.2 GB"),
        (5_000_000_000_000, "5,000 GB"),
    ],
)
def test_sizes_are_said_as_people_say_them(number: int, said: str) -> None:
    assert size_text(number) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "just now"),
        (59, "just now"),
        (60, "1 minute ago"),
        (3599, "59 minutes ago"),
        (7200, "2 hours ago"),
        (86_400, "1 day ago"),
        (40 * 86_400, "20 Jan 2026"),
    ],
)
def test_times_are_said_relatively(seconds: int, said: str) -> None:
    assert ago(NOW - timedelta(seconds=seconds), NOW) == said


def test_the_exact_time_is_in_the_hint() -> None:
    html = library.when_html("2026-03-01T13:30:00+02:00", NOW)
    assert 'title="2026-03-01 11:30:00 UTC">30 minutes ago<' in html
    assert library.when_html("<never>", NOW) == "&lt;never&gt;"


@pytest.mark.parametrize(
    ("seconds", "said"), [(2, "a few seconds left"), (42, "about 40 s left"), (61, "about 1 min left"), (7000, "about 2 hours left")]
)
def test_the_time_left_is_no_more_exact_than_it_is_known(seconds: float, said: str) -> None:
    assert left_text(seconds) == said


def test_every_file_is_listed_once_with_what_became_of_it() -> None:
    store = FakeStore()
    reason = Rejection(FOLDER, "town/report.pdf", "it is damaged", "2026-02-01T00:00:00+00:00")
    known = entries(store.documents(), [reason, Rejection(UPLOADS, "new.pdf", "no text", "")], [(UPLOADS, "queued.txt"), (FOLDER, "town/clock.html")])
    assert {entry.source: entry.status for entry in known} == {
        "travel/harbour-light.md": "indexed",
        "town/archive.txt": "indexed",
        "town/minutes & more.md": "indexed",
        "town/report.pdf": "rejected",
        "town/clock.html": "waiting",
        "new.pdf": "rejected",
        "queued.txt": "waiting",
    }
    html = library.listing_html(listing(known, Wanted()), NOW)
    assert "it is damaged. The version from before still answers." in html
    assert html.index("queued.txt") < html.index("town/report.pdf") < html.index("harbour-light.md"), "waiting first, then by date"
    assert html.count("data-remove=") == 5
    assert html.count("data-discard=") == 2, "an upload that was rejected or waits can be removed, too"
    assert 'data-discard="new.pdf" data-root="uploads"' in html
    assert 'data-retry="town/report.pdf"' in html
    assert html.count("data-choose=") == 5


def test_removing_says_what_becomes_of_the_file() -> None:
    info = FakeStore().info(FERRY)
    uploaded, synced = (library.row_html(library.Entry(root, "a.md", replace(info, root=root)), NOW) for root in (UPLOADS, FOLDER))
    assert "The uploaded file is deleted." in uploaded
    assert "stays in its folder" in synced


def test_ten_thousand_documents_are_filtered_and_paged() -> None:
    store = FakeStore()
    store.fill(10_000)
    known = entries(store.documents(), [], [])
    shown = listing(known, Wanted(order="name"))
    assert (len(shown.rows), shown.total, shown.pages, shown.first) == (library.PAGE, 10_005, 201, 1)
    assert len(library.listing_html(shown, NOW)) < 80_000
    assert [entry.title for entry in listing(known, Wanted("harbour LETTER 00042")).rows] == ["Letter 42 of the harbour master"]
    assert {entry.source for entry in listing(known, Wanted(kind="HTML")).rows} == {"town/clock.html"}
    assert listing(known, Wanted(status="rejected")).matching == 0
    assert listing(known, Wanted(page=9_999)).page == 201
    assert listing(known, Wanted(page=-1)).page == 1
    assert len(listing(known, Wanted(page=201)).rows) == 5
    html = library.listing_html(listing(known, Wanted("letter", page=2)), NOW)
    assert "51–100 of 10,000 files, 10,005 in all" in html
    assert "No file fits this filter" in library.listing_html(listing(known, Wanted("nothing like it")), NOW)
    assert "There are no documents yet" in library.listing_html(listing([], Wanted()), NOW)


def test_names_are_ordered_as_people_number_them() -> None:
    info = FakeStore().info(FERRY)
    known = [library.Entry("", f"{number}.md", replace(info, title=f"Chapter {number}")) for number in (10, 9, 1, 10**20)]
    assert [entry.title for entry in listing(known, Wanted(order="name")).rows] == ["Chapter 1", "Chapter 9", "Chapter 10", f"Chapter {10**20}"]


def test_work_is_shown_with_rate_and_time_left() -> None:
    html = library.work_html(FakeWork("Syncing /srv/papers", 1_200, 10_000, "a/b.pdf", 41.7, 211.0), [], ["The index is being rebuilt."])
    for words in ("Syncing /srv/papers", "1,200 of 10,000 · 42 files a second · about 4 min left", "a/b.pdf", 'value="1200" max="10000"', "rebuilt"):
        assert words in html
    html = library.work_html(FakeWork("Adding 3 files", 0, 0), [], [])
    assert "Looking for files" in html
    assert "· 20 s a file" in library.work_html(FakeWork("Adding 3 files", 0, 3, "", 0.05), [], [])
    assert "value=" not in html
    assert "second" not in html


def test_outcomes_say_what_became_of_every_file() -> None:
    many = tuple(f"{number}.txt" for number in range(1_000))
    report = FakeReport(many, ("b.md",), ("c.md",), many, {"d.pdf": "it is protected by a password"}, cancelled=True)
    html = library.outcome_html(FakeOutcome("Syncing /srv/papers", report))
    assert "1,000 added, 1 changed, 1 removed, 1,000 unchanged, 1 rejected. Cancelled: what was finished is kept." in html
    assert "it is protected by a password" in html
    assert html.count("<li") == 1 + 2 * (library.LISTED + 1) + 2
    assert html.startswith('<details class="outcome"><summary>'), "a report opens when it is asked to"
    assert "nothing to do" in library.outcome_html(FakeOutcome("Syncing /srv/papers", FakeReport()))
    assert "could not be done. There is no such folder." in library.outcome_html(FakeOutcome("Syncing", None, "There is no such folder."))


def test_only_the_last_report_is_in_the_way() -> None:
    reports = [FakeOutcome(f"Job {number}", FakeReport(("a.md",))) for number in range(3)]
    html = library.work_html(None, reports, [])
    assert html.index("Job 0") < html.index("Earlier reports (2)") < html.index("Job 1") < html.index("Job 2")
    assert "Earlier reports" not in library.work_html(None, reports[:1], [])


def test_what_waits_is_read_without_being_asked_while_work_goes_on() -> None:
    known = entries([], [Rejection(UPLOADS, "torn.pdf", "it is damaged", "")], [(UPLOADS, "queued.txt")])
    html = library.listing_html(listing(known, Wanted()), NOW, {(UPLOADS, "torn.pdf"): 4_321, (UPLOADS, "queued.txt"): None}, True)
    assert re.findall(r'data-retry="([^"]*)"', html) == ["torn.pdf"]
    assert html.count(">4.3 kB<") == 1
    html = library.listing_html(listing(known, Wanted()), NOW, {}, False)
    assert re.findall(r'data-retry="([^"]*)"[^>]*>([^<]*)<', html) == [("queued.txt", "Read now"), ("torn.pdf", "Retry")]


# The routes


@pytest.fixture
def fake() -> FakeAssistant:
    made = FakeAssistant()
    made.library.file_seconds = 0.05
    return made


@pytest.fixture
def client(fake: FakeAssistant) -> TestClient:
    routes = [*document_routes(FakeService(fake), ""), *library_routes(FakeService(fake))]
    return TestClient(Starlette(routes=routes, middleware=[Middleware(SafeHeaders)]))


def test_what_changes_something_is_for_our_own_script_alone(client: TestClient, fake: FakeAssistant) -> None:
    assert client.put("/library/files?name=a.md", content=b"words").status_code == 403
    for path in ("/library/remove", "/library/discard", "/library/retry", "/library/cancel"):
        assert client.post(path, json={"documents": [FERRY]}).status_code == 403
        assert client.get(path).status_code == 405
    assert fake.library.calls == []
    assert "access-control-allow-origin" not in client.options("/library/files", headers={"origin": "http://outside.example"}).headers


def test_a_file_comes_in_and_leaves_nothing_behind(client: TestClient, fake: FakeAssistant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    response = client.put("/library/files", params={"name": "../../etc/<b>&.md"}, content=b"words", headers=OURS)
    assert response.json() == {"source": "<b>&.md", "replaced": False}
    assert fake.library.calls == [("add", "<b>&.md")]
    response = client.put("/library/files", params={"name": " "}, content=b"words", headers=OURS)
    assert (response.status_code, response.json()["error"]) == (422, "A file needs a name: give it one, and add it again.")
    assert list(tmp_path.iterdir()) == []


def test_a_later_upload_of_the_same_name_says_that_it_replaces(client: TestClient, fake: FakeAssistant) -> None:
    key = document_id(UPLOADS, "a.md")
    fake.store.stored[key] = replace(fake.store.stored[FERRY], info=replace(fake.store.info(FERRY), id=key, root=UPLOADS, source="a.md"))
    assert client.put("/library/files?name=a.md", content=b"words", headers=OURS).json() == {"source": "a.md", "replaced": True}


def test_too_large_a_file_is_refused_before_and_while_it_comes(client: TestClient, fake: FakeAssistant) -> None:
    fake.settings.max_bytes = 1_000
    assert client.put("/library/files?name=a.md", content=b"x" * 1_000, headers=OURS).status_code == 200
    for content in (b"x" * 1_001, iter([b"x" * 600] * 2)):
        response = client.put("/library/files?name=b.md", content=content, headers=OURS)
        assert (response.status_code, response.json()["error"]) == (413, "it is larger than 1.0 kB")
    assert [name for _, name in fake.library.calls] == ["a.md"]


def test_a_page_is_added_by_its_address_only_where_that_is_turned_on(client: TestClient, fake: FakeAssistant) -> None:
    asked = {"url": "https://docs.example.org/tides"}
    assert "library-url" not in client.get("/library").text
    response = client.post("/library/url", json=asked, headers=OURS)
    assert (response.status_code, response.json()) == (403, {"error": "Adding pages by their address is turned off."})
    fake.settings.add_urls = True
    assert 'id="library-url"' in client.get("/library").text
    assert client.post("/library/url", json=asked).status_code == 403, "it is for our own script alone"
    assert fake.library.calls == []
    assert client.post("/library/url", json=asked, headers=OURS).json() == {"source": "docs.example.org_tides-0123456789.html"}
    assert fake.library.calls == [("url", asked["url"])]
    response = client.post("/library/url", json={"url": "http://inner.example.org/"}, headers=OURS)
    assert (response.status_code, response.json()) == (422, {"error": "This address is not fetched."})
    assert client.post("/library/url", json={"address": "x"}, headers=OURS).status_code == 422


def test_problems_come_back_as_sentences(client: TestClient, fake: FakeAssistant, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.post("/library/retry", json={"root": "x"}, headers=OURS).status_code == 422
    monkeypatch.setattr(fake.library, "cancel", lambda: 1 / 0)
    response = client.post("/library/cancel", headers=OURS)
    assert response.status_code == 500
    assert "ZeroDivision" not in response.text
    assert "nothing was changed" in response.json()["error"]


def test_the_parts_of_the_view(client: TestClient, fake: FakeAssistant) -> None:
    fake.store.reject(UPLOADS, "<img src=x>.pdf", "<script>window.hacked = 1</script>")
    fake.store.told = ("The index is being rebuilt.",)
    assert "At most 25 MB a file" in client.get("/library").text
    assert "drop them" in client.get("/library").text
    assert "4.3 kB" in client.get("/library/list?status=rejected").text
    html = client.get("/library/list?words=harbour&kind=MD").text
    assert "1 file, 6 in all" in html
    html = client.get("/library/list?status=rejected&page=99999999999").text
    assert "&lt;script&gt;" in html
    assert "<script" not in html
    assert "<img" not in html
    response = client.get("/library/work")
    assert "being rebuilt" in response.text
    assert response.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in response.headers["content-security-policy"]


def test_a_page_is_drawn_once_for_its_view_and_its_picture(client: TestClient, fake: FakeAssistant) -> None:
    start = fake.store.text(REPORT).index(QUAY)
    span = f"start={start}&end={start + len(QUAY)}"
    html = client.get(f"/documents/{REPORT}?view=page&page=2&{span}").text
    address = re.findall(r'<img src="([^"]*)"', html)[0].replace("&amp;", "&")
    assert address == f"/documents/{REPORT}/pages/2.png?{span}"
    picture = client.get(address)
    assert picture.headers["content-type"] == "image/png"
    assert picture.content.startswith(b"\x89PNG")
    assert fake.drawn == [(REPORT, 2, start, start + len(QUAY))]
    html = client.get(f"/documents/{REPORT}?view=page&page=4&{span}").text
    assert f'src="/documents/{REPORT}/pages/4.png"' in html, "the quote is on another page"
    assert fake.drawn[-1] == (REPORT, 4, 0, 0)


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        (f"/documents/{REPORT}?view=page", 200, "Page 1 of 4"),
        (f"/documents/{REPORT}?view=page&page=5", 404, "No such page"),
        (f"/documents/{REPORT}?view=page&page=0", 404, "No such page"),
        (f"/documents/{REPORT}?view=page&page=two", 404, "No such page"),
        (f"/documents/{FERRY}?view=page&page=1", 404, "No such page"),
        (f"/documents/{REPORT}?view=page&page=1&start=4&end=2", 400, "does not fit"),
        (f"/documents/{REPORT}/pages/5.png", 404, "There is no such page."),
        ("/documents/nothing/pages/1.png", 404, "There is no such page."),
        (f"/documents/{REPORT}/pages/1.png?start=1", 400, "outside the text"),
        (f"/documents/{CLOCK}?start=0&end=4", 200, '<span class="furniture">Home</span></mark>'),
    ],
)
def test_addresses_of_pages(client: TestClient, path: str, status: int, words: str) -> None:
    response = client.get(path)
    assert response.status_code == status
    assert words in response.text


def test_a_file_that_has_changed_is_said_in_the_pictures_place(client: TestClient, fake: FakeAssistant) -> None:
    fake.changed = True
    for path in (f"/documents/{REPORT}?view=page&page=2", f"/documents/{REPORT}/pages/2.png"):
        response = client.get(path)
        assert response.status_code == 409
        assert "The file has changed since it was indexed" in response.text
        assert "<img" not in response.text


def test_one_user_has_two_pages_drawn_at_a_time_and_all_together_four(fake: FakeAssistant, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, released = threading.Semaphore(0), threading.Event()

    def drawn(document_id: str, page: int, start: int, end: int) -> bytes:
        begun.release()
        assert released.wait(60)
        return b"a picture"

    class Named:
        """Stands where SignedIn stands: the user is whom the request says."""

        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            name = dict(scope["headers"])[b"x-user"].decode()
            await self.app({**scope, "state": {"user": User(name, name)}}, receive, send)

    monkeypatch.setattr(fake, "page_image", drawn)
    app = Starlette(routes=document_routes(FakeService(fake), ""), middleware=[Middleware(Named)])

    async def hurried() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:

            async def asked(user: str, number: int, view: str = f"/documents/{REPORT}/pages/1.png?") -> httpx.Response:
                return await client.get(f"{view}&start=0&end={number + 1}", headers={"X-User": user})

            anns = [asyncio.create_task(asked("ann", number)) for number in range(45)]
            for _ in range(2):
                await asyncio.to_thread(begun.acquire)
            refused = await first(anns, 43)
            refused.append(await asked("ann", 50, f"/documents/{REPORT}?view=page"))
            bens = [asyncio.create_task(asked("ben", number)) for number in (60, 61)]
            for _ in bens:
                await asyncio.to_thread(begun.acquire)
            refused.append(await asked("cat", 70))
            released.set()
            assert [(await task).status_code for task in bens] == [200, 200]
            assert sorted([(await task).status_code for task in anns])[:3] == [200, 200, 429]
            assert (await asked("ann", 80)).status_code == 200
            return refused

    async def first(tasks: list[asyncio.Task[httpx.Response]], number: int) -> list[httpx.Response]:
        done: list[httpx.Response] = []
        for task in asyncio.as_completed(tasks):
            done.append(await task)
            if len(done) == number:
                break
        return done

    for answer in asyncio.run(hurried()):
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
        assert "As many pages as may be are being drawn already. Try again in 2 seconds." in answer.text


@pytest.mark.parametrize(("wait", "status", "said"), [(2.5, 429, "3"), (None, 413, None)])
def test_a_limit_says_whether_waiting_helps(
    client: TestClient, fake: FakeAssistant, monkeypatch: pytest.MonkeyPatch, wait: float | None, status: int, said: str | None
) -> None:
    def refuse(*_: object) -> None:
        raise OverLimit("No more of them.", wait)

    monkeypatch.setattr(fake, "add_url", refuse)
    response = client.post("/library/url", json={"url": "https://example.org"}, headers=OURS)
    assert (response.status_code, response.headers.get("retry-after"), response.json()) == (status, said, {"error": "No more of them."})


# In the browser


@pytest.fixture(scope="module")
def shared() -> FakeAssistant:
    return FakeAssistant()


@pytest.fixture(scope="module")
def address(shared: FakeAssistant) -> Iterator[str]:
    with served(shared) as address:
        yield address


@pytest.fixture
def assistant(shared: FakeAssistant) -> Iterator[FakeAssistant]:
    """The served assistant, as new."""
    yield shared
    shared.library.cancel()
    fresh = FakeAssistant(store=shared.store)
    shared.store.__init__()  # type: ignore[misc]
    shared.library, shared.settings = fresh.library, fresh.settings
    shared.asked, shared.narrowed, shared.drawn, shared.changed = [], [], [], False


@pytest.fixture
def page(browser: Any, address: str, assistant: FakeAssistant, request: pytest.FixtureRequest) -> Iterator[Any]:
    with watched(browser, address, "[data-open-library]", **getattr(request, "param", {})) as page:
        yield page


def opened(page: Any) -> Any:
    """The documents view, with its list."""
    page.get_by_role("button", name="See all, add or choose").click()
    view = page.get_by_role("dialog", name="Documents")
    view.locator("tbody tr, .nothing").first.wait_for()
    return view


def files(*names: str, content: bytes = b"Words of a file.\n") -> list[dict[str, Any]]:
    return [{"name": name, "mimeType": "application/octet-stream", "buffer": content} for name in names]


@pytest.mark.browser
def test_uploading_shows_progress_and_then_what_became_of_each_file(page: Any, assistant: FakeAssistant) -> None:
    from playwright.sync_api import expect

    assistant.library.file_seconds = 1.2
    assistant.settings.max_bytes = 100_000
    view = opened(page)
    hostile = "<img src=x onerror=window.hacked=1>.md"
    page.set_input_files(
        "#library-files", [*files("tides.md", hostile), *files("torn.pdf", content=b"broken"), *files("big.md", content=b"x" * 100_001)]
    )
    expect(view.locator(".upload-notes")).to_contain_text("“big.md” was not added: it is 101 kB, and 100 kB is the most.")
    expect(view.locator(".working")).to_contain_text("1.2 s a file")
    expect(view.locator(".working")).to_contain_text("left")
    expect(view.locator("tr[data-status=waiting]").first).to_be_visible()
    expect(view.locator(".outcome summary")).to_have_text("Adding 3 files: 2 added, 1 rejected.")
    expect(view.locator(".outcome")).to_contain_text("it is no PDF, whatever its name says")
    expect(view.locator("tr", has_text="torn.pdf").locator(".state")).to_have_text("Rejected")
    expect(view.locator("tr", has_text=hostile)).to_contain_text("Indexed")
    expect(view.locator(".count")).to_have_text("8 files")
    page.set_input_files("#library-files", files("tides.md"))
    expect(view.locator(".upload-notes")).to_have_text("“tides.md” takes the place of the earlier upload of that name.")
    expect(view.locator(".outcome summary").first).to_have_text("Adding 1 file: 1 changed.")
    page.keyboard.press("Escape")
    expect(page.locator("#documents")).to_contain_text("Show 7 documents")
    expect(page.get_by_role("link", name="tides.md")).to_be_visible()


@pytest.mark.browser
def test_a_page_is_added_by_its_address(page: Any, assistant: FakeAssistant) -> None:
    from playwright.sync_api import expect

    assistant.library.file_seconds = 0.05
    assistant.settings.add_urls = True
    view = opened(page)
    field = view.get_by_label("Or add a web page")
    field.fill(" ")
    field.press("Enter")
    field.fill(" https://docs.example.org/tides ")
    view.get_by_role("button", name="Add", exact=True).click()
    expect(view.locator("tr", has_text="docs.example.org_tides")).to_contain_text("Indexed")
    expect(view.locator(".upload-notes")).to_be_empty()
    expect(field).to_have_value("")
    assert assistant.library.calls == [("url", "https://docs.example.org/tides")]


@pytest.mark.browser
def test_cancelling_keeps_what_is_finished_and_says_so(page: Any, assistant: FakeAssistant) -> None:
    from playwright.sync_api import expect

    assistant.library.file_seconds = 0.8
    view = opened(page)
    page.set_input_files("#library-files", files(*(f"letter {number}.md" for number in range(9))))
    expect(view.locator(".working .far")).to_contain_text(re.compile("^[1-8] of 9"))
    page.keyboard.press("Escape")
    strip = page.locator("#work .working")
    expect(strip).to_be_visible()
    strip.get_by_role("button", name="Cancel").click()
    expect(strip).to_have_count(0)
    assert ("cancel", None) in assistant.library.calls
    view = opened(page)
    expect(view.locator(".outcome summary")).to_contain_text("Cancelled: what was finished is kept.")
    added = len(assistant.store.stored) - 5
    assert 0 < added < 9
    expect(view.locator(".count")).to_have_text(f"{5 + added} files")


@pytest.mark.browser
def test_files_that_are_dropped_anywhere_are_added(page: Any, assistant: FakeAssistant) -> None:
    from playwright.sync_api import expect

    transfer = page.evaluate_handle(
        """() => { const data = new DataTransfer();
        for (const [name, words] of [["one.md", "First."], ["two.bin", "broken"], ["one.md", "Second."]]) data.items.add(new File([words], name));
        return data; }"""
    )
    page.dispatch_event("#transcript", "dragover", {"dataTransfer": transfer})
    assert page.evaluate("document.documentElement.classList.contains('dropping')")
    page.dispatch_event("#transcript", "drop", {"dataTransfer": transfer})
    view = page.get_by_role("dialog", name="Documents")
    expect(view.locator(".upload-notes")).to_contain_text("Two files are named “one.md”: the later one is taken.")
    expect(view.locator("tr", has_text="two.bin")).to_contain_text("it is no PDF, whatever its name says")
    expect(view.locator("tr", has_text="one.md")).to_contain_text("Indexed")
    assert assistant.store.text(document_id(UPLOADS, "one.md")) == "Second."
    assert not page.evaluate("document.documentElement.classList.contains('dropping')")


@pytest.mark.browser
def test_a_list_of_ten_thousand_is_filtered_and_paged(page: Any, assistant: FakeAssistant) -> None:
    from playwright.sync_api import expect

    assistant.store.fill(10_000)
    assistant.store.reject(FOLDER, "odd.docx", "it is protected by a password")
    view = opened(page)
    expect(view.locator(".count")).to_have_text("1–50 of 10,006 files")
    expect(view.locator("tbody tr")).to_have_count(50)
    view.get_by_role("button", name="Next").click()
    expect(view.locator(".count")).to_have_text("51–100 of 10,006 files")
    box = view.get_by_role("searchbox")
    box.press_sequentially("letter 777 master")
    expect(view.locator(".count")).to_have_text("19 files, 10,006 in all")
    expect(box).to_be_focused()
    box.fill("")
    view.get_by_label("Status").select_option(label="Rejected (1)")
    expect(view.locator(".count")).to_have_text("1 file, 10,006 in all")
    expect(view.locator("tbody tr")).to_contain_text("it is protected by a password.")
    view.get_by_label("Status").select_option(label="Any status")
    view.get_by_label("Type").select_option("PDF")
    expect(view.locator("tbody tr")).to_have_count(1)  # all rows are shown for a moment
    expect(view.locator("tbody tr")).to_contain_text("Annual report of the harbour board")
    view.get_by_role("link", name="Annual report").click()
    expect(page.locator("dialog.reader .text")).to_contain_text("Prepared for the members")
    page.keyboard.press("Escape")
    expect(view.get_by_role("link", name="Annual report")).to_be_focused()


@pytest.mark.browser
def test_removing_asks_once_more_and_retrying_tries_again(page: Any, assistant: FakeAssistant) -> None:
    from playwright.sync_api import expect

    assistant.store.reject(UPLOADS, "torn.pdf", "it is damaged")
    view = opened(page)
    view.get_by_role("button", name="Remove The town archive").click()
    asked = page.get_by_role("alertdialog", name="Remove “The town archive of Aldmouth”?")
    expect(asked).to_contain_text("The file itself stays in its folder")
    asked.get_by_role("button", name="Keep").click()
    assert assistant.library.calls == []
    view.get_by_role("button", name="Remove The town archive").click()
    asked.get_by_role("button", name="Remove").click()
    expect(view.locator("tr", has_text="town/archive.txt")).to_contain_text("you removed it; choose 'retry' to have it back.")
    assert assistant.library.calls == [("remove", (TOWN,))]
    view.get_by_role("button", name="Retry torn.pdf").click()
    expect(view.locator("tr", has_text="torn.pdf")).to_contain_text("Indexed")
    assert assistant.library.calls[-1] == ("retry", (UPLOADS, "torn.pdf"))
    page.keyboard.press("Escape")
    expect(page.locator("#documents")).to_contain_text("Show 5 documents")
    assistant.store.reject(UPLOADS, "torn again.pdf", "it is damaged")
    view = opened(page)
    view.get_by_role("button", name="Remove torn again.pdf").click()
    page.get_by_role("alertdialog").get_by_role("button", name="Remove").click()
    expect(view.locator("tr", has_text="torn again.pdf")).to_have_count(0)
    assert assistant.library.calls[-1] == ("discard", (UPLOADS, "torn again.pdf"))


@pytest.mark.browser
def test_questions_go_to_the_chosen_documents_only(page: Any, assistant: FakeAssistant) -> None:
    from playwright.sync_api import expect

    view = opened(page)
    for name in ("Harbour Light", "The town archive", "The tide clock"):  # one after the other, without waiting for the server
        view.get_by_role("checkbox", name=name).check()
    view.get_by_role("checkbox", name="The tide clock").uncheck()
    view.get_by_role("searchbox").fill("archive")
    expect(view.locator("tbody tr")).to_have_count(1)
    expect(view.get_by_role("checkbox", name="The town archive")).to_be_checked()
    expect(view.locator(".chosen-bar")).to_contain_text("2 chosen. Questions go to them only.")
    view.get_by_role("button", name="Ask them").click()
    expect(page.locator("#choice")).to_contain_text("Asking 2 of 5 documents")
    question = page.get_by_role("textbox", name="Your question")

    def ask(words: str, count: int) -> None:
        question.fill(words)
        page.keyboard.press("Enter")
        expect(page.locator(".log .exchange")).to_have_count(count)

    ask("Something unknown?", 1)
    assert assistant.narrowed == [(FERRY, TOWN)]
    expect(page.locator(".log .question")).to_contain_text("Asked of 2 chosen documents")
    del assistant.store.stored[TOWN]
    ask("Something unknown again?", 2)
    assert assistant.narrowed[-1] == (FERRY,)
    expect(page.locator("#choice")).to_contain_text("“The town archive of Aldmouth” is gone, and was dropped from the documents you chose.")
    expect(page.locator("#choice")).to_contain_text("Asking 1 of 4 documents")
    # Listed anew behind the answer, which also drops what is gone: only then does the next question find it gone by itself.
    expect(page.locator('#documents [data-total="4"]')).to_be_attached()
    del assistant.store.stored[FERRY]
    question.fill("Something unknown once more?")
    page.keyboard.press("Enter")
    expect(page.locator("#choice")).to_contain_text("Questions go to all documents again.")
    expect(question).to_have_value("Something unknown once more?")
    assert len(assistant.narrowed) == 2, "a narrowed question never goes to all documents unasked"
    ask("Something unknown once more?", 3)
    assert assistant.narrowed[-1] is None
    view = opened(page)
    expect(view.get_by_role("searchbox")).to_have_value("archive")
    view.get_by_role("searchbox").fill("report")
    view.get_by_role("checkbox", name="Annual report").check()
    view.get_by_role("button", name="Ask it").click()
    page.locator("#choice").get_by_role("button", name="Clear: ask all documents").click()
    expect(page.locator("#choice")).to_have_text("")
    ask("Something unknown at last?", 4)
    assert assistant.narrowed[-1] is None


@pytest.mark.browser
def test_the_choice_of_one_tab_is_not_the_choice_of_another(browser: Any, page: Any, address: str, assistant: FakeAssistant) -> None:
    from playwright.sync_api import expect

    opened(page).get_by_role("checkbox", name="Harbour Light").check()
    expect(page.locator("#choice")).to_contain_text("Asking 1 of 5 documents")
    with watched(browser, address, "[data-open-library]") as other:
        expect(opened(other).get_by_role("checkbox", name="Harbour Light")).not_to_be_checked()
        expect(other.locator("#choice")).to_have_text("")


@pytest.mark.browser
def test_a_pdf_citation_shows_its_words_and_its_page(page: Any, assistant: FakeAssistant) -> None:
    from playwright.sync_api import expect

    page.get_by_role("textbox", name="Your question").fill("What does the report say?")
    page.keyboard.press("Enter")
    expect(page.locator(".sources")).to_contain_text("p. 2")
    page.get_by_role("link", name="Source 1: Annual report of the harbour board, page 2").first.click()
    reader = page.locator("dialog.reader")
    expect(reader.locator(".quoted")).to_contain_text("It had the north quay rebuilt")
    reader.get_by_role("link", name="Text").click()
    expect(reader.locator("#quote")).to_be_visible()
    assert reader.locator("#quote").evaluate("mark => mark.textContent") == QUAY
    assert reader.locator(".text").evaluate("text => text.textContent") == assistant.store.text(REPORT)
    expect(reader.get_by_role("separator")).to_have_count(4)
    reader.get_by_role("link", name="Page 2").click()
    image = reader.get_by_role("img", name=re.compile("Page 2 of .*Marked on it: “It had the north quay rebuilt"))
    expect(image).to_be_visible()
    page.wait_for_function("() => document.querySelector('dialog.reader img')?.naturalWidth > 0")
    reader.get_by_role("link", name="Next page").click()
    expect(reader.locator(".leafing")).to_contain_text("Page 3 of 4")
    reader.get_by_role("link", name="Text").click()
    expect(reader.locator("#quote")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".log .chip").first).to_be_focused()


@pytest.mark.browser
@pytest.mark.parametrize("page", [{"viewport": {"width": 400, "height": 640}}, {"viewport": {"width": 1280, "height": 700}}], indirect=True)
def test_the_words_on_a_drawn_page_are_in_view_and_large_enough(page: Any, assistant: FakeAssistant, monkeypatch: pytest.MonkeyPatch) -> None:
    from playwright.sync_api import expect

    def drawn(document_id: str, page: int, start: int, end: int) -> bytes:
        """A page with its words near its end, left of the middle."""
        image = Image.new("RGB", (900, 1160), "white")
        ImageDraw.Draw(image).rectangle((200, 1000, 400, 1030), fill=(255, 235, 80))
        content = io.BytesIO()
        image.save(content, "PNG")
        return content.getvalue()

    monkeypatch.setattr(assistant, "page_image", drawn)
    stored = assistant.store.stored[REPORT]
    indexed_at = datetime.now(UTC).isoformat()  # what another test had drawn is not shown again
    assistant.store.stored[REPORT] = replace(stored, info=replace(stored.info, indexed_at=indexed_at))
    page.get_by_role("textbox", name="Your question").fill("What does the report say?")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="Source 1: Annual report").first.click()
    where = """() => { const image = document.querySelector('dialog.reader .picture img'); if (!image?.naturalWidth) return null;
        const box = image.getBoundingClientRect(), view = image.closest('.picture').getBoundingClientRect(), scale = box.width / 900;
        return {width: box.width, seen: box.left + 200 * scale >= view.left && box.left + 400 * scale <= view.right + 1
          && box.top + 1000 * scale >= view.top && box.top + 1030 * scale <= view.bottom}; }"""
    page.wait_for_function(f"() => ({where})()?.seen")
    before = page.evaluate(where)["width"]
    assert before >= 660
    page.get_by_role("button", name="Larger").click()
    assert page.evaluate(where)["width"] > before * 1.1
    page.get_by_role("button", name="Smaller").click()
    assert page.evaluate(where)["width"] == pytest.approx(before, abs=1)
    page.get_by_role("link", name="Next page").click()
    expect(page.locator(".leafing")).to_contain_text("Page 3 of 4")


def test_the_script_looks_for_the_highlighters_colour() -> None:
    """The page finds the words on a drawn page by the colour that the reader of PDFs lays over them."""
    drawn = Path(pdf.__file__).read_text(encoding="utf-8")
    (colour,) = re.findall(r"const HIGHLIGHT = \[([0-9, ]+)\]", (Path(library.__file__).parent / "page.js").read_text(encoding="utf-8"))
    assert f"fill=({colour})" in drawn


@pytest.mark.browser
@pytest.mark.parametrize("page", [{"viewport": {"width": width, "height": 800}} for width in (700, 780, 961)], indirect=True)
def test_names_have_room_at_every_width(page: Any, assistant: FakeAssistant) -> None:
    view = opened(page)
    box = view.get_by_role("link", name="Annual report").bounding_box()
    assert box["width"] >= 100
    assert box["x"] + box["width"] <= page.viewport_size["width"]


@pytest.mark.browser
def test_the_column_headings_stay_below_the_filter(page: Any, assistant: FakeAssistant) -> None:
    assistant.store.fill(60)
    view = opened(page)
    view.locator(".view-body").evaluate("body => body.scrollTo(0, 900)")
    page.wait_for_timeout(200)
    assert view.evaluate(
        """view => { const filter = view.querySelector('.filter').getBoundingClientRect(), head = view.querySelectorAll('th')[1].getBoundingClientRect();
        const there = document.elementFromPoint(head.left + 12, head.top + head.height / 2);
        return Math.abs(head.top - filter.bottom) <= 2 && there.matches('th'); }"""
    )


@pytest.mark.browser
def test_what_is_copied_holds_no_label(page: Any) -> None:
    """A whole text that is selected and copied is the same with pages and furniture as without their marks."""
    heard_out(page)
    page.goto(page.url + f"documents/{REPORT}?start=5&end=150")
    copied = page.evaluate(
        """() => { const text = document.querySelector('.text'); const range = document.createRange(); range.selectNodeContents(text);
        getSelection().removeAllRanges(); getSelection().addRange(range); return getSelection().toString(); }"""
    )
    assert copied.strip() == FakeStore().text(REPORT).strip()


@pytest.mark.browser
def test_the_page_view_works_without_a_script(browser: Any, address: str, assistant: FakeAssistant) -> None:
    from playwright.sync_api import expect

    page = browser.new_page(java_script_enabled=False)
    page.goto(f"{address}/documents/{REPORT}?view=page&page=2&start=100&end=110")
    expect(page.get_by_role("img")).to_be_visible()
    page.get_by_role("link", name="Next page").click()
    expect(page.get_by_role("img", name="Page 3 of")).to_be_visible()
    page.get_by_role("link", name="Text").click()
    expect(page.locator("#quote")).to_be_visible()
    page.close()


@pytest.mark.browser
def test_nothing_is_asked_of_the_server_while_nobody_looks(page: Any, assistant: FakeAssistant) -> None:
    page.wait_for_timeout(1500)
    asked: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url))
    page.wait_for_timeout(3000)
    assert asked == []
    opened(page)
    page.keyboard.press("Escape")
    page.wait_for_timeout(500)
    asked.clear()
    page.wait_for_timeout(6000)
    assert asked == []


@pytest.mark.browser
def test_work_that_goes_on_is_looked_at_once_a_second(page: Any, assistant: FakeAssistant) -> None:
    assistant.library.file_seconds = 6
    opened(page)
    page.set_input_files("#library-files", files("slow.md"))
    page.locator(".library .working").wait_for()
    page.wait_for_timeout(300)
    asked: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url))
    page.wait_for_timeout(3300)
    assert 2 <= len([url for url in asked if url.endswith("/library/work")]) <= 4


@pytest.mark.browser
@pytest.mark.parametrize("page", [{"viewport": {"width": 380, "height": 800}, "color_scheme": "dark", "reduced_motion": "reduce"}], indirect=True)
def test_the_view_fits_a_narrow_dark_screen(page: Any, assistant: FakeAssistant) -> None:
    from playwright.sync_api import expect

    name = "a_very_long_name_without_any_spaces_" * 6
    assistant.store.reject(UPLOADS, f"{name}.pdf", f"it cannot be opened ({name})")
    view = opened(page)
    fits = "document.querySelector('.library .view-body').scrollWidth <= innerWidth && document.documentElement.scrollWidth <= innerWidth"
    assert page.evaluate(fits)
    view.get_by_role("checkbox", name="Harbour Light").check()
    expect(view.locator(".chosen-bar")).to_be_visible()
    assert page.evaluate(fits)
    view.get_by_role("button", name="Remove them").or_(view.get_by_role("button", name="Remove it")).click()
    box = page.get_by_role("alertdialog").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 380
    page.get_by_role("button", name="Keep").click()
    expect(view.get_by_role("table")).to_be_visible()
    expect(view.get_by_role("row")).to_have_count(7)


@pytest.mark.browser
def test_the_view_can_be_worked_by_keyboard(page: Any, assistant: FakeAssistant) -> None:
    from playwright.sync_api import expect

    page.locator("[data-open-library]").first.focus()
    page.keyboard.press("Enter")
    view = page.get_by_role("dialog", name="Documents")
    view.locator("tbody tr").first.wait_for()
    expect(view.get_by_role("heading", name="Documents")).to_be_focused()
    first = view.get_by_role("checkbox", name="Harbour Light")
    first.focus()
    page.keyboard.press("Space")
    expect(first).to_be_checked()
    view.get_by_role("button", name="Remove Minutes").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(view.locator("tr", has_text="minutes & more")).to_contain_text("you removed it")
    assert assistant.library.calls == [("remove", (MINUTES,))]
    assert view.evaluate("view => view.contains(document.activeElement)")
    page.keyboard.press("Escape")
    expect(page.locator("[data-open-library]").first).to_be_focused()


def test_gradios_own_upload_stays_closed() -> None:
    from ui.web import NEEDED

    for request in ("POST /gradio_api/upload", "GET /gradio_api/upload_progress", "GET /gradio_api/file=/etc/hostname", "PUT /library/files"):
        assert not NEEDED.fullmatch(request)
