"""Addresses of web pages: how they are written, and which may be fetched (pure: nothing here asks the network).

Whoever may add pages chooses where the server that runs Citewell connects to. So an address is read once, strictly, and what is not plainly a public
one is refused; after that its parts alone are used, never its text, as two readers of one text can see two hosts in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Self
from urllib.parse import quote, urljoin

import idna

from index.errors import NotFetched

PORTS = (80, 443, 8080, 8443)
"""Where pages for readers are served. At other ports databases, mail and the like listen, some of which act on what a web client says to them; and
with all ports open, the answers would tell from this machine's place in the network which of a server's ports are."""

REFUSED = (
    "This address is not fetched. Pages are fetched only from public servers that can be found, by http or https, on the ports "
    f"{', '.join(map(str, PORTS[:-1]))} and {PORTS[-1]}, and without a user name in the address. Check the address, or save the page and add it as a file."
)
"""One sentence for whatever is wrong with an address: it must not tell a name of the inner network from one that does not exist."""

LONGEST = 2_000

_URL = re.compile(r"(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]@:%\\ ]+))(?::([0-9]{1,5}))?")
_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])")

_INNER_NAMES = frozenset(
    ("alt", "arpa", "corp", "example", "home", "internal", "intranet", "invalid", "lan", "local", "localdomain", "localhost", "mail", "onion", "private", "test")
)  # fmt: skip
"""Names that end so are nobody's in the public name system, or are kept for its own use: the networks that use them mean something inside.
https://www.iana.org/assignments/special-use-domain-names, RFC 9476, and what ICANN will never delegate."""

_INNER_IPV4 = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared by carriers; also metadata of clouds
        "127.0.0.0/8",
        "168.63.129.16/32",  # what Azure tells its machines: an address that looks public
        "169.254.0.0/16",  # link-local; metadata of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # relays to 6to4
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
"""https://www.iana.org/assignments/iana-ipv4-special-registry. Written out, because what `is_global` says differs between releases of Python."""

_PUBLIC_IPV6 = ip_network("2000::/3")
"""All that is allocated for anybody to be reached at. Loopback, unique and link-local, site-local, mapped and compatible addresses and multicast lie outside."""

_INNER_IPV6 = tuple(
    ip_network(network)
    for network in (
        "2001::/23",  # protocols, Teredo among them, which carries an IPv4 address
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which carries an IPv4 address
        "2620:4f:8000::/48",
        "3ffe::/16",
        "3fff::/20",  # documentation
    )
)
"""https://www.iana.org/assignments/iana-ipv6-special-registry."""

_NAT64 = ip_network("64:ff9b::/96")
"""How networks without IPv4 reach it: the last 32 bits are the IPv4 address that is meant. 64:ff9b:1::/48 is for use inside, and refused."""

_ISATAP = (0x00005EFE, 0x02005EFE)
"""The second last 32 bits of an IPv6 address whose last are an IPv4 address that packets are sent to."""


@dataclass(frozen=True, slots=True)
class WebAddress:
    """One page's address, as parts that need no further reading. `host` is a name in lower-case ASCII or an IP address without brackets; `target` is path and
    query, percent-encoded. What stands behind a # is for the reader's browser and left out."""

    scheme: str
    host: str
    port: int
    target: str

    @classmethod
    def of(cls, text: str) -> Self:
        """The address in a text. Raises NotFetched with REFUSED where it is none, or none that may be fetched; an IP address in it has yet to be checked."""
        text = text.strip(" ")
        # Line ends and tabs are dropped by some readers and end a header for others; unseen characters hide what is meant.
        match = _URL.fullmatch(text) if len(text) <= LONGEST and text.isprintable() else None
        authority = _AUTHORITY.fullmatch(match[2]) if match else None
        if match is None or authority is None:
            raise NotFetched(REFUSED)
        scheme = match[1].lower()
        port = int(authority[3]) if authority[3] else 443 if scheme == "https" else 80
        if port not in PORTS:
            raise NotFetched(REFUSED)
        host = _ipv6(authority[1]) if authority[1] else _name_or_ipv4(authority[2])
        target = quote((match[3] or "/") + (match[4] or ""), safe="/?%:@!$&'()*+,;=-._~")
        return cls(scheme, host, port, target)

    @property
    def ip(self) -> IPv4Address | IPv6Address | None:
        """The IP address that the host is; None where it is a name."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"

    def followed(self, location: str) -> WebAddress:
        """Where a redirect from here leads. Raises NotFetched as of(), and where it leads from https to http."""
        # Before they are joined: joining drops line ends and tabs.
        if not location.isprintable() or "\\" in location:
            raise NotFetched(REFUSED)
        try:
            found = WebAddress.of(urljoin(str(self), location))
        except ValueError:  # what urljoin takes for a broken IPv6 address
            raise NotFetched(REFUSED) from None
        if self.scheme == "https" and found.scheme == "http":
            raise NotFetched(
                "The page was not fetched: its server leads on from https to http, where anybody on the way could change it. Open it in a browser."
            )
        return found


def _ipv6(written: str) -> str:
    try:
        return str(IPv6Address(written))
    except ValueError:
        raise NotFetched(REFUSED) from None


def _name_or_ipv4(written: str) -> str:
    host = written
    if not host.isascii():
        try:
            # Also makes plain digits and dots of those that only look different, so what follows sees what a resolver would.
            host = idna.encode(host, uts46=True, std3_rules=True).decode("ascii") if len(host) <= 253 else ""
        except (idna.IDNAError, UnicodeError):
            raise NotFetched(REFUSED) from None
    host = host.lower().removesuffix(".")
    # Resolvers take 127.1, 0x7f.0.0.1 and 2130706433 for IPv4 addresses, too: whatever ends like a number must be four plain ones.
    if re.match(r"[0-9]", host.rpartition(".")[2]):
        try:
            return str(IPv4Address(host))
        except ValueError:
            raise NotFetched(REFUSED) from None
    # A name without a dot is looked up among those of the inner network.
    if len(host) > 253 or not _NAME.fullmatch(host) or host.rpartition(".")[2] in _INNER_NAMES:
        raise NotFetched(REFUSED)
    return host


def is_public(written: str) -> bool:
    """Whether an IP address is one that anybody on the internet may be reached at. False for what is none, and for one with a zone (fe80::1%eth0)."""
    try:
        address = ip_address(written)
    except ValueError:
        return False
    if isinstance(address, IPv4Address):
        return address.is_global and not any(address in network for network in _INNER_IPV4)
    if address.scope_id is not None:
        return False
    if address in _NAT64:
        return is_public(str(IPv4Address(int(address) & 0xFFFFFFFF)))
    if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        return False
    return address in _PUBLIC_IPV6 and address.is_global and not any(address in network for network in _INNER_IPV6)
