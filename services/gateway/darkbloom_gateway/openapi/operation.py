"""What a table says about one operation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

from darkbloom_edge.dialects.schemas.parts import Schema
from darkbloom_edge.sealed_request import FRAMED_TYPE, PLAIN_TYPE

JSON = "application/json"
CSV = "text/csv"
TEXT = "text/plain"
MARKDOWN = "text/markdown"
ZIP = "application/zip"
BYTES = "application/octet-stream"
EVENTS = "text/event-stream"
SEALED = (PLAIN_TYPE.decode(), FRAMED_TYPE.decode())
"""What carries an envelope, there and back."""
BINARY: Schema = {"type": "string", "contentMediaType": BYTES}
PLAIN: Schema = {"type": "string"}

Key: TypeAlias = tuple[str, str]
"""Method and path."""


class Access(Enum):
    """Who may call: the security schemes, and the refusals that come with them."""

    NOBODY_ASKED = ((), ())
    KEY = (("api_key", "login", "admin_key"), (401, 403))
    ANTHROPIC = (("api_key", "x_api_key", "login", "admin_key"), (401, 403))
    USER = (("api_key", "login"), (401, 403))
    LOGIN = (("login",), (401, 403))
    EARNER = (("api_key", "login", "provider_token"), (401, 403))
    PROVIDER = (("provider_token",), (401, 403))
    ADMIN = (("admin_key", "login"), (403,))
    ADMIN_KEY = (("admin_key",), (403,))
    SIGNED = (("stripe_signature",), ())
    WEBHOOK = (("webhook_token",), (403,))

    def __init__(self, schemes: tuple[str, ...], refusals: tuple[int, ...]) -> None:
        self.schemes = schemes
        """Names of security schemes, any of which does."""
        self.refusals = refusals
        """Statuses of a call without one."""


class Limit(Enum):
    """Which slow limit a call counts at, and the refusals that come with it."""

    NONE = ((),)
    FINANCIAL = ((429, 503),)
    STRANGER = ((429,),)

    def __init__(self, refusals: tuple[int, ...]) -> None:
        self.refusals = refusals
        """Statuses of a call above it."""


@dataclass(frozen=True, slots=True)
class Body:
    """What a request may carry."""

    schema: Schema
    media_types: tuple[str, ...] = (JSON,)
    required: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """A success."""

    description: str
    content: Mapping[str, Schema]
    headers: Mapping[str, str] = field(default_factory=dict)
    """Header to the name of its component."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path."""

    tag: str
    access: Access
    answers: Mapping[int, Answer]
    body: Body | None = None
    limit: Limit = Limit.NONE
    refusals: tuple[int, ...] = ()
    """Statuses beside those of access, limit, parameters and body."""
    asks_others: bool = True
    """Whether another room is asked, which may be away: 503."""
    headers: Mapping[str, Schema] = field(default_factory=dict)
    """Request headers that have an effect."""
    required_headers: frozenset[str] = frozenset()
    other_errors: Mapping[int, Schema] = field(default_factory=dict)
    """Bodies of statuses that do not have the one shape of errors."""
    name: str = ""
    """The operation's id, where the function's name would not do."""


def answer(schema: Schema, description: str = "Success", **extra: Any) -> Mapping[int, Answer]:
    """Return one success as JSON, 200 unless `status` says otherwise."""
    status = extra.pop("status", 200)
    return {status: Answer(description, {JSON: schema}, **extra)}


def json_body(schema: Schema, *, required: bool = True) -> Body:
    """Return a JSON body."""
    return Body(schema, required=required)


IDEMPOTENCY: Mapping[str, Schema] = {
    "Idempotency-Key": {
        "type": "string",
        "pattern": "^[!-~]{1,128}$",
        "description": "a repeated call with the same key has the effect of one",
    }
}
