"""From values to the chat page's HTML (pure). All text is escaped; nothing in an answer or a document can become a link, an image or a tag."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape as escape_html
from itertools import pairwise, zip_longest
from pathlib import PurePosixPath
from urllib.parse import quote

from index.split import CODE
from index.types import DocumentInfo, Hit
from rag.conversations import REASON_LENGTH, UNAVAILABLE, CitationNow
from rag.types import Answer, Citation
from ui.chat import Choice, Conversation, Exchange

INLINE = re.compile(r"(?P<marks>(?:\s*\[[0-9]{1,4}\])+)|\*\*(?P<bold>[^*\n]+)\*\*|`(?P<code>[^`\n]+)`")
NUMBER = re.compile(r"[0-9]+")
BULLET = re.compile(r"\s*[-*•]\s+")
NUMBERED = re.compile(r"\s*([0-9]{1,3})[.)]\s+")
LATEST = 12
"""Documents that stand beside the chat; the view has them all."""

UNSUPPORTED = "not supported by the documents"
SLOW_SEARCH = "This is taking longer than usual. Other questions may be running at the same time."
WAITING_SLOW = "The model answers one question after the other. Yours keeps its place."
SLOW_READING = "The model is reading the evidence. On a laptop this can take half a minute."
STILL_SLOW = "This machine is slow, or busy with something else. The answer is still on its way; Stop ends it."
SLOW_WRITING = "Each sentence is checked against the documents once the draft is complete."


MODELS = {
    "none": "the documents' own sentences, without a language model",
    "embedded": "written by the built-in language model",
    "embedded-small": "written by the small built-in language model",
    "llm": "written by your language model",
}
"""How an answer's maker is called, where its name in the settings would tell a reader nothing."""

VERDICTS = {"right": "Marked as right.", "wrong": "Marked as not right."}
CHANGED_SINCE = "What this answer quotes has changed since, or is gone. The quotes are as they were when it was written."
NOT_YOURS = "Some of what this answer quotes is not yours to open, or no longer there. The quotes are as they were when it was written."

THUMB_UP = (
    '<svg viewBox="0 0 24 24" width="16" height="16" aria-hidden="true"><path d="M7 10v11M15 5.9 14 10h5.8a2 2 0 0 1 1.9 2.6l-2.3 7A2 2 0 0 1 17.5 21H4a2 2 0 0 1-2-2v-7'
    'a2 2 0 0 1 2-2h2.8a2 2 0 0 0 1.8-1.1L12 2a3.1 3.1 0 0 1 3 3.9Z"/></svg>'
)
THUMB = (
    '<svg viewBox="0 0 24 24" width="16" height="16" aria-hidden="true"><path d="M17 14V3M9 18.1 10 14H4.2a2 2 0 0 1-1.9-2.6l2.3-7A2 2 0 0 1 6.5 3H20a2 2 0 0 1 2 2v7'
    'a2 2 0 0 1-2 2h-2.8a2 2 0 0 0-1.8 1.1L12 22a3.1 3.1 0 0 1-3-3.9Z"/></svg>'
)


def escape(text: str) -> str:
    """`text` for HTML, in content and in attributes; a carriage return survives, because offsets count it."""
    return escape_html(text, quote=True).replace("\r", "&#13;")


def shortened(text: str, limit: int) -> str:
    """`text` on one line, cut at a word where it is longer than `limit`."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1].rsplit(" ", 1)[0].rstrip(",;:") + "…"


def counted(number: int, word: str) -> str:
    """A number with its noun: "1 passage", "2 passages"."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def document_link(document_id: str, start: int | None = None, end: int | None = None) -> str:
    """The address of a document, opened at a span of its text when one is given."""
    address = "/documents/" + quote(document_id, safe="")
    return address if start is None or end is None else f"{address}?start={start}&end={end}#quote"


def page_link(document_id: str, page: int, start: int | None = None, end: int | None = None) -> str:
    """The address of a page as it looks, with a span marked on it when one is given."""
    address = f"{document_link(document_id)}?view=page&page={page}"
    return address if start is None or end is None else f"{address}&start={start}&end={end}#marked"


def has_page_images(source: str) -> bool:
    """Whether the pages of such a file can be shown as they look."""
    return source.lower().endswith(".pdf")


