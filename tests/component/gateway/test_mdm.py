"""`POST /v1/mdm/webhook`: the secret first, then the bytes as they came."""

import pytest
from darkbloom_edge.apple.mdm_webhook import MAX_WEBHOOK_BYTES
from darkbloom_mesh.config import Secret

from tests.component.gateway.harness import gateway

PATH = "/v1/mdm/webhook"


async def test_a_report_goes_to_attestation_as_it_came(valkey_url: str) -> None:
    async with gateway(valkey_url, mdm_webhook_secret=Secret("swordfish")) as mesh:
        token = {"x-webhook-token": "swordfish"}
        response = await mesh.http.post(PATH, content=b'{"topic":"x"}', headers=token)
        # What attestation drops is a success all the same: the manager must not deliver it again.
        assert response.status_code == 200, response.text
        assert mesh.attestation.webhooks == [b'{"topic":"x"}']
        huge = await mesh.http.post(PATH, content=bytes(MAX_WEBHOOK_BYTES + 1), headers=token)
        assert huge.status_code == 400


@pytest.mark.parametrize("secret", [Secret("swordfish"), None])
async def test_nobody_without_the_secret_is_read(valkey_url: str, secret: Secret | None) -> None:
    async with gateway(valkey_url, mdm_webhook_secret=secret) as mesh:
        for headers in ({}, {"x-webhook-token": ""}, {"x-webhook-token": "swordfisher"}):
            response = await mesh.http.post(f"{PATH}?token=swordfish", headers=headers)
            assert response.status_code == 403
            assert response.json()["error"]["type"] == "permission_error"
        assert mesh.attestation.webhooks == []
