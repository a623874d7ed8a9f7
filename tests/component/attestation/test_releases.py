"""Code releases in production: signed, staged, active, taken back; and the operator's command."""

import asyncio
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from darkbloom.attestation.v1 import attestation_pb2
from darkbloom.attestation.v1 import attestation_service_pb2 as pb
from darkbloom.attestation.v1 import log_service_pb2 as log_pb
from darkbloom.common.v1.price_pb2 import SignedDocument
from darkbloom_attestation.cli import cli
from darkbloom_attestation.keyring import load_release_keys
from darkbloom_edge.documents import encode_document
from darkbloom_edge.release import (
    Package,
    ReleaseManifest,
    TreeFile,
    code_release_id,
    runtime_hash,
    sign_manifest,
)
from darkbloom_edge.signatures import Ed25519Signer
from darkbloom_mesh.errors import PreconditionError
from darkbloom_mesh.postgres import Database
from darkbloom_mesh.testing import FakeClock
from typer.testing import CliRunner

from tests.component.attestation.harness import PYTHON, Attestation, served

SIGNER = Ed25519Signer.generate()
PINS = {SIGNER.key_id: SIGNER.public}


def manifest(mark: str = "a", **changes: Any) -> ReleaseManifest:
    file = TreeFile(path="a.py", mode="0", size=1, sha256=hashlib.sha256(mark.encode()).hexdigest())
    packages = [Package(name="darkbloom_provider", files=[file])]
    hashed = runtime_hash(packages, [])
    fields: dict[str, Any] = {
        "release_version": "1.0.0",
        "platform": "macos-arm64",
        "code_release": code_release_id(hashed),
        "python_hash": PYTHON,
        "runtime_hash": hashed,
        "template_hashes": {},
        "packages": packages,
        "libraries": [],
        "created_at": "2026-01-31T12:00:00Z",
    }
    return ReleaseManifest(**{**fields, **changes})


def request(
    made: ReleaseManifest, signer: Ed25519Signer = SIGNER, **changes: Any
) -> pb.RegisterCodeReleaseRequest:
    document, signature = sign_manifest(made, signer)
    fields: dict[str, Any] = {
        "code_release": made.code_release,
        "version": made.release_version,
        "platform": made.platform,
        "python_hash": made.python_hash,
        "runtime_hash": made.runtime_hash,
        "manifest": SignedDocument(document=document, signature=signature, key_id=signer.key_id),
    }
    return pb.RegisterCodeReleaseRequest(
        release=attestation_pb2.CodeRelease(**{**fields, **changes})
    )


async def actions(attestation: Attestation) -> list[str]:
    answer = await attestation.log("ListLogEntries", log_pb.ListLogEntriesRequest(kind="release"))
    return [json.loads(entry.body)["action"] for entry in answer.entries]


async def test_a_release_is_staged_blessed_and_taken_back_for_good(
    database: Database, clock: FakeClock
) -> None:
    made = manifest()
    named = {"code_release": made.code_release}
    async with served(database, clock, development=False, release_keys=PINS) as attestation:
        staged = await attestation.call("RegisterCodeRelease", request(made, staged=True))
        assert (staged.release.staged, staged.release.active) == (True, False)
        listed = await attestation.call("ListCodeReleases", pb.ListCodeReleasesRequest())
        assert not listed.releases
        assert await actions(attestation) == []

        for _ in range(2):
            blessed = await attestation.call(
                "ActivateCodeRelease", pb.ActivateCodeReleaseRequest(**named)
            )
            assert (blessed.release.staged, blessed.release.active) == (False, True)
        await attestation.call("DeactivateCodeRelease", pb.DeactivateCodeReleaseRequest(**named))
        assert await actions(attestation) == ["blessed", "withdrawn"]

        refused = await attestation.refused(
            "ActivateCodeRelease", pb.ActivateCodeReleaseRequest(**named)
        )
        assert isinstance(refused, PreconditionError)
        again = await attestation.call("RegisterCodeRelease", request(made))
        assert not again.release.active


@pytest.mark.parametrize(
    "changes",
    [
        {"manifest": None},
        {"manifest": SignedDocument(document=b"{}", signature=b"x" * 64, key_id=SIGNER.key_id)},
        {"version": "1.0.1"},
        {"platform": "linux-x86_64"},
        {"python_hash": "0" * 64},
        {"template_hashes": {"chat.jinja": "0" * 64}},
    ],
)
async def test_production_blesses_only_what_a_pinned_key_has_signed(
    database: Database, clock: FakeClock, changes: dict[str, Any]
) -> None:
    async with served(database, clock, development=False, release_keys=PINS) as attestation:
        refused = await attestation.refused("RegisterCodeRelease", request(manifest(), **changes))
        assert isinstance(refused, PreconditionError)
        assert await actions(attestation) == []


async def test_a_key_that_is_not_pinned_blesses_nothing(
    database: Database, clock: FakeClock
) -> None:
    stranger = Ed25519Signer.generate()
    async with served(database, clock, development=False, release_keys=PINS) as attestation:
        wanted = request(manifest(), stranger)
        assert isinstance(
            await attestation.refused("RegisterCodeRelease", wanted), PreconditionError
        )


async def test_a_signed_manifest_of_one_tree_blesses_no_other(
    database: Database, clock: FakeClock
) -> None:
    other = manifest("b")
    async with served(database, clock, development=False, release_keys=PINS) as attestation:
        wanted = request(
            manifest(), code_release=other.code_release, runtime_hash=other.runtime_hash
        )
        assert isinstance(
            await attestation.refused("RegisterCodeRelease", wanted), PreconditionError
        )


def run(*arguments: Path | str) -> Any:
    return CliRunner().invoke(cli, ["release", *map(str, arguments)])


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    """A manifest that an operator has signed; its pins are beside it."""
    made = run("key", tmp_path / "key")
    assert made.exit_code == 0, made.output
    (tmp_path / "pins").write_text(made.stdout)
    (tmp_path / "measured").write_bytes(encode_document(manifest()))
    done = run(
        "sign", tmp_path / "measured", "--key", tmp_path / "key", "--out", tmp_path / "signed"
    )
    assert done.exit_code == 0, done.output
    return tmp_path / "signed"


def test_a_manifest_is_signed_and_checked_offline(signed: Path) -> None:
    folder = signed.parent
    assert (folder / "key").stat().st_mode & 0o777 == 0o600
    shown = run("show", signed, "--release-keys", folder / "pins")
    assert json.loads(shown.stdout)["files"] == 1

    tampered = json.loads(signed.read_text()) | {"signature": "A" * 86 + "=="}
    (folder / "tampered").write_text(json.dumps(tampered))
    for refused in (
        ("show", folder / "tampered", "--release-keys", folder / "pins"),
        ("show", folder / "missing", "--release-keys", folder / "pins"),
        ("show", signed, "--release-keys", signed),
        ("sign", folder / "key", "--key", folder / "key", "--out", folder / "out"),
        ("sign", folder / "measured", "--key", folder / "measured", "--out", folder / "out"),
        ("key", folder / "key"),
    ):
        assert run(*refused).exit_code == 1, refused


async def test_an_operator_registers_with_one_command(
    database: Database, clock: FakeClock, signed: Path
) -> None:
    keys = load_release_keys(signed.parent / "pins")
    command = [sys.executable, "-m", "darkbloom_attestation", "release", "register", str(signed)]
    async with served(database, clock, development=False, release_keys=keys) as attestation:
        done = await asyncio.to_thread(
            subprocess.run,
            [*command, "--target", attestation.target],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["state"] == "active"
        assert await actions(attestation) == ["blessed"]
