"""Rollouts at work: started, reported on, judged; the alias moves in the same transaction."""

import dataclasses
import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, final

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import InvalidArgumentError, StoreUnavailableError

from darkbloom_registry.aliases import is_split, succeed
from darkbloom_registry.changes import BY_ITSELF, Change
from darkbloom_registry.downloads import ACTIVE, GRANTED, granted
from darkbloom_registry.errors import (
    AliasNotFoundError,
    BuildNotRoutableError,
    RolloutNotFoundError,
    RolloutRunsError,
    TakeoverLiveError,
    TrafficSplitError,
)
from darkbloom_registry.model import Alias
from darkbloom_registry.model_states import ModelState
from darkbloom_registry.ports import Store, Writing
from darkbloom_registry.rollouts import (
    LIVE,
    Action,
    Gates,
    Rollout,
    RolloutState,
    Seen,
    change,
    check_gates,
    check_steps,
    judge,
    taken,
)

_ID_CHARS = 32
_MAX_ID = 128
_MAX_ACTOR = 128
_log = structlog.get_logger()


@final
class Rolling:
    """Every write holds the one lock of the generation; a repeated call changes nothing."""

    def __init__(
        self, store: Store, clock: Clock, period_s: float, *, downloads_at_once: int = 0
    ) -> None:
        self._downloads_at_once = downloads_at_once
        self._store = store
        self._clock = clock
        self._period_s = period_s

    @property
    def grants(self) -> bool:
        """Whether machines fetch only with leave."""
        return self._downloads_at_once > 0

    async def start(
        self,
        request_id: str,
        alias_id: str,
        to_build: str,
        *,
        steps: Sequence[int],
        gates: Gates,
        actor: str,
    ) -> tuple[Rollout, int]:
        """Begin at the first step; return the rollout and the generation.

        Raises:
            InvalidArgumentError: a field is wrong, `to_build` is not routable, or `request_id`
                began another rollout.
            AliasNotFoundError: there is no such active alias.
            RolloutRunsError: another rollout moves this alias.
            TakeoverLiveError: it took a build's id over, and that build still stands behind it.
            TrafficSplitError: a part of its traffic was put on another build by hand.
            BuildNotRoutableError: what it would come back to serves nobody.
        """
        if not 0 < len(request_id) <= _MAX_ID or not request_id.isprintable():
            raise InvalidArgumentError("must be 1 to 128 printable characters", "request_id")
        if len(actor) > _MAX_ACTOR or not actor.isprintable():
            raise InvalidArgumentError("too long, or not printable", "actor")
        found_steps, checked = check_steps(steps), check_gates(gates)
        rollout_id = f"roll_{hashlib.sha256(request_id.encode()).hexdigest()[:_ID_CHARS]}"

        async with self._store.write() as writing:
            known = await writing.rollout(rollout_id)
            if known is not None:
                asked = (alias_id, to_build, found_steps, checked)
                if asked != (known.alias, known.to_build, known.steps, known.gates):
                    raise InvalidArgumentError("began another rollout", "request_id")
                return known, writing.generation
            alias = await _movable(writing, alias_id, to_build)
            now = self._clock.now()
            rollout = Rollout(
                rollout_id=rollout_id,
                alias=alias_id,
                from_build=alias.desired_build,
                to_build=to_build,
                steps=found_steps,
                gates=checked,
                actor=actor,
                previous_build=alias.previous_build,
                step_generation=writing.generation + 1,
                create_time=now,
                step_time=now,
                update_time=now,
            )
            await self._write(writing, rollout, alias, actor, "start")
            return rollout, writing.generation

    async def change(
        self, rollout_id: str, action: Action, reason: str, *, actor: str
    ) -> tuple[Rollout, int]:
        """Pause, resume or revert; return the rollout and the generation.

        Raises:
            InvalidArgumentError: the reason is too long.
            RolloutNotFoundError: there is none of this id.
            RolloutEndedError: it has ended, and not in this way.
        """
        async with self._store.write() as writing:
            rollout = await writing.rollout(rollout_id)
            if rollout is None:
                raise RolloutNotFoundError("no such rollout")
            changed = change(rollout, action, reason, self._clock.now())
            if changed is not rollout:
                alias = await writing.alias(rollout.alias)
                await self._write(writing, changed, alias, actor, action.value)
            return changed, writing.generation

    async def report(
        self,
        session: str,
        sequence: int,
        seen: Sequence[Seen],
        states: Sequence[ModelState],
        wanted: int = 0,
    ) -> int:
        """Take what a router saw; what breaks a gate turns its rollout back at once.

        Args:
            session: One life of a router.
            sequence: Of the report; a repeated one is taken once, and granted nothing.
            seen: Of builds.
            states: Of machines.
            wanted: Machines that wait for leave to fetch.

        Returns:
            How many of them may begin.
        """
        now = self._clock.now()
        async with self._store.write() as writing:
            if not await writing.take_report(session, sequence, now):
                return 0
            await writing.put_model_states(states)
            for rollout in await writing.live_rollouts():
                counted = taken(rollout, seen)
                if counted is not rollout:
                    await writing.put_rollout(counted)
                    await self._judge(writing, counted)
            return await self._grant(writing, session, sequence, wanted, now) if wanted else 0

    async def _grant(
        self, writing: Writing, session: str, sequence: int, wanted: int, now: datetime
    ) -> int:
        running = await writing.running_downloads(now - ACTIVE)
        begun = await writing.granted_downloads(now - GRANTED)
        count = granted(wanted, self._downloads_at_once, running, begun)
        if count:
            await writing.put_grant(session, sequence, count, now)
        return count

    async def run(self) -> None:
        """Let time pass for rollouts that nobody reports on, for ever."""
        while True:
            await self._clock.sleep(self._period_s)
            try:
                async with self._store.write() as writing:
                    for rollout in await writing.live_rollouts():
                        await self._judge(writing, rollout)
            except StoreUnavailableError:
                _log.warning("rollouts_not_judged")

    async def _judge(self, writing: Writing, rollout: Rollout) -> None:
        judged = judge(rollout, self._clock.now())
        if judged is rollout:
            return
        if judged.step != rollout.step:
            judged = dataclasses.replace(judged, step_generation=writing.generation + 1)
        alias = await writing.alias(rollout.alias)
        await self._write(writing, judged, alias, BY_ITSELF, "judge")

    async def _write(
        self, writing: Writing, rollout: Rollout, alias: Alias | None, actor: str, did: str
    ) -> None:
        """Store a rollout, point its alias to where it now stands, and record who did it.

        Recorded also where the alias stays: who paused a rollout decided what consumers get.
        """
        await writing.put_rollout(rollout)
        said: dict[str, Any] = {
            "rollout_id": rollout.rollout_id,
            "did": did,
            "state": rollout.state.value,
            "percent": rollout.percent,
            "reason": rollout.reason,
        }
        if alias is not None:
            moved = succeed(moved_alias(alias, rollout), alias)
            if moved != alias:
                await writing.put_alias(moved)
                said["before"] = dataclasses.asdict(alias)
                said["after"] = dataclasses.asdict(moved)
        change = Change(
            actor=actor,
            action="rollout",
            subject=rollout.alias,
            time=rollout.update_time,
            detail=said,
        )
        await writing.bump(change)
        _log.info(
            "rollout",
            rollout_id=rollout.rollout_id,
            alias=rollout.alias,
            state=rollout.state.value,
            percent=rollout.percent,
            reason=rollout.reason,
        )


