"""Fields that the routes of deposits and of payouts share."""

import re
from uuid import uuid4

from darkbloom.billing.v1 import payment_service_pb2 as pb
from fastapi import Request

from darkbloom_gateway.errors import bad_request
from darkbloom_gateway.routes.bodies import Body, text

KEY = re.compile(r"[\x21-\x7e]{1,128}")
_EMAIL = re.compile(r"[\x21-\x7e]{1,200}@[\x21-\x7e]{1,50}")


def request_id(request: Request) -> str:
    """Return the caller's `Idempotency-Key`, or a fresh one.

    Raises:
        ApiError: 400.
    """
    given = request.headers.get("idempotency-key")
    if given is None:
        return f"http-{uuid4().hex}"
    if not KEY.fullmatch(given):
        raise bad_request("idempotency-key has 1 to 128 printable characters")
    return f"key-{given}"


def email_of(body: Body, own: str) -> str:
    """Return the e-mail that Stripe may show, which is optional."""
    given = text(body, "email", default="") or own
    if given and not _EMAIL.fullmatch(given):
        raise bad_request("email is not an address", param="email")
    return given


def word(name: str, prefix: str) -> str:
    """Return an enum's name as HTTP spells it."""
    return name.removeprefix(prefix).lower()


def withdrawal_status(row: pb.Withdrawal) -> str:
    """Return a withdrawal's status as a person reads it."""
    if row.status == pb.WITHDRAWAL_STATUS_MANUAL:
        return "manual_reconciliation_required"
    return word(pb.WithdrawalStatus.Name(row.status), "WITHDRAWAL_STATUS_")
