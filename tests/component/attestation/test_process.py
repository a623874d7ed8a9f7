import asyncio
import signal
from pathlib import Path

import pytest
from darkbloom.attestation.v1 import attestation_service_pb2 as pb
from darkbloom.attestation.v1.attestation_service_pb2_grpc import AttestationServiceStub
from darkbloom_mesh.channel import channel
from darkbloom_mesh.config import Secret

from tests.component.rooms import TOKEN, environment, listener, start
from tests.stores import Postgres


@pytest.mark.mesh
async def test_the_room_makes_its_key_once_and_leaves_cleanly(
    cluster: Postgres, tmp_path: Path
) -> None:
    keys = []
    with cluster.database() as database_url:
        env = environment(
            "attestation",
            database_url,
            tmp_path,
            DARKBLOOM_ATTESTATION_KEY_DIR=str(tmp_path / "keys"),
            DARKBLOOM_ENV="development",
        )
        migrated = await start("attestation", env, "migrate")
        await migrated.communicate()
        assert migrated.returncode == 0

        for _ in range(2):
            process = await start("attestation", env)
            target = await listener(process)
            async with channel(target, mesh_token=Secret(TOKEN), room="test") as dialled:
                stub = AttestationServiceStub(dialled)
                answer = await stub.ListVerdictKeys(pb.ListVerdictKeysRequest(), timeout=10)
                keys.append([key.key_id for key in answer.keys])
                watch = stub.WatchRevocations(pb.WatchRevocationsRequest())
                await watch.read()
                process.send_signal(signal.SIGTERM)
                async with asyncio.timeout(20):
                    await process.communicate()
            assert process.returncode == 0
    assert keys[0] == keys[1] != []


@pytest.mark.mesh
async def test_production_does_not_start_without_its_key(cluster: Postgres, tmp_path: Path) -> None:
    with cluster.database() as database_url:
        env = environment(
            "attestation",
            database_url,
            tmp_path,
            DARKBLOOM_ATTESTATION_KEY_DIR=str(tmp_path / "keys"),
        )
        migrated = await start("attestation", env, "migrate", "--new")
        await migrated.communicate()
        process = await start("attestation", env)
        output, _ = await process.communicate()
        assert process.returncode == 1
        assert b"KeyDirectoryError" in output
        assert not (tmp_path / "keys").exists()
