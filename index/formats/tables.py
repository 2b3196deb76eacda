"""Tables as lines of text, each readable by itself: spreadsheets, and separated values."""

from __future__ import annotations

import csv as separated
import html
import io
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from typing import Literal

from index.errors import UnreadableDocument
from index.formats.archive import DAMAGED, OLE, PASSWORD, entries
from index.formats.text import decode
from index.types import Reading

DELIMITERS = "\t;,|"
SAMPLE = 100_000
SAMPLE_LINES = 200
"""A delimiter is told from this many characters and lines."""
CELL_CHARACTERS = 20_000
CELL_LINES = 50
"""A cell longer than this is no cell: a quotation mark was opened and never closed."""
MAX_CELLS = 5_000_000
"""A sheet is unpacked as a rectangle; one cell in its last corner would make that two hundred thousand million cells."""
HEADER_WITHIN = 10
HEADER_CHARACTERS = 80

_Quoting = Literal[0, 1, 2, 3]
_MARK = re.compile(r"#{1,6}\s|`{3}|~~~")
"""How Markdown opens a heading or a fence, which no row of a table does."""
_NUMBER = re.compile(r"[\W_]*\d[\d\s.,:/%eE+()-]*[^\W\d_]{0,3}\W*|true|false|\d{4}-\d\d-\d\d.*", re.IGNORECASE)
_CELL = re.compile(rb'<(?:\w+:)?c [^>]*?\br="([A-Z]{1,3})(\d{1,7})"[^>]*(?<!/)>')
_TITLE = re.compile(rb"<dc:title(?: [^>]*)?>([^<]{1,1000})</dc:title>")


def table_lines(rows: Sequence[Sequence[str]], header: bool) -> list[str]:
    """One line a row. With a header the first row names the cells of the others, `Region: North; Sales: 1200`; without one, `North | 1200`.

    White space within a cell becomes one space; empty cells and rows are left out. The header is a line of its own where some name in it stands in
    no other row, so that nothing is lost.
    """
    cleaned = [[" ".join(cell.split()) for cell in row] for row in rows]
    cleaned = [row for row in cleaned if any(row)]
    if not header or not cleaned:
        return [_line(" | ".join(filter(None, row))) for row in cleaned]
    names, body = cleaned[0], cleaned[1:]
    used = {column for row in body for column, cell in enumerate(row) if cell}
    unused = any(name and column not in used for column, name in enumerate(names))
    return [*([_line(" | ".join(filter(None, names)))] if unused else []), *_named_lines(names, body)]


