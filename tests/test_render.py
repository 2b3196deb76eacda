"""Values to HTML: what is cited is a chip, what is not is flagged, and no text becomes markup."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_fake import (
    ARCHIVE,
    ARTICLE,
    CLOCK,
    FERRY,
    FURNITURE,
    HARBOUR,
    HITS,
    HOSTILE,
    MINUTES,
    PAGES,
    QUAY,
    REPORT,
    REPORT_CITATIONS,
    REPORT_HITS,
    REPORT_TEXT,
    STARTERS,
    TEXT,
    TOWN,
    FakeOutcome,
    FakeReport,
    FakeStore,
    FakeWork,
    cited,
    hit,
)

from index.types import Hit, Passage, Rejection, Span
from rag.types import Answer, Citation, Evidence, Timings, Token, Usage
from ui import document, library, render
from ui.chat import Choice, Conversation, Exchange
from ui.web import with_head

ATTACK = (
    "<script>alert(1)</script><img src=x onerror=alert(1)> \"quoted\" 'single' [1] [x](http://outside.example) ![y](http://outside.example/y.png)"
)


def listed(store: FakeStore) -> str:
    return render.documents_html(store.latest(render.LATEST), store.document_count())


class Reader(HTMLParser):
    """Collects tags with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def citation(number: int, start: int = 0, end: int = 5, document_id: str = FERRY, title: str = "Title", quote: str = "words") -> Citation:
    return Citation(number, document_id, title, "source.md", None, start, end, quote)


def answer(text: str, **changes: object) -> Answer:
    values: dict[str, object] = {"citations": (), "unsupported": (), "evidence": (), "notices": (), "abstained": False} | changes
    return Answer(question="Q?", standalone_question="Q?", text=text, model="fake", timings=Timings(1, 2, 3400), usage=Usage(), **values)  # type: ignore[arg-type]


def test_a_mark_becomes_a_link_to_the_exact_span() -> None:
    html = render.answer_html("It takes 42 minutes. [1]", [citation(1, 12, 40, title="Ferry")])
    (link,) = Reader(html).all("a")
    assert link["href"] == f"/documents/{FERRY}?start=12&end=40#quote"
    assert link["aria-label"] == "Source 1: Ferry"
    assert Reader(html).text == "It takes 42 minutes.[1]"


def test_marks_that_nothing_resolves_stay_text() -> None:
    html = render.answer_html("See array[0] and note [7]. [1][9]", [citation(1)])
    assert len(Reader(html).all("a")) == 1
    assert Reader(html).text == "See array[0] and note [7].[1][9]"


def test_marks_inside_words_and_neighbouring_marks() -> None:
    html = render.answer_html("Water[1]tight. [1][2]", [citation(1), citation(2)])
    assert [link["aria-label"] for link in Reader(html).all("a")] == ["Source 1: Title", "Source 1: Title", "Source 2: Title"]
    assert html.count('class="chips"') == 2


def test_hostile_text_stays_text() -> None:
    html = render.answer_html(ATTACK, [citation(1, title='"><img src=x>', quote='" onmouseover="alert(1)')])
    reader = Reader(html)
    assert {tag for tag, _ in reader.tags} == {"p", "span", "a", "i"}
    (link,) = reader.all("a")
    assert set(link) == {"class", "href", "aria-label", "title"}
    assert link["href"] is not None
    assert link["href"].startswith("/documents/")
    assert "<script>alert(1)</script>" in reader.text
    assert "![y](http://outside.example/y.png)" in reader.text


def hostile_list() -> str:
    infos = [replace(info, title=ATTACK, source=f"{ATTACK}{info.source}{ATTACK}", root=ATTACK, indexed_at=ATTACK) for info in FakeStore().documents()]
    rejections = [Rejection(ATTACK, infos[0].source, ATTACK, ATTACK), Rejection(ATTACK, ATTACK, ATTACK, ATTACK)]
    known = library.entries(infos, rejections, [(ATTACK, f"waiting{ATTACK}")])
    return library.listing_html(library.listing(known, library.Wanted()), datetime.now(UTC))


