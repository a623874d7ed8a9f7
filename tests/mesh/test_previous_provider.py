"""An agent of the previous release in today's mesh: machines update when their owners let them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from darkbloom_local import seeds
from darkbloom_local.environment import inherited
from darkbloom_local.mesh import Mesh

from tests.compat.previous import Previous, previous
from tests.mesh.harness import (
    QUICK,
    Books,
    Consumer,
    Fleet,
    provider_state,
    request_id_of,
)
from tests.mesh.leaving import streamed_past

pytestmark = [
    pytest.mark.mesh,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(300),
]
WORDS = 40


@pytest.fixture(scope="module")
def yesterday(tmp_path_factory: pytest.TempPathFactory) -> Previous:
    """The previous release."""
    return previous(lambda: tmp_path_factory.mktemp("previous"))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mixed(yesterday: Previous, state: Path) -> AsyncIterator[Mesh]:
    """Today's mesh with yesterday's agent, whose code release is the one that is blessed."""
    environment = {**QUICK, "provider": yesterday.environment}
    async with Mesh(state, environment=environment, durable=False) as found:
        await Fleet(found).wait_routable()
        yield found


async def test_an_agent_of_the_previous_release_is_admitted_answers_is_paid_and_drains(
    mixed: Mesh, yesterday: Previous
) -> None:
    consumer, books = Consumer(mixed), Books(mixed)
    (agent,) = (await Fleet(mixed).providers()).values()
    assert agent.version == yesterday.version == provider_state(mixed)["version"]
    assert agent.HasField("last_challenge_time")
    assert agent.verdict.document
    earned = await books.earned()

    stream = await streamed_past(mixed, consumer, "provider", words=WORDS)
    assert (await consumer.verify(stream.receipt)).ok
    assert (await consumer.usage(stream.job_id))["completion_tokens"] == WORDS
    assert await books.earning(request_id_of(stream.receipt)) == await books.earned() - earned > 0
    await books.clean()


async def test_an_update_keeps_the_machine_and_its_rollback_does_as_well(
    mixed: Mesh, yesterday: Previous
) -> None:
    """Both releases are blessed at once: a new one takes no traffic from the one before."""
    consumer, fleet = Consumer(mixed), Fleet(mixed)
    setup = mixed._provider()
    today = await setup.code_release(inherited() | setup.environment())
    assert today["version"] != yesterday.version
    await seeds.code_release(mixed.channel("attestation.grpc"), today)

    seen: dict[str, str] = {}
    for environment in ({}, yesterday.environment):
        await mixed.restart("provider", environment)
        await fleet.wait_routable()
        (agent,) = (await fleet.providers()).values()
        seen[agent.version] = agent.identity_key.hex()
        assert (await consumer.ask(tokens=3)).status_code == 200

    assert set(seen) == {today["version"], yesterday.version}
    assert len(set(seen.values())) == 1
    await Books(mixed).clean()
