"""Language models: the embedded one, any OpenAI-compatible server, any LlamaIndex LLM. One Protocol, streamed tokens, own deadline.

Knows nothing of passages or citations. The libraries' own time limits are not relied on: a slow drip gets past them.
"""

from __future__ import annotations

import logging
import math
import re
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from index.errors import ModelUnavailable
from rag.prompt import Message
from rag.types import Usage

if TYPE_CHECKING:
    import httpx
    from llama_index.core.llms import LLM

CONTEXT_TOKENS = 4096
SILENCE_SECONDS = 60.0
"""No answer at all for this long means that a server hangs, even where the deadline is later."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """Whether the model can answer now. `message` is a plain sentence for the user, empty when it can."""

    state: Literal["ready", "loading", "fetching", "missing", "none"]
    message: str
    name: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Last item of a model's stream. `complete` is False when the answer was cut off at its token limit."""

    usage: Usage
    complete: bool = True


class LanguageModel(Protocol):
    """What answering needs of a model. All calls raise ModelUnavailable, with a message for the user, and nothing else."""

    @property
    def name(self) -> str: ...

    def stream(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Finished]:
        """Yields the pieces of the reply, then one Finished. Closing the iterator stops the model."""
        ...

    def probability(self, messages: Sequence[Message]) -> tuple[float, Usage]:
        """How likely the reply to a yes-or-no question is yes, in [0, 1], from one token's probabilities where the model tells them."""
        ...


def reply(model: LanguageModel, messages: Sequence[Message], max_tokens: int) -> tuple[str, Usage]:
    """The whole reply at once."""
    pieces: list[str] = []
    usage = Usage()
    for item in model.stream(messages, max_tokens):
        if isinstance(item, Finished):
            usage = item.usage
        else:
            pieces.append(item)
    return "".join(pieces), usage


def yes_probability(choices: Sequence[tuple[str, float]]) -> float | None:
    """P(yes) among yes and no, from (token, log-probability) pairs; None when neither is among them."""
    yes = sum(math.exp(logprob) for token, logprob in choices if token.strip().lower() == "yes")
    no = sum(math.exp(logprob) for token, logprob in choices if token.strip().lower() == "no")
    return yes / (yes + no) if yes + no else None


class OpenAIModel:
    """A model behind an OpenAI-compatible URL, the embedded server's loopback address among them."""

    def __init__(self, url: str, name: str, key: str, seconds: float, silence: float = SILENCE_SECONDS) -> None:
        from openai import OpenAI

        self._name = name
        self._seconds = seconds
        self._silence = silence
        self._client = OpenAI(base_url=url, api_key=key or "none", max_retries=0, http_client=_http_client(url, seconds))

    @property
    def name(self) -> str:
        return self._name

    def stream(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Finished]:
        deadline = time.monotonic() + self._seconds
        usage, reason, heard = Usage(), None, False
        try:
            with self._create(messages, max_tokens, stream=True, stream_options={"include_usage": True}) as chunks:
                for chunk in chunks:
                    if time.monotonic() > deadline:
                        raise TimeoutError
                    heard = True
                    if chunk.usage:
                        usage = _usage(chunk.usage)
                    for choice in chunk.choices:
                        reason = choice.finish_reason or reason
                        if choice.delta and choice.delta.content:
                            yield choice.delta.content
        except Exception as error:
            if time.monotonic() > deadline:
                raise ModelUnavailable(_too_long(self._name, self._seconds)) from error
            raise self._explained(error) from error
        if not heard:
            raise self._explained(ValueError("no events"))
        if reason is None:
            raise ModelUnavailable(f"The model '{self._name}' broke off in the middle of its answer. Try again.")
        yield Finished(usage, complete=reason != "length")

    def probability(self, messages: Sequence[Message]) -> tuple[float, Usage]:
        from openai import BadRequestError, UnprocessableEntityError

        try:
            try:
                answer = self._create(messages, 1, logprobs=True, top_logprobs=10)
            except (BadRequestError, UnprocessableEntityError):  # not every server tells probabilities
                answer = self._create(messages, 4)
            choice = answer.choices[0]
            told = choice.logprobs.content[0].top_logprobs if choice.logprobs and choice.logprobs.content else []
            likely = yes_probability([(item.token, item.logprob) for item in told or []])
            if likely is None:
                likely = 1.0 if (choice.message.content or "").strip().lower().startswith("yes") else 0.0
            return likely, _usage(answer.usage) if answer.usage else Usage()
        except Exception as error:  # the client does not check what it is sent: a page of HTML has no choices
            raise self._explained(error) from error

    def _create(self, messages: Sequence[Message], max_tokens: int, **options: Any) -> Any:
        wait = min(self._seconds, self._silence) if "stream" in options else self._seconds
        return self._client.chat.completions.create(
            model=self._name,
            messages=list(messages),  # type: ignore[arg-type]
            max_tokens=max_tokens,
            temperature=0.0,
            timeout=wait,
            **options,
        )

    def _explained(self, error: Exception) -> ModelUnavailable:
        import httpx
        import openai

        log.debug("Model call failed", exc_info=error)
        match error:
            case openai.APITimeoutError() | httpx.TimeoutException():
                what = "did not answer in time. Try again, or raise CITEWELL_MODEL_SECONDS"
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                what = "refused the key. Set CITEWELL_API_KEY to one it knows"
            case openai.NotFoundError():
                what = "is not known there. Check CITEWELL_MODEL and CITEWELL_MODEL_NAME"
            case openai.RateLimitError():
                what = "is asked too often at the moment. Try again in a minute"
            case openai.APIStatusError():
                what = f"answered with error {error.status_code}. Try again, or look at that server's log"
            case openai.APIConnectionError():
                what = "cannot be reached. Check that its server runs and that CITEWELL_MODEL is its address"
            case httpx.TransportError():
                what = "broke off in the middle of its answer. Try again"
            case _:
                what = "sent an answer that cannot be read. Check that CITEWELL_MODEL is the address of an OpenAI-compatible server"
        return ModelUnavailable(f"The model '{self._name}' {what}.")


