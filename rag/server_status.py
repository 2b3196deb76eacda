"""GET /healthz, /readyz and /metrics: for whoever watches over a server. They wait for no thread, so that a busy server answers them too."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from index.errors import CitewellError
from rag.assistant import Assistant
from rag.metrics import CONTENT_TYPE, Metrics


def routes(assistant: Assistant, metrics: Metrics) -> APIRouter:
    """The three addresses."""
    router = APIRouter()

    def model() -> dict[str, str]:
        status = assistant.model_status()
        return {"model": status.name, "model_state": status.state, "message": status.message}

    @router.get("/healthz", summary="Whether the server runs")
    async def health() -> dict[str, str]:
        return {"status": "ok", **model()}

    @router.get(
        "/readyz", summary="Whether questions can be answered", response_model=None, responses={503: {"description": "Not now; `why` says so"}}
    )
    async def ready() -> JSONResponse:
        """Ready once the store is open and the embedding model loaded; without a language model the documents' own sentences answer."""
        why = _hindrance(assistant)
        told: dict[str, Any] = {"status": "unready", "why": why} if why else {"status": "ready"}
        return JSONResponse({**told, **model()}, 503 if why else 200)

    @router.get("/metrics", summary="What was counted, for Prometheus", response_class=Response)
    async def measured() -> Response:
        return Response(await run_in_threadpool(metrics.text), media_type=CONTENT_TYPE)

    return router


def _hindrance(assistant: Assistant) -> str:
    """Why questions cannot be answered now; empty when they can."""
    try:
        assistant.store.roots()
    except CitewellError as error:
        return str(error)
    return "" if assistant.embedder.loaded else "The embedding model is not loaded yet. If this stays, the log of the server says why."
