"""Saying in the page that an answer is not right: what is kept, what the page shows, and how it is taken back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from page_browser import served, watched
from page_fake import TEXT, FakeAssistant, FakeSettings

from index.database import Database
from rag.accounts import LOCAL
from rag.conversations import Conversations
from rag.evaluation import sets
from rag.evaluation.cases import cases_file
from rag.types import Answer, Timings, Turn, Usage
from ui import kept
from ui.chat import Conversation
from ui.render import transcript_html


def with_folder(folder: Path) -> FakeAssistant:
    return FakeAssistant(settings=FakeSettings(data_dir=folder))


def an_answer(question: str, text: str) -> Answer:
    return Answer(question, question, text, False, (), (), (), "fake", Timings(1, None, 2), Usage())


def judged(conversations: Conversations, folder: Path, value: Conversation, key: str, wrong: bool) -> Conversation:
    return kept.judge(conversations, LOCAL, folder, value, key, "wrong" if wrong else "", "")


@pytest.fixture
def conversations(database: Database) -> Conversations:
    return Conversations(database)


@pytest.fixture
def conversation() -> Conversation:
    """Two answered questions, the second asked of one document."""
    first = Conversation().asking("Who built <it>?").after(an_answer("Who built <it>?", "Nobody."))
    return first.asking("And when?", ["Ferry"], ["a1f0-ferry"]).after(an_answer("And when?", "Never."))


def test_a_case_holds_what_was_asked_and_answered(conversations: Conversations, conversation: Conversation, tmp_path: Path) -> None:
    key = conversation.finished[1].key
    now = judged(conversations, tmp_path, conversation, key, True)
    assert judged(conversations, tmp_path, now, key, True) == now
    (case,) = sets.load(cases_file(tmp_path))
    assert (case.id, case.question, case.documents, case.given) == (now.finished[1].case, "And when?", ("a1f0-ferry",), "Never.")
    assert case.history == (Turn("user", "Who built <it>?"), Turn("assistant", "Nobody."))
    assert now.finished[0].case == ""
    assert judged(conversations, tmp_path, now, key, False) == conversation
    assert sets.load(cases_file(tmp_path)) == []
    assert judged(conversations, tmp_path, conversation, "no such key", True) is conversation


def test_only_answers_can_be_found_wrong(conversations: Conversations, tmp_path: Path) -> None:
    stopped = Conversation().asking("Who?").stopped()
    assert judged(conversations, tmp_path, stopped, stopped.finished[0].key, True) is stopped
    assert "verdict" not in transcript_html(stopped)
    assert not cases_file(tmp_path).exists()


def test_a_case_that_cannot_be_kept_is_told(conversations: Conversations, conversation: Conversation, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    now = judged(conversations, tmp_path / "file", conversation, conversation.finished[0].key, True)
    assert now.finished[0].case == ""
    assert "could not be kept" in transcript_html(now)
    assert transcript_html(now).count('data-case="keep"') == 2


def test_each_answer_has_its_own_button_even_where_two_are_alike(conversation: Conversation) -> None:
    twice = replace(conversation, finished=(conversation.finished[0], replace(conversation.finished[0], key="another<key>")))
    html = transcript_html(twice)
    assert html.count("data-key=") == 4
    assert html.index(twice.finished[0].key) < html.index("another&lt;key&gt;")
    assert html.count("<article") == html.count("</article>") == 2


# In the browser


@pytest.mark.browser
@pytest.mark.parametrize("options", [{}, {"viewport": {"width": 380, "height": 800}, "color_scheme": "dark"}], ids=["wide", "narrow and dark"])
def test_not_right_is_kept_once_and_undone(browser: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    with served(with_folder(tmp_path)) as address, watched(browser, address, ".starter", **options) as page:
        page.get_by_role("textbox", name="Your question").fill("How long does it take?")
        page.keyboard.press("Enter")
        wrong = page.get_by_role("button", name="Not right?")
        expect(wrong).to_have_count(1)
        wrong.dblclick()
        undo = page.get_by_role("button", name="Undo")
        expect(undo).to_be_focused()
        expect(page.locator(".verdict")).to_contain_text("citewell evaluate mine")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert [(case.question, case.given) for case in sets.load(cases_file(tmp_path))] == [("How long does it take?", TEXT)]
        page.get_by_role("textbox", name="Your question").fill("A slow one?")
        page.keyboard.press("Enter")
        expect(page.locator(".running .draft")).to_be_visible()
        expect(undo).to_be_hidden()
        page.get_by_role("button", name="Stop").click()
        expect(page.locator(".log .exchange")).to_have_count(2)
        expect(undo).to_be_visible()
        undo.press("Enter")
        expect(page.get_by_role("button", name="Not right?")).to_have_count(1)
        expect(page.get_by_role("button", name="Not right?")).to_be_focused()
        assert sets.load(cases_file(tmp_path)) == []
