"""Hundreds of texts that would be more than text, in every place where strangers' text is shown, in a real Chromium: nothing runs, nothing is asked for.

What only a browser can tell is told by its policy too, whose violations count: so the first test shows each text by itself on a page without any policy,
and the second puts all of them through the real page.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import FakeSentenceTransformer
from markdown_it import MarkdownIt
from page_browser import heard_out, served, watched
from page_fake import FakeAssistant, FakeOutcome, FakeReport, FakeService, FakeStore, FakeWork, Status, Stored
from payloads import FAMILIES, OUTSIDE, RUN, payloads
from test_evaluate_page import with_folder
from test_evaluate_run import evaluated, write_set

from index.errors import CitewellError
from index.types import DocumentInfo, Hit, Passage, Rejection, Span
from rag.accounts import LOCAL
from rag.conversations import CitationNow, ConversationInfo, KeptExchange, export_json, export_markdown
from rag.evaluation import report, run
from rag.library import UPLOADS
from rag.login import page_html as login_page
from rag.readable import readable
from rag.types import Answer, Citation, Event, Evidence, Timings, Token, Usage
from ui import conversations, document, library, render
from ui.chat import Choice, Conversation, Exchange

ALL = payloads()
MANY = tuple(text for number, text in enumerate(ALL) if number % 9 < 5)
"""More than half of them, of every family: what goes through the real page, which takes its time."""

MARKDOWN = "# a\n## b\n### c\n#### d\n##### e\n###### f\n\n> g\n\n    h\n\n---\n*i* ***j*** ~~k~~  \nl\n\nm\n===\n\nn\n---\n\n1. o\n\n   p\n"
HARMLESS = (
    "words",
    "a/b",
    "x\n\n| a | b |\n|---|---|\n| `c` | **wide** |",
    "- a\n1. b [1] c\n2. d",
    "```\nx\n```\n# y **z** `w`\n\nv",
    "a.pdf",
    "a\fb",
    "www.harbour.example",
    "```html\nx\n```",
    MARKDOWN,
)
AT = "2026-03-01T12:00:00+00:00"


def test_there_are_five_hundred_and_each_is_another() -> None:
    assert len(set(ALL)) == len(ALL)
    assert len(MANY) >= 500
    assert all(len(set(made()) & set(MANY)) >= 10 for made in FAMILIES.values())
    assert sum(RUN in text for text in ALL) > 300
    assert sum(OUTSIDE in text for text in ALL) > 100


# What strangers' text is put into


def info(text: str, number: int = 0, pages: int = 0) -> DocumentInfo:
    return DocumentInfo(f"p{number}", f"{text}{'.pdf' if pages else ''}", text, len(text), 1, AT, UPLOADS, 1_000, pages)


GONE = {1: CitationNow(1, "gone", None, None)}


def citation(text: str, number: int = 1, document_id: str = "p0") -> Citation:
    return Citation(number, document_id, text, text, number if number % 2 else None, 7, 7 + len(text), text)


def hit(text: str, number: int = 0) -> Hit:
    shown = f"Before {text} after."
    return Hit(Passage(f"p{number}:0", f"p{number}", text, text, text, Span(0, len(shown)), shown, ((0, 1),)), 1.0)


def answer(text: str, **more: Any) -> Answer:
    """An answer made of this text alone, in each of its parts."""
    said = f"{text} [1]\n\n- {text} [1]\n1. {text}\n\n**{text}** `{text}`"
    made = Answer(text, text, said, False, (citation(text),), (text,), (hit(text),), text, Timings(1, 2, 3), Usage(), (text,))
    return replace(made, **more)


def exchange(text: str, **more: Any) -> Exchange:
    return replace(Exchange(text, text, (hit(text),), text, documents=(text,), key=text), **more)


def row(text: str) -> library.Entry:
    return library.Entry(text, text, info(text), Rejection(text, text, text, AT))


def outcome(text: str) -> FakeOutcome:
    return FakeOutcome(text, FakeReport((text,), (text,), (text,), (text,), {text: text}), text)


NOW = datetime(2026, 3, 1, tzinfo=UTC)


def described(text: str, owner: str = "me") -> ConversationInfo:
    return ConversationInfo("c", owner, text, NOW.isoformat(), NOW.isoformat(), owner != "me", 1, text)


PLACES: Mapping[str, Callable[[str], str]] = {
    "an answer": lambda text: render.transcript_html(Conversation((exchange(text, answer=answer(text)),))),
    "an answer with a problem of its case": lambda text: render.exchange_html(exchange(text, answer=answer(text), judging_problem=text)),
    "an answer with its reason": lambda text: render.exchange_html(exchange(text, answer=answer(text), verdict="wrong", reason=text)),
    "somebody else's reason": lambda text: render.exchange_html(exchange(text, answer=answer(text), verdict="right", reason=text), own=False),
    "an answer with a note": lambda text: render.exchange_html(exchange(text, answer=answer(text), note=text, kept=text)),
    "a conversation with a notice": lambda text: render.transcript_html(Conversation(notice=text, id=text)),
    "a question that was refused": render.refused_html,
    "who is signed in": render.masthead_html,
    "the list of conversations": lambda text: conversations.listing_html([described(text)], "me", NOW, open=False),
    "somebody else's conversation": lambda text: conversations.listing_html([described(text, "other")], "me", NOW, open=False),
    "an answer whose document is gone": lambda text: render.exchange_html(exchange(text, answer=answer(text), citations_now=GONE)),
    "an answer kept as a case": lambda text: render.exchange_html(exchange(text, answer=answer(text), case=text)),
    "a refusal": lambda text: render.exchange_html(exchange(text, answer=answer(text, abstained=True))),
    "a question back": lambda text: render.exchange_html(exchange(text, answer=answer(text, asks_back=True))),
    "a stopped answer": lambda text: render.exchange_html(exchange(text, stopped=True)),
    "a problem": lambda text: render.exchange_html(exchange(text, problem=text)),
    "a draft": lambda text: render.running_html(exchange(text)),
    "evidence": lambda text: render.evidence_html(exchange(text, standalone_question=f"About {text}", answer=answer(text))),
    "beginnings": lambda text: render.welcome_html([text]),
    "documents": lambda text: render.documents_html([info(text)], 2),
    "a choice": lambda text: render.choice_html(Choice({text: text}, (text,)), 2),
    "notices": lambda text: render.status_html(text),
    "a document": lambda text: document.document_html(info(text), f"{text}\n{text}", Span(0, len(text)), (Span(0, 1),), (0, len(text))),
    "a document without a style": lambda text: document.document_html(replace(info(text), source="x.py"), text, None),
    "a drawn page": lambda text: document.page_image_html(info(text, pages=3), 2, Span(0, len(text)), text, "", 0.4),
    "a page that cannot be drawn": lambda text: document.page_image_html(info(text, pages=3), 2, Span(0, len(text)), text, text),
    "no such page": lambda text: document.no_page_html(info(text)),
    "a link that does not fit": lambda text: document.misfit_html(info(text)),
    "the list": lambda text: library.listing_html(library.listing([row(text)], library.Wanted()), datetime.now(UTC)),
    "the list by kind": lambda text: library.listing_html(library.listing([library.Entry("x", f"a.{text}")], library.Wanted()), datetime.now(UTC)),
    "work": lambda text: library.work_html(FakeWork(text, 1, 2, text), (outcome(text), FakeOutcome(text, None, text)), (text,)),
    "an answer as Markdown": lambda text: MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(readable(answer(text), "http://127.0.0.1")),
    "a conversation as Markdown": lambda text: MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(exported(text)),
}
"""Parts of a page, by what they are; each is put into the page by a script."""

PAGES: Mapping[str, Callable[[str], str]] = {
    "a document's own page": lambda text: document.page_html(text, document.document_html(info(text), text, None), "p { color: red }"),
    "signing in": lambda text: login_page(text, text, text, text),
}
"""Whole pages, which a browser reads from their beginning."""


def exported(text: str) -> str:
    told = ConversationInfo("c", "ann", text, AT, AT, False, 1)
    return export_markdown(told, [KeptExchange("x", text, answer(text).to_dict(), AT, "wrong", text)])


# What is watched

EFFECTS = """(() => {
  const tell = (what) => console.error("It ran: " + what);
  Object.defineProperty(window, "hacked", { configurable: false, get: () => undefined, set: () => tell("hacked") });
})();"""
"""In every frame, from before anything of it: who sets `hacked` is told in the console, where it survives a change of address."""

PARTS = """(root) => {
  const found = new Set();
  for (const element of root.querySelectorAll("*")) {
    found.add(element.localName);
    // A form's fields can stand before what it has itself.
    for (const name of Element.prototype.getAttributeNames.call(element)) {
      const value = Element.prototype.getAttribute.call(element, name);
      found.add(`${element.localName} ${name}`);
      if (["href", "src", "action"].includes(name)) found.add(`${name} to ${value.replace(/[0-9]+/g, "0").replace(/\\?.*/, "")}`);
      if (["id", "name", "type"].includes(name)) found.add(`${name} ${value}`);
    }
  }
  return [...found];
}"""
"""What a part of a page is made of: its elements, their attributes, and the values of those that do something."""


@contextmanager
def quiet(page: Any, allowed: Callable[[str], bool]) -> Iterator[None]:
    """Nothing ran: no dialog, no window, no frame elsewhere, no request but the `allowed`, nothing told in the console."""
    wrong: list[str] = []
    page.add_init_script(EFFECTS)
    page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.context.on("page", lambda opened: wrong.append(f"window: {opened.url}"))
    page.on("download", lambda download: wrong.append(f"download: {download.url}"))
    page.on("console", lambda message: wrong.append(f"console: {message.text}") if message.type in ("error", "warning") else None)
    page.on("request", lambda sent: None if allowed(sent.url) else wrong.append(f"request: {sent.url[:200]}"))
    page.on("framenavigated", lambda frame: None if allowed(frame.url) else wrong.append(f"address: {frame.url[:200]}"))
    yield
    assert page.evaluate("Object.keys(Object.prototype)") == []
    assert not wrong, wrong[:20]


# Each by itself


@pytest.mark.browser
def test_no_text_becomes_anything_else_where_no_policy_helps(browser: Any) -> None:
    plain = "http://plain.example/"
    page = browser.new_page()
    page.route(
        "**/*",
        lambda route: (
            route.fulfill(body="<!doctype html><title>Plain</title>", content_type="text/html") if route.request.url == plain else route.abort()
        ),
    )
    found = []
    with quiet(page, lambda url: url in (plain, "about:blank", f"{plain}favicon.ico")):
        page.goto(plain)
        for name, made in (PLACES | PAGES).items():
            whole = name in PAGES
            found += page.evaluate(
                f"""([name, whole, harmless, texts]) => {{
                  const parts = {PARTS};
                  const place = document.body.appendChild(Object.assign(document.createElement("div"), {{ hidden: true }}));  // to be laid out would take long
                  const frame = whole && document.body.appendChild(document.createElement("iframe")).contentDocument;
                  const put = (html) => {{
                    if (whole) {{
                      frame.open();
                      frame.write(html);
                      frame.close();
                      return parts(frame);
                    }}
                    const box = place.appendChild(document.createElement("div"));
                    box.innerHTML = html;
                    const found = parts(box);
                    for (const drawn of box.querySelectorAll(".sheet > a > img")) drawn.removeAttribute("src");
                    return found;
                  }};
                  const known = new Set(harmless.flatMap(put));
                  return texts.flatMap(([text, html]) => put(html).filter((part) => !known.has(part)).map((part) => `${{name}}: ${{part}}, of ${{text}}`));
                }}""",
                [name, whole, [made(text) for text in HARMLESS], [(text[:100], made(text)) for text in ALL]],
            )
        assert not found, found[:20]
        page.wait_for_timeout(500)  # what a picture that is not there would run
        assert page.url == plain
    page.close()


# Through the real page


class Poisoned(FakeAssistant):
    """Every text of its documents, of its state and of its answers is one that strangers wrote; a question's number says which of them answer it."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.settings = with_folder(folder).settings
        self.status = Status("loading", MANY[0])
        self.store = FakeStore()
        self.library.store = self.store
        self.library.file_seconds = 0.01
        self.store.stored = {}
        for number, text in enumerate(MANY):
            # Each fourth has it for its suffix, which is a kind of file in the list.
            named = replace(info(text, number), source=f"a.{text}" if number % 4 == 0 else text, passages=1)
            self.store.stored[named.id] = Stored(named, f"Before {text} after.")
        self.pages = [list(enumerate(MANY))[first : first + 120] for first in range(0, len(MANY), 120)]
        for text in MANY[::5]:
            self.store.reject("/folder", text, text)
        self.store.told = MANY[10:20]
        self.library._ended = [outcome(text) for text in MANY[:5]]  # type: ignore[assignment]

    def starters(self) -> tuple[str, ...]:
        return MANY[20:40]

    def stream(self, question: str, history: Sequence[Any] = (), documents: Sequence[str] | None = None) -> Iterator[Event]:
        self.narrowed.append(None if documents is None else tuple(documents))
        number, _, way = question.partition(" ")
        some = self.pages[int(number)]
        texts = [text for _, text in some]
        hits = tuple(hit(text, number) for number, text in some)
        yield Evidence(f"About {' '.join(texts)}", hits)
        if way == "problem":
            raise CitewellError("\n".join(texts))
        for text in texts:
            yield Token(f"{text}\n- {text}\n")
        if way == "stop":
            self.closed.wait(20)
        cited = tuple(citation(text, at, f"p{number}") for at, (number, text) in enumerate(some, 1))
        said = "\n".join(f"{text} [{at}]\n- {text}\n\n**{text}** `{text}`" for at, text in enumerate(texts, 1))
        timings = Timings(1, 2, 3)
        yield Answer(
            question, "About", said, way == "refuse", cited, tuple(texts), hits, texts[0], timings, Usage(), tuple(texts), asks_back=way == "back"
        )


