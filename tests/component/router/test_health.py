"""What failures teach about machines, over real links; and what a machine is told about itself."""

from pathlib import Path

from darkbloom.router.v1 import gateway_lane_pb2 as gw
from darkbloom.router.v1 import provider_link_pb2 as pl
from darkbloom_router.conditions import View
from darkbloom_router.decisions import AUDIT_EVERY, Decisions
from darkbloom_router.hints import HintMemory
from darkbloom_router.model import Demand

from tests.component.router.harness import K, ScriptedProvider, World, world
from tests.component.router.test_lines import full, slot
from tests.fakes.registry import SCRIPTED_BUILD


async def routing(provider: ScriptedProvider) -> pl.BuildRouting:
    provider.heartbeat(slots=[slot()])
    status = await provider.box.message(K.FRAME_KIND_ROUTING_STATUS, pl.RoutingStatus)
    [found] = status.builds
    return found


def counted(mesh: World, name: str, **labels: str) -> float:
    value = mesh.service.metrics.registry.get_sample_value(f"darkbloom_{name}_total", labels)
    return value or 0.0


async def test_a_machine_is_told_which_gate_is_shut_and_when_it_opens(mesh: World) -> None:
    provider = await mesh.provider()
    assert (await routing(provider)).eligible
    provider.lane.send_control(K.FRAME_KIND_PROVIDER_DRAIN, 0, pl.ProviderDrain(drain_id="d"))
    await mesh.until(lambda: mesh.provider_state(provider).drain_fence)
    shut = await routing(provider)
    assert (shut.model_id, shut.reason) == (SCRIPTED_BUILD, pl.GATE_REASON_OFFLINE)
    assert shut.evidence
    assert shut.remedy
    assert K.FRAME_KIND_ROUTING_STATUS not in provider.box.kinds()


async def test_two_faults_rest_a_build_and_the_request_goes_elsewhere(mesh: World) -> None:
    bad, gateway = await mesh.provider("bad"), await mesh.gateway()
    for _ in range(2):
        stream, _, _ = await gateway.dispatched()
        attempt, _ = await bad.request()
        bad.error(attempt, pl.FAILURE_CODE_INTERNAL_FAILURE)
        assert (await gateway.refused(stream)).http_status == 502
    stream, _ = gateway.open()
    refused = await gateway.refused(stream)
    assert (refused.http_status, refused.code) == (429, "no_provider")
    [gate] = refused.gates
    assert gate.reason == pl.GATE_REASON_ERROR_COOLDOWN
    assert counted(mesh, "breaker_transitions", model=SCRIPTED_BUILD, kind="error_cooldown") == 1

    good = await mesh.provider("good")
    stream, _ = gateway.open()
    assert (await gateway.offer(stream)).provider.provider_id == good.provider_id


async def test_what_was_held_against_a_machine_waits_for_its_return(mesh: World) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    for _ in range(2):
        _, _, _ = await gateway.dispatched()
        attempt, _ = await provider.request()
        provider.error(attempt, pl.FAILURE_CODE_INTERNAL_FAILURE)
        await gateway.box.take(K.FRAME_KIND_REFUSED)
    provider.call.cancel()
    await mesh.until(lambda: not mesh.router.fleet.providers)
    again = await mesh.provider()
    assert (await routing(again)).reason == pl.GATE_REASON_ERROR_COOLDOWN


async def test_a_machine_that_says_full_gets_one_request_to_find_out(mesh: World) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    provider.heartbeat(slots=[slot(max_concurrency=4)])
    await mesh.until(lambda: mesh.provider_state(provider).capacity is not None)
    stream, _, _ = await gateway.dispatched()
    attempt, _ = await provider.request()
    provider.error(attempt, pl.FAILURE_CODE_CAPACITY, pl.FAILURE_REASON_QUEUE_FULL, 503)
    assert (await gateway.refused(stream)).code == "machine_busy"

    waiting, _ = gateway.open()
    other, _ = gateway.open()
    await mesh.until(lambda: mesh.router.dispatcher.line.depth(SCRIPTED_BUILD) == 2)
    await mesh.clock.advance(1)
    provider.heartbeat(slots=[slot(max_concurrency=4)])
    offer = await gateway.offer(waiting)
    assert mesh.router.dispatcher.line.depth(SCRIPTED_BUILD) == 1
    gateway.seal(offer)
    await provider.request()
    provider.accept(offer.attempt_stream)
    await gateway.offer(other)


async def test_an_account_that_fills_its_quarter_of_the_line_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path, queue_depth=4) as mesh:
        _, gateway = await full(mesh)
        gateway.open()
        second, _ = gateway.open()
        assert (await gateway.refused(second)).code == "queue_full"
        gateway.open(account_id="acct_other")
        await mesh.until(lambda: mesh.router.dispatcher.line.depth(SCRIPTED_BUILD) == 2)


async def test_a_request_larger_than_any_budget_is_not_kept_waiting(mesh: World) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    provider.heartbeat(slots=[slot(active_token_budget_max=40)])
    await mesh.until(lambda: mesh.provider_state(provider).capacity is not None)
    stream, _ = gateway.open()
    refused = await gateway.refused(stream)
    assert (refused.http_status, refused.reason) == (429, gw.REFUSAL_REASON_PROMPT_TOO_LONG)


async def test_who_waits_for_a_machine_that_leaves_is_told_at_once(mesh: World) -> None:
    provider, gateway = await full(mesh)
    stream, _ = gateway.open()
    await mesh.until(lambda: mesh.router.dispatcher.line.depth(SCRIPTED_BUILD) == 1)
    provider.call.cancel()

    assert (await gateway.refused(stream)).code == "no_provider"
    assert mesh.router.dispatcher.line.depth(SCRIPTED_BUILD) == 0


async def test_without_a_queue_a_full_fleet_refuses_at_once(tmp_path: Path) -> None:
    async with world(tmp_path, queue_before_shed=False) as mesh:
        _, gateway = await full(mesh)
        stream, _ = gateway.open()
        assert (await gateway.refused(stream)).code == "machine_busy"


async def test_a_rejected_model_takes_no_requests(tmp_path: Path) -> None:
    async with world(tmp_path, reject_models=(SCRIPTED_BUILD,)) as mesh:
        _, gateway = await mesh.provider(), await mesh.gateway()
        stream, _ = gateway.open()
        assert (await gateway.refused(stream)).http_status == 429


async def test_one_decision_in_a_thousand_is_checked_in_full(mesh: World) -> None:
    await mesh.provider()
    made = mesh.router
    decisions = Decisions(made.fleet, HintMemory(), made.meter, lambda _: 0)
    view = View(Demand(build=SCRIPTED_BUILD), made.fleet.rules, mesh.clock.monotonic())
    for _ in range(AUDIT_EVERY):
        decisions.choose(SCRIPTED_BUILD, view)
    assert counted(mesh, "routing_audits", outcome="agreed") == 1
    [provider] = made.fleet.providers.values()
    provider.untrusted = "changed behind the fleet's back"
    for _ in range(AUDIT_EVERY):
        decisions.choose(SCRIPTED_BUILD, view)
    assert counted(mesh, "routing_audits", outcome="disagreed") == 1
