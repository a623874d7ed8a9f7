"""What is settled is what was published: to the micro-USD, for every mix of tokens and owners."""

from datetime import UTC, datetime, timedelta

import pytest
from darkbloom_billing.model import (
    HoldFacts,
    Opened,
    PriceRow,
    PriceVersion,
    Settlement,
    Signed,
)
from darkbloom_billing.pricing import (
    MAX_TOKENS,
    PriceBook,
    affordable_tokens,
    fallback,
    too_high,
    wholesale,
    worst_case,
)
from darkbloom_billing.settlement import Evidence, RejectedError, judge
from darkbloom_edge.documents import rfc3339
from darkbloom_edge.ids import id_text
from darkbloom_edge.signatures import P256Signer, parse_p256_public, to_base64
from darkbloom_edge.terminal import Terminal, sign_terminal
from darkbloom_edge.transcript import Digests
from darkbloom_edge.verdict import Verdict
from hypothesis import given, settings
from hypothesis import strategies as st

NOW = datetime(2026, 5, 1, tzinfo=UTC)
BUILD, PAYER, PAYEE = "b", "acct_payer", "acct_payee"
MACHINE = P256Signer.generate()
K = to_base64(b"k" * 32)
_HEX = "0" * 64
rates = st.integers(1, 10_000_000)
rows = st.builds(
    lambda inp, out, share, account: PriceRow(
        price_id=f"price_{account}",
        build=BUILD,
        input_micros=inp,
        output_micros=out,
        cache_read_micros=inp * share // 100,
        minimum_charge_micros=100,
        account_id=account,
    ),
    rates,
    rates,
    st.integers(0, 100),
    st.sampled_from(["", PAYEE]),
)
tokens = st.integers(0, 200_000)


def hold(*prices: PriceRow, payer: str = PAYER) -> HoldFacts:
    amounts = [worst_case(row, prompt_bound=200_000, output_bound=200_000) for row in prices]
    return HoldFacts(
        account_id=payer,
        build=BUILD,
        prompt_bound=200_000,
        output_bound=200_000,
        prices=prices,
        amount_micros=max(amounts),
        held_at=NOW,
        payee=PAYEE,
        resolved=False,
    )


def evidence(
    prompt: int, cached: int, completion: int, *, price_id: str, ended: bool = True
) -> Evidence:
    """A settlement of these counts, by terminal or after a break."""
    verdict = Verdict(
        verdict_id=id_text("ver", b"v" * 16),
        provider_id=id_text("prov", b"p" * 16),
        identity_key=MACHINE.public_text,
        encryption_key=K,
        trust_level="hardware",
        admission="public",
        evidence=[],
        code_release="sha256:x",
        issued_at=rfc3339(NOW - timedelta(minutes=1)),
        expires_at=rfc3339(NOW + timedelta(minutes=14)),
    )
    request, attempt = id_text("req", b"r" * 16), id_text("att", b"a" * 16)
    terminal = Terminal(
        request_id=request,
        attempt_id=attempt,
        build=BUILD,
        weight_hash="w",
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        reasoning_tokens=0,
        chunks=1,
        finish_reason="stop",
        encryption_key=K,
        verdict_id=verdict.verdict_id,
        sealed_to=1,
        digests=Digests(request=_HEX, content=_HEX, reasoning=_HEX, tool_calls=()),
        outcome="completed",
    )
    document, signature = sign_terminal(terminal, MACHINE)
    signed = Signed(document=document, signature=signature, key_id="")
    return Evidence(
        settlement=Settlement(
            request_id=request,
            attempt_id=attempt,
            verdict=Signed(document=b"", signature=b"", key_id=""),
            terminal=signed if ended else None,
            opened=Opened(
                frames=1, prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached
            ),
            price_id=price_id,
        ),
        verdict=verdict,
        identity_key=parse_p256_public(MACHINE.public),
    )


def charged(found: Evidence, held: HoldFacts, book: PriceBook | None = None) -> int:
    return judge(found, held, book=book or PriceBook(), development=False, now=NOW).charge_micros


