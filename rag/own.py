"""The assistant as one user has it: the same engine, over the documents that they see. Every door that is given one answers for that user alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

from index.contract import DocumentStore
from index.errors import NotAllowed
from index.sync import Progress, SyncReport
from index.visible import Visible
from rag import weights
from rag.accounts import LOCAL, User
from rag.assistant import Assistant
from rag.library import Library, OwnLibrary, Quota
from rag.model import LanguageModel, ModelStatus
from rag.resilient import Resilient

ADMINS_ALONE = "Folders of the server are an admin's to sync. Ask one, or upload your files."


class OwnAssistant(Assistant):
    """What Assistant.for_user() returns. Its store and library have only what a user may do; whatever else is asked of them is an AttributeError."""

    def __init__(self, whole: Assistant, user: User) -> None:
        self._whole, self.user = whole, user
        self.settings, self.embedder, self.remembered = whole.settings, whole.embedder, whole.remembered
        self._renderer, self._reranker = whole._renderer, whole._reranker
        # The casts hide that the writing half is missing; tests/test_ownership.py holds that it is.
        self.store = cast(DocumentStore, Visible(whole.store, user.id, user.admin))
        # Who has the machine to themselves shares its disk with nobody.
        quota = None if user.id == LOCAL else Quota(whole.settings.user_files, int(whole.settings.user_mb * 1_000_000))
        self.library = cast(Library, OwnLibrary(whole.library, whole.store, user.id, user.admin, quota))

    def close(self) -> None:
        """The engine is not the user's to close."""

    def sync(
        self, folder: str | Path, progress: Progress | None = None, stopped: Callable[[], bool] = lambda: False, retry: bool = False
    ) -> SyncReport:
        """As Assistant.sync(), for an admin. Raises NotAllowed for others: a folder of the server may hold anything."""
        if not self.user.admin:
            raise NotAllowed(ADMINS_ALONE)
        return self._whole.sync(folder, progress, stopped, retry)

    def reembed(self, progress: Callable[[int, int, str], None] | None = None, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Not for users. Raises NotAllowed."""
        raise NotAllowed("New vectors are made by `citewell reembed` alone.")

    def answering_model(self) -> tuple[LanguageModel | None, str]:
        """The model that answers now, for everybody the same."""
        return self._whole.answering_model()

    def question_model(self) -> tuple[Resilient | None, str]:
        """What a question is put to: pauses and models are everybody's."""
        return self._whole.question_model()

    def model_status(self) -> ModelStatus:
        """Whether the model can answer."""
        return self._whole.model_status()

    def prepare(self, progress: weights.Progress | None = None, after: float = 0.0) -> None:
        """Prepares the engine."""
        self._whole.prepare(progress, after)

    def prepare_in_background(self) -> None:
        """Prepares the engine."""
        self._whole.prepare_in_background()

    def for_user(self, user: User) -> Assistant:
        """The same engine for another user."""
        return self._whole.for_user(user)