KNOWN = re.compile(
    r"/(assets/.+|static/.+|theme\.css.*|favicon\.ico|manifest\.json|documents/p\d+(\?(start=\d+&end=\d+&)?fragment=1)?|conversations(/list\?.*)?|library(/list\?.*|/work|/files\?.*|/remove|/discard|/retry|/cancel)?|"
    r"gradio_api/(queue/(join|data)\?.*|heartbeat/\w+|cancel|reset|startup-events|app_id|run/predict))?(\?conversation=\w+)?"
)
"""What the page asks for by itself."""

FOREIGN = """() => {
  const foreign = "script, style, iframe, frame, frameset, object, embed, applet, base, link, meta, math, video, audio, source, track, image, foreignObject, animate, "
    + "set, use, marquee, portal, fencedframe, noscript, xmp, plaintext, img, font, area, isindex, x, gradio-app, input[type=image], [srcdoc], [formaction], [ping], [style], "
    + "[poster], [background], [srcset], [autofocus], [contenteditable], [popover], [action], [is], [slot]";
  const ours = [...document.querySelectorAll("#citewell .html-container, dialog")];
  const OURS = /^\\/(documents\\/(p\\d+|[0-9a-f]{32})|api\\/conversations\\/\\w+\\/export|\\?conversation=\\w+$|$)/;
  return ours.flatMap((part) => [...part.querySelectorAll("*")]).filter((element) => element.matches(foreign) && !element.matches(".picture img, .picture")
    || [...element.attributes].some(({ name }) => /^on|[^a-z-]/i.test(name) && name !== "viewBox")
    || ["href", "src", "xlink:href"].some((name) => element.hasAttribute(name) && !OURS.test(element.getAttribute(name).replace(location.origin, "")))
  ).map((element) => element.outerHTML.slice(0, 200));
}"""
"""Elements and attributes among ours that none of ours has."""


