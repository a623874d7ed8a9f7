"""A sealed request in parts: put together again, checked, and joined once."""

import hashlib
import hmac

from darkbloom_mesh.errors import InvalidArgumentError

PART_BYTES = 64 * 1024


class BodyAssembler:
    """Collects the parts of one body in order; complete once size and digest agree.

    Args:
        total_size: Announced size, in bytes.
        sha256: Announced digest, 32 bytes.
        limit: Largest body accepted, in bytes.

    Raises:
        InvalidArgumentError: The announcement is malformed or above the limit.
    """

    def __init__(self, total_size: int, sha256: bytes, limit: int) -> None:
        if not 0 < total_size <= limit:
            raise InvalidArgumentError("body size is out of range", "total_size")
        if len(sha256) != hashlib.sha256().digest_size:
            raise InvalidArgumentError("body digest is not 32 bytes", "sha256")
        self._total_size = total_size
        self._sha256 = sha256
        self._parts: list[bytes] = []
        self._size = 0
        # Hashed as it comes: 16 MiB at once would hold the loop for 10 ms and more.
        self._digest = hashlib.sha256()

    @property
    def complete(self) -> bool:
        """Whether every announced byte is here."""
        return self._size == self._total_size

    def add(self, sequence: int, payload: bytes) -> bool:
        """Take the next part; returns whether the body is complete now.

        Raises:
            InvalidArgumentError: The part is empty, too long, out of order or beyond the announced
                size, or the whole does not have the announced digest.
        """
        if sequence != len(self._parts):
            raise InvalidArgumentError("body part is out of order", "sequence")
        if not 0 < len(payload) <= PART_BYTES:
            raise InvalidArgumentError("body part is empty or too long", "payload")
        if self._size + len(payload) > self._total_size:
            raise InvalidArgumentError("body is longer than announced", "payload")
        self._parts.append(payload)
        self._size += len(payload)
        self._digest.update(payload)
        if self.complete and not hmac.compare_digest(self._digest.digest(), self._sha256):
            raise InvalidArgumentError("body does not have the announced digest", "sha256")
        return self.complete

    def join(self) -> bytes:
        """Return the body and let go of its parts.

        Raises:
            InvalidArgumentError: Parts are missing.
        """
        if not self.complete:
            raise InvalidArgumentError("body is incomplete", "total_size")
        body = b"".join(self._parts)
        self._parts.clear()
        return body
