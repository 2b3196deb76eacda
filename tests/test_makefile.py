"""Tests of the Makefile's installation, with a Python that only pretends: what is shown, and that a failure is one."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")

PRETENDER = """#!/bin/sh
case "$*" in
  *"pip install"*) case "$*" in *-qq*) ;; *) echo "WARNING: lxml does not provide the extra 'html_clean'" >&2 ;; esac
    sleep 2.6; echo "ERROR: $RESULT" >&2; exit $RESULT ;;
esac
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with our Makefile, whose environment has the Python that pretends."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PRETENDER)
    python.chmod(0o755)
    return tmp_path


def on_a_terminal(project: Path, result: int) -> tuple[int, str]:
    """The exit code of `make install` and what it shows on a terminal."""
    ours, terminal = pty.openpty()
    with subprocess.Popen(["make", "install"], cwd=project, stdout=terminal, stderr=terminal, env={**os.environ, "RESULT": str(result)}) as making:
        os.close(terminal)
        shown = b""
        with suppress(OSError):  # how the end of a terminal is told
            while block := os.read(ours, 1000):
                shown += block
        code = making.wait(30)
    os.close(ours)
    return code, shown.decode()


def test_a_terminal_sees_that_the_installation_goes_on(project: Path) -> None:
    code, shown = on_a_terminal(project, 0)
    assert code == 0
    assert any(set(line) == {"."} or line.startswith(".ERROR") for line in shown.splitlines())
    assert "html_clean" not in shown
    assert (project / ".venv" / "installed").exists()


def test_a_failing_installation_is_shown_and_fails(project: Path) -> None:
    done = subprocess.run(["make", "install"], cwd=project, capture_output=True, text=True, env={**os.environ, "RESULT": "3"}, check=False)
    assert done.returncode != 0
    assert "ERROR: 3" in done.stderr
    assert not (project / ".venv" / "installed").exists()
    assert not any(set(line) == {"."} for line in done.stdout.splitlines()), "no dots in a log"
