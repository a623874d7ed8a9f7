"""The enrolment profile: stable ids, three rights, and no address but the configured one."""

import plistlib
import uuid
from typing import Any

import pytest
from darkbloom_edge.apple.enrolment import EnrolmentSettings, enrolment_profile
from darkbloom_edge.errors import MalformedError

TOPIC = "com.apple.mgmt.External.9d7d6bc4-6f2a-4b2e-9a0d-0f8f6f1b1c55"


def settings(**changes: Any) -> EnrolmentSettings:
    return EnrolmentSettings(
        **{"base_url": "https://mdm.example.org", "push_topic": TOPIC, **changes}
    )


def test_the_profile_says_where_to_enrol_and_asks_for_nothing_more_than_it_needs() -> None:
    profile = plistlib.loads(enrolment_profile(settings(), bytes(range(16))))
    scep, mdm = profile["PayloadContent"]
    assert profile["PayloadIdentifier"] == "io.darkbloom.enroll"
    assert uuid.UUID(profile["PayloadUUID"]).version == 4
    assert scep["PayloadContent"]["URL"] == "https://mdm.example.org/scep"
    assert scep["PayloadContent"]["Keysize"] == 2048
    assert mdm["ServerURL"] == "https://mdm.example.org/mdm/connect"
    assert mdm["CheckInURL"] == "https://mdm.example.org/mdm/checkin"
    assert mdm["AccessRights"] == 1041
    assert mdm["IdentityCertificateUUID"] == scep["PayloadUUID"]
    assert (mdm["SignMessage"], mdm["CheckOutWhenRemoved"], mdm["Topic"]) == (True, True, TOPIC)


def test_enrolling_again_replaces_in_place() -> None:
    first, second = (plistlib.loads(enrolment_profile(settings(), bytes([n] * 16))) for n in (1, 2))
    assert first["PayloadUUID"] != second["PayloadUUID"]
    assert first["PayloadContent"] == second["PayloadContent"]


@pytest.mark.parametrize(
    "changes",
    [
        {"base_url": "http://mdm.example.org"},
        {"base_url": "https://"},
        {"base_url": "https://user@mdm.example.org"},
        {"base_url": "https://mdm.example.org/?a=1"},
        {"base_url": "https://mdm.example.org#a"},
        {"base_url": "https://mdm.example.org/"},
        {"base_url": "https://mdm.example.org/a b"},
        {"base_url": "https://mdm.example.org:x"},
        {"base_url": "https://mdm.example.org:0"},
        {"base_url": "https://[::1"},
        {"push_topic": "com.apple.mgmt.External.x"},
        {"push_topic": "com.evil.9d7d6bc4-6f2a-4b2e-9a0d-0f8f6f1b1c55"},
        {"scep_challenge": ""},
        {"scep_challenge": "a\nb"},
    ],
)
def test_a_profile_that_would_enrol_elsewhere_cannot_be_made(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        settings(**changes)


def test_a_port_and_a_path_are_allowed() -> None:
    made = settings(base_url="https://mdm.example.org:8443/mac")
    assert b"https://mdm.example.org:8443/mac/scep" in enrolment_profile(made, bytes(16))


def test_a_profile_id_needs_its_entropy() -> None:
    with pytest.raises(MalformedError):
        enrolment_profile(settings(), bytes(15))
