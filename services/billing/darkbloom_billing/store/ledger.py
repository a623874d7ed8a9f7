"""Holds and their ends: one statement for each batch."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from darkbloom_billing.model import (
    End,
    EndOutcome,
    EndStatus,
    HoldFacts,
    HoldOrder,
    HoldOutcome,
    HoldRefusal,
    PriceRow,
    Rejection,
)
from darkbloom_billing.pricing import worst_case
from darkbloom_billing.store.database import Connection, Database
from darkbloom_billing.store.rows import (
    held,
    new_hold,
    order_body,
    order_fields,
    price_body,
    price_row,
)

_HOLD = "SELECT * FROM billing.hold_many($1, $2, $3, $4, $5, $6, $7, $8)"
_EXTEND = "SELECT * FROM billing.extend_hold($1, $2, $3, $4, $5, $6, $7)"
_CONTEXT = "SELECT * FROM billing.settle_context($1, $2)"
_RESOLVE = "SELECT * FROM billing.resolve_many($1, $2, $3, $4, $5, $6, $7)"
# No request lives as long as this; without a last hour a router could freeze money for ever.
_RENEW = """
    UPDATE billing.lease SET lease_until = least(
      greatest(lease_until, $2),
      (SELECT occurred_at + interval '2 hours' FROM ledger.event
       WHERE idem_key = 'hold:' || request_id))
    WHERE request_id = ANY ($1) RETURNING request_id
"""
_EXPIRED = """
    SELECT request_id FROM billing.lease WHERE lease_until <= $1 ORDER BY lease_until LIMIT $2
"""
_OVERDUE = "SELECT count(*) FROM billing.lease WHERE lease_until <= $1"

_REFUSALS: Mapping[str, HoldRefusal] = {
    "conflict": HoldRefusal.IDEMPOTENCY_CONFLICT,
    "ended": HoldRefusal.HOLD_ENDED,
    "unknown": HoldRefusal.NOT_FOUND,
    "revoked": HoldRefusal.KEY_REVOKED,
    "frozen": HoldRefusal.ACCOUNT_FROZEN,
    "capped": HoldRefusal.KEY_CAP_REACHED,
    "short": HoldRefusal.INSUFFICIENT_FUNDS,
    "gap": HoldRefusal.INVALID_ARGUMENT,
}
_REJECTED: Mapping[str, Rejection] = {
    "over": Rejection.PRICE,
    "unlinked": Rejection.UNLINKED,
}


class PostgresLedger:
    """The double-entry books in PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def hold_many(
        self, orders: Sequence[tuple[HoldOrder, PriceRow]], *, now: datetime, lease_until: datetime
    ) -> list[HoldOutcome]:
        """Place holds, each judged alone; a repeat returns the first hold."""
        outcomes: list[HoldOutcome | None] = [None] * len(orders)
        for places in _rounds([order.request_id for order, _ in orders]):
            placed = await self._hold([orders[n] for n in places], now, lease_until)
            for n, outcome in zip(places, placed, strict=True):
                outcomes[n] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    async def _hold(
        self, orders: Sequence[tuple[HoldOrder, PriceRow]], now: datetime, lease_until: datetime
    ) -> list[HoldOutcome]:
        amounts = [
            worst_case(price, prompt_bound=order.prompt_bound, output_bound=order.output_bound)
            for order, price in orders
        ]
        arguments = (
            [order.request_id for order, _ in orders],
            [order.account_id for order, _ in orders],
            [order.key_id for order, _ in orders],
            amounts,
            [_digest(order_fields(order)) for order, _ in orders],
            [
                order_body(order, price, amount)
                for (order, price), amount in zip(orders, amounts, strict=True)
            ],
            now,
            lease_until,
        )
        rows = await self._fetch(_HOLD, *arguments)
        outcomes: dict[int, HoldOutcome] = {}
        for row in rows:
            index = row["n"] - 1
            order, price = orders[index]
            outcomes[index] = (
                # Placed just now: what came back is what went in.
                HoldOutcome(
                    request_id=order.request_id,
                    hold=new_hold(order, price, amounts[index], row["expires_at"]),
                )
                if row["status"] == "held" and row["body"] is None
                else _hold_outcome(order.request_id, row, amounts[index])
            )
        return [outcomes[index] for index in range(len(orders))]

    async def extend_hold(
        self,
        request_id: str,
        extension: int,
        price: PriceRow,
        *,
        total: int,
        replaces: bool,
        now: datetime,
    ) -> HoldOutcome:
        """Raise a hold to `total` micro-USD, or set it to that, and add a price snapshot."""
        facts = await self._bodies(request_id)
        if facts is None:
            return HoldOutcome(request_id=request_id, refusal=HoldRefusal.NOT_FOUND)
        snapshot = {"extension": extension, "price": price_body(price)}
        if replaces:
            snapshot["replaces"] = True
        digest = _digest((request_id, str(extension), json.dumps(snapshot)))
        rows = await self._fetch(
            _EXTEND, request_id, extension, total, digest, json.dumps(snapshot), now, replaces
        )
        row = rows[0]
        if row["status"] != "held":
            return _hold_outcome(request_id, row, row["required"])
        body = {**facts, **json.loads(row["body"])}
        return HoldOutcome(request_id=request_id, hold=held(request_id, body, row["expires_at"]))

    async def holds(self, questions: Sequence[tuple[str, bytes]]) -> list[HoldFacts | None]:
        """Return the facts of holds, asked by (request id, identity key); None: no such hold."""
        if not questions:
            return []
        rows = await self._fetch(
            _CONTEXT, [request_id for request_id, _ in questions], [key for _, key in questions]
        )
        return [_facts(row) for row in rows]

    async def resolve_many(self, ends: Sequence[End], *, now: datetime) -> list[EndOutcome | None]:
        """End holds, each judged alone; None: a lease that was renewed is not swept."""
        outcomes: list[EndOutcome | None] = [None] * len(ends)
        for places in _rounds([end.request_id for end in ends]):
            ended = await self._resolve([ends[n] for n in places], now)
            for n, outcome in zip(places, ended, strict=True):
                outcomes[n] = outcome
        return outcomes

    async def _resolve(self, ends: Sequence[End], now: datetime) -> list[EndOutcome | None]:
        rows = await self._fetch(
            _RESOLVE,
            [end.request_id for end in ends],
            [end.kind.value for end in ends],
            [end.charge_micros for end in ends],
            [end.payee for end in ends],
            [end.body_hash for end in ends],
            [json.dumps(end.body) for end in ends],
            now,
        )
        outcomes = {row["n"] - 1: _end_outcome(ends[row["n"] - 1].request_id, row) for row in rows}
        return [outcomes[index] for index in range(len(ends))]

    async def renew(self, request_ids: Sequence[str], *, until: datetime) -> set[str]:
        """Push leases out, never back; return the ids that are still held."""
        # In one order for everybody, so that two renewals cannot wait for each other.
        rows = await self._fetch(_RENEW, sorted(request_ids), until)
        return {row["request_id"] for row in rows}

    async def expired(self, *, now: datetime, limit: int) -> list[str]:
        """Return request ids of expired leases, oldest first."""
        return [row["request_id"] for row in await self._fetch(_EXPIRED, now, limit)]

    async def overdue(self, *, now: datetime) -> int:
        """Return how many leases have expired."""
        return int((await self._fetch(_OVERDUE, now))[0][0])

    async def _bodies(self, request_id: str) -> dict[str, Any] | None:
        rows = await self._fetch(
            "SELECT body FROM ledger.event WHERE idem_key = $1", f"hold:{request_id}"
        )
        return json.loads(rows[0]["body"]) if rows else None

    async def _fetch(self, statement: str, *arguments: object) -> list[Any]:
        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(statement, *arguments)

        return await self._database.run(work)


