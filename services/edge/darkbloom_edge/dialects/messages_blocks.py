"""Content blocks of Anthropic messages, lowered to turns of a chat."""

from collections.abc import Mapping
from typing import Any

import orjson

from darkbloom_edge.dialects.media import MediaPart, joined, read_base64, read_url
from darkbloom_edge.errors import RequestError
from darkbloom_edge.media import MediaKind

_MEDIA = frozenset({"image", "document", "video", "audio"})


def lower_system(system: Any) -> list[dict[str, Any]]:
    """Return the system turn: none, a text, or text blocks in their order.

    Raises:
        RequestError: it is something else.
    """
    if system is None or system == "":
        return []

    return [{"role": "system", "content": _joined_text(system, "system")}]


def lower_turn(message: Any, path: str) -> list[dict[str, Any]]:
    """Return the chat turns of one message: answers of tools become turns of their own.

    Raises:
        RequestError: a shape, a role or a kind of block that does not belong here.
    """
    if not isinstance(message, dict):
        raise RequestError(f"{path} must be an object", path)

    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant"):
        raise RequestError(f"{path}.role must be user or assistant", f"{path}.role")
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    if not isinstance(content, list):
        raise RequestError(
            f"{path}.content must be a string or an array of blocks", f"{path}.content"
        )

    blocks = [_block(block, f"{path}.content[{index}]") for index, block in enumerate(content)]
    if role == "user":
        return _user_turns(blocks, path)
    return [_assistant_turn(blocks, path)]


def _user_turns(blocks: list[Mapping[str, Any]], path: str) -> list[dict[str, Any]]:
    """Keep the order of answers, texts and images; neighbours of the user are one turn."""
    turns: list[dict[str, Any]] = []
    said: list[str | MediaPart] = []
    for index, block in enumerate(blocks):
        at = f"{path}.content[{index}]"
        if block["type"] == "tool_result":
            if said:
                turns.append({"role": "user", "content": joined(said)})
                said = []
            turns.append(_tool_turn(block, at))
        elif block["type"] == "text":
            said.append(_text(block, at))
        elif block["type"] == "image":
            said.append(_image(block, at))
        else:
            _refuse(block, at)

    if said or not turns:
        turns.append({"role": "user", "content": joined(said)})
    return turns


def _image(block: Mapping[str, Any], path: str) -> MediaPart:
    source = block.get("source")
    if not isinstance(source, dict):
        raise RequestError(f"{path}.source must be an object", f"{path}.source")

    kind = source.get("type")
    if kind == "base64":
        return read_base64(source.get("data"), MediaKind.IMAGE, f"{path}.source.data")
    if kind == "url":
        return read_url(source.get("url"), MediaKind.IMAGE, f"{path}.source.url")
    raise RequestError(f"{path}.source.type must be base64 or url", f"{path}.source.type")


def _assistant_turn(blocks: list[Mapping[str, Any]], path: str) -> dict[str, Any]:
    text, thinking, calls = "", "", []
    for index, block in enumerate(blocks):
        at = f"{path}.content[{index}]"
        if block["type"] == "text":
            text += _text(block, at)
        elif block["type"] == "thinking":
            thinking += _text(block, at, "thinking")
        elif block["type"] == "tool_use":
            calls.append(_tool_call(block, at))
        elif block["type"] != "redacted_thinking":
            _refuse(block, at)

    turn: dict[str, Any] = {"role": "assistant", "content": text}
    if thinking:
        turn["reasoning_content"] = thinking
    if calls:
        turn["tool_calls"] = calls

    return turn


def _tool_turn(block: Mapping[str, Any], path: str) -> dict[str, Any]:
    name = block.get("tool_use_id")
    if not isinstance(name, str) or not name:
        raise RequestError(f"{path}.tool_use_id is required", f"{path}.tool_use_id")
    content = block.get("content")
    text = "" if content is None else _joined_text(content, f"{path}.content")

    return {"role": "tool", "tool_call_id": name, "content": text}


def _tool_call(block: Mapping[str, Any], path: str) -> dict[str, Any]:
    for key in ("id", "name"):
        if not isinstance(block.get(key), str) or not block[key]:
            raise RequestError(f"{path}.{key} is required", f"{path}.{key}")
    given = block.get("input")
    if not isinstance(given, dict):
        raise RequestError(f"{path}.input must be an object", f"{path}.input")

    # In the order of its keys, as the model wrote them.
    function = {"name": block["name"], "arguments": orjson.dumps(given).decode()}
    return {"id": block["id"], "type": "function", "function": function}


def _joined_text(content: Any, path: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RequestError(f"{path} must be a string or an array of blocks", path)

    texts = []
    for index, given in enumerate(content):
        at = f"{path}[{index}]"
        block = _block(given, at)
        if block["type"] != "text":
            _refuse(block, at)
        texts.append(_text(block, at))

    return "".join(texts)


def _block(block: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(block, dict):
        raise RequestError(f"{path} must be an object", path)
    if not isinstance(block.get("type"), str):
        raise RequestError(f"{path}.type is required", f"{path}.type")

    return block


def _text(block: Mapping[str, Any], path: str, key: str = "text") -> str:
    text = block.get(key)
    if not isinstance(text, str):
        raise RequestError(f"{path}.{key} must be a string", f"{path}.{key}")

    return text


def _refuse(block: Mapping[str, Any], path: str) -> None:
    if block["type"] in _MEDIA:
        raise RequestError(
            f"no model here takes such a block at this place: {path}", f"{path}.type"
        )
    raise RequestError(f"{path}.type is not a known kind of block here", f"{path}.type")
