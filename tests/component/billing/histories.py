"""A ledger of sixty lines that knows no database, and random commands for both."""

import random  # noqa: TID251 - seeded: the same histories each time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from darkbloom_billing.model import End, EndKind, HoldOrder, PriceRow

from tests.component.billing.world import request_id

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
LEASE_UNTIL = NOW + timedelta(minutes=15)
ACCOUNTS = ("acct_a", "acct_b", "acct_c")
PROVIDERS = ("acct_c", "acct_d")
PRICE = PriceRow(
    price_id="p",
    build="b",
    input_micros=1_000_000,
    output_micros=1_000_000,
    cache_read_micros=0,
    minimum_charge_micros=0,
)


@dataclass(frozen=True)
class Hold:
    order: HoldOrder


@dataclass(frozen=True)
class Resolve:
    end: End


Command = Hold | Resolve


@dataclass
class Model:
    """What accounts should hold after the commands that were accepted."""

    free: dict[str, int]
    earned: dict[str, int] = field(default_factory=dict)
    maturing: dict[str, int] = field(default_factory=dict)
    held: dict[str, tuple[str, int]] = field(default_factory=dict)
    ended: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    parts: dict[str, int] = field(default_factory=dict)
    """How much of a hold came from promotional money."""

    def hold(self, order: HoldOrder) -> str:
        amount = order.prompt_bound + order.output_bound
        if order.request_id in self.ended:
            return "hold_ended"
        if order.request_id in self.held:
            return "held"
        if self.free[order.account_id] + self.earned.get(order.account_id, 0) < amount:
            return "insufficient_funds"
        # Promotional money goes first, and what is earned is spent last.
        from_free = min(amount, self.free[order.account_id])
        self.free[order.account_id] -= from_free
        self.earned[order.account_id] = self.earned.get(order.account_id, 0) - (amount - from_free)
        self.held[order.request_id] = (order.account_id, amount)
        self.parts[order.request_id] = from_free
        return "held"

    def resolve(self, end: End) -> str:
        if end.request_id in self.ended:
            kind, digest = self.ended[end.request_id]
            same = (kind == "settle") == (end.kind is EndKind.SETTLE)
            exact = end.kind is not EndKind.SETTLE or digest == end.body_hash
            return "replayed" if same and exact else "late"
        if end.request_id not in self.held:
            return "unknown"
        account, amount = self.held[end.request_id]
        if end.charge_micros > amount:
            return "rejected"
        del self.held[end.request_id]
        self.ended[end.request_id] = (end.kind.value, end.body_hash)
        from_free = self.parts[end.request_id]
        # Promotional money pays nobody for work on their own account.
        charge = 0 if from_free and end.payee == account else end.charge_micros
        spent_free = min(charge, from_free)
        self.free[account] += from_free - spent_free
        self.earned[account] += amount - from_free - (charge - spent_free)
        if charge:
            self.maturing[end.payee] = self.maturing.get(end.payee, 0) + charge
        return "settled" if end.kind is EndKind.SETTLE else "released"

    def balances(self) -> dict[str, tuple[int, int, int, int]]:
        """Return (promotional, earned, held, maturing) by account."""
        held: dict[str, int] = {}
        for account, amount in self.held.values():
            held[account] = held.get(account, 0) + amount
        names = {*ACCOUNTS, *PROVIDERS}
        return {
            name: (
                self.free.get(name, 0),
                self.earned.get(name, 0),
                held.get(name, 0),
                self.maturing.get(name, 0),
            )
            for name in names
        }


def commands(rng: random.Random, requests: int) -> list[Command]:
    """Return commands of several requests, each delivered 1 to 3 times, in any order."""
    made: list[Command] = []
    for _ in range(requests):
        name = request_id()
        order = HoldOrder(
            request_id=name,
            account_id=rng.choice(ACCOUNTS),
            key_id="",
            build="b",
            prompt_bound=rng.randint(1, 400),
            output_bound=rng.randint(1, 400),
            requested_model="m",
        )
        made += [Hold(order)] * rng.randint(1, 3)
        for kind in rng.sample(
            [EndKind.SETTLE, EndKind.SETTLE, EndKind.RELEASE], rng.randint(0, 2)
        ):
            settled = kind is EndKind.SETTLE
            charge = rng.randint(1, 900) if settled else 0
            end = End(
                request_id=name,
                kind=kind,
                charge_micros=charge,
                payee=rng.choice(PROVIDERS) if settled else "",
                body_hash=charge.to_bytes(4, "big"),
                body={
                    "attempt_id": "att",
                    "prompt_tokens": 1,
                    "cached_tokens": 0,
                    "completion_tokens": 1,
                    "outcome": "completed",
                    "terminal_sha256": "",
                    "identity_key": "00",
                }
                if settled
                else {},
            )
            made += [Resolve(end)] * rng.randint(1, 3)
    rng.shuffle(made)
    return made
