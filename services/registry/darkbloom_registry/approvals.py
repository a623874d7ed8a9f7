"""Two people for what consumers get: the same call, made with two keys (spec/registry.md §6).

The first one is written down and refused; the second one, by another key within the hour, is done.
Nobody hands a key to anybody, and what is approved is exactly what was asked for.
"""

import hashlib
from datetime import datetime, timedelta
from typing import Final, Protocol, final

from darkbloom_mesh.clock import Clock
from google.protobuf.message import Message

from darkbloom_registry.errors import ApprovalRequiredError

OPEN: Final = timedelta(hours=1)
"""How long a call waits for its second key."""
_OWN: Final = "request_id"
"""What each caller draws for himself: no part of what is asked."""


class Asked(Protocol):
    """Where calls that wait for a second key are kept."""

    async def ask(self, digest: bytes, label: str, now: datetime, since: datetime) -> str:
        """Note who asks; return who else asked for the same since then, and forget both.

        Empty where nobody else did.
        """
        ...


@final
class Approvals:
    """Lets a call pass once two keys have asked for it."""

    def __init__(self, asked: Asked, clock: Clock) -> None:
        self._asked = asked
        self._clock = clock

    async def require(self, label: str, request: Message) -> str:
        """Return who asked and who approved, as it is recorded.

        Raises:
            ApprovalRequiredError: nobody else asked for the same yet.
        """
        now = self._clock.now()
        other = await self._asked.ask(digest_of(request), label, now, now - OPEN)
        if not other:
            raise ApprovalRequiredError(
                "written down; within an hour another key asks for the same"
            )
        return f"{other}, {label}"


def digest_of(request: Message) -> bytes:
    """Return what names a call: its kind and all that it says."""
    said = type(request)()
    said.CopyFrom(request)
    if _OWN in said.DESCRIPTOR.fields_by_name:
        said.ClearField(_OWN)
    name = said.DESCRIPTOR.full_name.encode()
    return hashlib.sha256(name + b"\0" + said.SerializeToString(deterministic=True)).digest()
