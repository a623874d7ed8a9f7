"""Each refusal and each word of a machine, made to happen to a request."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from darkbloom.router.v1 import gateway_lane_pb2 as gw
from darkbloom.router.v1 import provider_link_pb2 as pl
from darkbloom_router import refusals
from darkbloom_router.entry import DispatchLimits
from darkbloom_router.failures import Code, Detail, Kind, judge
from darkbloom_router.model import Build, Catalog, Rules, SlotState
from darkbloom_router.refusals import Refusal

from tests.unit.router.desk import Desk, K, released
from tests.unit.router.fleets import BUILD, FACTS, HASH, capacity

AT_ONCE = DispatchLimits(queue_before_shed=False)
OWN = {"owner_policy": gw.OWNER_POLICY_EXCLUSIVE, "account_id": "owner"}
HUGE = replace(FACTS, size_bytes=40_000_000_000)
Made = tuple[Desk, int]


def all_say(code: int, detail: int = 0, status: int = 500, *names: str) -> Made:
    """Let every machine fail alike."""
    desk = Desk(*(names or ("a", "b")))
    stream = desk.open()
    while desk.refusal(stream) is None:
        desk.error(desk.seal(desk.offers(stream)[-1]), code, detail, status)
    return desk, stream


def asked(desk: Desk, **request: Any) -> Made:
    return desk, desk.open(**request)


def full(**request: Any) -> Made:
    return asked(Desk("a", limits=AT_ONCE, inflight=24), **request)


def own(**state: Any) -> Made:
    """Ask one's own machine alone, in a state."""
    desk = Desk("a", limits=AT_ONCE)
    machine = desk.providers["a"]
    for name, value in state.items():
        setattr(machine, name, value)
    desk.fleet.refresh(machine)
    return asked(desk, **OWN)


async def late(*names: str, rules: Rules | None = None) -> Made:
    """Let nobody begin."""
    desk = Desk(*names, rules=rules, hedge_after_s=0)
    stream = desk.open(deadline_s=150)
    while desk.refusal(stream) is None:
        desk.seal(desk.offers(stream)[-1])
        await desk.pass_time(11)
    return desk, stream


async def waited_in_line() -> Made:
    desk = Desk("a", limits=DispatchLimits(), inflight=24)
    stream = desk.open(deadline_s=1.0)
    await desk.pass_time(1.1)
    return desk, stream


def a_full_line() -> Made:
    desk = Desk("a", inflight=24)
    for index in range(64):
        stream = desk.open(account_id=f"acct_{index}")
        if desk.refusal(stream) is not None:
            return desk, stream
    raise AssertionError("the line takes everybody")


def saturated() -> Made:
    desk = Desk("a", limits=DispatchLimits(requests_per_lane=1))
    desk.open()
    return asked(desk)


def drained() -> Made:
    desk = Desk("a")
    desk.dispatcher.draining = True
    return asked(desk)


def too_large() -> Made:
    desk = Desk("a", limits=AT_ONCE)
    machine = desk.providers["a"]
    machine.capacity = None
    desk.fleet.set_models(machine, [HUGE])
    return asked(desk)


def unreadable() -> Made:
    return asked(Desk("a"), output_bound=0)


def without_vision() -> Made:
    desk = Desk("a", limits=AT_ONCE)
    desk.fleet.set_models(desk.providers["a"], [replace(FACTS, vision=False)])
    return asked(desk, traits=gw.Traits(requires_vision=True))


def beyond_context() -> Made:
    short = Build(build=BUILD, accepted_hashes=frozenset({HASH}), max_context=50)
    return asked(Desk("a", catalog=Catalog(generation=1, builds={BUILD: short})))


def larger_than_any_budget() -> Made:
    return asked(Desk("a", limits=AT_ONCE), output_bound=20_000)


