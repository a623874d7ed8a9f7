"""What lists say of names that have more than one build."""

from darkbloom.router.v1.fleet_pb2 import BuildCapacity
from darkbloom_gateway.catalog import Alias, Build, Catalog, Resolution
from darkbloom_gateway.model import Price
from darkbloom_gateway.ports import PriceList
from darkbloom_gateway.routes.models import can_accept
from darkbloom_gateway.routes.pricing import price_list


def price(build: str, micros: int) -> Price:
    return Price(f"price_{build}", build, micros, micros, micros, 100)


def test_a_name_that_took_a_builds_id_over_costs_what_it_means() -> None:
    prices = PriceList((price("small", 1), price("org/new", 2)), price("", 9))
    builds = {name: Build(name) for name in ("small", "org/new")}
    names = {"small": Alias("small", "", "org/new", "small", active=True)}

    said = price_list(prices, Catalog(1, builds, names))["prices"]
    before = price_list(prices, Catalog(1, builds, {}))["prices"]

    assert {row["model"]: row["input_price"] for row in said} == {"small": 2, "org/new": 2}
    assert {row["model"]: row["input_price"] for row in before} == {"small": 1, "org/new": 2}


def test_a_name_can_take_a_request_where_either_of_its_builds_can() -> None:
    name = Resolution("name", "Name", Build("new"), "old")
    free, full = BuildCapacity(can_accept=True), BuildCapacity(can_accept=False)

    assert can_accept(name, {"new": full, "old": free})
    assert can_accept(name, {"new": free})
    assert not can_accept(name, {"new": full, "old": full, "other": free})
