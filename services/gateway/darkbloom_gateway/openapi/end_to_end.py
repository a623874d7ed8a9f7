"""The endpoints of end-to-end mode, which are raw ASGI like those of inference."""

from collections.abc import Mapping

from darkbloom_edge.dialects.schemas.parts import (
    BOOLEAN,
    STRING,
    Schema,
    array,
    obj,
    ref,
    said,
    text,
    whole,
    words,
)
from darkbloom_edge.offers import MAX_EXCLUDED
from darkbloom_edge.records import MEDIA_TYPE, SEALED_MEDIA_TYPE

from darkbloom_gateway.end_to_end.answering import ANSWER_PATH, DECLINE_PATH
from darkbloom_gateway.end_to_end.asking import OFFERS_PATH
from darkbloom_gateway.openapi.inference import PROVIDER, ROUTING
from darkbloom_gateway.openapi.operation import (
    BINARY,
    JSON,
    Access,
    Answer,
    Body,
    Key,
    Operation,
    json_body,
)
from darkbloom_gateway.openapi.refusals import RATES

_BYTES32 = text(pattern="^[A-Za-z0-9+/]{43}=$")
_LEVEL = words("none", "self_signed", "hardware")
_SIGNED = obj({"document": STRING, "signature": STRING, "key_id": STRING})
_OFFER: Mapping[str, Schema] = {
    "X-Darkbloom-Offer": text(pattern="^off_[0-9a-f]{48}$"),
}
SCHEMAS: Mapping[str, Schema] = {
    "OfferRequest": {
        **obj(
            {
                "model": text(minLength=1, maxLength=512),
                "nonce": said(_BYTES32, "32 fresh bytes"),
                "prompt_tokens": whole(1, 1 << 24),
                "prompt_bound": said(
                    whole(1, 1 << 24), "at least `prompt_tokens`, at most 8 times that and 4096"
                ),
                "body_bytes": said(whole(1, 32 * 1024 * 1024), "most bytes of ciphertext"),
            },
            {
                "output_bound": whole(1, 1 << 24),
                "needs": array(
                    words("tools", "json_mode", "structured_outputs", "logprobs", "vision"),
                    maxItems=8,
                ),
                "tool_choice": words("", "auto", "none", "required", "named"),
                "parallel_tool_calls": BOOLEAN,
                "trust_floor": _LEVEL,
                "exclude": array(text(pattern="^prov_[0-9a-f]{32}$"), maxItems=MAX_EXCLUDED),
            },
        ),
        "additionalProperties": False,
    },
    "SignedDocument": _SIGNED,
    "Offered": obj(
        {
            "offer": said(ref("SignedDocument"), "signed by a receipt key, see docs/end-to-end.md"),
            "verdict": ref("SignedDocument"),
            "cache_scope": _BYTES32,
            "evidence_url": STRING,
        }
    ),
}
TABLE: Mapping[Key, Operation] = {
    ("POST", OFFERS_PATH): Operation(
        tag="End-to-end",
        access=Access.KEY,
        body=json_body(ref("OfferRequest")),
        answers={
            200: Answer(
                "a provider is reserved for two seconds",
                {JSON: ref("Offered")},
                {name: name for name in ("X-Request-ID", *RATES)},
            )
        },
        refusals=(402, 404, 409, 429, 502, 504),
        headers=ROUTING,
    ),
    ("POST", ANSWER_PATH): Operation(
        tag="End-to-end",
        access=Access.KEY,
        body=Body(BINARY, (SEALED_MEDIA_TYPE,)),
        answers={
            200: Answer(
                "sealed records, the receipt last",
                {MEDIA_TYPE: BINARY},
                {name: name for name in ("X-Request-ID", *PROVIDER)},
            )
        },
        refusals=(402, 404, 409, 410, 422, 429, 502, 504),
        headers=_OFFER,
        required_headers=frozenset(_OFFER),
    ),
    ("POST", DECLINE_PATH): Operation(
        tag="End-to-end",
        access=Access.KEY,
        answers={204: Answer("it is given back", {})},
        refusals=(400, 408, 409, 410, 413, 429, 502),
        headers=_OFFER,
        required_headers=frozenset(_OFFER),
    ),
}
SUMMARIES: Mapping[str, str] = {
    OFFERS_PATH: "Reserve a provider for a request that the client seals itself.",
    ANSWER_PATH: "Send a sealed request under an offer, and get its sealed answer.",
    DECLINE_PATH: "Give an offer back.",
}
