"""`GET /v1/me/export`: everything that is kept about an account, as one streamed archive."""

import zipfile
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
from darkbloom.billing.v1 import report_pb2 as pb
from darkbloom.billing.v1.payment_service_pb2 import ListWithdrawalsResponse
from darkbloom.billing.v1.report_service_pb2 import GetDossierResponse, GetWalletsResponse
from darkbloom_edge.signatures import to_base64
from darkbloom_mesh.errors import NotFoundError
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from darkbloom_gateway.billing_payments import PaymentsClient
from darkbloom_gateway.billing_reports import ReportsClient
from darkbloom_gateway.errors import ApiError
from darkbloom_gateway.routes import histories, tables
from darkbloom_gateway.routes.plane import ControlPlane, Reply

MAX_ROWS = 250_000
"""Of each table; what is cut off is said in `manifest.json`."""


class _Pipe:
    """A file that can only be written; what was written is taken out piece by piece."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, piece: bytes) -> int:
        """Take in what the archive writes."""
        self._pieces.append(bytes(piece))
        return len(piece)

    def flush(self) -> None:
        """Do nothing: what was written is there at once."""

    def take(self) -> bytes:
        """Return what was written since the last time."""
        taken, self._pieces = b"".join(self._pieces), []
        return taken


def make_router(plane: ControlPlane, reports: ReportsClient, payments: PaymentsClient) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.get("/v1/me/export")
    async def export(request: Request) -> Reply:
        """Return profile, keys without secrets, usage, statement, earnings and withdrawals."""
        caller = await plane.login(request)
        await plane.financial(caller)
        account_id = caller.account_id
        try:
            dossier = await reports.dossier(account_id)
            money = await reports.wallets(account_id)
        except NotFoundError:
            raise ApiError(404, "not_found", "there is no such account") from None
        # Asked before the archive begins: later there is no status left to answer with.
        first = ListWithdrawalsResponse()
        if (await payments.options()).payouts:
            first = await payments.withdrawals(account_id, histories.MAX_WITHDRAWALS, "")
        headers = {
            "content-disposition": 'attachment; filename="darkbloom-export.zip"',
            "cache-control": "private, no-store",
        }
        return StreamingResponse(
            _archive(reports, payments, dossier, money, first, email=caller.email),
            media_type="application/zip",
            headers=headers,
        )

    return router


async def _archive(
    reports: ReportsClient,
    payments: PaymentsClient,
    dossier: GetDossierResponse,
    money: GetWalletsResponse,
    first: ListWithdrawalsResponse,
    *,
    email: str,
) -> AsyncIterator[bytes]:
    account_id = dossier.account_id
    pipe, counts = _Pipe(), {}
    sources = {
        "usage": (histories.USAGE_HEAD, histories.usage(reports, account_id, pb.UsageFilter())),
        "ledger": (histories.STATEMENT_HEAD, histories.statement(reports, account_id)),
        "earnings": (
            histories.EARNINGS_HEAD,
            histories.earnings(reports, account_id, pb.EarningsFilter()),
        ),
        "withdrawals": (
            histories.WITHDRAWALS_HEAD,
            histories.withdrawals(payments, account_id, first),
        ),
    }
    # The library asks for more of a file than it uses of one that cannot be sought.
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[call-overload]
        archive.writestr("profile.json", _json(_profile(dossier, money, email)))
        archive.writestr("keys.json", _json([_key(key) for key in dossier.keys]))
        for name, (head, pages) in sources.items():
            rows, cut_off = 0, False
            with archive.open(f"{name}.csv", "w") as table:
                table.write(tables.csv_lines([head]))
                async for page in pages:
                    kept = page[: MAX_ROWS - rows]
                    rows += len(kept)
                    table.write(tables.csv_lines(kept))
                    yield pipe.take()
                    if len(kept) < len(page):
                        cut_off = True
                        break
            counts[name] = {"rows": rows, "cut_off": cut_off}
        archive.writestr("manifest.json", _json({"account_id": account_id, "tables": counts}))
    yield pipe.take()


def _profile(dossier: GetDossierResponse, money: GetWalletsResponse, email: str) -> dict[str, Any]:
    return {
        "account_id": dossier.account_id,
        "email": email,
        "display_name": dossier.display_name,
        "role": dossier.role,
        "created_at": tables.instant(dossier.create_time),
        "balance": {
            "promo_micro_usd": money.promo_micros,
            "purchased_micro_usd": money.credit_micros,
            "earned_micro_usd": money.earned_micros,
            "held_micro_usd": money.held_micros,
            "maturing_micro_usd": money.maturing_micros,
            "disputed_micro_usd": money.disputed_micros,
            "debt_micro_usd": money.debt_micros,
        },
        "machines": [
            {
                "name": machine.name,
                "machine_key": to_base64(machine.identity_key),
                "linked_at": tables.instant(machine.link_time),
            }
            for machine in dossier.machines
        ],
    }


def _key(key: pb.DossierKey) -> dict[str, Any]:
    return {
        "id": key.key_id,
        "name": key.name,
        "label": key.label,
        "revoked": key.revoked,
        "created_at": tables.instant(key.create_time),
    }


def _json(content: dict[str, Any] | Sequence[dict[str, Any]]) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_INDENT_2)
