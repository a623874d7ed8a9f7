"""Money: balances, usage, prices, deposits, payouts, earnings, programmes."""

from collections.abc import Mapping

from darkbloom_edge.dialects.schemas.parts import (
    BOOLEAN,
    COUNT,
    INTEGER,
    STRING,
    Schema,
    array,
    const,
    nullable,
    obj,
    ref,
    said,
    text,
    whole,
    words,
)

from darkbloom_gateway.openapi.operation import (
    BINARY,
    BYTES,
    CSV,
    IDEMPOTENCY,
    JSON,
    PLAIN,
    Access,
    Answer,
    Body,
    Key,
    Limit,
    Operation,
    answer,
    json_body,
)
from darkbloom_gateway.openapi.people import TIME

MICROS = said(INTEGER, "micro-USD")
USD = said(text(pattern=r"^-?[0-9]+\.[0-9]{2,6}$"), "dollars as a decimal text")
DOLLARS = said(text(pattern=r"^[0-9]{1,9}(\.[0-9]{1,2})?$"), "dollars as a text, such as `10.00`")
TOKEN = {"next_page_token": said(STRING, "absent on the last page")}
_PRICE = whole(1, 10_000_000_000)
PRICE_BODY = obj(
    {"model": text(minLength=1, maxLength=200), "input_price": _PRICE, "output_price": _PRICE},
    {"cache_read_price": nullable(whole(0, 10_000_000_000))},
)
_ROW: Mapping[str, Schema] = {
    "model": STRING,
    "input_price": COUNT,
    "output_price": COUNT,
    "cache_read_price": COUNT,
    "input_usd": STRING,
    "output_usd": STRING,
    "cache_read_usd": STRING,
}
_WORK: Mapping[str, Schema] = {
    "earnings_micro_usd": MICROS,
    "work_earnings_micro_usd": MICROS,
    "reward_earnings_micro_usd": MICROS,
    "tokens": COUNT,
    "jobs": COUNT,
}
_SUMS: Mapping[str, Schema] = {
    "account_id": STRING,
    "available_balance_micro_usd": MICROS,
    "withdrawable_balance_micro_usd": MICROS,
    "maturing_balance_micro_usd": MICROS,
    "lifetime_micro_usd": MICROS,
    "lifetime_jobs": COUNT,
    "last_24h_micro_usd": MICROS,
    "last_24h_jobs": COUNT,
    "last_7d_micro_usd": MICROS,
    "last_7d_jobs": COUNT,
    "machines": array(obj({"machine_key": STRING, "name": STRING, **_WORK}, {"linked_at": TIME})),
}
SCHEMAS: Mapping[str, Schema] = {
    "Price": obj(_ROW),
    "Earning": obj(
        {
            "job_id": STRING,
            "model": STRING,
            "machine": STRING,
            "machine_key": STRING,
            "amount_micro_usd": MICROS,
            "amount_usd": USD,
            "prompt_tokens": COUNT,
            "completion_tokens": COUNT,
            "created_at": TIME,
        }
    ),
    "Withdrawal": obj(
        {
            "id": STRING,
            "account_id": STRING,
            "stripe_account_id": STRING,
            "transfer_id": STRING,
            "payout_id": STRING,
            "amount_micro_usd": MICROS,
            "fee_micro_usd": MICROS,
            "net_micro_usd": MICROS,
            "method": STRING,
            "status": STRING,
            "failure_reason": STRING,
            "refunded": BOOLEAN,
            "created_at": TIME,
            "updated_at": TIME,
        }
    ),
    "WithdrawalMade": obj(
        {
            "status": STRING,
            "withdrawal_id": STRING,
            "transfer_id": STRING,
            "payout_id": STRING,
            "amount_usd": USD,
            "fee_usd": USD,
            "net_usd": USD,
            "method": STRING,
            "eta": STRING,
            "arrival_unix": COUNT,
            "balance_micro_usd": nullable(INTEGER),
        }
    ),
    "AutoTopUp": obj(
        {
            "enabled": BOOLEAN,
            "threshold_usd": USD,
            "amount_usd": USD,
            "monthly_cap_usd": USD,
            "month_usd": USD,
            "disabled_reason": STRING,
            "card": nullable(obj({"brand": STRING, "last4": STRING})),
        }
    ),
}
_USAGE = obj(
    {
        "job_id": STRING,
        "request_id": STRING,
        "key_id": STRING,
        "model": STRING,
        "build": STRING,
        "prompt_tokens": COUNT,
        "cached_tokens": COUNT,
        "completion_tokens": COUNT,
        "cost_micro_usd": MICROS,
        "outcome": STRING,
        "timestamp": TIME,
    }
)


