"""What machines fetch is not what was published: altered files, then a manifest of a stranger."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from darkbloom_local.mesh import Mesh

from tests.drills.drill import Drill, Outcome
from tests.drills.load import Answer, End, Load, grown, steady
from tests.drills.stage import Stage
from tests.drills.toll import Ledger
from tests.fakes.file_server import file_server
from tests.mesh.harness import darkbloom, provider_state, until
from tests.mesh.test_models import ALIAS, FIRST, PROVIDER, answered_by, point, publish

_CLIENTS = 3


async def play(stage: Stage) -> Outcome:
    """Publish a good version, one whose file is altered, one that a stranger signed."""
    odd: list[str] = []
    async with (
        file_server() as store,
        stage.mesh(environment={"provider": PROVIDER}) as mesh,
    ):
        good = await publish(mesh, store, FIRST, "v1")
        await point(mesh, FIRST)
        fetched = await asyncio.to_thread(darkbloom(mesh, "models", "download", FIRST))
        assert fetched.returncode == 0, fetched.stderr
        await until(_answers(mesh, good), "the good version answers")
        ledger = await Ledger.begin(mesh)
        async with steady(mesh, clients=_CLIENTS, tokens=12, model=ALIAS) as load:
            stage.progress("v2: the store's file is not the one that was published")
            await publish(mesh, store, FIRST, "v2", altered=True)
            await until(_refused(mesh, "corrupt"), "the machine refuses the file by name", 60)
            odd += await _untouched(mesh, load, good, "v2")

            stage.progress("v3: the manifest carries a stranger's signature")
            stranger = {"DARKBLOOM_REGISTRY_MANIFEST_KEY_FILE": str(stage.home / "stranger")}
            await mesh.restart("registry", stranger)
            await publish(mesh, store, FIRST, "v3")
            await until(
                _refused(mesh, "untrusted_manifest"), "the machine refuses the manifest", 60
            )
            odd += await _untouched(mesh, load, good, "v3")
            status = await asyncio.to_thread(darkbloom(mesh, "status"))
            if "untrusted_manifest" not in status.stdout:
                odd.append("`darkbloom status` does not say why nothing is fetched")

            stage.progress("the registry has its own key again")
            begun = stage.clock.monotonic()
            await mesh.restart("registry", {})
            mended = await publish(mesh, store, FIRST, "v4")
            await until(_answered(load, mended), "the mended version answers", 90)
            recovery_s = stage.clock.monotonic() - begun
            await until(grown(load, _CLIENTS), "answers afterwards")
        toll = await ledger.toll(load.answers)
    return Outcome(
        lost_requests=len(load.lost),
        lost_micros=toll.lost_micros,
        recovery_s=recovery_s,
        unexpected=[*odd, *toll.unexpected, *(one.told() for one in load.lost)],
        facts=load.facts(),
    )


def _answers(mesh: Mesh, weights: str) -> Callable[[], Awaitable[bool]]:
    async def found() -> bool:
        return await answered_by(mesh, ALIAS) == weights

    return found


def _refused(mesh: Mesh, reason: str) -> Callable[[], Awaitable[Any]]:
    async def found() -> bool:
        wanted = provider_state(mesh).get("downloads", ())
        return any(row["model"] == FIRST and row.get("reason") == reason for row in wanted)

    return found


def _answered(load: Load, weights: str) -> Callable[[], Awaitable[bool]]:
    async def found() -> bool:
        return any(_weights(one) == weights for one in load.answers[-_CLIENTS:])

    return found


def _weights(answer: Answer) -> str:
    """Return the weight hash that a receipt names; empty where there is none."""
    if answer.end is not End.WHOLE or answer.stream is None:
        return ""
    return str(json.loads(base64.b64decode(answer.stream.receipt["terminal"]))["weight_hash"])


async def _untouched(mesh: Mesh, load: Load, good: str, version: str) -> list[str]:
    """The version before answers, and no byte of the poisoned one is left."""
    at = len(load.answers)
    await until(grown(load, 2 * _CLIENTS), "answers of the good version")
    odd = [
        f"after {version} another version answers"
        for one in load.answers[at:]
        if _weights(one) not in (good, "")
    ]
    left = await asyncio.to_thread(_holding, mesh.state.root / "models", version)
    return odd + [f"{path} was left behind" for path in left]


def _holding(models: Path, version: str) -> list[Path]:
    """Return what holds bytes of a version, whole or in part."""
    return [
        path.relative_to(models)
        for path in models.rglob("*")
        if path.is_file() and f" {version}".encode() in path.read_bytes() and path.suffix != ".lock"
    ]


DRILL = Drill(
    name="poisoned-manifest",
    claim="altered files and a stranger's manifest are refused by name, and what served goes on",
    runbooks=("models", "trust-incident"),
    limit_s=300,
    play=play,
)
