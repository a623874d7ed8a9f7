"""Publishing keys and recorded changes as rows, each in its caller's transaction."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime

from darkbloom_mesh.postgres import Connection

from darkbloom_registry.changes import Change, PublishingKey, Recorded, Scope


async def record(connection: Connection, generation: int, change: Change) -> None:
    """Write down what made this generation."""
    await connection.execute(
        "INSERT INTO registry.changes (generation, change_time, actor, action, subject, detail)"
        " VALUES ($1, $2, $3, $4, $5, $6)",
        generation,
        change.time,
        change.actor,
        change.action,
        change.subject,
        json.dumps(dict(change.detail)),
    )


async def page(connection: Connection, before: int, limit: int) -> Sequence[Recorded]:
    """Return changes of generations below `before`, newest first."""
    rows = await connection.fetch(
        "SELECT * FROM registry.changes WHERE generation < $1 ORDER BY generation DESC LIMIT $2",
        before,
        limit,
    )
    return tuple(
        Recorded(
            generation=row["generation"],
            change=Change(
                actor=row["actor"],
                action=row["action"],
                subject=row["subject"],
                time=row["change_time"],
                detail=json.loads(row["detail"]),
            ),
        )
        for row in rows
    )


async def key(connection: Connection, digest: bytes) -> PublishingKey | None:
    """Return an active key by its hash."""
    row = await connection.fetchrow(
        "SELECT label, scopes FROM registry.publishing_keys WHERE key_sha256 = $1 AND active",
        digest,
    )
    if row is None:
        return None
    return PublishingKey(label=row["label"], scopes=frozenset(map(Scope, row["scopes"])))


async def label_known(connection: Connection, label: str, *, active: bool) -> bool:
    """Return whether a key has this label; also one that was revoked, unless `active`."""
    return bool(
        await connection.fetchval(
            "SELECT true FROM registry.publishing_keys WHERE label = $1 AND (active OR NOT $2)",
            label,
            active,
        )
    )


async def revoke_key(connection: Connection, label: str) -> None:
    """Accept the key of this label no more."""
    await connection.execute(
        "UPDATE registry.publishing_keys SET active = false WHERE label = $1", label
    )


async def put_key(
    connection: Connection, digest: bytes, label: str, scopes: Iterable[Scope]
) -> None:
    """Write a key; one of the same label is replaced."""
    await connection.execute(
        "INSERT INTO registry.publishing_keys (key_sha256, label, scopes) VALUES ($1, $2, $3)"
        " ON CONFLICT (label) DO UPDATE SET key_sha256 = $1, scopes = $3, active = true",
        digest,
        label,
        sorted(scope.value for scope in scopes),
    )


async def ask(
    connection: Connection, digest: bytes, label: str, now: datetime, since: datetime
) -> str:
    """Note who asks for a call; return who else did since then, and forget the call."""
    # Two that ask at once are put in a row: one of them is the second.
    await connection.execute("LOCK TABLE registry.approvals IN EXCLUSIVE MODE")
    await connection.execute("DELETE FROM registry.approvals WHERE ask_time < $1", since)
    other: str | None = await connection.fetchval(
        "SELECT label FROM registry.approvals WHERE digest = $1 AND label <> $2"
        " ORDER BY ask_time LIMIT 1",
        digest,
        label,
    )
    if other is not None:
        await connection.execute("DELETE FROM registry.approvals WHERE digest = $1", digest)
        return other
    await connection.execute(
        "INSERT INTO registry.approvals (digest, label, ask_time) VALUES ($1, $2, $3)"
        " ON CONFLICT (digest, label) DO UPDATE SET ask_time = $3",
        digest,
        label,
        now,
    )
    return ""
