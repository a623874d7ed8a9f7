"""The mesh's authority: it outlives its certificates, and another one takes over with overlap."""

from typing import Any

import pytest
import yaml

from tests.contract.deploy.manifests import (
    KUSTOMIZE,
    ROOMS,
    ROOT,
    Document,
    combination,
    environment,
    named,
    pod,
    rendered,
)

YEAR_H = 8760
RUNBOOK = ROOT / "docs" / "operations" / "runbooks" / "certificates.md"


def hours(text: str) -> int:
    return int(text.removesuffix("h"))


def during_an_exchange() -> tuple[Document, ...]:
    return combination(("mtls", "mtls-exchange"))


def authorities(documents: tuple[Document, ...]) -> list[dict[str, Any]]:
    found = [d["spec"] for d in documents if d["kind"] == "Certificate"]
    return [spec for spec in found if spec.get("isCA")]


@pytest.mark.parametrize("overlay", ["staging", "production"])
def test_the_authority_never_changes_its_key_by_itself(overlay: str) -> None:
    (authority,) = authorities(rendered(f"overlays/{overlay}"))
    assert authority["privateKey"]["rotationPolicy"] == "Never"
    assert hours(authority["duration"]) >= 10 * YEAR_H
    # Long enough before its end that nobody has to hurry.
    assert hours(authority["renewBefore"]) >= YEAR_H


@pytest.mark.parametrize("room", ROOMS)
def test_a_certificate_ends_long_before_its_authority(room: str) -> None:
    documents = rendered("overlays/production")
    (authority,) = authorities(documents)
    (volume,) = [
        one["csi"]["volumeAttributes"]
        for one in pod(named(documents, "Deployment", room))["volumes"]
        if "csi" in one
    ]
    assert hours(volume["csi.cert-manager.io/duration"]) < hours(authority["renewBefore"])
    issuer = named(documents, "Issuer", volume["csi.cert-manager.io/issuer-name"])
    assert issuer["spec"]["ca"]["secretName"] == authority["secretName"]


@pytest.mark.parametrize("room", ROOMS)
def test_during_an_exchange_a_room_believes_a_list_of_both(room: str) -> None:
    documents = during_an_exchange()
    spec = pod(named(documents, "Deployment", room))
    (container,) = spec["containers"]
    file = environment(documents, container)["DARKBLOOM_TLS_CA_FILE"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert file == f"{mounts['authorities']}/ca.crt"
    assert volumes["authorities"]["configMap"] == {"name": "mesh-authorities"}
    # Its own certificate still comes from the driver.
    assert environment(documents, container)["DARKBLOOM_TLS_CERT_FILE"].startswith(
        mounts["certificates"]
    )


def test_the_next_authority_is_another_one_and_lives_as_long() -> None:
    now, after = authorities(during_an_exchange())
    for name in ("secretName", "commonName"):
        assert now[name] != after[name]
    for name in ("duration", "renewBefore", "privateKey", "issuerRef"):
        assert now[name] == after[name]


def test_outside_of_an_exchange_nobody_waits_for_its_list() -> None:
    for overlay in ("staging", "production"):
        text = yaml.safe_dump_all(rendered(f"overlays/{overlay}"))
        assert "mesh-authorities" not in text


def test_the_runbook_names_what_an_exchange_is_made_of() -> None:
    text = RUNBOOK.read_text()
    now, after = authorities(during_an_exchange())
    for name in (now["secretName"], after["secretName"], "mesh-authorities"):
        assert name in text, name
    for path in ("components/mtls/authority.yaml", "components/mtls-exchange/authority.yaml"):
        assert f"deploy/kustomize/{path}" in text
        assert (KUSTOMIZE / path).exists()
