"""What the lane and the books need of an attempt, whoever seals it."""

from typing import Protocol, TypeVar

from darkbloom_gateway.model import Offer, OpenedCounts
from darkbloom_gateway.verdicts import Checked


class Carried(Protocol):
    """An attempt on the lane: sealed here, or by the consumer in end-to-end mode."""

    @property
    def offer(self) -> Offer:
        """Who was reserved."""
        ...

    @property
    def checked(self) -> Checked:
        """Its verified verdict."""
        ...

    @property
    def request_id(self) -> str:
        """The id of money, lanes and receipts."""
        ...

    @property
    def sender_key(self) -> bytes:
        """The attempt's fresh public key."""
        ...

    @property
    def prompt_bound(self) -> int:
        """The hold's."""
        ...

    @property
    def output_bound(self) -> int:
        """The hold's."""
        ...

    @property
    def opened(self) -> OpenedCounts:
        """What may be charged so far."""
        ...

    @property
    def final(self) -> bool:
        """Whether the last chunk has come."""
        ...


AttemptT = TypeVar("AttemptT", bound=Carried)
