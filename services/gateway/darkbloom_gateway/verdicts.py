"""Which verdicts this gateway seals to."""

from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from darkbloom_edge.errors import EdgeError, RejectReason, SignatureRejected
from darkbloom_edge.revocation import verify_revocation
from darkbloom_edge.signatures import from_base64, parse_p256_public
from darkbloom_edge.verdict import (
    TrustLevel,
    Verdict,
    lifetime_of,
    trust_level_rank,
    verify_verdict,
)

from darkbloom_gateway.model import Offer, SignedBytes

MAX_CACHED = 4096
"""Verified verdicts that are remembered."""
MAX_REVOKED = 65_536
"""Revocations that are remembered; attestation lists only those that still matter."""


class VerdictFault(StrEnum):
    """Why an offer is not taken."""

    UNKNOWN_KEY = "unknown_key"
    INVALID = "invalid"
    EXPIRED = "expired"
    REVOKED = "revoked"
    BELOW_FLOOR = "below_floor"
    NOT_ADMITTED = "not_admitted"
    OTHER_PROVIDER = "other_provider"
    NOT_OWN = "not_own"


class VerdictRefusedError(Exception):
    """The offer's verdict does not satisfy this gateway; the provider is not blamed."""

    def __init__(self, fault: VerdictFault) -> None:
        super().__init__(fault.value)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Checked:
    """A verdict whose signature was verified, with its keys as bytes."""

    verdict: Verdict
    signed: SignedBytes
    encryption_key: bytes
    """K, 32 bytes: the only key that a request is ever sealed to."""
    identity_key: bytes
    expires_at: datetime


class VerdictDesk:
    """Checks offers against pinned keys, the floor, time and revocations.

    Args:
        floor: lowest trust level of a public provider.
        development: whether `development` admission counts.
    """

    def __init__(self, *, floor: TrustLevel, development: bool) -> None:
        self._floor = trust_level_rank(floor)
        self._development = development
        self._keys: dict[str, bytes] = {}
        self._checked: OrderedDict[bytes, Checked] = OrderedDict()
        self._revoked: OrderedDict[str, None] = OrderedDict()

    @property
    def keys(self) -> Mapping[str, bytes]:
        """The pinned public keys by id."""
        return self._keys

    def pin(self, keys: Mapping[str, bytes]) -> None:
        """Replace the pinned keys; a verdict under a key that is gone counts no more."""
        if keys.keys() != self._keys.keys():
            self._checked.clear()
        self._keys = dict(keys)

    def revoke(self, signed: SignedBytes) -> None:
        """Take in a revocation.

        Raises:
            SignatureRejected: it is not one of attestation's.
        """
        revocation = verify_revocation(signed.document, signed.signature, signed.key_id, self._keys)
        for name in (revocation.verdict_id, revocation.identity_key):
            if name is not None:
                self._revoked[name] = None
        while len(self._revoked) > MAX_REVOKED:
            self._revoked.popitem(last=False)

    def check(
        self,
        offer: Offer,
        now: datetime,
        *,
        own: Collection[bytes] = (),
        exclusive: bool = False,
    ) -> Checked:
        """Return what may be sealed to.

        Args:
            offer: of the router.
            now: the present.
            own: identity keys of the caller's machines: he trusts them himself, so neither floor
                nor admission counts for them.
            exclusive: whether nobody else's may be taken.

        Raises:
            VerdictRefusedError: the verdict is not valid, or not good enough.
        """
        checked = self._verified(offer.verdict, now)
        verdict = checked.verdict
        if now >= checked.expires_at:
            raise VerdictRefusedError(VerdictFault.EXPIRED)
        if verdict.verdict_id in self._revoked or verdict.identity_key in self._revoked:
            raise VerdictRefusedError(VerdictFault.REVOKED)
        if verdict.provider_id != offer.provider_id:
            raise VerdictRefusedError(VerdictFault.OTHER_PROVIDER)
        if checked.identity_key in own:
            return checked
        if exclusive:
            raise VerdictRefusedError(VerdictFault.NOT_OWN)
        self._admit(verdict)
        return checked

    def _admit(self, verdict: Verdict) -> None:
        if verdict.admission == "development":
            if not self._development:
                raise VerdictRefusedError(VerdictFault.NOT_ADMITTED)
            return
        if verdict.admission != "public":
            raise VerdictRefusedError(VerdictFault.NOT_ADMITTED)
        if trust_level_rank(verdict.trust_level) < self._floor:
            raise VerdictRefusedError(VerdictFault.BELOW_FLOOR)

    def _verified(self, signed: SignedBytes, now: datetime) -> Checked:
        """Verify a signature once; the very same bytes are then known."""
        known = self._checked.get(signed.document)
        if known is not None and known.signed == signed:
            return known

        try:
            verdict = verify_verdict(
                signed.document, signed.signature, signed.key_id, self._keys, now
            )
            checked = Checked(
                verdict,
                signed,
                encryption_key=from_base64(verdict.encryption_key),
                identity_key=parse_p256_public(verdict.identity_key),
                expires_at=lifetime_of(verdict)[1],
            )
        except SignatureRejected as error:
            raise VerdictRefusedError(_FAULTS.get(error.reason, VerdictFault.INVALID)) from None
        except EdgeError:
            raise VerdictRefusedError(VerdictFault.INVALID) from None

        self._checked[signed.document] = checked
        while len(self._checked) > MAX_CACHED:
            self._checked.popitem(last=False)
        return checked


_FAULTS = {
    RejectReason.UNKNOWN_KEY: VerdictFault.UNKNOWN_KEY,
    RejectReason.EXPIRED: VerdictFault.EXPIRED,
}
