"""Web pages, e-books and XML: .html, .xhtml, .epub, .xml. What a reader of the page sees, as text with light Markdown marks.

The page is walked by events, never by recursion, because hostile pages nest deeper than Python's stack.
"""

from __future__ import annotations

import codecs
import posixpath
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from index.errors import UnreadableDocument
from index.formats import archive
from index.formats.flow import Flow, Part, Row, joined, one_line, plain
from index.formats.furniture import Region, furniture_of_page
from index.formats.text import decode
from index.types import Reading

if TYPE_CHECKING:
    from lxml.etree import _Element

TOO_DEEP = "its parts are nested too deep to be read"
DEFINES_ENTITIES = "it defines entities, which can unfold without end; save it without them"

_HEAD_BYTES = 4_096
"""An encoding is declared within this many bytes."""
_JUDGED_ELEMENTS = 30_000
_JUDGED_DEPTH = 100
"""Pages beyond these are not shown to trafilatura, whose time grows with their product: minutes for pages that are made to keep it busy."""
_ASCII_ALIASES = {"iso-8859-1": "cp1252", "latin-1": "cp1252", "latin1": "cp1252", "us-ascii": "cp1252", "ascii": "cp1252", "gb2312": "gb18030",
                  "gbk": "gb18030", "shift_jis": "cp932", "shift-jis": "cp932", "x-sjis": "cp932", "ks_c_5601-1987": "cp949", "euc-kr": "cp949",
                  "iso-8859-9": "cp1254", "tis-620": "cp874"}  # fmt: skip
"""What pages call their encoding and what browsers therefore read (https://encoding.spec.whatwg.org/#names-and-labels)."""

_SKIPPED = frozenset(
    [
        "script",
        "style",
        "template",
        "noscript",
        "head",
        "link",
        "meta",
        "base",
        "source",
        "track",
        "param",
        "iframe",
        "frame",
        "object",
        "embed",
        "applet",
        "video",
        "audio",
        "canvas",
        "map",
        "area",
    ]
)
_BLOCKS = frozenset(
    """address article aside blockquote body center dd details dialog dir div dl dt fieldset figcaption figure footer form frameset header hgroup hr html
    legend main menu nav noframes ol optgroup option p search section select summary tbody textarea tfoot thead ul table tr td th caption""".split()  # noqa: SIM905
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_CODE = frozenset(("pre", "listing", "xmp", "plaintext"))
_CELLS = frozenset(("td", "th"))
_NOT_IN_VALUES = frozenset((*_HEADINGS, *_CODE, "form", "article", "nav"))
_SIDE_BY_SIDE = frozenset(("a", "button", "label", "input", "img"))
"""Next to each other these are words apart, though no white space may stand between them."""
_DECORATION = frozenset(("span", "i", "svg", "a", "em", "b", "sup", "img"))
"""Where `aria-hidden` means decoration. On larger parts of saved pages it often only means that a window was open above them."""

_HIDDEN = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)\b", re.IGNORECASE)
_FILE_NAME = re.compile(r"\S*\.(?:png|jpe?g|gif|svg|webp|bmp|avif|tiff?)", re.IGNORECASE)
_INLINE_TAGS = re.compile(r"</?(?:a|abbr|b|big|center|code|em|font|i|ins|label|s|small|span|strike|strong|tt|u)\b[^<>]*>", re.IGNORECASE)
_BOX_TAGS = re.compile(r"</?(?:article|aside|blockquote|div|fieldset|main|section)\b[^<>]*>", re.IGNORECASE)

_LAYOUT_CELL_CHARACTERS = 1_000
"""A cell longer than this holds a part of a page, not a value."""


def html(content: bytes) -> Reading:
    """A web page: everything that is seen on it, with menus, forms and the like marked as furniture."""
    _refuse_other_files(content, "web page")
    text = decode_declared(content)
    if _defines_entities(text):
        raise UnreadableDocument(DEFINES_ENTITIES)
    root = parse_html(text)
    walk = Walk(root)
    walk.run()
    stored, spans = joined(walk.flow.parts)
    title = _title(root, walk.flow.parts)
    extracted = _extracted(root) if walk.elements <= _JUDGED_ELEMENTS and walk.deepest <= _JUDGED_DEPTH else ""
    return Reading(stored, title, furniture=furniture_of_page(walk.flow.parts, spans, walk.regions, extracted))


