"""Who may ask the proxy: programs of this machine, with its key unless that was waived."""

import hmac
from typing import Any, final
from urllib.parse import urlsplit

from darkbloom_client.loopback import is_loopback

_OTHER_SITES = frozenset({b"cross-site", b"same-site"})
_BEARER = b"bearer "


@final
class Guard:
    """Judges requests by their headers; repr shows no key.

    Args:
        key: what callers must bring; None asks for nothing.
        remote: whether names other than those of this machine may be used.
    """

    def __init__(self, key: str | None, *, remote: bool = False) -> None:
        self._key = None if key is None else key.encode()
        self._remote = remote

    def __repr__(self) -> str:
        return "Guard(<redacted>)"

    def stranger(self, scope: Any) -> str | None:
        """Return what is wrong with where a request comes from, or None; asks for no key.

        A page of some site that makes this browser call us sends that site's origin, or, where it
        has pointed its own name at this machine, that name as the host.
        """
        headers = dict(scope["headers"])
        if not self._remote and not _names_us(headers.get(b"host", b"")):
            return "call this proxy by a loopback name"
        origin = headers.get(b"origin")
        if origin is not None and not _is_ours(origin):
            return "pages of other sites may not use this proxy"
        if origin is None and headers.get(b"sec-fetch-site") in _OTHER_SITES:
            return "pages of other sites may not use this proxy"

        return None

    def refuses(self, scope: Any) -> str | None:
        """Return what is wrong with a request, its key included, or None."""
        strange = self.stranger(scope)
        if strange is not None:
            return strange
        headers = dict(scope["headers"])
        if self._key is not None and not hmac.compare_digest(_presented(headers), self._key):
            return "the proxy's own key is needed: it was printed when it started"

        return None


def _names_us(host: bytes) -> bool:
    return _is_ours(b"//" + host)


def _is_ours(origin: bytes) -> bool:
    try:
        name = urlsplit(origin.decode("latin-1")).hostname
    except ValueError:
        return False

    return name is not None and is_loopback(name)


def _presented(headers: dict[bytes, bytes]) -> bytes:
    """Return the bearer, or what Anthropic's SDK sends instead."""
    authorization = headers.get(b"authorization", b"")
    if authorization[: len(_BEARER)].lower() == _BEARER:
        return authorization[len(_BEARER) :].strip()

    return headers.get(b"x-api-key", b"")
