"""From the catalog to an answer: a build that no machine has, fetched by its owner or by itself."""

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from darkbloom.registry.v1 import catalog_pb2
from darkbloom.registry.v1 import registry_service_pb2 as rpc
from darkbloom.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from darkbloom_edge.manifest import FileRole, ManifestFile, build_manifest, parse_manifest
from darkbloom_local import seeds
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import scripted_build

from tests.fakes.file_server import FileServer, file_server
from tests.mesh.harness import (
    CALL_S,
    QUICK,
    Consumer,
    Fleet,
    darkbloom,
    provider_state,
    script,
    until,
)

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session")]

ALIAS = "fetched"
FIRST, SECOND = "dev/first", "dev/second"
PROVIDER = {"DARKBLOOM_PROVIDER_EXCHANGE_JITTER_S": "0"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mesh(state: Path) -> AsyncIterator[Mesh]:
    """A mesh of its own: what it serves changes."""
    async with Mesh(state, environment={**QUICK, "provider": PROVIDER}, durable=False) as found:
        await Fleet(found).wait_routable()
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server() -> AsyncIterator[FileServer]:
    """The object store."""
    async with file_server() as running:
        yield running


async def publish(
    mesh: Mesh, server: FileServer, build: str, version: str, *, altered: bool = False
) -> str:
    """Put a version into the object store and the catalog; return its weight hash.

    With `altered` the store serves another file of that name and size.
    """
    config = json.dumps({"model_type": "scripted", "is": f"{build} {version}"}).encode()
    entry = ManifestFile(
        path="config.json",
        size_bytes=len(config),
        sha256=hashlib.sha256(config).hexdigest(),
        role=FileRole.CONFIG,
    )
    document = build_manifest(build, version, [entry], "2026-01-01T00:00:00Z")
    served = config.replace(b"scripted", b"poisoned") if altered else config
    server.files[f"/{build}/{version}/config.json"] = served
    described = scripted_build(document)
    described.build.id = build
    await seeds.prices(mesh.channel("billing.grpc"), [described])
    await RegistryServiceStub(mesh.channel("registry.grpc")).RegisterBuild(
        rpc.RegisterBuildRequest(
            build=described.build,
            manifest=document,
            promote=True,
            sources=[f"{server.url}/{build}/{version}"],
        ),
        timeout=CALL_S,
        wait_for_ready=True,
    )
    return parse_manifest(document).aggregate_sha256


async def point(mesh: Mesh, desired: str, previous: str = "") -> None:
    """Point the public name."""
    alias = catalog_pb2.Alias(
        alias_id=ALIAS, desired_build=desired, previous_build=previous, active=True
    )
    await RegistryServiceStub(mesh.channel("registry.grpc")).UpsertAlias(
        rpc.UpsertAliasRequest(alias=alias), timeout=CALL_S
    )


async def answered_by(mesh: Mesh, model: str) -> str:
    """Ask; return the weight hash that the answer's receipt names, empty where there is none."""
    response = await Consumer(mesh).post({"model": model, "messages": script(text="four")})
    if response.status_code != 200:
        return ""
    receipt: dict[str, Any] = response.json()["receipt"]
    return str(json.loads(base64.b64decode(receipt["terminal"]))["weight_hash"])


async def test_a_build_that_no_machine_has_is_fetched_and_answers(
    mesh: Mesh, server: FileServer
) -> None:
    weights = await publish(mesh, server, FIRST, "v1")
    await point(mesh, FIRST)

    async def listed() -> Any:
        done = await asyncio.to_thread(darkbloom(mesh, "models", "catalog", "--json"))
        assert done.returncode == 0, done.stderr
        return next((r for r in json.loads(done.stdout)["models"] if r["id"] == FIRST), None)

    row = await until(listed, "the build is in the install catalog")
    assert (row["downloaded"], row["fits"]) == ("", True)
    assert await answered_by(mesh, ALIAS) == ""

    done = await asyncio.to_thread(darkbloom(mesh, "models", "download", FIRST))
    assert done.returncode == 0, done.stderr
    assert "trusting manifests of key" in done.stderr

    async def answers() -> bool:
        return await answered_by(mesh, ALIAS) == weights

    await until(answers, "the build that was fetched answers")
    removed = await asyncio.to_thread(darkbloom(mesh, "models", "remove", FIRST))
    assert removed.returncode == 1
    assert "being served" in removed.stderr


async def test_a_new_version_is_fetched_by_itself_and_takes_over(
    mesh: Mesh, server: FileServer
) -> None:
    weights = await publish(mesh, server, FIRST, "v2")

    async def answers() -> bool:
        return await answered_by(mesh, ALIAS) == weights

    await until(answers, "the new version answers")
    assert (f"/{FIRST}/v2/config.json", 0) in server.asked


async def test_a_name_that_moves_brings_its_new_build_along(mesh: Mesh, server: FileServer) -> None:
    weights = await publish(mesh, server, SECOND, "v1")
    path = f"/{SECOND}/v1/config.json"
    kept = server.files.pop(path)
    await point(mesh, SECOND, previous=FIRST)

    async def refused() -> Any:
        wanted = provider_state(mesh).get("downloads", ())
        return next((row for row in wanted if row["model"] == SECOND), {}).get("reason")

    # The old build answers while the new one cannot be had, and the owner can see why.
    assert await until(refused, "the agent says why") == "unreachable"
    assert await answered_by(mesh, ALIAS) not in ("", weights)
    status = await asyncio.to_thread(darkbloom(mesh, "status"))
    assert "unreachable" in status.stdout

    server.files[path] = kept
    done = await asyncio.to_thread(darkbloom(mesh, "models", "download", SECOND))
    assert done.returncode == 0, done.stderr

    async def answers() -> bool:
        return await answered_by(mesh, ALIAS) == weights

    await until(answers, "the new build answers")
