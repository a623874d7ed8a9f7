"""Offers of releases between the wire and the domain."""

from darkbloom.attestation.v1 import attestation_service_pb2 as pb
from darkbloom_mesh.errors import InvalidArgumentError

from darkbloom_attestation import convert
from darkbloom_attestation.figures import Figures
from darkbloom_attestation.model import CodeRelease
from darkbloom_attestation.offering import Offering, Progress
from darkbloom_attestation.offers import OPERATOR

_MAX_TEXT = 256


async def changed(offering: Offering, request: pb.ChangeReleaseOfferRequest) -> CodeRelease:
    """Do what an operator asks.

    Raises:
        InvalidArgumentError: a text that cannot be kept, or nothing is asked.
    """
    code_release = convert.code_release_from(request.code_release)
    actor = _text(request.actor, "actor") or OPERATOR
    reason = _text(request.reason, "reason")
    if request.action == pb.RELEASE_OFFER_ACTION_WIDEN:
        return await offering.widen(code_release, actor=actor, reason=reason, force=request.force)
    if request.action == pb.RELEASE_OFFER_ACTION_HOLD:
        return await offering.hold(code_release, actor=actor, reason=reason)
    if request.action == pb.RELEASE_OFFER_ACTION_RESUME:
        return await offering.resume(code_release, actor=actor, reason=reason)
    raise InvalidArgumentError("is none that is known", "action")


def progress_to(progress: Progress) -> pb.GetReleaseOfferResponse:
    """Write where an offer stands."""
    return pb.GetReleaseOfferResponse(
        release=convert.release_to(progress.release),
        ring=_figures_to(progress.ring),
        rest=_figures_to(progress.rest),
        changes=[
            pb.ReleaseOfferChange(
                time=convert.timestamp(one.time),
                actor=one.actor,
                action=one.action.value,
                percent=one.percent,
                reason=one.reason,
            )
            for one in progress.changes
        ],
    )


def _figures_to(figures: Figures) -> pb.ReleaseFigures:
    return pb.ReleaseFigures(
        machines=figures.machines,
        bad=figures.bad,
        refused=figures.refused,
        untrusted=figures.untrusted,
        unrouted=figures.unrouted,
        restarting=figures.restarting,
        returned=figures.returned,
    )


def _text(text: str, name: str) -> str:
    kept = text.strip()
    if len(kept) > _MAX_TEXT or not kept.isprintable():
        raise InvalidArgumentError(f"more than {_MAX_TEXT} characters, or unprintable", name)
    return kept