def citation_link(citation: Citation) -> str:
    """Where a citation's words stand: on the page as it looks, where there is one, else in the text."""
    if citation.page is None or not has_page_images(citation.source):
        return document_link(citation.document_id, citation.start, citation.end)
    return page_link(citation.document_id, citation.page, citation.start, citation.end)


SINCE = {"changed": "changed since", "gone": "document gone", "unavailable": UNAVAILABLE}
"""How a quote is marked whose document does not say so any more where it stood, or is not there."""

CLOSED = ("gone", "unavailable")
"""Where there is no document to open."""


def chip(citation: Citation, now: CitationNow | None = None) -> str:
    """The number that opens the exact words: a real link, so that it also opens in a new tab. Its brackets are there for copying, not to be seen.

    `now` is how the quote compares with its document now, where it does not stand there as it did: then the link leads to where the words have gone, else
    to the document; without a document there is none.
    """
    page = f", page {citation.page}" if citation.page is not None else ""
    since = f" ({SINCE[now.state]})" if now and now.state in SINCE else ""
    label = escape(f"Source {citation.number}: {shortened(citation.title, 120)}{page}{since}")
    hint = escape(shortened(citation.quote, 200) + since)
    number = f"<i>[</i>{citation.number}<i>]</i>"
    if now and now.state in CLOSED:
        return f'<span class="chip gone" title="{hint}">{number}</span>'
    address = escape(document_link(citation.document_id, now.start, now.end) if now and now.state == "changed" else citation_link(citation))
    return f'<a class="chip" href="{address}" aria-label="{label}" title="{hint}">{number}</a>'


# What a source's own text means

Style = tuple[int, int, str]
"""A part [start, end) of a text, and the attributes of the element that shows it so."""

FENCE = re.compile(r"\s*(?:`{3,}[^`]*$|~~~)")
HEADING = re.compile(r"(#{1,6})[ \t]+(?=\S)")
EMPHASIS = re.compile(r"\*\*(?=\S)[^*\n]+(?<=\S)\*\*|`[^`\n]+`")
RULE = re.compile(r"[\s|:-]+")
PIPE = re.compile(r"(?<!\\)\|")
ALIGNED = 90
"""A table with more characters in a row than this would not fit with its columns aligned."""


def styles(text: str, source: str) -> list[Style]:
    """How the Markdown in a text is shown: headings, tables, code and bold, in order and apart from each other. Every character stays; marks are
    only dimmed or made invisible, so that offsets and copied text are those of the stored text."""
    if PurePosixPath(source).suffix.lower() in CODE:
        return []
    found: list[Style] = []
    table: list[tuple[int, str]] = []
    position, fenced = 0, False
    for line in text.splitlines(keepends=True):
        start, content = position, line.rstrip()
        position += len(line)
        if content.startswith("|") and not fenced:
            table.append((start, content))
            continue
        found += _table_styles(table)
        table = []
        heading = HEADING.match(content)
        if FENCE.match(content):
            fenced = not fenced
            found.append((start, start + len(content), 'class="fence"'))
        elif fenced:
            found += [(start, start + len(content), 'class="code"')] if content else []
        elif heading:
            found.append((start, start + heading.end(), 'class="sign"'))
            found += _inline_styles(content, start, heading.end(), len(content), f"line-{min(len(heading[1]), 3)}")
        elif "`" in content or "**" in content:
            found += _inline_styles(content, start, 0, len(content), "")
    return [*found, *_table_styles(table)]


def _inline_styles(line: str, offset: int, position: int, last: int, kind: str) -> Iterator[Style]:
    """Bold words and code in a part [position, last) of a line, all of it of a kind."""
    for match in EMPHASIS.finditer(line, position, last):
        if kind and position < match.start():
            yield offset + position, offset + match.start(), f'class="{kind}"'
        start, end, width = offset + match.start(), offset + match.end(), 2 if line[match.start()] == "*" else 1
        name = "strong" if width == 2 else "code"
        yield start, start + width, 'class="sign"'
        yield start + width, end - width, f'class="{f"{kind} {name}".strip()}"'
        yield end - width, end, 'class="sign"'
        position = match.end()
    if kind and position < last:
        yield offset + position, offset + last, f'class="{kind}"'


