"""Billing's counters; labels are closed words."""

from collections.abc import Callable

from darkbloom_mesh import telemetry
from darkbloom_mesh.telemetry import Metrics

from darkbloom_billing.model import EndOutcome, HoldOutcome


class Meters:
    """Counts outcomes; knows no amounts of anybody."""

    def __init__(self, metrics: Metrics) -> None:
        self._holds = metrics.counter(telemetry.HOLDS)
        self._settlements = metrics.counter(telemetry.SETTLEMENTS)
        self._releases = metrics.counter(telemetry.RELEASES)
        self._receipts = metrics.counter(telemetry.RECEIPTS)
        self._overdue = metrics.gauge(telemetry.OLD_HOLDS)
        self._imbalance = metrics.gauge(telemetry.LEDGER_IMBALANCE)
        self._violations = metrics.gauge(telemetry.AUDIT_VIOLATIONS)
        self._blocks = metrics.gauge(telemetry.SEALED_BLOCKS)
        self._verified = metrics.gauge(telemetry.BACKUP_VERIFIED)
        self._matured = metrics.counter(telemetry.MATURED)
        self._owed = metrics.gauge(telemetry.OUTBOX_AGE)
        self._rows = metrics.histogram(telemetry.BATCH_ROWS)

    def hold(self, outcome: HoldOutcome) -> None:
        """Count a hold or an extension."""
        refusal = outcome.refusal
        self._holds.labels("held" if refusal is None else refusal.value).inc()

    def settlement(self, outcome: EndOutcome) -> None:
        """Count a settlement; rejections by their word."""
        rejection = outcome.rejection
        self._settlements.labels(
            outcome.status.value if rejection is None else f"rejected_{rejection.value}"
        ).inc()

    def release(self, outcome: EndOutcome) -> None:
        """Count a release."""
        self._releases.labels(outcome.status.value).inc()

    def sweep(self, outcome: EndOutcome) -> None:
        """Count a swept hold."""
        self._releases.labels(f"swept_{outcome.status.value}").inc()

    def receipts(self, outcome: str, count: int) -> None:
        """Count receipts: recorded, repeated, rejected or anchored."""
        self._receipts.labels(outcome).inc(count)

    def overdue(self, holds: int) -> None:
        """Show how many leases have expired and are not swept yet."""
        self._overdue.set(holds)

    def imbalance(self, micros: int) -> None:
        """Show by how much debits and credits differ: 0, or the books are broken."""
        self._imbalance.set(micros)

    def violations(self, count: int) -> None:
        """Show how many violations of the books are open: above 0, withdrawals stop."""
        self._violations.set(count)

    def sealed(self, height: int) -> None:
        """Show how many blocks of history are sealed."""
        self._blocks.set(height)

    def verified(self, unix_s: float) -> None:
        """Show when a backup was last found sound; 0: never."""
        self._verified.set(unix_s)

    def matured(self, micros: int) -> None:
        """Count earnings that became spendable."""
        self._matured.inc(micros)

    def owed(self, age_s: float) -> None:
        """Show the age of the oldest job that is owed to the outside."""
        self._owed.set(age_s)

    def batch(self, kind: str) -> Callable[[int], None]:
        """Return what is told the size of each batch of a kind."""
        return self._rows.labels(kind).observe
