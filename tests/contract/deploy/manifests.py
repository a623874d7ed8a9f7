"""What the kustomizations render to, by the real kustomize inside kubectl, each once."""

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
KUSTOMIZE = DEPLOY / "kustomize"
OVERLAYS = ("dev", "staging", "production")
COMPONENTS = tuple(sorted(path.name for path in (KUSTOMIZE / "components").iterdir()))
ROOMS = ("gateway", "router", "billing", "attestation", "registry")
NEEDS = {
    "backup-check": {"backups", "postgres"},
    "backups": {"postgres"},
    "mtls-exchange": {"mtls"},
    "restored": {"backups", "postgres"},
}
# What a person applies beside an overlay.
BY_HAND = ("migrations", "restore", "recover", "operator")
_RENDER_S = 60

Document = Mapping[str, Any]


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML as Kubernetes reads it."""


# `=` is text there (https://github.com/yaml/pyyaml/issues/89).
Loader.add_constructor("tag:yaml.org,2002:value", Loader.construct_yaml_str)


def kubectl() -> str:
    """Return the program; it is a development package on Linux, elsewhere a matter of PATH."""
    beside = Path(sys.executable).with_name("kubectl")
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    if found is None:
        if sys.platform == "linux":
            pytest.fail("kubectl is missing: make install")
        pytest.skip("kubectl is not installed here")
    return found


def render(directory: Path) -> str:
    """Return what a kustomization renders to."""
    done = subprocess.run(
        [kubectl(), "kustomize", str(directory)],
        capture_output=True,
        text=True,
        timeout=_RENDER_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # A warning is about a field that the next version will not know.
    assert done.stderr == "", done.stderr
    return done.stdout


@functools.cache
def rendered(kustomization: str) -> tuple[Document, ...]:
    """Return the documents of a directory below `kustomize/`."""
    return parsed(render(KUSTOMIZE / kustomization))


def parsed(text: str) -> tuple[Document, ...]:
    """Return the documents of a YAML text."""
    return tuple(found for found in yaml.load_all(text, Loader) if found)


@functools.cache
def combination(components: tuple[str, ...]) -> tuple[Document, ...]:
    """Return the base with some components."""
    with tempfile.TemporaryDirectory() as scratch:
        here = Path(scratch).resolve()

        def relative(path: Path) -> str:
            return os.path.relpath(path, here)

        listed = [relative(KUSTOMIZE / "components" / name) for name in components]
        document = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [relative(KUSTOMIZE / "base")],
            "components": listed,
        }
        (here / "kustomization.yaml").write_text(yaml.safe_dump(document))
        return parsed(render(here))


def combinations_of_components() -> Iterator[tuple[str, ...]]:
    """Yield each component alone, all together, and seven sets in which each two of them are
    both there, both missing, and either one alone (Kleitman and Spencer's arrays).
    """
    yield ()
    for name in COMPONENTS:
        yield with_needs({name})
    yield COMPONENTS
    columns = list(combinations(range(6), 4))
    assert len(COMPONENTS) <= len(columns)
    for row in range(6):
        chosen = {name for name, column in zip(COMPONENTS, columns, strict=False) if row in column}
        yield with_needs(chosen)


def with_needs(components: set[str]) -> tuple[str, ...]:
    """Return components with those that they cannot be without, in the order of overlays."""
    needed = set().union(*(NEEDS.get(name, set()) for name in components))
    # Images come last: they name what all others bring.
    return tuple(sorted(components | needed, key=lambda name: (name == "images", name)))


def everything() -> Iterator[tuple[str, tuple[Document, ...]]]:
    """Yield all that can be rendered, by name."""
    yield "base", rendered("base")
    yield "migrations", rendered("migrations")
    for name in OVERLAYS:
        yield name, rendered(f"overlays/{name}")
        for beside in BY_HAND:
            if (KUSTOMIZE / "overlays" / name / beside).exists():
                yield f"{name}/{beside}", rendered(f"overlays/{name}/{beside}")
    for components in combinations_of_components():
        yield "+".join(("base", *components)), combination(components)


def workloads(documents: tuple[Document, ...]) -> Iterator[Document]:
    """Yield whatever makes pods; of a CronJob the job that it makes."""
    for document in documents:
        if document["kind"] == "CronJob":
            spec = document["spec"]["jobTemplate"]["spec"]
            yield {"kind": "Job", "metadata": document["metadata"], "spec": spec}
        if document["kind"] in {"Deployment", "StatefulSet", "DaemonSet", "Job"}:
            yield document


def named(documents: tuple[Document, ...], kind: str, name: str) -> Document:
    """Return one document."""
    found = [d for d in documents if (d["kind"], d["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1, (kind, name, len(found))
    return found[0]


def pod(workload: Document) -> Mapping[str, Any]:
    """Return the pod of a workload."""
    spec: Mapping[str, Any] = workload["spec"]["template"]["spec"]
    return spec


def containers(workload: Document) -> list[Mapping[str, Any]]:
    """Return all containers, those that come first included."""
    spec = pod(workload)
    return [*spec.get("initContainers", ()), *spec["containers"]]


def environment(documents: tuple[Document, ...], container: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables of a container; what a secret or the pod itself says is `?`."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= named(documents, "ConfigMap", source["configMapRef"]["name"])["data"]
    for variable in container.get("env", ()):
        found[variable["name"]] = variable.get("value", "?")
    return found
