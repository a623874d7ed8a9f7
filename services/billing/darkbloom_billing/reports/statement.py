"""Postings of the ledger in the words of a bank statement. Pure.

An entry says how what a wallet has free has changed, so the sum over all entries of an account is
its money: a hold takes, its end gives back what was not charged, and the charged part shows as
settled.
"""

from collections.abc import Mapping

from darkbloom_billing.reports.model import Movement, StatementEntry

DEBT = "debt"
"""The wallet that counts what is owed, so its entries have the other sign."""
_BY_CODE: Mapping[str, str] = {
    "payout": "payout",
    "grant": "admin_credit",
    "reward": "admin_reward",
    "referral": "referral_reward",
    "deposit": "stripe_deposit",
    "repay": "debt_repayment",
    "refund": "stripe_refund",
    "refund_failed": "refund",
    "dispute_open": "dispute_hold",
    "dispute": "dispute_loss",
    "withdrawal": "stripe_payout",
    "shortfall": "payout_shortfall",
    "fee": "withdrawal_fee",
    "return": "refund",
    "mature": "maturation",
    "forfeit": "erasure_forfeit",
}
_BY_REFERENCE: Mapping[str, str] = {
    "invite": "invite_credit",
    "referral": "referral_reward",
    "admin_credit": "admin_credit",
    "admin_reward": "admin_reward",
}
_OF_REQUESTS = ("hold", "resolve")


def entry(movement: Movement) -> StatementEntry:
    """Return one movement in public words."""
    owed = movement.wallet == DEBT
    free = movement.credits - movement.debits - movement.pending_debits
    held = movement.pending_debits
    if owed:
        free = movement.debits - movement.credits - movement.pending_credits
        held = movement.pending_credits
    return StatementEntry(
        entry_id=f"{movement.transfer_id}{'d' if movement.debit else 'c'}",
        type=_type(movement),
        wallet=movement.wallet,
        amount_micros=_change(movement, increases=movement.debit == owed),
        free_micros=free,
        held_micros=held,
        settled_micros=movement.amount if movement.mode == "post" else 0,
        reference=_reference(movement),
        occurred_at=movement.occurred_at,
    )


def _change(movement: Movement, *, increases: bool) -> int:
    """Return by how much what is free has changed; what is pending to come is not free yet."""
    if increases:
        return movement.amount if movement.mode in ("single", "post") else 0
    match movement.mode:
        case "single" | "pending":
            return -movement.amount
        case "post":
            return movement.pending_amount - movement.amount
        case _:
            return movement.pending_amount


def _type(movement: Movement) -> str:
    back = movement.mode in ("post", "void") and movement.debit
    if movement.code == "hold":
        whole = movement.mode == "post" and movement.amount == movement.pending_amount
        # Where nothing comes back, an end is no refund of nothing.
        return "settlement" if whole else "refund" if back else "charge"
    if back and movement.mode == "void":
        return "refund"
    prefix = movement.idem_key.partition(":")[0]
    return _BY_REFERENCE.get(prefix) or _BY_CODE.get(movement.code, movement.code)


def _reference(movement: Movement) -> str:
    """Return the request, or the key of the event; a payer's dispute is no business of a payee."""
    prefix, _, rest = movement.idem_key.partition(":")
    if prefix in _OF_REQUESTS:
        return rest.partition(":")[0]
    if "dispute" in movement.code and movement.wallet in ("maturing", "disputed", "earned"):
        return ""
    return movement.idem_key
