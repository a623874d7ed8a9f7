"""Schemas of `POST /v1/completions`."""

from collections.abc import Mapping

from darkbloom_edge.dialects.chat_request import MAX_CHOICES
from darkbloom_edge.dialects.schemas.chat import (
    BIAS,
    BOUND,
    EFFORT,
    EXTRAS,
    FINISH,
    FORMAT,
    HEAD,
    MODEL,
    SAMPLING,
    STREAM,
)
from darkbloom_edge.dialects.schemas.parts import (
    BOOLEAN,
    COUNT,
    NULL,
    SOME,
    STRING,
    Schema,
    array,
    const,
    either,
    nullable,
    obj,
    options,
    ref,
    said,
    whole,
)

REQUEST, ANSWER, EVENT = "CompletionRequest", "Completion", "CompletionChunk"


def _choice(finish: Schema) -> Schema:
    return obj(
        {"index": COUNT, "text": STRING, "logprobs": NULL, "finish_reason": finish},
        {"reasoning": STRING},
    )


COMPONENTS: Mapping[str, Schema] = {
    REQUEST: obj(
        {
            "model": MODEL,
            "prompt": said(
                either(SOME, array(SOME, minItems=1, maxItems=MAX_CHOICES)),
                "each text becomes one user message, and one job for each of `n`",
            ),
        },
        options(
            {
                "stream": STREAM,
                "stream_options": obj({}, options({"include_usage": BOOLEAN})),
                "max_tokens": BOUND,
                "n": whole(1, MAX_CHOICES),
                **SAMPLING,
                "logit_bias": BIAS,
                "reasoning_effort": EFFORT,
                "response_format": FORMAT,
                "metadata_details": BOOLEAN,
                "suffix": {"const": ""},
                "echo": {"const": False},
            }
        ),
    ),
    ANSWER: obj(
        {
            **HEAD,
            "object": const("text_completion"),
            "choices": array(_choice(FINISH), minItems=1),
            "usage": ref("Usage"),
        },
        EXTRAS,
    ),
    EVENT: obj(
        {
            **HEAD,
            "object": const("text_completion"),
            "choices": array(_choice(nullable(FINISH))),
        },
        {"usage": ref("Usage"), **EXTRAS},
    ),
}
