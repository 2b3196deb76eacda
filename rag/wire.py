"""HTTP to a model's server: one request, one reply in lines, within a deadline and a size, and a connection that another thread can hang up.

Knows no protocol. The libraries' own time limits count from byte to byte, so a slow drip gets past them; and a blocked read ends only when the
socket under it is shut down.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 5.0
MOST_BYTES = 16_000_000
"""No reply that is meant well is longer, with all its thinking."""

ERROR_BYTES = 20_000
"""What is read of an error's text: enough to learn which field was refused."""


class Fault(Exception):
    """What went wrong, for a program: nothing in it is meant to be shown.

    `late`: the reply's own deadline; `silent`: nothing came; `broken`: the connection ended in the midst; `hung up`: by this side.
    """

    def __init__(
        self,
        kind: Literal["unreachable", "silent", "late", "broken", "status", "unreadable", "too large", "hung up"],
        status: int = 0,
        retry_after: float | None = None,
        said: str = "",
    ) -> None:
        super().__init__(kind)
        self.kind, self.status, self.retry_after, self.said = kind, status, retry_after, said


class Line:
    """The call that one question is waiting for, so that another thread can hang it up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hang_up: Callable[[], None] | None = None
        self.closed = False

    def hold(self, hang_up: Callable[[], None]) -> None:
        """What hangs up now; called at once where somebody has hung up already."""
        with self._lock:
            self._hang_up = hang_up
            if self.closed:
                hang_up()

    def hang_up(self) -> None:
        """Ends the call, and every later one. From any thread. The lock is held meanwhile: once it is free, the connection may serve another question."""
        with self._lock:
            self.closed = True
            if self._hang_up:
                self._hang_up()


LINE: ContextVar[Line | None] = ContextVar("line", default=None)
"""Set while a model is asked, so that neither its Protocol nor what is wrapped around it need know of hanging up."""


class Connection:
    """A client that holds one connection at most, so that its socket is known, and can be shut down under a blocked read."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self._stream: Any = None
        self._lock = threading.Lock()
        self._call = 0
        self.ended: Literal["", "late", "hung up"] = ""

    def begin(self) -> int:
        """A number for the call that begins; end() takes it, so that a clock that strikes too late ends no other question's call."""
        with self._lock:
            self._call += 1
            return self._call

    def finish(self) -> None:
        """The call is over: its end() does nothing any more."""
        self.begin()

    def trace(self, event: str, info: dict[str, Any]) -> None:
        made = info.get("return_value")
        if event.endswith(".complete") and hasattr(made, "get_extra_info"):
            self._stream = made
            if self.ended:
                self._shut()

    def end(self, why: Literal["late", "hung up"], call: int) -> None:
        with self._lock:
            if call != self._call:
                return
            self.ended = self.ended or why
            self._shut()

    def _shut(self) -> None:
        if self._stream is not None and (own := self._stream.get_extra_info("socket")) is not None:
            with suppress(OSError, ValueError):
                # The plain socket's method: that of an encrypted one takes its state away from under the thread that reads.
                socket.socket.shutdown(own, socket.SHUT_RDWR)


class Reply:
    """An open reply whose status is good."""

    def __init__(self, response: httpx.Response, connection: Connection) -> None:
        self._response = response
        self._connection = connection

    def lines(self) -> Iterator[str]:
        """The lines as they come. Raises Fault `too large`, and where this side ended the connection: for many a reply that is an end like any other."""
        held, size = bytearray(), 0
        for block in self._response.iter_bytes():
            size += len(block)
            if size > MOST_BYTES:
                raise Fault("too large")
            held += block
            if b"\n" in block:
                *whole, rest = bytes(held).split(b"\n")
                held = bytearray(rest)
                for line in whole:
                    yield line.decode("utf-8", "replace").rstrip("\r")
        if self._connection.ended:
            raise Fault(self._connection.ended)
        if held:
            yield held.decode("utf-8", "replace")

    def events(self) -> Iterator[dict[str, Any]]:
        """The data of server-sent events, each a JSON object; `[DONE]` ends them. Raises Fault `unreadable` for anything else, and where there is no event at all."""
        if "html" in self._response.headers.get("content-type", "").lower():
            raise Fault("unreadable")
        heard = False
        for line in self.lines():
            if not line.startswith("data:"):
                continue
            data = line[5:].strip()
            if data == "[DONE]":
                return
            heard = True
            yield _object(data)
        if not heard:
            raise Fault("unreadable")

    def whole(self) -> dict[str, Any]:
        """The JSON object that the reply is. Raises Fault `unreadable`."""
        return _object("\n".join(self.lines()))


