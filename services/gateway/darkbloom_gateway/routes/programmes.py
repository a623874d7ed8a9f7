"""What the routes of invites, referrals and operators share: refusals in HTTP's words."""

from collections.abc import Awaitable
from typing import TypeVar

from darkbloom.common.v1.error_reason_pb2 import ErrorReason
from darkbloom_mesh.errors import (
    ConflictError,
    InvalidArgumentError,
    MeshError,
    NotFoundError,
    PreconditionError,
)

from darkbloom_gateway.errors import ApiError, bad_request, unavailable

REFUSAL_KEY = "darkbloom-refusal"
_FIELDS = {
    "amount_micros": "amount_usd",
    "expire_time": "expires_at",
    "account_id": "email",
    "platform_fee_percent": "fee_percent",
}
_OURS = (ErrorReason.ERROR_REASON_PROGRAMME_REFUSED, ErrorReason.ERROR_REASON_OPERATOR_REFUSED)
T = TypeVar("T")


async def asked(call: Awaitable[T], *, missing: ApiError, kind: str = "") -> T:
    """Await billing and say its refusals to the caller.

    Args:
        call: of billing.
        missing: what an unknown thing is answered with.
        kind: `type` of refusals; empty: `invalid_request_error`.

    Raises:
        ApiError: 400 for refusals and fields, 404, 409 for a key used twice, 503.
    """
    kind = kind or "invalid_request_error"
    try:
        return await call
    except InvalidArgumentError as error:
        field = _FIELDS.get(error.field or "", error.field)
        raise ApiError(400, kind, error.message, param=field) from None
    except NotFoundError:
        raise missing from None
    except ConflictError as error:
        raise ApiError(409, "conflict", error.message) from None
    except PreconditionError as error:
        if error.reason not in _OURS:
            raise bad_request(error.message) from None
        code = None if kind == "referral_error" else error.metadata.get(REFUSAL_KEY)
        raise ApiError(400, kind, error.message, code=code) from None
    except ApiError:
        raise
    except MeshError:
        raise unavailable() from None
