"""Slides: .pptx. Each slide begins with its title as a heading; texts, tables, charts and notes follow in reading order."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

from index.errors import UnreadableDocument
from index.formats.archive import DAMAGED, entries
from index.formats.tables import table_lines
from index.types import Reading, Span

_ROWS = 12
"""Shapes whose tops fall into the same twelfth of a slide's height stand beside each other and are read from left to right."""
_NO_TITLE = frozenset(("powerpoint presentation", "powerpoint-präsentation", "présentation powerpoint", "presentation", "untitled"))
_DIAGRAM = "http://schemas.openxmlformats.org/drawingml/2006/diagram"
_TEXT = "{http://schemas.openxmlformats.org/drawingml/2006/main}t"
_PARAGRAPH = "{http://schemas.openxmlformats.org/drawingml/2006/main}p"
_DATA = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}dm"


def pptx(content: bytes) -> Reading:
    """A presentation's slides and the offset at which each begins; footers, dates and slide numbers are furniture. Raises UnreadableDocument."""
    entries(content)
    from pptx import Presentation

    try:
        presentation = Presentation(io.BytesIO(content))
        height = presentation.slide_height or 1
        slides = [(_title(slide), list(_body(slide, height)), list(_footers(slide))) for slide in presentation.slides]
        stated = " ".join((presentation.core_properties.title or "").split())
    # Whatever is missing or wrong inside surfaces as KeyError, XMLSyntaxError, AttributeError, ValueError and more.
    except Exception:
        raise UnreadableDocument(DAMAGED) from None
    if not any(title or body for title, body, _ in slides):
        raise UnreadableDocument("its slides hold pictures and no text")
    pieces: list[str] = []
    starts: list[int] = []
    furniture: list[Span] = []
    length = 0
    for number, (title, body, footers) in enumerate(slides, 1):
        starts.append(length)
        shown = "\n\n".join((f"# {title or f'Slide {number}'}", *body)) + "\n\n"
        foot = "\n".join(footers)
        if foot:
            furniture.append(Span(length + len(shown), length + len(shown) + len(foot)))
            foot += "\n\n"
        pieces += [shown, foot]
        length += len(shown) + len(foot)
    named = stated if stated.lower() not in _NO_TITLE else ""
    return Reading("".join(pieces).rstrip("\n"), named or slides[0][0] or None, tuple(starts), tuple(furniture))


def _title(slide: Any) -> str:
    return " ".join(slide.shapes.title.text_frame.text.split()) if slide.shapes.title is not None else ""


def _body(slide: Any, height: int) -> Iterator[str]:
    """What stands on a slide below its title, one text for each shape, and the speaker's notes."""
    title = slide.shapes.title
    for shape in _ordered(slide.shapes, height):
        if (title is not None and shape.shape_id == title.shape_id) or _is_footer(shape):
            continue
        yield from _texts(shape, height)
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        notes = slide.notes_slide.notes_text_frame.text.replace("\v", "\n").strip()
        if notes:
            yield f"Notes: {notes}"


def _footers(slide: Any) -> Iterator[str]:
    for shape in slide.shapes:
        if _is_footer(shape) and shape.has_text_frame and shape.text_frame.text.strip():
            yield " ".join(shape.text_frame.text.split())


def _is_footer(shape: Any) -> bool:
    from pptx.enum.shapes import PP_PLACEHOLDER

    return shape.is_placeholder and shape.placeholder_format.type in (PP_PLACEHOLDER.FOOTER, PP_PLACEHOLDER.DATE, PP_PLACEHOLDER.SLIDE_NUMBER)


def _ordered(shapes: Iterable[Any], height: int) -> list[Any]:
    """The shapes from top to bottom and from left to right."""
    return sorted(shapes, key=lambda shape: ((shape.top or 0) * _ROWS // height, shape.left or 0))


def _texts(shape: Any, height: int) -> Iterator[str]:
    from pptx.enum.shapes import MSO_SHAPE_TYPE

    if shape.shape_type == MSO_SHAPE_TYPE.GROUP:
        for member in _ordered(shape.shapes, height):
            yield from _texts(member, height)
        return
    lines: list[str] = []
    if shape.has_text_frame:
        lines = _paragraphs(shape)
    elif shape.has_table:
        rows = [["" if cell.is_spanned else cell.text for cell in row.cells] for row in shape.table.rows]
        lines = table_lines(rows, header=shape.table.first_row)
    elif shape.has_chart:
        lines = list(_chart(shape.chart))
    elif shape.shape_type == MSO_SHAPE_TYPE.PICTURE:
        described = " ".join(shape._element.nvPicPr.cNvPr.get("descr", "").split())
        # A single word is a file's name as a rule.
        lines = [f"Picture: {described}"] if " " in described else []
    else:
        lines = list(_diagram(shape))
    text = "\n".join(lines)
    if text.strip():
        yield text


def _paragraphs(shape: Any) -> list[str]:
    """A line for each paragraph; what stands in a slide's list is marked as an item of one."""
    from pptx.enum.shapes import PP_PLACEHOLDER

    paragraphs = [(paragraph.level, paragraph.text.strip()) for paragraph in shape.text_frame.paragraphs]
    paragraphs = [(level, text) for level, text in paragraphs if text]
    listed = len(paragraphs) > 1 and shape.is_placeholder and shape.placeholder_format.type in (PP_PLACEHOLDER.BODY, PP_PLACEHOLDER.OBJECT)
    return [f"{'  ' * level}- {' '.join(text.split())}" if listed or level else text.replace("\v", "\n") for level, text in paragraphs]


def _chart(chart: Any) -> Iterator[str]:
    """A chart as the table that it draws."""
    if chart.has_title and chart.chart_title.has_text_frame and chart.chart_title.text_frame.text.strip():
        yield " ".join(chart.chart_title.text_frame.text.split())
    for plot in chart.plots:
        series = [(one.name, list(one.values)) for one in plot.series]
        categories = [str(category) for category in plot.categories]
        length = max((len(values) for _, values in series), default=0)
        rows = [
            [categories[index] if index < len(categories) else str(index + 1), *(_number(values, index) for _, values in series)]
            for index in range(length)
        ]
        yield from table_lines([["", *(name for name, _ in series)], *rows], header=True)


def _number(values: list[Any], index: int) -> str:
    value = values[index] if index < len(values) else None
    return "" if value is None else f"{value:.10g}" if isinstance(value, float) else str(value)


def _diagram(shape: Any) -> Iterator[str]:
    """The texts of a SmartArt diagram, which stand in a part of their own."""
    from pptx.oxml import parse_xml

    for graphic in shape._element.iter(f"{{{_DIAGRAM}}}relIds"):
        for paragraph in parse_xml(shape.part.related_part(graphic.get(_DATA)).blob).iter(_PARAGRAPH):
            text = "".join(piece.text or "" for piece in paragraph.iter(_TEXT)).strip()
            if text:
                yield f"- {text}"
