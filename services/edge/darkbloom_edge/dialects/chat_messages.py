"""OpenAI chat messages to canonical ones: text only, one shape for each kind of turn."""

from typing import Any

from darkbloom_edge.errors import MalformedError, RequestError
from darkbloom_edge.messages import check_messages

_MEDIA = frozenset(
    {"image_url", "input_image", "video_url", "input_video", "input_audio", "audio_url", "file"}
)
_TEXT_KEYS = {"text": "text", "refusal": "refusal"}
_RENAMED = {"developer": "system", "function": "tool"}


def lower_messages(messages: list[Any] | None) -> list[dict[str, Any]]:
    """Return the canonical messages.

    Text parts are joined, `developer` becomes `system`, the old `function_call` and `function`
    become tool calls and tool turns, null fields are dropped, other fields are carried along.

    Raises:
        RequestError: missing, empty, of the wrong shape, or with media, which text builds refuse.
    """
    if messages is None:
        raise RequestError("messages is required", "messages")

    lowered = []
    last_call = ""
    for index, message in enumerate(messages):
        turn = _lower_message(message, f"messages[{index}]", f"call_{index}", last_call)
        if turn.get("tool_calls") and isinstance(message.get("function_call"), dict):
            last_call = f"call_{index}"
        lowered.append(turn)

    try:
        check_messages(lowered)
    except MalformedError as error:
        raise RequestError(str(error), error.field) from None

    return lowered


def _lower_message(message: Any, path: str, call_id: str, last_call: str) -> dict[str, Any]:
    """Lower one message; `last_call` is the id given to the latest old-style call."""
    if not isinstance(message, dict):
        raise RequestError(f"{path} must be an object", path)

    turn = {key: value for key, value in message.items() if value is not None}
    role = turn.get("role")
    if role == "function":
        # The old dialect has no ids: an answer belongs to the call before it.
        turn["tool_call_id"] = last_call or call_id
    if isinstance(role, str):
        turn["role"] = _RENAMED.get(role, role)
    if not turn.get("tool_calls"):
        turn.pop("tool_calls", None)
    if role == "assistant" and "function_call" in turn:
        _lower_function_call(turn, path, call_id)

    may_be_silent = role == "assistant" and "tool_calls" in turn
    turn["content"] = _lower_content(
        turn.get("content", "" if may_be_silent else None), f"{path}.content"
    )

    return turn


def _lower_function_call(turn: dict[str, Any], path: str, call_id: str) -> None:
    call = turn.pop("function_call")
    if not isinstance(call, dict) or "tool_calls" in turn:
        raise RequestError(
            f"{path}.function_call must be an object, without tool_calls", f"{path}.function_call"
        )

    function = {"name": call.get("name"), "arguments": call.get("arguments")}
    turn["tool_calls"] = [{"id": call_id, "type": "function", "function": function}]


def _lower_content(content: Any, path: str) -> Any:
    """Join text parts; anything but a list is checked with the canonical shape."""
    if content is None:
        raise RequestError(f"{path} is required", path)
    if not isinstance(content, list):
        return content

    return "".join(_part_text(part, f"{path}[{index}]") for index, part in enumerate(content))


def _part_text(part: Any, path: str) -> str:
    if not isinstance(part, dict):
        raise RequestError(f"{path} must be an object", path)

    kind = part.get("type")
    if isinstance(kind, str) and kind in _MEDIA:
        raise RequestError("this model takes text only, no media parts", f"{path}.type")
    key = _TEXT_KEYS.get(kind) if isinstance(kind, str) else None
    if key is None:
        raise RequestError(f"{path}.type is not a known kind of part", f"{path}.type")
    text = part.get(key)
    if not isinstance(text, str):
        raise RequestError(f"{path}.{key} must be a string", f"{path}.{key}")

    return text
