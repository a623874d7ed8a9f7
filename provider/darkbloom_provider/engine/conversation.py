"""The messages of a request as a chat template wants them.

Templates expect the arguments of earlier calls as objects. A template that does not know tools is
told about them in words, in the default way of writing calls, and every template is told the JSON
schema that its answer will have: a model that knows what is wanted needs less forcing.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from darkbloom_provider.engine.tools.families import TOOL_CLOSE, TOOL_OPEN

_TOOLS_INTRO: Final = "You can call these functions:\n"
_TOOLS_HOW: Final = (
    f"\nTo call one, answer with only this:\n{TOOL_OPEN}\n"
    f'{{"name": "<function>", "arguments": {{…}}}}\n{TOOL_CLOSE}'
)
_SCHEMA_INTRO: Final = "Answer with JSON that follows this schema:\n"
_SHORT_ID: Final = 9
_OBJECT_INTRO: Final = "Answer with one JSON object."

Messages = list[dict[str, Any]]


def with_objects(messages: Sequence[Mapping[str, Any]]) -> Messages:
    """Give the arguments of earlier calls as objects, where their text is one."""
    return [_with_objects(message) for message in messages]


def with_short_ids(messages: Sequence[Mapping[str, Any]]) -> Messages:
    """Give calls ids of nine letters and digits, which Mistral's templates insist on."""
    shortened = []
    for message in messages:
        copied = dict(message)
        if isinstance(copied.get("tool_call_id"), str):
            copied["tool_call_id"] = _short(copied["tool_call_id"])
        if isinstance(copied.get("tool_calls"), list):
            copied["tool_calls"] = [
                {**call, "id": _short(call["id"])} if isinstance(call.get("id"), str) else call
                for call in copied["tool_calls"]
            ]
        shortened.append(copied)
    return shortened


def with_tools_in_words(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> Messages:
    """Describe tools in the system message and write earlier calls and results as text."""
    listed = "\n".join(_compact(tool.get("function", tool)) for tool in tools)
    worded = [_in_words(message) for message in messages]
    return with_instruction(worded, f"{_TOOLS_INTRO}{listed}{_TOOLS_HOW}" if tools else "")


def format_instruction(response_format: Mapping[str, Any] | None) -> str:
    """Say in words what shape the answer has; empty where it has none."""
    kind = (response_format or {}).get("type", "text")
    if response_format is None or kind == "text":
        return ""
    if kind == "json_object":
        return _OBJECT_INTRO
    return _SCHEMA_INTRO + _compact(response_format["json_schema"]["schema"])


def with_instruction(
    messages: Sequence[Mapping[str, Any]], instruction: str, *, role: str = "system"
) -> Messages:
    """Add a sentence to the first message of a role, or begin with one.

    Args:
        messages: A conversation.
        instruction: Nothing is added where it is empty.
        role: `system`, or `user` for templates that know no system message.
    """
    copied = [dict(message) for message in messages]
    if not instruction:
        return copied
    for message in copied:
        if message.get("role") == role and isinstance(message.get("content"), str):
            message["content"] = f"{message['content']}\n\n{instruction}"
            return copied
    return [{"role": role, "content": instruction}, *copied]


def _short(call_id: str) -> str:
    return hashlib.sha256(call_id.encode()).hexdigest()[:_SHORT_ID]


def _with_objects(message: Mapping[str, Any]) -> dict[str, Any]:
    copied = dict(message)
    calls = copied.get("tool_calls")
    if isinstance(calls, list):
        copied["tool_calls"] = [_call_with_object(call) for call in calls]
    return copied


def _call_with_object(call: Any) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    arguments = function.get("arguments") if isinstance(function, Mapping) else None
    if function is None or not isinstance(arguments, str):
        return call
    try:
        parsed = json.loads(arguments)
    except (ValueError, RecursionError):
        return call
    if not isinstance(parsed, dict):
        return call
    return {**call, "function": {**function, "arguments": parsed}}


def _in_words(message: Mapping[str, Any]) -> dict[str, Any]:
    if message.get("role") == "tool":
        text = f"<tool_response>\n{message.get('content') or ''}\n</tool_response>"
        return {"role": "user", "content": text}
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return dict(message)
    written = [message.get("content") or ""]
    for call in calls:
        function = call.get("function", {}) if isinstance(call, Mapping) else {}
        name = json.dumps(function.get("name"))
        arguments = function.get("arguments") or "{}"
        text = arguments if isinstance(arguments, str) else _compact(arguments)
        written.append(f'{TOOL_OPEN}\n{{"name": {name}, "arguments": {text}}}\n{TOOL_CLOSE}')
    return {"role": "assistant", "content": "\n".join(part for part in written if part)}


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
