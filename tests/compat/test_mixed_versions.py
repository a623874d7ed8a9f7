"""Rooms of the previous release beside today's: what a rolling deploy looks like in its middle.

Schemas are migrated first, as a deploy does it, so an old room always runs on the new schema.
The agent is today's; `tests/mesh/test_previous_provider.py` is the other direction.
"""

import sys

import pytest
from darkbloom_local.mesh import Mesh

from tests.compat.previous import Previous, previous
from tests.mesh.harness import QUICK, Books, Consumer, Fleet, gateway_ready, metrics_of, until
from tests.mesh.leaving import streamed_past

pytestmark = [
    pytest.mark.mesh,
    pytest.mark.asyncio(loop_scope="session"),
    # Whole meshes, one after the other, and some on machines that do something else besides.
    pytest.mark.timeout(600),
]
WORDS = 40
ROOMS = ("billing", "attestation", "registry", "router", "gateway")
MIXTURES = {
    "the agent's neighbour and the front": ("router", "gateway"),
    "the front alone": ("gateway",),
    "the router alone": ("router",),
    "who owns a schema": ("billing", "attestation", "registry"),
    "every room": ROOMS,
}


@pytest.fixture(scope="module")
def yesterday(tmp_path_factory: pytest.TempPathFactory) -> Previous:
    """The previous release."""
    return previous(lambda: tmp_path_factory.mktemp("previous"))


@pytest.mark.parametrize("rooms", MIXTURES.values(), ids=MIXTURES)
async def test_todays_agent_serves_a_paid_stream_with_rooms_of_the_previous_release(
    yesterday: Previous, rooms: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    state = tmp_path_factory.mktemp("mixed")
    programs = yesterday.rooms(rooms)
    async with Mesh(state, environment=QUICK, programs=programs, durable=False) as mesh:
        consumer, books = Consumer(mesh), Books(mesh)
        await Fleet(mesh).wait_routable()
        for room in rooms:
            said = f'darkbloom_build_info{{commit="unknown",version="{yesterday.version}"}}'
            assert said in await metrics_of(mesh, room)

        stream = await streamed_past(mesh, consumer, "provider", words=WORDS)
        assert (await consumer.verify(stream.receipt)).ok
        assert (await consumer.usage(stream.job_id))["completion_tokens"] == WORDS
        await books.clean()


async def test_each_room_is_rolled_forward_and_back_and_the_mesh_answers_after_each(
    yesterday: Previous, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Rollback is the old image on the new schema: forward-only migrations must allow it."""
    old = yesterday.rooms(ROOMS)
    async with Mesh(
        tmp_path_factory.mktemp("rolled"), environment=QUICK, programs=old, durable=False
    ) as mesh:
        consumer, fleet = Consumer(mesh), Fleet(mesh)

        async def answered() -> bool:
            return (await consumer.ask(tokens=3)).status_code == 200

        for room in ROOMS:
            for programs in ({**old, room: [sys.executable, "-m", f"darkbloom_{room}"]}, old):
                mesh._launcher.programs = programs
                await mesh.restart(room)
                await gateway_ready(mesh)
                await fleet.wait_routable()
                # One replica: until its callers have found it again they answer 503.
                await until(answered, f"an answer after {room} was replaced")
                is_old = f'version="{yesterday.version}"' in await metrics_of(mesh, room)
                assert is_old == (programs is old)
        await Books(mesh).clean()
