"""A language model that remembers: what it said once to the same messages, it says again without being asked."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from index.errors import ModelUnavailable
from rag.model import Finished, LanguageModel
from rag.prompt import Message
from rag.types import Usage


class RememberingModel:
    """Any language model with its replies kept in a file, by `identity` (which weights, which server), messages and length.

    `remembered` counts the calls that were answered so, `failed` those that the model did not answer. Only whole replies are kept, so what failed or was stopped is asked again.
    """

    def __init__(self, model: LanguageModel, identity: str, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._model = model
        self._identity = identity
        self._database = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._database.execute("CREATE TABLE IF NOT EXISTS replies (key BLOB PRIMARY KEY, reply TEXT NOT NULL)")
        self.remembered = 0
        self.failed = 0

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def ready(self) -> bool:
        """Whether the model need not be loaded any more before it speaks."""
        return bool(getattr(self._model, "loaded", True))

    def close(self) -> None:
        """Closes the file; the model itself is its owner's."""
        self._database.close()

    def stream(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Finished]:
        key = self._key("stream", messages, max_tokens)
        known = self._known(key)
        if known is not None:
            yield from known["pieces"]
            yield Finished(Usage(*known["usage"]), known["complete"])
            return
        pieces: list[str] = []
        try:
            for item in self._model.stream(messages, max_tokens):
                if isinstance(item, Finished):
                    self._keep(key, {"pieces": pieces, "usage": _numbers(item.usage), "complete": item.complete})
                else:
                    pieces.append(item)
                yield item
        except ModelUnavailable:
            self.failed += 1
            raise

    def probability(self, messages: Sequence[Message]) -> tuple[float, Usage]:
        key = self._key("probability", messages, 1)
        known = self._known(key)
        if known is None:
            try:
                likely, usage = self._model.probability(messages)
            except ModelUnavailable:
                self.failed += 1
                raise
            self._keep(key, {"likely": likely, "usage": _numbers(usage)})
            return likely, usage
        return float(known["likely"]), Usage(*known["usage"])

    def _key(self, what: str, messages: Sequence[Message], max_tokens: int) -> bytes:
        return blake2b(json.dumps([self._identity, what, list(messages), max_tokens]).encode(), digest_size=16).digest()

    def _known(self, key: bytes) -> dict[str, Any] | None:
        row = self._database.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        self.remembered += 1
        known: dict[str, Any] = json.loads(row[0])
        return known

    def _keep(self, key: bytes, reply: dict[str, Any]) -> None:
        self._database.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (key, json.dumps(reply)))


def _numbers(usage: Usage) -> list[int]:
    return [usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens]
