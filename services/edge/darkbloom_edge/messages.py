"""The shape of a canonical message; nothing here ever quotes one."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from darkbloom_edge.errors import MalformedError
from darkbloom_edge.media import MAX_MEDIA, MAX_TOTAL_BYTES, check_part

ROLES = frozenset({"system", "user", "assistant", "tool"})
"""Roles inside the box. `developer` and `function` are lowered to `system` and `tool`."""
MAX_MESSAGES = 65_536
"""Most messages of one request."""
MAX_TOOL_CALLS = 128
"""Most tool calls of one message."""


def check_messages(messages: Sequence[Any], *, placeholders: bool = False) -> None:
    """Check the shape of canonical messages.

    Each has a role and a text `content`; an assistant may have `tool_calls`, a tool turn has its
    `tool_call_id`. A user's content may be parts instead, where at least one is an image or a
    video. Other fields are carried along.

    Args:
        messages: what is checked.
        placeholders: whether parts may stand for media that are still to be fetched.

    Raises:
        MalformedError: the first fault, with the path of its field.
    """
    if not messages:
        raise MalformedError("must not be empty", "messages")
    if len(messages) > MAX_MESSAGES:
        raise MalformedError(f"has more than {MAX_MESSAGES} entries", "messages")

    for index, message in enumerate(messages):
        _check_message(message, f"messages[{index}]", placeholders=placeholders)
    _check_total(media_of(messages))


def texts_of(message: Mapping[str, Any]) -> Iterator[str]:
    """Give the texts of a message's content."""
    content = message.get("content")
    if isinstance(content, str):
        yield content
        return
    for part in content or ():
        if part.get("type") == "text":
            yield part["text"]


def media_of(messages: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Give every image and video, in order, also those that are still to be fetched."""
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            yield from (part for part in content if part.get("type") != "text")


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


def _check_message(message: Any, path: str, *, placeholders: bool) -> None:
    if not isinstance(message, dict):
        raise MalformedError("must be an object", path)

    role = check_text(message.get("role"), f"{path}.role")
    if role not in ROLES:
        raise MalformedError("is not a known role", f"{path}.role")
    content = message.get("content")
    if role == "user" and isinstance(content, list):
        _check_parts(content, f"{path}.content", placeholders=placeholders)
    else:
        check_text(content, f"{path}.content")
    if role == "tool":
        check_text(message.get("tool_call_id"), f"{path}.tool_call_id", empty=False)
    if "tool_calls" in message:
        if role != "assistant":
            raise MalformedError("is only allowed in assistant messages", f"{path}.tool_calls")
        _check_tool_calls(message["tool_calls"], f"{path}.tool_calls")


def _check_parts(parts: list[Any], path: str, *, placeholders: bool) -> None:
    """Check parts: texts that are not empty, no two beside each other, and media."""
    before, media = "", 0
    for index, part in enumerate(parts):
        at = f"{path}[{index}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and before != "text" and part.keys() == {"type", "text"}:
            check_text(part["text"], f"{at}.text", empty=False)
        elif not (placeholders and isinstance(kind, str) and kind.startswith("remote_")):
            media += 1
            if kind not in ("image", "video"):
                raise MalformedError("is no part of a message", at)
            try:
                check_part(part)
            except MalformedError as error:
                raise MalformedError(error.what, at) from None
        else:
            media += 1
        before = kind
    if not media:
        raise MalformedError("must be a string where there are no media", path)


def _check_total(media: Iterator[Mapping[str, Any]]) -> None:
    count = size = 0
    for part in media:
        count += 1
        size += len(part.get("data", "")) // 4 * 3
    if count > MAX_MEDIA:
        raise MalformedError(f"has more than {MAX_MEDIA} media", "messages")
    # Padding: two bytes of each may be none.
    if size - 2 * count > MAX_TOTAL_BYTES:
        raise MalformedError(f"has more than {MAX_TOTAL_BYTES} bytes of media", "messages")


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
