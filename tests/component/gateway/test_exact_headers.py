"""Each header of the contract, in and out, with its exact value; by name of the row."""

import base64
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from darkbloom_edge.signatures import to_base64

from tests.component.gateway.harness import BEARER, Harness, gateway
from tests.component.gateway.test_every_dialect import ROUTES
from tests.fakes.router import scripted

pytestmark = pytest.mark.asyncio(loop_scope="session")

NEVER = ("x-provider-serial", "x-attestation-device-serial", "x-darkbloom-private-only", "server")
"""Names that leaked once, or say what we run."""
IDS = [
    ("mine-1.2_3", True),
    ("a" * 128, True),
    ("a" * 129, False),
    ("no spaces", False),
    ("sem;icolon", False),
    ("", False),
    ("é", False),
]


async def ask(house: Harness, path: str, headers: Any = None, **changes: Any) -> Any:
    body = {"model": "tiny", **ROUTES[path], **changes}
    return await house.http.post(path, json=body, headers={**BEARER, **(headers or {})})


@pytest.mark.parametrize("path", sorted(ROUTES))
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_of_an_attested_machine_carries_exactly_these(
    house: Harness, path: str, stream: bool
) -> None:
    evidence = ["reg_1", "app_1", "mda_1"]
    house.router.scripts = [scripted("x", trust_level="hardware", evidence=evidence)]

    headers = (await ask(house, path, stream=stream)).headers

    said = {name: value for name, value in headers.items() if name.startswith("x-provider-")}
    assert said == {
        "x-provider-id": house.router.provider_id,
        "x-provider-attested": "true",
        "x-provider-trust-level": "hardware",
        "x-provider-encrypted": "true",
        "x-provider-secure-enclave": "true",
        "x-provider-mda-verified": "true",
        "x-provider-chip": "Test chip??X-Evil: 1",
        "x-provider-model": said["x-provider-model"],
    }
    identity = to_base64(house.router.identity.public)
    assert headers["x-attestation-se-public-key"] == identity
    assert len(base64.b64decode(identity)) in (33, 65)
    assert re.fullmatch("att_[0-9a-f]{32}", headers["x-inference-job-id"])
    assert headers["x-inference-job-id"] != headers["x-request-id"]
    assert re.fullmatch("[0-9a-v]{12}", headers["x-request-id"])
    assert ("request-id" in headers) == (path == "/v1/messages")
    timing = json.loads(headers["x-timing"])
    assert set(timing) >= {"parse_us", "reserve_us", "route_us", "queue_us", "encrypt_us"}
    assert set(timing) >= {"dispatch_us", "provider_us"}
    assert all(isinstance(value, int) and value >= 0 for value in timing.values())
    for what in ("requests", "input-tokens", "output-tokens"):
        for word in ("limit", "remaining", "reset"):
            assert f"x-ratelimit-{word}-{what}" in headers
    assert "retry-after" not in headers
    assert not [name for name in NEVER if name in headers]


async def test_each_try_is_another_job_and_the_winner_is_named(house: Harness) -> None:
    house.router.scripts = [scripted(fails=True), scripted("second")]

    response = await ask(house, "/v1/chat/completions", {"x-request-id": "mine"})

    headers, seen = response.headers, house.router.seen.headers
    assert headers["x-request-id"] == "mine"
    assert [header.sealed_to for header in seen] == [1, 2]
    assert headers["x-inference-job-id"] == headers["x-darkbloom-receipt-job-id"]


@pytest.mark.parametrize("path", sorted(ROUTES))
@pytest.mark.parametrize(("given", "echoed"), IDS)
async def test_a_request_id_is_echoed_or_replaced_on_every_route(
    house: Harness, path: str, given: str, echoed: bool
) -> None:
    got = await house.http.post(path, headers={b"x-request-id": given.encode()}, content=b"{")

    name = got.headers["x-request-id"]
    assert got.status_code == 401
    assert (name == given) if echoed else re.fullmatch("[0-9a-v]{12}", name)


