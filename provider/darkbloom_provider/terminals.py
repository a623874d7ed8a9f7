"""Terminals that nobody has acknowledged yet: what this machine is still to be paid for.

In memory and bounded. They outlive a stream, because the router may lose one between the last
chunk and the settlement; they do not outlive the process yet.
"""

from collections.abc import Iterator

from darkbloom.router.v1.provider_link_pb2 import Terminal

MAX_TERMINALS = 2048
"""Beyond this the oldest is given up and counted. All of them are sent at once after a reconnect,
so they must fit a lane's control queue with room to spare.
"""


class UnacknowledgedTerminals:
    """Keeps each terminal until its acknowledgement, oldest first."""

    def __init__(self, max_entries: int = MAX_TERMINALS) -> None:
        self.dropped = 0
        """How many were given up because too many waited."""
        self._max_entries = max_entries
        self._waiting: dict[str, Terminal] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[tuple[str, Terminal]]:
        return iter(tuple(self._waiting.items()))

    def add(self, attempt_id: str, terminal: Terminal) -> None:
        """Keep a terminal that is about to be sent."""
        if len(self._waiting) >= self._max_entries:
            del self._waiting[next(iter(self._waiting))]
            self.dropped += 1
        self._waiting[attempt_id] = terminal

    def acknowledge(self, attempt_id: str) -> bool:
        """Forget a terminal; False when it was not waiting."""
        return self._waiting.pop(attempt_id, None) is not None
