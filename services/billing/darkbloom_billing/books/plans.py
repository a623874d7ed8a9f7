"""What each command writes, from what is free on its accounts. Pure functions over a draft.

Three ideas recur. Facts at Stripe are always bookable: what the asset account lacks is owed to
Stripe (`_pay`), and what comes in covers that first (`_receive`). Debts are paid before anything
else can be spent (`repay`).
"""

from collections.abc import Sequence

from darkbloom_billing.books.draft import Draft
from darkbloom_billing.books.model import (
    DISPUTED,
    EQUITY,
    EXPENSE,
    OWNER,
    PAYABLE,
    STRIPE,
    Budget,
    FeePayer,
    Funded,
    Lost,
    Pending,
    Plan,
    Share,
    Source,
    Wallet,
    revenue,
)
from darkbloom_billing.errors import (
    AccountFrozenError,
    BudgetExhaustedError,
    InsufficientFundsError,
    OpenBusinessError,
    WithdrawalsStoppedError,
)


def deposit(d: Draft, account_id: str, payment_id: str, amount: int, line: int) -> Plan:
    """Money came in: `amount` for the wallet, `line` for Stripe's fee; debts are paid first."""
    _receive(d, "deposit", Wallet.CREDIT.of(account_id), amount)
    _receive(d, "fee_line", revenue(payment_id), line)
    return d.done(credited=amount, repaid=repay(d, account_id))


def stripe_fee(d: Draft, amount: int, payer: FeePayer) -> Plan:
    """Stripe took a fee; a budget that is empty does not undo the fact."""
    funded = min(amount, d.free(Budget.FEES.path)) if payer is FeePayer.BUDGET else 0
    _pay(d, "stripe_fee", Budget.FEES.path, funded)
    _pay(d, "stripe_fee", EXPENSE, amount - funded)
    return d.done(from_budget=funded, expense=amount - funded)


def refund(d: Draft, account_id: str, payment_id: str, amount: int, line: int) -> Plan:
    """Stripe paid `amount + line` back: from the wallet, then as debt; the line from revenue."""
    credit, shard = Wallet.CREDIT.of(account_id), revenue(payment_id)
    from_credit = min(amount, d.free(credit))
    _pay(d, "refund", credit, from_credit)
    _pay(d, "refund", Wallet.DEBT.of(account_id), amount - from_credit)
    from_line = min(line, d.free(shard))
    _pay(d, "refund", shard, from_line)
    _pay(d, "refund", EXPENSE, line - from_line)
    repay(d, account_id)
    return d.done(from_credit=from_credit, debt=d.free(Wallet.DEBT.of(account_id)))


def stripe_fee_returned(d: Draft, fee_id: str, amount: int) -> Plan:
    """Stripe gave a fee back: less expense, and revenue where there was none."""
    expense = min(amount, d.free(EXPENSE))
    _receive(d, "stripe_fee_return", EXPENSE, expense)
    _receive(d, "fee_line", revenue(fee_id), amount - expense)
    return d.done(returned=amount)


def refund_failed(d: Draft, account_id: str, payment_id: str, amount: int, line: int) -> Plan:
    """A refund came back to us: the money is the account's again, after its debts.

    The line is the platform's again: the consumer who paid it was credited without it.
    """
    _receive(d, "refund_failed", Wallet.CREDIT.of(account_id), amount)
    _receive(d, "fee_line", revenue(payment_id), line)
    return d.done(credited=amount, repaid=repay(d, account_id))


