"""A mirror is judged again when what gates read of it has changed, and else only priced."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from darkbloom.common.v1.frame_pb2 import FrameKind
from darkbloom.router.v1.peer_lane_pb2 import PeerWelcome, Presence, ProviderPresence
from darkbloom_router.conditions import View
from darkbloom_router.gates import first_gate
from darkbloom_router.model import Demand, Gate
from darkbloom_router.placement import audit
from darkbloom_router.simulate.lanes import SimulatedLane

from tests.bench.mirrors import BUILDS, MEMBER, Holder, Wire, asker, catalogued, heartbeat

DEMAND = Demand(build=BUILDS[0], prompt_tokens=100, output_bound=200, account_id="consumer")


def no_verdict(message: ProviderPresence) -> None:
    message.ClearField("verdict")


def other_verdict(message: ProviderPresence) -> None:
    message.verdict.verdict_id = "ver_other"
    message.verdict.trust_level = "none"


def distrusted(message: ProviderPresence) -> None:
    message.untrusted = "violation"


def drains(message: ProviderPresence) -> None:
    message.draining = True


def of_nobody(message: ProviderPresence) -> None:
    message.account_id = ""


def unverified(message: ProviderPresence) -> None:
    message.runtime_verified = False


def stale(message: ProviderPresence) -> None:
    message.challenge_age_ms = 3_600_000


def never_challenged(message: ProviderPresence) -> None:
    message.ClearField("challenge_age_ms")


def loaded(message: ProviderPresence) -> None:
    message.ClearField("heartbeat")
    message.loads.add(build=BUILDS[0], inflight=24, pending_tokens=200_000)


def busy(message: ProviderPresence) -> None:
    beat = heartbeat(9)
    beat.capacity.slots[0].active_token_budget_used = 199_999
    message.heartbeat.CopyFrom(beat)


CHANGES = {
    no_verdict: Gate.TRUST_FLOOR,
    other_verdict: Gate.TRUST_FLOOR,
    distrusted: Gate.UNTRUSTED,
    drains: Gate.OFFLINE,
    of_nobody: Gate.UNLINKED,
    unverified: Gate.RUNTIME_UNVERIFIED,
    stale: Gate.CHALLENGE_STALE,
    never_challenged: Gate.CHALLENGE_STALE,
    loaded: Gate.NO_HEADROOM,
    busy: Gate.FREE_MEMORY,
}


@pytest.mark.parametrize(
    ("change", "gate"),
    CHANGES.items(),
    ids=lambda item: str(item.__name__ if callable(item) else item.name),
)
async def test_each_change_of_a_mirror_shuts_its_gate_and_its_end_opens_it(
    change: Callable[[ProviderPresence], None], gate: Gate
) -> None:
    wire, core = Wire(), catalogued()
    holder, peer = Holder(Wire(), 1), asker(core, wire)
    told: list[Any] = []
    holder.publisher.subscribe(SimulatedLane(lambda *frame: told.append(frame[2]), print))
    [first] = (message for message in told if message.providers)
    holder.beat()
    holder.publisher.flush()
    later = told[-1]
    changed = Presence.FromString(later.SerializeToString())
    change(changed.providers[0])
    last = Presence.FromString(later.SerializeToString())
    last.providers[0].heartbeat.CopyFrom(heartbeat(10))

    wire.hand(FrameKind.FRAME_KIND_PEER_WELCOME, 0, PeerWelcome(session=MEMBER.session))
    running = asyncio.create_task(peer.run())
    found = []
    for message in (first, later, later, changed, later, last):
        wire.hand(FrameKind.FRAME_KIND_PRESENCE, 0, message)
        await asyncio.wait_for(wire.read_out(), 5)
        [row] = core.fleet.rows(BUILDS[0])
        view = View(DEMAND, core.fleet.rules, core.timers.now())
        found.append(first_gate(row, view))
        assert audit(core.fleet, BUILDS[0], view)
    running.cancel()
    await asyncio.wait({running}, timeout=5)

    assert found[1:4] == [Gate.ELIGIBLE, Gate.ELIGIBLE, gate]
    assert found[-1] is Gate.ELIGIBLE
