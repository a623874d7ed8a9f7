"""Counts one answer in a hundred again, off the path: does a provider claim what it delivers?

Other checks bound what one answer can claim (its bytes, its bounds); this one sees who claims a
little too much, always. A fault is counted and logged by provider and build; what to do about it is
an operator's decision, because an engine may cut a text into other tokens than a tokenizer would.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, final

import structlog
from darkbloom_edge.delta import Delta

from darkbloom_gateway.meters import Meters
from darkbloom_gateway.tokenizers import Tokenizers

ONE_IN: Final = 100
DRIFT_PART: Final = 20
"""More than one part in so many is a fault."""
SLACK_TOKENS: Final = 16
"""Markers that are tokens and no text, such as those around reasoning."""
MAX_BYTES: Final = 256 * 1024
"""Longest answer that is counted again (about a tenth of a second)."""
MAX_WAITING: Final = 16
_RANGE: Final = 1 << 16
_log = structlog.get_logger()


@final
class Sample:
    """The texts of one answer, while it passes; repr shows none of them."""

    __slots__ = ("_bytes", "_reasoning", "_texts", "usable")

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._bytes = 0
        self.usable = True
        """False where a count of texts would not be one of tokens, or too long a text."""

    def feed(self, delta: Delta) -> None:
        """Take the next piece."""
        self._bytes += len(delta.text) + len(delta.reasoning)
        if delta.tool_calls or self._bytes > MAX_BYTES:
            self.usable = False
            self._texts.clear()
            self._reasoning.clear()
        elif self.usable:
            self._texts.append(delta.text)
            self._reasoning.append(delta.reasoning)

    def texts(self) -> list[str]:
        """Return reasoning and content, each whole."""
        return ["".join(self._reasoning), "".join(self._texts)]


@dataclass(frozen=True, slots=True)
class Claim:
    """What a provider said about an answer."""

    build: str
    provider_id: str
    completion_tokens: int
    texts: list[str] = field(repr=False)


@final
class Recounts:
    """Draws answers and counts them again, one at a time.

    Args:
        tokenizers: of builds; builds without one are not counted.
        meters: told of each count.
        entropy: draws.
        one_in: one answer in so many.
    """

    def __init__(
        self,
        tokenizers: Tokenizers,
        meters: Meters,
        entropy: Callable[[int], bytes],
        one_in: int = ONE_IN,
    ) -> None:
        self._tokenizers = tokenizers
        self._meters = meters
        self._entropy = entropy
        self._below = _RANGE // one_in
        self._waiting: asyncio.Queue[Claim] = asyncio.Queue(MAX_WAITING)

    def sample(self) -> Sample | None:
        """Return what keeps the texts of this answer, or nothing for most of them."""
        if not self._tokenizers.any or int.from_bytes(self._entropy(2)) >= self._below:
            return None
        return Sample()

    def submit(self, claim: Claim) -> None:
        """Count soon; while too many wait, this one is let go."""
        if not self._waiting.full():
            self._waiting.put_nowait(claim)

    async def run(self) -> None:
        """Count what was submitted, until cancelled."""
        while True:
            claim = await self._waiting.get()
            counted = await asyncio.to_thread(self._tokenizers.count, [claim.build], claim.texts)
            if counted is None:
                continue
            drifts = has_drifted(claim.completion_tokens, counted)
            self._meters.recounted(claim.build, drifts=drifts)
            if drifts:
                _log.warning(
                    "token_drift",
                    build=claim.build,
                    provider_id=claim.provider_id,
                    claimed_tokens=claim.completion_tokens,
                    counted_tokens=counted,
                )


def has_drifted(claimed: int, counted: int) -> bool:
    """Tell whether two counts of one answer differ by more than they may."""
    return abs(claimed - counted) > max(claimed, counted) // DRIFT_PART + SLACK_TOKENS
