"""Every overlay and combination of components renders, to objects that a cluster would take."""

import functools
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml
from darkbloom_billing.recovery.scratch import scratch_of
from kubernetes_validate import utils as kubernetes_validate
from referencing import Registry, Resource

from tests.contract.deploy.manifests import (
    COMPONENTS,
    DEPLOY,
    NEEDS,
    OVERLAYS,
    Document,
    combinations_of_components,
    everything,
    named,
    rendered,
)

SCHEMAS = DEPLOY / "schemas"
VERSION = "1.37.0"


class UnknownKindError(Exception):
    """Neither Kubernetes nor deploy/schemas knows it."""


@functools.cache
def definitions() -> Registry[Any]:
    text = kubernetes_validate.schema_contents(
        f"kubernetes-json-schema/v{VERSION}-local-strict/_definitions.json", VERSION
    )
    return Resource.from_contents(text) @ Registry()


@functools.cache
def built_in(api_version: str, kind: str) -> jsonschema.Draft202012Validator | None:
    """Return what `kubernetes-validate --strict` judges a kind by, read only once."""
    group, _, version = api_version.rpartition("/")
    if "." in group and not group.endswith(".k8s.io"):
        return None
    name = f"{kind.lower()}-{group.split('.')[0]}-{version}".replace("--", "-")
    path = f"kubernetes-json-schema/v{VERSION}-local-strict/{name}.json"
    try:
        schema = kubernetes_validate.schema_contents(path, VERSION)
    except FileNotFoundError:
        return None
    registry = Resource.from_contents(schema) @ definitions()
    return jsonschema.Draft202012Validator(schema, registry=registry)


@functools.cache
def custom(api_version: str, kind: str) -> jsonschema.Draft202012Validator | None:
    group, _, version = api_version.rpartition("/")
    path = SCHEMAS / f"{group}_{kind.lower()}_{version}.json"
    if not path.exists():
        return None
    return jsonschema.Draft202012Validator(json.loads(path.read_text()))


def judge(document: Document) -> None:
    names = document["apiVersion"], document["kind"]
    validator = built_in(*names) or custom(*names)
    if validator is None:
        raise UnknownKindError(f"{names[0]} {names[1]}")
    validator.validate(document)


def distinct() -> Iterator[tuple[str, Document]]:
    seen = set()
    for name, documents in everything():
        for document in documents:
            text = json.dumps(document, sort_keys=True)
            if text not in seen:
                seen.add(text)
                yield name, document


def test_every_object_of_every_combination_passes_its_schema() -> None:
    judged = 0
    for name, document in distinct():
        try:
            judge(document)
        except (jsonschema.ValidationError, UnknownKindError) as error:
            title = f"{name}: {document['kind']} {document['metadata']['name']}"
            raise AssertionError(f"{title}: {error}") from None
        judged += 1
    assert judged > 100


def test_our_reading_of_the_schemas_is_the_tools_own() -> None:
    for document in rendered("base"):
        assert kubernetes_validate.validate(dict(document), VERSION, strict=True) == "1.37"
        assert built_in(document["apiVersion"], document["kind"]) is not None


def test_an_unknown_kind_and_an_unknown_field_are_refused() -> None:
    unknown = {"apiVersion": "example.org/v1", "kind": "Surprise", "metadata": {"name": "x"}}
    with pytest.raises(UnknownKindError):
        judge(unknown)
    for document in rendered("overlays/production"):
        spoilt = {**document, "surprise": True}
        with pytest.raises(jsonschema.ValidationError):
            judge(spoilt)


def test_each_pair_of_components_is_rendered_in_each_of_its_four_ways() -> None:
    sets = [set(chosen) for chosen in combinations_of_components()]
    for first in COMPONENTS:
        for second in set(COMPONENTS) - {first}:
            ways = {(first in chosen, second in chosen) for chosen in sets}
            impossible = {(True, False)} if second in NEEDS.get(first, ()) else set()
            impossible |= {(False, True)} if first in NEEDS.get(second, ()) else set()
            assert ways >= {(a, b) for a in (True, False) for b in (True, False)} - impossible


def test_the_scratch_cluster_of_a_backup_check_is_one_that_the_operator_takes() -> None:
    live = named(rendered("overlays/production"), "Cluster", "postgres")
    made = scratch_of(live, "backup-check")
    judge(made)
    assert made["spec"]["storage"] == live["spec"]["storage"]
    (source,) = made["spec"]["externalClusters"]
    store = named(rendered("overlays/production"), "ObjectStore", "backups")
    assert source["plugin"]["parameters"]["barmanObjectName"] == store["metadata"]["name"]
    # It reads the archive of the live one, and adds nothing to it; and no room finds it, since
    # services and policies go by a label that pods inherit.
    assert not {"plugins", "inheritedMetadata"} & set(made["spec"])
    assert "inheritedMetadata" in live["spec"]
    with pytest.raises(jsonschema.ValidationError):
        judge({**made, "spec": {**made["spec"], "surprise": True}})


def test_each_custom_kind_has_a_schema_with_its_source_and_each_schema_a_kind() -> None:
    used = {
        f"{d['apiVersion'].rpartition('/')[0]}_{d['kind'].lower()}_{d['apiVersion'].rpartition('/')[2]}"
        for _, d in distinct()
        if built_in(d["apiVersion"], d["kind"]) is None
    }
    assert used == {path.stem for path in SCHEMAS.glob("*.json")}
    for path in SCHEMAS.glob("*.json"):
        assert "written after" in json.loads(path.read_text())["$comment"], path.name


def test_no_two_objects_of_an_overlay_have_one_name() -> None:
    for overlay in OVERLAYS:
        names = [
            (d["apiVersion"], d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"])
            for d in rendered(f"overlays/{overlay}")
        ]
        assert len(names) == len(set(names))


def test_every_object_is_in_the_namespace_or_belongs_to_the_whole_cluster() -> None:
    clusterwide = {
        "Namespace",
        "PriorityClass",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    }
    for name, document in distinct():
        namespace = document["metadata"].get("namespace")
        expected = None if document["kind"] in clusterwide else "darkbloom"
        assert namespace == expected, (name, document["kind"], document["metadata"]["name"])


def test_every_yaml_of_the_tree_is_used_by_a_kustomization() -> None:
    for path in (DEPLOY / "kustomize").rglob("*.yaml"):
        if path.name == "kustomization.yaml":
            continue
        text = (path.parent / "kustomization.yaml").read_text()
        assert path.name in json.dumps(yaml.safe_load(text)), path
