"""Management reports: only the exact answer to an outstanding question counts."""

import base64
import json
import plistlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from darkbloom_edge.apple.mdm_commands import (
    device_attestation_command,
    device_attestation_nonce,
    security_info_command,
)
from darkbloom_edge.apple.mdm_webhook import (
    COMMAND_TTL,
    MAX_WEBHOOK_BYTES,
    Acknowledged,
    OutstandingCommand,
    RequestType,
    device_attestation_of,
    match_command,
    read_webhook,
    secret_matches,
    security_info_of,
)
from darkbloom_edge.apple.security_info import (
    MdmFault,
    MdmRejected,
    PostureFault,
    SecureBootLevel,
    judge_posture,
    read_device_attestation,
    read_security_info,
)
from darkbloom_edge.errors import MalformedError
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
UDID = "00008132-CANARY0000000001"
COMMAND = "4DF05DBF-6D20-41A4-8072-A51D327258E7"
INFO = {
    "SystemIntegrityProtectionEnabled": True,
    "SecureBoot": {"SecureBootLevel": "full", "ExternalBootLevel": "disallowed"},
    "AuthenticatedRootVolumeEnabled": True,
    "FDE_Enabled": True,
    "IsRecoveryLockEnabled": False,
}


def answer(info: Any = INFO, **changes: Any) -> dict[str, Any]:
    fields = {
        "CommandUUID": COMMAND,
        "Status": "Acknowledged",
        "UDID": UDID,
        "SecurityInfo": info,
    }
    return {name: value for name, value in {**fields, **changes}.items() if value is not None}


def callback(payload: bytes | None = None, **changes: Any) -> bytes:
    event = {
        "udid": UDID,
        "status": "Acknowledged",
        "command_uuid": COMMAND,
        "raw_payload": base64.b64encode(payload or plistlib.dumps(answer())).decode(),
    }
    return json.dumps({"topic": "mdm.Connect", "acknowledge_event": {**event, **changes}}).encode()


def outstanding(**changes: Any) -> OutstandingCommand:
    fields = {
        "command_uuid": COMMAND,
        "udid": UDID,
        "request_type": RequestType.SECURITY_INFO,
        "provider_id": "prov_1",
        "create_time": NOW,
    }
    return OutstandingCommand(**{**fields, **changes})


def received(body: bytes | None = None) -> Acknowledged:
    event = read_webhook(body or callback())
    assert event is not None
    return event


def reason(call: Any, *arguments: Any) -> MdmFault:
    with pytest.raises(MdmRejected) as refused:
        call(*arguments)
    assert UDID not in str(refused.value)
    return refused.value.reason


def test_the_answer_to_an_outstanding_command_is_a_posture() -> None:
    info = security_info_of(received(), outstanding(), NOW)
    assert (info.sip_enabled, info.secure_boot) == (True, SecureBootLevel.FULL)
    assert (info.authenticated_root, info.fde_enabled, info.recovery_lock) == (True, True, False)
    assert judge_posture(info, blob_sip_enabled=True, blob_secure_boot_enabled=True) == ()


@pytest.mark.parametrize(
    ("sip", "level", "blob", "faults"),
    [
        (True, "full", (True, True), []),
        (
            False,
            "full",
            (True, True),
            [PostureFault.SIP_DISABLED, PostureFault.SIP_DIFFERS_FROM_BLOB],
        ),
        (False, "full", (False, True), [PostureFault.SIP_DISABLED]),
        (True, "full", (False, True), [PostureFault.SIP_DIFFERS_FROM_BLOB]),
        (
            True,
            "reduced",
            (True, True),
            [PostureFault.SECURE_BOOT_NOT_FULL, PostureFault.SECURE_BOOT_DIFFERS_FROM_BLOB],
        ),
        (True, "permissive", (True, False), [PostureFault.SECURE_BOOT_NOT_FULL]),
        (True, "not supported", (True, False), [PostureFault.SECURE_BOOT_NOT_FULL]),
        (True, "full", (True, False), [PostureFault.SECURE_BOOT_DIFFERS_FROM_BLOB]),
    ],
)
def test_every_way_to_fall_short_is_named(
    sip: bool, level: str, blob: tuple[bool, bool], faults: list[PostureFault]
) -> None:
    report = {**INFO, "SystemIntegrityProtectionEnabled": sip}
    info = read_security_info(answer({**report, "SecureBoot": {"SecureBootLevel": level}}))
    judged = judge_posture(info, blob_sip_enabled=blob[0], blob_secure_boot_enabled=blob[1])
    assert list(judged) == faults


