"""Data and notebooks: .json, .jsonl, .ipynb, as lines that can be read and quoted."""

from __future__ import annotations

import json as notation
import re
from collections.abc import Iterator

from index.errors import UnreadableDocument
from index.formats.text import TITLE_CHARACTERS, decode, markdown
from index.types import Reading

RECORD_CHARACTERS = 500
"""A record that is longer than this on one line is told a value a line."""
PATH_CHARACTERS = 120
"""Of a longer path its end is shown."""
GROWTH = 4
"""Data nested so that its lines would be this many times as long as it is stays as it was written."""

_IMAGE = re.compile(r"!\[([^\]]*)\]\((?:data|attachment):[^)]*\)")
_DATA_ADDRESS = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=\s]{40,}")
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class _Object(tuple[tuple[str, object], ...]):
    """A JSON object as its pairs: two of the same name are two."""

    __slots__ = ()


def json(content: bytes) -> Reading:
    """JSON as lines, `path.to.key: value`, and a line for each record of a list, `key: value; key: value`.

    What is no JSON after all, or is nested deeper than Python reads, is the text that it is; several values one a line are read as .jsonl.
    """
    text = decode(content)
    try:
        value = _parsed(text)
    except (ValueError, RecursionError):
        if text.lstrip()[:1] in ("{", "[") and _is_jsonl(text):
            return jsonl(content)
        return Reading(text)
    records = isinstance(value, list) and all(isinstance(held, _Object) for held in value)
    lines = _shortened(_records(value) if isinstance(value, list) and records else _lines(value), text)
    if not lines:
        return Reading(text)
    title = next((held for name, held in value if name.lower() == "title"), None) if isinstance(value, _Object) else None
    return Reading("\n".join(lines).rstrip("\n"), title if isinstance(title, str) and 0 < len(title.strip()) <= TITLE_CHARACTERS else None)


def jsonl(content: bytes) -> Reading:
    """A value a line: each becomes a record on a line of its own. Lines that are no JSON stay as they are."""
    text = decode(content)
    lines: list[str] = []
    for line in filter(None, map(str.strip, text.split("\n"))):
        try:
            value = _parsed(line)
        except (ValueError, RecursionError):
            lines.append(line)
            continue
        lines += _shortened(_records([value]), line) or [line]
    return Reading("\n".join(lines).rstrip("\n"))


def _parsed(text: str) -> object:
    """Numbers stay as they are written: Python refuses the longest and rounds others."""
    return notation.loads(text.lstrip("\ufeff"), object_pairs_hook=_Object, parse_float=str, parse_int=str)


def _is_jsonl(text: str) -> bool:
    first = next((line for line in text.split("\n") if line.strip()), "")
    try:
        return isinstance(_parsed(first), _Object)
    except (ValueError, RecursionError):
        return False


def _shortened(lines: Iterator[str], text: str) -> list[str]:
    """The lines, or the text's own where paths repeated again and again would make far more of it."""
    found: list[str] = []
    length = 0
    for line in lines:
        length += len(line) + 1
        if length > GROWTH * len(text) + 10_000:
            return text.split("\n")
        found.append(line)
    return found


def _records(values: list[object]) -> Iterator[str]:
    """A line a record; one that is too long for a line a value a line, and an empty line below it."""
    for value in values:
        record = _record(value)
        if record is not None:
            yield record
        else:
            yield from _lines(value)
            if isinstance(value, _Object):
                yield ""


def _lines(value: object) -> Iterator[str]:
    """A line a leaf or a record. The stack is a list because data nests as deep as it likes."""
    stack: list[tuple[str, object]] = [("", value)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, _Object):
            stack += [(_path(path, f".{name}" if path else name), held) for name, held in reversed(value)]
        elif not isinstance(value, list):
            yield f"{path}: {_leaf(value)}" if path else _leaf(value)
        elif value and all(not isinstance(held, list | _Object) for held in value):
            items = [_leaf(held) for held in value]
            together = ", ".join(items)
            if len(together) <= RECORD_CHARACTERS and "\n" not in together:
                yield f"{path}: {together}" if path else together
            else:
                yield from (f"{path}: {item}" if path else item for item in items)
        else:
            pending: list[tuple[str, object]] = []
            for number, held in enumerate(value):
                record = _record(held)
                if record is None:
                    pending.append((_path(path, f"[{number}]"), held))
                else:
                    pending.append((path, record))
            stack += reversed(pending)


