"""Frames that are not theirs, broken promises, and first words that are not the right ones."""

import asyncio
from pathlib import Path

import grpc
import pytest
from darkbloom.router.v1 import gateway_lane_pb2 as gw
from darkbloom.router.v1 import provider_link_pb2 as pl
from darkbloom.router.v1.gateway_lane_service_pb2_grpc import GatewayLaneServiceStub
from darkbloom_mesh.errors import (
    ForbiddenError,
    MeshError,
    PreconditionError,
    UnauthenticatedError,
)

from tests.component.router.harness import (
    PATIENCE_S,
    K,
    Peer,
    ScriptedGateway,
    ScriptedProvider,
    World,
    world,
)


async def ended(mesh: World, peer: Peer) -> MeshError | None:
    await mesh.until(lambda: peer.end is not None)
    assert peer.end is not None
    return peer.end.error


async def running(mesh: World) -> tuple[ScriptedProvider, ScriptedGateway, int]:
    provider, gateway = await mesh.provider("one"), await mesh.gateway()
    _, _, offer = await gateway.dispatched()
    await provider.request()
    return provider, gateway, offer.attempt_stream


async def test_a_chunk_for_somebody_elses_stream_changes_nothing(mesh: World) -> None:
    provider, gateway, stream = await running(mesh)
    thief = await mesh.provider("two")
    thief.chunk(stream, 0, 1)
    thief.lane.send_ordered(K.FRAME_KIND_ERROR, stream, pl.AttemptError(failure_code=1))
    thief.heartbeat()
    provider.chunk(stream, 0, 1)

    chunk = await gateway.box.take(K.FRAME_KIND_CHUNK)
    assert chunk.payload == b"sealed-0"
    assert gateway.box.kinds() == [K.FRAME_KIND_COMMITTED]
    assert not mesh.provider_state(thief).untrusted


async def test_a_cancel_from_another_gateway_changes_nothing(mesh: World) -> None:
    provider, gateway, stream = await running(mesh)
    thief = await mesh.gateway()
    thief.cancel(stream)
    thief.violation(stream)
    thief.close(stream)
    thief.open()
    await thief.box.take(K.FRAME_KIND_OFFER, K.FRAME_KIND_REFUSED)
    provider.chunk(stream, 0, 1)

    await gateway.box.take(K.FRAME_KIND_CHUNK)
    assert K.FRAME_KIND_CANCEL not in provider.box.kinds()


async def test_a_request_outside_the_lanes_prefix_is_ignored(mesh: World) -> None:
    await mesh.provider()
    gateway = await mesh.gateway()
    gateway.prefix += 1
    gateway.open()
    gateway.prefix -= 1
    stream, _ = gateway.open()
    await gateway.offer(stream)

    assert mesh.router.dispatcher.live == 1


async def test_a_provider_that_exceeds_its_credit_is_untrusted_and_replaced(mesh: World) -> None:
    provider, gateway, stream = await running(mesh)
    for index in range(40):
        provider.chunk(stream, index, 0, kind=K.FRAME_KIND_PREAMBLE)
    await mesh.until(lambda: bool(mesh.attestation.violations))

    [report] = mesh.attestation.violations
    assert report.kind == "credit"
    assert mesh.provider_state(provider).untrusted == "violation"
    refused = await gateway.box.take(K.FRAME_KIND_REFUSED)
    assert gw.Refused.FromString(refused.payload).http_status == 502


async def test_a_provider_that_exceeds_its_credit_after_content_breaks_the_answer(
    mesh: World,
) -> None:
    provider, gateway, stream = await running(mesh)
    for index in range(40):
        provider.chunk(stream, index, index + 1)
    failed = await gateway.box.message(K.FRAME_KIND_ATTEMPT_FAILED, gw.AttemptFailed)

    assert failed.failure == gw.ATTEMPT_FAILURE_ENCRYPTION_FAILURE
    assert gateway.box.kinds().count(K.FRAME_KIND_CHUNK) == 32
    assert mesh.provider_state(provider).untrusted == "violation"


