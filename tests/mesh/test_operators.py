"""Two operators, a budget, an invite, an answer and the audit: one admin flow of a whole mesh."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from darkbloom_local.mesh import Mesh

from tests.mesh.harness import Books, Consumer

pytestmark = pytest.mark.asyncio(loop_scope="session")
_BIN = Path(sys.executable).parent


async def run(environment: dict[str, str], *words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *words,
        env={"PATH": os.environ["PATH"], **environment},  # noqa: TID251 - a shell for the child
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_an_invite_of_two_operators_pays_for_an_answer(
    mesh: Mesh, books: Books, tmp_path: Path
) -> None:
    secret, _ = await books.new_account()
    guest = Consumer(mesh, secret)
    assert (await guest.ask(tokens=3)).status_code == 402

    shells: dict[str, dict[str, str]] = {}
    for name in ("ada", "grace"):
        python = str(_BIN / "python")
        owner = {"DATABASE_URL": mesh.database_url, "DARKBLOOM_ENV": "development"}
        token = await run(owner, python, "-m", "darkbloom_billing", "operator", name)
        (tmp_path / name).write_text(token)
        shells[name] = {
            "DARKBLOOM_ADMIN_TARGET": mesh.wiring.address("billing.grpc"),
            "DARKBLOOM_MESH_TOKEN_FILE": str(mesh.wiring.mesh_token_file),
            "DARKBLOOM_ADMIN_TOKEN_FILE": str(tmp_path / name),
        }

    async def admin(who: str, *words: str) -> Any:
        return json.loads(await run(shells[who], str(_BIN / "darkbloom-admin"), "--json", *words))

    for budget in ("capital", "invite"):
        proposed = await admin("ada", "budgets", "propose", budget, "--usd", "3.00")
        await admin("grace", "budgets", "approve", proposed["funding"]["funding_id"])
    invite = (await admin("ada", "invites", "create", "--usd", "3.00"))["invite"]

    async with guest.client() as client:
        paid = await client.post("/v1/invite/redeem", json={"code": invite["code"]})
    assert paid.json() == {"credited_usd": "3.00", "balance_usd": "3.000000"}
    assert (await guest.ask(tokens=3)).status_code == 200

    await books.quiet()
    assert (await admin("grace", "audit", "run"))["violations"] == []
    done = (await admin("grace", "audit", "actions", "--subject", invite["code"]))["actions"]
    assert [(row["action"], row["operator"]) for row in done] == [("invite.create", "ada")]
