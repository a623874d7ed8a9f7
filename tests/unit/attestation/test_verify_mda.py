"""`verify-mda`: a chain that is bound to one thing, or a leaf that proves nothing."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from darkbloom_attestation.cli import cli
from darkbloom_attestation.cli.files import FileFault, FileRejected
from darkbloom_attestation.cli.mda import MdaFile, check_chain
from darkbloom_edge.apple import AppleFault, AppleRejected, SecureBoot, key_freshness
from darkbloom_edge.signatures import P256Signer
from typer.testing import CliRunner

from tests.fakes.apple_ca import NOW
from tests.fakes.apple_files import at, text
from tests.fakes.apple_samples import sample_path
from tests.fakes.apple_service import AppleService

SIGNER = P256Signer(bytes(range(1, 33)))
SERIAL = "TMWFWWWP67"


@pytest.fixture(scope="module")
def apple() -> AppleService:
    return AppleService()


def mda_file(apple: AppleService, **changes: Any) -> dict[str, Any]:
    freshness = min(key_freshness(SIGNER.public))
    return {
        "schema": 1,
        "certificates": [text(item) for item in apple.device(freshness=freshness)],
        "verify_at": at(NOW),
        "identity_key": SIGNER.public_text,
        "serial": SERIAL,
        **changes,
    }


def reason(apple: AppleService, found: dict[str, Any]) -> Any:
    with pytest.raises((AppleRejected, FileRejected)) as refused:
        check_chain(msgspec.convert(found, MdaFile), roots=apple.roots)
    assert isinstance(refused.value, AppleRejected | FileRejected)
    return refused.value.reason


def test_a_bound_chain_says_what_the_mac_is(apple: AppleService) -> None:
    device = check_chain(msgspec.convert(mda_file(apple), MdaFile), roots=apple.roots)
    assert device.serial == SERIAL
    assert device.secure_boot is SecureBoot.FULL


def test_a_chain_for_another_key_serial_or_device_is_refused(apple: AppleService) -> None:
    other = P256Signer(bytes(range(2, 34))).public_text
    wrong = {
        "identity_key": (other, AppleFault.FRESHNESS_MISMATCH),
        "serial": ("TMWFWWWP68", AppleFault.SERIAL_MISMATCH),
        "udid": ("00006030-000651690A84001D", AppleFault.UDID_MISMATCH),
        "verify_at": ("2046-01-01T00:00:00Z", AppleFault.CERTIFICATE_EXPIRED),
        "certificates": ([], AppleFault.CHAIN_LENGTH),
    }
    for member, (value, expected) in wrong.items():
        assert reason(apple, mda_file(apple, **{member: value})) is expected, member


def test_a_chain_bound_to_nothing_or_to_two_things_is_refused(apple: AppleService) -> None:
    for changes in ({"identity_key": None}, {"token": "t"}, {"freshness": text(bytes(32))}):
        assert reason(apple, mda_file(apple, **changes)) is FileFault.MALFORMED_FILE


def test_the_command_prints_no_serial_number_and_knows_no_root_but_apples(
    apple: AppleService, tmp_path: Path
) -> None:
    path = tmp_path / "mda.json"
    path.write_text(json.dumps(mda_file(apple)))
    ran = CliRunner().invoke(cli, ["verify-mda", str(path)])
    assert (ran.exit_code, json.loads(ran.stdout)["reason"]) == (1, "chain_root")
    assert SERIAL not in ran.output


def test_the_published_leaf_is_read_only_when_that_is_asked_for() -> None:
    path = str(sample_path("mda", "nanoca-mac-15.5-leaf"))
    ran = CliRunner().invoke(cli, ["verify-mda", path])
    assert (ran.exit_code, json.loads(ran.stdout)["reason"]) == (1, "chain_length")
    ran = CliRunner().invoke(cli, ["verify-mda", "--parse-only", path])
    found = json.loads(ran.stdout)
    assert (ran.exit_code, found["result"], found["sip_enabled"]) == (0, "parsed", True)
    assert SERIAL not in ran.output
