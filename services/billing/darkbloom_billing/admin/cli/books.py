"""`darkbloom-admin audit|seal|actions|export`: what proves the books."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from darkbloom.billing.v1 import operator_service_pb2 as pb
from darkbloom.common.v1.page_pb2 import PageRequest
from pyrage.x25519 import Recipient

from darkbloom_billing.admin.cli import output
from darkbloom_billing.admin.cli.accounts import Page, Size
from darkbloom_billing.admin.cli.desk import AUDIT_S, CALL_S, FOUND, LONG_S, USAGE, Stubs, desk
from darkbloom_billing.admin.cli.exports import FORMATS, MismatchError, Written, begun, prove
from darkbloom_billing.admin.cli.exports import verify as prove_again
from darkbloom_billing.admin.export import TABLES
from darkbloom_billing.state import age
from darkbloom_billing.state.errors import (
    BrokenStateError,
    RecipientRefusedError,
    WrongIdentityError,
)

audit = typer.Typer(no_args_is_help=True, help="Check the books; see who did what.")
seal = typer.Typer(no_args_is_help=True, help="The sealed history.")


@audit.command()
def run(context: typer.Context) -> None:
    """Check the whole ledger; exit code 1 where a rule is broken."""
    d = desk(context)
    request = pb.RunAuditRequest()
    answer = d.call(lambda stubs: stubs.operators.RunAudit(request, timeout=AUDIT_S))
    report = json.loads(answer.report_json)
    output.show(report, (), as_json=d.as_json)
    raise typer.Exit(FOUND if answer.violations else 0)


@audit.command()
def actions(
    context: typer.Context,
    *,
    subject: Annotated[str, typer.Option(help="Only about this account, key, code…")] = "",
    limit: Size = 50,
    page: Page = "",
) -> None:
    """Show what operators did, newest first."""
    d = desk(context)
    request = pb.ListActionsRequest(
        subject=subject, page=PageRequest(page_size=limit, page_token=page)
    )
    answer = d.call(lambda stubs: stubs.operators.ListActions(request, timeout=CALL_S))
    columns = ("action_id", "create_time", "operator", "action", "subject", "after_json")
    d.show(answer, *columns, rows="actions")


@seal.command()
def head(context: typer.Context) -> None:
    """Show the newest sealed block; keep its hash somewhere else, and history is fixed to there."""
    d = desk(context)
    request = pb.GetSealHeadRequest()
    d.show(d.call(lambda stubs: stubs.operators.GetSealHead(request, timeout=CALL_S)))


def export(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="Made where it is not there.")],
    *,
    tables: Annotated[
        list[str] | None, typer.Option("--table", help="usage, earning, account, event, transfer.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="json (lines) or parquet.")] = "parquet",
    recipient: Annotated[
        list[str] | None,
        typer.Option(
            "--recipient", help="age1…: encrypt to; of plaintext only manifest.json touches a disk."
        ),
    ] = None,
) -> None:
    """Export the accounting history with exact sums, each file proven after it is written.

    Every table comes from one snapshot. manifest.json stays readable: tables, rows, exact sums and
    digests, so that anybody can check what an export claims. What does not add up is removed, and
    the exit code is 1.
    """
    d = desk(context)
    names = tables or sorted(TABLES)
    unknown = sorted({*names} - {*TABLES})
    if unknown or form not in FORMATS:
        d.fail(USAGE, f"unknown: {', '.join(unknown) or form}")
    try:
        to = age.recipients(recipient) if recipient else []
        directory.mkdir(parents=True, exist_ok=True)
        written = d.call(lambda stubs: _export(stubs, directory, names, form, to))
    except RecipientRefusedError as error:
        d.fail(USAGE, error.message)
    except MismatchError as error:
        d.fail(FOUND, str(error))
    except OSError as error:
        d.fail(USAGE, f"{directory}: {type(error).__name__}")
    content = {"format": form, "files": [asdict(file) for file in written]}
    (directory / "manifest.json").write_text(json.dumps(content, indent=2) + "\n")
    output.show(content, ("table", "file", "rows", "sha256"), rows="files", as_json=d.as_json)


def verify(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(help="That `export` wrote.")],
    *,
    identity_file: Annotated[
        Path | None, typer.Option("--identity-file", help="Of the recipient, where encrypted.")
    ] = None,
) -> None:
    """Read an export again and compare digests, rows and exact sums with its manifest; asks nobody.

    Encrypted Parquet is decrypted in memory, file by file; JSON lines are streamed.
    """
    d = desk(context)
    try:
        who = age.identities(identity_file) if identity_file is not None else []
        files = prove_again(directory, who)
    except MismatchError as error:
        d.fail(FOUND, str(error))
    except (BrokenStateError, WrongIdentityError) as error:
        d.fail(FOUND, error.message)
    except OSError as error:
        d.fail(USAGE, f"{directory}: {type(error).__name__}")
    content = {"files": [asdict(file) for file in files]}
    output.show(content, ("table", "file", "rows", "sha256"), rows="files", as_json=d.as_json)


async def _export(
    stubs: Stubs, directory: Path, names: Iterable[str], form: str, to: Sequence[Recipient]
) -> list[Written]:
    return [await _table(stubs, directory, name, form, to) for name in names]


async def _table(
    stubs: Stubs, directory: Path, name: str, form: str, to: Sequence[Recipient]
) -> Written:
    call = stubs.operators.ExportTable(pb.ExportTableRequest(table=name), timeout=LONG_S)
    parts = aiter(call)
    header = (await anext(parts)).header
    file = begun(form, name, directory, header, to)
    try:
        async for part in parts:
            file.write([json.loads(row) for row in part.rows.json])
    except BaseException:
        try:
            file.close()
        finally:
            file.path.unlink(missing_ok=True)
        raise
    file.close()
    return prove(name, file)
