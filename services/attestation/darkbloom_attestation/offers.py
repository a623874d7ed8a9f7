"""How far a release is offered once it is blessed. Pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from darkbloom_edge.rings import STEPS

from darkbloom_attestation.model import CodeRelease, Offer

OPERATOR: Final = "operator"
"""Who changes an offer, where nobody is named."""
_ANY: Final = "any"


def first_offer(
    release: CodeRelease, active: Sequence[CodeRelease], now: datetime
) -> tuple[Offer, str]:
    """Return how far a release is offered once it is blessed, and why.

    Where no other release of its platform is there, nothing can be compared and nobody could go
    back: it is offered to all. So are development trees, which nobody is offered.
    """
    if release.development:
        return Offer(step_time=now), "a development tree"
    rivals = (
        one
        for one in active
        if one.code_release != release.code_release
        and not one.development
        and (one.platform == release.platform or _ANY in (one.platform, release.platform))
    )
    if next(rivals, None) is None:
        return Offer(step_time=now), "the first of its platform"
    return Offer(percent=STEPS[0], step_time=now), "blessed"
