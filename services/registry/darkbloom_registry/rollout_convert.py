"""Rollouts and model states to protobuf and back; pure and total."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from darkbloom.common.v1 import page_pb2
from darkbloom.registry.v1 import registry_service_pb2 as pb
from darkbloom.registry.v1 import rollout_pb2
from darkbloom_mesh.errors import InvalidArgumentError
from google.protobuf.duration_pb2 import Duration

from darkbloom_registry.changes import Recorded
from darkbloom_registry.convert import key_from, page_from, timestamp
from darkbloom_registry.model_states import ModelStage, ModelState
from darkbloom_registry.rollouts import (
    TTFT_BOUNDS_S,
    Action,
    Counts,
    Gates,
    Rollout,
    RolloutState,
    Seen,
)

MAX_ROWS = 1000
_MAX_COUNT = 1_000_000_000
_MAX_BYTES = 1 << 50
_MAX_TEXT = 256
_MAX_GENERATION = (1 << 63) - 1
_STATE = {
    RolloutState.RUNNING: rollout_pb2.ROLLOUT_STATE_RUNNING,
    RolloutState.PAUSED: rollout_pb2.ROLLOUT_STATE_PAUSED,
    RolloutState.DONE: rollout_pb2.ROLLOUT_STATE_DONE,
    RolloutState.REVERTED: rollout_pb2.ROLLOUT_STATE_REVERTED,
}
_ACTION: Mapping[int, Action] = {
    pb.ROLLOUT_ACTION_PAUSE: Action.PAUSE,
    pb.ROLLOUT_ACTION_RESUME: Action.RESUME,
    pb.ROLLOUT_ACTION_REVERT: Action.REVERT,
}
_STAGE: Mapping[rollout_pb2.ModelStage.ValueType, ModelStage] = {
    rollout_pb2.MODEL_STAGE_STARTED: ModelStage.STARTED,
    rollout_pb2.MODEL_STAGE_DOWNLOADING: ModelStage.DOWNLOADING,
    rollout_pb2.MODEL_STAGE_VERIFIED: ModelStage.VERIFIED,
    rollout_pb2.MODEL_STAGE_FAILED: ModelStage.FAILED,
    rollout_pb2.MODEL_STAGE_LOADED: ModelStage.LOADED,
}
STAGE_TO = {stage: number for number, stage in _STAGE.items()}


def action_from(number: int) -> Action:
    """Read what an operator wants.

    Raises:
        InvalidArgumentError: nothing that this registry knows.
    """
    action = _ACTION.get(number)
    if action is None:
        raise InvalidArgumentError("not a known action", "action")
    return action


def gates_from(message: rollout_pb2.RolloutGates) -> Gates:
    """Read gates; what is absent is the default.

    Raises:
        InvalidArgumentError: a span that is none.
    """
    found = Gates()
    given = {
        name: getattr(message, name)
        for name in ("min_requests", "min_success_percent", "max_load_failures", "max_untrusted")
        if message.HasField(name)
    }
    ttft = _span(message.max_ttft_p95, "gates.max_ttft_p95")
    return Gates(
        **{
            "min_requests": found.min_requests,
            "min_success_percent": found.min_success_percent,
            "max_load_failures": found.max_load_failures,
            "max_untrusted": found.max_untrusted,
            **given,
        },
        soak=_span(message.soak, "gates.soak") if message.HasField("soak") else found.soak,
        max_ttft_p95=ttft if message.HasField("max_ttft_p95") else None,
    )


def rollout_to(rollout: Rollout) -> rollout_pb2.Rollout:
    """Write a rollout as stored."""
    gates, counts = rollout.gates, rollout.counts
    message = rollout_pb2.Rollout(
        rollout_id=rollout.rollout_id,
        alias=rollout.alias,
        from_build=rollout.from_build,
        to_build=rollout.to_build,
        steps=rollout.steps,
        step=rollout.step,
        state=_STATE[rollout.state],
        gates=rollout_pb2.RolloutGates(
            min_requests=gates.min_requests,
            soak=_duration(gates.soak),
            min_success_percent=gates.min_success_percent,
            max_load_failures=gates.max_load_failures,
            max_untrusted=gates.max_untrusted,
        ),
        counts=rollout_pb2.RolloutCounts(
            successes=counts.successes,
            failures=counts.failures,
            load_failures=counts.load_failures,
            untrusted=counts.untrusted,
            ttft_buckets=counts.ttft_buckets,
        ),
        reason=rollout.reason,
        actor=rollout.actor,
        create_time=timestamp(rollout.create_time),
        step_time=timestamp(rollout.step_time),
        update_time=timestamp(rollout.update_time),
    )
    if gates.max_ttft_p95 is not None:
        message.gates.max_ttft_p95.CopyFrom(_duration(gates.max_ttft_p95))
    if counts.ttft_p95 is not None:
        shown = min(counts.ttft_p95, timedelta(days=1))
        message.counts.ttft_p95.CopyFrom(_duration(shown))
    return message


def seen_from(reports: Sequence[pb.BuildReport]) -> list[Seen]:
    """Read what a router saw.

    Raises:
        InvalidArgumentError: too many rows, or a count out of range.
    """
    if len(reports) > MAX_ROWS:
        raise InvalidArgumentError("too many", "builds")
    found = []
    for report in reports:
        counts = report.counts
        buckets = tuple(counts.ttft_buckets) or Counts().ttft_buckets
        numbers = (
            counts.successes,
            counts.failures,
            counts.load_failures,
            counts.untrusted,
            *buckets,
        )
        if len(buckets) != len(TTFT_BOUNDS_S) + 1:
            raise InvalidArgumentError("wrong number of buckets", "builds.counts.ttft_buckets")
        if not all(0 <= number <= _MAX_COUNT for number in numbers):
            raise InvalidArgumentError("out of range", "builds.counts")
        more = Counts(
            successes=counts.successes,
            failures=counts.failures,
            load_failures=counts.load_failures,
            untrusted=counts.untrusted,
            ttft_buckets=buckets,
        )
        if report.catalog_generation < 0:
            raise InvalidArgumentError("out of range", "builds.catalog_generation")
        build = _text(report.build, "builds.build")
        found.append(Seen(build=build, generation=report.catalog_generation, counts=more))
    return found


def states_from(states: Sequence[rollout_pb2.ModelState], now: datetime) -> list[ModelState]:
    """Read how far machines are; the time is that of the report's arrival.

    Raises:
        InvalidArgumentError: too many rows, or a field out of range.
    """
    if len(states) > MAX_ROWS:
        raise InvalidArgumentError("too many", "states")
    found = []
    for state in states:
        stage = _STAGE.get(state.stage)
        if stage is None:
            raise InvalidArgumentError("not a known stage", "states.stage")
        if not (0 <= state.bytes_done <= _MAX_BYTES and 0 <= state.bytes_total <= _MAX_BYTES):
            raise InvalidArgumentError("out of range", "states.bytes_done")
        found.append(
            ModelState(
                provider_id=_text(state.provider_id, "states.provider_id"),
                build=_text(state.build, "states.build"),
                stage=stage,
                bytes_done=state.bytes_done,
                bytes_total=state.bytes_total,
                error=_text(state.error, "states.error"),
                report_time=now,
                machine=_text(state.machine, "states.machine"),
            )
        )
    return found


def state_to(state: ModelState) -> rollout_pb2.ModelState:
    """Write how far a machine is."""
    return rollout_pb2.ModelState(
        provider_id=state.provider_id,
        build=state.build,
        stage=STAGE_TO[state.stage],
        bytes_done=state.bytes_done,
        bytes_total=state.bytes_total,
        error=state.error,
        report_time=timestamp(state.report_time),
        machine=state.machine,
    )


def change_to(recorded: Recorded) -> pb.Change:
    """Write a recorded change."""
    change = recorded.change
    return pb.Change(
        generation=recorded.generation,
        change_time=timestamp(change.time),
        actor=change.actor,
        action=change.action,
        subject=change.subject,
        detail_json=json.dumps(dict(change.detail)),
    )


def changes_page(page: page_pb2.PageRequest) -> tuple[int, int]:
    """Return (generation below which the page begins, its size).

    Raises:
        InvalidArgumentError: a negative size, or a token that none of our pages gave.
    """
    before, size = page_from(page)
    if not before:
        return _MAX_GENERATION, size
    if not before.isascii() or not before.isdigit() or int(before) > _MAX_GENERATION:
        raise InvalidArgumentError("not a page token", "page.page_token")
    return int(before), size


def session_from(text: str, sequence: int) -> tuple[str, int]:
    """Read whose report this is.

    Raises:
        InvalidArgumentError: no session, or no sequence.
    """
    if not text or sequence < 1:
        raise InvalidArgumentError("required", "session" if not text else "sequence")
    return _text(text, "session"), sequence


def _text(text: str, field: str) -> str:
    if len(text) > _MAX_TEXT:
        raise InvalidArgumentError("too long", field)
    return key_from(text, field)


def _span(message: Duration, field: str) -> timedelta:
    try:
        return message.ToTimedelta()
    except (ValueError, OverflowError):
        raise InvalidArgumentError("not a span of time", field) from None


def _duration(span: timedelta) -> Duration:
    message = Duration()
    message.FromTimedelta(span)
    return message
