"""`darkbloom idle`: whether a model that nobody asks for stays in memory."""

import json
from typing import Annotated

import typer

from darkbloom_provider.cli import context
from darkbloom_provider.cli.first_run import MAX_IDLE_MINS
from darkbloom_provider.file_edit import edit

KEY = "backend.idle_timeout_mins"
LATER = "The agent takes it when it starts again: darkbloom restart"

app = typer.Typer(
    help="Say whether idle models give their memory back.",
    no_args_is_help=True,
    epilog="Examples: `darkbloom idle unload-after 30`, `darkbloom idle keep-loaded`.",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("status")
def status(json_: Json = False) -> None:
    """Print the policy that the agent takes when it starts."""
    settings = context.settings()
    minutes = settings.config.idle_timeout_mins
    source = settings.sources["idle_timeout_mins"]
    if json_:
        typer.echo(json.dumps({"idle_timeout_mins": minutes, "source": source}))
        return
    where = {"default": "by default", "file": "by provider.toml", "environment": "by a variable"}
    typer.echo(f"{words(minutes)} ({where[source]})")


@app.command("keep-loaded")
def keep_loaded(json_: Json = False) -> None:
    """Keep models in memory: the first answer is quick, the memory stays taken."""
    _set(0, json_=json_)


@app.command("unload-after")
def unload_after(
    minutes: Annotated[int, typer.Argument(min=1, max=MAX_IDLE_MINS, help="Without a request.")],
    json_: Json = False,
) -> None:
    """Free the memory of a model that nobody has asked for; the next request loads it again."""
    _set(minutes, json_=json_)


def words(minutes: int) -> str:
    """Return the policy in words."""
    if minutes == 0:
        return "models stay in memory"
    return f"a model leaves memory after {minutes} min without a request"


def _set(minutes: int, *, json_: bool) -> None:
    edit(context.config_path(), {KEY: minutes})
    overruled = context.settings().sources["idle_timeout_mins"] == "environment"
    if json_:
        facts = {"idle_timeout_mins": minutes, "overruled_by_environment": overruled}
        typer.echo(json.dumps(facts))
        return
    typer.echo(f"Kept: {words(minutes)}. {LATER}")
    if overruled:
        typer.echo("But DARKBLOOM_PROVIDER_IDLE_TIMEOUT_MINS is set here and wins.", err=True)
