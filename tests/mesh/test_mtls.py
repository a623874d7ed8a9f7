"""Rooms that know each other by certificate alone: answers, refusals, renewal under a stream."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from darkbloom.billing.v1 import ledger_service_pb2
from darkbloom.billing.v1.ledger_service_pb2_grpc import LedgerServiceStub
from darkbloom_local.authority import TRUST_DOMAIN
from darkbloom_local.mesh import Mesh
from darkbloom_local.wiring import rooms
from darkbloom_mesh.channel import channel
from darkbloom_mesh.errors import ForbiddenError, from_rpc_error
from darkbloom_mesh.tls import TlsFiles, TlsPaths

from tests.mesh.harness import QUICK, Books, Consumer, Fleet, gateway_ready, until

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session")]
ROUTERS = 2


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def certified(state: Path) -> AsyncIterator[Mesh]:
    """A mesh of two routers that has no token."""
    async with Mesh(state, environment=QUICK, routers=ROUTERS, mtls=True, durable=False) as found:
        await Fleet(found).wait_routable()
        yield found


def certificate(mesh: Mesh, room: str) -> TlsFiles:
    directory = mesh.wiring.tls
    assert directory is not None
    return TlsFiles(
        TlsPaths(
            certificate=directory / f"{room}.pem",
            key=directory / f"{room}.key",
            authorities=directory / "ca.pem",
            trust_domain=TRUST_DOMAIN,
        )
    )


async def test_a_request_is_answered_and_paid(certified: Mesh) -> None:
    consumer = Consumer(certified)
    answer = await consumer.ask(tokens=5)
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == 5
    await Books(certified).clean()


async def test_a_router_cannot_hold_money_and_a_gateway_cannot_settle(certified: Mesh) -> None:
    address = certified.wiring.address("billing.grpc")
    tls = certificate(certified, "router")
    async with channel(address, mesh_token=None, room="x", tls=tls, peer="billing") as opened:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await LedgerServiceStub(opened).Hold(ledger_service_pb2.HoldRequest(), timeout=20)
    assert isinstance(from_rpc_error(refused.value), ForbiddenError)

    tls = certificate(certified, "gateway")
    async with channel(address, mesh_token=None, room="x", tls=tls, peer="billing") as opened:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await LedgerServiceStub(opened).SettleHolds(
                ledger_service_pb2.SettleHoldsRequest(), timeout=20
            )
    assert isinstance(from_rpc_error(refused.value), ForbiddenError)


async def test_no_internal_listener_speaks_plaintext_even_to_the_token(certified: Mesh) -> None:
    listeners = [
        f"{room.name}.{listener}"
        for room in rooms(ROUTERS)
        for listener in room.listeners
        if listener in {"grpc", "internal"}
    ]
    assert len(listeners) == 3 + ROUTERS
    for listener in listeners:
        address = certified.wiring.address(listener)
        async with channel(address, mesh_token=certified.mesh_token, room="x") as opened:
            call = opened.unary_unary("/grpc.health.v1.Health/Check")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(b"", timeout=20)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE, listener


async def test_renewal_under_a_stream_drops_nothing_and_reaches_every_new_connection(
    certified: Mesh,
) -> None:
    consumer, books = Consumer(certified), Books(certified)
    before = certificate(certified, "gateway").current()

    async with consumer.streaming(tokens=60, interval_s=0.02) as reading:
        await reading.words(5)
        certified.renew_certificates()
        assert certificate(certified, "gateway").current().certificate != before.certificate
        asked = await asyncio.gather(*(consumer.ask(tokens=3) for _ in range(4)))
        stream = await reading.rest()

    assert [answer.status_code for answer in asked] == [200] * 4
    assert (stream.error, stream.done, stream.words) == (None, 1, 60)

    # A billing that comes back meets everybody with the new certificates only.
    certified.kill("billing")
    await certified.restart("billing")
    await gateway_ready(certified)
    await Fleet(certified).wait_routable()

    async def answered() -> bool:
        return (await consumer.ask(tokens=3)).status_code == 200

    await until(answered, "a request is answered again")
    await books.clean()
