"""Language models: the embedded one, servers that speak OpenAI's or Anthropic's protocol, any LlamaIndex LLM. One Protocol, streamed tokens, own deadline.

Knows nothing of passages or citations. What goes wrong is told once, in ModelUnavailable; who tries again, and how often, is rag.resilient's.
"""

from __future__ import annotations

import logging
import math
import queue
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from index.errors import ModelUnavailable
from index.threads import behind_others
from rag import thinking
from rag.presets import Manners
from rag.prompt import Message
from rag.types import Usage
from rag.wire import LINE, Fault, Reply, Wire

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

CONTEXT_TOKENS = 4096
SILENCE_SECONDS = 60.0
"""No answer at all for this long means that a server hangs, even where the deadline is later."""

WORD_TOKENS = 4
THINKING_TOKENS = 2048
"""What a reply of one word may take, and what a model gets to think beforehand once it is found to do so."""

SAID_NOTHING = "answered with nothing. Try again, or set another model."

PLAIN = Manners()

ANTHROPIC_ERRORS = {
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "invalid_request_error": 400,
    "rate_limit_error": 429,
    "overloaded_error": 529,
}
"""The statuses that stand for errors in the midst of a stream: platform.claude.com/docs/en/api/errors."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """Whether the model can answer now. `message` is a plain sentence for the user, empty when it can."""

    state: Literal["ready", "loading", "fetching", "missing", "none"]
    message: str
    name: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Last item of a model's stream. `complete` is False when the answer was cut off at its token limit, or as `broken_off` says, a sentence for the user."""

    usage: Usage
    complete: bool = True
    broken_off: str = ""


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
    """The whole reply at once. Raises ModelUnavailable, also for a reply that was broken off."""
    pieces: list[str] = []
    usage = Usage()
    for item in model.stream(messages, max_tokens):
        if isinstance(item, Finished):
            usage = item.usage
            if item.broken_off:
                raise ModelUnavailable(item.broken_off)
        else:
            pieces.append(item)
    return "".join(pieces), usage


def yes_probability(choices: Sequence[tuple[str, float]]) -> float | None:
    """P(yes) among yes and no, from (token, log-probability) pairs; None when neither is among them."""
    yes = sum(math.exp(logprob) for token, logprob in choices if token.strip().lower() == "yes")
    no = sum(math.exp(logprob) for token, logprob in choices if token.strip().lower() == "no")
    return yes / (yes + no) if yes + no else None


