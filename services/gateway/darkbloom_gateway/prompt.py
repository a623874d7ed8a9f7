"""What a consumer asked, from its body to sealed bytes; forgotten once an answer has begun."""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from darkbloom_edge.dialects.chat import Lowered
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.request import canonical_bytes

from darkbloom_gateway.attempt import Attempt
from darkbloom_gateway.catalog import Build
from darkbloom_gateway.errors import bad_request
from darkbloom_gateway.media.attachments import Attachments
from darkbloom_gateway.model import Plan

THREAD_BYTES = 256 * 1024
"""Bodies above this are parsed and sealed off the loop."""


@dataclass(frozen=True, slots=True)
class SealedBody:
    """Ciphertext of a request, and the hash that its outside names."""

    ciphertext: bytes = field(repr=False)
    sha256: bytes


@final
class Prompt:
    """Seals one request as often as failover needs; repr shows no content."""

    __slots__ = (
        "_body",
        "_builds",
        "_canonical",
        "_choice",
        "_lowered",
        "_waiting",
        "_whole",
        "plan",
    )

    def __init__(
        self,
        lowered: Lowered,
        body: bytes,
        plan: Plan,
        builds: Mapping[str, Build],
        choice: int = 0,
        waiting: Attachments | None = None,
    ) -> None:
        self._waiting = waiting
        self.plan = plan
        self._choice = choice
        self._lowered: Lowered | None = lowered
        self._whole = not lowered.stream
        self._body = body
        self._builds = builds
        self._canonical: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return "Prompt(<redacted>)"

    def weight_hashes(self, build: str) -> frozenset[str]:
        """Return the weight hashes that the catalog accepts for a build, empty for any."""
        known = self._builds.get(build)
        return known.accepted_weight_hashes if known is not None else frozenset()

    @property
    def complete(self) -> bool:
        """Whether everything is here that is to be sealed."""
        return self._waiting is None

    async def fetch(self) -> None:
        """Fetch what the request only names.

        Raises:
            ApiError: 400 or 503: something cannot be had.
        """
        if self._waiting is not None:
            self._lowered = await self._waiting.completed()
            self._waiting = None

    async def seal(self, attempt: Attempt, *, not_after_ms: int) -> SealedBody:
        """Seal the request to the attempt's provider.

        Raises:
            ApiError: 400: the request cannot be written canonically.
        """
        if len(self._body) > THREAD_BYTES or self.plan.vision:
            return await asyncio.to_thread(self._seal, attempt, not_after_ms)
        return self._seal(attempt, not_after_ms)

    def forget(self) -> None:
        """Drop body and request: from here on nobody else will be asked."""
        self._lowered = self._waiting = None
        self._body = b""
        self._canonical.clear()

    def _seal(self, attempt: Attempt, not_after_ms: int) -> SealedBody:
        build = attempt.offer.build
        canonical = self._canonical.get(build)
        if canonical is None:
            canonical = self._canonical[build] = self._write(build)
        ciphertext = attempt.seal(
            canonical, self._body, not_after_ms=not_after_ms, whole=self._whole
        )
        return SealedBody(ciphertext, hashlib.sha256(ciphertext).digest())

    def _write(self, build: str) -> bytes:
        if self._lowered is None:
            raise RuntimeError("the prompt was forgotten")
        plan = self.plan
        try:
            return canonical_bytes(
                self._lowered.to_request(build, plan.output_bound, plan.prompt_date, self._choice)
            )
        except MalformedError as error:
            raise bad_request(str(error), param=error.field) from None
