"""The log: warnings on standard error, without keys, tokens and logins, whoever wrote them there."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterable
from typing import TextIO

from rag.presets import PRESETS

TAKEN_OUT = "…"

_LOGIN = re.compile(r"(?<=://)[^/\s@'\"]+@")
_BEARER = re.compile(r"\b(bearer|basic)\s+[^\s'\",]+", re.IGNORECASE)
_COOKIE = re.compile(r"\b(citewell(?:-login)?=)[^\s;'\",]+")
# Our own keys, sessions and tokens are 32 random bytes, which are 43 letters; many services' keys begin with sk-.
_TOKEN = re.compile(r"(?<![\w-])(?:cw_|sk-)[\w-]{8,}|(?<![\w-])[\w-]{43}(?![\w-])")


def masked(text: str, secrets: Iterable[str] = ()) -> str:
    """A text without what lets somebody in: the `secrets`, and what looks like a key, a token or the login in an address."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, TAKEN_OUT)
    text = _BEARER.sub(rf"\1 {TAKEN_OUT}", _LOGIN.sub(f"{TAKEN_OUT}@", text))
    return _TOKEN.sub(TAKEN_OUT, _COOKIE.sub(rf"\1{TAKEN_OUT}", text))


class Masking(logging.Formatter):
    """Writes a record, stack and all, without what lets somebody in."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__("%(levelname)s %(name)s: %(message)s")
        self._secrets = frozenset(secrets)

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines."""
        return masked(super().format(record), self._secrets)


def begin(secrets: Iterable[str] = (), stream: TextIO | None = None, level: int = logging.WARNING) -> None:
    """Has everything logged from now on. `secrets`, and the keys of model services in the environment, are taken out wherever they stand."""
    handler = logging.StreamHandler(stream or sys.stderr)
    keys = (os.environ.get(preset.key, "") for preset in PRESETS.values() if preset.key)
    handler.setFormatter(Masking([*secrets, *keys]))
    logging.basicConfig(level=level, handlers=[handler])
