"""GET /healthz, /readyz and /metrics: for whoever watches over a server. They wait for no thread, so that a busy server answers them too."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from index.errors import CitewellError, NotAllowed
from rag.assistant import Assistant
from rag.metrics import CONTENT_TYPE
from rag.service import Service


def routes(service: Service) -> APIRouter:
    """The three addresses. Strangers, who may ask for the first two, are told no more than yes or no."""
    router, assistant = APIRouter(), service.assistant

    def model(request: Request) -> dict[str, str]:
        status = assistant.model_status()
        return {"model": status.name, "model_state": status.state, "message": status.message} if _known(request) else {}

    @router.get("/healthz", summary="Whether the server runs")
    async def health(request: Request) -> dict[str, str]:
        return {"status": "ok", **model(request)}

    @router.get(
        "/readyz", summary="Whether questions can be answered", response_model=None, responses={503: {"description": "Not now; `why` says so"}}
    )
    async def ready(request: Request) -> JSONResponse:
        """Ready once the store is open and the embedding model loaded; without a language model the documents' own sentences answer."""
        why = _hindrance(assistant)
        told: dict[str, Any] = {"status": "unready", **({"why": why} if _known(request) else {})} if why else {"status": "ready"}
        return JSONResponse({**told, **model(request)}, 503 if why else 200)

    @router.get("/metrics", summary="What was counted, for Prometheus", response_class=Response)
    async def measured(request: Request) -> Response:
        if not service.user(request.scope).admin:
            raise NotAllowed("What this server has counted is for its admins.")
        return Response(await run_in_threadpool(service.metrics.text), media_type=CONTENT_TYPE)

    return router


def _known(request: Request) -> bool:
    return getattr(request.state, "user", None) is not None


def _hindrance(assistant: Assistant) -> str:
    """Why questions cannot be answered now; empty when they can."""
    try:
        assistant.store.roots()
    except CitewellError as error:
        return str(error)
    return "" if assistant.embedder.loaded else "The embedding model is not loaded yet. If this stays, the log of the server says why."
