"""Codes that people type: one form each."""

import re

from darkbloom_mesh.errors import InvalidArgumentError

_REFERRAL = re.compile(r"[A-Z0-9][A-Z0-9-]{1,18}[A-Z0-9]")
_INVITE = re.compile(r"[A-Z0-9][A-Z0-9-]{1,38}[A-Z0-9]")


def referral_code(text: str) -> str:
    """Return a referral code as it is kept: 3 to 20 letters, digits, inner hyphens, upper case."""
    code = text.strip().upper()
    # `upper` makes ASCII of some letters that are not: those are refused, not folded.
    if not text.isascii() or _REFERRAL.fullmatch(code) is None:
        raise InvalidArgumentError(
            "must be 3 to 20 letters, digits and hyphens, without a hyphen at an edge", "code"
        )
    return code


def invite_code(text: str) -> str:
    """Return an invite code as it is kept: 3 to 40 letters, digits, inner hyphens, upper case."""
    code = text.strip().upper()
    if not text.isascii() or _INVITE.fullmatch(code) is None:
        raise InvalidArgumentError(
            "must be 3 to 40 letters, digits and hyphens, without a hyphen at an edge", "code"
        )
    return code


def new_invite_code(entropy: bytes) -> str:
    """Return a made-up code from 4 random bytes."""
    return f"INV-{entropy.hex().upper()}"
