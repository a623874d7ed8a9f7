"""`darkbloom logs` and `darkbloom report`: what the agent wrote, and sending it in when asked."""

import asyncio
import time
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from darkbloom_mesh.clock import SystemClock

from darkbloom_provider.account import Account, LoggedOutError, read_login
from darkbloom_provider.cli import context
from darkbloom_provider.service import logbook
from darkbloom_provider.service.log_report import compose
from darkbloom_provider.update.here import platform_here

FOLLOW_S = 0.5
_MAX_LINES = 1_000_000


def logs(
    file: Annotated[
        Path | None, typer.Option(help="Read this file instead of the service's log.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with what is added, until Ctrl-C.")
    ] = False,
    last: Annotated[str | None, typer.Option(help="Only this span: 90s, 30m, 24h, 7d.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the lines as they are.")] = False,
    lines: Annotated[
        int, typer.Option("-l", "--lines", help="At most so many.", min=0, max=_MAX_LINES)
    ] = 50,
    json_: Annotated[
        bool, typer.Option("--json", help="Print only structured lines, as they are.")
    ] = False,
) -> None:
    """Show what the background service wrote: ids, counts and reasons, never content.

    An agent in the foreground writes to its own terminal instead.
    """
    path = file or context.config().folders.log
    found = logbook.read_lines(path)
    position = path.stat().st_size if path.exists() else 0
    if last is not None:
        found = logbook.since(found, SystemClock().now() - _span(last))
    for line in found[-lines:] if lines else []:
        _print(line, raw=debug, json_=json_)
    if not found and not follow and not json_:
        typer.echo(f"Nothing was written to {path}.", err=True)
    try:
        while follow:
            for line, after in logbook.follow(path, position):
                position = after
                _print(line, raw=debug, json_=json_)
            time.sleep(FOLLOW_S)
            if path.exists() and path.stat().st_size < position:
                position = 0
    except KeyboardInterrupt:
        return


def report(
    last: Annotated[str, typer.Option(help="Which span: 90s, 30m, 24h, 7d.")] = "24h",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be sent, and send nothing.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Send an excerpt of the log to the network's operator; nothing is ever sent unasked.

    Only named fields of a known shape leave: times, events, ids, counts, types of errors. The
    operator's administrators can read it for two weeks under the id that is printed.
    """
    config = context.config()
    span = _span(last)
    lines = logbook.since(logbook.read_lines(config.folders.log), SystemClock().now() - span)
    head = {"version": metadata.version("darkbloom-provider"), "platform": platform_here()}
    content = compose(lines, head)
    if dry_run:
        typer.echo(content.decode(), nl=False)
        return
    login = read_login(config.folders.login)
    if login is None:
        raise LoggedOutError("a report needs to know whose it is", "run darkbloom login")

    async def send() -> str:
        async with Account(login.gateway, login.token) as account:
            return await account.send_report(content)

    name = asyncio.run(send())
    sent = content.count(b"\n") - 1
    if json_:
        facts = {"report_id": name, "bytes": len(content), "lines": sent}
        typer.echo(msgspec.json.encode(facts).decode())
        return
    typer.echo(f"Sent {sent} lines. Report: {name}")


def _span(text: str) -> timedelta:
    try:
        return logbook.parse_span(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--last") from None


def _print(line: bytes, *, raw: bool, json_: bool) -> None:
    if json_ and logbook.parse(line) is None:
        return
    text = line.decode("utf-8", "replace") if raw or json_ else logbook.shown(line)
    typer.echo(text)
