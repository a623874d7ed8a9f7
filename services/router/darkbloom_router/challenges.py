"""Asking a provider to prove, again and again, that it still is who it was (security section 5).

One challenge is outstanding per stream. The first follows the registration at once, later ones come
every five minutes give or take. Attestation makes and judges them; here are only the clock and the
consequences. A neighbour that is away costs nobody a strike: trust simply runs out in time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

import structlog
from darkbloom.common.v1.frame_pb2 import FrameKind
from darkbloom.router.v1.provider_link_pb2 import (
    AttestationChallenge,
    AttestationResponse,
    CodeResumeChallenge,
)
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError, NotFoundError, PreconditionError
from darkbloom_mesh.lane import Lane

from darkbloom_router.errors import DistrustedError, TryLaterError
from darkbloom_router.meter import Meter
from darkbloom_router.ports import Attestation, Challenge
from darkbloom_router.provider import Provider
from darkbloom_router.timers import Timers
from darkbloom_router.trust import Trust

MAX_EVIDENCE_BYTES = 128 * 1024
"""Most bytes of device evidence that are passed on; what is cut cannot be read."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengeTimes:
    """Periods of challenges."""

    interval_s: float = 300.0
    jitter: float = 0.1
    """Share of the interval by which it varies, either way."""
    answer_s: float = 30.0
    retry_s: float = 15.0
    """Until the next try when attestation was away."""


class Challenges:
    """The challenges of one provider stream; lives inside the link's task.

    Args:
        provider: Who is asked.
        lane: Its lane.
        hashes: Weight hash by build, as registered.
        on_pass: Called after each pass, before anything is routed by it.
        passed: Called after each pass, once requests may be routed by it.
        uniform: Returns a number in [0, 1).
    """

    def __init__(
        self,
        provider: Provider,
        lane: Lane,
        attestation: Attestation,
        trust: Trust,
        timers: Timers,
        clock: Clock,
        meter: Meter,
        times: ChallengeTimes,
        *,
        hashes: Callable[[], Mapping[str, str]],
        on_pass: Callable[[], Awaitable[None]],
        passed: Callable[[], None],
        uniform: Callable[[], float],
    ) -> None:
        self._provider = provider
        self._lane = lane
        self._attestation = attestation
        self._trust = trust
        self._timers = timers
        self._clock = clock
        self._meter = meter
        self._times = times
        self._hashes = hashes
        self._on_pass = on_pass
        self._passed = passed
        self._uniform = uniform
        self._pending: str = ""
        self._answer: asyncio.Future[AttestationResponse | None] | None = None

    def answered(self, response: AttestationResponse) -> bool:
        """Take an answer; False where it answers no challenge of this stream that is open."""
        if not self._pending or response.nonce != self._pending:
            return False
        self._pending = ""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(response)
        return True

    async def run(self) -> None:
        """Challenge until the provider is untrusted for good.

        Raises:
            DistrustedError: It has been silent for too long.
            TryLaterError: Attestation does not know this stream any more.
        """
        while not self._provider.untrusted_for_good:
            try:
                await self._round()
                wait_s = self._times.interval_s * self._factor()
            except DistrustedError:
                raise
            except NotFoundError:
                raise TryLaterError("register again") from None
            except MeshError as error:
                _log.warning("challenge_skipped", reason=error.reason_name)
                self._meter.challenged("unavailable")
                wait_s = self._times.retry_s * self._factor()
            await self._clock.sleep(wait_s)

    async def _round(self) -> None:
        provider = self._provider
        try:
            challenge = await self._attestation.challenge(provider.provider_id)
        except PreconditionError:
            # Attestation has untrusted this stream and asks it nothing any more.
            self._trust.distrust(provider, "evidence_rejected")
            return
        response = await self._ask(challenge)
        if response is None:
            await self._timed_out(challenge)
            return

        try:
            judgement = await self._attestation.judge(
                provider.provider_id,
                challenge.nonce,
                response.status,
                response.status_signature,
                self._hashes(),
                response.device_evidence[:MAX_EVIDENCE_BYTES],
            )
        except PreconditionError:
            # Judged before, or too late: it proves nothing and costs nothing.
            self._meter.challenged("unknown")
            return
        if judgement.passed and not provider.untrusted_for_good:
            self._meter.challenged("passed")
            if judgement.code_challenge:
                message = CodeResumeChallenge(sealed_nonce=judgement.code_challenge)
                self._lane.send_control(FrameKind.FRAME_KIND_CODE_RESUME_CHALLENGE, 0, message)
            await self._on_pass()
            self._trust.passed(provider, judgement, self._timers.now())
            self._passed()
        elif judgement.untrust:
            self._meter.challenged("untrusted")
            self._trust.distrust(provider, judgement.failure or "challenge")
        else:
            self._meter.challenged("failed")
            self._trust.struck(provider, judgement.failure or "challenge failed")

    async def _ask(self, challenge: Challenge) -> AttestationResponse | None:
        """Send a challenge and wait for its answer; None when none came in time."""
        answer: asyncio.Future[AttestationResponse | None] = (
            asyncio.get_running_loop().create_future()
        )
        self._answer, self._pending = answer, challenge.nonce
        timer = self._timers.after(self._times.answer_s, partial(_give_up, answer))
        self._lane.send_control(
            FrameKind.FRAME_KIND_ATTESTATION_CHALLENGE,
            0,
            AttestationChallenge(
                nonce=challenge.nonce,
                timestamp=challenge.timestamp,
                provider_id=self._provider.provider_id,
            ),
        )
        try:
            return await answer
        finally:
            timer.cancel()
            self._pending, self._answer = "", None

    async def _timed_out(self, challenge: Challenge) -> None:
        self._meter.challenged("timeout")
        strikes = await self._attestation.timed_out(self._provider.provider_id, challenge.nonce)
        if strikes.close:
            raise DistrustedError("too many challenges were not answered")
        if strikes.transient_untrust:
            self._trust.suspend(self._provider, "challenges_unanswered")

    def _factor(self) -> float:
        return 1 + self._times.jitter * (2 * self._uniform() - 1)


def _give_up(answer: asyncio.Future[AttestationResponse | None]) -> None:
    if not answer.done():
        answer.set_result(None)
