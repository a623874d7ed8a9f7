"""What manifests tell a room is what the room reads: each variable is known, each value parses."""

import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from darkbloom_mesh.config import ConfigError, RoomConfig, describe, load

from tests.contract.deploy.manifests import (
    OVERLAYS,
    ROOMS,
    containers,
    environment,
    everything,
    named,
    pod,
    rendered,
    workloads,
)
from tests.contract.test_environment_tables import config_of

# What a variable is that comes from a secret or from the pod; the shape is the room's own.
GIVEN = {
    "DATABASE_URL": "postgresql://room:word@postgres-rw:5432/darkbloom",
    "REDIS_URL": "redis://valkey:6379",
}
# Of command lines, which a person runs beside a room, and of Python.
OTHERS = {
    "DARKBLOOM_ADMIN_TARGET",
    "DARKBLOOM_PUBLISH_TARGET",
    "DARKBLOOM_RELEASE_TARGET",
    "TMPDIR",
}
REFERENCE = re.compile(r"\$\((\w+)\)")


def room_of(container: Mapping[str, Any]) -> str:
    return str(container["image"]).rpartition("/")[2].removeprefix("darkbloom-").partition(":")[0]


@pytest.mark.parametrize("room", ROOMS)
def test_every_variable_of_every_combination_is_one_that_the_room_reads(room: str) -> None:
    rows = describe(config_of(room), room)
    known = OTHERS | {name for row in rows for name in (row.name, *row.aliases)}
    judged = 0
    for name, documents in everything():
        for workload in workloads(documents):
            for container in pod(workload)["containers"]:
                if room_of(container) != room:
                    continue
                told = environment(documents, container)
                used = {used for value in told.values() for used in REFERENCE.findall(value)}
                assert set(told) - used <= known, (name, set(told) - used - known)
                assert used <= set(told), name
                judged += 1
    assert judged > len(OVERLAYS)


@pytest.mark.parametrize("overlay", ["base", *(f"overlays/{name}" for name in OVERLAYS)])
@pytest.mark.parametrize("room", ROOMS)
def test_a_room_takes_its_configuration(room: str, overlay: str, tmp_path: Path) -> None:
    documents = rendered(overlay)
    (container,) = pod(named(documents, "Deployment", room))["containers"]
    told = environment(documents, container)
    environ = {name: GIVEN.get(name, value) for name, value in told.items()}
    # Files are judged by the rooms' own tests; here their variables only have to be known.
    environ = {
        name: value
        for name, value in environ.items()
        if value != "?"
        and not name.endswith(("_KEY_FILE", "_KEYS_FILE", "_ISSUERS_FILE"))
        and not name.startswith(("DARKBLOOM_TLS_", "DARKBLOOM_TRUST_"))
    }
    token = tmp_path / "token"
    token.write_text("t" * 64)
    environ["DARKBLOOM_MESH_TOKEN_FILE"] = str(token)

    config = load(config_of(room), room, environ)

    assert isinstance(config, RoomConfig)
    assert config.metrics_listen == "0.0.0.0:9090"
    assert config.environment == ("development" if overlay == "overlays/dev" else "production")


@pytest.mark.parametrize("overlay", ["staging", "production"])
@pytest.mark.parametrize("room", ROOMS)
def test_nothing_is_left_to_a_default_that_means_this_machine(room: str, overlay: str) -> None:
    documents = rendered(f"overlays/{overlay}")
    (container,) = pod(named(documents, "Deployment", room))["containers"]
    told = environment(documents, container)
    here = re.compile(r"localhost|127\.0\.0\.1")
    assert not [name for name, value in told.items() if here.search(value)]
    for row in describe(config_of(room), room):
        neighbour = row.name.endswith("_TARGET")
        if neighbour or here.search(row.default):
            assert told.keys() & {row.name, *row.aliases}, row.name


def test_a_variable_that_no_room_reads_would_stop_it() -> None:
    config = import_module("darkbloom_registry.config").RegistryConfig
    with pytest.raises(ConfigError, match="DARKBLOOM_REGISTRY_LISTENS: unknown variable"):
        load(config, "registry", {"DARKBLOOM_REGISTRY_LISTENS": "x", **GIVEN})


def test_every_file_that_a_room_is_told_of_is_mounted() -> None:
    for name, documents in everything():
        for workload in workloads(documents):
            for container in pod(workload)["containers"]:
                mounted = tuple(mount["mountPath"] for mount in container.get("volumeMounts", ()))
                for variable, value in environment(documents, container).items():
                    if value.startswith("/"):
                        assert value.startswith(mounted), (name, variable)


def test_every_mount_has_its_volume_and_every_volume_a_mount() -> None:
    for name, documents in everything():
        for workload in workloads(documents):
            volumes = {volume["name"] for volume in pod(workload).get("volumes", ())}
            mounts = {m["name"] for c in containers(workload) for m in c.get("volumeMounts", ())}
            assert volumes == mounts, (name, workload["metadata"]["name"])
