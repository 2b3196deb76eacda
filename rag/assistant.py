"""Puts the parts together: settings in, an Assistant out. The only place that knows which store, embedder and model are in use."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pydantic import SecretStr

from index.contract import DocumentStore
from index.embed import Embedder, open_embedder
from index.errors import CitewellError, DamagedWeights, InvalidSettings, ModelUnavailable, UnreadableDocument
from index.parse import Parser
from index.read import fingerprint
from index.remember import Remembered
from index.rerank import LOOKED_AT, CrossEncoderReranker, Reranker, reranked
from index.search import Query, search
from index.store import Store
from index.sync import Progress, SyncReport, context, load
from index.types import Hit
from rag import answer, followup, prompt, weights
from rag.awaitable import answered, each, in_thread
from rag.library import Library
from rag.model import AnthropicModel, EmbeddedModel, LanguageModel, LlamaIndexModel, ModelStatus, OpenAIModel
from rag.presets import PRESETS
from rag.resilient import Pauses, Resilient, Turns
from rag.settings import SEEDS, Settings, without_login
from rag.types import Answer, Event, Turn

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

    from rag.accounts import User
    from rag.fetch_url import Added
    from rag.llama import CitewellQueryEngine, CitewellRetriever

NO_MODEL = "No language model is set, so the documents' own sentences answer."

UNTIL_THEN = "Until then the documents' own sentences answer."

PAGE_SECONDS = 6.0
"""How long a server that has just begun leaves its model alone, so that whoever waits for the page has it first."""

STARTERS = (
    "How long can Kling 3.0 videos be?",
    "Why does Z.ai open-source its models?",
    "How does the Chinese government fund AI research?",
    "Who is Zhou, and why can he not rely on brute force?",
)
"""Questions on the seed documents; other documents give their own."""

log = logging.getLogger(__name__)


class Assistant:
    """Answers questions about the documents in one store. Open it with open_assistant(), close it or use it as a context manager."""

    def __init__(
        self,
        settings: Settings,
        store: DocumentStore,
        embedder: Embedder,
        model: LanguageModel | None,
        status: ModelStatus,
        fallback: LanguageModel | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.embedder, self.remembered = embedder, Remembered(embedder)
        self.library = Library(store, embedder, settings.max_bytes)
        self._model = model
        self._fallback = fallback
        self._pauses, self._turns = Pauses(), Turns()
        self._closing = threading.Event()
        self._status = status
        self._renderer = Parser(workers=1)
        self._reranker: Reranker | None = CrossEncoderReranker(settings.reranker) if settings.reranker else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stops what is going on, gives the store back to other processes and frees the model's memory."""
        self._closing.set()
        self.library.close()
        self._renderer.close()
        self.store.close()
        for model in (self._model, self._fallback):
            if isinstance(model, EmbeddedModel):
                model.close()

    def sync(
        self, folder: str | Path, progress: Progress | None = None, stopped: Callable[[], bool] = lambda: False, retry: bool = False
    ) -> SyncReport:
        """Makes the store match a folder; documents of other folders stay. When `stopped` turns true, what is finished is kept.

        With `retry`, files that were rejected are read again although they have not changed. Raises CitewellError when the folder is not there.
        """
        return self.library.sync(Path(folder), progress, stopped, retry)

    def add_url(self, url: str) -> Added:
        """Fetches a public web page and adds it as an upload, in place of what was fetched from that address before; it is read in the background.

        Raises NotAllowed unless the setting `add_urls` is on, NotFetched with the reason, OverLimit where it is too large.
        """
        from rag.fetch_url import add

        return add(url, self.library, self.settings.add_urls)

    def reembed(self, progress: Callable[[int, int, str], None] | None = None, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Gives all passages vectors of the embedding model that is set; word search answers meanwhile. False when it was stopped: it goes on next time.

        Needs a store that was opened with `reembed`, where the model is another than the store's.
        """
        return self.store.replace_vectors(
            self.embedder.identity,
            lambda document, passages: [context(document, passage) for passage in passages],
            self.embedder.embed,
            lambda done, total: progress(done, total, "") if progress else None,
            stopped,
        )

    def page_image(self, document_id: str, page: int, start: int, end: int) -> bytes:
        """A page (from 1) of a PDF as a PNG, with the characters [start, end) of the document's text highlighted as far as they stand on it.

        Raises KeyError for an unknown document or page, CitewellError where the file is no PDF, has changed since it was indexed, or is gone.
        """
        pages = self.store.pages(document_id)
        root, source, indexed = self.store.document_file(document_id)
        if not source.lower().endswith(".pdf"):
            raise CitewellError(f"'{source}' has no pages that can be shown; its text can.")
        if not 1 <= page <= len(pages):
            raise KeyError(page)
        try:
            content, _ = load(self.library.file(root, source), self.settings.max_bytes)
            if fingerprint(content) != indexed:
                raise CitewellError(
                    f"'{source}' has changed since it was indexed, so its pages cannot be shown. Its text here is as it was; sync again."
                )
            begins = pages[page - 1]
            return self._renderer.render(content, page, max(0, start - begins), max(0, end - begins))
        except UnreadableDocument as error:
            raise CitewellError(f"The page of '{source}' cannot be shown: {error}. Its text can.") from error

    def search(self, question: str, history: Sequence[Turn] = (), limit: int = 5, documents: Sequence[str] | None = None) -> list[Hit]:
        """The best passages for a question, best first, without a language model; `documents` narrows to ids or sources (KeyError if unknown)."""
        return self.find(followup.searched(prompt.checked(question), history), limit, documents)

    def find(self, queries: followup.Queries, limit: int = 5, documents: Sequence[str] | None = None) -> list[Hit]:
        """The best passages for several texts that say one question, each with its weight."""
        asked = [Query(text, weight) for text, weight in queries]
        if self._reranker is None:
            return search(self.store, self.remembered, asked, limit, documents)
        found = search(self.store, self.remembered, asked, max(limit, LOOKED_AT), documents)
        return [*reranked(queries[0][0], found[:LOOKED_AT], self._reranker), *found[LOOKED_AT:]][:limit]

    def stream(self, question: str, history: Sequence[Turn] = (), documents: Sequence[str] | None = None) -> Iterator[Event]:
        """Evidence first, then tokens, then the verified Answer: see rag.answer.stream."""
        return answer.stream(question, self, history, documents)

    def ask(self, question: str, history: Sequence[Turn] = (), documents: Sequence[str] | None = None) -> Answer:
        """The verified answer, once it is whole."""
        last: Event | None = None
        for event in self.stream(question, history, documents):
            last = event
        assert isinstance(last, Answer), "a stream ends in its Answer"
        return last

    def for_user(self, user: User) -> Assistant:
        """This assistant as one user has it: whatever is asked of it is answered from what is shared and what is theirs. Cheap: one a request is fine."""
        from rag.own import OwnAssistant

        return OwnAssistant(self, user)

    def astream(self, question: str, history: Sequence[Turn] = (), documents: Sequence[str] | None = None) -> AsyncGenerator[Event, None]:
        """stream() for an event loop, which goes on meanwhile. Closing this, or cancelling whoever waits for it, stops the model."""
        return each(self.stream(question, history, documents))

    async def aask(self, question: str, history: Sequence[Turn] = (), documents: Sequence[str] | None = None) -> Answer:
        """ask() for an event loop, which goes on meanwhile. Cancelling it stops the model."""
        return await answered(self.astream(question, history, documents))

    def as_retriever(self, limit: int = 5, documents: Sequence[str] | None = None) -> CitewellRetriever:
        """search() as a LlamaIndex retriever: nodes with exact offsets. `documents` narrows to ids or sources."""
        from rag.llama import CitewellRetriever

        return CitewellRetriever(self, limit, documents)

    def as_query_engine(self, documents: Sequence[str] | None = None) -> CitewellQueryEngine:
        """ask() as a LlamaIndex query engine: the citations are its source nodes. `documents` narrows to ids or sources."""
        from rag.llama import CitewellQueryEngine

        return CitewellQueryEngine(self, documents)

    def answering_model(self) -> tuple[LanguageModel | None, str]:
        """The model that answers now, and what to tell the user where there is none."""
        return self._model, self._status.message or NO_MODEL

    def question_model(self) -> tuple[Resilient | None, str]:
        """What one question is put to: the models that are set, with their tries, pauses and deadline. Else None, and what to tell the user."""
        model, notice = self.answering_model()
        models = [one for one in (model, self._fallback) if one is not None]
        missing = notice.replace(UNTIL_THEN, "").strip() if model is None else ""
        return (Resilient(models, self.settings.longest_answer, self._pauses, missing, self._turns) if models else None), notice

    def model_status(self) -> ModelStatus:
        """Whether the model can answer, in a plain sentence."""
        if self._status.state == "loading" and isinstance(self._model, EmbeddedModel) and self._model.loaded:
            return ModelStatus("ready", "", self._model.name)  # a question was sooner
        return self._status

    def starters(self) -> tuple[str, ...]:
        """Questions to start from."""
        if self.store.fingerprints(str(SEEDS.resolve())):
            return STARTERS
        return tuple(f"What does “{document.title}” say?" for document in self.store.latest(4))

    def prepare(self, progress: weights.Progress | None = None, after: float = 0.0) -> None:
        """Fetches what is missing of the model and loads it and the embedder, so that no question need wait.

        A model that is there is loaded after so many seconds, or when a question needs it: while it loads, nothing else of this process goes on.
        """
        if isinstance(self._model, EmbeddedModel) and not self._model.loaded:
            self._status = ModelStatus("loading", "The language model is loading.", self._model.name)
        try:
            with self.remembered.loading():
                self.embedder.load()
        except CitewellError as error:
            log.error("%s", error)
        if self._status.state == "fetching":
            wanted = weights.CATALOG[self.settings.model]
            if progress is None:
                log.warning("Fetching the language model '%s' (%.1f GB, once) into %s.", wanted.name, wanted.size / 1e9, self.settings.models_dir)

            def told(done: int, total: int, where: str) -> None:
                self._status = ModelStatus(
                    "fetching",
                    f"The language model is being fetched ({100 * done // total} %). {UNTIL_THEN}",
                    wanted.name,
                )
                if progress:
                    progress(done, total, where)

            try:
                path = weights.fetch(wanted, self.settings.models_dir, told)
            except ModelUnavailable as error:
                # The log and the command line tell where; the page's users have no use for it.
                log.warning("%s", error)
                said = str(error).replace(str(self.settings.models_dir), "the models folder")
                self._status = ModelStatus("missing", f"{said} {UNTIL_THEN}", wanted.name)
                return
            self._model, self._status = _embedded(path, wanted.name, self.settings)
            after = 0.0
        if isinstance(self._model, EmbeddedModel) and not self._model.loaded:
            self._status = ModelStatus("loading", "The language model is loading.", self._model.name)
            if self._closing.wait(after):
                return
            try:
                self._model.load()
            except ModelUnavailable as error:
                self._model, self._status = (
                    None,
                    ModelStatus("missing", f"{error} {UNTIL_THEN}", self._status.name),
                )
                return
            self._status = ModelStatus("ready", "", self._model.name)

    def prepare_in_background(self) -> None:
        """prepare() in a thread of its own, whose failure shows in the status."""

        def prepared() -> None:
            try:
                self.prepare(after=PAGE_SECONDS)
            except Exception:
                log.exception("The model could not be prepared")
                self._model, self._status = None, ModelStatus("missing", f"The model could not be prepared; the log says why. {UNTIL_THEN}", "none")

        threading.Thread(target=prepared, name="citewell-prepare", daemon=True).start()


def open_assistant(
    settings: Settings | None = None,
    *,
    llm: LLM | None = None,
    fetch: bool = True,
    progress: weights.Progress | None = None,
    reembed: bool = False,
    patient: bool = False,
) -> Assistant:
    """Opens the store that the settings name, with its embedder and model. `llm` is any LlamaIndex LLM, in place of `settings.model`.

    The embedded model's file is fetched when it is missing, unless `fetch` is False. A model that cannot be had is no error: the status tells, and
    the documents' own sentences answer. With `reembed`, a store that was made with another embedding model opens too, for Assistant.reembed().
    A `patient` one leaves for some seconds what would hold a start up and is not needed yet.
    Raises StoreInUse, StoreTooNew, StoreDamaged, EmbedderChanged, InvalidSettings, DamagedWeights.
    """
    settings = settings or Settings()
    model, status = (LlamaIndexModel(llm, settings.model_seconds), ModelStatus("ready", "", "llm")) if llm is not None else configured_model(settings)
    fallback = fallback_model(settings)
    embedder = open_embedder(settings.embedder)
    store = open_store(settings, embedder.identity, reembed, patient)
    assistant = Assistant(settings, store, embedder, model, status, fallback)
    if status.state == "fetching" and fetch:
        try:
            assistant.prepare(progress)
        except BaseException:
            assistant.close()
            raise
    return assistant


def open_store(settings: Settings, embedder_identity: str, reembed: bool = False, patient: bool = False) -> DocumentStore:
    """The store that the settings name: in the data folder, `patient` as Store is, or the one that machines share. Raises what opening either raises."""
    if not settings.shared:
        return Store(settings.data_dir, embedder_identity, reembed, patient)
    from index.chroma_server import ChromaAddress
    from index.postgres import PostgresStore

    key = settings.chroma_api_key.get_secret_value()
    chroma = ChromaAddress(settings.chroma_url, key, settings.chroma_tenant, settings.chroma_database)
    return PostgresStore(settings.data_dir, settings.store_url.get_secret_value(), chroma, embedder_identity, reembed)


def configured_model(settings: Settings) -> tuple[LanguageModel | None, ModelStatus]:
    """The model that the settings name, not loaded, and its status. Raises InvalidSettings, DamagedWeights."""
    chosen = settings.model
    if chosen == "none":
        return None, ModelStatus("none", NO_MODEL, "none")
    if chosen in weights.CATALOG:
        path = weights.locate(weights.CATALOG[chosen], settings.models_dir)
        if path is None:
            message = f"The language model has not been fetched yet. {UNTIL_THEN}"
            return None, ModelStatus("fetching", message, chosen)
        return _embedded(path, chosen, settings)
    place, _, named = chosen.partition("#")
    if place.startswith(("http://", "https://")):
        name = named or settings.model_name
        if not name:
            raise InvalidSettings(
                f"The model is set to the URL {settings.model_shown}; set CITEWELL_MODEL_NAME to the name of the model to ask for there."
            )
        model = OpenAIModel(place, name, settings.api_key.get_secret_value(), settings.model_seconds)
        return model, ModelStatus("ready", "", name)
    if place.lower() in PRESETS:
        return preset_model(place.lower(), named, settings)
    if chosen.lower().endswith(".gguf"):
        path = Path(chosen).expanduser()
        if not path.is_file():
            raise InvalidSettings(f"The model is set to {chosen}, but there is no such file. Check the path, or set CITEWELL_MODEL=embedded.")
        try:
            with path.open("rb") as file:
                opening = file.read(4)
        except OSError as error:
            raise InvalidSettings(
                f"The model file {chosen} cannot be read ({error.strerror}). Check who may read it, or set CITEWELL_MODEL=embedded."
            ) from None
        if opening != b"GGUF":
            raise DamagedWeights(
                f"{chosen} is no GGUF file. Only GGUF files can be run; set CITEWELL_MODEL=embedded for the model that Citewell fetches itself."
            )
        return _embedded(path, path.stem, settings)
    known = ", ".join(
        [
            "embedded",
            "embedded-small",
            "none",
            "a path to a .gguf file",
            "an http(s) URL of an OpenAI-compatible server",
            f"or one of {', '.join(PRESETS)}",
        ]
    )
    raise InvalidSettings(f"The model '{without_login(chosen)}' is not known. CITEWELL_MODEL can be: {known}.")


def preset_model(name: str, model_name: str, settings: Settings) -> tuple[LanguageModel, ModelStatus]:
    """The model of a preset. Raises InvalidSettings where its key is missing."""
    preset = PRESETS[name]
    own = settings.api_key.get_secret_value()
    key = own or os.environ.get(preset.key, "")
    if preset.key and not key:
        raise InvalidSettings(f"The model '{name}' needs a key of {preset.title}. Set {preset.key} in the environment.")
    speaks = AnthropicModel if preset.manners.protocol == "anthropic" else OpenAIModel
    wanted = model_name or settings.model_name or preset.model
    variable = preset.key if preset.key and not own else "CITEWELL_API_KEY"
    model = speaks(preset.url, wanted, key, settings.model_seconds, manners=preset.manners, key_variable=variable, title=preset.title)
    return model, ModelStatus("ready", "", model.name)


def fallback_model(settings: Settings) -> LanguageModel | None:
    """The second model, None where there is none. Raises InvalidSettings, DamagedWeights.

    The first model's key and name are not its own, so it has its preset's variable and what stands behind `#`.
    """
    chosen = settings.fallback_model
    if not chosen or settings.model == "none":
        return None
    place, _, named = chosen.partition("#")
    own = settings.model_copy(update={"model": chosen, "model_name": "", "api_key": SecretStr("")})
    try:
        if place.startswith(("http://", "https://")) and not named:
            return OpenAIModel(place, "", "", settings.model_seconds)  # it is asked what it runs
        model, _ = configured_model(own)
    except InvalidSettings as error:
        raise InvalidSettings(f"The second model, CITEWELL_FALLBACK_MODEL={without_login(chosen)}, cannot be used: {error}") from None
    if model is None:
        advice = f"has not been fetched: run `citewell fetch --model {chosen}`" if chosen in weights.CATALOG else "answers nothing: leave it empty"
        raise InvalidSettings(f"The second model, CITEWELL_FALLBACK_MODEL={chosen}, {advice}.")
    return model


def _embedded(path: Path, name: str, settings: Settings) -> tuple[EmbeddedModel, ModelStatus]:
    return EmbeddedModel(path, name, settings.model_seconds), ModelStatus("ready", "", name)


_default: Assistant | None = None
_opening = threading.Lock()


def default_assistant() -> Assistant:
    """The assistant that ask() uses, opened once; the seed documents are indexed when its store is empty."""
    global _default
    with _opening:
        if _default is None:
            opened = open_assistant()
            try:
                seed(opened)
            except BaseException:
                opened.close()
                raise
            _default = opened
        return _default


def seed(assistant: Assistant, progress: Progress | None = None) -> SyncReport | None:
    """Indexes the seed documents when the store holds nothing else, so that an interrupted start is made good.

    None when it holds other documents, or held some that damage took: those are to be synced again, and no stranger's in their place.
    """
    if assistant.store.lost() or assistant.store.document_count() > len(assistant.store.fingerprints(str(SEEDS.resolve()))):
        return None
    return assistant.sync(SEEDS, progress)


def stream(
    question: str, history: Sequence[Turn] = (), assistant: Assistant | None = None, documents: Sequence[str] | None = None
) -> Iterator[Event]:
    """Evidence, tokens, then the Answer, from the default assistant or the one given."""
    return (assistant or default_assistant()).stream(question, history, documents)


def ask(question: str, history: Sequence[Turn] = (), assistant: Assistant | None = None, documents: Sequence[str] | None = None) -> Answer:
    """The verified answer to a question about the documents. Opens the default assistant at the first call.

    Raises InvalidQuestion, KeyError for an unknown document, and what open_assistant() raises.
    """
    return (assistant or default_assistant()).ask(question, history, documents)


async def astream(
    question: str, history: Sequence[Turn] = (), assistant: Assistant | None = None, documents: Sequence[str] | None = None
) -> AsyncGenerator[Event, None]:
    """stream() for an event loop, which goes on meanwhile. Closing this, or cancelling whoever waits for it, stops the model."""
    opened = await in_thread(default_assistant) if assistant is None else assistant
    async with aclosing(opened.astream(question, history, documents)) as events:
        async for event in events:
            yield event


async def aask(question: str, history: Sequence[Turn] = (), assistant: Assistant | None = None, documents: Sequence[str] | None = None) -> Answer:
    """ask() for an event loop, which goes on meanwhile. Cancelling it stops the model. Raises what ask() raises."""
    return await answered(astream(question, history, assistant, documents))
