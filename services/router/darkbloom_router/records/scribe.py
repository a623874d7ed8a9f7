"""Turns ends of attempts and requests into rows; runs only where a store is set."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from darkbloom.router.v1.gateway_lane_pb2 import Open

from darkbloom_router.attempts import Attempt, Phase, Request
from darkbloom_router.model import Gate
from darkbloom_router.placement import Choice
from darkbloom_router.records.rows import AttemptRow, RefusalRow, Row
from darkbloom_router.refusals import Refusal

_MS = 1000
_TRANSIENT = frozenset(
    {
        Gate.NO_HEADROOM,
        Gate.FREE_MEMORY,
        Gate.CAPACITY_COOLDOWN,
        Gate.SLOT_RELOADING,
        Gate.TTFT_CEILING,
    }
)
"""Gates that time alone opens: who fails only there could have served."""
_MAX_TEXT = 128


@dataclass(frozen=True, slots=True)
class Decided:
    """What a decision was, kept until its attempt has ended."""

    path: str
    candidates: int
    price_ms: float
    runner_up: str
    runner_up_ms: float | None
    breakdown: Mapping[str, float]


def decided(choice: Choice, request: Request, now: float) -> Decided:
    """Return the decision as it stands at this moment.

    Raises:
        ValueError: Nobody was chosen.
    """
    cost, _ = choice.breakdown(request.demand, now, (request.deadline - now) * _MS)
    others = (entry for entry in choice.ranked if entry[1] is not choice.candidate)
    price_ms, runner_up = min(others, key=lambda entry: entry[0], default=(None, None))
    return Decided(
        path=choice.path.value,
        candidates=choice.priced,
        price_ms=choice.price_ms,
        runner_up=runner_up.provider.provider_id if runner_up is not None else "",
        runner_up_ms=price_ms,
        breakdown={word: round(value, 3) for word, value in asdict(cost).items()},
    )


class Scribe:
    """Writes rows.

    Args:
        add: Takes a row; never waits.
        now: Monotonic seconds.
        unix_now: Wall clock.
    """

    def __init__(
        self,
        add: Callable[[Row], None],
        now: Callable[[], float],
        unix_now: Callable[[], float],
    ) -> None:
        self._add = add
        self._now = now
        self._unix_now = unix_now

    def chosen(self, attempt: Attempt, choice: Choice) -> None:
        """Keep why an attempt went where it went."""
        attempt.decided = decided(choice, attempt.request, self._now())

    def ended(self, attempt: Attempt) -> None:
        """Take an attempt that is over."""
        why, request, now = attempt.decided, attempt.request, self._now()
        if not isinstance(why, Decided):
            return
        submitted = attempt.reached >= Phase.SENT
        self._add(
            AttemptRow(
                attempt_id=attempt.attempt_id,
                request_id=request.request_id[:_MAX_TEXT],
                number=attempt.number,
                build=attempt.candidate.build.build,
                provider_id=attempt.provider.provider_id,
                hedge=attempt.ticket is not None,
                remote=attempt.provider.remote,
                path=why.path,
                candidates=why.candidates,
                price_ms=why.price_ms,
                runner_up=why.runner_up,
                runner_up_ms=why.runner_up_ms,
                breakdown=why.breakdown,
                outcome=attempt.outcome,
                write_submitted=submitted,
                write_completed=submitted and not attempt.body_left,
                provider_accepted=attempt.reached >= Phase.ACCEPTED,
                provider_complete_observed=attempt.terminal is not None,
                queue_ms=_ms(request.queue_s),
                first_content_ms=_ms(attempt.content_at - attempt.started_at)
                if attempt.content_at
                else None,
                duration_ms=_ms(now - attempt.started_at),
                end_unix=self._unix_now(),
            )
        )

    def refused(self, request: Request, refusal: Refusal, gates: Mapping[Gate, int] | None) -> None:
        """Take a request that nobody served, with who failed where if anybody looked."""
        self._add(
            RefusalRow(
                request_id=request.request_id[:_MAX_TEXT],
                build=request.demand.build,
                http_status=refusal.http_status,
                reason=refusal.reason.name.lower(),
                attempts=request.ladder.attempts,
                gates={gate.name.lower(): count for gate, count in (gates or {}).items() if count},
                could_have_served=could_have_served(gates),
                waited_ms=_ms(self._now() - request.opened_at),
                end_unix=self._unix_now(),
            )
        )

    def unwelcome(self, message: Open, refusal: Refusal) -> None:
        """Take a request that was refused before anybody looked at the fleet."""
        self._add(
            RefusalRow(
                request_id=message.request_id[:_MAX_TEXT],
                build=message.build[:_MAX_TEXT],
                http_status=refusal.http_status,
                reason=refusal.reason.name.lower(),
                attempts=0,
                gates={},
                could_have_served=None,
                waited_ms=0,
                end_unix=self._unix_now(),
            )
        )


def could_have_served(gates: Mapping[Gate, int] | None) -> bool | None:
    """Return whether somebody failed only for want of room or time; None: nobody looked.

    A provider is counted under its first shut gate, and these stand at the end of the chain.
    """
    if gates is None:
        return None
    return any(gates.get(gate) for gate in _TRANSIENT)


def _ms(seconds: float) -> int:
    return int(min(max(seconds, 0.0) * _MS, 2**31 - 1))