def test_every_renderer_escapes() -> None:
    hostile = hit(MINUTES, HOSTILE.strip(), ATTACK)
    exchange = Exchange(ATTACK, standalone_question=ATTACK + "?", hits=(hostile,), draft=ATTACK)
    finished = Exchange(ATTACK, answer=answer(ATTACK, notices=(ATTACK,), unsupported=(ATTACK,)))
    pages = [
        render.running_html(exchange),
        render.evidence_html(exchange),
        render.transcript_html(Conversation((finished, Exchange("q", problem=ATTACK), Exchange("q", stopped=True, draft=ATTACK)))),
        listed(FakeStore()),
        render.welcome_html([ATTACK]),
        render.status_html(ATTACK, ATTACK),
        render.choice_html(Choice({ATTACK: ATTACK}, (ATTACK,)), 5),
        render.question_html(ATTACK, [ATTACK]),
        hostile_list(),
        library.work_html(
            FakeWork(ATTACK, 1, 3, ATTACK, 2.0, 9.0),
            [
                FakeOutcome(ATTACK, FakeReport((ATTACK,), (ATTACK,), (ATTACK,), (ATTACK,), {ATTACK: ATTACK}), ATTACK),
                FakeOutcome(ATTACK, None, ATTACK),
            ],
            [ATTACK],
        ),
        document.document_html(FakeStore().info(MINUTES), HOSTILE, None, [Span(3, 40)], [0, 20, 60]),
        document.page_image_html(replace(FakeStore().info(REPORT), title=ATTACK, source=ATTACK + ".pdf"), 1, None, "", ATTACK),
        document.page_html(ATTACK, document.misfit_html(FakeStore().info(MINUTES)), ""),
    ]
    for html in pages:
        tags = {tag for tag, _ in Reader(html).tags}
        assert not tags & {"script", "img"}
        assert not [name for _, attributes in Reader(html).tags for name in attributes if name.startswith("on")]
        assert all((link["href"] or "").startswith("/") for link in Reader(html).all("a"))


def test_unsupported_sentences_are_flagged_in_words() -> None:
    html = render.answer_html("It sails. She is green. She is green.", [], ["She is green.", "She is green."])
    assert html.count('class="unsupported"') == 2
    assert html.count(render.UNSUPPORTED) == 2
    assert Reader(html).text.startswith("It sails. She is green.")


def test_an_unsupported_sentence_over_two_lines_is_flagged() -> None:
    html = render.answer_html("First half\nsecond half. Fine. [1]", [citation(1)], ["First half\nsecond half."])
    assert re.findall(r'<span class="unsupported">(.*?)</span>', html) == ["First half", "second half."]


def test_a_question_back_is_no_refusal() -> None:
    html = render.verified_html(answer("Which ship do you mean?", abstained=True, asks_back=True))
    assert "A question back" in html
    assert "Not in the documents" not in html


@pytest.mark.parametrize(
    ("model", "said"),
    [("embedded", "written by the built-in language model"), ("none", "without a language model"), ("qwen2.5:7b", "written by qwen2.5:7b")],
)
def test_the_line_under_an_answer_uses_no_internal_words(model: str, said: str) -> None:
    line = Reader(render.verified_html(replace(answer("So. [1]", citations=(citation(1),)), model=model))).text.split("“words”")[-1]
    assert said in line
    assert f"· {model} ·" not in line


@pytest.mark.parametrize(
    ("seconds", "said"), [(3.41, "3.4 s"), (9.96, "10 s"), (99.4, "99 s"), (99.6, "1 min 40 s"), (228, "3 min 48 s"), (119.7, "2 min")]
)
def test_long_times_are_said_in_minutes(seconds: float, said: str) -> None:
    assert render.seconds_text(seconds) == said


def test_paragraphs_and_lists() -> None:
    html = render.answer_html("Two things:\n- **one** `a<b`\n- two\n\n3. third\nafter\nthat")
    assert html == (
        "<p>Two things:</p><ul><li><strong>one</strong> <code>a&lt;b</code></li><li>two</li></ul>"
        '<ol><li value="3">third</li></ol><p>after<br>that</p>'
    )


def test_a_mark_inside_bold_is_still_a_chip() -> None:
    assert len(Reader(render.answer_html("**It is so. [1]**", [citation(1)])).all("a")) == 1


