"""Evidence is lost while requests are on their way: a thousand races, and no body gets through.

The provider's lane is the real queue of a lane, written step by step, so that what waits when the
revocation comes is part of the race.
"""

import random  # noqa: TID251 - seeded: the same races every time
from itertools import count
from typing import Any

import pytest
from darkbloom.common.v1.frame_pb2 import Frame, FrameKind
from darkbloom.router.v1 import gateway_lane_pb2 as gw
from darkbloom.router.v1.provider_link_pb2 import TrustStatus
from darkbloom_mesh.lane_outbox import LaneLimits, Outbox
from darkbloom_router.ports import Judgement
from darkbloom_router.provider import Provider

from tests.unit.router.desk import PREFIX, Desk
from tests.unit.router.fleets import verdict

RACES = 1000
PARTS = 4
BODY = FrameKind.FRAME_KIND_BODY_PART


class QueuedLane:
    """A provider's lane whose writer takes a batch only when the race says so."""

    def __init__(self) -> None:
        self.outbox = Outbox(LaneLimits())
        self.written: list[tuple[int, int]] = []
        """Kind and stream, in the order of the wire."""
        self.told: list[TrustStatus] = []

    def send_control(self, kind: int, stream: int, message: Any) -> None:
        if isinstance(message, TrustStatus):
            self.told.append(message)
        self.outbox.add_control(Frame(kind=kind, stream=stream))

    send_ordered = send_control

    def send_body_part(self, frame: Frame) -> bool:
        return self.outbox.add_body_part(frame)

    def drop_stream(self, stream: int) -> None:
        self.outbox.drop(stream)

    def close(self, reason: str) -> None:
        """Nothing runs here."""

    def write(self) -> None:
        batch = self.outbox.take()
        if batch is not None:
            self.written += [(frame.kind, frame.stream) for frame in batch.frames]

    def bodies(self) -> int:
        return sum(kind == BODY for kind, _ in self.written)


class Race:
    """Two machines, and one that loses its verdict at any moment of a request."""

    def __init__(self) -> None:
        self.desk = Desk("one", "two", hedge_after_s=0)
        self.verdicts = count()
        for made in self.desk.providers.values():
            self.desk.lanes[made] = QueuedLane()
            self.grant(made)

    def lane(self, provider: Provider) -> QueuedLane:
        lane: QueuedLane = self.desk.lanes[provider]
        return lane

    def grant(self, provider: Provider, verdict_id: str = "") -> str:
        """Let a provider pass a challenge."""
        desk = self.desk
        name = verdict_id or f"ver_{next(self.verdicts)}"
        found = verdict(expires_at=desk.timers.now() + 900, verdict_id=name)
        desk.trust.passed(
            provider,
            Judgement(
                passed=True,
                failure="",
                untrust=False,
                verdict=found,
                runtime_verified=True,
                reasons=("hardware_proven",),
            ),
            desk.timers.now(),
        )
        return name

    def run(self, dice: random.Random) -> str:
        """Race once; return how far the body had come."""
        desk = self.desk
        stream = desk.open(request_id=f"req_{dice.getrandbits(128):032x}")
        offer = desk.offers(stream)[-1]
        attempt = desk.attempt(offer)
        loser, lane = attempt.provider, self.lane(attempt.provider)
        revoked = attempt.verdict.verdict_id

        def seal() -> None:
            if attempt.stream in desk.attempts.by_stream and attempt.live:
                desk.seal(offer)

        def part() -> None:
            frame = Frame(kind=BODY, stream=attempt.stream, payload=b"x")
            desk.uplink.take(desk.gateway, frame)

        def revoke() -> None:
            desk.trust.revoked(revoked, b"")

        steps = [seal, *[part] * PARTS]
        for _ in range(PARTS):
            steps.insert(dice.randint(1, len(steps)), lane.write)
        at = dice.randint(0, len(steps))
        steps.insert(at, revoke)
        if dice.random() < 0.5:
            # The answer that brought this verdict was slower than its revocation.
            steps.insert(dice.randint(at + 1, len(steps)), lambda: void(self.grant(loser, revoked)))
        before = -1
        for step in steps:
            step()
            if step is revoke:
                before = lane.bodies()
                assert loser.verdict is None
                assert loser.status == "untrusted"
        for _ in range(PARTS + 2):
            lane.write()
        assert lane.bodies() == before, "a body was written after the revocation"
        assert loser.verdict is None
        assert lane.told[-1].status == "untrusted"
        assert lane.told[-1].remedy
        self.others_serve(loser, stream, dice)

        lane.written.clear()
        lane.told.clear()
        self.grant(loser)
        desk.lane.sent.clear()
        return str(before)

    def others_serve(self, loser: Provider, stream: int, dice: random.Random) -> None:
        """It left routing at once: this request goes on elsewhere, and so does the next one."""
        desk = self.desk
        gone = gw.Abandon(reason=gw.ABANDON_REASON_CLIENT_GONE).SerializeToString()
        for asked in (stream, desk.open(request_id=f"req_{dice.getrandbits(128):032x}")):
            made = desk.attempt(desk.offers(asked)[-1])
            assert made.provider is not loser
            frame = Frame(kind=FrameKind.FRAME_KIND_ABANDON, stream=asked, payload=gone)
            desk.uplink.take(desk.gateway, frame)


def void(_value: object) -> None:
    """Drop a value."""


def test_no_body_is_written_after_the_revocation_whenever_it_comes() -> None:
    race, dice = Race(), random.Random(7)
    came = [race.run(dice) for _ in range(RACES)]
    # Every moment was met: before the first part, between any two, and after the last.
    assert {came.count(str(parts)) > 0 for parts in range(PARTS + 1)} == {True}


def test_an_answer_that_has_begun_goes_on() -> None:
    race = Race()
    desk = race.desk
    _, attempt = desk.dispatched()
    desk.chunk(attempt)
    desk.trust.revoked(attempt.verdict.verdict_id, b"")
    assert attempt.live
    assert desk.gateway.prefix == PREFIX


@pytest.mark.parametrize("first", ["revocation", "verdict"])
def test_a_verdict_and_its_revocation_may_come_in_any_order(first: str) -> None:
    race = Race()
    provider = race.desk.providers["one"]
    if first == "revocation":
        race.desk.trust.revoked("ver_raced", b"")
        race.grant(provider, "ver_raced")
    else:
        race.grant(provider, "ver_raced")
        race.desk.trust.revoked("ver_raced", b"")
    assert provider.verdict is None
    race.grant(provider)
    assert provider.status == "online"
