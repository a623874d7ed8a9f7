"""The tables of one transaction: sessions, verdicts, releases."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, final

import asyncpg
from darkbloom_edge.strict_json import canonical_json, parse_json_object
from darkbloom_mesh.postgres import Connection

from darkbloom_attestation.model import (
    ChallengeState,
    CodeRelease,
    Exhibit,
    IssuedChallenge,
    IssuedRevocation,
    IssuedVerdict,
    Judged,
    Measured,
    Offer,
    Presented,
    Registration,
    Session,
    Signed,
    Standing,
    Violation,
    ViolationKind,
)

CHANNEL = "attestation_revocations"
"""Notified at the commit of every revocation."""

_MAX_HASHES_JSON = 1 << 20


@final
class SessionTable:
    """Registrations, how their sessions stand, and their challenges."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, registration: Registration) -> bool:
        """Write a new registration; False when its provider id is known already."""
        presented = registration.presented
        added = await self._connection.fetchval(
            "INSERT INTO attestation.registrations (registration_id, provider_id, blob, signature,"
            " encryption_key, version, backend, python_hash, runtime_hash, template_hashes,"
            " owner_account_id, accepted, trust_level, findings, identity_key, binary_hash,"
            " create_time, public_signature, serial_hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8,"
            " $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19) ON CONFLICT (provider_id)"
            " DO NOTHING RETURNING provider_id",
            registration.registration_id,
            presented.provider_id,
            presented.blob,
            presented.signature,
            presented.encryption_key,
            presented.version,
            presented.backend,
            presented.measured.python_hash,
            presented.measured.runtime_hash,
            _hashes_to(presented.measured),
            presented.owner_account_id,
            registration.accepted,
            registration.trust_level,
            registration.findings,
            registration.identity_key,
            registration.binary_hash,
            registration.create_time,
            presented.public_signature,
            registration.serial_hash or None,
        )
        if added is None:
            return False

        await self._connection.execute(
            "INSERT INTO attestation.sessions (provider_id) VALUES ($1)", presented.provider_id
        )
        return True

    async def lock(self, provider_id: str) -> Session | None:
        """Return a session and keep it from changing until the end of the transaction."""
        row = await self._connection.fetchrow(
            "SELECT * FROM attestation.sessions JOIN attestation.registrations USING (provider_id)"
            " WHERE provider_id = $1 FOR UPDATE OF sessions",
            provider_id,
        )
        return None if row is None else session_of(row)

    async def stand(self, provider_id: str, standing: Standing) -> None:
        """Write how a session stands."""
        await self._connection.execute(
            "UPDATE attestation.sessions SET failures = $2, timeouts = $3, untrusted = $4"
            " WHERE provider_id = $1",
            provider_id,
            standing.failures,
            standing.timeouts,
            standing.untrusted,
        )

    async def add_challenge(self, challenge: IssuedChallenge) -> None:
        """Write a pending challenge; the one that was pending before is superseded."""
        await self._connection.execute(
            "UPDATE attestation.challenges SET state = 'superseded', judge_time = $2"
            " WHERE provider_id = $1 AND state = 'pending'",
            challenge.provider_id,
            challenge.create_time,
        )
        await self._connection.execute(
            "INSERT INTO attestation.challenges (challenge_id, provider_id, nonce, asked_at,"
            " create_time, expire_time, state) VALUES ($1, $2, $3, $4, $5, $6, $7)",
            challenge.challenge_id,
            challenge.provider_id,
            challenge.nonce,
            challenge.timestamp,
            challenge.create_time,
            challenge.expire_time,
            challenge.state.value,
        )

    async def challenge(self, provider_id: str, nonce: str) -> IssuedChallenge | None:
        """Return a challenge of this session."""
        row = await self._connection.fetchrow(
            "SELECT * FROM attestation.challenges WHERE provider_id = $1 AND nonce = $2",
            provider_id,
            nonce,
        )
        if row is None:
            return None

        return IssuedChallenge(
            challenge_id=row["challenge_id"],
            provider_id=row["provider_id"],
            nonce=row["nonce"],
            timestamp=row["asked_at"],
            create_time=row["create_time"],
            expire_time=row["expire_time"],
            state=ChallengeState(row["state"]),
        )

    async def judge(self, challenge_id: str, judged: Judged) -> None:
        """Write what became of a challenge."""
        await self._connection.execute(
            "UPDATE attestation.challenges SET state = $2, status = $3, signature = $4,"
            " findings = $5, judge_time = $6 WHERE challenge_id = $1",
            challenge_id,
            judged.state.value,
            judged.status,
            judged.signature,
            judged.findings,
            judged.time,
        )


