"""How accounts appear in public: keyed pseudonyms, or names that they chose."""

import hashlib
import hmac
import re

from darkbloom_mesh.errors import InvalidArgumentError

from darkbloom_billing.reports.words import ADJECTIVES, ANIMALS

ANONYMOUS = "anon"
"""Name of nobody."""
_CHOSEN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{1,30})[A-Za-z0-9]")
_PSEUDONYM = re.compile(r"[a-z]+-[a-z]+-[0-9]{4}")
_RESERVED = ("darkbloom", "admin", "official", "support", "staff", ANONYMOUS)


def pseudonym(key: bytes, account_id: str) -> str:
    """Return `adjective-animal-NNNN`: stable, and of no use without the key.

    Account ids can be guessed, so a plain hash of them could be matched.
    """
    if not account_id:
        return ANONYMOUS
    digest = hmac.digest(key, account_id.encode(), hashlib.sha256)
    number = int.from_bytes(digest[2:10], "big") % 10_000
    return f"{ADJECTIVES[digest[0]]}-{ANIMALS[digest[1]]}-{number:04d}"


def chosen_name(name: str) -> tuple[str, str]:
    """Return a name that an account may carry, and the form in which it must be unique.

    Raises:
        InvalidArgumentError: It has another form, or could be taken for somebody else's.
    """
    if _CHOSEN.fullmatch(name) is None:
        raise InvalidArgumentError(
            "must be 3 to 32 letters, digits, hyphens or underscores, none of these at an end",
            "name",
        )
    folded = name.lower().replace("_", "-")
    if _PSEUDONYM.fullmatch(folded) is not None:
        raise InvalidArgumentError("must not look like a pseudonym", "name")
    if any(word in folded for word in _RESERVED):
        raise InvalidArgumentError("is reserved", "name")
    return name, folded
