"""No evidence, no traffic: who answers a challenge wrongly, late or never leaves routing."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from darkbloom.router.v1.provider_link_pb2 import GateReason
from darkbloom_local.mesh import Mesh

from tests.mesh.harness import QUICK, Books, Consumer, Fleet, until
from tests.mesh.hostile.mischief import PROVIDER_PROGRAM, Mischief

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session")]

OFTEN = {
    "DARKBLOOM_ROUTER_CHALLENGE_INTERVAL_S": "1",
    "DARKBLOOM_ROUTER_CHALLENGE_ANSWER_S": "1",
    "DARKBLOOM_ROUTER_CHALLENGE_MAX_AGE_S": "5",
}


@pytest.fixture(scope="module")
def mischief(state: Path) -> Mischief:
    """How the provider answers challenges."""
    return Mischief(state / "mischief")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def watched(state: Path, mischief: Mischief) -> AsyncIterator[Mesh]:
    """A mesh that challenges its provider every second."""
    environment = {
        **QUICK,
        "router": {**QUICK["router"], **OFTEN},
        "provider": mischief.environment,
    }
    async with Mesh(
        state / "mesh",
        environment=environment,
        programs={"provider": PROVIDER_PROGRAM},
        durable=False,
    ) as found:
        await Fleet(found).wait_routable()
        yield found


async def gate_of(mesh: Mesh, provider_id: str) -> str:
    """Return the gate that is shut for the provider; empty where none is."""
    explained = await Fleet(mesh).explain(provider_id)
    return "" if explained.eligible else GateReason.Name(explained.reason)


async def test_passed_challenges_keep_a_provider_in_routing(watched: Mesh) -> None:
    provider_id = watched.ready("provider")["provider_id"]
    first = (await Fleet(watched).providers())[provider_id].last_challenge_time

    async def again() -> bool:
        provider = (await Fleet(watched).providers())[provider_id]
        return provider.last_challenge_time.ToNanoseconds() > first.ToNanoseconds()

    await until(again, "another challenge was passed")
    assert await gate_of(watched, provider_id) == ""
    assert (await Consumer(watched).ask(tokens=3)).status_code == 200


async def test_a_provider_that_does_not_answer_leaves_routing_and_comes_back(
    watched: Mesh, mischief: Mischief
) -> None:
    consumer = Consumer(watched)
    provider_id = watched.ready("provider")["provider_id"]

    mischief.order("silent")

    async def shut() -> str:
        return await gate_of(watched, provider_id)

    gate = await until(shut, "the provider has left routing")
    assert gate in ("GATE_REASON_CHALLENGE_STALE", "GATE_REASON_UNTRUSTED")
    refused = await consumer.ask(tokens=3)
    assert refused.status_code == 429, refused.text
    assert refused.json()["error"]["code"] == "no_provider"
    assert "retry-after" in refused.headers
    mischief.behave()

    await Fleet(watched).wait_routable()
    assert (await consumer.ask(tokens=3)).status_code == 200
    await Books(watched).clean()


@pytest.mark.parametrize(
    ("order", "gates"),
    [
        # It answers no challenge that is open, so it counts as silence.
        ("old_answer", ("GATE_REASON_UNTRUSTED", "GATE_REASON_CHALLENGE_STALE")),
        # Untrusted, or without any verdict until a challenge is passed.
        ("forged_answer", ("GATE_REASON_UNTRUSTED", "GATE_REASON_TRUST_FLOOR")),
    ],
)
async def test_a_wrong_answer_costs_the_verdict(
    watched: Mesh, mischief: Mischief, order: str, gates: tuple[str, ...]
) -> None:
    consumer = Consumer(watched)
    await watched.restart("provider")
    await Fleet(watched).wait_routable()
    provider_id = watched.ready("provider")["provider_id"]

    mischief.order(order)

    async def shut() -> str:
        found = (await Fleet(watched).providers()).get(provider_id)
        return await gate_of(watched, provider_id) if found else "gone"

    gate = await until(shut, "the provider has left routing")
    assert gate in gates

    refused = await consumer.ask(tokens=3)
    assert refused.status_code == 429, refused.text
    assert refused.json()["error"]["code"] == "no_provider"

    async def published() -> bool:
        rows = (await consumer.get("/v1/providers/attestation")).json()["providers"]
        return all("verdict" not in row for row in rows)

    await until(published, "the published list shows no verdict in force")
    mischief.behave()
    await Books(watched).clean()
