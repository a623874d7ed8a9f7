"""People: API keys, logins, provider tokens, device codes, machines."""

from collections.abc import Mapping

from darkbloom_edge.dialects.schemas.parts import (
    ANY_OBJECT,
    BOOLEAN,
    COUNT,
    NUMBER,
    SOME,
    STRING,
    Schema,
    array,
    const,
    nullable,
    number,
    obj,
    options,
    ref,
    said,
    text,
    whole,
    words,
)

from darkbloom_gateway.openapi.operation import (
    BINARY,
    BYTES,
    JSON,
    ZIP,
    Access,
    Answer,
    Body,
    Key,
    Limit,
    Operation,
    answer,
    json_body,
)
from darkbloom_gateway.routes.key_fields import MAX_MODELS, MAX_NAME

TIME = text(format="date-time")
_RESET = words("none", "daily", "weekly", "monthly")
_SETTINGS = options(
    {
        "name": text(maxLength=MAX_NAME),
        "limit_usd": number(0, 1_000_000),
        "limit_reset": _RESET,
        "rpm_limit": whole(0, 2**31 - 1),
        "itpm_limit": whole(0, 2**53),
        "otpm_limit": whole(0, 2**53),
        "allowed_models": array(text(pattern="^[!-~]{1,256}$"), maxItems=MAX_MODELS),
        "self_route_only": BOOLEAN,
        "expires_at": said(TIME, "in the future"),
    }
)
_NEW_KEY = {**obj({}, _SETTINGS), "additionalProperties": False}
_CHANGED_KEY = {
    **obj({}, {**_SETTINGS, "disabled": nullable(BOOLEAN)}),
    "additionalProperties": False,
}
_MADE = obj({"key": said(STRING, "the secret, shown this once"), "data": ref("ApiKey")})
_REVOKED = obj({"status": const("revoked")})
_MACHINE_KEY = said(STRING, "P-256 point, base64")
_CODE_ERROR: Mapping[int, Schema] = {400: ref("DeviceError")}
_FORM = "application/x-www-form-urlencoded"

SCHEMAS: Mapping[str, Schema] = {
    "ApiKey": obj(
        {
            "id": STRING,
            "name": STRING,
            "label": STRING,
            "disabled": BOOLEAN,
            "limit_reset": _RESET,
            "usage_usd": NUMBER,
            "self_route_only": BOOLEAN,
            "created_at": TIME,
        },
        {
            "limit_usd": NUMBER,
            "remaining_usd": NUMBER,
            "rpm_limit": COUNT,
            "itpm_limit": COUNT,
            "otpm_limit": COUNT,
            "allowed_models": array(STRING),
            "expires_at": TIME,
            "last_used_at": TIME,
        },
    ),
    "ProviderToken": obj(
        {"id": STRING, "label": STRING, "machine_name": STRING, "created_at": TIME},
        {"account_id": STRING},
    ),
    "Machine": obj(
        {
            "machine_key": _MACHINE_KEY,
            "name": STRING,
            "linked_at": TIME,
            "status": STRING,
            "earnings_micro_usd": COUNT,
            "jobs": COUNT,
            "tokens": COUNT,
        },
        {
            "provider_id": STRING,
            "version": STRING,
            "backend": STRING,
            "trust_level": STRING,
            "has_verdict": BOOLEAN,
            "private_only": BOOLEAN,
            "hardware": ANY_OBJECT,
            "models": array(STRING),
            "slots": array(ANY_OBJECT),
            "connected_at": TIME,
            "last_heartbeat_at": TIME,
            "last_challenge_at": TIME,
        },
    ),
}


def _list(row: Schema, more: Mapping[str, Schema] | None = None) -> Schema:
    return obj({"object": const("list"), "data": array(row), **(more or {})})


