"""How full a gateway is, as an autoscaler sees it, and when it is empty for good."""

import asyncio

import pytest
from darkbloom_gateway.errors import ApiError
from darkbloom_gateway.gate import HUSH_S, HUSHES, Gate
from darkbloom_gateway.meters import Meters
from darkbloom_mesh.telemetry import Metrics
from darkbloom_mesh.testing import FakeClock, settle


def test_requests_in_flight_are_read_when_somebody_looks() -> None:
    metrics, gate = Metrics(version="0"), Gate(8)
    Meters(metrics).follow(lambda: gate.inflight)

    def shown() -> float | None:
        return metrics.registry.get_sample_value("darkbloom_requests_inflight")

    assert shown() == 0
    with gate.entered(), gate.entered():
        assert shown() == 2
    assert shown() == 0


def ask(gate: Gate) -> None:
    with pytest.raises(ApiError, match="draining"), gate.entered():
        pass


async def test_a_gateway_with_nothing_to_do_leaves_at_once() -> None:
    gate = Gate(8)
    gate.leaving = True

    await asyncio.wait_for(gate.hushed(FakeClock()), 5)


async def test_who_asks_again_after_the_last_answer_is_told_before_the_door_closes() -> None:
    gate, clock = Gate(8), FakeClock()
    async with asyncio.TaskGroup() as tasks:
        with gate.entered():
            gate.leaving = True
            hushed = tasks.create_task(gate.hushed(clock))
            await settle()
            await clock.advance(60.0)
            assert not hushed.done()

        await settle()
        await clock.advance(HUSH_S / 2)
        ask(gate)
        await clock.advance(HUSH_S / 2)
        assert not hushed.done()
        await clock.advance(HUSH_S)
        assert hushed.done()


async def test_one_who_never_hears_it_holds_nobody_for_ever() -> None:
    gate, clock = Gate(8), FakeClock()
    gate.leaving = True
    ask(gate)
    async with asyncio.TaskGroup() as tasks:
        hushed = tasks.create_task(gate.hushed(clock))
        await settle()
        for _ in range(HUSHES):
            assert not hushed.done()
            ask(gate)
            await clock.advance(HUSH_S)
        assert hushed.done()
