"""A real Prometheus watches the mesh, and no panel, recorded series or scaler is left empty.

Where there is one: Debian calls the package `prometheus`; it would start a daemon, so no script of
ours installs it.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from darkbloom_local.environment import inherited
from darkbloom_local.mesh import Mesh
from darkbloom_local.ports import HOST, free_ports
from darkbloom_local.process import Child, Command

from tests.mesh.harness import Consumer

DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "kustomize" / "components"
MONITORING = DEPLOY / "monitoring"
ROOMS = ("gateway", "router", "billing", "attestation", "registry")
REQUESTS = 6
PATIENCE_S = 120.0
NO_ROLLOUT = "fleet: Rollouts: share that holds the build"
"""Has a sample only while a rollout runs: a share of nobody is no share."""


@pytest.fixture
async def prometheus(mesh: Mesh, tmp_path: Path) -> AsyncIterator[str]:
    rules = yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]
    for group in rules["groups"]:
        group["interval"] = "1s"
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    scraped = [
        {
            "job_name": room,
            "static_configs": [{"targets": [mesh.ready(room)["listeners"]["metrics"]]}],
        }
        for room in ROOMS
    ]
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "rule_files": [str(tmp_path / "rules.yaml")],
        "scrape_configs": scraped,
    }
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
    (port,) = free_ports(1)
    argv = [
        "prometheus",
        f"--config.file={tmp_path / 'prometheus.yaml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address={HOST}:{port}",
    ]
    command = Command(name="prometheus", argv=argv, env=inherited(), log=tmp_path / "log")
    child = Child.start(command)
    try:
        yield f"http://{HOST}:{port}"
    finally:
        await asyncio.to_thread(child.stop, 10)


def panels() -> Iterator[tuple[str, str]]:
    for path in sorted((MONITORING / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                title = f"{path.stem}: {panel['title']}"
                if title != NO_ROLLOUT:
                    yield title, target["expr"]


def recorded() -> Iterator[tuple[str, str]]:
    for group in yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]["groups"]:
        for rule in group["rules"]:
            if "record" in rule:
                yield "recorded", rule["record"]


def scalers() -> Iterator[tuple[str, str]]:
    for path in ("path.yaml", "services.yaml"):
        for scaled in yaml.safe_load_all((DEPLOY / "autoscaling" / path).read_text()):
            for trigger in scaled["spec"]["triggers"]:
                if trigger["type"] == "prometheus":
                    yield f"scaler: {scaled['metadata']['name']}", trigger["metadata"]["query"]


@pytest.mark.mesh
@pytest.mark.tool("prometheus")
@pytest.mark.timeout(400)
async def test_every_panel_recorded_series_and_scaler_has_data_under_load(
    prometheus: str, consumer: Consumer
) -> None:
    empty = [*panels(), *recorded(), *scalers()]
    assert len(empty) > 70
    end = asyncio.get_running_loop().time() + PATIENCE_S
    async with httpx.AsyncClient(base_url=prometheus, timeout=30) as client:
        while empty and asyncio.get_running_loop().time() < end:
            # Rates need a counter that moves between two looks.
            for _ in range(REQUESTS):
                assert (await consumer.ask(tokens=8)).status_code == 200
            await pause(1.0)
            empty = [one for one in empty if not await found(client, one[1])]
    assert empty == []


async def found(client: httpx.AsyncClient, expression: str) -> bool:
    """Say whether a query returns a number now."""
    try:
        response = await client.get("/api/v1/query", params={"query": expression})
    except httpx.TransportError:
        return False
    if response.status_code == 503:
        return False
    body: dict[str, Any] = response.json()
    assert body["status"] == "success", body
    return any(sample["value"][1] != "NaN" for sample in body["data"]["result"])


async def pause(seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()
    except TimeoutError:
        return
