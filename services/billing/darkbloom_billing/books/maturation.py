"""The sweep that turns earnings into spendable money once they are old enough.

Any replica may run it, also several at once: what matures is judged again under the lock of its
account, and each earning matures once.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError, StoreUnavailableError

from darkbloom_billing.books.books import Books

_PAGE = 500

_log = structlog.get_logger()


class Maturation:
    """Moves due earnings, and lets accounts that owe pay from what became free.

    Args:
        books: The commands.
        clock: Against which age is judged.
        age: How long earnings wait.
        observe: Told how much matured in each round, in micro-USD.
    """

    def __init__(
        self,
        books: Books,
        clock: Clock,
        age: timedelta,
        observe: Callable[[int], object] = lambda _micros: None,
    ) -> None:
        self._books = books
        self._clock = clock
        self._age = age
        self._observe = observe

    async def sweep(self) -> int:
        """Let everything mature that is due; return how much that was, in micro-USD."""
        total = 0
        stuck: list[str] = []
        while True:
            due = self._clock.now() - self._age
            found = await self._books.due(due, limit=_PAGE, without=stuck)
            matured = sum(
                [await self._mature(account, ids, due, stuck) for account, ids in found.items()]
            )
            total += matured
            if not found or not (matured or stuck):
                break
        for account_id in await self._books.debtors():
            await self._books.repay(account_id)
        self._observe(total)
        return total

    async def _mature(
        self, account_id: str, sources: Sequence[str], due: datetime, stuck: list[str]
    ) -> int:
        """Let earnings of one account mature; books of it that are broken stop nobody else.

        Raises:
            StoreUnavailableError: The store does not answer.
        """
        try:
            outcome = await self._books.mature(account_id, sources, due=due)
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, the others have earned theirs
            _log.error("account_not_matured", account=account_id, exc_info=error)
            stuck.append(account_id)
            return 0
        return outcome.result.get("matured", 0)

    async def run(self, period_s: float) -> None:
        """Sweep for ever; a store that is away is tried again next time."""
        while True:
            try:
                matured = await self.sweep()
            except MeshError as error:
                _log.warning("maturation_failed", reason=error.reason_name)
            else:
                if matured:
                    _log.info("earnings_matured")
            await self._clock.sleep(period_s)
