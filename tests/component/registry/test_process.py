import asyncio
import hashlib
import signal
from pathlib import Path

import grpc
import pytest
from darkbloom.registry.v1 import registry_service_pb2 as pb
from darkbloom.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from darkbloom_mesh.channel import channel
from darkbloom_mesh.config import Secret
from darkbloom_registry.changes import Scope
from darkbloom_registry.store import PostgresStore

from tests.component.rooms import TOKEN, environment, listener, start
from tests.stores import Postgres


@pytest.mark.mesh
async def test_the_room_migrates_serves_only_its_mesh_and_leaves_cleanly(
    cluster: Postgres, tmp_path: Path
) -> None:
    with cluster.database() as database_url:
        env = environment("registry", database_url, tmp_path)
        for said in ("--new",), ():
            migrated = await start("registry", env, "migrate", *said)
            assert await migrated.wait() == 0

        made = await start("registry", env, "key", "somebody", "publish", "alias")
        printed, _ = await made.communicate()
        digest = hashlib.sha256(printed.strip()).digest()
        store = await PostgresStore.connect(database_url)
        known_key = await store.publishing_key(digest)
        await store.close()
        assert known_key is not None
        assert (known_key.label, known_key.scopes) == ("somebody", {Scope.PUBLISH, Scope.ALIAS})

        again = await start("registry", env, "key", "somebody", "publish")
        _, errors = await again.communicate()
        assert again.returncode == 1
        assert b"replace it expressly" in errors
        revoked = await start("registry", env, "key", "somebody", "--revoke")
        assert await revoked.wait() == 0

        process = await start("registry", env)
        target = await listener(process)
        async with (
            channel(target, mesh_token=Secret(TOKEN), room="test") as known,
            channel(target, mesh_token=None, room="test") as stranger,
        ):
            answer = await RegistryServiceStub(known).ListBuilds(pb.ListBuildsRequest(), timeout=10)
            assert not answer.builds
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await RegistryServiceStub(stranger).ListBuilds(pb.ListBuildsRequest(), timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED

            # A watch that never ends by itself must not keep the room from leaving.
            watch = RegistryServiceStub(known).WatchCatalog(pb.WatchCatalogRequest())
            await watch.read()
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                assert await process.wait() == 0


@pytest.mark.mesh
async def test_a_bad_configuration_stops_the_start(tmp_path: Path) -> None:
    env = environment("registry", "postgresql:///nowhere", tmp_path)
    process = await start("registry", {**env, "DARKBLOOM_REGISTRY_LISTN": "x"})
    _, errors = await process.communicate()
    assert process.returncode == 78
    assert b"DARKBLOOM_REGISTRY_LISTN: unknown variable" in errors
