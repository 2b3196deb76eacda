"""What the page hears of its events when the stream that tells of them is cut, or closed too early: nothing is waited for without end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_browser import ask, heard_out, served, watched
from page_fake import FakeAssistant

pytestmark = pytest.mark.browser
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
expect = sync_api.expect

STREAM, JOIN = re.compile(r"/gradio_api/queue/data"), re.compile(r"/gradio_api/queue/join")
CLOSING = re.compile(r'data: \{"msg":"close_stream".*\n\n')
COMPLETED = re.compile(r'"msg":"process_completed"')


# The whole page


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    with served(FakeAssistant()) as address, watched(browser, address, ".starter") as page:
        heard_out(page)
        yield page
        page.unroute_all(behavior="wait")


def answers(page: Any, count: int) -> None:
    expect(page.locator(".log .exchange")).to_have_count(count)
    expect(page.get_by_role("button", name="Send")).to_be_enabled()


def test_a_stream_that_was_cut_while_nothing_was_waited_for_does_not_cost_the_next_answer(page: Any) -> None:
    began, ended, cut = [], [], []
    page.on("request", lambda sent: began.append(sent) if JOIN.search(sent.url) else None)

    def without_its_end(route: Any) -> None:
        response = route.fetch()
        said, closed = CLOSING.subn("", response.text())
        assert closed
        ended.extend(COMPLETED.findall(said))
        # Two events follow an answer at once. A stream that is over before the second has begun would be cut while that one is waited for.
        if len(ended) < len(began):
            return route.fulfill(response=response)
        cut.append(said)
        route.fulfill(response=response, body=said)

    page.route(STREAM, without_its_end)
    ask(page, "How long does it take?")
    answers(page, 1)
    ask(page, "Something unknown?")
    answers(page, 2)
    assert len(cut) >= 2
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_stream_that_was_closed_as_an_event_began_is_opened_again_for_it(page: Any) -> None:
    ask(page, "How long does it take?")
    answers(page, 1)
    heard_out(page)
    held: list[Any] = []

    def hold(route: Any) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)
            held.append(route.fetch())  # until the server has closed it

    page.route(STREAM, hold)
    page.get_by_role("button", name="New conversation").click()
    while len(held) < 2:
        page.wait_for_timeout(20)
    with page.expect_response(JOIN):
        ask(page, "Something unknown?")
    route, response = held
    assert CLOSING.search(response.text())
    route.fulfill(response=response)
    answers(page, 1)
    expect(page.locator(".log .exchange")).to_contain_text("Something unknown?")


# The script alone, before a server that says what it is told to


SERVER = """
(() => {
  window.streams = [];
  window.joins = {};
  window.fetch = async (asked) => {
    const address = asked.url ?? asked;
    if (address.includes("/queue/join")) return new Promise((answer) => { joins[new URL(address).searchParams.get("event")] = answer; });
    if (window.refused) throw new TypeError("Failed to fetch");
    let stream = {};
    const body = new ReadableStream({ start: (controller) => { stream.controller = controller; } });
    stream.says = (text) => stream.controller.enqueue(new TextEncoder().encode(text));
    window.streams.push(stream);
    return new Response(body, { headers: { "content-type": "text/event-stream" } });
  };
})();
"""
CLIENT = """
(() => {
  window.told = [];
  window.begin = (event, answer = JSON.stringify({ event_id: event })) => {
    const joined = fetch(`http://citewell.test/gradio_api/queue/join?event=${event}`, { method: "POST" });
    joins[event](new Response(answer));
    return joined.then((response) => response.text());
  };
  window.listen = async () => {
    const response = await fetch(new Request("http://citewell.test/gradio_api/queue/data"));
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) { told.push("end"); return; }
      told.push(...value.split("\\n\\n").filter(Boolean));
    }
  };
})();
"""
SCRIPT = (Path(__file__).parent.parent / "ui" / "events.js").read_text(encoding="utf-8")


@pytest.fixture
def alone(browser: Any) -> Iterator[Any]:
    """An empty page with the script, in which `streams` and `joins` are what the server was asked, and `told` is what Gradio's client would hear."""
    page = browser.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text))
    page.goto("about:blank")
    for script in (SERVER, SCRIPT, CLIENT):
        page.evaluate(script)
    yield page
    page.wait_for_timeout(50)
    page.close()
    assert not wrong


def message(what: str, event: str | None = None) -> str:
    return f"data: {json.dumps({'msg': what, 'event_id': event}, separators=(',', ':'))}\n\n"


