"""What a verification has found out, claim by claim."""

from dataclasses import dataclass
from typing import NamedTuple

SIGNATURE_CLAIMS = ("verdict_signed", "terminal_signed", "countersigned")
"""Claims on which every other one rests."""


ATTESTATION = "attestation's signature over the verdict"
"""Backs what is known about the provider."""
PROVIDER = "the provider's signature over the terminal"
"""Backs what the provider says it read, wrote and counted."""
GATEWAY = "the gateway's countersignature"
"""Backs what the edge has seen."""


class Claim(NamedTuple):
    """One statement about an answer."""

    name: str
    holds: bool | None
    """None: it was not checked, or cannot be; `detail` says why."""
    detail: str
    backed_by: str
    """Whose word or which evidence it rests on."""
    asserted: bool = False
    """Whether nothing but the operator's word can back it, whoever signs that word."""

    @property
    def status(self) -> str:
        """`fails`, `operator_asserted`, `holds` or `not_claimed`."""
        if self.holds is False:
            return "fails"
        if self.asserted:
            return "operator_asserted"

        return "holds" if self.holds else "not_claimed"


@dataclass(frozen=True, slots=True)
class Report:
    """The claims about one receipt, in the order in which they build on each other."""

    claims: tuple[Claim, ...]

    @property
    def ok(self) -> bool:
        """Whether all three signatures hold and nothing that was checked fails.

        It is false where keys are missing: unchecked signatures prove nothing. It does not say that
        the hardware is attested, see `attested`.
        """
        signed = all(self._holds(name) for name in SIGNATURE_CLAIMS)

        return signed and all(claim.holds is not False for claim in self.claims)

    @property
    def attested(self) -> bool:
        """Whether the answer came from attested hardware, admitted to the public."""
        return self.ok and self._holds("attested")

    def claim(self, name: str) -> Claim:
        """Return a claim by its name.

        Raises:
            KeyError: there is none.
        """
        for claim in self.claims:
            if claim.name == name:
                return claim

        raise KeyError(name)

    def _holds(self, name: str) -> bool:
        return any(claim.name == name and claim.holds is True for claim in self.claims)
