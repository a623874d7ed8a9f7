"""Waiting, refusing, draining, and what the fleet says about itself."""

from pathlib import Path

from darkbloom.registry.v1 import catalog_pb2
from darkbloom.router.v1 import fleet_service_pb2 as fleet
from darkbloom.router.v1 import gateway_lane_pb2 as gw
from darkbloom.router.v1 import provider_link_pb2 as pl
from darkbloom_mesh.confirming import LOOK_S
from darkbloom_router.downloads import SETTLE_S
from darkbloom_router.model_reports import PERIOD_S

from tests.component.router.harness import (
    K,
    ScriptedGateway,
    ScriptedProvider,
    World,
    seconds,
    world,
)
from tests.fakes.registry import SCRIPTED_BUILD, SCRIPTED_HASH, FakeRegistry, build


def slot(**changes: object) -> pl.Slot:
    message = pl.Slot(
        model=SCRIPTED_BUILD,
        state=pl.SLOT_STATE_IDLE,
        max_concurrency=1,
        active_token_budget_max=10_000,
    )
    for name, value in changes.items():
        setattr(message, name, value)
    return message


async def full(mesh: World) -> tuple[ScriptedProvider, ScriptedGateway]:
    """Connect one provider with one place, and take that place."""
    provider, gateway = await mesh.provider(), await mesh.gateway()
    provider.heartbeat(slots=[slot()])
    await mesh.until(lambda: mesh.provider_state(provider).capacity is not None)
    _, _, offer = await gateway.dispatched()
    provider.accept(offer.attempt_stream)
    await mesh.accepted(offer.attempt_stream)
    return provider, gateway


async def test_a_busy_fleet_lets_wait_and_serves_in_order(mesh: World) -> None:
    provider, gateway = await full(mesh)
    first, _ = gateway.open()
    second, _ = gateway.open()
    stream, _ = await provider.serve()

    offer = await gateway.offer(first)
    assert mesh.router.dispatcher.line.depth(SCRIPTED_BUILD) == 1
    gateway.close(stream)
    gateway.cancel(offer.attempt_stream)
    await gateway.offer(second)


async def test_who_waits_too_long_is_told_that_the_machines_are_busy(mesh: World) -> None:
    _, gateway = await full(mesh)
    stream, _ = gateway.open()
    await mesh.until(lambda: mesh.router.dispatcher.line.depth(SCRIPTED_BUILD) == 1)
    await mesh.clock.advance(3.5)

    refused = await gateway.refused(stream)
    assert (refused.http_status, refused.type, refused.code) == (
        429,
        "rate_limit_exceeded",
        "machine_busy",
    )
    assert 2 <= refused.retry_after.seconds <= 30


async def test_a_full_line_takes_nobody(tmp_path: Path) -> None:
    async with world(tmp_path, queue_depth=1) as mesh:
        _, gateway = await full(mesh)
        gateway.open()
        stream, _ = gateway.open()

        refused = await gateway.refused(stream)
        assert (refused.http_status, refused.code) == (429, "queue_full")


async def test_a_waiting_request_can_be_given_up(mesh: World) -> None:
    provider, gateway = await full(mesh)
    stream, _ = gateway.open()
    abandon = gw.Abandon(reason=gw.ABANDON_REASON_CLIENT_GONE)
    gateway.lane.send_control(K.FRAME_KIND_ABANDON, stream, abandon)
    await mesh.until(lambda: mesh.router.dispatcher.line.depth(SCRIPTED_BUILD) == 0)
    attempt, _ = await provider.serve()
    await gateway.whole(attempt)

    assert K.FRAME_KIND_OFFER not in gateway.box.kinds()


async def test_a_reserved_place_that_nobody_seals_for_comes_free(mesh: World) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    stream, _ = gateway.open(reserve_for=seconds(1))
    await gateway.offer(stream)
    assert mesh.provider_state(provider).inflight == 1
    await mesh.clock.advance(1.5)

    # Nobody is told: whoever asked has shown the offer to its consumer, and forgotten it.
    await mesh.until(lambda: mesh.provider_state(provider).inflight == 0)
    assert K.FRAME_KIND_REFUSED not in gateway.box.kinds()


