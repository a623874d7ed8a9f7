"""What a development mesh on other hosts (compose, a laptop's cluster) takes from here.

python -m darkbloom_local.hosted keys DIRECTORY        make every key and password, once
python -m darkbloom_local.hosted secrets DIRECTORY     print them as Kubernetes secrets, for a pipe
python -m darkbloom_local.hosted provider …            seed the mesh, then serve it, scripted

Nothing here is for production, which makes its secrets elsewhere and seeds nothing.
"""

import asyncio
import base64
import json
import os
import secrets
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from darkbloom_edge.sealing_keys import new_file
from darkbloom_edge.signatures import Ed25519Signer, to_base64
from darkbloom_mesh.channel import channel
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.config import Secret

from darkbloom_local import models, seeds
from darkbloom_local.commands import json_object, output_of
from darkbloom_local.environment import inherited, refuse_production
from darkbloom_local.errors import LocalError
from darkbloom_local.state import StateDir

NAMESPACE = "darkbloom"
LOGINS = ("attestation", "registry", "router", "billing", "billing-owner")
"""Who has a login at PostgreSQL; `-` is `_` in the login's name."""
_REACHABLE_S = 180.0
_STAMP = "%Y%m%dT%H%M%SZ"

cli = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
KeysArgument = Annotated[Path, typer.Argument(help="Directory of keys, closed to others.")]


@cli.command()
def keys(directory: KeysArgument) -> None:
    """Make what is missing; what is there stays."""
    make_keys(StateDir(directory), SystemClock().now())


@cli.command(name="secrets")
def print_secrets(
    directory: KeysArgument,
    database: Annotated[str, typer.Option(help="host:port of PostgreSQL.")] = "database:5432",
    valkey: Annotated[str, typer.Option(help="host:port of Valkey.")] = "valkey:6379",
) -> None:
    """Print a list of secrets; pipe it into `kubectl apply -f -`, never into a file."""
    state = StateDir(directory)
    make_keys(state, SystemClock().now())
    typer.echo(json.dumps(kubernetes_secrets(state, database=database, valkey=valkey)))


@cli.command()
def provider(
    *,
    keys_directory: Annotated[Path, typer.Option("--keys", help="What `keys` made.")],
    home: Annotated[Path, typer.Option(help="Home of the provider, its models beside it.")],
    billing: Annotated[str, typer.Option(help="host:port")] = "billing:7102",
    attestation: Annotated[str, typer.Option(help="host:port")] = "attestation:7103",
    registry: Annotated[str, typer.Option(help="host:port")] = "registry:7104",
    router: Annotated[str, typer.Option(help="host:port of the public listener")] = "router:7410",
    gateway: Annotated[str, typer.Option(help="URL")] = "http://gateway:8080",
) -> None:
    """Seed accounts, prices, catalog and this tree's release; link and run a scripted provider."""
    refuse_production()
    agent = Agent(home, router=router, gateway=gateway)
    state = StateDir(keys_directory)
    targets = {"billing": billing, "attestation": attestation, "registry": registry}
    asyncio.run(seed(state, agent, targets))
    typer.echo(json.dumps({"event": "seeded"}))
    agent.become()


class Agent:
    """The scripted provider of a development mesh, run by its own command line."""

    def __init__(self, home: Path, *, router: str, gateway: str) -> None:
        self._models = home / "models"
        self._environment = {
            **inherited(),
            "DARKBLOOM_ENV": "development",
            "DARKBLOOM_PROVIDER_HOME": str(home / "provider"),
            "DARKBLOOM_PROVIDER_MODELS_DIR": str(self._models),
            "DARKBLOOM_PROVIDER_COORDINATOR": router,
            "DARKBLOOM_PROVIDER_COORDINATOR_TLS": "false",
            "DARKBLOOM_PROVIDER_GATEWAY": gateway,
            "DARKBLOOM_PROVIDER_NAME": "demo",
        }

    def build(self) -> seeds.DevelopmentBuild:
        """Place the scripted build and describe it."""
        self._models.mkdir(parents=True, exist_ok=True)
        return models.scripted_build(models.place_scripted(self._models))

    async def ask(self, *arguments: str) -> dict[str, Any]:
        """Return what a command says in JSON."""
        return json_object(await output_of(self._argv(*arguments), self._environment))

    def become(self) -> None:
        """Replace this process with the provider."""
        argv = self._argv("start", "--foreground", "--engine", "scripted")
        os.execve(sys.executable, argv, self._environment)  # noqa: S606 - no shell is wanted

    def _argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "darkbloom_provider", *arguments]


