"""One run from its scenario to its result."""

from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from functools import partial
from itertools import accumulate

from darkbloom_router.model import Catalog
from darkbloom_router.simulate import hardware
from darkbloom_router.simulate.body import Body
from darkbloom_router.simulate.chance import around, stream
from darkbloom_router.simulate.collector import Collector
from darkbloom_router.simulate.core import Core, make_core
from darkbloom_router.simulate.edge import Edge
from darkbloom_router.simulate.hardware import Product
from darkbloom_router.simulate.lanes import Carried
from darkbloom_router.simulate.ledger import Ledger
from darkbloom_router.simulate.machine import Machine
from darkbloom_router.simulate.scenario import Scenario
from darkbloom_router.simulate.traffic import Traffic
from darkbloom_router.warm.targets import TICK_S

WARM_UP_S = 1.0
AWAY_S = (20.0, 120.0)
WARM_AGAIN = 0.5
"""Share of those who come back with their first build in memory."""
SWEEP_S = 30.0
STEP_S = 5.0
TAIL_S = 900.0
"""What still runs when requests stop coming has so long to end."""
MAX_PRODUCTS = 3
_WORKERS_PER = 100
Progress = Callable[[float, Ledger], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that a report is made of."""

    scenario: Scenario
    core: Core
    ledger: Ledger
    machines: list[Machine]
    offered_per_s: float
    capacity_tps: float
    collector: Collector
    carried: Carried
    """Messages on lanes until requests stopped coming, without those of machines that came first.
    """


def run(scenario: Scenario, progress: Progress) -> Outcome:
    """Simulate.

    Args:
        scenario: What.
        progress: Hears of the virtual time and the sums so far.
    """
    core, ledger = make_core(scenario), Ledger()
    products = hardware.catalog(scenario.builds, scenario.zipf)
    catalog = Catalog(generation=1, builds={one.build.build: one.build for one in products})
    core.meter.catalog = catalog.builds
    core.fleet.set_catalog(catalog)
    edge = Edge(core, ledger, 1 + scenario.providers // _WORKERS_PER)
    machines = [
        Machine(
            body,
            core,
            scenario,
            stream(scenario.seed, body.name),
            edge.live.get,
            edge.attempt_over,
        )
        for body in _bodies(scenario, products)
    ]
    chance = stream(scenario.seed, "fleet")
    for machine in machines:
        warm = chance.random() >= scenario.cold
        core.timers.after(WARM_UP_S * chance.random(), partial(machine.connect, warm=warm))

    capacity_tps = sum(machine.body.capacity_tps for machine in machines)
    traffic = Traffic(scenario, products, capacity_tps, core.timers, edge.ask)
    core.timers.after(WARM_UP_S, traffic.start)
    counts: list[Carried] = []
    for moment in (WARM_UP_S, scenario.duration_s):
        core.timers.after(moment, lambda: counts.append(replace(core.carried)))
    _churn(scenario, core, machines)
    _sweep(core, scenario.decided_s)

    last = scenario.duration_s + TAIL_S
    with Collector() as collector:
        while core.timers.now() < last:
            core.timers.run_until(core.timers.now() + STEP_S)
            progress(core.timers.now(), ledger)
            if core.timers.now() > scenario.duration_s and not edge.live:
                break
    ledger.never_ended(len(edge.live))
    for machine in machines:
        if machine.provider is not None:
            machine.connected_s += core.timers.now() - machine.provider.joined_at
    carried = Carried(
        *(after - before for before, after in zip(*map(astuple, counts), strict=True))
    )
    return Outcome(
        scenario, core, ledger, machines, traffic.mean_per_s, capacity_tps, collector, carried
    )


def _bodies(scenario: Scenario, products: list[Product]) -> list[Body]:
    """Draw the fleet."""
    chance = stream(scenario.seed, "hardware")
    firsts = [
        product
        for product, count in zip(
            products, hardware.shares_of(products, scenario.providers), strict=True
        )
        for _ in range(count)
    ]
    chance.shuffle(firsts)
    ends = list(accumulate(product.popularity for product in products))
    bodies = []
    for number in range(scenario.providers):
        first = firsts[number]
        chip, memory_gb = hardware.draw_chip(chance, first.build.min_ram_gb)
        found = {first.build.build: first}
        for other in chance.choices(products, cum_weights=ends, k=MAX_PRODUCTS - 1):
            if other.build.min_ram_gb <= memory_gb:
                found.setdefault(other.build.build, other)
        bodies.append(
            Body(
                name=f"mac{number:06d}",
                chip=chip,
                memory_gb=memory_gb,
                products=tuple(found.values()),
                net_s=around(chance, 0.02, 0.8),
                lies=chance.random() < scenario.liars,
                sick=chance.random() < scenario.sick,
                slow_beats=chance.random() < scenario.slow_beats,
            )
        )
    return bodies


def _churn(scenario: Scenario, core: Core, machines: list[Machine]) -> None:
    """Let machines leave and come back."""
    if scenario.churn <= 0:
        return
    chance = stream(scenario.seed, "churn")
    per_s = scenario.churn * len(machines) / 600

    def leave() -> None:
        core.timers.after(chance.expovariate(per_s), leave)
        machine = chance.choice(machines)
        away_s = chance.uniform(*AWAY_S)
        if machine.provider is None or core.timers.now() > scenario.duration_s:
            return
        machine.disconnect(abrupt=chance.random() < scenario.abrupt)
        core.timers.after(away_s, partial(machine.reconnect, warm=chance.random() < WARM_AGAIN))

    core.timers.after(chance.expovariate(per_s), leave)


def _sweep(core: Core, until: float) -> None:
    """Do what the router does now and then, as long as anybody is chosen."""

    def tick() -> None:
        for build in core.warm.due():
            core.warm.tick(build)
        if core.timers.now() <= until:
            core.timers.after(TICK_S, tick)

    core.timers.after(TICK_S, tick)

    def sweep() -> None:
        core.health.sweep(core.timers.now())
        if core.timers.now() <= until:
            core.timers.after(SWEEP_S, sweep)

    core.timers.after(SWEEP_S, sweep)