@pytest.mark.parametrize(
    ("info", "fault"),
    [
        ({}, MdmFault.SECURITY_INFO_INCOMPLETE),
        ({**INFO, "SystemIntegrityProtectionEnabled": 1}, MdmFault.SECURITY_INFO_INCOMPLETE),
        ({**INFO, "SystemIntegrityProtectionEnabled": "true"}, MdmFault.SECURITY_INFO_INCOMPLETE),
        ({**INFO, "SecureBoot": {}}, MdmFault.SECURITY_INFO_INCOMPLETE),
        ({**INFO, "SecureBoot": "full"}, MdmFault.SECURITY_INFO_INCOMPLETE),
        ({**INFO, "SecureBoot": {"SecureBootLevel": "fuller"}}, MdmFault.SECURITY_INFO_INCOMPLETE),
        ({**INFO, "SecureBoot": {"SecureBootLevel": True}}, MdmFault.SECURITY_INFO_INCOMPLETE),
        ({**INFO, "SecureBootLevel": "reduced"}, MdmFault.SECURITY_INFO_CONTRADICTION),
        ([], MdmFault.WRONG_ANSWER),
        (None, MdmFault.WRONG_ANSWER),
    ],
)
def test_an_incomplete_report_grants_nothing_and_says_why(info: Any, fault: MdmFault) -> None:
    assert reason(read_security_info, answer(info)) is fault


def test_a_value_that_only_looks_like_the_key_does_not_count() -> None:
    """The old reader searched the text for `SystemIntegrityProtectionEnabled` and `true`."""
    decoy = {"SecurityInfo": {"Note": "<key>SystemIntegrityProtectionEnabled</key><true/>"}}
    assert reason(read_security_info, answer(**decoy)) is MdmFault.SECURITY_INFO_INCOMPLETE


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"CommandUUID": None}, MdmFault.COMMAND_ID_MISSING),
        ({"CommandUUID": "a b"}, MdmFault.COMMAND_ID_MISSING),
        ({"UDID": None}, MdmFault.DEVICE_ID_MISSING),
        ({"UDID": "x" * 65}, MdmFault.DEVICE_ID_MISSING),
        ({"Status": "Error"}, MdmFault.NOT_ACKNOWLEDGED),
        ({"Status": None}, MdmFault.NOT_ACKNOWLEDGED),
    ],
)
def test_an_answer_names_its_command_and_its_device(
    changes: dict[str, Any], fault: MdmFault
) -> None:
    assert reason(read_security_info, answer(**changes)) is fault
    chain = {"QueryResponses": {"DevicePropertiesAttestation": [b"1"]}, **changes}
    assert reason(read_device_attestation, answer(**chain)) is fault


@pytest.mark.parametrize(
    ("changes", "now", "fault"),
    [
        ({"udid": "00008132-OTHER"}, NOW, MdmFault.DEVICE_MISMATCH),
        ({"command_uuid": "another-one"}, NOW, MdmFault.COMMAND_UNKNOWN),
        ({}, NOW + COMMAND_TTL + timedelta(seconds=1), MdmFault.COMMAND_EXPIRED),
        ({}, NOW - timedelta(seconds=1), MdmFault.COMMAND_EXPIRED),
        ({"request_type": RequestType.DEVICE_INFORMATION}, NOW, MdmFault.WRONG_ANSWER),
    ],
)
def test_a_report_that_answers_something_else_does_not_count(
    changes: dict[str, Any], now: datetime, fault: MdmFault
) -> None:
    assert reason(security_info_of, received(), outstanding(**changes), now) is fault


