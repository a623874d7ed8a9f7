"""Money out: a withdrawal is reserved before Stripe is asked, and ends once."""

from collections.abc import Callable, Mapping, Sequence

from darkbloom_mesh.errors import InvalidArgumentError, NotFoundError

from darkbloom_billing.books import plans
from darkbloom_billing.books.base import Base, own_wallets, require_amount
from darkbloom_billing.books.core import Also, Command, body_of, pending_of
from darkbloom_billing.books.draft import Draft
from darkbloom_billing.books.model import (
    PAYABLE,
    STRIPE,
    Json,
    Outcome,
    Pending,
    Plan,
    revenue,
)
from darkbloom_billing.books.rows import is_frozen, is_sound, leaving
from darkbloom_billing.store.database import Connection


class Withdrawals(Base):
    """Refunding twice cannot be expressed: a pending transfer ends once."""

    async def withdraw_submit(
        self,
        withdrawal_id: str,
        account_id: str,
        net_micros: int,
        *,
        fee_micros: int = 0,
        left: bool = False,
        also: Also | None = None,
    ) -> Outcome:
        """Reserve a withdrawal before Stripe is asked (key `wd:<withdrawal_id>`).

        With `left`, what Stripe has sent already: nothing keeps it from being booked, and what the
        account has not earned becomes its debt.

        Returns:
            `net`, `fee`, `earned` (withdrawable now); with `left` also `shortfall` (what was not
            earned) and `debt` (all that is owed now).

        Raises:
            AccountFrozenError: It owes, or was frozen.
            WithdrawalsStoppedError: For cause `payable`, `audit` or `funds`.
            InsufficientFundsError: Not so much is earned and mature.
        """
        require_amount(net_micros)
        require_amount(fee_micros, zero=True)

        async def facts(connection: Connection) -> tuple[bool, bool, int]:
            return (
                await is_frozen(connection, account_id),
                await is_sound(connection),
                await leaving(connection),
            )

        command = Command(
            key=f"wd:{withdrawal_id}",
            kind="withdraw_submit",
            body={"account_id": account_id, "net": net_micros, "fee": fee_micros},
            accounts=lambda _: [STRIPE, PAYABLE, revenue(withdrawal_id), *own_wallets(account_id)],
            facts=facts,
            plan=lambda d, f: plans.withdraw_submit(
                d,
                account_id,
                withdrawal_id,
                net_micros,
                fee_micros,
                frozen=f[0],
                sound=f[1],
                leaving=f[2],
                left=left,
            ),
        )
        return await self.run(command, also)

    async def withdraw_paid(
        self, withdrawal_id: str, *, keep_fee: bool = True, also: Also | None = None
    ) -> Outcome:
        """Book that the money left (key `resolve:wd-<withdrawal_id>`).

        Without `keep_fee` the fee goes back in the same step (an instant payout that was not).

        Returns:
            `net`, `fee`.

        Raises:
            NotFoundError: No such withdrawal.
            ConflictError: It was refused before, or paid otherwise.
        """
        return await self._withdraw_end(
            withdrawal_id,
            "withdraw_paid",
            {"keep_fee": keep_fee},
            lambda d, pending: plans.withdraw_paid(d, pending, keep_fee=keep_fee),
            also,
        )

    async def withdraw_refused(self, withdrawal_id: str, *, also: Also | None = None) -> Outcome:
        """Give everything back: it is proven that nothing left (key as `withdraw_paid`).

        Raises:
            NotFoundError: No such withdrawal.
            ConflictError: It was paid before.
        """
        return await self._withdraw_end(
            withdrawal_id, "withdraw_refused", {}, plans.withdraw_refused, also
        )

    async def withdraw_returned(
        self, withdrawal_id: str, *, amount_micros: int | None = None, also: Also | None = None
    ) -> Outcome:
        """Book that paid money came back (key `wd-return:<withdrawal_id>`), all of it by default.

        Returns:
            `credited`, `repaid`.

        Raises:
            NotFoundError: No such withdrawal, or it was not paid.
            InvalidArgumentError: More than was paid.
        """

        async def paid(connection: Connection) -> tuple[str, int]:
            account_id, net, _fee = await _paid(connection, withdrawal_id)
            amount = net if amount_micros is None else amount_micros
            if not 0 < amount <= net:
                raise InvalidArgumentError("more than was paid", "amount_micros")
            return account_id, amount

        command = Command(
            key=f"wd-return:{withdrawal_id}",
            kind="withdraw_returned",
            body={"amount": amount_micros},
            accounts=lambda f: [STRIPE, PAYABLE, *own_wallets(f[0])],
            facts=paid,
            plan=lambda d, f: plans.withdraw_returned(d, f[0], f[1]),
        )
        return await self.run(command, also)

    async def fee_returned(self, withdrawal_id: str, *, also: Also | None = None) -> Outcome:
        """Give the fee of a paid withdrawal back (key `wd-fee-return:<withdrawal_id>`).

        Raises:
            NotFoundError: No such withdrawal, or no fee was kept.
        """

        async def paid(connection: Connection) -> tuple[str, int]:
            account_id, _net, fee = await _paid(connection, withdrawal_id)
            if not fee:
                raise NotFoundError("no fee was kept")
            return account_id, fee

        command = Command(
            key=f"wd-fee-return:{withdrawal_id}",
            kind="fee_returned",
            body={},
            accounts=lambda f: [revenue(withdrawal_id), *own_wallets(f[0])],
            facts=paid,
            plan=lambda d, f: plans.fee_returned(d, f[0], withdrawal_id, f[1]),
        )
        return await self.run(command, also)

    async def _withdraw_end(
        self,
        withdrawal_id: str,
        kind: str,
        body: Mapping[str, Json],
        plan: Callable[[Draft, Sequence[Pending]], Plan],
        also: Also | None,
    ) -> Outcome:
        async def pending(connection: Connection) -> list[Pending]:
            found = await pending_of(connection, f"wd:{withdrawal_id}")
            if not found:
                raise NotFoundError("no such withdrawal")
            return found

        command = Command(
            key=f"resolve:wd-{withdrawal_id}",
            kind=kind,
            body=body,
            accounts=lambda found: [
                *(path for p in found for path in (p.debit, p.credit)),
                STRIPE,
                PAYABLE,
            ],
            facts=pending,
            plan=plan,
        )
        return await self.run(command, also)


async def _paid(connection: Connection, withdrawal_id: str) -> tuple[str, int, int]:
    """Return (account, net, fee) of a withdrawal that was paid."""
    asked = await body_of(connection, f"wd:{withdrawal_id}", "withdrawal")
    row = await connection.fetchrow(
        "SELECT kind, (result ->> 'net')::bigint AS net, (result ->> 'fee')::bigint AS fee "
        "FROM ledger.event WHERE idem_key = $1",
        f"resolve:wd-{withdrawal_id}",
    )
    if row is None or row["kind"] != "withdraw_paid":
        raise NotFoundError("withdrawal was not paid")
    return asked["account_id"], row["net"], row["fee"]
