"""Why machines get no requests: asked of the router, and kept for a moment."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from darkbloom.router.v1.fleet_pb2 import Explanation
from darkbloom_mesh.clock import Clock

from darkbloom_gateway.cached import Cached
from darkbloom_gateway.errors import ApiError

FRESH_S = 5.0
MAX_MACHINES = 32
"""Machines of one owner that are looked at; the rest are shown without."""
MAX_KEPT = 1024

Standing = Sequence[Explanation]
"""One explanation for each build."""


class Standings:
    """Answers for connected machines.

    Args:
        explain: asks the router about one identity key.
        clock: time.
    """

    def __init__(self, explain: Callable[[bytes], Awaitable[Standing]], clock: Clock) -> None:
        self._explain = explain
        self._clock = clock
        self._kept: OrderedDict[bytes, Cached[Standing]] = OrderedDict()

    async def of(self, identity_keys: Collection[bytes]) -> Mapping[bytes, Standing]:
        """Return the standings of these machines; one that cannot be read is left out."""
        found: dict[bytes, Standing] = {}
        for key in list(identity_keys)[:MAX_MACHINES]:
            try:
                found[key] = await self._cached(key).get()
            except ApiError:
                continue
        return found

    def _cached(self, key: bytes) -> Cached[Standing]:
        if key not in self._kept:
            self._kept[key] = Cached(lambda: self._explain(key), clock=self._clock, fresh_s=FRESH_S)
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return self._kept[key]
