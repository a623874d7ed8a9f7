"""Which bytes a machine may serve as versions come and go (spec: registry §11, §12)."""

from dataclasses import replace

from darkbloom_router.inventory import Inventory
from darkbloom_router.model import Build, Catalog

from tests.unit.router.fleets import BUILD, FACTS, HASH, provider

NEWER, BAD = "cd" * 32, "ee" * 32


def catalog(*accepted: str, active: str) -> Catalog:
    build = Build(build=BUILD, accepted_hashes=frozenset(accepted), weight_hash=active)
    return Catalog(generation=1, builds={BUILD: build})


def test_who_serves_the_version_before_goes_on_until_it_is_retired() -> None:
    inventory, machine = Inventory(), provider()
    inventory.catalog = catalog(HASH, active=HASH)
    inventory.take(machine, [FACTS])

    inventory.catalog = catalog(HASH, NEWER, active=NEWER)
    assert inventory.accepted(machine)[BUILD][1].weight_hash == HASH

    inventory.catalog = catalog(NEWER, active=NEWER)
    assert inventory.accepted(machine) == {}


def test_an_update_with_bad_bytes_leaves_what_was_there_before() -> None:
    inventory, machine = Inventory(), provider()
    inventory.catalog = catalog(HASH, NEWER, active=NEWER)
    inventory.take(machine, [FACTS])

    (rejection,) = inventory.take(machine, [replace(FACTS, weight_hash=BAD)])
    assert (rejection.build, "weight hash" in rejection.detail) == (BUILD, True)
    assert inventory.accepted(machine)[BUILD][1].weight_hash == HASH

    assert inventory.take(machine, [replace(FACTS, weight_hash=NEWER)]) == []
    assert inventory.accepted(machine)[BUILD][1].weight_hash == NEWER


def test_an_empty_catalog_lets_nobody_serve() -> None:
    inventory, machine = Inventory(), provider()
    inventory.catalog = Catalog()
    assert [found.detail for found in inventory.take(machine, [FACTS])] == ["not in the catalog"]
    assert inventory.accepted(machine) == {}
