"""What a machine says of itself and when: heartbeats, honest or not.

Most heartbeats of a large fleet say again what was said five seconds ago. Of those only what a
whole one would change is changed: the time at which it came. Everything else that it would compute
is known to come out the same, so a run in which `every_beat` is taken whole has the same result.
"""

from dataclasses import replace
from functools import partial
from random import Random  # noqa: TID251 - the type; randomness is passed in

from darkbloom_router.model import Beat, CapacityReport, SlotReport, SlotState, Thermal
from darkbloom_router.provider import Provider
from darkbloom_router.queueing import Trigger
from darkbloom_router.simulate import hardware
from darkbloom_router.simulate.body import Body
from darkbloom_router.simulate.chance import around
from darkbloom_router.simulate.core import Core
from darkbloom_router.simulate.engine import Engine
from darkbloom_router.simulate.memory import Memory
from darkbloom_router.simulate.scenario import Scenario

BEAT_S, LEAST_BEAT_S, SLOW_BEAT_S = 5.0, 0.25, 20.0
RECHECK_S = 280.0
_LIE = 4
_LONG_AGO = -1e12


class Pulse:
    """The heartbeats of one machine over its sessions.

    Args:
        body: The machine.
        memory: What it holds.
        core: The router.
        scenario: How long anybody listens.
        chance: The machine's own randomness.
    """

    def __init__(
        self, body: Body, memory: Memory, core: Core, scenario: Scenario, chance: Random
    ) -> None:
        self._body = body
        self._memory = memory
        self._core = core
        self._timers = core.timers
        self._chance = chance
        self._every = scenario.every_beat
        self._until = scenario.decided_s
        self._provider: Provider | None = None
        self._engine: Engine | None = None
        self._slots: dict[str, SlotReport] = {}
        """As the router has them; the ages in them are renewed in place."""
        self._sequence = 0
        self._beat_at = _LONG_AGO
        self._armed = False
        self._news = True
        """Whether anything has changed since the last whole heartbeat."""
        self._slowdown = 1.0

    def start(self, provider: Provider, engine: Engine) -> None:
        """Beat for a session from now on, at once for the first time."""
        self._provider, self._engine = provider, engine
        self._news = True
        self._beat(provider, engine)
        self._arm(provider)

    def stop(self) -> None:
        """Fall silent."""
        self._provider = None

    def changed(self) -> None:
        """Say so soon: an event heartbeat, four a second at most."""
        self._news = True
        if self._timers.now() > self._until:
            return
        if self._armed or self._provider is None or self._body.slow_beats:
            return
        self._armed = True
        wait_s = max(0.0, self._beat_at + LEAST_BEAT_S - self._timers.now())
        self._timers.after(wait_s + self._body.net_s, partial(self._event, self._provider))

    def _arm(self, provider: Provider) -> None:
        period = SLOW_BEAT_S if self._body.slow_beats else BEAT_S
        self._timers.after(around(self._chance, period, 0.1), partial(self._tick, provider))

    def _tick(self, provider: Provider) -> None:
        if provider is self._provider and self._engine is not None:
            self._beat(provider, self._engine)
            if self._timers.now() <= self._until:
                self._arm(provider)

    def _event(self, provider: Provider) -> None:
        self._armed = False
        if provider is self._provider and self._engine is not None:
            self._beat(provider, self._engine)

    def _beat(self, provider: Provider, engine: Engine) -> None:
        now = self._beat_at = self._timers.now()
        self._core.carried.beats += 1
        fleet = self._core.fleet
        if provider.passed_at is not None and now - provider.passed_at > RECHECK_S:
            provider.passed_at = now
            fleet.refresh(provider)
        if self._news or self._every or engine.slowdown != self._slowdown:
            whole = True
        else:
            whole = not fleet.still(provider, now)
        if whole:
            self._sequence += 1
            fleet.beat(provider, self._report(engine, now), now)
            self._news, self._slowdown = False, engine.slowdown
        else:
            self._renew(now)
        self._core.dispatcher.drain_lines(provider, Trigger.HEARTBEAT)

    def _renew(self, now: float) -> None:
        """Let what was said last be as old as a whole heartbeat would make it."""
        for name, resident in self._memory.residents.items():
            if resident.rows and resident.loaded:
                # Its age was 0 in the last heartbeat and is now.
                resident.stepped_at = now
            elif resident.stepped_at != _LONG_AGO:
                age_s = now - resident.stepped_at
                self._slots[name] = replace(self._slots[name], stepped_ago_s=age_s)

    def _report(self, engine: Engine, now: float) -> Beat:
        body = self._body
        lie = _LIE if body.lies else 1
        slots = self._slots = {}
        active_gb = 0.0
        residents = self._memory.residents
        for name, resident in residents.items():
            weights = resident.product.weights
            active_gb += weights.size_gb + resident.used * weights.kv_bytes / hardware.GB
            if resident.rows and resident.loaded:
                resident.measured_tps = resident.solo_tps / engine.slowdown
                resident.stepped_at = now
            measured = resident.measured_tps * lie
            state = SlotState.RUNNING if resident.rows else SlotState.IDLE
            slots[name] = SlotReport(
                build=name,
                state=state if resident.loaded else SlotState.RELOADING,
                running=min(resident.rows, body.rows),
                waiting=max(0, resident.rows - body.rows),
                max_concurrency=min(24, body.rows * lie),
                budget_used=0 if body.lies else resident.used,
                budget_max=resident.budget * lie,
                kv_bytes_per_token=weights.kv_bytes,
                decode_tps=min(measured, 500.0),
                prefill_tps=min(measured and resident.solo_tps * 14.0 * lie, 20_000.0),
                load_ms=int(hardware.load_s(weights) * 1000),
                stepped_ago_s=now - resident.stepped_at,
            )
        usable_gb = body.memory_gb * hardware.USABLE
        idle_gb = sum(one.product.weights.size_gb for one in residents.values() if one.rows)
        return Beat(
            warm=frozenset(name for name, one in residents.items() if one.loaded),
            pressure=min(1.0, active_gb / body.memory_gb),
            cpu=0.1,
            thermal=Thermal.NOMINAL,
            capacity=CapacityReport(
                sequence=self._sequence,
                slots=slots,
                total_memory_gb=body.memory_gb,
                gpu_active_gb=min(active_gb, body.memory_gb),
                free_for_load_gb=usable_gb - idle_gb,
            ),
        )
