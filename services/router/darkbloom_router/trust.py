"""Trust in connected providers: verdicts in force, and how they end.

A verdict comes from attestation and dies with its expiry, a revocation, a hard failure or the
stream. Whoever is untrusted for good stays so until he connects again; a request that he has not
begun to answer moves away at once.
"""

from collections.abc import Callable

from darkbloom.common.v1.frame_pb2 import FrameKind
from darkbloom.router.v1.gateway_lane_pb2 import AttemptFailure
from darkbloom.router.v1.provider_link_pb2 import RuntimeMismatch, RuntimeStatus, TrustStatus

from darkbloom_router import convert, failures
from darkbloom_router.attempts import Attempt, Phase
from darkbloom_router.ends import Ends
from darkbloom_router.fleet import Fleet
from darkbloom_router.losses import Losses
from darkbloom_router.meter import Meter
from darkbloom_router.ports import Finding, Judgement
from darkbloom_router.provider import Provider
from darkbloom_router.remedies import remedy
from darkbloom_router.replicas.lane import ProviderLane
from darkbloom_router.timers import Timers

_DRAIN_FORGOTTEN_S = 150.0
Report = Callable[[str, str, str], None]
"""Tells attestation: provider id, attempt id, kind."""


class Trust:
    """Applies what attestation says, and what the edge saw, to the live fleet.

    Args:
        fleet: Whose verdicts these are.
        ends: How attempts end.
        losses: What distrust does to other attempts.
        lanes: Lanes of the connected providers.
        meter: Counters.
        timers: What time it is.
        report: Tells attestation of a violation.
        freed: Called when a provider may serve who waits.
        caught: Called when a provider of another replica broke the envelope: its holder must know.
        cut: Called when trust ends: bodies of other replicas that wait for it go no further.
    """

    def __init__(
        self,
        fleet: Fleet,
        ends: Ends,
        losses: Losses,
        lanes: dict[Provider, ProviderLane],
        meter: Meter,
        *,
        timers: Timers,
        report: Report,
        freed: Callable[[Provider], None],
        caught: Callable[[Provider, str], None],
        cut: Callable[[Provider], None],
    ) -> None:
        self._fleet = fleet
        self._ends = ends
        self._losses = losses
        self._lanes = lanes
        self._meter = meter
        self._timers = timers
        self._report = report
        self._freed = freed
        self._caught = caught
        self._cut = cut

    def passed(self, provider: Provider, judgement: Judgement, now: float) -> None:
        """Put the verdict of a passed challenge in force."""
        provider.passed_at = now
        self._take_runtime(provider, judgement.runtime_verified, judgement.runtime_findings)
        if not provider.untrusted_for_good:
            provider.untrusted = ""
        self._fleet.set_verdict(provider, judgement.verdict)
        if judgement.verdict is not None and provider.verdict is None:
            # Its revocation was faster than the verdict.
            self.suspend(provider, "revoked")
            return
        default = "challenge_passed" if judgement.verdict else "not_admitted"
        self.tell(provider, judgement.reasons[0] if judgement.reasons else default)
        self._freed(provider)

    def struck(self, provider: Provider, failure: str) -> None:
        """Take the verdict away after a hard failure; the next pass brings one back."""
        self._note(provider)
        provider.passed_at = None
        self._fleet.set_verdict(provider, None)
        self._meter.distrusted("challenge")
        self._cut(provider)
        self.tell(provider, failure)
        self._losses.trust(provider, failures.STALE)

    def suspend(self, provider: Provider, reason: str) -> None:
        """Stop trusting until the next challenge is passed."""
        provider.untrusted = provider.untrusted or reason
        self._fleet.refresh(provider)
        self._cut(provider)
        self._meter.distrusted(reason)
        self.tell(provider, reason)
        self._losses.trust(provider, failures.STALE)

    def distrust(self, provider: Provider, reason: str) -> None:
        """Stop trusting for the rest of this connection."""
        self._note(provider)
        provider.untrusted = reason
        provider.untrusted_for_good = True
        self._fleet.set_verdict(provider, None)
        self._cut(provider)
        self._meter.distrusted(reason)
        self.tell(provider, reason)
        if provider.remote:
            self._caught(provider, reason)
        self._losses.trust(provider, failures.VIOLATION)

    def _note(self, provider: Provider) -> None:
        """Count it against what the machine holds, where its stream is, if it was trusted."""
        if not provider.remote and provider.verdict is not None:
            self._ends.seen.untrusted(provider.candidates, provider.stable_id)

    def violated(self, attempt: Attempt, kind: str) -> None:
        """End an attempt whose provider broke the envelope, a count or its credit, and report it.

        What the edge opened before was checked by the edge and is paid; the terminal is not
        believed.
        """
        provider, repeated = attempt.provider, attempt.provider.untrusted == "violation"
        attempt.disowned = True
        if attempt.phase >= Phase.COMMITTED:
            attempt.opened_final = True
            if attempt.live:
                self._ends.break_off(attempt, AttemptFailure.ATTEMPT_FAILURE_ENCRYPTION_FAILURE)
            else:
                self._ends.last_word(attempt)
        if not repeated:
            self._report(provider.provider_id, attempt.attempt_id, kind)
        self.distrust(provider, "violation")

    def revoked(self, verdict_id: str, identity_key: bytes) -> None:
        """Apply a revocation: whoever holds the verdict or the identity is untrusted now.

        A verdict may be earned again with the next challenge; an identity may not. From here on no
        body is written to them: what waits is dropped, and what comes is refused.
        """
        if verdict_id:
            self._fleet.revoked.add(verdict_id, self._timers.now())
        for provider in self._fleet.verdict_holders(verdict_id, identity_key):
            if identity_key and provider.identity_key == identity_key:
                self.distrust(provider, "revoked")
            else:
                self._fleet.set_verdict(provider, None)
                self.suspend(provider, "revoked")
        if verdict_id:
            self._losses.verdict(verdict_id)

    def draining(self, provider: Provider) -> None:
        """Note that a provider said it is leaving; its next heartbeat may say otherwise."""
        self._fleet.drains(provider, self._timers.now(), _DRAIN_FORGOTTEN_S)

    def runtime(self, provider: Provider, verified: bool, findings: tuple[Finding, ...]) -> None:
        """Take the comparison of code hashes at registration."""
        self._take_runtime(provider, verified, findings)
        self._fleet.refresh(provider)

    def tell(self, provider: Provider, reason: str) -> None:
        """Send a provider the state of its trust, and why."""
        lane = self._lanes.get(provider)
        if lane is None:
            return
        verdict = provider.verdict
        message = TrustStatus(
            trust_level=provider.level.word,
            status="untrusted" if provider.untrusted else "online",
            reason=reason,
            verdict_id=verdict.verdict_id if verdict else "",
            admission=provider.admission.value,
            epoch=provider.epoch,
            remedy=remedy(reason),
        )
        if verdict is not None:
            message.expire_time.CopyFrom(convert.timestamp(verdict.expires_unix))
        lane.send_control(FrameKind.FRAME_KIND_TRUST_STATUS, 0, message)

    def _take_runtime(
        self, provider: Provider, verified: bool, findings: tuple[Finding, ...]
    ) -> None:
        changed = provider.runtime_verified is not verified
        provider.runtime_verified = verified
        lane = self._lanes.get(provider)
        if lane is None or (verified and not changed):
            return
        mismatches = [
            RuntimeMismatch(component=item.component, expected=item.expected, got=item.got)
            for item in findings
        ]
        message = RuntimeStatus(verified=verified, mismatches=mismatches)
        lane.send_control(FrameKind.FRAME_KIND_RUNTIME_STATUS, 0, message)
