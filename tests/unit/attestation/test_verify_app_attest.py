"""`verify-app-attest`: what a file says must be what its evidence says, member by member."""

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from darkbloom_attestation.cli import cli
from darkbloom_attestation.cli.app_attest import check_sample
from darkbloom_attestation.cli.app_attest_file import AppAttestFile
from darkbloom_attestation.cli.files import FileFault, FileRejected
from darkbloom_edge.apple import AppleFault, AppleRejected, AppleRoots, apple_roots
from typer.testing import CliRunner

from tests.fakes.apple_files import app_attest_file, changed, members, value_at
from tests.fakes.apple_samples import APP_ATTEST, sample, sample_path
from tests.fakes.apple_service import AppleService

MISMATCH = FileFault.DECLARED_MISMATCH
UNCHECKED = {"id", "description", "source", "os"}
"""Members that say nothing about the evidence; `expected.result` is the reader's to compare."""

ABSENT = {("assertion", None), ("app_id", None)}
"""What a sample may leave out."""

REASONS: Mapping[str, set[Any]] = {
    "schema": {FileFault.MALFORMED_FILE},
    "app_id": {MISMATCH},
    "app_id_hash": {AppleFault.APP_IDENTITY},
    "environment": {AppleFault.ENVIRONMENT},
    "key_id": {AppleFault.KEY_ID},
    "attestation": set(AppleFault),
    "client_data": {MISMATCH},
    "client_data_hash": {AppleFault.NONCE},
    "client_data_hash_rule": {MISMATCH},
    "leaf.not_before": {MISMATCH},
    "leaf.not_after": {MISMATCH},
    "leaf.serial": {MISMATCH},
    "verify_at": {AppleFault.CERTIFICATE_EXPIRED, AppleFault.CERTIFICATE_NOT_YET_VALID},
    "assertion.assertion": set(AppleFault),
    "assertion.client_data": {MISMATCH},
    "assertion.client_data_hash": {AppleFault.ASSERTION_SIGNATURE},
    "assertion.counter": {MISMATCH},
    "assertion.flags": {MISMATCH},
    "receipts.receipt": {*AppleFault, MISMATCH},
    "receipts.created": {
        MISMATCH,
        AppleFault.RECEIPT_STALE,
        AppleFault.RECEIPT_FROM_FUTURE,
        AppleFault.RECEIPT_EXPIRED,
        AppleFault.CERTIFICATE_EXPIRED,
        AppleFault.CERTIFICATE_NOT_YET_VALID,
    },
}
"""By member; whatever is not named here only repeats the evidence: `declared_mismatch`."""


def reason(found: dict[str, Any], roots: AppleRoots) -> Any:
    try:
        check_sample(msgspec.convert(found, AppAttestFile), roots=roots)
    except (AppleRejected, FileRejected) as refused:
        return refused.reason
    except msgspec.ValidationError:
        return FileFault.MALFORMED_FILE
    return None


OTHER: Mapping[str, Mapping[Any, Any]] = {
    "environment": {"production": "development", "development": "production"},
    "expected.environment": {"production": "development", "development": "production"},
    "expected.aaguid": {
        b"appattest".ljust(16, b"\0").hex(): b"appattestdevelop".hex(),
        b"appattestdevelop".hex(): b"appattest".ljust(16, b"\0").hex(),
    },
    "receipts.environment": {"production": "sandbox", "sandbox": "production"},
    "receipts.origin": {"attestation": "published", "published": "attestation"},
    "receipts.type": {"ATTEST": "RECEIPT", "RECEIPT": "ATTEST"},
    "receipts.not_before": {None: "2020-01-01T00:00:00Z"},
    "receipts.risk_metric": {None: 7},
    "client_data_hash_rule": {
        "client_data_hash = SHA-256(client_data)": "client_data_hash = client_data",
        "client_data_hash = client_data (raw bytes, not hashed)": "SHA-256(client_data)",
    },
}
"""Another value that the schema takes, where a flipped bit or a later year would not be one."""


def wrong(name: str, value: Any) -> Any:
    """Return another value for a member, of the same kind."""
    if value in OTHER.get(name, {}):
        return OTHER[name][value]
    if isinstance(value, int):
        return not value if isinstance(value, bool) else value + 1
    if re.match(r"20\d\d-", value):
        return f"{int(value[:4]) + 30}{value[4:]}"

    try:
        data = base64.b64decode(value, validate=True)
    except ValueError:
        return value + "0"
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    return base64.b64encode(flipped).decode()


