"""One question's dealings with models that fail: tries, pauses, a second model, a hard deadline, and an end from any thread.

A model that has begun to speak is not asked again: what it said stands, and the reply is told as broken off.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from index.errors import ModelUnavailable
from rag.model import SAID_NOTHING, EmbeddedModel, Finished, LanguageModel
from rag.prompt import Message
from rag.types import Usage
from rag.wire import LINE, Line

TRIES = 3
WAITS = (0.5, 1.0)
"""How often a model is asked at most before it has said anything, and the seconds between."""

PATIENCE = 4.0
"""The seconds that all waits of one question may take together, and after a first failure the tries as well: the user is told of a fault within five."""

PAUSE = 30.0
LONGEST_PAUSE = 86_400.0
"""For how long a model that failed is left alone, and for how long at most where its server asks for more."""

CHARACTERS_A_TOKEN = 12
"""More than any script has. A reply that is longer than so many for each token it may have is cut: its server does not keep the limit."""

T = TypeVar("T")


class Stopped(Exception):
    """Nobody waits for the answer any more."""


class Pauses:
    """Which models are left alone at the moment, and why. For all questions together, in any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._until: dict[int, tuple[float, str]] = {}

    def begin(self, model: LanguageModel, seconds: float, why: str) -> None:
        with self._lock:
            self._until[id(model)] = (self._clock() + min(seconds, LONGEST_PAUSE), why)

    def check(self, model: LanguageModel) -> None:
        """Raises ModelUnavailable while the model is left alone."""
        with self._lock:
            until, why = self._until.get(id(model), (0.0, ""))
            left = until - self._clock()
            if left <= 0:
                self._until.pop(id(model), None)
        if left > 0:
            raise ModelUnavailable(f"{why} It is left alone for {left:.0f} more seconds." if left >= 1 else why)


class Turns:
    """Whose turn it is with a model that has room for one question: first come, first served, and each has it until leave()."""

    def __init__(self) -> None:
        self._waiting: list[object] = []
        self._changed = threading.Condition()

    def take(self, who: object, given_up: Callable[[], bool]) -> None:
        """Waits until it is somebody's turn, or until they have given up and wake() was called."""
        with self._changed:
            if who not in self._waiting:
                self._waiting.append(who)
            self._changed.wait_for(lambda: self._waiting[0] is who or given_up())

    def wake(self) -> None:
        """Has those who wait look whether they have given up."""
        with self._changed:
            self._changed.notify_all()

    def leave(self, who: object) -> None:
        """Lets the next have their turn. Safe to call twice, and without having had one."""
        with self._changed:
            if who in self._waiting:
                self._waiting.remove(who)
                self._changed.notify_all()


