"""Problems as the HTTP door tells them: in the shape that an address's clients know."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from starlette.responses import JSONResponse

from index.errors import OverLimit

OPENAI = "/v1/"
"""Addresses that begin so tell problems as OpenAI does."""


def problem(
    path: str, message: str, status: int, param: str | None = None, code: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """A problem as an address tells it: `{"error": "..."}`, or OpenAI's object with the parameter at fault and a code."""
    message = message.encode("utf-8", "replace").decode()  # what was sent may be named in it, and hold half a character
    return JSONResponse({"error": told_to_openai(message, status, param, code) if path.startswith(OPENAI) else message}, status, headers)


def told_to_openai(message: str, status: int, param: str | None = None, code: str | None = None) -> dict[str, str | None]:
    """A problem as OpenAI's clients know it."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    return {"message": message, "type": kinds.get(status, "server_error" if status >= 500 else "invalid_request_error"), "param": param, "code": code}


def refusal(path: str, error: OverLimit) -> JSONResponse:
    """A limit as a response: 429 with Retry-After where waiting helps, else 413."""
    if error.retry_after is None:
        return problem(path, str(error), 413)
    return problem(path, str(error), 429, headers={"Retry-After": str(max(1, ceil(error.retry_after)))})
