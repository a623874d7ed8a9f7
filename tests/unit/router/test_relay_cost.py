"""What one chunk costs on its way through the router."""

import sys
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from darkbloom.common.v1.frame_pb2 import Frame, FrameKind
from darkbloom_mesh.telemetry import Metrics
from darkbloom_mesh.testing import FakeClock
from darkbloom_router.attempts import ATTEMPT_BIT, Attempt, Attempts, GatewayLink, Phase, Request
from darkbloom_router.downlink import Downlink, Patience
from darkbloom_router.failures import Ladder
from darkbloom_router.meter import Meter
from darkbloom_router.reservations import Reservation
from darkbloom_router.timers import Timers

from tests.unit.router.fleets import DEMAND, NOW, candidate, verdict

CHUNKS = 2000


class Lane:
    """Counts what is appended."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send_frame(self, frame: Frame) -> bool:
        self.sent.append(frame)
        return True

    def send_ordered(self, kind: int, stream: int, message: Any) -> bool:
        self.sent.append(kind)
        return True


def test_a_chunk_costs_a_few_microseconds(capsys: pytest.CaptureFixture[str]) -> None:
    row, _ = candidate()
    lane, timers = Lane(), Timers(FakeClock())
    gateway = GatewayLink(cast("Any", lane))
    request = Request(
        request_id="req_1",
        stream=1,
        gateway=gateway,
        demand=DEMAND,
        deadline=NOW,
        ladder=Ladder(1),
        opened_at=NOW,
    )
    attempts = Attempts(CHUNKS)
    attempt = Attempt(
        attempt_id="att_1",
        stream=ATTEMPT_BIT | 1,
        number=1,
        request=request,
        candidate=row,
        provider=row.provider,
        lane=cast("Any", lane),
        verdict=verdict(),
        reservation=Reservation(row, 1),
        phase=Phase.ACCEPTED,
    )
    attempts.add(attempt)
    nobody = cast("Any", SimpleNamespace(stalled=None, began=lambda _: None))
    meter = Meter(Metrics(version="0"))
    downlink = Downlink(attempts, nobody, nobody, nobody, timers, meter, Patience(), relay=nobody)
    frames = [
        Frame(
            stream=attempt.stream,
            kind=FrameKind.FRAME_KIND_CHUNK,
            sequence=index,
            payload=b"x" * 100,
            tokens=index,
        )
        for index in range(CHUNKS)
    ]

    started = time.thread_time()
    for frame in frames:
        downlink.take(row.provider, frame, NOW)
    each_us = (time.thread_time() - started) / CHUNKS * 1e6
    with capsys.disabled():
        sys.stdout.write(f"\none relayed chunk: {each_us:.2f} us\n")

    assert len(lane.sent) == CHUNKS + 1
    assert lane.sent[0] == FrameKind.FRAME_KIND_COMMITTED
    assert lane.sent[1] is frames[0]
    assert each_us < 20
