"""Documents that attestation signs: verdicts and revocations."""

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import final

from darkbloom_edge.documents import rfc3339
from darkbloom_edge.ids import ID_BYTES, new_id
from darkbloom_edge.revocation import Revocation, sign_revocation
from darkbloom_edge.signatures import Ed25519Signer, to_base64
from darkbloom_edge.verdict import Admission, TrustLevel, Verdict, sign_verdict

from darkbloom_attestation.model import IssuedRevocation, IssuedVerdict, Registration, Signed

VERDICT_LIFETIME = timedelta(minutes=16)
"""How long a verdict counts; three challenges fit into it."""


@final
class Issuer:
    """Signs with the newest key.

    Args:
        signer: that key.
        entropy: returns this many random bytes.
    """

    def __init__(
        self, signer: Ed25519Signer, entropy: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        self._signer = signer
        self._entropy = entropy

    def new_id(self, prefix: str) -> str:
        """Make an id."""
        return new_id(prefix, self._entropy(ID_BYTES))

    def entropy(self, size: int) -> bytes:
        """Draw random bytes."""
        return self._entropy(size)

    def verdict(
        self,
        registration: Registration,
        *,
        evidence: Sequence[str],
        trust_level: TrustLevel,
        admission: Admission,
        code_release: str,
        now: datetime,
        ends: datetime | None = None,
    ) -> IssuedVerdict:
        """Sign what a passed challenge proves about a session.

        Args:
            registration: of the session; the first piece of evidence.
            evidence: ids of the others.
            trust_level: what they prove.
            admission: whose requests it may get.
            code_release: what it runs.
            now: the present.
            ends: when the first piece of evidence ends; None where none does.
        """
        issued = now.replace(microsecond=0)
        expires = issued + VERDICT_LIFETIME
        if ends is not None:
            expires = min(expires, ends.replace(microsecond=0))
        presented = registration.presented
        verdict = Verdict(
            verdict_id=self.new_id("ver"),
            provider_id=presented.provider_id,
            identity_key=to_base64(registration.identity_key),
            encryption_key=to_base64(presented.encryption_key),
            trust_level=trust_level,
            admission=admission,
            evidence=[registration.registration_id, *evidence],
            code_release=code_release,
            issued_at=rfc3339(issued),
            expires_at=rfc3339(expires),
        )
        document, signature = sign_verdict(verdict, self._signer)

        return IssuedVerdict(
            verdict_id=verdict.verdict_id,
            provider_id=verdict.provider_id,
            code_release=code_release,
            signed=self._signed(document, signature),
            trust_level=trust_level,
            admission=admission,
            issue_time=issued,
            expire_time=expires,
        )

    def revocation(self, verdict_id: str, reason: str, now: datetime) -> IssuedRevocation:
        """Sign that a verdict no longer counts."""
        revocation = Revocation(
            revocation_id=self.new_id("rev"),
            verdict_id=verdict_id,
            reason=reason,
            issued_at=rfc3339(now),
        )
        document, signature = sign_revocation(revocation, self._signer)

        return IssuedRevocation(
            revocation_id=revocation.revocation_id,
            verdict_id=verdict_id,
            reason=reason,
            signed=self._signed(document, signature),
            issue_time=now,
        )

    def _signed(self, document: bytes, signature: bytes) -> Signed:
        return Signed(document=document, signature=signature, key_id=self._signer.key_id)
