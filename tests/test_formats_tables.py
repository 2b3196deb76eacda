"""Tests of index.formats.tables: rows that can be read by themselves, headers found and not made up, nothing lost."""

from __future__ import annotations

import datetime
import io
import re
import zipfile

import openpyxl
import pytest
import xlwt
from hypothesis import given
from hypothesis import strategies as st

from index.errors import UnreadableDocument
from index.formats.tables import csv, has_header, sheet_lines, table_lines, xls, xlsx
from index.read import read

SALES = [["Region", "Product", "Sales"], ["North", "Apples", "1200"], ["South", "Pears", "800"]]


def workbook(sheets: dict[str, list[list[object]]], title: str = "") -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    if title:
        book.properties.title = title
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def test_each_row_carries_its_header() -> None:
    assert table_lines(SALES, header=True) == ["Region: North; Product: Apples; Sales: 1200", "Region: South; Product: Pears; Sales: 800"]


def test_without_a_header_cells_stand_apart() -> None:
    assert table_lines(SALES[1:], header=False) == ["North | Apples | 1200", "South | Pears | 800"]


def test_newlines_become_spaces_and_empty_cells_and_rows_are_left_out() -> None:
    assert table_lines([["Name", "Note"], ["Ann\n Lee", ""], ["", " "], ["Bob", "two\r\nlines"]], header=True) == [
        "Name: Ann Lee",
        "Name: Bob; Note: two lines",
    ]


def test_rows_longer_and_shorter_than_the_header_lose_nothing() -> None:
    assert table_lines([["A", "B"], ["1"], ["1", "2", "3"]], header=True) == ["A: 1", "A: 1; B: 2; 3"]


def test_a_header_that_no_row_uses_stays() -> None:
    assert table_lines([["Name", "Fax"], ["Ann", ""]], header=True) == ["Name | Fax", "Name: Ann"]
    assert table_lines([["Name", "Fax"]], header=True) == ["Name | Fax"]
    assert table_lines([], header=True) == []


def test_a_row_is_never_taken_for_a_heading() -> None:
    assert table_lines([["# of items", "x"], ["5", "6"]], header=True) == ["| # of items: 5; x: 6"]


@given(st.lists(st.lists(st.text(max_size=8), max_size=5), max_size=6), st.booleans())
def test_every_word_of_every_cell_is_kept(rows: list[list[str]], header: bool) -> None:
    shown = " ".join(table_lines(rows, header))
    for row in rows:
        for cell in row:
            for word in cell.split():
                assert word.rstrip(":") in shown


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (SALES, True),
        ([["Name", "City"], ["Ann", "Oslo"], ["Bob", "Rome"]], True),
        ([["1", "2"], ["3", "4"]], False),
        ([["North", "1200"], ["South", "800"]], False),
        ([["Year", "2023", "2024"], ["Sales", "5", "6"], ["Costs", "1", "2"]], False),
        ([["a", "a", "a"], ["b", "c", "d"]], False),
        ([["Name", "City"]], False),
        ([["Oslo", "Ann"], ["Rome", "Bob"], ["Oslo", "Cid"]], False),
    ],
)
def test_headers_are_found_and_not_made_up(rows: list[list[str]], expected: bool) -> None:
    assert has_header(rows) == expected


def test_remarks_above_a_table_and_tables_after_an_empty_row() -> None:
    rows = [["Report of 2024"], [], *SALES, [], ["Total", "", "2000"], [], ["Prepared by Ann"], [], ["City", "Staff", "Rent"], ["Oslo", "5", "100"]]
    assert sheet_lines(rows) == [
        "Report of 2024",
        "",
        "Region: North; Product: Apples; Sales: 1200",
        "Region: South; Product: Pears; Sales: 800",
        "",
        "Total | 2000",
        "",
        "Prepared by Ann",
        "",
        "City: Oslo; Staff: 5; Rent: 100",
    ]


def test_a_workbook_keeps_sheets_dates_numbers_and_truths() -> None:
    content = workbook(
        {
            "Sales 2024": [["Region", "When", "Sales", "Share", "Open"], ["North", datetime.date(2024, 3, 1), 1200.0, 0.1 + 0.2, True]],
            "Empty": [],
            "Times": [["Start", "Hours"], [datetime.datetime(2024, 3, 1, 9, 30), 5]],
        }
    )
    reading = xlsx(content)
    assert reading.title is None
    assert reading.text == (
        "# Sales 2024\n\nRegion: North; When: 2024-03-01; Sales: 1200; Share: 0.3; Open: true\n\n# Times\n\nStart: 2024-03-01 09:30:00; Hours: 5"
    )


