"""Reading back saved answers of the dialects besides chat: responses, messages, completions.

Arguments of calls are taken as they stand in the file, because digests are of the exact text.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from darkbloom_edge.errors import MalformedError

_END = frozenset({"response.completed", "response.incomplete"})


class _Block(msgspec.Struct):
    """A block of a message."""

    type: str
    text: str = ""
    thinking: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")


class _Message(msgspec.Struct):
    """A message of Anthropic's shape."""

    model: str
    content: list[_Block]


class Pieces(msgspec.Struct):
    """What any answer comes down to."""

    content: str = ""
    reasoning: str = ""
    tool_calls: list[list[str]] = []
    model: str | None = None
    complete: bool = True

    def __repr__(self) -> str:
        return "Pieces(<redacted>)"


def whole_pieces(document: dict[str, Any], data: bytes) -> Pieces | None:
    """Read a whole answer; None where it is of no dialect known here.

    Args:
        document: the file, parsed.
        data: the file.

    Raises:
        MalformedError: it is one, with impossible fields.
    """
    try:
        if document.get("object") == "response":
            return _response(document)
        if document.get("object") == "text_completion":
            return _completion([document])
        if document.get("type") == "message":
            return _message(msgspec.json.decode(data, type=_Message))
    except (KeyError, TypeError, AttributeError, IndexError, msgspec.MsgspecError):
        raise MalformedError("answer has fields of the wrong type") from None

    return None


def event_pieces(events: Sequence[dict[str, Any]]) -> Pieces | None:
    """Read the events of a streamed answer; errors as `whole_pieces`.

    Args:
        events: the data of each, without end markers.
    """
    try:
        kinds = {event.get("type") for event in events}
        if "response.created" in kinds:
            return _response_events(events)
        if "message_start" in kinds:
            return _message_events(events)
        if any(event.get("object") == "text_completion" for event in events):
            return _completion(event for event in events if "error" not in event)
    except (KeyError, TypeError, AttributeError, IndexError):
        raise MalformedError("answer has events of the wrong shape") from None

    return None


def _response(response: dict[str, Any]) -> Pieces:
    pieces = Pieces(tool_calls=[], model=_text(response["model"]))
    for item in response["output"]:
        if item["type"] == "message":
            pieces.content += "".join(_text(part["text"]) for part in item["content"])
        elif item["type"] == "reasoning":
            pieces.reasoning += "".join(_text(part["text"]) for part in item["summary"])
        elif item["type"] == "function_call":
            pieces.tool_calls.append([_text(item["name"]), _text(item["arguments"])])

    return pieces


def _response_events(events: Iterable[dict[str, Any]]) -> Pieces:
    for event in events:
        if event.get("type") in _END:
            return _response(event["response"])

    return Pieces(tool_calls=[], complete=False)


def _message(message: _Message) -> Pieces:
    pieces = Pieces(tool_calls=[], model=message.model)
    for block in message.content:
        if block.type == "tool_use":
            pieces.tool_calls.append([block.name, bytes(block.input).decode()])
        pieces.content += block.text
        pieces.reasoning += block.thinking

    return pieces


def _message_events(events: Iterable[dict[str, Any]]) -> Pieces:
    pieces = Pieces(tool_calls=[], complete=False)
    calls: dict[int, list[str]] = {}
    for event in events:
        kind = event.get("type")
        if kind == "message_start":
            pieces.model = _text(event["message"]["model"])
        elif kind == "content_block_start" and event["content_block"]["type"] == "tool_use":
            call = calls[event["index"]] = [_text(event["content_block"]["name"]), ""]
            pieces.tool_calls.append(call)
        elif kind == "content_block_delta":
            delta = event["delta"]
            if delta["type"] == "input_json_delta":
                calls[event["index"]][1] += _text(delta["partial_json"])
            pieces.content += _text(delta.get("text", ""))
            pieces.reasoning += _text(delta.get("thinking", ""))
        elif kind == "message_stop":
            pieces.complete = True

    return pieces


def _completion(documents: Iterable[dict[str, Any]]) -> Pieces:
    pieces = Pieces(tool_calls=[])
    for document in documents:
        pieces.model = pieces.model or _text(document["model"])
        for choice in document["choices"]:
            if choice["index"] == 0:
                pieces.content += _text(choice["text"])
                pieces.reasoning += _text(choice.get("reasoning", ""))

    return pieces


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
