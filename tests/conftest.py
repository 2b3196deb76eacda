"""Fakes and fixtures for all tests: an embedder and a language model that need no files, and assistants over small folders."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import airgap
import numpy as np
import outside
import pytest
import servers
from numpy.typing import NDArray
from page_browser import launched
from probe_server import ask, serving
from store_writer import in_memory

from index import vectors
from index.contract import DocumentStore
from index.database import Database
from index.people import open_people
from index.store import Store
from index.words import content_stems
from rag.assistant import Assistant
from rag.model import Finished, LanguageModel, ModelStatus
from rag.prompt import Message
from rag.settings import Settings
from rag.types import Usage

BENCH = Path(os.environ.get("CITEWELL_BENCH") or Path(__file__).resolve().parent.parent.parent / "shared" / "bench")
"""The public question sets; what needs them skips where they are not. Looked up now, as tests run without our own variables."""

DOCUMENTS = {
    "apollo.md": "# The Apollo lander\n\nThe lander Apollo was built by Grumman. It weighed 15 tonnes.\n\n## Landing\n\nApollo landed on 20 July 1969. Nobody was hurt.\n",
    "tea.txt": "Notes on tea\n\nGreen tea is brewed at 80 degrees. Black tea needs boiling water.\n",
}


Opening = Callable[..., DocumentStore]
"""Opens a store: folder, the embedding model's identity, and whether another model's vectors are let pass."""

SQLITE = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
"""For what is about SQLite's files, in a module whose other tests run on a shared store too."""


outside.watch()


_told = 0
_asked_elsewhere: list[str] = []


def _asked_of_others() -> list[str]:
    """What has been asked of other machines, and not told yet."""
    global _told
    new, _told = outside.attempts[_told:], len(outside.attempts)
    return new


