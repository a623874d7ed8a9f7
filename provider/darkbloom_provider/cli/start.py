"""`darkbloom start`: serve in the foreground until a signal; and what code would serve."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from darkbloom_edge.documents import encode_document
from darkbloom_mesh.clock import SystemClock

from darkbloom_provider import app, code_release
from darkbloom_provider.cli import context
from darkbloom_provider.cli.foreground import current_schedule, serve_here
from darkbloom_provider.config import MAX_PORT
from darkbloom_provider.errors import ProviderError
from darkbloom_provider.options import LocalEndpoint, Options
from darkbloom_provider.schedule import Schedule
from darkbloom_provider.service.leaving import DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S


def start(
    coordinator: Annotated[
        str | None, typer.Option(help="host:port of the router's provider listener.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Serve this build of the store; repeat for more. Default: all."),
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
    _foreground: Annotated[
        bool, typer.Option("--foreground", help="Serve in this process, ask nothing.")
    ] = False,
) -> int:
    """Connect to the network and serve until Ctrl-C.

    Accepted work is finished and settled before the agent leaves. Flags win over the environment
    (`DARKBLOOM_PROVIDER_*`).
    """
    config = context.config()
    if engine not in (None, "mlx", "scripted"):
        raise typer.BadParameter("must be `mlx` or `scripted`", param_hint="--engine")
    flags: dict[str, Any] = {
        "coordinator": coordinator,
        "models": tuple(model) if model else None,
        "engine": engine,
        "models_dir": models_dir,
        "name": name,
        "private_only": private_only,
    }
    config = replace(config, **{key: value for key, value in flags.items() if value is not None})
    return serve_here(
        config,
        Options(
            local=_local_endpoint(local, local_endpoint, bind, port, no_auth),
            network=not local,
            replace_s=timeout,
            force=force,
            schedule=Schedule if local else current_schedule(),
        ),
    )


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


def show_code_release(
    site: Annotated[
        Path | None,
        typer.Option(help="Measure this `site-packages` instead of the running installation."),
    ] = None,
    python: Annotated[Path | None, typer.Option(help="Its interpreter.")] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(help="Write every file's record here, for the operator to sign."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure the code of an installation: what a release must bless before it is routed."""
    release = code_release.measure(site, python)
    if manifest is not None:
        manifest.write_bytes(encode_document(release.manifest(SystemClock().now())))
    text = app.release_json(release)
    if json_:
        typer.echo(text)
        return
    for line in text.strip("{}\n").splitlines():
        typer.echo(line.strip().rstrip(",").replace('"', ""))
