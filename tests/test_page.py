"""The chat page in a real Chromium, with an assistant that needs no model."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from page_browser import ARGUMENTS, CANDIDATES, ask, heard_out, served, watched
from page_fake import ARCHIVE, CITATIONS, HARBOUR, STARTERS, FakeAssistant, Status

from index.errors import StoreError
from ui import app

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
expect = sync_api.expect


@pytest.fixture(scope="module")
def assistant() -> FakeAssistant:
    return FakeAssistant()


@pytest.fixture(scope="module")
def address(assistant: FakeAssistant) -> Iterator[str]:
    with served(assistant) as address:
        yield address


@pytest.fixture
def page(browser: Any, address: str, assistant: FakeAssistant, request: pytest.FixtureRequest) -> Iterator[Any]:
    assistant.asked.clear()
    with watched(browser, address, ".starter", **getattr(request, "param", {})) as page:
        yield page


def answered(page: Any, count: int = 1) -> Any:
    """The last finished answer, once there are `count`."""
    expect(page.locator(".log .exchange")).to_have_count(count)
    return page.locator(".log .exchange").last


def in_view(page: Any, selector: str) -> bool:
    return bool(
        page.evaluate(
            """selector => { const box = document.querySelector(selector).getBoundingClientRect();
            return box.top >= 0 && box.bottom <= innerHeight && box.height > 0; }""",
            selector,
        )
    )


def test_evidence_then_draft_then_verified_answer(page: Any) -> None:
    ask(page, "How long does it take?")
    expect(page.get_by_role("textbox", name="Your question")).to_have_value("")
    expect(page.get_by_text("Reading 5 passages…")).to_be_visible()
    expect(page.locator(".passage")).to_have_count(5)
    expect(page.locator(".chip")).to_have_count(0)
    expect(page.locator(".running .draft")).to_contain_text("The crossing takes")
    expect(page.locator(".running")).to_contain_text("Draft. Not checked yet.")
    answer = answered(page)
    expect(page.locator("#running .exchange")).to_have_count(0)
    expect(answer.locator(".answer > p .chip, .answer > ul .chip")).to_have_count(5)
    expect(answer.locator(".sources .chip")).to_have_count(5)
    expect(answer.locator(".unsupported")).to_have_text("She is painted green.")
    expect(answer).to_contain_text("not supported by the documents")
    assert page.locator(".passage mark").all_text_contents() == [citation.quote for citation in CITATIONS]
    assert page.title() == "Citewell"
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.get_by_role("log").get_attribute("aria-live") == "polite"
    expect(page.locator("footer, .progress-text, .eta-bar")).to_have_count(0)


def test_a_chip_opens_the_exact_quote_and_gives_the_focus_back(page: Any) -> None:
    ask(page, "How long does it take?")
    chip = answered(page).get_by_role("link", name="Source 5: The town archive of Aldmouth").first
    began = time.monotonic()
    chip.click()
    expect(page.locator("dialog[open] #quote")).to_have_text(CITATIONS[4].quote)
    page.wait_for_function(
        "() => { const box = document.querySelector('#quote').getBoundingClientRect(); return box.top > 0 && box.bottom < innerHeight }"
    )
    assert time.monotonic() - began < 5, "three megabytes of text must open quickly"
    assert page.locator("#quote").evaluate("mark => mark.textContent") == CITATIONS[4].quote
    assert page.locator("dialog .document .text").evaluate("text => text.textContent.length") == len(ARCHIVE)
    page.keyboard.press("Escape")
    expect(page.locator("dialog[open]")).to_have_count(0)
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Source 5: The town archive of Aldmouth"
    first = page.locator(".log .chip").first
    first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("dialog[open] #quote")).to_have_text(CITATIONS[0].quote)
    assert page.locator("dialog .document .text").evaluate("text => text.textContent") == HARBOUR
    page.get_by_role("button", name="Close").click()
    expect(first).to_be_focused()


def test_who_goes_on_before_the_page_hears_that_the_document_was_closed_is_not_called_back(page: Any) -> None:
    ask(page, "How long does it take?")
    last = answered(page).get_by_role("link", name="Source 5: The town archive of Aldmouth").first
    last.click()
    expect(page.locator("dialog[open] #quote")).to_have_text(CITATIONS[4].quote)
    # The browser tells of it in a task of its own, and lets another come first.
    page.evaluate("() => { document.querySelector('dialog[open]').close(); document.querySelector('.log .chip').focus(); }")
    page.evaluate("() => new Promise((go) => setTimeout(go, 200))")
    expect(page.locator(".log .chip").first).to_be_focused()
    last.click()
    expect(page.locator("dialog[open] #quote")).to_have_text(CITATIONS[4].quote)
    page.evaluate("() => { document.querySelector('dialog[open]').close(); document.querySelector('.log .chip').click(); }")
    expect(page.locator("dialog[open] #quote")).to_have_text(CITATIONS[0].quote)
    page.evaluate("() => new Promise((go) => setTimeout(go, 200))")
    expect(page.locator("dialog[open] #quote")).to_have_text(CITATIONS[0].quote)


@pytest.mark.parametrize("page", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True)
def test_the_number_of_a_focused_chip_can_be_read(page: Any) -> None:
    ask(page, "How long does it take?")
    chip = answered(page).locator(".chip").first
    colours = "chip => [getComputedStyle(chip).color, getComputedStyle(chip).backgroundColor, chip.matches(':focus-visible')]"
    page.keyboard.press("Tab")
    chip.focus()
    number, behind, focused = chip.evaluate(colours)
    assert focused
    assert number != behind
    chip.click()
    page.keyboard.press("Escape")
    number, behind, _ = chip.evaluate(colours)
    assert number != behind


def test_a_question_back_is_shown_as_one(page: Any) -> None:
    ask(page, "An ambiguous one?")
    expect(answered(page).locator(".asking")).to_contain_text("A question back")
    expect(answered(page)).not_to_contain_text("Not in the documents")


def test_what_is_said_while_one_waits_changes_after_a_while(page: Any, assistant: FakeAssistant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assistant, "reading_seconds", 3.0)
    ask(page, "How long does it take?")
    expect(page.locator("[data-phase=evidence] .elapsed")).not_to_have_text("")
    expect(page.locator(".later")).to_have_css("display", "none")
    page.evaluate("() => { const now = Date.now; Date.now = () => now() + 60000; }")
    expect(page.locator(".at-first")).to_have_css("display", "none")
    expect(page.locator(".later")).not_to_have_css("display", "none")
    answered(page)


def test_a_chip_opens_in_a_tab_of_its_own(page: Any, address: str) -> None:
    ask(page, "How long does it take?")
    chip = answered(page).locator(".chip").nth(4)
    heard_out(page)
    page.goto(address + str(chip.get_attribute("href")))
    expect(page.locator("#quote")).to_have_text(CITATIONS[4].quote)
    page.wait_for_function(
        "() => { const box = document.querySelector('#quote').getBoundingClientRect(); return box.top > 0 && box.bottom < innerHeight }"
    )
    assert page.title() == "The town archive of Aldmouth · Citewell"


def test_stop_keeps_the_draft_and_retry_replaces_it(page: Any, assistant: FakeAssistant) -> None:
    ask(page, "A slow one?")
    expect(page.locator(".running .draft")).to_contain_text("42 minutes")
    expect(page.get_by_role("button", name="Send")).to_have_count(0)
    ask(page, "A second question meanwhile?")
    page.wait_for_timeout(300)
    assert len(assistant.asked) == 1
    assistant.closed.clear()
    page.get_by_role("button", name="Stop").click()
    expect(answered(page).locator(".stopped")).to_contain_text("42 minutes")
    expect(page.locator(".stopped")).to_contain_text("Stopped. Not verified.")
    expect(page.locator("#running .exchange")).to_have_count(0)
    assert assistant.closed.wait(5), "the assistant's stream was not closed"
    expect(page.get_by_role("textbox", name="Your question")).to_have_value("A second question meanwhile?")
    page.get_by_role("button", name="Send").click()
    answered(page, 2)
    assert assistant.asked[-1] == ("A second question meanwhile?", ())
    ask(page, "And a third?")
    answered(page, 3)
    assert [turn.role for turn in assistant.asked[-1][1]] == ["user", "assistant"]
    expect(page.locator(".searched")).to_contain_text("About the ferry: And a third?")
    page.get_by_role("button", name="Retry").click()
    expect(page.locator(".running .question")).to_contain_text("And a third?")
    expect(page.locator(".log .exchange")).to_have_count(2)
    answered(page, 3)
    assert assistant.asked[-1] == assistant.asked[-2]
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator(".starter")).to_have_count(len(STARTERS))
    expect(page.locator(".exchange, .passage")).to_have_count(0)
    expect(page.get_by_role("button", name="Retry")).to_have_count(0)


def test_problems_are_plain_and_keep_the_question(page: Any) -> None:
    ask(page, "A forbidden question")
    expect(answered(page, 1)).to_contain_text("shorten it to 4,000 characters")
    ask(page, "A crash?")
    expect(answered(page, 2)).to_contain_text("Something went wrong")
    assert "secret" not in page.content()
    assert "Traceback" not in page.content()
    expect(page.locator(".log .question").last).to_contain_text("A crash?")
    ask(page, "Something unknown?")
    refusal = answered(page, 3).locator(".abstained")
    expect(refusal).to_contain_text("The documents do not say.")
    expect(refusal).to_contain_text("Not in the documents")
    ask(page, "With a notice?")
    expect(answered(page, 4).locator(".notice")).to_contain_text("cut off")
    ask(page, "   ")
    page.wait_for_timeout(300)
    answered(page, 4)


def test_a_question_sent_while_the_answer_before_it_is_being_kept_is_asked_after_it(
    page: Any, assistant: FakeAssistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, kept = app.kept_conversations.keep, threading.Event()

    def slowly(*parts: Any) -> Any:
        assert kept.wait(10)
        return keep(*parts)

    monkeypatch.setattr(app.kept_conversations, "keep", slowly)
    ask(page, "How long does it take?")
    answered(page, 1)
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    expect(page.get_by_role("button", name="New conversation")).to_have_count(0)
    ask(page, "And at night?")
    kept.set()
    answered(page, 2)
    assert [question for question, _ in assistant.asked] == ["How long does it take?", "And at night?"]
    expect(page.get_by_role("textbox", name="Your question")).to_have_value("")
    # Nor is it sent twice, however often Enter is pressed.
    kept.clear()
    ask(page, "Once?")
    answered(page, 3)
    ask(page, "Twice?")
    for _ in range(3):
        page.keyboard.press("Enter")
    kept.set()
    answered(page, 4)
    page.wait_for_timeout(300)
    answered(page, 4)
    assert [question for question, _ in assistant.asked][2:] == ["Once?", "Twice?"]
    # One who goes on typing has not sent what is in the box by now.
    kept.clear()
    ask(page, "A fifth?")
    answered(page, 5)
    page.get_by_role("button", name="Right", exact=True).last.click()  # left out, as the keeping would undo it, or heard once all is kept
    ask(page, "A sixth")
    page.keyboard.type(" and more")
    kept.set()
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    page.wait_for_timeout(300)
    answered(page, 5)
    expect(page.get_by_role("textbox", name="Your question")).to_have_value("A sixth and more")
    # The Enter that ends a word of Japanese or Chinese sends nothing; browsers tell of it in two ways.
    for composing in ({"isComposing": True}, {"keyCode": 229}):
        kept.clear()
        asked = len(assistant.asked)
        ask(page, "A sixth?")
        answered(page, asked + 1)
        box = page.get_by_role("textbox", name="Your question")
        box.fill("橋はいつ")
        box.evaluate(
            "(box, how) => box.dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', bubbles: true, cancelable: true, ...how}))", composing
        )
        kept.set()
        expect(page.get_by_role("button", name="Send")).to_be_enabled()
        page.wait_for_timeout(300)
        assert len(assistant.asked) == asked + 1
        expect(box).to_have_value("橋はいつ")
        box.fill("")


def test_a_store_that_is_away_keeps_nobody_from_asking_on(page: Any, assistant: FakeAssistant, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> Any:
        raise StoreError("The PostgreSQL server does not answer.")

    monkeypatch.setattr(assistant.store, "latest", away)
    ask(page, "How long does it take?")
    answered(page, 1)
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    ask(page, "And at night?")
    answered(page, 2)


def test_after_stop_asking_goes_on_however_slow_the_store_is(page: Any, assistant: FakeAssistant, monkeypatch: pytest.MonkeyPatch) -> None:
    latest = assistant.store.latest

    def slowly(count: int) -> Any:
        time.sleep(1)
        return latest(count)

    monkeypatch.setattr(assistant.store, "latest", slowly)
    ask(page, "A slow one?")
    expect(page.locator(".running .draft")).to_contain_text("42 minutes")
    page.get_by_role("button", name="Stop").click()
    expect(answered(page, 1).locator(".stopped")).to_be_visible()
    page.wait_for_timeout(2_500)
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)
    ask(page, "And now?")
    answered(page, 2)


def test_a_request_that_fails_after_the_answer_disables_nothing_for_good(browser: Any, address: str) -> None:
    joined: list[str] = []

    def refused(route: Any) -> None:
        joined.append(route.request.url)
        if len(joined) == 2:  # the first is the question, the second says that its answer has been put away
            route.fulfill(status=429, json={"error": "Too many requests at once; wait a moment."})
        else:
            route.continue_()

    page = browser.new_page()
    page.goto(address)
    page.locator(".starter").first.wait_for()
    page.route("**/gradio_api/queue/join*", refused)
    ask(page, "How long does it take?")
    answered(page, 1)
    expect(page.get_by_role("button", name="Send")).to_be_disabled()
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    ask(page, "And at night?")
    answered(page, 2)
    page.close()


def test_starters_documents_and_new_lines(page: Any, assistant: FakeAssistant) -> None:
    page.get_by_role("link", name="Minutes").click()
    expect(page.locator("dialog[open] .text")).to_contain_text("<script>window.hacked = 1</script>")
    expect(page.locator("dialog[open] .text")).to_contain_text("${1+1} {{value}}")
    page.keyboard.press("Escape")
    box = page.get_by_role("textbox", name="Your question")
    box.fill("one")
    box.press("Shift+Enter")
    box.press_sequentially("two")
    expect(box).to_have_value("one\ntwo")
    page.get_by_role("button", name=STARTERS[1]).click()
    answered(page)
    assert assistant.asked[-1][0] == STARTERS[1]
    expect(box).to_have_value("one\ntwo")
    expect(page.locator(".welcome")).to_have_count(0)


def test_the_model_banner_goes_when_the_model_is_ready(page: Any, assistant: FakeAssistant) -> None:
    expect(page.locator(".banner")).to_have_count(0)
    assistant.status = Status("loading", "The model is still loading; answers start in about a minute.")
    try:
        heard_out(page)
        page.reload()
        expect(page.locator(".banner")).to_contain_text("still loading")
    finally:
        assistant.status = Status()
    expect(page.locator(".banner")).to_have_count(0)


@pytest.mark.parametrize("page", [{"viewport": {"width": 380, "height": 800}, "color_scheme": "dark", "reduced_motion": "reduce"}], indirect=True)
def test_a_narrow_dark_screen(page: Any) -> None:
    narrow = "document.documentElement.scrollWidth <= innerWidth"
    assert page.evaluate(narrow)
    ask(page, "How long does it take?")
    answered(page)
    assert page.evaluate(narrow)
    assert in_view(page, "#ask")
    expect(page.locator(".passage").first).to_be_hidden()
    page.get_by_text("Show 5 passages").click()
    expect(page.locator(".passage").first).to_be_visible()
    assert page.evaluate(narrow)
    page.locator(".log .chip").first.click()
    expect(page.locator("dialog[open] #quote")).to_be_visible()
    assert in_view(page, "#quote")
    luminance = "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).slice(0, 3).map(Number).reduce((a, b) => a + b)"
    assert page.evaluate(luminance) < 120


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/documents/nothing", 404, "No such document"),
        ("/documents/a1f0-ferry", 200, "Harbour Light"),
        ("/documents/b2%2Farchive?start=0&end=8&fragment=1", 200, '<mark id="quote" tabindex="-1">The town</mark>'),
        ("/documents/a1f0-ferry?start=5", 400, "does not fit"),
        ("/documents/a1f0-ferry?start=0&end=999999", 400, "does not fit"),
        ("/gradio_api/file=/etc/hostname", 404, "Not found"),
        ("/gradio_api/proxy=https://example.com", 404, "Not found"),
        ("/gradio_api/openapi.json", 404, "Not found"),
        ("/gradio_api/info", 404, "Not found"),
        ("/monitoring", 404, "Not found"),
        ("/", 200, "<title>Citewell</title>"),
    ],
)
def test_addresses(address: str, path: str, status: int, words: str) -> None:
    from urllib.error import HTTPError

    try:
        response = urlopen(Request(address + path, headers={"Accept-Encoding": "gzip, br"}))
    except HTTPError as error:
        response = error
    body = response.read().decode()
    assert response.status == status
    assert words in body
    assert "http-equiv" not in body
    assert "og:image" not in body
    if status == 200:
        assert "default-src" in response.headers["Content-Security-Policy"]


def test_a_question_typed_before_the_page_is_open_is_asked_once_it_is(browser: Any) -> None:
    class Slow(FakeAssistant):
        def starters(self) -> tuple[str, ...]:
            time.sleep(1.5)
            return STARTERS

    assistant = Slow()
    with served(assistant) as address, watched(browser, address, "#ask textarea") as page:
        loads: list[Any] = []
        page.on("load", lambda loaded: loads.append(loaded))
        ask(page, "How long does it take?")
        expect(page.locator("#running")).to_contain_text("Opening your documents…")
        answered(page)
        assert [question for question, _ in assistant.asked] == ["How long does it take?"]
        assert not loads
        expect(page.get_by_role("textbox", name="Your question")).to_have_value("")


def test_a_server_that_goes_and_comes_back_leaves_the_conversation_to_be_read(browser: Any) -> None:
    assistant = FakeAssistant()
    page = browser.new_page()
    box = page.get_by_role("textbox", name="Your question")
    with served(assistant) as address:
        port = int(address.rpartition(":")[2])
        page.goto(address)
        page.locator(".starter").first.wait_for()
        ask(page, "How long does it take?")
        answered(page)
        ask(page, "A slow one?")
        expect(page.locator(".running .draft")).to_contain_text("The crossing")
        box.fill("Typed meanwhile")
    expect(page.get_by_role("alert")).to_contain_text("Citewell does not answer")
    expect(page.locator(".running .cut")).to_be_visible()
    for gone in (".toast-body", ".running .status", "#stop", ".wrap .error"):
        assert page.locator(gone).filter(visible=True).count() == 0, gone
    counted = page.locator(".elapsed").text_content()
    page.wait_for_timeout(1500)
    assert page.locator(".elapsed").text_content() == counted
    # What was kept comes back; what was cut off is there to be read.
    with served(assistant, port):
        earlier = page.get_by_role("region", name="Earlier conversation")
        expect(earlier.locator(".exchange")).to_have_count(1)
        expect(earlier).to_contain_text("A slow one?")
        expect(earlier).to_contain_text("Citewell stopped before the answer was finished.")
        expect(earlier.locator("button")).to_have_count(1)
        expect(answered(page)).to_contain_text("42 minutes in calm weather.")
        expect(box).to_have_value("Typed meanwhile")
        ask(page, "Something unknown?")
        answered(page, 2)
        assert [turn.text for turn in assistant.asked[-1][1]][:1] == ["How long does it take?"]
        expect(page.get_by_role("button", name="Send")).to_be_enabled()  # an answer is shown before it is kept
    # Started again while nobody asked: the page learns of it with the next question, which is neither lost nor answered without its conversation.
    with served(assistant, port):
        page.evaluate("window.before = true")
        with page.expect_event("load"):
            ask(page, "And when nobody noticed?")
        expect(page.locator(".log .exchange")).to_have_count(2)
        assert page.evaluate("window.before") is None
        expect(box).to_have_value("And when nobody noticed?")
        assert assistant.asked[-1][0] == "Something unknown?"
        box.focus()
        expect(earlier.locator(".exchange")).to_have_count(1)
        page.keyboard.press("Enter")
        answered(page, 3)
        page.get_by_role("button", name="New conversation").click()
        expect(earlier).to_be_hidden()
        expect(page.locator(".starter").first).to_be_visible()
        assert "conversation" not in page.url
    page.close()


def test_nothing_jumps_when_a_notice_goes(browser: Any) -> None:
    assistant = FakeAssistant(status=Status("loading", "The model is still loading; answers start in about a minute."))
    assistant.store.fill(30)
    left = "document.querySelector('.masthead svg').getBoundingClientRect().left"
    path = next((path for path in CANDIDATES if Path(path).exists()), None)
    with_bars = browser.browser_type.launch(executable_path=path, args=ARGUMENTS, ignore_default_args=["--hide-scrollbars"])
    with served(assistant) as address, watched(with_bars, address, ".starter") as page:
        expect(page.locator(".banner").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollHeight <= innerHeight"), "an empty page has no scroll bar of its own"
        before = page.evaluate(left)
        assistant.status = Status()
        expect(page.locator("#status .banner")).to_have_count(0)
        assert page.evaluate(left) == before
        ask(page, "How long does it take?")
        answered(page)
        assert page.evaluate(left) == before
        page.set_viewport_size({"width": 780, "height": 800})
        heading, label = page.locator(".documents h2").bounding_box(), page.locator(".documents .toggle + label").bounding_box()
        assert label["x"] >= heading["x"] + heading["width"] + 8
    with_bars.close()


def test_documents_have_no_outside_addresses(address: str) -> None:
    assert b"https://" not in urlopen(address + "/documents/a1f0-ferry").read()
