"""The public page of machines: what is signed, what backs the rest, in pages."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest
from darkbloom.attestation.v1.attestation_pb2 import (
    EVIDENCE_BACKING_OPERATOR_ASSERTED,
    EVIDENCE_BACKING_STRANGER,
    Evidence,
)
from darkbloom.attestation.v1.attestation_service_pb2 import ProviderEvidence

from tests.component.gateway.harness import Harness, gateway

PAGE = "/v1/providers/attestation"


@pytest.fixture
async def fleet(valkey_url: str) -> AsyncIterator[Harness]:
    async with gateway(valkey_url) as harness:
        harness.attestation.evidence[harness.router.provider_id] = ProviderEvidence(
            provider_id=harness.router.provider_id,
            evidence=[
                Evidence(
                    evidence_id="reg_1",
                    kind="registration",
                    backing=EVIDENCE_BACKING_STRANGER,
                    document=b"form",
                    signature=b"by machine",
                ),
                Evidence(
                    evidence_id="aa_1",
                    kind="app_attest",
                    backing=EVIDENCE_BACKING_STRANGER,
                    attestation=b"cbor",
                    environment="production",
                ),
                Evidence(
                    evidence_id="mda_1", kind="mda", backing=EVIDENCE_BACKING_OPERATOR_ASSERTED
                ),
            ],
        )
        yield harness


async def read(mesh: Harness, **query: Any) -> dict[str, Any]:
    response = await mesh.http.get(PAGE, params=query)
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "public, max-age=5"
    found = response.json()
    assert isinstance(found, dict)
    return found


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def test_signed_bytes_and_evidence_are_shown_as_they_are(fleet: Harness) -> None:
    (machine,) = (await read(fleet))["providers"]

    registration, app, device = machine["evidence"]
    assert registration["document"] == text(b"form")
    assert registration["signature"] == text(b"by machine")
    assert (app["attestation"], app["environment"]) == (text(b"cbor"), "production")
    assert [one["backing"] for one in machine["evidence"]] == [
        "checkable",
        "checkable",
        "operator_asserted",
    ]
    assert "document" not in device
    assert machine["se_key_bound"] is True
    assert machine["backing"]["trust_level"] == "operator_asserted"
    # Every plain field says who vouches for it.
    plain = {"chip_name", "hardware_model", "memory_gb", "gpu_cores", "models", "trust_level"}
    assert plain <= machine["backing"].keys()
    assert not {"serial_number", "udid", "mda_cert_chain_b64"} & machine.keys()


async def test_attestation_is_asked_once_for_all_who_look(fleet: Harness) -> None:
    for _ in range(3):
        await read(fleet)

    assert fleet.attestation.evidence_asked == [[fleet.router.provider_id]]


async def test_while_attestation_is_away_the_page_says_so(fleet: Harness) -> None:
    fleet.attestation.down = True

    (machine,) = (await read(fleet))["providers"]

    assert machine["evidence_unavailable"] is True
    assert machine["evidence"] == []


async def test_pages_begin_after_the_token_and_one_machine_can_be_named(fleet: Harness) -> None:
    name = fleet.router.provider_id

    assert (await read(fleet, page_token=name))["providers"] == []
    assert (await read(fleet, provider_id="prov_other"))["providers"] == []
    (one,) = (await read(fleet, provider_id=name, limit=1))["providers"]
    assert one["provider_id"] == name
    assert (await fleet.http.get(PAGE, params={"limit": 201})).status_code == 400
    assert (await fleet.http.get(PAGE, params={"limit": 0})).status_code == 400
