"""A model server for load tests: it quotes the sentences of its prompt that are nearest to the question, at so many tokens a second, for as many callers as come.

usage: python tests/load_model.py PORT TOKENS_A_SECOND
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

PROMPT_SECONDS = 0.2
"""What reading a prompt takes: a hosted model's time to its first token."""

MOST_TOKENS = 60
SENTENCE = re.compile(r"[^.!?\n]+[.!?]")
WORD = re.compile(r"\w{3,}")


def reply(prompt: str) -> tuple[bool, str]:
    """Whether the passages have the words of the question, and their nearest sentences."""
    passages, _, rest = prompt.partition("\n\nQuestion: ")
    asked = {word.lower() for word in WORD.findall(rest.partition("\n")[0])}
    ranked = sorted(SENTENCE.findall(passages), key=lambda sentence: -len(asked & {word.lower() for word in WORD.findall(sentence)}))
    best = len(asked & {word.lower() for word in WORD.findall(ranked[0])}) / max(1, len(asked)) if ranked else 0.0
    return best >= 0.6, " ".join(sentence.strip(" -") for sentence in ranked[:2])


async def complete(request: Request) -> Response:
    """POST /v1/chat/completions."""
    body = await request.json()
    prompt = str(body["messages"][-1]["content"])
    stated, text = reply(prompt)
    await asyncio.sleep(PROMPT_SECONDS)
    if not body.get("stream"):
        yes = 0.95 if stated else 0.02
        top = [{"token": "yes", "logprob": math.log(yes)}, {"token": "no", "logprob": math.log(1 - yes)}]
        word = top[0 if stated else 1]
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": word["token"]},
            "finish_reason": "stop",
            "logprobs": {"content": [{**word, "top_logprobs": top}]},
        }
        return JSONResponse({"choices": [choice], "usage": {"prompt_tokens": len(prompt) // 4, "completion_tokens": 1}})
    return StreamingResponse(spoken(text, request.app.state.tokens_a_second), media_type="text/event-stream")


async def spoken(text: str, tokens_a_second: float) -> AsyncIterator[str]:
    """The text in pieces of some four characters, one a token."""
    for piece in re.findall(r"\s*\S{1,4}", text)[:MOST_TOKENS]:
        yield event({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})
        await asyncio.sleep(1 / tokens_a_second)
    yield event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    yield "data: [DONE]\n\n"


def event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


if __name__ == "__main__":
    app = Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])
    app.state.tokens_a_second = float(sys.argv[2])
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