def _http_client(url: str, seconds: float) -> httpx.Client:
    """A client whose replies end at the deadline even while a server keeps sending, and that asks this machine without a proxy between."""
    import httpx
    from openai import DefaultHttpxClient

    class Timed(httpx.SyncByteStream):
        def __init__(self, stream: httpx.SyncByteStream, deadline: float) -> None:
            self._stream, self._deadline = stream, deadline

        def __iter__(self) -> Iterator[bytes]:
            for block in self._stream:
                if time.monotonic() > self._deadline:
                    raise httpx.ReadTimeout("The deadline has passed.")
                yield block

        def close(self) -> None:
            self._stream.close()

    def begin(request: httpx.Request) -> None:
        request.extensions["deadline"] = time.monotonic() + seconds

    def limit(response: httpx.Response) -> None:
        assert isinstance(response.stream, httpx.SyncByteStream)
        response.stream = Timed(response.stream, response.request.extensions["deadline"])

    loopback = re.match(r"https?://(?:[^/@]*@)?(?:localhost|127\.[\d.]+|\[::1\])(?:[:/]|$)", url) is not None
    return DefaultHttpxClient(trust_env=not loopback, event_hooks={"request": [begin], "response": [limit]})


def _too_long(name: str, seconds: float) -> str:
    return f"The model '{name}' did not finish within {seconds:g} seconds. Ask something narrower, or raise CITEWELL_MODEL_SECONDS."


def _usage(told: Any) -> Usage:
    details = getattr(told, "prompt_tokens_details", None)
    cached = getattr(details, "cached_tokens", None) or 0
    return Usage(max(0, (told.prompt_tokens or 0) - cached), told.completion_tokens or 0, cached)


class EmbeddedModel:
    """A GGUF file run in this process by llama.cpp, on loopback behind a random key. Loads when first used, or by load()."""

    def __init__(self, path: Path, name: str, seconds: float) -> None:
        self._path = path
        self._name = name
        self._seconds = seconds
        self._lock = threading.Lock()
        self._server: Any = None
        self._client: OpenAIModel | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def loaded(self) -> bool:
        return self._client is not None

    def load(self) -> OpenAIModel:
        """Starts the model's server once; later calls return at once."""
        with self._lock:
            if self._client is None:
                try:
                    import xllamacpp

                    params = xllamacpp.CommonParams()
                    params.model.path = str(self._path)
                    params.n_ctx = CONTEXT_TOKENS
                    params.n_parallel = 1
                    params.cache_ram_mib = 256  # the default lets old prompts take 8 GiB
                    params.hostnames, params.port = ["127.0.0.1"], 0
                    key = secrets.token_urlsafe(32)
                    params.api_keys = [key]
                    params.ui, params.endpoint_slots, params.endpoint_props = False, False, False
                    params.cors_origins = ""
                    params.verbosity = -1
                    self._server = xllamacpp.Server(params)
                except Exception as error:
                    raise ModelUnavailable(
                        f"The model file {self._path} cannot be loaded ({str(error).strip() or type(error).__name__}). "
                        "Check that it is a whole .gguf file and that memory is free."
                    ) from error
                self._client = OpenAIModel(f"{self._server.listening_address}/v1", self._name, key, self._seconds, self._seconds)
            return self._client

    def stream(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Finished]:
        return self.load().stream(messages, max_tokens)

    def probability(self, messages: Sequence[Message]) -> tuple[float, Usage]:
        return self.load().probability(messages)

    def close(self) -> None:
        """Frees the model's memory."""
        with self._lock:
            self._client = self._server = None


class LlamaIndexModel:
    """Any LlamaIndex LLM object, so that each of its provider packages can answer."""

    def __init__(self, llm: LLM, seconds: float) -> None:
        self._llm = llm
        self._seconds = seconds

    @property
    def name(self) -> str:
        return str(self._llm.metadata.model_name or type(self._llm).__name__)

    def stream(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Finished]:
        from llama_index.core.llms import ChatMessage

        deadline = time.monotonic() + self._seconds
        try:
            pieces = self._llm.stream_chat([ChatMessage(role=message["role"], content=message["content"]) for message in messages])
            with closing(pieces):
                for piece in pieces:
                    if time.monotonic() > deadline:
                        raise ModelUnavailable(_too_long(self.name, self._seconds))
                    if piece.delta:
                        yield piece.delta
        except ModelUnavailable:
            raise
        except Exception as error:
            log.debug("Model call failed", exc_info=error)
            raise ModelUnavailable(f"The model '{self.name}' failed ({type(error).__name__}). Try again, or check how it was set up.") from error
        yield Finished(Usage())

    def probability(self, messages: Sequence[Message]) -> tuple[float, Usage]:
        text = ""
        pieces = self.stream(messages, 4)
        with closing(pieces):  # type: ignore[type-var]
            for piece in pieces:
                text += piece if isinstance(piece, str) else ""
                if len(text.split()) > 1:  # the first word decides; what else it would say need not be waited for
                    break
        return (1.0 if text.strip().lower().startswith("yes") else 0.0), Usage()
