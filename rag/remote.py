"""What the command line asks of a running server, when that owns the store."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any, NamedTuple, Self

import httpx

from index.errors import CitewellError, InvalidQuestion, StoreInUse


class Running(NamedTuple):
    """A server that owns a store: where it answers, and the key that it left for whoever may read the store's folder."""

    address: str
    key: str = ""

    @classmethod
    def of(cls, error: StoreInUse) -> Self:
        """The one that owns the store. Raises the error itself where that process does not answer."""
        if error.address is None:
            raise error
        return cls(error.address, error.key)

    @property
    def headers(self) -> dict[str, str]:
        """What every request to it carries."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    @property
    def common(self) -> dict[str, Any]:
        """What every request to it has in common."""
        # It is this machine's own, at a port that it holds: there is nobody to prove it to, its certificate is made for another name, and no proxy
        # stands between.
        return {"headers": self.headers, "verify": False, "trust_env": False}


def events(running: Running, path: str, body: dict[str, Any]) -> Generator[tuple[str, dict[str, Any]], None, None]:
    """The events, by name, with which a running server answers a POST, and "waiting" while it has nothing to say; closing the iterator tells it to stop.

    Raises InvalidQuestion and CitewellError as the server does, and CitewellError where it does not answer or breaks off.
    """
    try:
        content = json.dumps(body).encode("ascii")
        wait = httpx.Timeout(300, connect=5)
        common = {**running.common, "headers": {**running.headers, "Accept": "text/event-stream", "Content-Type": "application/json"}}
        with httpx.stream("POST", f"{running.address}{path}", content=content, timeout=wait, **common) as response:
            if response.status_code != 200:
                told = json.loads(response.read() or b"{}")
                message = told.get("error") or told.get("detail") or f"the server at {running.address} answered with status {response.status_code}"
                raise (InvalidQuestion if response.status_code == 400 else CitewellError)(str(message))
            name = ""
            for line in response.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    data = json.loads(line.removeprefix("data: "))
                    if name == "error":
                        raise CitewellError(data["error"])
                    yield name, data
                elif line.startswith(":"):
                    yield "waiting", {}
            if name not in ("answer", "report"):
                raise CitewellError(f"The Citewell that owns this store, at {running.address}, broke off before its end. Try again.")
    except (httpx.HTTPError, json.JSONDecodeError) as error:
        raise _silent(running.address, error) from error


def documents(running: Running) -> list[dict[str, Any]]:
    """The listing of a running server. Raises CitewellError where it does not answer."""
    try:
        listing: list[dict[str, Any]] = httpx.get(f"{running.address}/api/documents", timeout=30, **running.common).raise_for_status().json()
    except (httpx.HTTPError, json.JSONDecodeError) as error:
        raise _silent(running.address, error) from error
    return listing


def forget(running: Running, folder: str) -> int:
    """Has a running server let go of a folder; returns how many documents it had. Raises CitewellError as the server does."""
    try:
        response = httpx.post(f"{running.address}/api/forget", json={"folder": folder}, timeout=httpx.Timeout(900, connect=5), **running.common)
        told = response.json()
    except (httpx.HTTPError, json.JSONDecodeError) as error:
        raise _silent(running.address, error) from error
    if response.status_code != 200:
        raise CitewellError(str(told.get("error") or f"the server at {running.address} answered with status {response.status_code}"))
    return int(told["documents"])


def add_url(running: Running, url: str) -> dict[str, Any]:
    """Has a running server add a web page; returns what became of it. Raises CitewellError as the server does."""
    try:
        # Until the page is fetched and read.
        response = httpx.post(f"{running.address}/api/documents/url", json={"url": url}, timeout=httpx.Timeout(300, connect=5), **running.common)
        told = response.json()
    except (httpx.HTTPError, json.JSONDecodeError) as error:
        raise _silent(running.address, error) from error
    if response.status_code != 200:
        raise CitewellError(str(told.get("error") or f"the server at {running.address} answered with status {response.status_code}"))
    fate: dict[str, Any] = told["files"][0]
    return fate


def _silent(address: str, error: Exception) -> CitewellError:
    return CitewellError(f"The Citewell that owns this store, at {address}, does not answer ({type(error).__name__}). Stop it and try again.")
