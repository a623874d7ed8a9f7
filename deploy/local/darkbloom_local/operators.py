"""Operators of a local mesh: `darkbloom-admin` needs one's token and where billing listens."""

import os
import re
import shlex
import sys

from darkbloom_mesh.callers import OPERATOR

from darkbloom_local.authority import tls_environment
from darkbloom_local.commands import output_of
from darkbloom_local.environment import inherited
from darkbloom_local.errors import LocalError
from darkbloom_local.ports import HOST
from darkbloom_local.state import StateDir
from darkbloom_local.stores import Postgres

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")


async def register_operator(state: StateDir, name: str) -> str:
    """Register an operator, or give one a new token, which is kept in a file of mode 0600.

    Returns:
        Lines that tell a shell who one is; no secret is in them.

    Raises:
        LocalError: No mesh runs here, the name is no name, or billing refused.
    """
    if not _NAME.fullmatch(name):
        raise LocalError("a name has small letters, digits and hyphens, 32 at most")
    running = state.running()
    billing = running["listeners"]["billing.grpc"]
    token = await output_of(
        [sys.executable, "-m", "darkbloom_billing", "operator", name],
        {
            **inherited(),
            "DARKBLOOM_ENV": "development",
            "DATABASE_URL": Postgres(state.root / "postgres").url,
        },
    )
    path = state.directory("keys", "operators") / name
    scratch = path.with_suffix(".tmp")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(token.strip())
    scratch.rename(path)
    settings = {
        "DARKBLOOM_ADMIN_TARGET": f"{HOST}:{billing}",
        "DARKBLOOM_ADMIN_TOKEN_FILE": str(path.resolve()),
        **_credentials(state, mtls=bool(running.get("tls"))),
    }
    return "\n".join(f"export {key}={shlex.quote(value)}" for key, value in settings.items())


def _credentials(state: StateDir, *, mtls: bool) -> dict[str, str]:
    """Return what a command line shows to a room."""
    keys = (state.root / "keys").resolve()
    if mtls:
        return tls_environment(keys / "tls", OPERATOR)
    return {"DARKBLOOM_MESH_TOKEN_FILE": str(keys / "mesh-token")}
