"""`darkbloom update`: a newer version, checked to the last byte, and a way back."""

import sys
from typing import Annotated

import msgspec
import typer

from darkbloom_provider.cli import context
from darkbloom_provider.cli.background import background
from darkbloom_provider.service.intent import read_intent
from darkbloom_provider.service.leaving import DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S
from darkbloom_provider.service.plan import PROVIDER_LABEL
from darkbloom_provider.update.here import require_managed, updater_here
from darkbloom_provider.update.results import UpdateError, UpdateResult
from darkbloom_provider.update.store import AppStore
from darkbloom_provider.update.updater import Checked

_STEPS = {
    "check": "Asking for the newest release",
    "download": "Downloading",
    "unpack": "Unpacking",
    "verify": "Checking every file, and that it runs here",
    "publish": "Installing",
}


def update(
    check_only: Annotated[
        bool, typer.Option("--check-only", help="Only say whether there is a newer version.")
    ] = False,
    override_quarantine: Annotated[
        bool,
        typer.Option(
            "--override-quarantine", help="Also a version that kept dying on this machine."
        ),
    ] = False,
    timeout: Annotated[
        float, typer.Option(help="Seconds to wait for running work.", min=0, max=MAX_TIMEOUT_S)
    ] = DEFAULT_TIMEOUT_S,
    force: Annotated[bool, typer.Option("--force", help="End running work at once.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Install the newest release and restart the agent with it.

    The release must be signed by a key that is pinned here; the archive must have the signed hash,
    the unpacked tree the signed measurement, and it must run. Until the swap nothing is touched. A
    version that dies three times within ten minutes of its start is taken back by itself.
    """
    try:
        found, result = _update(
            check_only=check_only,
            override_quarantine=override_quarantine,
            timeout_s=timeout,
            force=force,
        )
    except KeyboardInterrupt:
        error = UpdateError(UpdateResult.CANCELLED, "cancelled; nothing was changed")
        return _fail(error, json_=json_)
    except UpdateError as error:
        return _fail(error, json_=json_)
    if json_:
        version = None if found.release is None else found.release.version
        facts = {"result": result.value, "current": found.current, "available": version}
        typer.echo(msgspec.json.encode(facts).decode())
    else:
        typer.echo(_sentence(found, result))
    return 1 if result is UpdateResult.QUARANTINED else 0


def _update(
    *, check_only: bool, override_quarantine: bool, timeout_s: float, force: bool
) -> tuple[Checked, UpdateResult]:
    config = context.config()
    updater = updater_here(config, _say)
    found = updater.check(override_quarantine=override_quarantine)
    if check_only or found.release is None or found.result is not UpdateResult.AVAILABLE:
        return found, found.result
    require_managed(AppStore(config.folders.app))
    updater.install(found.release)
    service = background()
    wanted = read_intent(service.home.intent).wanted == "running"
    if wanted and service.manager.installed(PROVIDER_LABEL):
        service.restart(timeout_s=timeout_s, force=force)
    return found, UpdateResult.UPDATED


def _say(step: str) -> None:
    if step in _STEPS:
        sys.stderr.write(f"{_STEPS[step]} …\n")


def _sentence(found: Checked, result: UpdateResult) -> str:
    version = found.release.version if found.release is not None else found.current
    sentences = {
        UpdateResult.UP_TO_DATE: f"{found.current} is the newest version.",
        UpdateResult.AVAILABLE: f"{version} is available; {found.current} is installed.",
        UpdateResult.QUARANTINED: f"{version} kept dying on this machine and was taken back;"
        " --override-quarantine tries it again.",
        UpdateResult.UPDATED: f"Updated from {found.current} to {version}.",
    }
    return sentences[result]


def _fail(error: UpdateError, *, json_: bool) -> int:
    if not json_:
        raise error
    facts = {"result": error.result.value, "error": error.message, "remedy": error.remedy}
    typer.echo(msgspec.json.encode(facts).decode())
    return 1
