"""Disputes: what a deposit funded is held until they are decided."""

from dataclasses import dataclass
from datetime import timedelta

from darkbloom_mesh.errors import InvalidArgumentError, NotFoundError

from darkbloom_billing.books import plans
from darkbloom_billing.books.base import (
    Base,
    deposit_of,
    held_wallets,
    own_wallets,
    require_amount,
)
from darkbloom_billing.books.core import Also, Command, body_of, pending_of
from darkbloom_billing.books.draft import Draft
from darkbloom_billing.books.model import (
    DISPUTED,
    PAYABLE,
    STRIPE,
    Outcome,
    Pending,
    Plan,
    Share,
)
from darkbloom_billing.books.outbox import put
from darkbloom_billing.books.rows import (
    decision,
    end_holds,
    give_back,
    held_shares,
    hold_earnings,
    known_requests,
    lost_by,
    reinstated,
    traced,
)
from darkbloom_billing.store.database import Connection

FOLLOW = "dispute_follow"
"""Kind of the owed work that looks again; its key is the dispute's id."""
LONGEST_HOLD = timedelta(hours=2, minutes=15)
"""No hold is renewed beyond two hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dispute:
    account_id: str
    amount: int
    pending: list[Pending]
    shares: list[Share]


class Disputes(Base):
    """A dispute is opened once and ends once; of a lost one, money may come back later."""

    async def dispute_open(
        self, dispute_id: str, payment_id: str, amount_micros: int, *, also: Also | None = None
    ) -> Outcome:
        """Book that Stripe took a disputed amount (key `dispute:<dispute_id>`).

        Reserves what the payer has left of it, and holds the unmatured earnings that the deposit
        funded, in proportion.

        Returns:
            `reserved`, `held`.

        Raises:
            NotFoundError: No such deposit.
        """
        require_amount(amount_micros)

        async def facts(connection: Connection) -> tuple[str, list[Share]]:
            deposit = await deposit_of(connection, payment_id)
            funded = await traced(connection, f"stripe:{payment_id}")
            return deposit["account_id"], plans.held_by(amount_micros, deposit["amount"], funded)

        now = self.clock.now()

        async def hold(connection: Connection, found: tuple[str, list[Share]]) -> None:
            await hold_earnings(connection, dispute_id, found[1])
            # What is in flight now settles later; then it is looked at again.
            await put(connection, FOLLOW, dispute_id, {}, now=now, due=now + LONGEST_HOLD)

        command = Command(
            key=f"dispute:{dispute_id}",
            kind="dispute_open",
            body={"payment_id": payment_id, "amount": amount_micros},
            accounts=lambda f: [STRIPE, DISPUTED, PAYABLE, *own_wallets(f[0]), *held_wallets(f[1])],
            facts=facts,
            plan=lambda d, f: plans.dispute_open(d, f[0], amount_micros, f[1]),
            effects=hold,
        )
        return await self.run(command, also)

    async def dispute_follow(self, dispute_id: str) -> Outcome:
        """Hold what was in flight when a dispute opened (key `dispute-follow:<dispute_id>`).

        For the time when every hold of then has ended. A dispute that was decided meanwhile is
        left alone.

        Returns:
            `held`; nothing where there is nothing to hold.

        Raises:
            NotFoundError: No such dispute.
        """

        async def facts(connection: Connection) -> list[Share]:
            body = await body_of(connection, f"dispute:{dispute_id}", "dispute")
            if await decision(connection, dispute_id) is not None:
                return []
            payment_id = body["payment_id"]
            deposit = await deposit_of(connection, payment_id)
            known = await known_requests(connection, dispute_id)
            funded = await traced(connection, f"stripe:{payment_id}")
            fresh = [f for f in funded if f.request_id not in known]
            return plans.held_by(body["amount"], deposit["amount"], fresh)

        async def hold(connection: Connection, found: list[Share]) -> None:
            await hold_earnings(connection, dispute_id, found)

        command = Command(
            key=f"dispute-follow:{dispute_id}",
            kind="dispute_follow",
            body={},
            # The lock on the disputed asset keeps the decision out meanwhile.
            accounts=lambda shares: [DISPUTED, *held_wallets(shares)],
            facts=facts,
            plan=plans.dispute_follow,
            effects=hold,
        )
        return await self.run(command, None)

    async def dispute_won(self, dispute_id: str, *, also: Also | None = None) -> Outcome:
        """Book that Stripe gave the money back (key `resolve:dispute-<id>`): all is as before.

        Returns:
            `returned`, `lost`.

        Raises:
            NotFoundError: No such dispute.
            ConflictError: It was lost before.
        """
        return await self._dispute_end(dispute_id, "dispute_won", also)

    async def dispute_lost(self, dispute_id: str, *, also: Also | None = None) -> Outcome:
        """Book that the money is gone (key `resolve:dispute-<id>`).

        From what was reserved and what the payer has, then from the held earnings; the rest is
        the payer's debt.

        Returns:
            `lost` (by payees), `debt` (all that the payer owes now).

        Raises:
            NotFoundError: No such dispute.
            ConflictError: It was won before.
        """
        return await self._dispute_end(dispute_id, "dispute_lost", also)

    async def dispute_reinstated(
        self, dispute_id: str, move_id: str, amount_micros: int, *, also: Also | None = None
    ) -> Outcome:
        """Book that Stripe gave money of a lost dispute back after all, in part or whole.

        Key `dispute-reinstated:<dispute_id>:<move_id>`. First those get it who lost earnings by
        it, each in proportion, then the payer, after debts.

        Returns:
            `payees`, `credited`, `repaid`.

        Raises:
            NotFoundError: No such dispute, or it was not lost.
            InvalidArgumentError: More came back than was taken.
        """
        require_amount(amount_micros)

        async def facts(connection: Connection) -> tuple[str, list[Share]]:
            body = await body_of(connection, f"dispute:{dispute_id}", "dispute")
            if await decision(connection, dispute_id) != "dispute_lost":
                raise NotFoundError("dispute was not lost")
            before = await reinstated(connection, dispute_id)
            if before + amount_micros > body["amount"]:
                raise InvalidArgumentError("more than was taken", "amount_micros")
            lost = await lost_by(connection, dispute_id)
            who = (await deposit_of(connection, body["payment_id"]))["account_id"]
            return who, plans.given_back(lost, amount_micros)

        async def remember(connection: Connection, found: tuple[str, list[Share]]) -> None:
            await give_back(connection, dispute_id, found[1])

        command = Command(
            key=f"dispute-reinstated:{dispute_id}:{move_id}",
            kind="dispute_reinstated",
            body={"dispute_id": dispute_id, "amount": amount_micros},
            # The lock on the disputed asset lets one of them in at a time.
            accounts=lambda f: [
                STRIPE,
                DISPUTED,
                PAYABLE,
                *own_wallets(f[0]),
                *(share.account_id for share in f[1]),
            ],
            facts=facts,
            plan=lambda d, f: plans.dispute_reinstated(d, f[0], amount_micros, f[1]),
            effects=remember,
        )
        return await self.run(command, also)

    async def _dispute_end(self, dispute_id: str, kind: str, also: Also | None) -> Outcome:
        now = self.clock.now()
        won = kind == "dispute_won"
        key = f"dispute:{dispute_id}"

        async def facts(connection: Connection) -> _Dispute:
            body = await body_of(connection, key, "dispute")
            return _Dispute(
                account_id=(await deposit_of(connection, body["payment_id"]))["account_id"],
                amount=body["amount"],
                pending=await pending_of(connection, key),
                shares=await held_shares(connection, dispute_id),
            )

        lost: list[Share] = []

        def plan(d: Draft, f: _Dispute) -> Plan:
            if won:
                lost[:] = f.shares
                return plans.dispute_won(d, f.amount, f.pending, f.shares)
            made = plans.dispute_lost(d, f.account_id, f.amount, f.pending, f.shares)
            lost[:] = plans.take(f.shares, made.result["lost"])
            return made

        async def end(connection: Connection, _facts: _Dispute) -> None:
            await end_holds(connection, dispute_id, lost, now)

        command = Command(
            key=f"resolve:dispute-{dispute_id}",
            kind=kind,
            body={},
            accounts=lambda f: [
                STRIPE,
                DISPUTED,
                PAYABLE,
                *own_wallets(f.account_id),
                *held_wallets(f.shares),
            ],
            facts=facts,
            plan=plan,
            effects=end,
        )
        return await self.run(command, also)