@final
class VerdictTable:
    """Verdicts, revocations and the violations behind some of them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, verdict: IssuedVerdict) -> None:
        """Write a verdict."""
        await self._connection.execute(
            "INSERT INTO attestation.verdicts (verdict_id, provider_id, code_release, trust_level,"
            " admission, document, signature, key_id, issue_time, expire_time)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            verdict.verdict_id,
            verdict.provider_id,
            verdict.code_release,
            verdict.trust_level,
            verdict.admission,
            verdict.signed.document,
            verdict.signed.signature,
            verdict.signed.key_id,
            verdict.issue_time,
            verdict.expire_time,
        )

    async def live_of_session(self, provider_id: str, now: datetime) -> Sequence[str]:
        """Return ids of verdicts in force, oldest first."""
        return await self._live("provider_id", provider_id, now)

    async def live_of_release(self, code_release: str, now: datetime) -> Sequence[str]:
        """Return ids of verdicts in force that rest on a code release, oldest first."""
        return await self._live("code_release", code_release, now)

    async def revoke(self, revocations: Sequence[IssuedRevocation]) -> None:
        """Write revocations, each at its own generation, and tell every watcher at commit."""
        if not revocations:
            return

        last = await self._connection.fetchval(
            "UPDATE attestation.generation SET generation = generation + $1 RETURNING generation",
            len(revocations),
        )
        await self._connection.executemany(
            "INSERT INTO attestation.revocations (generation, revocation_id, verdict_id, reason,"
            " document, signature, key_id, issue_time) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
            # Somebody else may have revoked it while we waited for our generation.
            " ON CONFLICT (verdict_id) DO NOTHING",
            [
                (
                    generation,
                    revocation.revocation_id,
                    revocation.verdict_id,
                    revocation.reason,
                    revocation.signed.document,
                    revocation.signed.signature,
                    revocation.signed.key_id,
                    revocation.issue_time,
                )
                for generation, revocation in enumerate(revocations, last - len(revocations) + 1)
            ],
        )
        await self._connection.execute("SELECT pg_notify($1, '')", CHANNEL)

    async def violation(self, report_id: str) -> tuple[Violation, IssuedRevocation | None] | None:
        """Return a report and the last revocation that followed it."""
        row = await self._connection.fetchrow(
            "SELECT * FROM attestation.violations WHERE report_id = $1", report_id
        )
        if row is None:
            return None

        violation = Violation(
            report_id=row["report_id"],
            provider_id=row["provider_id"],
            attempt_id=row["attempt_id"],
            kind=ViolationKind(row["kind"]),
        )
        revoked = await self._connection.fetchrow(
            "SELECT * FROM attestation.revocations WHERE revocation_id = $1", row["revocation_id"]
        )
        return violation, None if revoked is None else revocation_of(revoked)

    async def add_violation(
        self, violation: Violation, revocation_id: str | None, time: datetime
    ) -> None:
        """Write a report."""
        await self._connection.execute(
            "INSERT INTO attestation.violations (report_id, provider_id, attempt_id, kind,"
            " revocation_id, create_time) VALUES ($1, $2, $3, $4, $5, $6)",
            violation.report_id,
            violation.provider_id,
            violation.attempt_id,
            violation.kind.value,
            revocation_id,
            time,
        )

    async def _live(self, column: str, value: str, now: datetime) -> Sequence[str]:
        rows = await self._connection.fetch(
            f"SELECT verdict_id FROM attestation.verdicts WHERE {column} = $1"  # noqa: S608 - constants only
            " AND expire_time > $2 AND NOT EXISTS (SELECT FROM attestation.revocations"
            " WHERE revocations.verdict_id = verdicts.verdict_id) ORDER BY issue_time, verdict_id",
            value,
            now,
        )
        return [row["verdict_id"] for row in rows]


@final
class ReleaseTable:
    """Blessed code."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def active(self, *, development: bool) -> Sequence[CodeRelease]:
        """Return what is blessed, kept from changing until the end of the transaction."""
        rows = await self._connection.fetch(
            "SELECT * FROM attestation.code_releases WHERE active AND ($1 OR NOT development)"
            " ORDER BY code_release FOR SHARE",
            development,
        )
        return [release_of(row) for row in rows]

    async def lock(self, code_release: str) -> CodeRelease | None:
        """Return a release and keep everybody else from it until the end of the transaction."""
        row = await self._connection.fetchrow(
            "SELECT * FROM attestation.code_releases WHERE code_release = $1 FOR UPDATE",
            code_release,
        )
        return None if row is None else release_of(row)

    async def put(self, release: CodeRelease) -> None:
        """Write a release, new or not."""
        signed = release.manifest
        await self._connection.execute(
            "INSERT INTO attestation.code_releases (code_release, version, platform, python_hash,"
            " runtime_hash, template_hashes, development, active, create_time, staged, manifest,"
            " manifest_signature, manifest_key_id, offer_percent, offer_held, offer_time)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"
            " ON CONFLICT (code_release) DO UPDATE SET version = $2, platform = $3,"
            " python_hash = $4, template_hashes = $6, active = $8, staged = $10,"
            " offer_percent = $14, offer_held = $15, offer_time = $16",
            release.code_release,
            release.version,
            release.platform,
            release.measured.python_hash,
            release.measured.runtime_hash,
            _hashes_to(release.measured),
            release.development,
            release.active,
            release.create_time,
            release.staged,
            None if signed is None else signed.document,
            None if signed is None else signed.signature,
            None if signed is None else signed.key_id,
            release.offer.percent,
            release.offer.held,
            release.offer.step_time,
        )


