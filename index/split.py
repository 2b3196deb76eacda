"""From a document's text to sentences and passages with exact offsets. Pure; the text is never changed.

A passage is a run of whole sentences under one heading. Together the passages cover every sentence of the text once.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from index.types import Document, Passage, Span
from index.words import FUNCTION_WORDS

PASSAGE_BYTES = 1_050
"""A passage is closed before it grows past this in UTF-8, measured over sentences: see docs/benchmarks.md. Bytes, as the embedding model takes some 250
tokens, and a letter of another script costs as many as it has bytes."""

SENTENCE_CHARACTERS = 600
"""A sentence longer than this (tables, code, text without full stops) is cut at white space."""

HEADING_CHARACTERS = 120
"""A heading is named by no more than this: the names travel with every passage below it."""

CODE = frozenset(
    """.py .pyi .js .mjs .ts .tsx .jsx .java .kt .kts .scala .groovy .c .h .cc .cpp .hpp .cs .go .rs .rb .php .swift .m .mm .pl .pm .lua .r .jl .dart .ex
    .exs .erl .hs .ml .clj .el .vb .fs .sql .sh .bash .zsh .fish .ps1 .bat .css .scss .less .vue .svelte .yaml .yml .toml .ini .cfg .conf .properties
    .env .tex .bib .log .diff .patch .proto .graphql .tf .cmake .gradle""".split()  # noqa: SIM905
)
"""Suffixes of source code, where `#` opens a comment, not a heading, and a line is a line."""

_ABBREVIATIONS = frozenset(
    """mr mrs ms dr prof sr jr st mt gen col lt sgt capt rev hon gov sen rep pres vs etc al cf eg ie e.g i.e a.m p.m no nos vol vols ch sec fig
    figs eq eqs ref refs pp p ed eds trans inc ltd co corp llc dept univ assn approx est min max jan feb mar apr jun jul aug sep sept oct nov
    dec mon tue wed thu fri sat sun u.s u.k u.n e.u ph.d m.d b.a m.a d.c""".split()  # noqa: SIM905
)
_MAY_END_SENTENCE = frozenset(("etc", "inc", "ltd", "co", "corp", "p.m", "a.m"))
_COUNTRIES = frozenset(("u.s", "u.k", "u.n", "e.u", "d.c"))
# Begins only where a run of marks begins, and never steps back into it: a line of a million dots takes no longer than any other.
_END = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+(?=\s)|[。！？｡]+[」』”’）]*")
_LAST_WORD = re.compile(r"[^\s(\[“\"]*$")
_SPACE = re.compile(r"\s*")
_OPENS = re.compile(r"\s+[\"'“‘«(\[—–\-]*\s*(?=(\S))(\w{0,20})")
_HEADING = re.compile(r"(#{1,6})\s+\S")
_ITEM = re.compile(r"\s*(?:[-*+•–—]|\d{1,3}[.)])\s+\S")
_ROW = re.compile(r"[^:;|]{1,80}: [^;|]*; [^:;|]{1,80}: |[^|]{1,200} \| ")
_FENCE = re.compile(r"\s*(?:`{3,}[^`]*$|~~~)")


@dataclass(frozen=True, slots=True)
class Block:
    """A heading, a list item, a table row or a paragraph: lines that belong together. `level` is 0 for anything but a heading."""

    span: Span
    level: int
    paragraph: int


def _lines(text: str) -> Iterator[Span]:
    """Spans of the lines that hold something, without the white space around them."""
    for match in re.finditer(r"[^\r\n\f\v\x1c-\x1e\x85\u2028\u2029]+", text):
        line = match.group()
        if line.strip():
            yield Span(match.start() + len(line) - len(line.lstrip()), match.start() + len(line.rstrip()))


def _wrap_width(lengths: list[int]) -> int:
    """The width at which a text was wrapped by hand, or 0 when its lines are whole paragraphs."""
    if len(lengths) < 8:
        return 0
    ordered = sorted(lengths)
    wide = ordered[int(len(ordered) * 0.9)]
    full = sum(wide * 0.75 <= length <= wide + 12 for length in lengths)
    return wide if 40 <= wide <= 120 and ordered[-1] <= wide * 1.5 and full >= len(lengths) * 0.4 else 0


def blocks(text: str, code: bool = False) -> list[Block]:
    """The text's blocks in order. A newline ends a block, except inside a paragraph that was wrapped by hand; `code` has lines alone, and no headings."""
    lines = list(_lines(text))
    newline = "\n" if "\n" in text else "\r"
    width = 0 if code else _wrap_width([line.end - line.start for line in lines])
    found: list[Block] = []
    paragraph = 0
    fenced = False
    previous: Span | None = None
    joinable = False
    for line in lines:
        content = text[line.start : line.end]
        if previous is None or text.count(newline, previous.end, line.start) > 1:
            paragraph += 1
            joinable = False
        heading = None if fenced or code else _HEADING.match(content)
        fence = bool(_FENCE.match(content))
        row = content.startswith("|") or bool(_ROW.match(content))
        starts = heading or fence or fenced or row or _ITEM.match(content)
        if joinable and not starts and found and width and previous is not None and previous.end - previous.start >= width * 0.6:
            last = found[-1]
            found[-1] = Block(Span(last.span.start, line.end), last.level, last.paragraph)
        else:
            found.append(Block(line, len(heading.group(1)) if heading else 0, paragraph))
        joinable = not (heading or fence or fenced or row)
        fenced ^= fence
        previous = line
    if code:
        return found
    return [_plain_heading(text, block, following) for block, following in zip(found, [*found[1:], None], strict=False)]


