"""`POST /v1/enroll`: a profile out of configuration, or a plain refusal."""

import asyncio

import pytest
from darkbloom_edge.apple.enrolment import inspect_profile
from darkbloom_gateway.config import GatewayConfig
from darkbloom_mesh.config import Secret
from darkbloom_provider.account import AccountError
from darkbloom_provider.cli.enroll import fetch_profile

from tests.component.gateway.harness import gateway

TOPIC = "com.apple.mgmt.External.9d7d6bc4-6f2a-4b2e-9a0d-0f8f6f1b1c55"


async def test_a_profile_names_the_configured_server_whatever_the_request_says(
    valkey_url: str,
) -> None:
    async with gateway(
        valkey_url,
        enrolment_base_url="https://mdm.example.org",
        enrolment_push_topic=TOPIC,
    ) as mesh:
        response = await mesh.http.post(
            "/v1/enroll", json={"serial_number": "x"}, headers={"host": "evil.example"}
        )
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/x-apple-aspen-config"
        assert "Darkbloom-Enroll.mobileconfig" in response.headers["content-disposition"]
        facts = inspect_profile(response.content)
        assert (facts.host, facts.rights) == ("mdm.example.org", 1041)
        # And as the agent asks for it.
        fetched = await asyncio.to_thread(fetch_profile, mesh.url)
        assert inspect_profile(fetched) == facts


async def test_a_network_without_management_says_so(valkey_url: str) -> None:
    async with gateway(valkey_url) as mesh:
        response = await mesh.http.post("/v1/enroll")
        assert response.status_code == 503
        assert response.json()["error"]["type"] == "enrolment_unavailable"
        with pytest.raises(AccountError, match="status 503"):
            await asyncio.to_thread(fetch_profile, mesh.url)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"enrolment_base_url": "https://mdm.example.org"}, "PUSH_TOPIC"),
        ({"enrolment_push_topic": TOPIC}, "BASE_URL"),
        (
            {"enrolment_base_url": "http://mdm.example.org", "enrolment_push_topic": TOPIC},
            "BASE_URL",
        ),
    ],
)
def test_half_a_configuration_stops_the_start(changes: dict[str, str], name: str) -> None:
    config = GatewayConfig(
        environment="development",
        redis_url=Secret("redis://x"),
        listen="127.0.0.1:0",
        router_target="r:1",
        billing_target="b:1",
        attestation_target="a:1",
        registry_target="g:1",
        **changes,
    )
    assert any(f"ENROLMENT_{name}" in problem for problem in config.problems())
