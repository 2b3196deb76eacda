"""The pages to sign in and to change one's password on, and the way out. They need nothing from elsewhere and no script."""

from __future__ import annotations

import secrets
from html import escape
from urllib.parse import parse_qs

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from index.errors import CitewellError, OverLimit
from rag.access import COOKIE, Policy, safe_path, session_of
from rag.accounts import SESSION_SECONDS, Accounts, same
from rag.headers import hash_source

FORM_COOKIE = "citewell-login"
FORM_BYTES = 16_384
BY_SESSION = "A password is changed by whoever has signed in with it, and not with a key. `citewell users password` does it, too."

TOO_LARGE = "The form is too large."

SIGNED_IN_AT_ONCE, SIGNED_OUT_AT_ONCE, CHANGED_AT_ONCE = 8, 2, 2
"""All in threads of their own: none waits for what is slow elsewhere, and whoever tries passwords holds up nobody who is signed in."""

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
    return _form_html(
        "Sign in",
        f'<form method="post" action="/login"><h1>Citewell</h1>{alert}'
        f'<input type="hidden" name="token" value="{escape(token)}"><input type="hidden" name="next" value="{escape(back)}">'
        f'<label>Name <input name="name" value="{escape(name)}" autocomplete="username" autocapitalize="none" required {"" if name else "autofocus"}></label>'
        '<label>Password <input name="password" type="password" autocomplete="current-password" required></label>'
        '<button type="submit">Sign in</button></form>',
    )


def password_html(name: str, said: str = "", problem: str = "") -> str:
    """The page on which a user changes their password; `said` or `problem` is what came of it."""
    told = f'<p role="alert">{escape(problem)}</p>' if problem else f'<p role="status">{escape(said)}</p>' if said else ""
    return _form_html(
        "Password",
        f'<form method="post" action="/password"><h1>Change your password</h1>{told}'
        f'<input type="hidden" name="name" value="{escape(name)}" autocomplete="username">'
        '<label>Old password <input name="old" type="password" autocomplete="current-password" required autofocus></label>'
        '<label>New password <input name="new" type="password" autocomplete="new-password" required></label>'
        '<label>The new one again <input name="again" type="password" autocomplete="new-password" required></label>'
        '<button type="submit">Change it</button><a href="/">Back to Citewell</a></form>',
    )


def _form_html(title: str, form: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title} · Citewell</title><style>{STYLE}</style></head><body><main>{form}</main></body></html>"
    )


async def _fields(request: Request) -> dict[str, str] | None:
    """What a form was filled in with; None where that is too much."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES:
            return None
    try:
        return {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=20).items()}
    except ValueError:  # more fields than any form of ours has
        return None


def login_routes(policy: Policy, accounts: Accounts | None) -> list[Route]:
    """GET and POST /login and /password, POST /logout. Under an open policy there is nothing to sign in to, and all lead to the chat page."""
    entering, leaving, changing = CapacityLimiter(SIGNED_IN_AT_ONCE), CapacityLimiter(SIGNED_OUT_AT_ONCE), CapacityLimiter(CHANGED_AT_ONCE)

    def shown(request: Request, status: int, back: str, problem: str = "", name: str = "", headers: dict[str, str] | None = None) -> Response:
        token = request.cookies.get(FORM_COOKIE) or secrets.token_urlsafe(24)
        response = HTMLResponse(page_html(token, back, problem, name), status, {**SAFE, **(headers or {})})
        response.set_cookie(FORM_COOKIE, token, max_age=3_600, path="/login", secure=policy.secure(request.scope), httponly=True, samesite="strict")
        return response

    def keep(response: Response, token: str, request: Request) -> None:
        """Gives the browser its session."""
        secure = policy.secure(request.scope)
        response.set_cookie(COOKIE, token, max_age=int(SESSION_SECONDS), path="/", secure=secure, httponly=True, samesite="lax")

    async def show(request: Request) -> Response:
        back = safe_path(request.query_params.get("next", "/"))
        if policy.open or getattr(request.state, "user", None) is not None:
            return RedirectResponse(back, 303, {"Cache-Control": "no-store"})
        return shown(request, 200, back)

    async def sign_in(request: Request) -> Response:
        if policy.open or accounts is None:
            return RedirectResponse("/", 303)
        fields = await _fields(request)
        if fields is None:
            return JSONResponse({"error": TOO_LARGE}, 413)
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
        keep(response, token, request)
        response.delete_cookie(FORM_COOKIE, path="/login", secure=policy.secure(request.scope), httponly=True, samesite="strict")
        return response

    async def sign_out(request: Request) -> Response:
        token = request.cookies.get(COOKIE)
        if token and accounts is not None:
            await to_thread.run_sync(accounts.end_session, token, limiter=leaving)
        response = RedirectResponse("/" if policy.open else "/login", 303, {"Cache-Control": "no-store", "Clear-Site-Data": '"cache"'})
        response.delete_cookie(COOKIE, path="/", secure=policy.secure(request.scope), httponly=True, samesite="lax")
        return response

    async def change(request: Request) -> Response:
        """The form, and what was filled in. Only a session changes a password; a page of another site gets no further than SignedIn."""
        user, session = getattr(request.state, "user", None), session_of(request.scope)
        if policy.open or accounts is None or user is None:
            return RedirectResponse("/", 303, {"Cache-Control": "no-store"})
        if not session:
            return HTMLResponse(password_html(user.name, problem=BY_SESSION), 403, SAFE)
        if request.method != "POST":
            return HTMLResponse(password_html(user.name), headers=SAFE)
        fields = await _fields(request)
        if fields is None:
            return JSONResponse({"error": TOO_LARGE}, 413)
        old, new, again = (fields.get(name, "") for name in ("old", "new", "again"))
        if new != again:
            return HTMLResponse(password_html(user.name, problem="The new password was not typed twice the same. Nothing was changed."), 400, SAFE)
        address = policy.address(request.scope)
        try:
            await to_thread.run_sync(accounts.change_password, user, old, new, address, session, limiter=changing)
            token = await to_thread.run_sync(accounts.begin_session, user.id, limiter=changing)
        except OverLimit as error:
            return HTMLResponse(password_html(user.name, problem=str(error)), 429, {**SAFE, "Retry-After": str(int(error.retry_after or 1) + 1)})
        except CitewellError as error:
            return HTMLResponse(password_html(user.name, problem=str(error)), 400, SAFE)
        # Whoever has a copy of the session of before is out, too.
        await to_thread.run_sync(accounts.end_session, session, limiter=leaving)
        said = "It is changed. Wherever else you had signed in, you are signed out. Your keys stay as they are."
        response = HTMLResponse(password_html(user.name, said), headers=SAFE)
        keep(response, token, request)
        return response

    return [
        Route("/password", change, methods=["GET"]),
        Route("/password", change, methods=["POST"]),
        Route("/login", show, methods=["GET"]),
        Route("/login", sign_in, methods=["POST"]),
        Route("/logout", sign_out, methods=["POST"]),
    ]
