"""What lies beside the backups: copies of sealed heads, records of erasures, and who was erased."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from darkbloom.billing.v1.account_service_pb2 import CreateKeyRequest
from darkbloom.billing.v1.account_service_pb2_grpc import AccountServiceStub
from darkbloom.billing.v1.identity_service_pb2 import VerifyLoginRequest
from darkbloom.billing.v1.identity_service_pb2_grpc import IdentityServiceStub
from darkbloom_billing.books.seal import exported
from darkbloom_local.environment import inherited
from darkbloom_local.mesh import Mesh
from darkbloom_local.wiring import BILLING

from tests.mesh.harness import Consumer

_EMAIL = "leaver@example.org"
_CALL_S = 30
_REFUSED = (401, 403)
_COMMAND_S = 120
SEAL_S = 120.0
"""An event is a minute old before it is sealed."""
_LOGINS = "SELECT count(*) FROM billing.app_user WHERE account_id = %s"


@dataclass(frozen=True, kw_only=True)
class Outside:
    """Directories on a volume that is not the database's."""

    erasures: Path
    heads: Path
    new_heads: Path
    """Where heads go after the restore."""

    @classmethod
    def made(cls, home: Path) -> "Outside":
        """Make them."""
        found = cls(erasures=home / "erasures", heads=home / "heads", new_heads=home / "heads-new")
        for path in (found.erasures, found.heads, found.new_heads):
            path.mkdir()
        return found

    def environment(self, *, restored: bool = False) -> Mapping[str, str]:
        """Return what billing is told of them; quick, as far as a minute lets it be."""
        return {
            "DARKBLOOM_BILLING_AUDIT_PERIOD_S": "1",
            "DARKBLOOM_BILLING_ERASURE_DIRECTORY": str(self.erasures),
            "DARKBLOOM_BILLING_SEAL_DIRECTORY": str(self.new_heads if restored else self.heads),
        }

    def sealed(self) -> frozenset[int]:
        """Return the heights of which there is a copy."""
        return frozenset(exported(self.heads))

    def forged(self, home: Path) -> Path:
        """Return copies of which the oldest tells of another history."""
        home.mkdir()
        for path in self.heads.iterdir():
            told = json.loads(path.read_text())
            if told["height"] == 1:
                told["hash"] = bytes.fromhex(told["hash"])[::-1].hex()
            (home / path.name).write_text(json.dumps(told, sort_keys=True) + "\n")
        return home


@dataclass(frozen=True, kw_only=True)
class Leaver:
    """Somebody who signed in, has a key, and is erased after the moment."""

    mesh: Mesh
    account_id: str
    api_key: str

    @classmethod
    async def signed_in(cls, mesh: Mesh, api_key: str, key_hash: bytes) -> "Leaver":
        """Sign in for the first time, and make a key."""
        billing = mesh.channel("billing.grpc")
        login = await IdentityServiceStub(billing).VerifyLogin(
            VerifyLoginRequest(token=mesh.login_token(_EMAIL)), timeout=_CALL_S
        )
        account_id = login.login.account_id
        await AccountServiceStub(billing).CreateKey(
            CreateKeyRequest(account_id=account_id, key_hash=key_hash, label="leaver", name="own"),
            timeout=_CALL_S,
        )
        return cls(mesh=mesh, account_id=account_id, api_key=api_key)

    async def logins(self) -> int:
        """Return how many rows still lead to the person."""

        def read() -> int:
            with psycopg.connect(self.mesh.database_url, connect_timeout=10) as connection:
                row = connection.execute(_LOGINS, (self.account_id,)).fetchone()
            assert row is not None
            return int(row[0])

        return await asyncio.to_thread(read)

    async def status(self) -> int:
        """Return what the person's key is answered: 200, or a refusal."""
        return (await Consumer(self.mesh, self.api_key).get("/v1/models")).status_code

    async def erase(self, home: Path) -> str:
        """Let an operator plan and confirm the erasure, at once; return its id."""
        owner = {"DATABASE_URL": self.mesh.database_url, "DARKBLOOM_ENV": "development"}
        token = home / "operator"
        command = (sys.executable, "-m", "darkbloom_billing", "operator", "ada")
        token.write_text(await asyncio.to_thread(_printed, owner, *command))
        shell = {
            "DARKBLOOM_ADMIN_TARGET": self.mesh.wiring.address("billing.grpc"),
            "DARKBLOOM_MESH_TOKEN_FILE": str(self.mesh.wiring.mesh_token_file),
            "DARKBLOOM_ADMIN_TOKEN_FILE": str(token),
        }
        admin = (str(Path(sys.executable).parent / "darkbloom-admin"), "--json", "erase")
        told = await asyncio.to_thread(_printed, shell, *admin, "plan", self.account_id)
        planned = json.loads(told)
        erasure_id = str(planned["erasure"]["erasure_id"])
        confirm = (*admin, "confirm", erasure_id, planned["confirm_token"], "--forfeit", "--force")
        await asyncio.to_thread(_printed, shell, *confirm)
        return erasure_id


