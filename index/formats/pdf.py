"""PDF files and pictures of pages: their text page by page, and a page drawn with a quote marked on it.

Every stored character of a page keeps the place where it is drawn, so a quote is found on the page by its offsets and never by searching for its
words. What a page's text leaves out or adds to what pdfium reads: line ends within a paragraph become spaces and hyphens there go, wide gaps become
` | ` as in other tables, and what was typed into a form or noted on a page follows its text. It knows nothing of columns, which are read in the order in
which the file draws them.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from index.errors import UnreadableDocument
from index.formats.archive import PASSWORD
from index.types import Reading, Span

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PAGES = 2_000
RENDERED_WIDTH = 1_000
"""Pixels across a drawn page."""
MAX_RENDERED_HEIGHT = 4_000
FURNITURE_PAGES = 4
"""What repeats on fewer pages is not called a header or a footer."""
SHORT_LINE = 20
"""Lines of fewer characters are cells, labels or verses, and go on only in a word that begins small."""
LONG_LINE = 50
"""A full line of more characters that ends no sentence goes on, be it in a name or a number."""
NEEDS_OCR = "it holds pictures and no text, so it needs OCR: install the program tesseract and `pip install citewell[ocr]`"
MAX_OCR_PAGES = 12
OCR_SECONDS = 45
"""Reading is stopped short of the minute that a file is given. A page took one to five seconds on one core of a busy machine."""
CONFIDENCE = 50
"""Lines of which tesseract is less sure than this, of 100, are made up from specks and pictures."""
ILLEGIBLE = "[illegible]"
OCR_LANGUAGES = 4
"""With more of tesseract's languages installed than this, which would take minutes a page, English alone is read."""