@pytest.mark.parametrize("how", ["header", "body", "query"])
async def test_metadata_is_asked_for_in_three_ways(house: Harness, how: str) -> None:
    path = "/v1/chat/completions"
    body = {
        "model": "tiny",
        **ROUTES[path],
        **({"metadata_details": True} if how == "body" else {}),
    }
    got = await house.http.post(
        f"{path}?metadata=details" if how == "query" else path,
        json=body,
        headers={**BEARER, **({"x-darkbloom-metadata-details": "true"} if how == "header" else {})},
    )

    metadata, headers = got.json()["metadata"], got.headers
    assert metadata["provider_id"] == headers["x-provider-id"]
    assert metadata["job_id"] == headers["x-inference-job-id"]
    assert metadata["timing"] == json.loads(headers["x-timing"])
    assert metadata["provider_trust_level"] == headers["x-provider-trust-level"]
    assert "metadata_details" not in house.router.seen.requests[0].__struct_fields__


async def test_a_response_repeats_its_own_metadata_and_has_ours_beside_it(house: Harness) -> None:
    body = {**ROUTES["/v1/responses"], "model": "tiny", "metadata": {"order": "7"}}
    got = await house.http.post(
        "/v1/responses", json={**body, "metadata_details": True}, headers=BEARER
    )

    members = json.loads(got.content, object_pairs_hook=list)
    assert len({name for name, _ in members}) == len(members)
    assert got.json()["metadata"] == {"order": "7"}
    assert got.json()["metadata_details"]["job_id"] == got.headers["x-inference-job-id"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def console(valkey_url: str) -> AsyncIterator[Harness]:
    async with gateway(valkey_url, cors_origin="https://console.example") as harness:
        yield harness


PREFLIGHT = {
    "access-control-allow-methods": "GET, POST, PUT, PATCH, DELETE, OPTIONS",
    "access-control-allow-credentials": "true",
    "access-control-max-age": "600",
}
LOCAL = ["http://localhost", "http://localhost:3000", "https://127.0.0.1:8443", "http://[::1]:5173"]
FOREIGN = [
    "null",
    "https://localhost.evil",
    "http://localhost:3000@evil.example",
    "http://evil.example/localhost",
    "file://localhost",
    "http://localhost:3000/",
    "http://localhost:port",
    "https://console.example",
]


@pytest.mark.parametrize("origin", LOCAL)
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/keys", "/v1/nothing"])
async def test_local_pages_may_call_every_path_while_there_is_no_console(
    house: Harness, origin: str, path: str
) -> None:
    options = await house.http.options(path, headers={"origin": origin})

    assert (options.status_code, options.content) == (204, b"")
    assert options.headers["access-control-allow-origin"] == origin
    assert options.headers["vary"] == "Origin"
    assert {name: options.headers[name] for name in PREFLIGHT} == PREFLIGHT
    allowed = {name.strip() for name in options.headers["access-control-allow-headers"].split(",")}
    assert allowed >= {
        "Authorization",
        "Content-Type",
        "X-Darkbloom-Metadata-Details",
        "X-Darkbloom-Receipt",
        "X-Darkbloom-Receipt-Nonce",
    }


@pytest.mark.parametrize("origin", FOREIGN)
async def test_other_pages_may_not(house: Harness, origin: str) -> None:
    for got in (
        await house.http.options("/v1/messages", headers={"origin": origin}),
        await house.http.get("/v1/models", headers={**BEARER, "origin": origin}),
    ):
        assert not [name for name in got.headers if name.startswith("access-control-")]
        assert got.headers["vary"] == "Origin"


async def test_a_console_is_the_only_page_that_may(console: Harness) -> None:
    there = await console.http.get("/health", headers={"origin": "https://console.example"})
    shown = {name.strip() for name in there.headers["access-control-expose-headers"].split(",")}

    assert there.headers["access-control-allow-origin"] == "https://console.example"
    assert shown >= {
        "X-Request-ID",
        "X-Inference-Job-ID",
        "X-Provider-Id",
        "X-Darkbloom-Receipt-Job-ID",
        "X-Darkbloom-Receipt-Hash",
        "Retry-After",
        "X-RateLimit-Reset",
    }
    for origin in (*LOCAL, "https://console.example:444", "https://console.example.evil"):
        got = await console.http.get("/health", headers={"origin": origin})
        assert "access-control-allow-origin" not in got.headers


async def test_an_error_may_be_read_by_a_page_as_well(house: Harness) -> None:
    got = await house.http.post("/v1/messages", headers={"origin": LOCAL[0]}, content=b"{")

    assert got.status_code == 401
    assert got.headers["access-control-allow-origin"] == LOCAL[0]
