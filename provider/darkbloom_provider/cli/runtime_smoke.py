"""`darkbloom runtime-smoke`: load the engine's runtime, compute once, leave.

The updater asks a new version this before it is put in use. A device that takes the whole process
with it is an answer, too: that is why this is a command.
"""

from typing import Annotated

import msgspec
import typer

from darkbloom_provider.errors import ProviderError


def runtime_smoke(
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Load the engine's libraries and let the device compute; no model, no configuration."""
    try:
        from darkbloom_provider.engine.mlx.smoke import run
    except ImportError as error:
        raise ProviderError(
            f"the mlx engine cannot be loaded, {error}", "install the provider with its extra `mlx`"
        ) from error
    found = run()
    if json_:
        typer.echo(msgspec.json.encode(found).decode())
        return
    name = f" ({found.device_name})" if found.device_name else ""
    typer.echo(f"{found.device}{name} computes")
    for library, version in found.versions.items():
        typer.echo(f"{library} {version}")
