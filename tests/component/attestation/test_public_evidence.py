"""What attestation shows of sessions: signed bytes without a serial, and times."""

from datetime import timedelta

from darkbloom.attestation.v1 import attestation_service_pb2 as pb
from darkbloom.attestation.v1.attestation_pb2 import (
    EVIDENCE_BACKING_OPERATOR_ASSERTED,
    EVIDENCE_BACKING_STRANGER,
)
from darkbloom_edge.documents import decode_document
from darkbloom_edge.ids import new_id
from darkbloom_edge.public_form import read_public_form, sign_public_form
from darkbloom_edge.registration import RegistrationBlob
from darkbloom_edge.signatures import to_base64, verify_p256_raw
from darkbloom_edge.strict_json import parse_json_object
from darkbloom_mesh.errors import InvalidArgumentError
from darkbloom_mesh.postgres import Database
from darkbloom_mesh.testing import FakeClock

from tests.component.attestation.harness import Attestation, Provider, served

SERIAL = "C02XYZ123456"


def mac() -> Provider:
    return Provider(serial_number=SERIAL, serial_salt=to_base64(b"\x05" * 32))


def signed_by(provider: Provider, attestation: Attestation) -> bytes:
    blob = provider.registration(attestation.clock).attestation_blob
    return sign_public_form(decode_document(blob, RegistrationBlob), provider.signer)


async def shown(attestation: Attestation, *names: str) -> list[pb.ProviderEvidence]:
    asked = pb.ListEvidenceRequest(provider_ids=names)
    return list((await attestation.call("ListEvidence", asked)).providers)


async def test_a_stranger_can_check_registration_and_last_status(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        provider = mac()
        await attestation.register(provider, public_signature=signed_by(provider, attestation))
        (before,) = await shown(attestation, provider.provider_id)
        assert [one.kind for one in before.evidence] == ["registration"]

        await attestation.passed(provider)
        (found,) = await shown(attestation, provider.provider_id)

    registration, challenge = found.evidence
    assert (registration.kind, registration.backing) == ("registration", EVIDENCE_BACKING_STRANGER)
    form = read_public_form(registration.document, registration.signature)
    assert form.public_key == to_base64(provider.signer.public)
    assert form.encryption_public_key == to_base64(provider.k)
    assert form.serial_commitment is not None
    assert SERIAL.encode() not in found.SerializeToString()

    assert (challenge.kind, challenge.backing) == ("challenge", EVIDENCE_BACKING_STRANGER)
    verify_p256_raw(form.public_key, challenge.document, challenge.signature)
    status = parse_json_object(challenge.document, max_bytes=65_536)
    assert status["provider_id"] == provider.provider_id
    assert status["public_key"] == to_base64(provider.k)
    lasts = challenge.expire_time.ToDatetime() - challenge.observe_time.ToDatetime()
    assert lasts == timedelta(minutes=16)
    assert not found.verdict_id


async def test_the_evidence_shown_is_what_the_verdict_names(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        provider = mac()
        await attestation.bless()
        await attestation.register(provider)
        await attestation.passed(provider)
        await clock.advance(1)
        _, verdict = await attestation.verdict(provider)
        (found,) = await shown(attestation, provider.provider_id)

    assert found.verdict_id == verdict.verdict_id
    assert set(verdict.evidence) <= {piece.evidence_id for piece in found.evidence}


async def test_a_form_that_its_provider_has_not_signed_is_not_shown(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        silent, liar = mac(), mac()
        await attestation.register(silent)
        other = signed_by(mac(), attestation)
        assert (await attestation.register(liar, public_signature=other)).accepted
        found = await shown(attestation, silent.provider_id, liar.provider_id)

    pieces = [one.evidence[0] for one in found]
    assert [(one.document, one.signature) for one in pieces] == [(b"", b"")] * 2
    assert {one.backing for one in pieces} == {EVIDENCE_BACKING_OPERATOR_ASSERTED}


async def test_unknown_and_refused_sessions_are_left_out(
    database: Database, clock: FakeClock
) -> None:
    async with served(database, clock) as attestation:
        known, refused = mac(), mac()
        await attestation.register(known)
        await attestation.register(refused, attestation_signature=b"no")
        names = [new_id("prov"), refused.provider_id, known.provider_id, known.provider_id]
        found = await shown(attestation, *names)
        assert [one.provider_id for one in found] == [known.provider_id]

        error = await attestation.refused(
            "ListEvidence", pb.ListEvidenceRequest(provider_ids=["x"])
        )
        assert isinstance(error, InvalidArgumentError)
        many = pb.ListEvidenceRequest(provider_ids=[known.provider_id] * 257)
        assert isinstance(await attestation.refused("ListEvidence", many), InvalidArgumentError)
