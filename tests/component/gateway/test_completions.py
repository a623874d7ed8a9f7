"""`POST /v1/completions` over a real socket, with the stock SDK."""

import json

import pytest

from tests.component.gateway.harness import BEARER, Harness
from tests.fakes.router import scripted

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATH = "/v1/completions"


async def test_the_stock_sdk_completes_a_prompt(house: Harness) -> None:
    async with house.sdk() as client:
        answer = await client.completions.create(model="tiny", prompt="Once", stop=["end"])

    assert answer.id.startswith("cmpl-")
    assert answer.object == "text_completion"
    assert answer.model == "tiny"
    assert answer.choices[0].text == "Hello world"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 9
    request = house.router.seen.requests[0]
    assert request.messages == [{"role": "user", "content": "Once"}]
    assert request.stop == ["end"]


async def test_the_stock_sdk_streams_a_completion_with_usage(house: Harness) -> None:
    texts, usage = [], None
    async with house.sdk() as client:
        stream = await client.completions.create(
            model="tiny",
            prompt=["Once"],
            stream=True,
            stream_options={"include_usage": True},
        )
        async for event in stream:
            texts += [choice.text for choice in event.choices]
            usage = event.usage or usage

    assert "".join(texts) == "Hello world"
    assert usage is not None
    assert usage.completion_tokens == 2


async def test_a_streamed_completion_ends_with_its_receipt_and_one_done(house: Harness) -> None:
    body = {"model": "tiny", "prompt": "Once", "stream": True}

    response = await house.http.post(PATH, json=body, headers=BEARER)

    *_, trailer, done = (event for event in response.text.split("\n\n") if event)
    assert done == "data: [DONE]"
    last = json.loads(trailer.removeprefix("data: "))
    assert last["choices"] == []
    assert last["receipt"]["gateway_key_id"]
    assert "usage" not in last
    assert response.headers["x-inference-job-id"].startswith("att_")


async def test_several_completions_have_their_own_index(house: Harness) -> None:
    house.router.scripts = [scripted("a"), scripted("b")]
    body = {"model": "tiny", "prompt": "Once", "n": 2, "best_of": 2}

    answer = (await house.http.post(PATH, json=body, headers=BEARER)).json()

    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert sorted(choice["text"] for choice in answer["choices"]) == ["a", "b"]
    assert answer["usage"]["prompt_tokens"] == 14


async def test_each_prompt_of_an_array_is_answered_in_its_place(house: Harness) -> None:
    body = {"model": "tiny", "prompt": ["Once", "Twice"], "n": 2, "seed": 5, "max_tokens": 9}

    whole = (await house.http.post(PATH, json=body, headers=BEARER)).json()
    asked = [
        (request.messages[0]["content"], request.seed) for request in house.router.seen.requests
    ]
    stream = await house.http.post(PATH, json={**body, "stream": True}, headers=BEARER)

    assert sorted(asked) == [("Once", 5), ("Once", 6), ("Twice", 5), ("Twice", 6)]
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2, 3]
    assert whole["usage"]["prompt_tokens"] == 4 * 7
    assert len(whole["receipts"]) == 4
    events = [line for line in stream.text.split("\n\n") if line]
    assert events[-1] == "data: [DONE]"
    found = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    indices = {choice["index"] for event in found for choice in event["choices"]}
    assert indices == {0, 1, 2, 3}


async def test_an_answer_stands_at_the_index_of_its_prompt(house: Harness) -> None:
    body = {"model": "tiny", "prompt": ["first", "second", "third"]}
    house.router.default = scripted(echo=True)

    answer = (await house.http.post(PATH, json=body, headers=BEARER)).json()

    assert [choice["text"] for choice in answer["choices"]] == body["prompt"]
