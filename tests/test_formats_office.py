"""Tests of index.formats.office: Word and OpenDocument texts with everything in them that is seen, and true reasons for what is refused."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import pytest
from docx import Document as WordDocument
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls

from index.errors import UnreadableDocument
from index.formats.archive import OLE
from index.formats.office import docx, odt
from index.split import split
from index.types import Document, Reading

LAUGHS = '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;">]>'
ODT_NAMES = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "text", "table", "style", "drawing", "manifest", "meta")
) + ' xmlns:draw="urn:oasis:names:tc:opendocument:xmlns:drawing:1.0" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:svg="urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0" xmlns:xlink="http://www.w3.org/1999/xlink"'  # fmt: skip


def word(*blocks: str, fill: Callable[[object], None] | None = None) -> bytes:
    """A Word document of python-docx, with raw body elements added at its end."""
    document = WordDocument()
    if fill:
        fill(document)
    for block in blocks:
        document.element.body.insert(len(document.element.body) - 1, parse_xml(block.replace(">", f" {nsdecls('w', 'm', 'wp', 'a')}>", 1)))
    packed = io.BytesIO()
    document.save(packed)
    return packed.getvalue()


def replaced(content: bytes, **files: str) -> bytes:
    """The same archive with files replaced or added; `__` stands for a slash, `_xml` for .xml."""
    new = {name.replace("__", "/").replace("_xml", ".xml"): text for name, text in files.items()}
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w") as archive:
        for name in old.namelist():
            if name not in new:
                archive.writestr(name, old.read(name))
        for name, text in new.items():
            archive.writestr(name, text)
    return packed.getvalue()


def open_text(body: str, styles: str = "", **files: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.text")
        content = f"<office:document-content {ODT_NAMES}><office:automatic-styles>{styles}</office:automatic-styles>"
        archive.writestr("content.xml", f"{content}<office:body><office:text>{body}</office:text></office:body></office:document-content>")
        for name, text in files.items():
            archive.writestr(name.replace("__", "/").replace("_xml", ".xml"), text)
    return packed.getvalue()


def trails(reading: Reading) -> list[str]:
    return [passage.heading for passage in split(Document("id", "a", reading.title or "a", reading.text, "fingerprint"))]


def lines(reading: Reading) -> list[str]:
    return [line for line in reading.text.splitlines() if line]


def test_word_headings_lists_and_titles_are_kept() -> None:
    def fill(document: object) -> None:
        document.add_heading("The plan", 0)
        document.add_heading("Budget", 1)
        document.add_paragraph("It costs 5 euros.")
        document.add_heading("Staff", 2)
        document.add_paragraph("Ann", style="List Bullet")
        document.add_paragraph("Call her", style="List Number")
        document.add_paragraph("Ask her", style="List Number")

    reading = docx(word(fill=fill))
    assert reading.text == "# The plan\n\n# Budget\n\nIt costs 5 euros.\n\n## Staff\n\n- Ann\n1. Call her\n2. Ask her\n"
    assert reading.title == "The plan"
    assert trails(reading)[-1] == "Budget > Staff"


def test_the_title_in_a_word_documents_properties_comes_first() -> None:
    def fill(document: object) -> None:
        document.core_properties.title = "Annual report"
        document.add_heading("Intro", 1)

    assert docx(word(fill=fill)).title == "Annual report"


def test_word_tables_repeat_their_header_in_each_row() -> None:
    def fill(document: object) -> None:
        table = document.add_table(3, 2)
        for row, cells in enumerate((("Region", "Sales"), ("North", "1200"), ("South", "900"))):
            for column, cell in enumerate(cells):
                table.cell(row, column).text = cell

    assert lines(docx(word(fill=fill))) == ["Region: North; Sales: 1200", "Region: South; Sales: 900"]


def test_word_tables_say_themselves_which_rows_are_headers() -> None:
    cell = "<w:tc><w:p><w:r><w:t>{}</w:t></w:r></w:p></w:tc>".format
    table = f"<w:tbl><w:tr><w:trPr><w:tblHeader/></w:trPr>{cell('Name')}{cell('Role')}</w:tr><w:tr>{cell('Ann')}{cell('Head')}</w:tr></w:tbl>"
    assert lines(docx(word(table))) == ["Name: Ann; Role: Head"]


def test_insertions_are_in_and_deletions_hidden_words_and_field_codes_out() -> None:
    paragraph = (
        "<w:p><w:r><w:t>We sold </w:t></w:r><w:del><w:r><w:delText>nine</w:delText></w:r></w:del><w:ins><w:r><w:t>ten</w:t></w:r></w:ins>"
        "<w:r><w:rPr><w:vanish/></w:rPr><w:t>secret</w:t></w:r><w:r><w:instrText>PAGE</w:instrText></w:r><w:r><w:tab/><w:t>pens</w:t><w:br/><w:t>today</w:t></w:r></w:p>"
    )
    assert docx(word(paragraph)).text == "We sold ten pens\ntoday\n"


def test_equations_text_boxes_and_picture_descriptions_are_kept() -> None:
    equation = "<w:p><m:oMath><m:f><m:num><m:r><m:t>a</m:t></m:r></m:num><m:den><m:r><m:t>b</m:t></m:r></m:den></m:f><m:r><m:t>=1</m:t></m:r></m:oMath></w:p>"
    box = "<w:p><w:r><w:t>Before</w:t><w:txbxContent><w:p><w:r><w:t>In the box</w:t></w:r></w:p></w:txbxContent></w:r><w:r><w:t> and after</w:t></w:r></w:p>"
    picture = '<w:p><w:r><w:drawing><wp:inline><wp:docPr id="1" name="x" descr="A red map"/></wp:inline></w:drawing></w:r></w:p>'
    assert lines(docx(word(equation, box, picture))) == ["(a)/(b)=1", "Before and after", "In the box", "A red map"]


def test_notes_and_comments_follow_the_paragraph_they_belong_to() -> None:
    content = word(
        '<w:p><w:r><w:t>Claim</w:t><w:footnoteReference w:id="2"/><w:commentReference w:id="0"/></w:r></w:p>',
        "<w:p><w:r><w:t>Next</w:t></w:r></w:p>",
    )
    notes = f'<w:footnotes {nsdecls("w")}><w:footnote w:id="2"><w:p><w:r><w:t>See p. 9</w:t></w:r></w:p></w:footnote></w:footnotes>'
    comments = f'<w:comments {nsdecls("w")}><w:comment w:id="0" w:author="Ann"><w:p><w:r><w:t>Really?</w:t></w:r></w:p></w:comment></w:comments>'
    reading = docx(replaced(content, word__footnotes_xml=notes, word__comments_xml=comments))
    assert lines(reading) == ["Claim[1]", "[1] See p. 9", "[Comment by Ann] Really?", "Next"]


def test_headers_and_footers_of_word_documents_come_once_at_the_end() -> None:
    def fill(document: object) -> None:
        document.add_paragraph("Body")
        document.sections[0].header.paragraphs[0].text = "Confidential"
        document.sections[0].footer.paragraphs[0].text = "Page 3"

    assert lines(docx(word(fill=fill))) == ["Body", "Confidential"]


def test_numbers_that_word_shows_before_headings_are_kept() -> None:
    numbering = (
        f'<w:numbering {nsdecls("w")}><w:abstractNum w:abstractNumId="0"><w:lvl w:ilvl="0"><w:start w:val="1"/><w:numFmt w:val="upperRoman"/><w:lvlText w:val="%1."/></w:lvl>'
        '<w:lvl w:ilvl="1"><w:start w:val="1"/><w:numFmt w:val="lowerLetter"/><w:lvlText w:val="%1.%2)"/></w:lvl></w:abstractNum><w:num w:numId="5"><w:abstractNumId w:val="0"/></w:num></w:numbering>'
    )

    def paragraph(style: str, level: int, words: str) -> str:
        return f'<w:p><w:pPr>{style}<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="5"/></w:numPr></w:pPr><w:r><w:t>{words}</w:t></w:r></w:p>'

    heading = '<w:pStyle w:val="Heading1"/>'
    content = word(paragraph(heading, 0, "Scope"), paragraph("", 1, "this"), paragraph("", 1, "that"), paragraph(heading, 0, "Terms"))
    assert lines(docx(replaced(content, word__numbering_xml=numbering))) == ["# I. Scope", "  I.a) this", "  I.b) that", "# II. Terms"]


def test_open_texts_keep_headings_lists_notes_comments_and_boxes() -> None:
    styles = (
        '<text:list-style style:name="L"><text:list-level-style-number text:level="1" style:num-format="1" style:num-suffix=")"/></text:list-style>'
    )
    body = (
        "<text:tracked-changes><text:deletion><text:p>gone</text:p></text:deletion></text:tracked-changes>"
        '<text:h text:outline-level="1">Start</text:h><text:p>One<text:s text:c="3"/>two<text:note><text:note-citation>1</text:note-citation><text:note-body><text:p>A note</text:p>'
        "</text:note-body></text:note><text:line-break/>three<office:annotation><dc:creator>Ann</dc:creator><dc:date>2024</dc:date><text:p>Why?</text:p></office:annotation></text:p>"
        '<text:list text:style-name="L"><text:list-item><text:p>a</text:p><text:list><text:list-item><text:p>b</text:p></text:list-item></text:list></text:list-item>'
        "<text:list-item><text:p>c</text:p></text:list-item></text:list>"
        "<text:p>X<draw:frame><draw:text-box><text:p>boxed</text:p></draw:text-box></draw:frame>Y</text:p>"
    )
    reading = odt(open_text(body, styles))
    assert lines(reading) == ["# Start", "One two[1]", "three", "[1] A note", "[Comment by Ann] Why?", "1) a", "  - b", "2) c", "XY", "boxed"]
    assert reading.title == "Start"
    assert set(trails(reading)) <= {"", "XY"}


def test_open_text_tables_repeat_their_header_in_each_row() -> None:
    def row(*cells: str) -> str:
        return "<table:table-row>" + "".join(f"<table:table-cell><text:p>{cell}</text:p></table:table-cell>" for cell in cells) + "</table:table-row>"

    body = f"<table:table><table:table-header-rows>{row('Name', 'Role')}</table:table-header-rows>{row('Ann', 'Head')}{row('Bob', '')}</table:table>"
    assert lines(odt(open_text(body))) == ["Name: Ann; Role: Head", "Name: Bob"]


def test_open_text_titles_come_from_properties_or_the_title_paragraph() -> None:
    titled = '<text:h text:outline-level="1">First</text:h><text:p text:style-name="P1">The title</text:p>'
    style = '<style:style style:name="P1" style:parent-style-name="Title"/>'
    assert odt(open_text(titled, style)).title == "The title"
    meta = f"<office:document-meta {ODT_NAMES}><office:meta><dc:title>From within</dc:title></office:meta></office:document-meta>"
    assert odt(open_text(titled, style, meta_xml=meta)).title == "From within"


def test_headers_and_footers_of_open_texts_come_once_at_the_end() -> None:
    master = f"<office:document-styles {ODT_NAMES}><office:master-styles><style:master-page><style:header><text:p>Draft</text:p></style:header></style:master-page></office:master-styles></office:document-styles>"
    assert lines(odt(open_text("<text:p>Body</text:p>", styles_xml=master))) == ["Body", "Draft"]


@pytest.mark.parametrize("reader", [docx, odt])
def test_what_is_no_archive_is_refused_for_what_it_is(reader: Callable[[bytes], Reading]) -> None:
    with pytest.raises(UnreadableDocument, match=r"it is no (Word document|OpenDocument text), whatever its name says"):
        reader(b"Just some words.")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.txt", "words")
    with pytest.raises(UnreadableDocument, match="it is no"):
        reader(packed.getvalue())


def test_passwords_are_named_as_the_reason() -> None:
    with pytest.raises(UnreadableDocument, match="protected by a password"):
        docx(OLE + bytes(600) + "EncryptedPackage".encode("utf-16-le") + bytes(600))
    manifest = f"<manifest:manifest {ODT_NAMES}><manifest:file-entry><manifest:encryption-data/></manifest:file-entry></manifest:manifest>"
    with pytest.raises(UnreadableDocument, match="protected by a password"):
        odt(open_text("x", **{"META-INF__manifest_xml": manifest}))


def test_entities_are_refused_before_they_unfold() -> None:
    with pytest.raises(UnreadableDocument, match="defines entities"):
        docx(
            replaced(
                word(), word__document_xml=LAUGHS + f"<w:document {nsdecls('w')}><w:body><w:p><w:r><w:t>&b;</w:t></w:r></w:p></w:body></w:document>"
            )
        )
    with pytest.raises(UnreadableDocument, match="defines entities"):
        odt(replaced(open_text("x"), content_xml=LAUGHS + "<l>&b;</l>"))


def test_deep_nesting_is_refused_not_crashed_into() -> None:
    with pytest.raises(UnreadableDocument, match="nested too deep"):
        docx(word("<w:p>" + "<w:r><w:txbxContent><w:p>" * 60 + "<w:r><w:t>x</w:t></w:r>" + "</w:p></w:txbxContent></w:r>" * 60 + "</w:p>"))
    with pytest.raises(UnreadableDocument, match="nested too deep"):
        odt(open_text("<text:section>" * 50_000 + "</text:section>" * 50_000))
    with pytest.raises(UnreadableDocument, match="damaged"):
        odt(open_text("<text:p>never closed"))
