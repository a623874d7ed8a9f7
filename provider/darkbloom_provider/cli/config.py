"""`darkbloom config`: see and change `provider.toml` without an editor."""

import json
from typing import Annotated

import typer
from darkbloom_mesh.config import ConfigError, load
from rich.console import Console
from rich.markup import escape

from darkbloom_provider import file_edit, provider_toml
from darkbloom_provider.cli import context
from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.file_keys import BY_PATH, KEYS, RETIRED
from darkbloom_provider.settings import PREFIX, ROOM

app = typer.Typer(
    help="See and change `provider.toml`.",
    no_args_is_help=True,
    epilog="Examples: `darkbloom config set backend.max_model_slots 2`, "
    "`darkbloom config unset provider.name`. The agent reads the file when it starts.",
)

KeyArgument = Annotated[str, typer.Argument(help="Table and key, as `config show` lists them.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("show")
def show(json_: JsonOption = False) -> int:
    """Print what holds here and where each value comes from.

    Exit code 1 where the file has a problem; what it touches has its default.
    """
    settings = context.settings()
    rows = [
        {
            "key": key.path,
            "value": _plain(getattr(settings.config, key.field)),
            "source": settings.sources[key.field],
            "variable": f"{PREFIX}{key.field.upper()}",
        }
        for key in KEYS
    ]
    problems = [str(one) for one in settings.problems]
    if json_:
        facts = {"path": str(settings.file.path), "exists": settings.file.exists}
        typer.echo(json.dumps({**facts, "settings": rows, "problems": problems}))
        return 1 if problems else 0

    console = Console(highlight=False)
    there = "" if settings.file.exists else " (not there: defaults hold)"
    console.print(f"{escape(str(settings.file.path))}{there}", soft_wrap=True)
    table = ""
    for row in rows:
        head, _, name = str(row["key"]).partition(".")
        if head != table:
            table = head
            console.print(f"\n[bold]\\[{table}][/]")
        value, source = json.dumps(row["value"]), row["source"]
        note = "" if source == "default" else f"  [dim]({source})[/]"
        console.print(f"{name} = {escape(value)}{note}", soft_wrap=True)
    for problem in problems:
        console.print(f"[red]wrong:[/] {escape(problem)}", soft_wrap=True)
    return 1 if problems else 0


@app.command("set")
def set_key(
    key: KeyArgument,
    value: Annotated[str, typer.Argument(help="Text, number, true or false, or a,b,c.")],
) -> None:
    """Set one key; a value that cannot hold is refused and the file stays as it is."""
    field = _field(key)
    try:
        found = provider_toml.from_text(field, value)
        text = provider_toml.as_text(field, found)
        load(ProviderConfig, ROOM, {f"{PREFIX}{field.upper()}": text, "DARKBLOOM_ENV": _world()})
    except ValueError as error:
        raise typer.BadParameter(f"{key}: {error}") from None
    except ConfigError as error:
        reasons = "; ".join(problem.partition(": ")[2] for problem in error.problems)
        raise typer.BadParameter(f"{key}: {reasons}") from None
    file_edit.edit(context.config_path(), {key: found})
    typer.echo(f"{key} = {json.dumps(found)}. The agent takes it when it starts again.")


@app.command("unset")
def unset_key(key: KeyArgument) -> None:
    """Remove one key, so that its default holds again; retired keys can be removed too."""
    if key.partition(".")[0] not in RETIRED and key not in RETIRED:
        _field(key)
    path = context.config_path()
    if path.exists():
        file_edit.edit(path, {key: None})
    typer.echo(f"{key} has its default. The agent takes it when it starts again.")


@app.command("path")
def path(json_: JsonOption = False) -> None:
    """Print which file counts."""
    found = context.config_path()
    typer.echo(json.dumps({"path": str(found), "exists": found.exists()}) if json_ else str(found))


def _field(key: str) -> str:
    known = BY_PATH.get(key)
    if known is None:
        raise ProviderError(f"there is no key {key}", "`darkbloom config show` lists them")
    return known.field


def _world() -> str:
    return context.config().environment


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
