from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from darkbloom_edge.answers import MAX_ANSWER_BYTES
from darkbloom_edge.delta import Delta, encode
from darkbloom_edge.documents import rfc3339
from darkbloom_edge.envelope import ProviderSession, SenderKeyMemory, new_key_pair
from darkbloom_edge.ids import new_id
from darkbloom_edge.signatures import Ed25519Signer, P256Signer, to_base64
from darkbloom_edge.verdict import Verdict, sign_verdict
from darkbloom_gateway.attempt import Attempt
from darkbloom_gateway.errors import ViolationError, ViolationFault
from darkbloom_gateway.model import Offer, ProviderFacts, SignedBytes
from darkbloom_gateway.verdicts import VerdictDesk, VerdictFault, VerdictRefusedError
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SIGNER = Ed25519Signer.generate()
IDENTITY = P256Signer.generate()
K = new_key_pair()


def offer(**changes: object) -> Offer:
    provider_id = new_id("prov")
    verdict = Verdict(
        verdict_id=new_id("ver"),
        provider_id=provider_id,
        identity_key=to_base64(IDENTITY.public),
        encryption_key=to_base64(K.public),
        trust_level="hardware",
        admission="public",
        evidence=[],
        code_release="sha256:0",
        issued_at=rfc3339(NOW),
        expires_at=rfc3339(NOW + timedelta(minutes=10)),
    )
    document, signature = sign_verdict(msgspec.structs.replace(verdict, **changes), SIGNER)
    return Offer(
        attempt_id=new_id("att"),
        stream=1 << 63,
        verdict=SignedBytes(document, signature, SIGNER.key_id),
        price=None,
        build="b",
        provider_id=provider_id,
        facts=ProviderFacts(),
        hedge=False,
        scripted=False,
    )


def desk(**changes: object) -> VerdictDesk:
    made = VerdictDesk(**{"floor": "hardware", "development": False, **changes})  # type: ignore[arg-type]
    made.pin({SIGNER.key_id: SIGNER.public})
    return made


def refused(made: VerdictDesk, given_offer: Offer, now: datetime = NOW) -> VerdictFault:
    with pytest.raises(VerdictRefusedError) as caught:
        made.check(given_offer, now)
    return caught.value.fault


def test_a_good_verdict_gives_its_keys() -> None:
    checked = desk().check(offer(), NOW)

    assert (checked.encryption_key, checked.identity_key) == (K.public, IDENTITY.public)


def test_a_verdict_is_refused_for_each_reason() -> None:
    development = {"trust_level": "none", "admission": "development"}
    assert refused(desk(), offer(), NOW + timedelta(minutes=10)) is VerdictFault.EXPIRED
    assert refused(desk(), offer(trust_level="self_signed")) is VerdictFault.BELOW_FLOOR
    assert refused(desk(), offer(admission="owner")) is VerdictFault.NOT_ADMITTED
    assert refused(desk(), offer(**development)) is VerdictFault.NOT_ADMITTED
    assert refused(desk(), offer(provider_id=new_id("prov"))) is VerdictFault.OTHER_PROVIDER
    assert refused(VerdictDesk(floor="none", development=True), offer()) is VerdictFault.UNKNOWN_KEY
    assert desk(development=True).check(offer(**development), NOW)


def test_a_cached_verdict_still_expires_and_a_swapped_signature_is_noticed() -> None:
    made, given_offer = desk(), offer()
    made.check(given_offer, NOW)

    assert refused(made, given_offer, NOW + timedelta(minutes=10)) is VerdictFault.EXPIRED
    swapped = SignedBytes(given_offer.verdict.document, b"\0" * 64, SIGNER.key_id)
    assert refused(made, msgspec_replace(given_offer, swapped)) is VerdictFault.INVALID


def msgspec_replace(given_offer: Offer, signed: SignedBytes) -> Offer:
    from dataclasses import replace

    return replace(given_offer, verdict=signed)


def test_keys_that_are_unpinned_take_their_verdicts_along() -> None:
    made, given_offer = desk(), offer()
    made.check(given_offer, NOW)
    made.pin({})

    assert refused(made, given_offer) is VerdictFault.UNKNOWN_KEY


