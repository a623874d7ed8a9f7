"""The writers: each draws commands from its own seeded dice and delivers them 1 to 3 times."""

import asyncio
import random  # noqa: TID251 - seeded: the same commands each time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from darkbloom.billing.v1 import ledger_pb2
from darkbloom.billing.v1 import ledger_service_pb2 as ledger_pb
from darkbloom.common.v1 import price_pb2
from darkbloom_billing.books import Books, Budget, FeePayer, Source
from darkbloom_billing.model import CapReset
from darkbloom_billing.store.caps import PostgresCaps
from darkbloom_edge.ids import id_text
from darkbloom_edge.signatures import P256Signer
from google.protobuf.duration_pb2 import Duration

from tests.chaos.answers import accepted, answered
from tests.component.billing.test_receipts import record
from tests.component.billing.world import World

T = TypeVar("T")

KEY_LIMIT = 60_000
_SETTLED = ledger_pb2.SETTLEMENT_STATUS_SETTLED


@dataclass(kw_only=True)
class Outside:
    """What the world outside the books knows: Stripe's balance, and what callers were told."""

    stripe: int = 0
    paid: dict[str, int] = field(default_factory=dict)
    """Charge of each request that somebody was told is settled."""
    settled: set[str] = field(default_factory=set)
    """Requests of which a settlement was told that it is the one."""
    told_twice: list[str] = field(default_factory=list)
    """Requests of which two were told so, or were told two charges."""
    payments: list[tuple[str, str, int]] = field(default_factory=list)
    """(payment, account, amount) of what was deposited and neither refunded nor disputed."""
    unknown: list[str] = field(default_factory=list)
    """Withdrawals of which Stripe has not said whether the money left."""
    commands: int = 0


@dataclass(kw_only=True)
class Stage:
    """What all writers share."""

    worlds: tuple[World, ...]
    books: Books
    caps: PostgresCaps
    outside: Outside
    consumers: list[str]
    providers: dict[P256Signer, str]
    """Account by machine."""
    keys: dict[str, str]
    """Limited key by account."""
    prices: list[price_pb2.PriceRow]


