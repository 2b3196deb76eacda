"""A Chroma server by its address, such as `chroma run` or a hosted one: collections of vectors whose ids are passages' numbers.

Whatever goes wrong is ChromaAway, or CollectionMissing where the server answers and has no such collection; neither repeats what the server said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from index.collection import LOOKED_AT
from index.errors import CitewellError, InvalidSettings, StoreError

if TYPE_CHECKING:
    from numpy.typing import NDArray

ANSWER_SECONDS, LOOK_SECONDS = 20.0, 3.0
"""How long the server may take for one piece of work, and to say that it is there."""

HOSTED_BATCH = 300
"""A hosted Chroma takes so many at once; the server's own figure is taken where it is smaller or larger."""


WRITTEN_EVERY = 5_000
"""After so many changes the server writes its graph. Until then it reads the log of all of them with each request that changes something: docs/scale.md.
A kill while it writes can break a collection, which is then filled anew."""

OF_DISTANCE = {"cosine": 1.0, "ip": 1.0, "l2": 0.5}
"""So much of a distance, by its name, is taken from 1 to have the cosine similarity of unit vectors."""

PROBED_AT_ONCE, PROBED_AMONG, SAME = 100, 10, 1e-5
"""So many vectors are looked for in one request, each among so many of the nearest; nearer than that, two vectors are the same."""


class ChromaAway(StoreError):
    """The Chroma server does not answer, or not as it should. PostgreSQL still holds everything."""


class ChromaRefused(ChromaAway):
    """The Chroma server is there and does not do what it is asked. It may the next time."""


class CollectionMissing(ChromaRefused):
    """The Chroma server answers, and does not have the collection."""


@dataclass(frozen=True, slots=True)
class ChromaAddress:
    """Where a Chroma server is, and what lets one in."""

    url: str
    api_key: str = field(default="", repr=False)
    tenant: str = "default_tenant"
    database: str = "default_database"

    @property
    def shown(self) -> str:
        """The address as it may be shown."""
        return f"{urlsplit(self.url).scheme}://{self.host}:{self.port}"

    @property
    def host(self) -> str:
        """The host, in brackets where it is an address of the sixth version."""
        host = str(urlsplit(self.url).hostname)
        return f"[{host}]" if ":" in host else host

    @property
    def port(self) -> int:
        """The port, Chroma's own where the address names none."""
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 8000)


@contextmanager
def _chroma(what: str) -> Iterator[None]:
    """Gives whatever Chroma's client raises one name."""
    try:
        yield
    except CitewellError:
        raise
    except Exception as error:
        import httpx

        kind = type(error).__name__
        missing = kind in ("NotFoundError", "InvalidCollectionException")
        said = CollectionMissing if missing else ChromaAway if isinstance(error, httpx.TransportError) else ChromaRefused
        raise said(f"{what} failed ({kind})") from None


class Collection:
    """One collection of a Chroma server. Ids are passages' numbers; with each goes its document's number and its owner."""

    def __init__(self, collection: Any, batch: int) -> None:
        self._collection, self.batch = collection, batch
        # Without a graph of this kind it is a hosted one, whose distances may be those of shortened vectors: they are not relied on.
        graph = collection.configuration.get("hnsw")
        self._of_distance = OF_DISTANCE.get(graph.get("space") or "l2") if graph else None

    def count(self) -> int:
        """How many vectors it holds."""
        with _chroma("counting"):
            return int(self._collection.count())

    def held(self, numbers: Sequence[int]) -> set[int]:
        """Those of the numbers that it holds."""
        found: set[int] = set()
        for start in range(0, len(numbers), self.batch):
            with _chroma("looking up"):
                found.update(map(int, self._collection.get(ids=[str(number) for number in numbers[start : start + self.batch]], include=[])["ids"]))
        return found

    def add(self, numbers: Sequence[int], vectors: Sequence[NDArray[np.float32]], about: Sequence[Mapping[str, int | str]]) -> None:
        """Adds vectors; those that are there are replaced."""
        for start in range(0, len(numbers), self.batch):
            part = slice(start, start + self.batch)
            with _chroma("adding"):
                self._collection.upsert(
                    ids=[str(number) for number in numbers[part]], embeddings=list(vectors[part]), metadatas=[dict(one) for one in about[part]]
                )

    def describe(self, numbers: Sequence[int], about: Sequence[Mapping[str, int | str]]) -> None:
        """Says anew what goes with vectors that are there."""
        for start in range(0, len(numbers), self.batch):
            part = slice(start, start + self.batch)
            with _chroma("updating"):
                self._collection.update(ids=[str(number) for number in numbers[part]], metadatas=[dict(one) for one in about[part]])

    def delete(self, numbers: Sequence[int]) -> None:
        """Drops vectors."""
        for start in range(0, len(numbers), self.batch):
            with _chroma("deleting"):
                self._collection.delete(ids=[str(number) for number in numbers[start : start + self.batch]])

    def nearest(self, vectors: NDArray[np.float32], limit: int, at_least: float, where: Mapping[str, Any] | None = None) -> list[list[int]]:
        """For each row of `vectors` the numbers of the nearest, of those that `where` chooses, without such as are known to be less similar than `at_least`."""
        with _chroma("searching"):
            found = self._collection.query(
                query_embeddings=list(vectors), n_results=limit, include=["distances"], where=dict(where) if where else None
            )
            part = self._of_distance
            return [
                [int(one) for one, distance in zip(*hits, strict=True) if part is None or distance is None or not 1 - part * distance < at_least]
                for hits in zip(found["ids"], found["distances"], strict=True)
            ]

    def unreached(self, numbers: Sequence[int], vectors: Sequence[NDArray[np.float32]]) -> list[int]:
        """Those of the numbers that a search for their own vector does not find; where more vectors are the same than are asked for, none of those."""
        lost: list[int] = []
        for start in range(0, len(numbers), PROBED_AT_ONCE):
            part = slice(start, start + PROBED_AT_ONCE)
            with _chroma("searching"):
                found = self._collection.query(query_embeddings=list(vectors[part]), n_results=PROBED_AMONG, include=["distances"])
                for number, ids, distances in zip(numbers[part], found["ids"], found["distances"], strict=True):
                    if str(number) not in ids and not (len(ids) == PROBED_AMONG and max(distances) < SAME):
                        lost.append(number)
        return lost


