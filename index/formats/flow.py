"""From the parts of a formatted document (headings, paragraphs, list items, tables, code) to plain text with light Markdown marks.

What every reader of marked-up files writes into; knows nothing of any format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from index.formats.tables import table_lines
from index.types import Span

Kind = Literal["paragraph", "heading", "item", "table", "code"]

MAX_COLUMNS = 1_000
_SPREAD = 20
"""Spanning cells are repeated until a table has this many times the cells that are written in it: one number in a file must not cost memory."""

_INVISIBLE = re.compile("[\xad\u200b\u2060\u2062-\u2064\ufeff]")
"""Hints where a word may break: they are not seen, and would keep the word from being found."""
_NUMBER = re.compile(r"[\s$€£¥+\-−–~<>≈(]*\d[\d.,\s/:%]*[A-Za-z%°)]{0,4}\s*")


@dataclass(frozen=True, slots=True)
class Part:
    """One block of a document. `region` says in which region of the page it stands (-1: none), `linked` how many of its characters are links."""

    text: str
    kind: Kind
    region: int = -1
    linked: int = 0


@dataclass(slots=True)
class Row:
    """A table's row: its cells with the columns and rows that each spans. `header` where the file says that it names the columns."""

    cells: list[tuple[str, int, int]] = field(default_factory=list)
    header: bool = False


class Flow:
    """Collects a document's parts in order; white space is made one space, as every reader of such files shows it."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.region = -1
        self._pieces: list[str] = []
        self._linked = 0
        self._kind: Kind = "paragraph"
        self._level = 0
        self._marker = ""

    def write(self, text: str, *, link: bool = False) -> None:
        """Adds running text to the open part."""
        if text:
            self._pieces.append(re.sub(r"[\s\u2061]+", " ", text))
            if link:
                self._linked += len(text.strip())

    def line_break(self) -> None:
        """Breaks the line within the open part."""
        self._pieces.append("\n")

    def heading(self, level: int) -> None:
        """Opens a heading; `level` counts from 1."""
        self.close()
        self._kind, self._level = "heading", max(1, min(level, 6))

    def item(self, marker: str, depth: int) -> None:
        """Opens a list item; `marker` is `-` or its number, `depth` counts from 1."""
        self.close()
        self._marker = "  " * max(0, min(depth - 1, 6)) + marker + " "

    def end_item(self) -> None:
        """Ends a list item: one that held nothing leaves no mark behind."""
        self.close()
        self._marker = ""

    def close(self) -> None:
        """Ends the open part; one without words is dropped."""
        text = plain("".join(self._pieces))
        if text:
            if self._kind == "heading":
                self.add("#" * self._level + " " + text.replace("\n", " "), "heading")
            elif self._marker:
                self.add(self._marker + text, "item")
                self._marker = ""
            else:
                self.add(text, "paragraph")
        self._pieces.clear()
        self._linked = 0
        self._kind = "paragraph"

    def code(self, text: str) -> None:
        """Adds lines that keep their white space."""
        self.close()
        lines = text.expandtabs(4).strip("\r\n").rstrip()
        if lines.strip():
            self.add(f"```\n{lines}\n```", "code")

    def table(self, rows: list[Row], linked: int = 0) -> None:
        """Adds a table, each row readable by itself."""
        self.close()
        self._linked = linked
        lines = _table(rows)
        if lines:
            self.add("\n".join(lines), "table")
        self._linked = 0

    def add(self, text: str, kind: Kind) -> None:
        """Adds a part as it is."""
        self.parts.append(Part(text, kind, self.region, self._linked))


def plain(text: str) -> str:
    """Running text as it is seen: one space between words, at most one empty line, nothing invisible."""
    text = re.sub(r" *\n *", "\n", re.sub(r" {2,}", " ", _INVISIBLE.sub("", text)))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def one_line(text: str) -> str:
    """Text as it is seen when its own line breaks mean nothing."""
    return plain(re.sub(r"\s+", " ", text))


def joined(parts: Iterable[Part]) -> tuple[str, list[Span]]:
    """The text of all parts, and where each stands in it. Items of one list follow each other closely; an empty line parts everything else."""
    pieces: list[str] = []
    spans: list[Span] = []
    at = 0
    previous: Part | None = None
    for part in parts:
        gap = "" if previous is None else "\n" if part.kind == previous.kind == "item" else "\n\n"
        pieces += (gap, part.text)
        spans.append(Span(at + len(gap), at + len(gap) + len(part.text)))
        at = spans[-1].end
        previous = part
    return "".join(pieces) + ("\n" if pieces else ""), spans


def _table(rows: list[Row]) -> list[str]:
    """The lines of a table. Header rows in a row are one header; one further down heads what follows it."""
    grid = [row for row in _grid(rows) if any(row[0])]
    width = max((len(cells) for cells, _ in grid), default=0)
    lines: list[str] = []
    header: list[str] = []
    body: list[list[str]] = []

    def end() -> None:
        lines.extend(table_lines([header, *body], True) if header else table_lines(body, not lines and _first_names_the_rest(body)))
        body.clear()

    for cells, names in grid:
        if names and width > 1 and sum(map(bool, cells)) == 1:
            # A title above some of the rows, not a name of columns.
            end()
            lines.extend(table_lines([cells], False))
        elif names:
            if body:
                end()
                header = []
            header = [" ".join(dict.fromkeys(filter(None, pair))) for pair in zip(_padded(header, width), _padded(cells, width), strict=True)]
        else:
            body.append(cells)
    end()
    return lines


def _padded(cells: list[str], width: int) -> list[str]:
    return cells + [""] * (width - len(cells))


def _grid(rows: list[Row]) -> list[tuple[list[str], bool]]:
    """Cells in their columns. What spans rows stands in each of them; what spans columns stands in each of a header, in the first of a row."""
    found: list[tuple[list[str], bool]] = []
    hanging: dict[int, tuple[str, int]] = {}
    budget = 1_000 + _SPREAD * sum(len(row.cells) for row in rows)
    for row in rows:
        cells: list[str] = []

        def hang(cells: list[str] = cells) -> None:
            while len(cells) in hanging:
                text, left = hanging.pop(len(cells))
                if left > 1:
                    hanging[len(cells)] = (text, left - 1)
                cells.append(text)

        for text, columns, deep in row.cells:
            hang()
            if len(cells) >= MAX_COLUMNS:
                cells[-1] = f"{cells[-1]} {text}".strip()
                continue
            for number in range(max(1, min(columns, MAX_COLUMNS - len(cells), budget))):
                shown = text if number == 0 or row.header else ""
                if deep > 1 and budget > 0:
                    hanging[len(cells)] = (shown, deep - 1)
                cells.append(shown)
        hang()
        budget -= len(cells)
        if budget < 0:
            hanging.clear()
        found.append((cells, row.header))
    return found


def is_number(text: str) -> bool:
    """Whether a cell's text is a number, with its sign, unit or currency if it has one."""
    return _NUMBER.fullmatch(text) is not None


def _first_names_the_rest(rows: list[list[str]]) -> bool:
    """Whether a table's first row names its columns where the file does not say: short distinct words above a column of numbers."""
    if len(rows) < 3 or len(rows[0]) < 2:
        return False
    names = rows[0]
    if not all(names[1:]) or len(set(names)) < len(names) or any(len(name) > 60 or is_number(name) for name in names):
        return False
    return any(
        all(column < len(row) and (not row[column] or is_number(row[column])) for row in rows[1:]) and any(row[column] for row in rows[1:])
        for column in range(len(names))
    )
