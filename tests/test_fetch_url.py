"""Tests of rag.web_address, rag.web_page and rag.fetch_url: nothing of the inner network is reached by any address, and pages of public servers come in.

Public addresses are played by a server on loopback; whatever else a connection is made to fails the test.
"""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpcore
import pytest
from conftest import FakeEmbedder, make_assistant
from doors import served
from starlette.testclient import TestClient

from index.errors import NotAllowed, NotFetched, OverLimit
from index.store import Store
from rag import cli, fetch_url
from rag.accounts import User
from rag.assistant import Assistant
from rag.fetch_url import BROKEN, OFF, SILENT, UNTRUSTED, Internet, fetch
from rag.limits import Shares
from rag.model import ModelStatus
from rag.server import create_app
from rag.service import Service
from rag.settings import Settings
from rag.web_address import REFUSED, WebAddress, is_public
from rag.web_page import file_name, in_utf8, is_keyed, key_of, media_type, suffix_of

pytestmark = pytest.mark.usefixtures("fast_probes", "only_loopback")

PUBLIC, PUBLIC_2, PUBLIC_6 = "93.184.216.34", "1.1.1.1", "2606:2800:220:1::1"
INNER = ("127.0.0.1", "10.0.0.5", "169.254.169.254", "::1", "fd00:ec2::254")
FERRY = b"<!doctype html><title>The ferry</title><p>The ferry Kestrel sails at noon.</p>"
PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj "
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>endobj "
    b"4 0 obj<</Length 63>>stream\nBT /F1 12 Tf 20 200 Td (The tug Heron left the harbour.) Tj ET\nendstream endobj "
    b"5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj trailer<</Root 1 0 R>>\n%%EOF"
)


@pytest.fixture
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name is looked up and nothing but loopback is connected to, whatever goes wrong."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not ip_address(address[0]).is_loopback:
            raise AssertionError(f"a connection to {address}")
        connect(self, address)

    def plain(host: Any, *more: Any, **other: Any) -> Any:
        ip_address(host)
        return look_up(host, *more, **other)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket, "getaddrinfo", plain)


class Network:
    """Plays names and public addresses. `names` holds what each lookup of a name answers, the last for all that follow; `ports` the loopback port that plays
    an address. Everything that is asked of it is kept."""

    def __init__(self, names: dict[str, Sequence[Sequence[str]]] | None = None, ports: dict[str, int] | None = None) -> None:
        self.names, self.ports = {name: [list(answer) for answer in answers] for name, answers in (names or {}).items()}, ports or {}
        self.looked_up: list[str] = []
        self.connections: list[tuple[str, int]] = []
        self.trusted: ssl.SSLContext | None = None

    def resolve(self, host: str, seconds: float) -> Sequence[str]:
        self.looked_up.append(host)
        answers = self.names.get(host, [[]])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def connect(self, address: str, port: int, seconds: float) -> httpcore.NetworkStream:
        self.connections.append((address, port))
        if address not in self.ports:
            raise httpcore.ConnectError("refused")
        return httpcore.SyncBackend().connect_tcp("127.0.0.1", self.ports[address], seconds)

    def trust(self) -> ssl.SSLContext:
        return self.trusted or ssl.create_default_context()

    @property
    def internet(self) -> Internet:
        return Internet(self.resolve, self.connect, self.trust)


# What is refused


