"""The closed list of trust reasons is one list, in the protos and in the words."""

import pytest
from darkbloom.attestation.v1 import attestation_pb2
from darkbloom_attestation.evidence import TrustReason
from darkbloom_attestation.evidence_convert import MAX_EVIDENCE_BYTES, evidence_from

PREFIX = "TRUST_REASON_"


def test_every_reason_of_the_wire_is_one_of_the_words_and_the_other_way_round() -> None:
    names = {
        name.removeprefix(PREFIX).lower()
        for name in attestation_pb2.TrustReason.keys()  # noqa: SIM118 - an enum wrapper is no dict
    }
    assert names - {"unspecified"} == {reason.value for reason in TrustReason}


def shown(**changes: object) -> attestation_pb2.DeviceEvidence:
    fields: dict[str, object] = {
        "statement": b"{}",
        "serial_number": "C02XYZ123456",
        "serial_salt": bytes(32),
    }
    return attestation_pb2.DeviceEvidence(**{**fields, **changes})  # type: ignore[arg-type] - of the caller's making


def test_evidence_within_its_bounds_is_read() -> None:
    proof = attestation_pb2.AppAttestProof(key_id=bytes(32), assertion=b"a")
    found = evidence_from(shown(app_attest=proof, mda_chain=[b"c"]).SerializeToString())
    assert found is not None
    assert found.app_attest is not None
    assert (found.app_attest.assertion, found.mda_chain) == (b"a", (b"c",))
    assert "C02" not in repr(found)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xff",
        bytes(MAX_EVIDENCE_BYTES + 1),
        shown(statement=bytes(5000)).SerializeToString(),
        shown(serial_number="x" * 33).SerializeToString(),
        shown(serial_salt=bytes(31)).SerializeToString(),
        shown(mda_chain=[b"c"] * 6).SerializeToString(),
        shown(mda_chain=[bytes(9000)]).SerializeToString(),
    ],
)
def test_evidence_beyond_its_bounds_counts_as_none(data: bytes) -> None:
    assert evidence_from(data) is None


def test_a_key_proof_beyond_its_bounds_counts_as_none_and_leaves_the_rest() -> None:
    for proof in (
        attestation_pb2.AppAttestProof(key_id=bytes(31)),
        attestation_pb2.AppAttestProof(key_id=bytes(32), assertion=bytes(70_000)),
    ):
        found = evidence_from(shown(app_attest=proof).SerializeToString())
        assert found is not None
        assert found.app_attest is None
