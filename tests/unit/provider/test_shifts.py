"""The schedule at run time: shifts that open, close with a drain, and open anew."""

import asyncio
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.testing import FakeClock
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.schedule import Schedule, parse_window
from darkbloom_provider.shifts import CLOSING_PATIENCE_S, RECHECK_S, Shifts

ALL = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
NEW_YORK = ZoneInfo("America/New_York")
BOUND_S = 10


class FakeShift:
    """Serves until drained."""

    def __init__(self) -> None:
        self.draining = False
        self.patience: list[float] = []
        self.over = asyncio.Event()
        self.hold = False

    async def run(self) -> None:
        await self.over.wait()

    async def drain(self, patience_s: float) -> None:
        self.draining = True
        self.patience.append(patience_s)
        if not self.hold:
            self.over.set()


class Stage:
    def __init__(self, now: datetime, schedule: Schedule) -> None:
        self.clock = FakeClock(now)
        self.schedule = schedule
        self.opened: list[FakeShift] = []
        self.failure: Exception | None = None
        self.shifts = Shifts(self._open, schedule=lambda: self.schedule, clock=self.clock)

    async def _open(self) -> FakeShift:
        if self.failure is not None:
            raise self.failure
        self.opened.append(FakeShift())
        return self.opened[-1]

    async def until(self, holds) -> None:
        async with asyncio.timeout(BOUND_S):
            while not holds():
                await SystemClock().sleep(0.001)

    async def pass_time(self, span: timedelta) -> None:
        """Move the clock in steps, as waits of an hour do."""
        left = span.total_seconds()
        while left > 0:
            step = min(left, RECHECK_S)
            await self.clock.advance(step)
            left -= step


@pytest.fixture
def begin():
    stages: list[tuple[Stage, asyncio.Task]] = []

    async def made(now, *windows, zone=UTC):
        schedule = Schedule(windows=tuple(parse_window(*one) for one in windows), zone=zone)
        stage = Stage(now, schedule)
        await stage.shifts.begin()
        task = asyncio.create_task(stage.shifts.run())
        stages.append((stage, task))
        return stage

    yield made
    for _, task in stages:
        task.cancel()


async def test_without_windows_there_is_one_shift_for_ever(begin):
    stage = await begin(datetime(2026, 1, 5, tzinfo=UTC))
    await stage.pass_time(timedelta(days=2))

    assert len(stage.opened) == 1
    assert not stage.opened[0].draining


async def test_a_closing_drains_and_the_next_opening_begins_anew(begin):
    stage = await begin(datetime(2026, 1, 5, 8, tzinfo=UTC), (ALL, "08:00", "10:00"))
    first = stage.opened[0]
    await stage.pass_time(timedelta(hours=1, minutes=59))
    assert not first.draining

    await stage.pass_time(timedelta(minutes=2))
    await stage.until(lambda: stage.shifts.opens_at is not None)
    assert first.patience == [CLOSING_PATIENCE_S]
    assert stage.shifts.current is None
    assert stage.shifts.opens_at == datetime(2026, 1, 6, 8, tzinfo=UTC)

    await stage.pass_time(timedelta(hours=22))
    await stage.until(lambda: len(stage.opened) == 2)
    assert stage.shifts.opens_at is None
    assert stage.shifts.current is stage.opened[1]


@pytest.mark.parametrize(
    ("night", "hours"),
    [
        (datetime(2026, 3, 8, 3, tzinfo=UTC), 7),
        (datetime(2026, 11, 1, 2, tzinfo=UTC), 9),
        (datetime(2026, 6, 8, 2, tzinfo=UTC), 8),
    ],
    ids=["forward", "back", "plain"],
)
async def test_a_night_is_as_long_as_the_wall_clock_says(begin, night, hours):
    # 22:00 in New York; the window ends at 06:00 by whatever clock then holds.
    stage = await begin(night, (ALL, "22:00", "06:00"), zone=NEW_YORK)
    await stage.pass_time(timedelta(hours=hours) - timedelta(minutes=1))
    assert not stage.opened[0].draining
    await stage.pass_time(timedelta(minutes=2))
    await stage.until(lambda: stage.opened[0].draining)


async def test_windows_that_changed_meanwhile_count_at_the_next_look(begin):
    stage = await begin(datetime(2026, 1, 5, 12, tzinfo=UTC), (ALL, "08:00", "10:00"))
    assert stage.opened == []
    await stage.until(lambda: stage.shifts.opens_at is not None)
    stage.schedule = Schedule()
    await stage.pass_time(timedelta(seconds=RECHECK_S))

    await stage.until(lambda: len(stage.opened) == 1)


async def test_told_to_leave_it_drains_and_opens_nothing_more(begin):
    stage = await begin(datetime(2026, 1, 5, 8, tzinfo=UTC), (ALL, "08:00", "10:00"))
    await stage.until(lambda: stage.shifts.current is not None)
    async with asyncio.timeout(BOUND_S):
        await stage.shifts.drain(5.0)

    assert stage.opened[0].patience == [5.0]
    assert stage.shifts.over.is_set()


async def test_told_to_leave_outside_its_hours_it_leaves_at_once(begin):
    stage = await begin(datetime(2026, 1, 5, 12, tzinfo=UTC), (ALL, "08:00", "10:00"))
    async with asyncio.timeout(BOUND_S):
        await stage.shifts.drain(600.0)

    assert stage.opened == []


async def test_a_second_word_can_only_hurry(begin):
    stage = await begin(datetime(2026, 1, 5, tzinfo=UTC))
    stage.opened[0].hold = True
    slow = asyncio.create_task(stage.shifts.drain(3600.0))
    await stage.until(lambda: stage.opened[0].patience == [3600.0])
    stage.opened[0].hold = False
    async with asyncio.timeout(BOUND_S):
        await stage.shifts.drain(0.0)
        await slow
    assert stage.opened[0].patience == [3600.0, 0.0]


async def test_what_is_wrong_at_the_start_is_said_at_once():
    stage = Stage(datetime(2026, 1, 5, tzinfo=UTC), Schedule())
    stage.failure = ProviderError("no model to serve")
    with pytest.raises(ProviderError, match="no model"):
        await stage.shifts.begin()
