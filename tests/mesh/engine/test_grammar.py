"""Answers that must have a shape have it, on a model that would never write it by itself."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from darkbloom_provider.engine.interface import OutcomeKind

from tests.mesh.engine.test_answers import engine_of
from tests.mesh.engine.tiny import import_tiny
from tests.unit.provider.engine.support import RecordingSink, job

pytestmark = pytest.mark.engine

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["alpha", "beta", 3]},
        "name": {"type": "string", "minLength": 1, "maxLength": 8},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["name", "kind", "count", "tags"],
}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in ("f", "g")
]


def as_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}


async def test_neighbours_with_and_without_grammars_do_not_change_each_other(
    tmp_path: Path,
) -> None:
    wishes: list[dict[str, Any]] = [
        {"response_format": as_schema(SCHEMA)},
        {},
        {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False},
        {"response_format": as_schema(SCHEMA), "logprobs": True, "top_logprobs": 4},
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "g"}}},
    ]
    async with engine_of(import_tiny(tmp_path, context=4096).directory) as engine:

        async def ask(turn: str, index: int) -> RecordingSink:
            sink = RecordingSink()
            asked = job(
                f"{turn}-{index}",
                seed=index,
                temperature=1.0,
                max_tokens=300,
                prompt_bound=4000,
                **wishes[index],
            )
            await engine.submit(asked, sink)
            return sink

        alone = [await ask("solo", index) for index in range(len(wishes)) if not index]
        for index in range(1, len(wishes)):
            await alone[-1].end()
            alone.append(await ask("solo", index))
        await alone[-1].end()
        together = await asyncio.gather(*(ask("both", index) for index in range(len(wishes))))
        await asyncio.gather(*(sink.end() for sink in together))

    for one, other in zip(alone, together, strict=True):
        assert one.text == other.text
        assert one.outcome == other.outcome
    for index in (0, 3):
        jsonschema.validate(json.loads(together[index].text), SCHEMA)
        assert list(json.loads(together[index].text)) == SCHEMA["required"]
    for index, names in ((2, {"f", "g"}), (4, {"g"})):
        parts = [part for delta in together[index].deltas for part in delta.tool_calls]
        outcome = together[index].outcome
        assert outcome is not None
        assert outcome.finish_reason == "tool_calls"
        assert parts[0].name in names
        assert len(parts) > 2, "the name first, then the arguments in pieces"
        jsonschema.validate(json.loads("".join(part.arguments for part in parts)), SCHEMA)
        assert together[index].text == ""


async def test_an_answer_that_is_cut_off_says_so(tmp_path: Path) -> None:
    async with engine_of(import_tiny(tmp_path, context=4096).directory) as engine:
        sink = RecordingSink()
        await engine.submit(
            job(response_format=as_schema(SCHEMA), max_tokens=5, prompt_bound=4000), sink
        )
        outcome = await sink.end()

    assert outcome.kind is OutcomeKind.COMPLETED
    assert outcome.finish_reason == "length"