def _plain_heading(text: str, block: Block, following: Block | None) -> Block:
    """Sees a heading in a short line of its own that ends in no punctuation and has text below it, as plain text files write them."""
    content = text[block.span.start : block.span.end]
    if (
        block.level
        or following is None
        or len(content) > 90
        or not re.match(r"[\"“‘']?[A-Z0-9]", content)
        or re.search(r"[.!;:,…。！？]['\"”’)]*$", content)
        or _ITEM.match(content)
        or content.startswith(("|", "-", "*"))
        or _ROW.match(content)
        or following.span.end - following.span.start < len(content)
        or len(content.split()) > 14
    ):
        return block
    return Block(block.span, 7, block.paragraph)


def heading_name(text: str, block: Block) -> str:
    """What a heading says, without its Markdown marks; the last mark of `# Learn C#` is its own."""
    name = text[block.span.start : block.span.end].lstrip("#").strip()
    bare = name.rstrip("#")
    return (bare if not bare or bare[-1].isspace() else name)[:HEADING_CHARACTERS].strip()


def _cut(text: str, span: Span) -> Iterator[Span]:
    """Cuts one block at the ends of its sentences, and over-long sentences at white space."""
    start = span.start
    for end in [*_sentence_ends(text, span), span.end]:
        start = _past_space(text, start, end)
        while end - start > SENTENCE_CHARACTERS:
            at = max(text.rfind(mark, start + SENTENCE_CHARACTERS // 2, start + SENTENCE_CHARACTERS) for mark in ("; ", ", ", " ", "\n", "\t"))
            at = at + 1 if at > 0 else start + SENTENCE_CHARACTERS
            yield Span(start, start + len(text[start:at].rstrip()))
            start = _past_space(text, at, end)
        if end > start:
            yield Span(start, start + len(text[start:end].rstrip()))
        start = end


def _past_space(text: str, start: int, end: int) -> int:
    space = _SPACE.match(text, start, end)
    return space.end() if space else start


def _sentence_ends(text: str, span: Span) -> Iterator[int]:
    for match in _END.finditer(text, span.start, span.end):
        end = match.end()
        if match.group()[0] in "。！？｡":
            yield end
            continue
        opening = _OPENS.match(text, end, span.end)
        if opening is None:
            continue
        first = opening.group(1)
        if match.group().strip("\"'”’»)]") == ".":
            # Forty characters are more than any abbreviation has, and keep a book on a single line from being read once a sentence.
            before = _LAST_WORD.search(text[max(span.start, match.start() - 40) : match.start()])
            word = before.group() if before else ""
            if word.lower() in _COUNTRIES:
                # `the U.S. Senate` goes on, `in the U.S. The` does not.
                if not first.isupper() or opening.group(2).lower() not in FUNCTION_WORDS:
                    continue
            elif word.lower() in _ABBREVIATIONS and not (word.lower() in _MAY_END_SENTENCE and first.isupper()):
                continue
            if len(word) == 1 and word.isupper() and word != "I":
                continue
            if word.isdigit() and match.start() - len(word) == span.start:
                continue
        if first.islower() and match.group()[0] != "…":
            # A quotation can end in ! or ? inside a sentence: "Stop!" he said.
            continue
        yield end


def sentences(text: str) -> list[Span]:
    """Spans of the text's sentences in order, without white space around them. Headings and list items count as sentences."""
    return [sentence for block in blocks(text) for sentence in _cut(text, block.span)]


def paragraphs(text: str) -> list[list[Span]]:
    """The same sentences, grouped by paragraph (blocks with no empty line, heading or item between them)."""
    return [list(_cut(text, block.span)) for block in blocks(text)]


def passage_id(document_id: str, span: Span, text: str) -> str:
    """The id of a passage: changes when the passage moves or its words change, 32 hexadecimal digits."""
    return hashlib.blake2b(f"{document_id}\0{span.start}\0{span.end}\0{text}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _pages(document: Document, span: Span) -> tuple[tuple[int, int], ...]:
    """Where pages begin within a span: the page that it begins on, and each that begins inside it."""
    if not document.pages:
        return ()
    first = max(1, bisect_right(document.pages, span.start))
    last = max(first, bisect_left(document.pages, span.end))
    return ((span.start, first), *((document.pages[page - 1], page) for page in range(first + 1, last + 1)))


def _is_furniture(span: Span, furniture: Sequence[Span]) -> bool:
    """Whether a span touches furniture; a binary search, as pages can have thousands of parts."""
    after = bisect_left(furniture, span.end, key=lambda part: part.start)
    return after > 0 and furniture[after - 1].end > span.start


def _bytes(text: str, start: int, end: int) -> int:
    return end - start if text.isascii() else len(text[start:end].encode("utf-8", "surrogatepass"))


def pieces(passage: Passage, size: int) -> list[Passage]:
    """A passage cut into runs of whole sentences of at most `size` characters where sentences allow; a heading begins a run."""
    runs: list[list[Span]] = []
    after_heading = False
    for block in blocks(passage.text):
        for sentence in _cut(passage.text, block.span):
            if not runs or sentence.end - runs[-1][0].start > size or (block.level and not after_heading):
                runs.append([])
            runs[-1].append(sentence)
        after_heading = bool(block.level)
    found = []
    for run in runs:
        text = passage.text[run[0].start : run[-1].end]
        span = Span(passage.span.start + run[0].start, passage.span.start + run[-1].end)
        found.append(replace(passage, id=passage_id(passage.document_id, span, text), span=span, text=text))
    return found


def split(document: Document, size: int = PASSAGE_BYTES) -> list[Passage]:
    """The document's passages in order: whole sentences, at most `size` bytes where sentences allow, never across a heading or furniture."""
    text = document.text
    trail: list[tuple[int, str]] = []
    found: list[Passage] = []
    held: list[Span] = []

    def close() -> None:
        if not held:
            return
        span = Span(held[0].start, held[-1].end)
        quoted = text[span.start : span.end]
        heading = " > ".join(name for _, name in trail)
        identifier = passage_id(document.id, span, quoted)
        found.append(Passage(identifier, document.id, document.source, document.title, heading, span, quoted, _pages(document, span)))
        held.clear()

    code = PurePosixPath(document.source).suffix.lower() in CODE
    after_heading = False
    for block in blocks(text, code):
        if block.level and not _is_furniture(block.span, document.furniture):
            if not after_heading:
                close()
            name = heading_name(text, block)
            trail = [entry for entry in trail if entry[0] < block.level]
            if name and name != document.title:
                trail.append((block.level, name))
        for sentence in _cut(text, block.span):
            if _is_furniture(sentence, document.furniture):
                close()
                continue
            if held and _bytes(text, held[0].start, sentence.end) > size:
                close()
            held.append(sentence)
        after_heading = bool(block.level)
    close()
    # A page that is all furniture was judged wrongly: better to search menus than to find nothing.
    return found or (split(replace(document, furniture=()), size) if document.furniture else [])