def test_a_workbook_with_a_title_sets_its_sheets_below_it() -> None:
    reading = xlsx(workbook({"One": [["Only & alone"]]}, title="Budget & plan"))
    assert (reading.title, reading.text) == ("Budget & plan", "# Budget & plan\n\n## One\n\nOnly & alone")


def test_an_old_workbook_is_read_alike() -> None:
    book = xlwt.Workbook()
    sheet = book.add_sheet("Prices")
    for row, cells in enumerate([["Fruit", "Price"], ["Äpfel", 2.0], ["Pears", 2.5]]):
        for column, cell in enumerate(cells):
            sheet.write(row, column, cell)
    buffer = io.BytesIO()
    book.save(buffer)
    assert xls(buffer.getvalue()).text == "# Prices\n\nFruit: Äpfel; Price: 2\nFruit: Pears; Price: 2.5"


def test_open_document_sheets_are_read_alike() -> None:
    from odfdo import Document, Row, Table

    document = Document("spreadsheet")
    document.body.clear()
    table = Table("Prices")
    for values in (["Fruit", "Price"], ["Apples", 2], ["Pears", 2.5]):
        row = Row()
        row.set_values(values)
        table.append_row(row)
    document.body.append(table)
    buffer = io.BytesIO()
    document.save(buffer)
    assert read(buffer.getvalue(), "prices.ods", "root").text.endswith("# Prices\n\nFruit: Apples; Price: 2\nFruit: Pears; Price: 2.5")


def test_a_cell_in_the_last_corner_of_a_sheet_does_not_unfold_it() -> None:
    book = openpyxl.Workbook()
    book.active["A1"] = "here"
    book.active["XFD1048576"] = "there"
    buffer = io.BytesIO()
    book.save(buffer)
    with pytest.raises(UnreadableDocument, match="spreads over"):
        xlsx(buffer.getvalue())


def test_empty_and_damaged_workbooks_say_so() -> None:
    with pytest.raises(UnreadableDocument, match="sheets are empty"):
        xlsx(workbook({"One": []}))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("xl/workbook.xml", "<nonsense")
    with pytest.raises(UnreadableDocument, match="damaged"):
        xlsx(buffer.getvalue())


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_every_delimiter_and_line_end_is_understood(delimiter: str, newline: str) -> None:
    content = newline.join(delimiter.join(row) for row in SALES).encode()
    assert csv(content).text.splitlines() == table_lines(SALES, header=True)


def test_quoted_cells_may_hold_delimiters_quotes_and_newlines() -> None:
    content = b'Name,Said\nAnn,"one, two\nthree ""four"""\nBob,five\nCid,six\n'
    assert csv(content).text == 'Name: Ann; Said: one, two three "four"\nName: Bob; Said: five\nName: Cid; Said: six'


def test_decimal_commas_do_not_make_the_delimiter() -> None:
    assert csv(b"Ort;Preis\nBonn;1,50\nUlm;2,75\n").text == "Ort: Bonn; Preis: 1,50\nOrt: Ulm; Preis: 2,75"


def test_a_quotation_mark_that_is_never_closed_swallows_nothing() -> None:
    content = 'Name,Height,City\nAnn,"6 foot,Oslo\n' + "Bob,5 foot,Rome\n" * 3000
    lines = csv(content.encode()).text.splitlines()
    assert len(lines) == 3001
    assert lines[0] == 'Name: Ann; Height: "6 foot; City: Oslo'


def test_prose_named_csv_stays_as_it_is() -> None:
    prose = "Dear Ann,\n\nthe apples, pears and plums, which you sent, came well.\nThey were good.\n"
    assert csv(prose.encode()).text == prose


def test_a_single_column_stays_as_it_is() -> None:
    assert csv(b"Name\nAnn\nBob\n").text == "Name\nAnn\nBob\n"


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from(',;\t|"\n'), max_size=80))
def test_no_word_of_a_csv_is_lost_whatever_its_quoting(text: str) -> None:
    shown = csv(text.encode()).text
    for word in re.findall(r"[^\W_]+", text):
        assert word in shown
