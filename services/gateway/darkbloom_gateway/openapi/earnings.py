"""What machines and their owners have earned."""

from collections.abc import Mapping

from darkbloom_edge.dialects.schemas.parts import (
    BOOLEAN,
    COUNT,
    INTEGER,
    STRING,
    array,
    obj,
    ref,
)

from darkbloom_gateway.openapi.amounts import (
    MICROS,
    SUMS,
    USD,
    WORK,
    rows,
)
from darkbloom_gateway.openapi.operation import (
    CSV,
    JSON,
    PLAIN,
    Access,
    Answer,
    Key,
    Operation,
    answer,
)

TABLE: Mapping[Key, Operation] = {
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
        tag="Earnings", access=Access.EARNER, answers=rows("earnings", ref("Earning"))
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
                                        **WORK,
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
                    **SUMS,
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
        tag="Earnings", access=Access.EARNER, answers=answer(obj(SUMS))
    ),
}