def _table_styles(rows: Sequence[tuple[int, str]]) -> Iterator[Style]:
    """A table's cells and what parts them; where the rows are short, each bar stands below the one above."""
    bars = [[match.start() for match in PIPE.finditer(content)] for _, content in rows]
    lengths = [[_seen(content[left + 1 : right]) for left, right in pairwise(cuts)] for cuts, (_, content) in zip(bars, rows, strict=True)]
    rules = [bool(RULE.fullmatch(content)) for _, content in rows]
    widths = [max(column) for column in zip_longest(*(row for row, rule in zip(lengths, rules, strict=True) if not rule), fillvalue=0)]
    aligned = sum(widths) <= ALIGNED
    for number, (offset, content) in enumerate(rows):
        if rules[number]:
            yield offset, offset + len(content), 'class="rule"'
            continue
        kind = "cell strong" if number + 1 < len(rows) and rules[number + 1] else "cell"
        for column, (left, right) in enumerate(pairwise([*bars[number], len(content)])):
            room = widths[column - 1] - lengths[number][column - 1] if column and aligned else 0
            # Room is made of spaces that are not text, because the page's policy forbids style attributes.
            yield offset + left, offset + left + 1, f'class="between" data-room="{" " * room}"' if room else 'class="between"'
            yield from _inline_styles(content, offset, left + 1, right, kind)


def _seen(cell: str) -> int:
    """How many of a cell's characters are to be seen."""
    return len(cell) - sum(4 if match[0].startswith("*") else 2 for match in EMPHASIS.finditer(cell))


def styled_html(text: str, start: int, end: int, styled: Sequence[Style]) -> str:
    """The characters [start, end) of a text, escaped, with its styles."""
    parts, position = [], start
    index = bisect_right(styled, start, key=lambda style: style[1])
    while index < len(styled) and styled[index][0] < end:
        left, right = max(styled[index][0], start), min(styled[index][1], end)
        parts.append(f"{escape(text[position:left])}<span {styled[index][2]}>{escape(text[left:right])}</span>")
        position, index = right, index + 1
    return "".join([*parts, escape(text[position:end])])


# Answers


def answer_html(
    text: str, citations: Sequence[Citation] = (), unsupported: Sequence[str] = (), citations_now: Mapping[int, CitationNow] | None = None
) -> str:
    """An answer's text as paragraphs and lists, its marks as chips, its unsupported sentences flagged in words."""
    by_number = {citation.number: chip(citation, (citations_now or {}).get(citation.number)) for citation in citations}
    flagged = list(_occurrences(text, unsupported))
    blocks: list[tuple[str, list[str]]] = []
    position = 0
    for line in text.split("\n"):
        start, position = position, position + len(line) + 1
        numbered, bullet = NUMBERED.match(line), BULLET.match(line)
        item = numbered or bullet
        content = _line_html(text, start + (item.end() if item else 0), start + len(line), by_number, flagged)
        if not line.strip():
            blocks.append(("", []))
            continue
        kind = "ol" if numbered else "ul" if bullet else "p"
        if not blocks or blocks[-1][0] != kind:
            blocks.append((kind, []))
        blocks[-1][1].append(f'<li value="{numbered[1]}">{content}</li>' if numbered else f"<li>{content}</li>" if bullet else content)
    return "".join(f"<{kind}>{('<br>' if kind == 'p' else '').join(parts)}</{kind}>" for kind, parts in blocks if kind)


