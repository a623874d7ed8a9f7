"""What `darkbloom start` does before the service is started: notice, preflight, questions."""

import os
import sys
from collections.abc import Mapping
from typing import Any

import psutil
import typer
from darkbloom_mesh.clock import SystemClock
from rich.console import Console
from rich.markup import escape

from darkbloom_provider.checks import Scene, files, look, machine
from darkbloom_provider.cli import context, first_run, shelf
from darkbloom_provider.cli.login import link_here
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.file_edit import Value, edit
from darkbloom_provider.settings import Settings

_SAVED = {"models": "backend.enabled_models", "idle_timeout_mins": "backend.idle_timeout_mins"}


def interactive() -> bool:
    """Tell whether somebody can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def name_mistakes(settings: Settings) -> None:
    """Name on standard error what `provider.toml` gets wrong and which of its keys are retired."""
    console = Console(stderr=True, highlight=False)
    for one in settings.problems:
        where = f"{settings.file.path}: {one}"
        console.print(f"[yellow]not in force:[/] {escape(where)}", soft_wrap=True)
    for one in settings.file.retired:
        where = f"{settings.file.path}: {one}"
        console.print(f"[yellow]retired:[/] {escape(where)}", soft_wrap=True)


def prepare(given: Mapping[str, Any], *, pick: bool) -> None:
    """Give the notice, look at the machine, ask, and keep the answers.

    Args:
        given: what flags said, by field.
        pick: show the picker although models were chosen before.

    Raises:
        ProviderError: the machine cannot serve, or there is nothing to serve.
    """
    console = Console(highlight=False)
    console.print(first_run.TERMS, soft_wrap=not console.is_terminal)
    settings = context.settings()
    scene = look(settings, dict(os.environ))  # noqa: TID251 - looked at, not read for values
    _preflight(scene)
    changes: dict[str, Value | None] = {
        key: given[field] for field, key in _SAVED.items() if field in given
    }
    asks = interactive() and "models" not in given
    if asks and scene.login is None and scene.gateway:
        _offer_login()
    if asks and (pick or settings.sources["models"] == "default"):
        changes |= _ask(console, settings)
    if changes:
        edit(context.config_path(), changes)
    _something_to_serve(look(context.settings(), dict(os.environ)))  # noqa: TID251 - as above


def say_started() -> None:
    """Tell what runs now and how to see it."""
    typer.echo("Started in the background; it comes back after a restart of this machine.")
    typer.echo("See it: darkbloom status. Why it earns nothing: darkbloom doctor.")


def _preflight(scene: Scene) -> None:
    for check in machine.checks(scene):
        if check.result == "fail":
            raise ProviderError(f"{check.name}: {check.detail}", check.fix)


def _offer_login() -> None:
    if typer.confirm("This machine earns for nobody yet. Link it to your account now?", True):
        link_here(context.config(), SystemClock())
    else:
        typer.echo("Later: darkbloom login. Until then no paid request comes here.")


def _ask(console: Console, settings: Settings) -> dict[str, Value | None]:
    config = settings.config
    found = shelf.offered(config, psutil.virtual_memory().total)
    if not found.offers:
        raise ProviderError(
            "no model fits this machine, or none can be seen",
            "`darkbloom models catalog` lists the network's, `darkbloom models import` takes yours",
        )
    answers = first_run.ask(console, found, config.models)
    shelf.fetch(answers.download)
    return answers.changes()


def _something_to_serve(scene: Scene) -> None:
    if not files.wanted(scene):
        raise ProviderError(
            "no models selected: nothing of the store is to be served",
            "`darkbloom models download ORG/NAME`, then `darkbloom start --model ORG/NAME`",
        )
