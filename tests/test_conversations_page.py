"""Conversations in the page: kept, brought back, listed, judged; with fakes, and in a real Chromium."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from page_browser import ask, heard_out, served, watched
from page_fake import CITATIONS, FERRY, HARBOUR, HITS, QUAY, REPORT, REPORT_CITATIONS, REPORT_HITS, TEXT, TOWN, FakeAssistant, FakeService, FakeStore

from index.database import Database
from index.errors import StoreError
from rag import conversations as talks
from rag.accounts import LOCAL
from rag.conversations import REASON_LENGTH, ConversationInfo, Conversations
from rag.evaluation import sets
from rag.evaluation.cases import cases_file
from rag.types import Answer, Timings, Usage
from ui import conversations as view
from ui import kept, render
from ui.chat import Conversation, Waiting

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANN, BEN = "a" * 32, "b" * 32


def an_answer(question: str = "How long does it take?", text: str = TEXT, **values: Any) -> Answer:
    made = Answer(
        question, question, text, False, CITATIONS, ("She is painted green.",), HITS, "fake", Timings(1.0, None, 2.0), Usage(1, 2), ("Cut off.",)
    )
    return replace(made, **values)


def asked(question: str, value: Conversation | None = None) -> Conversation:
    return (value or Conversation()).asking(question).after(an_answer(question))


@pytest.fixture
def conversations(database: Database) -> Conversations:
    return Conversations(database)


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


def back(conversations: Conversations, store: FakeStore, value: Conversation, user: str = ANN) -> Conversation:
    return kept.bring_back(conversations, store, user, value.id)


# Values


def test_an_answer_comes_back_from_json_as_it_was() -> None:
    answer = an_answer(confidence=0.7, conflicts=("They disagree.",), evidence=REPORT_HITS, citations=REPORT_CITATIONS)
    assert Answer.from_dict(json.loads(json.dumps(answer.to_dict()))) == answer
    earlier = {name: value for name, value in answer.to_dict().items() if name not in ("conflicts", "confidence", "notices", "asks_back")}
    assert Answer.from_dict({**earlier, "later": 1}).notices == ()
    for missing in ("text", "citations", "timings"):
        with pytest.raises((KeyError, TypeError)):
            Answer.from_dict({name: value for name, value in answer.to_dict().items() if name != missing})


def test_answers_are_kept_in_one_conversation_begun_by_the_first(conversations: Conversations, store: FakeStore) -> None:
    first = kept.keep(conversations, ANN, asked("How long does it take?"))
    both = kept.keep(conversations, ANN, asked("And in winter?", first))
    assert first.id == both.id
    assert [exchange.note for exchange in both.finished] == ["", ""]
    (info,) = conversations.listing(ANN)
    assert (info.id, info.title, info.exchanges) == (first.id, "How long does it take?", 2)
    again = back(conversations, store, both)
    assert [exchange.answer for exchange in again.finished] == [exchange.answer for exchange in both.finished]
    assert [exchange.hits for exchange in again.finished] == [HITS, HITS]
    assert again.own
    assert again.history() == both.history()
    assert render.transcript_html(again).count("chip") == render.transcript_html(both).count("chip")


def test_what_was_stopped_or_failed_is_not_kept(conversations: Conversations) -> None:
    stopped = Conversation().asking("How long?").stopped()
    assert kept.keep(conversations, ANN, stopped) is stopped
    assert conversations.listing(ANN) == []


def test_a_retry_takes_the_place_of_what_it_repeats_once_there_is_an_answer(conversations: Conversations, store: FakeStore) -> None:
    first = kept.keep(conversations, ANN, asked("How long does it take?"))
    failed = first.retrying().failed("The model is away.")
    assert len(back(conversations, store, first).finished) == 1, "the old answer is there until there is a new one"
    again = kept.keep(conversations, ANN, failed.retrying().after(an_answer(text="Forty-two minutes.")))
    assert [exchange.answer.text for exchange in back(conversations, store, again).finished if exchange.answer] == ["Forty-two minutes."]
    assert again.finished[-1].replaces == ""


def test_a_conversation_that_was_deleted_meanwhile_is_begun_anew_and_that_is_said(conversations: Conversations, store: FakeStore) -> None:
    first = kept.keep(conversations, ANN, asked("How long does it take?"))
    conversations.delete(first.id, ANN)
    again = kept.keep(conversations, ANN, first.retrying().after(an_answer()))
    assert again.id != first.id
    assert kept.BEGUN_ANEW in render.transcript_html(again)
    assert len(back(conversations, store, again).finished) == 1


def test_an_answer_that_cannot_be_kept_stays_on_the_page_and_says_so(
    conversations: Conversations, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> str:
        raise StoreError("The store in /srv/secret could not be written (disk full).")

    monkeypatch.setattr(conversations, "add", broken)
    with caplog.at_level(logging.ERROR):
        value = kept.keep(conversations, ANN, asked("How long does it take?"))
    html = render.transcript_html(value)
    assert "42 minutes in calm weather" in html
    assert "could not be kept" in html
    assert "secret" not in html
    assert "disk full" in caplog.text
    monkeypatch.undo()
    judged = kept.judge(conversations, ANN, None, value, value.finished[0].key, "wrong", "")
    assert kept.GONE_VERDICT in render.transcript_html(judged)


def test_an_answer_that_is_one_too_many_stays_on_the_page_and_says_what_to_delete(
    conversations: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = kept.keep(conversations, ANN, asked("How long does it take?"))
    monkeypatch.setattr(talks, "MOST_EXCHANGES", 1)
    monkeypatch.setattr(talks, "MOST_CONVERSATIONS", 1)
    for value, advice in ((asked("And in winter?", first), "Begin a new one"), (asked("Another thing?"), "Delete some of them first.")):
        html = render.transcript_html(kept.keep(conversations, ANN, value))
        assert html.count("<article") == len(value.finished)
        assert kept.TOO_MUCH in html
        assert advice in html
    assert conversations.info(first.id, ANN).exchanges == 1


@pytest.mark.parametrize("identifier", ["none", "", "../..", "' OR 1=1 --"])
def test_an_id_that_is_not_there_or_not_ones_own_begins_a_new_conversation(identifier: str, conversations: Conversations, store: FakeStore) -> None:
    bens = kept.keep(conversations, BEN, asked("A question of ben?"))
    missing = kept.bring_back(conversations, store, ANN, identifier)
    assert missing == back(conversations, store, bens, ANN) == Conversation(notice=kept.UNKNOWN)
    assert kept.UNKNOWN in render.transcript_html(missing)


def test_a_damaged_conversation_is_told_and_no_more(conversations: Conversations, store: FakeStore, database: Database) -> None:
    value = kept.keep(conversations, ANN, asked("How long does it take?"))
    with database.transaction() as connection:
        connection.execute("UPDATE exchanges SET answer = '{}'")
    assert back(conversations, store, value) == Conversation(notice=kept.UNREADABLE)


def test_what_others_shared_is_read_and_not_changed(conversations: Conversations, store: FakeStore) -> None:
    bens = kept.keep(conversations, BEN, asked("A question of ben?"))
    conversations.judge(bens.finished[0].kept, BEN, "wrong", "It is <b>an hour</b>.")
    conversations.share(bens.id, BEN, True)
    value = back(conversations, store, bens)
    assert not value.own
    html = render.transcript_html(value)
    assert kept.READ_ONLY in html
    assert "an hour" not in html
    assert "Marked as" not in html
    assert "<button" not in html
    assert kept.judge(conversations, ANN, None, value, value.finished[0].key, "right", "") is value


def test_whoever_reads_is_not_told_whether_a_document_is_there(conversations: Conversations, store: FakeStore) -> None:
    bens = kept.keep(conversations, BEN, asked("A question of ben?"))
    conversations.share(bens.id, BEN, True)
    del store.stored[TOWN]
    value = back(conversations, store, bens)
    html, evidence = render.transcript_html(value), render.evidence_html(value.latest)
    assert html.count("not yours to open, or no longer there</span>") == 1
    assert html.count(render.NOT_YOURS) == 1
    assert evidence.count("not yours to open, or no longer there</span>") == 1
    for told in (html, evidence):
        assert "document gone" not in told
        assert render.CHANGED_SINCE not in told
        assert f'href="/documents/{TOWN.replace("/", "%2F")}' not in told
    own = render.transcript_html(back(conversations, store, bens, BEN))
    assert "document gone" in own
    assert render.NOT_YOURS not in own


# What has changed since


def changed(store: FakeStore, document_id: str, text: str) -> None:
    store.stored[document_id] = replace(store.stored[document_id], text=text)


def test_quotes_stay_and_tell_what_became_of_their_documents(conversations: Conversations, store: FakeStore) -> None:
    value = kept.keep(conversations, ANN, asked("How long does it take?"))
    assert "changed since" not in render.transcript_html(back(conversations, store, value))
    changed(store, FERRY, "New: no dogs.\n" + HARBOUR.replace("built in Gdansk in 2014", "built in Bergen in 2015"))
    del store.stored[TOWN]
    (exchange,) = back(conversations, store, value).finished
    assert {number: now.state for number, now in exchange.citations_now.items()} == {
        1: "changed",
        2: "changed",
        3: "changed",
        4: "changed",
        5: "gone",
    }
    html = render.transcript_html(Conversation((exchange,)))
    for citation in CITATIONS:
        assert render.escape(citation.quote) in html, "the whole of it"
    assert html.count("changed since</span>") == 4
    assert html.count("document gone</span>") == 1
    assert render.CHANGED_SINCE in html
    moved = CITATIONS[0].start + len("New: no dogs.\n")
    assert f'href="/documents/{FERRY}?start={moved}&amp;end={moved + len(CITATIONS[0].quote)}#quote"' in html
    assert f'href="/documents/{FERRY}" aria-label="Source 4' in html, "what stands nowhere any more opens its document, and marks nothing in it"
    assert f'href="/documents/{TOWN.replace("/", "%2F")}' not in html
    evidence = render.evidence_html(exchange)
    assert evidence.count("changed since</span>") == 3
    assert evidence.count("document gone</span>") == 1
    assert f'href="/documents/{FERRY}?start={HITS[0].passage.span.start}' not in evidence
    assert evidence.count("<mark>") > 3


def test_a_quote_on_a_page_opens_the_text_where_it_has_moved(conversations: Conversations, store: FakeStore) -> None:
    value = (
        Conversation()
        .asking("The report?")
        .after(an_answer("The report?", "It was. [1]", citations=REPORT_CITATIONS, evidence=REPORT_HITS, unsupported=()))
    )
    value = kept.keep(conversations, ANN, value)
    assert "view=page" in render.transcript_html(back(conversations, store, value))
    changed(store, REPORT, "x" + store.text(REPORT))
    html = render.transcript_html(back(conversations, store, value))
    assert "view=page" not in html
    assert f"start={store.text(REPORT).index(QUAY)}" in html


# Feedback


def test_a_verdict_and_its_reason_are_kept_with_the_answer(conversations: Conversations, store: FakeStore, tmp_path: Path) -> None:
    value = kept.keep(conversations, LOCAL, asked("How long does it take?"))
    key = value.finished[0].key
    wrong = kept.judge(conversations, LOCAL, tmp_path, value, key, "wrong", "")
    reasoned = kept.judge(conversations, LOCAL, tmp_path, wrong, key, "wrong", 'It is "40" minutes.')
    assert len(sets.load(cases_file(tmp_path))) == 1
    again = kept.bring_back(conversations, store, LOCAL, value.id, tmp_path)
    exchange = again.finished[0]
    assert (exchange.verdict, exchange.reason, exchange.case) == ("wrong", 'It is "40" minutes.', reasoned.finished[0].case)
    assert 'value="It is &quot;40&quot; minutes."' in render.transcript_html(again)
    right = kept.judge(conversations, LOCAL, tmp_path, again, exchange.key, "right", "")
    assert sets.load(cases_file(tmp_path)) == []
    assert "Marked as right." in render.transcript_html(right)
    undone = kept.judge(conversations, LOCAL, tmp_path, right, exchange.key, "", "")
    assert (undone.finished[0].verdict, conversations.exchanges(value.id, LOCAL)[0].verdict) == ("", "")


def test_where_several_people_ask_no_case_is_kept(conversations: Conversations, tmp_path: Path) -> None:
    value = kept.keep(conversations, ANN, asked("A private question?"))
    judged = kept.judge(conversations, ANN, None, value, value.finished[0].key, "wrong", "")
    assert "citewell evaluate" not in render.transcript_html(judged)
    assert conversations.exchanges(value.id, ANN)[0].verdict == "wrong"


def test_a_verdict_that_cannot_be_kept_is_told(conversations: Conversations, monkeypatch: pytest.MonkeyPatch) -> None:
    value = kept.keep(conversations, ANN, asked("How long does it take?"))
    key = value.finished[0].key
    too_long = kept.judge(conversations, ANN, None, value, key, "wrong", "x" * (REASON_LENGTH + 1))
    assert "The reason is too long." in render.transcript_html(too_long)

    def broken(*_: Any) -> None:
        raise StoreError("The store in /srv/secret could not be written.")

    monkeypatch.setattr(conversations, "judge", broken)
    html = render.transcript_html(kept.judge(conversations, ANN, None, value, key, "wrong", ""))
    assert kept.UNKEPT_VERDICT in html
    assert "secret" not in html
    monkeypatch.undo()
    conversations.delete(value.id, ANN)
    assert kept.GONE_VERDICT in render.transcript_html(kept.judge(conversations, ANN, None, value, key, "wrong", ""))


# Waiting


def test_a_question_that_waits_says_how_many_are_before_it() -> None:
    value = Conversation().asking("How long?")
    for ahead, words in ((2, "2 questions are before yours"), (1, "1 question is before yours"), (0, "Searching the documents")):
        assert words in render.running_html(value.after(Waiting(ahead)).running)


# The list


def info(title: str = "How long?", owner: str = ANN, shared: bool = False, snippet: str = "", number: int = 1) -> ConversationInfo:
    return ConversationInfo(f"{number:032x}", owner, title, "2026-02-01T00:00:00+00:00", "2026-03-01T11:00:00+00:00", shared, 2, snippet)


def test_the_list_shows_what_its_reader_may_do() -> None:
    hostile = '<img src=x onerror="window.hacked=1">'
    own = view.listing_html([info(hostile, snippet=hostile)], ANN, NOW)
    assert "<img" not in own
    assert "2 questions · " in own
    assert ">1 hour ago<" in own
    assert re.findall(r"data-(rename|share|delete)=", own) == ["rename", "delete"], "on an open Citewell there is nobody to share with"
    assert [kind for kind in ("md", "json") if f"/export?format={kind}" in own] == ["md", "json"]
    with_others = view.listing_html([info(), info(shared=True, number=2)], ANN, NOW, open=False)
    assert re.findall(r'data-shared="(\w+)"', with_others) == ["true", "false"]
    foreign = view.listing_html([info(owner=BEN, shared=True)], ANN, NOW, open=False)
    assert "shared by somebody else" in foreign
    assert BEN not in foreign
    assert not re.search(r"data-(rename|share|delete)=", foreign)
    assert "There are no conversations yet" in view.listing_html([], ANN, NOW)
    assert "No conversation has these words" in view.listing_html([], ANN, NOW, words="ferry")


def test_the_list_is_paged() -> None:
    assert "turning" not in view.listing_html([info()], ANN, NOW)
    assert 'data-page="2">Older' in view.listing_html([info()], ANN, NOW, 1, True)
    assert 'data-page="1">Newer' in view.listing_html([info()], ANN, NOW, 2, False)


# In the browser


@pytest.fixture(scope="module")
def expect() -> Any:
    return pytest.importorskip("playwright.sync_api").expect


@pytest.mark.browser
def test_a_reload_brings_the_conversation_back(browser: Any, expect: Any) -> None:
    service = FakeService(FakeAssistant(reading_seconds=0.05, token_seconds=0.0))
    with served(service) as address, watched(browser, address, ".starter") as page:
        ask(page, "How long does it take?")
        expect(page.locator(".log .exchange")).to_have_count(1)
        page.wait_for_url(re.compile(r"\?conversation=[0-9a-f]{32}$"))
        first = page.url
        heard_out(page)
        page.reload()
        expect(page.locator(".log .answer .chips .chip")).to_have_count(5)
        expect(page.locator(".passage")).to_have_count(5)
        assert page.url == first
        # What is asked now leans on what was asked before.
        ask(page, "And in winter?")
        expect(page.locator(".log .exchange")).to_have_count(2)
        assert len(service.assistant.asked[-1][1]) == 2
        # Feedback with a reason, by the keyboard alone.
        page.get_by_role("button", name="Not right?").last.press("Enter")
        expect(page.get_by_role("button", name="Undo")).to_be_focused()
        page.keyboard.press("Tab")
        expect(page.get_by_label("What is wrong?")).to_be_focused()
        page.keyboard.type("In winter it takes longer.")
        page.keyboard.press("Enter")
        expect(page.locator(".saved")).to_be_visible()
        page.get_by_role("button", name="Right").first.click()
        expect(page.locator(".verdict").first).to_contain_text("Marked as right.")
        heard_out(page)
        changed(service.assistant.store, FERRY, "All is new.")
        page.reload()
        expect(page.get_by_label("What is wrong?")).to_have_value("In winter it takes longer.")
        expect(page.locator(".verdict").first).to_contain_text("Marked as right.")
        expect(page.locator(".log .since").first).to_have_text("changed since")
        page.get_by_role("button", name="Retry").click()
        expect(page.locator("#running .exchange")).to_have_count(0)
        expect(page.locator(".log .exchange").last.locator(".verdict")).to_contain_text("Not right?")
        page.get_by_role("button", name="New conversation").click()
        expect(page.locator(".starter").first).to_be_visible()
        assert "conversation" not in page.url
        ask(page, "Another thing entirely?")
        page.wait_for_url(re.compile(r"\?conversation="))
        heard_out(page)

        # The list: newest first, searched, renamed, exported, deleted.
        page.get_by_role("button", name="Conversations").press("Enter")
        dialog = page.get_by_role("dialog", name="Conversations")
        rows = dialog.get_by_role("listitem")
        expect(rows).to_have_count(2)
        expect(rows.first).to_contain_text("Another thing entirely?")
        expect(rows.nth(1)).to_contain_text("2 questions")
        expect(rows.first.get_by_role("link").first).to_have_attribute("aria-current", "page")
        dialog.get_by_role("searchbox").fill("winter")
        expect(rows).to_have_count(1)
        rows.first.get_by_role("button", name="Rename").click()
        box = page.get_by_role("alertdialog")
        box.get_by_role("textbox").fill("Ferries <b>in winter</b>")
        page.keyboard.press("Enter")
        expect(rows.first.get_by_role("link").first).to_have_text("Ferries <b>in winter</b>")
        expect(rows.first.get_by_role("button", name="Rename")).to_be_focused()
        with page.expect_download() as download:
            rows.first.get_by_role("link", name="as Markdown").click()
        assert download.value.suggested_filename.endswith(".md")
        assert "[^1]" in Path(download.value.path()).read_text(encoding="utf-8")
        dialog.get_by_role("searchbox").fill("")
        expect(rows).to_have_count(2)
        # What is open is deleted: a new conversation takes its place.
        rows.first.get_by_role("button", name="Delete").click()
        expect(box).to_contain_text("gone for good")
        box.get_by_role("button", name="Cancel").click()
        expect(rows).to_have_count(2)
        rows.first.get_by_role("button", name="Delete").click()
        box.get_by_role("button", name="Delete").click()
        expect(page.locator(".starter").first).to_be_visible()
        assert "conversation" not in page.url
        page.get_by_role("button", name="Conversations").click()
        expect(rows).to_have_count(1)
        rows.first.get_by_role("link").first.click()
        expect(page.locator(".log .exchange")).to_have_count(2)
        assert page.url == first


@pytest.mark.browser
def test_the_place_for_a_reason_does_not_lie_below_the_composer(browser: Any, expect: Any) -> None:
    service = FakeService(FakeAssistant(reading_seconds=0.05, token_seconds=0.0))
    below = (
        "document.querySelector('.verdict .reason').getBoundingClientRect().bottom - document.querySelector('#composer').getBoundingClientRect().top"
    )
    with served(service) as address, watched(browser, address, ".starter", viewport={"width": 390, "height": 700}) as page:
        ask(page, "How long does it take?")
        expect(page.locator("#running .exchange")).to_have_count(0)
        button = page.get_by_role("button", name="Not right?")
        button.wait_for()
        # The button stands just above the composer.
        button.evaluate("it => scrollBy(0, it.getBoundingClientRect().bottom + 2 - document.querySelector('#composer').getBoundingClientRect().top)")
        button.press("Enter")
        expect(page.get_by_role("button", name="Undo")).to_be_focused()
        page.wait_for_function(f"() => {below} <= 0", timeout=5_000)


@pytest.mark.browser
def test_one_who_waits_sees_it_and_one_who_is_turned_away_keeps_the_question(browser: Any, expect: Any) -> None:
    service = FakeService(FakeAssistant(reading_seconds=0.05, token_seconds=0.0))
    narrow = {"viewport": {"width": 390, "height": 844}}
    with served(service) as address, watched(browser, f"{address}", ".starter", **narrow) as page:
        service.ahead = 2
        ask(page, "How long does it take?")
        status = page.locator(".running [role=status]")
        expect(status).to_have_text("2 questions are before yours…")
        service.ahead = 1
        expect(status).to_have_text("1 question is before yours…")
        service.ahead = 0
        expect(page.locator(".log .exchange")).to_have_count(1)
        service.full = True
        ask(page, "And in winter?")
        expect(page.get_by_role("alert").filter(visible=True)).to_contain_text("Too many questions are waiting")
        expect(page.get_by_role("textbox", name="Your question")).to_have_value("And in winter?")
        expect(page.locator(".log .exchange")).to_have_count(1)
        page.get_by_role("button", name="Retry").click()
        expect(page.get_by_role("alert").filter(visible=True)).to_contain_text("Too many questions are waiting")
        expect(page.locator(".log .answer")).to_contain_text("42 minutes")
        service.full = False
        expect(page.get_by_role("button", name="Send")).to_be_visible()
        while page.get_by_role("textbox", name="Your question").input_value():
            page.keyboard.press("Enter")  # not taken while the answer to the one before is still on its way
            page.wait_for_timeout(100)
        expect(page.locator(".log .exchange")).to_have_count(2)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        # Somebody else's conversation, and one that is not there.
        foreign = kept.keep(service.conversations, BEN, asked("A question of ben?"))
        heard_out(page)
        for identifier in (foreign.id, "nothing"):
            page.goto(f"{address}/?conversation={identifier}")
            expect(page.get_by_text(kept.UNKNOWN)).to_be_visible()
            expect(page.locator(".starter").first).to_be_visible()
            assert "ben" not in page.content()
            heard_out(page)
            assert "conversation" not in page.url
        service.conversations.share(foreign.id, BEN, True)
        page.goto(f"{address}/?conversation={foreign.id}")
        expect(page.locator(".log .exchange")).to_have_count(1)
        before = len(service.assistant.asked)
        ask(page, "May I ask on?")
        expect(page.get_by_role("alert").filter(visible=True)).to_contain_text("can be read, and not gone on with")
        expect(page.get_by_role("textbox", name="Your question")).to_have_value("May I ask on?")
        assert len(service.assistant.asked) == before
        heard_out(page)
