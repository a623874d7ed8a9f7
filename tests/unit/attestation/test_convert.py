import pytest
from darkbloom.attestation.v1 import attestation_pb2
from darkbloom.attestation.v1 import attestation_service_pb2 as pb
from darkbloom_attestation import convert
from darkbloom_edge.signatures import Ed25519Signer
from darkbloom_mesh.errors import InvalidArgumentError
from darkbloom_mesh.testing import EPOCH
from google.protobuf.timestamp_pb2 import Timestamp

PROVIDER = "prov_" + "0f" * 16
KEY = Ed25519Signer.generate()


def receipt_key(**changes: object) -> pb.RegisterReceiptKeyRequest:
    fields = {"key_id": KEY.key_id, "public_key": KEY.public} | changes
    gateway = fields.pop("gateway", "gateway-0")
    return pb.RegisterReceiptKeyRequest(key=attestation_pb2.SigningKey(**fields), gateway=gateway)


def test_evidence_of_any_size_is_taken_in_and_cut() -> None:
    presented = convert.presented_from(
        pb.EvaluateRegistrationRequest(
            provider_id=PROVIDER,
            attestation_blob=b"x" * 999_999,
            attestation_signature=b"x" * 999_999,
            encryption_key=b"x" * 999_999,
            version="v" * 9999,
            backend="a\0b",
            template_hashes={"n\0": "v" * 999},
        )
    )
    assert len(presented.blob) == convert.MAX_EVIDENCE_BYTES
    assert len(presented.version) == 256
    assert presented.backend == "ab"
    assert dict(presented.measured.template_hashes) == {"n": "v" * 256}


@pytest.mark.parametrize("provider_id", ["", "prov_1", "req_" + "0" * 32, PROVIDER + "\n"])
def test_a_session_has_a_provider_id(provider_id: str) -> None:
    with pytest.raises(InvalidArgumentError, match="prov"):
        convert.presented_from(pb.EvaluateRegistrationRequest(provider_id=provider_id))


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (receipt_key(public_key=b"short"), "key.public_key"),
        (receipt_key(key_id="0" * 16), "key.key_id"),
        (receipt_key(gateway=""), "gateway"),
        (receipt_key(create_time=Timestamp(seconds=10**12)), "key.create_time"),
        (receipt_key(retire_time=Timestamp(seconds=0)), "key.retire_time"),
    ],
)
def test_a_receipt_key_that_is_none_is_refused(
    request_: pb.RegisterReceiptKeyRequest, field: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        convert.receipt_key_from(request_, EPOCH)
    assert caught.value.field == field


def test_a_receipt_key_without_a_time_is_new_now() -> None:
    key = convert.receipt_key_from(receipt_key(), EPOCH).key
    assert (key.create_time, key.retire_time) == (EPOCH, None)


@pytest.mark.parametrize("kind", ["", "rude", "UNOPENABLE"])
def test_a_violation_is_one_of_the_known_kinds(kind: str) -> None:
    with pytest.raises(InvalidArgumentError, match="kind"):
        convert.violation_from(
            pb.ReportViolationRequest(report_id="r", provider_id=PROVIDER, kind=kind)
        )
