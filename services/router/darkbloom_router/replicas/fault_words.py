"""What is held against a machine, as replicas tell each other: proto to memory and back, pure."""

from darkbloom.router.v1 import machine_faults_pb2 as words

from darkbloom_router.faults.holds import Hold
from darkbloom_router.faults.memory import Faults
from darkbloom_router.faults.node import NodeFaults, Outcome
from darkbloom_router.faults.pair import PairFaults, Strike

MAX_BUILDS = 32
"""Builds of one machine that are told; those it failed with last."""
MAX_EVENTS = 64
SHAPES = 16
"""Shapes that there are: one bit for each ability."""
_LESSONS = {
    Outcome.SUCCESS: words.LESSON_SUCCESS,
    Outcome.FAULT: words.LESSON_FAULT,
    Outcome.FLUSH: words.LESSON_FAULT,
    Outcome.FULL: words.LESSON_FULL,
}
_OUTCOMES = {
    words.LESSON_SUCCESS: Outcome.SUCCESS,
    words.LESSON_FAULT: Outcome.FAULT,
    words.LESSON_FULL: Outcome.FULL,
}


def write(found: Faults, now: float) -> words.MachineFaults:
    """Return what is held against a machine at this moment."""
    node = found.node
    message = words.MachineFaults(
        breaker=_sentence(node.breaker, now), ejection=_sentence(node.ejection, now)
    )
    for when, outcome in node.events:
        message.events.add(
            age_ms=_ms(now - when), lesson=_LESSONS[outcome], flush=outcome is Outcome.FLUSH
        )
    for build, pair in list(found.pairs.items())[-MAX_BUILDS:]:
        message.builds.append(_build(build, pair, now))
    return message


def read(message: words.MachineFaults, now: float) -> Faults:
    """Return what another replica holds against a machine, on this replica's clock."""
    node = NodeFaults(breaker=_hold(message.breaker, now), ejection=_hold(message.ejection, now))
    for event in message.events[-MAX_EVENTS:]:
        outcome = Outcome.FLUSH if event.flush else _OUTCOMES.get(event.lesson)
        if outcome is not None:
            node.events.append((now - event.age_ms / 1000, outcome))
    pairs = {item.build: _pair(item, now) for item in message.builds[:MAX_BUILDS]}
    return Faults(node=node, pairs=pairs, touched_at=now)


def _build(build: str, pair: PairFaults, now: float) -> words.BuildFaults:
    message = words.BuildFaults(
        build=build,
        load_remaining_ms=_ms(pair.load_until - now),
        cooldown=_sentence(pair.cooldown, now),
        probing=pair.probing,
        clamp_seen=pair.clamp_seen,
    )
    for strike in pair.strikes:
        message.strikes.add(age_ms=_ms(now - strike.when), shape=strike.shape, flush=strike.flush)
    for shape, until in pair.errors_until.items():
        if until > now:
            message.errors.add(shape=shape, remaining_ms=_ms(until - now))
    for when, full in pair.outcomes:
        message.room.add(age_ms=_ms(now - when), full=full)
    if pair.probe_at is not None:
        message.probe_age_ms = _ms(now - pair.probe_at)
    if pair.clamped_at is not None:
        message.clamped_age_ms = _ms(now - pair.clamped_at)
    if pair.refused_at > float("-inf"):
        message.refused_age_ms = _ms(now - pair.refused_at)
    return message


def _pair(message: words.BuildFaults, now: float) -> PairFaults:
    pair = PairFaults(
        load_until=now + message.load_remaining_ms / 1000,
        cooldown=_hold(message.cooldown, now),
        probing=message.probing,
        clamp_seen=message.clamp_seen,
    )
    for strike in message.strikes[-MAX_EVENTS:]:
        when = now - strike.age_ms / 1000
        pair.strikes.append(Strike(when, strike.shape % SHAPES, strike.flush))
    for item in message.errors[:SHAPES]:
        pair.errors_until[item.shape % SHAPES] = now + item.remaining_ms / 1000
    for word in message.room[-MAX_EVENTS:]:
        pair.outcomes.append((now - word.age_ms / 1000, word.full))
    if message.HasField("probe_age_ms"):
        pair.probe_at = now - message.probe_age_ms / 1000
    if message.HasField("clamped_age_ms"):
        pair.clamped_at = now - message.clamped_age_ms / 1000
    if message.HasField("refused_age_ms"):
        pair.refused_at = now - message.refused_age_ms / 1000
    return pair


def _sentence(hold: Hold, now: float) -> words.Sentence:
    return words.Sentence(remaining_ms=_ms(hold.until - now), trips=hold.trips)


def _hold(message: words.Sentence, now: float) -> Hold:
    return Hold(until=now + message.remaining_ms / 1000, trips=message.trips)


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))
