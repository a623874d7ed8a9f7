"""Invites and referrals."""

from collections.abc import Mapping

from darkbloom_edge.dialects.schemas.parts import (
    COUNT,
    STRING,
    const,
    obj,
    text,
)

from darkbloom_gateway.openapi.amounts import (
    MICROS,
    USD,
)
from darkbloom_gateway.openapi.operation import (
    Access,
    Key,
    Limit,
    Operation,
    answer,
    json_body,
)
from darkbloom_gateway.openapi.people import TIME

_CODE_BODY = json_body(obj({"code": text(minLength=1, maxLength=200)}))
TABLE: Mapping[Key, Operation] = {
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
