"""Budgets under the two-person rule: one operator proposes, another one approves, then money moves.

A budget is what its programme can lose; nothing else puts money into one. The owner's capital,
which budgets are paid from, is booked the same way under the name `capital`.
"""

import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import ConflictError, InvalidArgumentError, NotFoundError

from darkbloom_billing.admin.actions import record
from darkbloom_billing.admin.errors import OperatorRefusal, OperatorRefusedError
from darkbloom_billing.admin.model import Action, Budget, Funding, Operator
from darkbloom_billing.admin.operators import require_registered
from darkbloom_billing.books import Books
from darkbloom_billing.books import Budget as BudgetName
from darkbloom_billing.errors import InsufficientFundsError
from darkbloom_billing.store.database import Connection, Database

CAPITAL = "capital"
_NAMES = (CAPITAL, *(budget.value for budget in BudgetName))
_EQUITY = "platform:equity"
_PREFIX = "platform:budget:"
_INSERT = """
    INSERT INTO billing.budget_funding
      (funding_id, request_id, budget, amount_micros, proposed_by, proposed_at)
    VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (request_id) DO NOTHING
"""
_APPROVE = """
    UPDATE billing.budget_funding SET approved_by = $2, approved_at = $3
    WHERE funding_id = $1 AND approved_by IS NULL
"""
_PAGE = """
    SELECT * FROM billing.budget_funding
    WHERE $1::timestamptz IS NULL OR (proposed_at, funding_id) < ($1, $2)
    ORDER BY proposed_at DESC, funding_id DESC LIMIT $3
"""
_BUDGETS = """
    SELECT path, cr, dr + dr_pend AS spent FROM ledger.account
    WHERE class IN ('budget', 'equity') ORDER BY path
"""


class Budgets:
    """Proposals and what became of them."""

    def __init__(self, books: Books, database: Database, clock: Clock) -> None:
        self._books = books
        self._database = database
        self._clock = clock

    async def propose(
        self, operator: Operator, request_id: str, budget: str, amount_micros: int
    ) -> Funding:
        """Ask for money for a budget, once per request id; nothing moves.

        Raises:
            OperatorRefusedError: It is not a registered operator.
            InvalidArgumentError: No such budget.
            ConflictError: The request id came before with other contents.
        """
        require_registered(operator)
        if budget not in _NAMES:
            raise InvalidArgumentError(f"one of {', '.join(_NAMES)}", "budget")
        funding_id = f"fund_{secrets.token_hex(16)}"
        now = self._clock.now()

        async def work(connection: Connection) -> Any:
            async with connection.transaction():
                await connection.execute(
                    _INSERT, funding_id, request_id, budget, amount_micros, operator.name, now
                )
                row = await connection.fetchrow(
                    "SELECT * FROM billing.budget_funding WHERE request_id = $1", request_id
                )
                if row is None or (row["budget"], row["amount_micros"], row["proposed_by"]) != (
                    budget,
                    amount_micros,
                    operator.name,
                ):
                    raise ConflictError("the same request id came before with another proposal")
                action = Action(
                    operator=operator,
                    action="budget.propose",
                    subject=budget,
                    request_id=request_id,
                    before={},
                    after={"funding_id": row["funding_id"], "amount_micros": amount_micros},
                )
                await record(connection, action, now=now)
                return row

        return _funding(await self._database.run(work))

    async def approve(self, operator: Operator, funding_id: str) -> Funding:
        """Move the money that another operator has proposed.

        Raises:
            OperatorRefusedError: Not registered, the same operator, or too little capital.
            NotFoundError: No such proposal.
        """
        require_registered(operator)
        funding = await self._get(funding_id)
        if funding.approved_by is not None:
            return funding
        if funding.proposed_by == operator.name:
            raise OperatorRefusedError(OperatorRefusal.SAME_OPERATOR)
        now = self._clock.now()

        async def also(connection: Connection) -> None:
            await connection.execute(_APPROVE, funding_id, operator.name, now)
            action = Action(
                operator=operator,
                action="budget.approve",
                subject=funding.budget,
                request_id=funding_id,
                before={"proposed_by": funding.proposed_by},
                after={"amount_micros": funding.amount_micros},
            )
            await record(connection, action, now=now)

        amount, names = funding.amount_micros, (funding.proposed_by, operator.name)
        try:
            if funding.budget == CAPITAL:
                await self._books.fund_equity(funding_id, amount, operator=operator.name, also=also)
            else:
                await self._books.fund_budget(
                    funding_id, BudgetName(funding.budget), amount, operators=names, also=also
                )
        except InsufficientFundsError:
            raise OperatorRefusedError(OperatorRefusal.CAPITAL_SHORT) from None
        return await self._get(funding_id)

    async def budgets(self) -> tuple[list[Budget], int]:
        """Return every budget, and the capital that no budget has."""

        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(_BUDGETS)

        found, capital = [], 0
        for row in await self._database.run(work):
            left = row["cr"] - row["spent"]
            if row["path"] == _EQUITY:
                capital = left
                continue
            found.append(
                Budget(
                    name=row["path"].removeprefix(_PREFIX),
                    funded_micros=row["cr"],
                    spent_micros=row["spent"],
                    available_micros=left,
                )
            )
        return found, capital

    async def page(self, *, limit: int, after: tuple[datetime, str] | None) -> list[Funding]:
        """Return proposals, newest first."""

        async def work(connection: Connection) -> list[Any]:
            at, last = after or (None, "")
            return await connection.fetch(_PAGE, at, last, limit)

        return [_funding(row) for row in await self._database.run(work)]

    async def _get(self, funding_id: str) -> Funding:
        async def work(connection: Connection) -> Any:
            return await connection.fetchrow(
                "SELECT * FROM billing.budget_funding WHERE funding_id = $1", funding_id
            )

        row = await self._database.run(work)
        if row is None:
            raise NotFoundError("no such proposal")
        return _funding(row)


def _funding(row: Mapping[str, Any]) -> Funding:
    return Funding(
        funding_id=row["funding_id"],
        request_id=row["request_id"],
        budget=row["budget"],
        amount_micros=row["amount_micros"],
        proposed_by=row["proposed_by"],
        proposed_at=row["proposed_at"],
        approved_by=row["approved_by"],
        approved_at=row["approved_at"],
    )
