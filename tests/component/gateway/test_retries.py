"""The stock SDK waits as long as we ask and tries again, by itself."""

import pytest
from darkbloom.router.v1 import gateway_lane_pb2 as lane_pb
from darkbloom_mesh.clock import SystemClock
from google.protobuf.duration_pb2 import Duration
from openai import AsyncOpenAI, RateLimitError

from tests.component.gateway.harness import Harness
from tests.component.gateway.neighbours import API_KEY
from tests.fakes.router import scripted

pytestmark = pytest.mark.asyncio(loop_scope="session")

BUSY = lane_pb.Refused(
    http_status=429,
    type="rate_limit_exceeded",
    code="machine_busy",
    message="busy",
    retry_after=Duration(seconds=1),
)


async def test_the_sdk_retries_a_429_after_the_time_that_it_names(house: Harness) -> None:
    house.router.scripts = [scripted(refused=BUSY), scripted("at last")]
    clock = SystemClock()
    began_at = clock.monotonic()

    client = AsyncOpenAI(api_key=API_KEY, base_url=f"{house.url}/v1", max_retries=1)
    async with client:
        answer = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hi"}]
        )

    assert answer.choices[0].message.content == "at last"
    assert len(house.router.seen.opens) == 2
    # Without the header it would try again within half a second to a second.
    assert clock.monotonic() - began_at >= 1.0


async def test_without_retries_the_sdk_hands_the_429_on(house: Harness) -> None:
    house.router.scripts = [scripted(refused=BUSY)]
    async with house.sdk() as client:
        with pytest.raises(RateLimitError) as refused:
            await client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "hi"}]
            )

    assert refused.value.code == "machine_busy"
    assert refused.value.response.headers["retry-after"] == "1"
    await house.billing.until(lambda: len(house.billing.holds) == len(house.billing.releases))
