"""The shape of a canonical message; nothing here ever quotes one."""

from collections.abc import Sequence
from typing import Any

from darkbloom_edge.errors import MalformedError

ROLES = frozenset({"system", "user", "assistant", "tool"})
"""Roles inside the box. `developer` and `function` are lowered to `system` and `tool`."""
MAX_MESSAGES = 65_536
"""Most messages of one request."""
MAX_TOOL_CALLS = 128
"""Most tool calls of one message."""


def check_messages(messages: Sequence[Any]) -> None:
    """Check the shape of canonical messages.

    Each has a role and a text `content`; an assistant may have `tool_calls`, a tool turn has its
    `tool_call_id`. Other fields are carried along.

    Raises:
        MalformedError: the first fault, with the path of its field.
    """
    if not messages:
        raise MalformedError("must not be empty", "messages")
    if len(messages) > MAX_MESSAGES:
        raise MalformedError(f"has more than {MAX_MESSAGES} entries", "messages")

    for index, message in enumerate(messages):
        _check_message(message, f"messages[{index}]")


def check_text(value: Any, path: str, *, empty: bool = True) -> str:
    """Return `value` if it is a string, and not empty unless that is allowed.

    Raises:
        MalformedError: it is not.
    """
    if not isinstance(value, str):
        raise MalformedError("must be a string", path)
    if not empty and not value:
        raise MalformedError("must not be empty", path)

    return value


def _check_message(message: Any, path: str) -> None:
    if not isinstance(message, dict):
        raise MalformedError("must be an object", path)

    role = check_text(message.get("role"), f"{path}.role")
    if role not in ROLES:
        raise MalformedError("is not a known role", f"{path}.role")
    check_text(message.get("content"), f"{path}.content")
    if role == "tool":
        check_text(message.get("tool_call_id"), f"{path}.tool_call_id", empty=False)
    if "tool_calls" in message:
        if role != "assistant":
            raise MalformedError("is only allowed in assistant messages", f"{path}.tool_calls")
        _check_tool_calls(message["tool_calls"], f"{path}.tool_calls")


def _check_tool_calls(calls: Any, path: str) -> None:
    if not isinstance(calls, list) or not 0 < len(calls) <= MAX_TOOL_CALLS:
        raise MalformedError(f"must be an array of 1 to {MAX_TOOL_CALLS} calls", path)

    for index, call in enumerate(calls):
        at = f"{path}[{index}]"
        if not isinstance(call, dict):
            raise MalformedError("must be an object", at)
        check_text(call.get("id"), f"{at}.id", empty=False)
        if call.get("type") != "function":
            raise MalformedError("must be function", f"{at}.type")
        function = call.get("function")
        if not isinstance(function, dict):
            raise MalformedError("must be an object", f"{at}.function")
        check_text(function.get("name"), f"{at}.function.name", empty=False)
        check_text(function.get("arguments"), f"{at}.function.arguments")
