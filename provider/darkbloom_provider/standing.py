"""What the router last said of this machine, made safe to keep and to print."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from darkbloom.router.v1.provider_link_pb2 import (
    GateReason,
    Registered,
    RoutingStatus,
    RuntimeStatus,
    TrustStatus,
)

from darkbloom_provider.state import RejectedModel, RoutedModel

MAX_TEXT_CHARS = 300
"""Longest text of the router that is kept."""
MAX_ENTRIES = 256
"""Longest list of the router that is kept."""


@dataclass(slots=True)
class Standing:
    """The router's view, for `status` and `doctor`; only printable text of bounded length."""

    provider_id: str = ""
    account_id: str = ""
    min_version: str = ""
    trust_level: str = "none"
    trust_status: str = ""
    trust_reason: str = ""
    trust_remedy: str = ""
    admission: str = ""
    accepted_models: tuple[str, ...] = ()
    rejected_models: tuple[RejectedModel, ...] = ()
    runtime_verified: bool | None = None
    runtime_mismatches: tuple[str, ...] = ()
    routing: tuple[RoutedModel, ...] = ()

    def take_registered(self, answer: Registered) -> None:
        """Keep the answer to a registration."""
        self.provider_id = printable(answer.provider_id)
        self.account_id = printable(answer.account_id)
        self.min_version = printable(answer.min_version)
        self.trust_level = printable(answer.trust_level)
        self.accepted_models = _texts(answer.accepted_models)
        self.rejected_models = tuple(
            RejectedModel(
                id=printable(one.id), reason=reason_name(one.reason), detail=printable(one.detail)
            )
            for one in islice(answer.rejected_models, MAX_ENTRIES)
        )

    def take_trust(self, status: TrustStatus) -> None:
        """Keep a change of trust."""
        self.trust_level = printable(status.trust_level)
        self.trust_status = printable(status.status)
        self.trust_reason = printable(status.reason)
        self.trust_remedy = printable(status.remedy)
        self.admission = printable(status.admission)

    def take_runtime(self, status: RuntimeStatus) -> None:
        """Keep what the measured code was found to be."""
        self.runtime_verified = status.verified
        self.runtime_mismatches = _texts(one.component for one in status.mismatches)

    def take_routing(self, status: RoutingStatus) -> None:
        """Keep which gates are shut, build by build."""
        self.routing = tuple(
            RoutedModel(
                id=printable(one.model_id),
                eligible=one.eligible,
                reason="" if one.eligible else reason_name(one.reason),
                evidence=printable(one.evidence),
                remedy=printable(one.remedy),
            )
            for one in islice(status.builds, MAX_ENTRIES)
        )


def printable(text: str) -> str:
    """Return a text of somebody else as a terminal may show it: one line, no control codes."""
    shown = text[:MAX_TEXT_CHARS]
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in shown)


def reason_name(reason: int) -> str:
    """Return a gate's word as people see it, `other` for one that this agent does not know."""
    if reason not in GateReason.values():
        return "other"
    return GateReason.Name(GateReason.ValueType(reason)).removeprefix("GATE_REASON_").lower()


def _texts(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(printable(text) for text in islice(texts, MAX_ENTRIES))
