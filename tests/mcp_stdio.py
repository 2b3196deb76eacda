"""`citewell` as a program with fakes inside, for tests that speak to it over standard input and output. Prints onto standard output what must not get there."""

from __future__ import annotations

import sys
from pathlib import Path

from conftest import FakeEmbedder, FakeModel, make_assistant

from index.store import Store
from rag import assistant
from rag.settings import Settings


class Noisy(FakeModel):
    """Answers, and has something to say besides."""

    def probability(self, messages: object) -> object:  # type: ignore[override]
        print("a library says hello on standard output")
        return super().probability(messages)  # type: ignore[arg-type]


def opened(settings: Settings, **_: object) -> assistant.Assistant:
    """Stands for open_assistant()."""
    embedder = FakeEmbedder()
    made = make_assistant(Store(settings.data_dir, embedder.identity), embedder, Noisy("The lander Apollo was built by Grumman."))
    made.sync(Path(settings.data_dir).parent / "documents")
    return made


if __name__ == "__main__":
    from rag import cli

    assistant.open_assistant = opened  # type: ignore[assignment]
    sys.exit(cli.main())