def epub(content: bytes) -> Reading:
    """An e-book: its chapters in reading order. Copy protection is refused."""
    files = archive.entries(content)
    package_name, package = _package(files)
    book = parse_xml(package)
    protected = _protected_names(files)
    names: dict[str, tuple[str, str]] = {}
    for item in book.iter("{*}item"):
        names[item.get("id", "")] = (
            posixpath.normpath(posixpath.join(posixpath.dirname(package_name), unquote(item.get("href", "")))),
            item.get("media-type", ""),
        )
    flow = Flow()
    regions: list[Region] = []
    for reference in book.iter("{*}itemref"):
        name, media_type = names.get(reference.get("idref", ""), ("", ""))
        if name in protected:
            raise UnreadableDocument("it is protected against copying; get it without that protection")
        if name not in files:
            raise UnreadableDocument(f"it is damaged: its chapter '{name or reference.get('idref', '')}' is missing")
        if media_type.startswith("image/") and not media_type.startswith("image/svg"):
            continue
        text = decode_declared(files[name])
        if _defines_entities(text):
            raise UnreadableDocument(DEFINES_ENTITIES)
        flow.close()
        Walk(parse_html(text), flow, regions).run()
    stored, spans = joined(flow.parts)
    title = next((one_line("".join(found.itertext())) for found in book.iter("{http://purl.org/dc/elements/1.1/}title")), "")
    return Reading(stored, title or None, furniture=furniture_of_page(flow.parts, spans, regions, ""))


def xml(content: bytes) -> Reading:
    """XML of any kind: feeds as headed articles, XHTML as a page, anything else with the names of its elements before what they hold."""
    _refuse_other_files(content, "XML")
    text = decode_declared(content)
    try:
        root = parse_xml(text)
    except MalformedXml:
        # What is no XML after all is still somebody's text, and then it is shown as it is.
        return Reading(text)
    if local(root) == "html":
        return html(content)
    flow = Flow()
    title = _elements(root, flow)
    return Reading(joined(flow.parts)[0], title)


# Bytes to trees


class MalformedXml(UnreadableDocument):
    """XML that breaks its own rules."""


def decode_declared(content: bytes) -> str:
    """The text of a page: as its byte order mark or declaration says, and else by what the bytes suggest."""
    head = content[:_HEAD_BYTES]
    declared = re.search(rb"""^\s*<\?xml[^>]{1,200}?encoding\s*=\s*["']([\w.:-]{1,40})""", head) or re.search(
        rb"""<meta\b[^>]{1,300}?charset\s*=\s*["']?\s*([\w.:-]{1,40})""", head, re.IGNORECASE
    )
    if declared and not content.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        name = declared.group(1).decode("ascii").lower()
        try:
            # A declaration that can be read byte by byte is no UTF-16, whatever it says; and no page is UTF-7.
            name = "utf-8" if name.startswith(("utf-16", "utf16", "utf-7", "ucs")) else codecs.lookup(_ASCII_ALIASES.get(name, name)).name
            text = content.decode(name, errors="replace")
            if "\x00" not in text and text.count("\ufffd") * 100 <= len(text):
                return text
        except (LookupError, UnicodeError):
            pass
    return decode(content)


def _refuse_other_files(content: bytes, kind: str) -> None:
    if content.startswith((b"%PDF-", b"PK\x03\x04", b"\x89PNG", b"GIF8", b"\xff\xd8\xff", b"{\\rtf", b"\x1f\x8b", archive.OLE)):
        raise UnreadableDocument(f"it is no {kind}, whatever its name says")


def _defines_entities(text: str) -> bool:
    """Whether a page's document type defines entities, as only those do that mean harm to XML readers."""
    at = 0
    while opening := re.compile(r"[\s\ufeff]*(<!--|<\?)").match(text, at):
        closing = "-->" if opening.group(1) == "<!--" else ">"
        end = text.find(closing, opening.end())
        if end < 0:
            return False
        at = end + len(closing)
    doctype = re.compile(r"[\s\ufeff]*<!DOCTYPE\b[^<>\[]*\[", re.IGNORECASE).match(text, at)
    if doctype is None:
        return False
    end_of_type = re.compile(r"\]\s{0,100}>").search(text, doctype.end())
    return re.compile(r"<!ENTITY\b", re.IGNORECASE).search(text, doctype.end(), end_of_type.start() if end_of_type else len(text)) is not None


