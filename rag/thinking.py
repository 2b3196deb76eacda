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
    held, inside, thought, speaking = "", False, False, False
    for piece in pieces:
        if speaking:
            yield piece
            continue
        held += piece
        while held:
            if inside:
                closed = _CLOSING.search(held)
                if closed is None:
                    held = held[-_LONGEST:]  # a closing tag may come in parts
                    break
                held, inside, thought = held[closed.end() :], False, True
                continue
            opening = held.lstrip().lower()
            tag = next((tag for tag in _OPENINGS if opening.startswith(tag)), "")
            if tag:
                held, inside = held.lstrip()[len(tag) :], True
                continue
            if any(tag.startswith(opening) for tag in _OPENINGS):
                break  # it may become a tag
            yield held.lstrip() if thought else held
            held, speaking = "", True
    if held and not inside and not (thought and held.isspace()):
        yield held


def without(text: str) -> str:
    """The text behind its last thinking, also where the opening tag stood in the prompt and only the closing one was written."""
    behind = _CLOSING.split(text)[-1]
    return behind if behind != text else "".join(spoken([text]))
