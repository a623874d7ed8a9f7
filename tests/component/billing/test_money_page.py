"""docs/money.md, word for number: what it tells a provider is what the books do."""

from pathlib import Path

from darkbloom_billing.books import Books, plans
from darkbloom_billing.books.model import Funded
from darkbloom_billing.payments.amounts import fee_line, quote
from darkbloom_billing.payments.model import Method
from darkbloom_billing.programmes.model import Spend
from darkbloom_billing.programmes.rewards import share
from darkbloom_mesh.testing import FakeClock

from tests.component.billing.operating import staff
from tests.component.billing.world import (
    CONSUMER,
    PROVIDER,
    START,
    open_database,
    world,
)

PAGE = (Path(__file__).parents[3] / "docs/money.md").read_text()
DEPOSIT = 10_000_000
HELD, CHARGED = 487, 231


def says(text: str) -> None:
    assert text in PAGE, text


def usd(micros: int) -> str:
    assert micros % 10_000 == 0
    return f"${micros // 1_000_000}.{micros // 10_000 % 100:02d}"


async def test_the_request_of_the_page_moves_exactly_its_numbers(url: str) -> None:
    clock = FakeClock(START)
    async with world(url, clock=clock) as w:
        s = await staff(w)
        await w.people(0)
        await w.price("page", 65_000, 200_000, cache_read_micros=32_500)
        await s.deposit(CONSUMER, DEPOSIT)
        (held,) = await w.hold(w.order(prompt_bound=1_200, output_bound=2_048))
        assert held.hold.amount_micros == HELD
        says(f"each part rounded down | {HELD} |")

        name = held.request_id
        terminal = w.terminal(name, prompt_tokens=1_200, cached_tokens=200, completion_tokens=800)
        settlement = w.settlement(name, terminal=terminal, opened=(1_200, 800))
        settlement.opened.cached_tokens = 200
        (settled,) = await w.settle(settlement)
        assert (settled.charge_micros, settled.provider_credit_micros) == (CHARGED, CHARGED)
        says(f"per million | {CHARGED} |")
        says(f"the kind of money it came from | {HELD - CHARGED} |")

        mine = await s.view(PROVIDER)
        assert (mine.maturing_micros, mine.earned_micros) == (CHARGED, 0)
        theirs = await s.view(CONSUMER)
        assert theirs.credit_micros == DEPOSIT - CHARGED
        says(f"{DEPOSIT - CHARGED:,} µUSD, is set aside")

        # The dispute of the page, on the same books.
        database = await open_database(url)
        try:
            books = Books(database, clock)
            deposits = await database.run(
                lambda c: c.fetchval("SELECT idem_key FROM ledger.event WHERE kind = 'deposit'")
            )
            payment = deposits.removeprefix("stripe:")
            opened = await books.dispute_open("dp_1", payment, DEPOSIT)
            assert opened.result == {"reserved": DEPOSIT - CHARGED, "held": CHARGED}
            assert (await s.view(PROVIDER)).maturing_micros == 0
            lost = await books.dispute_lost("dp_1")
            assert lost.result == {"lost": CHARGED, "debt": 0}
        finally:
            await database.close()
        says("231 µUSD of yours. The consumer owes 0")
        await w.sound()


def test_what_comes_in_and_goes_out_is_as_the_page_says() -> None:
    line = fee_line(DEPOSIT)
    says(f"{usd(DEPOSIT + line)} is paid, {usd(line)} covers Stripe")
    requests = 43_291
    earned = requests * CHARGED
    says(f"Suppose {requests:,} requests like this one have matured: {earned:,} µUSD")
    for method, label in ((Method.STANDARD, "standard"), (Method.INSTANT, "instant")):
        out = quote(DEPOSIT, method)
        row = next(row for row in PAGE.splitlines() if row.startswith(f"| {label}"))
        assert f" {usd(out.fee_micros)}" in row
        assert f"| {usd(out.net_micros)} |" in row
        assert f"| {earned - DEPOSIT} µUSD |" in row


def test_a_referral_and_a_dispute_of_the_page_are_computed() -> None:
    one = Spend(
        request_id="r",
        referrer_id="a",
        payer_id="b",
        payee_id="c",
        purchased_micros=CHARGED,
        linked=False,
    )
    says(f"({share(one, 5)} µUSD of this request)")
    funded = Funded(request_id="r", account_id="c", overlap=CHARGED, charge=CHARGED, free=CHARGED)
    (held,) = plans.held_by(DEPOSIT, DEPOSIT, [funded])
    assert held.amount == CHARGED
