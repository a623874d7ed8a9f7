"""What operators do."""

from collections.abc import Mapping

from darkbloom_edge.dialects.schemas.parts import (
    BOOLEAN,
    COUNT,
    NUMBER,
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

from darkbloom_gateway.openapi.amounts import DOLLARS, USD
from darkbloom_gateway.openapi.operation import (
    BINARY,
    BYTES,
    IDEMPOTENCY,
    Access,
    Answer,
    Key,
    Limit,
    Operation,
    answer,
    json_body,
)
from darkbloom_gateway.openapi.people import TIME

_WHO: Mapping[str, Schema] = {
    "email": nullable(text(maxLength=200)),
    "account_id": nullable(text(maxLength=200)),
}
_CREDIT = Operation(
    tag="Admin",
    access=Access.ADMIN,
    limit=Limit.FINANCIAL,
    headers=IDEMPOTENCY,
    required_headers=frozenset(IDEMPOTENCY),
    body=json_body(obj({"amount_usd": DOLLARS}, {**_WHO, "note": nullable(text(maxLength=200))})),
    answers=answer(
        obj(
            {
                "ok": BOOLEAN,
                "account_id": STRING,
                "email": STRING,
                "withdrawable": BOOLEAN,
                "balance_after": USD,
            },
            {"rewarded_usd": USD, "credited_usd": USD, "withdrawable_after": USD},
        )
    ),
    refusals=(404, 409),
)
_USER: Mapping[str, Schema] = {
    "status": const("updated"),
    "account_id": STRING,
    "email": STRING,
}
_DRAIN = obj(
    {
        "draining": said(BOOLEAN, "whether inference is closed at every gateway"),
        "inflight": said(COUNT, "inference requests that the answering worker still answers"),
    }
)
SCHEMAS: Mapping[str, Schema] = {
    "InviteCode": obj(
        {
            "code": STRING,
            "amount_usd": USD,
            "max_uses": COUNT,
            "used_count": COUNT,
            "active": BOOLEAN,
            "expires_at": nullable(TIME),
            "created_at": TIME,
        }
    ),
    "Rollout": obj(
        {
            "rollout_id": STRING,
            "alias": STRING,
            "from_build": STRING,
            "to_build": STRING,
            "state": words("running", "paused", "done", "reverted"),
            "step": said(COUNT, "counted from 0"),
            "steps": said(array(whole(1, 100)), "percent of accounts and machines"),
            "reason": said(STRING, "why it is in this state"),
            "started_by": STRING,
            "seen": obj(
                {
                    "successes": COUNT,
                    "failures": COUNT,
                    "load_failures": COUNT,
                    "untrusted": COUNT,
                    "ttft_p95_s": nullable(NUMBER),
                }
            ),
            "gates": obj(
                {
                    "min_requests": COUNT,
                    "soak_s": NUMBER,
                    "min_success_percent": COUNT,
                    "max_load_failures": COUNT,
                    "max_untrusted": COUNT,
                    "max_ttft_p95_s": nullable(NUMBER),
                }
            ),
            "created_at": TIME,
            "step_at": TIME,
            "updated_at": TIME,
        }
    ),
}
TABLE: Mapping[Key, Operation] = {
    ("POST", "/v1/admin/credit"): _CREDIT,
    ("POST", "/v1/admin/reward"): _CREDIT,
    ("PUT", "/v1/admin/users/role"): Operation(
        tag="Admin",
        access=Access.ADMIN,
        body=json_body(obj({}, {**_WHO, "role": nullable(words("", "service"))})),
        answers=answer(obj({**_USER, "role": STRING})),
        refusals=(404, 409),
    ),
    ("PUT", "/v1/admin/users/platform-fee"): Operation(
        tag="Admin",
        access=Access.ADMIN,
        body=json_body(obj({"fee_percent": nullable(whole(0, 100))}, _WHO)),
        answers=answer(obj({**_USER, "fee_percent": nullable(COUNT)})),
        refusals=(404, 409),
    ),
    ("POST", "/v1/admin/invite-codes"): Operation(
        tag="Admin",
        access=Access.ADMIN,
        limit=Limit.FINANCIAL,
        headers=IDEMPOTENCY,
        body=json_body(
            obj(
                {"amount_usd": DOLLARS},
                {
                    "code": nullable(text(maxLength=40)),
                    "max_uses": nullable(whole(1, 1_000_000)),
                    "expires_at": nullable(TIME),
                },
            )
        ),
        answers=answer(ref("InviteCode"), status=201),
        refusals=(404, 409),
        name="create_invite",
    ),
    ("GET", "/v1/admin/invite-codes"): Operation(
        tag="Admin",
        access=Access.ADMIN,
        answers=answer(
            obj({"invite_codes": array(ref("InviteCode"))}, {"next_page_token": STRING})
        ),
        refusals=(404, 409),
    ),
    ("DELETE", "/v1/admin/invite-codes"): Operation(
        tag="Admin",
        access=Access.ADMIN,
        body=json_body(obj({"code": text(minLength=1, maxLength=200)})),
        answers=answer(obj({"status": const("deactivated"), "code": STRING})),
        refusals=(404, 409),
        name="deactivate_invite",
    ),
    ("GET", "/v1/admin/drain"): Operation(
        tag="Admin", access=Access.ADMIN, answers=answer(_DRAIN), name="read_drain"
    ),
    ("POST", "/v1/admin/drain"): Operation(
        tag="Admin",
        access=Access.ADMIN,
        body=json_body(
            {**obj({}, {"draining": {**BOOLEAN, "default": True}}), "additionalProperties": False},
            required=False,
        ),
        answers=answer(_DRAIN),
        name="set_drain",
    ),
    ("GET", "/v1/admin/rollouts"): Operation(
        tag="Admin",
        access=Access.ADMIN,
        answers=answer(obj({"rollouts": array(ref("Rollout"))})),
    ),
    ("GET", "/v1/admin/rollouts/{rollout_id}"): Operation(
        tag="Admin", access=Access.ADMIN, answers=answer(ref("Rollout")), refusals=(404,)
    ),
    ("GET", "/v1/admin/log-reports/{report_id}"): Operation(
        tag="Admin",
        access=Access.ADMIN,
        answers={200: Answer("the bytes", {BYTES: BINARY})},
        refusals=(404,),
        name="read_log_report",
    ),
}
