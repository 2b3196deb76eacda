"""Tests of index.formats.data: values under their paths, records on lines, notebooks without their pictures; hostile nesting read as text."""

from __future__ import annotations

import base64
import json as notation
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.errors import UnreadableDocument
from index.formats.data import ipynb, json, jsonl
from index.read import read

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


def lines(value: object) -> list[str]:
    return json(notation.dumps(value).encode()).text.splitlines()


def test_values_stand_under_their_paths() -> None:
    assert lines({"server": {"port": 8080, "open": True, "note": None}, "names": ["Ann", "Bob"]}) == [
        "server.port: 8080",
        "server.open: true",
        "server.note: null",
        "names: Ann, Bob",
    ]


def test_objects_in_a_list_are_records() -> None:
    people = [{"name": "Ann", "home": {"city": "Oslo"}, "tags": ["a", "b"]}, {"name": "Bob", "home": {"city": "Rome"}}]
    assert lines(people) == ["name: Ann; home.city: Oslo; tags: a, b", "name: Bob; home.city: Rome"]
    assert lines({"people": people})[1] == "people: name: Bob; home.city: Rome"


def test_long_records_are_told_a_value_a_line() -> None:
    assert lines([{"id": 1, "text": "word " * 200}, {"id": 2, "text": "short"}]) == [
        "id: 1",
        f"text: {('word ' * 200).strip()}",
        "",
        "id: 2; text: short",
    ]


def test_numbers_stay_as_they_are_written_and_no_pair_is_lost() -> None:
    content = b'{"price": 1.50, "big": ' + b"9" * 5000 + b', "a": 1, "a": 2, "tiny": 1e-400}'
    assert json(content).text == f"price: 1.50\nbig: {'9' * 5000}\na: 1\na: 2\ntiny: 1e-400"


def test_texts_keep_their_paragraphs() -> None:
    assert json(b'{"title": "On bridges", "text": "First.\\n\\nSecond."}').text == "title: On bridges\ntext: First.\n\nSecond."
    assert json(b'{"title": "On bridges", "text": "x"}').title == "On bridges"


@pytest.mark.parametrize("content", [b'{"broken": ', b"just words", b"[1, 2,]", b"{'a': 1}", b""])
def test_what_is_no_json_is_the_text_that_it_is(content: bytes) -> None:
    assert json(content).text == content.decode()


def test_several_values_one_a_line_are_records() -> None:
    assert json(b'{"a": 1}\n{"a": 2}\n').text == "a: 1\na: 2"


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_nesting_without_end_is_read_as_text_and_quickly(opening: bytes) -> None:
    started = time.process_time()
    content = opening * 100_000
    assert json(content).text == content.decode()
    assert json(opening * 900 + b"1" + {b"[": b"]", b'{"a":': b"}", b'[{"a":': b"}]"}[opening] * 900).text
    assert time.process_time() - started < 5


def test_paths_repeated_again_and_again_do_not_make_more_of_a_file_than_it_is() -> None:
    content = b'{"a_rather_long_name":' * 300 + b"[" + b'[{"b":[1,{}]}],' * 50_000 + b"1]" + b"}" * 300
    assert len(json(content).text) < 5 * len(content)


def test_lines_of_jsonl_are_records_and_broken_ones_stay() -> None:
    assert jsonl(b'{"name": "Ann", "age": 5}\n\nnot json\n[1, 2]\n"words"\n').text == "name: Ann; age: 5\nnot json\n1, 2\nwords"


@given(VALUES)
def test_every_text_within_is_in_the_lines(value: object) -> None:
    shown = json(notation.dumps(value).encode()).text

    def check(inner: object) -> None:
        if isinstance(inner, str):
            assert inner.replace("\r\n", "\n").strip() in shown
        elif isinstance(inner, list | dict):
            for one in inner.values() if isinstance(inner, dict) else inner:
                check(one)

    if shown != notation.dumps(value):
        check(value)


def test_half_a_surrogate_pair_and_nul_can_be_stored() -> None:
    document = read(b'{"a": "\\ud800 x \\u0000"}', "odd.json", "root")
    document.text.encode("utf-8")
    assert "\0" not in document.text


def notebook(cells: list[dict[str, object]], version: int = 4) -> bytes:
    metadata = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python"}}
    if version == 3:
        return notation.dumps({"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": cells, "metadata": {}}]}).encode()
    return notation.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}).encode()


def test_a_notebook_is_its_words_its_code_and_what_it_printed() -> None:
    picture = base64.b64encode(bytes(300)).decode()
    reading = ipynb(
        notebook(
            [
                {
                    "id": "a",
                    "cell_type": "markdown",
                    "metadata": {},
                    "source": ["# Bridges\n", f"Counted. ![chart](data:image/png;base64,{picture})"],
                },
                {
                    "id": "b",
                    "cell_type": "code",
                    "metadata": {},
                    "execution_count": 1,
                    "source": "# no heading\nprint(291)",
                    "outputs": [
                        {"output_type": "stream", "name": "stdout", "text": ["10%\r100%\n", "\x1b[31m291\x1b[0m\n"]},
                        {"output_type": "display_data", "metadata": {}, "data": {"image/png": picture, "text/plain": ["<Figure>"]}},
                        {"output_type": "error", "ename": "ValueError", "evalue": "no bridge", "traceback": ["..."]},
                    ],
                },
            ]
        )
    )
    assert reading.title == "Bridges"
    assert reading.text == (
        "# Bridges\nCounted. chart\n\n```python\n# no heading\nprint(291)\n```\n\nOutput:\n```\n100%\n291\n```\n\nOutput:\n```\n<Figure>\n```\n\n"
        "Output:\n```\nValueError: no bridge\n```"
    )


def test_older_notebooks_are_read_too() -> None:
    cell = {"cell_type": "code", "metadata": {}, "input": ["print(1)"], "language": "python", "collapsed": False, "outputs": []}
    assert "print(1)" in ipynb(notebook([cell], version=3)).text


@pytest.mark.parametrize("content", [b"{}", b"not json", b"[" * 100_000, b'{"nbformat": 4, "cells": 5}', b'{"nbformat": 99, "cells": []}'])
def test_what_is_no_notebook_says_so(content: bytes) -> None:
    with pytest.raises(UnreadableDocument, match=r"cannot be read as a notebook|holds no text"):
        read(content, "broken.ipynb", "root")
