"""Puts hits in a better order with a cross-encoder, which reads question and passage together: optional, by name, slower than search itself."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

from index.embed import fetched, refuse_pickles, unusable
from index.errors import ModelUnavailable
from index.types import Hit

LOOKED_AT = 30
"""How many of search's hits are read anew."""


class Reranker(Protocol):
    """What reranking needs of a model."""

    def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        """How well each text answers the question, from 0 to 1, as all scores of hits are. Raises ModelUnavailable."""
        ...


class CrossEncoderReranker:
    """A cross-encoder of sentence-transformers, loaded when its first question comes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()

    @cached_property
    def _model(self) -> Any:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        folder = fetched(self.name, "reranker", "cross-encoder", "or set no reranker")
        refuse_pickles("reranker", self.name, folder)
        import transformers
        from sentence_transformers import CrossEncoder

        transformers.utils.logging.disable_progress_bar()
        try:
            return CrossEncoder(str(folder), local_files_only=True, trust_remote_code=False, model_kwargs={"use_safetensors": True})
        except Exception as error:
            raise unusable("reranker", self.name, error) from error

    def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        with self._lock:
            model = self._model
            from torch.nn import Sigmoid

            # Many cross-encoders tell log-odds, below zero too, by which no other score could be weighed.
            made = model.predict([(question, text) for text in texts], batch_size=16, show_progress_bar=False, activation_fn=Sigmoid())
        if getattr(made, "ndim", 1) != 1:
            raise ModelUnavailable(f"The model '{self.name}' tells {made.shape[1]} scores for a passage; a reranker tells one. Choose another.")
        return [float(score) for score in made]


def reranked(question: str, hits: Sequence[Hit], reranker: Reranker) -> list[Hit]:
    """The hits in the reranker's order, with its scores; the sort is stable, so equals stay as search had them."""
    if not hits:
        return []
    scores = reranker.scores(question, [f"{hit.passage.title}\n{hit.passage.heading}\n{hit.passage.text}" for hit in hits])
    return [replace(hit, score=score) for score, hit in sorted(zip(scores, hits, strict=True), key=lambda pair: -pair[0])]
