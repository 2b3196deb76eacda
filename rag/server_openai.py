"""POST /v1/chat/completions and GET /v1/models: Citewell as OpenAI's client, Open WebUI and their like expect a model.

The last message is the question, the ones before it the conversation. What changes how a model writes (`temperature`, `top_p`, `stop` ...) is taken
and has no effect, as the documents decide what is said; what would change what a caller gets back (several choices, forced tools, pictures, a
schema) is refused. An answer is text with a list of its sources, and whole in the field `citewell`.

A draft is not verified before its end, so a stream sends none of it: a chunk with the role at once, comments while the answer is being made, and then
the verified text in pieces.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import suppress
from typing import Any, Literal
from uuid import uuid4

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from index.errors import CitewellError, InvalidQuestion
from rag.awaitable import answered, each
from rag.problems import problem, told_to_openai
from rag.prompt import checked
from rag.readable import readable, without_sources
from rag.server_replies import GONE, NO_STORE, UNEXPECTED, unless_gone
from rag.service import Service
from rag.types import Answer, Event, Turn, Usage

log = logging.getLogger(__name__)

MODEL = "citewell"
MESSAGES = 1_000
ALIVE_SECONDS = 1.0
"""How often a stream says that it is alive: far below the patience of any client or proxy."""

PIECE = re.compile(r"\s*\S{1,80}(?:\s+\S{1,20}){0,3}|\s+")
"""A few words, with the white space before them: what one chunk of a stream carries."""


class StreamOptions(BaseModel):
    """What a stream is to tell besides the answer."""

    include_usage: bool | None = None


class ChatMessage(BaseModel):
    """A message. Those of the system and of tools say nothing about what was asked, and are left out."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Any = None


class Chat(BaseModel):
    """The body of a chat completion: the fields that mean something here. Others are not looked at and go nowhere."""

    model_config = ConfigDict(extra="ignore")
    model: str
    messages: list[ChatMessage] = Field(min_length=1, max_length=MESSAGES)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: int | None = Field(1, ge=1)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    max_tokens: int | None = Field(None, ge=1, le=999_999)
    max_completion_tokens: int | None = Field(None, ge=1, le=999_999)
    frequency_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    presence_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[Any] | None = None
    tool_choice: Any = None
    function_call: Any = None
    response_format: Any = None
    modalities: list[Any] | None = None
    logprobs: bool | None = None


class Unsupported(Exception):
    """A request asks for something that this door cannot give; `param` is the field at fault."""

    def __init__(self, message: str, param: str, code: str = "unsupported_value") -> None:
        super().__init__(message)
        self.param, self.code = param, code


