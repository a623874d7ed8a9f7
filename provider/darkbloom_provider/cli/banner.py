"""One line before a command when a newer release is out; silent about everything else.

Only for people (standard error is a terminal), at most one question in six hours, and never longer
than 2 seconds. `DARKBLOOM_NO_UPDATE_CHECK`, set to anything, switches it off.
"""

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Final

import typer
from darkbloom_mesh.clock import Clock, SystemClock
from darkbloom_mesh.config import ConfigError

from darkbloom_provider.settings import load_settings
from darkbloom_provider.update.versions import newer, order

OFF: Final = "DARKBLOOM_NO_UPDATE_CHECK"
PATIENCE_S: Final = 2.0
AGAIN_AFTER: Final = timedelta(hours=6)
FILE_NAME: Final = "release-check.json"
_SILENT: Final = frozenset({"update", "autoupdate", "watchdog", "verify", "config", "code-release"})
"""Commands that say it themselves, run by themselves, or have nothing to do with it."""
_MAX_BYTES: Final = 4096


def tell(command: str | None, chosen: Path | None) -> None:
    """Print the line where there is something to say.

    Args:
        command: which is about to run.
        chosen: the `provider.toml` of `-c`.
    """
    environ = dict(os.environ)  # noqa: TID251 - an off switch that is no setting of the agent
    if environ.get(OFF) or command in _SILENT or command is None or not sys.stderr.isatty():
        return
    version = newest(environ, chosen, SystemClock())
    here = metadata.version("darkbloom-provider")
    if version and newer(version, here):
        typer.echo(f"darkbloom {version} is out, this is {here}: darkbloom update", err=True)


def newest(environ: Mapping[str, str], chosen: Path | None, clock: Clock) -> str:
    """Return the newest version, as asked or remembered; empty where nobody can say."""
    try:
        config = load_settings(environ, chosen).config
    except ConfigError:
        return ""
    home = config.folders.root
    if config.gateway is None or not home.is_dir():
        return ""
    path = home / FILE_NAME
    known = _remembered(path, clock)
    if known is not None:
        return known
    version = _ask(config.gateway)
    with suppress(OSError):
        path.write_text(json.dumps({"at": clock.now().isoformat(), "version": version}))
    return version


def _remembered(path: Path, clock: Clock) -> str | None:
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_MAX_BYTES))
        age = clock.now() - datetime.fromisoformat(found["at"])
        fresh = timedelta(0) <= age < AGAIN_AFTER
        return _sound(found["version"]) if fresh else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _ask(gateway: str) -> str:
    # Imported here: most runs remember, and need no HTTP.
    import httpx

    from darkbloom_provider.code_release import platform_name

    try:
        answer = httpx.get(
            f"{gateway.rstrip('/')}/v1/releases/latest",
            params={"platform": platform_name()},
            timeout=PATIENCE_S,
        )
        return _sound(answer.json()["version"])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
        return ""


def _sound(version: object) -> str:
    """Return what is a version, for a terminal shows nothing else."""
    return version if isinstance(version, str) and order(version) is not None else ""
