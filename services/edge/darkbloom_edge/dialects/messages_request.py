"""Anthropic messages bodies, lowered to chat ones (spec of the HTTP API §6.3).

`metadata`, `service_tier` and `cache_control` are dropped: they tell who asks, or have no effect.
"""

from typing import Any

from darkbloom_edge.dialects.chat_request import Lowered, lower_fields, parse_body
from darkbloom_edge.dialects.fields import Fields
from darkbloom_edge.dialects.messages_blocks import lower_system, lower_turn
from darkbloom_edge.errors import RequestError

_SAME = ("model", "stream", "max_tokens", "temperature", "top_p", "top_k", "metadata_details")
_FORMER = {
    "stop": "stop_sequences",
    "response_format": "output_config.format",
    "reasoning_effort": "output_config.effort",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
}
"""Names in this dialect of what the chat dialect complains of."""
_LOW_BUDGET, _MEDIUM_BUDGET = 4096, 16_384
"""Thinking budgets up to these tokens are low and medium effort."""


def lower(body: bytes) -> Lowered:
    """Read a messages body.

    Raises:
        RequestError: as for chat, with the names of this dialect.
    """
    values = parse_body(body)
    fields = Fields(values)
    _refuse_unsupported(fields)
    chat = {name: values[name] for name in _SAME if name in values}
    chat["messages"] = [*lower_system(fields.get("system")), *_turns(fields)]
    chat["stop"] = _stops(fields)
    chat |= _tools(fields)
    config = Fields(fields.object("output_config") or {})
    chat["reasoning_effort"] = _effort(fields, config)
    chat["response_format"] = _format(fields, config)
    echo = {"stop_sequences": chat["stop"]} if chat["stop"] else None

    try:
        return lower_fields(chat, echo)
    except RequestError as error:
        raise _renamed(error) from None


def _renamed(error: RequestError) -> RequestError:
    """Return the error with the names of this dialect: tools are flat here."""
    param = error.param or ""
    shown = _FORMER.get(param) or param.replace(".function.parameters", ".input_schema")
    shown = shown.replace(".function", "")
    message = error.message.replace(param, shown) if param else error.message

    return RequestError(message, shown or None, error.code, error.status, error.type)


def _refuse_unsupported(fields: Fields) -> None:
    for name in ("container", "context_management", "mcp_servers"):
        if fields.get(name):
            raise RequestError(f"{name} is not supported, nothing is kept or run here", name)


def _turns(fields: Fields) -> list[dict[str, Any]]:
    messages = fields.array("messages")
    if messages is None:
        raise RequestError("messages is required", "messages")
    if not messages:
        raise RequestError("messages must not be empty", "messages")

    turns: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        turns += lower_turn(message, f"messages[{index}]")

    return turns


def _stops(fields: Fields) -> list[Any] | None:
    stops = fields.array("stop_sequences")
    return stops or None


def _tools(fields: Fields) -> dict[str, Any]:
    tools = fields.array("tools") or []
    lowered: dict[str, Any] = {}
    if tools:
        lowered["tools"] = [
            _lower_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools)
        ]
    choice = fields.object("tool_choice")
    if choice is None:
        return lowered

    if Fields(choice).flag("disable_parallel_tool_use"):
        lowered["parallel_tool_calls"] = False
    kind = choice.get("type")
    if kind == "tool":
        name = choice.get("name")
        if not isinstance(name, str):
            raise RequestError("tool_choice.name must be a string", "tool_choice.name")
        lowered["tool_choice"] = {"type": "function", "function": {"name": name}}
    elif kind in ("auto", "any", "none"):
        lowered["tool_choice"] = "required" if kind == "any" else kind
    else:
        raise RequestError("tool_choice.type must be auto, any, none or tool", "tool_choice.type")

    return lowered


def _lower_tool(tool: Any, path: str) -> dict[str, Any]:
    if not isinstance(tool, dict):
        raise RequestError(f"{path} must be an object", path)
    if tool.get("type") not in (None, "custom"):
        raise RequestError(f"{path}.type must be custom, no tools run here", f"{path}.type")
    schema = tool.get("input_schema")
    if not isinstance(schema, dict):
        raise RequestError(f"{path}.input_schema must be an object", f"{path}.input_schema")

    function = {"name": tool.get("name"), "parameters": schema}
    for name in ("description", "strict"):
        if tool.get(name) is not None:
            function[name] = tool[name]

    return {"type": "function", "function": function}


def _effort(fields: Fields, config: Fields) -> str | None:
    """Return the effort that was named, or the one that a thinking budget stands for."""
    named = config.text("effort")
    thinking = fields.object("thinking")
    if thinking is None:
        return named

    kind = thinking.get("type")
    if kind == "disabled":
        return "none"
    if kind == "adaptive":
        return named or "medium"
    if kind != "enabled":
        raise RequestError("thinking.type must be enabled, adaptive or disabled", "thinking.type")
    budget = Fields(thinking).integer("budget_tokens", 1)
    if named is not None or budget is None:
        return named or "medium"
    if budget <= _LOW_BUDGET:
        return "low"

    return "medium" if budget <= _MEDIUM_BUDGET else "high"


def _format(fields: Fields, config: Fields) -> dict[str, Any] | None:
    """Return the wanted shape of the text, under either of the names that it has had."""
    form = config.object("format") or fields.object("output_format")
    if form is None:
        return None
    if form.get("type") != "json_schema" or not isinstance(form.get("schema"), dict):
        raise RequestError(
            "output_config.format must be a json_schema with a schema", "output_config.format"
        )

    named = {"name": "output", "schema": form["schema"], "strict": True}
    return {"type": "json_schema", "json_schema": named}