class Actor:
    """One writer.

    Args:
        stage: Shared.
        number: Which writer; part of the ids that it makes.
        rng: Its dice.
    """

    def __init__(self, stage: Stage, number: int, rng: random.Random) -> None:
        self._stage = stage
        self._number = number
        self._rng = rng
        self._made = 0

    async def act(self, until: Callable[[], bool]) -> None:
        """Give commands until told to stop."""
        acts: tuple[tuple[Callable[[], Coroutine[Any, Any, None]], int], ...] = (
            (self._request, 60),
            (self._deposit, 10),
            (self._dispute, 3),
            (self._refund, 3),
            (self._withdraw, 6),
            (self.learn, 3),
            (self._promote, 5),
            (self._capital, 3),
            (self._cap, 2),
            (self._price, 1),
            (self._erase, 4),
        )
        names, weights = zip(*acts, strict=True)
        while not until():
            await self._rng.choices(names, weights)[0]()
            self._stage.outside.commands += 1

    def _name(self, kind: str) -> str:
        self._made += 1
        return f"{kind}_{self._number}_{self._made}"

    def _world(self) -> World:
        return self._rng.choice(self._stage.worlds)

    async def _deliver(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """Send a command 1 to 3 times, sometimes at once; all must hear the same."""
        times = self._rng.choice((1, 1, 2, 3))
        heard = await asyncio.gather(*(accepted(call) for _ in range(times)))
        return next((answer for answer in heard if answer is not None), None)

    # Requests ----------------------------------------------------------------------------------

    async def _request(self) -> None:
        """Hold, perhaps extend and renew, then end in one of many ways, or not at all."""
        account = self._rng.choice(self._stage.consumers)
        name = id_text("req", self._rng.randbytes(16))
        key = self._stage.keys.get(account, "") if self._rng.random() < 0.5 else ""
        order = self._world().order(name, account_id=account, key_id=key)
        answer = await self._deliver(lambda: self._world().hold(order))
        if answer is None or not answer[0].HasField("hold"):
            return

        if self._rng.random() < 0.2:
            await self._extend(name)
        if self._rng.random() < 0.1:
            renewal = ledger_pb.RenewHoldsRequest(request_ids=[name], lease=Duration(seconds=1))
            await accepted(lambda: self._world().ledger.RenewHolds(renewal, timeout=10))
        # Nobody ends it: the sweeper does.
        if self._rng.random() < 0.08:
            return
        await self._end(name)

    async def _extend(self, name: str) -> None:
        price = self._rng.choice(self._stage.prices)
        first = ledger_pb.ExtendHoldRequest(request_id=name, extension=1, price=price)
        await self._deliver(lambda: self._world().ledger.ExtendHold(first, timeout=10))
        if self._rng.random() < 0.5:
            # That provider fails; another one is offered.
            price = self._rng.choice(self._stage.prices)
            other = ledger_pb.ExtendHoldRequest(
                request_id=name, extension=2, price=price, replaces=True
            )
            await self._deliver(lambda: self._world().ledger.ExtendHold(other, timeout=10))

    async def _end(self, name: str) -> None:
        """Race terminals, broken ends and releases; at most one may win."""
        w = self._world()
        machine = self._rng.choice(list(self._stage.providers))
        verdict = w.verdict(machine=machine)[1]
        whole = w.settlement(
            name, verdict=verdict, terminal=w.terminal(name, machine=machine), opened=(40, 20)
        )
        broken = w.settlement(name, verdict=verdict, terminal=None, opened=(40, 7))
        racing: list[Awaitable[object]] = [
            self._settle(whole) for _ in range(self._rng.choice((1, 1, 2, 3)))
        ]
        if self._rng.random() < 0.2:
            racing.append(self._settle(broken))
        if self._rng.random() < 0.2:
            racing.append(accepted(lambda: self._world().release(name)))
        self._rng.shuffle(racing)
        await asyncio.gather(*racing)
        if name in self._stage.outside.paid and self._rng.random() < 0.8:
            receipt = record(w, name)
            request = ledger_pb.RecordReceiptsRequest(records=[receipt])
            await accepted(lambda: w.ledger.RecordReceipts(request, timeout=10))

    async def _settle(self, settlement: ledger_pb2.Settlement) -> None:
        # A settlement that was repeated after a lost answer hears that it is a replay.
        answer = await accepted(lambda: self._world().settle(settlement))
        if answer is None or answer[0].status not in {_SETTLED, _SETTLED + 2}:
            return
        outside, name, charge = (
            self._stage.outside,
            settlement.request_id,
            answer[0].charge_micros,
        )
        if outside.paid.setdefault(name, charge) != charge:
            outside.told_twice.append(name)
        if answer[0].status == _SETTLED:
            if name in outside.settled:
                outside.told_twice.append(name)
            outside.settled.add(name)

    # Stripe --------------------------------------------------------------------------------------

    async def _deposit(self) -> None:
        books, outside = self._stage.books, self._stage.outside
        account = self._rng.choice(self._stage.consumers)
        payment, amount = self._name("cs"), self._rng.randint(1, 30) * 10_000
        line = self._rng.choice((0, 3_000))
        await self._deliver(lambda: books.deposit(payment, account, amount, fee_line_micros=line))
        outside.stripe += amount + line
        outside.payments.append((payment, account, amount))
        if self._rng.random() < 0.7:
            fee, payer = self._rng.randint(1, 3_000), FeePayer.LINE if line else FeePayer.BUDGET
            await self._deliver(lambda: books.stripe_fee(f"fee_{payment}", fee, payer=payer))
            outside.stripe -= fee

    def _payment(self) -> tuple[str, str, int] | None:
        payments = self._stage.outside.payments
        return payments.pop(self._rng.randrange(len(payments))) if payments else None

    async def _refund(self) -> None:
        """Give a deposit back in part or whole, spent or not; sometimes the bank returns it."""
        books, outside = self._stage.books, self._stage.outside
        if (payment := self._payment()) is None:
            return
        name, amount = self._name("re"), self._rng.randint(1, payment[2])
        await self._deliver(lambda: books.refund(name, payment[0], amount))
        outside.stripe -= amount
        if self._rng.random() < 0.2:
            await self._deliver(lambda: books.refund_failed(name))
            outside.stripe += amount

    async def _dispute(self) -> None:
        """Dispute a deposit, perhaps long after it was earned and paid out; then decide it."""
        books, outside = self._stage.books, self._stage.outside
        if (payment := self._payment()) is None:
            return
        name = self._name("dp")
        await self._deliver(lambda: books.dispute_open(name, payment[0], payment[2]))
        outside.stripe -= payment[2]
        await asyncio.sleep(self._rng.uniform(0, 0.2))  # noqa: TID251 - banks take their time
        says_won, says_lost = self._rng.choice(((True, False), (False, True), (True, True)))
        won, lost = await asyncio.gather(
            self._deliver(lambda: books.dispute_won(name)) if says_won else _nothing(),
            self._deliver(lambda: books.dispute_lost(name)) if says_lost else _nothing(),
        )
        if won is not None:
            outside.stripe += payment[2]
        elif lost is not None and self._rng.random() < 0.5:
            # Given back after all, in two parts, of which the second may never come.
            first = self._rng.randint(1, payment[2])
            for move, part in ((f"{name}_a", first), (f"{name}_b", payment[2] - first)):
                if part and self._rng.random() < 0.7:
                    await self._deliver(partial(books.dispute_reinstated, name, move, part))
                    outside.stripe += part

    async def _withdraw(self) -> None:
        """Withdraw: confirmed, refused, both at once, or nobody knows."""
        books, outside = self._stage.books, self._stage.outside
        account = self._rng.choice([*self._stage.providers.values(), *self._stage.consumers])
        name, net = self._name("wd"), self._rng.randint(1, 4_000)
        fee = self._rng.choice((0, 50))
        if (
            await self._deliver(lambda: books.withdraw_submit(name, account, net, fee_micros=fee))
            is None
        ):
            return
        if self._rng.random() < 0.25:
            outside.unknown.append(name)
            return
        if await self._leave(name) and self._rng.random() < 0.2:
            await self._deliver(lambda: books.withdraw_returned(name))
            outside.stripe += net

    async def learn(self) -> None:
        """Evidence comes in for a withdrawal that had no answer."""
        unknown = self._stage.outside.unknown
        if unknown:
            await self._leave(unknown.pop(self._rng.randrange(len(unknown))))

    async def _leave(self, name: str) -> bool:
        """Deliver an end of a withdrawal, sometimes both; say whether the money left."""
        books, outside = self._stage.books, self._stage.outside
        says_paid, says_refused = self._rng.choice(((True, False), (False, True), (True, True)))
        heard = await asyncio.gather(
            self._deliver(lambda: books.withdraw_paid(name)) if says_paid else _nothing(),
            self._deliver(lambda: books.withdraw_refused(name)) if says_refused else _nothing(),
        )
        paid = heard[0]
        if paid is not None:
            outside.stripe -= paid.result["net"]
        return paid is not None

    # The platform --------------------------------------------------------------------------------

    async def _promote(self) -> None:
        books = self._stage.books
        name, amount = self._name("promo"), self._rng.randint(1, 20) * 1_000
        everybody = [*self._stage.consumers, *self._stage.providers.values()]
        account = self._rng.choice(everybody)
        match self._rng.randrange(3):
            case 0:
                await self._deliver(lambda: books.grant(name, account, amount))
            case 1:
                await self._deliver(lambda: books.reward(name, account, amount, budget=Budget.BASE))
            case _:
                await self._deliver(lambda: books.referral(name, account, amount))

    async def _capital(self) -> None:
        books, outside = self._stage.books, self._stage.outside
        name, amount = self._name("cap"), self._rng.randint(1, 50) * 1_000
        await self._deliver(lambda: books.fund_equity(name, 2 * amount, operator="ann"))
        budget = self._rng.choice(list(Budget))
        await self._deliver(
            lambda: books.fund_budget(name, budget, amount, operators=("ann", "ben"))
        )
        owed = (await answered(books.stripe_position)).payable_micros
        if owed:
            amount = min(owed, amount)
            done = await self._deliver(
                lambda: books.cover_payable(name, amount, source=Source.OWNER)
            )
        else:
            done = await self._deliver(lambda: books.top_up(name, amount))
        if done is not None:
            outside.stripe += amount

    async def _cap(self) -> None:
        """Change the window of a limit, never what it allows in one."""
        account = self._rng.choice(list(self._stage.keys))
        reset = self._rng.choice(list(CapReset))
        w = self._world()
        await accepted(
            lambda: self._stage.caps.set_cap(
                self._stage.keys[account], KEY_LIMIT, reset, now=w.clock.now()
            )
        )

    async def _price(self) -> None:
        name, rate = self._name("price"), self._rng.randint(10, 30) * 1_000_000
        row = await self._deliver(lambda: self._world().price(name, rate, rate))
        if row is not None:
            self._stage.prices.append(row)

    async def _erase(self) -> None:
        """Erase a consumer, unless something of theirs is open; another one comes."""
        books, stage = self._stage.books, self._stage
        account = self._rng.choice(stage.consumers)
        if account in stage.keys:
            return
        if await self._deliver(lambda: books.forfeit(f"er_{account}", account)) is None:
            return
        fresh = self._name("acct")
        await answered(lambda: books.open_account(fresh, "x"))
        if account in stage.consumers:
            stage.consumers[stage.consumers.index(account)] = fresh


async def _nothing() -> None:
    """Stand for a command that is not given."""
