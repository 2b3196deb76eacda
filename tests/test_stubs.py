"""Tests of ui.stubs: importing the page touches no stub file of Gradio's, and leaves inspect as it was."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from ui.stubs import without_stubs

ROOT = Path(__file__).resolve().parent.parent


def test_importing_the_page_touches_no_stub_file() -> None:
    program = (
        "import sys\n"
        "touched = []\n"
        "sys.addaudithook(lambda event, arguments: touched.append(arguments[0]) if event == 'open' and str(arguments[0]).endswith('.pyi') else None)\n"
        "import ui.app, gradio, inspect\n"
        "print(touched, inspect.getfile(gradio.HTML).endswith('html.py'), gradio.HTML.EVENTS != [])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "[] True True"


def test_other_classes_are_told_and_all_is_as_before_afterwards() -> None:
    before = inspect.getfile
    with without_stubs():
        assert inspect.getfile(Path) == before(Path)
        with pytest.raises(OSError, match="stubs"):
            inspect.getfile(type("Textbox", (), {"__module__": "gradio.components"}))
    assert inspect.getfile is before