def _named_lines(names: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    return [_line("; ".join(_named(names, column, cell) for column, cell in enumerate(row) if cell)) for row in body]


def _named(names: Sequence[str], column: int, cell: str) -> str:
    name = names[column].rstrip(":") if column < len(names) else ""
    return f"{name}: {cell}" if name else cell


def _line(line: str) -> str:
    return f"| {line}" if _MARK.match(line) else line


def has_header(rows: Sequence[Sequence[str]], certainly: bool = False) -> bool:
    """Whether the first row names the columns of the others: short texts, all different, that do not come again below.

    `certainly` asks for more: a column of numbers with a word above it.
    """
    if len(rows) < 2:
        return False
    names = [cell.strip() for cell in rows[0]]
    body = [[cell.strip() for cell in row] for row in rows[1:SAMPLE_LINES]]
    filled = [name for name in names if name]
    usual = sorted(sum(map(bool, row)) for row in body)[len(body) // 2]
    if len(filled) < max(2, 0.7 * usual) or len(set(filled)) < len(filled) * 0.8 or max(map(len, filled)) > HEADER_CHARACTERS:
        return False
    words = [column for column, name in enumerate(names) if name and not _NUMBER.fullmatch(name)]
    columns = {column: [row[column] for row in body if column < len(row) and row[column]] for column in words}
    numbers = any(below and sum(bool(_NUMBER.fullmatch(cell)) for cell in below) > len(below) / 2 for below in columns.values())
    if numbers:
        return len(words) * 2 >= len(filled)
    repeated = any(names[column] in below for column, below in columns.items())
    return not certainly and not repeated and len(words) > len(filled) * 0.8


def sheet_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a sheet on which tables, their headers and remarks above them stand as somebody put them; empty rows part its tables."""
    lines: list[str] = []
    names: list[str] = []
    for table in _parted(rows):
        found = next((row for row in range(min(HEADER_WITHIN, len(table))) if has_header(table[row:], certainly=bool(names))), None)
        usual = sorted(sum(map(bool, row)) for row in table)[len(table) // 2]
        if lines:
            lines.append("")
        if found is not None:
            names = table[found]
            lines += table_lines(table[:found], header=False) + table_lines(table[found:], header=True)
        elif 1 < usual >= 0.7 * sum(map(bool, names)) > 0:
            # After an empty row a table of the same width goes on below the same names.
            lines += _named_lines(names, table)
        else:
            lines += table_lines(table, header=False)
    return lines


def _parted(rows: Sequence[Sequence[str]]) -> Iterator[list[list[str]]]:
    """The runs of rows that hold something, the white space in their cells made one space."""
    table: list[list[str]] = []
    for row in rows:
        cleaned = [" ".join(cell.split()) for cell in row]
        if any(cleaned):
            table.append(cleaned)
        elif table:
            yield table
            table = []
    if table:
        yield table


def csv(content: bytes) -> Reading:
    """Values separated by commas, semicolons, tabs or bars, a line for each row; what is no table after all is the text that it is."""
    text = decode(content)
    try:
        dialect = _dialect(text)
        return Reading("\n".join(sheet_lines(_rows(text, *dialect))) if dialect else text)
    except separated.Error:
        return Reading(text)


def _dialect(text: str) -> tuple[str, _Quoting] | None:
    """What parts the cells, and whether quotation marks keep one together: with it nearly all rows have the same number of cells.

    None for prose, whose commas come as they like.
    """
    lines = [f"{line}\n" for line in text[:SAMPLE].splitlines()[:SAMPLE_LINES]]
    best: tuple[float, int] = (0.6, 0)
    found = None
    quotings: tuple[_Quoting, ...] = (separated.QUOTE_MINIMAL, separated.QUOTE_NONE)
    for quoting in quotings:
        for delimiter in DELIMITERS:
            widths = Counter(len(row) for row in _parsed(lines, delimiter, quoting) if any(row))
            usual, count = widths.most_common(1)[0] if widths else (1, 0)
            # A single line with a comma is a sentence.
            if usual > 1 and count > 1 and (count / widths.total(), usual) > best:
                best, found = (count / widths.total(), usual), (delimiter, quoting)
    return found


def _parsed(lines: Iterable[str], delimiter: str, quoting: _Quoting) -> Iterator[list[str]]:
    """Rows; a cell may be as long as the text is."""
    separated.field_size_limit(sys.maxsize)
    return separated.reader(lines, delimiter=delimiter, quoting=quoting)


def _rows(text: str, delimiter: str, quoting: _Quoting) -> list[list[str]]:
    """The rows; where quotation marks are out of step, so that a cell swallows what follows, they are taken for what they are: characters."""
    rows = list(_parsed(io.StringIO(text, newline=""), delimiter, quoting))
    if any(len(cell) > CELL_CHARACTERS or cell.count("\n") > CELL_LINES for row in rows for cell in row):
        return list(_parsed(io.StringIO(text, newline=""), delimiter, separated.QUOTE_NONE))
    return rows


def xlsx(content: bytes) -> Reading:
    """A workbook of Excel since 2007 (.xlsx, .xlsm, .xlsb) or of OpenDocument (.ods): its sheets under their names."""
    parts = entries(content)
    for name in parts:
        if name.startswith("xl/worksheets/") and name.endswith(".xml"):
            _check_extent(parts[name])
    return _workbook(content, _title(parts))


def xls(content: bytes) -> Reading:
    """A workbook of Excel before 2007: its sheets under their names."""
    if not content.startswith(OLE):
        return xlsx(content)
    _check_container(content)
    return _workbook(content, None)


def _check_container(content: bytes) -> None:
    """Refuses a container whose streams say they are larger than the file: calamine would ask for that much memory, and the process would end."""
    import olefile

    try:
        with olefile.OleFileIO(content) as container:
            sizes = [entry.size for entry in container.direntries if entry is not None]
            whole = container.exists("Workbook") or container.exists("Book")
    # A crafted container makes olefile raise OSError, IndexError, struct.error and more.
    except Exception:
        raise UnreadableDocument(DAMAGED) from None
    if not whole or max(sizes) > len(content):
        raise UnreadableDocument(DAMAGED)


def _check_extent(sheet: bytes) -> None:
    rows = columns = 0
    for match in _CELL.finditer(sheet):
        column = 0
        for letter in match.group(1):
            column = column * 26 + letter - 64
        rows, columns = max(rows, int(match.group(2))), max(columns, column)
    if rows * columns > MAX_CELLS:
        raise UnreadableDocument(f"one of its sheets spreads over {rows:,} rows and {columns:,} columns; at most {MAX_CELLS:,} cells are read")


def _title(parts: Mapping[str, bytes]) -> str | None:
    """The title in the document's properties."""
    for name in ("docProps/core.xml", "meta.xml"):
        found = _TITLE.search(parts[name]) if name in parts else None
        if found:
            return " ".join(html.unescape(found.group(1).decode("utf-8", "replace")).split()) or None
    return None


def _workbook(content: bytes, title: str | None) -> Reading:
    from python_calamine import CalamineWorkbook, PasswordError

    lines = [f"# {title}", ""] if title else []
    mark = "##" if title else "#"
    held = False
    try:
        workbook = CalamineWorkbook.from_filelike(io.BytesIO(content))
        for name in workbook.sheet_names:
            rows = [[_cell(value) for value in row] for row in workbook.get_sheet_by_name(name).to_python(skip_empty_area=True)]
            shown = sheet_lines(rows)
            if shown:
                held = True
                lines += [f"{mark} {' '.join(name.split())}", "", *shown, ""]
    except PasswordError:
        raise UnreadableDocument(PASSWORD) from None
    # Rust's errors come as CalamineError, ZipError, XmlError and, from a bug, as a panic that is no Exception.
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
            raise
        raise UnreadableDocument(DAMAGED) from None
    if not held:
        raise UnreadableDocument("its sheets are empty")
    return Reading("\n".join(lines).rstrip("\n"), title)


def _cell(value: object) -> str:
    """A cell's value as text: dates as ISO 8601 has them, whole numbers without a fraction."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.15g}"
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(" ", "seconds")
    if isinstance(value, date | time | timedelta):
        return str(value)
    return str(value)
