"""Models: what can be asked, what it takes, what machines may install."""

from collections.abc import Mapping

from darkbloom_edge.dialects.schemas.parts import (
    ANY_OBJECT,
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
    words,
)

from darkbloom_gateway.openapi.operation import JSON, Access, Answer, Key, Operation, answer

_LEVEL = words("none", "self_signed", "hardware")
_USD = said(STRING, "USD as a decimal text")
_PRICING = obj(
    dict.fromkeys(("prompt", "completion", "image", "request", "input_cache_read"), _USD)
)
_ABOUT: Mapping[str, Schema] = {
    "id": STRING,
    "name": STRING,
    "created": COUNT,
    "input_modalities": array(STRING),
    "output_modalities": array(STRING),
    "context_length": COUNT,
    "max_output_length": COUNT,
    "pricing": _PRICING,
    "supported_sampling_parameters": array(STRING),
    "supported_features": array(STRING),
}
_VERSION: Mapping[str, Schema] = {
    "r2_prefix": STRING,
    "aggregate_sha256": STRING,
    "identity_sha256": STRING,
    "size_bytes": COUNT,
    "file_count": COUNT,
    "sources": array(STRING),
}
SCHEMAS: Mapping[str, Schema] = {
    "Model": obj(
        {
            **_ABOUT,
            "object": const("model"),
            "owned_by": STRING,
            "hugging_face_id": STRING,
            "description": STRING,
            "quantization": STRING,
            "metadata": obj(
                {
                    "model_type": STRING,
                    "quantization": STRING,
                    "display_name": STRING,
                    "build": STRING,
                    "provider_count": COUNT,
                    "attested_providers": COUNT,
                    "trust_level": said(_LEVEL, "the best of those that serve it"),
                    "routable_providers": COUNT,
                    "warm_providers": COUNT,
                    "can_accept": BOOLEAN,
                }
            ),
        },
        {"deprecation_date": STRING},
    ),
    "ModelCapacity": obj(
        {
            "id": STRING,
            "build": STRING,
            "ready": BOOLEAN,
            "can_accept": BOOLEAN,
            "routable_providers": COUNT,
            "warm_providers": COUNT,
            "running_providers": COUNT,
            "cold_providers": COUNT,
            "active_requests": COUNT,
            "queued_requests": COUNT,
            "aggregate_tps": NUMBER,
            "estimated_ttft_ms": said(nullable(COUNT), "null where nobody has measured"),
            "token_budget_remaining": COUNT,
            "token_budget_total": COUNT,
        }
    ),
    "InstallEntry": obj(
        {
            "id": STRING,
            "display_name": STRING,
            "description": STRING,
            "type": STRING,
            "family": STRING,
            "architecture": STRING,
            "quantization": STRING,
            "context_length": COUNT,
            "max_output_length": COUNT,
            "min_ram_gb": COUNT,
            "est_resident_gb": NUMBER,
            "capabilities": array(STRING),
            "required_provider_capabilities": array(STRING),
            "status": STRING,
            "hugging_face_id": STRING,
            "version": STRING,
            "versions": array(obj({"version": STRING, **_VERSION})),
        },
        _VERSION,
    ),
}
_MANIFEST = Answer(
    "the manifest exactly as registered",
    {JSON: ANY_OBJECT},
    {"X-Request-ID": "X-Request-ID"},
)

TABLE: Mapping[Key, Operation] = {
    ("GET", "/v1/models"): Operation(
        tag="Models",
        access=Access.KEY,
        answers=answer(obj({"object": const("list"), "data": array(ref("Model"))})),
    ),
    ("GET", "/v1/models/{model_id}"): Operation(
        tag="Models", access=Access.KEY, answers=answer(ref("Model")), refusals=(404,)
    ),
    ("GET", "/v1/models/capacity"): Operation(
        tag="Models",
        access=Access.NOBODY_ASKED,
        answers=answer(obj({"models": array(ref("ModelCapacity"))})),
    ),
    ("GET", "/v1/models/openrouter"): Operation(
        tag="Models",
        access=Access.KEY,
        answers=answer(
            obj(
                {
                    "data": array(
                        obj(
                            {**_ABOUT, "is_ready": BOOLEAN, "datacenters": array(ANY_OBJECT)},
                            {
                                "hugging_face_id": STRING,
                                "quantization": STRING,
                                "description": STRING,
                                "deprecation_date": STRING,
                                "openrouter": obj({"slug": STRING}),
                            },
                        )
                    )
                }
            )
        ),
    ),
    ("GET", "/v1/models/catalog"): Operation(
        tag="Models",
        access=Access.NOBODY_ASKED,
        answers=answer(
            obj(
                {"models": array(ref("InstallEntry"))},
                {
                    "aliases": array(
                        obj(
                            {
                                "id": STRING,
                                "display_name": STRING,
                                "desired_build": STRING,
                                "previous_build": STRING,
                            }
                        )
                    )
                },
            )
        ),
    ),
    ("GET", "/v1/models/catalog/{model_id}"): Operation(
        tag="Models",
        access=Access.NOBODY_ASKED,
        answers=answer(ref("InstallEntry")),
        refusals=(404,),
        name="catalog_entry",
    ),
    ("GET", "/v1/models/catalog/manifest/{model_id}"): Operation(
        tag="Models",
        access=Access.NOBODY_ASKED,
        answers={200: _MANIFEST},
        refusals=(404,),
    ),
    ("GET", "/v1/catalog/keys"): Operation(
        tag="Models",
        access=Access.NOBODY_ASKED,
        answers=answer(
            obj(
                {
                    "issuer": STRING,
                    "manifest_keys": array(obj({"key_id": STRING, "public_key": STRING})),
                }
            )
        ),
        name="catalog_keys",
    ),
}