def parse_html(text: str) -> _Element:
    """The tree of a page. Raises UnreadableDocument where it nests beyond sense."""
    from lxml import etree
    from lxml.html import HTMLParser

    # Declared or not, what the parser is given is UTF-8 now.
    text = re.sub(r"^\s*<\?xml[^>]*>", "", text.lstrip("\ufeff"), count=1)
    for attempt in (text, None, None):
        if attempt is None:
            # Unclosed marks of thirty years of web pages: without them the words are still there.
            text = _INLINE_TAGS.sub("", text) if _INLINE_TAGS.search(text) else _BOX_TAGS.sub("<br><br>", text)
        parser = HTMLParser(encoding="utf-8", huge_tree=True, remove_pis=True, remove_comments=True)
        try:
            root = etree.fromstring(text.encode("utf-8", "replace") or b"<html/>", parser)
        except etree.XMLSyntaxError:
            # lxml's word for a page without any element.
            root = None
        if not any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log):
            return etree.fromstring(b"<html/>", HTMLParser()) if root is None else root
    raise UnreadableDocument(TOO_DEEP)


def parse_xml(content: str | bytes) -> _Element:
    """The tree of an XML file: no entities, no network, no document type from elsewhere. Raises MalformedXml, or UnreadableDocument with the reason."""
    from lxml import etree

    text = content if isinstance(content, str) else decode_declared(content)
    text = re.sub(r"^\s*<\?xml[^>]*\?>", "", text.lstrip("\ufeff"), count=1)
    encoded = text.encode("utf-8", "replace")
    _refuse_entities(encoded)
    if "<!DOCTYPE" not in text:
        encoded = re.sub(rb"&([A-Za-z][A-Za-z0-9]{1,30});", _named_character, encoded)
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=True,
        remove_pis=True,
        remove_comments=True,
    )
    try:
        return etree.fromstring(encoded, parser)
    except etree.XMLSyntaxError:
        if any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log):
            raise UnreadableDocument(TOO_DEEP) from None
        raise MalformedXml("it is damaged: its XML cannot be read; save it again") from None


def _refuse_entities(content: bytes) -> None:
    """Reads no further than the first element, with a parser that tells of each definition before anything unfolds."""
    from xml.parsers import expat

    class Seen(Exception):
        pass

    def entity(*_: object) -> None:
        raise UnreadableDocument(DEFINES_ENTITIES)

    def element(*_: object) -> None:
        raise Seen

    parser = expat.ParserCreate("utf-8")
    parser.EntityDeclHandler = entity
    parser.StartElementHandler = element
    # What is malformed before its first element is refused by the parser that follows.
    with suppress(Seen, expat.ExpatError):
        parser.Parse(content, True)


def _named_character(match: re.Match[bytes]) -> bytes:
    from html.entities import html5

    name = match.group(1).decode("ascii")
    return match.group() if name in ("amp", "lt", "gt", "quot", "apos") else html5.get(name + ";", match.group().decode("ascii")).encode()


def local(element: _Element) -> str:
    """An element's name without its namespace; empty for comments and the like."""
    tag: Any = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


# Pages


@dataclass(slots=True)
class _Table:
    """A table whose cells are values. One that lays out a page is no table but so many blocks."""

    rows: list[Row] = field(default_factory=list)
    linked: int = 0


