"""From one document to the HTML that shows it, with a quote marked in it (pure)."""

from __future__ import annotations

from index.types import DocumentInfo, Span
from ui.render import counted, document_link, escape

CHUNK = 16_000
"""Characters in one block of a long text: blocks out of sight are not laid out, which keeps a text of many megabytes scrollable."""


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


def text_html(text: str, span: Span | None) -> str:
    """The text exactly as stored, in a few large blocks that begin at line starts; `span` becomes `<mark id="quote">`."""
    blocks, start = [], 0
    while start < len(text):
        end = text.find("\n", min(start + CHUNK, len(text))) + 1 or len(text)
        if span and start <= span.start < end < span.end:  # a mark does not cross blocks
            end = text.find("\n", span.end - 1) + 1 or len(text)
        if span and start <= span.start < end:
            before, quote, after = (escape(part) for part in (text[start : span.start], text[span.start : span.end], text[span.end : end]))
            blocks.append(f'<div class="block">{before}<mark id="quote" tabindex="-1">{quote}</mark>{after}</div>')
        else:
            blocks.append(f'<div class="block">{escape(text[start:end])}</div>')
        start = end
    return "".join(blocks)


def document_html(info: DocumentInfo, text: str, span: Span | None) -> str:
    """The document as an article, for the dialog and for the page of its own."""
    detail = f"{info.source} · {counted(info.passages, 'passage')} · {counted(info.size, 'character')}"
    return (
        f'<article class="document"><header><h2 id="document-title">{escape(info.title)}</h2><p class="source">{escape(detail)}</p></header>'
        f'<div class="text" tabindex="0" role="region" aria-label="Text of the document">{text_html(text, span)}</div></article>'
    )


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


def page_html(title: str, article: str, style: str) -> str:
    """A page of its own around an article; it needs no script."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="referrer" content="no-referrer"><title>{escape(title)} · Citewell</title>'
        f'<link rel="icon" href="/favicon.ico" type="image/svg+xml"><style>{style}</style></head>'
        f'<body class="reading"><nav><a href="/">Citewell</a></nav><main>{article}</main></body></html>'
    )
