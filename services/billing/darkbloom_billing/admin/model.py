"""The words of operators as values. Money is integer micro-USD."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

Fact: TypeAlias = str | int | bool | None
"""What a row of the audit may hold: ids, words and amounts."""


class Source(StrEnum):
    """Through which door a command came."""

    HTTP = "http"
    CLI = "cli"
    DEVELOPMENT = "development"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Who asks, as the audit names them."""

    name: str
    source: Source

    @property
    def registered(self) -> bool:
        """Whether a personal token, or development, proves who this is."""
        return self.source is not Source.HTTP


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One write of an operator, before it has a number."""

    operator: Operator
    action: str
    subject: str
    request_id: str
    before: Mapping[str, Fact]
    after: Mapping[str, Fact]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRow:
    """One row of the audit."""

    action_id: int
    action: Action
    created_at: datetime
