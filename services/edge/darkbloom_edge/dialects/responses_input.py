"""Input items of responses, lowered to turns of a chat."""

from typing import Any

from darkbloom_edge.dialects.media import MediaPart, joined, read_url
from darkbloom_edge.errors import RequestError
from darkbloom_edge.media import MediaKind

_ROLES = frozenset({"user", "assistant", "system", "developer"})
_TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
_MEDIA = {
    "input_image": ("image_url", MediaKind.IMAGE),
    "image_url": ("image_url", MediaKind.IMAGE),
    "video_url": ("video_url", MediaKind.VIDEO),
}
_UNTAKEN = frozenset({"input_file", "input_video", "input_audio"})


def lower_input(given: Any) -> list[dict[str, Any]]:
    """Return the turns of an input: one text, or items in their order.

    Reasoning items are dropped; calls of functions join the assistant's turn before them.

    Raises:
        RequestError: missing, empty, or with an item that does not belong here.
    """
    if given is None:
        raise RequestError("input is required", "input")
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not isinstance(given, list):
        raise RequestError("input must be a string or an array of items", "input")

    turns: list[dict[str, Any]] = []
    for index, item in enumerate(given):
        _take(item, f"input[{index}]", turns)
    if not turns:
        raise RequestError("input must not be empty", "input")

    return turns


def _take(item: Any, path: str, turns: list[dict[str, Any]]) -> None:
    if not isinstance(item, dict):
        raise RequestError(f"{path} must be an object", path)

    kind = item.get("type", "message" if "role" in item else None)
    if kind == "message":
        turns.append(_message(item, path))
    elif kind == "function_call":
        _call(item, path, turns)
    elif kind == "function_call_output":
        name = _required(item, "call_id", path)
        content = _text(item.get("output"), f"{path}.output")
        turns.append({"role": "tool", "tool_call_id": name, "content": content})
    elif kind == "item_reference":
        raise RequestError(f"{path} refers to an item, nothing is kept here", f"{path}.type")
    elif kind != "reasoning":
        raise RequestError(f"{path}.type is not a known kind of item here", f"{path}.type")


def _message(item: dict[str, Any], path: str) -> dict[str, Any]:
    role = item.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise RequestError(
            f"{path}.role must be user, assistant, system or developer", f"{path}.role"
        )

    content, at = item.get("content"), f"{path}.content"
    if role != "user" or not isinstance(content, list):
        return {"role": role, "content": _text(content, at)}
    parts = [_user_part(part, f"{at}[{index}]") for index, part in enumerate(content)]
    return {"role": role, "content": joined(parts)}


def _user_part(part: Any, path: str) -> str | MediaPart:
    found = _MEDIA.get(part["type"]) if _is_media(part) else None
    if found is None:
        return _part(part, path)
    if part.get("file_id") is not None:
        raise RequestError("file_id is not supported, nothing is kept here", f"{path}.file_id")

    key, kind = found
    url = part.get(key)
    if isinstance(url, dict):
        return read_url(url.get("url"), kind, f"{path}.{key}.url")
    return read_url(url, kind, f"{path}.{key}")


def _is_media(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("type"), str) and part["type"] in _MEDIA


def _call(item: dict[str, Any], path: str, turns: list[dict[str, Any]]) -> None:
    name = _required(item, "name", path)
    call_id = _required(item, "call_id", path)
    arguments = item.get("arguments")
    if not isinstance(arguments, str):
        raise RequestError(f"{path}.arguments must be a string", f"{path}.arguments")

    if not turns or turns[-1]["role"] != "assistant":
        turns.append({"role": "assistant", "content": ""})
    function = {"name": name, "arguments": arguments}
    calls = turns[-1].setdefault("tool_calls", [])
    calls.append({"id": call_id, "type": "function", "function": function})


def _required(item: dict[str, Any], key: str, path: str) -> str:
    value = item.get(key)
    if not isinstance(value, str) or not value:
        raise RequestError(f"{path}.{key} is required", f"{path}.{key}")

    return value


def _text(content: Any, path: str) -> str:
    """Return a text, or the text of all parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RequestError(f"{path} must be a string or an array of parts", path)

    return "".join(_part(part, f"{path}[{index}]") for index, part in enumerate(content))


def _part(part: Any, path: str) -> str:
    if not isinstance(part, dict):
        raise RequestError(f"{path} must be an object", path)
    kind = part.get("type")
    if isinstance(kind, str) and (kind in _MEDIA or kind in _UNTAKEN):
        raise RequestError(f"no model here takes such a part at this place: {path}", f"{path}.type")
    key = _TEXTS.get(kind) if isinstance(kind, str) else None
    if key is None:
        raise RequestError(f"{path}.type is not a known kind of part", f"{path}.type")
    text = part.get(key)
    if not isinstance(text, str):
        raise RequestError(f"{path}.{key} must be a string", f"{path}.{key}")

    return text
