"""The drain of all gateways, as one worker follows it."""

import asyncio

import pytest
from darkbloom_gateway.errors import ApiError
from darkbloom_gateway.fleet_drain import POLL_S, FleetDrain
from darkbloom_gateway.gate import Gate
from darkbloom_mesh.errors import StoreUnavailableError
from darkbloom_mesh.testing import FakeClock, settle


class Flag:
    """A store that can be away, forget, and be slow to answer."""

    def __init__(self) -> None:
        self.value: bool | None = None
        self.away = False
        self.slow: asyncio.Event | None = None

    async def read(self) -> bool | None:
        found = self.value
        await self._answer()
        return found

    async def write(self, *, draining: bool, absent_only: bool = False) -> None:
        await self._answer()
        if self.value is None or not absent_only:
            self.value = draining

    async def _answer(self) -> None:
        if self.slow is not None:
            await self.slow.wait()
        if self.away:
            raise StoreUnavailableError("away")


def made() -> tuple[FleetDrain, Flag, Gate]:
    flag, gate = Flag(), Gate(8)
    return FleetDrain(flag, gate, FakeClock()), flag, gate


@pytest.mark.parametrize(("leaving", "paused"), [(True, False), (False, True), (True, True)])
def test_a_gate_refuses_for_either_reason_and_lets_what_runs_go_on(
    leaving: bool, paused: bool
) -> None:
    gate = Gate(8)
    with gate.entered():
        gate.leaving, gate.paused = leaving, paused
        with pytest.raises(ApiError, match="draining") as caught, gate.entered():
            pass
        assert (gate.draining, gate.inflight) == (True, 1)
    gate.leaving = gate.paused = False
    with gate.entered():
        assert not gate.draining

    error = caught.value
    assert (error.http_status, error.kind, error.retry_after_s) == (429, "rate_limit_exceeded", 3)


async def test_a_worker_looks_at_once_and_then_every_second() -> None:
    flag, gate, clock = Flag(), Gate(8), FakeClock()
    drain = FleetDrain(flag, gate, clock)
    flag.value = True
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(drain.run())
        assert not drain.looked
        await settle()
        assert (drain.looked, gate.paused) == (True, True)
        flag.value = False
        await clock.advance(POLL_S - 0.01)
        assert gate.paused
        await clock.advance(0.01)
        assert not gate.paused
        running.cancel()

    assert POLL_S <= 1


@pytest.mark.parametrize("state", [True, False])
async def test_without_the_store_the_last_state_stays_and_nothing_is_changed(state: bool) -> None:
    drain, flag, gate = made()
    await drain.set(draining=state)
    flag.away = True

    await drain.follow()
    with pytest.raises(ApiError) as caught:
        await drain.set(draining=not state)

    assert (caught.value.http_status, caught.value.kind) == (503, "service_unavailable")
    assert gate.paused is state


async def test_a_store_that_is_away_from_the_beginning_closes_nothing() -> None:
    drain, flag, gate = made()
    flag.away = True

    await drain.follow()

    assert (drain.looked, gate.draining) == (True, False)


async def test_a_store_that_forgets_is_told_again_and_opens_nothing() -> None:
    drain, flag, gate = made()
    await drain.set(draining=True)
    flag.value = None

    await drain.follow()

    assert (flag.value, gate.paused) == (True, True)


async def test_a_flag_that_was_never_set_is_left_alone() -> None:
    drain, flag, gate = made()

    await drain.follow()

    assert (flag.value, gate.paused) == (None, False)


async def test_what_was_read_before_a_change_does_not_undo_it() -> None:
    drain, flag, gate = made()
    flag.value = False
    flag.slow = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(drain.follow())
        await settle()
        tasks.create_task(drain.set(draining=True))
        await settle()
        flag.slow.set()

    assert (flag.value, gate.paused) == (True, True)
