"""Fetches a page by its address and gives it to the library, without a way into the network that the server stands in.

The host is looked up once for each hop, every answer is checked, and the connection goes to what was checked: no name is looked up a second time, when it
could mean another address. httpcore knows neither proxies nor cookies, logins or redirects; so there are none that nobody thought of.
"""

from __future__ import annotations

import queue
import socket
import ssl
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import httpcore
import httpx

from index.errors import NotAllowed, NotFetched, OverLimit
from index.read import fingerprint
from rag import __version__
from rag.limits import Shares
from rag.web_address import REFUSED, WebAddress, is_public
from rag.web_page import file_name, in_utf8, is_keyed, key_of, may_be_read, media_type, suffix_of

if TYPE_CHECKING:
    from rag.library import Library

SECONDS = 30.0
"""What one page may take, with all its redirects."""

CONNECT_SECONDS = 5.0
TRIED = 4
"""So many of a host's addresses are tried, each so long: its first may be of a kind that this machine has no way to."""

REDIRECTS = 5
AT_ONCE_OF_ONE, AT_ONCE = 2, 4
"""So many pages are fetched at a time for a user, and for all: a slow server holds a thread that others wait for."""

BEGINNING = 1_024
PIECE = 65_536

OFF = "Adding pages by their address is turned off in this Citewell. Save the page and add it as a file; or set CITEWELL_ADD_URLS=true and start Citewell again."
SILENT = "The page was not fetched: its server cannot be reached. Check the address, or try again later."
BROKEN = "The page was not fetched: its server broke off, or sent what is no web page. Try again later, or save the page in a browser and add it as a file."
UNTRUSTED = "The page was not fetched: its server has no certificate that proves it to be what its name says. Check the address."

_places = Shares(AT_ONCE_OF_ONE, AT_ONCE, "As many pages as may be are being fetched already.", SECONDS)


class Clock:
    """The time that is left for one page."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._ends = seconds, time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until the end. Raises NotFetched once it has come."""
        left = self._ends - time.monotonic()
        if left <= 0:
            raise NotFetched(
                f"The page was not fetched: it did not come within {self._seconds:g} seconds. Try again later, or save it in a browser and add it as a file."
            )
        return left


def resolved(host: str, seconds: float) -> Sequence[str]:
    """The IP addresses of a name, as many as are known within so many seconds; none where there is no such name."""
    found: queue.SimpleQueue[list[str]] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            # With a dot at its end a name is looked up as it stands, and not among those of the inner network.
            rows = socket.getaddrinfo(f"{host}.", None, type=socket.SOCK_STREAM)
            found.put([str(address[0]) for _, _, _, _, address in rows])
        except (OSError, UnicodeError):
            found.put([])

    # In a thread, because it takes as long as it takes.
    threading.Thread(target=look_up, name="citewell-resolve", daemon=True).start()
    try:
        return found.get(timeout=seconds)
    except queue.Empty:
        return []


def is_own(address: str) -> bool:
    """Whether an IP address is this machine's, which may listen there for its own network alone. Nothing is sent to find out."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
            return bool(probe.getsockname()[0] == address)
        except OSError:
            return False


def connected(address: str, port: int, seconds: float) -> httpcore.NetworkStream:
    """A connection to an IP address. Raises what httpcore raises, and NotFetched where the address is this machine's own."""
    if is_own(address):
        raise NotFetched(REFUSED)
    return httpcore.SyncBackend().connect_tcp(address, port, seconds)


@dataclass(frozen=True, slots=True)
class Internet:
    """The ways out: names to IP addresses, an IP address to a connection, and whose certificates are trusted. Tests have others."""

    resolve: Callable[[str, float], Sequence[str]] = resolved
    connect: Callable[[str, int, float], httpcore.NetworkStream] = connected
    trust: Callable[[], ssl.SSLContext] = httpx.create_ssl_context


INTERNET = Internet()