def recover(mesh: Mesh, outside: Outside, moment: datetime, heads: Path) -> Mapping[str, Any]:
    """Run the one command that follows a restore, as the runbook has it."""
    done = subprocess.run(
        BILLING.argv(
            *("recover", "--to", moment.isoformat(), "--void-all"),
            *("--erasures", str(outside.erasures), "--heads", str(heads)),
        ),
        env=inherited()
        | mesh._launcher.room_environment(BILLING)
        | dict(outside.environment(restored=True)),
        capture_output=True,
        check=False,
        text=True,
        timeout=_COMMAND_S,
    )
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "exit": done.returncode}


def deviations(recovered: Mapping[str, Any], *, before: int, after: int) -> list[str]:
    """Return what `recover` should have said and did not.

    Args:
        recovered: What it printed, with its exit code as `exit`.
        before: How many heads had a copy at the moment, at least.
        after: How many had one when the region was lost.
    """
    odd = []
    if not recovered["sound"] or recovered["exit"] or recovered["audit"].get("violations"):
        odd.append(f"recover found something: {recovered}")
    equal, given_up = recovered["heads_equal"], len(recovered["heads_given_up"])
    if equal < before or not given_up or equal + given_up != after:
        odd.append(
            f"of {after} copies of heads, {before} of them from before the moment, {equal} are"
            f" equal and {given_up} of history that is given up"
        )
    if recovered["erasures"] != {"erased": 1}:
        odd.append(f"one account was to be erased again: {recovered['erasures']}")
    return odd


def undone(*, gone: tuple[int, int], came_back: int, stays: tuple[int, int]) -> list[str]:
    """Return what is wrong with an erasure after the moment: rows that lead to the person, status.

    Args:
        gone: After the erasure, in the life that was lost.
        came_back: Rows after the restore: without them nothing would have to be erased again.
        stays: After `recover`, once every room serves.
    """
    odd = []
    if gone[0] or gone[1] not in _REFUSED:
        odd.append(f"the erasure left {gone[0]} rows, and its key is answered {gone[1]}")
    if came_back != 1:
        odd.append(f"the restore brought {came_back} rows of the erased account back: no test")
    if stays[0] or stays[1] not in _REFUSED:
        odd.append(f"who was erased is back: {stays[0]} rows, the key is answered {stays[1]}")
    return odd


def _printed(environment: Mapping[str, str], *command: str) -> str:
    done = subprocess.run(
        command,
        env=inherited() | dict(environment),
        capture_output=True,
        check=False,
        text=True,
        timeout=_COMMAND_S,
    )
    # What a plan prints holds a token; what went wrong does not.
    assert done.returncode == 0, done.stderr
    return done.stdout
