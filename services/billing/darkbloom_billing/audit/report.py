"""What the auditor says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One thing that cannot be true in sound books."""

    check: str
    """Name of the check."""
    what: str
    """Account, transfer, event or request that it is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the auditor found."""

    violations: tuple[Violation, ...]
    """At most 20 of each check."""
    findings: Mapping[str, int]
    """To look at, by the gateway's own records: settlements without one (`receipts_missing`), of
    another attempt, verdict or terminal (`receipts_differ`), above what was opened
    (`receipts_exceeded`), and opened answers that were paid in part or not (`receipts_unpaid`);
    and by how much Stripe's balance differed from the books when last noted
    (`stripe_drift_micros`).
    """
    counts: Mapping[str, int]
    """Size of what was read: `events`, `transfers`, `accounts`, `blocks`, `open_holds`; of those
    past their lease (`orphan_holds`), of charges without their payout (`unpaid_jobs`), and of work
    that is owed to the outside (`owed_jobs`).
    """

    def body(self) -> dict[str, Any]:
        """Return the report as JSON values; `ledger_violations` is their number."""
        return {
            "ledger_violations": len(self.violations),
            "violations": [{"check": v.check, "what": v.what} for v in self.violations],
            "findings": dict(self.findings),
            "counts": dict(self.counts),
        }