async def test_a_build_that_the_catalog_does_not_have_is_unavailable(mesh: World) -> None:
    _, gateway = await mesh.provider(), await mesh.gateway()
    stream, _ = gateway.open(build="nobody/knows")

    refused = await gateway.refused(stream)
    assert (refused.http_status, refused.type) == (503, "model_unavailable")
    assert not refused.HasField("retry_after")


async def test_an_empty_fleet_is_429_and_not_503(mesh: World) -> None:
    gateway = await mesh.gateway()
    stream, _ = gateway.open()

    refused = await gateway.refused(stream)
    assert (refused.http_status, refused.code) == (429, "no_provider")
    assert refused.retry_after.seconds >= 2


async def test_a_prompt_beyond_the_context_is_too_large(mesh: World) -> None:
    _, gateway = await mesh.provider(), await mesh.gateway()
    stream, _ = gateway.open(prompt_tokens_estimate=9000)

    refused = await gateway.refused(stream)
    assert (refused.http_status, refused.code) == (429, "context_exceeded")


async def test_the_fallback_build_serves_when_the_first_cannot(mesh: World) -> None:
    await mesh.registry.publish(build(), build("dev/next", "cd" * 32))
    await mesh.until(lambda: "dev/next" in mesh.router.fleet.catalog.builds)
    _, gateway = await mesh.provider(), await mesh.gateway()
    stream, _ = gateway.open(build="dev/next", fallback_build=SCRIPTED_BUILD)

    assert (await gateway.offer(stream)).build == SCRIPTED_BUILD


async def test_an_old_capacity_sequence_never_replaces_a_newer_one(mesh: World) -> None:
    provider = await mesh.provider()
    provider.heartbeat(slots=[slot(num_running=1)])
    await mesh.until(lambda: mesh.provider_state(provider).capacity is not None)
    provider.capacity_seq = 0
    provider.heartbeat(slots=[slot(num_running=0)])
    provider.heartbeat(warm_models=["marker"])
    await mesh.until(lambda: "marker" in mesh.provider_state(provider).beat.warm)

    assert mesh.provider_state(provider).capacity.slots[SCRIPTED_BUILD].running == 1


async def test_a_silent_provider_is_evicted_after_two_sweeps(mesh: World) -> None:
    provider = await mesh.provider()
    mesh.provider_state(provider).beat_at = -100.0
    mesh.router.links.sweep()
    assert provider.end is None
    mesh.router.links.sweep()

    await mesh.until(lambda: provider.end is not None)
    assert not mesh.router.fleet.providers


async def test_models_that_are_not_the_catalogs_are_rejected_with_a_reason(mesh: World) -> None:
    provider = await mesh.raw_provider()
    message = provider.registration()
    message.models.add(id="nobody/knows", weight_hash="00")
    message.models[0].weight_hash = "ff" * 32
    provider.lane.send_control(K.FRAME_KIND_REGISTER, 0, message)

    registered = await provider.box.message(K.FRAME_KIND_REGISTERED, pl.Registered)
    assert not registered.accepted_models
    assert {item.id: item.detail for item in registered.rejected_models} == {
        SCRIPTED_BUILD: "weight hash differs from the catalog: download the build again",
        "nobody/knows": "not in the catalog",
    }


