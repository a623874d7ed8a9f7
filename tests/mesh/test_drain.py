"""SIGTERM in the middle of a stream: it finishes, the process ends with 0, and nothing is lost."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from darkbloom_local.mesh import Mesh

from tests.mesh.harness import QUICK, Books, Consumer, Fleet, gateway_ready
from tests.mesh.leaving import streamed_past

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def leaving(state: Path) -> AsyncIterator[Mesh]:
    """A mesh whose processes are asked to leave."""
    async with Mesh(state, environment=QUICK, durable=False) as found:
        await Fleet(found).wait_routable()
        yield found


@pytest.mark.parametrize("name", ["provider", "router", "gateway", "billing"])
async def test_a_process_that_is_asked_to_leave_finishes_the_stream_first(
    leaving: Mesh, name: str
) -> None:
    consumer, books = Consumer(leaving), Books(leaving)

    stream = await streamed_past(leaving, consumer, name, words=60)

    await leaving.restart(name)
    await gateway_ready(leaving)
    await Fleet(leaving).wait_routable()
    assert (await consumer.usage(stream.job_id))["completion_tokens"] == 60
    assert (await consumer.ask(tokens=3)).status_code == 200
    await books.clean()


async def test_a_second_run_finds_money_usage_and_keys_where_they_were(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    state = tmp_path_factory.mktemp("twice")
    async with Mesh(state, durable=False) as first:
        await Fleet(first).wait_routable()
        consumer = Consumer(first)
        answer = (await consumer.ask(tokens=500)).json()
        await Books(first).quiet()
        balance = await consumer.balance()
        usage = (await consumer.get("/v1/payments/usage")).json()
        assert len(usage["usage"]) == 1
        api_key = first.api_key

    async with Mesh(state, durable=False) as second:
        await Fleet(second).wait_routable()
        consumer = Consumer(second, api_key)
        assert await consumer.balance() == balance
        assert (await consumer.get("/v1/payments/usage")).json() == usage
        assert (await consumer.ask(tokens=3)).status_code == 200
        # A receipt of the first run still verifies: keys are retired, never forgotten.
        text = answer["choices"][0]["message"]["content"]
        assert (await consumer.verify(answer["receipt"], answer=text)).ok
        await Books(second).clean()
