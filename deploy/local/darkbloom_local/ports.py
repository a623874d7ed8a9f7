"""Loopback ports for the rooms of one mesh, chosen before anything starts."""

import secrets
import socket

from darkbloom_local.errors import PortTakenError

HOST = "127.0.0.1"

# Below the range from which systems pick ports of outgoing connections: a room that is restarted
# must find its port again, not somebody's connection.
_FIRST, _LAST = 20_000, 29_999


def free_ports(count: int) -> list[int]:
    """Return `count` different ports that nobody listens on now.

    Raises:
        PortTakenError: Almost every port is taken.
    """
    span = _LAST - _FIRST + 1
    start = secrets.randbelow(span)
    found: list[int] = []
    for offset in range(span):
        if len(found) == count:
            return found
        port = _FIRST + (start + offset) % span
        if is_free(port):
            found.append(port)
    raise PortTakenError(f"no {count} free ports between {_FIRST} and {_LAST}")


def is_free(port: int) -> bool:
    """Say whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a connection that lingers from the last run does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def require_free(port: int) -> None:
    """Return if the port is free.

    Raises:
        PortTakenError: It is not, or is no port at all.
    """
    if not 0 < port < 1 << 16:
        raise PortTakenError(f"{port} is not a port")
    if not is_free(port):
        raise PortTakenError(f"port {port} is taken; choose another one with --port")
