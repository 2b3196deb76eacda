"""/api/documents: list, upload, look at and remove documents."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from index.errors import CitewellError
from index.read import fingerprint
from rag.assistant import Assistant
from rag.library import entry, fates, is_upload, listing, safe_name, without_room
from rag.limits import FILES_TOGETHER
from rag.service import Service

FIELDS, FIELD_BYTES = 10, 10_000
"""The most fields beside files, and bytes of each: no field means anything here."""

FILES = 100
"""The most files that one request may bring."""

READ_SECONDS = 120.0
"""How long an upload waits for its files to be read; they are read nevertheless, and the listing tells."""

UPLOAD_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                "required": ["file"],
            }
        }
    },
}


class WebPage(BaseModel):
    """The body of POST /api/documents/url."""

    model_config = ConfigDict(extra="forbid")
    url: str


def routes(service: Service) -> APIRouter:
    """All addresses below /api/documents."""
    router = APIRouter()

    @router.get("/api/documents", summary="List the documents, and the files that were rejected")
    def documents(request: Request) -> list[dict[str, Any]]:
        return listing(service.own(request.scope).store)

    @router.post("/api/documents", summary="Add files", openapi_extra={"requestBody": UPLOAD_BODY})
    async def add(request: Request) -> dict[str, Any]:
        """Takes one or more files as multipart/form-data and waits until they are read. Each becomes a document or is rejected, and why.

        A file of the same name is replaced. 413, and nothing is kept, where one is larger than `max_file_mb` or than the room that the user has left;
        429 where two uploads of the user's are coming in already.
        """
        assistant = service.own(request.scope)
        # Nothing of what was sent lies about while its files are read, which may take minutes.
        with assistant.library.uploading():
            async with _uploaded(request, assistant) as files:
                taken = [await run_in_threadpool(_taken, assistant, file) for file in files]
        return {"files": await _settled(assistant, taken)}

    @router.post("/api/documents/url", summary="Add a web page by its address")
    async def add_url(request: Request, asked: WebPage) -> dict[str, Any]:
        """Fetches the page and waits until it is read; a page that was fetched from the same address before is replaced.

        403 unless the setting `add_urls` is on. 422 where the page is not fetched, and why; 413 where it is larger than may be.
        """
        assistant = service.own(request.scope)
        source, wanted = await run_in_threadpool(assistant.add_url, asked.url)
        return {"files": await _settled(assistant, [(source, wanted, "")])}

    @router.get("/api/documents/{document_id}", summary="What is known of a document")
    def about(request: Request, document_id: str) -> dict[str, Any]:
        try:
            return entry(service.own(request.scope).store.info(document_id))
        except KeyError:
            raise _unknown() from None

    @router.get("/api/documents/{document_id}/text", summary="A document's text, which citations' offsets count in", response_class=PlainTextResponse)
    def text(request: Request, document_id: str) -> PlainTextResponse:
        try:
            return PlainTextResponse(service.own(request.scope).store.text(document_id))
        except KeyError:
            raise _unknown() from None

    @router.delete("/api/documents/{document_id}", summary="Remove a document")
    def remove(request: Request, document_id: str) -> dict[str, str]:
        """An uploaded file is deleted; one of a synced folder stays where it is, and is left out from now on."""
        assistant = service.own(request.scope)
        try:
            root, source, _ = assistant.store.document_file(document_id)
            assistant.library.remove([document_id])
        except KeyError:
            raise _unknown() from None
        return {"id": document_id, "source": source, "file": "deleted" if is_upload(root) else "kept"}

    return router


def _unknown() -> HTTPException:
    return HTTPException(404, "There is no such document.")


class _TooLarge(Exception):
    """A file of a form, or all of them together, are larger than may be; its text says which."""


class _Bounded(MultiPartParser):
    """Reads a form whose files have a limit: the rest of one that is larger is not even written down."""

    def __init__(self, request: Request, assistant: Assistant) -> None:
        super().__init__(request.headers, request.stream(), max_files=FILES, max_fields=FIELDS, max_part_size=FIELD_BYTES)
        self._most, self._room = assistant.settings.max_bytes, assistant.library.room
        self._rooms: dict[int, int] = {}
        self._sizes: dict[int, int] = {}

    def on_headers_finished(self) -> None:
        """Called by the parser before a part: of a file for which there is no room nothing is written down. Raises OverLimit."""
        super().on_headers_finished()
        file = self._current_part.file
        if file is not None:
            self._rooms[id(file)] = self._room((safe_name(file.filename or ""),))

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Called by the parser with a piece of a part."""
        file = self._current_part.file
        if file is not None:
            size = self._sizes[id(file)] = self._sizes.get(id(file), 0) + end - start
            if size > self._most:
                raise _TooLarge(f"'{file.filename}' is larger than {self._most / 1_000_000:g} MB, the most that a file may have.")
            if size > self._rooms[id(file)]:
                raise without_room(file.filename or "", self._rooms[id(file)])
            if sum(self._sizes.values()) > FILES_TOGETHER * self._most:
                raise _TooLarge(f"The files are together larger than {FILES_TOGETHER * self._most / 1_000_000:g} MB. Send them in several requests.")
        super().on_part_data(data, start, end)


@asynccontextmanager
async def _uploaded(request: Request, assistant: Assistant) -> AsyncIterator[list[UploadFile]]:
    """The files of a form, for as long as they are needed."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise HTTPException(415, "Send files as multipart/form-data, such as `curl -F file=@report.pdf`.")
    form = FormData()
    try:
        try:
            form = await _Bounded(request, assistant).parse()
        except _TooLarge as error:
            raise HTTPException(413, f"{error} No file was kept.") from None
        except MultiPartException as error:
            raise HTTPException(400, f"The files cannot be read: {error.message}") from None
        except ClientDisconnect:
            raise HTTPException(400, "The upload broke off. No file was kept.") from None
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if not files:
            raise HTTPException(400, "There is no file in what was sent. Send it as multipart/form-data, such as `curl -F file=@report.pdf`.")
        yield files
    finally:
        await form.close()


def _taken(assistant: Assistant, file: UploadFile) -> tuple[str, str, str]:
    """Hands a file to the library and lets go of what was sent: its source, its fingerprint, and why it was not taken."""
    with tempfile.TemporaryDirectory(prefix="citewell-upload-") as folder, closing(file.file):
        content = file.file.read()
        path, wanted = Path(folder, "file"), fingerprint(content)
        path.write_bytes(content)
        try:
            return assistant.library.add(file.filename or "", path), wanted, ""
        except CitewellError as error:
            return file.filename or "", wanted, str(error)


async def _settled(assistant: Assistant, taken: list[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """What became of files that the library has taken, each a source, a fingerprint and why it was not: waits until they are read."""
    ends = time.monotonic() + READ_SECONDS
    while True:
        told = await run_in_threadpool(fates, assistant.library, assistant.store, taken)
        if time.monotonic() > ends or all(fate["status"] != "waiting" for fate in told):
            return told
        await asyncio.sleep(0.05)
