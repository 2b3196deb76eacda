"""Answers that a user found wrong, kept as questions that `citewell evaluate mine` asks again. One JSON object a line, in the data folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

from index.errors import CitewellError
from rag.types import Turn

FILE = "questions.jsonl"


def cases_file(data_dir: Path) -> Path:
    """Where the cases of a store are kept."""
    return data_dir / FILE


def keep(data_dir: Path, question: str, history: Sequence[Turn], documents: Sequence[str], given: str) -> str:
    """Appends a case and returns its id; the same question with the same answer is kept once. Raises CitewellError where it cannot be written."""
    entry: dict[str, Any] = {
        "question": question,
        "history": [{"role": turn.role, "text": turn.text} for turn in history],
        "documents": list(documents),
        "given": given,
    }
    identifier = blake2b(json.dumps(entry).encode(), digest_size=8).hexdigest()
    line = json.dumps({"id": identifier, "kind": "case", **entry, "time": datetime.now(UTC).isoformat(timespec="seconds")})

    def added(lines: list[str]) -> list[str] | None:
        return None if any(_id(known) == identifier for known in lines) else [*lines, line]

    _rewritten(data_dir, added)
    return identifier


def find(data_dir: Path, question: str, given: str) -> str:
    """The id of the case of this question with this answer, empty where there is none. Raises CitewellError where the file cannot be read."""
    file = cases_file(data_dir)
    try:
        lines = file.read_text(encoding="utf-8").split("\n") if file.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        raise CitewellError(f"The cases in {file} could not be read ({error}). Check that the file can be read.") from error
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and (entry.get("question"), entry.get("given")) == (question, given):
            return str(entry.get("id", ""))
    return ""


def drop(data_dir: Path, identifier: str) -> None:
    """Takes a case back; one that is not there is no error. Raises CitewellError where the file cannot be written."""

    def without(lines: list[str]) -> list[str] | None:
        kept = [line for line in lines if _id(line) != identifier]
        return None if len(kept) == len(lines) else kept

    _rewritten(data_dir, without)


def _id(line: str) -> str | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return str(entry.get("id")) if isinstance(entry, dict) else None


def _rewritten(data_dir: Path, change: Callable[[list[str]], list[str] | None]) -> None:
    """Replaces the file's lines under a lock, whole or not at all; None leaves it alone. Lines that somebody wrote by hand stay as they are."""
    from filelock import FileLock, Timeout

    file = cases_file(data_dir)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock"), timeout=10):
            before = file.read_text(encoding="utf-8").split("\n") if file.exists() else []
            after = change([line for line in before if line.strip()])
            if after is None:
                return
            written = file.with_suffix(".new")
            with written.open("w", encoding="utf-8", newline="\n") as new:
                new.write("".join(f"{line}\n" for line in after))
                new.flush()
                os.fsync(new.fileno())
            written.replace(file)
    except (OSError, UnicodeDecodeError, Timeout) as error:
        raise CitewellError(
            f"The case could not be kept ({getattr(error, 'strerror', None) or type(error).__name__}). "
            "Check that the data folder can be written and that the disk has room."
        ) from error
