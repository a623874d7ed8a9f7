"""Pages of the public list: every machine once, in order, each page bounded."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import httpx
import pytest
from darkbloom.attestation.v1.attestation_pb2 import Evidence
from darkbloom.attestation.v1.attestation_service_pb2 import ProviderEvidence
from darkbloom.router.v1.fleet_pb2 import Provider
from darkbloom_gateway.exhibits import STALE_S, Exhibits
from darkbloom_gateway.routes.evidence import MAX_PAGE_BYTES, make_router
from darkbloom_gateway.routes.plane import ControlPlane
from darkbloom_mesh.errors import StoreUnavailableError
from darkbloom_mesh.testing import FakeClock
from fastapi import FastAPI

NAMES = [f"prov_{number:032x}" for number in range(250)]


class Fleet:
    def __init__(self, names: Sequence[str]) -> None:
        self.rows = [Provider(provider_id=name) for name in names]

    async def get(self) -> Sequence[Provider]:
        return self.rows


class Shown:
    def __init__(self, size: int) -> None:
        self.size = size

    async def of(self, names: Sequence[str]) -> Mapping[str, ProviderEvidence | None]:
        piece = Evidence(evidence_id="chal_1", kind="challenge", document=bytes(self.size))
        return {name: ProviderEvidence(provider_id=name, evidence=[piece]) for name in names}


class Plane:
    def __init__(self, names: Sequence[str], size: int = 10) -> None:
        self.providers = Fleet(names)
        self.exhibits = Shown(size)


def client(plane: Plane) -> httpx.AsyncClient:
    app = FastAPI()
    app.include_router(make_router(cast("ControlPlane", plane)))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def pages(plane: Plane, **query: Any) -> list[list[str]]:
    found, token = [], ""
    async with client(plane) as http:
        while True:
            asked = {**query, "page_token": token}
            answer = await http.get("/v1/providers/attestation", params=asked)
            assert len(answer.content) < MAX_PAGE_BYTES + 200_000
            content = answer.json()
            found.append([machine["provider_id"] for machine in content["providers"]])
            token = content.get("next_page_token", "")
            if not token:
                return found


@pytest.mark.parametrize(("query", "count"), [({}, 3), ({"limit": 200}, 2), ({"limit": 125}, 2)])
async def test_every_machine_is_on_one_page(query: dict[str, Any], count: int) -> None:
    found = await pages(Plane(NAMES[::-1]), **query)
    assert [name for page in found for name in page] == NAMES
    assert len(found) == count


async def test_a_page_ends_before_it_is_too_large_and_nobody_is_left_out() -> None:
    found = await pages(Plane(NAMES, size=64_000))
    assert [name for page in found for name in page] == NAMES
    assert max(len(page) for page in found) * 64_000 < MAX_PAGE_BYTES


async def test_a_machine_too_large_for_a_page_is_shown_alone() -> None:
    found = await pages(Plane(NAMES[:3], size=MAX_PAGE_BYTES // 4 * 3 + 1))
    assert [len(page) for page in found] == [1, 1, 1]


async def test_one_machine_can_be_named_and_an_empty_fleet_is_a_page() -> None:
    assert await pages(Plane(NAMES), provider_id=NAMES[7]) == [[NAMES[7]]]
    assert await pages(Plane(NAMES), provider_id="prov_") == [[]]
    assert await pages(Plane([])) == [[]]


async def test_a_machine_that_left_between_two_pages_hides_nobody() -> None:
    plane = Plane(NAMES[:10])
    async with client(plane) as http:
        path = "/v1/providers/attestation"
        first = (await http.get(path, params={"limit": 5})).json()
        plane.providers.rows = [row for row in plane.providers.rows if row.provider_id != NAMES[4]]
        second = (await http.get(path, params={"page_token": first["next_page_token"]})).json()
    assert [machine["provider_id"] for machine in second["providers"]] == NAMES[5:10]


class Room:
    """Attestation."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.away = False

    async def read(self, names: Sequence[str]) -> Sequence[ProviderEvidence]:
        if self.away:
            raise StoreUnavailableError("away")
        self.asked.append(list(names))
        return [ProviderEvidence(provider_id=name) for name in names if name != "unknown"]


async def test_evidence_is_asked_for_once_in_bounded_questions() -> None:
    room, clock = Room(), FakeClock()
    exhibits = Exhibits(room.read, clock)
    assert len(await exhibits.of(NAMES)) == 250
    assert [len(asked) for asked in room.asked] == [100, 100, 50]
    await exhibits.of(NAMES[:10])
    assert len(room.asked) == 3
    clock.jump(11)
    await exhibits.of(NAMES[:10])
    assert room.asked[-1] == NAMES[:10]


async def test_what_is_old_stands_in_while_attestation_is_away_and_then_no_more() -> None:
    room, clock = Room(), FakeClock()
    exhibits = Exhibits(room.read, clock)
    assert await exhibits.of(["unknown"]) == {}
    await exhibits.of(["a"])
    room.away = True
    clock.jump(STALE_S - 1)
    found = await exhibits.of(["a", "b"])
    assert found["a"] is not None
    assert found["b"] is None
    clock.jump(2)
    assert await exhibits.of(["a"]) == {"a": None}
