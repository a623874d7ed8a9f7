"""Sealed bodies on their way in: how many may be in transit, and since when.

Small bodies arrive in bursts, one part each, so they have a bound of their own: the four places of
large ones, which bound the memory, are not for them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from darkbloom.router.v1.provider_link_pb2 import InferenceRequest
from darkbloom_mesh.body import PART_BYTES, BodyAssembler

MAX_BODY_BYTES = 32 * 1024 * 1024
"""Largest sealed request."""
MAX_LARGE_BODIES = 4
"""Bodies of more than one part that may be in transit or being opened; more are refused."""
MAX_SMALL_BODIES = 512
"""The same for bodies of one part."""
BODY_TIMEOUT_S = 30.0
"""Time from the first frame of a request to its last body part."""


@dataclass(slots=True)
class Incoming:
    """A request on its way from ciphertext to a running job."""

    request: InferenceRequest
    body: BodyAssembler
    since: float
    """When its first frame came, on the monotonic clock."""
    cancelled: bool = False
    """The router has taken it back; nobody waits for an answer."""


def has_room(incoming: Iterable[Incoming], body_bytes: int) -> bool:
    """Tell whether one more body of that size may come."""
    large = small = 0
    for one in incoming:
        if one.request.body_bytes > PART_BYTES:
            large += 1
        else:
            small += 1
    return large < MAX_LARGE_BODIES if body_bytes > PART_BYTES else small < MAX_SMALL_BODIES
