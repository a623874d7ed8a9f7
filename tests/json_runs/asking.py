"""One run: a JSON schema and a forced tool call, each streamed and whole, through the stock SDK."""

import json
from dataclasses import dataclass, field
from typing import Any

import jsonschema
import openai

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 1, "maxLength": 16},
        "kind": {"enum": ["capital", "town", "village"]},
        "people": {"type": "integer", "minimum": 0, "maximum": 99999},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 3},
        "coast": {"type": "boolean"},
    },
    "required": ["city", "kind", "people", "tags", "coast"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {"name": name, "description": f"{name} a city.", "parameters": SCHEMA},
    }
    for name in ("describe", "compare")
]
FORMAT: Any = {
    "type": "json_schema",
    "json_schema": {"name": "city", "strict": True, "schema": SCHEMA},
}
FORCED: Any = {"type": "function", "function": {"name": "describe"}}
MESSAGES: list[Any] = [{"role": "user", "content": "Tell me of Paris."}]
MAX_TOKENS = 320
"""More than the longest answer that the schema allows has, in bytes."""


@dataclass(slots=True)
class Tally:
    """What became of the answers so far."""

    valid: dict[str, int] = field(default_factory=dict)
    """Answers that another library finds valid, by kind."""
    wrong: list[str] = field(default_factory=list)

    def note(self, kind: str, finish: str | None, expected: str, text: str) -> None:
        """Judge one answer."""
        try:
            jsonschema.validate(json.loads(text), SCHEMA)
        except (ValueError, jsonschema.ValidationError) as error:
            self.wrong.append(f"{kind}: {finish}, {type(error).__name__}")
            return
        if finish != expected:
            self.wrong.append(f"{kind}: ended with {finish}")
            return
        self.valid[kind] = self.valid.get(kind, 0) + 1


async def run_once(client: openai.AsyncOpenAI, model: str, seed: int, tally: Tally) -> None:
    """Ask for all four kinds of answer."""
    common: dict[str, Any] = {
        "model": model,
        "messages": MESSAGES,
        "max_tokens": MAX_TOKENS,
        "temperature": 0.9,
        "seed": seed,
    }
    called = {**common, "tools": TOOLS, "tool_choice": FORCED}
    shaped = {**common, "response_format": FORMAT}

    whole = await client.chat.completions.create(**shaped)
    choice = whole.choices[0]
    tally.note("schema whole", choice.finish_reason, "stop", choice.message.content or "")

    text, finish = "", None
    async for chunk in await client.chat.completions.create(**shaped, stream=True):
        for piece in chunk.choices:
            text += piece.delta.content or ""
            finish = piece.finish_reason or finish
    tally.note("schema streamed", finish, "stop", text)

    whole = await client.chat.completions.create(**called)
    choice = whole.choices[0]
    (call,) = choice.message.tool_calls or [None]
    named = call is not None and call.function.name == "describe"
    arguments = call.function.arguments if named else ""
    tally.note("call whole", choice.finish_reason, "tool_calls", arguments)

    arguments, finish, names = "", None, ""
    async for chunk in await client.chat.completions.create(**called, stream=True):
        for piece in chunk.choices:
            finish = piece.finish_reason or finish
            for part in piece.delta.tool_calls or ():
                names += (part.function.name or "") if part.function else ""
                arguments += (part.function.arguments or "") if part.function else ""
    tally.note("call streamed", finish, "tool_calls", arguments if names == "describe" else "")
