"""The auditor, whole and in rounds."""

from darkbloom_billing.audit.auditor import Auditor, audit, imbalance
from darkbloom_billing.audit.report import Report, Violation

__all__ = ["Auditor", "Report", "Violation", "audit", "imbalance"]
