"""`darkbloom-admin erase`: plan, confirm, cancel, list, verify (GDPR Art. 17)."""

import json
from pathlib import Path
from typing import Annotated

import typer
from darkbloom.billing.v1 import operator_service_pb2 as pb
from darkbloom.common.v1.page_pb2 import PageRequest

from darkbloom_billing.admin.cli import output
from darkbloom_billing.admin.cli.accounts import AccountId, Page, Size
from darkbloom_billing.admin.cli.desk import (
    CALL_S,
    FOUND,
    USAGE,
    DryRun,
    RequestId,
    desk,
    request_id,
)
from darkbloom_billing.admin.erasure_proof import check
from darkbloom_billing.books.seal import exported

erase = typer.Typer(
    no_args_is_help=True,
    help="Erase an account: plan → confirm with the plan's token → grace → erased. The ledger is "
    "never edited: it names account ids only. A restore repeats what was confirmed.",
)
ErasureId = Annotated[str, typer.Argument(help="erase_…")]


@erase.command()
def plan(context: typer.Context, account_id: AccountId, *, request: RequestId = "") -> None:
    """Count what would go and what would be forfeited. Changes nothing; prints the token, once."""
    d = desk(context)
    message = pb.PlanErasureRequest(
        operator=d.operator, request_id=request_id(request), account_id=d.account(account_id)
    )
    d.show(d.call(lambda stubs: stubs.operators.PlanErasure(message, timeout=CALL_S)))


@erase.command()
def confirm(
    context: typer.Context,
    erasure_id: ErasureId,
    token: Annotated[str, typer.Argument(help="Of the plan.")],
    *,
    forfeit: Annotated[
        bool, typer.Option("--forfeit", help="What is left goes to the platform. Ask first.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Without the grace.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Confirm a plan: every credential dies now, data at the end of the grace."""
    d = desk(context)
    message = pb.ConfirmErasureRequest(erasure_id=erasure_id, forfeit=forfeit, force=force)
    if d.sent(message, dry_run=dry_run):
        message.operator.CopyFrom(d.operator)
        message.confirm_token = token
        d.show(d.call(lambda stubs: stubs.operators.ConfirmErasure(message, timeout=CALL_S)))


@erase.command()
def cancel(context: typer.Context, erasure_id: ErasureId) -> None:
    """Take an erasure back before its data is gone; its credentials stay dead."""
    d = desk(context)
    message = pb.CancelErasureRequest(operator=d.operator, erasure_id=erasure_id)
    d.show(d.call(lambda stubs: stubs.operators.CancelErasure(message, timeout=CALL_S)))


@erase.command("list")
def list_erasures(context: typer.Context, limit: Size = 50, page: Page = "") -> None:
    """List erasures, newest first: the proof that they happened."""
    d = desk(context)
    request = pb.ListErasuresRequest(page=PageRequest(page_size=limit, page_token=page))
    answer = d.call(lambda stubs: stubs.operators.ListErasures(request, timeout=CALL_S))
    columns = ("erasure_id", "account_id", "state", "scrub_after_time", "erase_time", "rules")
    d.show(answer, *columns, rows="erasures")


@erase.command()
def verify(
    context: typer.Context,
    proof: Annotated[
        Path, typer.Argument(help="What `python -m darkbloom_billing erasure-proof` printed.")
    ],
    *,
    heads: Annotated[Path, typer.Option(help="Copies of the sealed history, from outside.")],
) -> None:
    """Check the proof of an erasure against copies of the sealed history; asks nobody.

    Exit code 1 where it proves nothing, with the reasons.
    """
    d = desk(context)
    try:
        found = json.loads(proof.read_text(encoding="utf-8"))
        problems = check(found, exported(heads))
    except (OSError, ValueError) as error:
        d.fail(USAGE, f"cannot read the proof or the heads: {type(error).__name__}")
    # What is not proven is not repeated here: it would read like an answer.
    said = {} if problems else {"statement": found["statement"]}
    shown = {"proven": not problems, "problems": list(problems), **said}
    output.show(shown, (), as_json=d.as_json)
    raise typer.Exit(FOUND if problems else 0)
