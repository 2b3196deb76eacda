"""Who may come in: decides by the settings whether accounts are demanded, tells who a request is from, and keeps everybody else out.

On this machine alone Citewell is open, for one user. Whatever lets others reach it demands accounts, and that passwords do not travel in the clear.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import quote, urlsplit

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from index.errors import InvalidSettings, OverLimit
from rag.accounts import LOCAL_USER, Accounts, User, network_of, same
from rag.limits import BODY_BYTES, FILES_TOGETHER, Limited, Rate
from rag.problems import problem, refusal
from rag.settings import Settings

COOKIE = "citewell"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

REVIEWED = frozenset({"/login", "/healthz", "/readyz", "/favicon.ico"})
"""What strangers may ask for. Every one of these was looked at for what it tells; add to it only after that."""

PROBED = frozenset({"/healthz", "/readyz"})
"""What a proxy asks of its own accord, to learn whether the server is there: it carries no password and is told no secret, so it may come in the clear."""

FOR_PROGRAMS = ("/api", "/v1", "/mcp")
"""What lies under these is told by a status and JSON that nobody is signed in, not by a redirect."""

READING = ("GET", "HEAD", "OPTIONS")
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")


LOOKED_UP_AT_ONCE = 8
"""Who a request is from is looked up in threads of its own: what is slow and somebody's takes up those that all share, and would keep everybody out."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How requests are to be judged. `open` lets everybody in as the one local user, and is for loopback alone. `hosts` are the names under which
    Citewell answers, `proxies` those whose word on the client's address is taken."""

    open: bool
    hosts: tuple[str, ...]
    proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    public_url: str = ""

    def proxied(self, scope: Scope) -> bool:
        """Whether a request comes by way of a trusted proxy."""
        return _within(_peer(scope), self.proxies)

    def address(self, scope: Scope) -> str:
        """Where a request comes from: the nearest address that is no trusted proxy's."""
        peer = _peer(scope)
        if not _within(peer, self.proxies):
            return peer
        said = [part.strip() for value in Headers(scope=scope).getlist("x-forwarded-for") for part in value.split(",")]
        # From the right: whatever stands further left was written by somebody whom nobody vouches for.
        for address in reversed(said):
            plain = address.removeprefix("[").partition("]")[0] if address.startswith("[") else address
            plain = plain.partition(":")[0] if plain.count(":") == 1 else plain
            try:
                ip_address(plain)
            except ValueError:
                return peer
            if not _within(plain, self.proxies):
                return plain
            peer = plain
        return peer

    def encrypted(self, scope: Scope) -> bool:
        """Whether the way to the browser is by https, as far as can be told."""
        if self.proxied(scope):
            said = Headers(scope=scope).getlist("x-forwarded-proto")
            return said[-1].rpartition(",")[2].strip().lower() == "https" if said else self.public_url.startswith("https://")
        return str(scope.get("scheme")) in ("https", "wss")

    def secure(self, scope: Scope) -> bool:
        """Whether a cookie is to be sent by https alone."""
        return self.encrypted(scope) or self.public_url.startswith("https://")

    def in_the_clear(self, scope: Scope) -> bool:
        """Whether somebody on the way could read what is sent: neither encrypted nor from this machine itself, without a proxy that says something else."""
        return not self.encrypted(scope) and not (is_loopback(_peer(scope)) and not any(name in Headers(scope=scope) for name in FORWARDED))

    def origin(self, scope: Scope) -> str:
        """Under which origin the browser knows this server."""
        if self.public_url:
            return self.public_url
        return f"{'https' if self.encrypted(scope) else 'http'}://{Headers(scope=scope).get('host', '')}"


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _within(address: str, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    return any(parsed.version == network.version and parsed in network for network in networks)


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own."""
    try:
        return ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def decide(settings: Settings, accounts: Callable[[], Accounts]) -> Policy:
    """How requests are to be judged under these settings; `accounts` is asked only where accounts are demanded.

    Raises InvalidSettings where others could reach Citewell and there are no accounts, or their passwords would travel in the clear.
    """
    encrypted = _certificate(settings)
    name = urlsplit(settings.public_url).hostname or ""
    proxies = tuple(ip_network(part, strict=False) for part in settings.trusted_proxies)
    # A proxy before a loopback address, or a public name, lets others in as surely as a public address.
    if is_loopback(settings.host) and not proxies and (not name or is_loopback(name)):
        return Policy(True, LOOPBACK)
    who = f"{settings.host} lets others in" if not is_loopback(settings.host) else "a proxy or a public name lets others in"
    if not encrypted and not proxies:
        raise InvalidSettings(
            f"Citewell does not start: {who}, and their passwords would travel in the clear. Set CITEWELL_TLS_CERT and CITEWELL_TLS_KEY to a certificate and "
            "its key, or CITEWELL_TRUSTED_PROXIES to the address of a reverse proxy that serves https; or leave CITEWELL_HOST at 127.0.0.1."
        )
    if not any(not user.disabled for user in accounts().users()):
        raise InvalidSettings(
            f"Citewell does not start: {who}, and there is no account yet. Make one with `citewell users add NAME --admin`; or leave CITEWELL_HOST at 127.0.0.1, "
            "without a proxy or public name."
        )
    # A name that somebody points here gets them nothing: the cookie is sent to the name that it was made for alone.
    hosts = (*LOOPBACK, name, *([] if settings.host in ("0.0.0.0", "::") else [settings.host])) if name else ("*",)  # noqa: S104 - compared
    return Policy(False, hosts, proxies, settings.public_url)


def _certificate(settings: Settings) -> bool:
    """Whether there is a certificate to serve with. Raises InvalidSettings where there is half of one, or one that cannot be used."""
    if not settings.tls_cert and not settings.tls_key:
        return False
    if not (settings.tls_cert and settings.tls_key):
        raise InvalidSettings("A certificate and its key belong together: set both CITEWELL_TLS_CERT and CITEWELL_TLS_KEY, or neither.")
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(settings.tls_cert, settings.tls_key, password="")
    except (OSError, ValueError) as error:
        raise InvalidSettings(
            f"The certificate {settings.tls_cert} with the key {settings.tls_key} cannot be used ({getattr(error, 'strerror', None) or error}). "
            "Both must be readable PEM files that belong together, the key without a password."
        ) from None
    return True


def cookies(scope: Scope) -> dict[str, str]:
    """The cookies that a request carries."""
    found: dict[str, str] = {}
    for header in Headers(scope=scope).getlist("cookie"):
        for part in header.split(";"):
            try:
                found.update({name: morsel.value for name, morsel in SimpleCookie(part.strip()).items() if name not in found})
            except CookieError:
                continue
    return found


def identity(scope: Scope, policy: Policy, accounts: Accounts | None, local_key: str = "") -> User | None:
    """Who a request is from: the local user of an open Citewell or with the `local_key`, else whose key or session it carries. A wrong key is not made
    good by a session."""
    if policy.open:
        return LOCAL_USER
    assert accounts is not None, "decide() has looked at them"
    said = Headers(scope=scope).get("authorization")
    if said is not None:
        kind, _, key = said.partition(" ")
        if kind.lower() != "bearer":
            return None
        return LOCAL_USER if local_key and same(key.strip(), local_key) else accounts.by_key(key.strip())
    token = cookies(scope).get(COOKIE, "")
    return accounts.by_session(token) if token else None


def session_of(scope: Scope) -> str:
    """The token of the session that a request was let in by; empty where it came with a key."""
    return "" if "authorization" in Headers(scope=scope) else cookies(scope).get(COOKIE, "")


def from_elsewhere(scope: Scope, policy: Policy) -> bool:
    """Whether a request that changes something was sent by a page of another site. Browsers say so; older ones name the page's origin only."""
    headers = Headers(scope=scope)
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and origin.lower() != policy.origin(scope).lower()


class SignedIn:
    """Middleware: lets in who is signed in, as `scope["state"]["user"]`, and of the rest only what REVIEWED names.

    Refuses what pages of other sites send, and what reached an open Citewell through a proxy. The user is None on reviewed paths where nobody is.
    With `rate`, what an address asks for in vain is counted, as it does not get as far as rag.limits.Limited.
    """

    def __init__(self, app: ASGIApp, policy: Policy, accounts: Accounts | None = None, rate: Rate | None = None, local_key: str = "") -> None:
        self.app, self.policy, self.accounts, self.rate, self.local_key = app, policy, accounts, rate, local_key
        self._lookups = CapacityLimiter(LOOKED_UP_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        refused, user = await self._judged(scope)
        if refused is None:
            inner = {**scope, "state": {**scope.get("state", {}), "user": user, "address": self.policy.address(scope)}}
            return await self.app(inner, receive, send)
        if scope["type"] == "websocket":
            await receive()
            return await send({"type": "websocket.close", "code": 1008})
        await refused(scope, receive, send)

    async def _judged(self, scope: Scope) -> tuple[Response | None, User | None]:
        headers, path = Headers(scope=scope), scope["path"].removeprefix(scope.get("root_path", ""))
        judged = (scope, self.policy, self.accounts, self.local_key)
        if self.policy.open and any(name in headers for name in FORWARDED):
            return problem(
                path,
                "This Citewell is open to its own machine alone, and this came through a proxy. Set CITEWELL_TRUSTED_PROXIES to the proxy's address; "
                "then accounts are asked for.",
                403,
            ), None
        probed = path in PROBED and self.policy.proxied(scope)
        if not self.policy.open and not probed and self.policy.in_the_clear(scope):
            said = "Passwords would travel in the clear here. Open the address that begins with https."
            if self.policy.proxied(scope):
                said += " If that is the one that you opened, the proxy does not say so: it must set X-Forwarded-Proto."
            return problem(path, said, 403), None
        # A websocket is opened by a GET, and can change things afterwards.
        if (scope["type"] == "websocket" or scope["method"] not in READING) and from_elsewhere(scope, self.policy):
            return problem(path, "This is not for pages of other sites.", 403), None
        # Who carries nothing is looked up nowhere, so that a busy server says at once that it is there.
        carries = not self.policy.open and ("authorization" in headers or "cookie" in headers)
        user = await to_thread.run_sync(identity, *judged, limiter=self._lookups) if carries else identity(*judged)
        if user is not None or path in REVIEWED:
            return None, user
        if scope["type"] == "websocket":
            return PlainTextResponse("", 401), None
        if self.rate is not None:
            try:
                self.rate.take(network_of(self.policy.address(scope)), "address")
            except OverLimit as error:
                return refusal(path, error), None
        wants_page = scope["method"] in ("GET", "HEAD") and "text/html" in headers.get("accept", "")
        if wants_page and not any(path == part or path.startswith(f"{part}/") for part in FOR_PROGRAMS):
            query = scope.get("query_string", b"").decode("latin-1")
            back = path + (f"?{query}" if query else "")
            return RedirectResponse("/login" if back == "/" else f"/login?next={quote(back, safe='')}", 303, {"Cache-Control": "no-store"}), None
        said = "Sign in first, or send a key as 'Authorization: Bearer KEY'. `citewell keys create NAME` makes one."
        return problem(path, said, 401, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer", "Cache-Control": "no-store"}), None


def protect(app: Starlette, settings: Settings, policy: Policy, accounts: Accounts | None, local_key: str = "") -> None:
    """Puts SignedIn before an application and Limited behind it, with one count for both; who has a machine to themselves is not counted.

    Middleware that is added later stands before them.
    """
    rate = None if policy.open else Rate(settings.requests_per_minute)
    app.add_middleware(Limited, rate=rate, max_upload_bytes=FILES_TOGETHER * settings.max_bytes + BODY_BYTES)
    app.add_middleware(SignedIn, policy=policy, accounts=accounts, rate=rate, local_key=local_key)


def safe_path(wanted: str) -> str:
    """Where to go after signing in: a path of this server, the chat page where it is none."""
    plain = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable() and "\\" not in wanted
    return wanted if plain and wanted.partition("?")[0] not in ("/login", "/logout") else "/"
