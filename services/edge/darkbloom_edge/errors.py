"""What can go wrong at the edge. No error ever holds content: it may be logged as it is."""

from enum import StrEnum


class EdgeError(Exception):
    """The base of every error that this library raises on bad input."""


class MalformedError(EdgeError):
    """Bytes do not have the shape that they must have.

    Args:
        what: what is wrong, lower case, without any of the offending bytes.
        field: path of the field at fault, where there is one.
    """

    def __init__(self, what: str, field: str | None = None) -> None:
        super().__init__(what if field is None else f"{field}: {what}")
        self.what = what
        self.field = field


class NotOnCurveError(MalformedError):
    """A public key of the right size is no point of its curve."""


class EnvelopeFault(StrEnum):
    """Why a box was refused. Each one ends the attempt."""

    BAD_KEY = "bad_key"
    """A key is not 32 bytes, or is a point of low order."""
    BAD_SIZE = "bad_size"
    """A payload is too short to be a box, or larger than any allowed one."""
    NOT_OPENABLE = "not_openable"
    """The box does not open: altered, cut, reordered, repeated, or made with another key."""
    BAD_VERSION = "bad_version"
    """The inner header has a version that this library does not speak."""
    BAD_DIRECTION = "bad_direction"
    """The box was made for the other direction: it was reflected."""
    BAD_SEQUENCE = "bad_sequence"
    """The inner header has another position than the box."""
    BAD_IDS = "bad_ids"
    """The box belongs to another request or another attempt."""
    BAD_HEADER = "bad_header"
    """The inner header or the request header has an impossible value."""
    NOT_FINAL = "not_final"
    """A request box without its final flag."""
    AFTER_FINAL = "after_final"
    """Something came after the final box, or was about to be sealed after it."""
    BROKEN = "broken"
    """An earlier box of this session was refused; nothing more is opened."""
    KEY_REUSED = "key_reused"
    """The sender key has been opened before: the request is a replay."""
    MEMORY_FULL = "memory_full"
    """Too many sender keys are alive, so that a replay could not be told from a new request."""
    EXPIRED = "expired"
    """The request is past its `not_after`."""
    LIFETIME = "lifetime"
    """The request says that it lives longer than any request may."""
    WRONG_BOUNDS = "wrong_bounds"
    """The sealed bounds differ from those of the attempt."""
    WRONG_VERDICT = "wrong_verdict"
    """The request was sealed under another verdict than this provider's."""


class EnvelopeError(EdgeError):
    """A sealed box was refused."""

    def __init__(self, reason: EnvelopeFault) -> None:
        super().__init__(f"envelope refused, {reason.value}")
        self.reason = reason


class RejectReason(StrEnum):
    """Why a signed document does not count."""

    UNKNOWN_KEY = "unknown_key"
    """It names a signing key that is not pinned."""
    BAD_KEY = "bad_key"
    """The key to check it with is not a key."""
    BAD_SIGNATURE = "bad_signature"
    """The signature is not one of this key over these bytes."""
    MALFORMED = "malformed"
    """It is correctly signed, but does not have the shape of its kind."""
    NOT_YET_VALID = "not_yet_valid"
    """It was issued in the future."""
    EXPIRED = "expired"
    """Its time is over."""
    LIFETIME = "lifetime"
    """It says that it lives longer than its kind may."""


class SignatureRejected(EdgeError):  # noqa: N818 - the name says what happened to the document
    """A signed document was refused."""

    def __init__(self, reason: RejectReason, detail: str = "") -> None:
        text = f"signed document rejected, {reason.value}"
        super().__init__(f"{text}: {detail}" if detail else text)
        self.reason = reason
        self.detail = detail


class RequestError(EdgeError):
    """A consumer's request is refused; the fields are those of the dialect's error body.

    Args:
        message: what to tell the consumer, without quoting the request.
        param: the field at fault.
        code: machine-readable code; `type` when absent.
        status: HTTP status.
        type: the dialect's error type.
    """

    def __init__(
        self,
        message: str,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
        type: str = "invalid_request_error",  # noqa: A002 - the name of the field in the error body
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = type if code is None else code
        self.status = status
        self.type = type
