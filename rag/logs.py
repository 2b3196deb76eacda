"""The log: warnings on standard error, without keys, tokens, logins, paths and stacks, whoever wrote them there."""

from __future__ import annotations

import copy
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterable
from functools import lru_cache
from types import TracebackType
from typing import TextIO

from index.errors import CitewellError
from rag.presets import PRESETS

TAKEN_OUT = "…"
CAUSES = 4
"""So many errors are told of one that came of another."""

_LOGIN = re.compile(r"(?<=://)[^/\s@'\"]+@")
_BEARER = re.compile(r"\b(bearer|basic)\s+[^\s'\",]+", re.IGNORECASE)
_COOKIE = re.compile(r"\b(citewell(?:-login)?=)[^\s;'\",]+")
# Our own keys, sessions and tokens are 32 random bytes, which are 43 letters; many services' keys begin with sk-.
_TOKEN = re.compile(r"(?<![\w-])(?:cw_|sk-)[\w-]{8,}|(?<![\w-])[\w-]{43}(?![\w-])")

_OWN = ("rag.", "index.", "ui.")
_PATH = re.compile(
    r"(?<![\w/.:…])(?P<root>/[^\s/'\":;,()<>\[\]]+|[A-Za-z]:\\[^\s\\'\":;,()<>\[\]]+)(?:[/\\][^\s/\\'\":;,()<>\[\]]+)*[/\\](?P<name>[^\s/\\'\":;,()<>\[\]]*)"
)
_STACK = re.compile(r"^Traceback \(most recent call last\):\n(?:[ \t].*\n)*", re.MULTILINE)


@lru_cache(maxsize=64)
def _is_folder(root: str) -> bool:
    """Whether what a path would begin with is there: `/api/ask` is no path where there is no folder /api."""
    return root[1:2] == ":" or os.path.isdir(root)


def without_places(text: str) -> str:
    """A text without the folders of its paths, and without the stacks in it; the last name of each path stays, as it is what a line is about."""
    plain = _STACK.sub("", text)
    return _PATH.sub(lambda found: f"{TAKEN_OUT}/{found['name']}" if _is_folder(found["root"]) else found[0], plain)


def place(error: BaseException) -> str:
    """Where an error came from, in a line: its kind, the last of our own lines that it passed, and where it was raised. Its message is left out unless we
    or the system wrote it, as another's may quote a document or a question."""
    lines = [f"{frame.f_globals.get('__name__', '?')}:{line}" for frame, line in traceback.walk_tb(error.__traceback__)]
    own = next((line for line in reversed(lines) if line.startswith(_OWN)), "")
    said = str(error) if isinstance(error, CitewellError) else (error.strerror or "") if isinstance(error, OSError) else ""
    told = f"{type(error).__name__}{f' ({said})' if said else ''}{f' at {own}' if own else ''}"
    return f"{told}, raised in {lines[-1]}" if lines and lines[-1] != own else told


def masked(text: str, secrets: Iterable[str] = ()) -> str:
    """A text without what lets somebody in: the `secrets`, and what looks like a key, a token or the login in an address."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, TAKEN_OUT)
    text = _BEARER.sub(rf"\1 {TAKEN_OUT}", _LOGIN.sub(f"{TAKEN_OUT}@", text))
    return _TOKEN.sub(TAKEN_OUT, _COOKIE.sub(rf"\1{TAKEN_OUT}", text))


class Masking(logging.Formatter):
    """Writes a record without what lets somebody in, and without paths; in place of a stack, where the error came from. `stacks` lets both stand."""

    def __init__(self, secrets: Iterable[str] = (), stacks: bool = False) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")
        self._secrets, self._stacks = frozenset(secrets), stacks

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines."""
        own = copy.copy(record)
        own.exc_text = None  # as another handler wrote it
        if self._stacks:
            return masked(super().format(own), self._secrets)
        own.stack_info = None
        return masked(without_places(super().format(own)), self._secrets)

    def formatException(self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]) -> str:
        """What stands in a stack's place: the error and what it came of, a line each."""
        if self._stacks:
            return super().formatException(ei)
        told: list[str] = []
        error = ei[1]
        while error is not None and len(told) < CAUSES:
            told.append(f"  {'of ' if told else ''}{place(error)}")
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return "\n".join(told)


def begin(secrets: Iterable[str] = (), stream: TextIO | None = None, level: int = logging.WARNING, stacks: bool = False) -> None:
    """Has everything logged from now on. `secrets`, and the keys of model services in the environment, are taken out wherever they stand; paths and
    stacks stand only where `stacks` are wanted."""
    handler = logging.StreamHandler(stream or sys.stderr)
    keys = (os.environ.get(preset.key, "") for preset in PRESETS.values() if preset.key)
    handler.setFormatter(Masking([*secrets, *keys], stacks))
    logging.basicConfig(level=level, handlers=[handler])
