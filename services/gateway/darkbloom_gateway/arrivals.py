"""Who may come at all: requests and connections of one network, counted in this worker's memory.

This is asked before any credential is read, so it costs no store and no room. It is there against
floods and guessing; what an account may do is decided later, by the shared buckets.
"""

import math
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from typing import final

from darkbloom_gateway.buckets import Rate
from darkbloom_gateway.guards import network_of

MAX_NETWORKS = 65_536
"""Most that are remembered."""
GUESS_COST = 40
"""What a wrong credential costs on top, in requests."""
_network = lru_cache(maxsize=4096)(network_of)


@lru_cache(maxsize=4096)
def is_local(address: str) -> bool:
    """Whether an address is of this host: our own tools, probes and sidecars."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    # The network of ::1 is written ::.
    return found.is_loopback or found.is_unspecified


@final
class Arrivals:
    """One bucket for each network; this host's own are not counted.

    Args:
        rate: requests per second and burst; None counts nobody.
        proxies: how many proxies of ours append to `X-Forwarded-For`.
        monotonic: seconds.
    """

    def __init__(self, rate: Rate | None, *, proxies: int, monotonic: Callable[[], float]) -> None:
        self._interval_s = 1 / rate.per_s if rate is not None else 0.0
        self._slack_s = self._interval_s * rate.burst if rate is not None else 0.0
        self._proxies = proxies
        self._monotonic = monotonic
        # When each network's bucket is full again: one number says how empty it is.
        self._full_at: dict[str, float] = {}

    def come(self, peer: str, forwarded: str | None) -> int:
        """Count one request; returns for how many seconds its network must stay away, 0 for none.

        Args:
            peer: address of the other end of the connection.
            forwarded: `X-Forwarded-For`.
        """
        network = self._counted(peer, forwarded)
        if network is None:
            return 0
        now = self._monotonic()
        full_at = max(self._full_at.get(network, now), now) + self._interval_s
        over_s = full_at - now - self._slack_s
        if over_s > 0:
            return math.ceil(over_s)
        self._note(network, full_at, now)
        return 0

    def guessed(self, peer: str, forwarded: str | None) -> None:
        """Count a wrong credential, which may leave the bucket below zero."""
        network = self._counted(peer, forwarded)
        if network is None:
            return
        now = self._monotonic()
        full_at = max(self._full_at.get(network, now), now) + GUESS_COST * self._interval_s
        self._note(network, full_at, now)

    def _counted(self, peer: str, forwarded: str | None) -> str | None:
        if not self._interval_s:
            return None
        network = _network(peer, forwarded, self._proxies)
        return None if is_local(network) else network

    def _note(self, network: str, full_at: float, now: float) -> None:
        if network not in self._full_at and len(self._full_at) >= MAX_NETWORKS:
            self._full_at = {name: at for name, at in self._full_at.items() if at > now}
            if len(self._full_at) >= MAX_NETWORKS:
                # All are busy: whoever came first is forgotten, and begins with a full bucket.
                del self._full_at[next(iter(self._full_at))]
        self._full_at[network] = full_at


@final
class Lines:
    """Counts connections, all and by network.

    Args:
        most: of this worker.
        most_each: of one network; counts only where no proxy stands before us.
        proxies: how many do.
    """

    def __init__(self, most: int = 1 << 30, most_each: int = 1 << 30, proxies: int = 0) -> None:
        self._most = most
        self._most_each = most if proxies else most_each
        self._by_network: Counter[str] = Counter()
        self.open = 0

    def join(self, peer: str) -> bool:
        """Count a connection in; False where there is no room, and then it is not counted."""
        network = _network(peer, None, 0)
        full = self._by_network[network] >= self._most_each and not is_local(network)
        if full or self.open >= self._most:
            return False
        self.open += 1
        self._by_network[network] += 1
        return True

    def leave(self, peer: str) -> None:
        """Count a connection out that was counted in."""
        network = _network(peer, None, 0)
        self.open -= 1
        self._by_network[network] -= 1
        if not self._by_network[network]:
            del self._by_network[network]
