"""The offline verifier of bundles: each lie in one makes the claim that it touches fail."""

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from darkbloom_edge.challenge import Challenge, StatusReport, answer_challenge
from darkbloom_edge.device_statement import (
    DeviceStatement,
    build_statement,
    client_data_hash,
    serial_commitment,
)
from darkbloom_edge.documents import rfc3339
from darkbloom_edge.ids import new_id
from darkbloom_edge.log import (
    CatalogEntry,
    Entry,
    KeyEntry,
    LoggedBuild,
    LogHead,
    ReceiptsEntry,
    ReleaseEntry,
    encode_entry,
    sign_head,
)
from darkbloom_edge.merkle import Leaves, leaf_hash
from darkbloom_edge.public_form import public_form, sign_public_form
from darkbloom_edge.receipt import parse_receipt
from darkbloom_edge.registration import RegistrationBlob
from darkbloom_edge.release import sign_manifest
from darkbloom_edge.report import Report
from darkbloom_edge.signatures import Ed25519Signer, to_base64
from darkbloom_edge.verify_bundle import Pins, verify_bundle
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.apple_service import NOW as APPLE_NOW
from tests.fakes.apple_service import AppleService
from tests.unit.edge.test_release import manifest
from tests.unit.edge.test_verify import (
    ATTESTATION,
    BODY,
    GATEWAY,
    GATEWAY_KEYS,
    NOW,
    PROVIDER,
    VERDICT_KEYS,
    collected,
    receipt,
)

APP_ID = "TEAM123456.io.example.provider"
APPLE = AppleService()
RELEASER = Ed25519Signer.generate()
MANIFEST = manifest()
RELEASE = MANIFEST.code_release
K = bytes(32)
SESSION = new_id("prov", bytes(16))
NEVER = "2026-01-30T00:00:00Z"
PINS = Pins(
    verdict_keys=VERDICT_KEYS,
    gateway_keys=GATEWAY_KEYS,
    release_keys={RELEASER.key_id: RELEASER.public},
    apple=APPLE.roots,
    app_id=APP_ID,
)

Json = dict[str, Any]


def statement(**changes: Any) -> bytes:
    fields = {
        "provider_id": SESSION,
        "nonce": to_base64(bytes(32)),
        "timestamp": rfc3339(APPLE_NOW),
        "identity_key": PROVIDER.public_text,
        "encryption_key": to_base64(K),
        "serial_commitment": serial_commitment("C02XYZ123456", bytes(32)),
        "app_version": "1.2.3",
        "os_version": "26.1",
    }
    return build_statement(DeviceStatement(**{**fields, **changes}))


def app_attest(apple: AppleService = APPLE, app_id: str = APP_ID, **changes: Any) -> Json:
    made, said = statement(nonce="first"), statement(**changes)
    key = apple.attest(app_id, client_data_hash=client_data_hash(made))
    return {
        "id": "kp_1",
        "kind": "app_attest",
        "backing": "checkable",
        "document": to_base64(said),
        "signature": to_base64(key.assertion(client_data_hash(said))),
        "attestation": to_base64(key.attestation),
        "attestation_document": to_base64(made),
        "key_id": key.key_id,
        "environment": "production",
    }


def first_attest(**changes: Any) -> Json:
    """The statement that a key was made with: attested itself, so without an assertion."""
    made = statement(**changes)
    key = APPLE.attest(APP_ID, client_data_hash=client_data_hash(made))
    return {
        **app_attest(),
        "document": to_base64(made),
        "signature": "",
        "attestation": to_base64(key.attestation),
        "attestation_document": to_base64(made),
        "key_id": key.key_id,
    }


def registration(**changes: Any) -> Json:
    claims = {
        "authenticated_root_enabled": True,
        "chip_name": "Apple M4",
        "encryption_public_key": to_base64(K),
        "hardware_model": "Mac16,1",
        "os_version": "26.1",
        "public_key": PROVIDER.public_text,
        "rdma_disabled": True,
        "secure_boot_enabled": True,
        "secure_enclave_available": True,
        "sip_enabled": True,
        "timestamp": rfc3339(NOW),
    }
    blob = RegistrationBlob(**{**claims, **changes})
    return {
        "id": "reg_1",
        "kind": "registration",
        "backing": "checkable",
        "document": to_base64(public_form(blob)),
        "signature": to_base64(sign_public_form(blob, PROVIDER)),
    }


