"""Manifests that a worker keeps: bytes for ever, signatures for a while."""

import pytest
from darkbloom_gateway.errors import ApiError
from darkbloom_gateway.install import FRESH_S, MAX_KEPT_BYTES, Manifests, SignedManifest
from darkbloom_mesh.errors import NotFoundError, UnavailableError
from darkbloom_mesh.testing import FakeClock


class Registry:
    def __init__(self) -> None:
        self.found: SignedManifest | Exception = SignedManifest(b"{}", b"", "")
        self.reads = 0

    async def manifest(self, build: str, version: str) -> SignedManifest:
        self.reads += 1
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    async def manifest_keys(self) -> dict[str, bytes]:
        return {}


@pytest.fixture
def registry() -> Registry:
    return Registry()


async def test_a_signature_that_comes_later_is_seen_without_a_restart(registry: Registry) -> None:
    clock = FakeClock()
    manifests = Manifests(registry, clock)
    assert (await manifests.get("b", "v1")).key_id == ""
    registry.found = SignedManifest(b"{}", b"signature", "k1")

    assert (await manifests.get("b", "v1")).key_id == ""
    assert registry.reads == 1
    await clock.advance(FRESH_S)

    assert (await manifests.get("b", "v1")).key_id == "k1"
    assert registry.reads == 2


async def test_while_the_registry_is_away_the_old_one_serves(registry: Registry) -> None:
    clock = FakeClock()
    manifests = Manifests(registry, clock)
    old = await manifests.get("b", "v1")
    await clock.advance(FRESH_S)
    registry.found = UnavailableError("away")

    assert await manifests.get("b", "v1") is old
    with pytest.raises(ApiError) as refused:
        await manifests.get("b", "v2")
    assert refused.value.http_status == 503
    # It is not asked again for every stranger.
    assert await manifests.get("b", "v1") is old
    assert registry.reads == 3

    await clock.advance(FRESH_S)
    registry.found = NotFoundError("gone")
    with pytest.raises(ApiError) as gone:
        await manifests.get("b", "v1")
    assert gone.value.http_status == 404


async def test_only_so_many_bytes_are_kept(registry: Registry) -> None:
    manifests = Manifests(registry, FakeClock())
    registry.found = SignedManifest(b"x" * (MAX_KEPT_BYTES // 2), b"", "")
    for version in ("v1", "v2", "v3", "v1"):
        await manifests.get("b", version)
    assert registry.reads == 4
