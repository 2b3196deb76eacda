"""What the page asks of an assistant; and what one browser tab holds: frozen values, and the steps from one to the next (pure)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol
from uuid import uuid4

from index.types import DocumentInfo, Hit, Rejection, Span
from rag.accounts import User
from rag.conversations import CitationNow, Conversations, State, Verdict
from rag.types import Answer, Event, Evidence, Token, Turn


class Store(Protocol):
    """What the page reads of the store; an unknown id is a KeyError."""

    def documents(self) -> Sequence[DocumentInfo]: ...

    def latest(self, count: int, /) -> Sequence[DocumentInfo]: ...

    def document_count(self) -> int: ...

    def ids_of(self, names: Sequence[str], /) -> Mapping[str, Sequence[str]]: ...

    def info(self, document_id: str, /) -> DocumentInfo: ...

    def text(self, document_id: str, /) -> str: ...

    def pages(self, document_id: str, /) -> Sequence[int]: ...

    def furniture(self, document_id: str, /) -> Sequence[Span]: ...

    def rejections(self) -> Sequence[Rejection]: ...

    @property
    def index_state(self) -> str: ...

    def notices(self) -> Sequence[str]: ...


class Work(Protocol):
    """What the library is doing: `total` is 0 before the files are counted, the rate and the time left are None while they cannot be told."""

    @property
    def what(self) -> str: ...

    @property
    def done(self) -> int: ...

    @property
    def total(self) -> int: ...

    @property
    def current(self) -> str: ...

    @property
    def files_per_second(self) -> float | None: ...

    @property
    def seconds_left(self) -> float | None: ...


class Report(Protocol):
    """What became of every file, by source; `rejected` tells why."""

    @property
    def added(self) -> Sequence[str]: ...

    @property
    def changed(self) -> Sequence[str]: ...

    @property
    def removed(self) -> Sequence[str]: ...

    @property
    def unchanged(self) -> Sequence[str]: ...

    @property
    def rejected(self) -> Mapping[str, str]: ...

    @property
    def cancelled(self) -> bool: ...


class Outcome(Protocol):
    """How a job ended: by a report, or by a `problem` in a plain sentence where the whole of it failed."""

    @property
    def what(self) -> str: ...

    @property
    def report(self) -> Report | None: ...

    @property
    def problem(self) -> str: ...


class Library(Protocol):
    """What changes the documents. Its work goes on in the background; what cannot work at all is a CitewellError.

    `waiting()` is the root and source of every file that is there and not read yet; `discard` lets go of a rejected upload; `size` is that of a file
    in bytes, None where there is none. `own_root` is the root of what the user uploads. `uploading()` lasts as long as a file is coming in, and `room()`
    is how many bytes it may have in place of those named; both raise OverLimit.
    """

    @property
    def own_root(self) -> str: ...

    def add(self, name: str, path: Path, /) -> str: ...

    def room(self, replaced: Collection[str] = (), /) -> int: ...

    def uploading(self) -> AbstractContextManager[None]: ...

    def remove(self, document_ids: Sequence[str], /) -> None: ...

    def share(self, document_id: str, shared: bool, /) -> None: ...

    def discard(self, root: str, source: str, /) -> None: ...

    def retry(self, root: str, source: str, /) -> None: ...

    def cancel(self) -> None: ...

    def work(self) -> Work | None: ...

    def waiting(self) -> Sequence[tuple[str, str]]: ...

    def outcomes(self) -> Sequence[Outcome]: ...

    def size(self, root: str, source: str, /) -> int | None: ...


class Settings(Protocol):
    """What the page reads of the settings: the largest file that is taken, whether pages are fetched by their address, and where the store lives."""

    @property
    def add_urls(self) -> bool: ...

    @property
    def max_bytes(self) -> int: ...

    @property
    def data_dir(self) -> Path: ...


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

    @property
    def library(self) -> Library: ...

    @property
    def settings(self) -> Settings: ...

    def stream(self, question: str, /, history: Sequence[Turn] = (), documents: Sequence[str] | None = None) -> Iterator[Event]: ...

    def add_url(self, url: str, /) -> tuple[str, str]:
        """Adds a web page by its address, and returns its source and fingerprint; what cannot be fetched is a CitewellError."""
        ...

    def page_image(self, document_id: str, page: int, start: int, end: int, /) -> bytes:
        """A PNG of a page from 1, with the characters [start, end) marked, none where the two are the same.

        An unknown document or page is a KeyError; a file that is gone, or not the one that was indexed, is a CitewellError.
        """
        ...

    def model_status(self) -> ModelStatus: ...

    def starters(self) -> Sequence[str]: ...


class Answering(Protocol):
    """The events of one question; `ahead` is how many questions are answered before it."""

    @property
    def ahead(self) -> int: ...

    def __iter__(self) -> Iterator[Event]: ...

    def __next__(self) -> Event: ...

    def close(self) -> None: ...


class Service(Protocol):
    """What the page asks of a server: for each request the assistant as its sender has it, by the request's scope."""

    @property
    def open(self) -> bool:
        """Whether there is but one user, who has the machine to themselves; else users sign in."""
        ...

    @property
    def places(self) -> int:
        """How many questions there is room for at a time, those that wait included."""
        ...

    @property
    def conversations(self) -> Conversations: ...

    @property
    def assistant(self) -> Assistant:
        """The whole of it: for what nobody has a view of their own on."""
        ...

    def user(self, scope: Mapping[str, Any], /) -> User: ...

    def own(self, scope: Mapping[str, Any], /) -> Assistant: ...

    def stream(self, door: Literal["page"], own: Any, question: str, /, history: Sequence[Turn], documents: Sequence[str] | None) -> Answering:
        """The events of an answer, which has a place among those that are being answered until its close(); a CitewellError where all are taken."""
        ...


