"""`darkbloom identity`: who this machine is, so that its owner can link it to an account."""

import json
from typing import Annotated

import typer
from darkbloom_edge.signatures import to_base64

from darkbloom_provider.cli import context
from darkbloom_provider.device_key import open_device_key


def show_identity(
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the public identity key, made on first use; earnings go to whom it is linked."""
    config = context.config()
    config.folders.create()
    key = to_base64(open_device_key(config).public)
    typer.echo(json.dumps({"identity_key": key}) if json_ else key)