def held_by(amount: int, deposited: int, funded: Sequence[Funded]) -> list[Share]:
    """Return what a dispute of `amount` of a deposit holds of each earning it funded.

    In proportion: of an earning whose charge the deposit paid to a third, a third; of that the
    disputed part of the deposit. Never more than is left of it. Rounded down.
    """
    shares = (
        Share(
            request_id=f.request_id,
            account_id=f.account_id,
            amount=min(f.free, f.overlap * min(amount, deposited) // deposited),
        )
        for f in funded
    )
    return [share for share in shares if share.amount]


def dispute_open(d: Draft, account_id: str, amount: int, shares: Sequence[Share]) -> Plan:
    """Stripe took `amount` until the dispute is decided; we hold what it paid for.

    The wallet's rest is reserved, and the unmatured earnings that the deposit funded are set aside.
    """
    from_asset = min(amount, d.free(STRIPE))
    d.move("dispute_open", DISPUTED, STRIPE, from_asset)
    d.move("dispute_open", DISPUTED, PAYABLE, amount - from_asset)
    credit = Wallet.CREDIT.of(account_id)
    reserved = d.reserve("dispute", credit, DISPUTED, min(amount, d.free(credit)))
    _hold(d, shares)
    return d.done(reserved=reserved, held=sum(share.amount for share in shares))


def dispute_follow(d: Draft, shares: Sequence[Share]) -> Plan:
    """Set aside what was in flight when a dispute opened; nothing is written for nothing."""
    if not shares:
        return d.skip()
    _hold(d, shares)
    return d.done(held=sum(share.amount for share in shares))


def dispute_won(d: Draft, amount: int, pending: Sequence[Pending], shares: Sequence[Share]) -> Plan:
    """Stripe gave the money back: everything is as it was."""
    for transfer in pending:
        d.void(transfer)
    _receive(d, "dispute_won", DISPUTED, amount)
    _release(d, shares)
    return d.done(returned=amount, lost=0)


def dispute_lost(
    d: Draft, account_id: str, amount: int, pending: Sequence[Pending], shares: Sequence[Share]
) -> Plan:
    """The money is gone: from the wallet, then from held earnings, and the rest is owed."""
    credit, debt = Wallet.CREDIT.of(account_id), Wallet.DEBT.of(account_id)
    rest = amount - sum(d.post(transfer) for transfer in pending)
    rest -= d.move("dispute", credit, DISPUTED, min(rest, d.free(credit)))
    taken = _by_account(take(shares, rest), lost=True)
    for payee, lost in taken.items():
        rest -= d.move("dispute", Wallet.DISPUTED.of(payee), DISPUTED, lost)
    _release(d, take(shares, sum(taken.values())))
    d.move("dispute", debt, DISPUTED, rest)
    repay(d, account_id)
    return d.done(lost=sum(taken.values()), debt=d.free(debt))


def dispute_reinstated(d: Draft, account_id: str, amount: int, shares: Sequence[Share]) -> Plan:
    """Money of a lost dispute came back: first to those who had earned it, then to the payer.

    Args:
        d: The draft.
        account_id: Who paid the deposit.
        amount: What came back.
        shares: What payees lost, of which `lost` is given back, by wallet path.
    """
    rest = amount
    for wallet, back in _by_account(shares, lost=True).items():
        rest -= d.move("dispute_reinstated", STRIPE, wallet, back)
    d.move("dispute_reinstated", STRIPE, Wallet.CREDIT.of(account_id), rest)
    _cover(d)
    return d.done(payees=amount - rest, credited=rest, repaid=repay(d, account_id))


def given_back(lost: Sequence[Lost], amount: int) -> list[Share]:
    """Return what each payee gets back of `amount`, under the wallet that it belongs into."""
    shares = [
        Share(
            request_id=each.request_id,
            account_id=(Wallet.EARNED if each.matured else Wallet.MATURING).of(each.account_id),
            amount=each.amount,
        )
        for each in lost
    ]
    return take(shares, amount)


def take(shares: Sequence[Share], amount: int) -> list[Share]:
    """Return shares that lose `amount` together, each in proportion; rounding hits the first ones.

    Where less is held than `amount`, all of it is lost.
    """
    total = sum(share.amount for share in shares)
    amount = min(amount, total)
    if not total:
        return []
    lost = [share.amount * amount // total for share in shares]
    missing = amount - sum(lost)
    for n, share in enumerate(shares):
        if missing and lost[n] < share.amount:
            lost[n] += 1
            missing -= 1
    return [
        Share(
            request_id=share.request_id,
            account_id=share.account_id,
            amount=share.amount,
            lost=part,
        )
        for share, part in zip(shares, lost, strict=True)
    ]


def cover_payable(d: Draft, amount: int, source: Source) -> Plan:
    """Pay what is owed to Stripe.

    Raises:
        InsufficientFundsError: More than is owed, or than the source has.
    """
    _require(amount, min(d.free(PAYABLE), d.free(source.path)), "not so much is owed, or there")
    d.move("cover", PAYABLE, source.path, amount)
    return d.done(payable=d.free(PAYABLE))


def top_up(d: Draft, amount: int) -> Plan:
    """The owner moves capital to Stripe, so that payouts are funded.

    Raises:
        InsufficientFundsError: The owner's account has less.
    """
    _require(amount, d.free(OWNER), "the owner's account has less")
    d.move("move", STRIPE, OWNER, amount)
    _cover(d)
    return d.done(asset=d.free(STRIPE), payable=d.free(PAYABLE))


def fund_equity(d: Draft, amount: int) -> Plan:
    """The owner paid capital in."""
    d.move("funding", OWNER, EQUITY, amount)
    return d.done(equity=d.free(EQUITY))


def fund_budget(d: Draft, budget: Budget, amount: int) -> Plan:
    """Give capital to a programme.

    Raises:
        InsufficientFundsError: Equity has less.
    """
    _require(amount, d.free(EQUITY), "equity has less")
    d.move("funding", EQUITY, budget.path, amount)
    return d.done(budget=d.free(budget.path))


def pay_from(d: Draft, code: str, budget: Budget, account_id: str, amount: int) -> Plan:
    """Pay a `grant`, `reward` or `referral` out of a budget.

    Raises:
        BudgetExhaustedError: The budget has less.
    """
    if d.free(budget.path) < amount:
        raise BudgetExhaustedError.of(budget.value, amount, d.free(budget.path))
    to = {"grant": Wallet.PROMO, "reward": Wallet.EARNED, "referral": Wallet.MATURING}[code]
    d.move(code, budget.path, to.of(account_id), amount)
    repaid = repay(d, account_id)
    return d.done(credited=amount, repaid=repaid, budget=d.free(budget.path))


def withdraw_submit(
    d: Draft,
    account_id: str,
    withdrawal_id: str,
    net: int,
    fee: int,
    *,
    frozen: bool,
    sound: bool,
    leaving: int = 0,
    left: bool = False,
) -> Plan:
    """Reserve a withdrawal: `net` leaves through Stripe, `fee` is ours.

    What has `left` already is a fact, and always bookable (`withdraw_left`). What is `leaving`
    will be owed to Stripe once it arrives: the asset that pays it then is nobody else's.

    Raises:
        AccountFrozenError: It owes, or was frozen.
        WithdrawalsStoppedError: More is or will be owed to Stripe than it holds for us (`payable`),
            a violation of the books is open (`audit`), or what it holds besides is less than `net`
            (`funds`).
        InsufficientFundsError: Not so much is earned and mature.
    """
    if left:
        return withdraw_left(d, account_id, withdrawal_id, net, fee)
    earned = Wallet.EARNED.of(account_id)
    if frozen:
        raise AccountFrozenError.of(d.free(Wallet.DEBT.of(account_id)))
    if d.free(PAYABLE) or leaving > d.free(STRIPE):
        raise WithdrawalsStoppedError.because("payable")
    if not sound:
        raise WithdrawalsStoppedError.because("audit")
    _require(net + fee, d.free(earned), "not so much is withdrawable")
    if d.free(STRIPE) - leaving < net:
        raise WithdrawalsStoppedError.because("funds")
    d.reserve("withdrawal", earned, STRIPE, net)
    d.reserve("fee", earned, revenue(withdrawal_id), fee)
    return d.done(net=net, fee=fee, earned=d.free(earned))


def withdraw_left(d: Draft, account_id: str, withdrawal_id: str, net: int, fee: int) -> Plan:
    """Reserve what Stripe has sent already: what is not earned is owed, and paid from credit first.

    The whole of it is reserved from `earned`, so that it ends like any other: what comes back
    pays the debt. What our asset at Stripe lacks is owed to Stripe.
    """
    earned, debt = Wallet.EARNED.of(account_id), Wallet.DEBT.of(account_id)
    lacks = max(0, net + fee - d.free(earned))
    shortfall = d.move("shortfall", debt, earned, lacks)
    from_asset = min(net, d.free(STRIPE))
    d.reserve("withdrawal", earned, STRIPE, from_asset)
    d.reserve("withdrawal", earned, PAYABLE, net - from_asset)
    d.reserve("fee", earned, revenue(withdrawal_id), fee)
    repay(d, account_id)
    return d.done(net=net, fee=fee, earned=d.free(earned), shortfall=shortfall, debt=d.free(debt))


def withdraw_paid(d: Draft, pending: Sequence[Pending], *, keep_fee: bool) -> Plan:
    """The money arrived; the fee is kept, or given back where its service was not given.

    What was reserved as owed to Stripe is owed from here on, and paid from what came in meanwhile.
    """
    net = fee = 0
    for transfer in pending:
        if transfer.code != "fee":
            net += d.post(transfer)
        elif keep_fee:
            fee += d.post(transfer)
        else:
            d.void(transfer)
    _cover(d)
    return d.done(net=net, fee=fee)


def withdraw_refused(d: Draft, pending: Sequence[Pending]) -> Plan:
    """Stripe proved that nothing will leave: everything is back."""
    for transfer in pending:
        d.void(transfer)
    return d.done(net=0, fee=0)


def withdraw_returned(d: Draft, account_id: str, amount: int) -> Plan:
    """Paid money came back: a correcting transfer, after debts."""
    _receive(d, "return", Wallet.EARNED.of(account_id), amount)
    return d.done(credited=amount, repaid=repay(d, account_id))


def fee_returned(d: Draft, account_id: str, withdrawal_id: str, amount: int) -> Plan:
    """Give the fee of a paid withdrawal back."""
    d.move("return", revenue(withdrawal_id), Wallet.EARNED.of(account_id), amount)
    return d.done(credited=amount, repaid=repay(d, account_id))


def mature(d: Draft, account_id: str, amount: int) -> Plan:
    """Earnings are old enough; debts are paid from them first."""
    if not amount:
        return d.skip()
    d.move("mature", Wallet.MATURING.of(account_id), Wallet.EARNED.of(account_id), amount)
    return d.done(matured=amount, repaid=repay(d, account_id))


def forfeit(d: Draft, account_id: str, *, busy: bool) -> Plan:
    """Empty every wallet of an account that is erased; its debt is written off.

    Raises:
        OpenBusinessError: A hold, a withdrawal or a dispute is open.
    """
    if busy or d.free(Wallet.DISPUTED.of(account_id)):
        raise OpenBusinessError("a hold, withdrawal or dispute is open")
    promo, debt = Wallet.PROMO.of(account_id), Wallet.DEBT.of(account_id)
    forfeited = d.move("forfeit", promo, Budget.PROMO.path, d.free(promo))
    for wallet in (Wallet.CREDIT, Wallet.EARNED, Wallet.MATURING):
        path = wallet.of(account_id)
        forfeited += d.move("forfeit", path, revenue(account_id), d.free(path))
    written_off = d.move("write_off", EXPENSE, debt, d.free(debt))
    return d.done(forfeited=forfeited, written_off=written_off)


def pay_debt(d: Draft, account_id: str) -> Plan:
    """Pay what is owed from what is there; nothing is written where nothing can be paid."""
    repaid = repay(d, account_id)
    return d.done(repaid=repaid) if repaid else d.skip()


def repay(d: Draft, account_id: str) -> int:
    """Pay debt from purchased and from earned money; return how much."""
    debt, repaid = Wallet.DEBT.of(account_id), 0
    for wallet in (Wallet.CREDIT, Wallet.EARNED):
        path = wallet.of(account_id)
        repaid += d.move("repay", path, debt, min(d.free(debt), d.free(path)))
    return repaid


def _receive(d: Draft, code: str, credit: str, amount: int) -> None:
    d.move(code, STRIPE, credit, amount)
    _cover(d)


def _cover(d: Draft) -> None:
    d.move("cover", PAYABLE, STRIPE, min(d.free(PAYABLE), d.free(STRIPE)))


def _pay(d: Draft, code: str, debit: str, amount: int) -> None:
    from_asset = min(amount, d.free(STRIPE))
    d.move(code, debit, STRIPE, from_asset)
    d.move(code, debit, PAYABLE, amount - from_asset)


def _hold(d: Draft, shares: Sequence[Share]) -> None:
    for payee, held in _by_account(shares).items():
        d.move("dispute_open", Wallet.MATURING.of(payee), Wallet.DISPUTED.of(payee), held)


def _release(d: Draft, shares: Sequence[Share]) -> None:
    for payee, held in _by_account(shares).items():
        lost = sum(share.lost for share in shares if share.account_id == payee)
        disputed, maturing = Wallet.DISPUTED.of(payee), Wallet.MATURING.of(payee)
        d.move("dispute_release", disputed, maturing, held - lost)


def _by_account(shares: Sequence[Share], *, lost: bool = False) -> dict[str, int]:
    sums: dict[str, int] = {}
    for share in shares:
        part = share.lost if lost else share.amount
        sums[share.account_id] = sums.get(share.account_id, 0) + part
    return sums


def _require(amount: int, available: int, message: str) -> None:
    if amount > available:
        raise InsufficientFundsError(
            message,
            metadata={
                "darkbloom-required-micros": str(amount),
                "darkbloom-available-micros": str(available),
            },
        )