REFUSED_ADDRESSES = [
    # what no address of a page is
    "", " ", "example.org", "//example.org/", "http:/example.org/", "http:example.org", "http://", "http:///etc/passwd", "https://?x",
    "file:///etc/passwd", "ftp://example.org/", "gopher://example.org:80/_x", "dict://example.org/", "data:text/html,x", "javascript:alert(1)",
    "jar:http://example.org!/", "view-source:http://example.org/", "unix:///var/run/docker.sock", "ldap://example.org/", "h\u0442tp://example.org/",
    "http://" + "a." * 1_100 + "org/", "https://example.org/" + "x" * 2_000,
    # who is asked, as two readers could read it
    "http://user@example.org/", "http://user:password@example.org/", "http://example.org@127.0.0.1/", "http://127.0.0.1@example.org/",
    "http://example.org\\@127.0.0.1/", "http://127.0.0.1\\@example.org/", "http://example.org%40127.0.0.1/", "http://example.org%2f@127.0.0.1/",
    "http://example.org\t.evil.org/", "http://exam\nple.org/", "http://example.org/\r\nHost: 127.0.0.1", "http://example.org/\x00", "\thttp://example.org/",
    "http://exa\u200bmple.org/", "http://example.org\u2028/", "http://127.0.0.1 .example.org/", "http://example.org:80:80/", "http://example.org:/",
    "http://example..org/", "http://.example.org/", "http://-example.org/", "http://example.org..", "http://" + "a" * 64 + ".org/", "http://ex%61mple.org/",
    # ports
    "http://example.org:22/", "http://example.org:25/", "http://example.org:6379/", "http://example.org:11211/", "http://example.org:0/",
    "http://example.org:99999/", "http://example.org:-80/", "http://example.org:８０/", "http://example.org:0x50/", "http://example.org:2375/",
    # names of the inner network
    "http://localhost/", "http://LOCALHOST:8080/", "http://localhost./", "http://localhost.localdomain/", "http://a.localhost/", "http://router/",
    "http://printer.local/", "http://metadata.google.internal/", "http://wiki.corp/", "http://nas.home.arpa/", "http://git.lan/", "http://db.intranet/",
    "http://x.onion/", "http://ⓛocalhost/", "http://ｌｏｃａｌｈｏｓｔ/", "http://1.0.0.127.in-addr.arpa/",
    # IPv4, as people and resolvers write it
    "http://127.0.0.1/", "http://127.0.0.1./", "http://127.1/", "http://127.0.1/", "http://2130706433/", "http://0x7f000001/", "http://0x7f.0.0.1/",
    "http://0177.0.0.1/", "http://017700000001/", "http://127.0.0.01/", "http://0/", "http://0.0.0.0:8080/", "http://00.0.0.0/", "http://1.1/",
    "http://127.0.0.1.0x/", "http://127。0。0。1/", "http://１２７.０.０.１/", "http://①②⑦.0.0.1/", "http://127.0.0.1%00.example.org/", "http://127.0.0.1%2eexample.org/",
    "http://10.0.0.5/", "http://172.16.0.1/", "http://172.31.255.255/", "http://192.168.1.1/", "http://100.64.0.1/", "http://100.100.100.200/",
    "http://169.254.169.254/latest/meta-data/", "http://168.63.129.16/metadata", "http://192.0.0.192/", "http://192.0.2.1/", "http://198.18.0.1/",
    "http://198.51.100.7/", "http://203.0.113.9/", "http://192.88.99.1/", "http://224.0.0.1/", "http://239.255.255.250/", "http://240.0.0.1/",
    "http://255.255.255.255/", "http://256.1.1.1/", "http://1.1.1.1.1/",
    # IPv6
    "http://[::1]/", "http://[::]/", "http://[0:0:0:0:0:0:0:1]/", "http://[::127.0.0.1]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/",
    "http://[::ffff:8.8.8.8]/", "http://[::ffff:0:127.0.0.1]/", "http://[64:ff9b::127.0.0.1]/", "http://[64:ff9b::a9fe:a9fe]/", "http://[64:ff9b:1::a00:5]/",
    "http://[2002:7f00:1::]/", "http://[2002:a9fe:a9fe::1]/", "http://[2001:0:53aa:64c:0:5efe:7f00:1]/", "http://[2001::1]/", "http://[2001:db8::1]/",
    "http://[3fff::1]/", "http://[100::1]/", "http://[fe80::1]/", "http://[fe80::1%eth0]/", "http://[fe80::1%25eth0]/", "http://[fec0::1]/",
    "http://[fc00::1]/", "http://[fd00:ec2::254]/", "http://[ff02::1]/", "http://[5f00::1]/", "http://[2606:2800:220:1:0:5efe:a00:5]/", "http://[::1]:8080/",
    "http://[127.0.0.1]/", "http://[::1]x/", "http://[::1/", "http://::1/", "http://[]/", "http://[2606:2800:220:1::1]@[::1]/",
]  # fmt: skip


@pytest.mark.parametrize("url", REFUSED_ADDRESSES)
def test_an_address_that_is_not_plainly_public_is_refused_before_anybody_is_asked(url: str, lasting: Assistant) -> None:
    network = Network({"example.org": [[PUBLIC]]})
    with pytest.raises(NotFetched) as refused:
        fetch_url.add(url, lasting.library, True, network.internet)
    assert (str(refused.value), network.looked_up, network.connections) == (REFUSED, [], [])


@pytest.mark.parametrize(
    "answers",
    [
        ["127.0.0.1"], ["127.8.8.8"], ["10.0.0.5"], ["172.20.1.1"], ["192.168.0.10"], ["169.254.169.254"], ["100.64.0.1"], ["0.0.0.0"], ["168.63.129.16"],
        ["192.0.0.8"], ["198.19.0.1"], ["224.0.0.251"], ["255.255.255.255"], ["::1"], ["::"], ["::ffff:10.0.0.5"], ["::10.0.0.5"], ["fe80::1"], ["fe80::1%eth0"],
        ["2606:2800:220:1::1%eth0"], ["fec0::1"], ["fd00:ec2::254"], ["ff0e::1"], ["64:ff9b::10.0.0.5"], ["64:ff9b:1::5db8:d822"], ["2002:a00:5::1"], ["2001:0:a00:5::1"],
        ["2001:db8::5"], ["2606:2800:220:1:200:5efe:a00:5"], [], ["nonsense"], [""], [PUBLIC, "10.0.0.5"], ["10.0.0.5", PUBLIC], [PUBLIC_6, "::1"], [PUBLIC, "64:ff9b::a00:5"],
    ],
    ids=str,
)  # fmt: skip
def test_a_name_that_means_anything_inner_is_refused_and_not_connected_to(answers: list[str], lasting: Assistant) -> None:
    network = Network({"rebound.example.org": [answers]})
    with pytest.raises(NotFetched) as refused:
        fetch_url.add("https://rebound.example.org/", lasting.library, True, network.internet)
    # The same sentence as for a name that does not exist: it must not tell which inner names do.
    assert (str(refused.value), network.looked_up, network.connections) == (REFUSED, ["rebound.example.org"], [])


