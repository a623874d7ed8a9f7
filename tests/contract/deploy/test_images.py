"""Images: named in one place, by digest, and made of hashed packages by an unprivileged user."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.contract.deploy.manifests import (
    DEPLOY,
    ROOMS,
    ROOT,
    environment,
    named,
    parsed,
    pod,
    render,
)
from tools.images import component

DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
IMAGES = dict(
    line.split("=", 1)
    for line in (DEPLOY / "images.env").read_text().splitlines()
    if line and not line.startswith("#")
)
OURS = ("gateway", "router", "billing", "attestation", "registry", "local")


def instructions() -> list[list[str]]:
    """Return the instructions of the Dockerfile, continued lines joined."""
    joined = re.sub(r"\\\n", " ", DOCKERFILE)
    lines = (line for line in joined.splitlines() if line.strip() and not line.startswith("#"))
    return [line.split(None, 1) for line in lines]


def test_the_dockerfile_and_the_component_say_what_the_list_says() -> None:
    done = subprocess.run(
        [sys.executable, "tools/images.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def gateway_of(images: dict[str, str], scratch: Path) -> tuple[str, str | None]:
    """Return the image of a gateway, and what digest it says of itself."""
    (scratch / "images").mkdir(parents=True)
    (scratch / "images" / "kustomization.yaml").write_text(component(images))
    base = os.path.relpath(DEPLOY / "kustomize" / "base", scratch.resolve())
    (scratch / "kustomization.yaml").write_text(
        f"apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
        f"resources: [{base}]\ncomponents: [images]\n"
    )
    documents = parsed(render(scratch))
    (gateway,) = pod(named(documents, "Deployment", "gateway"))["containers"]
    return gateway["image"], environment(documents, gateway).get("DARKBLOOM_IMAGE_DIGEST")


def test_a_gateway_says_the_digest_that_it_is_pinned_to_and_none_without(tmp_path: Path) -> None:
    digest = "sha256:" + "5a" * 32
    pinned = IMAGES | {"GATEWAY_IMAGE": f"registry.example/gateway:1.0@{digest}"}
    image, said = gateway_of(pinned, tmp_path / "pinned")
    assert (image, said) == (f"registry.example/gateway@{digest}", digest)

    tagged = IMAGES | {"GATEWAY_IMAGE": "registry.example/gateway:1.0"}
    assert gateway_of(tagged, tmp_path / "tagged") == ("registry.example/gateway:1.0", None)


def test_images_of_others_are_pinned_by_digest() -> None:
    ours = {f"{name.upper()}_IMAGE" for name in OURS}
    assert ours < set(IMAGES)
    for name, reference in IMAGES.items():
        if name not in ours:
            assert re.fullmatch(r"[a-z0-9./-]+:[\w.-]+@sha256:[0-9a-f]{64}", reference), name


def test_every_stage_stands_on_the_one_base() -> None:
    found = instructions()
    assert [words[1].split()[0] for words in found if words[0] == "FROM"] == ["${PYTHON_IMAGE}"] * 2
    bases = [words[1] for words in found if words[0] == "ARG" and "PYTHON_IMAGE" in words[1]]
    assert bases == [f"PYTHON_IMAGE={IMAGES['PYTHON_IMAGE']}"]


def test_the_last_user_is_nobody_in_particular_and_nothing_comes_from_elsewhere() -> None:
    found = instructions()
    assert [words[1] for words in found if words[0] == "USER"] == ["10001:10001"]
    assert "ADD" not in {words[0] for words in found}
    assert not re.search(r"\b(curl|wget|apt-get|git clone)\b", DOCKERFILE)
    assert found[-1] == ["ENTRYPOINT", '["room"]']


def test_every_package_of_others_comes_with_its_hashes() -> None:
    (installs,) = [words[1] for words in instructions() if "--require-hashes" in words[-1]]
    for command in installs.split("&&"):
        assert "--require-hashes --no-deps" in command
    for room in (*OURS, "build"):
        text = (DEPLOY / "requirements" / f"{room}.txt").read_text()
        packages = [line for line in text.splitlines() if re.match(r"[a-z0-9]", line)]
        assert packages, room
        assert not [line for line in packages if not re.match(r"[a-z0-9._\[\]-]+==\S+ ", line)]
        assert text.count("--hash=sha256:") >= len(packages), room
        # A name of ours asked of an index could be a stranger's package.
        assert not [line for line in packages if line.startswith("darkbloom")], room


@pytest.mark.parametrize("room", OURS)
def test_an_image_has_the_room_and_what_of_ours_it_needs(room: str) -> None:
    head = (DEPLOY / "requirements" / f"{room}.txt").read_text().splitlines()[0]
    paths = shlex.split(head.removeprefix("# ours: "))
    own = "./deploy/local" if room == "local" else f"./services/{room}"
    assert paths[-1] == own
    have = {
        tomllib.loads((ROOT / p / "pyproject.toml").read_text())["project"]["name"] for p in paths
    }
    for path in paths:
        project = tomllib.loads((ROOT / path / "pyproject.toml").read_text())["project"]
        ours = (name.partition("[")[0] for name in project["dependencies"])
        needs = {name for name in ours if name.startswith("darkbloom-")}
        assert needs <= have, path
    if room != "local":
        others = {f"darkbloom-{other}" for other in ROOMS} - {f"darkbloom-{room}"}
        assert not have & others
