"""Which addresses may be asked for media: the public internet, and nothing that is near us."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias
from urllib.parse import quote, urljoin, urlsplit

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

HTTPS_PORT: Final = 443
MAX_URL_CHARS: Final = 4096
_NEAR: Final = tuple(
    map(
        ipaddress.ip_network,
        (
            "100.64.0.0/10",
            "168.63.129.16/32",
            "192.0.0.0/24",
            "192.88.99.0/24",
            "198.18.0.0/15",
            "3fff::/20",
            "fec0::/10",
            "::/96",
        ),
    )
)
"""What versions of the interpreter do not agree about, and a cloud's own server on a public one."""
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
"""Where networks without IPv4 find an IPv4 address: it is public where that one is."""
_CONTROL: Final = re.compile(r"[\0- \x7f]")
_SAFE: Final = "!#$%&'()*+,/:;=?@[]~"


class UnusableUrlError(Exception):
    """An address that is not asked; never holds it."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where one GET goes; repr shows nothing of it."""

    host: str = field(repr=False)
    """As DNS knows it."""
    path: str = field(repr=False)
    """With its query, as sent."""

    @property
    def url(self) -> str:
        """The address without what only its owner knows, such as a fragment."""
        return f"https://{self.bracketed}{self.path}"

    @property
    def bracketed(self) -> str:
        """The host as a URL has it."""
        return f"[{self.host}]" if ":" in self.host else self.host


def target_of(url: str) -> Target:
    """Read an address: https, its own port, no credentials.

    Raises:
        UnusableUrlError: it is another one, or none.
    """
    if len(url) > MAX_URL_CHARS or _CONTROL.search(url):
        raise UnusableUrlError
    try:
        parts = urlsplit(url)
        port = parts.port
        name = name_of(parts.hostname or "")
        query = f"?{parts.query}" if parts.query else ""
        path = quote((parts.path or "/") + query, safe=_SAFE)
    except ValueError:
        raise UnusableUrlError from None
    if parts.scheme.lower() != "https" or port not in (None, HTTPS_PORT) or not name:
        raise UnusableUrlError
    if parts.username is not None or parts.password is not None:
        raise UnusableUrlError
    return Target(name, path)


def name_of(host: str) -> str:
    """Return a host as DNS knows it: one spelling, whatever dots and letters it was written with.

    Raises:
        ValueError: it cannot be one.
    """
    if ":" in host:
        if "%" in host:
            raise ValueError("a link of this machine")
        return str(ipaddress.IPv6Address(host))
    # IDNA reads the full stops of other scripts as dots, so the last one shows only afterwards.
    return host.encode("idna").decode("ascii").lower().rstrip(".")


def redirected(target: Target, location: str) -> Target:
    """Return where a redirect leads; errors as `target_of`."""
    try:
        url = urljoin(target.url, location)
    except ValueError:
        raise UnusableUrlError from None
    return target_of(url)


def is_blocked(host: str, blocked: frozenset[str]) -> bool:
    """Tell whether a host, or one above it, is on a list."""
    labels = host.split(".")
    return any(".".join(labels[start:]) in blocked for start in range(len(labels)))


def is_public(address: str, blocked: Iterable[Network] = ()) -> bool:
    """Tell whether an address belongs to the public internet, whatever it is wrapped in.

    Args:
        address: as a resolver says it.
        blocked: networks that count as ours although they are public.
    """
    try:
        found: Address = ipaddress.ip_address(address)
    except ValueError:
        return False
    if not isinstance(found, ipaddress.IPv6Address):
        return _public(found, blocked)
    if found.scope_id is not None:
        return False
    if found in _NAT64 and not any(found in network for network in blocked):
        return _public(ipaddress.IPv4Address(int(found) & 0xFFFF_FFFF), blocked)
    return _public(found, blocked) and all(_public(inner, blocked) for inner in _inside(found))


def _public(address: Address, blocked: Iterable[Network]) -> bool:
    if address.is_multicast or address.is_reserved or address.is_unspecified:
        return False
    if any(address in network for network in (*_NEAR, *blocked)):
        return False
    return address.is_global and not address.is_private


def _inside(address: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """Return the IPv4 addresses that one of IPv6 stands for."""
    inside = [found for found in (address.ipv4_mapped, address.sixtofour) if found is not None]
    inside += address.teredo or ()
    return inside
