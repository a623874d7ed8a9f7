"""An owner with an empty purse asks his own machine; and what happens when it is not there."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from darkbloom.billing.v1 import account_service_pb2 as rpc
from darkbloom.common.v1.page_pb2 import PageRequest
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import SCRIPTED

from tests.mesh.harness import CALL_S, QUICK, Books, Consumer, Fleet, script, until

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session")]

OWNER = "acct_owner"
OWN = "provider-own"
SELF = {"x-darkbloom-route": "self"}
PREFER = {"x-darkbloom-route": "prefer"}


class Owner(Consumer):
    """Somebody with a machine and, at first, without money."""

    async def route(self, headers: Mapping[str, str], **fields: object) -> httpx.Response:
        """Ask the scripted engine on these machines."""
        body = {"model": SCRIPTED, "messages": script(**fields)}
        return await self.post(body, headers=headers)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mesh(state: Path) -> AsyncIterator[Mesh]:
    """A mesh with a provider for everybody and one of the owner's."""
    async with Mesh(state, environment=QUICK, durable=False) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def owner(mesh: Mesh) -> Owner:
    """The owner, without a machine yet."""
    secret, _ = await Books(mesh).new_account(OWNER)
    return Owner(mesh, secret)


async def money(mesh: Mesh) -> rpc.GetBalanceResponse:
    """Return the owner's books."""
    return await Books(mesh).accounts.GetBalance(
        rpc.GetBalanceRequest(account_id=OWNER), timeout=CALL_S
    )


def refusal(response: httpx.Response) -> tuple[int, str, str | None]:
    """Return status, type and Retry-After."""
    body = response.json()["error"]
    return response.status_code, body["type"], response.headers.get("retry-after")


async def own_id(mesh: Mesh) -> str:
    """Return the connection of the owner's machine."""
    rows = (await Fleet(mesh).providers()).values()
    links = await Books(mesh).accounts.ListProviderLinks(
        rpc.ListProviderLinksRequest(account_id=OWNER), timeout=CALL_S
    )
    keys = {link.identity_key for link in links.links}
    (found,) = [row.provider_id for row in rows if row.identity_key in keys]
    return found


async def test_without_a_machine_there_is_nothing_to_route_to(owner: Owner) -> None:
    assert refusal(await owner.route(SELF)) == (409, "no_linked_machine", None)


async def test_an_empty_purse_is_served_by_the_own_machine_and_nothing_moves(
    mesh: Mesh, owner: Owner
) -> None:
    await mesh.start_provider(OWN, account_id=OWNER)
    machine = await own_id(mesh)
    assert await owner.balance() == 0

    async def routed() -> bool:
        return (await owner.route(SELF, tokens=1)).status_code == 200

    # A gateway remembers for two seconds that there was no machine.
    await until(routed, "the new machine is known")
    for tokens in range(1, 6):
        answer = await owner.route(SELF, tokens=tokens)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-provider-id"] == machine
        assert answer.headers["x-hold-micro-usd"] == "0"
        assert answer.json()["usage"]["completion_tokens"] == tokens
    async with owner.streaming(SELF, tokens=30) as reading:
        stream = await reading.rest()
    assert (stream.provider_id, stream.done, stream.words) == (machine, 1, 30)

    # What cost nothing can be proven as well.
    job = answer.headers["x-inference-job-id"]

    async def kept() -> bool:
        return (await owner.get(f"/v1/receipts/{job}")).status_code == 200

    await until(kept, "the receipt is kept")

    books = await money(mesh)
    assert (books.balance_micros, books.held_micros, books.maturing_micros) == (0, 0, 0)
    earned = await Books(mesh).accounts.ListEarnings(
        rpc.ListEarningsRequest(account_id=OWNER, page=PageRequest(page_size=10)), timeout=CALL_S
    )
    assert not earned.earnings
    assert (await owner.get("/v1/payments/usage")).json()["usage"] == []


async def test_one_machine_can_be_named_and_only_ones_own(mesh: Mesh, owner: Owner) -> None:
    machine = await own_id(mesh)
    others = set(await Fleet(mesh).providers()) - {machine}

    named = await owner.route({**SELF, "x-darkbloom-machine": machine}, tokens=1)
    assert named.headers["x-provider-id"] == machine
    for name in (*others, "prov_" + "0" * 32):
        answer = await owner.route({**SELF, "x-darkbloom-machine": name})
        assert refusal(answer) == (404, "machine_not_found", None)


async def test_prefer_needs_money_up_front_and_costs_nothing_at_home(
    mesh: Mesh, owner: Owner
) -> None:
    poor = await owner.route(PREFER)
    assert refusal(poor) == (402, "insufficient_funds", None)
    body = poor.json()["error"]
    assert body["required_micro_usd"] > body["available_micro_usd"] == 0
    assert (body["balance_micro_usd"], body["max_affordable_tokens"]) == (0, 0)

    await Books(mesh).accounts.Grant(
        rpc.GrantRequest(
            request_id="grant_owner", account_id=OWNER, amount_micros=1_000_000, note="test"
        ),
        timeout=CALL_S,
    )
    answer = await owner.route(PREFER, tokens=20)
    assert answer.headers["x-provider-id"] == await own_id(mesh)
    assert int(answer.headers["x-hold-micro-usd"]) > 0

    async def settled() -> bool:
        return (await money(mesh)).held_micros == 0

    await until(settled, "the hold has ended")
    books = await money(mesh)
    assert (books.balance_micros, books.maturing_micros) == (1_000_000, 0)


async def test_prefer_falls_back_and_pays_and_self_does_not(mesh: Mesh, owner: Owner) -> None:
    machine = await own_id(mesh)
    await mesh.stop(OWN)

    async def gone() -> bool:
        return machine not in await Fleet(mesh).providers()

    await until(gone, "the own machine has left")
    assert refusal(await owner.route(SELF)) == (503, "machine_offline", "30")

    answer = await owner.route(PREFER, tokens=20)
    assert answer.status_code == 200
    assert answer.headers["x-provider-id"] != machine
    row = await owner.usage(answer.headers["x-inference-job-id"])
    assert row["cost_micro_usd"] == 100
    assert await owner.balance() == 1_000_000 - 100
    assert (await mesh.audit())["violations"] == []
