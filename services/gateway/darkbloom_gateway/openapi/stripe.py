"""Money in and out through Stripe: deposits, Stripe's own calls, payouts."""

from collections.abc import Mapping

from darkbloom_edge.dialects.schemas.parts import (
    BOOLEAN,
    COUNT,
    STRING,
    array,
    const,
    nullable,
    obj,
    ref,
    said,
    text,
    words,
)

from darkbloom_gateway.openapi.amounts import (
    DOLLARS,
    MICROS,
    TOKEN,
    USD,
)
from darkbloom_gateway.openapi.operation import (
    BINARY,
    BYTES,
    IDEMPOTENCY,
    JSON,
    Access,
    Body,
    Key,
    Limit,
    Operation,
    answer,
    json_body,
)
from darkbloom_gateway.openapi.people import TIME

_DEPOSITS: Mapping[Key, Operation] = {
    ("GET", "/v1/billing/methods"): Operation(
        tag="Deposits",
        access=Access.NOBODY_ASKED,
        answers=answer(
            obj(
                {
                    "methods": array(
                        obj(
                            {
                                "method": STRING,
                                "display_name": STRING,
                                "currencies": array(STRING),
                            }
                        )
                    ),
                    "min_deposit_micro_usd": COUNT,
                    "fee_line": BOOLEAN,
                }
            )
        ),
    ),
    ("POST", "/v1/billing/stripe/create-session"): Operation(
        tag="Deposits",
        access=Access.USER,
        limit=Limit.FINANCIAL,
        headers=IDEMPOTENCY,
        body=json_body(
            obj(
                {"amount_usd": said(DOLLARS, "at least 0.50")},
                {
                    "email": nullable(STRING),
                    "referral_code": nullable(text(maxLength=200)),
                    "save_card": BOOLEAN,
                },
            )
        ),
        answers=answer(
            obj(
                {
                    "session_id": STRING,
                    "stripe_session": STRING,
                    "url": STRING,
                    "amount_usd": USD,
                    "amount_micro_usd": MICROS,
                    "fee_usd": USD,
                    "total_usd": USD,
                }
            )
        ),
        refusals=(404, 409, 502),
    ),
    ("GET", "/v1/billing/stripe/session"): Operation(
        tag="Deposits",
        access=Access.USER,
        answers=answer(
            obj(
                {
                    "session_id": STRING,
                    "payment_method": STRING,
                    "amount_micro_usd": MICROS,
                    "status": STRING,
                    "created_at": TIME,
                    "completed_at": nullable(TIME),
                }
            )
        ),
        refusals=(404, 502),
    ),
    ("GET", "/v1/billing/wallet/balance"): Operation(
        tag="Deposits",
        access=Access.USER,
        answers=answer(obj({"credit_balance_micro_usd": MICROS})),
    ),
    ("POST", "/v1/billing/card"): Operation(
        tag="Deposits",
        access=Access.LOGIN,
        limit=Limit.FINANCIAL,
        headers=IDEMPOTENCY,
        answers=answer(obj({"url": STRING})),
        refusals=(400, 404, 409, 502),
    ),
    ("DELETE", "/v1/billing/card"): Operation(
        tag="Deposits",
        access=Access.LOGIN,
        limit=Limit.FINANCIAL,
        answers=answer(obj({"status": const("deleted")})),
        refusals=(400, 404, 409, 502),
    ),
    ("GET", "/v1/billing/auto-top-up"): Operation(
        tag="Deposits",
        access=Access.USER,
        answers=answer(ref("AutoTopUp")),
        refusals=(400, 404, 409, 502),
    ),
    ("PUT", "/v1/billing/auto-top-up"): Operation(
        tag="Deposits",
        access=Access.LOGIN,
        limit=Limit.FINANCIAL,
        body=json_body(
            obj(
                {},
                {
                    "enabled": BOOLEAN,
                    "threshold_usd": DOLLARS,
                    "amount_usd": DOLLARS,
                    "monthly_cap_usd": DOLLARS,
                },
            )
        ),
        answers=answer(ref("AutoTopUp")),
        refusals=(404, 409, 502),
    ),
}
_WEBHOOK = Operation(
    tag="Webhooks",
    access=Access.SIGNED,
    body=Body(BINARY, (JSON, BYTES)),
    answers=answer(obj({"received": BOOLEAN})),
    refusals=(401,),
    headers={"Stripe-Signature": STRING},
)
_WEBHOOKS: Mapping[Key, Operation] = {
    ("POST", f"/v1/billing/stripe/{where}webhook"): _WEBHOOK
    for where in ("", "connect/", "connect/accounts/")
}
_PAYOUT_REFUSALS = (400, 403, 404, 409, 502)
_PAYOUTS: Mapping[Key, Operation] = {
    ("POST", "/v1/billing/stripe/onboard"): Operation(
        tag="Payouts",
        access=Access.LOGIN,
        limit=Limit.FINANCIAL,
        body=json_body(
            obj(
                {},
                {
                    "return_url": nullable(text(maxLength=2000)),
                    "refresh_url": nullable(text(maxLength=2000)),
                    "country": nullable(text(maxLength=2)),
                },
            ),
            required=False,
        ),
        answers=answer(obj({"url": STRING, "stripe_account_id": STRING, "status": STRING})),
        refusals=_PAYOUT_REFUSALS,
    ),
    ("GET", "/v1/billing/stripe/status"): Operation(
        tag="Payouts",
        access=Access.USER,
        limit=Limit.FINANCIAL,
        answers=answer(
            obj(
                {
                    "has_account": BOOLEAN,
                    "configured": BOOLEAN,
                    "stripe_account_id": STRING,
                    "status": STRING,
                    "destination_type": STRING,
                    "destination_last4": STRING,
                    "instant_eligible": BOOLEAN,
                    "min_withdraw_micro_usd": COUNT,
                    "instant_fee_bps": COUNT,
                    "instant_fee_min_usd": USD,
                    "currently_due": array(STRING),
                    "payout_rail": STRING,
                    "country": STRING,
                    "currency": STRING,
                }
            )
        ),
        refusals=_PAYOUT_REFUSALS,
    ),
    ("POST", "/v1/billing/stripe/dashboard"): Operation(
        tag="Payouts",
        access=Access.LOGIN,
        limit=Limit.FINANCIAL,
        answers=answer(obj({"url": STRING})),
        refusals=_PAYOUT_REFUSALS,
    ),
    ("DELETE", "/v1/billing/stripe/account"): Operation(
        tag="Payouts",
        access=Access.LOGIN,
        limit=Limit.FINANCIAL,
        answers=answer(obj({"status": const("unlinked")})),
        refusals=_PAYOUT_REFUSALS,
        name="unlink_payout_account",
    ),
    ("POST", "/v1/billing/withdraw/stripe"): Operation(
        tag="Payouts",
        access=Access.LOGIN,
        limit=Limit.FINANCIAL,
        headers=IDEMPOTENCY,
        body=json_body(
            obj(
                {"amount_usd": said(DOLLARS, "at least 1.00")},
                {"method": words("standard", "instant")},
            )
        ),
        answers={
            **answer(ref("WithdrawalMade")),
            **answer(ref("WithdrawalMade"), "a step is still open", status=202),
        },
        refusals=_PAYOUT_REFUSALS,
    ),
    ("GET", "/v1/billing/stripe/withdrawals"): Operation(
        tag="Payouts",
        access=Access.USER,
        answers=answer(obj({"withdrawals": array(ref("Withdrawal"))}, TOKEN)),
        refusals=_PAYOUT_REFUSALS,
    ),
}
TABLE: Mapping[Key, Operation] = {**_DEPOSITS, **_WEBHOOKS, **_PAYOUTS}
