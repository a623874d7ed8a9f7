"""`darkbloom start`: serve in the foreground until a signal; and what code would serve."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from darkbloom_edge.documents import encode_document
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.serve import run

from darkbloom_provider import app, code_release
from darkbloom_provider.cli import context
from darkbloom_provider.errors import ProviderError


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
    for problem in config.problems():
        raise ProviderError(problem)
    refused: list[ProviderError] = []

    async def main() -> int:
        try:
            # Hardening scrubs the real environment of this process.
            return await app.serve(config, os.environ)  # noqa: TID251
        except ProviderError as error:
            refused.append(error)
            return 1

    code = run(main)
    if refused:
        raise refused[0]
    return code


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
