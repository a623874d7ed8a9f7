"""The capacity page is what its assumptions say, and they are what deploy/ sets."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from darkbloom_billing.config import BillingConfig

from tests.contract.deploy.manifests import ROOT, named, pod, rendered
from tools.capacity import runs
from tools.capacity.__main__ import PAGE, QUIET, SIZES, fitted, page
from tools.capacity.figures import ROOMS, Decided, Measured, Prices
from tools.capacity.plan import LOAD, cost, plan, routers

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


def test_a_fleet_of_every_size_was_simulated_and_one_at_every_load() -> None:
    made = {(run.providers, run.load) for run in runs.read().runs}
    assert made >= {(size, LOAD) for size in SIZES} | {(SIZES[0], QUIET)}


@pytest.mark.parametrize("run", runs.read().runs, ids=lambda run: f"{run.providers}-{run.load:g}")
def test_a_run_is_sound_and_its_column_is_computed_from_it(run: runs.Run) -> None:
    assert (run.found["seed"], run.found["churn"], run.found["scan"]) == (7, 0.05, "sample")
    assert run.found["audits_disagreed"] == run.found["lost_after_commit"] == 0
    assert run.found["waited_past_deadline"] == 0
    assert f'{run.day}: `make simulate ARGS="{run.command}"`' in PAGE.read_text()
    fit = fitted(runs.read(), run.providers, run.load, Measured())
    column = plan(run.providers, run.load, fit, Decided())
    assert column.requests == pytest.approx(run.found["offered_per_s"], rel=1e-3)


def test_what_is_called_simulated_is_what_runs_of_a_thousand_say() -> None:
    measured, record = Measured(), runs.read()
    busy, quiet = record.of(SIZES[0], LOAD), record.of(SIZES[0], QUIET)
    assert busy is not None
    assert quiet is not None
    assert measured.requests_a_second == pytest.approx(busy.requests_a_second, abs=0.002)
    assert measured.answer_s == pytest.approx(busy.answer_s, abs=0.1)
    assert measured.output_tokens == pytest.approx(busy.found["output_mean_tokens"], rel=0.02)
    prompt = runs.BYTES_A_TOKEN * busy.found["prompt_mean_tokens"]
    assert measured.prompt_bytes == pytest.approx(prompt, rel=0.02)
    for run in (busy, quiet):
        told = measured.told_rest + run.requests_a_second * measured.told_a_request
        assert told == pytest.approx(run.told_a_second, rel=0.02)
    for name in ("tell_us", "hear_us", "mirror_bytes"):
        assert getattr(measured, name) == pytest.approx(record.mirrors.found[name], rel=0.05)


def test_what_a_person_sets_outweighs_a_run() -> None:
    mine = replace(Measured(), requests_a_second=0.5, told_a_request=0.0)
    found = fitted(runs.read(), SIZES[1], LOAD, mine)
    assert (found.requests_a_second, found.told_a_request) == (0.5, 0.0)
    assert fitted(runs.read(), SIZES[1], QUIET, mine).answer_s != mine.answer_s
    assert fitted(runs.read(), SIZES[1], 0.33, mine) == mine


def test_more_routers_do_not_make_mirrors_cheaper() -> None:
    decided, measured = Decided(), Measured()
    few = routers(2_000, 0.1, measured, decided)
    assert few is not None
    many = routers(2_000, 0.1, measured, replace(decided, least=2 * few.count))
    assert many is not None
    assert many.mirrors > few.mirrors
    # Where news alone fills a core, the fleet is split.
    loud = replace(measured, hear_us=50 * measured.hear_us)
    assert routers(2_000, 0.1, loud, decided) is None
    assert plan(2_000, LOAD, loud, decided).cells > 1
    with pytest.raises(ValueError, match="no router has a core"):
        plan(3, LOAD, replace(measured, requests_a_second=1e9), decided)


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
