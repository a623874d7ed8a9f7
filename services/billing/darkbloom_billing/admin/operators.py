"""Who an operator is: a personal token, or the word of the gateway that checked a login.

Operators are registered with the owner's role of the database, which the service does not have: so
whoever holds the mesh token can still not become the second person of the two-person rule.
"""

import hashlib
from datetime import datetime
from typing import Any

import asyncpg
from darkbloom_mesh.config import Secret
from darkbloom_mesh.errors import InvalidArgumentError

from darkbloom_billing.admin.errors import (
    OperatorRefusal,
    OperatorRefusedError,
    OperatorUnknownError,
)
from darkbloom_billing.admin.model import Operator, Source
from darkbloom_billing.store.database import Connection, Database

TOKEN_PREFIX = "op-db-"  # noqa: S105 - a prefix that everybody may know
_REGISTER = """
    INSERT INTO billing.operator (name, token_hash, created_at) VALUES ($1, $2, $3)
    ON CONFLICT (name) DO UPDATE SET token_hash = $2, created_at = $3, revoked_at = NULL
"""
_REVOKE = "UPDATE billing.operator SET revoked_at = $2 WHERE name = $1 AND revoked_at IS NULL"


class Operators:
    """Tells who asks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def identify(self, name: str, token: str) -> Operator:
        """Return who asks: by token, else the name that the gateway has checked.

        Raises:
            OperatorUnknownError: The token is nobody's.
            InvalidArgumentError: Neither name nor token.
        """
        if not token:
            if not name:
                raise InvalidArgumentError("who asks is missing", "operator.name")
            return Operator(name=name, source=Source.HTTP)

        async def work(connection: Connection) -> Any:
            return await connection.fetchval(
                "SELECT name FROM billing.operator WHERE token_hash = $1 AND revoked_at IS NULL",
                token_hash(token),
            )

        found = await self._database.run(work)
        if found is None:
            raise OperatorUnknownError("no such operator")
        return Operator(name=found, source=Source.CLI)


def require_registered(operator: Operator) -> None:
    """Refuse whoever has not proved who it is with a personal token.

    Raises:
        OperatorRefusedError: It is only a name.
    """
    if not operator.registered:
        raise OperatorRefusedError(OperatorRefusal.NOT_REGISTERED)


def token_hash(token: str) -> bytes:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode()).digest()


async def register(url: Secret, name: str, token: str, *, now: datetime) -> None:
    """Add an operator, or give one a new token; needs the owner's role."""
    await _as_owner(url, _REGISTER, name, token_hash(token), now)


async def revoke(url: Secret, name: str, *, now: datetime) -> bool:
    """End an operator's token; return whether there was one. Needs the owner's role."""
    done = await _as_owner(url, _REVOKE, name, now)
    return not done.endswith(" 0")


async def _as_owner(url: Secret, statement: str, *values: object) -> str:
    connection = await asyncpg.connect(url.reveal())
    try:
        return str(await connection.execute(statement, *values))
    finally:
        await connection.close()
