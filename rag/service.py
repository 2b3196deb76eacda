"""What all doors of one running server share: the assistant, who may use it, what is kept of them, and the places for their questions."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, Self

from index.database import Database
from index.errors import NotAllowed
from index.people import open_people
from rag.access import Policy, decide
from rag.accounts import LOCAL, Accounts, User
from rag.assistant import Assistant
from rag.conversations import Conversations
from rag.limits import Place, Queue
from rag.metrics import Door, Metrics
from rag.model import EmbeddedModel
from rag.settings import Settings
from rag.types import Event, Turn

EMBEDDED_AT_ONCE = 1
HOSTED_AT_ONCE = 64
"""How many questions are answered at a time: the model in this process reads one prompt after the other, a server of its own many at once."""


class Visitors:
    """Who may come in under these settings, and what is kept of them. Raises InvalidSettings where others could reach a Citewell that is not made safe for it."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.data_dir
        self.policy: Policy = decide(settings, lambda: self._every)
        self.local_key = secrets.token_urlsafe(32)
        """For programs of this machine that may read the data folder anyway: the store's owner file tells it to them, for as long as this server runs."""

    @cached_property
    def _database(self) -> Database:
        return open_people(self._folder)

    @cached_property
    def _every(self) -> Accounts:
        return Accounts(self._database)

    @property
    def accounts(self) -> Accounts | None:
        """The accounts, where they are demanded."""
        return None if self.policy.open else self._every

    @cached_property
    def conversations(self) -> Conversations:
        """Everybody's conversations."""
        return Conversations(self._database)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the people's file back."""
        if "_database" in vars(self):
            self._database.close()


class Service:
    """The assistant as visitors have it."""

    def __init__(self, assistant: Assistant, visitors: Visitors) -> None:
        self.assistant, self.visitors = assistant, visitors
        self.conversations = visitors.conversations
        self.metrics = Metrics(assistant)
        model, settings = assistant.answering_model()[0], assistant.settings
        # One that is still being fetched is the embedded one; where none is set, nothing has to be waited for.
        embedded = isinstance(model, EmbeddedModel) or (model is None and settings.model != "none")
        self.queue = Queue(EMBEDDED_AT_ONCE if embedded else HOSTED_AT_ONCE, settings.queue_length)

    @property
    def open(self) -> bool:
        """Whether there is but one user, who has the machine to themselves."""
        return self.visitors.policy.open

    @property
    def places(self) -> int:
        """How many questions there is room for at a time, those that wait included."""
        return self.queue.places

    def user(self, scope: Mapping[str, Any]) -> User:
        """Who sent a request, as rag.access.SignedIn wrote it into its scope. Raises NotAllowed where that says nobody."""
        user = (scope.get("state") or {}).get("user")
        if not isinstance(user, User):
            raise NotAllowed("Sign in first.")
        return user

    def own(self, scope: Mapping[str, Any]) -> Assistant:
        """The assistant as whoever sent a request has it: over the documents that they see. Raises NotAllowed."""
        return self.assistant.for_user(self.user(scope))

    def stream(self, door: Door, own: Assistant, question: str, history: Sequence[Turn] = (), documents: Sequence[str] | None = None) -> Answering:
        """own.stream(), counted, and in one of the places that there are. Raises OverLimit where all are taken."""
        user = getattr(own, "user", None)
        # Who has a machine to themselves leaves places to nobody.
        place = self.queue.place("" if user is None or user.id == LOCAL else user.id)
        try:
            return Answering(place, self.metrics.counted(door, own.stream(question, history, documents)))
        except BaseException:
            place.leave()
            raise


class Answering(Iterator[Event]):
    """The events of one question, which has a place in the queue until they end or close() is called, from whichever thread."""

    def __init__(self, place: Place, events: Iterator[Event]) -> None:
        self.place, self._events = place, events

    @property
    def ahead(self) -> int:
        """How many questions are answered before this one; 0 once its turn has come."""
        return self.place.ahead

    def __next__(self) -> Event:
        try:
            return next(self._events)
        except BaseException:
            self.place.leave()
            raise

    def close(self) -> None:
        """Stops the model, and gives the place back."""
        with suppress(ValueError):  # another thread is in it, and is being woken
            getattr(self._events, "close", lambda: None)()
        self.place.leave()

    def __del__(self) -> None:
        self.place.leave()
