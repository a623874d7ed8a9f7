"""The audit of operators: a row in the transaction of the write itself.

    await record(connection, action, now=clock.now())

Whoever writes for an operator calls this with the connection of its own transaction, so there is no
write without its row and no row without its write.
"""

import json
from datetime import datetime
from typing import Any

from darkbloom_mesh.errors import ConflictError

from darkbloom_billing.admin.model import Action, ActionRow, Operator, Source
from darkbloom_billing.store.database import Connection, Database

_INSERT = """
    INSERT INTO billing.operator_action
      (operator, source, action, subject, request_id, before, after, created_at)
    VALUES ($1, $2, $3, $4, $5, $6::jsonb, $7::jsonb, $8)
    ON CONFLICT (action, request_id) DO NOTHING RETURNING action_id
"""
_KEPT = """
    SELECT subject, after FROM billing.operator_action WHERE action = $1 AND request_id = $2
"""
_PAGE = """
    SELECT * FROM billing.operator_action
    WHERE ($1 = '' OR subject = $1) AND ($2::bigint IS NULL OR action_id < $2)
    ORDER BY action_id DESC LIMIT $3
"""


async def record(connection: Connection, action: Action, *, now: datetime) -> bool:
    """Write the row of an action; False: a repeat, which must change nothing.

    Raises:
        ConflictError: The request id came before with something else, which then has no row.
    """
    written = await connection.fetchval(
        _INSERT,
        action.operator.name,
        action.operator.source.value,
        action.action,
        action.subject,
        action.request_id,
        json.dumps(dict(action.before), sort_keys=True),
        json.dumps(dict(action.after), sort_keys=True),
        now,
    )
    if written is not None:
        return True
    kept = await connection.fetchrow(_KEPT, action.action, action.request_id)
    same = (action.subject, dict(action.after))
    if kept is None or (kept["subject"], json.loads(kept["after"])) != same:
        raise ConflictError("the same request id came before with something else")
    return False


class ActionLog:
    """Reads the audit."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, subject: str, *, limit: int, before: int | None) -> list[ActionRow]:
        """Return rows, newest first; an empty subject means all."""

        async def work(connection: Connection) -> list[Any]:
            return await connection.fetch(_PAGE, subject, before, limit)

        return [
            ActionRow(
                action_id=row["action_id"],
                action=Action(
                    operator=Operator(name=row["operator"], source=Source(row["source"])),
                    action=row["action"],
                    subject=row["subject"],
                    request_id=row["request_id"],
                    before=json.loads(row["before"]),
                    after=json.loads(row["after"]),
                ),
                created_at=row["created_at"],
            )
            for row in await self._database.run(work)
        ]
