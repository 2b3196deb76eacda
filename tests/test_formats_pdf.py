"""Tests of index.formats.pdf: sentences whole across lines, columns and pages, offsets that lead to the very place on the page, true reasons."""

from __future__ import annotations

import contextlib
import io
import shutil
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from conftest import BENCH
from PIL import Image, ImageChops, ImageDraw, ImageFont
from reportlab.lib.pagesizes import A4
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.lib.utils import simpleSplit
from reportlab.pdfgen.canvas import Canvas

from index.errors import UnreadableDocument
from index.formats import pdf as module
from index.formats.pdf import MAX_PAGES, NEEDS_OCR, pdf, picture, render
from index.read import read
from index.split import split

PROSE = (
    "The Glacier Express leaves Zermatt at nine in the morning and reaches St. Moritz eight hours later. It crosses two hundred and ninety-one bridges. "
    "Its passengers see the Rhine gorge from windows that reach into the roof, and lunch is served at every seat. In winter the train runs as well. "
)
OCR = pytest.mark.skipif(not shutil.which("tesseract"), reason="tesseract is not installed: apt-get install tesseract-ocr")


def drawn(draw: Callable[[Canvas], None], **settings: object) -> bytes:
    buffer = io.BytesIO()
    canvas = Canvas(buffer, pagesize=A4, **settings)
    draw(canvas)
    canvas.save()
    return buffer.getvalue()


def lines(canvas: Canvas, text: Sequence[str], x: float = 72, y: float = 760, size: float = 11) -> None:
    canvas.setFont("Helvetica", size)
    for number, line in enumerate(text):
        canvas.drawString(x, y - number * size * 1.2, line)


def paged(pages: Sequence[Sequence[str]], **settings: object) -> bytes:
    def draw(canvas: Canvas) -> None:
        for page in pages:
            lines(canvas, page)
            canvas.showPage()

    return drawn(draw, **settings)


def set_in_lines(text: str, width: int = 420) -> list[str]:
    """The text in lines of a width in points, as a typesetter breaks them."""
    found: list[str] = simpleSplit(text, "Helvetica", 11, width)
    return found


def reason(content: bytes) -> str:
    with pytest.raises(UnreadableDocument) as refused:
        pdf(content)
    return str(refused.value)


def test_wrapped_lines_become_one_paragraph_with_whole_sentences() -> None:
    document = read(paged([set_in_lines(PROSE)]), "train.pdf", "root")
    assert document.text == PROSE.strip()


def test_short_lines_stay_lines() -> None:
    verse = ["Ann Miller", "12 Long Street", "Springfield", "", "Fruit", "Apples", "Pears", "Plums of the finest kind"]
    assert pdf(paged([verse])).text.splitlines() == [
        *verse[:3],
        "",
        "Fruit",
        "Apples",
        "Pears",
        "Plums of the finest kind",
    ]


def test_items_of_a_list_stay_apart() -> None:
    items = [f"{number}. {line}" for number, line in enumerate(set_in_lines(PROSE), 1)]
    assert pdf(paged([items])).text.splitlines() == items


def test_words_divided_at_a_line_end_are_whole_again_and_hyphens_of_their_own_stay() -> None:
    page = [
        "The members of the committee read the long and detailed docu-",
        "mentation before they voted on the well-known plan, which is a well-",
        "known one among experts of the field and of many other fields too.",
    ]
    assert pdf(paged([page])).text == (
        "The members of the committee read the long and detailed documentation before they voted on the well-known plan, which is a well-known one among "
        "experts of the field and of many other fields too."
    )


def test_wide_gaps_part_the_cells_of_a_row() -> None:
    def draw(canvas: Canvas) -> None:
        for row, cells in enumerate((("Region", "Product", "Sales"), ("North", "Green apples", "1,200"), ("South", "Pears", "800"))):
            for column, cell in enumerate(cells):
                canvas.drawString(72 + 150 * column, 760 - 15 * row, cell)

    assert pdf(drawn(draw)).text.splitlines() == ["Region | Product | Sales", "North | Green apples | 1,200", "South | Pears | 800"]


def test_two_columns_are_read_one_after_the_other_and_sentences_run_on() -> None:
    def draw(canvas: Canvas) -> None:
        words = set_in_lines(PROSE * 2, 220)
        half = len(words) // 2
        while not words[half][0].islower():
            half += 1
        lines(canvas, words[:half], x=60)
        lines(canvas, words[half:], x=320)

    assert pdf(drawn(draw)).text == (PROSE * 2).strip()