class Walk:
    """One pass over a page's tree, writing what is seen into a Flow and noting the regions that parts stand in."""

    def __init__(self, root: _Element, flow: Flow | None = None, regions: list[Region] | None = None) -> None:
        self.root = root
        self.elements = self.deepest = 0
        self.flow = flow or Flow()
        self.regions: list[Region] = [] if regions is None else regions
        self._values = value_tables(root)
        self._tables: list[_Table] = []
        self._lists: list[list[int]] = []
        self._cell: list[str] | None = None
        self._verbatim: list[str] | None = None
        self._links = 0
        self._open_regions: list[tuple[_Element, int]] = []

    def run(self) -> None:
        """Walks the tree; afterwards `flow.parts` holds the page."""
        from lxml import etree

        events: Any = etree.iterwalk(self.root, events=("start", "end"))
        skipped: _Element | None = None
        depth = 0
        for event, element in events:
            name = local(element).lower()
            depth += 1 if event == "start" else -1
            if event == "start":
                self.elements += 1
                self.deepest = max(self.deepest, depth)
                if _unseen(element, name):
                    skipped = element
                    events.skip_subtree()
                    continue
                self._start(element, name)
                if element.text:
                    self._write(element.text)
            else:
                if element is skipped:
                    skipped = None
                else:
                    self._end(element, name)
                if element.tail and element is not self.root:
                    self._write(element.tail)
        self.flow.close()

    def _write(self, text: str) -> None:
        if self._verbatim is not None:
            self._verbatim.append(text)
        elif self._cell is not None:
            self._cell.append(re.sub(r"\s+", " ", text))
            if self._links and self._tables:
                self._tables[-1].linked += len(text.strip())
        elif self._tables and not text.strip():
            return
        else:
            self.flow.write(text, link=self._links > 0)

    def _start(self, element: _Element, name: str) -> None:
        region = Region.of(element, name)
        if region:
            self.flow.close()
            self.regions.append(Region(region, self.flow.region))
            self._open_regions.append((element, self.flow.region))
            self.flow.region = len(self.regions) - 1
        if self._verbatim is not None:
            if name == "br":
                self._verbatim.append("\n")
            return
        if name == "br":
            if self._cell is None:
                self.flow.line_break()
            else:
                self._cell.append(" ")
        elif name == "img" or (name == "input" and element.get("type") in ("submit", "button", "reset")):
            said = element.get("alt" if name == "img" else "value") or ""
            if name == "input" or _says_something(said):
                self._write(f" {said} ")
        elif name == "a":
            self._links += 1
        elif self._cell is not None:
            if name == "li":
                self._cell.append("\0")
            elif name in _BLOCKS or name in _HEADINGS or name in _CODE:
                self._cell.append(" ")
        elif self._tables and name in ("tr", "td", "th", "caption"):
            self._start_of_table(element, name)
        elif name == "table" and element in self._values:
            self.flow.close()
            self._tables.append(_Table())
        elif name in _CODE:
            self.flow.close()
            self._verbatim = []
        elif name in _HEADINGS:
            self.flow.heading(_HEADINGS[name])
        elif name in ("ul", "ol", "menu", "dir"):
            self.flow.close()
            self._lists.append([_number(element.get("start"), 1) if name == "ol" else -1])
        elif name == "li":
            self._item(element)
        elif name in _BLOCKS or "-" in name:
            self.flow.close()
        elif name == "sup":
            self._raised(element)
        elif name == "q":
            self._write("“")

    def _start_of_table(self, element: _Element, name: str) -> None:
        if name == "tr":
            self._tables[-1].rows.append(Row())
        else:
            self._cell = []

    def _end(self, element: _Element, name: str) -> None:
        if self._verbatim is not None:
            if name in _CODE:
                lines, self._verbatim = "".join(self._verbatim), None
                self.flow.code(lines)
            elif name in _BLOCKS and self._verbatim and not self._verbatim[-1].endswith("\n"):
                # Highlighters wrap each line in a box of its own.
                self._verbatim.append("\n")
        elif name == "a":
            self._links -= 1
            self._apart(element)
        elif name in ("button", "label", "input", "img"):
            self._apart(element)
        elif name == "q":
            self._write("”")
        elif self._cell is not None:
            if name in _CELLS or name == "caption":
                self._end_of_cell(element, name)
            elif name in _BLOCKS or name in _HEADINGS or name == "li":
                self._cell.append(" ")
        elif self._tables:
            if name == "table":
                table = self._tables.pop()
                self.flow.table(table.rows, table.linked)
        elif name in ("ul", "ol", "menu", "dir"):
            self.flow.close()
            if self._lists:
                self._lists.pop()
        elif name == "li":
            self.flow.end_item()
        elif name in _BLOCKS or name in _HEADINGS or "-" in name:
            self.flow.close()
        if self._open_regions and self._open_regions[-1][0] is element:
            self.flow.close()
            self.flow.region = self._open_regions.pop()[1]

    def _end_of_cell(self, element: _Element, name: str) -> None:
        pieces = [plain(piece) for piece in "".join(self._cell or ()).split("\0")]
        text = ", ".join(filter(None, pieces[1:]))
        text = f"{pieces[0]} {text}".strip().replace("\n", " ")
        self._cell = None
        table = self._tables[-1]
        if name == "caption":
            self.flow.write(text)
            self.flow.close()
            return
        if not table.rows:
            table.rows.append(Row())
        row = table.rows[-1]
        # A row of nothing but header cells is a header; a header cell at the front of a row names the row.
        section = element.getparent().getparent() if element.getparent() is not None else None
        named = name == "th" or (section is not None and local(section) == "thead")
        row.header = named and (row.header or not row.cells)
        row.cells.append((text, _number(element.get("colspan"), 1), _number(element.get("rowspan"), 1)))

    def _item(self, element: _Element) -> None:
        if not self._lists:
            self._lists.append([-1])
        counter = self._lists[-1]
        if counter[0] < 0:
            self.flow.item("-", len(self._lists))
            return
        counter[0] = _number(element.get("value"), counter[0])
        self.flow.item(f"{counter[0]}.", len(self._lists))
        counter[0] += 1

    def _raised(self, element: _Element) -> None:
        """Keeps 10⁶ from becoming 106 and a note's mark from becoming a digit of the number before it."""
        inside = "".join(element.itertext()).strip() if len(element) < 5 else ""
        before = element.getprevious()
        touching = (before.tail if before is not None else (element.getparent().text if element.getparent() is not None else "")) or ""
        if re.fullmatch(r"[-−+]?[\d.,]{1,6}", inside) and re.search(r"\w$", touching):
            self._write(" " if element.find(".//a") is not None or self._links else "^")

    def _apart(self, element: _Element) -> None:
        following = element.getnext()
        if not element.tail and following is not None and local(following) in _SIDE_BY_SIDE:
            self._write(" ")


