"""Keyed digests of what was asked and answered, the same however the answer was cut."""

import hmac
from typing import Annotated, final

import msgspec
from msgspec import Meta

from darkbloom_edge.delta import MAX_TOOL_CALLS, Delta, ToolCallPart
from darkbloom_edge.documents import HexDigest
from darkbloom_edge.errors import MalformedError

RECEIPT_KEY_BYTES = 32
"""Size of a receipt key."""


class Digests(msgspec.Struct, frozen=True, kw_only=True):
    """HMAC-SHA256 digests under the receipt key, in hex."""

    request: HexDigest
    """Of the canonical request."""
    content: HexDigest
    """Of all visible text."""
    reasoning: HexDigest
    """Of all reasoning text."""
    tool_calls: Annotated[tuple[HexDigest, ...], Meta(max_length=MAX_TOOL_CALLS)] = ()
    """One per tool call: name, a zero byte, arguments."""


def keyed_digest(receipt_key: bytes, label: str, data: bytes | bytearray) -> str:
    """Return the digest of some bytes under a label, in hex.

    Args:
        receipt_key: 32 bytes that only edge and provider hold, and later the consumer.
        label: "request", "content", "reasoning", "tool_call:<i>" or "body".
        data: the exact bytes.

    Raises:
        MalformedError: the key is not 32 bytes.
    """
    digest = _start(receipt_key, label)
    digest.update(data)

    return digest.hexdigest()


def body_digest(receipt_key: bytes, body: bytes) -> str:
    """Return the digest of an HTTP body exactly as it was received."""
    return keyed_digest(receipt_key, "body", body)


def tool_call_digest(receipt_key: bytes, index: int, name: str, arguments: str) -> str:
    """Return the digest of one whole tool call."""
    data = name.encode() + b"\x00" + arguments.encode()

    return keyed_digest(receipt_key, f"tool_call:{index}", data)


@final
class Transcript:
    """Digests an answer while it passes, without keeping any of it."""

    __slots__ = (
        "_calls",
        "_content",
        "_key",
        "_reasoning",
        "_request",
        "content_bytes",
        "reasoning_bytes",
        "tool_call_bytes",
    )

    def __init__(self, receipt_key: bytes) -> None:
        self._key = receipt_key
        self._content = _start(receipt_key, "content")
        self._reasoning = _start(receipt_key, "reasoning")
        self._request: str | None = None
        self._calls: list[_CallDigest] = []
        self.content_bytes = 0
        """UTF-8 bytes of visible text so far."""
        self.reasoning_bytes = 0
        """UTF-8 bytes of reasoning so far."""
        self.tool_call_bytes = 0
        """UTF-8 bytes of function names and arguments so far."""

    @property
    def delivered_bytes(self) -> int:
        """UTF-8 bytes delivered so far; caps what may be charged (docs/wire.md §6)."""
        return self.content_bytes + self.reasoning_bytes + self.tool_call_bytes

    def request(self, canonical: bytes | bytearray) -> None:
        """Digest the canonical request."""
        self._request = keyed_digest(self._key, "request", canonical)

    def feed(self, delta: Delta) -> None:
        """Digest the next delta.

        Raises:
            MalformedError: tool calls come with gaps, or a name comes after its arguments.
        """
        if delta.text:
            data = delta.text.encode()
            self._content.update(data)
            self.content_bytes += len(data)
        if delta.reasoning:
            data = delta.reasoning.encode()
            self._reasoning.update(data)
            self.reasoning_bytes += len(data)
        for part in delta.tool_calls:
            self._feed_call(part)

    def digests(self) -> Digests:
        """Return the digests of everything so far; more may be fed afterwards.

        Raises:
            MalformedError: no request was digested.
        """
        if self._request is None:
            raise MalformedError("the transcript has no request")

        return Digests(
            request=self._request,
            content=self._content.hexdigest(),
            reasoning=self._reasoning.hexdigest(),
            tool_calls=tuple(call.hexdigest() for call in self._calls),
        )

    def _feed_call(self, part: ToolCallPart) -> None:
        if part.index == len(self._calls) < MAX_TOOL_CALLS:
            self._calls.append(_CallDigest(_start(self._key, f"tool_call:{part.index}")))
        if not 0 <= part.index < len(self._calls):
            raise MalformedError("tool call indices have gaps", "tool_calls")

        self.tool_call_bytes += self._calls[part.index].feed(part)

    def __repr__(self) -> str:
        return "Transcript(<redacted>)"


@final
class _CallDigest:
    """The digest of one tool call: its name is closed by its first arguments."""

    __slots__ = ("_digest", "_in_arguments")

    def __init__(self, digest: hmac.HMAC) -> None:
        self._digest = digest
        self._in_arguments = False

    def feed(self, part: ToolCallPart) -> int:
        name, arguments = part.name.encode(), part.arguments.encode()
        if name:
            if self._in_arguments:
                raise MalformedError("a tool call's name comes after its arguments", "tool_calls")
            self._digest.update(name)
        if arguments:
            self._close_name()
            self._digest.update(arguments)

        return len(name) + len(arguments)

    def hexdigest(self) -> str:
        if self._in_arguments:
            return self._digest.hexdigest()

        closed = self._digest.copy()
        closed.update(b"\x00")

        return closed.hexdigest()

    def _close_name(self) -> None:
        if not self._in_arguments:
            self._in_arguments = True
            self._digest.update(b"\x00")


def _start(receipt_key: bytes, label: str) -> hmac.HMAC:
    if len(receipt_key) != RECEIPT_KEY_BYTES:
        raise MalformedError("a receipt key has 32 bytes")

    return hmac.new(receipt_key, label.encode() + b"\x00", "sha256")
