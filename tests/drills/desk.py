"""Operators at a shell, as the runbook operators.md has it: commands, never our code."""

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkbloom_local.environment import inherited
from darkbloom_local.mesh import Mesh

BIN = Path(sys.executable).parent
_COMMAND_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, where that is JSON."""
        return json.loads(self.out)


async def ran(environment: Mapping[str, str], *words: str) -> Said:
    """Run a command to its end, whatever that is.

    Raises:
        TimeoutError: It takes longer than a minute.
    """
    process = await asyncio.create_subprocess_exec(
        *words,
        env={**inherited(), **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_COMMAND_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return Said(code=process.returncode or 0, out=out.decode(), err=err.decode())


async def python(environment: Mapping[str, str], *words: str) -> Said:
    """Run `python` with these words."""
    return await ran(environment, sys.executable, *words)


class Desk:
    """Named operators, each with a token of his own.

    Args:
        mesh: Whose billing they reach.
        home: Where their tokens lie.
    """

    def __init__(self, mesh: Mesh, home: Path) -> None:
        self._mesh = mesh
        self._home = home

    @property
    def owner(self) -> Mapping[str, str]:
        """What a command finds that is run as the owner of the database."""
        return {"DATABASE_URL": self._mesh.database_url, "DARKBLOOM_ENV": "development"}

    def shell(self, name: str) -> dict[str, str]:
        """Return what step 3 of the runbook exports."""
        return {
            "DARKBLOOM_ADMIN_TARGET": self._mesh.wiring.address("billing.grpc"),
            "DARKBLOOM_ADMIN_TOKEN_FILE": str(self._home / name),
            "DARKBLOOM_MESH_TOKEN_FILE": str(self._mesh.wiring.mesh_token_file),
        }

    async def billing(self, *words: str) -> Said:
        """Run `python -m darkbloom_billing` as the owner of the database."""
        return await python(self.owner, "-m", "darkbloom_billing", *words)

    async def register(self, *names: str) -> "Desk":
        """Register operators, step 1 of the runbook; return the desk.

        Raises:
            AssertionError: It was refused.
        """
        for name in names:
            said = await self.billing("operator", name)
            assert said.code == 0, said.err
            path = self._home / name
            path.touch(0o600)
            path.write_text(said.out)
        return self

    async def ask(self, name: str, *words: str) -> Said:
        """Run `darkbloom-admin --json` as an operator, however it ends."""
        return await ran(self.shell(name), str(BIN / "darkbloom-admin"), "--json", *words)

    async def does(self, name: str, *words: str) -> Any:
        """Run `darkbloom-admin --json` as an operator; return what it says.

        Raises:
            AssertionError: It was refused.
        """
        said = await self.ask(name, *words)
        assert said.code == 0, f"{' '.join(words)}: {said.err}"
        return said.json
