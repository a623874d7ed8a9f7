"""What is told of machines and builds."""

from dataclasses import replace

from darkbloom_router.holdings import Held, count
from darkbloom_router.model import Build, Catalog, SlotState

from tests.unit.router.fleets import BUILD, FACTS, HASH, capacity, fleet, provider

OLD = "cd" * 32


def test_machines_are_counted_by_what_they_hold_and_are_asked_to() -> None:
    warm, cold, old = provider("warm"), provider("cold"), provider("old")
    cold.capacity = capacity(state=SlotState.OTHER)
    made = fleet(warm, cold)
    build = Build(build=BUILD, accepted_hashes=frozenset({HASH, OLD}), weight_hash=HASH)
    made.set_catalog(Catalog(generation=2, builds={BUILD: build}))
    made.join(old, [replace(FACTS, weight_hash=OLD)])
    for machine in (warm, cold, old):
        made.refresh(machine)

    found = count([(warm, [BUILD]), (cold, []), (old, [BUILD, "org/new"])])

    assert {held.build: held for held in found} == {
        # Who holds it unasked makes up for nobody who is asked and does not.
        BUILD: Held(BUILD, wished=2, holding=3, current=1, warm=1),
        "org/new": Held("org/new", wished=1),
    }


def test_nobody_holds_nothing() -> None:
    assert count([]) == []
