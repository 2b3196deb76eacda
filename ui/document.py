"""From one document to the HTML that shows it, with a quote marked in it (pure)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from pathlib import PurePosixPath
from urllib.parse import quote

from index.types import DocumentInfo, Span
from ui import render
from ui.render import Style, counted, document_link, escape, shortened, styled_html

CHUNK = 16_000
"""Characters in one block of a long text: blocks out of sight are not laid out, which keeps a text of many megabytes scrollable."""

LEGEND = "Grey parts are menus and other page furniture; they are not searched."


class BadSpan(ValueError):
    """The offsets in a link do not fit the document."""


def span_of(start: str | None, end: str | None, length: int) -> Span | None:
    """The span that a link names, None when it names none; BadSpan unless it lies within `length` characters."""
    if start is None and end is None:
        return None
    # isdecimal alone would let other scripts' digits through; the length bounds what int() has to read.
    if not all(offset and offset.isascii() and offset.isdecimal() and len(offset) < 16 for offset in (start, end)):
        raise BadSpan
    span = Span(int(start or 0), int(end or 0))
    if not span.start < span.end <= length:
        raise BadSpan
    return span


def page_of(offset: int, pages: Sequence[int]) -> int:
    """The page, from 1, on which the character at `offset` stands; text before the first page's offset stands on page 1."""
    return max(1, bisect_right(pages, offset))


def text_html(
    text: str, span: Span | None, furniture: Sequence[Span] = (), pages: Sequence[int] = (), leaf: str = "Page", styled: Sequence[Style] = ()
) -> str:
    """The text exactly as stored, in a few large blocks that begin at line starts; `span` becomes `<mark id="quote">`.

    Furniture and what has a style are wrapped, and where a page begins stands an element without text, whose label ("Page 3", or another `leaf`) is
    an attribute: the text of the whole is the document's, character by character.
    """
    blocks, start = [], 0
    while start < len(text):
        end = text.find("\n", min(start + CHUNK, len(text))) + 1 or len(text)
        if span and start <= span.start < end < span.end:  # a mark does not cross blocks
            end = text.find("\n", span.end - 1) + 1 or len(text)
        if span and start <= span.start < end:
            sections = [(start, span.start), (span.start, span.end), (span.end, end)]
            before, marked, after = (_dressed_html(text, left, right, furniture, pages, leaf, styled) for left, right in sections)
            # A page that begins with the quote is announced before it, not inside.
            announced = _breaks_html(span.start, pages, leaf)
            block = f'{before}{announced}<mark id="quote" tabindex="-1">{marked.removeprefix(announced)}</mark>{after}'
        else:
            block = _dressed_html(text, start, end, furniture, pages, leaf, styled)
        if end == len(text):
            block += _breaks_html(end, pages, leaf)  # last pages without text
        blocks.append(f'<div class="block">{block}</div>')
        start = end
    return "".join(blocks)


def _dressed_html(text: str, start: int, end: int, furniture: Sequence[Span], pages: Sequence[int], leaf: str, styled: Sequence[Style]) -> str:
    """A part of the text, cut where pages begin and where furniture begins or ends."""
    first = bisect_right(furniture, start, key=lambda part: part.end)
    last = bisect_left(furniture, end, key=lambda part: part.start)
    grey = furniture[first:last]
    bounds = {bound for part in grey for bound in (max(part.start, start), min(part.end, end))}
    cuts = sorted({start, end} | bounds | set(pages[bisect_left(pages, start) : bisect_left(pages, end)]))
    parts, index = [], 0
    for left, right in pairwise(cuts):
        while index < len(grey) and grey[index].end <= left:
            index += 1
        content = styled_html(text, left, right, styled)
        inside = index < len(grey) and grey[index].start <= left
        parts.append(_breaks_html(left, pages, leaf) + (f'<span class="furniture">{content}</span>' if inside else content))
    return "".join(parts)


def _breaks_html(offset: int, pages: Sequence[int], leaf: str) -> str:
    """The pages that begin at an offset; several, where some have no text."""
    numbers = range(bisect_left(pages, offset) + 1, bisect_right(pages, offset) + 1)
    labels = (f"{leaf} {number}" for number in numbers)
    return "".join(f'<span class="page-break" role="separator" aria-label="{label}" data-label="{label}"></span>' for label in labels)


def leaf_of(source: str) -> str:
    """What a part of such a file is called."""
    return "Slide" if PurePosixPath(source).suffix.lower() in (".pptx", ".odp") else "Page"


def document_html(info: DocumentInfo, text: str, span: Span | None, furniture: Sequence[Span] = (), pages: Sequence[int] = ()) -> str:
    """The document as an article, for the dialog and for the page of its own."""
    page = page_of(span.start, pages) if span else 1
    legend = f'<p class="legend"><span class="furniture">{LEGEND}</span></p>' if furniture else ""
    shown = text_html(text, span, furniture, pages, leaf_of(info.source), render.styles(text, info.source))
    return (
        f'<article class="document"><header>{_heading_html(info)}{_views_html(info, span, page, "text")}{legend}</header>'
        f'<div class="text" tabindex="0" role="region" aria-label="Text of the document">{shown}</div></article>'
    )