async def test_a_catalog_change_reaches_fleet_and_providers(mesh: World) -> None:
    provider = await mesh.provider()
    await provider.box.take(K.FRAME_KIND_DESIRED_MODELS)
    alias = catalog_pb2.Alias(
        alias_id="small", desired_build="dev/next", previous_build=SCRIPTED_BUILD, active=True
    )
    await mesh.registry.publish(build(), build("dev/next", "cd" * 32), aliases=(alias,))

    desired = await provider.box.message(K.FRAME_KIND_DESIRED_MODELS, pl.DesiredModels)
    assert [item.desired_build for item in desired.models] == ["dev/next"]
    models = [
        pl.ProviderModel(id=SCRIPTED_BUILD, weight_hash=SCRIPTED_HASH),
        pl.ProviderModel(id="dev/next", weight_hash="cd" * 32),
    ]
    provider.lane.send_control(K.FRAME_KIND_MODELS_UPDATE, 0, pl.ModelsUpdate(models=models))
    await mesh.until(lambda: "dev/next" in mesh.provider_state(provider).candidates)


async def test_a_machine_is_asked_to_fetch_once_the_registry_gives_leave(mesh: World) -> None:
    provider = await mesh.provider()
    await provider.box.message(K.FRAME_KIND_DESIRED_MODELS, pl.DesiredModels)
    await mesh.clock.advance(SETTLE_S + 0.1)
    alias = catalog_pb2.Alias(
        alias_id="name", desired_build="dev/next", previous_build=SCRIPTED_BUILD, active=True
    )
    mesh.registry.downloads_granted = 0
    await mesh.registry.publish(build(), build("dev/next", "cd" * 32), aliases=(alias,))
    waiting = await provider.box.message(K.FRAME_KIND_DESIRED_MODELS, pl.DesiredModels)
    assert [item.desired_build for item in waiting.models] == [SCRIPTED_BUILD]

    mesh.registry.downloads_granted = 1
    await mesh.clock.advance(PERIOD_S + 0.1)
    asked = await provider.box.message(K.FRAME_KIND_DESIRED_MODELS, pl.DesiredModels)
    assert [item.desired_build for item in asked.models] == ["dev/next"]


async def test_a_machine_that_fetches_when_it_connects_is_asked_to_go_on(mesh: World) -> None:
    alias = catalog_pb2.Alias(
        alias_id="name", desired_build="dev/next", previous_build=SCRIPTED_BUILD, active=True
    )
    mesh.registry.downloads_granted = 0
    await mesh.registry.publish(build(), build("dev/next", "cd" * 32), aliases=(alias,))
    await mesh.until(lambda: mesh.router.fleet.catalog.downloads_granted)
    provider = await mesh.provider()
    fetches = pl.PrefetchModelStatus(
        model_id="dev/next", status=pl.OPERATION_STATUS_DOWNLOADING, bytes_done=1, bytes_total=2
    )
    provider.lane.send_control(K.FRAME_KIND_PREFETCH_MODEL_STATUS, 0, fetches)
    # The first list that it gets: one without the build would have ended the download.
    asked = await provider.box.message(K.FRAME_KIND_DESIRED_MODELS, pl.DesiredModels)
    assert [item.desired_build for item in asked.models] == ["dev/next"]


async def test_a_router_says_by_which_catalog_it_goes_and_that_it_ends(tmp_path: Path) -> None:
    registry = FakeRegistry()
    async with world(tmp_path, registry=registry) as mesh:
        await mesh.clock.advance(LOOK_S + 0.1)
        await mesh.until(lambda: registry.confirmed.generation == 1)
        confirmed = registry.confirmed
        assert not confirmed.leaving
    last = registry.confirmed
    assert (last.leaving, last.session, last.room) == (True, confirmed.session, "router")


async def test_a_registry_that_is_away_at_the_start_stops_nobody(tmp_path: Path) -> None:
    async with world(tmp_path) as mesh:
        await mesh.until((tmp_path / "catalog.pb").exists)
    away = FakeRegistry()
    away.away = True
    async with world(tmp_path, registry=away) as mesh:
        _, gateway = await mesh.provider(), await mesh.gateway()
        stream, _ = gateway.open()
        await gateway.offer(stream)


async def test_a_damaged_catalog_file_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "catalog.pb").write_bytes(b"\xff\xff")
    async with world(tmp_path) as mesh:
        assert mesh.router.fleet.catalog.generation == 1