def assert_every_member_is_held_to(found: dict[str, Any], roots: AppleRoots) -> None:
    assert reason(found, roots) is None
    for path in members(found):
        name = ".".join(str(step) for step in path if not isinstance(step, int))
        value = value_at(found, path)
        if path[0] in UNCHECKED or name == "expected.result" or (name, value) in ABSENT:
            continue
        if name == "receipts.receipt" and value is None:
            other = found["receipts"][-1]["receipt"] or found["attestation"]
        else:
            other = wrong(name, value)
        assert other != value, name
        got = reason(changed(found, path, other), roots)
        assert got in REASONS.get(name, {MISMATCH}), f"{name}: {got}"


def test_every_member_of_a_minted_file_is_held_to() -> None:
    apple = AppleService()
    assert_every_member_is_held_to(app_attest_file(apple), apple.roots)


@pytest.mark.parametrize("name", ["apple-guide-production", "veehaitch-ios-14.4"])
def test_every_member_of_a_published_file_is_held_to(name: str) -> None:
    assert_every_member_is_held_to(sample("app_attest", name), apple_roots())


@pytest.mark.parametrize("name", APP_ATTEST)
def test_the_command_accepts_a_published_file(name: str) -> None:
    path = sample_path("app_attest", name)
    ran = CliRunner().invoke(cli, ["verify-app-attest", str(path)])
    found = sample("app_attest", name)
    assert ran.exit_code == 0
    assert json.loads(ran.stdout) == {
        "result": "valid",
        "reason": None,
        "key_id": found["key_id"],
        "counter": found["expected"]["counter"],
        "environment": found["expected"]["environment"],
        "assertion_counter": found["assertion"] and found["assertion"]["counter"],
    }


def test_parts_of_other_keys_are_refused() -> None:
    apple = AppleService()
    mine, other = app_attest_file(apple), app_attest_file(apple)
    assertion = {**mine, "assertion": other["assertion"]}
    assert reason(assertion, apple.roots) is AppleFault.ASSERTION_SIGNATURE
    receipts = {**mine, "receipts": [mine["receipts"][0], other["receipts"][1]]}
    assert reason(receipts, apple.roots) is AppleFault.RECEIPT_KEY
    attestation = {**mine, "attestation": other["attestation"]}
    assert reason(attestation, apple.roots) is AppleFault.KEY_ID


def test_the_command_knows_no_root_but_apples(tmp_path: Path) -> None:
    path = tmp_path / "minted.json"
    path.write_text(json.dumps(app_attest_file(AppleService())))
    ran = CliRunner().invoke(cli, ["verify-app-attest", str(path)])
    assert ran.exit_code == 1
    assert json.loads(ran.stdout) == {
        "result": "invalid",
        "reason": "chain_root",
        "key_id": None,
        "counter": None,
        "environment": None,
        "assertion_counter": None,
    }


def test_a_phone_is_refused_where_a_mac_is_asked_for() -> None:
    path = sample_path("app_attest", "apple-guide-production")
    ran = CliRunner().invoke(cli, ["verify-app-attest", "--mac", str(path)])
    assert (ran.exit_code, json.loads(ran.stdout)["reason"]) == (1, "mac_access_control")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "malformed_file"),
        (b"[]", "malformed_file"),
        (b"{}", "malformed_file"),
        (b'{"schema":1,"schema":1}', "malformed_file"),
        (b"\xff", "malformed_file"),
        (b" " * (1024 * 1024 + 1), "malformed_file"),
        (None, "unreadable_file"),
    ],
)
def test_a_file_that_is_none_is_refused_as_json(
    tmp_path: Path, content: bytes | None, expected: str
) -> None:
    path = tmp_path / "file.json"
    if content is not None:
        path.write_bytes(content)
    for command in ("verify-app-attest", "verify-mda", "verify-blob", "verify-challenge"):
        ran = CliRunner().invoke(cli, [command, str(path)])
        assert ran.exit_code == 1
        assert json.loads(ran.stdout)["reason"] == expected


def test_a_member_too_many_or_too_few_is_refused() -> None:
    apple = AppleService()
    found = app_attest_file(apple)
    assert reason({**found, "more": 1}, apple.roots) is FileFault.MALFORMED_FILE
    for name in found:
        less = {key: value for key, value in found.items() if key != name}
        assert reason(less, apple.roots) is FileFault.MALFORMED_FILE, name
