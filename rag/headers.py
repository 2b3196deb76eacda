"""What every response tells the browser not to do: what a stranger's text might ask of it, and what no page here needs."""

from __future__ import annotations

import base64
import hashlib

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The content security policy of whatever is no page of ours."""

UNUSED = (
    "accelerometer", "autoplay", "camera", "display-capture", "encrypted-media", "fullscreen", "geolocation", "gyroscope", "magnetometer", "microphone",
    "midi", "payment", "picture-in-picture", "publickey-credentials-get", "screen-wake-lock", "usb", "xr-spatial-tracking",
)  # fmt: skip
"""What a browser may offer to a page and no page of ours takes."""

HEADERS = {
    "Content-Security-Policy": NOTHING,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": ", ".join(f"{name}=()" for name in UNUSED),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


ONLY_HTTPS = {"Strict-Transport-Security": "max-age=31536000"}
"""What Citewell says besides where it serves https itself; behind a proxy that is the proxy's to say. A browser that heard it asks by plain http no more."""


class SafeHeaders:
    """Middleware: adds each of HEADERS that a response does not have yet, and of ONLY_HTTPS where it goes out encrypted."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        # Under this name alone it would hold for whatever else is served on the machine, on other ports.
        local = Headers(scope=scope).get("host", "").partition(":")[0].lower() == "localhost"
        wanted = HEADERS | ONLY_HTTPS if scope.get("scheme") == "https" and not local else HEADERS

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in wanted.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, with_headers)


def hash_source(content: str) -> str:
    """The source expression that allows one inline script or style with exactly this content."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
