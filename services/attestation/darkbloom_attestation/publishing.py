"""What everybody may see of a session: signed bytes without a serial, and their times."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from darkbloom_edge.errors import EdgeError
from darkbloom_edge.public_form import published

from darkbloom_attestation.model import Exhibit, Registration
from darkbloom_attestation.policy import FRESHNESS


class Backing(StrEnum):
    """Who could check a piece of evidence."""

    STRANGER = "stranger"
    OPERATOR_ASSERTED = "operator_asserted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One piece of evidence, as far as everybody may see it."""

    evidence_id: str
    kind: str
    backing: Backing
    observe_time: datetime
    expire_time: datetime | None = None
    document: bytes = b""
    """Empty where it may not be shown, or was only seen by us."""
    signature: bytes = b""
    attestation: bytes = b""
    """`app_attest` only: of the key."""
    attestation_document: bytes = b""
    """The statement that the key's attestation was made over."""
    key_id: bytes = b""
    environment: str = ""


def publish(
    exhibit: Exhibit, device: Mapping[str, Sequence[Shown]] | None = None
) -> tuple[Shown, ...]:
    """Return the provider's own signed evidence; a form that it has not signed is not made up.

    Args:
        exhibit: what is known of the session.
        device: device evidence by verdict id.
    """
    registration, passed = exhibit.registration, exhibit.passed
    form = _public_form(registration)
    shown = [
        Shown(
            evidence_id=registration.registration_id,
            kind="registration",
            backing=Backing.STRANGER if form else Backing.OPERATOR_ASSERTED,
            observe_time=registration.create_time,
            document=form,
            signature=registration.presented.public_signature if form else b"",
        )
    ]
    if passed is not None:
        shown.append(
            Shown(
                evidence_id=exhibit.challenge_id,
                kind="challenge",
                backing=Backing.STRANGER,
                observe_time=passed.time,
                expire_time=passed.time + FRESHNESS,
                document=passed.status,
                signature=passed.signature,
            )
        )

    if exhibit.verdict is not None and device is not None:
        shown.extend(device.get(exhibit.verdict.verdict_id, ()))

    return tuple(shown)


def _public_form(registration: Registration) -> bytes:
    presented = registration.presented
    try:
        return published(presented.blob, presented.public_signature, registration.identity_key)
    except EdgeError:
        return b""