def challenge(provider_id: str = SESSION, key: bytes = K) -> Json:
    asked = Challenge(to_base64(bytes(32)), rfc3339(NOW), provider_id)
    status, signature = answer_challenge(
        asked, StatusReport(public_key=to_base64(key), sip_enabled=True), PROVIDER
    )
    return {
        "id": "chal_1",
        "kind": "challenge",
        "backing": "checkable",
        "document": to_base64(status),
        "signature": to_base64(signature),
    }


def entries(countersign: bytes) -> list[Entry]:
    batch = Leaves([leaf_hash(b"another"), leaf_hash(countersign), leaf_hash(b"a third")])
    release = ReleaseEntry(
        action="blessed",
        code_release=RELEASE,
        release_version="1.2.3",
        platform="macos-arm64",
        python_hash="0" * 64,
        runtime_hash=MANIFEST.runtime_hash,
        template_hashes={},
        development=False,
        time=NEVER,
    )
    key = KeyEntry(
        kind="receipt_key",
        action="published",
        key_id=GATEWAY.key_id,
        public_key=to_base64(GATEWAY.public),
        time=NEVER,
    )
    build = LoggedBuild(weight_hash="w", identity_hash="i", accepted=["w"])
    return [
        release,
        key,
        CatalogEntry(generation=3, builds={"build": build}, time=NEVER),
        ReceiptsEntry(batch="bat_1", root_hash=batch.root.hex(), size=3, time=rfc3339(NOW)),
    ]


def logged(said: list[Entry]) -> Json:
    """A log of these entries among others, and paths to its head."""
    bodies = [b'{"other":1}', *map(encode_entry, said), b'{"other":2}']
    tree = Leaves([leaf_hash(body) for body in bodies])
    head = LogHead(tree_size=len(bodies), root_hash=tree.root.hex(), time=rfc3339(NOW))
    document, signature = sign_head(head, ATTESTATION)
    return {
        "head": {
            "document": to_base64(document),
            "signature": to_base64(signature),
            "key_id": ATTESTATION.key_id,
        },
        "entries": [
            {
                "index": index,
                "entry": to_base64(body),
                "path": [one.hex() for one in tree.inclusion(index)],
            }
            for index, body in enumerate(bodies)
            if 0 < index < len(bodies) - 1
        ],
    }


def bundle() -> Json:
    """An honest bundle about an answer of attested hardware."""
    made = receipt(
        {
            "trust_level": "hardware",
            "admission": "public",
            "code_release": RELEASE,
            "evidence": ["reg_1", "chal_1", "kp_1", "pos_1"],
        }
    )
    countersign = parse_receipt(made).countersign
    batch = Leaves([leaf_hash(b"another"), leaf_hash(countersign), leaf_hash(b"a third")])
    document, signature = sign_manifest(MANIFEST, RELEASER)
    posture = {"id": "pos_1", "kind": "mda", "backing": "operator_asserted"}
    return {
        "version": 1,
        "receipt": json.loads(made),
        "keys": {
            "issuer": "gateway",
            "verdict_keys": [],
            "receipt_keys": [
                {"key_id": GATEWAY.key_id, "public_key": to_base64(GATEWAY.public)},
            ],
        },
        "anchor": {
            "batch": "bat_1",
            "index": 1,
            "size": 3,
            "path": [one.hex() for one in batch.inclusion(1)],
            "root_hash": batch.root.hex(),
            "log_index": 4,
        },
        "log": logged(entries(countersign)),
        "provider": {
            "provider_id": SESSION,
            "identity_key": PROVIDER.public_text,
            "encryption_key": to_base64(K),
            "trust_level": "hardware",
            "evidence": [registration(), challenge(), app_attest(), posture],
        },
        "release": {
            "document": to_base64(document),
            "signature": to_base64(signature),
            "key_id": RELEASER.key_id,
        },
    }


