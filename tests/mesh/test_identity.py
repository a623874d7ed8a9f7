"""Stories of people: they sign in, make keys, link machines, and take everything back."""

import asyncio
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from darkbloom_local.environment import inherited
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import SCRIPTED

from tests.mesh.harness import PATIENCE_S, QUICK, Books, Fleet, gateway_ready, script, until
from tests.mesh.second_gateway import second_gateway

pytestmark = [pytest.mark.mesh]

OWNER = "owner@darkbloom.invalid"


def person(mesh: Mesh, email: str | None = None, url: str = "") -> httpx.AsyncClient:
    token = mesh.login_token(email) if email else mesh.login_token()
    headers = {"authorization": f"Bearer {token}"}
    return httpx.AsyncClient(base_url=url or mesh.url, headers=headers, timeout=PATIENCE_S)


async def ask(url: str, key: str) -> httpx.Response:
    body = {"model": SCRIPTED, "messages": script(tokens=5)}
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE_S) as http:
        return await http.post("/v1/chat/completions", json=body)


async def refused(url: str, key: str) -> bool:
    response = await ask(url, key)
    return response.status_code == 401 and response.json()["error"]["code"] == (
        "authentication_error"
    )


async def follow(process: asyncio.subprocess.Process, event: str) -> dict[str, Any]:
    """Return the next line of that event."""
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        async for line in process.stdout:
            found = json.loads(line)
            if found["event"] == event:
                return dict(found)
    raise AssertionError(f"ended without {event}")


async def log_in(mesh: Mesh, command: list[str], environment: Mapping[str, str]) -> str:
    """Log a machine in by the real command line while its owner approves; return the account."""
    login = await asyncio.create_subprocess_exec(*command, env=environment, stdout=subprocess.PIPE)
    code = await follow(login, "code")
    async with person(mesh, OWNER) as owner:
        seen = await owner.get("/v1/device/code", params={"user_code": code["user_code"]})
        assert (seen.json()["machine_name"], seen.json()["status"]) == ("provider", "pending")
        approved = await owner.post(
            "/v1/device/approve", json={"user_code": code["user_code"].lower()}
        )
        assert approved.json()["status"] == "approved"
        account = (await owner.get("/v1/me")).json()["account_id"]
    linked = await follow(login, "linked")
    assert await login.wait() == 0
    assert linked["account_id"] == account
    return str(account)


async def test_a_person_signs_in_makes_a_key_and_links_a_machine_that_earns(tmp_path: Path) -> None:
    async with Mesh(tmp_path / "mesh", engine=None, environment=QUICK, durable=False) as mesh:
        # A machine whose owner logs it in by the real command line.
        setup = mesh._provider("provider", "scripted")
        environment = inherited() | setup.environment()
        account = await log_in(mesh, setup.argv("login", "--json"), environment)
        token_file = mesh.state.path("provider", "login.json")
        assert token_file.stat().st_mode & 0o777 == 0o600

        await mesh.start_provider("provider", engine="scripted", account_id="")
        await gateway_ready(mesh)

        # A consumer who is somebody else.
        async with person(mesh) as developer:
            made = (await developer.post("/v1/keys", json={"name": "story"})).json()
        key = made["key"]
        answered = await ask(mesh.url, key)
        assert answered.status_code == 200, answered.text

        books = Books(mesh)

        async def earned() -> bool:
            return await books.earned_by(account) > 0

        await until(earned, "the machine's owner earns")
        async with httpx.AsyncClient(base_url=mesh.url, timeout=PATIENCE_S) as holder:
            own_key = await holder.get("/v1/key", headers={"authorization": f"Bearer {key}"})
        assert own_key.json()["usage_usd"] > 0
        token = json.loads(token_file.read_text())["token"]
        assert await refused(mesh.url, token)
        async with httpx.AsyncClient(base_url=mesh.url, timeout=PATIENCE_S) as machine:
            own = await machine.get(
                "/v1/provider/account-earnings", headers={"authorization": f"Bearer {token}"}
            )
        assert (own.status_code, own.json()["account_id"]) == (200, account)

        # Revoked in one place, refused in both.
        async with second_gateway(mesh) as other:
            assert (await ask(other, key)).status_code == 200
            async with person(mesh) as developer:
                said = await developer.delete(f"/v1/keys/{made['data']['id']}")
                assert said.json() == {"status": "revoked"}
            for url in (mesh.url, other):

                async def dead(url: str = url) -> bool:
                    return await refused(url, key)

                await until(dead, f"the key is refused at {url}", patience_s=2)

        # And the machine logs out.
        run = setup.argv
        whoami = await asyncio.to_thread(
            subprocess.run,
            run("whoami", "--json"),
            env=environment,
            capture_output=True,
            check=True,
        )
        assert json.loads(whoami.stdout)["account_id"] == account
        earnings = await asyncio.to_thread(
            subprocess.run,
            run("earnings", "--json", "--this-machine"),
            env=environment,
            capture_output=True,
            check=True,
        )
        assert json.loads(earnings.stdout)["summary"]["account_id"] == account
        assert json.loads(earnings.stdout)["earnings"][0]["amount_micro_usd"] > 0
        await asyncio.to_thread(subprocess.run, run("logout"), env=environment, check=True)
        assert not token_file.exists()
        async with person(mesh, OWNER) as owner:
            assert (await owner.get("/v1/me/tokens")).json()["data"] == []
        await Fleet(mesh).wait_routable()

        # Nobody wrote a secret down.
        written = "".join(
            file.read_text(errors="replace")
            for folder in ("logs", "run")
            for file in (mesh.state.root / folder).iterdir()
        )
        for secret in (key, token, mesh.admin_key, mesh.api_key, mesh.login_token()[:60]):
            assert secret not in written
