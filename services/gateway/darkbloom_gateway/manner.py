"""How a caller wants the answer: what of a request outlives its prompt."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from darkbloom_edge.dialects.chat_request import Lowered
from darkbloom_edge.dialects.dialect import Setting

from darkbloom_gateway.model import Plan
from darkbloom_gateway.wire import Scope, header

EARLY_COMMIT = b"x-darkbloom-early-commit"
"""Header that asks for a stream which begins before its answer does."""
_METADATA = b"x-darkbloom-metadata-details"


@dataclass(frozen=True, slots=True)
class Manner:
    """Wishes about one answer."""

    model: str
    """Exactly what the caller sent."""
    build: str
    """Build that was planned with, for meters."""
    streams: bool
    early: bool
    """The stream is to begin before its answer does."""
    include_usage: bool
    metadata: bool
    output_bound: int
    echo: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, lowered: Lowered, plan: Plan, scope: Scope) -> Self:
        """Read the wishes out of a request."""
        return cls(
            model=plan.requested_model,
            build=plan.build,
            streams=lowered.stream,
            early=lowered.stream and _is_true(scope, EARLY_COMMIT),
            include_usage=lowered.include_usage,
            metadata=lowered.metadata_details
            or _is_true(scope, _METADATA)
            or b"metadata=details" in scope["query_string"],
            output_bound=plan.output_bound,
            echo=lowered.echo,
        )

    def setting(self, job: str, created: int) -> Setting:
        """Return what the answer of this attempt says about itself."""
        return Setting(job, created, self.model, self.include_usage, self.output_bound, self.echo)


def _is_true(scope: Scope, name: bytes) -> bool:
    return (header(scope, name) or b"").lower() == b"true"
