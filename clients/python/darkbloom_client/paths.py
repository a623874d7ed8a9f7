"""Which requests are sealed, which pass, and which do not leave."""

from collections.abc import Mapping
from typing import Final

from darkbloom_edge.dialects.chat import CHAT
from darkbloom_edge.dialects.completions import COMPLETIONS
from darkbloom_edge.dialects.dialect import Dialect
from darkbloom_edge.dialects.messages import MESSAGES
from darkbloom_edge.dialects.responses import RESPONSES

from darkbloom_client.loopback import is_loopback
from darkbloom_client.refusal import Reason, RefusedError

DIALECTS: Final[Mapping[str, Dialect]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETIONS,
    "/v1/messages": MESSAGES,
    "/v1/responses": RESPONSES,
}
"""The inference endpoints by path."""
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
_SENT = frozenset(
    {"authorization", "x-api-key", "x-request-id", "x-darkbloom-route", "x-darkbloom-machine"}
)
"""Headers of a request that go with its calls; any other might hold content."""


def dialect_of(method: str, path: str) -> tuple[str, Dialect] | None:
    """Return what comes before `/v1` and the dialect; None where a request may pass as it is.

    Args:
        method: of HTTP.
        path: of the URL, without its query.

    Raises:
        RefusedError: it would carry a body in plaintext to the gateway.
    """
    if method == "POST":
        for tail, dialect in DIALECTS.items():
            if path.endswith(tail):
                return path.removesuffix(tail), dialect
    if method in _BODILESS:
        return None

    raise RefusedError(
        Reason.PLAINTEXT_PATH,
        expected=f"POST to one of {', '.join(DIALECTS)}, or a request without a body",
        found=f"{method} to another path",
    )


def require_private_line(scheme: str, host: str) -> None:
    """Check that the credential, which every call carries, cannot be read on its way.

    Raises:
        RefusedError: plain HTTP to another machine.
    """
    if scheme != "https" and not is_loopback(host):
        raise RefusedError(
            Reason.PLAINTEXT_PATH,
            expected="https, or a gateway on this machine",
            found=f"{scheme} to another machine",
        )


def sent_headers(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return those headers that may go with the calls, the credential as a bearer.

    Args:
        headers: of the caller's request, names in lower case.
    """
    kept = [(name, value) for name, value in headers if name in _SENT]
    names = {name for name, _ in kept}
    if "authorization" not in names and "x-api-key" in names:
        key = dict(kept)["x-api-key"]
        kept.append(("authorization", f"Bearer {key}"))

    return [(name, value) for name, value in kept if name != "x-api-key"]
