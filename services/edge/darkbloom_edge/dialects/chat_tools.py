"""OpenAI tools and tool choice, the retired `functions` included."""

import re
from typing import Any, Literal, NamedTuple

from darkbloom_edge.dialects.fields import Fields
from darkbloom_edge.errors import MalformedError, RequestError
from darkbloom_edge.schema import check_schema

ToolPolicy = Literal["none", "auto", "required", "named"]
"""What the caller allows: no call, the model's choice, any call, or one certain function."""

MAX_TOOLS = 128
"""Most tools of one request."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_POLICIES: tuple[ToolPolicy, ...] = ("none", "auto", "required")


class Tools(NamedTuple):
    """The lowered tools of a request; all empty when there are none."""

    tools: list[dict[str, Any]] | None = None
    choice: str | dict[str, Any] | None = None
    """Absent means `auto`."""
    policy: ToolPolicy = "auto"
    parallel: bool | None = None


def lower_tools(fields: Fields) -> Tools:
    """Read `tools`, `tool_choice`, `parallel_tool_calls`, or `functions` and `function_call`.

    Raises:
        RequestError: wrong shape, a tool that is no function, a name that is malformed or comes
            twice, or a choice that needs a tool which is not there.
    """
    tools, choice = fields.array("tools"), fields.get("tool_choice")
    names, choice_field = "tools", "tool_choice"
    if tools is None and fields.get("functions") is not None:
        functions = fields.array("functions") or []
        tools = [{"type": "function", "function": function} for function in functions]
        names, choice_field = "functions", "function_call"
        choice = _choice_of_old(fields.get("function_call"))
    parallel = fields.flag("parallel_tool_calls")

    known = _check_tools(tools or [], names)
    policy = _check_choice(choice, known, choice_field)
    if not tools:
        return Tools()
    if policy in ("required", "named"):
        _check_enforceable(tools, names)

    return Tools(tools, None if policy == "auto" else choice, policy, parallel)


def _check_enforceable(tools: list[Any], field: str) -> None:
    """Refuse parameters that a forced call could not be held to."""
    for index, tool in enumerate(tools):
        try:
            check_schema(tool["function"].get("parameters") or {})
        except MalformedError as error:
            path = f"{field}[{index}].function.parameters"
            raise RequestError(f"{path}: {error.what}", path, status=422) from None


def _choice_of_old(call: Any) -> Any:
    if isinstance(call, dict):
        return {"type": "function", "function": {"name": call.get("name")}}

    return call


def _check_tools(tools: list[Any], field: str) -> frozenset[str]:
    if len(tools) > MAX_TOOLS:
        raise RequestError(f"{field} has more than {MAX_TOOLS} entries", field)

    names: set[str] = set()
    for index, tool in enumerate(tools):
        path = f"{field}[{index}]"
        name = _check_tool(tool, path)
        if name in names:
            raise RequestError(f"{path} repeats a function name", path)
        names.add(name)

    return frozenset(names)


def _check_tool(tool: Any, path: str) -> str:
    if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
        raise RequestError(f"{path} must be an object with a type", path)
    if tool["type"] != "function":
        raise RequestError(f"{path}.type must be function", f"{path}.type")
    function = tool.get("function")
    if not isinstance(function, dict):
        raise RequestError(f"{path}.function must be an object", f"{path}.function")

    name = function.get("name")
    if not isinstance(name, str) or _NAME.match(name) is None:
        raise RequestError(
            f"{path}.function.name must be 1 to 64 letters, digits, _ or -", f"{path}.function.name"
        )
    optional = (("description", str), ("parameters", dict), ("strict", bool))
    for key, kind in optional:
        if not isinstance(function.get(key), kind | None):
            raise RequestError(f"{path}.function.{key} has the wrong type", path)

    return name


def _check_choice(choice: Any, names: frozenset[str], field: str) -> ToolPolicy:
    if choice is None:
        return "auto"

    for policy in _POLICIES:
        if choice == policy:
            if policy == "required" and not names:
                raise RequestError(f"{field} required needs tools", field)
            return policy

    if not isinstance(choice, dict) or choice.get("type") != "function":
        raise RequestError(f"{field} must be none, auto, required or a named function", field)
    function = choice.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise RequestError(f"{field} must be none, auto, required or a named function", field)
    if name not in names:
        raise RequestError(f"{field} names a function that is not in tools", field)

    return "named"
