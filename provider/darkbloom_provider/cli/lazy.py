"""A group that imports a command when it is asked for, so that `--version` waits for no engine."""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from darkbloom_provider.cli.commands import COMMANDS, Command

_BY_NAME = {command.name: command for command in COMMANDS}


class LazyGroup(TyperGroup):
    """The root; its commands are those of the table, in its order."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return every name, hidden ones too."""
        del ctx
        return [command.name for command in COMMANDS]

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | TyperGroup | None:
        """Import a command; None where there is no such name."""
        del ctx
        found = _BY_NAME.get(cmd_name)
        return _built(found, self.rich_markup_mode) if found is not None else None


def _built(command: Command, markup: Any) -> TyperCommand | TyperGroup:
    module, _, name = command.target.partition(":")
    target = getattr(import_module(f"darkbloom_provider.cli.{module}"), name)
    built: Any
    if isinstance(target, typer.Typer):
        target.rich_markup_mode = markup
        built = typer.main.get_group(target)
    else:
        alone = typer.Typer(add_completion=False, rich_markup_mode=markup)
        alone.command(command.name)(target)
        built = typer.main.get_command(alone)
    built.name = command.name
    built.rich_help_panel = command.panel
    built.hidden = command.hidden
    if not isinstance(built, TyperCommand | TyperGroup):
        raise TypeError(f"{command.target} is no command")
    return built
