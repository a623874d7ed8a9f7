"""Answers with a promised shape, from the stock SDK to a real engine and back."""

from collections.abc import AsyncIterator

import openai
import pytest
import pytest_asyncio
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import SMOLLM2

from tests.json_runs.asking import MESSAGES, TOOLS, Tally, run_once
from tests.json_runs.model import client_of, mesh_of, random_model_cache
from tests.mesh.harness import QUICK, Consumer, until

pytestmark = [pytest.mark.mesh, pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def random_mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    cache = random_model_cache(tmp_path_factory.mktemp("cache"), seed=7)
    async with mesh_of(tmp_path_factory.mktemp("own"), cache, QUICK) as mesh:
        await mesh.routable()
        yield mesh


@pytest.mark.timeout(240)
async def test_a_random_model_writes_what_the_schema_says_streamed_and_whole(
    random_mesh: Mesh,
) -> None:
    tally = Tally()
    async with client_of(random_mesh) as client:
        await run_once(client, SMOLLM2, 1, tally)

    assert tally.wrong == []
    assert sum(tally.valid.values()) == 4


async def test_what_cannot_be_enforced_is_refused_with_its_keyword(random_mesh: Mesh) -> None:
    secret = "a-word-of-the-schema"
    shape = {"name": "x", "schema": {"type": "array", "uniqueItems": True, "title": secret}}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"not": {}}}}
    async with client_of(random_mesh) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(
                model=SMOLLM2,
                messages=MESSAGES,
                response_format={"type": "json_schema", "json_schema": shape},
            )
        with pytest.raises(openai.UnprocessableEntityError) as forced:
            await client.chat.completions.create(
                model=SMOLLM2, messages=MESSAGES, tools=[tool], tool_choice="required"
            )
        # Only the compiler sees that this pattern allows nothing else than its length forbids.
        narrow = {"type": "string", "pattern": "^a{9}$", "maxLength": 2}
        with pytest.raises(openai.BadRequestError) as late:
            await client.chat.completions.create(
                model=SMOLLM2,
                messages=MESSAGES,
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": narrow},
                },
            )

    assert "uniqueItems" in refused.value.message
    assert secret not in refused.value.message
    assert refused.value.param == "response_format"
    assert "keyword not" in forced.value.message
    assert late.value.code == "unsupported_schema"


async def test_no_tool_is_called_where_the_request_says_none(random_mesh: Mesh) -> None:
    async with client_of(random_mesh) as client:
        answer = await client.chat.completions.create(
            model=SMOLLM2, messages=MESSAGES, tools=TOOLS, tool_choice="none", max_tokens=8
        )

    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].finish_reason == "length"


async def test_a_local_mesh_counts_prompts_with_the_models_own_tokenizer(random_mesh: Mesh) -> None:
    consumer = Consumer(random_mesh)
    body = {"model": SMOLLM2, "max_tokens": 5, "messages": MESSAGES}

    async def counted() -> bool:
        answer = await consumer.post(body, path="/v1/messages/count_tokens")
        assert answer.status_code == 200, answer.text
        assert answer.json()["input_tokens"] > 0
        return answer.headers["x-darkbloom-token-count"] == "tokenizer"

    await until(counted, "the gateway has read the tokenizer")