def published(row: PriceRow, prompt: int, cached: int, completion: int) -> int:
    """The formula as a consumer reads it: each term floored, at least the minimum."""
    terms = (
        (prompt - cached) * row.input_micros // 10**6,
        cached * row.cache_read_micros // 10**6,
        completion * row.output_micros // 10**6,
    )
    return max(sum(terms), row.minimum_charge_micros)


@settings(deadline=None, max_examples=60)
@given(rows, tokens, tokens, st.integers(1, 200_000), st.booleans())
def test_a_settled_cost_is_the_published_formula(
    row: PriceRow, prompt: int, cached: int, completion: int, ended: bool
) -> None:
    cached = min(cached, prompt)
    found = evidence(prompt, cached, completion, price_id=row.price_id, ended=ended)
    assert charged(found, hold(row)) == published(row, prompt, cached, completion)


@settings(deadline=None, max_examples=30)
@given(rows, rows, st.integers(1, 1000))
def test_a_price_that_changes_meanwhile_is_not_the_settled_one(
    held: PriceRow, later: PriceRow, completion: int
) -> None:
    later_version = PriceVersion(row=later, effective_at=NOW, sequence=1)
    found = evidence(10, 0, completion, price_id="")
    assert charged(found, hold(held), PriceBook([later_version])) == published(
        held, 10, 0, completion
    )


@settings(deadline=None, max_examples=30)
@given(rows, st.integers(1, 200_000), st.integers(0, 10))
def test_a_service_account_pays_the_formula_without_the_minimum(
    row: PriceRow, completion: int, prompt: int
) -> None:
    found = evidence(prompt, 0, completion, price_id="price_of_anybody")
    raw = prompt * row.input_micros // 10**6 + completion * row.output_micros // 10**6
    assert charged(found, hold(wholesale(row))) == max(raw, 1)


def test_a_row_of_a_third_party_never_settles() -> None:
    row = PriceRow(
        price_id="theirs",
        build=BUILD,
        input_micros=1,
        output_micros=1,
        cache_read_micros=0,
        minimum_charge_micros=100,
        account_id="acct_third",
    )
    with pytest.raises(RejectedError) as caught:
        charged(evidence(1, 0, 1, price_id="theirs"), hold(fallback(BUILD), row))
    assert caught.value.rejection.value == "price"


@given(rows, st.integers(1, 200_000), st.integers(0, 10**9))
def test_an_affordable_bound_is_affordable_and_one_more_is_not(
    row: PriceRow, prompt: int, available: int
) -> None:
    most = affordable_tokens(row, prompt_bound=prompt, available_micros=available)
    if most:
        assert worst_case(row, prompt_bound=prompt, output_bound=most) <= available
    if most < MAX_TOKENS:
        assert worst_case(row, prompt_bound=prompt, output_bound=most + 1) > available


@given(rows, rows)
def test_an_own_row_is_in_force_exactly_while_it_keeps_to_the_limit(
    own: PriceRow, platform: PriceRow
) -> None:
    own = PriceRow(**{**_fields(own), "price_id": "own", "account_id": PAYEE})
    platform = PriceRow(**{**_fields(platform), "price_id": "platform", "account_id": ""})
    book = PriceBook(
        [
            PriceVersion(row=platform, effective_at=NOW - timedelta(hours=1), sequence=1),
            PriceVersion(row=own, effective_at=NOW - timedelta(hours=1), sequence=2),
        ]
    )
    kept = all(
        _fields(own)[rate] <= 4 * _fields(platform)[rate]
        for rate in ("input_micros", "output_micros", "cache_read_micros")
    )
    assert (book.own(PAYEE, BUILD, NOW) == own) == kept == (too_high(own, platform) is None)
    assert book.in_force(BUILD, NOW) == platform
    assert (book.offered("own", BUILD, since=NOW, until=NOW) == own) == kept


def _fields(row: PriceRow) -> dict[str, int]:
    return {name: getattr(row, name) for name in PriceRow.__dataclass_fields__}
