"""The stranger's path of the README and of docs/verify.md, word by word."""

import asyncio
import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from darkbloom_edge.verify_bundle import Pins, verify_bundle
from darkbloom_local.mesh import Mesh

from tests.mesh.harness import QUICK, Fleet

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session"), pytest.mark.tool("curl")]
README = Path(__file__).resolve().parents[2] / "README.md"
VERIFY = README.parent / "docs/verify.md"
TIMEOUT_S = 120


def steps() -> list[str]:
    """Return the commands of the section, block by block."""
    section = README.read_text().split("## Check it yourself")[1].split("\n## ")[0]
    return re.findall(r"```sh\n(.+?)```", section, re.DOTALL)


def here(script: str, mesh: Mesh) -> str:
    """Return commands as somebody types them whose mesh is elsewhere and has the other engine."""
    return script.replace("http://127.0.0.1:8080", mesh.url).replace("smollm2", "scripted")


def guide() -> str:
    """Return the commands of the guide that are not the README's and end by themselves."""
    blocks = re.findall(r"```sh\n(.+?)```", VERIFY.read_text(), re.DOTALL)
    return "".join(
        block for block in blocks if not re.search("darkbloom verify|darkbloom-proxy", block)
    )


async def shell(folder: Path, script: str) -> "subprocess.CompletedProcess[str]":
    binaries = str(Path(sys.executable).parent)
    path = f"{binaries}:{os.environ['PATH']}"  # noqa: TID251 - a shell for the commands
    return await asyncio.to_thread(
        subprocess.run,
        ["sh", "-ec", script],
        cwd=folder,
        env={"PATH": path, "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def flipped(text: str) -> str:
    """Return base64 of the same bytes with the last bit of the middle one changed."""
    raw = bytearray(base64.b64decode(text))
    raw[len(raw) // 2] ^= 1
    return base64.b64encode(bytes(raw)).decode()


def entry_of(bundle: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(
        entry
        for entry in bundle["log"]["entries"]
        if json.loads(base64.b64decode(entry["entry"]))["kind"] == kind
    )


def evidence_of(bundle: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(piece for piece in bundle["provider"]["evidence"] if piece["kind"] == kind)


def change(holder: dict[str, Any], name: str, how: Callable[[str], str] = flipped) -> None:
    holder[name] = how(holder[name])


def failing(folder: Path, bundle: dict[str, Any]) -> set[str]:
    """Check a bundle as the command does, with the pinned keys; return the claims that fail."""
    keys = json.loads((folder / "keys.json").read_text())
    report = verify_bundle(
        json.dumps(bundle).encode(),
        pins=Pins(
            verdict_keys={
                row["key_id"]: base64.b64decode(row["public_key"]) for row in keys["verdict_keys"]
            },
            gateway_keys={
                row["key_id"]: base64.b64decode(row["public_key"]) for row in keys["receipt_keys"]
            },
        ),
        request_body=(folder / "request.json").read_bytes(),
        answer=(folder / "answer.json").read_bytes(),
    )
    return {claim.name for claim in report.claims if claim.holds is False}


TAMPERED: dict[str, Callable[[dict[str, Any]], None]] = {
    "verdict_signed": lambda b: change(b["receipt"], "verdict_signature"),
    "terminal_signed": lambda b: change(b["receipt"], "terminal_signature"),
    "countersigned": lambda b: change(b["receipt"], "countersign_signature"),
    "log_head": lambda b: change(b["log"]["head"], "signature"),
    "log_entries": lambda b: change(entry_of(b, "release"), "entry"),
    "receipt_anchored": lambda b: b["anchor"].update(log_index=b["anchor"]["log_index"] - 1),
    "machine_named": lambda b: change(b["provider"], "encryption_key"),
    "registration_signed": lambda b: change(evidence_of(b, "registration"), "document"),
    "challenge_signed": lambda b: change(evidence_of(b, "challenge"), "document"),
    "content": lambda b: change(b["receipt"], "receipt_key"),
}


async def test_what_was_collected_is_checked_without_the_mesh_and_every_change_is_named(
    state: Path,
) -> None:
    online, offline = steps()
    folder = state / "stranger"
    folder.mkdir()
    async with Mesh(state / "mesh", environment=QUICK, durable=False) as mesh:
        await Fleet(mesh).wait_routable()
        (folder / ".state").symlink_to(state / "mesh")
        done = await shell(folder, here(online, mesh))
        assert done.returncode == 0, done.stdout + done.stderr
        (folder / "guide").mkdir()
        (folder / "guide/.state").symlink_to(state / "mesh")
        guided = await shell(folder / "guide", here(guide(), mesh))
        assert guided.returncode == 0, guided.stdout + guided.stderr
        assert "? hardware quote: no hardware evidence" in guided.stdout
    # Nothing runs any more: from here on there is no mesh.

    told = await shell(folder, offline)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "The receipt holds" in told.stdout

    check = f"{offline.strip()} --json"
    checked = await shell(folder, check)
    report = json.loads(checked.stdout)
    claims = {claim["name"]: claim["status"] for claim in report["claims"]}
    assert {name for name, status in claims.items() if status == "holds"} >= {
        "verdict_signed",
        "terminal_signed",
        "countersigned",
        "request_body",
        "provider_request",
        "content",
        "machine_named",
        "registration_signed",
        "challenge_signed",
        "log_head",
        "receipt_anchored",
        "receipt_key_logged",
        "release_logged",
        "weights_logged",
    }
    assert "fails" not in claims.values()
    assert claims["trust_level"] == "operator_asserted"
    assert {claims[name] for name in ("attested", "app_attested", "release_signed", "posture")} == {
        "not_claimed"
    }
    assert report["attested"] is False

    bundle = (folder / "bundle.json").read_text()
    for claim, tamper in TAMPERED.items():
        changed = json.loads(bundle)
        tamper(changed)
        assert failing(folder, changed) >= {claim}, claim

    changed = json.loads(bundle)
    TAMPERED["receipt_anchored"](changed)
    (folder / "bundle.json").write_text(json.dumps(changed))
    refused = await shell(folder, offline)
    assert refused.returncode == 1
    assert "✗ receipt_anchored" in refused.stdout