HONEST = json.dumps(bundle())


def verified(found: Json, pins: Pins = PINS, **more: Any) -> Report:
    return verify_bundle(json.dumps(found).encode(), pins=pins, now=NOW, **more)


def status(report: Report, name: str) -> str:
    return report.claim(name).status


def test_every_claim_of_an_honest_bundle_holds_but_what_only_the_operator_saw() -> None:
    report = verified(json.loads(HONEST), request_body=BODY, answer=collected())
    assert report.ok
    assert report.attested
    assert {claim.name: claim.status for claim in report.claims if claim.status != "holds"} == {
        "posture": "operator_asserted",
        "trust_level": "operator_asserted",
    }


def piece(found: Json, kind: str) -> Json:
    return next(one for one in found["provider"]["evidence"] if one["kind"] == kind)


def put(kind: str, made: Callable[[], Json]) -> Callable[[Json], None]:
    return lambda found: piece(found, kind).update(made())


def drop_entry(found: Json, index: int) -> None:
    found["log"]["entries"] = [one for one in found["log"]["entries"] if one["index"] != index]


def withdrawn(found: Json, time: str) -> None:
    said = entries(parse_receipt(json.dumps(found["receipt"]).encode()).countersign)
    assert isinstance(said[0], ReleaseEntry)
    said.append(
        ReleaseEntry(
            action="withdrawn",
            **{
                name: getattr(said[0], name)
                for name in ReleaseEntry.__struct_fields__
                if name not in {"action", "time", "kind", "version"}
            },
            time=time,
        )
    )
    found["log"] = logged(said)


OTHER = to_base64(bytes(31) + b"\1")
LIES: list[tuple[str, Callable[[Json], None]]] = [
    ("machine_named", lambda f: f["provider"].update(provider_id=new_id("prov"))),
    ("machine_named", lambda f: f["provider"].update(encryption_key=OTHER)),
    ("registration_signed", put("registration", lambda: registration(encryption_public_key=OTHER))),
    ("registration_signed", lambda f: piece(f, "registration").update(signature="AAAA")),
    ("challenge_signed", put("challenge", lambda: challenge(new_id("prov")))),
    ("challenge_signed", put("challenge", lambda: challenge(key=bytes(31) + b"\1"))),
    ("challenge_signed", lambda f: piece(f, "challenge").update(signature="AAAA")),
    ("app_attested", put("app_attest", lambda: app_attest(AppleService()))),
    ("app_attested", put("app_attest", lambda: app_attest(app_id="TEAM123456.io.example.other"))),
    ("app_attested", put("app_attest", lambda: app_attest(encryption_key=OTHER))),
    ("app_attested", put("app_attest", lambda: app_attest(provider_id=new_id("prov")))),
    ("app_attested", put("app_attest", lambda: first_attest(encryption_key=OTHER))),
    ("app_attested", lambda f: piece(f, "app_attest").update(signature="")),
    ("app_attested", lambda f: piece(f, "app_attest").update(environment="development")),
    ("app_attested", lambda f: piece(f, "app_attest").update(environment="moon")),
    ("app_attested", lambda f: piece(f, "app_attest").update(attestation="AAAA")),
    ("app_attested", lambda f: piece(f, "app_attest").update(document="AAAA")),
    ("release_signed", lambda f: f["release"].update(signature="A" * 86 + "==")),
    ("release_signed", lambda f: f["release"].update(key_id="0" * 16)),
    ("log_head", lambda f: f["log"]["head"].update(signature="A" * 86 + "==")),
    ("log_entries", lambda f: f["log"]["entries"][0].update(index=2)),
    ("log_entries", lambda f: f["log"]["entries"][0]["path"].pop()),
    ("log_entries", lambda f: f["log"]["entries"][0].update(entry=to_base64(b"{}"))),
    ("receipt_anchored", lambda f: f["anchor"].update(index=0)),
    ("receipt_anchored", lambda f: f["anchor"].update(batch="bat_2")),
    ("receipt_anchored", lambda f: f["anchor"].update(log_index=1)),
    ("receipt_anchored", lambda f: f["anchor"].update(path=[])),
    ("receipt_anchored", lambda f: drop_entry(f, 4)),
    ("receipt_key_logged", lambda f: f["keys"]["receipt_keys"][0].update(public_key=OTHER)),
    ("release_logged", lambda f: withdrawn(f, NEVER)),
]