def _rows(name: str, row: Schema) -> Mapping[int, Answer]:
    page = obj({name: array(row)}, TOKEN)
    return {200: Answer("a page, or all that match as CSV", {JSON: page, CSV: PLAIN})}


_PAYMENTS: Mapping[Key, Operation] = {
    ("GET", "/v1/payments/balance"): Operation(
        tag="Payments",
        access=Access.USER,
        answers=answer(
            obj(
                {
                    "balance_micro_usd": MICROS,
                    "balance_usd": USD,
                    "withdrawable_micro_usd": MICROS,
                    "withdrawable_usd": USD,
                    "promo_micro_usd": MICROS,
                    "purchased_micro_usd": MICROS,
                    "earned_micro_usd": MICROS,
                    "held_micro_usd": MICROS,
                    "maturing_micro_usd": MICROS,
                    "disputed_micro_usd": MICROS,
                    "debt_micro_usd": MICROS,
                    "frozen": BOOLEAN,
                }
            )
        ),
        refusals=(404,),
    ),
    ("GET", "/v1/payments/usage"): Operation(
        tag="Payments", access=Access.USER, answers=_rows("usage", _USAGE)
    ),
    ("GET", "/v1/payments/ledger"): Operation(
        tag="Payments",
        access=Access.USER,
        answers=answer(
            obj(
                {
                    "entries": array(
                        obj(
                            {
                                "id": STRING,
                                "type": STRING,
                                "wallet": STRING,
                                "amount_micro_usd": MICROS,
                                "balance_after": MICROS,
                                "held_after": MICROS,
                                "settled_micro_usd": MICROS,
                                "reference": STRING,
                                "created_at": TIME,
                            }
                        )
                    )
                },
                TOKEN,
            )
        ),
    ),
}
_PRICES: Mapping[Key, Operation] = {
    ("GET", "/v1/pricing"): Operation(
        tag="Prices",
        access=Access.NOBODY_ASKED,
        answers=answer(
            obj(
                {
                    "prices": array(ref("Price")),
                    "fallback_input_price": COUNT,
                    "fallback_output_price": COUNT,
                    "fallback_cache_read_price": COUNT,
                    "fallback_input_usd": STRING,
                    "fallback_output_usd": STRING,
                    "fallback_cache_read_usd": STRING,
                }
            ),
            "micro-USD per 1,000,000 tokens",
        ),
    ),
    ("GET", "/v1/pricing/own"): Operation(
        tag="Prices", access=Access.USER, answers=answer(obj({"prices": array(ref("Price"))}))
    ),
    ("PUT", "/v1/pricing"): Operation(
        tag="Prices",
        access=Access.USER,
        headers=IDEMPOTENCY,
        body=json_body(PRICE_BODY),
        answers=answer(obj({"status": const("updated"), **_ROW})),
        refusals=(404, 409, 429),
    ),
    ("DELETE", "/v1/pricing"): Operation(
        tag="Prices",
        access=Access.USER,
        headers=IDEMPOTENCY,
        body=json_body(obj({"model": text(minLength=1, maxLength=200)})),
        answers=answer(obj({"status": const("deleted"), "model": STRING})),
        refusals=(404, 409),
    ),
    ("PUT", "/v1/admin/pricing"): Operation(
        tag="Admin",
        access=Access.ADMIN,
        headers=IDEMPOTENCY,
        body=json_body(PRICE_BODY),
        answers=answer(obj({"status": const("platform_default_updated"), **_ROW})),
        refusals=(404, 409, 429),
    ),
}
_EARNINGS: Mapping[Key, Operation] = {
    ("GET", "/v1/provider/account-earnings"): Operation(
        tag="Earnings",
        access=Access.EARNER,
        answers=answer(
            obj(
                {
                    "account_id": STRING,
                    "earnings": array(ref("Earning")),
                    "total_micro_usd": MICROS,
                    "total_usd": USD,
                    "count": COUNT,
                    "recent_count": COUNT,
                    "history_limit": COUNT,
                    "available_balance_micro_usd": MICROS,
                    "available_balance_usd": USD,
                    "withdrawable_balance_micro_usd": MICROS,
                    "withdrawable_balance_usd": USD,
                    "maturing_balance_micro_usd": MICROS,
                    "maturing_balance_usd": USD,
                }
            )
        ),
    ),
    ("GET", "/v1/me/earnings"): Operation(
        tag="Earnings", access=Access.EARNER, answers=_rows("earnings", ref("Earning"))
    ),
    ("GET", "/v1/me/insights"): Operation(
        tag="Earnings",
        access=Access.EARNER,
        answers={
            200: Answer(
                "work by day, model and machine, or the same as CSV",
                {
                    JSON: obj(
                        {
                            "days": COUNT,
                            "rows": array(
                                obj(
                                    {
                                        "day": STRING,
                                        "model": STRING,
                                        "machine_key": STRING,
                                        **_WORK,
                                    }
                                )
                            ),
                        }
                    ),
                    CSV: PLAIN,
                },
            )
        },
    ),
    ("GET", "/v1/me/summary"): Operation(
        tag="Earnings",
        access=Access.LOGIN,
        answers=answer(
            obj(
                {
                    **_SUMS,
                    "payout_ready": BOOLEAN,
                    "counts": obj(
                        dict.fromkeys(
                            (
                                "total",
                                "online",
                                "serving",
                                "offline",
                                "untrusted",
                                "hardware",
                                "needs_attention",
                            ),
                            INTEGER,
                        )
                    ),
                    "latest_provider_version": STRING,
                    "min_provider_version": STRING,
                }
            )
        ),
    ),
    ("GET", "/v1/provider/earnings-summary"): Operation(
        tag="Earnings", access=Access.EARNER, answers=answer(obj(_SUMS))
    ),
}
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
_CODE_BODY = json_body(obj({"code": text(minLength=1, maxLength=200)}))
_PROGRAMMES: Mapping[Key, Operation] = {
    ("POST", "/v1/referral/register"): Operation(
        tag="Programmes",
        access=Access.USER,
        limit=Limit.FINANCIAL,
        body=_CODE_BODY,
        answers=answer(obj({"code": STRING, "share_percent": COUNT, "message": STRING})),
        refusals=(409,),
    ),
    ("POST", "/v1/referral/apply"): Operation(
        tag="Programmes",
        access=Access.USER,
        limit=Limit.FINANCIAL,
        body=_CODE_BODY,
        answers=answer(obj({"status": const("applied"), "code": STRING})),
        refusals=(404, 409),
    ),
    ("GET", "/v1/referral/info"): Operation(
        tag="Programmes",
        access=Access.USER,
        answers=answer(obj({"code": STRING, "share_percent": COUNT, "referred_by": STRING})),
        refusals=(400,),
    ),
    ("GET", "/v1/referral/stats"): Operation(
        tag="Programmes",
        access=Access.USER,
        answers=answer(
            obj(
                {
                    "code": STRING,
                    "share_percent": COUNT,
                    "total_referred": COUNT,
                    "total_referred_spend_micro_usd": MICROS,
                    "total_rewards_micro_usd": MICROS,
                    "total_rewards_usd": USD,
                    "maturing_micro_usd": MICROS,
                    "balance_micro_usd": MICROS,
                    "balance_usd": USD,
                },
                {"next_matures_at": TIME},
            )
        ),
        refusals=(400, 404),
        name="referral_stats",
    ),
    ("POST", "/v1/invite/redeem"): Operation(
        tag="Programmes",
        access=Access.USER,
        limit=Limit.FINANCIAL,
        body=_CODE_BODY,
        answers=answer(obj({"credited_usd": USD, "balance_usd": USD})),
        refusals=(404, 409),
    ),
}
TABLE: Mapping[Key, Operation] = {
    **_PAYMENTS,
    **_PRICES,
    **_EARNINGS,
    **_DEPOSITS,
    **_WEBHOOKS,
    **_PAYOUTS,
    **_PROGRAMMES,
}
