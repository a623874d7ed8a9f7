"""Figures that everybody may see, computed in the background and served from memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError, UnavailableError

from darkbloom_billing.reports.model import BoardEntry, Metric, MinuteWork, Standing, Window, Work
from darkbloom_billing.reports.names import pseudonym
from darkbloom_billing.reports.ports import FigureStore

BEST = 200
"""Longest board."""
RECENT_S, OTHER_S = 60.0, 300.0
"""How often the last day, and longer windows, are computed anew."""
BATCH = 1000
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One window, as it was computed."""

    standing: Standing
    boards: dict[Metric, tuple[BoardEntry, ...]]
    computed_at: datetime


class PublicFigures:
    """Keeps roll-ups current and the figures of each window in memory.

    Args:
        store: Roll-ups.
        clock: Time.
    """

    def __init__(self, store: FigureStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._key = b""
        self._figures: dict[Window, Figures] = {}
        self._due: dict[Window, float] = {}
        self._series: Sequence[MinuteWork] = ()

    def name(self, account_id: str, chosen: str) -> str:
        """Return how an account appears.

        Raises:
            UnavailableError: The key has not been read yet.
        """
        if not self._key:
            raise UnavailableError("figures are not computed yet")
        return chosen or pseudonym(self._key, account_id)

    def board(
        self, metric: Metric, window: Window, limit: int
    ) -> tuple[Sequence[BoardEntry], datetime]:
        """Return the first places, and when they were computed.

        Raises:
            UnavailableError: They have not been computed yet.
        """
        figures = self._of(window)
        return figures.boards[metric][:limit], figures.computed_at

    def totals(self, window: Window) -> tuple[Standing, Sequence[MinuteWork], datetime]:
        """Return sums over everybody, the last minutes, and when they were computed.

        Raises:
            UnavailableError: They have not been computed yet.
        """
        figures = self._of(window)
        return figures.standing, self._series, figures.computed_at

    async def count(self) -> None:
        """Count all booked work into the roll-ups."""
        while await self._store.count_work(BATCH) == BATCH:
            pass

    async def refresh(self) -> None:
        """Compute the windows that are due."""
        now = self._clock.now()
        if not self._key:
            self._key = await self._store.pseudonym_key()
        for window in Window:
            if self._due.get(window, 0.0) > self._clock.monotonic():
                continue
            standing = await self._store.standing(window, now=now, best=BEST)
            self._figures[window] = Figures(
                standing=standing,
                boards={metric: self._ranked(metric, standing) for metric in Metric},
                computed_at=now,
            )
            period_s = RECENT_S if window is Window.DAY else OTHER_S
            self._due[window] = self._clock.monotonic() + period_s
        self._series = await self._store.minutes(now=now)
        await self._store.prune(now=now)

    async def run(self, period_s: float) -> None:
        """Keep everything current for ever; a store that is away is tried again next time."""
        while True:
            try:
                await self.count()
                await self.refresh()
            except MeshError as error:
                _log.warning("figures_not_refreshed", reason=error.reason_name)
            await self._clock.sleep(period_s)

    def _of(self, window: Window) -> Figures:
        figures = self._figures.get(window)
        if figures is None:
            raise UnavailableError("figures are not computed yet")
        return figures

    def _ranked(self, metric: Metric, standing: Standing) -> tuple[BoardEntry, ...]:
        named = [
            (self.name(found.account_id, found.chosen_name), found.work)
            for found in standing.contenders
        ]
        value = _VALUES[metric]
        # Equals stand in the order of their names, which says nothing about accounts.
        best = sorted(
            (item for item in named if value(item[1]) > 0),
            key=lambda item: (-value(item[1]), item[0]),
        )
        return tuple(
            BoardEntry(rank=rank, name=name, work=work)
            for rank, (name, work) in enumerate(best[:BEST], 1)
        )


def _earnings(work: Work) -> int:
    return work.earnings_micros


def _tokens(work: Work) -> int:
    return work.tokens


def _jobs(work: Work) -> int:
    return work.jobs


_VALUES: Mapping[Metric, Callable[[Work], int]] = {
    Metric.EARNINGS: _earnings,
    Metric.TOKENS: _tokens,
    Metric.JOBS: _jobs,
}