def _record(value: object) -> str | None:
    """An object on one line, or None where it is none or too long for that."""
    if not isinstance(value, _Object):
        return None
    parts: list[str] = []
    length = 0
    stack: list[tuple[str, object]] = [("", value)]
    while stack:
        path, held = stack.pop()
        if isinstance(held, _Object):
            stack += [(f"{path}.{name}" if path else name, inner) for name, inner in reversed(held)]
            continue
        if isinstance(held, list):
            if any(isinstance(inner, list | _Object) for inner in held):
                return None
            shown = ", ".join(_leaf(inner) for inner in held)
        else:
            shown = _leaf(held)
        length += len(path) + len(shown) + 4
        if "\n" in shown or length > RECORD_CHARACTERS:
            return None
        parts.append(f"{path}: {shown}")
    return "; ".join(parts)


def _path(path: str, step: str) -> str:
    joined = path + step
    return joined if len(joined) <= PATH_CHARACTERS else "…" + joined[-PATH_CHARACTERS:]


def _leaf(value: object) -> str:
    """A value as it is written, numbers and all; text without the quotation marks."""
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value).replace("\r\n", "\n").strip()


def ipynb(content: bytes) -> Reading:
    """A Jupyter notebook: its words as they are, its code and what it printed in fences; pictures are left out. Raises UnreadableDocument."""
    import logging

    import nbformat

    text = decode(content)
    logging.getLogger("traitlets").setLevel(logging.CRITICAL)
    try:
        notebook = nbformat.reads(text, as_version=4)
        language = str(notebook.metadata.get("kernelspec", {}).get("language", "") or notebook.metadata.get("language_info", {}).get("name", ""))
        parts = [part for cell in notebook.cells for part in _cell(cell, language)]
    # nbformat raises its own errors and, for what has the wrong shape, any other.
    except Exception:
        raise UnreadableDocument("it is damaged: it cannot be read as a notebook") from None
    joined = "\n\n".join(filter(None, parts))
    return Reading(joined, markdown(joined.encode("utf-8", "replace")).title)


def _cell(cell: dict[str, object], language: str) -> Iterator[str]:
    source = _joined(cell.get("source")).strip("\n")
    if cell.get("cell_type") == "markdown":
        yield _DATA_ADDRESS.sub("", _IMAGE.sub(r"\1", source))
    elif cell.get("cell_type") == "code":
        yield _fenced(source, language)
        outputs = cell.get("outputs")
        for output in outputs if isinstance(outputs, list) else []:
            shown = _output(output)
            if shown.strip():
                yield f"Output:\n{_fenced(shown, '')}"
    else:
        yield source


def _output(output: dict[str, object]) -> str:
    """What an output says in words; of a line that was written over and over, as progress bars are, its last state."""
    data = output.get("data")
    if output.get("output_type") == "error":
        said = f"{output.get('ename', '')}: {output.get('evalue', '')}"
    else:
        said = _joined(output.get("text") or (data.get("text/plain") if isinstance(data, dict) else ""))
    said = re.sub(r"[^\n]*\r(?!\n)", "", _COLOURS.sub("", said))
    return _DATA_ADDRESS.sub("", said).strip("\n")


def _joined(text: object) -> str:
    """Notebooks keep texts whole or as a list of lines."""
    return "".join(map(str, text)) if isinstance(text, list) else str(text or "")


def _fenced(code: str, language: str) -> str:
    return f"```{language}\n{code}\n```" if code.strip() else ""