@pytest.mark.parametrize("text", ["", "\n\n", "**", "``", "[", "[]", "[99999999999]", "- ", "1. "])
def test_odd_texts_render(text: str) -> None:
    assert "<script" not in render.answer_html(text)


def test_overlapping_quotes_mark_each_word_once_and_number_each_end() -> None:
    passage = HITS[0]
    base = passage.passage.span.start
    citations = [citation(1, base, base + 30), citation(2, base + 10, base + 45), citation(3, base + 40, base + 45)]
    html = render.marked_passage_html(passage, citations)
    marked = "".join(re.findall(r"<mark>(.*?)</mark>", html))
    assert marked == passage.passage.text[:45]
    assert re.findall(r"Source (\d)", html) == ["1", "2", "3"]
    assert re.sub(r"\[\d\]", "", Reader(html).text) == passage.passage.text


def test_a_quote_that_reaches_beyond_its_passage_is_marked_as_far_as_it_goes() -> None:
    passage = HITS[1]
    span = passage.passage.span
    html = render.marked_passage_html(
        passage, [citation(1, span.start - 10, span.end + 10), citation(2, 0, 5), citation(3, span.start, span.end, TOWN)]
    )
    assert re.findall(r"<mark>(.*?)</mark>", html) == [render.escape(passage.passage.text)]
    assert "Source 2" not in html
    assert "Source 3" not in html


def test_sources_repeat_the_numbers() -> None:
    html = render.sources_html([Citation(1, FERRY, "Ferry", "f.md", 12, 0, 9, "word " * 60)])
    assert 'aria-label="Source 1: Ferry, page 12"' in html
    assert "p. 12" in html
    assert "…" in html


def test_a_refusal_has_no_sources_and_says_what_it_is() -> None:
    html = render.verified_html(answer("The documents do not say.", abstained=True))
    assert "Not in the documents" in html
    assert "Sources" not in html


def test_evidence_shows_the_searched_question_only_where_it_differs() -> None:
    assert "Searched for" not in render.evidence_html(Exchange("Q?", "Q?", HITS))
    assert "Searched for" in render.evidence_html(Exchange("And she?", "And the ship?", HITS))
    assert "No passage was found" in render.evidence_html(Exchange("Q?", "Q?", ()))
    assert "appear here" in render.evidence_html(Exchange("Q?"))


def test_a_running_exchange_says_what_is_going_on() -> None:
    exchange = Exchange("Q?")
    assert "Searching" in render.running_html(exchange)
    exchange = exchange.after(Evidence("Q?", HITS))
    assert "Reading 5 passages" in render.running_html(exchange)
    exchange = exchange.after(Token("A draft [1]"))
    assert "Not checked yet" in render.running_html(exchange)
    assert "<a " not in render.running_html(exchange)
    assert render.running_html(None) == ""


def test_documents_and_starters() -> None:
    html = listed(FakeStore())
    assert [link["href"] for link in Reader(html).all("a")] == [
        "/documents/a1f0-ferry",
        "/documents/b2%2Farchive",
        "/documents/c3%27minutes%22",
        "/documents/d4-report",
        "/documents/e5-clock",
    ]
    assert "There are no documents yet" in render.documents_html([], 0)
    assert [button["data-question"] for button in Reader(render.welcome_html(STARTERS)).all("button")] == list(STARTERS)


def test_beside_the_chat_stand_a_few_of_many_documents() -> None:
    store = FakeStore()
    store.fill(10_000)
    html = listed(store)
    assert len(Reader(html).all("a")) == render.LATEST
    assert "Show 10,005 documents" in html
    assert f"and {10_005 - render.LATEST:,} more" in html


