"""What a webhook says: strict reading of a signed body into the few facts that act. Pure."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from darkbloom_billing.payments.model import EventSource, StripeEvent

MAX_PAYLOAD = 1024 * 1024

ACTING: Mapping[EventSource, frozenset[str]] = {
    EventSource.PAYMENTS: frozenset(
        {
            "checkout.session.completed",
            "checkout.session.expired",
            "checkout.session.async_payment_succeeded",
            "checkout.session.async_payment_failed",
            "payment_intent.succeeded",
            "payment_intent.payment_failed",
            "charge.refunded",
            "refund.failed",
            "charge.dispute.created",
            "charge.dispute.funds_withdrawn",
            "charge.dispute.funds_reinstated",
            "charge.dispute.closed",
        }
    ),
    EventSource.TRANSFERS: frozenset({"transfer.reversed"}),
    EventSource.ACCOUNTS: frozenset(
        {"account.updated", "payout.paid", "payout.failed", "payout.canceled"}
    ),
}
"""Kinds that change something here; others are taken and forgotten."""
_MAX_ID = 255
_REFERENCES = ("charge", "payment_intent")


def read(payload: bytes) -> StripeEvent | None:
    """Return what a body says; None: it is no event of Stripe's first API.

    The hash leaves `pending_webhooks` out, which differs between deliveries of one event.
    """
    try:
        body = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict) or body.get("object") != "event":
        return None
    data = body.get("data")
    subject = data.get("object") if isinstance(data, dict) else None
    created = body.get("created")
    if not isinstance(subject, dict) or not isinstance(created, int) or created < 0:
        return None
    ids = (_id(body.get("id")), _id(body.get("type")), _id(subject.get("id")))
    if not all(ids):
        return None
    stable = {name: value for name, value in body.items() if name != "pending_webhooks"}
    try:
        happened_at = datetime.fromtimestamp(created, UTC)
        canonical = json.dumps(stable, sort_keys=True).encode()
    except (OverflowError, ValueError, RecursionError):
        return None
    return StripeEvent(
        event_id=ids[0],
        kind=ids[1],
        object_id=ids[2],
        stripe_account=_id(body.get("account")),
        facts=_facts(subject),
        payload_hash=hashlib.sha256(canonical).digest(),
        happened_at=happened_at,
    )


def _facts(subject: Mapping[str, Any]) -> dict[str, str]:
    facts = {name: found for name in _REFERENCES if (found := _id(subject.get(name)))}
    metadata = subject.get("metadata")
    if isinstance(metadata, dict) and (ours := _id(metadata.get("billing_session_id"))):
        facts["session"] = ours
    return facts


def _id(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= _MAX_ID else ""
