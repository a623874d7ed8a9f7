"""A scratch cluster is made after the live one, waited for, and always deleted; nothing else is."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from darkbloom_billing.recovery.scratch import SCRATCH, Clusters, at_host, scratch_of
from darkbloom_mesh.config import Secret
from darkbloom_mesh.errors import NotFoundError, PreconditionError, UnavailableError
from darkbloom_mesh.testing import FakeClock

BASE = "/apis/postgresql.cnpg.io/v1/namespaces/darkbloom/clusters"
LIVE: dict[str, Any] = {
    "metadata": {"name": "postgres", "namespace": "darkbloom", "resourceVersion": "7"},
    "spec": {
        "imageName": "postgresql@sha256:00",
        "instances": 3,
        "storage": {"size": "100Gi"},
        "postgresql": {"parameters": {"max_connections": "200"}},
        "bootstrap": {"initdb": {"database": "darkbloom"}},
        "managed": {"roles": [{"name": "billing"}]},
        "plugins": [
            {
                "name": "barman-cloud.cloudnative-pg.io",
                "isWALArchiver": True,
                "parameters": {"barmanObjectName": "backups"},
            }
        ],
    },
}


@dataclass
class Kubernetes:
    """Clusters by name; a restored one is ready once somebody has asked that often."""

    clusters: dict[str, Any] = field(default_factory=lambda: {"postgres": LIVE})
    ready_after: int = 2
    said: list[str] = field(default_factory=list)
    refuse: str = ""
    lingers: bool = False
    """What is deleted does not go."""
    asked: int = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        name = request.url.path.removeprefix(BASE).strip("/")
        if request.method != "GET":
            self.said.append(f"{request.method} {name}".strip())
        if request.method == self.refuse:
            return httpx.Response(403, json={"message": "no"})
        if request.method == "POST":
            made = json.loads(request.content)
            self.clusters[made["metadata"]["name"]] = made
            return httpx.Response(201, json=made)
        if name not in self.clusters:
            return httpx.Response(404, json={})
        if request.method == "DELETE":
            if not self.lingers:
                del self.clusters[name]
            return httpx.Response(200, json={})
        if name != "postgres":
            self.asked += 1
        ready = {"readyInstances": 1} if self.asked > self.ready_after else {}
        return httpx.Response(200, json={**self.clusters[name], "status": ready})


@asynccontextmanager
async def clusters_of(kubernetes: Kubernetes, clock: FakeClock) -> AsyncIterator[Clusters]:
    transport = httpx.MockTransport(kubernetes)
    async with httpx.AsyncClient(base_url="https://kubernetes", transport=transport) as http:
        yield Clusters(http, "darkbloom", clock)


async def restored(
    kubernetes: Kubernetes, *, wait_s: float = 60, left: list[str] | None = None
) -> str:
    clock, heard = FakeClock(), [] if left is None else left
    async with clusters_of(kubernetes, clock) as clusters:

        async def use() -> str:
            async with clusters.restored(
                "postgres", "backup-check", wait_s=wait_s, left=heard.append
            ) as host:
                return host

        task = asyncio.ensure_future(use())
        async with asyncio.timeout(30):
            while not task.done():
                await clock.advance(10)
        return await task


def test_a_scratch_cluster_restores_and_neither_archives_nor_founds_anything() -> None:
    made = scratch_of(LIVE, "backup-check")
    assert made["metadata"] == {
        "name": "backup-check",
        "namespace": "darkbloom",
        "labels": {SCRATCH: "true"},
    }
    spec = made["spec"]
    assert (spec["instances"], spec["imageName"]) == (1, "postgresql@sha256:00")
    assert not {"plugins", "managed", "backup"} & set(spec)
    assert spec["bootstrap"] == {"recovery": {"source": "archive"}}
    (source,) = spec["externalClusters"]
    assert source["plugin"]["parameters"] == {
        "barmanObjectName": "backups",
        "serverName": "postgres",
    }
    with pytest.raises(PreconditionError, match="no archive"):
        scratch_of({**LIVE, "spec": {**LIVE["spec"], "plugins": []}}, "backup-check")


@pytest.mark.parametrize(
    ("url", "there"),
    [
        ("postgresql://b:w%40rd@postgres-rw:5432/d?x=1", "postgresql://b:w%40rd@s-rw:5432/d?x=1"),
        ("postgresql://billing@postgres-rw/d", "postgresql://billing@s-rw/d"),
        ("postgresql://postgres-rw/d", "postgresql://s-rw/d"),
    ],
)
def test_the_same_login_is_used_at_another_host(url: str, there: str) -> None:
    assert at_host(Secret(url), "s-rw").reveal() == there


async def test_a_restored_cluster_is_waited_for_and_deleted() -> None:
    kubernetes = Kubernetes()
    assert await restored(kubernetes) == "backup-check-rw"
    assert kubernetes.said == ["POST", "DELETE backup-check"]
    assert set(kubernetes.clusters) == {"postgres"}


async def test_what_an_earlier_check_left_behind_goes_first() -> None:
    kubernetes = Kubernetes()
    kubernetes.clusters["backup-check"] = scratch_of(LIVE, "backup-check")
    await restored(kubernetes)
    assert kubernetes.said == ["DELETE backup-check", "POST", "DELETE backup-check"]


async def test_a_cluster_without_the_label_is_never_deleted() -> None:
    kubernetes = Kubernetes()
    kubernetes.clusters["backup-check"] = LIVE
    with pytest.raises(PreconditionError, match="nothing is deleted"):
        await restored(kubernetes)
    assert kubernetes.said == []


async def test_a_restore_that_does_not_arrive_is_an_error_and_deleted_all_the_same() -> None:
    kubernetes = Kubernetes(ready_after=10**6)
    with pytest.raises(UnavailableError, match="did not arrive within 60 s"):
        await restored(kubernetes)
    assert kubernetes.said == ["POST", "DELETE backup-check"]


async def test_refusals_and_a_missing_cluster_are_told_without_the_object() -> None:
    with pytest.raises(UnavailableError, match="kubernetes refused POST: 403"):
        await restored(Kubernetes(refuse="POST"))
    with pytest.raises(NotFoundError):
        await restored(Kubernetes(clusters={}))


async def test_a_deletion_that_fails_is_told_and_undoes_nothing_of_what_was_found() -> None:
    for stuck in (Kubernetes(refuse="DELETE"), Kubernetes(lingers=True)):
        left: list[str] = []
        assert await restored(stuck, left=left) == "backup-check-rw"
        assert left == ["backup-check"]
        assert stuck.said == ["POST", "DELETE backup-check"]


async def test_a_cancelled_check_asks_for_the_deletion_and_does_not_wait_for_it() -> None:
    kubernetes, left = Kubernetes(lingers=True), list[str]()
    inside = asyncio.Event()
    async with clusters_of(kubernetes, FakeClock()) as clusters:
        kubernetes.ready_after = 0

        async def use() -> None:
            async with clusters.restored("postgres", "backup-check", wait_s=60, left=left.append):
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.ensure_future(use())
        async with asyncio.timeout(30):
            await inside.wait()
            task.cancel()
            # The clock stands still: whoever sleeps until it is gone never ends.
            with pytest.raises(asyncio.CancelledError):
                await task
    assert (kubernetes.said, left) == (["POST", "DELETE backup-check"], [])
