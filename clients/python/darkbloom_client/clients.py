"""Clients of `httpx` and `httpx2` in which nothing goes around the transport."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from darkbloom_client.clock import Clock
from darkbloom_client.policy import Policy
from darkbloom_client.transport import AsyncTransport, Transport

AROUND: Final = frozenset(
    {"transport", "mounts", "proxy", "proxies", "app", "verify", "cert", "http1", "http2", "limits"}
)
"""Arguments by which requests would go around the transport, or that would not reach it."""
Client = TypeVar("Client")


def sealed_client(
    kind: Callable[..., Client],
    policy: Policy,
    *,
    inner: Any = None,
    clock: Clock | None = None,
    **options: Any,
) -> Client:
    """Build a client whose every request goes through a transport under a policy.

    A client that is built by hand with `transport=` and `proxy=` or `mounts=` sends matching
    requests through those, in plaintext, and the transport never sees them.

    Args:
        kind: `Client` or `AsyncClient` of `httpx` or `httpx2`.
        policy: who may read a prompt.
        inner: what carries the sealed requests; an `HTTPTransport(proxy=…)`, if need be.
        clock: tells the age of evidence.
        options: for the client, such as `timeout`.

    Raises:
        TypeError: an option would go around the transport, or not reach it.
    """
    wrong = sorted(AROUND & options.keys())
    if wrong:
        raise TypeError(
            f"{', '.join(wrong)}: would go around the transport or not reach it; give it to an "
            "HTTPTransport, and that as inner"
        )
    make = AsyncTransport if hasattr(kind, "aclose") else Transport

    return kind(transport=make(policy, inner=inner, clock=clock), **{"trust_env": False, **options})
