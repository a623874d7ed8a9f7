"""`darkbloom identity`: who this machine is, so that its owner can link it to an account."""

import json
from typing import Annotated

import typer
from darkbloom_edge.signatures import to_base64
from darkbloom_mesh.config import main_config

from darkbloom_provider import identity
from darkbloom_provider.config import ProviderConfig


def show_identity(
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the public identity key, made on first use; earnings go to whom it is linked."""
    home = main_config(ProviderConfig, "provider").folders
    home.create()
    key = to_base64(identity.load_or_create(home.identity_key).public)
    typer.echo(json.dumps({"identity_key": key}) if json_ else key)
