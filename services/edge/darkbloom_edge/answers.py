"""Reading back an answer that a consumer has saved, whatever its form."""

from dataclasses import dataclass, field
from typing import Any, Literal

from darkbloom_edge.errors import MalformedError
from darkbloom_edge.other_answers import Pieces, event_pieces, whole_pieces
from darkbloom_edge.strict_json import parse_json_object

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Largest saved answer that is read."""

_DATA = "data:"
_DONE = "[DONE]"


@dataclass(slots=True, repr=False)
class Answer:
    """What a saved answer holds; None is what its form cannot hold. Repr shows no content."""

    form: Literal["completion", "stream", "text"]
    content: str = ""
    reasoning: str | None = ""
    tool_calls: list[list[str]] | None = field(default_factory=list)
    """[name, arguments] of each call, in order."""
    model: str | None = None
    complete: bool = True
    """Whether a stream ended with its end marker and without an error."""

    def __repr__(self) -> str:
        return f"Answer(form={self.form!r}, <redacted>)"


def parse_answer(data: bytes) -> Answer:
    """Read a saved answer of any dialect, whole or as an event stream, or plain text.

    Raises:
        MalformedError: too large, not UTF-8, or an answer with impossible fields.
    """
    if len(data) > MAX_ANSWER_BYTES:
        raise MalformedError("answer is too large")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise MalformedError("answer is not utf-8") from None

    document = _document_of(data)
    if document is not None:
        if document.get("object") == "chat.completion":
            return _read_completion(document)
        pieces = whole_pieces(document, data)
        if pieces is not None:
            return _of_pieces("completion", pieces)
    events = _events_of(text)
    if events is not None:
        return _read_events(events)

    return Answer("text", text, reasoning=None, tool_calls=None)


def _document_of(data: bytes) -> dict[str, Any] | None:
    """Return the document, or None where the data is another thing, such as plain text."""
    try:
        return parse_json_object(data, max_bytes=MAX_ANSWER_BYTES)
    except MalformedError:
        return None


def _of_pieces(form: Literal["completion", "stream"], pieces: Pieces) -> Answer:
    return Answer(
        form, pieces.content, pieces.reasoning, pieces.tool_calls, pieces.model, pieces.complete
    )


def _events_of(text: str) -> list[str] | None:
    """Return the data of each event, or None where the text is no event stream."""
    events: list[str] = []
    # Not splitlines: it would also cut at U+2028, which JSON text may hold as it is.
    for line in text.replace("\r\n", "\n").split("\n"):
        if line.startswith(_DATA):
            events.append(line.removeprefix(_DATA).strip())
        elif line and not line.startswith((":", "event:")):
            return None

    return events or None


def _read_completion(document: dict[str, Any]) -> Answer:
    message = _first_choice(document).get("message")
    if not isinstance(message, dict):
        raise MalformedError("answer has no message")

    answer = Answer("completion", model=_optional_text(document.get("model")))
    _take(answer, message)

    return answer


def _read_events(events: list[str]) -> Answer:
    said = [event for event in events if event != _DONE]
    chunks = [parse_json_object(event.encode(), max_bytes=MAX_ANSWER_BYTES) for event in said]
    pieces = event_pieces(chunks)
    if pieces is not None:
        pieces.complete = pieces.complete and (_DONE in events or "type" in chunks[0])
        return _of_pieces("stream", pieces)

    answer = Answer("stream", complete=_DONE in events)
    for chunk in chunks:
        if "error" in chunk or not chunk.get("choices"):
            continue
        answer.model = answer.model or _optional_text(chunk.get("model"))
        delta = _first_choice(chunk).get("delta")
        if isinstance(delta, dict):
            _take(answer, delta)

    return answer


def _first_choice(document: dict[str, Any]) -> dict[str, Any]:
    choices = document.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, dict):
        raise MalformedError("answer has no choice")

    return first


def _take(answer: Answer, piece: dict[str, Any]) -> None:
    answer.content += _optional_text(piece.get("content")) or ""
    answer.reasoning = (answer.reasoning or "") + (_optional_text(piece.get("reasoning")) or "")
    calls = piece.get("tool_calls") or []
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise MalformedError("answer has malformed tool calls")
    for position, call in enumerate(calls):
        _take_call(answer, call, call.get("index", position))


def _take_call(answer: Answer, call: dict[str, Any], index: Any) -> None:
    known = answer.tool_calls if answer.tool_calls is not None else []
    if index == len(known):
        known.append(["", ""])
    function = call.get("function")
    if not isinstance(index, int) or not 0 <= index < len(known) or not isinstance(function, dict):
        raise MalformedError("answer has malformed tool calls")

    known[index][0] += _optional_text(function.get("name")) or ""
    known[index][1] += _optional_text(function.get("arguments")) or ""


def _optional_text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise MalformedError("answer has a field of the wrong type")

    return value
