"""A machine leaves its account: nothing new is paid, what was under way still is."""

import grpc
import pytest
from darkbloom.billing.v1 import identity_service_pb2 as pb
from darkbloom.billing.v1 import ledger_pb2
from darkbloom.billing.v1.identity_service_pb2_grpc import IdentityServiceStub
from darkbloom_mesh.testing import FakeClock

from tests.component.billing.world import CONSUMER, PROVIDER, START, World, owner, world

CHARGE = 800
OTHER = "acct_other"
LATER_S = 3600.0
SETTLED = ledger_pb2.SETTLEMENT_STATUS_SETTLED


async def unlink(w: World, account_id: str = PROVIDER) -> None:
    request = pb.UnlinkMachineRequest(account_id=account_id, identity_key=w.machine.public)
    await IdentityServiceStub(w.channel).UnlinkMachine(request, timeout=30)


async def linked_to(w: World) -> str:
    async with owner(w.url) as db:
        found = await db.fetchval(
            "SELECT account_id FROM billing.provider_link WHERE identity_key = $1",
            w.machine.public,
        )
    return found or ""


async def test_an_unlinked_machine_earns_for_nobody_until_it_is_linked_again(url: str) -> None:
    clock = FakeClock(START)
    async with world(url, clock=clock) as w:
        await w.people()
        await w.account(OTHER)
        await unlink(w)
        assert await linked_to(w) == ""
        await clock.advance(LATER_S)
        (held,) = await w.hold(w.order())
        (refused,) = await w.settle(w.settlement(held.request_id))
        assert refused.rejection == "unlinked"

        await w.link(w.machine, OTHER)
        assert await linked_to(w) == OTHER
        (settled,) = await w.settle(w.settlement(held.request_id))
        assert settled.status == SETTLED
        assert (await w.maturing(PROVIDER), await w.maturing(OTHER)) == (0, CHARGE)
        await w.sound()


async def test_what_was_asked_before_is_paid_to_the_account_of_then(url: str) -> None:
    clock = FakeClock(START)
    async with world(url, clock=clock) as w:
        await w.people()
        await w.account(OTHER)
        before, after = [(await w.hold(w.order()))[0].request_id], []
        await clock.advance(1)
        await unlink(w)
        await clock.advance(60)
        # The router may not know of it yet.
        before.append((await w.hold(w.order()))[0].request_id)
        await clock.advance(1)
        await w.link(w.machine, OTHER)
        await clock.advance(1)
        after.append((await w.hold(w.order()))[0].request_id)
        settled = await w.settle(*(w.settlement(name) for name in before + after))
        assert {one.status for one in settled} == {SETTLED}
        assert await w.maturing(PROVIDER) == 2 * CHARGE
        assert await w.maturing(OTHER) == CHARGE
        await w.sound()


async def test_nobody_unlinks_the_machine_of_somebody_else(url: str) -> None:
    async with world(url) as w:
        await w.people()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unlink(w, CONSUMER)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert await linked_to(w) == PROVIDER
        await unlink(w)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unlink(w)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_moving_a_machine_does_not_make_two_accounts_strangers(url: str) -> None:
    clock = FakeClock(START)
    async with world(url, clock=clock) as w:
        await w.people()
        # The consumer lends the machine to a second account of its own, to earn its own grant.
        await unlink(w)
        await w.link(w.machine, CONSUMER)
        await clock.advance(1)
        await unlink(w, CONSUMER)
        await w.link(w.machine, PROVIDER)
        await clock.advance(LATER_S)
        (held,) = await w.hold(w.order())
        (settled,) = await w.settle(w.settlement(held.request_id))
        assert (settled.charge_micros, settled.provider_credit_micros) == (0, 0)
        assert await w.maturing(PROVIDER) == 0
        await w.sound()


async def test_the_machines_of_an_account_that_closes_leave_it(url: str) -> None:
    async with world(url) as w:
        await w.people()
        request = pb.CloseAccountRequest(account_id=PROVIDER)
        await IdentityServiceStub(w.channel).CloseAccount(request, timeout=30)
        assert await linked_to(w) == ""
