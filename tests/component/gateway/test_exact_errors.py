"""Each row of the error table, got by a real request, with exact values in both shapes."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio
from darkbloom.router.v1.gateway_lane_pb2 import Refused
from darkbloom_edge.sealing_keys import KeyRing, encode_keys, rotated
from darkbloom_mesh.clock import SystemClock
from google.protobuf.duration_pb2 import Duration

from tests.component.gateway.exact import CASES, MESSAGES, Case, Row, Scene, rows, table, too_often
from tests.component.gateway.harness import Harness, gateway
from tests.fakes.router import Script

pytestmark = pytest.mark.asyncio(loop_scope="session")
CHAT = "/v1/chat/completions"
GATEWAY, ROUTER = "1. Inference: said by the gateway", "2. Inference: said by the router"
NOT_HTTP = (400, "invalid_request_error", "invalid_request_error", False)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def strict(
    valkey_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Harness]:
    keys = tmp_path_factory.mktemp("exact") / "keys"
    day = timedelta(days=1)
    made_at = SystemClock().now() - day
    ring = rotated(KeyRing(), b"\x05" * 32, made_at, lead=timedelta(minutes=1), grace=3 * day)
    keys.write_bytes(encode_keys(ring))
    async with gateway(
        valkey_url,
        request_rate=10_000,
        request_burst=10_000,
        sealing_keys_file=keys,
        max_body_bytes=100_000,
        key_cache_s=0.0,
        body_idle_s=1.0,
        silence_s=1.0,
    ) as harness:
        yield harness


@pytest.fixture
def scene(
    request: pytest.FixtureRequest, strict: Harness, monkeypatch: pytest.MonkeyPatch
) -> Scene:
    mesh = strict.afresh()
    mesh.billing.debt_micros = 0
    return Scene(mesh, request.param, monkeypatch)


def shapes() -> dict[int, str]:
    """Return Anthropic's type by status, as the page says."""
    found = {}
    for statuses, kind, *_ in table("Shape"):
        found |= {int(status): kind for status in statuses.split(", ") if status.isdigit()}
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.way.__name__)
@pytest.mark.parametrize("scene", [CHAT, MESSAGES], indirect=True, ids=["openai", "anthropic"])
async def test_a_row_of_the_table_is_answered_exactly(scene: Scene, case: Case) -> None:
    response = await case.way(scene)

    body, error = response.json(), response.json()["error"]
    anthropic = scene.path == MESSAGES and not case.openai
    kind = shapes()[case.status] if anthropic else case.kind
    assert (response.status_code, error["type"]) == (case.status, kind)
    assert (error["code"], error.get("param")) == (case.code or case.kind, case.param)
    wait = response.headers.get("retry-after")
    if case.way is too_often:
        # A minute less what has passed since the first request.
        assert wait is not None
        assert 1 <= int(wait) <= 60
    else:
        assert wait == case.retry_after
    assert {name: error.get(name) for name, _ in case.facts} == dict(case.facts)
    assert isinstance(error["message"], str)
    assert error["message"]
    assert set(body) == ({"type", "error", "request_id"} if anthropic else {"error"})
    if anthropic:
        assert body["type"] == "error"
        assert body["request_id"] == response.headers["request-id"]
    assert response.headers["content-type"] == "application/json"
    assert len(response.headers["x-request-id"]) == 12
    assert not [name for name in response.headers if name.startswith("x-provider-")]
    assert "x-inference-job-id" not in response.headers


async def test_every_row_of_the_gateway_has_its_way() -> None:
    assert {case.row for case in CASES} | {NOT_HTTP} == rows(GATEWAY)


@pytest.mark.parametrize("row", sorted(rows(ROUTER)), ids=lambda row: f"{row[0]}-{row[2]}")
@pytest.mark.parametrize("scene", [CHAT, MESSAGES], indirect=True, ids=["openai", "anthropic"])
async def test_a_refusal_of_the_router_is_passed_on_exactly(scene: Scene, row: Row) -> None:
    status, kind, code, retry = row
    refused = Refused(http_status=status, type=kind, code=code, message="in its words")
    if retry:
        refused.retry_after.CopyFrom(Duration(seconds=7))
    scene.mesh.router.scripts = [Script(refused=refused)]

    response = await scene.ask()

    error = response.json()["error"]
    shown = shapes()[status] if scene.path == MESSAGES else kind
    assert (response.status_code, error["type"], error["code"]) == (status, shown, code)
    assert response.headers.get("retry-after") == ("7" if retry else None)
    assert error["message"] == "in its words"
    assert not [name for name in response.headers if name.startswith("x-provider-")]
    billing = scene.mesh.billing
    # Those of an earlier test may still be on their way.
    await billing.until(lambda: billing.holds and set(billing.holds) <= set(billing.releases))


@pytest.mark.parametrize(("said", "shown"), [(0, "1"), (61, "60"), (600, "60"), (30, "30")])
@pytest.mark.parametrize("scene", [CHAT], indirect=True, ids=["openai"])
async def test_a_wait_is_between_one_second_and_sixty(scene: Scene, said: int, shown: str) -> None:
    refused = Refused(http_status=429, type="rate_limit_exceeded", code="queue_full")
    refused.retry_after.CopyFrom(Duration(seconds=said))
    scene.mesh.router.scripts = [Script(refused=refused)]

    assert (await scene.ask()).headers["retry-after"] == shown
