"""Requests for the caller's own machines: who serves them, and that no money is in them."""

from typing import Any

import pytest
from darkbloom.router.v1 import gateway_lane_pb2 as gw
from darkbloom.router.v1 import provider_link_pb2 as pl

from tests.component.router.harness import K, World
from tests.component.router.test_lines import full
from tests.fakes.registry import SCRIPTED_BUILD

OWN: dict[str, Any] = {
    "account_id": "acct_provider",
    "owner_policy": gw.OWNER_POLICY_EXCLUSIVE,
}


async def test_an_own_machine_serves_without_a_hold(mesh: World) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    _, request_id, _ = await gateway.dispatched(**OWN)
    attempt, request = await provider.request()
    assert request_id not in mesh.router.holds()
    provider.accept(attempt)
    provider.chunk(attempt, 0, 1, kind=K.FRAME_KIND_CHUNK_FINAL)
    provider.terminal(attempt, request.attempt_id)
    await gateway.box.take(K.FRAME_KIND_TERMINAL)
    gateway.close(attempt, frames=1, tokens=1)

    ack = await provider.box.message(K.FRAME_KIND_TERMINAL_ACK, pl.TerminalAck)
    assert ack.disposition == pl.DISPOSITION_RELEASED
    await mesh.clock.advance(60)
    assert not mesh.ledger.settlements
    assert not mesh.ledger.releases
    assert mesh.provider_state(provider).inflight == 0


async def test_a_broken_answer_of_an_own_machine_moves_no_money_either(mesh: World) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    await gateway.dispatched(**OWN)
    attempt, _ = await provider.request()
    provider.accept(attempt)
    provider.chunk(attempt, 0, 1)
    await gateway.box.take(K.FRAME_KIND_CHUNK)
    gateway.cancel(attempt, frames=1, tokens=1)
    await provider.box.take(K.FRAME_KIND_CANCEL)
    await mesh.clock.advance(60)

    assert not mesh.ledger.settlements
    assert not mesh.ledger.releases
    assert mesh.provider_state(provider).inflight == 0


@pytest.mark.parametrize(
    ("changes", "status", "kind", "code", "retry_s"),
    [
        ({"account_id": "acct_stranger"}, 503, "machine_offline", "machine_offline", 30),
        ({"machine": "prov_other"}, 404, "machine_not_found", "machine_not_found", None),
        (
            {"account_id": "acct_stranger", "machine": "prov_one"},
            404,
            "machine_not_found",
            "machine_not_found",
            None,
        ),
        (
            {"traits": gw.Traits(requires_vision=True)},
            503,
            "model_unavailable",
            "model_capability_unsupported",
            None,
        ),
    ],
)
async def test_self_route_fails_at_once_and_says_why(
    mesh: World, changes: dict[str, Any], status: int, kind: str, code: str, retry_s: int | None
) -> None:
    await mesh.provider()
    gateway = await mesh.gateway()

    stream, _ = gateway.open(**{**OWN, **changes})
    refused = await gateway.refused(stream)

    assert (refused.http_status, refused.type, refused.code) == (status, kind, code)
    given = refused.retry_after.seconds if refused.HasField("retry_after") else None
    assert given == retry_s


async def test_a_full_own_machine_is_busy_and_nobody_waits(mesh: World) -> None:
    _, gateway = await full(mesh)
    public, _ = gateway.open()
    await mesh.until(lambda: mesh.router.dispatcher.line.depth(SCRIPTED_BUILD) == 1)

    stream, _ = gateway.open(**OWN)
    refused = await gateway.refused(stream)

    assert (refused.http_status, refused.type) == (429, "machine_busy")
    assert refused.HasField("retry_after")
    assert not [frame for frame in gateway.box.frames if frame.stream == public]


async def test_the_named_machine_serves_and_no_other(mesh: World) -> None:
    providers = [await mesh.provider(name) for name in ("one", "two", "three")]
    gateway = await mesh.gateway()
    for provider in providers:
        stream, _ = gateway.open(**OWN, machine=provider.provider_id)
        offer = await gateway.offer(stream)
        assert offer.provider.provider_id == provider.provider_id


async def test_prefer_takes_an_own_machine_and_settles_like_everybody(mesh: World) -> None:
    mesh.accounts.everybody_linked_to = "acct_stranger"
    await mesh.provider("other")
    mesh.accounts.everybody_linked_to = "acct_provider"
    own, gateway = await mesh.provider("own"), await mesh.gateway()

    prefer = {"account_id": "acct_provider", "owner_policy": gw.OWNER_POLICY_PREFER}
    _, request_id, offer = await gateway.dispatched(**prefer)
    assert offer.provider.provider_id == own.provider_id
    stream, _ = await own.serve()
    await gateway.whole(stream)
    gateway.close(stream)

    assert await mesh.ledger.ending(request_id) == "settled"