def _heading_html(info: DocumentInfo) -> str:
    parts = [info.source, *([counted(info.pages, leaf_of(info.source).lower())] if info.pages else [])]
    detail = " · ".join([*parts, counted(info.passages, "passage"), counted(info.size, "character")])
    return f'<h2 id="document-title">{escape(info.title)}</h2><p class="source">{escape(detail)}</p>'


# The rendered page


def has_page_images(info: DocumentInfo) -> bool:
    """Whether the document's pages can be shown as they look."""
    return info.pages > 0 and render.has_page_images(info.source)


def page_link(info: DocumentInfo, page: int, span: Span | None) -> str:
    """The address of the view that shows a page as it looks."""
    return render.page_link(info.id, page, *((span.start, span.end) if span else ()))


def image_link(info: DocumentInfo, page: int, span: Span | None) -> str:
    """The address of a page's picture."""
    marked = f"?start={span.start}&end={span.end}" if span else ""
    return f"/documents/{quote(info.id, safe='')}/pages/{page}.png{marked}"


def _views_html(info: DocumentInfo, span: Span | None, page: int, current: str) -> str:
    """The two ways to show the document, where there are two; links, so that they need no script."""
    if not has_page_images(info):
        return ""
    text = document_link(info.id, span.start, span.end) if span else document_link(info.id)
    links = (("text", text, "Text"), ("page", page_link(info, page, span), f"Page {page}"))
    shown = "".join(f'<a href="{escape(address)}" aria-current="{str(name == current).lower()}">{label}</a>' for name, address, label in links)
    return f'<nav class="views" aria-label="Ways to show the document">{shown}</nav>'


def page_image_html(info: DocumentInfo, page: int, span: Span | None, marked: str, problem: str = "", depth: float = 0.0) -> str:
    """A page as it looks, with the quote on it; `marked` is the part of the quote that this page bears, `depth` the share of the page's text before it.

    `problem` stands in the picture's place.
    """
    on_page = span if marked else None
    quoted = f'<p class="quoted">“{escape(shortened(marked, 240))}”</p>' if marked else ""
    if problem:
        content = f'<p class="no-picture">{escape(problem)}</p>'
    else:
        told = f" Marked on it: “{shortened(marked, 300)}”" if marked else ""
        alternative = f"Page {page} of “{info.title}”, as a picture.{told}"
        address = escape(image_link(info, page, on_page))
        # A place to jump to without a script, about where the words are; the script looks for the highlighter's colour.
        place = f'<i id="marked" data-depth="{round(depth * 20)}"></i>' if marked else ""
        content = (
            f'<div class="sheet">{place}<a href="{address}" target="_blank" rel="noopener" title="Open the picture alone">'
            f'<img src="{address}" alt="{escape(alternative)}"></a></div>'
        )
    return (
        f'<article class="document"><header>{_heading_html(info)}{_views_html(info, span, page, "page")}{quoted}</header>'
        f'<div class="picture" tabindex="0" role="region" aria-label="Page {page}">{content}</div>{_turning_html(info, page, span)}</article>'
    )


def _turning_html(info: DocumentInfo, page: int, span: Span | None) -> str:
    def link(to: int, label: str) -> str:
        if not 1 <= to <= info.pages:
            return f'<span aria-hidden="true">{label}</span>'
        return f'<a href="{escape(page_link(info, to, span))}" aria-label="{label} page">{label}</a>'

    zoom = (
        '<span class="zoom" hidden><button type="button" data-zoom="-1" aria-label="Smaller">−</button>'
        '<button type="button" data-zoom="1" aria-label="Larger">+</button></span>'
    )
    return (
        f'<nav class="leafing" aria-label="Pages">{link(page - 1, "Previous")}<span>Page {page:,} of {info.pages:,}</span>{link(page + 1, "Next")}'
        f"{zoom}</nav>"
    )


# In a document's place


def problem_html(title: str, explanation: str, link: str = "", label: str = "") -> str:
    """What stands in a document's place when it cannot be shown."""
    onward = f'<p><a href="{escape(link)}">{escape(label)}</a></p>' if link else ""
    heading = f'<header><h2 id="document-title">{escape(title)}</h2></header>'
    return f'<article class="document problem">{heading}<p>{escape(explanation)}</p>{onward}</article>'


def unknown_html() -> str:
    """For an id that no document has."""
    return problem_html("No such document", "It may have been removed since the answer was written, or the link is incomplete.")


def misfit_html(info: DocumentInfo) -> str:
    """For offsets that do not fit the document."""
    explanation = f"The link points outside the text of “{info.title}”. The document may have changed since the answer was written."
    return problem_html("This link does not fit the document", explanation, document_link(info.id), "Open the whole document")


def no_page_html(info: DocumentInfo) -> str:
    """For a page that the document has not."""
    explanation = f"“{info.title}” has no such page to show. The document may have changed since the answer was written."
    return problem_html("No such page", explanation, document_link(info.id), "Open the text of the document")


def page_html(title: str, article: str, style: str) -> str:
    """A page of its own around an article; it needs no script."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="referrer" content="no-referrer"><title>{escape(title)} · Citewell</title>'
        f'<link rel="icon" href="/favicon.ico" type="image/svg+xml"><style>{style}</style></head>'
        f'<body class="reading"><nav class="home"><a href="/">Citewell</a></nav><main>{article}</main></body></html>'
    )