@dataclass(frozen=True, slots=True)
class Choice:
    """The documents that a tab's questions go to, by id with their titles; all of them while none is chosen.

    `gone` are the titles of those that were dropped because the store has them no longer. `turn` counts the changes that came from the browser.
    """

    chosen: Mapping[str, str] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    turn: int = 0

    @property
    def documents(self) -> tuple[str, ...] | None:
        """What a question is narrowed to."""
        return tuple(self.chosen) or None

    def checked(self, info: Callable[[str], DocumentInfo]) -> Choice:
        """The same choice without the documents that `info` raises a KeyError for."""
        chosen, gone = {}, list(self.gone)
        for document_id, title in self.chosen.items():
            try:
                chosen[document_id] = info(document_id).title
            except KeyError:
                gone.append(title)
        return Choice(chosen, tuple(gone), self.turn)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Something that comes in for a question besides its events: how many others are answered before it."""

    ahead: int


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and what became of it.

    `documents` are the titles of those it was asked of, empty for all. `hits` is None until the search is done. At most one of `answer`, `problem`
    and `stopped` is set; none is while the question runs. `key` tells two runs of the same question apart. `document_ids` are those of `documents`.
    `case` is the id of the case that the answer was kept as, when the user found it wrong. `kept` is the id under which the user's conversation has the
    exchange, empty where it has it not; `replaces` is that of the one in whose place it is asked. `note` says what the user should know of the keeping,
    `judging_problem` why what they said of the answer could not be kept. For an answer that was brought back, `citations_now` tells by number, and
    `passages_now` by passage id, what is not any more as it was. `ahead` are the questions that are answered first.
    """

    question: str
    standalone_question: str = ""
    hits: tuple[Hit, ...] | None = None
    draft: str = ""
    answer: Answer | None = None
    problem: str = ""
    stopped: bool = False
    documents: tuple[str, ...] = ()
    key: str = field(default_factory=lambda: uuid4().hex)
    document_ids: tuple[str, ...] = ()
    case: str = ""
    judging_problem: str = ""
    kept: str = ""
    replaces: str = ""
    note: str = ""
    verdict: Verdict = ""
    reason: str = ""
    citations_now: Mapping[int, CitationNow] = field(default_factory=dict)
    passages_now: Mapping[str, State] = field(default_factory=dict)
    ahead: int = 0

    def after(self, event: Event | Waiting) -> Exchange:
        """The exchange once `event` has come in."""
        match event:
            case Waiting():
                return replace(self, ahead=event.ahead)
            case Evidence():
                return replace(self, hits=event.hits, standalone_question=event.standalone_question)
            case Token():
                return replace(self, draft=self.draft + event.text, ahead=0)
            case Answer():
                return replace(self, answer=event, hits=event.evidence, standalone_question=event.standalone_question)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Everything a tab shows: what is finished, and the one question that may be running.

    `id` is that of the kept conversation, empty before there is one. One that is not the user's `own` is read and not gone on with. `notice` is a
    sentence that stands above it until the next question.
    """

    finished: tuple[Exchange, ...] = ()
    running: Exchange | None = None
    id: str = ""
    own: bool = True
    notice: str = ""

    @property
    def latest(self) -> Exchange | None:
        """The exchange whose evidence stands beside the chat."""
        return self.running or (self.finished[-1] if self.finished else None)

    def asking(self, question: str, documents: Sequence[str] = (), document_ids: Sequence[str] = ()) -> Conversation:
        """The same conversation with `question` running, asked of the documents with these titles and ids or of all."""
        return replace(self, running=Exchange(question, documents=tuple(documents), document_ids=tuple(document_ids)), notice="")

    def retrying(self, documents: Sequence[str] = (), document_ids: Sequence[str] = ()) -> Conversation:
        """The last question again, in place of its old answer."""
        last = self.finished[-1]
        # Where the old answer is kept, it stays until there is a new one.
        again = Exchange(last.question, documents=tuple(documents), document_ids=tuple(document_ids), replaces=last.kept or last.replaces)
        return replace(self, finished=self.finished[:-1], running=again, notice="")

    def after(self, event: Event | Waiting) -> Conversation:
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

    def before(self, key: str) -> Conversation:
        """What was finished before the exchange with this key."""
        keys = [exchange.key for exchange in self.finished]
        return replace(self, finished=self.finished[: keys.index(key)])

    def answered(self, key: str) -> Exchange | None:
        """The exchange with this key, if it has an answer."""
        return next((exchange for exchange in self.finished if exchange.key == key and exchange.answer is not None), None)

    def changed(self, key: str, **values: Any) -> Conversation:
        """The same conversation with the exchange of this key changed so."""
        return replace(self, finished=tuple(replace(exchange, **values) if exchange.key == key else exchange for exchange in self.finished))

    def _finished_with(self, exchange: Exchange) -> Conversation:
        return replace(self, finished=(*self.finished, exchange), running=None)
