"""Whatever happens in whatever order, the database and a bookkeeper on paper agree."""

import asyncio

from darkbloom_billing.books import Budget, FeePayer, Source
from darkbloom_billing.errors import (
    AccountFrozenError,
    BudgetExhaustedError,
    InsufficientFundsError,
    OpenBusinessError,
    WithdrawalsStoppedError,
)
from darkbloom_mesh.errors import ConflictError, InvalidArgumentError, MeshError, NotFoundError
from hypothesis import HealthCheck, Phase, event, given, settings

from tests.component.billing.bookkeeping import Bookkeeper, grows_by_debit
from tests.component.billing.shop import Shop, released, settled, shop
from tests.component.billing.steps import WHO, Step, histories
from tests.component.billing.world import owner, request_id
from tests.stores import Postgres

WORDS = {
    ConflictError: "conflict",
    NotFoundError: "not_found",
    BudgetExhaustedError: "budget",
    InsufficientFundsError: "funds",
    AccountFrozenError: "frozen",
    WithdrawalsStoppedError: "stopped",
    OpenBusinessError: "open",
    InvalidArgumentError: "invalid",
}


async def deliver(s: Shop, step: Step) -> str:
    """Run one step against the database; return `ok`, a status or the word of the refusal."""
    s.clock.jump(0.001)
    try:
        return await _deliver(s, step) or "ok"
    except MeshError as error:
        return WORDS[type(error)]


async def _deliver(s: Shop, step: Step) -> str | None:  # noqa: C901, PLR0912, PLR0915 - one line a command
    ref, amount, who, books = step.ref, step.amount, step.who, s.books
    name = request_id(int(ref)) if step.kind in {"hold", "extend", "settle", "release"} else ""
    match step.kind:
        case "hold":
            return await s.hold(who, amount, name)
        case "extend":
            return await s.extend(name, step.extra, amount, replaces=step.flag)
        case "settle":
            status = await s.end(settled(name, who, amount))
            if status == "settled":
                await s.receipt(name)
            return status
        case "release":
            return await s.end(released(name))
        case "mature":
            await s.mature()
        case "deposit":
            await books.deposit(ref, who, amount, fee_line_micros=step.extra)
        case "fee":
            payer = FeePayer.BUDGET if step.flag else FeePayer.LINE
            await books.stripe_fee(ref, amount, payer=payer)
        case "refund":
            await books.refund(ref, step.other, amount)
        case "dispute":
            await books.dispute_open(ref, step.other, amount)
        case "won":
            await books.dispute_won(ref)
        case "lost":
            await books.dispute_lost(ref)
        case "reinstated":
            await books.dispute_reinstated(step.other, ref, amount)
        case "fund":
            await books.fund_equity(ref, amount, operator=step.other)
            budget = Budget(step.other)
            await books.fund_budget(ref, budget, amount, operators=("a", "b"))
        case "grant":
            await books.grant(ref, who, amount)
        case "reward":
            await books.reward(ref, who, amount, budget=Budget.BASE)
        case "top_up":
            await books.top_up(ref, amount)
        case "cover":
            await books.cover_payable(ref, amount, source=Source.OWNER)
        case "freeze":
            await books.freeze(ref, who, frozen=step.flag)
        case "submit":
            await books.withdraw_submit(ref, who, amount, fee_micros=step.extra)
        case "paid_out":
            await books.withdraw_paid(ref, keep_fee=step.flag)
        case "refused":
            await books.withdraw_refused(ref)
        case "returned":
            await books.withdraw_returned(ref)
        case "erase":
            await books.forfeit(ref, who)
    return None


async def play(url: str, steps: list[Step]) -> None:
    model = Bookkeeper()
    async with shop(url) as s, owner(url) as db:
        await s.people(*WHO)
        for step in steps:
            expected = model.apply(step)
            told = await deliver(s, step)
            event(f"{step.kind} {told}")
            assert told == expected, step
            rows = await db.fetch(_BALANCES)
            found = {row["path"]: (row["posted"], row["free"]) for row in rows}
            paper = {path: (model.money[path], model.free(path)) for path in found}
            assert found == paper, step
        await s.sound()


_BALANCES = """
    SELECT path, CASE normal WHEN 'C' THEN cr - dr ELSE dr - cr END AS posted,
      CASE normal WHEN 'C' THEN cr - dr - dr_pend ELSE dr - cr - cr_pend END AS free
    FROM ledger.account WHERE unit = 'uUSD'
"""


@settings(
    max_examples=16,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    # Shrinking would replay whole databases for minutes; the assertion names the step.
    phases=[Phase.generate],
)
@given(steps=histories())
def test_any_history_gives_the_balances_of_the_bookkeeper(
    cluster: Postgres, template: str, steps: list[Step]
) -> None:
    with cluster.database(template) as url:
        asyncio.run(play(url, steps))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(steps=histories())
def test_the_bookkeeper_never_makes_or_loses_money(steps: list[Step]) -> None:
    model = Bookkeeper()
    for step in steps:
        model.apply(step)
        assets = sum(m for path, m in model.money.items() if grows_by_debit(path))
        claims = sum(m for path, m in model.money.items() if not grows_by_debit(path))
        assert assets == claims
        assert all(model.free(path) >= 0 for path in model.money if ":budget:" not in path)
