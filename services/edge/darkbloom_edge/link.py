"""What a machine signs to be linked to an account (docs/wire.md §1)."""

from darkbloom_edge.errors import MalformedError
from darkbloom_edge.signatures import POINT_BYTES

LINK_KIND = "provider-link"
"""Kind of the signed statement."""
LINK_NONCE_BYTES = 32


def link_statement(account_id: str, identity_key: bytes, nonce: bytes) -> bytes:
    """Return the statement: nonce, identity key, then the account that shall earn.

    The account is in it, so that whoever relays a machine's proof cannot redirect its earnings.

    Raises:
        MalformedError: nonce or key has another size, or the account is empty or not ASCII.
    """
    if len(nonce) != LINK_NONCE_BYTES or len(identity_key) != POINT_BYTES:
        raise MalformedError("nonce or identity key has another size")
    if not account_id or not account_id.isascii():
        raise MalformedError("not an account id")

    return nonce + identity_key + account_id.encode("ascii")