def spoken(text: str) -> str:
    """A text as an element shows it, without what a browser leaves out or draws together."""
    return re.sub(r"\s+", "", text.replace("\0", "").replace("\ufffd", ""))


@pytest.mark.browser
def test_no_text_does_anything_in_the_real_page(browser: Any, tmp_path: Path) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    assistant = Poisoned(tmp_path)
    service = FakeService(assistant)
    for text in MANY:
        service.conversations.begin(LOCAL, text)

    def asked_for(url: str) -> bool:
        return url == "about:blank" or (url.startswith(address) and KNOWN.fullmatch(url.removeprefix(address)) is not None)

    with served(service) as address, watched(browser, address, ".starter") as page, quiet(page, asked_for):  # type: ignore[arg-type]
        heard_out(page)
        page.reload()  # so that EFFECTS are in it from its beginning
        expect(page.locator(".starter")).to_have_count(20)

        def ask(question: str) -> None:
            page.get_by_role("textbox", name="Your question").fill(question)
            page.locator("#send").click()

        def looked(place: str) -> str:
            assert page.evaluate(FOREIGN) == []
            return spoken(" ".join(page.locator(place).all_text_contents()))

        # Questions, drafts, answers, citations, evidence, notices
        for count, some in enumerate(assistant.pages, 1):
            ask(f"{count - 1} {' '.join(text for _, text in some)}")
            expect(page.locator(".log .exchange")).to_have_count(count)
            said, evidence = looked(".log .exchange:last-child"), looked(".passage .text")
            for _, text in some:
                assert spoken(text) in evidence
                assert (
                    spoken(re.sub(r"[\x00-\x1f]", " ", text)) in spoken(re.sub(r"[\x00-\x1f]", " ", said))
                    or "`" in text
                    or "**" in text
                    or "[" in text
                )
        page.get_by_role("button", name="New conversation").click()  # all of them together take long to be laid out
        expect(page.locator(".log .exchange")).to_have_count(0)
        count = 0
        for way in ("problem", "refuse", "back"):
            ask(f"1 {way}")
            count += 1
            expect(page.locator(".log .exchange")).to_have_count(count)
            looked(".log")
        ask("2 stop")
        expect(page.locator(".running .draft")).to_be_visible()
        page.get_by_role("button", name="Stop").click()
        expect(page.locator(".log .stopped")).to_have_count(1)
        count += 1
        page.get_by_role("button", name="Not right?").first.click()
        expect(page.get_by_role("button", name="Undo")).to_have_count(1)
        looked(".log")

        # All documents: the list page by page, each one's view, removing, choosing, adding
        page.get_by_role("button", name="See all, add or choose").click()
        view = page.locator("dialog.library")
        expect(view.locator("tbody tr")).to_have_count(library.PAGE)
        listed = looked("dialog.library [data-part=list]")
        while view.get_by_role("button", name="Next").is_enabled():
            page_of = view.locator(".turning span").text_content()
            view.get_by_role("button", name="Next").click()
            expect(view.locator(".turning span")).not_to_have_text(page_of)
            listed += looked("dialog.library [data-part=list]")
        missing = [text for text in MANY if spoken(text) not in listed]
        assert missing == []
        for details in view.locator("details").all():
            details.evaluate("details => { details.open = true }")
        view.locator("tbody [data-remove], tbody [data-discard]").first.click()
        page.get_by_role("alertdialog").get_by_role("button", name="Keep").click()
        page.set_input_files(
            "#library-files", [{"name": f"{text.replace('/', ':')[:100]}.md", "mimeType": "text/plain", "buffer": b"x"} for text in MANY[::40]]
        )
        expect(view.locator(".outcome").first).to_contain_text("added")
        view.locator("[data-choose-all]").check()
        expect(page.locator("#choice .choice")).to_have_count(1)
        looked("dialog.library")
        page.keyboard.press("Escape")
        listed_again, latest = threading.Event(), assistant.store.latest

        def noticed(number: int) -> Any:
            listed_again.set()
            return latest(number)

        assistant.store.latest = noticed  # type: ignore[method-assign]
        ask("3 of some")
        count += 1
        expect(page.locator(".log .exchange")).to_have_count(count)
        # The list is drawn anew after each answer: what goes after that, the next question is the first to find out.
        while not listed_again.is_set():
            page.wait_for_timeout(50)
        page.wait_for_timeout(500)
        looked("#citewell")
        assert assistant.narrowed[-1]
        for document_id in assistant.narrowed[-1]:
            assistant.store.stored.pop(document_id)
        ask("3 of those that are gone")
        expect(page.locator("#choice .gone")).to_be_visible()
        looked("#choice")
        page.locator(".passage h3 a").first.click()
        expect(page.locator("dialog.reader .text")).to_be_visible()
        shown = page.evaluate(
            f"""async (ids) => {{
              const foreign = {FOREIGN};
              const content = document.querySelector("dialog.reader .content");
              const found = [];
              for (const id of ids) {{
                content.innerHTML = await (await fetch(`/documents/${{id}}?fragment=1`)).text();
                found.push([id, content.querySelector(".text").textContent, foreign()]);
              }}
              return found;
            }}""",
            list(assistant.store.stored)[: len(MANY) - 50],
        )
        for document_id, text, foreign in shown:
            assert foreign == []
            assert spoken(text) == spoken(assistant.store.text(document_id))
        page.keyboard.press("Escape")

        # What stays to be read past a reload goes from the page into text and back
        page.evaluate("document.documentElement.classList.add('unreachable')")
        heard_out(page)
        page.reload()
        expect(page.locator("#earlier .exchange")).to_have_count(2)  # what failed and what was stopped is not kept
        expect(page.locator(".log .exchange")).to_have_count(count - 2)
        looked("#citewell")

        # Kept conversations, and what is said of an answer
        page.locator(".reason input").first.fill(" ".join(MANY)[:2000])
        page.get_by_role("button", name="Save", exact=True).first.click()
        expect(page.locator(".reason .saved").first).to_be_visible()
        page.locator("[data-open-conversations]").click()
        view = page.locator("dialog[open]")
        expect(view.locator("ul.conversations > li")).to_have_count(conversations.PAGE)
        listed = looked("dialog[open] ul.conversations")
        while view.get_by_role("button", name="Older").is_enabled():
            page_of = view.locator(".turning span").text_content()
            view.get_by_role("button", name="Older").click()
            expect(view.locator(".turning span")).not_to_have_text(page_of)
            listed += looked("dialog[open] ul.conversations")
        assert [text for text in MANY if spoken(" ".join(text.split()))[:60] not in listed] == []
        page.wait_for_timeout(500)
        assert re.fullmatch(rf"{address}/\?conversation=\w+", page.url)