class _Timed(httpcore.NetworkStream):
    """A connection whose every step ends with the clock: time limits from byte to byte let a slow drip through."""

    def __init__(self, stream: httpcore.NetworkStream, clock: Clock) -> None:
        self._stream, self._clock = stream, clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._clock.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._clock.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None) -> httpcore.NetworkStream:
        try:
            return _Timed(self._stream.start_tls(ssl_context, server_hostname, self._clock.left()), self._clock)
        except httpcore.ConnectError as error:
            raise NotFetched(UNTRUSTED if isinstance(error.__cause__, ssl.SSLCertVerificationError) else BROKEN) from None

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Checked(httpcore.NetworkBackend):
    """Connects to IP addresses that were checked, whatever name it is given: that is for the Host header and the certificate."""

    def __init__(self, addresses: Sequence[str], connect: Callable[[str, int, float], httpcore.NetworkStream], clock: Clock) -> None:
        self._addresses, self._connect, self._clock = addresses, connect, clock

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        for address in self._addresses[:TRIED]:
            try:
                return _Timed(self._connect(address, port, min(CONNECT_SECONDS, self._clock.left())), self._clock)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        raise NotFetched(SILENT)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A page whose bytes were written to a file: where it was found in the end, its Content-Type as its server has it, and how it begins."""

    address: WebAddress
    content_type: str
    beginning: bytes


def fetch(address: WebAddress, into: Path, most: int, internet: Internet, seconds: float = SECONDS) -> Fetched:
    """Fetches a page of at most so many bytes. Raises NotFetched, and OverLimit where it is larger, as soon as that is known."""
    clock = Clock(seconds)
    for _ in range(REDIRECTS + 1):
        with _asked(address, internet, clock) as response:
            headers = {name.lower().decode("latin-1"): value.decode("utf-8", "replace") for name, value in reversed(response.headers)}
            if response.status in (301, 302, 303, 307, 308) and "location" in headers:
                address = address.followed(headers["location"])
                continue
            if response.status != 200:
                raise NotFetched(f"The page was not fetched: its server answers with status {response.status}. Check the address in a browser.")
            content_type = headers.get("content-type", "")
            if not may_be_read(media_type(content_type)):
                raise NotFetched(f"The page was not fetched: its server calls it {media_type(content_type)}, which cannot be read.")
            return Fetched(address, content_type, _kept(response, headers, into, most))
    raise NotFetched(
        f"The page was not fetched: its server leads on more than {REDIRECTS} times. Open it in a browser, and take the address that it has there."
    )


@contextmanager
def _asked(address: WebAddress, internet: Internet, clock: Clock) -> Iterator[httpcore.Response]:
    """The response of the server at an address, its body not read yet. Raises NotFetched."""
    addresses = [address.host] if address.ip else list(dict.fromkeys(internet.resolve(address.host, clock.left())))
    # One inner address among public ones is enough: which of them is connected to may depend on who is quicker.
    if not addresses or not all(map(is_public, addresses)):
        raise NotFetched(REFUSED)
    url = httpcore.URL(scheme=address.scheme.encode(), host=address.host.encode(), port=address.port, target=address.target.encode())
    headers = {
        "Host": address.authority,
        "User-Agent": f"Citewell/{__version__}",
        "Accept": "text/html, application/pdf, text/*, */*;q=0.5",
        "Accept-Encoding": "gzip",  # what is unpacked here piece by piece
        "Connection": "close",
    }
    backend = _Checked(addresses, internet.connect, clock)
    try:
        with httpcore.ConnectionPool(
            ssl_context=internet.trust() if address.scheme == "https" else None,
            network_backend=backend,
            max_connections=1,
            max_keepalive_connections=0,
            retries=0,
        ) as pool:
            request = httpcore.Request("GET", url, headers=[(name.encode(), value.encode()) for name, value in headers.items()])
            response = pool.handle_request(request)
            try:
                yield response
            finally:
                response.close()
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol):
        clock.left()  # which says so where the time is up
        raise NotFetched(BROKEN) from None


def _kept(response: httpcore.Response, headers: dict[str, str], into: Path, most: int) -> bytes:
    """Writes a response's body to a file, unpacked, and returns how it begins. Neither what comes nor what it unpacks to may be larger than `most`."""
    too_large = OverLimit(f"The page was not fetched: it is larger than {most / 1_000_000:,.6g} MB, the most that can be added now.")
    packing = headers.get("content-encoding", "identity").strip().lower()
    if packing not in ("", "identity", "gzip", "x-gzip"):
        raise NotFetched(BROKEN)
    length = headers.get("content-length", "0")
    if length.isascii() and length.isdecimal() and int(length[:16]) > most:
        raise too_large
    beginning, came, size = b"", 0, 0
    unpacking = _Gunzip() if "gzip" in packing else None
    with into.open("wb") as file:
        for block in _blocks(response):
            came += len(block)
            if came > most:
                raise too_large
            for piece in unpacking.pieces(block) if unpacking else (block,):
                size += len(piece)
                if size > most:
                    raise too_large
                file.write(piece)
                beginning = (beginning + piece)[:BEGINNING] if len(beginning) < BEGINNING else beginning
    if unpacking and not unpacking.whole:
        raise NotFetched(BROKEN)
    if not size:
        raise NotFetched("The page was not fetched: it is empty. Check the address in a browser.")
    return beginning


