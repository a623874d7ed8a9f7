"""Which machines an account calls its own."""

from collections import OrderedDict

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError

from darkbloom_gateway.errors import unavailable
from darkbloom_gateway.ports import Billing

FRESH_S = 60.0
"""How long a list is believed; a machine that it lacks is asked for again."""
EMPTY_S = 2.0
"""The same for an account without machines, whose first one may come at any moment."""
MAX_ACCOUNTS = 4096


class Owners:
    """Asks billing, which links machines to accounts, and remembers.

    An old list can lack a machine; one that was unlinked is forgotten as soon as billing tells that
    the account has changed.

    Args:
        billing: knows the links.
        clock: time.
    """

    def __init__(self, billing: Billing, clock: Clock) -> None:
        self._billing = billing
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, frozenset[bytes]]] = OrderedDict()

    async def machines(self, account_id: str, *, again: bool = False) -> frozenset[bytes]:
        """Return the identity keys of an account's machines.

        Args:
            account_id: whose.
            again: do not believe what is remembered.

        Raises:
            ApiError: 503: billing does not answer.
        """
        now = self._clock.monotonic()
        until, found = self._known.get(account_id, (now, frozenset[bytes]()))
        if now < until and not again:
            return found
        try:
            found = frozenset(await self._billing.machines(account_id))
        except MeshError:
            raise unavailable() from None
        self._known[account_id] = (now + (FRESH_S if found else EMPTY_S), found)
        self._known.move_to_end(account_id)
        while len(self._known) > MAX_ACCOUNTS:
            self._known.popitem(last=False)
        return found

    def forget(self, account_id: str) -> None:
        """Ask again for an account that has changed; empty means every account."""
        if account_id:
            self._known.pop(account_id, None)
        else:
            self._known.clear()