def test_a_sentence_runs_on_over_a_page_end() -> None:
    wrapped = set_in_lines(PROSE * 2)
    cut = next(number for number in range(3, len(wrapped)) if wrapped[number][0].islower())
    reading = pdf(paged([wrapped[:cut], wrapped[cut:]]))
    assert reading.text == (PROSE * 2).strip()
    assert reading.pages == (0, reading.text.index(wrapped[cut]))


def test_pages_begin_where_they_say_and_passages_are_exact() -> None:
    document = read(paged([[f"Page {word} is here.", PROSE[:70]] for word in ("one", "two", "three")]), "three.pdf", "root")
    assert [document.text[start:].split(" is")[0] for start in document.pages] == ["Page one", "Page two", "Page three"]
    for passage in split(document):
        assert document.text[passage.span.start : passage.span.end] == passage.text


def test_empty_pages_keep_their_number() -> None:
    reading = pdf(paged([["First."], [], ["Third."]]))
    assert len(reading.pages) == 3
    assert reading.text[reading.pages[2] :] == "Third."


def test_headers_footers_and_page_numbers_are_furniture_and_a_table_s_rows_are_not() -> None:
    def draw(canvas: Canvas) -> None:
        for page in range(1, 7):
            canvas.drawString(72, 800, "Annual Report of the Society" if page % 2 else f"Chapter {page // 3}")
            lines(canvas, [f"{word} stands on page {'abcdefg'[page]} alone." for word in ("Apple", "Pear", "Plum")])
            canvas.drawString(72, 100, f"Total: {page * 37 % 11}")
            canvas.drawString(300, 40, f"Page {page} of 6")
            canvas.showPage()

    reading = pdf(drawn(draw))
    marked = [reading.text[span.start : span.end] for span in reading.furniture]
    assert [piece for piece in marked if piece.startswith("Page")] == [f"Page {page} of 6" for page in range(1, 7)]
    assert not any("stands" in piece or "Total" in piece for piece in marked)


def test_a_running_head_on_every_page_is_furniture() -> None:
    reading = pdf(paged([["The Society’s Annual Report", "", f"{'abcde'[page]} stands here."] for page in range(5)]))
    assert [reading.text[span.start : span.end] for span in reading.furniture] == ["The Society’s Annual Report"] * 5


def test_three_pages_are_too_few_for_furniture() -> None:
    assert pdf(paged([["The same words.", str(page)] for page in range(3)])).furniture == ()


@pytest.mark.parametrize(
    ("stated", "title"),
    [
        ("The History of Rail", "The History of Rail"),
        ("Rail", "Rail"),
        ("Microsoft Word - report.doc", None),
        ("untitled", None),
        ("report_v2.docx", None),
        ("", None),
    ],
)
def test_the_stated_title_is_taken_unless_a_program_made_it_up(stated: str, title: str | None) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.setTitle(stated)
        lines(canvas, ["Some words."])

    assert pdf(drawn(draw)).title == title


def test_without_one_the_largest_line_of_the_first_page_is_the_title() -> None:
    def draw(canvas: Canvas) -> None:
        lines(canvas, ["A History of Mountain Rail"], y=780, size=22)
        lines(canvas, set_in_lines(PROSE), y=720)

    assert pdf(drawn(draw)).title == "A History of Mountain Rail"


def test_what_was_typed_into_a_form_is_read() -> None:
    def draw(canvas: Canvas) -> None:
        lines(canvas, ["Application for a garden plot"])
        canvas.acroForm.textfield(name="Family name", value="Okonkwo", x=72, y=600, width=200, height=20)

    reading = pdf(drawn(draw))
    assert reading.text == "Application for a garden plot\n\nFamily name: Okonkwo"


def characters_under(content: bytes, page: int, start: int, end: int) -> str:
    """What pdfium itself finds in the boxes of the characters [start, end) of a page."""
    import pypdfium2

    document = pypdfium2.PdfDocument(content)
    found = module._page(module._open(content), page - 1)
    textpage = document[page - 1].get_textpage()
    return "".join(textpage.get_text_bounded(*box) for box in module._merged(found.boxes[start:end]))


def squeezed(text: str) -> str:
    return "".join(letter for letter in text if letter.isalnum())


