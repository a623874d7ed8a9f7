"""The tables of sessions as lives: who went on where another one ended, and what was asked."""

from collections.abc import Sequence
from datetime import datetime
from typing import final

from darkbloom_edge.apple.mdm_webhook import OutstandingCommand, RequestType
from darkbloom_mesh.postgres import Connection

from darkbloom_attestation.evidence import Continuity, key_subject
from darkbloom_attestation.model import Registration, Session
from darkbloom_attestation.tables import session_of


@final
class LifeTable:
    """How sessions of one machine follow each other."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def lock_holders(
        self, provider_id: str, serial_hash: bytes, now: datetime
    ) -> Sequence[Session]:
        """Lock and return a session and all whose `hardware` verdicts in force name a serial.

        In one order, so that two reports about one device never wait for each other in a ring.
        """
        rows = await self._connection.fetch(
            "SELECT * FROM attestation.sessions JOIN attestation.registrations USING (provider_id)"
            " WHERE provider_id = $3 OR provider_id IN"
            " (SELECT provider_id FROM attestation.verdicts v"
            " WHERE v.serial_hash = $1 AND v.trust_level = 'hardware' AND v.expire_time > $2"
            " AND NOT EXISTS (SELECT FROM attestation.revocations r"
            " WHERE r.verdict_id = v.verdict_id))"
            " ORDER BY provider_id FOR UPDATE OF sessions",
            serial_hash,
            now,
            provider_id,
        )
        return [session_of(row) for row in rows]

    async def registration(self, provider_id: str) -> Registration | None:
        """Return a registration, which never changes, without locking its session."""
        row = await self._connection.fetchrow(
            "SELECT * FROM attestation.sessions JOIN attestation.registrations USING (provider_id)"
            " WHERE provider_id = $1",
            provider_id,
        )
        return None if row is None else session_of(row).registration

    async def begin(
        self, provider_id: str, *, posture_since: datetime, continues: str, seen_time: datetime
    ) -> None:
        """Write from when on device evidence counts for a new session."""
        await self._connection.execute(
            "UPDATE attestation.sessions SET posture_since = $2, continues = $3, seen_time = $4"
            " WHERE provider_id = $1",
            provider_id,
            posture_since,
            continues,
            seen_time,
        )

    async def posture_since(self, provider_id: str) -> tuple[datetime, str]:
        """Return from when on device evidence counts, and the reuse decision; empty for none."""
        row = await self._connection.fetchrow(
            "SELECT posture_since, continues FROM attestation.sessions WHERE provider_id = $1",
            provider_id,
        )
        if row is None:
            raise RuntimeError("a session has vanished under its lock")

        return row["posture_since"], row["continues"]

    async def proven(self, provider_id: str, now: datetime) -> None:
        """Note that the session has just proven `hardware`."""
        await self._connection.execute(
            "UPDATE attestation.sessions SET proof_time = $2, seen_time = $2"
            " WHERE provider_id = $1",
            provider_id,
            now,
        )

    async def before(self, identity_key: bytes) -> Continuity | None:
        """Return the last session of a key that proved `hardware` after the key's tombstone."""
        row = await self._connection.fetchrow(
            "SELECT s.posture_since, s.proof_time, s.seen_time, r.serial_hash, r.runtime_hash,"
            " r.binary_hash FROM attestation.registrations r"
            " JOIN attestation.sessions s USING (provider_id)"
            " WHERE r.identity_key = $1 AND s.proof_time IS NOT NULL AND s.untrusted = ''"
            " AND s.seq > coalesce((SELECT tombstone_seq FROM attestation.subjects"
            " WHERE subject = $2), 0) ORDER BY s.seq DESC LIMIT 1",
            identity_key,
            key_subject(identity_key),
        )
        if row is None:
            return None

        return Continuity(
            posture_since=row["posture_since"],
            proof_time=row["proof_time"],
            seen_time=row["seen_time"],
            serial_hash=row["serial_hash"] or b"",
            runtime_hash=row["runtime_hash"],
            binary_hash=row["binary_hash"],
        )


@final
class CommandTable:
    """What the device manager was asked."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def ask(self, command: OutstandingCommand) -> None:
        """Write an outstanding command."""
        await self._connection.execute(
            "INSERT INTO attestation.mdm_commands (command_uuid, udid, request_type, provider_id,"
            " create_time) VALUES ($1, $2, $3, $4, $5)",
            command.command_uuid,
            command.udid,
            command.request_type.value,
            command.provider_id,
            command.create_time,
        )

    async def consume(self, command_uuid: str) -> OutstandingCommand | None:
        """Take a command out, in one statement; None where none of this id is outstanding."""
        row = await self._connection.fetchrow(
            "DELETE FROM attestation.mdm_commands WHERE command_uuid = $1 RETURNING *",
            command_uuid,
        )
        if row is None:
            return None

        return OutstandingCommand(
            command_uuid=row["command_uuid"],
            udid=row["udid"],
            request_type=RequestType(row["request_type"]),
            provider_id=row["provider_id"],
            create_time=row["create_time"],
        )
