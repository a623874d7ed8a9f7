import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from darkbloom.attestation.v1 import attestation_service_pb2 as pb
from darkbloom.attestation.v1.attestation_service_pb2_grpc import AttestationServiceStub
from darkbloom_mesh.channel import channel
from darkbloom_mesh.config import Secret

from tests.stores import Postgres

TOKEN = "t" * 40


def environment(database_url: str, directory: Path, **changes: str) -> dict[str, str]:
    token = directory / "token"
    token.write_text(TOKEN)
    return {
        "PATH": os.environ["PATH"],  # noqa: TID251 - a child needs it
        "DATABASE_URL": database_url,
        "DARKBLOOM_MESH_TOKEN_FILE": str(token),
        "DARKBLOOM_ATTESTATION_LISTEN": "127.0.0.1:0",
        "DARKBLOOM_ATTESTATION_KEY_DIR": str(directory / "keys"),
        **changes,
    }


async def start(env: dict[str, str], *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "darkbloom_attestation", *arguments),
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )


async def listener(process: asyncio.subprocess.Process) -> str:
    """Wait for the log event that names the bound address."""
    assert process.stdout is not None
    async with asyncio.timeout(60):
        async for line in process.stdout:
            event = json.loads(line)
            if event.get("msg", event.get("event")) == "serving":
                return str(event["listeners"]["grpc"])
    raise AssertionError("the room ended before it served")


@pytest.mark.mesh
async def test_the_room_makes_its_key_once_and_leaves_cleanly(
    cluster: Postgres, tmp_path: Path
) -> None:
    keys = []
    with cluster.database() as database_url:
        env = environment(database_url, tmp_path, DARKBLOOM_ENV="development")
        migrated = await start(env, "migrate")
        await migrated.communicate()
        assert migrated.returncode == 0

        for _ in range(2):
            process = await start(env)
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
        env = environment(database_url, tmp_path)
        migrated = await start(env, "migrate", "--new")
        await migrated.communicate()
        process = await start(env)
        output, _ = await process.communicate()
        assert process.returncode == 1
        assert b"KeyDirectoryError" in output
        assert not (tmp_path / "keys").exists()
