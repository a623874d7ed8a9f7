"""Where the router is: its addresses in turn, each stream on a connection of its own.

A stream that is opened because its router leaves must not share the connection of the old one: a
load balancer would hand it to the same replica. So every stream dials anew, and where several
addresses are known the next one is tried.
"""

from collections.abc import Callable, Sequence

import grpc
from darkbloom_mesh.channel import channel


class Dialler:
    """Opens channels to the router.

    Args:
        addresses: host:port of each replica, or of the one balancer before them.
        first: Index to begin with; random, so that a fleet spreads.
        credentials: Makes TLS credentials; None speaks plaintext.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        first: int,
        credentials: Callable[[], grpc.ChannelCredentials] | None,
    ) -> None:
        self._addresses = tuple(addresses)
        self._next = first % len(self._addresses)
        self._credentials = credentials

    def dial(self) -> tuple[str, grpc.aio.Channel]:
        """Return the address whose turn it is, and a new channel to it."""
        address = self._addresses[self._next]
        self._next = (self._next + 1) % len(self._addresses)
        credentials = self._credentials() if self._credentials is not None else None
        opened = channel(
            address, mesh_token=None, room="provider", credentials=credentials, own_connection=True
        )
        return address, opened
