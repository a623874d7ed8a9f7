"""What every pod of ours keeps to, in every overlay and combination."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from darkbloom_billing.cli import cli
from darkbloom_billing.config import BillingConfig
from darkbloom_mesh.config import describe, load
from darkbloom_registry.config import RegistryConfig
from darkbloom_registry.render_child import MEMORY_BYTES
from darkbloom_registry.rendering import AT_ONCE
from typer.testing import CliRunner

from tests.contract.deploy.manifests import (
    OVERLAYS,
    ROOMS,
    ROOT,
    Document,
    combination,
    containers,
    environment,
    everything,
    named,
    pod,
    rendered,
    workloads,
)

# operations §13.3: preStop sleep, drain, termination grace in seconds.
BUDGETS = {
    "gateway": (10, 600, 700),
    "router": (10, 600, 720),
    "billing": (5, 30, 60),
    "attestation": (5, 30, 60),
    "registry": (5, 30, 60),
}
TWO_KEYS = "DARKBLOOM_REGISTRY_TWO_KEYS"
SECRETIVE = re.compile(r"SECRET|PASSWORD|API_KEY|DATABASE_URL|REDIS_URL|TOKEN$|AUTHORIZATION")


def pods() -> Iterator[tuple[str, Document, Mapping[str, Any]]]:
    for name, documents in everything():
        for workload in workloads(documents):
            yield f"{name}: {workload['metadata']['name']}", workload, pod(workload)


def test_nobody_runs_as_root_writes_his_own_image_or_gains_privileges() -> None:
    for name, workload, spec in pods():
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] >= 10_000, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in containers(workload):
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"] is True, name
            assert own["allowPrivilegeEscalation"] is False, name
            assert own["capabilities"] == {"drop": ["ALL"]}, name
            assert "privileged" not in own, name


def test_nobody_shares_the_host_or_gets_a_token_of_the_cluster() -> None:
    for name, _, spec in pods():
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & set(spec), name
        assert all("hostPath" not in volume for volume in spec.get("volumes", ())), name


def test_only_the_check_of_backups_may_ask_kubernetes_and_only_for_two_clusters() -> None:
    asking = {
        workload["metadata"]["name"]
        for _, workload, spec in pods()
        for volume in spec.get("volumes", ())
        for source in volume.get("projected", {}).get("sources", ())
        if "serviceAccountToken" in source
    }
    assert asking == {"backup-check"}
    documents = rendered("overlays/production")
    assert [d["metadata"]["name"] for d in documents if d["kind"] == "Role"] == ["backup-check"]
    assert not [d for d in documents if d["kind"] in {"ClusterRole", "ClusterRoleBinding"}]
    rules = named(documents, "Role", "backup-check")["rules"]
    assert {
        (group, resource, name, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", ["*"])
        for verb in rule["verbs"]
    } == {
        ("postgresql.cnpg.io", "clusters", "postgres", "get"),
        ("postgresql.cnpg.io", "clusters", "backup-check", "get"),
        ("postgresql.cnpg.io", "clusters", "backup-check", "delete"),
        ("postgresql.cnpg.io", "clusters", "*", "create"),
    }


def test_the_check_of_backups_is_told_what_it_takes_and_nobody_who_pays() -> None:
    documents = rendered("overlays/production")
    job = next(w for w in workloads(documents) if w["metadata"]["name"] == "backup-check")
    (container,) = containers(job)
    told = environment(documents, container)
    known = {
        name for row in describe(BillingConfig, "billing") for name in (row.name, *row.aliases)
    }
    assert set(told) <= known
    assert not [name for name in told if "STRIPE" in name]
    done = CliRunner().invoke(cli, [*container["args"], "--help"])
    assert done.exit_code == 0, done.output
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    given = dict(one.split("=") for one in container["args"] if "=" in one)
    assert {given["--heads"], given["--record"], "/run/secrets/kubernetes"} <= mounts
    assert given["--cluster"] == named(documents, "Cluster", "postgres")["metadata"]["name"]
    tries, deletions_s, audit_s = 1 + job["spec"]["backoffLimit"], 2 * 300, 900
    each_s = job["spec"]["activeDeadlineSeconds"] / tries
    assert float(given["--wait-s"]) + deletions_s + audit_s <= each_s
    policy = named(documents, "NetworkPolicy", "postgres-backup-check")["spec"]
    assert policy["podSelector"] == {"matchLabels": {"cnpg.io/cluster": given["--scratch"]}}


def test_the_check_of_backups_goes_by_a_restored_cluster_and_its_copies() -> None:
    documents = combination(("backup-check", "backups", "postgres", "restored"))
    (live,) = [d["metadata"]["name"] for d in documents if d["kind"] == "Cluster"]
    job = next(w for w in workloads(documents) if w["metadata"]["name"] == "backup-check")
    (container,) = containers(job)
    assert f"--cluster={live}" in container["args"]
    assert named(documents, "Role", "backup-check")["rules"][0]["resourceNames"] == [live]
    billing = pod(named(documents, "Deployment", "billing"))["containers"][0]["volumeMounts"]
    seals = {m["mountPath"]: m["subPath"] for m in billing if m["name"] == "records"}
    (own,) = [m for m in container["volumeMounts"] if m["name"] == "records"]
    assert seals[own["mountPath"]] == own["subPath"]


def test_memory_is_bounded_by_what_was_asked_for_and_the_processor_is_not() -> None:
    for name, workload, _ in pods():
        for container in containers(workload):
            resources = container["resources"]
            assert resources["limits"] == {"memory": resources["requests"]["memory"]}, name
            assert "cpu" in resources["requests"], name


def test_a_template_that_fills_its_memory_leaves_the_registry_its_own() -> None:
    (registry,) = pod(named(rendered("base"), "Deployment", "registry"))["containers"]
    limit = registry["resources"]["limits"]["memory"]
    assert limit.endswith("Mi")
    own = (int(limit[:-2]) << 20) - AT_ONCE * MEMORY_BYTES
    # What it had before it rendered anything.
    assert own >= 256 << 20


def test_each_room_runs_under_a_service_account_of_its_own() -> None:
    accounts = [pod(named(rendered("base"), "Deployment", r))["serviceAccountName"] for r in ROOMS]
    assert accounts == list(ROOMS)


def test_every_server_is_probed_and_liveness_asks_nothing_of_others() -> None:
    for name, workload, spec in pods():
        if workload["kind"] == "Job":
            continue
        for container in spec["containers"]:
            start = container["startupProbe"]
            assert start["periodSeconds"] * start["failureThreshold"] >= 60, name
            live = container["livenessProbe"]
            assert live["periodSeconds"] == 10, name
            assert live["failureThreshold"] == 3, name
            ready = container["readinessProbe"]
            assert ready["periodSeconds"] == 5, name


@pytest.mark.parametrize("room", ROOMS)
def test_probes_ask_what_the_room_serves(room: str) -> None:
    documents = rendered("base")
    (container,) = pod(named(documents, "Deployment", room))["containers"]
    live, ready = container["livenessProbe"], container["readinessProbe"]
    if room == "gateway":
        assert (live["httpGet"]["path"], ready["httpGet"]["path"]) == ("/health", "/readyz")
        return
    listens = environment(documents, container)[f"DARKBLOOM_{room.upper()}_HEALTH_LISTEN"]
    port = int(listens.rpartition(":")[2])
    assert live["grpc"] == {"port": port, "service": "liveness"}
    assert ready["grpc"] == {"port": port, "service": "readiness"}
    assert container["startupProbe"]["grpc"] == live["grpc"]


@pytest.mark.parametrize("overlay", ["base", *(f"overlays/{name}" for name in OVERLAYS)])
@pytest.mark.parametrize("room", ROOMS)
def test_a_drain_fits_into_its_budget(room: str, overlay: str) -> None:
    documents = rendered(overlay)
    spec = pod(named(documents, "Deployment", room))
    (container,) = spec["containers"]
    sleep_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    told = environment(documents, container)[f"DARKBLOOM_{room.upper()}_DRAIN_GRACE_S"]
    drain_s, grace_s = float(told), spec["terminationGracePeriodSeconds"]

    assert (sleep_s, drain_s, grace_s) == BUDGETS[room]
    # What closing costs after the drain: stores, traces, the last words of the process.
    assert grace_s - sleep_s - drain_s >= 20


@pytest.mark.parametrize("overlay", ["staging", "production"])
@pytest.mark.parametrize("room", ROOMS)
def test_a_rollout_never_takes_a_replica_before_its_successor_serves(
    room: str, overlay: str
) -> None:
    spec = named(rendered(f"overlays/{overlay}"), "Deployment", room)["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert spec["minReadySeconds"] == 30
    assert spec["progressDeadlineSeconds"] > BUDGETS[room][2]


@pytest.mark.parametrize("room", ROOMS)
def test_evictions_and_nodes_take_one_replica_at_a_time(room: str) -> None:
    documents = rendered("base")
    budget = named(documents, "PodDisruptionBudget", room)["spec"]
    labels = named(documents, "Deployment", room)["spec"]["template"]["metadata"]["labels"]
    assert budget["maxUnavailable"] == 1
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    assert budget["selector"]["matchLabels"].items() <= labels.items()

    spread = pod(named(documents, "Deployment", room))["topologySpreadConstraints"]
    keys = {one["topologyKey"] for one in spread}
    assert keys == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    assert all(one["labelSelector"]["matchLabels"].items() <= labels.items() for one in spread)


@pytest.mark.parametrize("room", ROOMS)
def test_a_service_is_headless_and_names_the_ports_of_its_pods(room: str) -> None:
    documents = rendered("base")
    service = named(documents, "Service", room)["spec"]
    (container,) = pod(named(documents, "Deployment", room))["containers"]
    open_ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert service["clusterIP"] == "None"
    # Callers dial pods: a headless service does not map ports.
    for port in service["ports"]:
        assert port["port"] == open_ports[port["targetPort"]]


@pytest.mark.parametrize("room", ROOMS)
def test_autoscaling_keeps_three_and_goes_down_slowly(room: str) -> None:
    documents = rendered("overlays/production")
    scaled = named(documents, "ScaledObject", room)["spec"]
    down = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert scaled["minReplicaCount"] == 3
    assert down["stabilizationWindowSeconds"] == 900
    assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 300}]
    assert {trigger["type"] for trigger in scaled["triggers"]} > {"cpu"}
    # Two that both set the number would fight.
    assert "replicas" not in named(documents, "Deployment", room)["spec"]


def test_no_secret_is_in_a_manifest() -> None:
    for name, documents in everything():
        for document in documents:
            assert document["kind"] != "Secret", name
            if document["kind"] == "ConfigMap":
                found = [key for key in document["data"] if SECRETIVE.search(key)]
                assert not found, (name, found)
        for workload in workloads(documents):
            for container in containers(workload):
                for variable in container.get("env", ()):
                    if SECRETIVE.search(variable["name"]):
                        assert "secretKeyRef" in variable["valueFrom"], (name, variable["name"])


def test_production_names_every_image_of_others_by_digest_and_refuses_any_without() -> None:
    documents = rendered("overlays/production")
    images = [c["image"] for workload in workloads(documents) for c in containers(workload)]
    images.append(named(documents, "Cluster", "postgres")["spec"]["imageName"])
    ours = tuple(f"darkbloom-{room}:" for room in ROOMS)
    pinned = re.compile(r"^[a-z0-9./-]+@sha256:[0-9a-f]{64}$")
    assert [i for i in images if not pinned.match(i) and not i.startswith(ours)] == []
    policy = named(documents, "ValidatingAdmissionPolicy", "darkbloom-digests")
    assert "@sha256:" in policy["spec"]["validations"][0]["expression"]


def test_prompts_are_on_confidential_nodes_and_nobody_looks_inside() -> None:
    documents = rendered("overlays/production")
    affinity = pod(named(documents, "Deployment", "gateway"))["affinity"]["nodeAffinity"]
    terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    keys = [rule["key"] for term in terms for rule in term["matchExpressions"]]
    assert keys == ["darkbloom.dev/confidential"]
    policy = named(documents, "ValidatingAdmissionPolicy", "darkbloom-no-looking-inside")["spec"]
    watched = {r for rule in policy["matchConstraints"]["resourceRules"] for r in rule["resources"]}
    assert watched >= {"pods/exec", "pods/attach", "pods/ephemeralcontainers"}
    (rule,) = policy["validations"]
    name = named(documents, "Deployment", "gateway")["metadata"]["name"]
    assert rule["expression"] == f"!request.name.startsWith('{name}-')"


@pytest.mark.parametrize("overlay", ["staging", "production"])
def test_what_is_served_changes_when_two_people_say_so(overlay: str) -> None:
    documents = rendered(f"overlays/{overlay}")
    (container,) = pod(named(documents, "Deployment", "registry"))["containers"]
    told = environment(documents, container)
    environ = {name: value for name, value in told.items() if name == TWO_KEYS}
    given = {"DARKBLOOM_ENV": "development", "DATABASE_URL": "postgresql://database/darkbloom"}
    config = load(RegistryConfig, "registry", given | environ)
    assert config.two_keys is True
    for page in ("docs/publishing.md", "docs/operations/runbooks/operators.md"):
        assert "second" in (ROOT / page).read_text(), page
    assert f"`{TWO_KEYS}`" in (ROOT / "docs" / "publishing.md").read_text()


def test_migrations_run_to_an_end_and_as_the_owner_of_the_schema() -> None:
    documents = rendered("migrations")
    jobs = {job["metadata"]["name"]: job for job in workloads(documents)}
    assert set(jobs) == {f"migrate-{room}" for room in ROOMS if room != "gateway"}
    for name, job in jobs.items():
        assert job["spec"]["activeDeadlineSeconds"] <= 900, name
        assert pod(job)["restartPolicy"] == "Never", name
        assert pod(job)["containers"][0]["args"] == ["migrate"], name
        assert (
            "--new"
            not in pod(named(rendered("overlays/production/migrations"), "Job", name))[
                "containers"
            ][0]["args"]
        ), name
    first_day = {
        job["metadata"]["name"]: pod(job)["containers"][0]["args"]
        for job in workloads(rendered("overlays/production/new-mesh"))
    }
    assert first_day == {name: ["migrate", "--new"] for name in jobs}
    (variable,) = [
        one
        for one in pod(jobs["migrate-billing"])["containers"][0]["env"]
        if one["name"] == "DATABASE_URL"
    ]
    assert variable["valueFrom"]["secretKeyRef"]["name"] == "database-billing-owner"