class Wire:
    """Connections to one server."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        login = re.match(r"(https?://)([^/@]*)@(.*)", url)
        # A login in the address would stand in the client's log.
        self._url = (login[1] + login[3] if login else url).rstrip("/")
        self._login = tuple((*login[2].split(":", 1), "")[:2]) if login else None
        self._headers = {"Accept-Encoding": "identity", **headers}
        self._idle: list[Connection] = []
        self._lock = threading.Lock()

    @contextmanager
    def ask(self, path: str, body: dict[str, Any] | None, seconds: float, silence: float) -> Iterator[Reply]:
        """Posts `body` as JSON, or gets where it is None. The whole reply may take `seconds`, and `silence` may pass between two of its bytes. Raises Fault."""
        import httpx

        line = LINE.get()
        connection = self._connection()
        call = connection.begin()
        clock = threading.Timer(seconds, connection.end, ("late", call))
        clock.daemon = True
        whole = False
        try:
            clock.start()
            if line is not None:
                line.hold(lambda: connection.end("hung up", call))
            if connection.ended:
                raise Fault(connection.ended)
            if not _has_host(self._url):
                raise Fault("unreachable")
            request = connection.client.build_request(
                "GET" if body is None else "POST",
                self._url + path,
                json=body,
                headers=self._headers,
                timeout=httpx.Timeout(min(silence, seconds), connect=min(CONNECT_SECONDS, seconds)),
                extensions={"trace": connection.trace},
            )
            response = connection.client.send(request, stream=True, auth=self._login)
            try:
                if response.status_code != 200:
                    raise Fault("status", response.status_code, retry_after(response.headers.get("retry-after")), _beginning(response))
                yield Reply(response, connection)
                whole = not connection.ended
            finally:
                response.close()
        except Fault as fault:
            raise (Fault(connection.ended) if connection.ended else fault) from None
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError):
            raise Fault(connection.ended or "unreachable") from None
        except httpx.TimeoutException:
            raise Fault(connection.ended or "silent") from None
        except httpx.UnsupportedProtocol:
            raise Fault("unreachable") from None
        except httpx.LocalProtocolError:
            raise Fault("unreadable") from None
        except httpx.TransportError:
            raise Fault(connection.ended or "broken") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ValueError, TypeError, LookupError, AttributeError):
            # What is sent or comes back is not what it should be: a page of HTML has no choices, a key can hold what no header can.
            raise Fault(connection.ended or "unreadable") from None
        finally:
            clock.cancel()
            if line is not None:
                line.hold(lambda: None)
            connection.finish()
            self._give_back(connection, whole)

    def _connection(self) -> Connection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        import httpx

        loopback = re.match(r"https?://(?:localhost|127\.[\d.]+|\[::1\])(?:[:/]|$)", self._url) is not None
        return Connection(httpx.Client(trust_env=not loopback, limits=httpx.Limits(max_connections=1, max_keepalive_connections=1)))

    def _give_back(self, connection: Connection, whole: bool) -> None:
        """Keeps a connection whose reply was read to its end; any other is closed, which tells its server to stop."""
        if whole and not connection.ended:
            with self._lock:
                self._idle.append(connection)
        else:
            connection.client.close()

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.client.close()


def retry_after(told: str | None) -> float | None:
    """Seconds to wait from a Retry-After header, which holds a number or a date; None where it holds neither."""
    if not told:
        return None
    with suppress(ValueError):
        seconds = float(told)
        return max(0.0, seconds) if seconds < 1e9 else None
    with suppress(ValueError, TypeError):
        when = parsedate_to_datetime(told)
        return max(0.0, (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - datetime.now(UTC).timestamp())
    return None


def _has_host(url: str) -> bool:
    """Whether an address names a host. httpx takes half a bracket for a part of a name, and has that looked up."""
    try:
        return bool(urlsplit(url).hostname)
    except ValueError:
        return False


def _beginning(response: httpx.Response) -> str:
    """The first characters of an error's text."""
    import httpx

    said = b""
    until = time.monotonic() + 2  # what was refused is known; its reasons are not worth waiting for
    with suppress(httpx.HTTPError):
        for block in response.iter_bytes():
            said += block
            if len(said) > ERROR_BYTES or time.monotonic() > until:
                break
    return said[:ERROR_BYTES].decode("utf-8", "replace").lower()


def _object(data: str) -> dict[str, Any]:
    try:
        made = json.loads(data)
    except (ValueError, RecursionError):
        raise Fault("unreadable") from None
    if not isinstance(made, dict):
        raise Fault("unreadable")
    return made
