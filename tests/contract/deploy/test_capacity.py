"""The capacity page is what its assumptions say, and they are what deploy/ sets."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from darkbloom_billing.config import BillingConfig

from tests.contract.deploy.manifests import ROOT, named, pod, rendered
from tools.capacity.__main__ import PAGE, SIZES, page
from tools.capacity.figures import ROOMS, Decided, Measured, Prices
from tools.capacity.plan import LOAD, cost, plan

UNITS = {"Mi": 1 / 1024, "Gi": 1.0}


def gib(text: str) -> float:
    return float(text[:-2]) * UNITS[text[-2:]]


def cores(value: Any) -> float:
    text = str(value)
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def scaled(room: str) -> Any:
    return named(rendered("overlays/production"), "ScaledObject", room)["spec"]


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text() == page(), "run make capacity ARGS=--write"


@pytest.mark.parametrize("room", ROOMS)
def test_a_pod_is_counted_as_what_it_asks_for(room: str) -> None:
    (container,) = pod(named(rendered("base"), "Deployment", room))["containers"]
    asked = container["resources"]["requests"]
    assert (cores(asked["cpu"]), gib(asked["memory"])) == (ROOMS[room].cores, ROOMS[room].gib)


def test_what_is_called_decided_is_what_production_sets() -> None:
    decided = Decided()
    gateway, router = scaled("gateway"), scaled("router")
    assert gateway["triggers"][0]["metadata"]["threshold"] == str(decided.streams_of_a_gateway)
    assert router["triggers"][0]["metadata"]["threshold"] == str(decided.providers_of_a_router)
    assert gateway["maxReplicaCount"] == decided.gateways
    assert router["maxReplicaCount"] == decided.routers
    assert {scaled(room)["minReplicaCount"] for room in ROOMS} == {decided.least}
    for room in ROOMS:
        (by_cores,) = [one for one in scaled(room)["triggers"] if one["type"] == "cpu"]
        assert decided.busy < int(by_cores["metadata"]["value"]) / 100
    postgres = named(rendered("overlays/production"), "Cluster", "postgres")["spec"]
    assert postgres["instances"] == decided.postgres_instances
    assert BillingConfig.__dataclass_fields__["receipt_days"].default == decided.proof_days


def test_what_production_starts_with_is_the_smallest_plan() -> None:
    least = plan(100, LOAD, Measured(), Decided())
    asked = named(rendered("overlays/production"), "Cluster", "postgres")["spec"]["resources"]
    assert cores(asked["requests"]["cpu"]) == least.postgres_cores
    assert gib(asked["requests"]["memory"]) == least.postgres_gib
    assert set(least.pods.values()) == {Decided().least}


@pytest.mark.parametrize("providers", [1, 999, 15_000, 15_001, *SIZES])
def test_no_cell_asks_for_more_pods_than_the_autoscaler_may_start(providers: int) -> None:
    found = plan(providers, LOAD, Measured(), Decided())
    for room, count in found.pods.items():
        assert Decided().least * found.cells <= count
        assert count <= found.cells * scaled(room)["maxReplicaCount"], room
    assert found.cells * Decided().cell >= providers


def test_more_of_anything_is_never_cheaper() -> None:
    measured, decided, prices = Measured(), Decided(), Prices()
    before = 0.0
    for providers in range(500, 60_000, 500):
        total = sum(cost(plan(providers, LOAD, measured, decided), prices, decided).values())
        assert total >= before
        before = total
    found = plan(1_000, LOAD, measured, decided)
    dear = cost(found, replace(prices, core_hour=2 * prices.core_hour), decided)
    usual = cost(found, prices, decided)
    assert dear["rooms"] > usual["rooms"]
    assert dear["storage"] == usual["storage"]


def test_a_reader_gets_tables_of_his_own_prices() -> None:
    asked = ["-m", "tools.capacity", "--load", "0.3", "--core-hour", "0.1", "--months", "1"]
    done = subprocess.run(
        [sys.executable, *asked], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    mine = cost(
        plan(1_000, 0.3, Measured(), replace(Decided(), months=1)),
        replace(Prices(), core_hour=0.1),
        replace(Decided(), months=1),
    )
    assert f"| USD a month: rooms | {mine['rooms']:,.0f} |" in done.stdout
