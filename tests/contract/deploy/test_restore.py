"""A restore: a new cluster that rooms reach like the old one, and billing's steps on it."""

from typing import Any

import pytest
import yaml

from tests.contract.deploy.manifests import (
    KUSTOMIZE,
    ROOT,
    Document,
    combination,
    environment,
    named,
    pod,
    rendered,
)

COMPONENT = KUSTOMIZE / "components" / "restored" / "kustomization.yaml"
RUNBOOK = ROOT / "docs" / "operations" / "runbooks" / "restore.md"
OVERLAYS = ("staging", "production")
NEW = "postgres-restored"


def clusters(documents: tuple[Document, ...]) -> list[Document]:
    return [d for d in documents if d["kind"] == "Cluster"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_restored_cluster_is_the_old_one_but_for_its_name_and_its_beginning(overlay: str) -> None:
    (old,) = clusters(rendered(f"overlays/{overlay}"))
    (new,) = clusters(rendered(f"overlays/{overlay}/restore"))
    assert new["metadata"]["name"] == NEW
    differs = {"bootstrap", "externalClusters"}
    assert {k: v for k, v in new["spec"].items() if k not in differs} == {
        k: v for k, v in old["spec"].items() if k not in differs
    }
    recovery = new["spec"]["bootstrap"]["recovery"]
    (source,) = [
        one for one in new["spec"]["externalClusters"] if one["name"] == recovery["source"]
    ]
    # The archive of the old one, under the old one's name: its own is another folder.
    parameters = source["plugin"]["parameters"]
    assert parameters["serverName"] == old["metadata"]["name"]
    here = rendered(f"overlays/{overlay}/restore")
    there = rendered(f"overlays/{overlay}")
    name = parameters["barmanObjectName"]
    assert named(here, "ObjectStore", name) == named(there, "ObjectStore", name)
    assert named(here, "ScheduledBackup", "nightly")["spec"]["cluster"] == {"name": NEW}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_whatever_a_cluster_is_called_policies_mean_its_pods(overlay: str) -> None:
    (new,) = clusters(rendered(f"overlays/{overlay}/restore"))
    labels = new["spec"]["inheritedMetadata"]["labels"].items()
    selected: list[Any] = []
    for document in (*rendered(f"overlays/{overlay}"), *rendered(f"overlays/{overlay}/recover")):
        name = document["metadata"]["name"]
        # A check of backups means its scratch cluster, and must not reach another.
        if document["kind"] != "NetworkPolicy" or name == "backup-check":
            continue
        if name == "postgres":
            selected.append(document["spec"]["podSelector"]["matchLabels"])
        for rule in document["spec"].get("egress", ()):
            if 5432 in {port["port"] for port in rule["ports"]}:
                selected += [peer["podSelector"]["matchLabels"] for peer in rule["to"]]
    assert len(selected) >= 6
    assert all(one.items() <= labels for one in selected), selected


def test_the_service_that_rooms_dial_moves_to_the_restored_cluster() -> None:
    def primary(name: str) -> dict[str, str]:
        return {"cnpg.io/cluster": name, "cnpg.io/instanceRole": "primary"}

    before = named(rendered("overlays/production"), "Service", "database")["spec"]
    after = named(rendered("overlays/production/restore"), "Service", "database")["spec"]
    assert (before["selector"], after["selector"]) == (primary("postgres"), primary(NEW))
    assert before["ports"] == after["ports"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_one_line_says_the_moment_to_the_cluster_and_to_billing(overlay: str) -> None:
    (new,) = clusters(rendered(f"overlays/{overlay}/restore"))
    moment = new["spec"]["bootstrap"]["recovery"]["recoveryTarget"]["targetTime"]
    job = named(rendered(f"overlays/{overlay}/recover"), "Job", "recover")
    args = pod(job)["containers"][0]["args"]
    assert args[args.index("--to") + 1] == moment
    # Before any backup: who forgets to say it gets an error, not some other moment.
    assert moment.startswith("1970")
    assert COMPONENT.read_text().count(moment) == 1


def test_billings_steps_see_the_old_seals_and_begin_the_new_where_billing_goes_on() -> None:
    job = named(rendered("overlays/production/recover"), "Job", "recover")
    (steps,) = pod(job)["containers"]
    told = environment(rendered("overlays/production/recover"), steps)

    def folder(container: Any, path: str) -> tuple[str, str]:
        (mount,) = [one for one in container["volumeMounts"] if one["mountPath"] == path]
        return mount["name"], mount["subPath"]

    def billing(documents: tuple[Document, ...]) -> Any:
        (container,) = pod(named(documents, "Deployment", "billing"))["containers"]
        return container

    before = billing(rendered("overlays/production"))
    after = billing(combination(("backups", "postgres", "restored")))
    seals = environment(rendered("overlays/production"), before)["DARKBLOOM_BILLING_SEAL_DIRECTORY"]
    args = steps["args"]
    heads = args[args.index("--heads") + 1]
    assert folder(steps, heads) == folder(before, seals)
    fresh = told["DARKBLOOM_BILLING_SEAL_DIRECTORY"]
    assert folder(steps, fresh) == folder(after, seals) != folder(before, seals)
    erasures = args[args.index("--erasures") + 1]
    assert folder(steps, erasures) == folder(before, told["DARKBLOOM_BILLING_ERASURE_DIRECTORY"])
    assert steps["image"] == before["image"]
    assert "--void-all" in args
    # A second try is a person's decision.
    assert job["spec"]["backoffLimit"] == 0


def test_after_a_restore_the_weekly_check_proves_what_is_archived_now() -> None:
    documents = combination(("backup-check", "backups", "postgres", "restored"))
    job = named(documents, "CronJob", "backup-check")["spec"]["jobTemplate"]["spec"]
    (check,) = job["template"]["spec"]["containers"]
    assert [one for one in check["args"] if one.startswith("--cluster=")] == [f"--cluster={NEW}"]
    (billing,) = pod(named(documents, "Deployment", "billing"))["containers"]
    folders = [
        {mount.get("subPath") for mount in one["volumeMounts"] if mount["name"] == "records"}
        for one in (check, billing)
    ]
    assert folders[0] <= folders[1]
    rules = named(documents, "Role", "backup-check")["rules"]
    assert [NEW] in [rule.get("resourceNames") for rule in rules]
    assert ["postgres"] not in [rule.get("resourceNames") for rule in rules]


def test_who_counts_the_names_up_finds_each_change_once() -> None:
    patches = yaml.safe_load(COMPONENT.read_text())["patches"]
    changed: list[tuple[str, str, str]] = []
    for one in patches:
        kind, name = one["target"]["kind"], one["target"]["name"]
        content = yaml.safe_load(one["patch"])
        paths = [step["path"] for step in content] if isinstance(content, list) else ["merged"]
        changed += [(kind, name, path) for path in paths]
    for path in changed:
        # Neither the same field twice, nor a list and an item of it.
        assert [other for other in changed if below(other, path)] == [path]
    check = [one["patch"] for one in patches if one["target"]["name"] == "backup-check"]
    assert "".join(check).count(NEW) == 2
    assert "".join(check).count("seals-restored") == 1


def below(one: tuple[str, str, str], other: tuple[str, str, str]) -> bool:
    return one[:2] == other[:2] and (one[2] + "/").startswith(other[2] + "/")


def test_what_only_speaks_to_replacements_is_never_applied() -> None:
    both = (*rendered("overlays/production/restore"), *rendered("overlays/production/recover"))
    for document in (*both, *combination(("mtls", "mtls-exchange"))):
        said = document["metadata"].get("annotations", {})
        assert "config.kubernetes.io/local-config" not in said
        assert (document["kind"], document["metadata"]["name"]) not in {
            ("ConfigMap", "moment"),
            ("ConfigMap", "believed"),
        }


def test_no_replacement_wants_more_than_an_older_kubectl_knows() -> None:
    files = list(KUSTOMIZE.rglob("kustomization.yaml"))
    assert COMPONENT in files
    # kubectl 1.32 refuses the whole file for it.
    assert [file for file in files if "sourceValue" in file.read_text()] == []


def test_the_steps_reach_the_database_and_stripe_alone() -> None:
    policy = named(rendered("overlays/production/recover"), "NetworkPolicy", "recover")["spec"]
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {5432, 443}
    assert "ingress" not in policy
    store = named(rendered("overlays/production/restore"), "NetworkPolicy", "postgres")["spec"]
    callers = [peer["podSelector"]["matchLabels"] for peer in store["ingress"][0]["from"]]
    labels = named(rendered("overlays/production/recover"), "Job", "recover")["spec"]["template"]
    assert any(one.items() <= labels["metadata"]["labels"].items() for one in callers)


def test_the_runbook_gives_each_command() -> None:
    text = RUNBOOK.read_text()
    for overlay in ("restore", "recover"):
        assert f"kubectl apply -k deploy/kustomize/overlays/production/{overlay}" in text
    assert "deploy/kustomize/components/restored/kustomization.yaml" in text
