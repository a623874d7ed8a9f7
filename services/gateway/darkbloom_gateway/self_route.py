"""Whose machines a caller wants, as his headers and his key say it (http-api §14)."""

from collections.abc import Iterable
from enum import StrEnum

from darkbloom_gateway.errors import ApiError, bad_request

ROUTE_HEADER = b"x-darkbloom-route"
MACHINE_HEADER = b"x-darkbloom-machine"
MAX_MACHINE = 256
_NAMES = (ROUTE_HEADER, MACHINE_HEADER)


class Route(StrEnum):
    """Whose machines may serve."""

    PUBLIC = "public"
    PREFER = "prefer"
    """The caller's own first; who serves decides what it costs."""
    SELF = "self"
    """Only the caller's own; free."""


def read_route(
    headers: Iterable[tuple[bytes, bytes]], *, self_route_only: bool
) -> tuple[Route, str]:
    """Return whose machines may serve, and the one that is named; empty for any.

    The owner comes from the credential; a key that may only self-route cannot be talked out of it.

    Args:
        headers: of the request, names in lower case.
        self_route_only: of the key.

    Raises:
        ApiError: 400: a machine is named badly, or outside self-route.
    """
    found = [(name, value) for name, value in headers if name in _NAMES]
    route = Route.SELF if self_route_only else Route.PUBLIC
    if not found:
        return route, ""

    machines = [value.strip() for name, value in found if name == MACHINE_HEADER]
    asked = [value.strip().lower() for name, value in found if name == ROUTE_HEADER]
    if route is not Route.SELF and asked:
        route = {b"self": Route.SELF, b"prefer": Route.PREFER}.get(asked[0], route)
    if not machines:
        return route, ""
    if len(machines) > 1 or not 0 < len(machines[0]) <= MAX_MACHINE or not machines[0].isascii():
        raise _bad_machine("name one machine in at most 256 characters")
    if route is not Route.SELF:
        raise _bad_machine("a machine can only be named with self-route")
    return route, machines[0].decode("ascii")


def _bad_machine(message: str) -> ApiError:
    return bad_request(message, param="X-Darkbloom-Machine")
