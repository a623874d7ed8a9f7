"""The pod for people's commands: what runbooks call is there, reaches its room, and may."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from darkbloom_mesh.config import RoomConfig, load

from tests.contract.deploy.manifests import (
    BY_HAND,
    DEPLOY,
    ROOMS,
    ROOT,
    Document,
    environment,
    named,
    pod,
    rendered,
)
from tests.contract.deploy.test_environment import GIVEN, room_of
from tests.contract.test_environment_tables import config_of

OVERLAY = "overlays/production/operator"
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), DEPLOY / "README.md"]
TARGETS = {"billing": 7102, "attestation": 7103, "registry": 7104, "router": 7411, "postgres": 5432}


def job() -> Document:
    return named(rendered(OVERLAY), "Job", "operator")


def its_containers() -> dict[str, Any]:
    return {one["name"]: one for one in pod(job())["containers"]}


def commands() -> Iterator[tuple[str, str, str]]:
    """Yield page, container and command of each line that runs something in the pod."""
    found = re.compile(r"job/operator -c (\S+) -- ([^`\n]+)")
    for page in PAGES:
        for container, command in found.findall(page.read_text()):
            yield page.name, container, command


def test_every_command_of_a_page_is_in_the_image_of_its_container() -> None:
    judged = set()
    for page, container, command in commands():
        room = room_of(its_containers()[container])
        words = command.split()
        if words[:2] == ["python", "-m"]:
            assert words[2] == f"darkbloom_{room}", (page, command)
        else:
            text = (ROOT / "services" / room / "pyproject.toml").read_text()
            assert words[0] in tomllib.loads(text)["project"]["scripts"], (page, command)
        judged.add(container)
    assert judged == set(its_containers())


@pytest.mark.parametrize("container", sorted(its_containers()))
def test_a_command_takes_what_its_container_is_told(container: str, tmp_path: Path) -> None:
    asked = its_containers()[container]
    room = room_of(asked)
    told = environment(rendered(OVERLAY), asked)
    # Files are judged where they are; here their variables only have to be known.
    assert set(told) >= {f"DARKBLOOM_TLS_{name}_FILE" for name in ("CERT", "KEY", "CA")}
    environ = {name: GIVEN.get(name, value) for name, value in told.items() if "_TLS_" not in name}
    token = tmp_path / "token"
    token.write_text("t" * 64)
    environ["DARKBLOOM_MESH_TOKEN_FILE"] = str(token)
    assert isinstance(load(RoomConfig, "operator", environ), RoomConfig)
    if "DATABASE_URL" in told:
        assert load(config_of(room), room, environ)


def test_nobodys_token_is_in_the_pod_and_it_ends_by_itself() -> None:
    for name, container in its_containers().items():
        told = environment(rendered(OVERLAY), container)
        assert not [v for v in told if v.endswith(("_ADMIN_TOKEN_FILE", "_PUBLISHING_KEY_FILE"))]
        secrets = [
            one["valueFrom"]["secretKeyRef"]["name"]
            for one in container["env"]
            if "valueFrom" in one
        ]
        # The owner of the books is in one container, where nothing else is done.
        assert ("database-billing-owner" in secrets) == (name == "owner")
    assert job()["spec"]["activeDeadlineSeconds"] <= 4 * 3600
    assert job()["spec"]["ttlSecondsAfterFinished"] <= 60


def test_it_is_an_operator_in_its_certificate() -> None:
    (volume,) = [one["csi"] for one in pod(job())["volumes"] if "csi" in one]
    said = volume["volumeAttributes"]
    room = pod(named(rendered("overlays/production"), "Deployment", "billing"))
    (other,) = [one["csi"]["volumeAttributes"] for one in room["volumes"] if "csi" in one]
    for key, value in other.items():
        assert said[key] == value.replace("billing", "operator"), key


def test_both_sides_let_it_reach_what_it_is_told_of_and_nothing_calls_it() -> None:
    out = named(rendered(OVERLAY), "NetworkPolicy", "operator")["spec"]
    assert "ingress" not in out
    reached = {
        (next(iter(peer["podSelector"]["matchLabels"].values())), port["port"])
        for rule in out["egress"]
        for peer in rule["to"]
        if "podSelector" in peer
        for port in rule["ports"]
    }
    assert reached == set(TARGETS.items())

    into = named(rendered(OVERLAY), "NetworkPolicy", "operator-calls")["spec"]
    (selector,) = into["podSelector"]["matchExpressions"]
    assert set(selector["values"]) == set(TARGETS) - {"postgres"} <= set(ROOMS)
    (rule,) = into["ingress"]
    labels = job()["spec"]["template"]["metadata"]["labels"].items()
    assert all(one["podSelector"]["matchLabels"].items() <= labels for one in rule["from"])
    ports = {port["port"] for port in rule["ports"]}
    assert ports == {port for name, port in TARGETS.items() if name != "postgres"}
    store = named(rendered("overlays/production"), "NetworkPolicy", "postgres")["spec"]
    callers = [one["podSelector"]["matchLabels"] for one in store["ingress"][0]["from"]]
    assert any(one.items() <= labels for one in callers)
    dialled = {
        value
        for container in its_containers().values()
        for name, value in environment(rendered(OVERLAY), container).items()
        if name.endswith("_TARGET")
    }
    assert dialled <= {f"{name}:{port}" for name, port in TARGETS.items()}


def test_what_a_page_applies_is_an_overlay() -> None:
    applied = set()
    for page in PAGES:
        for path in re.findall(r"kubectl (?:apply|diff|kustomize) -k (\S+)", page.read_text()):
            directory = ROOT / path.rstrip("`;,.)")
            assert (directory / "kustomization.yaml").exists(), (page.name, path)
            applied.add(directory.name)
    assert applied >= {*BY_HAND, "production"}


@pytest.mark.skipif(not os.path.exists("/dev/stdin"), reason="no /dev/stdin")  # noqa: PTH110 - a link to a pipe is broken to pathlib
def test_a_token_comes_in_by_stdin_and_touches_no_disk() -> None:
    program = (
        "from pathlib import Path; from darkbloom_billing.admin.cli.desk import read_token;"
        "from darkbloom_registry.cli.desk import secret;"
        "import sys; which = {'admin': read_token, 'publish': secret}[sys.argv[1]];"
        "print(which(Path('/dev/stdin')).reveal())"
    )
    for which in ("admin", "publish"):
        done = subprocess.run(
            [sys.executable, "-c", program, which],
            input="token-of-mine\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout == "token-of-mine\n"
