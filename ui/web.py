"""What of the page needs no Gradio: the document views, the library, the page's head, and the guard around Gradio's own routes."""

from __future__ import annotations

import json
import logging
import re
import secrets
import tempfile
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from index.errors import CitewellError, NotAllowed, OverLimit
from index.types import DocumentInfo, Span
from rag.headers import NOTHING, hash_source
from rag.library import is_upload, safe_name, without_room
from rag.limits import Shares
from rag.problems import refusal
from ui import conversations, document, library
from ui.chat import Service, Store

log = logging.getLogger(__name__)

# The styles that Gradio itself puts in: an element without content for each gr.HTML; in attributes, those of the cross where an event has ended badly.
GRADIO_STYLE = ""
GRADIO_ATTRIBUTES = (
    "fill-rule:evenodd;clip-rule:evenodd;stroke-linecap:round;stroke-linejoin:round;",
    "fill:none;fill-rule:nonzero;stroke-width:2px;",
)

# Scripts are ours and Gradio's, by their file or by the nonce of the one response that they came with: neither what stands in a page's text nor what is
# compiled from a string (see compiled.js) runs.
PAGE_POLICY = (
    f"default-src 'none'; script-src 'self' 'nonce-{{nonce}}'; style-src 'self' 'nonce-{{nonce}}' {hash_source(GRADIO_STYLE)}; "
    f"style-src-attr 'unsafe-hashes' {' '.join(map(hash_source, GRADIO_ATTRIBUTES))}; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
    "manifest-src 'self'; worker-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
DOCUMENT_POLICY = "default-src 'none'; style-src {style}; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# What a browser shows a picture alone in has style attributes of the browser's.
PICTURE_POLICY = f"{NOTHING}; style-src 'unsafe-inline'"

# Gradio also answers for uploads, files, a proxy to any public address, and descriptions of its API. The page uses none of them: files come in by
# a route of our own below, which takes one at a time, knows the limit before it writes, and leaves nothing behind.
NEEDED = re.compile(
    r"(GET|HEAD) /((config|theme\.css|favicon\.ico|manifest\.json|pwa_icon|robots\.txt)/?|(assets|static)/.+|"
    r"gradio_api/(app_id|queue/data|heartbeat/.+|startup-events)/?)?|"
    r"POST /gradio_api/(queue/join|cancel|reset|run/predict)/?"
)


Endpoint = Callable[[Request], Response]
AsyncEndpoint = Callable[[Request], Awaitable[Response]]

DRAWN_OF_ONE, DRAWN_AT_ONCE = 2, 4
DRAWING_SECONDS = 2.0
"""So many pictures of pages may be being drawn for a user, and for all: one after the other is drawn, and whoever waits holds a thread that others need."""

OURS = "x-citewell"
"""A header that our script sends along with everything that changes something. A page elsewhere cannot send it: the browser would ask first, and is
not answered."""

UNEXPECTED = "Something went wrong, and nothing was changed. The log says more."


# Documents


def document_routes(service: Service, style: str) -> list[Route]:
    """Each document's view, by text or by page, and the pictures of its pages."""
    policy = DOCUMENT_POLICY.format(style=hash_source(style))
    drawing = Shares(DRAWN_OF_ONE, DRAWN_AT_ONCE, "As many pages as may be are being drawn already.", DRAWING_SECONDS)

    # The view of a page asks for its picture to know whether there is one, and the browser asks again: it is drawn once. A file that has changed
    # since is no matter, because the picture is of what was indexed. Whoever asks has been shown to see the document.
    @lru_cache(maxsize=8)
    def drawn(document_id: str, page: int, start: int, end: int, indexed_at: str) -> bytes:
        return service.assistant.page_image(document_id, page, start, end)

    def picture_of(user: str, info: DocumentInfo, page: int, start: int, end: int) -> bytes:
        with drawing.place(user):
            return drawn(info.id, page, start, end, info.indexed_at)

    def by_page(user: str, info: DocumentInfo, text: str, starts: Sequence[int], asked: str, span: Span | None) -> tuple[int, str]:
        page = int(asked) if asked.isascii() and asked.isdecimal() and len(asked) < 9 else 0
        bounds = [0, *starts[1:], len(text)]
        if not (document.has_page_images(info) and 1 <= page < len(bounds)):
            return 404, document.no_page_html(info)
        first, last = bounds[page - 1], bounds[page]
        marked = text[max(span.start, first) : min(span.end, last)] if span else ""
        depth = max(span.start - first, 0) / (last - first) if span and marked else 0.0
        try:
            picture_of(user, info, page, *((span.start, span.end) if span and marked else (0, 0)))
        except KeyError:
            return 404, document.no_page_html(info)
        except OverLimit as error:
            return 429, document.page_image_html(info, page, span, marked, str(error))
        except CitewellError as error:
            return 409, document.page_image_html(info, page, span, marked, str(error))
        return 200, document.page_image_html(info, page, span, marked, "", depth)

    def view(request: Request) -> Response:
        document_id, query = request.path_params["document_id"], request.query_params
        title, status = "No such document", 404
        try:
            store = service.own(request.scope).store
            info, text = store.info(document_id), store.text(document_id)
            furniture, pages = store.furniture(document_id), store.pages(document_id)
        except KeyError:
            article = document.unknown_html()
        else:
            title = info.title
            try:
                span = document.span_of(query.get("start"), query.get("end"), len(text))
            except document.BadSpan:
                status, article = 400, document.misfit_html(info)
            else:
                if query.get("view") == "page":
                    status, article = by_page(service.user(request.scope).id, info, text, pages, query.get("page", "1"), span)
                else:
                    status, article = 200, document.document_html(info, text, span, furniture, pages)
        content = article if "fragment" in query else document.page_html(title, article, style)
        headers = {"Content-Security-Policy": policy, "Cache-Control": "no-cache"}
        return HTMLResponse(content, status, {**headers, "Retry-After": f"{DRAWING_SECONDS:.0f}"} if status == 429 else headers)

    def picture(request: Request) -> Response:
        document_id, said, query = request.path_params["document_id"], request.path_params["page"], request.query_params
        page = int(said) if said.isascii() and said.isdecimal() and len(said) < 9 else 0
        try:
            info = service.own(request.scope).store.info(document_id)
            span = document.span_of(query.get("start"), query.get("end"), info.size) or Span(0, 0)
            content = picture_of(service.user(request.scope).id, info, page, span.start, span.end)
        except KeyError:
            return PlainTextResponse("There is no such page.", 404)
        except document.BadSpan:
            return PlainTextResponse("The link points outside the text of the document.", 400)
        except OverLimit as error:
            return PlainTextResponse(str(error), 429, {"Retry-After": f"{DRAWING_SECONDS:.0f}"})
        except CitewellError as error:
            return PlainTextResponse(str(error), 409)
        return Response(content, media_type="image/png", headers={"Content-Security-Policy": PICTURE_POLICY, "Cache-Control": "no-cache"})

    return [
        Route("/documents/{document_id:path}/pages/{page}.png", picture, methods=["GET"]),
        Route("/documents/{document_id:path}", view, methods=["GET"]),
    ]


# The library


def library_routes(service: Service) -> list[Route]:
    """What the documents view asks for: its parts as HTML, and the seven things that it does."""

    def part(html: str) -> Response:
        return HTMLResponse(html, headers={"Cache-Control": "no-store"})

    def frame(request: Request) -> Response:
        settings = service.own(request.scope).settings
        return part(library.view_html(settings.max_bytes, settings.add_urls, service.open))

    def listed(request: Request) -> Response:
        assistant = service.own(request.scope)
        query, store = request.query_params, assistant.store
        wanted = library.Wanted(
            query.get("words", ""),
            query.get("kind", ""),
            query.get("status", ""),
            query.get("order", ""),
            page_of(request),
        )
        known = library.entries(store.documents(), store.rejections(), assistant.library.waiting())
        shown = library.listing(known, wanted)
        sizes = {(row.root, row.source): assistant.library.size(row.root, row.source) for row in shown.rows if row.document is None}
        user = service.user(request.scope)
        viewer = None if service.open else library.Viewer(user.id, user.admin, assistant.library.own_root)
        return part(library.listing_html(shown, datetime.now(UTC), sizes, assistant.library.work() is not None, viewer))

    def working(request: Request) -> Response:
        assistant = service.own(request.scope)
        return part(library.work_html(assistant.library.work(), assistant.library.outcomes(), assistant.store.notices()))

    async def add(request: Request) -> Response:
        """Takes the file that is the body. Its name is a name only: the library decides where it lies."""
        assistant = service.own(request.scope)
        name, limit, began = request.query_params.get("name", ""), assistant.settings.max_bytes, datetime.now(UTC)
        too_large = JSONResponse({"error": f"it is larger than {library.size_text(limit)}"}, 413)
        declared = request.headers.get("content-length", "0")
        if not (declared.isascii() and declared.isdecimal()) or int(declared[:16]) > limit:
            return too_large
        with assistant.library.uploading(), tempfile.TemporaryDirectory(prefix="citewell-upload-") as folder:
            room = await run_in_threadpool(assistant.library.room, (safe_name(name),))
            if int(declared[:16]) > room:
                raise without_room(name, room)
            path, size = Path(folder, "file"), 0
            with path.open("wb") as file:
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > limit:
                        return too_large
                    if size > room:
                        raise without_room(name, room)
                    file.write(chunk)
            source = await run_in_threadpool(assistant.library.add, name, path)
        return JSONResponse({"source": source, "replaced": await run_in_threadpool(there_before, assistant.store, source, began)})

    def there_before(store: Store, source: str, began: datetime) -> bool:
        for identifier in store.ids_of([source]).get(source, ()):
            with suppress(KeyError):  # removed meanwhile
                info = store.info(identifier)
                if is_upload(info.root) and info.source == source and library.time_of(info.indexed_at) < began:
                    return True
        return False

    async def fields(request: Request, name: str) -> dict[str, Any]:
        """The JSON that was sent, which must hold a field of that name."""
        try:
            asked = await request.json()
            json.dumps(asked, ensure_ascii=False).encode()  # half a character, which no file's name holds
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict) or not isinstance(asked.get(name), list if name == "documents" else str):
            raise CitewellError("What was sent is not what this address takes.")
        return asked

    async def add_url(request: Request) -> Response:
        asked = await fields(request, "url")
        try:
            source, _ = await run_in_threadpool(service.own(request.scope).add_url, str(asked["url"]))
        except NotAllowed as error:
            return JSONResponse({"error": str(error)}, 403)
        return JSONResponse({"source": source})

    async def remove(request: Request) -> Response:
        asked = await fields(request, "documents")
        await run_in_threadpool(service.own(request.scope).library.remove, [str(document_id) for document_id in asked["documents"]])
        return JSONResponse({})

    async def share(request: Request) -> Response:
        asked = await fields(request, "document")
        await run_in_threadpool(service.own(request.scope).library.share, str(asked["document"]), asked.get("shared") is True)
        return JSONResponse({})

    async def discard(request: Request) -> Response:
        asked = await fields(request, "source")
        await run_in_threadpool(service.own(request.scope).library.discard, str(asked.get("root")), str(asked["source"]))
        return JSONResponse({})

    async def retry(request: Request) -> Response:
        asked = await fields(request, "source")
        await run_in_threadpool(service.own(request.scope).library.retry, str(asked.get("root")), str(asked["source"]))
        return JSONResponse({})

    async def cancel(request: Request) -> Response:
        await run_in_threadpool(service.own(request.scope).library.cancel)
        return JSONResponse({})

    return [
        Route("/library", frame, methods=["GET"]),
        Route("/library/list", listed, methods=["GET"]),
        Route("/library/work", working, methods=["GET"]),
        Route("/library/files", changing(add), methods=["PUT"]),
        Route("/library/url", changing(add_url), methods=["POST"]),
        Route("/library/remove", changing(remove), methods=["POST"]),
        Route("/library/share", changing(share), methods=["POST"]),
        Route("/library/discard", changing(discard), methods=["POST"]),
        Route("/library/retry", changing(retry), methods=["POST"]),
        Route("/library/cancel", changing(cancel), methods=["POST"]),
    ]