def _blocks(response: httpcore.Response) -> Iterator[bytes]:
    assert not isinstance(response.stream, bytes)
    yield from response.iter_stream()


class _Gunzip:
    """Unpacks gzip in pieces of at most PIECE bytes, so that whoever counts them can stop before there are too many."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._begun = False

    @property
    def whole(self) -> bool:
        """Whether what came so far is whole."""
        return self._member.eof or not self._begun

    def pieces(self, block: bytes) -> Iterator[bytes]:
        """What a block unpacks to. Raises NotFetched where it is damaged."""
        while block:
            self._begun = True
            if self._member.eof:
                # Another member may follow; what is none is padding.
                if not block.startswith(b"\x1f"):
                    return
                self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)
            try:
                yield self._member.decompress(block, PIECE)
            except zlib.error:
                raise NotFetched(BROKEN) from None
            block = self._member.unused_data if self._member.eof else self._member.unconsumed_tail


class Added(NamedTuple):
    """A page that the library has taken: its source there, and the fingerprint of its bytes."""

    source: str
    fingerprint: str


def add(url: str, library: Library, allowed: bool, internet: Internet | None = None) -> Added:
    """Fetches a page into a library, in place of what was fetched from that address before; it is read in the background.

    The address itself is not kept: the file's name tells host and path of where the page was found. Raises NotAllowed, NotFetched, OverLimit, CitewellError.
    """
    if not allowed:
        raise NotAllowed(OFF)
    asked = WebAddress.of(url)
    key = key_of(asked)
    with _places.place(library.own_root):
        before = {name for name in library.names(library.own_root) if is_keyed(name, key)}
        with tempfile.TemporaryDirectory(prefix="citewell-page-") as scratch:
            path = Path(scratch, "page")
            page = fetch(asked, path, library.room(before), internet or INTERNET)
            suffix = suffix_of(media_type(page.content_type), page.address, page.beginning)
            if suffix is None:
                raise NotFetched("The page was not fetched: it cannot be told of which kind it is. Save it in a browser and add it as a file.")
            content = in_utf8(path.read_bytes(), page.content_type, suffix)
            path.write_bytes(content)
            source = library.add(file_name(page.address, key, suffix), path)
    # It may have another suffix now, or have moved.
    for name in before - {source}:
        library.discard(library.own_root, name)
    return Added(source, fingerprint(content))
