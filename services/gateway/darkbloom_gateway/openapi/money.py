"""Money: balances, usage, prices, and the schemas that tables of money share."""

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
    text,
)

from darkbloom_gateway.openapi.amounts import (
    MICROS,
    PRICE_BODY,
    TOKEN,
    USD,
    rows,
)
from darkbloom_gateway.openapi.operation import (
    IDEMPOTENCY,
    Access,
    Key,
    Operation,
    answer,
    json_body,
)
from darkbloom_gateway.openapi.people import TIME

_ROW: Mapping[str, Schema] = {
    "model": STRING,
    "input_price": COUNT,
    "output_price": COUNT,
    "cache_read_price": COUNT,
    "input_usd": STRING,
    "output_usd": STRING,
    "cache_read_usd": STRING,
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
        tag="Payments", access=Access.USER, answers=rows("usage", _USAGE)
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
TABLE: Mapping[Key, Operation] = {**_PAYMENTS, **_PRICES}
