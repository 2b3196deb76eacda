"""Chroma's one collection in one folder, and the files that it keeps there. With chroma_server.py the only user of chromadb."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from index.errors import CitewellError, StoreError
from index.seal import break_seal, make_private_folder
from index.threads import cores

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLLECTION = "passages"

EVERYTHING_IN_MEMORY = 1_000_000
"""Chroma's sync_threshold: below so many new vectors it never rewrites its files, which a kill would leave broken. It reads them anew on opening."""

LEAST_THRESHOLD = 3
"""Chroma takes no smaller one."""

LOOKED_AT = 300
"""How many passages of a large index a search looks at (HNSW's ef_search). docs/benchmarks.md says what it finds of the nearest, and how long it takes."""

SEAL = "seal.json"

_beside = ThreadPoolExecutor(thread_name_prefix="citewell-nearest")


class IndexBroken(StoreError):
    """Chroma failed; SQLite still holds everything, so the answer is to rebuild."""


@contextmanager
def _errors_named() -> Iterator[None]:
    """Gives whatever Chroma raises one name. Its Rust panics are no Exceptions."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, CitewellError):
        raise
    except BaseException as error:
        raise IndexBroken(f"{type(error).__name__}: {error}") from error


class Collection:
    """Chroma's one collection in one folder. Closing waits for queries that are under way."""

    def __init__(self, folder: Path, sync_threshold: int = EVERYTHING_IN_MEMORY) -> None:
        self.folder = folder
        self._using = 0
        self._idle = threading.Condition()
        self._closed = False
        with _errors_named():
            import chromadb

            # The seal says how the files were when they were last closed; from here on they change.
            break_seal(folder / SEAL)
            make_private_folder(folder)  # what Chroma makes in it anybody might read
            self._client = chromadb.PersistentClient(str(folder), settings=chromadb.Settings(anonymized_telemetry=False))
            try:
                self._collection = self._client.get_or_create_collection(
                    COLLECTION,
                    embedding_function=None,
                    configuration={"hnsw": {"space": "cosine", "sync_threshold": sync_threshold, "ef_search": LOOKED_AT}},
                )
                known = (self._collection.configuration.get("hnsw") or {}).get("ef_search")
                if known != LOOKED_AT:  # made by an earlier version; from the next opening on
                    self._collection.modify(configuration={"hnsw": {"ef_search": LOOKED_AT}})
            except BaseException:
                self._client.close()
                raise

    @contextmanager
    def _use(self) -> Iterator[Any]:
        with self._idle:
            if self._closed:
                raise IndexBroken("it was closed")
            self._using += 1
        try:
            with _errors_named():
                yield self._collection
        finally:
            with self._idle:
                self._using -= 1
                self._idle.notify_all()

    def load(self) -> None:
        """Reads it into memory, all of it, as whoever asks first would have to wait for: two seconds at half a million passages.

        Other threads run meanwhile, as Chroma lets them while it looks something up; while it counts it does not.
        """
        self.held([""])

    def count(self) -> int:
        with self._use() as collection:
            return int(collection.count())

    def held(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that it holds."""
        with self._use() as collection:
            return set(collection.get(ids=list(ids), include=[])["ids"])

    def add(self, ids: Sequence[str], vectors: Sequence[bytes]) -> None:
        if ids:
            with self._use() as collection:
                collection.upsert(ids=list(ids), embeddings=[np.frombuffer(vector, dtype=np.float32) for vector in vectors])

    def delete(self, ids: Sequence[str]) -> None:
        if ids:
            with self._use() as collection:
                collection.delete(ids=list(ids))

    def nearest(self, vectors: NDArray[np.float32], limit: int) -> list[list[tuple[str, float]]]:
        """The ids nearest to each row, with their cosine similarity. Chroma looks for one after the other, so several are shared out over the cores."""
        with self._use() as collection:

            def found(some: NDArray[np.float32]) -> list[list[tuple[str, float]]]:
                said = collection.query(query_embeddings=list(some), n_results=limit, include=["distances"])
                return [
                    [(identifier, 1 - distance) for identifier, distance in zip(*hits, strict=True)]
                    for hits in zip(said["ids"], said["distances"], strict=True)
                ]

            mine, *others = np.array_split(vectors, max(1, min(len(vectors), cores())))
            looking: list[Future[list[list[tuple[str, float]]]]] = []
            try:
                with suppress(RuntimeError):  # no thread can be started, as at the interpreter's end: the rest is looked for here
                    for some in others:
                        looking.append(_beside.submit(found, some))
                own = found(mine)
                rest = [hits for some in others[len(looking) :] for hits in found(some)]
            finally:
                wait(looking)  # until then it is in use
            return [*own, *(hits for one in looking for hits in one.result()), *rest]

    def vectors(self, ids: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The unit vectors of those of the ids that it holds."""
        with self._use() as collection:
            found = collection.get(ids=list(ids), include=["embeddings"]) if ids else {"ids": [], "embeddings": []}
            return dict(zip(found["ids"], np.asarray(found["embeddings"], dtype=np.float32), strict=True))

    def keep_in_memory(self) -> None:
        """From the next opening on, Chroma rewrites its files no more."""
        self.write_after(EVERYTHING_IN_MEMORY)

    def write_after(self, changes: int) -> None:
        """From the next opening on, Chroma rewrites its files whenever it has been told of so many changes."""
        with self._use() as collection:
            collection.modify(configuration={"hnsw": {"sync_threshold": max(LEAST_THRESHOLD, changes)}})

    def close(self) -> None:
        with self._idle:
            if self._closed:
                return
            self._closed = True
            self._idle.wait_for(lambda: not self._using, timeout=10)
        with suppress(IndexBroken), _errors_named():
            self._client.close()


def write_out(collection: Collection) -> None:
    """Closes an index, and has it write into its files what they lack: reading that anew on each opening would take as long as adding it."""
    collection.write_after(1)
    collection.close()
    with closing(Collection(collection.folder)) as again:
        again.count()
        again.keep_in_memory()


def delete(path: Path) -> None:
    """What cannot be deleted now goes at the next opening."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name not in (SEAL, "seal.new")]