_PDFIUM = threading.Lock()
"""pdfium is one for the whole process and not made for threads."""
_HYPHENS = "\x02\ufffe\xad"
"""What pdfium puts for a hyphen that divides a word at a line's end."""
_ITEM = re.compile(r"[•●▪■◦‣·*–—-]\s|\(?(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,5})[.)]\s|\[\d+\]\s")
_MARK = re.compile(r"[•●▪■◦‣·*–—-]|\(?[\d.]*[.)]\d*|\(?[a-zA-Z][.)]")
"""What stands before an item of a list, and is no cell of a table."""
_RULED = re.compile(r"(\S)(?: ?\1){4}")
"""Dots that lead to a page number, and lines made of dashes."""
_DASH = re.compile(r"(?:\w[-–—/]|://)$")
"""A line's end at which no space was: `2019–` and below it `24`."""
_RIGHT_TO_LEFT = re.compile(r"[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
_IDEOGRAPH = re.compile(r"[\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff00-\uffef]")
_NO_TITLE = re.compile(
    r"microsoft (word|powerpoint|excel)\b|(untitled|unnamed|\(?anonymous\)?|title|document|presentation|book|slide|powerpoint presentation)[\s_-]*\d*$",
    re.IGNORECASE,
)

Box = tuple[float, float, float, float]
"""Left, bottom, right, top on a page, in points."""


@dataclass(slots=True)
class _Line:
    """One line as it is drawn: its characters with their boxes until it is laid out, and its measures in the direction in which the page is read."""

    letters: list[tuple[str, Box | None]] = field(default_factory=list)
    hyphen: Box | None = None
    left: float = 0.0
    right: float = 0.0
    middle: float = 0.0
    height: float = 0.0
    tabular: bool = False
    start: int = 0
    end: int = 0

    @property
    def text(self) -> str:
        return "".join(letter for letter, _ in self.letters)


@dataclass(frozen=True, slots=True)
class _Page:
    """A page's text, a box or None for each of its characters, and its lines with their spans in that text."""

    text: str
    boxes: list[Box | None]
    lines: list[_Line]


def pdf(content: bytes) -> Reading:
    """A PDF's text with the offsets of its pages; headers and footers that repeat are furniture. Without text it is read by OCR where that is installed."""
    with _PDFIUM:
        document = _open(content)
        try:
            # Boxes are a few hundred bytes a character, and only a drawn page needs them.
            pages = [replace(_page(document, number), boxes=[]) for number in range(len(document))]
            title = _metadata_title(document)
            legible = _legible("".join(page.text for page in pages))
            if not legible and _blank(document):
                raise UnreadableDocument("it holds no text: its pages are blank")
        finally:
            document.close()
    if not legible:
        return _recognised(content, title)
    return _joined(pages, title or _largest(pages[0]))


def picture(content: bytes) -> Reading:
    """The text in a picture of a page or in the pages of a TIFF, by OCR."""
    return _recognised(content, None)


def render(content: bytes, page: int, start: int, end: int) -> bytes:
    """Page `page` (from 1) of a PDF as a PNG 1,000 pixels wide, with the characters [start, end) of that page's text marked in yellow.

    The offsets count from where the page begins in the stored text. A page read by OCR has no boxes and is drawn without a mark.
    """
    from PIL import Image, ImageChops, ImageDraw

    with _PDFIUM:
        document = _open(content)
        try:
            if not 1 <= page <= len(document):
                raise UnreadableDocument(f"it has {len(document)} pages and no page {page}")
            boxes = _page(document, page - 1).boxes[start:end]
            shown = _load(document, page - 1)
            width, height = shown.get_size()
            bitmap = shown.render(scale=min(RENDERED_WIDTH / max(width, 1.0), MAX_RENDERED_HEIGHT / max(height, 1.0)), rev_byteorder=True)
            position = bitmap.get_posconv(shown)
            # The memory behind the bitmap goes with it.
            image = bitmap.to_pil().convert("RGB").copy()
            marked = [(position.to_bitmap(box[0], box[1]), position.to_bitmap(box[2], box[3])) for box in _merged(boxes)]
        finally:
            document.close()
    marks = Image.new("RGB", image.size, "white")
    draw = ImageDraw.Draw(marks)
    for (left, bottom), (right, top) in marked:
        draw.rectangle((min(left, right), min(bottom, top), max(left, right), max(bottom, top)), fill=(255, 235, 80))
    packed = io.BytesIO()
    ImageChops.multiply(image, marks).save(packed, "PNG")
    return packed.getvalue()


def _open(content: bytes) -> Any:
    import pypdfium2
    from pypdfium2 import raw

    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        if error.err_code == raw.FPDF_ERR_PASSWORD:
            raise UnreadableDocument(PASSWORD) from None
        if error.err_code == raw.FPDF_ERR_SECURITY:
            raise UnreadableDocument("it is protected in a way that cannot be read; save it without protection") from None
        raise UnreadableDocument("it is damaged: it cannot be opened as a PDF") from None
    count = len(document)
    if count > MAX_PAGES:
        document.close()
        raise UnreadableDocument(f"it has {count:,} pages; at most {MAX_PAGES:,} are read, so split it")
    if not count:
        document.close()
        raise UnreadableDocument("it is damaged: it has no pages")
    document.init_forms()
    return document


def _load(document: Any, number: int) -> Any:
    import pypdfium2

    try:
        return document[number]
    except pypdfium2.PdfiumError:
        raise UnreadableDocument(f"it is damaged: page {number + 1} cannot be read") from None


def _page(document: Any, number: int) -> _Page:
    page = _load(document, number)
    try:
        lines = _rows([_measured(line, page.get_rotation()) for line in _lines(page)])
        notes = _notes(document, page)
    finally:
        page.close()
    return _laid_out(lines, notes)


def _lines(page: Any) -> list[_Line]:
    """The page's characters, as pdfium tells its lines apart. A hyphen that divides a word ends a line."""
    import ctypes

    from pypdfium2 import raw

    textpage = page.get_textpage()
    lines = [_Line()]
    rectangle = raw.FS_RECTF()
    place = ctypes.byref(rectangle)
    high = 0
    count = raw.FPDFText_CountChars(textpage)
    whole = textpage.get_text_range()
    # The text as a whole comes faster, and leaves out characters that cannot be shown: only where it does not are its indices those of the boxes.
    codes = map(ord, whole) if len(whole) == count else (raw.FPDFText_GetUnicode(textpage, index) for index in range(count))
    for index, code in enumerate(codes):
        if code == 0x0A or code == 0x0D:
            if lines[-1].letters:
                lines.append(_Line())
            continue
        # Where letters are 16 bits wide, what lies beyond them comes in two halves.
        if 0xD800 <= code < 0xDC00:
            high = code
            continue
        if 0xDC00 <= code < 0xE000:
            code, high = (0x10000 + ((high - 0xD800) << 10) + (code - 0xDC00) if high else 0xFFFD), 0
        letter = chr(code)
        letters = lines[-1].letters
        if letter.isspace():
            if letters and letters[-1][0] != " ":
                letters.append((" ", None))
            continue
        known = raw.FPDFText_GetLooseCharBox(textpage, index, place)
        box = (rectangle.left, rectangle.bottom, rectangle.right, rectangle.top) if known else None
        if letter in _HYPHENS and raw.FPDFText_IsHyphen(textpage, index) == 1:
            lines[-1].hyphen = box or (0.0, 0.0, 0.0, 0.0)
            lines.append(_Line())
        elif letter.isprintable() or 0xE000 <= code < 0xF900 or letter in "\u200c\u200d":
            letters.append((letter, box))
    textpage.close()
    for line in lines:
        if line.letters and line.letters[-1][0] == " ":
            line.letters.pop()
    return [line for line in lines if line.letters]


def _measured(line: _Line, rotation: int) -> _Line:
    """The line with its measures, its wide gaps made ` | `."""
    drawn = [_turned(box, rotation) for _, box in line.letters if box] if rotation else [box for _, box in line.letters if box]
    if not drawn:
        return line
    half = len(drawn) // 2
    line.height = sorted([top - bottom for _, bottom, _, top in drawn])[half]
    line.middle = sorted([top + bottom for _, bottom, _, top in drawn])[half] / 2
    line.left, line.right = min([box[0] for box in drawn]), max([box[2] for box in drawn])
    wide = [max(after[0] - before[2], before[0] - after[2]) > 2 * line.height > 0 for before, after in pairwise(drawn)]
    line.tabular = bool(_RULED.search(line.text))
    if True in wide:
        letters: list[tuple[str, Box | None]] = []
        seen = -1
        for letter, box in line.letters:
            seen += box is not None
            if letter == " " and 0 <= seen < len(wide) and wide[seen] and not _MARK.fullmatch("".join(letter for letter, _ in letters)):
                line.tabular = True
                letters += [(" ", None), ("|", None)]
            letters.append((letter, box))
        line.letters = letters
    return line


def _rows(lines: Sequence[_Line]) -> list[_Line]:
    """The lines, with the ones that stand right beside the one before, as a raised figure and what follows it do, made part of it."""
    found: list[_Line] = []
    for line in lines:
        last = found[-1] if found else line
        height = max(last.height, line.height)
        if last is line or last.hyphen or abs(last.middle - line.middle) > height * 0.6 or not -0.3 * height < line.left - last.right < height:
            found.append(line)
            continue
        last.letters += [*([(" ", None)] if line.left - last.right > height * 0.2 else []), *line.letters]
        last.hyphen, last.tabular = line.hyphen, last.tabular or line.tabular
        last.left, last.right = min(last.left, line.left), max(last.right, line.right)
        if line.height > last.height or line.right - line.left > last.right - last.left:
            last.height, last.middle = line.height, line.middle
    return found


def _turned(box: Box, rotation: int) -> Box:
    """The box as it stands on a page that is shown turned clockwise."""
    left, bottom, right, top = box
    return {90: (bottom, -right, top, -left), 180: (-right, -top, -left, -bottom), 270: (-top, left, -bottom, right)}.get(rotation, box)


def _notes(document: Any, page: Any) -> list[tuple[str, Box]]:
    """What was typed into the fields of a form, with the fields' names, and the comments on a page."""
    from pypdfium2 import raw

    found = []
    for index in range(raw.FPDFPage_GetAnnotCount(page)):
        annotation = raw.FPDFPage_GetAnnot(page, index)
        if not annotation:
            continue
        kind = raw.FPDFAnnot_GetSubtype(annotation)
        note = ""
        if kind == raw.FPDF_ANNOT_WIDGET and document.formenv:
            value = _string(raw.FPDFAnnot_GetFormFieldValue, document.formenv, annotation)
            if value and value != "Off":
                note = f"{_string(raw.FPDFAnnot_GetFormFieldName, document.formenv, annotation) or 'Field'}: {value}"
        elif kind not in (raw.FPDF_ANNOT_WIDGET, raw.FPDF_ANNOT_LINK, raw.FPDF_ANNOT_POPUP):
            contents = _string(raw.FPDFAnnot_GetStringValue, annotation, b"Contents")
            note = f"Comment: {contents}" if contents else ""
        rectangle = raw.FS_RECTF()
        raw.FPDFAnnot_GetRect(annotation, rectangle)
        raw.FPDFPage_CloseAnnot(annotation)
        if note:
            found.append((note, (rectangle.left, rectangle.bottom, rectangle.right, rectangle.top)))
    return found


def _string(function: Any, *arguments: Any) -> str:
    """What a pdfium function writes into a buffer of its own size, on one line."""
    import ctypes

    from pypdfium2 import raw

    size = function(*arguments, None, 0)
    if size <= 2:
        return ""
    buffer = ctypes.create_string_buffer(size)
    function(*arguments, ctypes.cast(buffer, ctypes.POINTER(raw.FPDF_WCHAR)), size)
    return " ".join("".join(filter(_storable, buffer.raw.decode("utf-16-le", "replace"))).split())


def _storable(letter: str) -> bool:
    return letter.isprintable() or letter.isspace()


def _laid_out(lines: list[_Line], notes: Sequence[tuple[str, Box]]) -> _Page:
    """The lines put together into paragraphs, each on one line of text."""
    text: list[str] = []
    boxes: list[Box | None] = []
    words = Counter(word.lower() for line in lines for word in re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)*", line.text))
    breaks = _breaks(lines)
    for index, line in enumerate(lines):
        line.start = len(text)
        for letter, box in line.letters:
            text.append(letter)
            boxes.append(box)
        separator = breaks[index]
        if line.hyphen:
            if index + 1 == len(lines) or _keeps_hyphen(line.text, lines[index + 1].text, words):
                text.append("-")
                boxes.append(line.hyphen)
            separator = "" if index + 1 < len(lines) else separator
        line.end = len(text)
        if index + 1 < len(lines):
            text += separator
            boxes += [None] * len(separator)
    for note, box in notes:
        separator = "\n\n" if text else ""
        text += separator + note
        boxes += [None] * len(separator) + [box] * len(note)
    for line in lines:
        line.letters = []
    return _Page("".join(text), boxes, lines)


def _keeps_hyphen(before: str, after: str, words: Counter[str]) -> bool:
    """Whether the hyphen at a line's end is the word's own, as in `well-known`; the words of the page are the evidence."""
    first = re.search(r"[\w-]*$", before)
    second = re.match(r"[\w-]*", after)
    first_part, second_part = first.group().lower() if first else "", second.group().lower() if second else ""
    if not second_part or not after[0].islower() or "-" in first_part or "-" in second_part:
        return True
    if words[first_part + second_part]:
        return False
    return bool(words[f"{first_part}-{second_part}"]) or (len(first_part) > 2 and words[first_part] > 1 and words[second_part] > 1)


def _breaks(lines: Sequence[_Line]) -> list[str]:
    """What stands between each line and the next: a space within a paragraph, a newline, or an empty line."""
    steps = [_step(line, following) for line, following in pairwise(lines)]
    stacks = [0]
    for step in steps:
        stacks.append(stacks[-1] + (step is None))
    edges = Counter(map(_edge, lines))
    found = []
    for index, step in enumerate(steps):
        line, following = lines[index], lines[index + 1]
        near = [other for other in range(max(0, index - 4), min(len(lines), index + 6)) if stacks[other] == stacks[index]]
        tight = min((inner for inner in (steps[other] for other in near[:-1]) if inner is not None), default=0.0)
        if step is not None and step <= tight * 1.3:
            edge = _edge(line)
            ragged = min(4 * line.height, 0.12 * (line.right - line.left))
            full = sum(lines[other].right > line.right - ragged for other in near)
            settled = (full > 2 and full * 5 >= len(near) * 3) or edges[edge - 1] + edges[edge] + edges[edge + 1] > 3
            found.append(_joint(line, following, [lines[other] for other in near], settled))
        elif step is None and abs(line.middle - following.middle) < line.height * 0.6:
            found.append("\n")
        else:
            found.append(" " if _runs_on(line, following, [lines[other] for other in near]) else "\n\n")
    return [*found, ""]


def _edge(line: _Line) -> int:
    """Where a line ends, in half heights: lines of justified text end alike."""
    return round(2 * line.right / max(line.height, 1.0))


def _runs_on(line: _Line, following: _Line, near: Sequence[_Line]) -> bool:
    """Whether a sentence goes on in the next column or below a figure: the last line was full, and the next begins small."""
    return (
        following.text[0].islower()
        and line.text[-1] not in ".!?:;"
        and not (line.tabular or following.tabular)
        and abs(line.height - following.height) < line.height * 0.1
        and len(near) > 3
        and max(other.right for other in near) - line.right < _first_word(following) + line.height
    )


def _step(line: _Line, following: _Line) -> float | None:
    """How far a line of the same size stands right below another; None where it does not."""
    height = max(line.height, following.height)
    step = line.middle - following.middle
    if height <= 0 or min(line.height, following.height) < height / 1.25 or not 0.5 * height < step < 2.2 * height:
        return None
    return step if line.left < following.right and following.left < line.right else None


def _first_word(line: _Line) -> float:
    """How much room the first word of a line and the space before it would take."""
    letters = len(line.text.split(" ")[0])
    return (line.right - line.left) * letters / max(len(line.text), 1) + line.height * 0.3


def _joint(line: _Line, following: _Line, near: Sequence[_Line], settled: bool) -> str:
    """A space where a paragraph goes on in the next line. It does when the line was full: the next word would not have fitted."""
    begins = following.text
    if line.tabular or following.tabular or _ITEM.match(begins):
        return "\n"
    length = _first_word(following)
    if len(_RIGHT_TO_LEFT.findall(line.text)) * 2 > len(line.text):
        room = line.left - min(other.left for other in near)
        indented = False
    else:
        room = max(other.right for other in near) - line.right
        indented = following.left > line.left + line.height and not _ITEM.match(line.text)
    if _IDEOGRAPH.match(begins):
        return "" if room < line.height * 1.5 and not indented else "\n"
    goes_on = begins[0].islower()
    if room >= length + (line.height if goes_on else 0):
        return "\n"
    settled = settled or (len(line.text) > LONG_LINE and line.text[-1] not in ".!?:;")
    if not goes_on and (indented or not settled or len(line.text) < SHORT_LINE):
        return "\n"
    return "" if _DASH.search(line.text) and begins[0].isalnum() else " "


def _joined(pages: Sequence[_Page], title: str | None) -> Reading:
    """The pages one after the other; a sentence may run on over a page's end."""
    marked = _furniture(pages)
    pieces: list[str] = []
    starts: list[int] = []
    furniture: list[Span] = []
    length = 0
    for number, page in enumerate(pages):
        if pieces and page.text:
            before = pages[number - 1].text
            ends_in_furniture = any(span.end == len(before) for span in marked[number - 1])
            begins_with_furniture = any(span.start == 0 for span in marked[number])
            open_ended = before and before[-1] not in ".!?:;|" and page.text[0].islower()
            runs_on = open_ended and not ends_in_furniture and not begins_with_furniture
            pieces.append(" " if runs_on else "\n\n")
            length += len(pieces[-1])
        starts.append(length)
        furniture += [Span(length + span.start, length + span.end) for span in marked[number]]
        pieces.append(page.text)
        length += len(page.text)
    return Reading("".join(pieces), title, tuple(starts), tuple(furniture))


def _furniture(pages: Sequence[_Page]) -> list[list[Span]]:
    """The headers, footers and page numbers of each page: the same words at the same height on most pages, or on most left or right ones."""
    seen: Counter[tuple[int, str, int]] = Counter()
    keys: list[list[tuple[_Line, set[tuple[str, int]]]]] = []
    for number, page in enumerate(pages):
        ordered = sorted(page.lines, key=lambda line: line.middle)
        outer = {id(line): line for line in (*ordered[:3], *ordered[-3:])}.values()
        keys.append([(line, _keys(page.text[line.start : line.end], line.middle, number)) for line in outer])
        seen.update((number % 2, *key) for key in {key for _, found in keys[-1] for key in found})
    found: list[list[Span]] = []
    for number, outer_keys in enumerate(keys):
        spans = []
        for line, own in outer_keys:
            for text, height in own:
                # Half a line up or down is the same place still.
                # What counts the pages is a running head, even one that changes from chapter to chapter.
                needed = 0 if "\0" in text else 1
                same = [sum(seen[side, text, height + shift] for shift in (-1, 0, 1)) for side in (0, 1)]
                side = number % 2
                of_side = (len(pages) + 1 - side) // 2
                if (sum(same) >= FURNITURE_PAGES and sum(same) * 2 > len(pages) * needed) or (
                    same[side] >= FURNITURE_PAGES and same[side] * 2 > of_side * needed
                ):
                    spans.append(Span(line.start, line.end))
                    break
        found.append(sorted(spans, key=lambda span: span.start))
    return found


def _keys(text: str, middle: float, number: int) -> set[tuple[str, int]]:
    """What a line says and how high it stands, once as it is and once for each number in it that may count the pages."""
    height = round(middle / 4)
    keys = {(text, height)}
    for match in re.finditer(r"\d{1,4}", text):
        keys.add((f"{text[: match.start()]}\0{int(match.group()) - number}{text[match.end() :]}", height))
    return keys


def _metadata_title(document: Any) -> str | None:
    """The title that the file states, unless a program made it up or it is a file's name."""
    title = " ".join("".join(filter(_storable, document.get_metadata_value("Title"))).split())
    if not 3 <= len(title) <= 200 or _NO_TITLE.match(title) or re.search(r"\.\w{2,5}$|[/\\]", title) or "\ufffd" in title:
        return None
    return title if " " in title or re.fullmatch(r"[^\W\d_]+", title) else None


def _largest(page: _Page) -> str | None:
    """The title as the first page shows it: the one run of words in its upper half that is set clearly larger than the rest."""
    lines = [line for line in page.lines if line.height]
    if len(lines) < 4:
        return None
    size = max(line.height for line in lines)
    largest = [index for index, line in enumerate(lines) if line.height > size * 0.95]
    usual = sorted(line.height for line in lines)[len(lines) // 2]
    middle = (max(line.middle for line in lines) + min(line.middle for line in lines)) / 2
    if size < usual * 1.3 or largest[-1] - largest[0] >= len(largest) or len(largest) > 3 or lines[largest[0]].middle < middle:
        return None
    title = " ".join(page.text[lines[index].start : lines[index].end] for index in largest)
    return title if 8 <= len(title) <= 150 and " " in title and not lines[largest[0]].tabular else None


def _blank(document: Any) -> bool:
    from pypdfium2 import raw

    return not any(raw.FPDFPage_CountObjects(_load(document, number)) for number in range(len(document)))


def _legible(text: str) -> bool:
    """Whether there is text at all, and not only shapes whose letters nobody noted."""
    letters = re.sub(r"[\s|]+", "", text)
    unknown = sum(letter == "\ufffd" or "\ue000" <= letter <= "\uf8ff" for letter in letters)
    return len(letters) > unknown * 2


def _merged(boxes: Sequence[Box | None]) -> list[Box]:
    """The boxes of characters that stand side by side, as one."""
    found: list[Box] = []
    for box in boxes:
        if box is None or box[0] >= box[2] or box[1] >= box[3]:
            continue
        last = found[-1] if found else None
        if last and min(last[3], box[3]) - max(last[1], box[1]) > (box[3] - box[1]) / 2 and -1 < box[0] - last[2] < box[3] - box[1]:
            found[-1] = (last[0], min(last[1], box[1]), box[2], max(last[3], box[3]))
        else:
            found.append(box)
    return found


def _recognised(content: bytes, title: str | None) -> Reading:
    """The text that OCR reads. Raises UnreadableDocument when it is not installed, or when there is more to read than there is time for."""
    try:
        import pytesseract
    except ImportError:
        raise UnreadableDocument(NEEDS_OCR, lasting=False) from None
    if not shutil.which("tesseract"):
        raise UnreadableDocument(NEEDS_OCR, lasting=False)
    # Four threads for each page are slower than one wherever other work goes on.
    os.environ.setdefault("OMP_THREAD_LIMIT", "1")
    until = time.monotonic() + OCR_SECONDS
    installed = sorted(set(pytesseract.get_languages()) - {"osd"})
    if not installed:
        raise UnreadableDocument("it needs OCR, and tesseract has no language installed; install tesseract-ocr-eng or another")
    languages = "+".join(installed) if len(installed) <= OCR_LANGUAGES else "eng"
    texts: list[str] = []
    starts: list[int] = []
    length = 0
    for image in _images(content):
        try:
            words = pytesseract.image_to_data(image, lang=languages, timeout=max(1, until - time.monotonic()), output_type=pytesseract.Output.DICT)
        except pytesseract.TesseractError:
            raise UnreadableDocument(f"tesseract failed on page {len(texts) + 1}; it may lack the language it needs") from None
        except RuntimeError:
            raise UnreadableDocument(f"it needs OCR and would take more than {OCR_SECONDS} seconds; split it, or save it with its text") from None
        starts.append(length)
        texts.append(_laid_out(_rows(_seen(words)), ()).text + "\n\n")
        length += len(texts[-1])
    if not "".join(texts).replace(ILLEGIBLE, "").strip():
        raise UnreadableDocument("it holds no text, nor does OCR find any in it")
    return Reading("".join(texts).rstrip(), title, tuple(starts))


def _seen(words: dict[str, list[Any]]) -> list[_Line]:
    """The lines that tesseract sees, in points of the picture; those that it guesses at are `[illegible]`."""
    rows: dict[tuple[int, int, int], list[int]] = {}
    for index, word in enumerate(words["text"]):
        if word.strip():
            rows.setdefault((words["block_num"][index], words["par_num"][index], words["line_num"][index]), []).append(index)
    heights = [max(words["height"][index] for index in row) for row in rows.values()]
    usual = sorted(heights)[len(heights) // 2] if heights else 0
    found = []
    for row, height in zip(rows.values(), heights, strict=True):
        middle = sorted(words["top"][index] + words["height"][index] / 2 for index in row)[len(row) // 2]
        # How high a line's box is hangs on whether it has a p or an l; most lines are set in one size.
        size = usual if 0.6 * usual <= height <= 1.5 * usual else height
        legible = sum(float(words["conf"][index]) for index in row) / len(row) >= CONFIDENCE
        line = _Line()
        for index in row:
            word = words["text"][index].strip() if legible else ILLEGIBLE if index == row[0] else ""
            width = words["width"][index] / max(len(word), 1)
            line.letters += [(" ", None)] if line.letters and word else []
            for place, letter in enumerate(word):
                left = words["left"][index] + place * width
                line.letters.append((letter, (left, -middle - size / 2, left + width, -middle + size / 2)))
        if legible and re.search(r"[^\W\d]-$", line.text):
            line.hyphen = line.letters.pop()[1]
        found.append(_measured(line, 0))
    return found


def _images(content: bytes) -> Any:
    """The pages of a PDF, drawn, or the pictures in an image file, one at a time."""
    if b"%PDF-" not in content[:1024]:
        yield from _frames(content)
        return
    with _PDFIUM:
        document = _open(content)
        count = len(document)
        document.close()
    _refuse_many(count)
    for number in range(count):
        with _PDFIUM:
            document = _open(content)
            try:
                page = _load(document, number)
                # 300 dots an inch is what tesseract was trained on; a poster is held to what fits into memory.
                image = page.render(scale=min(300 / 72, 5_000 / max(*page.get_size(), 1.0)), grayscale=True).to_pil().copy()
            finally:
                document.close()
        yield image


def _frames(content: bytes) -> Any:
    from PIL import Image, ImageSequence, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as image:
            _refuse_many(getattr(image, "n_frames", 1))
            if image.width * image.height > 60_000_000:
                raise UnreadableDocument("it is a picture of more than 60 million points; save it smaller")
            for frame in ImageSequence.Iterator(image):
                yield _on_white(frame)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError):
        raise UnreadableDocument("it is damaged: the picture cannot be opened") from None


def _on_white(image: Image) -> Image:
    """The picture in shades of grey, its transparent parts white."""
    from PIL import Image as images

    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("L")
    solid = image.convert("RGBA")
    return images.alpha_composite(images.new("RGBA", solid.size, "white"), solid).convert("L")


def _refuse_many(pages: int) -> None:
    if pages > MAX_OCR_PAGES:
        raise UnreadableDocument(f"it has {pages:,} pages without text; OCR reads at most {MAX_OCR_PAGES}, so split it or save it with its text")
