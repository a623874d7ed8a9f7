"""What the gateway says of itself: health, documents, and where device management reports."""

from collections.abc import Mapping

from darkbloom_edge.dialects.schemas.parts import (
    ANY_OBJECT,
    BOOLEAN,
    COUNT,
    STRING,
    Schema,
    const,
    obj,
    ref,
)

from darkbloom_gateway.openapi.operation import (
    BINARY,
    BYTES,
    JSON,
    MARKDOWN,
    TEXT,
    Access,
    Answer,
    Body,
    Key,
    Operation,
    answer,
)

SCHEMAS: Mapping[str, Schema] = {
    "Readiness": obj(
        {"draining": BOOLEAN, "inflight": COUNT, "ready": BOOLEAN}, {"health_reason": STRING}
    ),
}
TABLE: Mapping[Key, Operation] = {
    ("GET", "/health"): Operation(
        tag="Health",
        access=Access.NOBODY_ASKED,
        answers=answer(
            obj(
                {
                    "status": const("ok"),
                    "version": STRING,
                    "build_commit": STRING,
                    "draining": BOOLEAN,
                }
            )
        ),
        asks_others=False,
    ),
    ("GET", "/readyz"): Operation(
        tag="Health",
        access=Access.NOBODY_ASKED,
        answers={
            **answer(ref("Readiness"), "new requests may come"),
            **answer(ref("Readiness"), "they should not", status=503),
        },
        asks_others=False,
    ),
    ("GET", "/openapi.json"): Operation(
        tag="Health",
        access=Access.NOBODY_ASKED,
        answers=answer(ANY_OBJECT, "this document"),
        asks_others=False,
    ),
    ("GET", "/llms.txt"): Operation(
        tag="Documentation",
        access=Access.NOBODY_ASKED,
        answers={200: Answer("the map", {TEXT: STRING})},
        asks_others=False,
    ),
    ("GET", "/llms-full.txt"): Operation(
        tag="Documentation",
        access=Access.NOBODY_ASKED,
        answers={200: Answer("every page", {TEXT: STRING})},
        asks_others=False,
    ),
    ("GET", "/docs/{page}"): Operation(
        tag="Documentation",
        access=Access.NOBODY_ASKED,
        answers={200: Answer("the page", {MARKDOWN: STRING})},
        refusals=(404,),
        asks_others=False,
    ),
    ("POST", "/v1/mdm/webhook"): Operation(
        tag="Webhooks",
        access=Access.WEBHOOK,
        body=Body(BINARY, (BYTES, JSON)),
        answers=answer(obj({"received": BOOLEAN})),
        name="mdm_webhook",
    ),
}
