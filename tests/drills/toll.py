"""What a break cost in money, by the books: nothing is inferred from what should have happened."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from darkbloom_billing.pricing import MINIMUM_CHARGE_MICROS
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import scripted_build

from tests.drills.load import Answer, End
from tests.mesh.harness import Books, Consumer, until

_MILLION = 1_000_000
WINDOW = 32
"""Frames of an answer that may be under way and read by nobody: a lane's credit (docs/wire.md)."""
OUTPUT_MICROS = scripted_build(b"").output_micros
"""Micro-USD for a million tokens of the scripted build."""


@dataclass(frozen=True, kw_only=True)
class Toll:
    """What the books say of a load, once every hold has ended."""

    lost_micros: int
    """Charged and never read, or read and never paid, or held for ever."""
    unread_tokens: int
    """Charged beyond what the client read; only where an answer was cut or broken."""
    unpaid_tokens: int
    """Read and never charged; only where an answer was cut or broken."""
    unexpected: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, int]:
        """Return the figures."""
        return {"unread_tokens": self.unread_tokens, "unpaid_tokens": self.unpaid_tokens}


def most_micros(answers: int, tokens: int) -> int:
    """Return what so many broken answers can cost at most, in micro-USD.

    Args:
        answers: How many had begun.
        tokens: Of a whole answer; no more than the window of it can be without a reader.
    """
    return answers * worth_micros(min(tokens, WINDOW))


def worth_micros(tokens: int) -> int:
    """Return what an answer of so many tokens costs, its minimum included, in micro-USD."""
    return max(MINIMUM_CHARGE_MICROS, -(-tokens * OUTPUT_MICROS // _MILLION))


class Ledger:
    """The development account's books, from a moment on: `begin`, then `toll`."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._consumer = Consumer(mesh)
        self._books = Books(mesh)
        self._balance = 0
        self._before: set[str] = set()

    @classmethod
    async def begin(cls, mesh: Mesh) -> "Ledger":
        """Remember where the books stand; nothing may be under way."""
        ledger = cls(mesh)
        await ledger._books.quiet()
        ledger._balance = await ledger._consumer.balance()
        ledger._before = set(await ledger.rows())
        return ledger

    async def rows(self) -> dict[str, Mapping[str, Any]]:
        """Return every charge of the account by attempt."""
        found: dict[str, Mapping[str, Any]] = {}
        token = ""
        while True:
            page = await self._consumer.get(f"/v1/payments/usage?limit=1000&page_token={token}")
            assert page.status_code == 200, page.text
            said = page.json()
            found |= {row["job_id"]: row for row in said["usage"]}
            token = said.get("next_page_token", "")
            if not token:
                return found

    async def spent(self) -> int:
        """Return what the account has paid since the beginning, in micro-USD."""
        return self._balance - await self._consumer.balance()

    async def toll(self, answers: Iterable[Answer]) -> Toll:
        """Wait until nothing is held, let billing audit itself, and compare charge by charge."""
        await self._books.quiet()
        wrong: list[str] = []
        report = await self._mesh.audit()
        wrong += [f"audit: {violation}" for violation in report["violations"]]
        held = await self._books.held()

        known = {one.job_id: one for one in answers if one.job_id}

        async def all_charged() -> dict[str, Mapping[str, Any]] | None:
            # A settlement that is told may still wait for its page of usage.
            found = await self.rows()
            uncharged.clear()
            uncharged.update(whole - set(found))
            return None if uncharged else found

        whole = {name for name, one in known.items() if one.end is End.WHOLE}
        uncharged: set[str] = set()
        try:
            rows = await until(all_charged, "every whole answer is charged")
        except AssertionError as error:
            raise AssertionError(f"{error}; not: {sorted(uncharged)}") from None
        new = {name: row for name, row in rows.items() if name not in self._before}
        spent = await self.spent()
        charged = sum(int(row["cost_micro_usd"]) for row in new.values())
        if spent != charged:
            wrong.append(f"the account paid {spent} micro-USD, its charges are {charged}")

        if held:
            wrong.append(f"{held} micro-USD are still held")
        unread, unpaid, nothing_paid, lost = 0, 0, 0, held
        for name, one in known.items():
            tokens = int(new[name]["completion_tokens"]) if name in new else 0
            if tokens != one.words and one.end is End.WHOLE:
                wrong.append(f"a whole answer of {one.words} tokens is charged as {tokens}")
            if one.words and name not in new:
                # Nothing at all was charged, so the least that an answer costs is lost too.
                lost += worth_micros(one.words)
                nothing_paid += one.words
                continue
            unread += max(0, tokens - one.words)
            unpaid += max(0, one.words - tokens)
        for name, row in new.items():
            if name not in known:
                unread += int(row["completion_tokens"])
        lost += -(-(unread + unpaid) * OUTPUT_MICROS // _MILLION)
        return Toll(
            lost_micros=lost,
            unread_tokens=unread,
            unpaid_tokens=unpaid + nothing_paid,
            unexpected=wrong,
        )