class ServedModel:
    """A model behind a server's URL, the embedded server's loopback address among them. What its manners leave wrong, it learns from the server's refusals.

    With an empty name, the server is asked which model it runs; until then it is called by its title. Subclasses say how its protocol is spoken.
    """

    path: str

    def __init__(
        self,
        url: str,
        name: str,
        key: str,
        seconds: float,
        silence: float = SILENCE_SECONDS,
        manners: Manners = PLAIN,
        key_variable: str = "CITEWELL_API_KEY",
        title: str = "at that address",
    ) -> None:
        self._name, self._found = name, False  # found: told by the server itself, as none was set
        self._key_variable = key_variable
        self._title = title
        self._seconds = seconds
        self._silence = silence
        self._manners = manners
        self._wire = Wire(url, self._headers(key))

    @property
    def name(self) -> str:
        return self._name or self._title

    def stream(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Finished]:
        try:
            while True:
                heard = _Heard()
                room = self._manners.thinks
                spoke = False
                for piece in thinking.spoken(self._pieces(messages, max_tokens + room, heard)):
                    spoke = spoke or not piece.isspace()
                    yield piece
                if heard.complete is None:
                    raise ModelUnavailable(f"The model '{self.name}' broke off in the middle of its answer. Try again.", passing=True)
                if heard.declined and not spoke:
                    raise ModelUnavailable(f"The model '{self.name}' declined to answer. Ask in other words, or set another model.")
                if spoke or heard.complete:
                    break
                if room:
                    raise ModelUnavailable(
                        f"The model '{self.name}' thought until its length limit and said nothing. Ask something narrower, or set another model."
                    )
                self._thinks()
        except Fault as fault:
            raise self._explained(fault) from None
        yield Finished(heard.usage, heard.complete, f"The model '{self.name}' declined to go on." if heard.declined else "")

    def probability(self, messages: Sequence[Message]) -> tuple[float, Usage]:
        try:
            return self._probability(messages)
        except Fault as fault:
            raise self._explained(Fault("silent") if fault.kind == "late" else fault) from None

    def _probability(self, messages: Sequence[Message]) -> tuple[float, Usage]:
        text, usage = reply(self, messages, WORD_TOKENS)
        return self._likely(text), usage

    def _likely(self, text: str) -> float:
        """1 or 0, as the reply says yes or not."""
        said = thinking.without(text).strip()
        if not said:
            raise ModelUnavailable(f"The model '{self.name}' {SAID_NOTHING}", passing=True)
        return 1.0 if re.match(r"\W*yes\b", said, re.IGNORECASE) else 0.0

    def _thinks(self) -> None:
        """From now on there is room to think before the reply."""
        log.debug("The model thinks before it replies")
        self._manners = replace(self._manners, thinks=self._manners.thinks or THINKING_TOKENS)

    def _pieces(self, messages: Sequence[Message], max_tokens: int, heard: _Heard) -> Iterator[str]:
        with self._asked(messages, max_tokens, stream=True) as answer:
            yield from self._read(answer, heard)

    @contextmanager
    def _asked(self, messages: Sequence[Message], max_tokens: int, **options: Any) -> Iterator[Reply]:
        """The server's reply to what it can take: a field or a form that it refuses is left out, once and for all."""
        if not self._name:
            self._name, self._found = self._running(), True
        found = self._found
        while True:
            manners = self._manners
            with ExitStack() as stack:
                try:
                    body = self._body(_shaped(messages, manners.alternates), max_tokens, manners, options)
                    silence = self._silence if options.get("stream") else self._seconds
                    answer = stack.enter_context(self._wire.ask(self.path, body, self._seconds, silence))
                except Fault as fault:
                    if fault.status == 404 and found:
                        # Another model was loaded there meanwhile. It is asked for once: where it is not known either, that is told.
                        found, self._name = False, self._running()
                        continue
                    self._manners = _adapted(manners, fault)
                    if self._manners == manners:
                        raise
                    continue
                yield answer
                return

    def _running(self) -> str:
        """The first model of the server's list that can chat. Raises ModelUnavailable where it lists none."""
        with self._wire.ask("/models", None, self._seconds, self._silence) as answer:
            listed = answer.whole()["data"]
            names = [str(model["id"]) for model in listed if not re.search(r"embed|rerank", str(model["id"]), re.IGNORECASE)]
        if not names:
            raise ModelUnavailable("The model server runs no model at the moment. Load one there, or set CITEWELL_MODEL_NAME.")
        return names[0]

    def _headers(self, key: str) -> dict[str, str]:
        raise NotImplementedError

    def _body(self, messages: list[Message], max_tokens: int, manners: Manners, options: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def _read(self, answer: Reply, heard: _Heard) -> Iterator[str]:
        """The pieces of text of a streamed reply; what else it tells goes into `heard`."""
        raise NotImplementedError

    def _explained(self, fault: Fault) -> ModelUnavailable:
        log.debug("The call of a model failed: %s %s", fault.kind, fault.status or "")
        passing, hung = False, False
        match fault.kind, fault.status:
            case "late", _:
                return ModelUnavailable(_too_long(self.name, self._seconds), hung=True)
            case "silent", _:
                what, hung = "did not answer in time. Try again, or raise CITEWELL_MODEL_SECONDS", True
            case "unreachable", _:
                what, passing = "cannot be reached. Check that its server runs and that CITEWELL_MODEL is its address", True
            case "broken", _:
                what, passing = "broke off in the middle of its answer. Try again", True
            case "hung up", _:
                what = "was stopped. Ask again"
            case "too large", _:
                what = "sent far more than an answer. Check that CITEWELL_MODEL is the address of a model server"
            case "status", 401 | 403:
                what = f"refused the key. Set {self._key_variable} to one it knows"
            case "status", 402:
                what = "asks for payment. Look at your account there"
            case "status", 404:
                what = "is not known there. Check CITEWELL_MODEL and CITEWELL_MODEL_NAME"
            case "status", 429:
                what, passing = "is asked too often at the moment. Try again in a minute", True
            case "status", 400 | 413 if "context" in fault.said and re.search(r"length|exceed|window|size", fault.said):
                what = f"cannot read as much as a question needs. Give it a context of {CONTEXT_TOKENS:,} tokens or more"
            case "status", status if 300 <= status < 400:
                what = "sent the question on to another address. Set CITEWELL_MODEL to that address itself"
            case "status", status:
                what, passing = f"answered with error {status}. Try again, or look at that server's log", status >= 500
            case _:
                what = "sent an answer that cannot be read. Check that CITEWELL_MODEL is the address of an OpenAI-compatible server"
        return ModelUnavailable(f"The model '{self.name}' {what}.", passing=passing, hung=hung, retry_after=fault.retry_after)


@dataclass(slots=True)
class _Heard:
    """What a stream told beside its text. `complete` is None until it says how it ended; `declined`: the model or its service would not go on."""

    usage: Usage = field(default_factory=Usage)
    complete: bool | None = None
    declined: bool = False


class OpenAIModel(ServedModel):
    """A model behind an OpenAI-compatible URL."""

    path = "/chat/completions"

    def _headers(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key or 'none'}"}

    def _body(self, messages: list[Message], max_tokens: int, manners: Manners, options: dict[str, Any]) -> dict[str, Any]:
        body = {"model": self._name, "messages": messages, manners.length: max_tokens, **manners.extras, **options}
        if manners.temperature is not None:
            body["temperature"] = manners.temperature
        if manners.usage and options.get("stream"):
            body["stream_options"] = {"include_usage": True}
        return body

    def _read(self, answer: Reply, heard: _Heard) -> Iterator[str]:
        for event in answer.events():
            _refused(event)
            if event.get("usage"):
                heard.usage = _usage(event["usage"])
            for choice in event.get("choices") or []:
                delta = choice.get("delta") or {}
                heard.declined = heard.declined or choice.get("finish_reason") == "content_filter" or bool(delta.get("refusal"))
                if choice.get("finish_reason"):
                    heard.complete = choice["finish_reason"] != "length" and not heard.declined
                if text := _text(delta.get("content")):
                    yield text

    def _probability(self, messages: Sequence[Message]) -> tuple[float, Usage]:
        manners = self._manners
        if manners.probabilities and not manners.thinks:
            try:
                with self._asked(messages, 1, logprobs=True, top_logprobs=10) as answer:
                    choice, usage = _choice(answer.whole())
            except Fault as fault:
                if fault.status not in (400, 422):
                    raise
                likely, usage = self._in_words(messages)
                self._manners = replace(self._manners, probabilities=False)  # not every server tells them; this one need not be asked again
                return likely, usage
            told = ((choice.get("logprobs") or {}).get("content") or [{}])[0].get("top_logprobs") or []
            known = yes_probability([(str(item["token"]), float(item["logprob"])) for item in told])
            if known is not None:
                return known, usage
            if not told:
                self._manners = replace(self._manners, probabilities=False)  # some servers say nothing about what they leave out
            if not _thought(choice):
                return self._likely(_text(choice["message"].get("content"))), usage
            self._thinks()
        return self._in_words(messages)

    def _in_words(self, messages: Sequence[Message]) -> tuple[float, Usage]:
        while True:
            room = self._manners.thinks
            with self._asked(messages, WORD_TOKENS + room) as answer:
                choice, usage = _choice(answer.whole())
            if room or not _thought(choice):
                return self._likely(_text(choice["message"].get("content"))), usage
            self._thinks()

    @property
    def tells_probabilities(self) -> bool:
        """Whether the gate reads probabilities of it, as far as is known."""
        return self._manners.probabilities and not self._manners.thinks


class AnthropicModel(ServedModel):
    """A model behind Anthropic's Messages API, which tells no probabilities."""

    path = "/messages"
    tells_probabilities = False

    def _headers(self, key: str) -> dict[str, str]:
        return {"x-api-key": key or "none", "anthropic-version": "2023-06-01"}

    def _body(self, messages: list[Message], max_tokens: int, manners: Manners, options: dict[str, Any]) -> dict[str, Any]:
        system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
        turns = _shaped([message for message in messages if message["role"] != "system"], True)
        body = {"model": self._name, "max_tokens": max_tokens, "messages": turns, **manners.extras, **options}
        if system:
            body["system"] = system
        if manners.temperature is not None:
            body["temperature"] = manners.temperature
        return body

    def _read(self, answer: Reply, heard: _Heard) -> Iterator[str]:
        reason = None
        for event in answer.events():
            match event.get("type"):
                case "error":
                    raise Fault("status", ANTHROPIC_ERRORS.get(str(event["error"].get("type")), 500))
                case "message_start":
                    told = event["message"].get("usage") or {}
                    heard.usage = Usage(told.get("input_tokens") or 0, 0, told.get("cache_read_input_tokens") or 0)
                case "content_block_delta" if event["delta"].get("type") == "text_delta":
                    yield str(event["delta"]["text"])
                case "message_delta":
                    reason = event["delta"].get("stop_reason") or reason
                    heard.usage = replace(heard.usage, completion_tokens=(event.get("usage") or {}).get("output_tokens") or 0)
                case "message_stop":
                    heard.complete, heard.declined = reason in ("end_turn", "stop_sequence"), reason == "refusal"


def _shaped(messages: Sequence[Message], alternates: bool) -> list[Message]:
    """The messages with role and content alone; where roles must alternate, system text opens the first user message and neighbours of one role are one."""
    plain = [{"role": message["role"], "content": message["content"]} for message in messages]
    if not alternates:
        return plain
    shaped: list[Message] = []
    for message in plain:
        role = "user" if message["role"] == "system" else message["role"]
        if shaped and shaped[-1]["role"] == role:
            shaped[-1] = {"role": role, "content": f"{shaped[-1]['content']}\n\n{message['content']}"}
        else:
            shaped.append({"role": role, "content": message["content"]})
    return shaped


def _adapted(manners: Manners, fault: Fault) -> Manners:
    """The manners without what a server has just refused, as far as its words tell; the same where they do not."""
    if fault.status not in (400, 422, 500):
        return manners
    said = fault.said
    if re.search(r"system (?:role|message|prompt)|roles? must alternate|alternate user", said):
        return replace(manners, alternates=True)
    if fault.status == 500:
        return manners
    if "max_completion_tokens" in said and manners.length == "max_tokens":
        return replace(manners, length="max_completion_tokens")
    if "temperature" in said and manners.temperature is not None:
        return replace(manners, temperature=None)
    if "stream_options" in said and manners.usage:
        return replace(manners, usage=False)
    if any(name in said for name in manners.extras):
        return replace(manners, extras={}, thinks=manners.thinks or THINKING_TOKENS)  # they kept it from thinking
    return manners


def _refused(event: Mapping[str, Any]) -> None:
    """Raises Fault for an error that comes under a good status, as some services send it."""
    if error := event.get("error"):
        code = error.get("code") if isinstance(error, dict) else None
        raise Fault("status", code if isinstance(code, int) and 300 <= code < 600 else 500)
    if code := (event.get("base_resp") or {}).get("status_code"):  # MiniMax
        raise Fault("status", {1002: 429, 1004: 401, 1008: 402, 1039: 400}.get(code, 500))


def _choice(whole: Mapping[str, Any]) -> tuple[dict[str, Any], Usage]:
    """The one choice of a whole reply, and what it took. Raises Fault."""
    _refused(whole)
    choice = whole["choices"][0]
    if not isinstance(choice["message"], dict):
        raise Fault("unreadable")
    return choice, _usage(whole["usage"]) if whole.get("usage") else Usage()


def _thought(choice: Mapping[str, Any]) -> bool:
    """Whether a reply was cut off while the model thought: its text is thinking, or missing."""
    text = _text(choice["message"].get("content")).lstrip()
    reasons = any(choice["message"].get(name) for name in ("reasoning_content", "reasoning", "reasoning_details"))
    return text.startswith("<") or (not text and (reasons or choice.get("finish_reason") == "length"))


def _text(content: Any) -> str:
    """A content field as text: some services send a list of parts, the thinking among them."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if part.get("type") == "text")
    if content is not None and not isinstance(content, str):
        raise Fault("unreadable")
    return content or ""


def _too_long(name: str, seconds: float) -> str:
    return f"The model '{name}' did not finish within {seconds:g} seconds. Ask something narrower, or raise CITEWELL_MODEL_SECONDS."


def _usage(told: Mapping[str, Any]) -> Usage:
    prompt, completion = told.get("prompt_tokens") or 0, told.get("completion_tokens") or 0
    cached = (told.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Usage(max(0, prompt - cached), completion, cached)


BATCH = 64
"""Tokens that the model in this process reads before it looks whether anybody still waits."""


SENDING_SECONDS = 0.2
"""How long a question holds back that finds the model unloaded: while xllamacpp loads a model, no other thread of this process runs, and evidence that was found just before is on its way to whoever asked."""

NICE = 5
"""By how much the model's threads stand back behind others: it keeps all cores busy for seconds, and the page, the browser and other users' searches need them for moments."""


class EmbeddedModel:
    """A GGUF file run in this process by llama.cpp, on loopback behind a random key. Loads when first used, or by load()."""

    def __init__(self, path: Path, name: str, seconds: float) -> None:
        self._path = path
        self._name = name
        self._seconds = seconds
        self._lock = threading.Lock()
        self._server: Any = None
        self._client: OpenAIModel | None = None
        self._closed = False

    @property
    def name(self) -> str:
        return self._name

    @property
    def loaded(self) -> bool:
        return self._client is not None

    def load(self) -> OpenAIModel:
        """Starts the model's server once; later calls return at once. Raises ModelUnavailable, also after close(): nobody would free what came after it."""
        with self._lock:
            if self._closed:
                raise ModelUnavailable(f"The model '{self._name}' was closed.")
            if self._client is None:
                # A thread of its own: the server's threads have its priority, and nobody can raise their own again.
                with ThreadPoolExecutor(1, thread_name_prefix="citewell-load", initializer=behind_others, initargs=(NICE,)) as loading:
                    self._server, key = loading.submit(self._served).result()
                self._client = OpenAIModel(f"{self._server.listening_address}/v1", self._name, key, self._seconds, self._seconds)
            return self._client

    def _served(self) -> tuple[Any, str]:
        """The model's server on loopback, and the key that it asks for."""
        try:
            import xllamacpp

            from index.threads import cores

            params = xllamacpp.CommonParams()
            params.model.path = str(self._path)
            params.n_ctx = CONTEXT_TOKENS
            params.n_parallel = 1
            # It looks up from a prompt between batches alone: with the default, whoever left keeps it for a quarter of a minute. docs/benchmarks.md
            params.n_batch = params.n_ubatch = BATCH
            # As many threads as this process may have cores, and not as many as the machine has: llama.cpp's wait for work by turning.
            params.cpuparams.n_threads = params.cpuparams_batch.n_threads = cores()
            params.fit_params = False  # it would load the model once more, only to see how much of it fits into the memory of a graphics card
            params.cache_ram_mib = 256  # the default lets old prompts take 8 GiB
            params.hostnames, params.port = ["127.0.0.1"], 0
            key = secrets.token_urlsafe(32)
            params.api_keys = [key]
            params.ui, params.endpoint_slots, params.endpoint_props = False, False, False
            params.cors_origins = ""
            params.verbosity = -1
            return xllamacpp.Server(params), key
        except Exception as error:
            # The answer shows this to whoever asked: the file's name tells enough.
            said = str(error).strip().replace(str(self._path), self._path.name) or type(error).__name__
            raise ModelUnavailable(
                f"The model file {self._path.name} cannot be loaded ({said}). Check that it is a whole .gguf file and that memory is free."
            ) from error

    def stream(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Finished]:
        return self._asked().stream(messages, max_tokens)

    def probability(self, messages: Sequence[Message]) -> tuple[float, Usage]:
        return self._asked().probability(messages)

    def _asked(self) -> OpenAIModel:
        if not self.loaded:
            time.sleep(SENDING_SECONDS)
        return self.load()

    def close(self) -> None:
        """Frees the model's memory, for good. Waits for a model that is being loaded."""
        with self._lock:
            self._closed = True
            self._client = self._server = None


class LlamaIndexModel:
    """Any LlamaIndex LLM object, so that each of its provider packages can answer."""

    tells_probabilities = False

    def __init__(self, llm: LLM, seconds: float) -> None:
        self._llm = llm
        self._seconds = seconds

    @property
    def name(self) -> str:
        return str(self._llm.metadata.model_name or type(self._llm).__name__)

    def stream(self, messages: Sequence[Message], max_tokens: int) -> Iterator[str | Finished]:
        with closing(self._pieces(messages)) as pieces:  # type: ignore[type-var]
            yield from thinking.spoken(pieces)
        yield Finished(Usage())

    def _pieces(self, messages: Sequence[Message]) -> Iterator[str]:
        """The pieces, made in a thread of their own: a call of a library that hangs can be left behind, and nothing else."""
        from llama_index.core.llms import ChatMessage

        deadline = time.monotonic() + self._seconds
        said: queue.Queue[str | ModelUnavailable | None] = queue.Queue()
        wanted = threading.Semaphore(0)
        left = threading.Event()
        line = LINE.get()

        def speak() -> None:
            try:
                pieces = self._llm.stream_chat([ChatMessage(role=message["role"], content=message["content"]) for message in messages])
                with closing(pieces):
                    while wanted.acquire() and not left.is_set():
                        piece = next(pieces, None)
                        said.put(None if piece is None else piece.delta or "")
                        if piece is None:
                            return
            except Exception as error:
                log.debug("The call of a model failed: %s", type(error).__name__)
                said.put(ModelUnavailable(f"The model '{self.name}' failed ({type(error).__name__}). Try again, or check how it was set up."))

        threading.Thread(target=speak, name="citewell-llm", daemon=True).start()
        if line is not None:
            line.hold(lambda: said.put(ModelUnavailable(f"The model '{self.name}' was stopped. Ask again.")))
        try:
            while True:
                wanted.release()
                item: str | ModelUnavailable | None = None
                with suppress(queue.Empty):
                    item = said.get(timeout=max(0.0, deadline - time.monotonic()))
                if time.monotonic() >= deadline:
                    raise ModelUnavailable(_too_long(self.name, self._seconds), hung=True)
                if item is None:
                    return
                if isinstance(item, ModelUnavailable):
                    raise item
                if item:
                    yield item
        finally:
            left.set()
            wanted.release()

    def probability(self, messages: Sequence[Message]) -> tuple[float, Usage]:
        text = ""
        pieces = self.stream(messages, WORD_TOKENS)
        with closing(pieces):  # type: ignore[type-var]
            for piece in pieces:
                text += piece if isinstance(piece, str) else ""
                if len(text.split()) > 1:  # the first word decides; what else it would say need not be waited for
                    break
        return (1.0 if re.match(r"\W*yes\b", text, re.IGNORECASE) else 0.0), Usage()
