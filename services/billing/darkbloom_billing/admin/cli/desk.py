"""What every command shares: who asks, whom, and how an answer or a refusal ends.

Exit codes: 0 done; 1 looked and found something wrong; 2 the command line is wrong; 3 billing
refused; 4 billing does not know who asks; 5 billing does not answer.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import grpc
import typer
from darkbloom.billing.v1.operator_pb2 import Operator
from darkbloom.billing.v1.operator_service_pb2 import GetAccountViewRequest
from darkbloom.billing.v1.operator_service_pb2_grpc import OperatorServiceStub
from darkbloom.billing.v1.payment_service_pb2_grpc import PaymentServiceStub
from darkbloom_mesh.channel import channel
from darkbloom_mesh.config import ConfigError, Secret
from darkbloom_mesh.errors import (
    ForbiddenError,
    MeshError,
    UnauthenticatedError,
    UnavailableError,
    from_rpc_error,
)
from darkbloom_mesh.operator import operator_tls
from google.protobuf.message import Message

from darkbloom_billing.admin.cli import output

FOUND, USAGE, REFUSED, UNKNOWN, AWAY = 1, 2, 3, 4, 5
CALL_S = 15.0
AUDIT_S = 110.0
"""As long as a unary call may take; a ledger that needs longer is audited at billing itself."""
LONG_S = 600.0
_MICRO = 1_000_000
_MAX_USD = Decimal(1_000_000_000)
T = TypeVar("T")

Usd = Annotated[str, typer.Option("--usd", help="Dollars with at most 6 decimals, e.g. 10.00.")]
RequestId = Annotated[
    str,
    typer.Option(
        "--request-id",
        help="Makes a repetition the same command. Made up and shown where you give none.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be sent; send nothing.")]


@dataclass(frozen=True, slots=True)
class Desk:
    """One invocation: where billing is, who asks, and how answers are shown."""

    target: str
    mesh_token: Secret | None
    operator_token: Secret | None
    as_json: bool

    @property
    def operator(self) -> Operator:
        """Return who asks.

        Raises:
            typer.Exit: There is no personal token.
        """
        if self.operator_token is None:
            self.fail(
                USAGE,
                "no operator token: a write needs yours; set DARKBLOOM_ADMIN_TOKEN_FILE "
                "(the database's owner makes one: python -m darkbloom_billing operator NAME)",
            )
        return Operator(token=self.operator_token.reveal())

    def call(self, work: Callable[["Stubs"], Awaitable[T]]) -> T:
        """Dial, work, hang up; a refusal ends the process with its code."""

        async def dial() -> T:
            dialled = channel(
                self.target,
                mesh_token=self.mesh_token,
                room="admin",
                tls=operator_tls(self.target),
                peer="billing",
            )
            async with dialled:
                return await work(Stubs(OperatorServiceStub(dialled), PaymentServiceStub(dialled)))

        try:
            return asyncio.run(dial())
        except grpc.aio.AioRpcError as error:
            self.refuse(from_rpc_error(error))
        except ConfigError as error:
            self.fail(USAGE, str(error))

    def account(self, named: str) -> str:
        """Return the id of an account that is named by it, or by the e-mail of one of its users."""
        if "@" not in named:
            return named
        request = GetAccountViewRequest(email=named)
        found = self.call(lambda stubs: stubs.operators.GetAccountView(request, timeout=CALL_S))
        return str(found.account.account_id)

    def refuse(self, error: MeshError) -> NoReturn:
        """End with what billing said."""
        code = REFUSED
        if isinstance(error, UnauthenticatedError | ForbiddenError):
            code = UNKNOWN
        elif isinstance(error, UnavailableError):
            code = AWAY
        self.fail(code, error.message, reason=error.reason_name, **error.metadata)

    def fail(self, code: int, message: str, **facts: str) -> NoReturn:
        """End with a message on stderr."""
        output.problem(message, facts, as_json=self.as_json)
        raise typer.Exit(code)

    def show(self, message: Message, *columns: str, rows: str = "") -> None:
        """Print an answer: whole as JSON, else its rows or fields as a table."""
        output.show(output.plain(message), columns, rows=rows, as_json=self.as_json)

    def sent(self, message: Message, *, dry_run: bool) -> bool:
        """Say what a dry run would send, without the token; return whether to send it."""
        if dry_run:
            shown = output.plain(message)
            shown.pop("operator", None)
            output.show({"dry_run": True, **shown}, (), as_json=self.as_json)
        return not dry_run


@dataclass(frozen=True, slots=True)
class Stubs:
    """Billing's services."""

    operators: OperatorServiceStub
    payments: PaymentServiceStub


def desk(context: typer.Context) -> Desk:
    """Return the invocation that a command belongs to."""
    found = context.find_object(Desk)
    if found is None:
        raise typer.Exit(USAGE)
    return found


def micros(text: str) -> int:
    """Read dollars exactly.

    Raises:
        typer.BadParameter: Not dollars above 0 with at most 6 decimals.
    """
    try:
        dollars = Decimal(text)
    except InvalidOperation:
        raise typer.BadParameter("not an amount of dollars") from None
    amount = dollars * _MICRO if dollars.is_finite() else Decimal(0)
    if not 0 < dollars <= _MAX_USD or amount != int(amount):
        raise typer.BadParameter("dollars above 0 with at most 6 decimals")
    return int(amount)


def request_id(given: str) -> str:
    """Return the id of a command, made up where none is given."""
    return given or f"cli_{secrets.token_hex(16)}"


def read_token(path: Path | None) -> Secret | None:
    """Read a token from a file.

    Raises:
        typer.BadParameter: The file cannot be read, or is empty.
    """
    if path is None:
        return None
    try:
        token = path.read_text("ascii").strip()
    except (OSError, UnicodeError) as error:
        raise typer.BadParameter(f"{path}: {type(error).__name__}") from None
    if not token:
        raise typer.BadParameter(f"{path}: empty")
    return Secret(token)
