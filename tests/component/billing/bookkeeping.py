"""A bookkeeper of a hundred lines that knows no database: what every command should do.

It shares nothing with the implementation but the names of accounts. Money sits in `money`; what is
reserved stays there and is noted in `reserved`.
"""

import zlib
from collections import Counter
from dataclasses import dataclass, field

from tests.component.billing.steps import Step

ASSET, OWNER, DISPUTED = "asset:stripe:platform", "asset:owner:available", "asset:stripe:disputed"
PAYABLE, EQUITY, EXPENSE = "platform:stripe_payable", "platform:equity", "platform:stripe_fees"


def grows_by_debit(path: str) -> bool:
    return path.split(":", maxsplit=1)[0] == "asset" or path == EXPENSE or path.endswith(":debt")


def shard(subject: str) -> str:
    return f"platform:fees:{zlib.crc32(subject.encode()) % 16:02d}"


@dataclass
class Bookkeeper:
    """Applies steps; `refused` steps change nothing, repeated ones neither."""

    money: Counter[str] = field(default_factory=Counter)
    reserved: Counter[str] = field(default_factory=Counter)
    told: dict[tuple[str, ...], str] = field(default_factory=dict)
    deposits: dict[str, tuple[str, int]] = field(default_factory=dict)
    credit_in: list[tuple[str, str, int]] = field(default_factory=list)
    credit_out: list[tuple[str, str, int]] = field(default_factory=list)
    holds: dict[str, tuple[str, dict[str, int]]] = field(default_factory=dict)
    asked: dict[str, Step] = field(default_factory=dict)
    first: dict[str, dict[str, int]] = field(default_factory=dict)
    """What each hold began with."""
    extensions: dict[tuple[str, int], tuple[int, bool]] = field(default_factory=dict)
    ended: dict[str, tuple[str, int]] = field(default_factory=dict)
    earnings: dict[str, list] = field(default_factory=dict)
    """[payee, charge, left, matured] by request."""
    disputes: dict[str, tuple[str, int, int, dict[str, int]]] = field(default_factory=dict)
    lost_disputes: dict[str, tuple[str, int, dict[str, int]]] = field(default_factory=dict)
    """(payer, what may still come back, what payees lost and did not get back) by dispute."""
    withdrawals: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    paid: dict[str, tuple[int, int]] = field(default_factory=dict)
    frozen: set[str] = field(default_factory=set)

    def apply(self, step: Step) -> str:
        """Return `ok` or the word of what refuses it."""
        key = step.key()
        if key in self.told:
            return "ok" if self.told[key] == repr(step) else "conflict"
        answer = getattr(self, step.kind)(step)
        if answer == "ok" and step.kind not in {"hold", "extend", "settle", "release", "mature"}:
            self.told[key] = repr(step)
        return answer

    def free(self, path: str) -> int:
        return self.money[path] - self.reserved[path]

    def move(self, debit: str, credit: str, amount: int, why: str = "") -> int:
        self.money[debit] += amount if grows_by_debit(debit) else -amount
        self.money[credit] -= amount if grows_by_debit(credit) else -amount
        if debit.endswith(":credit"):
            self.credit_out.append((debit, why, amount))
        if credit.endswith(":credit"):
            self.credit_in.append((credit, why, amount))
        return amount

    def out(self, debit: str, amount: int) -> None:
        """Stripe took it: from the asset, else it is owed."""
        there = min(amount, self.free(ASSET))
        self.move(debit, ASSET, there)
        self.move(debit, PAYABLE, amount - there)

    def cover_what_comes(self) -> None:
        self.move(PAYABLE, ASSET, min(self.money[PAYABLE], self.free(ASSET)))

    def repay(self, who: str) -> None:
        for kind in ("credit", "earned"):
            path, debt = f"user:{who}:{kind}", f"user:{who}:debt"
            self.move(path, debt, min(self.free(path), self.money[debt]))

    def is_frozen(self, who: str) -> bool:
        return who in self.frozen or self.money[f"user:{who}:debt"] > 0

    # In

    def deposit(self, s: Step) -> str:
        self.move(ASSET, f"user:{s.who}:credit", s.amount, s.ref)
        self.cover_what_comes()
        self.move(ASSET, shard(s.ref), s.extra)
        self.cover_what_comes()
        self.deposits[s.ref] = (s.who, s.amount)
        self.repay(s.who)
        return "ok"

    def fee(self, s: Step) -> str:
        budget = "platform:budget:fees"
        funded = min(s.amount, self.money[budget]) if s.flag else 0
        self.out(budget, funded)
        self.out(EXPENSE, s.amount - funded)
        return "ok"

    def refund(self, s: Step) -> str:
        if s.other not in self.deposits:
            return "not_found"
        who, _ = self.deposits[s.other]
        there = min(s.amount, self.free(f"user:{who}:credit"))
        self.out(f"user:{who}:credit", there)
        self.out(f"user:{who}:debt", s.amount - there)
        self.repay(who)
        return "ok"

    def funded(self, payment: str) -> dict[str, int]:
        """How much of each request a deposit paid, first in first out."""
        who, amount = self.deposits[payment]
        path = f"user:{who}:credit"
        before = 0
        for to, why, part in self.credit_in:
            if why == payment and to == path:
                break
            before += part if to == path else 0
        start, shares, at = before, Counter(), 0
        for source, why, part in self.credit_out:
            if source == path:
                shares[why] += max(0, min(at + part, start + amount) - max(at, start))
                at += part
        return {why: part for why, part in shares.items() if part and why in self.earnings}

    def dispute(self, s: Step) -> str:
        if s.other not in self.deposits:
            return "not_found"
        who, deposited = self.deposits[s.other]
        shares: dict[str, int] = {}
        for name, overlap in sorted(self.funded(s.other).items(), key=lambda each: int(each[0])):
            _payee, _charge, left, matured = self.earnings[name]
            held = sum(d[3].get(name, 0) for d in self.disputes.values())
            part = (
                0 if matured else min(left - held, overlap * min(s.amount, deposited) // deposited)
            )
            if part:
                shares[name] = part
        there = min(s.amount, self.free(ASSET))
        self.move(DISPUTED, ASSET, there)
        self.move(DISPUTED, PAYABLE, s.amount - there)
        reserved = min(s.amount, self.free(f"user:{who}:credit"))
        self.reserved[f"user:{who}:credit"] += reserved
        self.reserved[DISPUTED] += reserved
        for name, part in shares.items():
            payee = self.earnings[name][0]
            self.move(f"user:{payee}:maturing", f"user:{payee}:disputed", part)
        self.disputes[s.ref] = (who, s.amount, reserved, shares)
        return "ok"

    def won(self, s: Step) -> str:
        if s.ref not in self.disputes:
            return "not_found"
        who, amount, reserved, shares = self.disputes.pop(s.ref)
        self.reserved[f"user:{who}:credit"] -= reserved
        self.reserved[DISPUTED] -= reserved
        self.move(ASSET, DISPUTED, amount)
        self.cover_what_comes()
        for name, part in shares.items():
            payee = self.earnings[name][0]
            self.move(f"user:{payee}:disputed", f"user:{payee}:maturing", part)
        return "ok"

    def lost(self, s: Step) -> str:
        if s.ref not in self.disputes:
            return "not_found"
        who, amount, reserved, shares = self.disputes.pop(s.ref)
        credit = f"user:{who}:credit"
        self.reserved[credit] -= reserved
        self.reserved[DISPUTED] -= reserved
        self.move(credit, DISPUTED, reserved)
        rest = amount - reserved
        rest -= self.move(credit, DISPUTED, min(rest, self.free(credit)))
        total = sum(shares.values())
        taken = min(rest, total)
        parts = {name: part * taken // total for name, part in shares.items()}
        for name in shares:
            if sum(parts.values()) < taken and parts[name] < shares[name]:
                parts[name] += 1
        for name, part in shares.items():
            earning = self.earnings[name]
            disputed = f"user:{earning[0]}:disputed"
            self.move(disputed, DISPUTED, parts[name])
            self.move(disputed, f"user:{earning[0]}:maturing", part - parts[name])
            earning[2] -= parts[name]
        self.move(f"user:{who}:debt", DISPUTED, rest - taken)
        self.repay(who)
        self.lost_disputes[s.ref] = (who, amount, parts)
        return "ok"

    def reinstated(self, s: Step) -> str:
        if s.other not in self.lost_disputes:
            return "not_found"
        who, left, lost = self.lost_disputes[s.other]
        if s.amount > left:
            return "invalid"
        total = sum(lost.values())
        back = min(s.amount, total)
        parts = {name: part * back // total for name, part in lost.items() if part}
        for name in sorted(parts, key=int):
            if sum(parts.values()) < back and parts[name] < lost[name]:
                parts[name] += 1
        for name, part in parts.items():
            earning = self.earnings[name]
            kind = "earned" if earning[3] else "maturing"
            self.move(ASSET, f"user:{earning[0]}:{kind}", part)
            earning[2] += part
        self.move(ASSET, f"user:{who}:credit", s.amount - back)
        self.cover_what_comes()
        self.repay(who)
        rest = {name: part - parts.get(name, 0) for name, part in lost.items()}
        self.lost_disputes[s.other] = (who, left - s.amount, rest)
        return "ok"

    # Requests

    def hold(self, s: Step) -> str:
        if s.ref in self.holds:
            if self.asked[s.ref] != s:
                return "idempotency_conflict"
            return "hold_ended" if s.ref in self.ended else "held"
        if self.is_frozen(s.who):
            return "account_frozen"
        parts: dict[str, int] = {}
        for kind in ("promo", "credit", "earned"):
            path = f"user:{s.who}:{kind}"
            parts[path] = min(s.amount - sum(parts.values()), self.free(path))
        if sum(parts.values()) < s.amount:
            return "insufficient_funds"
        self.reserved.update(parts)
        self.holds[s.ref], self.asked[s.ref] = (s.who, parts), s
        self.first[s.ref] = dict(parts)
        return "held"

    def extend(self, s: Step) -> str:  # noqa: C901, PLR0911 - one line a refusal
        """Number `extra` raises to `amount`; with `flag` it is the only one that still counts."""
        if s.ref not in self.holds:
            return "not_found"
        said = self.extensions.get((s.ref, s.extra))
        if said is not None and said != (s.amount, s.flag):
            return "idempotency_conflict"
        if s.ref in self.ended:
            return "hold_ended"
        if said is not None:
            return "held"
        if s.extra > 1 and (s.ref, s.extra - 1) not in self.extensions:
            return "invalid_argument"
        payer, parts = self.holds[s.ref]
        held = sum(parts.values())
        total = max(s.amount, sum((self.first[s.ref] if s.flag else parts).values()))
        if total > held:
            if self.is_frozen(payer):
                return "account_frozen"
            if sum(self.free(path) for path in parts) < total - held:
                return "insufficient_funds"
        self.extensions[s.ref, s.extra] = (s.amount, s.flag)
        if total == held:
            return "held"
        if s.flag:
            self.reserved.subtract(parts)
            parts = dict(self.first[s.ref])
            self.reserved.update(parts)
        for path in parts:
            more = min(total - sum(parts.values()), self.free(path))
            parts[path] += more
            self.reserved[path] += more
        self.holds[s.ref] = (payer, parts)
        return "held"

    def settle(self, s: Step) -> str:
        return self._end(s, "settle", s.amount)

    def release(self, s: Step) -> str:
        return self._end(s, "release", 0)

    def _end(self, s: Step, kind: str, charge: int) -> str:
        if s.ref in self.ended:
            return "replayed" if self.ended[s.ref] == (kind, charge) else "late"
        if s.ref not in self.holds:
            return "unknown"
        payer, parts = self.holds[s.ref]
        if charge > sum(parts.values()):
            return "rejected"
        self.ended[s.ref] = (kind, charge)
        if payer == s.who and parts[f"user:{payer}:promo"]:
            charge = 0
        self.reserved.subtract(parts)
        rest = charge
        for path, part in parts.items():
            rest -= self.move(path, f"user:{payer}:charge", min(part, rest), s.ref)
        if charge:
            self.move(f"user:{payer}:charge", f"user:{s.who}:maturing", charge)
            self.earnings[s.ref] = [s.who, charge, charge, False]
        return "settled" if kind == "settle" else "released"

    def mature(self, _step: Step) -> str:
        for name, earning in self.earnings.items():
            if not any(name in d[3] for d in self.disputes.values()) and not earning[3]:
                earning[3] = True
                payee = earning[0]
                self.move(f"user:{payee}:maturing", f"user:{payee}:earned", earning[2])
        for path in [path for path in self.money if path.endswith(":debt")]:
            self.repay(path.split(":")[1])
        return "ok"

    # Programmes and capital

    def fund(self, s: Step) -> str:
        self.move(OWNER, EQUITY, s.amount)
        self.move(EQUITY, f"platform:budget:{s.other}", s.amount)
        return "ok"

    def grant(self, s: Step) -> str:
        return self._programme(s, "platform:budget:promo", "promo")

    def reward(self, s: Step) -> str:
        return self._programme(s, "platform:budget:base", "earned")

    def _programme(self, s: Step, budget: str, kind: str) -> str:
        if self.money[budget] < s.amount:
            return "budget"
        self.move(budget, f"user:{s.who}:{kind}", s.amount)
        self.repay(s.who)
        return "ok"

    def top_up(self, s: Step) -> str:
        if self.money[OWNER] < s.amount:
            return "funds"
        self.move(ASSET, OWNER, s.amount)
        self.cover_what_comes()
        return "ok"

    def cover(self, s: Step) -> str:
        if min(self.money[PAYABLE], self.money[OWNER]) < s.amount:
            return "funds"
        self.move(PAYABLE, OWNER, s.amount)
        return "ok"

    def freeze(self, s: Step) -> str:
        (self.frozen.add if s.flag else self.frozen.discard)(s.who)
        return "ok"

    # Out

    def submit(self, s: Step) -> str:
        earned = f"user:{s.who}:earned"
        if self.is_frozen(s.who):
            return "frozen"
        if self.money[PAYABLE]:
            return "stopped"
        if self.free(earned) < s.amount + s.extra:
            return "funds"
        if self.free(ASSET) < s.amount:
            return "stopped"
        self.reserved.update({earned: s.amount + s.extra, ASSET: s.amount})
        self.withdrawals[s.ref] = (s.who, s.amount, s.extra)
        return "ok"

    def paid_out(self, s: Step) -> str:
        return self._arrived(s, net=True, fee=s.flag)

    def refused(self, s: Step) -> str:
        return self._arrived(s, net=False, fee=False)

    def _arrived(self, s: Step, *, net: bool, fee: bool) -> str:
        if s.ref not in self.withdrawals:
            return "not_found"
        who, amount, charged = self.withdrawals[s.ref]
        earned = f"user:{who}:earned"
        self.reserved.subtract({earned: amount + charged, ASSET: amount})
        if net:
            self.move(earned, ASSET, amount)
            self.move(earned, shard(s.ref), charged if fee else 0)
            self.paid[s.ref] = (amount, charged if fee else 0)
            self.cover_what_comes()
        return "ok"

    def returned(self, s: Step) -> str:
        if s.ref not in self.paid:
            return "not_found"
        who = self.withdrawals[s.ref][0]
        self.move(ASSET, f"user:{who}:earned", self.paid[s.ref][0])
        self.cover_what_comes()
        self.repay(who)
        return "ok"

    def erase(self, s: Step) -> str:
        wallets = {k: f"user:{s.who}:{k}" for k in ("promo", "credit", "earned", "maturing")}
        held = any(self.earnings[n][0] == s.who for d in self.disputes.values() for n in d[3])
        if held or any(self.reserved[path] for path in wallets.values()):
            return "open"
        self.move(wallets.pop("promo"), "platform:budget:promo", self.money[f"user:{s.who}:promo"])
        for path in wallets.values():
            self.move(path, shard(s.who), self.money[path])
        self.move(EXPENSE, f"user:{s.who}:debt", self.money[f"user:{s.who}:debt"])
        for earning in self.earnings.values():
            if earning[0] == s.who and not earning[3]:
                earning[2:] = [0, True]
        self.frozen.add(s.who)
        return "ok"
