"""Judging a settlement: what was signed and opened, against what was held. Pure.

The router that hands a settlement in is not trusted: it names no amount and no payee, and whatever
it invents is refused or changes nothing. Charged is the smaller of what the provider signed and
what the edge opened; after a break, what the edge opened. A refusal leaves the hold standing.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from darkbloom_edge.errors import EdgeError, SignatureRejected
from darkbloom_edge.ids import id_bytes
from darkbloom_edge.signatures import from_base64, parse_p256_public
from darkbloom_edge.terminal import Terminal, verify_terminal
from darkbloom_edge.verdict import MAX_SKEW, Verdict, lifetime_of, read_verdict

from darkbloom_billing.model import (
    End,
    EndKind,
    HoldFacts,
    Opened,
    PriceRow,
    Rejection,
    Settlement,
    Signed,
    SigningKey,
)
from darkbloom_billing.pricing import PriceBook, cost, is_wholesale, worst_case

_VERDICTS_KEPT = 4096
_OUTCOMES: Mapping[str, str] = {
    "completed": "completed",
    "cancelled": "cancelled",
    "error": "broken",
}


class RejectedError(Exception):
    """The settlement does not count."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(f"settlement rejected, {rejection.value}")
        self.rejection = rejection


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A settlement whose verdict is signed by attestation; nothing else is checked yet."""

    settlement: Settlement
    verdict: Verdict
    identity_key: bytes
    """P-256 point, 65 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Tokens that are paid for."""

    prompt: int
    cached: int
    completion: int


def open_evidence(settlement: Settlement, keys: Mapping[str, SigningKey]) -> Evidence:
    """Check the form of the ids and attestation's signature on the verdict.

    Raises:
        RejectedError: `ids` or `verdict_signature`.
    """
    try:
        id_bytes(settlement.request_id, "req")
        id_bytes(settlement.attempt_id, "att")
    except EdgeError:
        raise RejectedError(Rejection.IDS) from None

    key = keys.get(settlement.verdict.key_id)
    if key is None:
        raise RejectedError(Rejection.VERDICT_SIGNATURE)
    try:
        verdict, identity_key, issued = _open_verdict(settlement.verdict, key.public)
    except EdgeError:
        raise RejectedError(Rejection.VERDICT_SIGNATURE) from None

    # A key that was retired, perhaps because it leaked, signs nothing new.
    if key.retired_at is not None and issued > key.retired_at + MAX_SKEW:
        raise RejectedError(Rejection.VERDICT_SIGNATURE)
    return Evidence(settlement=settlement, verdict=verdict, identity_key=identity_key)


def judge(
    evidence: Evidence, hold: HoldFacts, *, book: PriceBook, development: bool, now: datetime
) -> End:
    """Return the end that a settlement gives its hold.

    Nothing delivered ends in a release; a machine that served its own account costs nothing and
    earns nothing.

    Raises:
        RejectedError: A check failed.
    """
    settlement, verdict = evidence.settlement, evidence.verdict
    _check_time(verdict, hold, now)
    if hold.payee is None:
        raise RejectedError(Rejection.UNLINKED)
    _check_admission(verdict, hold, development=development)
    terminal = _open_terminal(evidence, hold)
    if terminal is not None and terminal.build != hold.build:
        price = _fallback_price(terminal.build, hold, book)
    else:
        price = _price(settlement, hold, book, now)

    counts = _counts(settlement.opened, terminal, hold)
    if counts.completion == 0:
        return release(settlement.request_id)
    own = hold.payee == hold.account_id
    charge = (
        0
        if own
        else cost(price, prompt=counts.prompt, cached=counts.cached, completion=counts.completion)
    )
    if charge > hold.amount_micros:
        raise RejectedError(Rejection.PRICE)

    return End(
        request_id=settlement.request_id,
        kind=EndKind.SETTLE,
        charge_micros=charge,
        payee="" if own else hold.payee,
        body_hash=settlement_hash(settlement),
        body={
            "attempt_id": settlement.attempt_id,
            "verdict_id": verdict.verdict_id,
            "identity_key": evidence.identity_key.hex(),
            "payee": hold.payee,
            "price_id": price.price_id,
            "build": terminal.build if terminal is not None else hold.build,
            "prompt_tokens": counts.prompt,
            "cached_tokens": counts.cached,
            "completion_tokens": counts.completion,
            "outcome": "broken" if terminal is None else _OUTCOMES[terminal.outcome],
            "terminal_sha256": _terminal_hash(settlement),
        },
    )


def replay(settlement: Settlement) -> End:
    """Return what asks the ledger how a hold that has ended compares; it moves nothing."""
    return End(
        request_id=settlement.request_id,
        kind=EndKind.SETTLE,
        charge_micros=0,
        payee="",
        body_hash=settlement_hash(settlement),
        body={},
    )


def release(request_id: str, kind: EndKind = EndKind.RELEASE, reason: str = "") -> End:
    """Return the end without a charge; all of them are the same end to the ledger."""
    return End(
        request_id=request_id,
        kind=kind,
        charge_micros=0,
        payee="",
        body_hash=hashlib.sha256(b"released").digest(),
        body={"reason": reason} if reason else {},
    )


def settlement_hash(settlement: Settlement) -> bytes:
    """Return what makes two settlements of a request the same one.

    With a terminal it is the terminal: a router that crashed and is sent the terminal again may
    not know the last `opened` any more. Without one it is what was opened.
    """
    opened = settlement.opened
    parts = (
        (settlement.attempt_id, "terminal", _terminal_hash(settlement))
        if settlement.terminal is not None
        else (
            settlement.attempt_id,
            "opened",
            f"{opened.prompt_tokens} {opened.cached_tokens} {opened.completion_tokens}",
        )
    )
    return hashlib.sha256("\n".join(parts).encode()).digest()


@lru_cache(maxsize=_VERDICTS_KEPT)
def _open_verdict(signed: Signed, public: bytes) -> tuple[Verdict, bytes, datetime]:
    """Read a verdict: (verdict, identity key, time of issue).

    One verdict backs every request of a provider for minutes; its bytes are checked once.
    """
    keys = {signed.key_id: public}
    verdict = read_verdict(signed.document, signed.signature, signed.key_id, keys)
    issued, _ = lifetime_of(verdict)
    return verdict, parse_p256_public(verdict.identity_key), issued


def _check_time(verdict: Verdict, hold: HoldFacts, now: datetime) -> None:
    """The verdict was in force at some time in the life of the hold.

    It is allowed to have expired since: the offer was good when the edge sealed to it, and an
    answer may take longer than a verdict lives.
    """
    issued, expires = lifetime_of(verdict)
    if issued > now + MAX_SKEW or expires < hold.held_at:
        raise RejectedError(Rejection.VERDICT_EXPIRED)


def _check_admission(verdict: Verdict, hold: HoldFacts, *, development: bool) -> None:
    allowed = {
        "public": True,
        "owner": hold.payee == hold.account_id,
        "development": development,
    }
    if not allowed[verdict.admission]:
        raise RejectedError(Rejection.ADMISSION)


def _open_terminal(evidence: Evidence, hold: HoldFacts) -> Terminal | None:
    settlement, verdict = evidence.settlement, evidence.verdict
    signed = settlement.terminal
    if signed is None:
        return None
    try:
        terminal = verify_terminal(signed.document, signed.signature, evidence.identity_key)
    except SignatureRejected:
        raise RejectedError(Rejection.TERMINAL_SIGNATURE) from None

    same = (
        terminal.request_id == settlement.request_id
        and terminal.attempt_id == settlement.attempt_id
        and terminal.verdict_id == verdict.verdict_id
        and from_base64(terminal.encryption_key) == from_base64(verdict.encryption_key)
        and terminal.build in (hold.build, hold.fallback_build or hold.build)
    )
    if not same:
        raise RejectedError(Rejection.IDS)
    if terminal.prompt_tokens > hold.prompt_bound or terminal.completion_tokens > hold.output_bound:
        raise RejectedError(Rejection.BOUNDS)
    return terminal


def _price(settlement: Settlement, hold: HoldFacts, book: PriceBook, now: datetime) -> PriceRow:
    """Return the row of the winner's offer: a snapshot of the hold, or one offered meanwhile.

    It is the platform's or the payee's: a router can choose among honest prices only. Where the
    offer named none it is the hold's own, and so it is for a service account in any case.
    """
    if not settlement.price_id or is_wholesale(hold.prices[0]):
        return hold.prices[0]
    snapshots = {row.price_id: row for row in hold.prices}
    row = snapshots.get(settlement.price_id)
    if row is None:
        row = book.offered(settlement.price_id, hold.build, since=hold.held_at, until=now)
        if row is None or hold.amount_micros < worst_case(
            row, prompt_bound=hold.prompt_bound, output_bound=hold.output_bound
        ):
            raise RejectedError(Rejection.PRICE)
    if row.account_id not in ("", hold.payee):
        raise RejectedError(Rejection.PRICE)
    return row


def _fallback_price(build: str, hold: HoldFacts, book: PriceBook) -> PriceRow:
    """Return the platform's row of the build that served instead, where the hold covers it."""
    row = book.for_payer(hold.account_id, build, hold.held_at)
    needed = worst_case(row, prompt_bound=hold.prompt_bound, output_bound=hold.output_bound)
    return row if needed <= hold.amount_micros else hold.prices[0]


def _counts(opened: Opened, terminal: Terminal | None, hold: HoldFacts) -> Counts:
    prompt = min(opened.prompt_tokens, hold.prompt_bound)
    cached = opened.cached_tokens
    completion = min(opened.completion_tokens, hold.output_bound)
    if terminal is not None:
        prompt = min(prompt, terminal.prompt_tokens)
        # Cached tokens lower a charge, so here the smaller number is no safe one: the signed number
        # stands, which the edge has compared with its own.
        cached = terminal.cached_tokens
        completion = min(completion, terminal.completion_tokens)
    return Counts(prompt=prompt, cached=max(0, min(cached, prompt)), completion=completion)


def _terminal_hash(settlement: Settlement) -> str:
    terminal = settlement.terminal
    return "" if terminal is None else hashlib.sha256(terminal.document).hexdigest()
