"""One question, asked of a database that lets us read and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
from darkbloom_mesh.config import Secret
from darkbloom_mesh.errors import DeadlineError, ForbiddenError, StoreUnavailableError

from darkbloom_billing.history.questions import Question

TIMEOUT_S = 15
_CONNECT_S = 10
_SETTINGS = {
    "default_transaction_read_only": "on",
    "statement_timeout": f"{TIMEOUT_S}s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "60s",
    "application_name": "darkbloom-history",
}
_WHERE = """
    SELECT pg_is_in_recovery() AS is_replica,
      extract(epoch FROM now() - pg_last_xact_replay_timestamp())::bigint AS lag_s,
      (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
        OR has_table_privilege('ledger.event', 'INSERT') AS may_write
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows, and how far they can be believed."""

    rows: Sequence[Mapping[str, Any]]
    truncated: bool
    """There are more; ask about a shorter time."""
    is_replica: bool
    lag_s: int
    """Age of the newest that a replica has; idle time counts, too. 0: the primary."""


async def ask(
    url: Secret,
    question: Question,
    *,
    since: datetime,
    until: datetime,
    limit: int,
    values: Sequence[str],
) -> Answer:
    """Ask.

    Args:
        url: The replica, as a login of `darkbloom_reader`.
        question: One of `QUESTIONS`.
        since: From here.
        until: To here, exclusive.
        limit: Most rows.
        values: Of the parameters that the question names.

    Raises:
        ForbiddenError: The login could write: history is read as somebody who cannot.
        DeadlineError: It took longer than 15 s.
        StoreUnavailableError: The database does not answer.
    """
    try:
        connection = await asyncpg.connect(
            url.reveal(), timeout=_CONNECT_S, server_settings=_SETTINGS
        )
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        raise StoreUnavailableError("database does not answer") from None
    try:
        where = await connection.fetchrow(_WHERE)
        if where is None or where["may_write"]:
            raise ForbiddenError("this login may write; use one of the role darkbloom_reader")
        # One more than is wanted says whether there are more.
        found = await connection.fetch(
            question.sql, since, until, limit + 1, *values, timeout=TIMEOUT_S + 5
        )
    except asyncpg.InsufficientPrivilegeError:
        raise ForbiddenError("this login may not read history") from None
    except (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError, TimeoutError):
        raise DeadlineError("the answer took too long; ask about a shorter time") from None
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        raise StoreUnavailableError("database does not answer") from None
    finally:
        connection.terminate()
    return Answer(
        rows=[dict(row) for row in found[:limit]],
        truncated=len(found) > limit,
        is_replica=where["is_replica"],
        lag_s=where["lag_s"] or 0 if where["is_replica"] else 0,
    )
