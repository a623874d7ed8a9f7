"""OpenAI responses bodies, lowered to chat ones (spec of the HTTP API §6.2).

There is no state on the server: whatever would need one is refused, never answered without it.
`include`, `truncation`, `service_tier` and what tells who asks have no effect.
"""

from typing import Any

from darkbloom_edge.dialects.chat_request import Lowered, lower_fields, parse_body
from darkbloom_edge.dialects.fields import Fields
from darkbloom_edge.dialects.responses_input import lower_input
from darkbloom_edge.errors import RequestError

_SAME = (
    "model",
    "stream",
    "max_output_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "seed",
    "stop",
    "parallel_tool_calls",
    "reasoning",
    "store",
    "background",
    "previous_response_id",
    "metadata_details",
)
_ECHOED = (
    "instructions",
    "max_output_tokens",
    "metadata",
    "parallel_tool_calls",
    "reasoning",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
)
_LOGPROBS = "message.output_text.logprobs"


def lower(body: bytes) -> Lowered:
    """Read a responses body.

    Raises:
        RequestError: as for chat, with the names of this dialect.
    """
    values = parse_body(body)
    fields = Fields(values)
    _refuse_unsupported(fields)
    chat = {name: values[name] for name in _SAME if name in values}
    chat["messages"] = [*_instructions(fields), *lower_input(fields.get("input"))]
    chat |= _tools(fields)
    chat["response_format"] = _format(fields.object("text"))
    if _LOGPROBS in (fields.array("include") or ()):
        chat |= {"logprobs": True, "top_logprobs": values.get("top_logprobs")}
    if not isinstance(fields.object("metadata"), dict | None):
        raise RequestError("metadata must be an object", "metadata")
    echo = {name: values[name] for name in _ECHOED if values.get(name) is not None}

    try:
        return lower_fields(chat, echo)
    except RequestError as error:
        raise _renamed(error) from None


def _renamed(error: RequestError) -> RequestError:
    """Return the error with the names of this dialect: tools and choices are flat here."""
    param = error.param or ""
    shown = param.replace(".function", "").replace("response_format.json_schema", "text.format")
    shown = shown.replace("response_format", "text.format")
    message = error.message.replace(param, shown) if param else error.message

    return RequestError(message, shown or None, error.code, error.status, error.type)


def _refuse_unsupported(fields: Fields) -> None:
    for name in ("conversation", "prompt"):
        if fields.get(name) is not None:
            raise RequestError(f"{name} is not supported, nothing is kept here", name)


def _instructions(fields: Fields) -> list[dict[str, Any]]:
    text = fields.text("instructions")
    return [{"role": "system", "content": text}] if text else []


def _tools(fields: Fields) -> dict[str, Any]:
    lowered: dict[str, Any] = {}
    tools = fields.array("tools")
    if tools:
        lowered["tools"] = [
            _lower_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools)
        ]
    choice = fields.get("tool_choice")
    if isinstance(choice, dict):
        if choice.get("type") != "function":
            raise RequestError("tool_choice.type must be function", "tool_choice.type")
        choice = {"type": "function", "function": {"name": choice.get("name")}}
    if choice is not None:
        lowered["tool_choice"] = choice

    return lowered


def _lower_tool(tool: Any, path: str) -> dict[str, Any]:
    if not isinstance(tool, dict):
        raise RequestError(f"{path} must be an object", path)
    if tool.get("type") != "function":
        raise RequestError(f"{path}.type must be function, no tools run here", f"{path}.type")

    names = ("name", "description", "parameters", "strict")
    function = {name: tool[name] for name in names if tool.get(name) is not None}
    return {"type": "function", "function": function}


def _format(text: dict[str, Any] | None) -> dict[str, Any] | None:
    form = Fields(text or {}).object("format")
    if form is None or form.get("type") != "json_schema":
        return form

    names = ("name", "description", "schema", "strict")
    return {
        "type": "json_schema",
        "json_schema": {name: form[name] for name in names if form.get(name) is not None},
    }
