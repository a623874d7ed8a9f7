"""Schemas of `POST /v1/chat/completions`, and of what the other OpenAI dialects share with it."""

from collections.abc import Mapping

from darkbloom_edge.dialects.chat_request import MAX_CHOICES
from darkbloom_edge.dialects.chat_sampling import (
    EFFORTS,
    MAX_BIASES,
    MAX_STOP_BYTES,
    MAX_STOPS,
)
from darkbloom_edge.dialects.chat_tools import MAX_TOOLS
from darkbloom_edge.dialects.schemas.parts import (
    ANY_OBJECT,
    BOOLEAN,
    COUNT,
    INTEGER,
    NULL,
    NUMBER,
    SOME,
    STRING,
    Schema,
    array,
    const,
    either,
    mapping,
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

REQUEST, ANSWER, EVENT = "ChatRequest", "ChatCompletion", "ChatCompletionChunk"

MODEL = said(text(minLength=1, maxLength=256), "an alias or a build, as `GET /v1/models` names it")
BOUND = whole(0)
STREAM = said(BOOLEAN, "server-sent events instead of one body")
NAME = text(pattern=r"^[A-Za-z0-9_-]{1,64}$")
STOP_TEXT = text(minLength=1, maxLength=MAX_STOP_BYTES)
PENALTIES: Mapping[str, Schema] = {
    "frequency_penalty": number(-2, 2),
    "presence_penalty": number(-2, 2),
    "repetition_penalty": number(0.01, 10),
}
SAMPLING: Mapping[str, Schema] = {
    "temperature": number(0, 2),
    "top_p": number(0, 1),
    "top_k": whole(0, 1_000_000),
    "min_p": number(0, 1),
    **PENALTIES,
    "seed": whole(-(2**63)),
    "stop": either(STOP_TEXT, array(STOP_TEXT, maxItems=MAX_STOPS)),
}
EFFORT = words(*EFFORTS)
BIAS: Schema = {
    "type": "object",
    "propertyNames": {"pattern": "^(0|[1-9][0-9]{0,9})$"},
    "additionalProperties": number(-100, 100),
    "maxProperties": MAX_BIASES,
}
FORMAT = either(
    obj({"type": const("text")}),
    obj({"type": const("json_object")}),
    obj(
        {
            "type": const("json_schema"),
            "json_schema": obj({"name": SOME, "schema": ANY_OBJECT}, {"strict": {}}),
        }
    ),
)
_CALL = obj(
    {
        "id": SOME,
        "type": const("function"),
        "function": obj({"name": SOME, "arguments": STRING}),
    }
)
_PART = either(
    obj({"type": const("text"), "text": STRING}),
    obj({"type": const("refusal"), "refusal": STRING}),
)
_CONTENT = either(STRING, array(_PART))
_URL = said(SOME, "a `data:` URI; chat also takes https addresses, where fetching is on")
_SHOWN = obj({"url": _URL})
_USER_PART = either(
    _PART,
    obj({"type": const("image_url"), "image_url": _SHOWN}),
    obj({"type": const("video_url"), "video_url": _SHOWN}),
)
_MESSAGE = either(
    obj({"role": words("system", "developer"), "content": _CONTENT}),
    obj({"role": const("user"), "content": either(STRING, array(_USER_PART))}),
    obj(
        {"role": const("assistant"), "content": _CONTENT},
        {"tool_calls": nullable(array(_CALL, maxItems=128)), "reasoning_content": nullable(STRING)},
    ),
    obj(
        {"role": const("assistant"), "tool_calls": array(_CALL, minItems=1, maxItems=128)},
        {"content": nullable(_CONTENT), "reasoning_content": nullable(STRING)},
    ),
    obj({"role": const("tool"), "content": _CONTENT, "tool_call_id": SOME}),
)
_TOOL = obj(
    {
        "type": const("function"),
        "function": obj(
            {"name": NAME},
            options({"description": STRING, "parameters": ANY_OBJECT, "strict": BOOLEAN}),
        ),
    }
)
_CHOICE_OF_TOOL = either(
    words("none", "auto", "required"),
    obj({"type": const("function"), "function": obj({"name": NAME})}),
)
_LOGPROB: Mapping[str, Schema] = {
    "token": STRING,
    "logprob": NUMBER,
    "bytes": nullable(array(COUNT)),
}
_LOGPROBS = obj(
    {
        "content": array(
            obj({**_LOGPROB, "top_logprobs": array(obj(_LOGPROB))}),
        ),
        "refusal": NULL,
    }
)
FINISH = words("stop", "length", "tool_calls", "content_filter")
HEAD: Mapping[str, Schema] = {"id": SOME, "created": COUNT, "model": STRING}
EXTRAS: Mapping[str, Schema] = {
    "receipt": ref("Receipt"),
    "receipts": array(ref("Receipt")),
    "metadata": either(ref("AnswerMetadata"), array(ref("AnswerMetadata"))),
}
"""Members that we add: `receipts` instead of `receipt` where there are several choices."""

COMPONENTS: Mapping[str, Schema] = {
    REQUEST: obj(
        {"model": MODEL, "messages": array(_MESSAGE, minItems=1)},
        options(
            {
                "stream": STREAM,
                "stream_options": obj({}, options({"include_usage": BOOLEAN})),
                "max_tokens": BOUND,
                "max_completion_tokens": BOUND,
                "max_output_tokens": BOUND,
                "n": said(whole(1, MAX_CHOICES), "each choice is a job of its own, and paid for"),
                **SAMPLING,
                "logprobs": BOOLEAN,
                "top_logprobs": said(whole(0, 20), "needs `logprobs`"),
                "logit_bias": BIAS,
                "reasoning_effort": EFFORT,
                "reasoning": obj({}, options({"effort": EFFORT})),
                "response_format": FORMAT,
                "tools": array(_TOOL, maxItems=MAX_TOOLS),
                "tool_choice": _CHOICE_OF_TOOL,
                "parallel_tool_calls": BOOLEAN,
                "modalities": {"const": ["text"]},
                "store": {"const": False},
                "metadata_details": said(BOOLEAN, "adds `metadata` to the answer"),
            }
        ),
    ),
    ANSWER: obj(
        {
            **HEAD,
            "object": const("chat.completion"),
            "choices": array(
                obj(
                    {
                        "index": COUNT,
                        "message": obj(
                            {"role": const("assistant"), "content": STRING, "refusal": NULL},
                            {"reasoning": STRING, "tool_calls": array(_CALL)},
                        ),
                        "logprobs": nullable(_LOGPROBS),
                        "finish_reason": FINISH,
                    }
                ),
                minItems=1,
            ),
            "usage": ref("Usage"),
        },
        EXTRAS,
    ),
    EVENT: obj(
        {
            **HEAD,
            "object": const("chat.completion.chunk"),
            "choices": array(
                obj(
                    {
                        "index": COUNT,
                        "delta": obj(
                            {},
                            {
                                "role": const("assistant"),
                                "content": STRING,
                                "reasoning": STRING,
                                "tool_calls": array(
                                    obj(
                                        {"index": COUNT, "function": obj({"arguments": STRING})},
                                        {"id": STRING, "type": const("function")},
                                    )
                                ),
                            },
                        ),
                        "finish_reason": nullable(FINISH),
                    },
                    {"logprobs": _LOGPROBS},
                )
            ),
        },
        {"usage": ref("Usage"), **EXTRAS},
    ),
    "Usage": obj(
        {
            "prompt_tokens": COUNT,
            "completion_tokens": COUNT,
            "total_tokens": COUNT,
            "prompt_tokens_details": obj({"cached_tokens": COUNT}),
            "completion_tokens_details": obj({"reasoning_tokens": COUNT}),
        }
    ),
    "Receipt": said(
        obj(
            {
                "version": INTEGER,
                "terminal": STRING,
                "terminal_signature": STRING,
                "identity_key": STRING,
                "verdict": STRING,
                "verdict_signature": STRING,
                "verdict_key_id": STRING,
                "countersign": STRING,
                "countersign_signature": STRING,
                "gateway_key_id": STRING,
            },
            {"receipt_key": nullable(STRING)},
        ),
        "signed by the machine that answered and countersigned here; `darkbloom verify` checks it",
    ),
    "AnswerMetadata": obj(
        {
            "provider_id": STRING,
            "provider_attested": BOOLEAN,
            "provider_trust_level": words("none", "self_signed", "hardware"),
            "provider_encrypted": BOOLEAN,
            "job_id": STRING,
            "timing": mapping(COUNT),
        }
    ),
}