def changing(endpoint: AsyncEndpoint) -> AsyncEndpoint:
    """The endpoint, for our own script alone, with its errors as plain sentences in JSON."""

    async def answered(request: Request) -> Response:
        if OURS not in request.headers:
            return JSONResponse({"error": "This address is for Citewell's own page."}, 403)
        try:
            return await endpoint(request)
        except ClientDisconnect:
            return Response(status_code=499)
        except HTTPException:  # a body that is too large
            raise
        except OverLimit as error:
            return refusal(request.url.path, error)
        except CitewellError as error:
            return JSONResponse({"error": str(error)}, 403 if isinstance(error, NotAllowed) else 422)
        except KeyError:
            return JSONResponse({"error": "It is not there any more."}, 404)
        except Exception:
            log.exception("The library could not be changed")
            return JSONResponse({"error": UNEXPECTED}, 500)

    return answered


# Conversations


def conversation_routes(service: Service) -> list[Route]:
    """What the list of conversations asks for: its parts as HTML. What it does goes by way of /api/conversations."""

    def part(html: str) -> Response:
        return HTMLResponse(html, headers={"Cache-Control": "no-store"})

    def frame(request: Request) -> Response:
        return part(conversations.view_html())

    def listed(request: Request) -> Response:
        user, query, page = service.user(request.scope).id, request.query_params, page_of(request)
        words, first = query.get("words", ""), (page - 1) * conversations.PAGE
        # One more than is shown tells whether there is a next page.
        wanted = conversations.PAGE + 1
        if words.strip():
            found = service.conversations.search(user, words, first + wanted)[first:]
        else:
            found = service.conversations.listing(user, wanted, first)
        shown, more = found[: conversations.PAGE], len(found) > conversations.PAGE
        return part(conversations.listing_html(shown, user, datetime.now(UTC), page, more, words, service.open))

    return [Route("/conversations", frame, methods=["GET"]), Route("/conversations/list", listed, methods=["GET"])]


