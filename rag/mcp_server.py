"""The MCP door: the tools `ask`, `search` and `read_span` for other assistants, over standard input and output or over HTTP.

The low-level server of the `mcp` package is used, because its other one tells a caller what is wrong with arguments in pydantic's words.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import anyio
import httpx2
from mcp import Client, types
from mcp.client.streamable_http import streamable_http_client
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.types import Receive, Scope, Send

from index.errors import CitewellError
from index.types import Hit
from rag import __version__
from rag.assistant import Assistant
from rag.awaitable import each, in_thread
from rag.readable import readable
from rag.remote import Running
from rag.settings import problem_told
from rag.types import Answer, Event, Evidence, Turn

log = logging.getLogger(__name__)

MOST_CHARACTERS = 20_000
"""The most that read_span gives at a time: a caller's context is not for whole books."""

MOST_HITS = 50
ANSWER_SECONDS = 900.0
"""How long the server that owns the store may take for one answer."""

PROGRESS_SECONDS = 1.0
UNEXPECTED = "Something went wrong here. The log of Citewell says what."

Context = ServerRequestContext[Any]
Stream = Callable[[Assistant, str, Sequence[Turn], Sequence[str] | None], Iterator[Event]]


def plain(assistant: Assistant, question: str, history: Sequence[Turn], documents: Sequence[str] | None) -> Iterator[Event]:
    """assistant.stream(), with nothing around it."""
    return assistant.stream(question, history, documents)


class EarlierTurn(BaseModel):
    """One earlier message of the conversation."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["user", "assistant"]
    text: str


class AskArguments(BaseModel):
    """What `ask` takes."""

    model_config = ConfigDict(extra="forbid")
    question: str = Field(description="One question about the documents.")
    documents: list[str] | None = Field(None, description="Ids or sources of the documents to look in alone.", max_length=10_000)
    history: list[EarlierTurn] = Field([], description="The conversation so far, so that 'it' and 'they' can be understood.", max_length=1_000)


class SearchArguments(BaseModel):
    """What `search` takes."""

    model_config = ConfigDict(extra="forbid")
    query: str = Field(description="What to look for: a question or a few words.")
    limit: int = Field(5, description="How many passages to give.", ge=1, le=MOST_HITS)
    documents: list[str] | None = Field(None, description="Ids or sources of the documents to look in alone.", max_length=10_000)


class SpanArguments(BaseModel):
    """What `read_span` takes."""

    model_config = ConfigDict(extra="forbid")
    document_id: str = Field(description="A document's id, from a citation or a passage.")
    start: int = Field(description="The first character, counted from 0 in the document's stored text.", ge=0)
    end: int = Field(description=f"The character behind the last one; at most {MOST_CHARACTERS:,} behind the first.", ge=1)


class Found(BaseModel):
    """What `search` gives: the passages, best first."""

    hits: list[Hit]


class SpanText(BaseModel):
    """What `read_span` gives: `text` is the document's stored text from `start` to `end`, `size` the length of all of it."""

    document_id: str
    source: str
    title: str
    start: int
    end: int
    size: int
    text: str


class Refused(Exception):
    """A call that cannot be done; its text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool: what a caller is told of it, and what it does with checked arguments."""

    name: str
    title: str
    description: str
    takes: type[BaseModel]
    gives: Any


TOOLS = (
    Tool(
        "ask",
        "Ask the documents",
        "Answers a question from the user's own documents. Every sentence carries the number of the exact words that bear it out; what the documents do "
        "not say is said to be not found. `citations` of the structured result give document_id, start and end for read_span.",
        AskArguments,
        Answer,
    ),
    Tool(
        "search",
        "Search the documents",
        "Finds the passages of the user's own documents that are nearest to a question, best first, without a language model.",
        SearchArguments,
        Found,
    ),
    Tool("read_span", "Read from a document", "Gives the exact text of a document between two offsets.", SpanArguments, SpanText),
)


