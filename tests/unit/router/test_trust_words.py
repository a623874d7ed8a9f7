"""What a provider is told of its trust: each reason has a remedy, and only the living are named."""

import asyncio
from collections.abc import Sequence

import pytest
from darkbloom.attestation.v1 import attestation_pb2
from darkbloom_edge.attestation import ChallengeFault
from darkbloom_mesh.errors import UnavailableError
from darkbloom_mesh.testing import FakeClock, settle
from darkbloom_router.alive import BATCH, INTERVAL_S, Alive
from darkbloom_router.fleet import Fleet
from darkbloom_router.model import Rules, TrustLevel
from darkbloom_router.remedies import remedy

from tests.unit.router.fleets import FACTS, provider, verdict

GOOD = {
    "unspecified",
    "hardware_proven",
    "challenge_passed",
    "same_binary",
    "approved_release_transition",
    "continuity",
    "continuity_release_transition",
}


def test_each_reason_that_costs_trust_says_what_to_do() -> None:
    for name in attestation_pb2.TrustReason.keys():  # noqa: SIM118 - an enum wrapper is no dict
        word = name.removeprefix("TRUST_REASON_").lower()
        assert bool(remedy(word)) is (word not in GOOD), word


@pytest.mark.parametrize(
    "fault",
    [
        ChallengeFault.SIP_DISABLED,
        ChallengeFault.SECURE_BOOT_DISABLED,
        ChallengeFault.BINARY_HASH_MISMATCH,
        ChallengeFault.WEIGHT_HASH_MISMATCH,
    ],
)
def test_what_untrusts_at_once_says_what_to_do(fault: ChallengeFault) -> None:
    assert remedy(fault.value)


def test_an_unknown_reason_has_no_remedy_rather_than_a_wrong_one() -> None:
    assert remedy("reason_99") == ""


class Attestation:
    """Hears who is alive."""

    def __init__(self) -> None:
        self.heard: list[list[str]] = []
        self.away = False

    async def alive(self, provider_ids: Sequence[str]) -> None:
        if self.away:
            raise UnavailableError("attestation is away")
        self.heard.append(list(provider_ids))


def fleet(count: int, level: TrustLevel, *, remote: bool = False) -> Fleet:
    found = Fleet(Rules())
    for number in range(count):
        made = provider(f"p{number}", verdict=verdict(level=level))
        made.remote = remote
        found.join(made, [FACTS])
    return found


async def test_only_streams_held_here_with_something_to_lose_are_named() -> None:
    attestation = Attestation()
    for found in (fleet(2, TrustLevel.SELF_SIGNED), fleet(2, TrustLevel.HARDWARE, remote=True)):
        await Alive(found, attestation, FakeClock()).report()  # type: ignore[arg-type] - the part of it that is used
    assert attestation.heard == []
    await Alive(fleet(2, TrustLevel.HARDWARE), attestation, FakeClock()).report()  # type: ignore[arg-type] - see above
    assert [len(names) for names in attestation.heard] == [2]


async def test_a_large_fleet_is_named_in_parts() -> None:
    attestation = Attestation()
    await Alive(fleet(BATCH + 1, TrustLevel.HARDWARE), attestation, FakeClock()).report()  # type: ignore[arg-type] - see above
    assert [len(names) for names in attestation.heard] == [BATCH, 1]


async def test_who_is_away_is_told_the_next_time() -> None:
    attestation, clock = Attestation(), FakeClock()
    attestation.away = True
    alive = Alive(fleet(1, TrustLevel.HARDWARE), attestation, clock)  # type: ignore[arg-type] - see above
    task = asyncio.create_task(alive.run())
    await settle()
    await clock.advance(INTERVAL_S)
    assert attestation.heard == []
    attestation.away = False
    await clock.advance(INTERVAL_S)
    assert len(attestation.heard) == 1
    task.cancel()
