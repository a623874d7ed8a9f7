"""Secrets are exchanged under load: the rooms' token, the verdict key, a publishing key."""

import asyncio
import base64
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
from darkbloom_local.mesh import Mesh
from darkbloom_mesh.channel import channel
from darkbloom_mesh.config import Secret

from tests.drills.desk import BIN, Said, python, ran
from tests.drills.drill import Drill, Outcome
from tests.drills.load import answered_since, grown, steady
from tests.drills.stage import Stage
from tests.drills.toll import Ledger
from tests.mesh.harness import CALL_S, Consumer, Fleet, until

_CLIENTS = 4
_ASKED = {
    "registry": "/darkbloom.registry.v1.RegistryService/ListAliases",
    "attestation": "/darkbloom.attestation.v1.AttestationService/ListVerdictKeys",
    "billing": "/darkbloom.billing.v1.PriceService/ListPrices",
}
"""What each room says to whoever may ask at all."""
_LABEL = "ci"
_TOKENS = 12


async def play(stage: Stage) -> Outcome:
    """Change the verdict key, a publishing key and the token; try each old value afterwards."""
    odd: list[str] = []
    async with stage.mesh() as mesh:
        ledger = await Ledger.begin(mesh)
        async with steady(mesh, clients=_CLIENTS, tokens=_TOKENS, patience_s=90) as load:
            await until(grown(load, _CLIENTS), "answers before")
            stage.progress("a publishing key is made, leaks, and is revoked")
            odd += await _publishing(mesh, stage.home)

            stage.progress("attestation gets a new verdict key, the old one keeps its public half")
            odd += await _verdict_key(stage, mesh)
            await until(grown(load, 2 * _CLIENTS), "answers under the new verdict key")

            stage.progress(
                "the mesh token is changed: gateway and router leave first, and come last"
            )
            old = mesh.mesh_token
            changed_at = stage.clock.monotonic()
            await _new_token(mesh)
            recovery_s = await answered_since(load, changed_at) - changed_at
            await Fleet(mesh).wait_routable()
            for name in _ASKED:
                heard = await _called(mesh, name, old)
                if heard is not grpc.StatusCode.UNAUTHENTICATED:
                    odd.append(f"{name} answers the old token with {heard.name}")
                if (heard := await _called(mesh, name, mesh.mesh_token)) is not grpc.StatusCode.OK:
                    odd.append(f"{name} answers the new token with {heard.name}")
            await until(grown(load, 2 * _CLIENTS), "answers afterwards")
        toll = await ledger.toll(load.answers)
    return Outcome(
        lost_requests=len(load.lost),
        lost_micros=toll.lost_micros,
        recovery_s=recovery_s,
        unexpected=[
            *odd,
            *toll.unexpected,
            *(one.told() for one in load.lost),
        ],
        facts={**load.facts(), **toll.facts()},
    )


async def _publishing(mesh: Mesh, home: Path) -> list[str]:
    """Make a key as publishing.md says, use it, revoke it, use it again."""
    owner = {"DATABASE_URL": mesh.database_url, "DARKBLOOM_ENV": "development"}
    key = home / "publishing-key"
    words = ("-m", "darkbloom_registry", "key", _LABEL)
    made = await python(owner, *words, "publish", "promote", "alias")
    if made.code:
        return [f"no publishing key could be made: {made.err}"]
    key.touch(0o600)
    await asyncio.to_thread(key.write_text, made.out)
    odd = []
    if (said := await _publish(mesh, key)).code:
        odd.append(f"a fresh publishing key is refused: {said.err}")
    revoked = await python(owner, *words, "--revoke")
    if revoked.code:
        odd.append(f"the publishing key could not be revoked: {revoked.err}")
    if not (await _publish(mesh, key)).code:
        odd.append("a revoked publishing key still changes the catalog")
    return odd


async def _publish(mesh: Mesh, key: Path) -> Said:
    """Point a name at the build that serves, which changes nothing for anybody."""
    environment = {
        "DARKBLOOM_PUBLISH_TARGET": mesh.wiring.address("registry.grpc"),
        "DARKBLOOM_MESH_TOKEN_FILE": str(mesh.wiring.mesh_token_file),
        "DARKBLOOM_PUBLISHING_KEY_FILE": str(key),
    }
    words = ("alias", "drill", "dev/scripted")
    return await ran(environment, str(BIN / "darkbloom-publish"), *words)


async def _verdict_key(stage: Stage, mesh: Mesh) -> list[str]:
    """Add `<now>.key`, restart, take the old private half out and leave `<time>.pub`."""
    before = await _verdict_keys(mesh)
    (shown,) = before.values()
    directory = mesh.state.directory("keys", "attestation")
    (leaked,) = directory.glob("*.key")
    moment = f"{stage.clock.now():%Y%m%dT%H%M%SZ}"
    await asyncio.to_thread(_write, directory / f"{moment}.key", secrets.token_bytes(32))
    await mesh.restart("attestation")
    await asyncio.to_thread(_write, leaked.with_suffix(".pub"), shown)
    leaked.unlink()
    await mesh.restart("attestation")

    async def published() -> bool:
        return len(await _verdict_keys(mesh)) == len(before) + 1

    await until(published, "both verdict keys are published")
    kept = before.items() <= (await _verdict_keys(mesh)).items()
    return [] if kept else ["receipts of before cannot be checked any more"]


async def _verdict_keys(mesh: Mesh) -> dict[str, bytes]:
    """Return the verdict keys that everybody may see, by id."""
    verdict_keys, _ = await Consumer(mesh).keys()
    return verdict_keys


def _write(path: Path, key: bytes) -> None:
    """Write a key, for its owner's eyes."""
    path.touch(0o600)
    path.write_text(f"{base64.b64encode(key).decode()}\n")


async def _new_token(mesh: Mesh) -> None:
    """Change the token in the runbook's order: whoever settles leaves before whoever is told."""
    for name in ("gateway", "router"):
        await mesh.stop(name)
    await asyncio.to_thread(mesh.wiring.mesh_token_file.write_text, secrets.token_hex(32))
    for opened in mesh._channels.values():
        await opened.close(None)
    mesh._channels.clear()
    async with asyncio.TaskGroup() as tasks:
        for name in _ASKED:
            tasks.create_task(mesh.restart(name))
    for name in ("router", "gateway"):
        await mesh.restart(name)


async def _called(mesh: Mesh, room: str, token: Secret) -> grpc.StatusCode:
    """Call a room with a token; return how that ends."""
    async with channel(
        mesh.wiring.address(f"{room}.grpc"), mesh_token=token, room="drill", peer=room
    ) as opened:
        try:
            ask: Callable[..., Awaitable[bytes]] = opened.unary_unary(_ASKED[room])
            await ask(b"", timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


DRILL = Drill(
    name="secret-leak",
    claim="token, verdict key and publishing key are exchanged; old values are refused at once",
    runbooks=("secret-leak",),
    limit_s=240,
    play=play,
)