def test_a_choice_drops_what_is_gone_and_says_so() -> None:
    store = FakeStore()
    choice = Choice({FERRY: "Ferry", TOWN: "Town"}, turn=3)
    assert choice.documents == (FERRY, TOWN)
    assert "Asking 2 of 5 documents" in render.choice_html(choice, 5)
    del store.stored[TOWN]
    choice = choice.checked(store.info)
    assert (choice.documents, choice.gone, choice.turn) == ((FERRY,), ("Town",), 3)
    assert "“Town” is gone" in render.choice_html(choice, 4)
    assert "all documents again" not in render.choice_html(choice, 4)
    del store.stored[FERRY]
    choice = choice.checked(store.info)
    assert choice.documents is None
    assert "Questions go to all documents again" in render.choice_html(choice, 3)
    assert "Asking" not in render.choice_html(choice, 3)
    assert Choice().documents is None


def test_a_question_says_what_it_was_asked_of() -> None:
    asked = Conversation().asking("Q?", ["One"]).after(Evidence("Q?", ())).failed("No.")
    assert "Asked of “One” only" in render.transcript_html(asked)
    assert "Asked of 2 chosen documents" in render.running_html(asked.retrying(["One", "Two"]).running)
    assert "Asked of" not in render.running_html(asked.asking("Q?").running)


def test_evidence_and_sources_say_the_page() -> None:
    exchange = Exchange("Q?", "Q?", REPORT_HITS, answer=answer("Rebuilt. [1]", citations=REPORT_CITATIONS, evidence=REPORT_HITS))
    assert "town/report.pdf · p. 2" in render.evidence_html(exchange)
    assert "p. 2" in render.sources_html(REPORT_CITATIONS)


def test_a_conversation_goes_from_question_to_answer() -> None:
    start = Conversation()
    running = start.asking("Q?")
    assert running.running is not None
    assert start.running is None
    done = running.after(Evidence("Q?", HITS)).after(Token("It")).after(Token(" is")).after(answer("It is.", evidence=HITS))
    assert done.running is None
    assert done.finished[0].draft == "It is"
    assert [turn.text for turn in done.history()] == ["Q?", "It is."]
    assert done.failed("late") == done
    assert done.stopped() == done
    assert done.after(Token("late")) == done


def test_a_draft_is_never_history() -> None:
    stopped = Conversation().asking("Q?").after(Token("half")).stopped()
    assert stopped.finished[0].stopped
    assert stopped.history() == ()
    again = stopped.retrying()
    assert again.finished == ()
    assert again.running is not None
    assert again.running.question == "Q?"
    assert again.running.key != stopped.finished[0].key
    assert again.failed("The model is missing.").finished[0].problem == "The model is missing."


@pytest.mark.parametrize("needle", ["Entry 1. A letter", "box 1.\nEntry 15002. A", "kept in box 0."])
def test_a_long_text_is_shown_whole_with_one_mark(needle: str) -> None:
    start = ARCHIVE.rindex(needle)
    html = document.text_html(ARCHIVE, Span(start, start + len(needle)))
    assert Reader(html).text == ARCHIVE
    assert re.findall(r'<mark id="quote"[^>]*>([^<]*)</mark>', html) == [needle]
    assert html.count("<div") < 400


def test_a_mark_longer_than_a_block_stays_in_one() -> None:
    span = Span(100, len(ARCHIVE) - 100)
    html = document.text_html(ARCHIVE, span)
    assert re.findall(r'<mark id="quote"[^>]*>([^<]*)</mark>', html) == [ARCHIVE[span.start : span.end]]
    assert Reader(html).text == ARCHIVE


MARKDOWN = "# A **bold** title\n\nRun `serve` now.\n\n| Who | Price |\n|---|:-:|\n| A | **12** |\n| Children | 7 |\n\n```\n# no heading\n| no | table |\n```\n#no\n"


def shown_as(text: str, source: str) -> list[tuple[str, str]]:
    return [(text[start:end], re.findall(r'class="([^"]*)"', attributes)[0]) for start, end, attributes in render.styles(text, source)]


def test_markdown_is_shown_as_what_it_means() -> None:
    shown = shown_as(MARKDOWN, "a.md")
    assert shown[:6] == [("# ", "sign"), ("A ", "line-1"), ("**", "sign"), ("bold", "line-1 strong"), ("**", "sign"), (" title", "line-1")]
    assert ("serve", "code") in shown
    assert (" Who ", "cell strong") in shown
    assert ("12", "cell strong") in shown
    assert ("|---|:-:|", "rule") in shown
    assert ("# no heading", "code") in shown
    assert ("| no | table |", "code") in shown
    assert shown_as("# a comment, `x` and **y**\n", "a.py") == []


