"""What strangers and marketplaces read: capacity, the feed, the network, the newest agent."""

import pytest
from darkbloom.attestation.v1.attestation_pb2 import CodeRelease

from tests.component.gateway.harness import BEARER, Harness, gateway
from tests.component.gateway.neighbours import BUILD
from tests.component.gateway.test_refusals import error

FREE = {"slug": "org/tiny:free"}


@pytest.mark.asyncio(loop_scope="session")
async def test_capacity_is_public_and_names_what_the_list_names(house: Harness) -> None:
    response = await house.http.get("/v1/models/capacity")
    (row,) = response.json()["models"]

    assert response.headers["cache-control"] == "public, max-age=2"
    assert (row["id"], row["build"], row["can_accept"]) == ("tiny", BUILD, True)
    assert (row["routable_providers"], row["estimated_ttft_ms"]) == (1, None)


@pytest.mark.asyncio(loop_scope="session")
async def test_the_feed_of_marketplaces_has_prices_and_features(house: Harness) -> None:
    row, free = (await house.http.get("/v1/models/openrouter", headers=BEARER)).json()["data"]

    assert (row["id"], row["is_ready"], row["context_length"]) == ("tiny", True, 4096)
    assert row["openrouter"] == {"slug": "org/tiny"}
    assert (row["hugging_face_id"], row["input_modalities"]) == ("org/tiny-card", ["text"])
    assert free == {**row, "id": "tiny-free", "name": "tiny-free", "openrouter": FREE}
    assert row["pricing"]["completion"] == "0.0000002"
    assert row["supported_features"] == ["tools"]
    refused = await house.http.get("/v1/models/openrouter")
    assert error(refused)[:2] == (401, "authentication_error")


@pytest.mark.asyncio(loop_scope="session")
async def test_a_name_for_marketplaces_answers_and_is_in_no_list(house: Harness) -> None:
    listed = (await house.http.get("/v1/models?include_builds=1", headers=BEARER)).json()["data"]
    entry = (await house.http.get("/v1/models/tiny-free", headers=BEARER)).json()
    body = {"model": "tiny-free", "messages": [{"role": "user", "content": "hello"}]}
    answer = await house.http.post("/v1/chat/completions", json=body, headers=BEARER)
    unknown = await house.http.get("/v1/models/hidden", headers=BEARER)

    assert [row["id"] for row in listed] == ["tiny", BUILD]
    assert (entry["id"], entry["metadata"]["build"]) == ("tiny-free", BUILD)
    assert (answer.status_code, answer.json()["model"]) == (200, "tiny-free")
    assert unknown.status_code == 404


@pytest.mark.asyncio(loop_scope="session")
async def test_the_model_list_says_who_serves(house: Harness) -> None:
    (row,) = (await house.http.get("/v1/models", headers=BEARER)).json()["data"]

    served = {name: row["metadata"][name] for name in ("provider_count", "attested_providers")}
    assert served == {"provider_count": 1, "attested_providers": 0}
    assert row["metadata"]["trust_level"] == "none"


@pytest.mark.asyncio(loop_scope="session")
async def test_the_network_page_shows_machines_without_naming_owners(house: Harness) -> None:
    stats = (await house.http.get("/v1/stats")).json()

    (machine,) = stats["providers"]
    assert (machine["id"], machine["models"]) == (house.router.provider_id, [BUILD])
    assert "account" not in str(stats)
    assert stats["models"] == [{"id": BUILD, "providers": 1}]
    assert (stats["active_providers"], stats["verification_counts"]["none"]) == (1, 1)


async def test_the_newest_version_is_that_of_the_highest_release(valkey_url: str) -> None:
    async with gateway(valkey_url) as mesh:
        bare = (await mesh.http.get("/api/version")).json()
        assert bare == {"version": mesh.worker.plane.version, "download_url": None}
    async with gateway(valkey_url) as mesh:
        mesh.attestation.releases = [
            CodeRelease(code_release=f"sha256:{name}", version=name, platform="any", active=True)
            for name in ("1.9.0", "1.10.0", "1.10.0-rc1")
        ]
        found = (await mesh.http.get("/api/version")).json()
        assert (found["version"], found["code_release"]) == ("1.10.0", "sha256:1.10.0")
        assert found["download_url"] is None