@pytest.mark.browser
def test_no_text_does_anything_on_pages_of_their_own(browser: Any, tmp_path: Path) -> None:
    assistant = Poisoned(tmp_path)
    with served(assistant) as address:
        page = browser.new_page()
        with quiet(page, lambda url: re.fullmatch(rf"{address}/(documents/p\d+|favicon\.ico)|about:blank", url) is not None):
            for number in range(0, len(MANY), 40):
                page.goto(f"{address}/documents/p{number}")
                assert spoken(page.locator(".text").text_content()) == spoken(f"Before {MANY[number]} after.")
                assert page.evaluate("document.title") != "", MANY[number]
        page.close()


# Files that are made


@pytest.mark.browser
def test_no_text_does_anything_in_a_report(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "open_embedder", FakeSentenceTransformer)
    monkeypatch.setattr(run.measures, "RESAMPLES", 9)
    made, place = evaluated(write_set(tmp_path / "set"), tmp_path / "out")
    (one,) = made["sets"]
    asked = next(row for row in one["rows"] if row["answer"]["citations"])

    def poisoned(value: Any, text: str) -> Any:
        if isinstance(value, dict):
            return {name: held if name == "scores" else poisoned(held, text) for name, held in value.items()}
        return [poisoned(held, text) for held in value] if isinstance(value, list) else text if isinstance(value, str) else value

    one["rows"] = [{**poisoned(asked, text), "failed": [text], "history": [{"role": text, "text": text}]} for text in ALL]
    one["name"], one["notes"], made["run"], made["machine"], made["made"] = ALL[0], list(ALL), ALL[1], ALL[2], ALL[3]
    made["settings"] |= {"model": ALL[4], "model_name": ALL[5], "embedder": ALL[6]}
    file = report.write(made, place, {**made, "run": ALL[7]})
    page = browser.new_page()
    with quiet(page, lambda url: url.partition("#")[0] in (file.as_uri(), "about:blank")):
        page.goto(file.as_uri())
        shown = spoken(page.locator("body").text_content())
        assert [text for text in ALL if spoken(text) not in shown] == []
        assert (
            page.locator("body :is(script, style, iframe, img, object, embed, link, meta, base, form, input, math, x, [onerror], [style])").count()
            == 0
        )
        for details in page.locator("summary").all()[:5]:
            details.click()
        assert page.evaluate("[...document.links].every((link) => link.getAttribute('href').startsWith('#'))")
    page.close()


def test_an_export_as_json_is_json_whatever_it_holds() -> None:
    import json

    for text in ALL:
        told = ConversationInfo("c", "ann", text, AT, AT, False, 1)
        kept = KeptExchange("x", text, answer(text).to_dict(), AT, "wrong", text)
        made = export_json(told, [kept])
        read = json.loads(made)
        assert made.isascii()
        assert (read["title"], read["exchanges"][0]) == (
            text,
            {name: value for name, value in asdict(kept).items() if name != "own"} | {"answer": json.loads(json.dumps(kept.answer))},
        )
