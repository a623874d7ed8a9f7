"""Which router replica may give us work: the one that was granted us last."""

from dataclasses import dataclass


@dataclass(slots=True)
class Fence:
    """The highest epoch seen on any stream of this agent.

    A replica that was cut off from the others cannot know that it has lost us; we do.
    """

    epoch: int = 0

    def admits(self, epoch: int) -> bool:
        """Note an epoch; False where a newer one has been granted. 0 is a router that is alone."""
        if 0 < epoch < self.epoch:
            return False
        self.epoch = max(self.epoch, epoch)
        return True
