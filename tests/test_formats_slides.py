"""Tests of index.formats.slides: every slide under its title, in reading order, with its tables, charts and notes."""

from __future__ import annotations

import io
import zipfile

import pytest
from PIL import Image
from pptx import Presentation
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from index.errors import UnreadableDocument
from index.formats.archive import OLE
from index.formats.slides import pptx
from index.read import read
from index.split import split


def saved(presentation: Presentation) -> bytes:
    buffer = io.BytesIO()
    presentation.save(buffer)
    return buffer.getvalue()


def deck() -> bytes:
    presentation = Presentation()
    first = presentation.slides.add_slide(presentation.slide_layouts[1])
    first.shapes.title.text = "Harvest\vof 2024"
    first.placeholders[1].text = "Apples did well\nPears did not"
    first.placeholders[1].text_frame.paragraphs[1].level = 1
    first.notes_slide.notes_text_frame.text = "Thank the pickers."
    second = presentation.slides.add_slide(presentation.slide_layouts[6])
    for text, left, top in (("right", 5, 1), ("below", 1, 5), ("left", 1, 1.05)):
        second.shapes.add_textbox(Inches(left), Inches(top), Inches(2), Inches(1)).text_frame.text = text
    group = second.shapes.add_group_shape()
    group.shapes.add_textbox(Inches(1), Inches(6), Inches(2), Inches(1)).text_frame.text = "within a group"
    third = presentation.slides.add_slide(presentation.slide_layouts[5])
    third.shapes.title.text = "Figures"
    table = third.shapes.add_table(3, 2, Inches(1), Inches(2), Inches(4), Inches(1)).table
    for row, cells in enumerate((("Fruit", "Tons"), ("Apples", "12"), ("Pears", "7"))):
        for column, cell in enumerate(cells):
            table.cell(row, column).text = cell
    data = CategoryChartData()
    data.categories = ["2023", "2024"]
    data.add_series("Apples", (10.5, 12))
    data.add_series("Pears", (None, 7))
    third.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, Inches(1), Inches(4), Inches(4), Inches(2), data)
    return saved(presentation)


TEXT = """# Harvest of 2024

- Apples did well
  - Pears did not

Notes: Thank the pickers.

# Slide 2

left

right

below

within a group

# Figures

Fruit: Apples; Tons: 12
Fruit: Pears; Tons: 7

2023; Apples: 10.5
2024; Apples: 12; Pears: 7"""


def test_a_deck_is_read_slide_by_slide() -> None:
    reading = pptx(deck())
    assert reading.text == TEXT
    assert reading.title == "Harvest of 2024"
    assert [reading.text[start:].splitlines()[0] for start in reading.pages] == ["# Harvest of 2024", "# Slide 2", "# Figures"]


def test_passages_are_exact_and_stand_under_their_slide() -> None:
    document = read(deck(), "deck.pptx", "root")
    passages = split(document)
    assert all(document.text[passage.span.start : passage.span.end] == passage.text for passage in passages)
    assert next(passage for passage in passages if "Tons: 12" in passage.text).heading.startswith("Figures")


def test_the_stated_title_comes_first_unless_the_program_made_it_up() -> None:
    presentation = Presentation(io.BytesIO(deck()))
    presentation.core_properties.title = "Annual review"
    assert pptx(saved(presentation)).title == "Annual review"
    presentation.core_properties.title = "PowerPoint Presentation"
    assert pptx(saved(presentation)).title == "Harvest of 2024"


def test_footers_are_furniture() -> None:
    presentation = Presentation()
    layout = presentation.slide_layouts[1]
    slide = presentation.slides.add_slide(layout)
    slide.shapes.title.text = "One"
    for placeholder in layout.placeholders:
        if placeholder.placeholder_format.type is not None and "FOOTER" in str(placeholder.placeholder_format.type):
            slide.shapes.clone_placeholder(placeholder)
            slide.shapes[-1].text_frame.text = "Confidential"
    reading = pptx(saved(presentation))
    assert [reading.text[span.start : span.end] for span in reading.furniture] == ["Confidential"]


def test_a_picture_is_told_by_its_description() -> None:
    image = io.BytesIO()
    Image.new("RGB", (9, 9)).save(image, "PNG")
    presentation = Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[6])
    picture = slide.shapes.add_picture(image, Inches(1), Inches(1))
    with pytest.raises(UnreadableDocument, match="pictures and no text"):
        pptx(saved(presentation))
    picture._element.nvPicPr.cNvPr.set("descr", "A bridge over the Rhine")
    assert pptx(saved(presentation)).text == "# Slide 1\n\nPicture: A bridge over the Rhine"


def test_what_is_damaged_protected_or_something_else_says_so() -> None:
    whole = deck()
    for cut in (len(whole) // 3, len(whole) - 50):
        with pytest.raises(UnreadableDocument, match="damaged"):
            pptx(whole[:cut])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("word/document.xml", "<w/>")
    with pytest.raises(UnreadableDocument, match="damaged"):
        pptx(buffer.getvalue())
    with pytest.raises(UnreadableDocument, match="password"):
        read(OLE + bytes(600) + "EncryptedPackage".encode("utf-16-le"), "secret.pptx", "root")


def test_entities_do_not_unfold() -> None:
    laughs = '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha">' + "".join(
        f'<!ENTITY {chr(98 + level)} "{f"&{chr(97 + level)};" * 10}">' for level in range(9)
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(deck())) as source, zipfile.ZipFile(buffer, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "ppt/slides/slide1.xml":
                content = (laughs + "]>").encode() + content.split(b"?>", 1)[1].replace(b"Apples did well", b"&j;")
            target.writestr(name, content)
    try:
        assert len(pptx(buffer.getvalue()).text) < 2_000
    except UnreadableDocument as refused:
        assert "damaged" in str(refused)  # noqa: PT017