class Resilient:
    """A language model made of others, in order, for one question: the next one answers where one cannot.

    Its calls raise ModelUnavailable when none can answer or `seconds` from the first call have passed, and Stopped after stop(). A model that fails in the
    midst of a reply ends it with Finished.broken_off. `missing` says why the model that is set is not among `models`. The model in this process reads one
    prompt after the other: a question has it, by `turns`, from its first call to its end, and no time passes while it waits. close() it in the end.
    """

    def __init__(
        self, models: Sequence[LanguageModel], seconds: float, pauses: Pauses | None = None, missing: str = "", turns: Turns | None = None
    ) -> None:
        self._models = models
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._pauses = pauses or Pauses()
        self._turns = turns or Turns()
        self._patience = PATIENCE
        self._failed_at: float | None = None
        self._at = 0
        self._line = Line()
        self._late = threading.Timer(seconds, self._line.hang_up)
        self._late.daemon = True
        self._stopped = threading.Event()
        self._failures = [missing] if missing else []
        self._answered = False

    @property
    def name(self) -> str:
        return self._models[self._at].name

    @property
    def notices(self) -> tuple[str, ...]:
        """What the answer is to say about who answered, as sentences."""
        return (" ".join([*self._failures, f"So the second model, '{self.name}', answered."]),) if self._failures and self._answered else ()

    def stop(self) -> None:
        """Ends what is going on, and all that would follow. From any thread, also while another waits for the model."""
        self._stopped.set()
        self._turns.wake()
        self._line.hang_up()
        self._late.cancel()

    def close(self) -> None:
        """Ends the watch over the deadline, and lets the next question have the model."""
        self._late.cancel()
        self._turns.leave(self)

    def probability(self, messages: Sequence[Message]) -> tuple[float, Usage]:
        return self._tried(lambda model: model.probability(messages))

    def stream(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Finished]:
        said, rest = self._tried(lambda model: _begun(model, messages, max_tokens))
        room = CHARACTERS_A_TOKEN * max_tokens
        name = self.name
        try:
            item: str | Finished | None = said
            while item is not None:
                if isinstance(item, Finished):
                    yield item
                    return
                if len(item) > room:
                    yield item[:room]
                    yield Finished(Usage(), False, f"The model '{name}' wrote on past the length that it was given, so its answer was cut.")
                    return
                room -= len(item)
                yield item
                item = next(rest, None)
                self._alive()
        except ModelUnavailable as error:
            yield Finished(Usage(), False, str(self._real(error)))
        finally:
            close = getattr(rest, "close", None)
            if close is not None:
                close()

    def _tried(self, ask: Callable[[LanguageModel], T]) -> T:
        """What the first model says that can: each has its tries, as long as nothing was said."""
        self._wait_for_turn()
        if not self._late.is_alive() and not self._late.finished.is_set():
            self._deadline = time.monotonic() + self._seconds  # search and a first start have taken nothing of it
            self._late.start()
        tries = 0
        while True:
            model = self._models[self._at]
            began = time.monotonic()
            try:
                self._alive()
                self._pauses.check(model)
                tries += 1
                with self._listening():
                    made = ask(model)
                self._answered, self._failed_at = True, None
                return made
            except ModelUnavailable as raw:
                error = self._real(raw)
                if error is raw and error.passing and tries < TRIES and self._waited(error, tries, time.monotonic() - began):
                    continue
                # A model in this process has one question after the other: who waited too long says nothing of whether it works.
                if error is raw and (error.passing or error.hung) and not isinstance(model, EmbeddedModel):
                    self._pauses.begin(model, max(PAUSE, error.retry_after or 0.0), str(error))
                if self._at + 1 == len(self._models) or time.monotonic() >= self._deadline:
                    raise ModelUnavailable(" ".join([*self._failures, str(error)])) from None
                self._failures.append(str(error))
                self._at, tries, self._answered, self._failed_at = self._at + 1, 0, False, None
                self._wait_for_turn()

    def _wait_for_turn(self) -> None:
        """With a model that has room for one question, waits until it is this one's turn; gives the turn back before another model is asked."""
        if isinstance(self._models[self._at], EmbeddedModel):
            self._turns.take(self, self._stopped.is_set)
            if self._stopped.is_set():
                raise Stopped
        else:
            self._turns.leave(self)

    def _waited(self, error: ModelUnavailable, tries: int, took: float) -> bool:
        """Waits as long as the server asked for, or a moment; False where that is longer than a user should wait, and the model is to be left alone.

        `took`: the seconds until it failed. One that fails slowly, as a host that drops what it is sent, would take as long again.
        """
        now = time.monotonic()
        self._failed_at = now if self._failed_at is None else self._failed_at
        wait = WAITS[tries - 1] if error.retry_after is None else error.retry_after
        if wait > min(self._patience, self._deadline - now) or wait + took > PATIENCE - (now - self._failed_at):
            return False
        self._patience -= wait
        if self._stopped.wait(wait):
            raise Stopped
        return True

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """While a model is asked, its connection is at hand."""
        mark = LINE.set(self._line)
        try:
            yield
        finally:
            LINE.reset(mark)

    def _alive(self) -> None:
        if self._stopped.is_set():
            raise Stopped
        if time.monotonic() >= self._deadline:
            raise ModelUnavailable(self._too_long())

    def _real(self, error: ModelUnavailable) -> ModelUnavailable:
        """The error itself, or what hung up: this side's deadline. Raises Stopped where somebody did."""
        if self._stopped.is_set():
            raise Stopped from None
        return error if time.monotonic() < self._deadline else ModelUnavailable(self._too_long())

    def _too_long(self) -> str:
        return f"The answer was not finished within {self._seconds:g} seconds. Ask something narrower, or raise CITEWELL_ANSWER_SECONDS."


def _begun(model: LanguageModel, messages: Sequence[Message], max_tokens: int) -> tuple[str, Iterator[str | Finished]]:
    """A stream from its first visible text on. Raises ModelUnavailable for one that ends without any."""
    pieces = iter(model.stream(messages, max_tokens))
    said = ""
    for item in pieces:
        if isinstance(item, Finished):
            break
        said += item
        if said.strip() or len(said) > CHARACTERS_A_TOKEN * max_tokens:
            return said, pieces
    raise ModelUnavailable(f"The model '{model.name}' {SAID_NOTHING}", passing=True)