def _occurrences(text: str, sentences: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Where each sentence stands; the same sentence twice is found twice."""
    position: dict[str, int] = {}
    for sentence in sentences:
        start = text.find(sentence, position.get(sentence, 0)) if sentence.strip() else -1
        if start >= 0:
            position[sentence] = start + len(sentence)
            yield start, start + len(sentence)


def _line_html(text: str, start: int, end: int, chips: dict[int, str], flagged: Sequence[tuple[int, int]]) -> str:
    """One line, cut wherever an unsupported sentence begins or ends."""
    cuts = sorted({start, end, *(cut for span in flagged for cut in span if start < cut < end)})
    parts = []
    for left, right in pairwise(cuts):
        content = _inline_html(text[left:right], chips)
        span = next(((first, last) for first, last in flagged if first <= left < last), None)
        if span and text[left:right].strip():
            flag = f' <span class="flag">{UNSUPPORTED}</span>' if right == min(span[1], end) else ""
            content = f'<span class="unsupported">{content}</span>{flag}'
        parts.append(content)
    return "".join(parts)


def _inline_html(text: str, chips: dict[int, str]) -> str:
    """Escaped text; a mark whose number has a chip becomes it, any other stays as it was written."""

    def replaced(match: re.Match[str]) -> str:
        if match["marks"]:
            numbers = [int(number) for number in NUMBER.findall(match["marks"])]
            if not any(number in chips for number in numbers):
                return escape(match["marks"])
            marks = "".join(chips.get(number, f"[{number}]") for number in numbers)
            return f'<span class="chips">{marks}</span>'
        return f"<strong>{_inline_html(match['bold'], chips)}</strong>" if match["bold"] else f"<code>{escape(match['code'])}</code>"

    parts, position = [], 0
    for match in INLINE.finditer(text):
        parts += [escape(text[position : match.start()]), replaced(match)]
        position = match.end()
    return "".join([*parts, escape(text[position:])])


def sources_html(citations: Sequence[Citation], citations_now: Mapping[int, CitationNow] | None = None) -> str:
    """The list under an answer: each number once more, with its document and the words it opens; all of them where they cannot be opened as they were."""
    if not citations:
        return ""
    items = []
    for citation in citations:
        page = f' <span class="page">p. {citation.page}</span>' if citation.page is not None else ""
        now = (citations_now or {}).get(citation.number)
        since = f' <span class="flag since">{SINCE[now.state]}</span>' if now and now.state in SINCE else ""
        quoted = f"<q>{escape(citation.quote if since else shortened(citation.quote, 150))}</q>"
        items.append(f'<li>{chip(citation, now)}<div><span class="title">{escape(citation.title)}</span>{page}{since} {quoted}</div></li>')
    return f'<section class="sources"><h3>Sources</h3><ol>{"".join(items)}</ol></section>'


def verified_html(answer: Answer, citations_now: Mapping[int, CitationNow] | None = None) -> str:
    """A finished answer: its text, what the user should know about it, its sources, and which of these are not any more what they were."""
    notices = "".join(f'<p class="notice">{escape(notice)}</p>' for notice in answer.notices)
    text = answer_html(answer.text, answer.citations, answer.unsupported, citations_now)
    states = {now.state for now in (citations_now or {}).values()}
    notices += f'<p class="notice">{CHANGED_SINCE}</p>' if states & {"changed", "gone"} else ""
    notices += f'<p class="notice">{NOT_YOURS}</p>' if "unavailable" in states else ""
    if answer.asks_back:
        return f'<div class="answer asking"><p class="label">A question back</p>{text}{notices}</div>'
    if answer.abstained:
        return f'<div class="answer abstained"><p class="label">Not in the documents</p>{text}{notices}</div>'
    return f'<div class="answer">{text}{notices}{sources_html(answer.citations, citations_now)}<p class="by">{escape(_byline(answer))}</p></div>'


def _byline(answer: Answer) -> str:
    parts = [f"{counted(len(answer.citations), 'quote')} checked word for word"] if answer.citations else []
    parts += [MODELS.get(answer.model, f"written by {answer.model}")] if answer.model else []
    return " · ".join([*parts, seconds_text(answer.timings.total_ms / 1000)])


def seconds_text(seconds: float) -> str:
    """How long something took: "3.4 s", "48 s", "3 min 48 s"."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def verdict_html(exchange: Exchange, own: bool = True) -> str:
    """What stands under an answer: the buttons that say whether it is right, or what was said of it, with a way back and room for a reason.

    It is the owner's alone: under somebody else's answer stands nothing.
    """
    if exchange.answer is None or not own:
        return ""
    key = escape(exchange.key)
    problem = f' <span class="judging-problem" role="status">{escape(exchange.judging_problem)}</span>' if exchange.judging_problem else ""
    if not exchange.verdict:
        right = f'<button type="button" data-case="right" data-key="{key}" title="Note that this answer is right">{THUMB_UP}Right</button>'
        wrong = f'<button type="button" data-case="keep" data-key="{key}" title="Note that this answer is not right">{THUMB}Not right?</button>'
        return f'<p class="verdict">{right}{wrong}{problem}</p>'
    case = " Kept as a case: <code>citewell evaluate mine</code> asks it again." if exchange.case else ""
    undo = f'<button type="button" data-case="drop" data-key="{key}">Undo</button>'
    saved = '<span class="saved" role="status">Saved.</span>' if exchange.reason else ""
    label = "What is wrong?" if exchange.verdict == "wrong" else "Anything to add?"
    return (
        f'<div class="verdict"><p>{VERDICTS[exchange.verdict]}{case} {undo}{problem}</p><p class="reason"><label>{label} '
        f'<input type="text" maxlength="{REASON_LENGTH}" autocomplete="off" value="{escape(exchange.reason)}" placeholder="In your own words, if you like"></label>'
        f'<button type="button" data-case="reason" data-key="{key}">Save</button>{saved}</p></div>'
    )


# The transcript


def question_html(question: str, documents: Sequence[str] = ()) -> str:
    """A question, with the titles of the documents it was narrowed to."""
    narrowed = f'<p class="narrowed" title="{escape(shortened(", ".join(documents), 400))}">Asked of {_narrowed(documents)}</p>' if documents else ""
    return f'<div class="question"><span class="visually-hidden">You asked: </span><p>{escape(question)}</p>{narrowed}</div>'


def _narrowed(documents: Sequence[str]) -> str:
    return f"“{escape(shortened(documents[0], 60))}” only" if len(documents) == 1 else f"{len(documents):,} chosen documents"


def exchange_html(exchange: Exchange, own: bool = True) -> str:
    """One finished exchange; of somebody else's nothing is said of the answer."""
    if exchange.answer is not None:
        outcome = verified_html(exchange.answer, exchange.citations_now)
    elif exchange.stopped:
        outcome = f'<div class="answer stopped">{answer_html(exchange.draft)}<p class="label">Stopped. Not verified.</p></div>'
    else:
        outcome = f'<div class="answer problem"><p>{escape(exchange.problem)}</p></div>'
    note = f'<p class="notice note" role="status">{escape(exchange.note)}</p>' if exchange.note else ""
    kept = f' data-kept="{escape(exchange.kept)}"' if exchange.kept else ""
    asked = question_html(exchange.question, exchange.documents)
    return f'<article class="exchange"{kept}>{asked}{outcome}{note}{verdict_html(exchange, own)}</article>'


def transcript_html(conversation: Conversation) -> str:
    """All finished exchanges; a live log, so that a finished answer is read out once and drafts are not. The script takes the address's id from it."""
    exchanges = "".join(exchange_html(exchange, conversation.own) for exchange in conversation.finished)
    notice = f'<p class="conversation-notice" role="status">{escape(conversation.notice)}</p>' if conversation.notice else ""
    return f'{notice}<div class="log" role="log" aria-live="polite" aria-label="Conversation" data-conversation="{escape(conversation.id)}">{exchanges}</div>'


def running_html(exchange: Exchange | None) -> str:
    """The exchange in progress, or nothing."""
    if exchange is None:
        return ""
    if exchange.ahead:
        status, slow = f"{counted(exchange.ahead, 'question')} {'is' if exchange.ahead == 1 else 'are'} before yours…", WAITING_SLOW
    elif exchange.hits is None:
        status, slow = "Searching the documents…", SLOW_SEARCH
    elif not exchange.draft:
        status, slow = f"Reading {counted(len(exchange.hits), 'passage')}…", SLOW_READING
    else:
        status, slow = "Writing a draft…", SLOW_WRITING
    phase = "draft" if exchange.draft else "evidence" if exchange.hits is not None else "search"
    draft = f'<div class="draft">{answer_html(exchange.draft)}<p class="label">Draft. Not checked yet.</p></div>' if exchange.draft else ""
    return (
        f'<article class="exchange running" data-run="{escape(exchange.key)}" data-phase="{phase}">{question_html(exchange.question, exchange.documents)}'
        f'<p class="status"><span class="pulse" aria-hidden="true"></span><span role="status">{status}</span>'
        f'<span class="elapsed" aria-hidden="true"></span></p><p class="slow slow-{phase}"><span class="at-first">{slow}</span><span class="later">{STILL_SLOW}</span></p>'
        f'<p class="cut">Citewell stopped before the answer was finished.</p>{draft}</article>'
    )


def welcome_html(starters: Sequence[str]) -> str:
    """What an empty transcript shows: the promise, and questions to start from."""
    buttons = "".join(
        f'<li><button type="button" class="starter" data-question="{escape(starter)}">{escape(starter)}</button></li>' for starter in starters
    )
    listed = f'<h3 id="starters-label">Start with a question</h3><ul aria-labelledby="starters-label">{buttons}</ul>' if buttons else ""
    return (
        '<section class="welcome"><h2>Ask your documents.</h2>'
        "<p>Every claim in an answer carries a number, and every number opens the exact words in the source. "
        f"What the documents do not say, you are told so.</p>{listed}</section>"
    )


# Beside the chat


def marked_passage_html(hit: Hit, citations: Sequence[Citation], citations_now: Mapping[int, CitationNow] | None = None) -> str:
    """A passage's text with the cited words marked; where quotes overlap, each word is marked once and each number follows its own last word."""
    passage = hit.passage
    first, last = passage.span.start, passage.span.end
    inside = [
        (max(citation.start, first), min(citation.end, last), citation)
        for citation in citations
        if citation.document_id == passage.document_id and citation.start < last and first < citation.end
    ]
    cuts = sorted({first, last, *(cut for start, end, _ in inside for cut in (start, end))})
    styled = styles(passage.text, passage.source)
    parts = []
    for left, right in pairwise(cuts):
        content = styled_html(passage.text, left - first, right - first, styled)
        parts.append(f"<mark>{content}</mark>" if any(start <= left and right <= end for start, end, _ in inside) else content)
        ended = "".join(chip(citation, (citations_now or {}).get(citation.number)) for _, end, citation in inside if end == right)
        parts.append(f'<span class="chips">{ended}</span>' if ended else "")
    return "".join(parts)


def passage_html(hit: Hit, citations: Sequence[Citation], citations_now: Mapping[int, CitationNow] | None = None, state: str = "") -> str:
    """One passage of the evidence, with where it stands, or that it does not any more."""
    passage = hit.passage
    text = marked_passage_html(hit, citations, citations_now)
    cited = ' class="passage cited"' if "<mark>" in text else ' class="passage"'
    page = f"p. {passage.pages[0][1]}" if passage.pages else ""
    place = " · ".join(part for part in (passage.heading, passage.source, page) if part and part != passage.title)
    # The words that stand there now would be marked as if they had been the evidence.
    span = () if state else (passage.span.start, passage.span.end)
    title = escape(passage.title)
    heading = title if state in CLOSED else f'<a href="{escape(document_link(passage.document_id, *span))}">{title}</a>'
    since = f' <span class="flag since">{SINCE[state]}</span>' if state in SINCE else ""
    return f'<li{cited}><h3>{heading}{since}</h3><p class="source">{escape(place)}</p><div class="text">{text}</div></li>'


def evidence_html(exchange: Exchange | None) -> str:
    """The passages an answer is made from, before and after it is there."""
    if exchange is None or not exchange.hits:
        found = exchange is not None and exchange.hits is not None
        hint = "No passage was found for this question." if found else "The passages an answer is made from appear here, before the answer does."
        return f'<section class="evidence empty"><h2>Evidence</h2><p class="hint">{hint}</p></section>'
    citations = exchange.answer.citations if exchange.answer else ()
    passages = "".join(passage_html(hit, citations, exchange.citations_now, exchange.passages_now.get(hit.passage.id, "")) for hit in exchange.hits)
    asked = exchange.standalone_question
    searched = f'<p class="searched">Searched for <q>{escape(asked)}</q></p>' if asked and asked != exchange.question else ""
    # A checkbox, not <details>: its state is the browser's alone, so updates from the server leave it as the user set it.
    return (
        f'<section class="evidence"><h2>Evidence</h2><input type="checkbox" id="show-evidence" class="toggle">'
        f'<label for="show-evidence">Show {counted(len(exchange.hits), "passage")}</label>'
        f'<div class="folded">{searched}<ol>{passages}</ol></div></section>'
    )


def documents_html(latest: Sequence[DocumentInfo], total: int) -> str:
    """What can be asked about, in short: the latest of so many documents, of which each title opens its own; the button opens the view of all."""
    button = f'<button type="button" class="open-library" data-open-library>{"See all, add or choose" if total else "Add documents"}</button>'
    if not total:
        return f'<section class="documents" data-total="0"><h2>Documents</h2><p class="hint">There are no documents yet.</p>{button}</section>'
    items = "".join(
        f'<li><a href="{escape(document_link(document.id))}">{escape(document.title)}</a>'
        f'<span class="source">{escape(document.source)} · {counted(document.passages, "passage")}</span></li>'
        for document in latest
    )
    more = f'<p class="hint">and {total - len(latest):,} more</p>' if total > len(latest) else ""
    return (
        f'<section class="documents" data-total="{total}"><h2>Documents</h2>{button}<input type="checkbox" id="show-documents" class="toggle">'
        f'<label for="show-documents">Show {counted(total, "document")}</label><div class="folded"><ul>{items}</ul>{more}</div></section>'
    )


def earlier_place_html() -> str:
    """Where the script shows a conversation that the server no longer knows."""
    return (
        '<section class="earlier" aria-label="Earlier conversation" hidden><p class="hint"><span>From before Citewell lost touch with this page, as when it '
        'is started again. It is kept to be read; new questions do not lean on it.</span> <button type="button" data-let-go>Remove</button></p><div></div></section>'
    )


def work_place_html() -> str:
    """Where the script shows the library's work while the view of all documents is closed."""
    return '<div class="strip" data-part="work"></div>'


def choice_html(choice: Choice, total: int) -> str:
    """The documents that questions go to, while they are not all of them; always there for the script, which reads the ids from it."""
    ids = escape(json.dumps(list(choice.chosen)))
    gone = "".join(f"<p>“{escape(shortened(title, 80))}” is gone, and was dropped from the documents you chose.</p>" for title in choice.gone[:3])
    if len(choice.gone) > 3:
        gone += f"<p>So were {len(choice.gone) - 3:,} more.</p>"
    if choice.gone and not choice.chosen:
        gone += "<p>Questions go to all documents again.</p>"
    said = f'<div class="gone">{gone}</div>' if gone else ""
    row = ""
    if choice.chosen:
        titles = escape(shortened(", ".join(choice.chosen.values()), 400))
        row = (
            f'<p class="choice"><button type="button" data-open-library title="{titles}">Asking {len(choice.chosen):,} of {counted(total, "document")}'
            '</button><span aria-hidden="true">·</span><button type="button" data-choose-none aria-label="Clear: ask all documents">clear</button></p>'
        )
    return f'<div role="status" data-chosen="{ids}" data-turn="{choice.turn}">{said}{row}</div>'


def masthead_html(name: str = "") -> str:
    """The page's head; `name` is who is signed in, empty where nobody has to."""
    account = (
        f'<a class="who" href="/password" title="Change your password" data-user="{escape(name)}"><span class="visually-hidden">Signed in as </span>{escape(name)}'
        '<span class="visually-hidden">: change your password</span></a>'
        '<form method="post" action="/logout"><button type="submit" data-sign-out>Sign out</button></form>'
        if name
        else ""
    )
    return (
        '<header class="masthead"><svg viewBox="0 0 32 32" width="28" height="28" aria-hidden="true"><rect width="32" height="32" rx="8"/>'
        '<path d="M12 8H9v16h3M20 8h3v16h-3"/><path d="M14.5 13.5 16.5 12v8"/></svg>'
        '<h1>Citewell</h1><p>Answers with the exact words that bear them out.</p><nav class="account" aria-label="Conversations and account">'
        f'<button type="button" data-open-conversations aria-haspopup="dialog">Conversations</button>{account}</nav></header>'
    )


def unreachable_html() -> str:
    """What stands above the composer while the server does not answer; the script shows it."""
    return (
        '<p role="alert">Citewell does not answer: it was stopped, or it is starting again. What is on this page stays here to be read. '
        "Once Citewell runs again, this page goes on by itself.</p>"
    )


def forgotten_html() -> str:
    """In place of an answer where the server knows nothing of a tab's conversation; the script keeps that for reading, and begins another."""
    return '<p class="hint" data-forgotten role="status">This page was away for too long, or Citewell was started again; it begins anew…</p>'


def refused_html(sentence: str) -> str:
    """In place of an answer where a question was not taken; it stands in the composer again."""
    return f'<p class="conversation-notice" role="alert">{escape(sentence)}</p>'


def composer_hint_html() -> str:
    return '<p class="hint"><kbd>Enter</kbd> sends, <kbd>Shift</kbd>+<kbd>Enter</kbd> starts a new line</p>'


def status_html(*messages: str) -> str:
    """A banner for each thing that the user should know of the language model and the store; nothing while all is well."""
    return "".join(f'<p class="banner" role="note">{escape(message)}</p>' for message in messages if message)
