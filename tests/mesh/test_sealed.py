"""A stranger over the real mesh: sealed requests, and what can be checked of who answered."""

import base64
import hashlib
import json
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from darkbloom_edge.verify import verify_receipt
from darkbloom_local.mesh import Mesh

from tests.mesh.harness import Books, Consumer, script, until
from tests.sealed_client import FRAMED, PLAIN, SealedCall, chat_body

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session")]


def body(**fields: Any) -> bytes:
    stream = fields.pop("stream", False)
    return chat_body(model="scripted", messages=script(**fields), stream=stream)


async def test_sealed_answers_are_whole_paid_and_proved_and_come_once(
    mesh: Mesh, consumer: Consumer, books: Books
) -> None:
    page = (await consumer.get("/v1/encryption-key")).json()
    keys = (await consumer.get("/v1/receipts/keys")).json()
    async with httpx.AsyncClient(base_url=mesh.url, timeout=30) as http:
        for media_type in (FRAMED, PLAIN):
            key = mesh.api_key
            whole = SealedCall(page, key, body(text="sealed all the way"), media_type=media_type)
            stream = SealedCall(page, key, body(tokens=40, stream=True), media_type=media_type)
            first, second = await whole.post(http), await stream.post(http)
            again = await whole.post(http)

            answer = whole.whole(first)
            told = json.loads(answer)
            assert told["choices"][0]["message"]["content"] == "sealed all the way"
            usage = await consumer.usage(first.headers["x-inference-job-id"])
            assert usage["completion_tokens"] == 4
            assert stream.events(second)[-1] == b"data: [DONE]"
            assert again.json()["error"]["code"] == "replayed_envelope"
            report = verify_receipt(
                json.dumps(told["receipt"]).encode(),
                verdict_keys=_keys(keys["verdict_keys"]),
                gateway_keys=_keys(keys["receipt_keys"]),
                request_body=whole.body,
                answer=answer,
            )
            assert report.ok, report
    await books.clean()


async def test_a_stranger_checks_what_a_machine_has_signed_of_itself(
    mesh: Mesh, consumer: Consumer
) -> None:
    answer = await consumer.ask(text="who are you")

    async def settled() -> dict[str, Any] | None:
        page = (await consumer.get("/v1/providers/attestation")).json()
        named = [
            one
            for one in page["providers"]
            if one["provider_id"] == answer.headers["x-provider-id"]
        ]
        (found,) = named
        # In the moment of a new challenge its verdict is a step behind.
        verdict = json.loads(base64.b64decode(found["verdict"]["document"]))
        listed = {piece["id"] for piece in found["evidence"]}
        return dict(found) if set(verdict["evidence"]) <= listed else None

    machine = await until(settled, "the page shows the evidence that its verdict names")
    pieces = {piece["kind"]: piece for piece in machine["evidence"]}

    # From docs/public-evidence.md alone: no code of ours below.
    point = base64.b64decode(machine["identity_key"])
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    form = base64.b64decode(pieces["registration"]["document"])
    signature = base64.b64decode(pieces["registration"]["signature"])
    key.verify(signature, b"darkbloom:public-registration:v1\0" + form, ec.ECDSA(SHA256()))
    claims = json.loads(form)
    assert claims["publicKey"] == machine["identity_key"]
    assert claims["encryptionPublicKey"] == machine["encryption_key"]
    assert not {"serialNumber", "serialSalt"} & claims.keys()

    document = base64.b64decode(pieces["challenge"]["document"])
    key.verify(base64.b64decode(pieces["challenge"]["signature"]), document, ec.ECDSA(SHA256()))
    status = json.loads(document)
    assert status["provider_id"] == machine["provider_id"]
    assert status["public_key"] == machine["encryption_key"]

    assert machine["backing"]["trust_level"] == "operator_asserted"
    assert machine["se_key_bound"] is False


def _keys(rows: list[dict[str, str]]) -> dict[str, bytes]:
    found = {row["key_id"]: base64.b64decode(row["public_key"]) for row in rows}
    assert all(hashlib.sha256(key).hexdigest()[:16] == name for name, key in found.items())
    return found
