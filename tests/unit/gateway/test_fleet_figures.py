"""Figures of the public fleet, from what the router says."""

from darkbloom.router.v1.fleet_pb2 import BuildCapacity, Provider
from darkbloom.router.v1.provider_link_pb2 import (
    SLOT_STATE_IDLE,
    SLOT_STATE_RUNNING,
    Hardware,
    ProviderModel,
    Slot,
)
from darkbloom_gateway.routes import fleet_figures

BUILD = "b/one"


def machine(name: str = "prov_a", trust: str = "hardware", **slot: object) -> Provider:
    return Provider(
        provider_id=name,
        status="online",
        trust_level=trust,
        hardware=Hardware(
            chip_name="Apple M4 Max",
            chip_family="M4",
            chip_tier="Max",
            machine_model="Mac16,5",
            memory_gb=128,
            gpu_cores=40,
            cpu_cores_total=16,
            memory_bandwidth_gbs=546,
        ),
        models=[ProviderModel(id=BUILD)],
        slots=[Slot(model=BUILD, **slot)] if slot else [],
    )


def test_a_model_has_the_capacity_of_its_slots() -> None:
    running = machine(
        state=SLOT_STATE_RUNNING,
        observed_decode_tps=50.04,
        observed_prefill_tps=1000,
        queued_token_budget=500,
    )
    idle = machine("prov_b", state=SLOT_STATE_IDLE, observed_decode_tps=30)
    live = BuildCapacity(build=BUILD, routable_providers=2, warm_providers=2, can_accept=True)

    row = fleet_figures.capacity_row("alias", BUILD, live, [running, idle])

    assert (row["id"], row["build"], row["ready"], row["can_accept"]) == (
        "alias",
        BUILD,
        True,
        True,
    )
    assert (row["running_providers"], row["aggregate_tps"]) == (1, 80.0)
    assert row["estimated_ttft_ms"] == 1000


def test_a_cold_model_takes_twenty_seconds_longer() -> None:
    slot = machine(state=SLOT_STATE_IDLE, observed_prefill_tps=1000)
    row = fleet_figures.capacity_row("a", BUILD, BuildCapacity(routable_providers=1), [slot])

    assert row["estimated_ttft_ms"] == 20_500


def test_nothing_is_estimated_where_nobody_has_measured() -> None:
    row = fleet_figures.capacity_row("a", BUILD, BuildCapacity(), [machine()])

    assert (row["estimated_ttft_ms"], row["ready"]) == (None, False)


def test_a_model_says_who_serves_it_and_how_far_the_best_is_trusted() -> None:
    fleet = [machine(trust="none"), machine("prov_b"), Provider(provider_id="x")]

    assert fleet_figures.serving([BUILD], fleet) == fleet_figures.serving([BUILD, "new"], fleet)
    assert fleet_figures.serving([BUILD], fleet) == {
        "provider_count": 2,
        "attested_providers": 1,
        "trust_level": "hardware",
    }
    assert fleet_figures.serving(["absent"], fleet)["trust_level"] == "none"


def test_what_is_no_quantity_counts_as_nothing() -> None:
    odd = machine(state=SLOT_STATE_IDLE, observed_decode_tps=float("nan"), observed_prefill_tps=-1)
    odd.hardware.memory_gb = float("inf")

    totals = fleet_figures.totals([odd, machine("prov_b")])

    assert (totals["network_capacity_tps"], totals["total_memory_gb"]) == (0.0, 128.0)
    assert fleet_figures.machines([odd])[0]["memory_gb"] == 0.0
    row = fleet_figures.capacity_row("a", BUILD, BuildCapacity(), [odd])
    assert (row["aggregate_tps"], row["estimated_ttft_ms"]) == (0.0, None)


def test_only_machines_that_are_online_count() -> None:
    leaving = machine("prov_b")
    leaving.status = "draining"
    here = fleet_figures.online([machine(state=SLOT_STATE_RUNNING), leaving])

    assert fleet_figures.totals(here)["active_providers"] == 1
    assert fleet_figures.models(here) == [{"id": BUILD, "providers": 1}]
    assert fleet_figures.levels(here) == {"none": 0, "self_signed": 0, "hardware": 1}
    (row,) = fleet_figures.machines(here)
    assert (row["chip_family"], row["cpu_cores"], row["current_model"]) == ("M4", 16, BUILD)
