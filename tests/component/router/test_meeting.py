"""A new replica takes no request before it knows whom the others hold."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from darkbloom_local.stores import valkey
from darkbloom_mesh.config import Secret
from darkbloom_router.replicas.cluster import MEET_S
from darkbloom_router.replicas.store import open_store

from tests.component.router.harness import World, world
from tests.component.router.pairs import Pair
from tests.fakes.registry import SCRIPTED_BUILD


@pytest.fixture
async def late(pair: Pair, tmp_path: Path, valkey_url: str) -> AsyncIterator[World]:
    """A third replica that has just begun to listen."""
    assert pair.asker.router.lanes.admits
    folder = tmp_path / "late"
    folder.mkdir()
    async with world(folder, redis_url=Secret(valkey_url), replica="late") as made:
        yield made


async def test_the_first_request_at_a_new_replica_reaches_the_fleet(
    pair: Pair, late: World
) -> None:
    provider = await pair.provider()
    gateway = await late.stranger()
    hello = asyncio.create_task(gateway.hello())
    await late.until(lambda: provider.provider_id in late.router.fleet.providers)
    assert not late.router.lanes.admits
    assert not hello.done()

    while not hello.done():
        await late.turn(0.1)
    stream, _ = gateway.open()
    assert await gateway.offer(stream)


async def test_a_replica_that_cannot_be_met_is_not_awaited_for_long(
    tmp_path: Path, valkey_url: str
) -> None:
    store = open_store(valkey_url)
    try:
        record = orjson.dumps(["dead", "dead/0", "127.0.0.1:1"])
        await store.zadd("rt:replicas", {record: float("inf")})
        async with world(tmp_path, redis_url=Secret(valkey_url), replica="late") as made:
            gateway = await made.stranger()
            hello = asyncio.create_task(gateway.hello())
            cluster = made.router.replicas.cluster
            assert cluster is not None
            await made.until(lambda: cluster.size > 1)
            await made.turn(MEET_S / 2)
            assert not made.router.lanes.admits
            while not hello.done():
                await made.turn(MEET_S)
    finally:
        await store.zrem("rt:replicas", record)
        await store.aclose()


async def test_a_replica_says_whether_valkey_answers(tmp_path: Path) -> None:
    with valkey(tmp_path) as url:
        folder = tmp_path / "one"
        folder.mkdir()
        async with world(folder, redis_url=Secret(url), replica="one") as made:
            cluster = made.router.replicas.cluster
            assert cluster is not None

            async def said(value: float) -> None:
                while (
                    made.service.metrics.registry.get_sample_value("darkbloom_valkey_up") != value
                ):
                    await made.turn(5.0)

            store = open_store(url)
            await said(1.0)
            # Its data stay refused, as from a server that has no memory left, or is about to go.
            await store.config_set("requirepass", "other")
            await store.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await said(0.0)
            await store.config_set("requirepass", "")
            await said(1.0)
            await store.aclose()


async def test_a_request_waits_for_the_machines_of_a_lost_replica(pair: Pair) -> None:
    await pair.provider()
    cluster = pair.asker.router.replicas.cluster
    assert cluster is not None
    for peer in cluster.peers:
        peer.close()
    await pair.asker.until(lambda: not pair.asker.router.fleet.providers)

    gateway = await pair.asker.gateway()
    stream, _ = gateway.open()
    await pair.asker.until(lambda: bool(pair.asker.router.dispatcher.line.depth(SCRIPTED_BUILD)))
    await pair.asker.provider("one")
    assert await gateway.offer(stream)
