"""From nothing to `hardware` and out again, over real processes, under a throw-away Apple.

The router runs by the rules of production, so nothing below `hardware` gets a request.
"""

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import pytest_asyncio
from darkbloom_client import AsyncTransport, Policy
from darkbloom_client import Pins as ClientPins
from darkbloom_edge.apple.roots import apple_roots
from darkbloom_edge.verify_bundle import Pins, verify_bundle
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import SCRIPTED
from darkbloom_provider.collecting import Collector

from tests.fakes.apple_service import AppleService
from tests.mesh.harness import PATIENCE_S, QUICK, Books, Consumer, Fleet, darkbloom, script, until
from tests.mesh.hostile.mischief import Mischief
from tests.mesh.minted import authority

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session")]


@pytest.fixture(scope="module")
def mischief(state: Path) -> Mischief:
    """What the Mac shows."""
    found = Mischief(state / "mischief")
    found.order("bare")
    return found


@pytest.fixture(scope="module")
def apple() -> AppleService:
    """The throw-away Apple."""
    return AppleService()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def minted(state: Path, mischief: Mischief, apple: AppleService) -> AsyncIterator[Mesh]:
    """A mesh whose attestation trusts a throw-away Apple, and a Mac that this Apple knows."""
    told = authority.save(apple, state / "apple")
    environment = {
        **QUICK,
        "attestation": {**told, "DARKBLOOM_ATTESTATION_APP_ID": authority.APP_ID},
        "router": {
            **QUICK["router"],
            "DARKBLOOM_ROUTER_ENVIRONMENT": "production",
            "DARKBLOOM_ROUTER_MIN_TRUST": "hardware",
            "DARKBLOOM_ROUTER_CHALLENGE_INTERVAL_S": "1",
        },
        "provider": {**told, **mischief.environment},
    }
    programs = {
        "attestation": [sys.executable, "-m", "tests.mesh.minted.attestation"],
        "provider": [
            *(sys.executable, "-m", "tests.mesh.minted.provider"),
            *("start", "--foreground", "--engine", "scripted"),
        ],
    }
    async with Mesh(
        state / "mesh", engine=None, environment=environment, programs=programs, durable=False
    ) as found:
        await found.start_provider(routable=False)
        yield found


async def status(mesh: Mesh) -> dict[str, Any]:
    """What the owner sees."""
    done = await asyncio.to_thread(darkbloom(mesh, "status", "--json"))
    said: dict[str, Any] = json.loads(done.stdout)
    return said


async def standing(mesh: Mesh, level: str, reason: str) -> dict[str, Any]:
    """Wait until the owner sees this."""

    async def seen() -> dict[str, Any] | None:
        said = await status(mesh)
        return said if (said["trust_level"], said["trust_reason"]) == (level, reason) else None

    found: dict[str, Any] = await until(seen, f"the owner sees {level}, {reason}")
    return found


async def a_stranger_can_check(mesh: Mesh, receipt: dict[str, Any], apple: AppleService) -> None:
    """What Apple vouches for is proven offline; what only we have seen is called our word."""
    collector = Collector(gateway=mesh.url, api_key=mesh.api_key, wait_s=30)
    bundle = await asyncio.to_thread(collector.collect, receipt)
    verdict_keys, gateway_keys = await Consumer(mesh).keys()
    pins = Pins(
        verdict_keys=verdict_keys,
        gateway_keys=gateway_keys,
        apple=apple.roots,
        app_id=authority.APP_ID,
    )
    report = verify_bundle(bundle, pins=pins)
    assert report.attested, "\n".join(f"{c.name} {c.status} {c.detail}" for c in report.claims)
    held = {claim.name for claim in report.claims if claim.status == "holds"}
    assert held >= {"attested", "app_attested", "registration_signed", "receipt_anchored"}
    asserted = {claim.name for claim in report.claims if claim.status == "operator_asserted"}
    assert asserted == {"posture", "trust_level"}

    # Under any other Apple the same bytes prove nothing of the kind.
    genuine = verify_bundle(bundle, pins=replace(pins, apple=apple_roots()))
    assert genuine.claim("app_attested").holds is False
    assert not genuine.ok


