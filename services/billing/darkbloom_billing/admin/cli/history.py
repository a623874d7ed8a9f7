"""`darkbloom-admin history`: what happened, read on a replica."""

import asyncio
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from darkbloom_mesh.clock import SystemClock
from darkbloom_mesh.errors import MeshError

from darkbloom_billing.admin.cli import output
from darkbloom_billing.admin.cli.desk import USAGE, Desk, desk, read_token
from darkbloom_billing.history.questions import MAX_ROWS, QUESTIONS, Question, moment
from darkbloom_billing.history.reader import Answer, ask

_LAG_S = 30
history = typer.Typer(
    no_args_is_help=True,
    help="Read what happened: on a replica, as the role darkbloom_reader, 15 s and 50,000 rows at "
    "most. Ids and amounts; nobody's name, e-mail or key.",
)


class Form(StrEnum):
    """How rows are written."""

    TABLE = "table"
    CSV = "csv"
    NDJSON = "ndjson"


Url = Annotated[
    Path | None,
    typer.Option(
        "--replica-url-file",
        envvar="DARKBLOOM_ADMIN_REPLICA_URL_FILE",
        help="File with the URL of the replica, as a login of darkbloom_reader.",
    ),
]
Since = Annotated[str, typer.Option(help="An age (30m, 24h, 7d) or RFC 3339.")]
Until = Annotated[str, typer.Option(help="The same; exclusive.")]
Limit = Annotated[int, typer.Option(min=1, max=MAX_ROWS, help="Most rows.")]
Shape = Annotated[Form, typer.Option("--format", help="table, csv or ndjson.")]
Account = Annotated[str, typer.Option(help="Only this account.")]
Model = Annotated[str, typer.Option(help="Only this model or build.")]
_EVER = "9999w"


@history.command()
def usage(
    context: typer.Context,
    *,
    account: Account = "",
    key: Annotated[str, typer.Option(help="Only this key, by its id.")] = "",
    model: Model = "",
    url: Url = None,
    since: Since = "24h",
    until: Until = "0m",
    limit: Limit = 1000,
    form: Shape = Form.TABLE,
) -> None:
    """Show settled requests, newest first."""
    _show(context, "usage", (account, key, model), url, (since, until), limit, form)


@history.command()
def earnings(
    context: typer.Context,
    *,
    account: Account = "",
    model: Model = "",
    url: Url = None,
    since: Since = "24h",
    until: Until = "0m",
    limit: Limit = 1000,
    form: Shape = Form.TABLE,
) -> None:
    """Show what providers earned, newest first."""
    _show(context, "earnings", (account, model), url, (since, until), limit, form)


@history.command()
def withdrawals(
    context: typer.Context,
    *,
    account: Account = "",
    url: Url = None,
    since: Since = "24h",
    until: Until = "0m",
    limit: Limit = 1000,
    form: Shape = Form.TABLE,
) -> None:
    """Show withdrawals, newest first."""
    _show(context, "withdrawals", (account,), url, (since, until), limit, form)


@history.command()
def statement(
    context: typer.Context,
    account: Annotated[str, typer.Argument(help="acct_…")],
    *,
    url: Url = None,
    since: Since = "24h",
    until: Until = "0m",
    limit: Limit = 1000,
    form: Shape = Form.TABLE,
) -> None:
    """Show every posting of an account's wallets, newest first, with the totals after it."""
    _show(context, "statement", (account,), url, (since, until), limit, form)


@history.command()
def request(
    context: typer.Context,
    request_id: Annotated[str, typer.Argument(help="req_…")],
    *,
    url: Url = None,
    form: Shape = Form.TABLE,
) -> None:
    """Show one request from its hold to the transfers of its end, oldest first."""
    _show(context, "request", (request_id,), url, (_EVER, "0m"), MAX_ROWS, form)


def _show(
    context: typer.Context,
    name: str,
    values: Sequence[str],
    file: Path | None,
    window: tuple[str, str],
    limit: int,
    form: Form,
) -> None:
    d, question = desk(context), QUESTIONS[name]
    answer = _asked(d, question, values, file, window, limit)
    rows = [{column: _plain(row[column]) for column in question.columns} for row in answer.rows]
    if answer.lag_s > _LAG_S:
        output.note(f"the replica's newest is {answer.lag_s} s old")
    if answer.truncated:
        output.note(f"there are more than {limit} rows; ask about a shorter time")
    if d.as_json or form is Form.TABLE:
        facts = {"truncated": answer.truncated, "replica": answer.is_replica, "rows": rows}
        output.show(facts, question.columns, rows="rows", as_json=d.as_json)
    elif form is Form.CSV:
        writer = csv.DictWriter(sys.stdout, question.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        sys.stdout.writelines(f"{json.dumps(row)}\n" for row in rows)


def _asked(
    d: Desk,
    question: Question,
    values: Sequence[str],
    file: Path | None,
    window: tuple[str, str],
    limit: int,
) -> Answer:
    url = read_token(file)
    if url is None:
        d.fail(USAGE, "no replica: set DARKBLOOM_ADMIN_REPLICA_URL_FILE")
    now = SystemClock().now()
    try:
        since, until = (moment(text, now) for text in window)
    except (ValueError, OverflowError):
        d.fail(USAGE, "not a time: give an age such as 24h, or RFC 3339 with its zone")
    try:
        return asyncio.run(ask(url, question, since=since, until=until, limit=limit, values=values))
    except MeshError as error:
        d.refuse(error)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return json.dumps(value)
    return value
