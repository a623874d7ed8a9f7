"""The stock Node clients of OpenAI and Anthropic, unmodified but for the base URL."""

import json
from typing import Any

import pytest

from tests.component.gateway import node
from tests.component.gateway.harness import Harness
from tests.component.gateway.neighbours import API_KEY
from tests.component.gateway.test_messages import CALLING
from tests.fakes.router import Script

pytestmark = pytest.mark.asyncio(loop_scope="session")
CALLED = [["look", {"at": "sky"}], ["wait", {}]]


async def client(house: Harness, script: str, package: str) -> dict[str, Any]:
    node.needed(package)
    environment = {"DARKBLOOM_URL": house.url, "DARKBLOOM_API_KEY": API_KEY}
    found = json.loads(await node.run(script, environment=environment))
    assert isinstance(found, dict)
    return found


async def test_the_stock_openai_package_works_unmodified(house: Harness) -> None:
    house.router.scripts = [Script(), Script(), CALLING, CALLING]

    got = await client(house, "openai.mjs", "openai")

    assert (got["models"], got["model"]) == (["tiny"], "tiny")
    assert got["chat"] == ["chat.completion", "Hello world", 2]
    assert (got["streamed"], got["tokens"]) == ("Hello world", 2)
    assert (got["called"], got["reason"]) == (CALLED, "tool_calls")
    assert got["assembled"] == '{"at": "sky"}'
    assert got["again"] == "Hello world"
    assert got["response"] == ["completed", "Hello world"]
    assert (got["events"][0], got["events"][-1]) == ("response.created", "response.completed")
    assert got["completion"] == "Hello world"
    assert got["refused"] == ["NotFoundError", 404, "model_not_found", "model"]
    answered = house.router.seen.requests[4]
    assert [turn["role"] for turn in answered.messages] == ["user", "assistant", "tool", "tool"]


async def test_the_stock_anthropic_package_works_unmodified(house: Harness) -> None:
    house.router.scripts = [Script(), Script(), CALLING, CALLING]

    got = await client(house, "anthropic.mjs", "@anthropic-ai/sdk")

    assert got["message"] == ["message", "Hello world", "end_turn"]
    assert (got["streamed"], got["usage"]) == ("Hello world", [7, 2])
    kinds = [["thinking", None, None], ["text", None, None]]
    assert got["called"] == [*kinds, *(["tool_use", *call] for call in CALLED)]
    assert (got["reason"], got["assembled"]) == ("tool_use", {"at": "sky"})
    assert got["tokens"] > 0
    assert got["refused"] == ["NotFoundError", 404, "not_found_error"]