def page_of(request: Request) -> int:
    """The page of a list that is asked for, from 1; what is no number is the first."""
    page = request.query_params.get("page", "1")
    return max(1, int(page)) if page.isascii() and page.isdecimal() and len(page) < 9 else 1


# The chat page


def head_html(title: str, description: str, style: str, script: str) -> str:
    """What our page has in its head instead of Gradio's descriptions of itself."""
    return (
        f'<title>{title}</title><meta name="description" content="{description}"><meta name="color-scheme" content="light dark">'
        f'<meta name="referrer" content="no-referrer"><link rel="icon" href="favicon.ico" type="image/svg+xml">'
        f"<style>{style}</style><script>{script}</script><noscript>{title} needs JavaScript for its chat page.</noscript>"
    )


def guarded(gradio: ASGIApp, head: str) -> ASGIApp:
    """Gradio's application with only the routes that the page needs, and with our head on the page.

    The head is changed here because Gradio's own `head` option takes effect only after its scripts have run.
    """

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await gradio(scope, receive, send)
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        if not NEEDED.fullmatch(f"{scope['method']} {path}"):
            return await PlainTextResponse("Not found", status_code=404)(scope, receive, send)
        if path != "/":
            return await gradio(scope, receive, send)
        # Without this header the page comes uncompressed, and can be changed.
        plain = {**scope, "headers": [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]}
        start: MutableMapping[str, Any] = {}
        parts: list[bytes] = []

        async def changed(message: Message) -> None:
            if message["type"] == "http.response.start":
                return start.update(message)
            if message["type"] != "http.response.body":
                return await send(message)
            parts.append(message.get("body", b""))
            if message.get("more_body"):
                return None
            nonce = secrets.token_urlsafe(18)
            body = with_head(b"".join(parts), head.encode(), nonce.encode())
            headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
            policy = PAGE_POLICY.format(nonce=nonce).encode()
            headers += [(b"content-length", str(len(body)).encode()), (b"content-security-policy", policy), (b"cache-control", b"no-cache")]
            await send({**start, "headers": headers})
            await send({"type": "http.response.body", "body": body})

        await gradio(plain, receive, changed)

    return guard


def with_head(page: bytes, head: bytes, nonce: bytes) -> bytes:
    """Gradio's page with `head` in place of what it tells link previews about itself, and with `nonce` on the scripts and styles that are in it."""
    page = re.sub(rb'<meta\s+(?:property|name)="(?:og|twitter):[^>]*>|<base\s[^>]*>', b"", page)
    page = re.sub(rb'(<(?:html|body|gradio-app)\b[^>]*?)\s+style="[^"]*"', rb"\1", page)
    page = page.replace(b'<meta charset="utf-8" />', b'<meta charset="utf-8" />' + head, 1)
    return re.sub(rb"<(script|style)(?=[\s>])", rb'<\1 nonce="' + nonce + rb'"', page)