def _unseen(element: _Element, name: str) -> bool:
    if name in _SKIPPED or name in ("annotation", "annotation-xml") or (name in ("title", "desc", "defs", "metadata") and _within(element, "svg")):
        return True
    if name in ("html", "body"):
        return False
    attributes = element.attrib
    return (
        "hidden" in attributes
        or (attributes.get("aria-hidden") == "true" and name in _DECORATION)
        or bool(_HIDDEN.search(attributes.get("style", "")))
        or (name == "input" and attributes.get("type") == "hidden")
    )


def _within(element: _Element, name: str) -> bool:
    parent = element.getparent()
    return parent is not None and local(parent).lower() in (name, "g", "defs")


@dataclass(slots=True)
class _SeenTable:
    element: _Element
    layout: bool
    rows: int = 0
    cells: int = 0
    widest: int = 0
    characters: int = 0


def value_tables(
    root: _Element, table: str = "table", row: str = "tr", cells: frozenset[str] = _CELLS, breaking: frozenset[str] = _NOT_IN_VALUES
) -> set[_Element]:
    """The tables whose cells are values: at least two rows and columns, no table and nothing that is `breaking` inside, no cell that holds a page."""
    from lxml import etree

    found: set[_Element] = set()
    opened: list[_SeenTable] = []
    events: Any = etree.iterwalk(root, events=("start", "end"))
    for event, element in events:
        name = local(element)
        if event == "end":
            if opened and element.tail and name != table:
                opened[-1].characters += len(element.tail.strip())
            if name == table:
                seen = opened.pop()
                if not seen.layout and seen.rows > 1 and seen.widest > 1:
                    found.add(element)
            elif opened and name in cells and opened[-1].characters > _LAYOUT_CELL_CHARACTERS:
                opened[-1].layout = True
        elif name == table:
            if opened:
                opened[-1].layout = True
            opened.append(_SeenTable(element, element.get("role") in ("presentation", "none")))
        elif opened and name in _SKIPPED:
            events.skip_subtree()
        elif opened:
            seen = opened[-1]
            seen.characters += len((element.text or "").strip())
            if name == row:
                seen.rows += 1
                seen.cells = 0
            elif name in cells:
                seen.cells += 1
                seen.widest = max(seen.widest, seen.cells)
                seen.characters = 0
            elif name in breaking:
                seen.layout = True
    return found


def _says_something(alternative: str) -> bool:
    """Whether a picture's alternative text is more than a file name or one word such as `logo`."""
    return len(alternative.split()) > 1 and not _FILE_NAME.search(alternative)


def _number(value: str | None, default: int) -> int:
    return int(value) if value and re.fullmatch(r"\s*\d{1,5}\s*", value) else default


def _title(root: _Element, parts: list[Part]) -> str | None:
    """A page's title: without the name of the site, where its first heading or its card for other sites shows which part that is."""
    headings = [part.text[2:] for part in parts if part.kind == "heading" and part.text.startswith("# ")]
    cards = [one_line(found.get("content", "")) for found in root.iter("meta") if found.get("property") == "og:title"]
    told = next(
        (one_line("".join(found.itertext())) for found in root.iter("title") if found.getparent() is None or local(found.getparent()) != "svg"), ""
    )
    if told:
        known = {name.casefold(): name for name in (*cards, *headings)}
        for cut in re.finditer(r"\s+[|–—·•:»-]\s+", told):
            for side in (told[: cut.start()], told[cut.end() :]):
                if side.casefold() in known:
                    return side
        return told
    return next(filter(None, (*cards, *headings)), None)


