"""Whether an offer is the answer to what was asked; pure."""

import hmac

import msgspec
from darkbloom_edge.bundle import BundledSigned
from darkbloom_edge.documents import decode_document
from darkbloom_edge.errors import EdgeError, MalformedError, SignatureRejected
from darkbloom_edge.offers import OfferDocument, OfferRequest, verdict_sha256, verify_offer

from darkbloom_client.policy import Policy
from darkbloom_client.refusal import Reason, RefusedError

MAX_OFFER_BYTES = 65_536
SCOPE_BYTES = 32


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """What `POST /v1/offers` answers."""

    offer: BundledSigned
    verdict: BundledSigned
    cache_scope: bytes = b""

    def __repr__(self) -> str:
        return "Offered(<redacted>)"


def read_offered(data: bytes) -> Offered:
    """Read an offer; nothing in it is checked yet.

    Raises:
        RefusedError: it is none.
    """
    try:
        offered = decode_document(data, Offered, max_bytes=MAX_OFFER_BYTES)
    except MalformedError as error:
        raise RefusedError(Reason.OFFER_MALFORMED, expected="an offer", found=str(error)) from None
    if len(offered.cache_scope) > SCOPE_BYTES:
        raise RefusedError(
            Reason.OFFER_MALFORMED, expected="a cache scope of 32 bytes", found="a longer one"
        )

    return offered


def read_promise(offered: Offered) -> OfferDocument | None:
    """Return what an offer says, true or not: enough to decline it; None where it says nothing."""
    try:
        return decode_document(offered.offer.document, OfferDocument)
    except MalformedError:
        return None


def check_offer(
    offered: Offered, asked: OfferRequest, gateway_key: bytes, policy: Policy
) -> OfferDocument:
    """Check an offer against the request for it.

    Args:
        offered: as it came.
        asked: what was asked for.
        gateway_key: the public key of `offered.offer.key_id`, out of pins or log.
        policy: what may be paid.

    Raises:
        RefusedError: not signed, for another nonce or request, or too dear.
    """
    signed = offered.offer
    try:
        offer = verify_offer(
            signed.document, signed.signature, signed.key_id, {signed.key_id: gateway_key}
        )
    except SignatureRejected as error:
        raise RefusedError(
            Reason.OFFER_MALFORMED, expected="the gateway's signature", found=error.reason.value
        ) from None
    except EdgeError as error:
        raise RefusedError(Reason.OFFER_MALFORMED, expected="an offer", found=str(error)) from None
    if not hmac.compare_digest(offer.nonce, asked.nonce):
        raise RefusedError(
            Reason.OFFER_REPLAYED, expected="an offer for our nonce", found="one for another"
        )
    if not hmac.compare_digest(offer.verdict_sha256, verdict_sha256(offered.verdict.document)):
        raise RefusedError(
            Reason.KEY_SWAPPED, expected="the verdict that the offer names", found="another one"
        )
    if offer.requested_model != asked.model:
        raise RefusedError(Reason.BUILD_CHANGED, expected=asked.model, found=offer.requested_model)
    _check_bounds(offer, asked)
    _check_price(offer, policy)

    return offer


def _check_bounds(offer: OfferDocument, asked: OfferRequest) -> None:
    rows = (
        ("prompt bound", offer.prompt_bound == asked.prompt_bound, asked.prompt_bound),
        (
            "output bound",
            asked.output_bound is None or offer.output_bound <= asked.output_bound,
            asked.output_bound,
        ),
        ("body bytes", offer.body_bytes >= asked.body_bytes, asked.body_bytes),
    )
    for name, holds, wanted in rows:
        if not holds:
            raise RefusedError(
                Reason.BOUNDS_CHANGED, expected=f"{name} {wanted}", found="another one"
            )


def _check_price(offer: OfferDocument, policy: Policy) -> None:
    limit, price = policy.max_price, offer.price
    if limit is None:
        return
    # What is held and charged follows from the rates; a gateway may say otherwise.
    most = limit.most(offer.prompt_bound, offer.output_bound)
    hold = most if limit.hold_micros is None else min(most, limit.hold_micros)
    rows = [("hold of", hold, offer.hold_micro_usd)]
    if price is not None:
        rows += [
            ("minimum charge of", limit.minimum_micros, price.minimum_charge_micros),
            ("input price of", limit.input_micros, price.input_micros),
            ("cached price of", limit.input_micros, price.cache_read_micros),
            ("output price of", limit.output_micros, price.output_micros),
        ]
    for name, allowed, found in rows:
        if found > allowed:
            raise RefusedError(
                Reason.PRICE_TOO_HIGH, expected=f"{name} at most {allowed}", found=str(found)
            )