def test_addresses_of_public_servers_are_public() -> None:
    for address in (
        PUBLIC,
        PUBLIC_2,
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.1",
        "172.32.0.1",
        PUBLIC_6,
        "2a00:1450:4001:830::200e",
        "64:ff9b::8.8.8.8",
    ):
        assert is_public(address), address


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("https://Example.ORG", "https://example.org/"),
        (" http://example.org:80/a b?q=ü#part ", "http://example.org/a%20b?q=%C3%BC"),
        ("https://example.org.:8443/%41", "https://example.org:8443/%41"),
        ("http://Bücher.example.org/", "http://xn--bcher-kva.example.org/"),
        ("http://8.8.8.8/", "http://8.8.8.8/"),
        ("http://[2606:2800:0220:0001::1]:8080/x\\y", "http://[2606:2800:220:1::1]:8080/x%5Cy"),
        ("http://example.org?x=http://127.0.0.1/", "http://example.org/?x=http://127.0.0.1/"),
        ("https://example.org/@user:1/", "https://example.org/@user:1/"),
    ],
)
def test_an_address_is_read_once_into_plain_parts(written: str, read: str) -> None:
    address = WebAddress.of(written)
    assert str(address) == read
    assert WebAddress.of(str(address)) == address


# A server that plays the public ones


class Site:
    """A server on loopback: what it answers to each path, and what it was asked."""

    def __init__(self) -> None:
        self.pages: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.names: list[str | None] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                self.close_connection = True
                with suppress(OSError):  # whoever asked has heard enough
                    site.pages.get(self.path, status(404))(self)

            def log_message(self, *arguments: Any) -> None:
                """Nothing is printed."""

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """A handshake that the client gave up."""

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


Answering = Callable[[BaseHTTPRequestHandler], None]