def make_keys(state: StateDir, now: datetime) -> None:
    """Make every key and password that is missing."""

    def token() -> str:
        return secrets.token_hex(32)

    def key() -> str:
        return to_base64(Ed25519Signer.generate().private_bytes()) + "\n"

    state.secret("mesh-token", token)
    state.secret("api-key", lambda: f"sk-db-{token()}")
    state.secret("admin-key", token)
    state.secret("hint-key", lambda: base64.b64encode(secrets.token_bytes(32)).decode())
    state.secret("sealing-keys", lambda: new_file(secrets.token_bytes, now).decode())
    state.secret("manifest-key", key)
    for login in ("valkey", *LOGINS):
        state.secret(f"password-{login}", token)
    verdicts = state.directory("keys", "attestation")
    if not any(verdicts.glob("*.key")):
        state.secret(f"attestation/{now.strftime(_STAMP)}.key", key)


def kubernetes_secrets(state: StateDir, *, database: str, valkey: str) -> dict[str, Any]:
    """Return the secrets that deploy/kustomize wants, as one list."""

    def text(name: str) -> str:
        return (state.root / "keys" / name).read_text().strip()

    password = text("password-valkey")
    found = [
        _secret("mesh-token", {"token": text("mesh-token")}),
        _secret(
            "gateway-keys", {name: text(name) for name in ("admin-key", "hint-key", "sealing-keys")}
        ),
        _secret("registry-keys", {"manifest-key": text("manifest-key")}),
        _secret(
            "attestation-keys",
            {
                path.name: path.read_text().strip()
                for path in sorted((state.root / "keys" / "attestation").glob("*.key"))
            },
        ),
        _secret(
            "valkey",
            {"url": f"redis://:{password}@{valkey}/0", "valkey.conf": f"requirepass {password}\n"},
        ),
        _secret("demo-keys", {name: text(name) for name in ("api-key", "mesh-token")}),
    ]
    for login in LOGINS:
        user, word = login.replace("-", "_"), text(f"password-{login}")
        found.append(
            _secret(
                f"database-{login}",
                {
                    "username": user,
                    "password": word,
                    "uri": f"postgresql://{user}:{word}@{database}/darkbloom?sslmode=require",
                },
                kind="kubernetes.io/basic-auth",
            )
        )
    return {"apiVersion": "v1", "kind": "List", "items": found}


async def seed(state: StateDir, agent: Agent, targets: dict[str, str]) -> None:
    """Make what a fresh mesh needs before it can answer; again, it changes nothing.

    Raises:
        LocalError: A room cannot be reached.
    """
    token = Secret((state.root / "keys" / "mesh-token").read_text().strip())
    build = agent.build()
    async with asyncio.TaskGroup() as tasks:
        asked = [
            tasks.create_task(agent.ask(what, "--json")) for what in ("identity", "code-release")
        ]
    identity, release = (task.result() for task in asked)
    opened = {
        name: channel(target, mesh_token=token, room="local") for name, target in targets.items()
    }
    try:
        for name, room in opened.items():
            await _reachable(name, room)
        api_key = (state.root / "keys" / "api-key").read_text().strip()
        await seeds.accounts(opened["billing"], api_key)
        await seeds.prices(opened["billing"], [build])
        await seeds.catalog(opened["registry"], [build])
        await seeds.code_release(opened["attestation"], release)
        await seeds.link_provider(
            opened["billing"], base64.b64decode(identity["identity_key"]), "demo"
        )
    finally:
        for room in opened.values():
            await room.close(None)


async def _reachable(name: str, room: grpc.aio.Channel) -> None:
    try:
        async with asyncio.timeout(_REACHABLE_S):
            await room.channel_ready()
    except TimeoutError:
        raise LocalError(f"{name} cannot be reached") from None


def _secret(name: str, data: dict[str, str], *, kind: str = "Opaque") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "stringData": data,
    }


if __name__ == "__main__":
    cli(prog_name="darkbloom_local.hosted")
