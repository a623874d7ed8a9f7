from collections.abc import Mapping
from datetime import datetime

from darkbloom_gateway.key_uses import KeyUses
from darkbloom_mesh.errors import StoreUnavailableError
from darkbloom_mesh.testing import FakeClock


class Billing:
    def __init__(self) -> None:
        self.away = False
        self.batches: list[Mapping[str, datetime]] = []

    async def record(self, uses: Mapping[str, datetime]) -> None:
        if self.away:
            raise StoreUnavailableError("away")
        self.batches.append(uses)


async def test_many_uses_of_a_key_are_one_row_of_a_batch() -> None:
    billing, clock = Billing(), FakeClock()
    uses = KeyUses(billing.record, clock)
    for key in ("key_a", "key_b", "key_a", ""):
        uses.note(key)

    await uses.flush()
    await uses.flush()

    assert billing.batches == [{"key_a": clock.now(), "key_b": clock.now()}]


async def test_what_billing_did_not_take_is_sent_again() -> None:
    billing = Billing()
    uses = KeyUses(billing.record, FakeClock())
    uses.note("key_a")
    billing.away = True
    await uses.flush()
    billing.away = False
    await uses.flush()

    assert [set(batch) for batch in billing.batches] == [{"key_a"}]


async def test_batches_have_a_bound() -> None:
    billing = Billing()
    uses = KeyUses(billing.record, FakeClock())
    for number in range(2500):
        uses.note(f"key_{number}")
    await uses.flush()

    assert [len(batch) for batch in billing.batches] == [1000, 1000, 500]