async def _movable(writing: Writing, alias_id: str, to_build: str) -> Alias:
    """Return a name that a rollout can take to this build, and back."""
    alias = await writing.alias(alias_id)
    if alias is None or not alias.active:
        raise AliasNotFoundError("no such active alias")
    if await writing.live_rollout(alias_id) is not None:
        raise RolloutRunsError("a rollout moves this alias already")
    if alias.takeover:
        # Behind it stands the build of its own name, and a rollout needs that place.
        raise TakeoverLiveError(
            "the build of this name stands behind it; use `alias` until it goes"
        )
    if alias.desired_build == to_build:
        raise InvalidArgumentError("is the desired build already", "to_build")
    target = await writing.build(to_build)
    if target is None or not target.routable:
        raise InvalidArgumentError("not a routable build", "to_build")
    if is_split(alias):
        # Accounts on the build before would leave it at once, past every gate.
        raise TrafficSplitError("its traffic is split by hand; end that by `alias` first")
    source = await writing.build(alias.desired_build)
    if source is None or not source.routable:
        raise BuildNotRoutableError("the desired build is not routable; use `alias`")
    return alias


def moved_alias(alias: Alias, rollout: Rollout) -> Alias:
    """Return what the name points at while, and after, a rollout stands as it does."""
    if rollout.state in LIVE:
        return dataclasses.replace(
            alias,
            desired_build=rollout.to_build,
            previous_build=rollout.from_build,
            traffic_percent=rollout.percent,
        )
    if rollout.state is RolloutState.DONE:
        return dataclasses.replace(alias, traffic_percent=None)
    # What stood behind it does so again; nobody falls back to what was just found bad.
    behind = "" if rollout.previous_build == rollout.to_build else rollout.previous_build
    return dataclasses.replace(
        alias, desired_build=rollout.from_build, previous_build=behind, traffic_percent=None
    )
