"""Word and OpenDocument texts: .docx, .odt.

Read from their XML: mammoth, the usual library for Word, leaves out equations and comments, and took six times the time and twice the memory for a long text.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from index.errors import UnreadableDocument
from index.formats import archive
from index.formats.flow import Flow, Row, is_number, joined, one_line
from index.formats.web import TOO_DEEP, local, parse_xml, value_tables
from index.types import Reading

if TYPE_CHECKING:
    from lxml.etree import _Element

_NESTED = 20
"""Text boxes and notes within each other, at most."""
_NOTHING: frozenset[str] = frozenset()
_XLINK = "{http://www.w3.org/1999/xlink}href"


def docx(content: bytes) -> Reading:
    """A Word document: with its notes, comments, text boxes and equations where they stand, insertions in, deletions out, headers and footers at the end."""
    files = _entries(content, "Word document")
    main = _main_part(files)
    if main is None:
        raise UnreadableDocument("it is no Word document, whatever its name says")
    return _Word(files, main).read()


def odt(content: bytes) -> Reading:
    """An OpenDocument text: with its notes, comments, text boxes and formulas where they stand, headers and footers at the end."""
    files = _entries(content, "OpenDocument text")
    if b"opendocument.text" not in files.get("mimetype", b"opendocument.text") or "content.xml" not in files:
        raise UnreadableDocument("it is no OpenDocument text, whatever its name says")
    if "META-INF/manifest.xml" in files and next(parse_xml(files["META-INF/manifest.xml"]).iter("{*}encryption-data"), None) is not None:
        raise UnreadableDocument(archive.PASSWORD)
    return _OpenText(files).read()


def _entries(content: bytes, kind: str) -> Mapping[str, bytes]:
    if not content.startswith((b"PK", archive.OLE)):
        raise UnreadableDocument(f"it is no {kind}, whatever its name says")
    return archive.entries(content)


def _properties_title(files: Mapping[str, bytes], name: str) -> str:
    """The title among a document's properties."""
    if name not in files:
        return ""
    return next((one_line("".join(found.itertext())) for found in parse_xml(files[name]).iter("{http://purl.org/dc/elements/1.1/}title")), "")


def _get(element: _Element | None, name: str, default: str = "") -> str:
    """An attribute by its name without namespace: the two editions of the Word standard differ in nothing else."""
    if element is not None:
        for key, value in element.attrib.items():
            if str(key).rpartition("}")[2] == name:
                return str(value)
    return default


def _child(element: _Element | None, *path: str) -> _Element | None:
    for name in path:
        element = next((child for child in element if local(child) == name), None) if element is not None else None
    return element


def _whole(value: str, default: int = 0) -> int:
    return int(value) if re.fullmatch(r"-?\d{1,6}", value) else default


def _cell_text(flow: Flow) -> str:
    """What a table's cell holds, on one line; the items of a list with commas between them."""
    flow.close()
    pieces: list[str] = []
    for number, part in enumerate(flow.parts):
        text = re.sub(r"^(?:#{1,6}|-)\s+", "", part.text.strip()) if part.kind in ("heading", "item") else part.text
        apart = number and part.kind == flow.parts[number - 1].kind == "item"
        pieces.append((", " if apart else " ") + text)
    return one_line("".join(pieces))


@dataclass(slots=True)
class _Table:
    """A table of values while it is read: `outer` is the flow around it, `bold` whether all words of its first row are bold."""

    outer: Flow
    rows: list[Row] = field(default_factory=list)
    above: dict[int, str] = field(default_factory=dict)
    styled: bool = False
    bold: bool | None = None


def _end_of_table(table: _Table) -> Flow:
    if not any(row.header for row in table.rows) and (table.styled or table.bold) and len(table.rows) > 1:
        table.rows[0].header = any(not is_number(text) for text, _, _ in table.rows[0].cells if text)
    table.outer.table(table.rows)
    return table.outer


# Word


@dataclass(frozen=True, slots=True)
class _Style:
    name: str
    based_on: str
    outline: str
    numbering: tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Level:
    form: str
    pattern: str
    start: int


def _main_part(files: Mapping[str, bytes]) -> str | None:
    """The name of the part that holds the document's text."""
    if "_rels/.rels" in files:
        for found in parse_xml(files["_rels/.rels"]).iter("{*}Relationship"):
            if found.get("Type", "").endswith("/officeDocument"):
                name = posixpath.normpath(found.get("Target", "").lstrip("/"))
                return name if name in files and b"wordprocessingml" in files[name][:10_000] else None
    return "word/document.xml" if "word/document.xml" in files else None


