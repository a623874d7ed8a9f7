"""What models cost, as anybody reads it."""

from darkbloom_gateway.catalog import Alias, Build, Catalog
from darkbloom_gateway.model import Price
from darkbloom_gateway.ports import PriceList
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
