"""`darkbloom local`: where your own programs may ask this machine, and with which key."""

from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

from darkbloom_provider.cli import context
from darkbloom_provider.local.record import read_record


def local(
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Show the local endpoint and its key, to be put into any OpenAI client.

    Exit code 1, and `{}` with `--json`, while nothing listens. Open it with `darkbloom start
    --local` (alone) or `--local-endpoint` (beside the network).
    """
    record = read_record(context.config().folders.local_record)
    if json_:
        typer.echo("{}" if record is None else msgspec.json.encode(record).decode())
        return 0 if record is not None else 1
    console = Console(highlight=False)
    if record is None:
        console.print(
            "Nothing listens here. Start it with `darkbloom start --local-endpoint`,"
            " or with --local to serve only yourself."
        )
        return 1
    console.print(f"Base URL: {escape(record.base_url)}", soft_wrap=True)
    key = escape(record.api_key) if record.api_key else "none is asked for"
    console.print(f"Key:      {key}", soft_wrap=True)
    console.print(f"Process:  {record.pid}, version {escape(record.version)}")
    return 0
