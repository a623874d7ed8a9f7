"""Schemas of `POST /v1/messages` and `/v1/messages/count_tokens`, in Anthropic's words."""

from collections.abc import Mapping

from darkbloom_edge.dialects.chat_tools import MAX_TOOLS
from darkbloom_edge.dialects.schemas.chat import (
    BOUND,
    EFFORT,
    EXTRAS,
    MODEL,
    NAME,
    SAMPLING,
    STOP_TEXT,
    STREAM,
)
from darkbloom_edge.dialects.schemas.parts import (
    ANY_OBJECT,
    BOOLEAN,
    COUNT,
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
    words,
)

REQUEST, ANSWER, EVENT = "MessagesRequest", "Message", "MessageEvent"

_TEXT_BLOCK = obj({"type": const("text"), "text": STRING})
_TEXT = either(STRING, array(_TEXT_BLOCK))
_IMAGE = obj(
    {
        "type": const("image"),
        "source": either(
            obj({"type": const("base64"), "data": SOME}, {"media_type": STRING}),
            obj({"type": const("url"), "url": said(SOME, "a `data:` URI")}),
        ),
    }
)
_USER = obj(
    {
        "role": const("user"),
        "content": either(
            STRING,
            array(
                either(
                    _TEXT_BLOCK,
                    _IMAGE,
                    obj(
                        {"type": const("tool_result"), "tool_use_id": SOME},
                        {"content": nullable(_TEXT)},
                    ),
                )
            ),
        ),
    }
)
_ASSISTANT = obj(
    {
        "role": const("assistant"),
        "content": either(
            STRING,
            array(
                either(
                    _TEXT_BLOCK,
                    obj({"type": const("thinking"), "thinking": STRING}),
                    obj({"type": const("redacted_thinking")}),
                    obj({"type": const("tool_use"), "id": SOME, "name": SOME, "input": ANY_OBJECT}),
                )
            ),
        ),
    }
)
_TOOL = obj(
    {"name": NAME, "input_schema": ANY_OBJECT},
    options({"description": STRING, "strict": BOOLEAN, "type": const("custom")}),
)
_ONE_AT_A_TIME = options({"disable_parallel_tool_use": BOOLEAN})
_CHOICE = either(
    obj({"type": words("auto", "any", "none")}, _ONE_AT_A_TIME),
    obj({"type": const("tool"), "name": NAME}, _ONE_AT_A_TIME),
)
_FORMAT = obj({"type": const("json_schema"), "schema": ANY_OBJECT})
_USAGE = obj(
    {
        "input_tokens": said(COUNT, "without what came from a cache"),
        "cache_creation_input_tokens": COUNT,
        "cache_read_input_tokens": COUNT,
        "output_tokens": COUNT,
    }
)
_REASON = words("end_turn", "max_tokens", "tool_use", "stop_sequence", "refusal")
_HEAD: Mapping[str, Schema] = {
    "id": SOME,
    "type": const("message"),
    "role": const("assistant"),
    "model": STRING,
}

COMPONENTS: Mapping[str, Schema] = {
    REQUEST: obj(
        {"model": MODEL, "messages": array(either(_USER, _ASSISTANT), minItems=1)},
        options(
            {
                "max_tokens": BOUND,
                "system": _TEXT,
                "stream": STREAM,
                "temperature": SAMPLING["temperature"],
                "top_p": SAMPLING["top_p"],
                "top_k": SAMPLING["top_k"],
                "stop_sequences": array(STOP_TEXT, maxItems=16),
                "tools": array(_TOOL, maxItems=MAX_TOOLS),
                "tool_choice": _CHOICE,
                "thinking": either(
                    obj({"type": words("disabled", "adaptive")}),
                    obj({"type": const("enabled")}, options({"budget_tokens": whole(1)})),
                ),
                "output_config": obj({}, options({"effort": EFFORT, "format": _FORMAT})),
                "metadata_details": BOOLEAN,
            }
        ),
    ),
    ANSWER: obj(
        {
            **_HEAD,
            "content": array(
                either(
                    _TEXT_BLOCK,
                    obj({"type": const("thinking"), "thinking": STRING, "signature": STRING}),
                    obj(
                        {
                            "type": const("tool_use"),
                            "id": STRING,
                            "name": STRING,
                            "input": ANY_OBJECT,
                        }
                    ),
                )
            ),
            "stop_reason": _REASON,
            "stop_sequence": nullable(STRING),
            "usage": ref("MessageUsage"),
        },
        EXTRAS,
    ),
    "MessageUsage": _USAGE,
    EVENT: either(
        obj(
            {
                "type": const("message_start"),
                "message": obj({**_HEAD, "content": array({}), "usage": ref("MessageUsage")}),
            }
        ),
        obj({"type": const("content_block_start"), "index": COUNT, "content_block": ANY_OBJECT}),
        obj({"type": const("content_block_delta"), "index": COUNT, "delta": ANY_OBJECT}),
        obj({"type": const("content_block_stop"), "index": COUNT}),
        obj(
            {
                "type": const("message_delta"),
                "delta": obj({"stop_reason": _REASON, "stop_sequence": nullable(STRING)}),
                "usage": ref("MessageUsage"),
            },
            EXTRAS,
        ),
        obj({"type": words("message_stop", "ping")}),
        obj({"type": const("error"), "error": obj({"type": STRING, "message": STRING})}),
    ),
    "TokenCount": obj({"input_tokens": COUNT}),
}
