"""The provider's own command line, beside the running agent and on what a consumer has saved."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import SCRIPTED

from tests.mesh.harness import Consumer, darkbloom, script

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session")]


async def run(mesh: Mesh, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return await asyncio.to_thread(darkbloom(mesh, *map(str, arguments)))


async def test_status_says_that_the_agent_serves(mesh: Mesh) -> None:
    done = await run(mesh, "status", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["running"] is True
    assert said["connection"] == "registered"
    assert said["provider_id"] == mesh.ready("provider")["provider_id"]
    assert said["accepted_models"] == [SCRIPTED]
    assert (said["trust_level"], said["admission"]) == ("none", "development")
    assert [slot["model"] for slot in said["slots"]] == [SCRIPTED]


async def test_doctor_finds_nothing_that_fails_and_says_what_a_linux_host_is(mesh: Mesh) -> None:
    done = await run(mesh, "doctor", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert [name for name, check in checks.items() if check["result"] == "fail"] == []
    assert done.returncode == 0, done.stderr
    assert checks["daemon connected"]["result"] == "pass"
    assert checks["coordinator models"]["detail"] == f"routed: {SCRIPTED}"
    assert checks["trust level"]["result"] == "warn"


async def saved(consumer: Consumer, folder: Path, *, stream: bool) -> dict[str, Path]:
    """Ask, and save request, answer, receipt and keys as a consumer would."""
    body = {"model": SCRIPTED, "messages": script(text="the answer is four"), "stream": stream}
    request = json.dumps(body).encode()
    answer = await consumer.post(request)
    files = {name: folder / name for name in ("request", "answer", "receipt", "keys")}
    files["request"].write_bytes(request)
    files["answer"].write_bytes(answer.content)
    files["keys"].write_bytes((await consumer.get("/v1/receipts/keys")).content)
    files["receipt"].write_text(json.dumps(_receipt(answer.text, stream=stream)))
    return files


def _receipt(text: str, *, stream: bool) -> Any:
    if not stream:
        return json.loads(text)["receipt"]
    events = [
        line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")
    ]
    (found,) = [event["receipt"] for event in map(json.loads, events) if "receipt" in event]
    return found


@pytest.mark.parametrize("stream", [False, True])
async def test_verify_holds_for_what_was_saved_and_fails_for_a_tampered_answer(
    mesh: Mesh, consumer: Consumer, tmp_path: Path, stream: bool
) -> None:
    files = await saved(consumer, tmp_path, stream=stream)
    command = ["verify", files["receipt"], "--request", files["request"], "--keys", files["keys"]]

    good = await run(mesh, *command, "--answer", files["answer"], "--json")
    assert good.returncode == 0, good.stdout + good.stderr
    report = json.loads(good.stdout)
    assert report["ok"] is True
    assert report["attested"] is False
    claims = {claim["name"]: claim["holds"] for claim in report["claims"]}
    assert claims["verdict_signed"]
    assert claims["terminal_signed"]
    assert claims["countersigned"]

    tampered = tmp_path / "tampered"
    tampered.write_bytes(files["answer"].read_bytes().replace(b"four", b"five"))
    bad = await run(mesh, *command, "--answer", tampered)
    assert bad.returncode == 1
    assert "does not hold" in bad.stdout

    unproven = await run(mesh, "verify", files["receipt"])
    assert unproven.returncode == 1
    assert "Nothing is proven" in unproven.stdout


async def test_verify_says_what_is_wrong_with_a_file(mesh: Mesh, tmp_path: Path) -> None:
    broken = tmp_path / "receipt"
    broken.write_text("not a receipt")
    assert (await run(mesh, "verify", broken)).returncode == 1
    missing = await run(mesh, "verify", tmp_path / "none")
    assert missing.returncode == 1
    assert "cannot be read" in missing.stderr