def _rounds(request_ids: Sequence[str]) -> Iterable[list[int]]:
    """Yield places of rows so that no round has a request twice and each keeps its order.

    A set cannot see its own rows: a repeat within a batch must find the first one written.
    """
    waiting = list(range(len(request_ids)))
    while waiting:
        seen: set[str] = set()
        places: list[int] = []
        repeats: list[int] = []
        for n in waiting:
            (repeats if request_ids[n] in seen else places).append(n)
            seen.add(request_ids[n])
        yield places
        waiting = repeats


def _digest(fields: Sequence[str]) -> bytes:
    return hashlib.sha256("\n".join(fields).encode()).digest()


def _hold_outcome(request_id: str, row: Mapping[str, Any], required: int) -> HoldOutcome:
    if row["status"] == "held":
        body = json.loads(row["body"])
        return HoldOutcome(request_id=request_id, hold=held(request_id, body, row["expires_at"]))
    refusal = _REFUSALS[row["status"]]
    short = refusal in {HoldRefusal.INSUFFICIENT_FUNDS, HoldRefusal.KEY_CAP_REACHED}
    return HoldOutcome(
        request_id=request_id,
        refusal=refusal,
        required_micros=required if short else 0,
        available_micros=row["available"] if short else 0,
    )


def _facts(row: Mapping[str, Any]) -> HoldFacts | None:
    if row["bodies"] is None:
        return None
    bodies = [json.loads(body) for body in row["bodies"]]
    hold = bodies[0]
    return HoldFacts(
        account_id=hold["account_id"],
        build=hold["build"],
        prompt_bound=hold["prompt_bound"],
        output_bound=hold["output_bound"],
        prices=tuple(price_row(body["price"]) for body in bodies),
        amount_micros=row["amount"],
        held_at=row["held_at"],
        payee=row["payee"],
        resolved=row["resolved"],
        fallback_build=hold.get("fallback_build", ""),
    )


def _end_outcome(request_id: str, row: Mapping[str, Any]) -> EndOutcome | None:
    status = row["status"]
    if status == "renewed":
        return None
    if status in _REJECTED:
        return EndOutcome(
            request_id=request_id, status=EndStatus.REJECTED, rejection=_REJECTED[status]
        )
    result = json.loads(row["result"])
    return EndOutcome(
        request_id=request_id,
        status=EndStatus(status),
        charge_micros=result.get("charge", 0),
        provider_credit_micros=result.get("credit", 0),
        prompt_tokens=result.get("prompt_tokens", 0),
        completion_tokens=result.get("completion_tokens", 0),
    )
