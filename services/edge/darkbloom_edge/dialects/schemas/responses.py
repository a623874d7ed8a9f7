"""Schemas of `POST /v1/responses`."""

from collections.abc import Mapping

from darkbloom_edge.dialects.chat_tools import MAX_TOOLS
from darkbloom_edge.dialects.schemas.chat import (
    BOUND,
    EFFORT,
    EXTRAS,
    MODEL,
    NAME,
    SAMPLING,
    STREAM,
)
from darkbloom_edge.dialects.schemas.parts import (
    ANY_OBJECT,
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
    words,
)

REQUEST, ANSWER, EVENT = "ResponsesRequest", "Response", "ResponseEvent"

_PART = either(
    obj({"type": words("input_text", "output_text", "text"), "text": STRING}),
    obj({"type": const("refusal"), "refusal": STRING}),
)
_TEXT = either(STRING, array(_PART))
_URL = said(SOME, "a `data:` URI")
_SHOWN = either(_URL, obj({"url": _URL}))
_USER_PART = either(
    _PART,
    obj({"type": words("input_image", "image_url"), "image_url": _SHOWN}),
    obj({"type": const("video_url"), "video_url": _SHOWN}),
)
_ITEM = either(
    obj(
        {"role": words("assistant", "system", "developer"), "content": _TEXT},
        {"type": const("message")},
    ),
    obj(
        {"role": const("user"), "content": either(STRING, array(_USER_PART))},
        {"type": const("message")},
    ),
    obj({"type": const("function_call"), "call_id": SOME, "name": SOME, "arguments": STRING}),
    obj({"type": const("function_call_output"), "call_id": SOME, "output": _TEXT}),
)
_TOOL = obj(
    {"type": const("function"), "name": NAME},
    options({"description": STRING, "parameters": ANY_OBJECT, "strict": BOOLEAN}),
)
_FORMAT = either(
    obj({"type": words("text", "json_object")}),
    obj({"type": const("json_schema"), "name": SOME, "schema": ANY_OBJECT}, {"strict": {}}),
)
_NOTHING_IS_KEPT = "nothing is kept here: anything else is refused"
_STATUS = words("completed", "incomplete", "in_progress")
_OUTPUT = either(
    obj(
        {
            "id": STRING,
            "type": const("reasoning"),
            "status": _STATUS,
            "summary": array(obj({"type": const("summary_text"), "text": STRING})),
        }
    ),
    obj(
        {
            "id": STRING,
            "type": const("message"),
            "status": _STATUS,
            "role": const("assistant"),
            "content": array(
                obj(
                    {
                        "type": const("output_text"),
                        "text": STRING,
                        "annotations": array({}),
                        "logprobs": array(ANY_OBJECT),
                    }
                )
            ),
        }
    ),
    obj(
        {
            "id": STRING,
            "type": const("function_call"),
            "status": _STATUS,
            "call_id": STRING,
            "name": STRING,
            "arguments": STRING,
        }
    ),
)

_BESIDE = {name: schema for name, schema in EXTRAS.items() if name != "metadata"}
"""`metadata` is the caller's own here, and repeated."""

COMPONENTS: Mapping[str, Schema] = {
    REQUEST: obj(
        {
            "model": MODEL,
            "input": either(STRING, array(_ITEM, minItems=1)),
        },
        options(
            {
                "instructions": STRING,
                "stream": STREAM,
                "max_output_tokens": BOUND,
                **SAMPLING,
                "tools": array(_TOOL, maxItems=MAX_TOOLS),
                "tool_choice": either(
                    words("none", "auto", "required"),
                    obj({"type": const("function"), "name": NAME}),
                ),
                "parallel_tool_calls": BOOLEAN,
                "text": obj({}, options({"format": _FORMAT})),
                "reasoning": obj({}, options({"effort": EFFORT})),
                "include": array(STRING),
                "top_logprobs": whole(0, 20),
                "metadata": ANY_OBJECT,
                "metadata_details": BOOLEAN,
                "store": said({"const": False}, _NOTHING_IS_KEPT),
                "background": said({"const": False}, _NOTHING_IS_KEPT),
                "previous_response_id": said(NULL, _NOTHING_IS_KEPT),
                "conversation": said(NULL, _NOTHING_IS_KEPT),
                "prompt": said(NULL, _NOTHING_IS_KEPT),
            }
        ),
    ),
    ANSWER: obj(
        {
            "id": SOME,
            "object": const("response"),
            "created_at": COUNT,
            "status": _STATUS,
            "background": {"const": False},
            "error": NULL,
            "incomplete_details": nullable(
                obj({"reason": words("max_output_tokens", "content_filter")})
            ),
            "instructions": nullable(STRING),
            "max_output_tokens": nullable(COUNT),
            "metadata": ANY_OBJECT,
            "model": STRING,
            "output": array(_OUTPUT),
            "parallel_tool_calls": BOOLEAN,
            "previous_response_id": NULL,
            "reasoning": ANY_OBJECT,
            "store": {"const": False},
            "temperature": nullable({"type": "number"}),
            "text": ANY_OBJECT,
            "tool_choice": {},
            "tools": array(ANY_OBJECT),
            "top_p": nullable({"type": "number"}),
            "truncation": const("disabled"),
            "usage": nullable(ref("ResponseUsage")),
        },
        {**_BESIDE, "metadata_details": EXTRAS["metadata"]},
    ),
    "ResponseUsage": obj(
        {
            "input_tokens": COUNT,
            "input_tokens_details": obj({"cached_tokens": COUNT, "cache_write_tokens": COUNT}),
            "output_tokens": COUNT,
            "output_tokens_details": obj({"reasoning_tokens": COUNT}),
            "total_tokens": COUNT,
        }
    ),
    EVENT: said(
        either(
            obj(
                {
                    "type": words(
                        "response.created",
                        "response.in_progress",
                        "response.completed",
                        "response.incomplete",
                    ),
                    "sequence_number": COUNT,
                    "response": ref("Response"),
                }
            ),
            obj(
                {
                    "type": words("response.output_item.added", "response.output_item.done"),
                    "sequence_number": COUNT,
                    "output_index": COUNT,
                    "item": _OUTPUT,
                }
            ),
            obj(
                {
                    "type": words(
                        "response.content_part.added",
                        "response.content_part.done",
                        "response.reasoning_summary_part.added",
                        "response.reasoning_summary_part.done",
                        "response.output_text.delta",
                        "response.output_text.done",
                        "response.reasoning_summary_text.delta",
                        "response.reasoning_summary_text.done",
                        "response.function_call_arguments.delta",
                        "response.function_call_arguments.done",
                    ),
                    "sequence_number": COUNT,
                    "item_id": STRING,
                    "output_index": COUNT,
                }
            ),
            obj(
                {
                    "type": const("error"),
                    "sequence_number": COUNT,
                    "code": STRING,
                    "message": STRING,
                    "param": NULL,
                }
            ),
        ),
        "each event has its type also in its `event:` line; there is no `[DONE]`",
    ),
}