def would_be_late() -> Made:
    desk = Desk("a", "b")
    for machine in desk.providers.values():
        machine.capacity_at = desk.timers.now() - 60
    stream = desk.open()
    while desk.refusal(stream) is None:
        attempt = desk.seal(desk.offers(stream)[-1])
        desk.error(attempt, Code.CAPACITY, Detail.DEADLINE_UNREACHABLE, 503)
    return desk, stream


def lost() -> Made:
    desk = Desk("a")
    stream, attempt = desk.dispatched()
    desk.fleet.leave(attempt.provider)
    desk.losses.provider(attempt.provider, clean=False)
    return desk, stream


def unopenable() -> Made:
    desk = Desk("a")
    stream, attempt = desk.dispatched()
    desk.chunk(attempt)
    desk.violation(attempt)
    return desk, stream


def too_dear() -> Made:
    desk = Desk("a")
    stream = desk.open()
    desk.decline(desk.offers(stream)[-1])
    return desk, stream


def claimed_too_late() -> Made:
    desk = Desk("a")
    return desk, desk.claim(gw.Offer(attempt_id="att_" + "0" * 32))


def sealed_otherwise_than_offered() -> Made:
    desk = Desk("a", "b")
    offer = desk.promise()
    stream = desk.claim(offer)
    desk.error(desk.seal(offer), Code.ENCRYPTION_FAILURE, Detail.HEADER_MISMATCH, 400)
    return desk, stream


STORIES: dict[str, Callable[[], Any]] = {
    "MACHINE_BUSY": full,
    "NO_PROVIDER": lambda: asked(Desk()),
    "QUEUE_FULL": a_full_line,
    "QUEUE_DEADLINE": waited_in_line,
    "SATURATED": saturated,
    "TTFT_TOO_SLOW": lambda: late("a", rules=Rules(ttft_ceiling=True)),
    "PROMPT_TOO_LONG": larger_than_any_budget,
    "OVERSIZED": lambda: all_say(Code.CAPACITY, 0, 503, "a", "b", "c"),
    "DEADLINE_UNREACHABLE": would_be_late,
    "FIRST_CHUNK_TIMEOUT": lambda: late("a", "b", "c"),
    "OWN_MACHINE_BUSY": lambda: own(inflight=24),
    "OWN_MACHINE_OFFLINE": lambda: own(draining=True),
    "MACHINE_NOT_FOUND": lambda: asked(Desk("a"), machine="prov_other", **OWN),
    "OWN_MODEL_NOT_LOADED": lambda: own(capacity=capacity(9, state=SlotState.RELOADING)),
    "UNAVAILABLE": lambda: asked(Desk("a"), build="nobody/knows"),
    "TOO_LARGE": too_large,
    "INCAPABLE": without_vision,
    "DRAINING": drained,
    "CONTEXT_EXCEEDED": beyond_context,
    "REJECTED_MODEL": lambda: asked(
        Desk("a", limits=DispatchLimits(reject_models=frozenset({BUILD})))
    ),
    "CLIENT_ERROR": lambda: all_say(Code.INVALID_REQUEST, 0, 400),
    "SEALED_HEADER": sealed_otherwise_than_offered,
    "UNSUPPORTED_SCHEMA": lambda: all_say(Code.INVALID_REQUEST, Detail.UNSUPPORTED_SCHEMA, 400),
    "MEDIA_TOO_LARGE": lambda: all_say(Code.MEDIA_TOO_LARGE, 0, 413),
    "PAYLOAD_TOO_LARGE": lambda: all_say(0, 0, 413),
    "TEMPLATE_FAILED": lambda: all_say(Code.TEMPLATE_RENDER, 0, 422),
    "BOUND_EXCEEDED": lambda: all_say(Code.BOUND_EXCEEDED, 0, 400),
    "PROVIDER_LOST": lost,
    "PROVIDER_FAILED": lambda: all_say(Code.GENERATION_FAILURE),
    "PROVIDER_UNAVAILABLE": lambda: all_say(Code.MODEL_UNAVAILABLE, 0, 503),
    "PROVIDER_TIMEOUT": lambda: all_say(Code.INTERNAL_FAILURE, 0, 504),
    "ENCRYPTION_FAILED": unopenable,
    "TOO_DEAR": too_dear,
    "OFFER_EXPIRED": claimed_too_late,
    "INTERNAL": unreadable,
}