def test_short_tables_have_their_bars_below_each_other() -> None:
    rooms = [re.findall(r'data-room="( +)"', attributes) for _, _, attributes in render.styles(MARKDOWN, "a.md") if "between" in attributes]
    assert [[len(room) for room in found] for found in rooms] == [[], [5], [], [], [7], [3], [], [], [4]]
    wide = MARKDOWN.replace("Children", "Children " * 20)
    assert "data-room" not in str(render.styles(wide, "a.md"))


@settings(deadline=None)
@given(st.text(st.sampled_from("a <\r\n\f#|*`-~"), max_size=80), st.integers(0, 80), st.integers(1, 80), st.integers(4, 70))
def test_no_style_changes_a_character(text: str, start: int, length: int, chunk: int) -> None:
    styled = render.styles(text, "a.md")
    assert all(left < right <= len(text) for left, right, _ in styled)
    assert all(first[1] <= then[0] for first, then in pairwise(styled))
    span = Span(start, min(start + length, len(text))) if start < len(text) else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document, "CHUNK", chunk)
        html = document.text_html(text, span, (), (), "Page", styled)
    assert Reader(html).text == text
    quotes = re.findall(r'<mark id="quote" tabindex="-1">(.*?)</mark>', html, re.DOTALL)
    assert [Reader(quote).text for quote in quotes] == ([text[span.start : span.end]] if span else [])


def test_evidence_and_text_view_show_headings() -> None:
    passage = Passage("p", FERRY, "a.md", "A", "", Span(7, 7 + len(MARKDOWN)), MARKDOWN)
    html = render.passage_html(Hit(passage, 1.0), [citation(1, 9, 20)])
    assert '<span class="sign"># </span><mark><span class="line-1">A </span>' in html
    assert MARKDOWN in Reader(html.replace("<i>[</i>1<i>]</i>", "")).text
    assert '<span class="sign"># </span>' in document.document_html(FakeStore().info(FERRY), MARKDOWN, None)


def test_a_citation_of_a_pdf_opens_its_page() -> None:
    (pdf,) = REPORT_CITATIONS
    assert render.citation_link(pdf) == f"/documents/d4-report?view=page&page=2&start={pdf.start}&end={pdf.end}#marked"
    assert render.citation_link(replace(pdf, source="slides.pptx")) == f"/documents/d4-report?start={pdf.start}&end={pdf.end}#quote"


def test_every_character_of_a_text_survives() -> None:
    text = "a\r\nb\r <c> & d\t\u00a0é\U0001f600 'e' \"f\"\n\n\n"
    assert Reader(document.text_html(text, Span(0, 3))).text == text


def test_furniture_and_pages_leave_the_text_as_it_is() -> None:
    html = document.text_html(ARTICLE, Span(5, 40), FURNITURE[CLOCK])
    assert Reader(html).text == ARTICLE
    first, last = FURNITURE[CLOCK]
    assert "".join(re.findall(r'<span class="furniture">([^<]*)</span>', html)) == ARTICLE[: first.end] + ARTICLE[last.start :]
    start = REPORT_TEXT.index(QUAY)
    html = document.text_html(REPORT_TEXT, Span(start, start + len(QUAY)), (), PAGES[REPORT])
    assert Reader(html).text == REPORT_TEXT
    assert re.findall(r'data-label="([^"]*)"', html) == ["Page 1", "Page 2", "Page 3", "Page 4"]
    assert html.index('"Page 2"') < html.index(QUAY) < html.index('"Page 3"')


SPANS = st.lists(st.integers(0, 60), max_size=8, unique=True).map(
    lambda bounds: [Span(*pair) for pair in zip(*[iter(sorted(bounds))] * 2, strict=False)]
)


