"""The inference endpoints, which are raw ASGI: their shapes are kept beside the dialects."""

from collections.abc import Mapping
from typing import Any

from darkbloom_edge.dialects.schemas import SHAPES
from darkbloom_edge.dialects.schemas.parts import (
    STRING,
    Schema,
    either,
    obj,
    ref,
    said,
    text,
    words,
)

from darkbloom_gateway.counting import COUNT_PATH
from darkbloom_gateway.envelopes import speaks_anthropic
from darkbloom_gateway.openapi.operation import (
    EVENTS,
    JSON,
    PLAIN,
    SEALED,
    Access,
    Answer,
    Body,
    Key,
    Operation,
)
from darkbloom_gateway.openapi.refusals import RATES

_REFUSALS = (400, 402, 404, 408, 409, 413, 422, 429, 502, 503, 504)
PROVIDER = (
    "X-Inference-Job-ID",
    "X-Provider-Id",
    "X-Provider-Attested",
    "X-Provider-Trust-Level",
    "X-Provider-Encrypted",
    "X-Provider-Secure-Enclave",
    "X-Provider-Chip",
    "X-Provider-Model",
    "X-Provider-Mda-Verified",
    "X-Provider-Scripted",
    "X-Attestation-Se-Public-Key",
    "X-Timing",
    "X-Hold-Micro-USD",
    "X-Darkbloom-Receipt-Job-ID",
    "X-Darkbloom-Receipt-Hash",
    "X-Darkbloom-Early-Commit",
)


def _header(description: str, schema: Schema) -> dict[str, Any]:
    return {"description": description, "schema": schema}


_TRUE = words("true")
_FLAG = words("true", "false")
HEADERS: Mapping[str, dict[str, Any]] = {
    "X-Inference-Job-ID": _header("the attempt that answers", text(pattern="^att_")),
    "X-Provider-Id": _header("the machine's connection, as the public list has it", STRING),
    "X-Provider-Attested": _header("whether its level is `hardware`", _FLAG),
    "X-Provider-Trust-Level": _header("", words("none", "self_signed", "hardware")),
    "X-Provider-Encrypted": _header("only `true`", _TRUE),
    "X-Provider-Secure-Enclave": _header("", _FLAG),
    "X-Provider-Chip": _header("", STRING),
    "X-Provider-Model": _header("", STRING),
    "X-Provider-Mda-Verified": _header("only `true`", _TRUE),
    "X-Provider-Scripted": _header("only `true`: a scripted engine of development", _TRUE),
    "X-Attestation-Se-Public-Key": _header("base64, P-256", STRING),
    "X-Timing": _header("JSON, microseconds by phase", STRING),
    "X-Hold-Micro-USD": _header("what was held", {"type": "integer", "minimum": 0}),
    "X-Darkbloom-Receipt-Job-ID": _header("of an answer in one piece", STRING),
    "X-Darkbloom-Receipt-Hash": _header("SHA-256 of the receipt, hex", STRING),
    "X-Darkbloom-Early-Commit": _header("only `true`: status and headers left early", _TRUE),
    "X-Darkbloom-Token-Count": _header("who counted", words("tokenizer", "estimate")),
}
"""Components of headers, as answers have them."""

ROUTING: Mapping[str, Schema] = {
    "X-Darkbloom-Route": said(
        STRING, "`self`: only one's own machines, free; `prefer`: those first; else ignored"
    ),
    "X-Darkbloom-Machine": said(
        text(minLength=1, maxLength=256), "one machine by provider id; needs `self`"
    ),
}
_WISHES: Mapping[str, Schema] = {
    **ROUTING,
    "X-Darkbloom-Metadata-Details": said(STRING, "`true` adds `metadata`"),
    "X-Darkbloom-Early-Commit": said(STRING, "`true`: a stream may begin before its answer"),
}
SCHEMAS: Mapping[str, Schema] = {
    "SealedEnvelope": obj(
        {
            "kid": text(minLength=1, maxLength=64),
            "ephemeral_public_key": text(maxLength=128),
            "ciphertext": STRING,
        }
    ),
    "StreamError": said(
        obj({"error": obj({"message": STRING, "type": words("provider_error", "timeout")})}),
        "the last event of a stream that broke; `[DONE]` does not follow",
    ),
    "SealedAnswer": obj({"kid": STRING, "ciphertext": STRING}),
}


def _access(path: str) -> Access:
    return Access.ANTHROPIC if speaks_anthropic(path) else Access.KEY


def _body(schema: Schema) -> Body:
    return Body(schema, (JSON, *SEALED))


def _complete(path: str) -> Operation:
    shapes = SHAPES[path]
    stream = {
        **PLAIN,
        "description": f"each `data:` line holds a `{shapes.event}`"
        + ("" if path in ("/v1/messages", "/v1/responses") else ", the last one `[DONE]`"),
        "contentMediaType": EVENTS,
        "x-event": either(ref(shapes.event), ref("StreamError"))
        if shapes.event.endswith("Chunk")
        else ref(shapes.event),
    }
    content = {
        JSON: ref(shapes.answer),
        EVENTS: stream,
        **{kind: ref("SealedAnswer") for kind in SEALED},
    }
    return Operation(
        tag="Inference",
        access=_access(path),
        body=_body(ref(shapes.request)),
        answers={
            200: Answer(
                "the answer, whole or streamed; sealed where the request was",
                content,
                {name: name for name in ("X-Request-ID", *PROVIDER, *RATES)},
            )
        },
        refusals=_REFUSALS,
        headers=_WISHES,
    )


TABLE: Mapping[Key, Operation] = {
    **{("POST", path): _complete(path) for path in SHAPES},
    ("POST", COUNT_PATH): Operation(
        tag="Inference",
        access=Access.ANTHROPIC,
        body=_body(ref("MessagesRequest")),
        answers={
            200: Answer(
                "how many tokens `/v1/messages` would send",
                {JSON: ref("TokenCount"), **{kind: ref("SealedAnswer") for kind in SEALED}},
                {name: name for name in ("X-Request-ID", "X-Darkbloom-Token-Count", *RATES)},
            )
        },
        refusals=(400, 404, 408, 413, 422, 429, 503),
        headers=ROUTING,
        asks_others=True,
    ),
}
SUMMARIES: Mapping[str, str] = {
    "/v1/chat/completions": "Answer a chat, as OpenAI's chat completions do.",
    "/v1/completions": "Answer one prompt, as OpenAI's legacy completions do.",
    "/v1/messages": "Answer a chat, as Anthropic's messages do.",
    "/v1/responses": "Answer an input, as OpenAI's responses do, without state.",
    COUNT_PATH: "Count the tokens of a messages request.",
}
DETAILS_QUERY: Mapping[str, Any] = {
    "name": "metadata",
    "in": "query",
    "required": False,
    "description": "`details` adds `metadata` to the answer",
    "schema": STRING,
}
