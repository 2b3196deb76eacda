"""What the page asks of an assistant; and the conversation in one browser tab: frozen values, and the steps from one to the next (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol
from uuid import uuid4

from index.types import DocumentInfo, Hit
from rag.types import Answer, Event, Evidence, Token, Turn


class Store(Protocol):
    """What the page reads of the store; an unknown id is a KeyError."""

    def documents(self) -> Sequence[DocumentInfo]: ...

    def info(self, document_id: str, /) -> DocumentInfo: ...

    def text(self, document_id: str, /) -> str: ...


class ModelStatus(Protocol):
    """How the language model stands: `message` is a sentence for the user, empty when `state` is "ready"."""

    @property
    def state(self) -> str: ...

    @property
    def message(self) -> str: ...


class Assistant(Protocol):
    """What the page asks of an assistant; tests have a fake."""

    @property
    def store(self) -> Store: ...

    def stream(self, question: str, /, history: Sequence[Turn] = ()) -> Iterator[Event]: ...

    def model_status(self) -> ModelStatus: ...

    def starters(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and what became of it.

    `hits` is None until the search is done. At most one of `answer`, `problem` and `stopped` is set; none is while the question runs.
    `key` tells two runs of the same question apart.
    """

    question: str
    standalone_question: str = ""
    hits: tuple[Hit, ...] | None = None
    draft: str = ""
    answer: Answer | None = None
    problem: str = ""
    stopped: bool = False
    key: str = field(default_factory=lambda: uuid4().hex)

    def after(self, event: Event) -> Exchange:
        """The exchange once `event` has come in."""
        match event:
            case Evidence():
                return replace(self, hits=event.hits, standalone_question=event.standalone_question)
            case Token():
                return replace(self, draft=self.draft + event.text)
            case Answer():
                return replace(self, answer=event, hits=event.evidence, standalone_question=event.standalone_question)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Everything a tab shows: what is finished, and the one question that may be running."""

    finished: tuple[Exchange, ...] = ()
    running: Exchange | None = None

    @property
    def latest(self) -> Exchange | None:
        """The exchange whose evidence stands beside the chat."""
        return self.running or (self.finished[-1] if self.finished else None)

    def asking(self, question: str) -> Conversation:
        """The same conversation with `question` running."""
        return replace(self, running=Exchange(question))

    def retrying(self) -> Conversation:
        """The last question again, in place of its old answer."""
        return Conversation(self.finished[:-1], Exchange(self.finished[-1].question))

    def after(self, event: Event) -> Conversation:
        """The conversation once `event` has come in for the running question; an Answer finishes it."""
        if self.running is None:
            return self
        running = self.running.after(event)
        return replace(self, running=running) if running.answer is None else self._finished_with(running)

    def failed(self, problem: str) -> Conversation:
        """The running question, finished by a problem that the user is told about."""
        return self if self.running is None else self._finished_with(replace(self.running, problem=problem))

    def stopped(self) -> Conversation:
        """The running question, finished by the user; what was drafted is kept."""
        return self if self.running is None else self._finished_with(replace(self.running, stopped=True))

    def history(self) -> tuple[Turn, ...]:
        """The turns a follow-up question may lean on: verified answers only, never a draft."""
        answered = [(exchange.question, exchange.answer) for exchange in self.finished if exchange.answer is not None]
        return tuple(turn for question, answer in answered for turn in (Turn("user", question), Turn("assistant", answer.text)))

    def _finished_with(self, exchange: Exchange) -> Conversation:
        return Conversation((*self.finished, exchange))