async def test_credit_from_the_edge_lets_more_chunks_pass(mesh: World) -> None:
    provider, gateway, stream = await running(mesh)
    for index in range(32):
        provider.chunk(stream, index, index + 1)
    for _ in range(32):
        await gateway.box.take(K.FRAME_KIND_CHUNK)
    gateway.credit(stream, 48, frames=32, tokens=32)
    await provider.box.take(K.FRAME_KIND_CREDIT)
    for index in range(32, 48):
        provider.chunk(stream, index, index + 1)
    for _ in range(16):
        await gateway.box.take(K.FRAME_KIND_CHUNK)

    assert not mesh.provider_state(provider).untrusted


async def test_counts_that_go_back_are_a_lie(mesh: World) -> None:
    provider, gateway, stream = await running(mesh)
    provider.chunk(stream, 0, 5)
    provider.chunk(stream, 1, 4)
    await gateway.box.take(K.FRAME_KIND_ATTEMPT_FAILED)
    await mesh.until(lambda: bool(mesh.attestation.violations))

    assert mesh.attestation.violations[0].kind == "counts"


async def test_unknown_frames_and_malformed_payloads_are_survived(mesh: World) -> None:
    provider, gateway, stream = await running(mesh)
    for kind in (250, K.FRAME_KIND_CAPACITY_QUOTE, K.FRAME_KIND_OPEN):
        provider.lane.send_control(kind, 0, b"\xff\xff\xff")
        provider.lane.send_control(kind, stream, b"\xff\xff\xff")
        gateway.lane.send_control(kind, 0, b"\xff\xff\xff")
        gateway.lane.send_control(kind, stream, b"\xff\xff\xff")
    for kind in (K.FRAME_KIND_HEARTBEAT, K.FRAME_KIND_MODELS_UPDATE, K.FRAME_KIND_PROVIDER_DRAIN):
        provider.lane.send_control(kind, 0, b"\xff\xff\xff")
    for kind in (K.FRAME_KIND_CREDIT, K.FRAME_KIND_CLOSE, K.FRAME_KIND_VIOLATION):
        gateway.lane.send_control(kind, stream, b"\xff\xff\xff")
    provider.lane.send_ordered(K.FRAME_KIND_TERMINAL, stream, b"\xff\xff\xff")
    provider.chunk(stream, 0, 1)

    await gateway.box.take(K.FRAME_KIND_CHUNK)
    assert mesh.provider_state(provider).status == "online"


@pytest.mark.parametrize(
    "change",
    [
        {"sender_key": b"short"},
        {"body_bytes": 0},
        {"body_bytes": 1 << 40},
        {"body_sha256": b""},
        {"verdict_id": "ver_other"},
        {"prompt_bound": 1},
        {"output_bound": 51},
    ],
)
async def test_a_sealed_request_that_differs_from_its_offer_is_refused(
    mesh: World, change: dict[str, object]
) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    stream, _ = gateway.open()
    gateway.seal(await gateway.offer(stream), **change)

    assert (await gateway.refused(stream)).http_status == 500
    assert K.FRAME_KIND_REQUEST not in provider.box.kinds()
    assert mesh.provider_state(provider).inflight == 0


async def test_more_body_than_announced_is_not_relayed(mesh: World) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    stream, _ = gateway.open()
    offer = await gateway.offer(stream)
    gateway.seal(offer, b"12345678")
    await provider.box.take(K.FRAME_KIND_BODY_PART)
    gateway.lane.send_body(offer.attempt_stream, b"more")
    gateway.credit(offer.attempt_stream, 48)
    await provider.box.take(K.FRAME_KIND_CREDIT)

    assert K.FRAME_KIND_BODY_PART not in provider.box.kinds()


async def test_a_stream_registers_once(mesh: World) -> None:
    provider = await mesh.provider()
    provider.lane.send_control(K.FRAME_KIND_REGISTER, 0, provider.registration())

    assert isinstance(await ended(mesh, provider), PreconditionError)