class ChromaServer:
    """A connection to a Chroma server. Raises ChromaAway where there is none to be had."""

    def __init__(self, address: ChromaAddress) -> None:
        if urlsplit(address.url).scheme not in ("http", "https"):
            raise InvalidSettings("CITEWELL_CHROMA_URL must be an address such as http://127.0.0.1:8000.")
        self.version = look(address)
        with _chroma("connecting"):
            import chromadb

            parts = urlsplit(address.url)
            self._client = chromadb.HttpClient(
                host=address.host,
                port=address.port,
                ssl=parts.scheme == "https",
                headers={"x-chroma-token": address.api_key} if address.api_key else None,
                settings=chromadb.Settings(anonymized_telemetry=False),
                tenant=address.tenant,
                database=address.database,
            )
            # Chroma's client waits for ever by itself; a question must not.
            self._client._server._session.timeout = ANSWER_SECONDS
        with self._closed_on_failure(), _chroma("connecting"):
            self._batch = max(1, min(1_000, int(self._client.get_max_batch_size() or HOSTED_BATCH)))

    @contextmanager
    def _closed_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets go of the connections. Safe to call twice."""
        with suppress(Exception):  # whatever it says, nobody waits for it any more
            self._client._server._session.close()
            self._client.close()

    def collection(self, name: str) -> Collection:
        """A collection that is there. Raises CollectionMissing."""
        with _chroma("opening a collection"):
            found = self._client.get_collection(name, embedding_function=None)
            if (found.configuration.get("hnsw") or {}).get("ef_search", LOOKED_AT) != LOOKED_AT:  # made by an earlier version
                found.modify(configuration={"hnsw": {"ef_search": LOOKED_AT}})
            return Collection(found, self._batch)

    def create(self, name: str) -> Collection:
        """A new collection, in place of one of its name."""
        self.drop(name)
        with _chroma("making a collection"):
            configuration = {"hnsw": {"space": "cosine", "sync_threshold": WRITTEN_EVERY, "ef_search": LOOKED_AT}}
            try:
                made = self._client.create_collection(name, embedding_function=None, configuration=configuration)
            except ValueError:
                # A hosted Chroma has an index of another kind. Any distance puts unit vectors in the same order.
                made = self._client.create_collection(name, embedding_function=None)
            return Collection(made, self._batch)

    def drop(self, name: str) -> None:
        """Deletes a collection, if there is one of the name."""
        try:
            with _chroma("deleting a collection"):
                self._client.delete_collection(name)
        except CollectionMissing:
            pass

    def names(self, beginning: str) -> list[str]:
        """The names of collections that begin so."""
        with _chroma("listing collections"):
            return [one.name for one in self._client.list_collections() if one.name.startswith(beginning)]


def look(address: ChromaAddress) -> str:
    """The version of the server, asked briefly. Raises ChromaAway where it does not answer."""
    import httpx

    try:
        found = httpx.get(
            f"{address.shown}/api/v2/version", timeout=LOOK_SECONDS, headers={"x-chroma-token": address.api_key} if address.api_key else {}
        )
        found.raise_for_status()
        return str(found.json())
    except (httpx.HTTPError, ValueError):
        raise ChromaAway("The Chroma server does not answer.") from None
