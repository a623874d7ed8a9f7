"""`darkbloom autoupdate`: whether updates come by themselves."""

from typing import Annotated

import typer

from darkbloom_provider import file_edit
from darkbloom_provider.cli import context
from darkbloom_provider.errors import ProviderError

_ON = frozenset({"enable", "on", "true"})
_OFF = frozenset({"disable", "off", "false"})
_KEY = "provider.auto_update"


def autoupdate(
    word: Annotated[str, typer.Argument(help="enable, disable or status.", metavar="WORD")],
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Let the watchdog install updates by itself, or not; saved in provider.toml.

    `on`, `off`, `true` and `false` work too.
    """
    wanted = word.strip().lower()
    if wanted in _ON | _OFF:
        file_edit.edit(context.config_path(), {_KEY: wanted in _ON})
    elif wanted != "status":
        raise ProviderError(f"{word[:20]!r} is not a choice", "say enable, disable or status")
    on = context.config().auto_update
    if json_:
        typer.echo('{"auto_update":true}' if on else '{"auto_update":false}')
        return
    typer.echo("Updates are installed by themselves." if on else "Updates wait for your word.")