_KEYS: Mapping[Key, Operation] = {
    ("GET", "/v1/keys"): Operation(
        tag="Keys", access=Access.LOGIN, answers=answer(_list(ref("ApiKey")))
    ),
    ("POST", "/v1/keys"): Operation(
        tag="Keys",
        access=Access.LOGIN,
        limit=Limit.FINANCIAL,
        body=json_body(_NEW_KEY, required=False),
        answers=answer(_MADE),
    ),
    ("GET", "/v1/keys/{key_id}"): Operation(
        tag="Keys", access=Access.LOGIN, answers=answer(ref("ApiKey")), refusals=(400, 404)
    ),
    ("PATCH", "/v1/keys/{key_id}"): Operation(
        tag="Keys",
        access=Access.LOGIN,
        limit=Limit.FINANCIAL,
        body=json_body(_CHANGED_KEY, required=False),
        answers=answer(ref("ApiKey")),
        refusals=(404,),
    ),
    ("DELETE", "/v1/keys/{key_id}"): Operation(
        tag="Keys",
        access=Access.LOGIN,
        limit=Limit.FINANCIAL,
        answers=answer(_REVOKED),
        refusals=(400, 404),
    ),
    ("POST", "/v1/keys/{key_id}/rotate"): Operation(
        tag="Keys",
        access=Access.LOGIN,
        limit=Limit.FINANCIAL,
        answers=answer(_MADE),
        refusals=(400, 404),
    ),
    ("GET", "/v1/key"): Operation(
        tag="Keys", access=Access.KEY, answers=answer(ref("ApiKey")), refusals=(404,)
    ),
    ("POST", "/v1/auth/keys"): Operation(
        tag="Keys",
        access=Access.LOGIN,
        limit=Limit.FINANCIAL,
        answers=answer(obj({"api_key": STRING, "account_id": STRING})),
        refusals=(400,),
    ),
    ("DELETE", "/v1/auth/keys"): Operation(
        tag="Keys",
        access=Access.LOGIN,
        limit=Limit.FINANCIAL,
        body=json_body(obj({"key": text(minLength=1, maxLength=512)})),
        answers=answer(_REVOKED),
        refusals=(404,),
    ),
}
_ACCOUNT: Mapping[Key, Operation] = {
    ("GET", "/v1/me"): Operation(
        tag="Account",
        access=Access.LOGIN,
        answers=answer(
            obj(
                {
                    "user_id": STRING,
                    "account_id": STRING,
                    "email": STRING,
                    "email_verified": BOOLEAN,
                    "display_name": STRING,
                    "role": STRING,
                    "admin": BOOLEAN,
                    "created_at": TIME,
                }
            )
        ),
        refusals=(404,),
    ),
    ("DELETE", "/v1/me"): Operation(
        tag="Account",
        access=Access.LOGIN,
        limit=Limit.FINANCIAL,
        answers=answer(obj({"status": const("pending_deletion")}), status=202),
        refusals=(400, 404),
    ),
    ("GET", "/v1/me/tokens"): Operation(
        tag="Account", access=Access.LOGIN, answers=answer(_list(ref("ProviderToken")))
    ),
    ("DELETE", "/v1/me/tokens/{token_id}"): Operation(
        tag="Account",
        access=Access.LOGIN,
        limit=Limit.FINANCIAL,
        answers=answer(_REVOKED),
        refusals=(400, 404),
    ),
    ("GET", "/v1/me/export"): Operation(
        tag="Account",
        access=Access.LOGIN,
        limit=Limit.FINANCIAL,
        answers={200: Answer("everything that is kept, as an archive", {ZIP: BINARY})},
        refusals=(404,),
    ),
    ("GET", "/v1/me/public-name"): Operation(
        tag="Account", access=Access.USER, answers=answer(obj({"choice": STRING, "name": STRING}))
    ),
    ("PUT", "/v1/me/public-name"): Operation(
        tag="Account",
        access=Access.LOGIN,
        limit=Limit.FINANCIAL,
        body=json_body(
            obj({"choice": words("pseudonym", "hidden", "chosen")}, {"name": text(maxLength=32)})
        ),
        answers=answer(obj({"choice": STRING, "name": STRING})),
        refusals=(409,),
    ),
}
_MACHINES: Mapping[Key, Operation] = {
    ("GET", "/v1/me/providers"): Operation(
        tag="Machines",
        access=Access.LOGIN,
        answers=answer(
            _list(
                ref("Machine"),
                {"latest_provider_version": STRING, "min_provider_version": STRING},
            )
        ),
    ),
    ("GET", "/v1/me/self-route-models"): Operation(
        tag="Machines",
        access=Access.LOGIN,
        answers=answer(
            _list(
                obj(
                    {
                        "id": STRING,
                        "object": const("model"),
                        "names": array(STRING),
                        "machines": array(STRING),
                    }
                )
            )
        ),
    ),
    ("DELETE", "/v1/me/providers/{machine}"): Operation(
        tag="Machines",
        access=Access.LOGIN,
        limit=Limit.FINANCIAL,
        answers=answer(obj({"status": const("unlinked")})),
        refusals=(400, 404),
    ),
    ("GET", "/v1/provider/token"): Operation(
        tag="Machines", access=Access.PROVIDER, answers=answer(ref("ProviderToken"))
    ),
    ("DELETE", "/v1/provider/token"): Operation(
        tag="Machines", access=Access.PROVIDER, answers=answer(_REVOKED), refusals=(404,)
    ),
    ("POST", "/v1/provider/link/challenge"): Operation(
        tag="Machines",
        access=Access.PROVIDER,
        body=json_body(obj({"identity_key": _MACHINE_KEY})),
        answers=answer(obj({"nonce": STRING, "expires_in": COUNT})),
        refusals=(404, 409, 429),
    ),
    ("POST", "/v1/provider/link"): Operation(
        tag="Machines",
        access=Access.PROVIDER,
        body=json_body(
            obj(
                {"identity_key": _MACHINE_KEY, "nonce": SOME, "signature": SOME},
                {"machine_name": text(maxLength=200)},
            )
        ),
        answers=answer(obj({"status": const("linked"), "account_id": STRING})),
        refusals=(404, 409, 429),
    ),
    ("POST", "/v1/provider/log-report"): Operation(
        tag="Machines",
        access=Access.PROVIDER,
        limit=Limit.FINANCIAL,
        body=Body(BINARY, (BYTES,)),
        answers=answer(obj({"id": STRING, "bytes": COUNT, "expires_at": TIME}), status=201),
    ),
    ("POST", "/v1/enroll"): Operation(
        tag="Machines",
        access=Access.NOBODY_ASKED,
        limit=Limit.STRANGER,
        answers={
            200: Answer("a device management profile", {"application/x-apple-aspen-config": BINARY})
        },
    ),
}
_DEVICE: Mapping[Key, Operation] = {
    ("POST", "/v1/device/code"): Operation(
        tag="Device login",
        access=Access.NOBODY_ASKED,
        limit=Limit.STRANGER,
        body=Body(obj({}, {"machine_name": STRING}), (JSON, _FORM), required=False),
        answers=answer(
            obj(
                {
                    "device_code": STRING,
                    "user_code": STRING,
                    "verification_uri": STRING,
                    "verification_uri_complete": STRING,
                    "expires_in": COUNT,
                    "interval": COUNT,
                }
            )
        ),
    ),
    ("POST", "/v1/device/token"): Operation(
        tag="Device login",
        access=Access.NOBODY_ASKED,
        limit=Limit.STRANGER,
        body=Body(obj({"device_code": text(maxLength=256)}, {"grant_type": STRING}), (JSON, _FORM)),
        answers=answer(
            obj(
                {},
                {
                    "status": words("authorization_pending", "authorized"),
                    "token": STRING,
                    "access_token": STRING,
                    "token_type": const("Bearer"),
                    "account_id": STRING,
                },
            ),
            "the token, once; a form gets the fields of RFC 8628",
        ),
        refusals=(403, 404, 410),
        other_errors=_CODE_ERROR,
    ),
    ("GET", "/v1/device/code"): Operation(
        tag="Device login",
        access=Access.LOGIN,
        answers=answer(
            obj(
                {
                    "user_code": STRING,
                    "machine_name": STRING,
                    "status": STRING,
                    "created_at": TIME,
                    "expires_at": TIME,
                }
            )
        ),
        refusals=(404, 409, 410, 429),
    ),
    ("POST", "/v1/device/approve"): Operation(
        tag="Device login",
        access=Access.LOGIN,
        limit=Limit.FINANCIAL,
        body=Body(
            obj({"user_code": text(minLength=1, maxLength=256)}, {"approve": BOOLEAN}),
            (JSON, _FORM),
        ),
        answers=answer(
            obj(
                {
                    "status": words("approved", "denied"),
                    "message": STRING,
                    "machine_name": STRING,
                }
            )
        ),
        refusals=(404, 409, 410),
    ),
}
TABLE: Mapping[Key, Operation] = {**_KEYS, **_ACCOUNT, **_MACHINES, **_DEVICE}
