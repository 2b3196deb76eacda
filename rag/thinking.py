"""What models write before they reply: `<think>…</think>` is taken out of a stream and of a text. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_TAGS = ("think", "thinking", "thought", "reasoning")
_OPENINGS = tuple(f"<{tag}>" for tag in _TAGS)
_CLOSING = re.compile(rf"</(?:{'|'.join(_TAGS)})>", re.IGNORECASE)
_LONGEST = max(map(len, _OPENINGS)) + 1


def spoken(pieces: Iterable[str]) -> Iterator[str]:
    """The pieces without the thinking that they begin with, also where a tag comes in parts. Thinking that is never closed leaves nothing."""
    held, state = "", "beginning"
    for piece in pieces:
        if state == "speaking":
            yield piece
            continue
        held += piece
        if state == "beginning":
            opening = held.lstrip().lower()
            if not opening or any(tag.startswith(opening) for tag in _OPENINGS):
                continue  # it may become a tag
            if not opening.startswith(_OPENINGS):
                state = "speaking"
                yield held
                continue
            state = "thinking"
        closed = _CLOSING.search(held)
        if closed is None:
            held = held[-_LONGEST:]  # a closing tag may come in parts
            continue
        held, state = held[closed.end() :].lstrip(), "beginning"  # some think again at once
        if held and not any(tag.startswith(held.lower()) or held.lower().startswith(tag) for tag in _OPENINGS):
            state = "speaking"
            yield held
    if state == "beginning" and held:
        yield held


def without(text: str) -> str:
    """The text behind its last thinking, also where the opening tag stood in the prompt and only the closing one was written."""
    behind = _CLOSING.split(text)[-1]
    return behind if behind != text else "".join(spoken([text]))
