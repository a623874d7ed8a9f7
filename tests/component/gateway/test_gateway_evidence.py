"""`GET /v1/gateway/evidence`: an honest none on a machine without a platform."""

import base64
from pathlib import Path

from darkbloom_edge.gateway_evidence import Outcome, ShownEvidence, check_evidence
from darkbloom_edge.sealing_keys import new_file
from darkbloom_gateway.routes.gateway_evidence import NEVER_PROVEN, WITHOUT_QUOTE
from darkbloom_mesh.clock import SystemClock

from tests.component.gateway.harness import gateway

NONCE = "0123456789abcdef" * 4
DIGEST = "sha256:" + "1" * 64


async def test_a_gateway_without_hardware_says_none_and_what_that_leaves_open(
    valkey_url: str, tmp_path: Path
) -> None:
    clock = SystemClock()
    keys = tmp_path / "keys"
    keys.write_bytes(new_file(lambda count: b"\x03" * count, clock.now()))
    async with gateway(
        valkey_url,
        sealing_keys_file=keys,
        quote_reports_dir=tmp_path / "no-platform",
        build_commit="c0ffee",
        image_digest=DIGEST,
    ) as mesh:
        answer = await mesh.http.get("/v1/gateway/evidence", params={"nonce": NONCE})
        page = answer.json()
        published = (await mesh.http.get("/v1/encryption-key")).json()
        without = (await mesh.http.get("/v1/gateway/evidence")).json()
        refused = await mesh.http.get("/v1/gateway/evidence", params={"nonce": "short"})
        health = (await mesh.http.get("/health")).json()

        own = mesh.worker.press
        shown = ShownEvidence(
            document=base64.b64decode(page["signed"]["document"]),
            signature=base64.b64decode(page["signed"]["signature"]),
            key_id=page["signed"]["key_id"],
        )
        checks = check_evidence(
            shown,
            nonce=NONCE,
            encryption_key=base64.b64decode(published["public_key"]),
            keys={own.key_id: own.public_key},
            now=clock.now(),
        )

    assert answer.headers["cache-control"] == "no-store"
    assert (page["backing"], page["quote"], page["why_none"]) == ("none", None, "no_device")
    told = {row["what"] for row in page["not_proven"]}
    assert told == WITHOUT_QUOTE.keys() | NEVER_PROVEN.keys()
    assert page["statement"]["build_commit"] == health["build_commit"] == "c0ffee"
    assert page["statement"]["image_digest"] == DIGEST
    outcomes = {check.name: check.outcome for check in checks}
    assert outcomes.pop("hardware quote") is Outcome.NOT_SHOWN
    assert set(outcomes.values()) == {Outcome.HOLDS}
    assert "nonce" not in without["statement"]
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "nonce")