class _Word:
    """One reading of one Word document."""

    def __init__(self, files: Mapping[str, bytes], main: str) -> None:
        self.files = files
        self.main = main
        self.folder = posixpath.dirname(main)
        self.flow = Flow()
        self.styles: dict[str, _Style] = {}
        self.levels: dict[str, dict[str, _Level]] = {}
        self.abstract: dict[str, str] = {}
        self.counters: dict[str, dict[int, int]] = {}
        self.notes: dict[tuple[str, str], _Element] = {}
        self.numbers: dict[str, int] = {}
        self.title = ""
        self.first_heading = ""
        self._later: list[tuple[str, _Element]] = []

    def read(self) -> Reading:
        self._read_styles()
        self._read_numbering()
        for kind in ("footnotes", "endnotes", "comments"):
            root = self._part(kind + ".xml")
            for note in root if root is not None else ():
                if _get(note, "type") not in ("separator", "continuationSeparator", "continuationNotice"):
                    self.notes[kind, _get(note, "id")] = note
        body = _child(parse_xml(self.files[self.main]), "body")
        if body is not None:
            self._walk(body)
        self._read_rest()
        title = _properties_title(self.files, "docProps/core.xml") or self.title or self.first_heading
        return Reading(joined(self.flow.parts)[0], title or None)

    def _part(self, name: str) -> _Element | None:
        path = posixpath.join(self.folder, name)
        return parse_xml(self.files[path]) if path in self.files else None

    def _read_rest(self) -> None:
        """Notes that nothing points to, headers and footers (once each), and the words in diagrams."""
        for kind, key in list(self.notes):
            self._later.append(("", self.notes.pop((kind, key))))
        self._write_later(0)
        said = {part.text for part in self.flow.parts}
        for name in sorted(self.files):
            if re.fullmatch(re.escape(self.folder) + r"/(?:(?:header|footer)\d*|diagrams/data\d*|charts/chart\d*)\.xml", name):
                flow, self.flow = self.flow, Flow()
                self._walk(parse_xml(self.files[name]))
                for part in self.flow.parts:
                    if part.text not in said and not re.fullmatch(r"[\W\d]*(?:Page|of|von|sur|de)?[\W\d]*", part.text):
                        flow.parts.append(part)
                        said.add(part.text)
                self.flow = flow

    def _read_styles(self) -> None:
        root = self._part("styles.xml")
        for style in root if root is not None else ():
            if local(style) == "style":
                properties = _child(style, "pPr")
                numbering = _child(properties, "numPr")
                self.styles[_get(style, "styleId")] = _Style(
                    _get(_child(style, "name"), "val").lower(),
                    _get(_child(style, "basedOn"), "val"),
                    _get(_child(properties, "outlineLvl"), "val"),
                    (_get(_child(numbering, "numId"), "val"), _get(_child(numbering, "ilvl"), "val", "0")),
                )

    def _read_numbering(self) -> None:
        root = self._part("numbering.xml")
        for entry in root if root is not None else ():
            if local(entry) == "abstractNum":
                self.levels[_get(entry, "abstractNumId")] = {
                    _get(level, "ilvl"): _Level(
                        _get(_child(level, "numFmt"), "val", "decimal"),
                        _get(_child(level, "lvlText"), "val"),
                        _whole(_get(_child(level, "start"), "val"), 1),
                    )
                    for level in entry
                    if local(level) == "lvl"
                }
            elif local(entry) == "num":
                self.abstract[_get(entry, "numId")] = _get(_child(entry, "abstractNumId"), "val")

    def _styles_of(self, properties: _Element | None) -> list[_Style]:
        """A paragraph's style and those that it is based on."""
        found: list[_Style] = []
        name = _get(_child(properties, "pStyle"), "val")
        while name in self.styles and len(found) < 20:
            found.append(self.styles[name])
            name = found[-1].based_on
        return found

    def _walk(self, root: _Element, depth: int = 0) -> None:
        from lxml import etree

        values = value_tables(root, "tbl", "tr", frozenset(("tc",)), _NOTHING)
        tables: list[_Table] = []
        skipped: _Element | None = None
        heading = ""
        events: Any = etree.iterwalk(root, events=("start", "end"))
        for event, element in events:
            name = local(element)
            if event == "start":
                if self._skips(element, name, root):
                    skipped = element
                    events.skip_subtree()
                elif name == "p":
                    heading = self._start_paragraph(element)
                elif name == "tbl" and element in values:
                    self.flow.close()
                    look = _child(element, "tblPr", "tblStyle")
                    tables.append(
                        _Table(self.flow, styled=_get(look, "val") not in ("", "TableGrid", "TableNormal") and self._first_row_stands_out(element))
                    )
                elif tables and name == "tr":
                    tables[-1].rows.append(
                        Row(
                            header=_get(_child(element, "trPr", "tblHeader"), "val", "1") not in ("0", "false")
                            and _child(element, "trPr", "tblHeader") is not None
                        )
                    )
                elif tables and name == "tc":
                    self.flow = Flow()
                else:
                    self._start_run(element, name, tables)
            elif element is skipped:
                skipped = None
            elif name == "p":
                self._end_paragraph(heading)
                if not tables:
                    self._write_later(depth)
            elif name == "tc" and tables:
                self._end_cell(element, tables[-1])
            elif name == "tbl" and element in values:
                self.flow = _end_of_table(tables.pop())
                if not tables:
                    self._write_later(depth)
            else:
                self._end_run(element, name)
        self.flow.close()

    def _skips(self, element: _Element, name: str, root: _Element) -> bool:
        """What is not seen: deletions, hidden words, field codes, second copies for older programs; text boxes and notes, which are written later."""
        if element is root:
            return False
        if name == "txbxContent":
            self._later.append(("", element))
            return True
        if name == "r" and element.getparent() is not None and _child(element, "rPr", "vanish") is not None:
            return _get(_child(element, "rPr", "vanish"), "val", "1") not in ("0", "false")
        if name == "Fallback":
            return _child(element.getparent(), "Choice") is not None
        return name in ("del", "moveFrom", "instrText", "delText", "delInstrText", "rt", "sectPr", "rPr", "pPr", "tblPr", "trPr", "tcPr", "sdtPr")

    @staticmethod
    def _first_row_stands_out(table: _Element) -> bool:
        look = _child(table, "tblPr", "tblLook")
        if _get(look, "firstRow"):
            return _get(look, "firstRow") in ("1", "true", "on")
        return bool(int(_get(look, "val"), 16) & 0x20) if re.fullmatch(r"[0-9A-Fa-f]{1,4}", _get(look, "val")) else False

    def _start_paragraph(self, element: _Element) -> str:
        """Opens a paragraph as a heading, a list item or plain; gives `title`, `heading` or ''."""
        self.flow.close()
        properties = _child(element, "pPr")
        styles = self._styles_of(properties)
        names = [style.name for style in styles]
        outline = _get(_child(properties, "outlineLvl"), "val") or next((style.outline for style in styles if style.outline), "")
        level = next((int(name[8:]) for name in names if re.fullmatch(r"heading [1-9]", name)), _whole(outline, 9) + 1)
        titled = "title" in names
        number, depth = self._numbered(properties, styles)
        if level <= 9 or titled:
            self.flow.heading(1 if titled else level)
            if number and number != "-":
                self.flow.write(number + " ")
            return "title" if titled else "heading"
        if number:
            self.flow.item(number, depth + 1)
        return ""

    def _numbered(self, properties: _Element | None, styles: list[_Style]) -> tuple[str, int]:
        """The mark of a numbered or bulleted paragraph, as Word shows it (`-` for any bullet, '' for none), and its depth from 0."""
        own = _child(properties, "numPr")
        inherited = next((style.numbering for style in styles if style.numbering[0]), ("", "0"))
        list_id = _get(_child(own, "numId"), "val") or inherited[0]
        depth = _whole(_get(_child(own, "ilvl"), "val") or inherited[1])
        if not list_id or list_id == "0":
            return "", 0
        key = self.abstract.get(list_id, "")
        levels = self.levels.get(key, {})
        level = levels.get(str(depth))
        counters = self.counters.setdefault(key, {})
        counters[depth] = counters.get(depth, (level.start if level else 1) - 1) + 1
        for deeper in [other for other in counters if other > depth]:
            del counters[deeper]
        if level is None or level.form in ("bullet", "none") or not level.pattern:
            return "-", depth
        shown = level.pattern
        for upper in range(depth + 1):
            form = levels[str(upper)].form if str(upper) in levels else "decimal"
            shown = shown.replace(f"%{upper + 1}", _numeral(counters.get(upper, 1), form))
        return shown.strip() or "-", depth

    def _end_paragraph(self, heading: str) -> None:
        before = len(self.flow.parts)
        self.flow.end_item()
        if heading and len(self.flow.parts) > before and self.flow.parts[-1].text.startswith("# "):
            name = self.flow.parts[-1].text[2:]
            if heading == "title":
                self.title = self.title or name
            self.first_heading = self.first_heading or name

    def _start_run(self, element: _Element, name: str, tables: list[_Table]) -> None:
        if name == "t":
            self.flow.write(element.text or "")
            if tables and len(tables[-1].rows) == 1 and (element.text or "").strip():
                bold = _child(element.getparent(), "rPr", "b")
                shown = bold is not None and _get(bold, "val", "1") not in ("0", "false")
                tables[-1].bold = shown and tables[-1].bold is not False
        elif name in ("tab", "ptab"):
            self.flow.write(" ")
        elif name in ("br", "cr"):
            self.flow.line_break()
        elif name == "noBreakHyphen":
            self.flow.write("-")
        elif name == "sym":
            code = _get(element, "char")
            if re.fullmatch(r"[0-9A-Fa-f]{4}", code) and not 0xD800 <= int(code, 16) <= 0xF8FF:
                self.flow.write(chr(int(code, 16)))
        elif name in ("footnoteReference", "endnoteReference", "commentReference"):
            self._refer(name.removesuffix("Reference") + "s", _get(element, "id"))
        elif name == "docPr":
            said = one_line(_get(element, "descr"))
            if len(said.split()) > 1:
                self.flow.write(f" {said} ")
        elif name in _OPENS:
            self.flow.write(_OPENS[name])
        elif name == "nary":
            self.flow.write(_get(_child(element, "naryPr", "chr"), "val", "∫"))
        elif name == "d":
            self.flow.write(_get(_child(element, "dPr", "begChr"), "val", "("))
        elif name == "oMath":
            self.flow.write(" ")

    def _end_run(self, element: _Element, name: str) -> None:
        if name in _OPENS:
            self.flow.write(")")
        elif name == "d":
            self.flow.write(_get(_child(element, "dPr", "endChr"), "val", ")"))
        elif name == "oMath":
            self.flow.write(" ")

    def _refer(self, kind: str, key: str) -> None:
        note = self.notes.pop((kind, key), None)
        if note is None:
            return
        if kind == "comments":
            author = _get(note, "author")
            self._later.append((f"[Comment by {author}]" if author else "[Comment]", note))
            return
        self.numbers[kind] = self.numbers.get(kind, 0) + 1
        mark = f"[{self.numbers[kind]}]" if kind == "footnotes" else f"[{_numeral(self.numbers[kind], 'lowerRoman')}]"
        self.flow.write(mark)
        self._later.append((mark, note))

    def _write_later(self, depth: int) -> None:
        """Writes the text boxes, notes and comments of the paragraph or table that has just ended."""
        if depth > _NESTED:
            raise UnreadableDocument(TOO_DEEP)
        later, self._later = self._later, []
        for mark, element in later:
            at = len(self.flow.parts)
            self._walk(element, depth + 1)
            _prefix(self.flow, at, mark)

    def _end_cell(self, element: _Element, table: _Table) -> None:
        text = _cell_text(self.flow)
        self.flow = table.outer
        if not table.rows:
            table.rows.append(Row())
        row = table.rows[-1]
        column = sum(columns for _, columns, _ in row.cells)
        merged = _child(element, "tcPr", "vMerge")
        if merged is not None and _get(merged, "val", "continue") == "continue":
            text = table.above.get(column, "")
        table.above[column] = text
        row.cells.append((text, _whole(_get(_child(element, "tcPr", "gridSpan"), "val"), 1), 1))