def status(code: int, content: bytes = b"", **headers: str) -> Answering:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in {"Content_Length": str(len(content)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def page(content: bytes, kind: str = "text/html", **headers: str) -> Answering:
    return status(200, content, Content_Type=kind, **headers)


def leads(where: str, code: int = 302) -> Answering:
    return status(code, b"", Location=where.encode().decode("latin-1"), Set_Cookie="seen=1")


def endless(head: bytes, piece: bytes, pause: float, released: threading.Event) -> Answering:
    """Sends without end, until nobody listens any more."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(head)
        while not released.wait(pause):
            handler.wfile.write(piece)

    return answer


@pytest.fixture(scope="module")
def one_site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


@pytest.fixture
def site(one_site: Site) -> Site:
    one_site.pages, one_site.asked = {}, []
    return one_site


@pytest.fixture
def network(site: Site) -> Network:
    return Network({"docs.example.org": [[PUBLIC]], "other.example.org": [[PUBLIC_2]]}, {PUBLIC: site.port, PUBLIC_2: site.port, PUBLIC_6: site.port})


def got(network: Network, tmp_path: Path, url: str = "http://docs.example.org/", most: int = 1_000_000, seconds: float = 10.0) -> bytes:
    """What is fetched from an address."""
    fetch(WebAddress.of(url), tmp_path / "page", most, network.internet, seconds)
    return (tmp_path / "page").read_bytes()


def refused(network: Network, tmp_path: Path, url: str = "http://docs.example.org/", most: int = 1_000_000, seconds: float = 10.0) -> str:
    """Why nothing is."""
    with pytest.raises((NotFetched, OverLimit)) as raised:
        got(network, tmp_path, url, most, seconds)
    said = str(raised.value)
    assert not any(inner in said for inner in (*INNER, "example.org", PUBLIC, str(tmp_path))), "an error names no address"
    return said


def test_a_page_is_fetched_from_the_address_that_was_checked(network: Network, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.socket()) as closed:
        closed.bind(("127.0.0.1", 0))
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://user:secret@127.0.0.1:{closed.getsockname()[1]}")
    (tmp_path / ".netrc").write_text("machine docs.example.org login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    site.pages["/a%20b?x=1"] = page(FERRY)
    assert got(network, tmp_path, "http://docs.example.org/a b?x=1#part") == FERRY
    assert (network.looked_up, network.connections) == (["docs.example.org"], [(PUBLIC, 80)])
    ((_, headers),) = site.asked
    assert set(headers) == {"host", "user-agent", "accept", "accept-encoding", "connection"}, "no cookie, no login, nothing of where it came from"
    assert headers["host"] == "docs.example.org"
    assert headers["user-agent"].startswith("Citewell/")


def test_an_ip_address_is_not_looked_up(network: Network, site: Site, tmp_path: Path) -> None:
    site.pages["/"] = page(FERRY)
    assert got(network, tmp_path, f"http://{PUBLIC}/") == FERRY
    assert got(network, tmp_path, f"http://[{PUBLIC_6}]:8080/") == FERRY
    assert (network.looked_up, network.connections) == ([], [(PUBLIC, 80), (PUBLIC_6, 8080)])
    assert [headers["host"] for _, headers in site.asked] == [PUBLIC, f"[{PUBLIC_6}]:8080"]


def test_the_next_address_of_a_name_is_tried(network: Network, site: Site, tmp_path: Path) -> None:
    site.pages["/"] = page(FERRY)
    network.names["docs.example.org"] = [["2606:2800:220:1::99", PUBLIC]]
    assert got(network, tmp_path) == FERRY
    assert network.connections == [("2606:2800:220:1::99", 80), (PUBLIC, 80)]
    network.ports.clear()
    assert refused(network, tmp_path) == SILENT


@pytest.mark.parametrize(
    "where",
    [
        "http://127.0.0.1/", "http://127.0.0.1:{port}/", "http://localhost:{port}/", "//127.0.0.1/", "http://[::1]/", "http://2130706433/", "http://0x7f.1/",
        "http://169.254.169.254/latest/", "http://inner.example.org/", "http://nowhere.example.org/", "http://[::ffff:10.0.0.5]/", "http://[fd00:ec2::254]/",
        "http://user@other.example.org/", "http://other.example.org:22/", "http://other.example.org\\@127.0.0.1/", "file:///etc/passwd", "ftp://other.example.org/",
        "gopher://127.0.0.1:6379/_FLUSHALL", "data:text/html,x", "http://[::1", "http://１２７.0.0.1/", "http://other.example.org\t@127.0.0.1/",
        "http://other.example.org/in\tside", "\\\\other.example.org\\inside", "//other.example.org/\u200b",
    ],
)  # fmt: skip
def test_a_redirect_into_the_inner_network_is_not_followed(where: str, network: Network, site: Site, tmp_path: Path) -> None:
    network.names["inner.example.org"] = [["10.0.0.5"]]
    for code in (301, 302, 303, 307, 308):
        site.pages[f"/{code}"] = leads(where.replace("{port}", str(site.port)), code)
    network.connections.clear()
    for code in (301, 302, 303, 307, 308):
        assert refused(network, tmp_path, f"http://docs.example.org/{code}") == REFUSED
    assert set(network.connections) == {(PUBLIC, 80)}
    assert len(site.asked) == 5


@pytest.mark.parametrize("inner", [["127.0.0.1"], ["10.0.0.5", PUBLIC], ["::1"], ["169.254.169.254"], []], ids=str)
def test_a_name_that_means_something_else_the_second_time_leads_nowhere(inner: list[str], network: Network, site: Site, tmp_path: Path) -> None:
    site.pages["/"] = page(FERRY)
    network.names["docs.example.org"] = [[PUBLIC], inner]
    assert got(network, tmp_path) == FERRY, "it is asked once, and what was checked is connected to"
    assert (network.looked_up, network.connections) == (["docs.example.org"], [(PUBLIC, 80)])
    # A hop of its own is a lookup of its own.
    network.names["docs.example.org"] = [[PUBLIC], inner]
    site.pages["/again"] = leads("/inside")
    assert refused(network, tmp_path, "http://docs.example.org/again") == REFUSED
    assert network.connections == [(PUBLIC, 80), (PUBLIC, 80)]


def test_redirects_are_followed_five_times(network: Network, site: Site, tmp_path: Path) -> None:
    for number in range(6):
        site.pages[f"/{number}"] = leads(f"/{number + 1}" if number % 2 else f"http://other.example.org/{number + 1}")
    site.pages["/5"] = page(FERRY)
    assert got(network, tmp_path, "http://docs.example.org/0") == FERRY
    assert [path for path, _ in site.asked] == [f"/{number}" for number in range(6)]
    assert len(network.looked_up) == 6
    assert all("cookie" not in headers and "referer" not in headers for _, headers in site.asked)
    site.pages["/5"] = leads("/6")
    site.pages["/6"] = page(FERRY)
    assert "more than 5 times" in refused(network, tmp_path, "http://docs.example.org/0")
    site.pages["/round"] = leads("/round")
    assert "more than 5 times" in refused(network, tmp_path, "http://docs.example.org/round")


def test_what_is_packed_is_unpacked_within_the_limit(network: Network, site: Site, tmp_path: Path) -> None:
    site.pages["/"] = page(gzip.compress(FERRY[:20]) + gzip.compress(FERRY[20:]) + b"\0" * 10, Content_Encoding="gzip")
    assert got(network, tmp_path) == FERRY
    big = bytes(range(256)) * 2_000
    site.pages["/"] = page(gzip.compress(big), Content_Encoding="GZIP")
    assert got(network, tmp_path) == big
    assert "larger than" in refused(network, tmp_path, most=len(big) - 1)
    for content, packing in ((b"no gzip", "gzip"), (gzip.compress(FERRY)[:-9], "gzip"), (FERRY, "br"), (FERRY, "gzip, gzip"), (FERRY, "zstd")):
        site.pages["/"] = page(content, Content_Encoding=packing)
        assert refused(network, tmp_path) == BROKEN


def test_a_bomb_is_given_up_once_it_is_too_large(network: Network, site: Site, tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(60_000_000), 9)
    site.pages["/"] = page(bomb, Content_Encoding="gzip")
    assert len(bomb) < 100_000
    assert "larger than 0.1 MB" in refused(network, tmp_path, most=100_000)
    assert (tmp_path / "page").stat().st_size <= 100_000
    unpacking = fetch_url._Gunzip()
    sizes = [len(piece) for start in range(0, len(bomb), 1_000) for piece in unpacking.pieces(bomb[start : start + 1_000])]
    assert (max(sizes), sum(sizes), unpacking.whole) == (fetch_url.PIECE, 60_000_000, True)


def test_what_is_too_large_is_given_up_while_it_comes(network: Network, site: Site, tmp_path: Path) -> None:
    site.pages["/told"] = status(200, b"", Content_Type="text/html", Content_Length="1000001")
    assert "larger than 1 MB" in refused(network, tmp_path, "http://docs.example.org/told")
    released = threading.Event()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"
    site.pages["/untold"] = endless(head, b"x" * 10_000, 0, released)
    assert "larger than 1 MB" in refused(network, tmp_path, "http://docs.example.org/untold")
    site.pages["/packed"] = endless(head[:-2] + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(b""), 0, released)
    assert "larger than 0.001 MB" in refused(network, tmp_path, "http://docs.example.org/packed", most=1_000)
    released.set()
    site.pages["/just"] = page(b"x" * 1_000)
    assert len(got(network, tmp_path, "http://docs.example.org/just", most=1_000)) == 1_000


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n", b"x"),  # a body that drips
        (b"HTTP/1.1 200 OK\r\n", b"X-More: 1\r\n"),  # headers
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),  # answers before the answer
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"", b""),  # silence
    ],
)
def test_a_drip_ends_with_the_clock(head: bytes, piece: bytes, network: Network, site: Site, tmp_path: Path) -> None:
    released = threading.Event()
    site.pages["/"] = endless(head, piece, 0.05, released)
    begun = time.monotonic()
    assert "within 0.5 seconds" in refused(network, tmp_path, seconds=0.5)
    assert time.monotonic() - begun < 2
    released.set()


def test_the_clock_goes_on_through_redirects_and_lookups(network: Network, site: Site, tmp_path: Path) -> None:
    site.pages["/"] = lambda handler: (time.sleep(0.2), leads("/")(handler))[1]
    assert "within 0.5 seconds" in refused(network, tmp_path, seconds=0.5)
    given: list[float] = []
    late = Internet(lambda host, seconds: given.append(seconds) or [PUBLIC], network.connect)  # type: ignore[func-returns-value]
    with pytest.raises(NotFetched):
        fetch(WebAddress.of("http://docs.example.org/"), tmp_path / "page", 1_000, late, 0.5)
    assert given[0] <= 0.5
    assert given == sorted(given, reverse=True)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (status(404, b"no"), "status 404"),
        (status(500), "status 500"),
        (status(204), "status 204"),
        (status(206, FERRY, Content_Type="text/html"), "status 206"),
        (status(302), "status 302"),
        (page(b""), "it is empty"),
        (page(b"x", "video/mp4"), "calls it video/mp4"),
        (page(b"x", "application/zip"), "calls it application/zip"),
        (status(200, FERRY, Content_Type="text/html", Content_Length="5000"), BROKEN),
        (lambda handler: handler.wfile.write(b"220 mail.example.org ESMTP\r\n"), BROKEN),
        (lambda handler: None, BROKEN),
        (lambda handler: handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000), BROKEN),
    ],
)
def test_what_is_no_page_is_refused_plainly(answer: Answering, says: str, network: Network, site: Site, tmp_path: Path) -> None:
    site.pages["/"] = answer
    assert says in refused(network, tmp_path)


# Encrypted


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for docs.example.org, and a client's that trusts it."""
    folder = tmp_path_factory.mktemp("authority")
    cert, key = folder / "cert.pem", folder / "key.pem"
    made = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test -addext subjectAltName=DNS:docs.example.org"
    )
    subprocess.run([*made.split(), "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    return server, ssl.create_default_context(cafile=str(cert))


@pytest.fixture
def encrypted(authority: tuple[ssl.SSLContext, ssl.SSLContext]) -> Iterator[Site]:
    site = Site()
    server, _ = authority
    server.sni_callback = lambda connection, name, context: site.names.append(name)
    site.server.socket = server.wrap_socket(site.server.socket, server_side=True)
    yield site
    site.close()


def test_a_certificate_must_be_for_the_name_though_the_connection_is_to_an_address(
    encrypted: Site, authority: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path
) -> None:
    encrypted.pages["/"] = page(FERRY)
    encrypted.pages["/down"] = leads("http://docs.example.org/")
    network = Network({"docs.example.org": [[PUBLIC]], "other.example.org": [[PUBLIC]]}, {PUBLIC: encrypted.port})
    network.trusted = authority[1]
    assert got(network, tmp_path, "https://docs.example.org/") == FERRY
    assert network.connections == [(PUBLIC, 443)]
    assert encrypted.names == ["docs.example.org"]
    assert encrypted.asked[0][1]["host"] == "docs.example.org"
    assert refused(network, tmp_path, "https://other.example.org/") == UNTRUSTED
    assert refused(network, tmp_path, f"https://{PUBLIC}/") == UNTRUSTED
    assert "from https to http" in refused(network, tmp_path, "https://docs.example.org/down")
    assert [port for _, port in network.connections] == [443] * 4
    network.trusted = None
    assert refused(network, tmp_path, "https://docs.example.org/") == UNTRUSTED, "nobody has vouched for it"
    assert len(encrypted.asked) == 2, "nothing was asked of who could not prove its name"


# The real ways out, without a step outside


class Routed(socket.socket):
    """A socket that would send from an address of the inner network."""

    def connect(self, address: Any) -> None:
        assert self.type == socket.SOCK_DGRAM, "a connection would send something"

    def getsockname(self) -> Any:
        return ("10.0.0.9", 40_000)


def test_this_machines_own_addresses_are_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", Routed)
        assert fetch_url.is_own("10.0.0.9")
        assert not fetch_url.is_own(PUBLIC)
    assert fetch_url.is_own("127.0.0.1")
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        with pytest.raises(NotFetched):
            fetch_url.connected("127.0.0.1", listener.getsockname()[1], 1)
        listener.settimeout(0.05)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_name_is_looked_up_as_it_stands_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    released = threading.Event()

    def look_up(host: str, *more: Any, **other: Any) -> Any:
        asked.append(host)
        if "slow" in host:
            released.wait(5)
        if "none" in host:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, 1, 6, "", (PUBLIC, 0)), (socket.AF_INET6, 1, 6, "", ("fe80::1%eth0", 0, 0, 2))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert fetch_url.resolved("docs.example.org", 5) == [PUBLIC, "fe80::1%eth0"]
    assert fetch_url.resolved("none.example.org", 5) == []
    begun = time.monotonic()
    assert fetch_url.resolved("slow.example.org", 0.1) == []
    assert time.monotonic() - begun < 2
    released.set()
    assert asked == ["docs.example.org.", "none.example.org.", "slow.example.org."], "not among the names of the inner network"


# From a page to a document


@pytest.mark.parametrize(
    ("header", "path", "beginning", "suffix"),
    [
        ("text/html; charset=utf-8", "/a.pdf", b"<p>", ".html"),
        ("application/pdf", "/", b"%PDF-1.7", ".pdf"),
        ("application/pdf", "/", b"<!DOCTYPE html><p>Sign in", ".html"),
        ("text/html", "/", b"%PDF-1.7", ".pdf"),
        ("text/plain", "/notes", b"words", ".txt"),
        ("text/plain", "/raw/README.md", b"# A", ".md"),
        ("text/plain", "/main.py?raw=1", b"import", ".py"),
        ("text/plain", "/x.pdf", b"words", ".txt"),
        ("text/x-python", "/main.py", b"import", ".py"),
        ("text/calendar", "/x", b"BEGIN", ".txt"),
        ("application/octet-stream", "/report.docx", b"PK\x03\x04", ".docx"),
        ("application/octet-stream", "/report", b"PK\x03\x04", None),
        ("application/octet-stream", "/report.exe", b"MZ", None),
        ("", "/", b"  <html>", ".html"),
        ("", "/", b"words", None),
        ("nonsense", "/a.txt", b"words", ".txt"),
        ("application/json", "/", b"{}", ".json"),
        ("image/png", "/", b"\x89PNG", ".png"),
    ],
)
def test_how_a_page_is_read_follows_from_what_it_is(header: str, path: str, beginning: bytes, suffix: str | None) -> None:
    assert suffix_of(media_type(header), WebAddress.of(f"http://docs.example.org{path}"), beginning) == suffix


@pytest.mark.parametrize(
    ("header", "suffix", "text"),
    [
        ("text/html; charset=windows-1251", ".html", "<meta charset=utf-8><p>Паром уходит в полдень."),
        ("text/html;charset='ISO-8859-1'", ".html", "<p>Die Fähre fährt für 5 €."),
        ("text/plain; charset=Shift_JIS", ".txt", "船は正午に出る。"),
    ],
)
def test_what_the_server_says_of_the_letters_is_kept(header: str, suffix: str, text: str) -> None:
    charset = "cp1252" if "8859" in header else header.partition("charset=")[2]
    assert in_utf8(text.encode(charset), header, suffix).decode("utf-8-sig") == text
    for other in ("text/html", "text/html; charset=utf-8", "text/html; charset=punycode", "text/html; charset=euc-jp"):
        assert in_utf8(b"\xff\xfe\xfd", other, suffix) == b"\xff\xfe\xfd"
    assert in_utf8(b"x", header, ".pdf") == b"x"


def test_a_name_tells_where_a_page_was_found_and_no_two_addresses_share_one() -> None:
    address = WebAddress.of("https://docs.example.org/ferry/%C3%BCber/times.html?token=secret")
    key = key_of(address)
    assert file_name(address, key, ".html") == f"docs.example.org_ferry_über_times-{key}.html"
    others = [
        "https://docs.example.org/a/b",
        "https://docs.example.org/a_b",
        "http://docs.example.org/a/b",
        "https://docs.example.org/a/b?x",
        "https://docs.example.org/A/b",
    ]
    assert len({key_of(WebAddress.of(other)) for other in others}) == 5
    assert is_keyed(file_name(address, key, ".pdf"), key)
    hostile = WebAddress.of("https://docs.example.org/..%2F..%2Fetc%2F%00%E2%80%AEfdp." + "x%2F" * 300)
    name = file_name(hostile, key, ".html")
    assert len(name.encode()) < 150
    assert name.isprintable()
    assert "/" not in name


@pytest.fixture
def played(network: Network, monkeypatch: pytest.MonkeyPatch) -> Network:
    """All doors fetch from the played network."""
    monkeypatch.setattr(fetch_url, "INTERNET", network.internet)
    return network


def opened(store: Store, embedder: FakeEmbedder, **more: Any) -> Assistant:
    return Assistant(Settings(data_dir=store.folder, model="none", add_urls=True, **more), store, embedder, None, ModelStatus("none", "", "none"))


@pytest.fixture
def client(store: Store, embedder: FakeEmbedder) -> Iterator[TestClient]:
    assistant = opened(store, embedder)
    yield TestClient(create_app(assistant), base_url="http://127.0.0.1", raise_server_exceptions=False)
    assistant.library.close()


def posted(client: TestClient, url: Any) -> Any:
    return client.post("/api/documents/url", json={"url": url})


def test_it_is_off_unless_it_is_turned_on(assistant: Assistant, played: Network, site: Site) -> None:
    assert not Settings(model="none").add_urls
    site.pages["/"] = page(FERRY)
    with pytest.raises(NotAllowed):
        assistant.add_url("http://docs.example.org/")
    with pytest.raises(NotAllowed):
        assistant.for_user(User("id-of-eve", "eve", "admin")).add_url("http://docs.example.org/")
    client = TestClient(create_app(assistant), base_url="http://127.0.0.1")
    for url in ("http://docs.example.org/", "http://127.0.0.1/", "nonsense"):
        response = posted(client, url)
        assert (response.status_code, response.json()) == (403, {"error": OFF})
    assert (played.looked_up, played.connections, site.asked) == ([], [], [])


def test_a_page_becomes_a_document_that_tells_where_it_came_from(client: TestClient, played: Network, site: Site) -> None:
    site.pages["/ferry/times.html"] = page(FERRY)
    response = posted(client, "http://docs.example.org/ferry/times.html")
    assert response.status_code == 200
    (fate,) = response.json()["files"]
    assert set(fate) == {"source", "id", "status", "reason"}
    assert fate["status"] == "indexed"
    assert fate["source"].startswith("docs.example.org_ferry_times-")
    (entry,) = client.get("/api/documents").json()
    assert (entry["id"], entry["source"], entry["title"]) == (fate["id"], fate["source"], "The ferry")
    assert "Kestrel sails at noon" in client.get(f"/api/documents/{fate['id']}/text").text


def test_the_same_address_is_the_same_document_even_as_another_kind_of_file(client: TestClient, played: Network, site: Site) -> None:
    site.pages["/"] = page(FERRY)
    posted(client, "http://docs.example.org/")
    site.pages["/"] = page(FERRY.replace(b"noon", b"midnight"))
    (second,) = posted(client, "http://DOCS.example.org:80#top").json()["files"]
    (entry,) = client.get("/api/documents").json()
    assert "midnight" in client.get(f"/api/documents/{entry['id']}/text").text
    site.pages["/"] = leads("http://other.example.org/heron")
    site.pages["/heron"] = page(PDF, "application/pdf")
    (third,) = posted(client, "http://docs.example.org/").json()["files"]
    assert (third["status"], third["source"].startswith("other.example.org_heron-"), third["source"][-4:]) == ("indexed", True, ".pdf")
    # A reading that was under way may have put the earlier one back: the next one, which is queued then, takes it out again.
    ends = time.monotonic() + 20
    while len(client.get("/api/documents").json()) > 1 and time.monotonic() < ends:
        time.sleep(0.05)
    (entry,) = client.get("/api/documents").json()
    assert entry["source"] == third["source"] != second["source"]
    assert "The tug Heron" in client.get(f"/api/documents/{entry['id']}/text").text


def test_what_is_refused_says_why_at_the_http_door(client: TestClient, played: Network, site: Site, tmp_path: Path) -> None:
    for url in ("http://127.0.0.1/", "http://localhost:7860/", "http://169.254.169.254/", "http://nowhere.example.org/"):
        response = posted(client, url)
        assert (response.status_code, response.json()) == (422, {"error": REFUSED})
    site.pages["/pdf"] = page(b"no pdf at all", "application/pdf")
    (fate,) = posted(client, "http://docs.example.org/pdf").json()["files"]
    assert (fate["status"], fate["id"]) == ("rejected", None)
    site.pages["/none"] = page(b"\x00\x01", "application/octet-stream")
    assert "of which kind" in posted(client, "http://docs.example.org/none").json()["error"]
    for body in ({"url": 5}, {}, {"url": "http://docs.example.org/", "headers": {"x": "y"}}, ["x"]):
        response = client.post("/api/documents/url", json=body)
        assert response.status_code == 400
        assert '{"url": "https://example.org/page.html"}' in response.json()["error"]


def test_the_largest_file_and_the_quota_hold_while_a_page_comes(store: Store, embedder: FakeEmbedder, played: Network, site: Site) -> None:
    released = threading.Event()
    site.pages["/endless"] = endless(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n", b"words " * 1_000, 0, released)
    site.pages["/kept"] = page(b"word " * 400, "text/plain")
    assistant = opened(store, embedder, max_file_mb=0.02, user_mb=0.003, user_files=2)
    client = TestClient(create_app(assistant), base_url="http://127.0.0.1")
    response = posted(client, "http://docs.example.org/endless")
    assert (response.status_code, "larger than 0.02 MB" in response.json()["error"]) == (413, True)
    ann = assistant.for_user(User("id-of-ann", "ann"))
    with pytest.raises(OverLimit, match=r"larger than 0\.003 MB"):
        ann.add_url("http://docs.example.org/endless")
    ann.add_url("http://docs.example.org/kept")
    ann.add_url("http://docs.example.org/kept")  # in its own place there is room
    with pytest.raises(OverLimit, match=r"larger than 0\.001 MB"):
        ann.add_url("http://other.example.org/kept")
    site.pages["/small"] = page(b"word", "text/plain")
    ann.add_url("http://docs.example.org/small")
    with pytest.raises(OverLimit, match="2 is the most"):
        ann.add_url("http://other.example.org/small")
    released.set()
    assistant.library.close()
    assert sorted(path.name[:24] for path in ann.library.uploads.iterdir()) == ["docs.example.org_kept-" + key_of(WebAddress.of("http://docs.example.org/kept"))[:2],
                                                                                "docs.example.org_small-" + key_of(WebAddress.of("http://docs.example.org/small"))[:1]]  # fmt: skip


def test_only_some_are_fetched_at_a_time(lasting: Assistant, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_url, "_places", Shares(1, 2, "As many pages as may be are being fetched already.", 30.0))
    ann, ben = (lasting.for_user(User(f"id-of-{name}", name)).library for name in ("ann", "ben"))
    tried: list[str] = []

    def resolve(host: str, seconds: float) -> Sequence[str]:
        if host == "docs.example.org":
            with pytest.raises(OverLimit) as raised:
                fetch_url.add("http://other.example.org/", ann, True, network.internet)
            tried.append(str(raised.value.retry_after))
            with pytest.raises(NotFetched):
                fetch_url.add("http://bens.example.org/", ben, True, Internet(resolve, network.connect))
        else:
            with pytest.raises(OverLimit, match=r"being fetched already. Try again in 30 seconds."):
                fetch_url.add("http://other.example.org/", lasting.library, True, network.internet)
            tried.append(host)
        return []

    for _ in range(2):
        with pytest.raises(NotFetched):
            fetch_url.add("http://docs.example.org/", ann, True, Internet(resolve, network.connect))
    assert (tried, network.looked_up) == (["30.0", "bens.example.org"] * 2, [])


def test_a_members_page_is_theirs_alone(store: Store, embedder: FakeEmbedder, played: Network, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.pages["/"] = page(FERRY)
    assistant = opened(store, embedder)
    users = User("id-of-ann", "ann"), User("id-of-ben", "ben")
    ann, ben = map(assistant.for_user, users)
    monkeypatch.setattr(Service, "user", lambda service, scope: users[0])
    (fate,) = posted(TestClient(create_app(assistant), base_url="http://127.0.0.1"), "http://docs.example.org/").json()["files"]
    (info,) = ann.store.documents()
    assert (info.id, info.source, assistant.store.owner(info.id)) == (fate["id"], fate["source"], "id-of-ann")
    assert list(ben.store.documents()) == []
    assert ben.search("When does the ferry Kestrel sail?") == []
    assert ann.search("When does the ferry Kestrel sail?")
    site.pages["/"] = page(FERRY.replace(b"noon", b"six"))
    ben.add_url("http://docs.example.org/")
    while ben.library.work():
        time.sleep(0.01)
    assert "noon" in ann.store.text(info.id), "whoever fetches the same page has their own"
    assistant.library.close()


# On the command line


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_real_embedder: None) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setenv("CITEWELL_MODEL", "none")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["citewell", *arguments])
        code: Any = 0
        try:
            cli.main()
        except SystemExit as stopped:
            code = stopped.code
        return int(code or 0), *capsys.readouterr()

    return run


def test_the_command_adds_a_page(
    run: Callable[..., tuple[int, str, str]], played: Network, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.pages["/"] = page(FERRY)
    site.pages["/torn"] = page(b"no pdf at all", "application/pdf")
    data = ("--data-dir", str(tmp_path / "data"))
    assert run("add", "http://docs.example.org/", *data) == (1, "", f"citewell: {OFF}\n")
    monkeypatch.setenv("CITEWELL_ADD_URLS", "true")
    code, out, _ = run("add", "http://docs.example.org/", *data)
    assert (code, out.startswith("docs.example.org-"), out.endswith(".html: indexed\n")) == (0, True, True)
    code, out, _ = run("add", "http://docs.example.org/torn", "--json", *data)
    assert (code, json.loads(out)["status"]) == (2, "rejected")
    assert run("add", "http://127.0.0.1/", *data) == (1, "", f"citewell: {REFUSED}\n")
    assert played.connections == [(PUBLIC, 80)] * 2


def test_the_command_has_a_running_server_add_it(
    run: Callable[..., tuple[int, str, str]], store: Store, embedder: FakeEmbedder, played: Network, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.pages["/"] = page(FERRY)
    data = ("--data-dir", str(store.folder))
    assistant = opened(store, embedder)
    with served(assistant) as address:
        store.announce(address)
        code, out, _ = run("add", "http://docs.example.org/", *data)
        assert (code, out.endswith(".html: indexed\n")) == (0, True)
        assert run("add", "http://10.0.0.5/", *data) == (1, "", f"citewell: {REFUSED}\n")
    off = make_assistant(store, embedder, None)
    with served(off) as address:
        store.announce(address)
        monkeypatch.setenv("CITEWELL_ADD_URLS", "true")
        assert run("add", "http://docs.example.org/", *data) == (1, "", f"citewell: {OFF}\n"), "the server's setting counts"
    assert played.connections == [(PUBLIC, 80)]
    for made in (assistant, off):
        made.library.close()
