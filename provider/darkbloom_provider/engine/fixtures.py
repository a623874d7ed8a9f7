"""Render a build's chat template with what requests will bring, before any request does."""

import hashlib
from pathlib import Path
from typing import Any, Final, NamedTuple

from darkbloom_provider.engine.template import ChatTemplate, TemplateError, read_template

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


class TemplateReport(NamedTuple):
    """What a build's template can do."""

    plain: bool
    """It renders a conversation: without that the build answers nothing."""
    tools: bool
    """It renders tools, calls and their results, or leaves them to be said in words."""
    sha256: str
    """Of its source, hex; empty where there is none."""


def examine(directory: Path, *, vision: bool = False) -> TemplateReport:
    """Try the template of a build.

    Args:
        directory: Of the build.
        vision: Whether messages with image parts must render as well.
    """
    try:
        template = read_template(directory)
    except TemplateError:
        template = None
    if template is None:
        return TemplateReport(plain=False, tools=False, sha256="")
    plain = _renders(template, _PLAIN)
    if vision:
        parts = [{"type": "image"}, {"type": "text", "text": "What is this?"}]
        plain = plain and _renders(template, [{"role": "user", "content": parts}])
    # Templates that know no tools are told in words, with roles that every template knows.
    tools = plain and (
        not template.mentions_tools
        or (_renders(template, _PLAIN, _TOOLS) and _renders(template, _CALLED, _TOOLS))
    )
    return TemplateReport(
        plain=plain, tools=tools, sha256=hashlib.sha256(template.source.encode()).hexdigest()
    )


def _renders(
    template: ChatTemplate,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]] | None = None,
) -> bool:
    variables: dict[str, Any] = {**_NAMES, "strftime_now": lambda _form: "2026-01-01"}
    try:
        return bool(template.render(messages, tools=tools, variables=variables).strip())
    except TemplateError:
        return False