def test_every_word_of_a_page_stands_in_the_boxes_of_its_characters() -> None:
    content = paged([["Another page."], set_in_lines(PROSE, 300)])
    reading = pdf(content)
    page = reading.text[reading.pages[1] :]
    at = 0
    for word in page.split():
        start = page.index(word, at)
        at = start + len(word)
        assert squeezed(characters_under(content, 2, start, at)) == squeezed(word)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_rendered_page_marks_the_very_words_also_when_it_is_turned(rotation: int) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.setPageRotation(rotation)
        lines(canvas, ["Nothing here.", "The quick fox.", "Nothing there."], x=200, y=500)

    content = drawn(draw)
    text = pdf(content).text
    start = text.index("quick")
    plain = Image.open(io.BytesIO(render(content, 1, 0, 0)))
    marked = Image.open(io.BytesIO(render(content, 1, start, start + 5)))
    assert (marked.width, marked.format) == (1_000, "PNG")
    difference = ImageChops.difference(plain, marked)
    left, top, right, bottom = difference.getbbox()
    scale = 1_000 / (A4[0] if marked.height > marked.width else A4[1])
    # Five letters of Helvetica 11 are 25.7 points wide.
    assert sorted((round((right - left) / scale), round((bottom - top) / scale)))[1] in range(24, 29)
    # Only blue goes, so the paper is yellow; and words stay legible: what was black is black.
    assert max(band.getextrema()[1] for band in difference.split()[:2]) < difference.getextrema()[2][1]
    inside = (left, top, right, bottom)
    assert plain.crop(inside).convert("L").getextrema()[0] == marked.crop(inside).convert("L").getextrema()[0] < 60
    assert squeezed(characters_under(content, 1, start, start + 5)) == "quick"


def test_a_page_that_is_not_there_is_not_drawn() -> None:
    with pytest.raises(UnreadableDocument, match="no page 2"):
        render(paged([["One."]]), 2, 0, 1)


def test_a_password_is_the_reason_and_an_empty_one_is_none() -> None:
    assert "password" in reason(paged([["Secret."]], encrypt=StandardEncryption("open", ownerPassword="own")))
    assert pdf(paged([["Not secret."]], encrypt=StandardEncryption("", ownerPassword="own"))).text == "Not secret."


@pytest.mark.parametrize("content", [b"%PDF-1.7\n", b"%PDF-1.4\n" + bytes(range(256)) * 20, b""])
def test_what_is_damaged_says_so(content: bytes) -> None:
    assert "damaged" in reason(content)


def test_a_truncated_file_is_read_or_refused() -> None:
    content = paged([set_in_lines(PROSE)] * 3)
    for cut in range(0, len(content), 97):
        with contextlib.suppress(UnreadableDocument):
            assert "Glacier" in pdf(content[:cut]).text


def many_pages(count: int) -> bytes:
    """A PDF of empty pages, written by hand."""
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count %d/Kids[%s]>>" % (count, b" ".join(b"%d 0 R" % (3 + page) for page in range(count))),
    ]
    objects += [b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>"] * count
    body, offsets = b"%PDF-1.4\n", []
    pieces = [body]
    length = len(body)
    for number, one in enumerate(objects, 1):
        offsets.append(length)
        pieces.append(b"%d 0 obj%s endobj\n" % (number, one))
        length += len(pieces[-1])
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    tail = b"xref\n0 %d\n0000000000 65535 f \n%strailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (
        len(objects) + 1,
        table,
        len(objects) + 1,
        length,
    )
    return b"".join([*pieces, tail])


def test_three_thousand_pages_are_refused_before_one_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a page was read")

    monkeypatch.setattr(module, "_page", never)
    started = time.process_time()
    assert reason(many_pages(3_000)) == f"it has 3,000 pages; at most {MAX_PAGES:,} are read, so split it"
    assert time.process_time() - started < 5


def scanned(text: str, pages: int = 1) -> bytes:
    """A PDF that holds pictures of text, as a scanner makes it."""
    image = Image.new("L", (1240, 1754), "white")
    font = ImageFont.load_default(size=36)
    for number, line in enumerate(textwrap.wrap(text, 55)):
        ImageDraw.Draw(image).text((100, 120 + number * 50), line, fill="black", font=font)
    buffer = io.BytesIO()
    image.save(buffer, "PDF", resolution=150, save_all=True, append_images=[image] * (pages - 1))
    return buffer.getvalue()


def test_blank_pages_hold_no_text_and_need_no_ocr() -> None:
    assert reason(many_pages(3)) == "it holds no text: its pages are blank"


