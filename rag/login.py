"""The page to sign in on, and the way out. It needs nothing from elsewhere and no script."""

from __future__ import annotations

import secrets
from html import escape
from urllib.parse import parse_qs

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from index.errors import CitewellError, OverLimit
from rag.access import COOKIE, Policy, safe_path
from rag.accounts import SESSION_SECONDS, Accounts, same
from rag.headers import hash_source

FORM_COOKIE = "citewell-login"
FORM_BYTES = 16_384

SIGNED_IN_AT_ONCE, SIGNED_OUT_AT_ONCE = 8, 2
"""Both in threads of their own: neither waits for what is slow elsewhere, and whoever tries passwords holds up nobody who is signed in."""

STYLE = (
    ":root{color-scheme:light dark}body{font:16px/1.5 ui-sans-serif,system-ui,sans-serif;margin:0;min-height:100vh;display:grid;place-items:center}"
    "form{width:min(20rem,90vw);display:grid;gap:.75rem}h1{font-size:1.4rem;margin:0}label{display:grid;gap:.25rem}"
    "input,button{font:inherit;padding:.55rem .7rem;border:1px solid #8888;border-radius:.4rem}button{cursor:pointer;font-weight:600}"
    "[role=alert]{margin:0;padding:.5rem .7rem;border-left:4px solid #c33}"
)

SAFE = {
    "Content-Security-Policy": f"default-src 'none'; style-src {hash_source(STYLE)}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


def page_html(token: str, back: str, problem: str = "", name: str = "") -> str:
    """The page; `token` ties the form to the browser that it was sent to."""
    alert = f'<p role="alert">{escape(problem)}</p>' if problem else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Sign in · Citewell</title><style>{STYLE}</style></head><body><main>"
        f'<form method="post" action="/login"><h1>Citewell</h1>{alert}'
        f'<input type="hidden" name="token" value="{escape(token)}"><input type="hidden" name="next" value="{escape(back)}">'
        f'<label>Name <input name="name" value="{escape(name)}" autocomplete="username" autocapitalize="none" required {"" if name else "autofocus"}></label>'
        '<label>Password <input name="password" type="password" autocomplete="current-password" required></label>'
        '<button type="submit">Sign in</button></form></main></body></html>'
    )


def login_routes(policy: Policy, accounts: Accounts | None) -> list[Route]:
    """GET and POST /login, POST /logout. Under an open policy there is nothing to sign in to, and both lead to the chat page."""
    entering, leaving = CapacityLimiter(SIGNED_IN_AT_ONCE), CapacityLimiter(SIGNED_OUT_AT_ONCE)

    def shown(request: Request, status: int, back: str, problem: str = "", name: str = "", headers: dict[str, str] | None = None) -> Response:
        token = request.cookies.get(FORM_COOKIE) or secrets.token_urlsafe(24)
        response = HTMLResponse(page_html(token, back, problem, name), status, {**SAFE, **(headers or {})})
        response.set_cookie(FORM_COOKIE, token, max_age=3_600, path="/login", secure=policy.secure(request.scope), httponly=True, samesite="strict")
        return response

    async def show(request: Request) -> Response:
        back = safe_path(request.query_params.get("next", "/"))
        if policy.open or getattr(request.state, "user", None) is not None:
            return RedirectResponse(back, 303, {"Cache-Control": "no-store"})
        return shown(request, 200, back)

    async def sign_in(request: Request) -> Response:
        if policy.open or accounts is None:
            return RedirectResponse("/", 303)
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > FORM_BYTES:
                return JSONResponse({"error": "The form is too large."}, 413)
        fields = {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=20).items()}
        back, name = safe_path(fields.get("next", "/")), fields.get("name", "")
        # A page elsewhere could sign its visitors in as somebody else, and read later what they asked: it cannot know this browser's token.
        if not same(fields.get("token", ""), request.cookies.get(FORM_COOKIE, "")):
            return shown(request, 403, back, "This form was not sent by this page, or your browser keeps no cookies. Try again.", name)
        address = policy.address(request.scope)
        try:
            token = await to_thread.run_sync(accounts.sign_in, name, fields.get("password", ""), address, limiter=entering)
        except OverLimit as error:
            return shown(request, 429, back, str(error), name, {"Retry-After": str(int(error.retry_after or 1) + 1)})
        except CitewellError as error:
            return shown(request, 401, back, str(error), name)
        before = request.cookies.get(COOKIE)
        if before:
            await to_thread.run_sync(accounts.end_session, before, limiter=leaving)
        response = RedirectResponse(back, 303, {"Cache-Control": "no-store"})
        secure = policy.secure(request.scope)
        response.set_cookie(COOKIE, token, max_age=int(SESSION_SECONDS), path="/", secure=secure, httponly=True, samesite="lax")
        response.delete_cookie(FORM_COOKIE, path="/login", secure=secure, httponly=True, samesite="strict")
        return response

    async def sign_out(request: Request) -> Response:
        token = request.cookies.get(COOKIE)
        if token and accounts is not None:
            await to_thread.run_sync(accounts.end_session, token, limiter=leaving)
        response = RedirectResponse("/" if policy.open else "/login", 303, {"Cache-Control": "no-store", "Clear-Site-Data": '"cache"'})
        response.delete_cookie(COOKIE, path="/", secure=policy.secure(request.scope), httponly=True, samesite="lax")
        return response

    return [
        Route("/login", show, methods=["GET"]),
        Route("/login", sign_in, methods=["POST"]),
        Route("/logout", sign_out, methods=["POST"]),
    ]
