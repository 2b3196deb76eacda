"""Vectors of texts that come again: the excerpts of what is often asked about are read anew for each question, and embedded once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from index.embed import Embedder

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEXTS = 4_096
"""How many texts' vectors are kept, those asked for last: some 8 MB of 384 numbers each, and what a hundred questions embed."""

SOON_SECONDS = 2.0
"""So long a question waits for a model that is being loaded; the default one takes less. Then words alone find its evidence."""


class Remembered:
    """An embedder that embeds no text again that it was lately given. May be used from any thread."""

    def __init__(self, embedder: Embedder, most: int = TEXTS) -> None:
        self._embedder, self._most = embedder, most
        self._vectors: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()
        self._loaded = threading.Event()
        self._loaded.set()

    @contextmanager
    def loading(self) -> Iterator[None]:
        """While the model is loaded in the background."""
        self._loaded.clear()
        try:
            yield
        finally:
            self._loaded.set()

    @property
    def is_loading(self) -> bool:
        """Whether the model is being loaded in the background."""
        return not self._loaded.is_set() and not self._embedder.loaded

    def soon(self) -> bool:
        """Whether texts can be embedded now, or after a moment; not while a large model is loaded in the background."""
        return not self.is_loading or self._loaded.wait(SOON_SECONDS)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, one a text: shape (len(texts), dimension)."""
        keys = [blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts]
        with self._lock:
            known = {key: self._vectors[key] for key in keys if key in self._vectors}
            for key in known:
                self._vectors.move_to_end(key)
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if new or not texts:
            made = self._embedder.embed(list(new.values()))
            if not texts:
                return made
            # Copies: a row of `made` alone would keep all of it in memory.
            fresh = {key: vector.copy() for key, vector in zip(new, made, strict=True)}
            known.update(fresh)
            with self._lock:
                self._vectors.update(fresh)
                while len(self._vectors) > self._most:
                    self._vectors.popitem(last=False)
        return np.stack([known[key] for key in keys])