def _extracted(root: _Element) -> str:
    """What trafilatura takes for the page's content; empty where it finds none. It may change the tree."""
    import logging

    import trafilatura

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    for cell in root.iter(*_CELLS):
        # It would write a cell that claims 99,999 columns as often.
        for claim in ("colspan", "rowspan"):
            cell.attrib.pop(claim, None)
    try:
        found: Any = trafilatura.bare_extraction(root, favor_recall=True, include_tables=True, include_comments=True, with_metadata=False)
    # A judgement that cannot be had is no reason to refuse the page.
    except Exception:
        return ""
    return "" if found is None else f"{found.text or ''}\n{getattr(found, 'comments', '') or ''}"


# E-books


def _package(files: Mapping[str, bytes]) -> tuple[str, bytes]:
    """The name and bytes of the file that lists an e-book's chapters."""
    if "META-INF/container.xml" not in files:
        raise UnreadableDocument("it is no e-book, whatever its name says")
    for root in parse_xml(files["META-INF/container.xml"]).iter("{*}rootfile"):
        name = posixpath.normpath(root.get("full-path", ""))
        if name in files:
            return name, files[name]
    raise UnreadableDocument("it is damaged: the list of its chapters is missing")


def _protected_names(files: Mapping[str, bytes]) -> set[str]:
    """The files of an e-book that are encrypted; scrambled fonts are not in the way of reading."""
    if "META-INF/encryption.xml" not in files:
        return set()
    return {posixpath.normpath(unquote(found.get("URI", ""))) for found in parse_xml(files["META-INF/encryption.xml"]).iter("{*}CipherReference")}


# Other XML

_MARKUP = re.compile(r"</?(?:p|br|div|a|b|i|em|strong|ul|ol|li|img|h[1-6]|table|span|blockquote|figure)\b[^<>]*>", re.IGNORECASE)


def _elements(root: _Element, flow: Flow) -> str | None:
    """Writes any XML: `title` elements as headings, text that holds HTML as the page it is, the rest as `name: value`. Gives the first title."""
    from lxml import etree

    first: str | None = None
    titled: list[_Element] = []
    events: Any = etree.iterwalk(root, events=("start", "end"))
    for event, element in events:
        if event == "end":
            if titled and titled[-1] is element:
                titled.pop()
            continue
        name = local(element)
        leaf = not any(local(child) for child in element)
        if not leaf and not _mixed(element):
            if _record(element):
                flow.add("- " + "; ".join(filter(None, (_attributes(element), *map(_named, element)))), "item")
                events.skip_subtree()
                continue
            if any(local(child) == "title" for child in element):
                titled.append(element)
            if element.attrib:
                flow.add(f"- {name}: {_attributes(element)}", "item")
            continue
        value = "".join(element.itertext())
        if name == "title" and value.strip():
            value = words_of_html(value)
            first = first or value
            flow.heading(len(titled))
            flow.write(value)
        elif _MARKUP.search(value):
            Walk(parse_html(value), flow).run()
        elif leaf:
            named = _named(element)
            if named:
                flow.add(f"- {named}", "item")
        else:
            flow.write(value)
        flow.close()
        if not leaf:
            events.skip_subtree()
    return first


def _mixed(element: _Element) -> bool:
    """Whether words stand between the elements that this one holds, as in a paragraph."""
    return bool((element.text or "").strip()) or any((child.tail or "").strip() for child in element)


def _record(element: _Element) -> bool:
    """Whether an element holds nothing but short values."""
    return len(element) > 1 and all(
        len(child) == 0 and local(child) not in ("", "title") and len(child.text or "") <= 200 and not _MARKUP.search(child.text or "")
        for child in element
    )


def _attributes(element: _Element) -> str:
    return "; ".join(f"{name.rpartition('}')[2]}: {one_line(value)}" for name, value in element.attrib.items() if value.strip())


def _named(element: _Element) -> str:
    """`name: value`, and the element's attributes; empty where there are neither."""
    said = "; ".join(filter(None, (one_line("".join(element.itertext())), _attributes(element))))
    return f"{local(element)}: {said}" if said else ""


def words_of_html(text: str) -> str:
    """The words of a short text that may hold HTML."""
    return one_line("".join(parse_html(text).itertext()) if re.search(r"[<&]", text) else text)