@pytest.fixture(autouse=True)
def asks_nobody() -> Iterator[None]:
    """A test in whose time anything would have asked another machine, or in the time since the test before, has failed, whatever it says itself.

    In the air gap the kernel counts what child processes and C libraries ask, too; where tests run in several processes, one that ran beside may be to blame.
    """
    before = airgap.without_a_route() if airgap.INSIDE in os.environ else 0
    yield
    assert not (asked := _asked_of_others()), f"asked of other machines, and stopped: {asked}"
    if airgap.INSIDE in os.environ:
        assert airgap.without_a_route() == before, f"the kernel counted {airgap.without_a_route() - before} attempts to reach another machine"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """What is asked after a process's last test fails the run, too; one of several processes tells the first of them."""
    asked = [*_asked_elsewhere, *_asked_of_others()]
    told = getattr(session.config, "workeroutput", None)
    if told is not None:
        told["asked of others"] = asked
    elif asked:
        sys.stderr.write(f"Asked of other machines, and stopped: {asked}\n")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A process has run its last test."""
    _asked_elsewhere.extend(getattr(node, "workeroutput", {}).get("asked of others", ()))


class FakeEmbedder:
    """Vectors from hashed words: texts that share words are near each other. Counts what it embeds."""

    def __init__(self, identity: str = "fake@1", dimension: int = 64) -> None:
        self.identity = identity
        self.dimension = dimension
        self.embedded: list[str] = []
        self.loaded = True

    def load(self) -> None:
        """There is nothing to load."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.embedded.extend(texts)
        vectors = np.full((len(texts), self.dimension), 1e-3, dtype=np.float32)
        for row, text in enumerate(texts):
            for stem in content_stems(text):
                vectors[row, int.from_bytes(hashlib.blake2b(stem.encode(), digest_size=4).digest()) % self.dimension] += 1.0
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class FakeModel:
    """Says what it is told to: `draft` as tokens, `stated` as the gate's probability. Keeps every call."""

    def __init__(self, draft: str = "", stated: float = 0.9, error: Exception | None = None, complete: bool = True) -> None:
        self.draft, self.stated, self.error, self.complete = draft, stated, error, complete
        self.calls: list[str] = []
        self.closed = False

    @property
    def name(self) -> str:
        return "fake"

    def stream(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Finished]:
        self.calls.append(messages[-1]["content"])
        try:
            if self.error:
                raise self.error
            for word in self.draft.split(" "):
                yield f"{word} "
            yield Finished(Usage(100, len(self.draft.split())), self.complete)
        finally:
            self.closed = True

    def probability(self, messages: Sequence[Message]) -> tuple[float, Usage]:
        self.calls.append(messages[-1]["content"])
        if self.error:
            raise self.error
        return self.stated, Usage(50, 1)


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tests see neither the developer's variables nor a citewell.toml in the working folder, and never the user's own data."""
    import os

    for name in [name for name in os.environ if name.startswith("CITEWELL_") and name != "CITEWELL_MODELS_DIR"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CITEWELL_DATA_DIR", str(tmp_path / "default-data"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def embedder() -> FakeEmbedder:
    return FakeEmbedder()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two small documents."""
    made = tmp_path / "documents"
    made.mkdir()
    for name, text in DOCUMENTS.items():
        (made / name).write_text(text, encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium for all tests of a module."""
    with launched() as browser:
        yield browser


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Accounts and conversations, none yet."""
    opened = open_people(tmp_path)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[tuple[str, servers.Running]]:
    """The address of a real PostgreSQL, one for all tests, and its process."""
    if servers.postgres_programs() is None:
        pytest.skip(servers.NOT_THERE)
    for package in ("psycopg", "psycopg_pool"):
        pytest.importorskip(package, reason="the package psycopg is not installed", exc_type=ImportError)
    with servers.postgres() as running, pytest.MonkeyPatch.context() as patched:
        servers.unhurried(patched)
        yield running


@pytest.fixture(scope="session")
def chroma_server() -> Iterator[tuple[str, servers.Running]]:
    """The address of a real `chroma run`, one for all tests, and its process."""
    with servers.chroma() as running:
        yield running


@pytest.fixture
def shared_store(postgres_server: tuple[str, servers.Running], chroma_server: tuple[str, servers.Running]) -> Opening:
    """Opens the one shared store, which is empty when a test begins. Twice is two processes as far as the store can tell."""
    from index.chroma_server import ChromaAddress
    from index.postgres import PostgresStore

    servers.emptied(postgres_server[0])
    return lambda folder, identity, reembed=False: PostgresStore(folder, postgres_server[0], ChromaAddress(chroma_server[0]), identity, reembed)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """What keeps the store: "sqlite" unless a module or a test says "postgres", or both."""
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def opening(engine: str, request: pytest.FixtureRequest) -> Opening:
    """Opens a store by its folder and its embedding model's name."""
    return Store if engine == "sqlite" else request.getfixturevalue("shared_store")


@pytest.fixture
def store(tmp_path: Path, embedder: FakeEmbedder, opening: Opening) -> Iterator[DocumentStore]:
    opened = opening(tmp_path / "store", embedder.identity)
    yield opened
    opened.close()


def make_assistant(store: DocumentStore, embedder: FakeEmbedder, model: LanguageModel | None) -> Assistant:
    """An assistant with fakes inside; `model` None answers with the documents' own sentences."""
    status = (
        ModelStatus("ready", "", model.name)
        if model
        else ModelStatus("none", "No language model is set, so the documents' own sentences answer.", "none")
    )
    return Assistant(Settings(data_dir=store.folder, model="none"), store, embedder, model, status)


@pytest.fixture
def assistant(store: Store, embedder: FakeEmbedder, folder: Path) -> Assistant:
    """An assistant over the two documents, whose model says that Grumman built Apollo."""
    made = make_assistant(store, embedder, FakeModel("The lander Apollo was built by Grumman."))
    made.sync(folder)
    return made


class FakeSentenceTransformer(FakeEmbedder):
    """Stands where the doors open the real embedding model by its name."""

    def __init__(self, name: str = "all-MiniLM-L6-v2") -> None:
        super().__init__(f"{name}@fake")


@pytest.fixture
def no_real_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the doors open embeds with the fake."""
    for module in ("rag.assistant", "rag.doctor"):
        monkeypatch.setattr(f"{module}.open_embedder", FakeSentenceTransformer)


@pytest.fixture(scope="module")
def fast_probes() -> Iterator[None]:
    """Probes of the vector index are made by one server for all, not by a new process each."""
    with serving() as address, pytest.MonkeyPatch.context() as patched:
        patched.setattr(vectors, "probe", ask(address))
        yield


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory, fast_probes: None) -> Iterator[Assistant]:
    """An assistant like `assistant`, one for all tests of a module that change nothing of it."""
    place, embedder = tmp_path_factory.mktemp("often"), FakeEmbedder()
    (place / "documents").mkdir()
    for name, text in DOCUMENTS.items():
        (place / "documents" / name).write_text(text, encoding="utf-8")
    with make_assistant(Store(place / "store", embedder.identity), embedder, FakeModel("The lander Apollo was built by Grumman.")) as made:
        made.sync(place / "documents")
        yield made


@pytest.fixture
def place() -> Iterator[Path]:
    """Where a store can be made, in memory."""
    with in_memory() as folder:
        yield folder / "data"