async def test_a_provider_that_drains_is_acknowledged_once_its_money_is_settled(
    mesh: World,
) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    _, _, _ = await gateway.dispatched()
    stream, _ = await provider.serve()
    await gateway.whole(stream)
    provider.lane.send_control(K.FRAME_KIND_PROVIDER_DRAIN, 0, pl.ProviderDrain(drain_id="drain-1"))
    await mesh.until(lambda: mesh.provider_state(provider).drain_fence)
    refused_stream, _ = gateway.open()
    assert (await gateway.refused(refused_stream)).http_status == 429
    assert K.FRAME_KIND_PROVIDER_DRAIN_ACK not in provider.box.kinds()

    gateway.close(stream)
    await provider.box.take(K.FRAME_KIND_TERMINAL_ACK)
    await mesh.clock.advance(0.5)
    ack = await provider.box.message(K.FRAME_KIND_PROVIDER_DRAIN_ACK, pl.ProviderDrainAck)
    assert ack.drain_id == "drain-1"


async def test_a_draining_router_refuses_new_requests_and_finishes_running_ones(
    mesh: World,
) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    _, request_id, _ = await gateway.dispatched()
    mesh.service.stop()
    assert (await gateway.box.message(K.FRAME_KIND_GO_AWAY, pl.GoAway)).reason == "drain"
    await provider.box.take(K.FRAME_KIND_GO_AWAY)
    stream, _ = gateway.open()
    refused = await gateway.refused(stream)
    assert (refused.http_status, refused.reason) == (429, gw.REFUSAL_REASON_DRAINING)
    assert refused.retry_after.seconds == 3

    attempt, _ = await provider.serve()
    await gateway.whole(attempt)
    gateway.close(attempt)
    assert await mesh.ledger.ending(request_id) == "settled"
    while not mesh.served.done():
        await mesh.clock.advance(0.1)
    assert mesh.served.result() == 0
    await provider.box.take(K.FRAME_KIND_TERMINAL_ACK)


async def test_a_draining_router_hands_in_open_money_before_it_goes(mesh: World) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    _, request_id, _ = await gateway.dispatched()
    attempt, _ = await provider.request()
    provider.chunk(attempt, 0, 1)
    await gateway.box.take(K.FRAME_KIND_CHUNK)
    gateway.cancel(attempt, frames=1, tokens=1)
    await provider.box.take(K.FRAME_KIND_CANCEL)
    mesh.service.stop()
    while not mesh.served.done():
        await mesh.clock.advance(0.1)

    assert mesh.ledger.ended == {request_id: "settled"}


async def test_the_fleet_lists_explains_and_counts(mesh: World) -> None:
    provider = await mesh.provider()
    provider.heartbeat(slots=[slot()])
    await mesh.until(lambda: mesh.provider_state(provider).capacity is not None)
    stub = mesh.fleet
    listed = await stub.ListProviders(fleet.ListProvidersRequest(), timeout=2)
    explained = await stub.ExplainProvider(
        fleet.ExplainProviderRequest(provider=provider.provider_id), timeout=2
    )
    capacity = await stub.ListBuildCapacity(fleet.ListBuildCapacityRequest(), timeout=2)

    [row] = listed.providers
    assert (row.provider_id, row.admission, row.linked) == (
        provider.provider_id,
        "development",
        True,
    )
    assert row.verdict.document
    assert row.encryption_key == b"K" * 32
    assert explained.explanations[0].eligible
    assert capacity.builds[0].routable_providers == 1
    assert capacity.builds[0].can_accept


async def test_a_gate_explains_itself_with_evidence_and_remedy(mesh: World) -> None:
    provider = await mesh.provider(private_only=True)
    explained = await mesh.fleet.ExplainProvider(
        fleet.ExplainProviderRequest(provider=provider.provider_id), timeout=2
    )
    [found] = explained.explanations
    assert found.reason == pl.GATE_REASON_PRIVATE_ONLY
    assert found.evidence == "set to serve its owner only"
    assert found.remedy