@pytest.mark.parametrize(("claim", "lie"), LIES)
def test_a_lie_makes_the_claim_that_it_touches_fail(
    claim: str, lie: Callable[[Json], None]
) -> None:
    found = json.loads(HONEST)
    lie(found)
    report = verified(found)
    assert status(report, claim) == "fails", report.claims
    assert not report.ok


def test_a_release_withdrawn_after_the_answer_is_no_lie() -> None:
    found = json.loads(HONEST)
    withdrawn(found, rfc3339(NOW + timedelta(days=1)))
    assert status(verified(found), "release_logged") == "holds"


@pytest.mark.parametrize(
    ("name", "claims"),
    [
        ("anchor", ["receipt_anchored"]),
        ("log", ["log_head", "receipt_anchored", "receipt_key_logged", "release_logged"]),
        ("provider", ["machine_named", "registration_signed", "challenge_signed"]),
        ("release", ["release_signed"]),
    ],
)
def test_what_a_bundle_does_not_hold_is_not_claimed(name: str, claims: list[str]) -> None:
    found = json.loads(HONEST)
    del found[name]
    report = verified(found)
    assert {status(report, claim) for claim in claims} == {"not_claimed"}
    assert report.ok


def test_the_statement_that_a_key_was_made_with_needs_no_assertion() -> None:
    found = json.loads(HONEST)
    put("app_attest", first_attest)(found)
    assert status(verified(found), "app_attested") == "holds"


def test_pins_decide_what_is_believed_not_the_bundle() -> None:
    nothing = verified(json.loads(HONEST), Pins())
    assert not nothing.ok
    for claim in ("verdict_signed", "countersigned", "log_head", "release_signed", "app_attested"):
        assert status(nothing, claim) == "not_claimed"


def test_a_gateway_key_that_the_log_covers_needs_no_pin_of_its_own() -> None:
    pins = Pins(verdict_keys=VERDICT_KEYS)
    assert verified(json.loads(HONEST), pins).ok
    found = json.loads(HONEST)
    drop_entry(found, 2)
    assert status(verified(found, pins), "countersigned") == "not_claimed"


def test_a_kept_copy_without_its_key_says_nothing_about_content() -> None:
    found = json.loads(HONEST)
    del found["receipt"]["receipt_key"]
    report = verified(found, request_body=BODY, answer=collected())
    assert report.ok
    for claim in ("request_body", "provider_request", "content", "reasoning", "tool_calls"):
        assert status(report, claim) == "not_claimed"


def test_newer_evidence_on_the_page_is_told() -> None:
    found = json.loads(HONEST)
    piece(found, "challenge")["id"] = "chal_2"
    assert status(verified(found), "evidence_named") == "not_claimed"


@given(st.data())
def test_no_changed_bundle_crashes_the_verifier(data: st.DataObject) -> None:
    found = json.loads(HONEST)
    holder: Any = found
    while True:
        names = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        name = data.draw(st.sampled_from(names))
        if not isinstance(holder[name], dict | list) or not holder[name]:
            break
        holder = holder[name]
    holder[name] = data.draw(
        st.one_of(
            st.none(),
            st.integers(-1, 2**64),
            st.binary(max_size=40).map(lambda raw: base64.b64encode(raw).decode()),
            st.text(max_size=10),
            st.just([]),
            st.just({}),
        )
    )
    assert isinstance(verified(found, request_body=BODY).ok, bool)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_one_failed_claim(data: bytes) -> None:
    (claim,) = verify_bundle(data, pins=PINS).claims
    assert (claim.name, claim.holds) == ("bundle", False)