@settings(deadline=None)
@given(
    st.text(st.sampled_from("ab <&\n\r\f'\""), min_size=1, max_size=60),
    SPANS,
    st.lists(st.integers(0, 60), max_size=6),
    st.tuples(st.integers(0, 60), st.integers(1, 60)),
    st.integers(4, 70),
)
def test_any_text_is_shown_exactly(text: str, furniture: list[Span], pages: list[int], marked: tuple[int, int], chunk: int) -> None:
    length = len(text)
    furniture = [Span(part.start, min(part.end, length)) for part in furniture if part.start < length]
    pages = sorted(min(page, length) for page in pages)
    start, end = marked[0], min(marked[0] + marked[1], length)
    span = Span(start, end) if start < end else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document, "CHUNK", chunk)
        html = document.text_html(text, span, furniture, pages)
    assert Reader(html).text == text
    grey = "".join(re.findall(r'<span class="furniture">([^<]*)</span>', html))
    assert grey == "".join(render.escape(text[part.start : part.end]) for part in furniture)
    assert re.findall(r'data-label="Page (\d+)"', html) == [str(number) for number in range(1, len(pages) + 1)]
    quotes = re.findall(r'<mark id="quote" tabindex="-1">(.*?)</mark>', html, re.DOTALL)
    assert [Reader(quote).text for quote in quotes] == ([text[start:end]] if span else [])


@pytest.mark.parametrize(("offset", "page"), [(0, 1), (9, 1), (10, 2), (19, 2), (20, 4), (500, 4)])
def test_an_offset_stands_on_a_page(offset: int, page: int) -> None:
    assert document.page_of(offset, [3, 10, 20, 20]) == page


def test_the_views_of_a_document() -> None:
    info = FakeStore().info(REPORT)
    assert 'class="views"' not in document.document_html(FakeStore().info(FERRY), HARBOUR, None)
    html = document.document_html(info, REPORT_TEXT, Span(100, 110), (), PAGES[REPORT])
    links = [str(link["href"]) for link in Reader(html).all("a")]
    assert links == ["/documents/d4-report?start=100&end=110#quote", "/documents/d4-report?view=page&page=2&start=100&end=110#marked"]
    html = document.page_image_html(info, 1, Span(100, 110), "")
    (image,) = Reader(html).all("img")
    assert image["src"] == "/documents/d4-report/pages/1.png"
    assert "Marked" not in str(image["alt"])
    assert [link.get("aria-label") for link in Reader(html).all("a")][-1] == "Next page"
    (image,) = Reader(document.page_image_html(info, 2, Span(100, 110), 'the "quay"')).all("img")
    assert image["src"] == "/documents/d4-report/pages/2.png?start=100&end=110"
    assert image["alt"] == 'Page 2 of “Annual report of the harbour board”, as a picture. Marked on it: “the "quay"”'
    assert document.LEGEND in document.document_html(FakeStore().info(CLOCK), ARTICLE, None, FURNITURE[CLOCK])
    assert "Slide 1" in document.document_html(replace(info, source="a.pptx"), REPORT_TEXT, None, (), PAGES[REPORT])


@pytest.mark.parametrize(("start", "end", "expected"), [(None, None, None), ("0", "5", Span(0, 5)), ("3", "10", Span(3, 10))])
def test_a_link_names_a_span(start: str | None, end: str | None, expected: Span | None) -> None:
    assert document.span_of(start, end, 10) == expected


@pytest.mark.parametrize(
    ("start", "end"),
    [("0", None), (None, "3"), ("5", "5"), ("6", "5"), ("0", "11"), ("-1", "3"), ("a", "3"), ("", ""), ("٣", "5"), ("1e1", "9"), ("0", "9" * 5000)],
)
def test_offsets_that_do_not_fit_are_refused(start: str | None, end: str | None) -> None:
    with pytest.raises(document.BadSpan):
        document.span_of(start, end, 10)


def test_quotes_of_the_fake_are_exact() -> None:
    assert cited(1, FERRY, "Tickets").start == HARBOUR.index("Tickets")
    assert TEXT.count("[") == 5


def test_our_head_replaces_link_previews() -> None:
    page = b'<head><meta charset="utf-8" />\n<meta property="og:image"\n content="https://outside.example/x.jpg" /><meta name="viewport" /></head>'
    assert with_head(page, b"<title>T</title>", b"") == b'<head><meta charset="utf-8" /><title>T</title>\n<meta name="viewport" /></head>'
