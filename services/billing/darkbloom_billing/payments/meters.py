"""Counters of payments; labels are closed words."""

from darkbloom_mesh import telemetry
from darkbloom_mesh.telemetry import Metrics

from darkbloom_billing.payments.model import WithdrawalStatus


class PaymentMeters:
    """Counts what came from Stripe and what became of it."""

    def __init__(self, metrics: Metrics) -> None:
        self._events = metrics.counter(telemetry.STRIPE_EVENTS)
        self._withdrawals = metrics.counter(telemetry.WITHDRAWALS)
        self._late = metrics.gauge(telemetry.LATE_WITHDRAWALS)
        self._drift = metrics.gauge(telemetry.STRIPE_DRIFT)

    def event(self, outcome: str) -> None:
        """Count a webhook: stored, repeated, ignored, forged, conflict, done, again, stuck."""
        self._events.labels(outcome).inc()

    def withdrawal(self, status: WithdrawalStatus) -> None:
        """Count a withdrawal's new status."""
        self._withdrawals.labels(status.value).inc()

    def withdrawals_overdue(self, count: int) -> None:
        """Show how many withdrawals wait for more than 48 hours."""
        self._late.set(count)

    def drift(self, micros: int) -> None:
        """Show by how much Stripe's balance differs from ours, unexplained."""
        self._drift.set(micros)
