"""Write what deploy/images.env says into the Dockerfile and the kustomize component, or `--check`.

`python tools/images.py GATEWAY_IMAGE=registry.example/darkbloom-gateway@sha256:…` changes the file
first; a release pipeline calls it with what it has pushed.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
LIST = DEPLOY / "images.env"
DOCKERFILE = DEPLOY / "Dockerfile"
COMPONENT = DEPLOY / "kustomize" / "components" / "images" / "kustomization.yaml"

# What manifests call an image, and whose line stands for it.
NAMES = {
    "darkbloom-gateway": "GATEWAY_IMAGE",
    "darkbloom-router": "ROUTER_IMAGE",
    "darkbloom-billing": "BILLING_IMAGE",
    "darkbloom-attestation": "ATTESTATION_IMAGE",
    "darkbloom-registry": "REGISTRY_IMAGE",
    "darkbloom-local": "LOCAL_IMAGE",
    "postgresql": "POSTGRESQL_IMAGE",
    "valkey": "VALKEY_IMAGE",
    "collector": "COLLECTOR_IMAGE",
}
HEAD = """\
# Which image each name stands for. Written by tools/images.py from deploy/images.env.
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
images:
"""
# What a gateway says of itself (docs/confidential-gateway.md), where its image is pinned.
SAID = """\
patches:
  - target: {{kind: Deployment, name: gateway}}
    patch: |-
      - op: add
        path: /spec/template/spec/containers/0/env/-
        value: {{name: DARKBLOOM_IMAGE_DIGEST, value: "{digest}"}}
"""
_REFERENCE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9./:_-]*?)(:(?P<tag>[\w.-]+))?(@(?P<digest>sha256:[0-9a-f]{64}))?"
)


def listed(text: str) -> dict[str, str]:
    """Return the references of images.env by name."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


def component(images: dict[str, str]) -> str:
    """Return the kustomize component; a digest wins over its tag."""
    entries, said = [], ""
    for name, variable in NAMES.items():
        found = _REFERENCE.fullmatch(images[variable])
        if found is None:
            raise SystemExit(f"images: {variable} is no reference of an image")
        # Quoted: 1.0 would be a number.
        which = f'newTag: "{found["tag"] or "latest"}"'
        if found["digest"]:
            which = f"digest: {found['digest']}"
            if variable == "GATEWAY_IMAGE":
                said = SAID.format(digest=found["digest"])
        entries.append(f"  - name: {name}\n    newName: {found['name']}\n    {which}\n")
    return HEAD + "".join(entries) + said


def dockerfile(images: dict[str, str], text: str) -> str:
    """Return the Dockerfile with the base image of the list."""
    return re.sub(r"(?m)^ARG PYTHON_IMAGE=.*$", f"ARG PYTHON_IMAGE={images['PYTHON_IMAGE']}", text)


def changed(text: str, changes: list[str]) -> str:
    """Return images.env with other references."""
    for change in changes:
        name, _, reference = change.partition("=")
        if name not in listed(text):
            raise SystemExit(f"images: there is no {name}")
        text = re.sub(rf"(?m)^{name}=.*$", f"{name}={reference}", text)
    return text


def main() -> int:
    """Write, or with `--check` say what is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("changes", nargs="*", metavar="NAME=REFERENCE")
    arguments = parser.parse_args()

    text = changed(LIST.read_text(), arguments.changes)
    images = listed(text)
    wanted = {
        LIST: text,
        COMPONENT: component(images),
        DOCKERFILE: dockerfile(images, DOCKERFILE.read_text()),
    }
    stale = [path for path, content in wanted.items() if path.read_text() != content]
    if arguments.check:
        for path in stale:
            print(f"stale: {path.name}; run `python tools/images.py`")
        return int(bool(stale))
    for path in stale:
        path.write_text(wanted[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