_OPENS = {"num": "(", "den": "/(", "sup": "^(", "sub": "_(", "rad": "√("}
"""How the parts of an equation begin on a line; each ends in `)`."""


def _prefix(flow: Flow, at: int, mark: str) -> None:
    """Puts a note's mark before its first part."""
    if mark and len(flow.parts) > at:
        from dataclasses import replace

        flow.parts[at] = replace(flow.parts[at], text=f"{mark} {flow.parts[at].text}", kind="paragraph")


def _numeral(number: int, form: str) -> str:
    """A number as lists show it: decimal, letters or Roman."""
    if form in ("lowerLetter", "upperLetter") and number > 0:
        letter = chr(ord("a") + (number - 1) % 26) * min((number - 1) // 26 + 1, 10)
        return letter.upper() if form == "upperLetter" else letter
    if form in ("lowerRoman", "upperRoman") and 0 < number < 4_000:
        shown = ""
        for value, sign in zip(
            (1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1),
            ["m", "cm", "d", "cd", "c", "xc", "l", "xl", "x", "ix", "v", "iv", "i"],
            strict=True,
        ):
            shown += sign * (number // value)
            number %= value
        return shown.upper() if form == "upperRoman" else shown
    return f"{number:02d}" if form == "decimalZero" else str(number)


# OpenDocument


class _OpenText:
    """One reading of one OpenDocument text."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files
        self.flow = Flow()
        self.parents: dict[str, str] = {}
        self.numbered: dict[tuple[str, int], tuple[str, str, int]] = {}
        self.title = ""
        self.first_heading = ""
        self._later: list[tuple[str, _Element]] = []
        self._lists: list[tuple[str, int]] = []
        self._ended: dict[tuple[str, int], int] = {}

    def read(self) -> Reading:
        content = parse_xml(self.files["content.xml"])
        styles = parse_xml(self.files["styles.xml"]) if "styles.xml" in self.files else None
        for root in filter(lambda root: root is not None, (styles, content)):
            self._read_styles(root)
        body = _child(content, "body", "text")
        if body is None:
            raise UnreadableDocument("it is no OpenDocument text, whatever its name says")
        self._walk(body)
        said = {part.text for part in self.flow.parts}
        flow, self.flow = self.flow, Flow()
        for master in styles.iter("{*}master-styles") if styles is not None else ():
            self._walk(master)
        for part in self.flow.parts:
            if part.text not in said and not re.fullmatch(r"[\W\d]*", part.text):
                flow.parts.append(part)
                said.add(part.text)
        title = _properties_title(self.files, "meta.xml") or self.title or self.first_heading
        return Reading(joined(flow.parts)[0], title or None)

    def _read_styles(self, root: _Element) -> None:
        for element in root.iter("{*}style", "{*}list-level-style-number", "{*}list-level-style-bullet"):
            if local(element) == "style":
                self.parents[_get(element, "name")] = _get(element, "parent-style-name")
                continue
            owner = element.getparent()
            numbered = local(element).endswith("number") and bool(_get(element, "num-format"))
            mark = (
                (_get(element, "num-format"), _get(element, "num-suffix", "."), _whole(_get(element, "start-value"), 1)) if numbered else ("", "", 1)
            )
            self.numbered[_get(owner, "name"), _whole(_get(element, "level"), 1)] = mark

    def _walk(self, root: _Element, depth: int = 0) -> None:
        from lxml import etree

        values = value_tables(root, "table", "table-row", frozenset(("table-cell",)), frozenset(("h",)))
        tables: list[_Table] = []
        skipped: _Element | None = None
        events: Any = etree.iterwalk(root, events=("start", "end"))
        for event, element in events:
            name = local(element)
            inside = False
            if event == "start":
                if self._skips(element, name, root):
                    skipped = element
                    events.skip_subtree()
                    continue
                self._start(element, name, tables, values)
                inside = bool(element.text) and _inline(element, name)
                if inside:
                    self.flow.write(element.text)
                continue
            if element is skipped:
                skipped = None
            else:
                self._end(element, name, tables, values)
                if name in ("p", "h", "table") and not tables:
                    self._write_later(depth)
            parent = element.getparent()
            if element.tail and element is not root and parent is not None and _inline(parent, local(parent)):
                self.flow.write(element.tail)
        self.flow.close()

    def _skips(self, element: _Element, name: str, root: _Element) -> bool:
        if element is root:
            return False
        if name == "note":
            mark = f"[{one_line(''.join(found.itertext())) if (found := _child(element, 'note-citation')) is not None else ''}]"
            self.flow.write(mark)
            body = _child(element, "note-body")
            if body is not None:
                self._later.append((mark, body))
            return True
        if name == "annotation":
            creator = _child(element, "creator")
            author = one_line("".join(creator.itertext())) if creator is not None else ""
            self._later.append((f"[Comment by {author}]" if author else "[Comment]", element))
            return True
        if name == "text-box":
            self._later.append(("", element))
            return True
        if name == "object":
            self._formula(element)
            return True
        if name in ("title", "desc") and "svg" in str(element.tag):
            said = one_line(element.text or "")
            self.flow.write(f" {said} " if len(said.split()) > 1 else "")
            return True
        if name in ("creator", "date", "date-string") and element.getparent() is not None and local(element.getparent()) == "annotation":
            return True
        hidden = (name == "section" and _get(element, "display") == "none") or (name == "hidden-text" and _get(element, "is-hidden") == "true")
        return hidden or name in ("tracked-changes", "ruby-text", "script", "sequence-decls", "event-listeners")

    def _formula(self, element: _Element) -> None:
        """A formula is a small document of its own; its author's notation reads best."""
        name = posixpath.normpath(posixpath.join(_get(element, "href"), "content.xml"))
        math = parse_xml(self.files[name]) if name in self.files else _child(element, "math")
        if math is None or local(math) != "math":
            return
        notation = next(math.iter("{*}annotation"), None)
        self.flow.write(" " + one_line("".join((math if notation is None else notation).itertext())) + " ")

    def _start(self, element: _Element, name: str, tables: list[_Table], values: set[_Element]) -> None:
        if name == "h":
            self.flow.heading(_whole(_get(element, "outline-level"), 1))
        elif name == "p":
            if self._titled(_get(element, "style-name")):
                self.flow.heading(1)
        elif name == "list":
            style = _get(element, "style-name") or (self._lists[-1][0] if self._lists else "")
            level = len(self._lists) + 1
            start = self.numbered.get((style, level), ("", "", 1))[2]
            if _get(element, "continue-numbering") == "true" or _get(element, "continue-list"):
                start = self._ended.get((style, level), start)
            self._lists.append((style, start))
        elif name == "list-item" and self._lists:
            style, number = self._lists[-1]
            number = _whole(_get(element, "start-value"), number)
            form, suffix, _ = self.numbered.get((style, len(self._lists)), ("", "", 1))
            names = {"a": "lowerLetter", "A": "upperLetter", "i": "lowerRoman", "I": "upperRoman"}
            self.flow.item(_numeral(number, names.get(form, "decimal")) + (suffix or ".") if form else "-", len(self._lists))
            self._lists[-1] = (style, number + 1)
        elif name == "table" and element in values:
            self.flow.close()
            tables.append(_Table(self.flow))
        elif tables and name == "table-row":
            parent = element.getparent()
            tables[-1].rows.append(Row(header=parent is not None and local(parent) == "table-header-rows"))
        elif tables and name == "table-cell":
            self.flow = Flow()
        elif name == "s" or name == "tab":
            self.flow.write(" ")
        elif name == "line-break":
            self.flow.line_break()
        elif _get(element, "label") and name in ("button", "checkbox", "radio", "fixed-text", "frame", "image-button"):
            self.flow.add(one_line(_get(element, "label")), "paragraph")

    def _end(self, element: _Element, name: str, tables: list[_Table], values: set[_Element]) -> None:
        if name in ("p", "h"):
            before = len(self.flow.parts)
            self.flow.close()
            if len(self.flow.parts) > before and self.flow.parts[-1].text.startswith("# "):
                shown = self.flow.parts[-1].text[2:]
                if name == "p":
                    self.title = self.title or shown
                self.first_heading = self.first_heading or shown
        elif name == "list":
            style, number = self._lists.pop()
            self._ended[style, len(self._lists) + 1] = number
        elif name == "list-item":
            self.flow.end_item()
        elif name == "table-cell" and tables:
            text = _cell_text(self.flow)
            self.flow = tables[-1].outer
            if not tables[-1].rows:
                tables[-1].rows.append(Row())
            repeated = min(_whole(_get(element, "number-columns-repeated"), 1), 50 if text else 1)
            spans = (_whole(_get(element, "number-columns-spanned"), 1), _whole(_get(element, "number-rows-spanned"), 1))
            tables[-1].rows[-1].cells.extend([(text, *spans)] * max(1, repeated))
        elif name == "table" and element in values:
            self.flow = _end_of_table(tables.pop())

    def _titled(self, style: str) -> bool:
        for _ in range(20):
            if style == "Title":
                return True
            style = self.parents.get(style, "")
        return False

    def _write_later(self, depth: int) -> None:
        if depth > _NESTED:
            raise UnreadableDocument(TOO_DEEP)
        later, self._later = self._later, []
        lists, self._lists = self._lists, []
        for mark, element in later:
            at = len(self.flow.parts)
            self._walk(element, depth + 1)
            _prefix(self.flow, at, mark)
        self._lists = lists


def _inline(element: _Element, name: str) -> bool:
    """Whether an element's own characters are words of the text, not white space between its parts."""
    return "text:1.0" in str(element.tag) and name not in ("list", "list-item", "section", "index-body")
