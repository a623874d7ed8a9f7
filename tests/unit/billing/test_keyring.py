"""Keys of a signer: asked for when unknown, kept when the source is away."""

from collections.abc import Mapping

import pytest
from darkbloom_billing.errors import KeysUnavailableError
from darkbloom_billing.keyring import KeyRing
from darkbloom_billing.model import SigningKey
from darkbloom_edge.signatures import ed25519_key_id
from darkbloom_mesh.errors import UnavailableError
from darkbloom_mesh.testing import FakeClock

PUBLIC = b"p" * 32
KEY = SigningKey(key_id=ed25519_key_id(PUBLIC), public=PUBLIC, retired_at=None)


class Source:
    """A list of keys that may be away."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = {key.key_id: key for key in keys}
        self.away = False
        self.asked = 0

    async def fetch(self) -> Mapping[str, SigningKey]:
        self.asked += 1
        if self.away:
            raise UnavailableError("away")
        return self.keys


def ring(source: Source, clock: FakeClock, *pinned: bytes) -> KeyRing:
    return KeyRing(source, clock, pinned=pinned, name="test")


async def test_a_key_that_is_known_asks_nobody() -> None:
    source = Source(KEY)
    keys = ring(source, FakeClock())
    for _ in range(5):
        assert KEY.key_id in await keys.knowing([KEY.key_id])
    assert source.asked == 1


async def test_strangers_ids_cannot_make_it_ask_more_than_once_a_second() -> None:
    source, clock = Source(KEY), FakeClock()
    keys = ring(source, clock)
    for n in range(50):
        assert "stranger" not in await keys.knowing([f"{n}"])
    assert source.asked == 1
    clock.jump(1)
    await keys.knowing(["stranger"])
    assert source.asked == 2


async def test_an_unknown_key_while_the_source_is_away_is_nobodys_fault() -> None:
    source = Source(KEY)
    source.away = True
    keys = ring(source, FakeClock())
    with pytest.raises(KeysUnavailableError):
        await keys.knowing([KEY.key_id])
    source.away = False
    assert KEY.key_id in await keys.knowing([KEY.key_id])


async def test_known_keys_stay_when_the_source_goes_away_or_forgets_them() -> None:
    source, clock = Source(KEY), FakeClock()
    keys = ring(source, clock)
    await keys.knowing([KEY.key_id])
    source.keys = {}
    await keys.refresh()
    source.away = True
    await keys.refresh()
    assert KEY.key_id in await keys.knowing([KEY.key_id])


async def test_pinned_keys_count_whatever_the_source_says() -> None:
    source = Source()
    source.away = True
    keys = ring(source, FakeClock(), PUBLIC)
    assert (await keys.knowing([KEY.key_id]))[KEY.key_id].public == PUBLIC
    assert source.asked == 0
