"""The values that a question turns into: turns, events, citations, answers. Pure; no third-party types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from index.types import Hit, Passage, Span


@dataclass(frozen=True, slots=True)
class Turn:
    """One earlier message of the conversation."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Citation:
    """The exact words that bear a sentence out: `assistant.store.text(document_id)[start:end] == quote`, always.

    Only `rag.cite` builds one, so one that exists has been verified. `page` is 1-based, None where a format has no pages.
    """

    number: int
    document_id: str
    title: str
    source: str
    page: int | None
    start: int
    end: int
    quote: str


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds since the question arrived; `first_token_ms` is None when no model spoke."""

    evidence_ms: float
    first_token_ms: float | None
    total_ms: float


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens over all model calls for one question. `prompt_tokens` had to be read; `cached_tokens` stood in the model server's cache from a call before."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was searched for, and the passages that were found, best first: the first event of a stream.

    A follow-up that words alone do not settle brings a second one, once the model has put it in full: it takes the first one's place.
    """

    standalone_question: str
    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the model's draft, not yet verified."""

    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Last event of a stream. Every sentence of `text` ends in marks like [1] that `citations` resolves, or is listed in `unsupported`.

    With `asks_back`, the text asks what the question means, because neither it nor the conversation tells. `notices` are plain sentences about how the answer came to be (no model, model broke off), for every door to show.
    `confidence` is the probability, from 0 to 1, that the documents answer the question, as far as it was estimated; None where it was not. `conflicts` are the sentences of the text that tell of documents which disagree.
    """

    question: str
    standalone_question: str
    text: str
    abstained: bool
    citations: tuple[Citation, ...]
    unsupported: tuple[str, ...]
    evidence: tuple[Hit, ...]
    model: str
    timings: Timings
    usage: Usage
    notices: tuple[str, ...] = ()
    asks_back: bool = False
    confidence: float | None = None
    conflicts: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON of every door: nested dicts and lists of plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Self:
        """The answer that to_dict() made this of, also by way of JSON. Fields with a default may be missing. Raises KeyError, TypeError where it is none."""
        values: dict[str, Any] = {field.name: kept[field.name] for field in fields(cls) if field.name in kept}
        values.update({name: tuple(values[name]) for name in ("unsupported", "notices", "conflicts") if name in values})
        values["citations"] = tuple(Citation(**citation) for citation in kept["citations"])
        values["evidence"] = tuple(_hit(hit) for hit in kept["evidence"])
        values.update(timings=Timings(**kept["timings"]), usage=Usage(**kept["usage"]))
        return cls(**values)


def _hit(kept: Mapping[str, Any]) -> Hit:
    passage = kept["passage"]
    values: dict[str, Any] = {**passage, "span": Span(**passage["span"]), "pages": tuple((offset, page) for offset, page in passage["pages"])}
    return Hit(Passage(**values), kept["score"], kept["similarity"])


Event = Evidence | Token | Answer
