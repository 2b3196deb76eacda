"""What of the page needs no Gradio: the document view, the page's head, and the guard around Gradio's own routes."""

from __future__ import annotations

import re
from collections.abc import Callable, MutableMapping
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui import document
from ui.chat import Assistant

# Gradio compiles its templates in the browser, hence 'unsafe-eval'; it and its stylesheets are inline. Everything must come from this server.
PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
DOCUMENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"

# Gradio also answers for uploads, files, a proxy to any public address, and descriptions of its API. The page uses none of them.
NEEDED = re.compile(
    r"(GET|HEAD) /((config|theme\.css|favicon\.ico|manifest\.json|pwa_icon|robots\.txt)/?|(assets|static)/.+|"
    r"gradio_api/(app_id|queue/data|heartbeat/.+|startup-events)/?)?|"
    r"POST /gradio_api/(queue/join|cancel|reset|run/predict)/?"
)


def document_view(assistant: Assistant, style: str) -> Callable[[Request], HTMLResponse]:
    """The route that shows one document: a page of its own, or with `fragment` only the article, for the dialog."""

    def view(request: Request) -> HTMLResponse:
        document_id, query = request.path_params["document_id"], request.query_params
        title, status = "No such document", 404
        try:
            info, text = assistant.store.info(document_id), assistant.store.text(document_id)
        except KeyError:
            article = document.unknown_html()
        else:
            try:
                span = document.span_of(query.get("start"), query.get("end"), len(text))
                title, status, article = info.title, 200, document.document_html(info, text, span)
            except document.BadSpan:
                title, status, article = info.title, 400, document.misfit_html(info)
        content = article if "fragment" in query else document.page_html(title, article, style)
        headers = {"Content-Security-Policy": DOCUMENT_POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
        return HTMLResponse(content, status_code=status, headers=headers)

    return view


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
            body = with_head(b"".join(parts), head.encode())
            headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
            headers += [(b"content-length", str(len(body)).encode()), (b"content-security-policy", PAGE_POLICY.encode())]
            await send({**start, "headers": headers})
            await send({"type": "http.response.body", "body": body})

        await gradio(plain, receive, changed)

    return guard


def with_head(page: bytes, head: bytes) -> bytes:
    """Gradio's page with `head` in place of what it tells link previews about itself."""
    page = re.sub(rb'<meta\s+(?:property|name)="(?:og|twitter):[^>]*>', b"", page)
    return page.replace(b'<meta charset="utf-8" />', b'<meta charset="utf-8" />' + head, 1)
