"""The agent's small parts: bounds, texts of strangers, waiting, and frames that are nonsense."""

import asyncio
import contextlib
import hashlib

import pytest
from darkbloom.common.v1.frame_pb2 import Frame, FrameKind
from darkbloom.router.v1.provider_link_pb2 import (
    BuildRouting,
    InferenceRequest,
    Registered,
    RejectedModel,
    RoutingStatus,
    TrustStatus,
)
from darkbloom_edge.envelope import new_key_pair
from darkbloom_edge.replay import SenderKeyMemory
from darkbloom_edge.signatures import P256Signer
from darkbloom_mesh.body import PART_BYTES, BodyAssembler
from darkbloom_mesh.config import ConfigError, load
from darkbloom_mesh.testing import FakeClock, no_leaked_tasks
from darkbloom_provider.app import _patience_s
from darkbloom_provider.attempt import Hosted
from darkbloom_provider.bodies import MAX_LARGE_BODIES, MAX_SMALL_BODIES, Incoming, has_room
from darkbloom_provider.config import ProviderConfig
from darkbloom_provider.desk import Desk
from darkbloom_provider.loads import Loads
from darkbloom_provider.standing import MAX_ENTRIES, MAX_TEXT_CHARS, Standing, printable
from darkbloom_provider.terminals import MAX_TERMINALS, UnacknowledgedTerminals
from darkbloom_provider.waiting import first_of
from darkbloom_provider.work import EARLY_CANCELS, Worker
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

BIT = 1 << 63


class Engine:
    """Takes nothing and is told of everything."""

    def __init__(self):
        self.cancelled = []

    def cancel(self, job_id):
        self.cancelled.append(job_id)


class Outlet:
    """Counts what was sent."""

    def __init__(self):
        self.sent = []

    def send_control(self, kind, stream, message):
        self.sent.append((kind, stream, message))


class Tasks:
    """Takes coroutines and never runs them."""

    def create_task(self, work, name):
        work.close()


def worker(**changes):
    engine = Engine()
    desk = Desk(
        key_pair=new_key_pair(),
        signer=P256Signer.generate(),
        engine=engine,
        loads=Loads(engine, (), slots=1, clock=FakeClock()),
        memory=SenderKeyMemory(),
        terminals=UnacknowledgedTerminals(),
        hosted={"dev/x": Hosted(build="dev/x", weight_hash="")},
        clock=FakeClock(),
        **changes,
    )
    return Worker(desk, outlet=Outlet(), tasks=Tasks(), credit=8, changed=lambda: None)


@pytest.mark.parametrize(
    ("size", "most"), [(PART_BYTES, MAX_SMALL_BODIES), (PART_BYTES + 1, MAX_LARGE_BODIES)]
)
def test_small_and_large_bodies_have_places_of_their_own(size, most):
    body = BodyAssembler(size, bytes(32), size)
    coming = [Incoming(InferenceRequest(body_bytes=size), body, 0.0) for _ in range(most)]
    assert has_room(coming[1:], size)
    assert not has_room(coming, size)
    other = PART_BYTES if size > PART_BYTES else PART_BYTES + 1
    assert has_room(coming, other)


@given(st.text())
def test_what_strangers_say_is_one_printable_line(text):
    shown = printable(text)
    assert len(shown) <= MAX_TEXT_CHARS
    assert shown.isprintable()


@given(st.text(max_size=50), st.integers(-(2**31), 2**31 - 1))
def test_any_answer_of_the_router_can_be_kept(text, reason):
    standing = Standing()
    standing.take_registered(
        Registered(
            provider_id=text,
            accepted_models=[text] * (MAX_ENTRIES + 1),
            rejected_models=[RejectedModel(id=text, reason=reason, detail=text)],
        )
    )
    standing.take_trust(
        TrustStatus(trust_level=text, status=text, reason=text, admission=text, remedy=text)
    )
    shut = BuildRouting(model_id=text, reason=reason, evidence=text, remedy=text)
    standing.take_routing(RoutingStatus(builds=[shut] * (MAX_ENTRIES + 1)))
    assert len(standing.accepted_models) == len(standing.routing) == MAX_ENTRIES
    assert standing.rejected_models[0].reason
    assert standing.routing[0].reason
    assert standing.routing[0].evidence.isprintable()


