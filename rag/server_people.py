"""The HTTP door to what is a user's own: conversations, feedback, keys. Who asks is told by rag.access.SignedIn, which stands before it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from index.errors import CitewellError, InvalidAccount, NotAllowed
from rag.access import session_of
from rag.accounts import LOCAL, Accounts, User
from rag.conversations import AT_ONCE, FORMATS, Verdict, told
from rag.login import BY_SESSION, CHANGED_AT_ONCE
from rag.service import Service

T = TypeVar("T")

Limit = Annotated[int, Query(ge=1, le=AT_ONCE)]
Offset = Annotated[int, Query(ge=0, le=2**53)]


class Begun(BaseModel):
    """The body of POST /api/conversations."""

    model_config = ConfigDict(extra="forbid")
    title: str = Field("", max_length=10_000)


class Changed(BaseModel):
    """The body of PATCH /api/conversations/{id}: what is to change."""

    model_config = ConfigDict(extra="forbid")
    title: str | None = Field(None, max_length=10_000)
    shared: bool | None = None


class Judged(BaseModel):
    """The body of POST /api/exchanges/{id}/feedback; an empty verdict takes back what was said."""

    model_config = ConfigDict(extra="forbid")
    verdict: Verdict
    reason: str = ""


class Labelled(BaseModel):
    """The body of POST /api/keys."""

    model_config = ConfigDict(extra="forbid")
    label: str = Field("", max_length=1_000)


class Password(BaseModel):
    """The body of POST /api/password."""

    model_config = ConfigDict(extra="forbid")
    old: str
    new: str


def routes(service: Service) -> APIRouter:
    """Conversations under /api/conversations, feedback under /api/exchanges, and /api/me, /api/keys and /api/password.

    What is somebody else's is a 404, like what is not there.
    """
    router, conversations, accounts = APIRouter(), service.conversations, service.visitors.accounts

    def user_of(request: Request) -> User:
        return service.user(request.scope)

    def found(what: Callable[[], T]) -> T:
        try:
            return what()
        except KeyError:
            raise HTTPException(404, "There is no such conversation.") from None

    @router.get("/api/conversations")
    def listed(request: Request, q: str = "", limit: Limit = 50, offset: Offset = 0) -> list[dict[str, Any]]:
        user = user_of(request)
        kept = conversations.search(user.id, q, limit) if q.strip() else conversations.listing(user.id, limit, offset)
        return [_described(asdict(info), user) for info in kept]

    @router.post("/api/conversations", status_code=201)
    def begin(request: Request, asked: Begun) -> dict[str, str]:
        return {"id": conversations.begin(user_of(request).id, asked.title)}

    @router.get("/api/conversations/{conversation}")
    def show(request: Request, conversation: str) -> dict[str, Any]:
        user = user_of(request)
        info = found(lambda: conversations.info(conversation, user.id))
        store = service.own(request.scope).store
        said = [told(exchange, store) for exchange in found(lambda: conversations.exchanges(conversation, user.id))]
        return {**_described(asdict(info), user), "exchanges": said}

    @router.patch("/api/conversations/{conversation}")
    def change(request: Request, conversation: str, asked: Changed) -> dict[str, Any]:
        user = user_of(request)
        if asked.title is not None:
            title = asked.title
            _plainly(lambda: found(lambda: conversations.rename(conversation, user.id, title)))
        if asked.shared is not None:
            shared = asked.shared
            found(lambda: conversations.share(conversation, user.id, shared))
        return _described(asdict(found(lambda: conversations.info(conversation, user.id))), user)

    @router.delete("/api/conversations/{conversation}", status_code=204)
    def delete(request: Request, conversation: str) -> None:
        found(lambda: conversations.delete(conversation, user_of(request).id))

    @router.get("/api/conversations/{conversation}/export")
    def export(request: Request, conversation: str, format: str = "md") -> Response:
        user = user_of(request)
        if format not in FORMATS:
            raise HTTPException(400, f"A conversation is exported as {' or '.join(FORMATS)}; add ?format= with one of these.")
        kind, made = FORMATS[format]
        info = found(lambda: conversations.info(conversation, user.id))
        content = made(info, found(lambda: conversations.exchanges(conversation, user.id)), service.own(request.scope).store)
        name = re.sub(r"[^\w -]+", " ", info.title).strip()[:60] or "conversation"
        headers = {
            # A file to keep, never a page of this server's: it holds what strangers wrote.
            "Content-Disposition": f"attachment; filename=\"conversation.{format}\"; filename*=UTF-8''{quote(f'{name}.{format}')}",
            "Cache-Control": "no-store",
        }
        return Response(content, media_type=f"{kind}; charset=utf-8", headers=headers)

    @router.post("/api/exchanges/{exchange}/feedback", status_code=204)
    def judge(request: Request, exchange: str, asked: Judged) -> None:
        user = user_of(request)
        _plainly(lambda: found(lambda: conversations.judge(exchange, user.id, asked.verdict, asked.reason)))

    @router.get("/api/me")
    def me(request: Request) -> dict[str, Any]:
        user = user_of(request)
        return {"name": user.name, "role": user.role, "local": user.id == LOCAL}

    def with_accounts(user: User) -> Accounts:
        if accounts is None:
            raise HTTPException(404, "This Citewell is open to its own machine, so there are no keys. Nobody needs one here.")
        if user.id == LOCAL:
            raise HTTPException(
                404, "The key of the machine itself belongs to no account, which alone has keys. `citewell keys` shows those of everybody."
            )
        return accounts

    @router.get("/api/keys")
    def keys(request: Request) -> list[dict[str, Any]]:
        user = user_of(request)
        return [asdict(key) for key in with_accounts(user).keys(user.name)]

    def keyed(request: Request) -> User:
        """Whose keys may be changed. A key that was stolen must not make others, which would outlast it."""
        user = user_of(request)
        if user.id != LOCAL and not session_of(request.scope):
            raise NotAllowed("Keys are made and revoked by whoever has signed in with a password, and not with a key. `citewell keys` does it, too.")
        return user

    @router.post("/api/keys", status_code=201)
    def create_key(request: Request, asked: Labelled) -> dict[str, str]:
        """The key is told here and never again."""
        user = keyed(request)
        try:
            return {"key": with_accounts(user).create_key(user.name, asked.label)}
        except InvalidAccount as error:
            raise HTTPException(409, str(error)) from None

    @router.delete("/api/keys/{prefix}", status_code=204)
    def revoke_key(request: Request, prefix: str) -> None:
        user = keyed(request)
        try:
            with_accounts(user).revoke_key(prefix, user.name)
        except InvalidAccount as error:
            raise HTTPException(404, str(error)) from None

    changing = CapacityLimiter(CHANGED_AT_ONCE)

    @router.post("/api/password", status_code=204)
    async def change_password(request: Request, asked: Password) -> None:
        """Ends all other sessions of the user's."""
        user, session = user_of(request), session_of(request.scope)
        if accounts is None:
            raise HTTPException(404, "This Citewell is open to its own machine, so there are no passwords. Nobody needs one here.")
        if not session:
            raise NotAllowed(BY_SESSION)
        try:
            await to_thread.run_sync(accounts.change_password, user, asked.old, asked.new, request.state.address, session, limiter=changing)
        except InvalidAccount as error:
            raise HTTPException(400, str(error)) from None

    return router


def _described(info: dict[str, Any], user: User) -> dict[str, Any]:
    """A conversation without its owner's id, which is nobody's to know: it tells whether it is the user's own."""
    return {**{key: value for key, value in info.items() if key != "owner"}, "own": info["owner"] == user.id}


def _plainly(what: Callable[[], None]) -> None:
    """What cannot be as asked is a 400 with its sentence."""
    try:
        what()
    except CitewellError as error:
        if type(error) is not CitewellError:
            raise
        raise HTTPException(400, str(error)) from None
