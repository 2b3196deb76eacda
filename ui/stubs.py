"""Keeps Gradio from taking its own source apart whenever it is imported. Knows nothing of the page."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def without_stubs() -> Iterator[None]:
    """For the import of Gradio: inside, it writes no type stubs beside its components' source.

    It would parse that source for every class, at every start, which is a third of its import, and write to where it is installed. It passes over a class
    whose file cannot be told (gradio.component_meta.create_or_modify_pyi), so no file is told of its classes.
    """
    tell = inspect.getfile

    def told(thing: Any) -> str:
        if str(getattr(thing, "__module__", "")).startswith("gradio."):
            raise OSError("no stubs are wanted")
        return tell(thing)

    inspect.getfile = told  # type: ignore[assignment]
    try:
        yield
    finally:
        inspect.getfile = tell