@given(
    st.lists(
        st.tuples(
            st.sampled_from([20, 21, 22, 23, 30]),
            st.integers(0, 3),
            st.integers(0, 2),
            st.binary(max_size=40),
        ),
        max_size=20,
    )
)
def test_no_frame_of_a_router_breaks_the_worker(frames):
    busy = worker()
    busy.accept_verdict("ver_1")
    for kind, stream, sequence, payload in frames:
        frame = Frame(kind=kind, stream=BIT | stream, sequence=sequence, payload=payload)
        with contextlib.suppress(DecodeError):
            assert busy.handle(frame)
    busy.stop()
    busy.close()


def test_early_cancels_are_bounded_and_forgotten_in_time():
    idle = worker()
    for stream in range(EARLY_CANCELS + 10):
        idle.handle(Frame(kind=FrameKind.FRAME_KIND_CANCEL, stream=BIT | stream))
    assert len(idle._early_cancels) == EARLY_CANCELS
    idle._desk.clock.jump(61)
    idle.expire()
    assert not idle._early_cancels


def test_a_drain_that_stops_gives_up_bodies_that_are_still_coming():
    busy = worker()
    busy.accept_verdict("ver_" + "1" * 32)
    request = InferenceRequest(
        request_id="req_" + "1" * 32,
        attempt_id="att_" + "1" * 32,
        build="dev/x",
        body_bytes=10,
        body_sha256=hashlib.sha256(b"").digest(),
        verdict_id="ver_" + "1" * 32,
    )
    frame = Frame(
        kind=FrameKind.FRAME_KIND_REQUEST, stream=BIT | 1, payload=request.SerializeToString()
    )
    busy.handle(frame)
    assert busy.busy
    busy.stop()
    assert not busy.busy
    [(kind, stream, _)] = busy._outlet.sent
    assert (kind, stream) == (FrameKind.FRAME_KIND_ERROR, BIT | 1)


def test_terminals_that_wait_fit_the_control_queue_of_a_lane():
    from darkbloom_mesh.lane_outbox import LaneLimits

    assert LaneLimits().control_frames / 2 >= MAX_TERMINALS


async def test_of_several_waits_the_others_are_ended():
    async with no_leaked_tasks():
        await first_of(asyncio.Event().wait(), asyncio.sleep(0), asyncio.Event().wait())  # noqa: TID251 - a turn of the loop


@pytest.mark.parametrize("grace_s", [0, 1, 10, 30, 600])
def test_running_work_never_gets_the_whole_grace(grace_s):
    assert 0 <= _patience_s(grace_s) <= grace_s
    assert grace_s == 0 or _patience_s(grace_s) < grace_s


def test_a_default_configuration_is_sound():
    config = load(ProviderConfig, "provider", {})
    assert config.coordinator_tls
    assert config.max_concurrency is None


@pytest.mark.parametrize(
    "environ",
    [
        {"DARKBLOOM_PROVIDER_COORDINATOR": "host"},
        {"DARKBLOOM_PROVIDER_COORDINATOR": "host:0"},
        {"DARKBLOOM_PROVIDER_COORDINATOR": ":1"},
        {"DARKBLOOM_PROVIDER_COORDINATOR": "host:99999"},
        {"DARKBLOOM_PROVIDER_COORDINATOR_TLS": "false"},
        {"DARKBLOOM_PROVIDER_MAX_CONCURRENCY": "0"},
        {"DARKBLOOM_PROVIDER_MAX_CONCURRENCY": "9"},
    ],
)
def test_a_configuration_that_cannot_work_is_refused(environ):
    with pytest.raises(ConfigError):
        load(ProviderConfig, "provider", environ)


def test_the_scripted_engine_may_answer_many_at_once():
    environ = {
        "DARKBLOOM_PROVIDER_ENGINE": "scripted",
        "DARKBLOOM_PROVIDER_MAX_CONCURRENCY": "512",
    }
    assert load(ProviderConfig, "provider", environ).max_concurrency == 512
