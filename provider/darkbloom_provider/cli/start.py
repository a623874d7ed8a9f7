"""`darkbloom start`: ask what must be known, then serve, here or in the background."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from darkbloom_provider.cli import beginning, context
from darkbloom_provider.cli.background import background
from darkbloom_provider.cli.first_run import MAX_IDLE_MINS
from darkbloom_provider.cli.foreground import current_schedule, serve_here
from darkbloom_provider.config import MAX_PORT
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.options import LocalEndpoint, Options
from darkbloom_provider.schedule import Schedule
from darkbloom_provider.service.leaving import DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S

_FLAGS = {
    "coordinator": "--coordinator",
    "engine": "--engine",
    "models_dir": "--models-dir",
    "name": "--name",
}


def start(
    coordinator: Annotated[
        str | None, typer.Option(help="host:port of the router's provider listener.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Serve this build; repeat for more. Skips the picker."),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Serve every model of the store. Skips the picker.")
    ] = False,
    pick: Annotated[bool, typer.Option("--pick", help="Show the picker again.")] = False,
    idle_timeout: Annotated[
        int | None,
        typer.Option(
            help="Minutes after which an idle model leaves memory; 0: never. Saved.",
            min=0,
            max=MAX_IDLE_MINS,
        ),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="`mlx`, or `scripted` for builds of `dev/`.")
    ] = None,
    models_dir: Annotated[Path | None, typer.Option(help="Where models are kept.")] = None,
    name: Annotated[str | None, typer.Option(help="What you call this machine.")] = None,
    private_only: Annotated[
        bool | None, typer.Option("--private-only", help="Serve only your own requests.")
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="Serve only your own programs; ask no router.")
    ] = False,
    local_endpoint: Annotated[
        bool,
        typer.Option("--local-endpoint", help="Serve your own programs beside the network."),
    ] = False,
    port: Annotated[
        int, typer.Option(help="Port of the local endpoint; 0 picks one.", min=0, max=MAX_PORT)
    ] = 8000,
    bind: Annotated[str, typer.Option(help="Address of the local endpoint.")] = "127.0.0.1",
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Local endpoint without a key: whoever asks, gets.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            help="Seconds that a running agent may take to hand over.", min=0, max=MAX_TIMEOUT_S
        ),
    ] = DEFAULT_TIMEOUT_S,
    force: Annotated[
        bool, typer.Option("--force", help="End the work of a running agent at once.")
    ] = False,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Serve in this process, ask nothing.")
    ] = False,
) -> int:
    """Begin to earn: install the background service and start it.

    The first time, on a terminal, it asks for your account, which models to serve, and what to do
    with memory while nobody asks; the answers are kept in `provider.toml`. With flags that answer,
    or without a terminal, it asks nothing. A running agent finishes its work first.

    Examples: `darkbloom start`, `darkbloom start --model org/name --idle-timeout 30`,
    `darkbloom start --foreground`, `darkbloom start --local`.
    """
    if engine not in (None, "mlx", "scripted"):
        raise typer.BadParameter("must be `mlx` or `scripted`", param_hint="--engine")
    endpoint = _local_endpoint(local, local_endpoint, bind, port, no_auth)
    if all_ and model:
        raise typer.BadParameter("excludes --model", param_hint="--all")
    flags: dict[str, Any] = {
        "coordinator": coordinator,
        "models": tuple(model) if model else () if all_ else None,
        "engine": engine,
        "models_dir": models_dir,
        "name": name,
        "private_only": private_only,
        "idle_timeout_mins": idle_timeout,
    }
    given = {key: value for key, value in flags.items() if value is not None}
    config = replace(context.config(), **given)
    for problem in config.problems():
        raise ProviderError(problem)
    beginning.name_mistakes(context.settings())
    if foreground or local:
        return serve_here(
            config,
            Options(
                local=endpoint,
                network=not local,
                replace_s=timeout,
                force=force,
                schedule=Schedule if local else current_schedule(),
            ),
        )
    beginning.prepare(given, pick=pick)
    background().start(_recorded(given, endpoint), timeout_s=timeout, force=force)
    beginning.say_started()
    return 0


def _recorded(given: Mapping[str, Any], endpoint: LocalEndpoint | None) -> list[str]:
    """Return the flags that the service keeps; what `provider.toml` holds is not repeated."""
    words = [
        word
        for field, flag in _FLAGS.items()
        if field in given
        for word in (flag, str(given[field]))
    ]
    if given.get("private_only"):
        words.append("--private-only")
    if endpoint is not None:
        words += ["--local-endpoint", "--bind", endpoint.host, "--port", str(endpoint.port)]
        words += [] if endpoint.authenticated else ["--no-auth"]
    return words


def _local_endpoint(
    alone: bool, beside: bool, host: str, port: int, no_auth: bool
) -> LocalEndpoint | None:
    if alone and beside:
        raise ProviderError(
            "--local and --local-endpoint exclude each other",
            "--local serves only you, --local-endpoint serves you beside the network",
        )
    if not alone and not beside:
        return None
    return LocalEndpoint(host=host, port=port, authenticated=not no_auth)
