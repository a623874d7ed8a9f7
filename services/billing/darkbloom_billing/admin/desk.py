"""Commands of operators that move money or make things: credits, rewards, invites, prices."""

import secrets
from datetime import datetime
from functools import partial

from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import ConflictError

from darkbloom_billing.admin.actions import record
from darkbloom_billing.admin.errors import OperatorRefusal, OperatorRefusedError
from darkbloom_billing.admin.model import Action, Credit, CreditKind, Fact, Operator
from darkbloom_billing.books import Books, Budget
from darkbloom_billing.errors import BudgetExhaustedError
from darkbloom_billing.model import NewPrice, PriceVersion
from darkbloom_billing.prices import Prices
from darkbloom_billing.programmes import invite_store
from darkbloom_billing.programmes.codes import new_invite_code
from darkbloom_billing.programmes.model import Invite, NewInvite
from darkbloom_billing.store.database import Connection, Database

_CLOSING = "SELECT closing_at IS NOT NULL FROM billing.account WHERE account_id = $1"
_NOTE = "INSERT INTO billing.note VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING"


class Desk:
    """Each write and its row of the audit are one transaction, or the write repeats into one."""

    def __init__(self, books: Books, prices: Prices, database: Database, clock: Clock) -> None:
        self._books = books
        self._prices = prices
        self._database = database
        self._clock = clock

    async def credit(self, operator: Operator, credit: Credit) -> None:
        """Put money on an account from the promotional budget, once per request id.

        Raises:
            NotFoundError: No such account.
            ConflictError: The request id came before with other contents.
            OperatorRefusedError: The budget is used up, or the account is being deleted.
        """
        now = self._clock.now()
        action = Action(
            operator=operator,
            action=f"account.{credit.kind.value}",
            subject=credit.account_id,
            request_id=credit.request_id,
            before={},
            after={"amount_micros": credit.amount_micros},
        )

        async def also(connection: Connection) -> None:
            # Nobody could ever spend it.
            if await connection.fetchval(_CLOSING, credit.account_id):
                raise OperatorRefusedError(OperatorRefusal.ACCOUNT_CLOSING)
            key = f"admin:{credit.request_id}"
            await write_note(connection, key, credit.account_id, credit.note, now=now)
            await record(connection, action, now=now)

        pay = self._books.reward if credit.kind is CreditKind.REWARD else self._books.grant
        try:
            await pay(
                f"admin:{credit.request_id}",
                credit.account_id,
                credit.amount_micros,
                budget=Budget.PROMO,
                also=also,
            )
        except BudgetExhaustedError:
            raise OperatorRefusedError(OperatorRefusal.BUDGET_SHORT) from None

    async def create_invite(self, operator: Operator, new: NewInvite) -> Invite:
        """Make an invite, once per request id; an empty code is made up.

        Raises:
            ConflictError: The code is taken, or the request id came before with another invite.
        """
        now = self._clock.now()
        made_up = new_invite_code(secrets.token_bytes(4))
        wanted = NewInvite(
            request_id=new.request_id,
            code=new.code or made_up,
            amount_micros=new.amount_micros,
            max_uses=new.max_uses,
            expires_at=new.expires_at,
        )

        async def work(connection: Connection) -> Invite:
            async with connection.transaction():
                invite = await invite_store.create(connection, wanted, now=now)
                kept = (invite.new.code if new.code else "", invite.new.expires_at)
                if kept != (new.code, new.expires_at):
                    raise ConflictError("the same request id came before with another invite")
                after: dict[str, Fact] = {
                    "amount_micros": invite.new.amount_micros,
                    "max_uses": invite.new.max_uses,
                    "expires_at": wanted.expires_at.isoformat() if wanted.expires_at else None,
                }
                await self._note(
                    connection,
                    operator,
                    "invite.create",
                    invite.new.code,
                    new.request_id,
                    {},
                    after,
                )
                return invite

        return await self._database.run(work)

    async def deactivate_invite(self, operator: Operator, request_id: str, code: str) -> Invite:
        """Stop an invite; what was redeemed stays.

        Raises:
            NotFoundError: No such invite.
        """

        async def work(connection: Connection) -> Invite:
            async with connection.transaction():
                was, invite = await invite_store.deactivate(connection, code)
                await self._note(
                    connection,
                    operator,
                    "invite.deactivate",
                    code,
                    request_id,
                    {"active": was},
                    {"active": False},
                )
                return invite

        return await self._database.run(work)

    async def set_price(self, operator: Operator, new: NewPrice) -> PriceVersion:
        """Set the platform's price of a build, once per request id.

        The row of the audit follows the price: where it cannot be written this fails, and the same
        request repeated writes it.
        """
        before = self._prices.book.in_force(new.build, self._clock.now())
        version = await self._prices.set_price(new)
        row = version.row
        work = partial(
            self._note,
            operator=operator,
            action="price.set",
            subject=new.build,
            request_id=new.request_id,
            before={
                "input_micros": before.input_micros,
                "output_micros": before.output_micros,
                "cache_read_micros": before.cache_read_micros,
            },
            after={
                "price_id": row.price_id,
                "input_micros": row.input_micros,
                "output_micros": row.output_micros,
                "cache_read_micros": row.cache_read_micros,
            },
        )
        await self._database.run(work)
        return version

    async def _note(
        self,
        connection: Connection,
        operator: Operator,
        action: str,
        subject: str,
        request_id: str,
        before: dict[str, Fact],
        after: dict[str, Fact],
    ) -> None:
        row = Action(
            operator=operator,
            action=action,
            subject=subject,
            request_id=request_id,
            before=before,
            after=after,
        )
        await record(connection, row, now=self._clock.now())


async def write_note(
    connection: Connection, request_id: str, account_id: str, note: str, *, now: datetime
) -> None:
    """Keep a text beside the ledger: it may be about a person, and must be erasable."""
    if note:
        await connection.execute(_NOTE, request_id, account_id, note, now)
