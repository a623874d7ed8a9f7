"""A real Prometheus watches the mesh, and no panel, recorded series or scaler is left empty.

Where there is one: Debian calls the package `prometheus`; it would start a daemon, so no script of
ours installs it.
"""

import asyncio
import json
import re
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
OR_ZERO = " or vector(0)"
QUIET = {
    "fleet: Agents below the version floor, 1 h": "every agent is new enough",
    "fleet: Audits of decisions": "one decision in a thousand is audited",
    "fleet: Breakers": "no machine fails",
    "fleet: Cancellations": "nobody is cancelled",
    "fleet: Failures by reason": "no attempt fails",
    "fleet: Machines that hold a model": "builds are kept warm by demand of minutes",
    "fleet: Oldest waiting": "nobody waits",
    "fleet: Prefix hints": "no prompt's beginning comes twice",
    "fleet: Rollouts: share that holds the build": "no rollout runs: a share of nobody is no share",
    "fleet: Second offers": "no first content is late",
    "fleet: Share of hardware trust": "development trusts nobody's hardware",
    "fleet: Streams opened and closed": "opened is seen; no stream closes",
    "fleet: Suspected: lies, memory, wedges": "no machine lies or struggles",
    "fleet: Time to stop after a cancel, p95": "nobody is cancelled",
    "fleet: Waiting": "nobody waits",
    "money: Releases and sweeps": "every hold is settled",
    "money: Webhooks": "no Stripe",
    "money: Withdrawals": "nobody withdraws",
    "overview: Alerts that fire": "none does",
    "overview: Consumers that left": "none leaves",
    "overview: Refused for pace": "nobody is too fast",
    "overview: Rooms that are down": "none is",
    "overview: Share of failures, 5 min": "nothing fails",
    "rooms: Calls that failed": "none does",
    "rooms: Certificates end in": "a mesh without mTLS",
    "rooms: Frames ignored": "every frame is expected",
    "rooms: Labels folded, 1 h": "every word is in its list",
    "rooms: Lanes that ended": "no lane ends",
    "rooms: Sealed requests": "consumers here seal nothing",
}
"""Panels of which a mesh that answers has no sample, and what would have to happen first."""
FIRST_COUNTED = {
    "darkbloom_client_gone_total",
    "darkbloom_ratelimit_rejections_total",
    "darkbloom_sealed_requests_total",
    "darkbloom_tls_certificate_expiry_seconds",
}
"""Of those, what a room makes when it first counts it."""


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
                yield f"{path.stem}: {panel['title']}", target["expr"]


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
    prometheus: str, consumer: Consumer, mesh: Mesh
) -> None:
    asked = [
        (title, bare(expression)) for title, expression in (*panels(), *recorded(), *scalers())
    ]
    assert {title for title, _ in asked} >= QUIET.keys()
    empty = [one for one in asked if one[0] not in QUIET]
    assert len(empty) > 70
    end = asyncio.get_running_loop().time() + PATIENCE_S
    async with httpx.AsyncClient(base_url=prometheus, timeout=30) as client:
        while empty and asyncio.get_running_loop().time() < end:
            # Rates need a counter that moves between two looks.
            for _ in range(REQUESTS):
                assert (await consumer.ask(tokens=8)).status_code == 200
            await pause(1.0)
            empty = [one for one in empty if not await found(client, one[1])]
        assert not empty, "\n".join(sorted({title for title, _ in empty}))
        pages = [
            (await client.get(f"http://{mesh.ready(room)['listeners']['metrics']}/metrics")).text
            for room in ROOMS
        ]
    # What had no reason to be counted is at least there to be counted.
    waiting = {
        name for title, expression in asked if title in QUIET for name in families(expression)
    }
    assert {name for name in waiting if f"# TYPE {name} " not in "".join(pages)} <= FIRST_COUNTED


def bare(expression: str) -> str:
    """Return a query without the zero that it shows where there is nothing."""
    return expression.replace(OR_ZERO, "")


def families(expression: str) -> set[str]:
    """Return the metrics of ours that a query asks for."""
    names = re.findall(r"\bdarkbloom_\w+", expression)
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in names}


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
