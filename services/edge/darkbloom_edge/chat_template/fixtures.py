"""Render a build's chat template with what requests will bring, before any request does.

Registry and machines render the same fixtures with this one implementation: where their digests
differ, a machine would give the model another prompt than the one that was tried.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from darkbloom_edge.chat_template.template import ChatTemplate, TemplateError

_PLAIN: Final[list[dict[str, Any]]] = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "And now?"},
]
_TOOLS: Final[list[dict[str, Any]]] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tell the weather.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Where."},
                    # Nullable types and parameters without any: both break careless templates.
                    "day": {"type": ["string", "null"]},
                    "unit": {"enum": ["C", "F", None]},
                    "options": {"type": "object", "properties": {"long": {"type": "boolean"}}},
                },
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "now", "parameters": {}}},
    {"type": "function", "function": {"name": "bare"}},
]
_CALLED: Final[list[dict[str, Any]]] = [
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call00001",
                "type": "function",
                "function": {"name": "weather", "arguments": {"city": "Oslo", "day": None}},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call00001", "name": "weather", "content": "4 C"},
]
_NAMES: Final = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": ""}


# A fixture that changes gets another name: digests of two releases are compared by name.
PLAIN: Final = "plain.1"
VISION: Final = "vision.1"
TOOLS: Final = "tools.1"
CALLED: Final = "called.1"


class TemplateReport(NamedTuple):
    """What a build's template can do."""

    plain: bool
    """It renders a conversation: without that the build answers nothing."""
    tools: bool
    """It renders tools, calls and their results, or leaves them to be said in words."""
    sha256: str
    """Of its source, hex; empty where there is none."""
    fixtures: Mapping[str, str]
    """SHA-256 of each rendered fixture, hex, by its name; empty where it does not render."""


NOTHING: Final = TemplateReport(plain=False, tools=False, sha256="", fixtures={})
"""Of a build without a template that compiles."""


def examine(template: ChatTemplate, *, vision: bool = False) -> TemplateReport:
    """Try a template.

    Args:
        template: Of a build.
        vision: Whether messages with image parts must render as well.
    """
    digests = {PLAIN: _digest(template, _PLAIN)}
    if vision:
        parts = [{"type": "image"}, {"type": "text", "text": "What is this?"}]
        digests[VISION] = _digest(template, [{"role": "user", "content": parts}])
    plain = all(digests.values())
    # Templates that know no tools are told in words, with roles that every template knows.
    if template.mentions_tools:
        digests[TOOLS] = _digest(template, _PLAIN, _TOOLS)
        digests[CALLED] = _digest(template, _CALLED, _TOOLS)
    return TemplateReport(
        plain=plain,
        tools=plain and all(digests.values()),
        sha256=hashlib.sha256(template.source.encode()).hexdigest(),
        fixtures=digests,
    )


def _digest(
    template: ChatTemplate,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]] | None = None,
) -> str:
    """Return the hex SHA-256 of a rendering; empty where there is none, or nothing in it."""
    variables: dict[str, Any] = {**_NAMES, "strftime_now": lambda _form: "2026-01-01"}
    try:
        text = template.render(messages, tools=tools, variables=variables)
    except TemplateError:
        return ""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() if text.strip() else ""
