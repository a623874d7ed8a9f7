"""What travels with a call inside one process: its request id."""

import re
import secrets
from contextvars import ContextVar

REQUEST_ID_KEY = "x-request-id"
TOKEN_KEY = "darkbloom-mesh-token"  # noqa: S105 - the name of the metadata key

_request_id: ContextVar[str] = ContextVar("request_id", default="")
# Echoed into logs and metadata, so a caller's id must not smuggle anything in.
_ACCEPTABLE = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def request_id() -> str:
    """Return the id of the call being served, or an empty string outside of one."""
    return _request_id.get()


def set_request_id(text: str | None) -> str:
    """Adopt a caller's id where it is well-formed, else make one; returns it."""
    accepted = text if text and _ACCEPTABLE.fullmatch(text) else secrets.token_hex(16)
    _request_id.set(accepted)
    return accepted