def pair(max_bytes: int = MAX_ANSWER_BYTES) -> tuple[Attempt, ProviderSession]:
    given_offer, request_id = offer(), new_id("req")
    attempt = Attempt(
        given_offer,
        desk().check(given_offer, NOW),
        request_id=request_id,
        prompt_bound=100,
        output_bound=50,
        sealed_to=1,
        randomness=bytes(64),
        max_bytes=max_bytes,
    )
    payload = attempt.seal(b"{}", b"body", not_after_ms=10_000)
    opened = ProviderSession.open_request(
        key_pair=K,
        sender_key=attempt.sender_key,
        request_id=request_id,
        attempt_id=given_offer.attempt_id,
        payload=payload,
        now_ms=0,
        memory=SenderKeyMemory(),
    )
    return attempt, opened.session


def fault(attempt: Attempt, payload: bytes, tokens: int, *, final: bool = False) -> ViolationFault:
    with pytest.raises(ViolationError) as caught:
        attempt.open(payload, tokens, final=final)
    return caught.value.fault


def test_counts_that_rise_within_bounds_are_opened() -> None:
    attempt, provider = pair()
    for count in (1, 2):
        delta = Delta(text="x", prompt_tokens=7, completion_tokens=count)
        attempt.open(provider.seal_chunk(encode(delta)), count, final=False)

    assert (attempt.opened.frames, attempt.opened.completion_tokens) == (2, 2)


@pytest.mark.parametrize(
    ("delta", "tokens"),
    [
        (Delta(text="x", completion_tokens=2), 1),
        (Delta(text="x", prompt_tokens=101, completion_tokens=1), 1),
        (Delta(text="x" * 100, completion_tokens=51), 51),
    ],
)
def test_counts_that_cannot_be_true_are_a_violation(delta: Delta, tokens: int) -> None:
    attempt, provider = pair()

    assert fault(attempt, provider.seal_chunk(encode(delta)), tokens) is ViolationFault.COUNTS
    assert attempt.opened.frames == 0


def test_counts_that_fall_are_a_violation() -> None:
    attempt, provider = pair()
    first, second = Delta(text="x", completion_tokens=5), Delta(text="y", completion_tokens=4)
    attempt.open(provider.seal_chunk(encode(first)), 5, final=False)

    assert fault(attempt, provider.seal_chunk(encode(second)), 4) is ViolationFault.COUNTS


def test_an_answer_of_more_bytes_than_any_may_have_is_a_violation() -> None:
    said = encode(Delta(text="x" * 100, completion_tokens=1))
    attempt, provider = pair(max_bytes=2 * len(said))
    for _ in range(2):
        attempt.open(provider.seal_chunk(said), 1, final=False)

    assert fault(attempt, provider.seal_chunk(said), 1) is ViolationFault.DELTA
    assert attempt.opened.frames == 2


def test_boxes_out_of_order_and_wrong_ends_are_violations() -> None:
    attempt, provider = pair()
    one, two = (provider.seal_chunk(encode(Delta(text="x"))) for _ in range(2))
    assert fault(attempt, two, 0) is ViolationFault.UNOPENABLE
    assert fault(attempt, one, 0) is ViolationFault.UNOPENABLE

    attempt, provider = pair()
    box = provider.seal_chunk(encode(Delta(finish_reason="stop")), final=True)
    assert fault(attempt, box, 0, final=False) is ViolationFault.HEADER

    attempt, provider = pair()
    box = provider.seal_chunk(encode(Delta(text="x")), final=True)
    assert fault(attempt, box, 0, final=True) is ViolationFault.DELTA

    attempt, provider = pair()
    assert fault(attempt, provider.seal_chunk(b"\xc1"), 0) is ViolationFault.DELTA


@given(st.binary(max_size=300), st.integers(0, 2**32 - 1), st.booleans())
def test_any_bytes_open_or_are_a_violation(payload: bytes, tokens: int, final: bool) -> None:
    attempt, _ = pair()

    with pytest.raises(ViolationError):
        attempt.open(payload, tokens, final=final)
    assert attempt.opened.frames == 0


def test_nothing_about_an_attempt_shows_its_keys() -> None:
    attempt, _ = pair()

    assert "redacted" in repr(attempt)
    assert repr(bytes(32)) not in repr(attempt)