def server_of(own: Callable[[Context], Assistant], stream: Stream = plain) -> Server[Any]:
    """The tools, done by the assistant of this process that a call is to have; `stream` has it answer."""

    async def ask(asked: AskArguments, context: Context) -> types.CallToolResult:
        history = [Turn(turn.role, turn.text) for turn in asked.history]
        answer: Answer | None = None
        told = 0.0
        async with aclosing(each(stream(own(context), asked.question, history, asked.documents))) as events:
            async for event in events:
                if isinstance(event, Answer):
                    answer = event
                elif isinstance(event, Evidence) or time.monotonic() - told > PROGRESS_SECONDS:
                    # A caller who asked for progress waits longer while some comes.
                    told = time.monotonic()
                    await context.session.report_progress(told, None, "Reading the passages" if isinstance(event, Evidence) else "Writing the answer")
        assert answer is not None, "a stream ends in its Answer"
        return _given(readable(answer), answer.to_dict())

    async def search(asked: SearchArguments, context: Context) -> types.CallToolResult:
        hits = await in_thread(partial(own(context).search, asked.query, limit=asked.limit, documents=asked.documents))
        return _given("\n\n".join(map(_shown, hits)) or "Nothing was found.", {"hits": [asdict(hit) for hit in hits]})

    async def read_span(asked: SpanArguments, context: Context) -> types.CallToolResult:
        return await in_thread(partial(_span, own(context), asked))

    done: dict[str, Callable[[Any, Context], Awaitable[types.CallToolResult]]] = {"ask": ask, "search": search, "read_span": read_span}

    async def call(context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        try:
            tool = next((tool for tool in TOOLS if tool.name == params.name), None)
            if tool is None:
                raise Refused(f"There is no tool '{params.name[:100]}'. There are: {', '.join(tool.name for tool in TOOLS)}.")
            return await done[tool.name](_checked(tool, params.arguments or {}), context)
        except (CitewellError, Refused) as error:
            return _failed(str(error))
        except Exception as error:
            if isinstance(error, KeyError) and error.args[0] in _named(params.arguments or {}):
                return _failed(f"There is no document '{error.args[0]}'.")
            log.exception("A tool failed")
            return _failed(UNEXPECTED)

    return _server(call)


def relay(running: Running) -> Server[Any]:
    """The tools, done by the server that owns the store."""

    async def call(context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        try:
            wait = httpx2.Timeout(30, read=ANSWER_SECONDS)
            async with (
                httpx2.AsyncClient(trust_env=False, timeout=wait, verify=False, headers=running.headers) as http,
                Client(streamable_http_client(f"{running.address}/mcp", http_client=http)) as owner,
            ):
                return await owner.call_tool(params.name, params.arguments, progress_callback=context.session.report_progress)
        except Exception:
            log.exception("The Citewell at %s did not answer", running.address)
            return _failed(f"The Citewell that owns this store, at {running.address}, does not answer. Start it again with `citewell serve`.")

    return _server(call)


def _server(call: Callable[[Context, types.CallToolRequestParams], Awaitable[types.CallToolResult]]) -> Server[Any]:
    listed = [
        types.Tool(
            name=tool.name,
            title=tool.title,
            description=tool.description,
            input_schema=tool.takes.model_json_schema(),
            output_schema=TypeAdapter(tool.gives).json_schema(mode="serialization"),
            annotations=types.ToolAnnotations(read_only_hint=True, open_world_hint=False),
        )
        for tool in TOOLS
    ]

    async def list_tools(context: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=listed)

    return Server("citewell", version=__version__, title="Citewell", on_list_tools=list_tools, on_call_tool=call)


def _checked(tool: Tool, arguments: dict[str, Any]) -> BaseModel:
    """The arguments as the tool takes them. Raises Refused with what is wrong; what was given is not repeated."""
    try:
        return tool.takes.model_validate(arguments)
    except ValidationError as error:
        problems = [f"'{'.'.join(str(part) for part in found['loc'])}' {problem_told(dict(found))}" for found in error.errors()]
        names = ", ".join(f"'{name}'" for name in tool.takes.model_fields)
        raise Refused(f"The call cannot be done: {', '.join(problems[:5])}. '{tool.name}' takes {names}.") from None


def _named(arguments: dict[str, Any]) -> list[Any]:
    """The documents that a call names."""
    return [arguments.get("document_id"), *(arguments.get("documents") or ())]


def _span(assistant: Assistant, asked: SpanArguments) -> types.CallToolResult:
    document = assistant.store.document(asked.document_id)
    size = len(document.text)
    if asked.end <= asked.start:
        raise Refused(f"'end' must be more than 'start', and {asked.end} is not more than {asked.start}.")
    if asked.end > size:
        raise Refused(f"The text of '{document.source}' has {size:,} characters, so 'end' can be at most {size}.")
    if asked.end - asked.start > MOST_CHARACTERS:
        raise Refused(f"At most {MOST_CHARACTERS:,} characters can be read at a time. Read on from where a span ends.")
    text = document.text[asked.start : asked.end]
    span = SpanText(
        document_id=document.id, source=document.source, title=document.title, start=asked.start, end=asked.end, size=size, text=text
    )  # fmt: skip
    return _given(text, span.model_dump())


def _shown(hit: Hit) -> str:
    passage = hit.passage
    place = f"document_id {passage.document_id}, characters {passage.span.start} to {passage.span.end}"
    return f"{passage.title} ({passage.source}; {place}):\n{passage.text}"


def _given(text: str, structured: dict[str, Any]) -> types.CallToolResult:
    # Through JSON: what is structured must be plain lists and dicts, as it is for every other door.
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], structured_content=json.loads(json.dumps(structured)))


def _failed(message: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=message)], is_error=True)


def serve_stdio(server: Server[Any]) -> None:
    """Answers over standard input and output until the input ends. What anything else prints meanwhile goes to standard error."""

    async def run() -> None:
        async with stdio_server() as (incoming, outgoing):
            # What was printed and stands in a buffer yet would be lost at the end, or written between the protocol's lines.
            with redirect_stdout(sys.stderr):
                await server.run(incoming, outgoing, server.create_initialization_options())

    anyio.run(run)


class OverHttp:
    """The tools for an HTTP server: an ASGI response for each request, between the beginning and the end of running()."""

    def __init__(self, server: Server[Any]) -> None:
        self._server = server
        self._manager: StreamableHTTPSessionManager | None = None

    @asynccontextmanager
    async def running(self, app: Any = None) -> AsyncIterator[None]:
        """For the lifespan of an app."""
        # Without sessions: each request stands for itself, and whoever must sign in does so for each. Host and origin are checked by the app.
        self._manager = StreamableHTTPSessionManager(self._server, stateless=True)
        async with self._manager.run():
            yield
        self._manager = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._manager is not None, "the app's lifespan has not begun"
        await self._manager.handle_request(scope, receive, send)