def test_every_refusal_has_its_story() -> None:
    assert set(STORIES) == {
        name for name, value in vars(refusals).items() if isinstance(value, Refusal)
    }


@pytest.mark.parametrize("name", STORIES)
async def test_each_refusal_is_what_happens_then(name: str) -> None:
    expected: Refusal = getattr(refusals, name)
    made = STORIES[name]()
    desk, stream = made if isinstance(made, tuple) else await made
    refused = desk.refusal(stream)
    assert refused is not None
    assert (refused.http_status, refused.type, refused.code, refused.reason, refused.message) == (
        expected.http_status,
        expected.kind,
        expected.code,
        expected.reason,
        expected.message,
    )
    assert refused.HasField("retry_after") is (expected.retry_after_s is not None)
    assert all(one.request.stream != stream for one in desk.attempts.by_stream.values())
    assert len(released(desk.billing)) == (1 if desk.offers(stream) else 0)


MOVES = {
    Kind.FINAL: {
        "FAILURE_CODE_INVALID_REQUEST",
        "FAILURE_CODE_INVALID_MEDIA",
        "FAILURE_CODE_MEDIA_TOO_LARGE",
        "FAILURE_CODE_UNSUPPORTED_MEDIA",
        "FAILURE_CODE_TEMPLATE_RENDER",
        "FAILURE_CODE_BOUND_EXCEEDED",
        "FAILURE_REASON_JINJA_TEMPLATE",
        "FAILURE_REASON_JINJA_CHANNEL_TAGS",
        "FAILURE_REASON_JINJA_NULL_BRIDGE",
        "FAILURE_REASON_REQUEST_EXCEEDS_CONTEXT",
        "FAILURE_REASON_CLIENT_ERROR",
        "FAILURE_REASON_UNSUPPORTED_PARAMETER",
        "FAILURE_REASON_UNSUPPORTED_SCHEMA",
    },
    Kind.CAPACITY: {
        "FAILURE_CODE_CAPACITY",
        "FAILURE_REASON_CAPACITY_TIMEOUT",
        "FAILURE_REASON_QUEUE_FULL",
        "FAILURE_REASON_TOKEN_BUDGET_EXHAUSTED",
        "FAILURE_REASON_REQUEST_EXCEEDS_NODE",
        "FAILURE_REASON_CAPACITY_BUSY",
    },
    Kind.LATE: {"FAILURE_REASON_DEADLINE_UNREACHABLE"},
    Kind.FREE: {"FAILURE_REASON_DRAINING"},
}
WORDS = [
    *((pl.FailureCode.Name(number), number, 0) for number in pl.FailureCode.values()),
    *((pl.FailureReason.Name(number), 0, number) for number in pl.FailureReason.values()),
]


@pytest.mark.parametrize(("word", "code", "detail"), WORDS, ids=[word for word, _, _ in WORDS])
def test_each_word_of_a_machine_moves_the_ladder_as_its_class_says(
    word: str, code: int, detail: int
) -> None:
    kind = next((kind for kind, words in MOVES.items() if word in words), Kind.FAULT)
    assert judge(code, detail, 500).kind is kind

    desk = Desk("a", "b")
    stream, attempt = desk.dispatched()
    desk.error(attempt, code, detail)
    moved = len(desk.offers(stream)) == 2
    assert moved is (kind is not Kind.FINAL), word
    assert (desk.refusal(stream) is None) is moved
    assert attempt.provider.inflight == 0
    assert not desk.lane.of(K.FRAME_KIND_COMMITTED)
