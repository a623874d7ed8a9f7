"""Who may write, and the record of who wrote (spec/registry.md §6, "Better")."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

DEVELOPMENT = "development"
"""Actor of a write without a key; production knows none."""
BY_ITSELF = "rollout"
"""Actor where a rollout moved without anybody."""
OWNER = "owner"
"""Actor of what the owner of the database did at its command line."""
RESERVED = frozenset({DEVELOPMENT, BY_ITSELF, OWNER})
"""Actors that no key may call itself."""


class Scope(StrEnum):
    """What a publishing key may do."""

    PUBLISH = "publish"
    """Register versions."""
    PROMOTE = "promote"
    """Make versions active, or retire them."""
    ALIAS = "alias"
    """Point names, and roll them out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishingKey:
    """A key as stored; the key itself is known to its owner alone."""

    label: str
    scopes: frozenset[Scope]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One write, as it is recorded in its own transaction."""

    actor: str
    action: str
    subject: str
    time: datetime
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A recorded write, and the generation that it made."""

    generation: int
    change: Change