def test_pictures_of_text_need_ocr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert reason(scanned(PROSE)) == NEEDS_OCR
    with pytest.raises(UnreadableDocument, match="it needs OCR"):
        picture(png())


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), "white").save(buffer, "PNG")
    return buffer.getvalue()


@OCR
def test_a_scan_is_read_with_ocr_in_whole_paragraphs() -> None:
    reading = pdf(scanned(PROSE, pages=2))
    assert len(reading.pages) == 2
    assert "reaches St. Moritz eight hours later. It crosses two hundred" in reading.text
    assert reading.text[reading.pages[1] :].startswith("The Glacier Express")


@OCR
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_a_picture_is_read_with_ocr(form: str) -> None:
    image = Image.new("RGB", (900, 200), "white")
    ImageDraw.Draw(image).text((40, 60), "Parking costs four euros", fill="black", font=ImageFont.load_default(size=48))
    buffer = io.BytesIO()
    image.save(buffer, form)
    assert read(buffer.getvalue(), f"sign.{form.lower()}", "root").text == "Parking costs four euros"


@OCR
def test_a_picture_without_text_says_so() -> None:
    with pytest.raises(UnreadableDocument, match="nor does OCR find any"):
        picture(png())


@OCR
def test_more_scanned_pages_than_there_is_time_for_are_refused_and_not_read_in_part() -> None:
    assert "OCR reads at most" in reason(scanned("Some words.", pages=13))


@OCR
def test_ocr_stops_when_its_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OCR_SECONDS", 0)
    monkeypatch.setattr("pytesseract.image_to_data", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("Tesseract process timeout")))
    assert "would take more than" in reason(scanned(PROSE))


def test_a_damaged_picture_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pytesseract")
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/tesseract")
    monkeypatch.setattr("pytesseract.get_languages", lambda *_: ["eng"])
    with pytest.raises(UnreadableDocument, match="damaged"):
        picture(png()[:60])


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (png(), "a.pdf", "a PNG picture"),
        (b"PK\x03\x04" + bytes(100), "a.txt", "a zip archive"),
        (b"<!DOCTYPE html><html><p>Hi</html>", "a.pdf", "a web page"),
        (b"\n<HTML><p>Hi</html>", "a.docx", "a web page"),
        (b"MZ\x90\x00" + bytes(100), "a.docx", "a program for Windows"),
        (b"\x7fELF" + bytes(100), "a.xlsx", "a program"),
        (b"just some words", "a.pdf", "no .pdf file"),
        (b"a,b\n1,2\n", "a.xls", "no .xls file"),
        (b"%PDF-1.4 ...", "a.md", "a PDF"),
        (b"{\\rtf1 words}", "a.txt", "an RTF document"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "a.html", "a JPEG picture"),
        (b"\x1f\x8b\x08\x00" + bytes(50), "a.csv", "a packed archive"),
        (b"SQLite format 3\x00" + bytes(50), "a.json", "a database"),
    ],
)
def test_bytes_of_another_kind_than_the_name_says_are_refused_with_their_kind(content: bytes, name: str, said: str) -> None:
    with pytest.raises(UnreadableDocument, match=f"^it is {said}.*, whatever its name says$"):
        read(content, name, "root")


def test_text_that_begins_almost_like_another_kind_is_text() -> None:
    for words in (
        "MZ is short for Mark Zbikowski.",
        "ID3 tags hold titles.",
        "PK stands for primary key.",
        "GIF89a is a format.",
        "A file begins with %PDF-1.4 then.",
    ):
        assert read(words.encode(), "a.txt", "root").text == words


def test_sample_files_lose_no_word(sample_pdfs: list[Path]) -> None:
    """Every letter that pdfium reads on a page is in the page's text, but for the hyphens at line ends."""
    import pypdfium2

    for path in sample_pdfs:
        content = path.read_bytes()
        document = pypdfium2.PdfDocument(content)
        for number in range(min(len(document), 5)):
            shown = module._page(module._open(content), number).text
            raw = document[number].get_textpage().get_text_range()
            letters = [letter for letter in raw if letter.isalnum()]
            assert [letter for letter in shown if letter.isalnum()][: len(letters)] == letters, path.name


@pytest.fixture
def sample_pdfs() -> list[Path]:
    folder = BENCH / "files" / "pypdf_samples"
    if not folder.is_dir():
        pytest.skip("no sample files: set CITEWELL_BENCH to the folder of public sets")
    return [path for path in sorted(folder.rglob("*.pdf")) if "password" not in path.name and "unreadable" not in path.name]