async def test_another_first_frame_than_register_ends_the_stream(mesh: World) -> None:
    provider = await mesh.raw_provider()
    provider.heartbeat()

    error = await ended(mesh, provider)
    assert error is not None
    assert error.reason_name == "HANDSHAKE"


async def test_a_registration_that_never_comes_ends_the_stream(mesh: World) -> None:
    provider = await mesh.raw_provider()
    await mesh.until(lambda: len(mesh.router.links) == 1)
    await mesh.clock.advance(9.6)

    error = await ended(mesh, provider)
    assert error is not None
    assert error.reason_name == "HANDSHAKE"


async def test_machines_beyond_the_pace_are_told_to_come_again_and_may(tmp_path: Path) -> None:
    async with world(tmp_path, registrations_per_s=0.5) as mesh:
        await mesh.raw_provider()
        await mesh.until(lambda: len(mesh.router.links) == 1)

        error = await ended(mesh, await mesh.raw_provider())
        assert error is not None
        assert error.reason_name == "OVERLOADED"
        assert len(mesh.router.links) == 1

        await mesh.clock.advance(2.0)
        await mesh.raw_provider()
        await mesh.until(lambda: len(mesh.router.links) == 2)


async def test_another_major_version_is_told_what_is_spoken(mesh: World) -> None:
    provider = await mesh.raw_provider()
    message = provider.registration()
    message.protocol.major = 2
    provider.lane.send_control(K.FRAME_KIND_REGISTER, 0, message)

    error = await ended(mesh, provider)
    assert error is not None
    assert error.reason_name == "PROTOCOL_UNSUPPORTED"
    assert error.metadata["darkbloom-supported"] == "1.0"


async def test_a_gateway_lane_needs_the_mesh_token(mesh: World) -> None:
    target = mesh.service.listeners["internal"]
    async with grpc.aio.insecure_channel(target) as open_channel:
        stranger = Peer(GatewayLaneServiceStub(open_channel), None)
        end = await asyncio.wait_for(stranger.run(), PATIENCE_S)

    assert isinstance(end.error, UnauthenticatedError)


async def test_the_public_listener_serves_no_gateway_lane(mesh: World) -> None:
    target = mesh.service.listeners["public"]
    async with grpc.aio.insecure_channel(target) as open_channel:
        call = GatewayLaneServiceStub(open_channel).Connect()
        stranger = Peer(GatewayLaneServiceStub(open_channel), None)
        end = await asyncio.wait_for(stranger.run(), PATIENCE_S)
        call.cancel()

    assert not end.clean
    assert not isinstance(end.error, ForbiddenError)
    assert not mesh.router.lanes._links


async def test_another_first_frame_than_hello_ends_a_gateway_lane(mesh: World) -> None:
    gateway = await mesh.gateway()
    stranger = ScriptedGateway(
        GatewayLaneServiceStub(await mesh._channel(mesh.service.listeners["internal"], None)),
        mesh.clock,
    )
    mesh._run(stranger)
    stranger.open()

    error = await ended(mesh, stranger)
    assert error is not None
    assert error.reason_name == "HANDSHAKE"
    assert gateway.end is None


async def test_a_request_id_in_use_is_refused(mesh: World) -> None:
    _, gateway = await mesh.provider(), await mesh.gateway()
    _, request_id, _ = await gateway.dispatched()
    stream, _ = gateway.open(request_id=request_id)

    assert (await gateway.refused(stream)).http_status == 500


@pytest.mark.parametrize(
    "change", [{"output_bound": 0}, {"output_bound": -1}, {"prompt_bound": 1 << 30}, {"build": ""}]
)
async def test_an_open_with_impossible_bounds_is_refused(
    mesh: World, change: dict[str, object]
) -> None:
    _, gateway = await mesh.provider(), await mesh.gateway()
    stream, _ = gateway.open(**change)

    assert (await gateway.refused(stream)).http_status == 500
