"""A page of the books that is being written: legs, and what they leave on each account. Pure."""

from collections.abc import Mapping
from types import MappingProxyType

from darkbloom_billing.books.model import Leg, Pending, Plan

_DEBIT_NORMAL = ("asset:", "platform:stripe_fees")


def debit_normal(path: str) -> bool:
    """Say whether an account grows on its debit side: assets, expenses, debts."""
    return path.startswith(_DEBIT_NORMAL) or path.endswith(":debt")


class Draft:
    """Legs in order. No leg may take more than is free: a plan that tries has a fault of its own.

    Args:
        free: For every account of the command, in micro-USD: its balance without what is reserved.
    """

    def __init__(self, free: Mapping[str, int]) -> None:
        self._free = dict(free)
        self.plan = Plan()

    @property
    def balances(self) -> Mapping[str, int]:
        """What is free on each account after the legs so far."""
        return MappingProxyType(self._free)

    def free(self, path: str) -> int:
        """Return what is free on an account after the legs so far."""
        return self._free[path]

    def move(self, code: str, debit: str, credit: str, amount: int) -> int:
        """Move money for good; nothing is written for 0. Return the amount."""
        if self._written(amount):
            self._change(debit, credit, amount)
            self._write("single", code, debit, credit, amount)
        return amount

    def reserve(self, code: str, debit: str, credit: str, amount: int) -> int:
        """Move money pending its end; nothing is written for 0. Return the amount."""
        if self._written(amount):
            for path in (debit, credit):
                if debit_normal(path) is (path == credit):
                    self._take(path, amount)
            self._write("pending", code, debit, credit, amount)
        return amount

    def post(self, pending: Pending) -> int:
        """Make a pending move final, whole. Return the amount."""
        for path in (pending.debit, pending.credit):
            if debit_normal(path) is not (path == pending.credit):
                self._free[path] += pending.amount
        self._end("post", pending)
        return pending.amount

    def void(self, pending: Pending) -> None:
        """Take a pending move back."""
        for path in (pending.debit, pending.credit):
            if debit_normal(path) is (path == pending.credit):
                self._free[path] += pending.amount
        self._end("void", pending)

    def done(self, **result: int) -> Plan:
        """Return the plan with what its caller is told."""
        self.plan.result.update(result)
        return self.plan

    def skip(self) -> Plan:
        """Return a plan that writes nothing, not even an event."""
        self.plan.skipped = True
        return self.plan

    def _written(self, amount: int) -> bool:
        """Say whether there is a leg to write; a negative one is a fault of the plan."""
        if amount < 0:
            raise ValueError(f"plan moves {amount}")
        return amount > 0

    def _change(self, debit: str, credit: str, amount: int) -> None:
        for path, side in ((debit, True), (credit, False)):
            if debit_normal(path) is side:
                self._free[path] += amount
            else:
                self._take(path, amount)

    def _take(self, path: str, amount: int) -> None:
        if self._free[path] < amount:
            raise ValueError(f"plan takes {amount} of {self._free[path]} on {path}")
        self._free[path] -= amount

    def _write(self, mode: str, code: str, debit: str, credit: str, amount: int) -> None:
        self.plan.legs.append(Leg(mode=mode, code=code, debit=debit, credit=credit, amount=amount))

    def _end(self, mode: str, pending: Pending) -> None:
        self.plan.legs.append(
            Leg(
                mode=mode,
                code=pending.code,
                debit=pending.debit,
                credit=pending.credit,
                amount=pending.amount,
                pending_id=pending.id,
            )
        )
