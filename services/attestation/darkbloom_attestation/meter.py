"""What attestation counts; labels are closed words, never an id."""

from typing import final

from darkbloom_mesh.telemetry import (
    ATTESTATION_FAILURES,
    CHALLENGES,
    CODE_PUSHES,
    DEVICES_ASKED,
    HELD_RELEASES,
    RELEASE_EVIDENCE,
    SUSPECTED,
    UNKNOWN,
    VERDICTS,
    Metrics,
)

from darkbloom_attestation.apns.model import PushResult
from darkbloom_attestation.judgement import Judgement
from darkbloom_attestation.model import Registration, RuntimeFinding, ViolationKind


@final
class Meter:
    """Counts decisions."""

    def __init__(self, metrics: Metrics) -> None:
        self._challenges = metrics.counter(CHALLENGES)
        self._failures = metrics.counter(ATTESTATION_FAILURES)
        self._releases = metrics.counter(RELEASE_EVIDENCE)
        self._suspected = metrics.counter(SUSPECTED)
        self._pushes = metrics.counter(CODE_PUSHES)
        self._devices = metrics.counter(DEVICES_ASKED)
        self._held = metrics.gauge(HELD_RELEASES)
        self._verdicts = metrics.counter(VERDICTS)

    def registered(self, registration: Registration, runtime: tuple[RuntimeFinding, ...]) -> None:
        """Count a registration's findings."""
        for finding in registration.findings:
            self._failures.labels(finding).inc()
        self._releases.labels("unknown" if runtime else "known").inc()

    def judged(self, judgement: Judgement) -> None:
        """Count a judgement and its verdict."""
        self._challenges.labels("passed" if judgement.passed else "failed").inc()
        if judgement.verdict is not None:
            verdict = judgement.verdict
            self._verdicts.labels(verdict.trust_level, verdict.admission).inc()

    def timed_out(self) -> None:
        """Count an unanswered challenge."""
        self._challenges.labels("timeout").inc()

    def pushed(self, result: PushResult) -> None:
        """Count a push to a device by what Apple said."""
        self._pushes.labels(result.value).inc()

    def device(self, outcome: str) -> None:
        """Count a session whose device was to be asked: whether the manager knows it."""
        self._devices.labels(outcome).inc()

    def held(self, count: int) -> None:
        """Show how many active releases are offered to nobody."""
        self._held.set(count)

    def violated(self, kind: ViolationKind) -> None:
        """Count a report."""
        self._suspected.labels(UNKNOWN, kind.value).inc()
