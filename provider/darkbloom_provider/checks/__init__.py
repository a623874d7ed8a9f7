"""What `doctor` looks at: every check is named, says what it saw, and what to do about it."""

import asyncio
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import psutil
from darkbloom_mesh.clock import Clock, SystemClock

from darkbloom_provider import hardware, lock, state
from darkbloom_provider.account import AccountError, Login, read_login
from darkbloom_provider.checks import availability, files, hub, kv, live, machine, network
from darkbloom_provider.checks.model import AREAS, Check, Scene
from darkbloom_provider.home import Home
from darkbloom_provider.mac.measuring import run_tool
from darkbloom_provider.models.store import ModelStore
from darkbloom_provider.service.control import NoAnswerError, Question, ask
from darkbloom_provider.settings import Settings
from darkbloom_provider.zone import local_zone

_LOCAL: tuple[Callable[[Scene], Iterable[Check]], ...] = (
    machine.checks,
    files.checks,
    hub.checks,
    availability.checks,
    live.checks,
    kv.checks,
)


def look(settings: Settings, environ: Mapping[str, str], clock: Clock | None = None) -> Scene:
    """Gather what the checks look at; nothing is changed."""
    home = settings.config.folders
    login: Login | None = None
    problem = ""
    try:
        login = read_login(home.login)
    except AccountError as error:
        problem = error.message
    except OSError as error:
        problem = f"{home.login} cannot be read ({error.strerror})"
    running = lock.holder(home.lock) is not None
    return Scene(
        settings=settings,
        environ=environ,
        hardware=hardware.detect(),
        clock=clock or SystemClock(),
        zone=local_zone(environ.get("TZ", "")),
        free_bytes=free_bytes,
        processes=process_names,
        platform=platform_name(),
        tools=run_tool,
        stored=tuple(ModelStore(settings.config.store_root).list()),
        login=login,
        login_problem=problem,
        snapshot=state.read(home.state) if running else None,
        awake=_awake(home) if running else None,
    )


def run_checks(scene: Scene) -> list[Check]:
    """Run every check, ordered by area; none can fail the others, the network is bounded."""
    found = asyncio.run(_all(scene))
    return sorted(found, key=lambda check: AREAS.index(check.area))


async def _all(scene: Scene) -> list[Check]:
    probes = asyncio.ensure_future(network.checks(scene))
    here = await asyncio.to_thread(
        lambda: [check for look_at in _LOCAL for check in look_at(scene)]
    )
    return [*here, *await probes]


def free_bytes(path: Path) -> int:
    """Return what is left on the volume of `path`."""
    return int(psutil.disk_usage(str(path)).free)


def platform_name() -> str:
    """Return the platform as Python names it."""
    return sys.platform


def _awake(home: Home) -> bool | None:
    try:
        return ask(home.control, Question(op="facts"), timeout_s=network.PROBE_S).sleep_prevented
    except NoAnswerError:
        return None


def process_names() -> list[str]:
    """Return the names of what runs on this machine."""
    return [str(process.info["name"] or "") for process in psutil.process_iter(["name"])]


__all__ = ["Check", "Scene", "free_bytes", "look", "run_checks"]