def routes(service: Service) -> APIRouter:
    """The addresses below /v1."""
    router = APIRouter(prefix="/v1")
    created = int(time.time())

    def model() -> dict[str, Any]:
        return {"id": MODEL, "object": "model", "created": created, "owned_by": "citewell"}

    @router.get("/models", summary="The models, as OpenAI's client lists them: one")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model()]}

    @router.get("/models/{name}", summary="One model", response_model=None)
    async def about(name: str) -> JSONResponse:
        return JSONResponse(model()) if name == MODEL else _no_model(name)

    @router.post("/chat/completions", summary="Ask as OpenAI's client does", response_model=None)
    async def complete(chat: Chat, request: Request) -> Response:
        """The verified answer with its sources; in the field `citewell`, on the last chunk of a stream, the answer as every door gives it."""
        path = request.url.path
        if chat.model != MODEL:
            return _no_model(chat.model)
        try:
            question, history = asked(chat)
        except Unsupported as error:
            return problem(path, str(error), 400, error.param, error.code)
        except InvalidQuestion as error:
            return problem(path, str(error), 400, "messages", "invalid_value")
        events = each(service.stream("openai", service.own(request.scope), question, history))
        address = service.visitors.policy.origin(request.scope)  # as the browser knows it: a proxy may have asked by plain http
        if chat.stream:
            usage = bool(chat.stream_options and chat.stream_options.include_usage)
            return StreamingResponse(_sent(events, address, usage), media_type="text/event-stream", headers=NO_STORE)
        whole = await unless_gone(request, answered(events))
        return JSONResponse(completion(whole, address)) if whole else Response(status_code=GONE)

    @router.api_route("/{rest:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False)
    async def unknown(rest: str) -> None:
        raise HTTPException(404, "Citewell has no such address. It answers /v1/chat/completions and /v1/models.")

    return router


def _no_model(name: str) -> JSONResponse:
    return problem("/v1/", f"There is no model '{name[:100]}' here. Ask for '{MODEL}'.", 404, "model", "model_not_found")


def asked(chat: Chat) -> tuple[str, list[Turn]]:
    """The question and the conversation before it. Raises Unsupported and InvalidQuestion."""
    if chat.n is not None and chat.n > 1:
        raise Unsupported("Citewell gives one answer: leave out 'n', or set it to 1.", "n")
    if chat.tool_choice not in (None, "none", "auto") or chat.function_call not in (None, "none", "auto"):
        param = "function_call" if chat.tool_choice in (None, "none", "auto") else "tool_choice"
        raise Unsupported(f"Citewell calls no tools: leave out '{param}', or set it to 'auto' or 'none'.", param)
    kind = chat.response_format.get("type") if isinstance(chat.response_format, dict) else chat.response_format
    if kind not in (None, "text"):
        raise Unsupported("Citewell answers in text: leave out 'response_format'. The answer as JSON is in the field 'citewell'.", "response_format")
    if chat.modalities not in (None, [], ["text"]):
        raise Unsupported("Citewell answers in text: leave out 'modalities'.", "modalities")
    if chat.logprobs:
        raise Unsupported("Citewell tells no 'logprobs': leave it out. How sure an answer is, its field 'citewell' tells.", "logprobs")
    turns: list[Turn] = []
    for number, message in enumerate(chat.messages):
        text = _text(message, f"messages.{number}.content")
        if message.role == "user":
            turns.append(Turn("user", text))
        elif message.role == "assistant" and text:
            turns.append(Turn("assistant", without_sources(text)))
    if not turns or turns[-1].role != "user":
        raise Unsupported("The last message must be the user's: it is the question.", "messages", "invalid_value")
    return checked(turns[-1].text), turns[:-1]


def _text(message: ChatMessage, param: str) -> str:
    parts = message.content
    if parts is None or isinstance(parts, str):
        return parts or ""
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise Unsupported(f'\'{param}\' must be text, or a list of parts such as {{"type": "text", "text": "Who made it?"}}.', param, "invalid_type")
    if message.role in ("user", "assistant") and any(part.get("type") not in ("text", "refusal") for part in parts):
        raise Unsupported("Citewell reads text alone: leave out pictures, sound and files, or add them as documents.", param)
    return "\n".join(str(part.get("text") or "") for part in parts)


def completion(answer: Answer, address: str) -> dict[str, Any]:
    """An answer as a chat completion."""
    message = {"role": "assistant", "content": readable(answer, address), "refusal": None}
    return {
        **_opening("chat.completion"),
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": _usage(answer.usage),
        "citewell": answer.to_dict(),
    }


def _opening(kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid4().hex}", "object": kind, "created": int(time.time()), "model": MODEL}


def _usage(usage: Usage) -> dict[str, Any]:
    read = usage.prompt_tokens + usage.cached_tokens  # OpenAI counts what stood in the cache among what was read
    return {
        "prompt_tokens": read,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": read + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


async def _sent(events: AsyncGenerator[Event, None], address: str, usage: bool) -> AsyncIterator[str]:
    """The chunks of a stream; a listener who leaves stops the model."""
    opening = _opening("chat.completion.chunk")
    extra = {"usage": None} if usage else {}

    def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _data({**opening, "choices": [choice], **extra, **more})

    working = asyncio.ensure_future(answered(events))
    try:
        yield chunk({"role": "assistant", "content": ""})
        while not (await asyncio.wait((working,), timeout=ALIVE_SECONDS))[0]:
            yield ": the answer is being written and verified\n\n"
        whole = working.result()
        for piece in pieces(readable(whole, address)):
            yield chunk({"content": piece})
        yield chunk({}, "stop", citewell=whole.to_dict())
        if usage:
            yield _data({**opening, "choices": [], "usage": _usage(whole.usage)})
    except CitewellError as error:
        yield _data({"error": told_to_openai(str(error), 503)})
    except Exception:
        log.exception("Answering failed")
        yield _data({"error": told_to_openai(UNEXPECTED, 500)})
    finally:
        working.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await working
    yield "data: [DONE]\n\n"


def pieces(text: str) -> Iterator[str]:
    """A text in pieces of a few words, which joined are the text again."""
    return (found.group() for found in PIECE.finditer(text))


def _data(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"