def release_of(row: asyncpg.Record) -> CodeRelease:
    """Read a row of `code_releases`."""
    return CodeRelease(
        code_release=row["code_release"],
        version=row["version"],
        platform=row["platform"],
        measured=_measured(row),
        development=row["development"],
        active=row["active"],
        create_time=row["create_time"],
        staged=row["staged"],
        manifest=None
        if row["manifest"] is None
        else Signed(
            document=row["manifest"],
            signature=row["manifest_signature"],
            key_id=row["manifest_key_id"],
        ),
        offer=Offer(
            percent=row["offer_percent"], held=row["offer_held"], step_time=row["offer_time"]
        ),
    )


def revocation_of(row: asyncpg.Record) -> IssuedRevocation:
    """Read a row of `revocations`."""
    return IssuedRevocation(
        revocation_id=row["revocation_id"],
        verdict_id=row["verdict_id"],
        reason=row["reason"],
        signed=Signed(document=row["document"], signature=row["signature"], key_id=row["key_id"]),
        issue_time=row["issue_time"],
    )


def exhibit_of(row: asyncpg.Record) -> Exhibit:
    """Read a registration beside the last passed challenge and the verdict in force."""
    passed = None
    if row["challenge_id"] is not None:
        passed = Judged(
            state=ChallengeState.PASSED,
            time=row["judge_time"],
            status=row["status"],
            signature=row["status_signature"],
        )
    verdict = None
    if row["verdict_id"] is not None:
        verdict = IssuedVerdict(
            verdict_id=row["verdict_id"],
            provider_id=row["provider_id"],
            code_release=row["code_release"],
            signed=Signed(
                document=row["document"],
                signature=row["verdict_signature"],
                key_id=row["verdict_key_id"],
            ),
            trust_level=row["verdict_trust_level"],
            admission=row["admission"],
            issue_time=row["issue_time"],
            expire_time=row["expire_time"],
        )
    return Exhibit(
        registration=registration_of(row),
        challenge_id=row["challenge_id"] or "",
        passed=passed,
        verdict=verdict,
    )


def session_of(row: asyncpg.Record) -> Session:
    """Read a row of `sessions` joined with its registration."""
    standing = Standing(
        failures=row["failures"], timeouts=row["timeouts"], untrusted=row["untrusted"]
    )
    return Session(registration=registration_of(row), standing=standing)


def registration_of(row: asyncpg.Record) -> Registration:
    """Read a row of `registrations`."""
    presented = Presented(
        provider_id=row["provider_id"],
        blob=row["blob"],
        signature=row["signature"],
        encryption_key=row["encryption_key"],
        version=row["version"],
        backend=row["backend"],
        measured=_measured(row),
        owner_account_id=row["owner_account_id"],
        public_signature=row["public_signature"],
    )
    return Registration(
        registration_id=row["registration_id"],
        presented=presented,
        accepted=row["accepted"],
        trust_level=row["trust_level"],
        findings=tuple(row["findings"]),
        identity_key=row["identity_key"],
        binary_hash=row["binary_hash"],
        create_time=row["create_time"],
        serial_hash=row["serial_hash"] or b"",
    )


def _measured(row: asyncpg.Record) -> Measured:
    hashes: dict[str, Any] = parse_json_object(
        row["template_hashes"].encode(), max_bytes=_MAX_HASHES_JSON
    )
    return Measured(
        python_hash=row["python_hash"], runtime_hash=row["runtime_hash"], template_hashes=hashes
    )


def _hashes_to(measured: Measured) -> str:
    return canonical_json(dict(measured.template_hashes)).decode()