DONE, CLOSE = message("process_completed", "one"), message("close_stream")


def said(page: Any, text: str, stream: int = 0) -> None:
    page.evaluate("([stream, text]) => streams[stream].says(text)", [stream, text])


def until(page: Any, condition: str) -> None:
    page.wait_for_function(condition, timeout=5_000)


def heard(page: Any) -> list[str]:
    """The kinds of messages that the client has heard to the end."""
    until(page, "told.at(-1) === 'end'")
    return [json.loads(one.removeprefix("data: "))["msg"] for one in page.evaluate("told")[:-1]]


def listening(page: Any, *events: str) -> None:
    for event in events:
        page.evaluate("event => begin(event)", event)
    page.evaluate("() => { listen(); }")
    until(page, "streams.length === 1")


def test_what_is_said_is_handed_on_as_it_is(alone: Any) -> None:
    listening(alone, "one")
    umlaut = 'data: {"msg":"log","log":"\\"msg\\":\\"close_stream\\" Ärger"}\n\n'.encode()
    middle = umlaut.index("Ä".encode()) + 1
    alone.evaluate(
        "pieces => pieces.forEach((piece) => streams[0].controller.enqueue(new Uint8Array(piece)))", [list(umlaut[:middle]), list(umlaut[middle:])]
    )
    said(alone, message("heartbeat") + DONE + CLOSE)
    until(alone, "told.length > 0")
    alone.evaluate("streams[0].controller.close()")
    assert heard(alone) == ["log", "heartbeat", "process_completed", "close_stream"]
    assert json.loads(alone.evaluate("told[0]").removeprefix("data: "))["log"] == '"msg":"close_stream" Ärger'
    assert alone.evaluate("streams.length") == 1


def test_no_stream_is_opened_for_an_event_that_has_ended_already(alone: Any) -> None:
    listening(alone, "one")
    said(alone, message("process_completed", "two") + DONE + CLOSE)
    assert heard(alone) == ["process_completed", "process_completed", "close_stream"]
    alone.evaluate("() => { told.length = 0; return begin('two').then(listen); }")
    assert heard(alone) == ["close_stream"]
    assert alone.evaluate("streams.length") == 1


def test_a_stream_that_breaks_within_a_message_goes_on_with_another(alone: Any) -> None:
    listening(alone, "one")
    said(alone, DONE + 'data: {"msg":"heart')
    until(alone, "told.length === 1")
    alone.evaluate("streams[0].controller.error(new TypeError('network error'))")
    alone.evaluate("() => begin('two')")
    until(alone, "streams.length === 2")
    said(alone, message("process_starts", "two"), 1)
    said(alone, message("process_completed", "two") + CLOSE, 1)
    assert heard(alone) == ["process_completed", "process_starts", "process_completed", "close_stream"]


def test_a_stream_that_breaks_while_an_event_is_waited_for_says_so(alone: Any) -> None:
    listening(alone, "one")
    alone.evaluate("streams[0].controller.error(new TypeError('network error'))")
    assert heard(alone) == ["broken_connection", "close_stream"]
    alone.evaluate("() => { told.length = 0; listen(); }")
    assert heard(alone) == ["close_stream"], "what was given up is not waited for again"


def test_a_server_that_is_away_when_a_stream_is_to_be_opened_again_is_told(alone: Any) -> None:
    listening(alone, "one")
    alone.evaluate("() => begin('two')")
    alone.evaluate("() => { window.refused = true; }")
    said(alone, DONE + CLOSE)
    assert heard(alone) == ["process_completed", "broken_connection", "close_stream"]


def test_an_event_is_not_said_to_be_taken_while_the_client_is_told_of_the_streams_end(alone: Any) -> None:
    alone.evaluate("() => begin('one')")
    alone.evaluate(
        """() => { listen().then(() => { window.ended = performance.now(); return begin('two'); }).then(() => { window.taken = performance.now(); }); }"""
    )
    until(alone, "streams.length === 1")
    said(alone, DONE + CLOSE)
    until(alone, "window.taken")
    assert alone.evaluate("taken - ended") > 20, "milliseconds"


@pytest.mark.parametrize("answer", ["not JSON", "null", "{}"])
def test_what_a_server_answers_instead_is_left_to_the_client(alone: Any, answer: str) -> None:
    assert alone.evaluate("answer => begin('one', answer)", answer) == answer