async def test_a_machine_is_hardware_as_long_as_its_evidence_holds_and_not_a_moment_longer(
    minted: Mesh, mischief: Mischief, apple: AppleService
) -> None:
    consumer = Consumer(minted)

    # A good blob and a passed challenge are self-signed, and get nothing.
    said = await standing(minted, "self_signed", "key_proof_missing")
    assert "App Attest" in said["trust_remedy"]
    refused = await consumer.ask(tokens=3)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "no_provider")

    # Both pieces of evidence are hardware, for everybody.
    mischief.behave()
    said = await standing(minted, "hardware", "hardware_proven")
    assert (said["admission"], said["trust_remedy"]) == ("public", "")
    await Fleet(minted).wait_routable()
    answer = await consumer.ask(tokens=3)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-provider-trust-level"] == "hardware"
    [shown] = (await consumer.get("/v1/providers/attestation")).json()["providers"]
    kinds = {one["kind"] for one in shown["evidence"]}
    assert {"registration", "challenge", "app_attest", "mda"} <= kinds
    assert authority.SERIAL not in json.dumps(shown)
    await a_stranger_can_check(minted, answer.json()["receipt"], apple)

    # Its own device contradicts it: out of routing for good, and the owner reads why.
    mischief.order("sip_off")
    said = await standing(minted, "none", "posture_mismatch")
    assert said["trust_status"] == "untrusted"
    assert "SIP" in said["trust_remedy"]
    refused = await consumer.ask(tokens=3)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "no_provider")
    await Books(minted).clean()


async def test_a_posture_that_ends_takes_hardware_with_it_and_a_new_one_brings_it_back(
    minted: Mesh, mischief: Mischief
) -> None:
    mischief.order("brief")
    await minted.stop("provider")
    await minted.start_provider(routable=False)
    said = await standing(minted, "self_signed", "posture_stale")
    # It was hardware in between; how long depends on the machine that looks.
    with psycopg.connect(minted.database_url) as connection:
        row = connection.execute(
            "SELECT max(expire_time - issue_time) <= interval '40 seconds'"
            " FROM attestation.verdicts WHERE trust_level = 'hardware' AND provider_id = %s",
            (said["provider_id"],),
        ).fetchone()
    assert row == (True,)
    assert said["trust_remedy"]
    refused = await Consumer(minted).ask(tokens=3)
    assert refused.status_code == 429
    mischief.behave()
    await standing(minted, "hardware", "hardware_proven")


async def test_end_to_end_apples_evidence_decides_and_no_word_of_ours_stands_in_for_it(
    minted: Mesh, mischief: Mischief, apple: AppleService
) -> None:
    mischief.behave()
    await standing(minted, "hardware", "hardware_proven")
    await Fleet(minted).wait_routable()
    [shown] = (await Consumer(minted).get("/v1/providers/attestation")).json()["providers"]
    release = json.loads(base64.b64decode(shown["verdict"]["document"]))["code_release"]
    verdict_keys, _ = await Consumer(minted).keys()
    policy = Policy(
        pins=ClientPins(verdict_keys=verdict_keys, log_keys=verdict_keys),
        app_id=authority.APP_ID,
        allowed_releases={release},
        apple=apple.roots,
    )

    async def ask(policy: Policy) -> httpx.Response:
        headers = {"authorization": f"Bearer {minted.api_key}"}
        body = {"model": SCRIPTED, "messages": script(tokens=3)}
        async with httpx.AsyncClient(
            transport=AsyncTransport(policy),
            base_url=minted.url,
            headers=headers,
            timeout=PATIENCE_S,
        ) as client:
            return await client.post("/v1/chat/completions", json=body)

    answer = await ask(policy)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-darkbloom-mode"] == "end-to-end"
    for changes, reason in (
        ({"apple": apple_roots()}, "evidence_forged"),
        ({"app_id": "9876543210.io.darkbloom.provider"}, "evidence_forged"),
        ({"allowed_releases": None}, "release_not_allowed"),
    ):
        refused = await ask(replace(policy, **changes))
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, reason)
