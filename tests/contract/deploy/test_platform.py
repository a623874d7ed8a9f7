"""What the manifests ask of the platform under them (operations §13), where no other test says."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from darkbloom_local.hosted import kubernetes_secrets, make_keys
from darkbloom_local.state import StateDir

from tests.contract.deploy.manifests import (
    BY_HAND,
    DEPLOY,
    OVERLAYS,
    ROOMS,
    Document,
    containers,
    environment,
    named,
    pod,
    rendered,
    workloads,
)

PRODUCTION = "overlays/production"
UNARY = ("billing", "attestation", "registry")
PRIVATE = {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10"}


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_the_namespace_refuses_pods_that_are_not_restricted() -> None:
    for overlay in OVERLAYS:
        labels = named(rendered(f"overlays/{overlay}"), "Namespace", "darkbloom")["metadata"][
            "labels"
        ]
        for mode in ("enforce", "warn", "audit"):
            assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted", overlay


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_go_before_batch_work(room: str) -> None:
    documents = rendered("base")
    name = pod(named(documents, "Deployment", room))["priorityClassName"]
    assert named(documents, "PriorityClass", name)["value"] > 0


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_scraped_where_it_has_its_metrics(room: str) -> None:
    documents = rendered(PRODUCTION)
    monitor = named(documents, "ServiceMonitor", room)["spec"]
    service = named(documents, "Service", room)
    (endpoint,) = monitor["endpoints"]
    assert endpoint["interval"] == "15s"
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    (container,) = pod(named(documents, "Deployment", room))["containers"]
    listens = environment(documents, container)[f"DARKBLOOM_{room.upper()}_METRICS_LISTEN"]
    assert ports[endpoint["port"]] == int(listens.rpartition(":")[2])


def test_connections_age_where_calls_are_short_and_never_under_a_link() -> None:
    documents = rendered(PRODUCTION)
    for room in ROOMS:
        (container,) = pod(named(documents, "Deployment", room))["containers"]
        told = environment(documents, container).get(f"DARKBLOOM_{room.upper()}_CONNECTION_AGE_S")
        assert (told == "300") == (room in UNARY), room


def test_the_edge_carries_links_and_health_alone_and_outlasts_a_silence() -> None:
    documents = rendered(PRODUCTION)
    (rule,) = named(documents, "GRPCRoute", "providers")["spec"]["rules"]
    assert {(match["method"]["type"], match["method"]["service"]) for match in rule["matches"]} == {
        ("Exact", "darkbloom.router.v1.ProviderLinkService"),
        ("Exact", "grpc.health.v1.Health"),
    }
    # The kind has no such field; Envoy Gateway's policy has.
    assert "timeouts" not in rule
    idle = {
        name: seconds(
            named(documents, "BackendTrafficPolicy", name)["spec"]["timeout"]["http"][
                "streamIdleTimeout"
            ]
        )
        for name in ("api", "providers")
    }
    # Heartbeats come every 5 s, comments into a silent answer every 15 s.
    assert idle["providers"] == 60
    assert idle["api"] >= 4 * 15


def test_nobody_is_let_out_to_what_is_not_the_internet() -> None:
    blocks = [
        peer["ipBlock"]
        for document in rendered(PRODUCTION)
        if document["kind"] == "NetworkPolicy"
        for rule in document["spec"].get("egress", ())
        for peer in rule.get("to", ())
        if "ipBlock" in peer
    ]
    assert blocks
    assert all(set(block["except"]) >= PRIVATE for block in blocks)


def test_traces_are_bounded_and_stripped_before_they_leave() -> None:
    (text,) = [
        data
        for document in rendered(PRODUCTION)
        if document["kind"] == "ConfigMap" and document["metadata"]["name"].startswith("collector")
        for data in document["data"].values()
    ]
    config = yaml.safe_load(text)
    (pipeline,) = config["service"]["pipelines"].values()
    steps = pipeline["processors"]
    assert steps[0] == "memory_limiter"
    assert steps.index("redaction") < steps.index("batch")
    assert config["processors"]["redaction"]["allow_all_keys"] is False


def test_databases_are_archived_every_day_and_answered_commits_are_on_two_machines() -> None:
    documents = rendered(PRODUCTION)
    cluster = named(documents, "Cluster", "postgres")["spec"]
    assert (cluster["instances"], cluster["minSyncReplicas"]) == (3, 1)
    (plugin,) = [one for one in cluster["plugins"] if one.get("isWALArchiver")]
    store = named(documents, "ObjectStore", plugin["parameters"]["barmanObjectName"])["spec"]
    assert store["retentionPolicy"] == "35d"
    (schedule,) = [d for d in documents if d["kind"] == "ScheduledBackup"]
    assert len(schedule["spec"]["schedule"].split()) == 6
    assert schedule["spec"]["schedule"].split()[3:] == ["*", "*", "*"]


def wanted(documents: tuple[Document, ...]) -> Iterator[tuple[str, str]]:
    """Yield each key of each secret without which a pod does not start."""
    for workload in workloads(documents):
        for container in containers(workload):
            for variable in container.get("env", ()):
                source: Mapping[str, Any] = variable.get("valueFrom", {}).get("secretKeyRef", {})
                if source and not source.get("optional"):
                    yield source["name"], source["key"]
        for volume in pod(workload).get("volumes", ()):
            secret = volume.get("secret", {})
            if secret and not secret.get("optional"):
                for item in secret.get("items", [{"key": ""}]):
                    yield secret["secretName"], item["key"]


def shown(documents: Iterable[Document]) -> Iterator[tuple[str, str]]:
    """Yield each secret whose certificate an edge shows."""
    for document in documents:
        if document["kind"] == "Gateway":
            for listener in document["spec"]["listeners"]:
                for reference in listener.get("tls", {}).get("certificateRefs", ()):
                    yield reference["name"], "tls.crt"


def test_the_secrets_that_dev_needs_are_those_that_its_command_prints(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    make_keys(state, datetime(2026, 1, 1, tzinfo=UTC))
    printed = {
        item["metadata"]["name"]: item["stringData"]
        for item in kubernetes_secrets(state, database="database:5432", valkey="valkey:6379")[
            "items"
        ]
    }
    documents = (*rendered("overlays/dev"), *rendered("overlays/dev/migrations"))
    for name, key in wanted(documents):
        assert name in printed, name
        assert not key or key in printed[name], (name, key)
    managed = named(documents, "Cluster", "postgres")["spec"]["managed"]["roles"]
    assert {role["passwordSecret"]["name"] for role in managed} <= set(printed)


@pytest.mark.parametrize("overlay", ["staging", "production"])
def test_secrets_of_an_overlay_are_in_the_table_of_the_manual(overlay: str) -> None:
    manual = (DEPLOY / "README.md").read_text()
    documents = list(rendered(f"overlays/{overlay}"))
    for beside in BY_HAND:
        documents += rendered(f"overlays/{overlay}/{beside}")
    for secret, key in (*wanted(tuple(documents)), *shown(documents)):
        names = {f"`{secret}`", f"`{secret.removeprefix('database')}`"}
        assert any(name in manual for name in names), secret
        assert key in manual, (secret, key)