def test_a_replayed_report_finds_its_command_consumed() -> None:
    assert reason(match_command, received(), None, NOW) is MdmFault.COMMAND_UNKNOWN


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", MdmFault.MALFORMED_WEBHOOK),
        (b"[]", MdmFault.MALFORMED_WEBHOOK),
        (b'{"topic":"a","topic":"b"}', MdmFault.MALFORMED_WEBHOOK),
        (callback()[:-1], MdmFault.MALFORMED_WEBHOOK),
        (callback() + b" " * MAX_WEBHOOK_BYTES, MdmFault.MALFORMED_WEBHOOK),
        (callback(udid=7), MdmFault.MALFORMED_WEBHOOK),
        (callback(raw_payload="%"), MdmFault.MALFORMED_PAYLOAD),
        (callback(b"no plist"), MdmFault.MALFORMED_PAYLOAD),
        (callback(udid="00008132-OTHER"), MdmFault.DEVICE_CONTRADICTION),
        (callback(command_uuid="other-command"), MdmFault.DEVICE_CONTRADICTION),
        (callback(plistlib.dumps(answer(Status="Error"))), MdmFault.DEVICE_CONTRADICTION),
    ],
)
def test_a_broken_callback_is_refused_by_name(body: bytes, fault: MdmFault) -> None:
    assert reason(read_webhook, body) is fault


def test_what_is_no_acknowledgement_is_dropped_in_peace() -> None:
    assert read_webhook(b'{"topic":"mdm.CheckIn","checkin_event":{"udid":"x"}}') is None
    assert read_webhook(callback(status="NotNow")) is None


@given(st.binary(max_size=200))
def test_no_callback_crashes_the_reader(body: bytes) -> None:
    for data in (body, callback(body or b"x")):
        with pytest.raises(MdmRejected):
            read_webhook(data)


def test_a_secret_is_compared_whole() -> None:
    assert secret_matches("s3cret", "s3cret")
    for wrong in ("", "s3cre", "s3cret ", "S3cret"):
        assert not secret_matches(wrong, "s3cret")
    assert not secret_matches("", "")


def test_no_value_shows_a_device_id() -> None:
    event = received()
    shown = repr((event, outstanding(), read_security_info(answer())))
    assert UDID not in shown


def test_a_device_attestation_is_a_short_list_of_certificates() -> None:
    chain = [b"leaf", b"intermediate"]
    asked = outstanding(request_type=RequestType.DEVICE_INFORMATION)
    body = callback(plistlib.dumps(answer(QueryResponses={"DevicePropertiesAttestation": chain})))
    assert device_attestation_of(received(body), asked, NOW) == tuple(chain)
    fault = reason(device_attestation_of, received(body), outstanding(), NOW)
    assert fault is MdmFault.WRONG_ANSWER
    for bad in ([], [b""], ["text"], [b"x"] * 6, [b"x" * 8193], b"leaf"):
        wrong = answer(QueryResponses={"DevicePropertiesAttestation": bad})
        assert reason(read_device_attestation, wrong) is MdmFault.ATTESTATION_MISSING
    assert reason(read_device_attestation, answer()) is MdmFault.WRONG_ANSWER


def test_only_two_kinds_of_command_can_be_built() -> None:
    asked = plistlib.loads(security_info_command(COMMAND))
    assert asked == {"CommandUUID": COMMAND, "Command": {"RequestType": "SecurityInfo"}}
    asked = plistlib.loads(device_attestation_command(COMMAND, bytes(32)))
    assert asked["Command"] == {
        "RequestType": "DeviceInformation",
        "Queries": ["DevicePropertiesAttestation"],
        "DeviceAttestationNonce": bytes(32),
    }
    with pytest.raises(MalformedError):
        device_attestation_command(COMMAND, bytes(31))


def test_the_nonce_hashes_the_text_of_the_key() -> None:
    key = "qKxKds4zZk81flmOxcOmQVYSL0xkeg88tLBfXd7ghhJ/QYjW5ZKBAzASJ0TPwseWv38jW61NESGDtGsJqdzJ9Q=="
    signed_by_apple = "984a169f28cd03dd50df4772724174bf3573486b20384918fe44eca467d86a98"
    assert device_attestation_nonce(key).hex() == signed_by_apple
