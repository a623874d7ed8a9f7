"""OpenAI chat messages to canonical ones: one shape for each kind of turn."""

from typing import Any

from darkbloom_edge.dialects.media import MediaPart, joined, read_url
from darkbloom_edge.errors import MalformedError, RequestError
from darkbloom_edge.media import MediaKind
from darkbloom_edge.messages import check_messages

_MEDIA = {"image_url": MediaKind.IMAGE, "video_url": MediaKind.VIDEO}
_UNTAKEN = frozenset({"input_image", "input_video", "input_audio", "audio_url", "file"})
_TEXT_KEYS = {"text": "text", "refusal": "refusal"}
_RENAMED = {"developer": "system", "function": "tool"}


def lower_messages(messages: list[Any] | None) -> list[dict[str, Any]]:
    """Return the canonical messages.

    Text parts are joined, `developer` becomes `system`, the old `function_call` and `function`
    become tool calls and tool turns, null fields are dropped, other fields are carried along.
    Images and videos stay parts of their turn, or stand for what is still to be fetched.

    Raises:
        RequestError: missing, empty, of the wrong shape, or with media that nobody here takes.
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
        check_messages(lowered, placeholders=True)
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
        turn.get("content", "" if may_be_silent else None), f"{path}.content", role
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


def _lower_content(content: Any, path: str, role: Any) -> Any:
    """Join text parts; anything but a list is checked with the canonical shape."""
    if content is None:
        raise RequestError(f"{path} is required", path)
    if not isinstance(content, list):
        return content

    return joined([_part(part, f"{path}[{index}]", role) for index, part in enumerate(content)])


def _part(part: Any, path: str, role: Any) -> str | MediaPart:
    if isinstance(part, MediaPart):
        # Another dialect has read it.
        return part
    if not isinstance(part, dict):
        raise RequestError(f"{path} must be an object", path)

    kind = part.get("type")
    if isinstance(kind, str) and kind in _MEDIA:
        if role != "user":
            raise RequestError("media belong into messages of the user", f"{path}.type")
        return _media(part, kind, f"{path}.{kind}")
    if isinstance(kind, str) and kind in _UNTAKEN:
        raise RequestError(f"no model here takes parts of this kind: {path}", f"{path}.type")
    key = _TEXT_KEYS.get(kind) if isinstance(kind, str) else None
    if key is None:
        raise RequestError(f"{path}.type is not a known kind of part", f"{path}.type")
    text = part.get(key)
    if not isinstance(text, str):
        raise RequestError(f"{path}.{key} must be a string", f"{path}.{key}")

    return text


def _media(part: dict[str, Any], key: str, path: str) -> MediaPart:
    given = part.get(key)
    url = given.get("url") if isinstance(given, dict) else None
    return read_url(url, _MEDIA[key], f"{path}.url", remote=True)
